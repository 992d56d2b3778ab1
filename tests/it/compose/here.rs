//! The containers' world on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{mounts, read, secrets, text, words};
use crate::faults::child::{Process, Start, binary};
use crate::faults::servers::free_port;

pub struct Here {
    pub compose: Value,
    pub folder: tempfile::TempDir,
    /// What stands there, and what stands here in its place; longest first.
    places: Vec<(String, String)>,
    /// Commands and health checks that were run.
    pub run: BTreeSet<String>,
}

impl Here {
    pub fn new(compose: Value) -> Here {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("secrets")).expect("a folder");
        std::fs::create_dir(folder.path().join("data")).expect("a folder");
        Here {
            compose,
            folder,
            places: Vec::new(),
            run: BTreeSet::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn instead(&mut self, there: impl Into<String>, here: impl Into<String>) {
        let there = there.into();
        self.places.retain(|(known, _)| *known != there);
        self.places.push((there, here.into()));
        self.places.sort_by_key(|(there, _)| std::cmp::Reverse(there.len()));
    }

    pub fn translated(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn service(&self, name: &str) -> &Value {
        &self.compose["services"][name]
    }

    /// Secrets and mounted files of a service, copied with what they say translated.
    pub fn lay_out(&mut self, name: &str) {
        let service = self.service(name).clone();
        for (secret, target) in secrets(&service) {
            let file = self.path("secrets").join(&secret);
            let text = read(&file);
            std::fs::write(&file, self.translated(&text)).expect("written");
            self.instead(target, file.to_str().expect("a path"));
        }
        for (from, target) in mounts(&service) {
            let file = self.path(&format!(
                "{name}-{}",
                from.file_name().and_then(|file| file.to_str()).expect("a name")
            ));
            std::fs::write(&file, self.translated(&read(&from))).expect("written");
            self.instead(target, file.to_str().expect("a path"));
        }
    }

    pub fn command(&mut self, name: &str) -> Vec<String> {
        self.run.insert(format!("{name} command"));
        words(&self.service(name)["command"])
            .iter()
            .map(|word| self.translated(word))
            .collect()
    }

    pub fn health(&mut self, name: &str) -> Vec<String> {
        self.run.insert(format!("{name} health"));
        let test = words(&self.service(name)["healthcheck"]["test"]);
        assert_eq!(test[0], "CMD", "{name}: no shell is needed");
        test[1..].iter().map(|word| self.translated(word)).collect()
    }

    /// Of one of our services; its listeners are on these ports.
    pub fn environment(&self, name: &str, listen: u16, admin: u16) -> BTreeMap<String, String> {
        let variables = self.service(name)["environment"].as_object().expect("variables");
        let local = |value: &str| {
            let value = value.replace("0.0.0.0:8080", &format!("127.0.0.1:{listen}"));
            self.translated(&value.replace("0.0.0.0:8081", &format!("127.0.0.1:{admin}")))
        };
        variables
            .iter()
            .map(|(name, value)| (name.clone(), local(text(value))))
            .collect()
    }

    /// Starts one of our services, and waits until it is ready. With its environment.
    pub async fn start(&mut self, name: &'static str) -> (Process, BTreeMap<String, String>) {
        let (listen, admin) = (free_port(), free_port());
        let environment = self.environment(name, listen, admin);
        let arguments = self.command(name);
        let mut process = Process::start(Start {
            name,
            program: binary(),
            arguments,
            environment: environment.clone(),
            folder: self.folder.path(),
            listen: Some(listen),
            admin,
        });
        process.until_ready().await;
        (process, environment)
    }

    /// Starts somebody else's program; `None`: it is not installed. What it says is kept in the file NAME.log.
    pub fn start_other(&self, name: &str, words: &[String], environment: &BTreeMap<String, String>) -> Option<Other> {
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(environment)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Some(Other(child)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", words[0]),
        }
    }
}

/// Somebody else's program. Gone with this value.
pub struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The settings of an integration with the fake CRM.
pub fn demo(crm: &str) -> String {
    format!(
        "\n[integrations.demo]\nconnector = \"demo\"\nallow_hosts = [\"{crm}\"]\nconnection.site = \"{crm}\"\n\
         connection.per_second = \"1000\"\n"
    )
}

/// Appends to a settings file that was laid out.
pub fn add(file: &Path, settings: &str) {
    std::fs::write(file, read(file) + settings).expect("written");
}
