//! Servers of a test's own, which it may break.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub use jobs::testing::free_port;
use tempfile::TempDir;

use crate::harness::until;

/// Says why a test cannot run; with `REQUIRE_SERVICES=1` that is a failure.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn skip(why: &str) {
    assert!(
        std::env::var("REQUIRE_SERVICES").as_deref() != Ok("1"),
        "required and missing: {why}"
    );
    eprintln!("SKIPPED: {why}");
}

/// A redis-server of one's own. Gone with this value.
pub struct Redis {
    port: u16,
    dir: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Chooses a port and a folder; [`Redis::up`] starts it. `None` (said aloud): there is no redis-server.
    pub fn new() -> Option<Redis> {
        Redis::with(|_, _| ["--appendonly", "yes", "--save", ""].map(str::to_owned).to_vec())
    }

    /// With arguments made of its port and its folder.
    pub fn with(arguments: impl FnOnce(u16, &Path) -> Vec<String>) -> Option<Redis> {
        if Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            skip("redis-server is not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let arguments = arguments(port, dir.path());
        Some(Redis {
            port,
            dir,
            arguments,
            child: None,
        })
    }

    /// Where it keeps what it keeps.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, on what it kept, and waits until it answers.
    pub async fn up(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log");
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .current_dir(self.dir.path())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server starts"));
        until("a redis-server of the test's own answers", || async {
            match self.command(&["PING"]).await {
                Ok(_) => true,
                Err(error) => error.code() == Some("NOAUTH"),
            }
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    /// One command on a connection of its own.
    pub async fn command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
