//! The command line.

mod check;
mod connector;
mod health;
mod integration;
mod keys;
mod manage;
mod ops;
mod serve;
mod transfer;
mod typed;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use process::settings::{Settings, Source};
use tokio_util::sync::CancellationToken;

use crate::demo;
use crate::wiring::Role;

/// A Talkdesk integration bridge that answers from cached snapshots.
///
/// Workers pre-fetch a CRM's contacts under its rate limits; the front answers Talkdesk's sync from the snapshot in
/// milliseconds, whatever the CRM is doing.
///
/// Try it without anything installed: `snapbridge demo`. Run your own integration in one process: `snapbridge up`.
/// In production: `snapbridge migrate` once, then any number of `snapbridge serve` and `snapbridge worker`.
#[derive(Debug, Parser)]
#[command(name = "snapbridge", version, max_term_width = 120)]
struct Cli {
    /// Settings file [default: $SNAPBRIDGE_CONFIG, else ./snapbridge.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Front and worker in one process on an embedded store (SQLite); durable, nothing else needed
    ///
    /// Store, queue and key file lie in one folder, which one process uses at a time. Settings may name Redis and RabbitMQ
    /// instead.
    Up {
        /// Folder of store, queue and key file
        #[arg(long, value_name = "DIR", default_value = ".snapbridge")]
        data: PathBuf,
    },
    /// The HTTP front: Talkdesk's endpoints and webhooks, on Redis and RabbitMQ
    ///
    /// Needs keys.file, the same one for every front and worker (`snapbridge keys new FILE`). The admin listener has
    /// /healthz, /readyz and /metrics.
    Serve,
    /// A worker: refreshes snapshots under the CRM's rate limits, on Redis and RabbitMQ
    ///
    /// Start as many as you like: they share the budgets of each CRM. SIGTERM lets the page in hand end, for at most
    /// worker.stop_grace.
    Worker,
    /// Brings the layouts of store and queue up to date; safe to run twice
    Migrate {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Only say what has been done
        #[arg(long, conflicts_with = "dry_run")]
        status: bool,
    },
    /// Writes what another store needs to go on in this one's place: accounts, pauses, erasures, audit
    ///
    /// Credentials stay sealed, so the file is worth nothing without the key file, which is not in it. Snapshots are not,
    /// either: they are built anew. An embedded store must not be in use.
    Export {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder of the embedded store, where the settings name none
        #[arg(long, value_name = "DIR", default_value = ".snapbridge")]
        data: PathBuf,
    },
    /// Takes in what `export` wrote, and has the snapshots of its accounts built; safe to run twice
    ///
    /// Needs the key file of the installation that wrote it.
    Import {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder of the embedded store, where the settings name none
        #[arg(long, value_name = "DIR", default_value = ".snapbridge")]
        data: PathBuf,
    },
    /// Plays the whole story on this machine: a fake CRM, the bridge, and Talkdesk's synchronizer
    Demo(demo::Args),
    /// Serves a fake CRM with generated contacts and a knob for every trap
    FakeCrm(fake_crm::Cli),
    /// Plays Talkdesk against a bridge, this one or any other
    Talkdesk {
        #[command(subcommand)]
        command: TalkdeskCommand,
    },
    /// Connectors: what speaks to a CRM, one TOML file each
    Connector {
        #[command(subcommand)]
        command: connector::Command,
    },
    /// Integrations: a new one, and the documents that Talkdesk asks for
    Integration {
        #[command(subcommand)]
        command: integration::Command,
    },
    /// Settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Depth and oldest age per lane, dead letters, and each account's state in one sentence
    ///
    /// Reads the store and the queue of the settings; without a store there, the embedded one in --data.
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Folder of the embedded store and queue
        #[arg(long, value_name = "DIR", default_value = ".snapbridge")]
        data: PathBuf,
        /// Accounts to show at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        accounts: usize,
        /// Again and again, every SECONDS
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
            value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// Accounts: list them, show one with its work and history, add one, forget one
    ///
    /// This and the commands below ask the admin listener of a running `up`, `serve` or `worker`, with a token of [ops].
    Accounts {
        #[command(flatten)]
        access: ops::Access,
        #[command(subcommand)]
        command: Option<ops::Accounts>,
    },
    /// Looks at everything at once: settings, keys, store, queue, public URL and certificate, credentials of every account
    ///
    /// Each check says what was seen and what to do. Exit code 0: no errors; 1: errors (with --strict, warnings too).
    Doctor {
        #[command(flatten)]
        access: ops::Access,
        #[command(flatten)]
        args: ops::Doctor,
    },
    /// One contact: why it is, or is not, delivered; erase it
    Contact {
        #[command(flatten)]
        access: ops::Access,
        #[command(subcommand)]
        command: ops::Contact,
    },
    /// Checkpoints and offsets: what Talkdesk carries for us
    Token {
        #[command(flatten)]
        access: ops::Access,
        #[command(subcommand)]
        command: ops::Token,
    },
    /// Linking of a DMS and Web1on1: report, link all, take links away
    Link {
        #[command(flatten)]
        access: ops::Access,
        #[command(subcommand)]
        command: ops::Link,
    },
    /// Dead letters: work that was given up. List, redrive, discard
    Dead {
        #[command(flatten)]
        access: ops::Access,
        #[command(subcommand)]
        command: ops::Dead,
    },
    /// What is left of each CRM's limits, the scarcest first
    Budgets {
        #[command(flatten)]
        access: ops::Access,
    },
    /// What operators did, newest first
    Audit {
        #[command(flatten)]
        access: ops::Access,
    },
    /// Stops the work of an account, a connector or a lane until it is resumed; snapshots go on being served
    Pause {
        #[command(flatten)]
        access: ops::Access,
        #[command(flatten)]
        target: ops::Target,
    },
    /// Ends a pause
    Resume {
        #[command(flatten)]
        access: ops::Access,
        #[command(flatten)]
        target: ops::Target,
    },
    /// Refreshes an account now
    Refresh {
        #[command(flatten)]
        access: ops::Access,
        account: String,
        #[arg(long, value_enum, default_value_t = ops::What::Changes)]
        what: ops::What,
    },
    /// Prints a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Whether the process beside this one is ready: 0 if its /readyz answers 200, else 1
    ///
    /// For health checks of containers, which have no other tool.
    Health {
        /// Its admin listener [default: http.admin_listen of the settings, on this machine]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Key files and the rotation of sealing keys; hashes of secrets
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
}

#[derive(Debug, Subcommand)]
enum TalkdeskCommand {
    /// Plays the synchronizer for a whole run: pages, checkpoint, progress bar
    Sync(talkdesk::player::Cli),
    /// Prints the URLs that the integration configuration asks for, from http.public_url; a path secret shows as SECRET
    Urls,
    /// Checks a bridge, this one or any other, against Talkdesk's contract: which rules it breaks, and what was seen
    ///
    /// Reads only, unless --write is given; a few requests carry wrong credentials. Exit code 0: no errors; 1: errors
    /// (with --strict, warnings too); 2: it could not be checked.
    Check(Box<talkdesk::check::Cli>),
    /// Plays an agent sync and prints the agents, one JSON object per line
    Agents(talkdesk::player::AgentsCli),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks the settings and their integrations; prints the effective ones, secrets masked
    Check,
    /// Prints every setting with its meaning and default: a snapbridge.toml to start from
    Reference,
}

/// Usage and settings errors, as against failures at work (1).
const USAGE: u8 = 2;

/// Why a command ended badly.
enum Failure {
    /// Settings or arguments, one problem a line.
    Usage(Vec<String>),
    Work(anyhow::Error),
    /// Everything has been told; only the exit code is left.
    Told(u8),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Work(error)
    }
}

pub fn main() -> ExitCode {
    process::tls::install_provider();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&Failure::Work(error.into())),
    };
    let result = runtime.block_on(run(cli));
    // Blocking threads (SQLite readers) must not keep a process that is done.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed")]
fn tell(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Usage(problems) => {
            for problem in problems {
                eprintln!("error: {problem}");
            }
            ExitCode::from(USAGE)
        }
        Failure::Work(error) => {
            eprintln!("error: {}", process::chain(error.as_ref()));
            ExitCode::FAILURE
        }
        Failure::Told(code) => ExitCode::from(*code),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Up { data } => serve::up(config, data).await,
        Command::Serve => serve::distributed(config, Role::Front).await,
        Command::Worker => serve::distributed(config, Role::Worker).await,
        Command::Migrate { dry_run, status } => manage::migrate(config, dry_run, status).await,
        Command::Export { file, data } => transfer::export(config, &file, data).await,
        Command::Import { file, data } => transfer::import(config, &file, data).await,
        Command::Demo(args) => Ok(demo::run(args).await?),
        Command::FakeCrm(args) => {
            let stop = CancellationToken::new();
            process::stop::on_signals(stop.clone()).map_err(anyhow::Error::from)?;
            Ok(fake_crm::run(args, stop).await?)
        }
        Command::Talkdesk {
            command: TalkdeskCommand::Sync(args),
        } => Ok(talkdesk::player::run(args).await.map_err(anyhow::Error::from)?),
        Command::Talkdesk {
            command: TalkdeskCommand::Urls,
        } => check::urls(config),
        Command::Talkdesk {
            command: TalkdeskCommand::Check(args),
        } => check::bridge(*args).await,
        Command::Talkdesk {
            command: TalkdeskCommand::Agents(args),
        } => Ok(talkdesk::player::run_agents(args).await.map_err(anyhow::Error::from)?),
        Command::Connector { command } => connector::run(command).await,
        Command::Integration { command } => integration::run(config, command).await,
        Command::Config {
            command: ConfigCommand::Check,
        } => check::config(config).await,
        Command::Config {
            command: ConfigCommand::Reference,
        } => {
            print(&Settings::reference());
            Ok(())
        }
        Command::Status {
            json,
            data,
            accounts,
            watch,
        } => manage::status(config, json, data, accounts, watch).await,
        Command::Accounts { access, command } => ops::accounts(config, access, command).await,
        Command::Doctor { access, args } => ops::doctor(config, access, args).await,
        Command::Contact { access, command } => ops::contact(config, access, command).await,
        Command::Token { access, command } => ops::token(config, access, command).await,
        Command::Link { access, command } => ops::link(config, access, command).await,
        Command::Dead { access, command } => ops::dead(config, access, command).await,
        Command::Budgets { access } => ops::budgets(config, access).await,
        Command::Audit { access } => ops::audit(config, access).await,
        Command::Pause { access, target } => ops::hold(config, access, target, "pause").await,
        Command::Resume { access, target } => ops::hold(config, access, target, "resume").await,
        Command::Refresh { access, account, what } => ops::refresh(config, access, &account, what).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "snapbridge", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Health { url } => health::check(config, url.as_deref()).await,
        Command::Keys { command } => keys::run(config, command).await,
    }
}

/// The settings, and the folder where their relative paths start.
fn settings(config: Option<&Path>) -> Result<(Settings, PathBuf), Failure> {
    let lines = |problems: Vec<process::Problem>| Failure::Usage(problems.iter().map(ToString::to_string).collect());
    let source = Source::gather(config.map(Path::to_path_buf), std::env::vars_os()).map_err(lines)?;
    let folder = source
        .file
        .as_ref()
        .and_then(|file| file.path.parent())
        .map(Path::to_path_buf)
        .unwrap_or_default();
    let settings = Settings::load(&source).map_err(lines)?;
    Ok((settings, folder))
}

/// What a command was asked for goes to stdout, logs to stderr. A reader that has gone (`| head`) is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
