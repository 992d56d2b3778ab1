//! `integration new`, `integration show`, `integration manifest`.

mod manifest;
mod new;

use std::path::Path;

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
        /// Write the bridge's secret into the URLs instead of masking it
        #[arg(long)]
        show_secret: bool,
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
            show_secret,
        } => show(config, &name, format, show_secret),
        Command::Manifest(args) => manifest::run(config, *args).await,
    }
}

fn show(config: Option<&Path>, name: &str, format: Format, show_secret: bool) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let described = configuration::describe(name, &settings, &folder, show_secret).map_err(Failure::Usage)?;
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
