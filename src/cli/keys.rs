//! `snapbridge keys`: key files, hashes of secrets, and the rotation of sealing keys.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ops::{Access, Ops, rows, table, text};
use super::{Failure, print, settings};
use crate::status::span;
use crate::wiring::Defaults;

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Makes a key file (mode 0600). Keep it safe: without it, stored credentials and Talkdesk's checkpoints are lost
    New {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Prints the hash of a path secret or bridge key for the settings, sha256:…; reads the secret from FILE, else stdin
    Hash {
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Make a new random secret: prints it, then its hash
        #[arg(long, conflicts_with = "file")]
        new: bool,
    },
    /// The sealing keys of a running installation: ages, which one seals, what still needs each, which process has which
    Show {
        #[command(flatten)]
        access: Access,
    },
    /// First step of a rotation: adds a new key to the key file, which all processes then open with and none seals with
    ///
    /// Processes look at the file every keys.reload. Where they have copies of it, give them the changed one.
    Add {
        #[command(flatten)]
        change: Change,
    },
    /// Second step: the key that was added seals from now on; refused while a running process does not have it
    Rotate {
        /// Key to seal with [default: the one that was added last]
        #[arg(value_name = "KEY")]
        kid: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Seals everything that is stored with the key that seals now; the sweep does so, too, little by little
    Reseal {
        #[command(flatten)]
        access: Access,
    },
    /// Last step: takes an old key out of the key file; refused while anything still needs it
    Drop {
        #[arg(value_name = "KEY")]
        kid: String,
        #[command(flatten)]
        change: Change,
    },
}

/// A change of the key file.
#[derive(Debug, Args)]
pub struct Change {
    /// Key file [default: keys.file of the settings, else `keys` in --data]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do it whatever stands against it, also if no process answers
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: Access,
}

pub async fn run(config: Option<&Path>, command: Keys) -> Result<(), Failure> {
    match command {
        Keys::New { file } => new(&file),
        Keys::Hash { file, new } => hash(file.as_deref(), new),
        Keys::Show { access } => {
            let ops = Ops::open(config, access)?;
            let keys = ops.get("/api/keys", &[]).await?;
            ops.show(&keys, shown);
            Ok(())
        }
        Keys::Reseal { access } => {
            let ops = Ops::open(config, access)?;
            let resealed = ops.post("/api/keys/reseal", None).await?;
            ops.show(&resealed, |resealed| {
                format!("Sealed anew: {}", text(&resealed["said"]))
            });
            Ok(())
        }
        Keys::Add { change } => {
            let file = change.key_file(config)?;
            let kid = process::keys::add(&file).map_err(anyhow::Error::from)?;
            // Nothing depends on it yet, so it is asked for afterwards: its id is made with it.
            let noted = change.ask(config, "add", &kid).await;
            print(&format!(
                "{kid} added to {}: give the file to every process, and see `snapbridge keys show`",
                file.display()
            ));
            noted
        }
        Keys::Rotate { kid, change } => {
            let file = change.key_file(config)?;
            let kids = kids(&file)?;
            let kid = match &kid {
                Some(kid) => kid.as_str(),
                None if kids.len() > 1 => kids[kids.len() - 1].as_str(),
                None => {
                    let why = format!("{} has one sealing key: `snapbridge keys add` first", file.display());
                    return Err(Failure::Usage(vec![why]));
                }
            };
            is_listed(&file, &kids, kid)?;
            change.ask(config, "rotate", kid).await?;
            match process::keys::promote(&file, kid).map_err(anyhow::Error::from)? {
                true => print(&format!(
                    "{kid} seals from now on, once the processes have {}",
                    file.display()
                )),
                false => print(&format!("{kid} is the one that seals already")),
            }
            Ok(())
        }
        Keys::Drop { kid, change } => {
            let file = change.key_file(config)?;
            let kids = kids(&file)?;
            is_listed(&file, &kids, &kid)?;
            if kids.first() == Some(&kid) {
                let why = format!(
                    "{kid} seals in {}; `snapbridge keys rotate` to another one first",
                    file.display()
                );
                return Err(Failure::Usage(vec![why]));
            }
            change.ask(config, "drop", &kid).await?;
            process::keys::remove(&file, &kid).map_err(anyhow::Error::from)?;
            print(&format!("{kid} is out of {}; keep no copy of it", file.display()));
            Ok(())
        }
    }
}

/// The sealing keys of a file; the first one seals.
fn kids(file: &Path) -> Result<Vec<String>, Failure> {
    let known = process::keys::load(file).map_err(anyhow::Error::from)?;
    Ok(known.seals.into_iter().map(|seal| seal.kid).collect())
}

fn is_listed(file: &Path, kids: &[String], kid: &str) -> Result<(), Failure> {
    if kids.iter().any(|known| known == kid) {
        return Ok(());
    }
    let why = format!(
        "{} has no sealing key {kid}; it has {}",
        file.display(),
        kids.join(", ")
    );
    Err(Failure::Usage(vec![why]))
}

impl Change {
    fn key_file(&self, config: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let defaults = Defaults::Embedded(self.access.data().to_owned());
        let file = defaults.key_file(&settings(config)?.0)?;
        if !file.exists() {
            let why = format!("there is no key file {}; name it with --file", file.display());
            return Err(Failure::Usage(vec![why]));
        }
        Ok(file)
    }

    /// Asks a running process whether the step may be taken, and has it noted.
    async fn ask(&self, config: Option<&Path>, step: &str, kid: &str) -> Result<(), Failure> {
        let body = json!({"step": step, "kid": kid, "force": self.force});
        let asked = match Ops::open(config, self.access.clone()) {
            Ok(ops) => ops.post("/api/keys/step", Some(body)).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(_) => Ok(()),
            Err(failure) if self.force => {
                super::tell(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

fn shown(all: &Value) -> String {
    let names = [
        "kid",
        "state",
        "age",
        "credentials",
        "webhook_secrets",
        "payloads",
        "dead_letters",
        "tokens",
        "unknown",
    ];
    let mut out = table(&names, &rows(&all["keys"]), |key, name| match name {
        "age" => key["age_seconds"]
            .as_u64()
            .map_or_else(|| "-".to_owned(), |age| span(std::time::Duration::from_secs(age))),
        _ => text(&key[name]),
    });
    for key in rows(&all["keys"]) {
        if let (Some(why), true) = (key["kept_by"].as_str(), key["state"] == "opens") {
            out.push_str(&format!("\n{}: {why}", text(&key["kid"])));
        }
    }
    let processes = table(
        &["process", "role", "keys"],
        &rows(&all["processes"]),
        |process, name| match name {
            "keys" => {
                let kids = process["kids"].as_array().into_iter().flatten();
                kids.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            _ => text(&process[name]),
        },
    );
    format!("{out}\n\n{processes}\n\nThe first key of a process seals.")
}

fn new(file: &Path) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::Usage(vec![format!(
            "{} is there already. A new identity key would make a new account of every customer; move the old file away \
             if you are sure, or `snapbridge keys add` a sealing key to it",
            file.display()
        )]));
    }
    process::keys::create_if_missing(file).map_err(anyhow::Error::from)?;
    print(&format!(
        "{} made. Give it to every front and worker, and keep a copy",
        file.display()
    ));
    Ok(())
}

/// Not from the arguments, which every user of the machine can list.
fn hash(file: Option<&Path>, new: bool) -> Result<(), Failure> {
    let secret = match (file, new) {
        (_, true) => {
            let secret = process::secrets::fresh();
            print(&secret);
            secret
        }
        (Some(file), false) => {
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?
        }
        (None, false) => std::io::read_to_string(std::io::stdin()).context("stdin cannot be read")?,
    };
    let hash = process::secrets::hashed(secret.trim_end_matches(['\r', '\n']));
    print(&hash.map_err(|error| Failure::Usage(vec![error.to_string()]))?);
    Ok(())
}
