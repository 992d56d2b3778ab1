//! `integration new`, `integration show`, `integration manifest`.

mod manifest;
mod new;

use std::path::Path;

use super::typed::Typed;
use super::{Failure, print, settings};
use crate::paperwork::{configuration, markdown};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Writes a new integration into the settings file: asks on a terminal, else takes what it needs from its flags
    ///
    /// Nothing that is there already is changed. What would not pass `config check` is not written.
    New(Box<new::Args>),
    /// Prints what Talkdesk has to be told: the configuration of the integration and of its actions
    ///
    /// Every problem comes at once, with its place and where to mend it; then nothing is printed.
    Show {
        /// Name of the integration
        name: String,
        /// Form of the document
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// The bridge's secret, which is masked in the URLs unless it is given; @FILE takes it from a file
        #[arg(long, value_name = "SECRET|@FILE")]
        path_secret: Option<Typed>,
    },
    /// Writes the API manifest that Talkdesk asks for, filled in: Markdown, PDF, and an e-mail with the PDF attached
    ///
    /// Its examples come from a live run of a bridge of its own (--auth: against the configured CRM; --fake: against a
    /// made-up one), or from files (--examples). Credentials are masked, and with --auth people, too.
    Manifest(Box<manifest::Args>),
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Json,
    Md,
}

pub async fn run(config: Option<&Path>, command: Command) -> Result<(), Failure> {
    match command {
        Command::New(args) => new::run(config, *args),
        Command::Show {
            name,
            format,
            path_secret,
        } => show(config, &name, format, path_secret.as_ref()),
        Command::Manifest(args) => manifest::run(config, *args).await,
    }
}

fn show(config: Option<&Path>, name: &str, format: Format, secret: Option<&Typed>) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let secret = secret.map(|typed| typed.value("--path-secret")).transpose();
    let secret = secret.map_err(|problem| Failure::Usage(vec![problem]))?;
    let described = configuration::describe(name, &settings, &folder, secret.as_deref()).map_err(Failure::Usage)?;
    match format {
        Format::Json => print(&described.json()),
        Format::Md => print(&markdown::render(&described.document())),
    }
    Ok(())
}

/// What a person should know although the command went well.
#[expect(clippy::print_stderr, reason = "remarks beside what was asked for")]
fn remark(text: &str) {
    eprintln!("{text}");
}
