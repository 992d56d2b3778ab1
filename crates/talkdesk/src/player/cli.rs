//! The player as a command.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use url::Url;

use super::{
    CheckpointFile, Ended, Keep, Patience, PlayError, Player, PlayerState, Progress, RunSummary, StateError, client,
};
use crate::wire::Auth;

/// Arguments of the player.
#[derive(Clone, Debug, clap::Args)]
pub struct Cli {
    /// Contact sync URL of any bridge, such as http://127.0.0.1:8080/acme/contact_sync
    pub url: Url,

    /// Field of `auth`; repeat for more. KEY=@FILE takes the value from a file
    #[arg(long = "auth", value_name = "KEY=VALUE")]
    pub auth: Vec<AuthField>,

    /// Where the checkpoint is kept from run to run, by URL
    #[arg(long, value_name = "FILE", default_value = "./.snapbridge-sync.json")]
    pub checkpoint_file: PathBuf,

    /// Start anew: send no checkpoint, whatever is kept
    #[arg(long)]
    pub full: bool,

    /// Which page's checkpoint is kept
    #[arg(long, value_enum, default_value_t)]
    pub keep: Keep,

    /// Append every contact to this file, one JSON object per line; of lines with one id the last counts
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    /// No progress bar, no summary
    #[arg(long)]
    pub quiet: bool,

    /// Seconds one page may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub page_timeout: u64,
}

/// `KEY=VALUE` or `KEY=@FILE`, as typed. Taken apart only by [`run`], so that no usage error repeats it.
#[derive(Clone)]
pub struct AuthField(String);

impl FromStr for AuthField {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for AuthField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthField(***)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{option} number {number} is not KEY=VALUE")]
    Field { option: &'static str, number: usize },
    #[error("{option} {key}: its file {} cannot be read", path.display())]
    FieldFile {
        option: &'static str,
        key: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the URL must begin with http:// or https://")]
    Url,
    #[error("no HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("--out {} cannot be opened", path.display())]
    Out {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the summary cannot be printed")]
    Print(#[source] io::Error),
    #[error("the sync is not complete")]
    Play(#[source] PlayError),
}

/// Plays one run, prints its summary on stdout and keeps its checkpoint. A run that fails is summed up too, then it is
/// the error.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    if !matches!(cli.url.scheme(), "http" | "https") {
        return Err(CliError::Url);
    }
    let auth = fields("--auth", &cli.auth)?;
    let file = CheckpointFile::new(&cli.checkpoint_file);
    // Read in any case: a file that could not be written in the end had better be known now.
    let mut state = file.load(&cli.url)?;
    if cli.full {
        state = PlayerState::default();
    }
    let http = client(&cli.url).map_err(CliError::Client)?;
    let bar = if cli.quiet {
        ProgressBar::hidden()
    } else {
        progress_bar()
    };
    let patience = Patience {
        page_timeout: Duration::from_secs(cli.page_timeout),
        ..Patience::default()
    };
    let shown = bar.clone();
    let mut player = Player::new(cli.url.clone(), auth, http)
        .patience(patience)
        .keep(cli.keep)
        .on_progress(move |progress| show(&shown, progress));
    if let Some(path) = &cli.out {
        player = player.out(BufWriter::new(open_out(path)?));
    }
    let summary = player.run(&mut state).await;
    bar.finish_and_clear();
    file.save(&cli.url, &state)?;
    if !cli.quiet {
        print(&summary, cli.json).map_err(CliError::Print)?;
    }
    summary.complete().map(|_| ()).map_err(CliError::Play)
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// The fields of one option, with the values that are in files.
pub(crate) fn fields(option: &'static str, fields: &[AuthField]) -> Result<Auth, CliError> {
    fields
        .iter()
        .enumerate()
        .map(|(index, AuthField(text))| field(option, index + 1, text))
        .collect()
}

fn field(option: &'static str, number: usize, text: &str) -> Result<(String, String), CliError> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or(CliError::Field { option, number })?;
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| CliError::FieldFile {
                option,
                key: key.to_owned(),
                path: path.into(),
                source,
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok((key.to_owned(), value))
}

fn open_out(path: &PathBuf) -> Result<File, CliError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| CliError::Out {
            path: path.clone(),
            source,
        })
}

/// On stderr, and only where that is a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} contacts, {msg} ({per_sec}, {elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.contacts);
    let mut message = format!("{} pages", progress.pages);
    if progress.empty_pages > 0 {
        message.push_str(&format!(", {} of them empty", progress.empty_pages));
    }
    if let Some(pause) = progress.waiting {
        message.push_str(&format!(", waiting {:.1} s", pause.as_secs_f64()));
    }
    bar.set_message(message);
}

fn print(summary: &RunSummary, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, summary)?;
        return writeln!(out);
    }
    out.write_all(text(summary).as_bytes())
}

fn text(summary: &RunSummary) -> String {
    let how = match &summary.ended {
        Ended::Complete => "complete",
        Ended::Failed { .. } => "not complete",
    };
    let repeats = match summary.contacts - summary.distinct {
        0 => String::new(),
        repeats => format!(" ({repeats} of them repeats)"),
    };
    let ms = summary.page_ms;
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    format!(
        "{how}: {} contacts{repeats} on {} pages ({} empty), {} bytes, {:.1} s\n\
         page ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1}; waited {:.1} s; {} retries\n\
         checkpoint: {}\n",
        summary.contacts,
        summary.pages,
        summary.empty_pages,
        summary.bytes,
        seconds(summary.total_ms),
        ms.p50,
        ms.p90,
        ms.p99,
        ms.max,
        seconds(summary.wait_ms),
        summary.retries,
        summary.checkpoint_last.as_deref().unwrap_or("none"),
    )
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        cli: Cli,
    }

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Line::try_parse_from([&["sync"], arguments].concat()).map(|line| line.cli)
    }

    #[test]
    fn arguments_have_their_defaults_and_hide_credentials() {
        Line::command().debug_assert();
        let cli = parse(&[
            "http://localhost/contact_sync",
            "--auth",
            "token=canary",
            "--auth",
            "account=acme",
        ])
        .unwrap();
        assert_eq!(cli.checkpoint_file, PathBuf::from("./.snapbridge-sync.json"));
        assert_eq!(
            (cli.keep, cli.page_timeout, cli.full, cli.json, cli.quiet),
            (Keep::Last, 60, false, false, false)
        );
        assert!(!format!("{cli:?}").contains("canary"));
        let auth = fields("--auth", &cli.auth).unwrap();
        assert_eq!((auth["token"].as_str(), auth["account"].as_str()), ("canary", "acme"));
        assert!(parse(&["contact_sync"]).is_err() && parse(&["http://localhost", "--page-timeout", "0"]).is_err());
    }

    #[test]
    fn credentials_come_from_files_and_a_wrong_one_is_not_repeated() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"from the file\n").unwrap();
        let given = |text: String| fields("--auth", &[AuthField("a=b=c".into()), AuthField(text)]);
        let auth = given(format!("token=@{}", file.path().display())).unwrap();
        assert_eq!((auth["token"].as_str(), auth["a"].as_str()), ("from the file", "b=c"));
        for wrong in ["canary", "=canary"] {
            let error = given(wrong.into()).unwrap_err();
            assert!(matches!(error, CliError::Field { number: 2, .. }) && !error.to_string().contains("canary"));
        }
        assert!(matches!(
            given("token=@/nowhere/at/all".into()),
            Err(CliError::FieldFile { .. })
        ));
    }

    #[test]
    fn the_summary_reads_well() {
        let summary = RunSummary {
            contacts: 1200,
            distinct: 1100,
            pages: 3,
            empty_pages: 1,
            bytes: 4096,
            page_ms: super::super::PageMillis {
                p50: 1.0,
                p90: 2.0,
                p99: 2.0,
                max: 2.0,
            },
            wait_ms: 1500,
            total_ms: 2000,
            retries: 2,
            checkpoint_first: None,
            checkpoint_last: Some("v1.c".into()),
            ended: Ended::Complete,
        };
        assert_eq!(
            text(&summary),
            "complete: 1200 contacts (100 of them repeats) on 3 pages (1 empty), 4096 bytes, 2.0 s\n\
             page ms: p50 1.0, p90 2.0, p99 2.0, max 2.0; waited 1.5 s; 2 retries\n\
             checkpoint: v1.c\n"
        );
    }
}
