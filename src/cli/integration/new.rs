//! `integration new`: one block more in the settings file.

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use crm::{Connector, FieldSource, FieldType};
use process::settings::{DEFAULT_FILE, FILE_VARIABLE, FileText, PREFIX, Settings, Source};
use serde_json::Value;

use super::remark;
use crate::cli::typed::{Typed, pairs};
use crate::cli::{Failure, check, print};
use crate::integrations::connector_source;
use crate::paperwork::configuration::{MASK, crm_name};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the integration, which stands in its URLs: a-z, 0-9, _ and -
    name: Option<String>,
    /// Name of a shipped connector, or path of a connector's file, from the settings file's folder
    #[arg(long, value_name = "ID|FILE")]
    connector: Option<String>,
    /// How Talkdesk asks for credentials [default: custom]
    #[arg(long, value_name = "TYPE", value_parser = AUTH_TYPES)]
    auth_type: Option<String>,
    /// Name that people see in Talkdesk [default: the connector's title]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// What it is for, one sentence for people in Talkdesk
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Host that the connector may call although it is private, plain http or on another port; repeat for more
    #[arg(long = "allow-host", value_name = "HOST|URL")]
    allow_hosts: Vec<String>,
    /// Region of phone numbers without a country code, two letters such as PT
    #[arg(long, value_name = "XX")]
    region: Option<String>,
    /// Value of the connector that you fix; repeat for more. KEY=@FILE takes the value from a file
    #[arg(long = "connection", value_name = "KEY=VALUE")]
    connection: Vec<Typed>,
    /// Put a new random secret into the URLs (always done where the type is none); it is shown once, and kept as a hash
    #[arg(long)]
    path_secret: bool,
}

const AUTH_TYPES: [&str; 5] = [
    "none",
    "custom",
    "oauth2",
    "oauth2_password",
    "oauth2_client_credentials",
];

/// What will be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    name: String,
    /// Keys of the block, each with its value as TOML, and whether it is a secret.
    keys: Vec<(String, String, bool)>,
    connection: Vec<(String, String, bool)>,
    /// The secret of the URLs, of which the block has the hash.
    fresh: Option<String>,
}

pub fn run(config: Option<&Path>, args: Args) -> Result<(), Failure> {
    let place = Place::find(config)?;
    let stdin = std::io::stdin();
    let mut asker = Asker {
        input: stdin.is_terminal().then(|| stdin.lock()),
        output: std::io::stderr(),
    };
    let block = gather(args, &place, &mut asker)?;
    place.write(&block)?;
    print(&block.text(true));
    if let Some(secret) = &block.fresh {
        remark(&format!("the secret of its URLs, shown this once: {secret}"));
    }
    remark(&format!(
        "written into {}. Next: snapbridge config check; snapbridge integration show {}",
        place.path.display(),
        block.name
    ));
    Ok(())
}

/// The settings file, which need not be there yet.
struct Place {
    path: PathBuf,
    text: String,
    is_new: bool,
}

impl Place {
    fn find(config: Option<&Path>) -> Result<Place, Failure> {
        let named = std::env::var_os(FILE_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let path = config
            .map(Path::to_path_buf)
            .or(named)
            .unwrap_or_else(|| DEFAULT_FILE.into());
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Place {
                path,
                text,
                is_new: false,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Place {
                path,
                text: String::new(),
                is_new: true,
            }),
            Err(error) => Err(Failure::Usage(vec![format!(
                "{} cannot be read: {error}",
                path.display()
            )])),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The settings as they would be with `more` at the end of the file.
    fn settings(&self, more: &str) -> Result<Settings, Failure> {
        let lines =
            |problems: Vec<process::Problem>| Failure::Usage(problems.iter().map(ToString::to_string).collect());
        let mut source = Source::text("");
        source.file = Some(FileText {
            path: self.path.clone(),
            text: format!("{}{more}", self.text),
        });
        source.env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX) && name != FILE_VARIABLE)
            .collect();
        Settings::load(&source).map_err(lines)
    }

    /// What stands between the file's last line and the block.
    fn gap(&self) -> &'static str {
        match (self.text.is_empty(), self.text.ends_with('\n')) {
            (true, _) => "",
            (false, true) => "\n",
            (false, false) => "\n\n",
        }
    }

    /// Appends the block, if the settings are good with it. One write at the end of the file: whatever stands in it stays.
    fn write(&self, block: &Block) -> Result<(), Failure> {
        let more = format!("{}{}", self.gap(), block.text(false));
        let settings = self.settings(&more)?;
        check::loaded(&settings, self.folder())?;
        let mut options = OpenOptions::new();
        if self.is_new {
            options.write(true).create_new(true);
            // Values of connections may be secrets.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        } else {
            options.append(true);
        }
        let written = options.open(&self.path).and_then(|mut file| {
            file.write_all(more.as_bytes())?;
            file.sync_all()
        });
        Ok(written.with_context(|| format!("{} cannot be written", self.path.display()))?)
    }
}

/// Questions and answers, on a terminal; without one, every question is a missing flag.
struct Asker<R, W> {
    input: Option<R>,
    output: W,
}

impl<R: BufRead, W: Write> Asker<R, W> {
    fn is_there(&self) -> bool {
        self.input.is_some()
    }

    /// Asks until `good` takes the answer. An empty one is the default, if there is one.
    fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        good: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let Some(input) = &mut self.input else {
            return Err(Failure::Usage(vec![format!("{question} is missing")]));
        };
        let shown = default.filter(|default| !default.is_empty());
        let hint = shown.map_or_else(String::new, |default| format!(" [{default}]"));
        loop {
            let _ = write!(self.output, "{question}{hint}: ").and_then(|()| self.output.flush());
            let mut line = String::new();
            let read = input.read_line(&mut line).map_err(anyhow::Error::from)?;
            if read == 0 {
                let _ = writeln!(self.output);
                return Err(Failure::Usage(vec![
                    "the answers ended; nothing was written".to_owned(),
                ]));
            }
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                (answer, _) => answer,
            };
            match good(answer) {
                Ok(value) => return Ok(value),
                Err(why) => {
                    let _ = writeln!(self.output, "  {why}");
                }
            }
        }
    }
}

fn gather<R: BufRead, W: Write>(args: Args, place: &Place, asker: &mut Asker<R, W>) -> Result<Block, Failure> {
    // A file that is broken already would hide what is wrong with the block.
    let settings = place.settings("")?;
    let mut missing = Vec::new();
    if !asker.is_there() {
        if args.name.is_none() {
            missing.push("the name is missing".to_owned());
        }
        if args.connector.is_none() {
            missing.push("--connector is missing".to_owned());
        }
    }
    if !missing.is_empty() {
        return Err(Failure::Usage(missing));
    }
    let free = |name: &str| match (is_name(name), settings.integrations.contains_key(name)) {
        (false, _) => Err(format!("{name:?} cannot be a name: 1 to 64 of a-z, 0-9, _ and -")),
        (true, true) => Err(format!("integrations.{name} is there already; nothing is overwritten")),
        (true, false) => Ok(name.to_owned()),
    };
    let name = match &args.name {
        Some(name) => free(name).map_err(|problem| Failure::Usage(vec![problem]))?,
        None => asker.ask("Name, as it stands in the URLs", None, free)?,
    };
    let load = |id: &str| -> Result<(String, Connector), Vec<String>> {
        let (source, file) = connector_source(id, place.folder()).map_err(|problem| vec![problem])?;
        let loaded = Connector::load(&source, &file);
        loaded
            .map(|connector| (id.to_owned(), connector))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    };
    let shipped = Connector::shipped_ids().collect::<Vec<_>>().join(", ");
    let (id, connector) = match &args.connector {
        Some(id) => load(id).map_err(Failure::Usage)?,
        None => {
            let question = format!("Connector ({shipped}, or the path of a file)");
            asker.ask(&question, None, |id| load(id).map_err(|problems| problems.join("\n  ")))?
        }
    };
    let asked = args.connector.is_none() || args.name.is_none();
    let mut block = Block {
        name,
        ..Block::default()
    };
    block.set("connector", &id, false);
    let auth_type = match args.auth_type {
        Some(auth_type) => auth_type,
        None if asked && asker.is_there() => asker.ask(
            "How Talkdesk asks for credentials",
            Some("custom"),
            |word| match AUTH_TYPES.contains(&word) {
                true => Ok(word.to_owned()),
                false => Err(format!("one of {}", AUTH_TYPES.join(", "))),
            },
        )?,
        None => "custom".to_owned(),
    };
    if auth_type != "custom" {
        block.set("auth_type", &auth_type, false);
    }
    if args.path_secret || auth_type == "none" {
        let secret = process::secrets::fresh();
        let hashed = process::secrets::hashed(&secret).map_err(anyhow::Error::from)?;
        block.set("path_secret", &hashed, false);
        block.fresh = Some(secret);
    }
    let optional = |given: Option<String>, question: &str, default: &str, asker: &mut Asker<R, W>| match given {
        Some(given) => Ok(given),
        None if asked && asker.is_there() => asker.ask(question, Some(default), |text| Ok(text.to_owned())),
        None => Ok(String::new()),
    };
    let title = crm_name(connector.title());
    let display_name = optional(args.display_name, "Name that people see", title, asker)?;
    let description = optional(
        args.description,
        "What it is for, one sentence (may be empty)",
        "",
        asker,
    )?;
    let region = optional(
        args.region,
        "Region of phone numbers, such as PT (may be empty)",
        "",
        asker,
    )?;
    for (key, value) in [
        ("display_name", &display_name),
        ("description", &description),
        ("region", &region),
    ] {
        if !value.is_empty() {
            block.set(key, value, false);
        }
    }
    let mut hosts = args.allow_hosts;
    if hosts.is_empty() {
        let question = "Hosts that are private, plain http or on another port, separated by commas (may be empty)";
        let answer = optional(None, question, "", asker)?;
        let listed = answer.split(',').map(str::trim).filter(|host| !host.is_empty());
        hosts.extend(listed.map(str::to_owned));
    }
    if !hosts.is_empty() {
        let list = Value::from(hosts).to_string();
        block.keys.push(("allow_hosts".to_owned(), list, false));
    }
    connection(&mut block, &args.connection, &connector, asker)?;
    Ok(block)
}

/// The values of the connector that the operator fixes: those given, and those that have no default and are asked for.
fn connection<R: BufRead, W: Write>(
    block: &mut Block,
    given: &[Typed],
    connector: &Connector,
    asker: &mut Asker<R, W>,
) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let mut values = pairs("--connection", given, &mut problems);
    let mut fields: Vec<_> = connector
        .fields()
        .iter()
        .filter(|(_, field)| field.source == FieldSource::Integration)
        .collect();
    fields.sort_by_key(|(_, field)| field.at);
    for (name, field) in fields {
        let needed = field.default.is_none() && values.iter().all(|(key, _)| key != name);
        if !needed {
            continue;
        }
        if !asker.is_there() {
            problems.push(format!("--connection {name}=… is missing; the connector needs it"));
            continue;
        }
        let title = field.title.as_deref().unwrap_or(name);
        let open = match field.kind {
            FieldType::Secret => ", which will stand in the file as it is",
            _ => "",
        };
        let question = format!("{title} (connection.{name}{open})");
        let value = asker.ask(&question, None, |text| match text.is_empty() {
            true => Err("the connector needs it".to_owned()),
            false => Ok(text.to_owned()),
        })?;
        values.push((name.clone(), value));
    }
    if !problems.is_empty() {
        return Err(Failure::Usage(problems));
    }
    for (key, value) in values {
        let secret = connector
            .fields()
            .get(&key)
            .is_none_or(|field| field.kind == FieldType::Secret);
        block.connection.push((key, quoted(&value), secret));
    }
    Ok(())
}

impl Block {
    fn set(&mut self, key: &str, value: &str, secret: bool) {
        self.keys.push((key.to_owned(), quoted(value), secret));
    }

    fn text(&self, masked: bool) -> String {
        let line = |(key, value, secret): &(String, String, bool)| match masked && *secret {
            true => format!("{key} = {}\n", quoted(MASK)),
            false => format!("{key} = {value}\n"),
        };
        let mut text = format!("[integrations.{}]\n", self.name);
        text.extend(self.keys.iter().map(line));
        if !self.connection.is_empty() {
            text += &format!("\n[integrations.{}.connection]\n", self.name);
            text.extend(self.connection.iter().map(line));
        }
        text
    }
}

/// A JSON string is a TOML string, but for DEL, which TOML wants escaped.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place {
            path: DEFAULT_FILE.into(),
            text: text.to_owned(),
            is_new: text.is_empty(),
        }
    }

    fn args(list: &[&str]) -> Args {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        Line::try_parse_from(std::iter::once(&"new").chain(list)).unwrap().args
    }

    fn flags(list: &[&str], text: &str) -> Result<Block, Vec<String>> {
        let mut asker = Asker {
            input: None::<&[u8]>,
            output: Vec::new(),
        };
        gather(args(list), &place(text), &mut asker).map_err(problems)
    }

    fn problems(failure: Failure) -> Vec<String> {
        match failure {
            Failure::Usage(problems) => problems,
            Failure::Work(error) => panic!("{error:#}"),
            Failure::Told(code) => panic!("told, {code}"),
        }
    }

    #[test]
    fn flags_alone_make_a_block() {
        let block = flags(
            &[
                "crm",
                "--connector",
                "demo",
                "--region",
                "PT",
                "--allow-host",
                "http://127.0.0.1:8099",
                "--display-name",
                "My \"CRM\"",
                "--connection",
                "site=http://127.0.0.1:8099",
            ],
            "",
        )
        .unwrap();
        assert_eq!(
            block.text(false),
            "[integrations.crm]\nconnector = \"demo\"\ndisplay_name = \"My \\\"CRM\\\"\"\nregion = \"PT\"\n\
             allow_hosts = [\"http://127.0.0.1:8099\"]\n\n[integrations.crm.connection]\nsite = \"http://127.0.0.1:8099\"\n"
        );
        let place = place("[http]\nlisten = \"127.0.0.1:9000\"");
        let settings = place
            .settings(&format!("{}{}", place.gap(), block.text(false)))
            .map_err(problems)
            .unwrap();
        assert_eq!(settings.integrations["crm"].display_name.as_deref(), Some("My \"CRM\""));
        assert_eq!(settings.http.listen.port(), 9000);
    }

    #[test]
    fn without_a_terminal_everything_missing_is_named_at_once() {
        assert_eq!(
            flags(&[], "").unwrap_err(),
            ["the name is missing", "--connector is missing"]
        );
        assert_eq!(
            flags(&["crm", "--connector", "demo", "--connection", "oops"], "").unwrap_err(),
            [
                "--connection number 1 is not KEY=VALUE",
                "--connection site=… is missing; the connector needs it"
            ]
        );
        assert!(flags(&["Crm", "--connector", "odoo"], "").unwrap_err()[0].contains("cannot be a name"));
        assert!(flags(&["crm", "--connector", "nowhere"], "").unwrap_err()[0].contains("there is no connector"));
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let there = "[integrations.crm]\nconnector = \"odoo\"\n";
        assert_eq!(
            flags(&["crm", "--connector", "odoo"], there).unwrap_err(),
            ["integrations.crm is there already; nothing is overwritten"]
        );
        assert!(flags(&["other", "--connector", "odoo"], there).is_ok());
        assert!(flags(&["other", "--connector", "odoo"], "[integrations.crm]\nconnectr = 1\n").is_err());
    }

    #[test]
    fn a_secret_is_made_and_only_its_hash_written() {
        let block = flags(&["crm", "--connector", "odoo", "--path-secret"], "").unwrap();
        let secret = block.fresh.clone().unwrap();
        assert!(block.text(false).contains("path_secret = \"sha256:") && !block.text(false).contains(&secret));
        let settings = place("").settings(&block.text(false)).map_err(problems).unwrap();
        assert!(settings.integrations["crm"].path_secret.admit(&secret));
    }

    #[test]
    fn on_a_terminal_it_asks_until_the_answers_are_good() {
        let answers = "Not a name\ncrm\nnowhere\ndemo\nmagic\n\n\nOur customers\n\nhttp://127.0.0.1:8099\n\nhttp://127.0.0.1:8099\n";
        let mut asker = Asker {
            input: Some(answers.as_bytes()),
            output: Vec::new(),
        };
        let block = gather(args(&[]), &place(""), &mut asker).map_err(problems).unwrap();
        assert_eq!(
            block.text(false),
            "[integrations.crm]\nconnector = \"demo\"\ndisplay_name = \"Demo CRM\"\ndescription = \"Our customers\"\n\
             allow_hosts = [\"http://127.0.0.1:8099\"]\n\n[integrations.crm.connection]\nsite = \"http://127.0.0.1:8099\"\n"
        );
        let said = String::from_utf8(asker.output).unwrap();
        assert!(
            said.contains("cannot be a name") && said.contains("there is no connector") && said.contains("one of none")
        );
    }

    #[test]
    fn answers_that_end_early_write_nothing() {
        let mut asker = Asker {
            input: Some(&b"crm\n"[..]),
            output: Vec::new(),
        };
        let failure = gather(args(&[]), &place(""), &mut asker).unwrap_err();
        assert_eq!(problems(failure), ["the answers ended; nothing was written"]);
    }
}
