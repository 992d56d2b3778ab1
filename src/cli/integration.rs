//! `integration new`, `integration show`, `integration manifest`.

mod manifest;
mod new;

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

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

/// A value, `@FILE`, `KEY=VALUE` or `KEY=@FILE`, as typed. Taken apart only here, so that no usage error repeats a secret.
#[derive(Clone)]
pub struct Typed(String);

impl FromStr for Typed {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Typed, Infallible> {
        Ok(Typed(text.to_owned()))
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(***)")
    }
}

impl Typed {
    /// The value, or what its file holds.
    fn value(&self, option: &str) -> Result<String, String> {
        value(option, &self.0)
    }
}

fn value(option: &str, typed: &str) -> Result<String, String> {
    match typed.strip_prefix('@').map(std::fs::read_to_string) {
        None => Ok(typed.to_owned()),
        Some(Ok(text)) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Some(Err(error)) => Err(format!("{option}: its file cannot be read: {error}")),
    }
}

/// The pairs of one option, with the values that are in files; what is wrong goes to the problems, never with a value.
fn pairs(option: &str, typed: &[Typed], problems: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, Typed(text)) in typed.iter().enumerate() {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            problems.push(format!("{option} number {} is not KEY=VALUE", index + 1));
            continue;
        };
        match self::value(&format!("{option} {key}"), value) {
            Ok(value) => found.push((key.to_owned(), value)),
            Err(problem) => problems.push(problem),
        }
    }
    found
}
