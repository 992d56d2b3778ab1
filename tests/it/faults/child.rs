//! The real binary as a child process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Run, auth};

/// A running `snapbridge`. Killed when dropped; a test that fails sees what it said last.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    pub http: reqwest::Client,
    /// The public listener; empty for a worker.
    pub url: String,
    pub admin: String,
}

/// How a process is started.
pub struct Start<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub folder: &'a Path,
    pub listen: Option<u16>,
    pub admin: u16,
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_snapbridge"))
}

impl Process {
    pub fn start(how: Start<'_>) -> Process {
        process::tls::install_provider();
        let log = how
            .folder
            .join(format!("{}-{:04x}.log", how.name, rand::random::<u16>()));
        let child = command(how.program, &how.environment, how.folder)
            .args(&how.arguments)
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the binary starts");
        Process {
            name: how.name.to_owned(),
            child,
            log,
            // Longer than the front's own deadline: whoever runs into this was left hanging.
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE / 2)
                .build()
                .expect("a client"),
            url: how
                .listen
                .map(|port| format!("http://127.0.0.1:{port}"))
                .unwrap_or_default(),
            admin: format!("http://127.0.0.1:{}", how.admin),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails if the process has ended by itself.
    pub fn assert_runs(&mut self) {
        let ended = self.child.try_wait().expect("its state");
        assert!(
            ended.is_none(),
            "{} ended by itself, {ended:?}:\n{}",
            self.name,
            tail(&self.log())
        );
    }

    /// Stops it as an orchestrator does, and waits.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not stop", self.name);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            tail(&self.log())
        );
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// A page of the admin listener; `None` if it does not answer.
    pub async fn look(&self, path: &str) -> Option<(u16, String)> {
        let response = self.http.get(format!("{}{path}", self.admin)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    pub async fn readiness(&self) -> (u16, Value) {
        let (status, text) = self.look("/readyz").await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn until_ready(&mut self) {
        let began = Instant::now();
        while self.readiness().await.0 != 200 {
            self.assert_runs();
            assert!(began.elapsed() < PATIENCE, "{} is not ready in time", self.name);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = self.http.post(format!("{}{path}", self.url)).json(&body);
        Answer::of(request.send().await.expect("an answer, not a hang-up")).await
    }

    pub async fn sync(&self, meta: Value) -> Answer {
        self.post("/demo/contact_sync", json!({"auth": auth(), "meta": meta}))
            .await
    }

    /// Goes on with `meta` until a page comes without `next_offset`; every answer must be a good page.
    pub async fn pages(&self, meta: Value) -> Run {
        let mut run = Run::default();
        let mut meta = meta;
        let began = Instant::now();
        loop {
            let page = self.sync(meta).await.page();
            run.pages += 1;
            run.contacts
                .extend(page["contacts"].as_array().expect("contacts").iter().cloned());
            run.checkpoint = page["synchronization_checkpoint"]
                .as_str()
                .expect("a checkpoint")
                .to_owned();
            let Some(next) = page.get("next_offset") else {
                return run;
            };
            meta = json!({"offset": next, "context": page["context"]});
            assert!(began.elapsed() < PATIENCE, "a run without end: {} pages", run.pages);
        }
    }

    pub async fn run(&self, checkpoint: Option<&str>) -> Run {
        self.pages(json!({ "synchronization_checkpoint": checkpoint })).await
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "what a failed test's process said last")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {} ----\n{}", self.name, tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn command(program: &Path, environment: &BTreeMap<String, String>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A command that ends by itself: its status, and stdout and stderr together.
pub async fn finish(
    program: &Path,
    arguments: &[String],
    environment: &BTreeMap<String, String>,
    folder: &Path,
) -> (ExitStatus, String) {
    let mut command = command(program, environment, folder);
    command.args(arguments).stdout(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.stderr(Stdio::piped()).output());
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("it ends")
        .expect("joined")
        .expect("it starts");
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status, text)
}

/// An answer of the front.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Answer {
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        Answer {
            status,
            retry_after,
            body: response.json().await.unwrap_or(Value::Null),
        }
    }

    /// A good page.
    pub fn page(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.body
    }

    /// 503 in the one error shape, with a time to come again.
    pub fn assert_unavailable(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(self.retry_after.is_some_and(|seconds| seconds > 0), "{self:?}");
        assert!(
            self.body["code"].is_string() && self.body["message"].is_string(),
            "{self:?}"
        );
    }
}
