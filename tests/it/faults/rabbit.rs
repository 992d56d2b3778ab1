//! A RabbitMQ of one's own with a configuration of one's own, asked through its own tools.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::servers::{free_port, skip};
use crate::harness::PATIENCE;

/// Debian's programs in the search path change the user; these do not.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Gone with this value.
pub struct Rabbit {
    dir: TempDir,
    user: String,
    port: u16,
    distribution: u16,
    mapper_port: u16,
    mapper: Child,
    server: Child,
}

impl Rabbit {
    /// One as it comes.
    pub async fn start() -> Option<Rabbit> {
        Rabbit::with("default_user = guest\ndefault_pass = guest\n", "guest:guest").await
    }

    /// Starts one with this `rabbitmq.conf`, which makes this user, and waits until it has started up. `None` (said
    /// aloud): not installed.
    pub async fn with(conf: &str, user: &str) -> Option<Rabbit> {
        if !Path::new(PROGRAMS).join("rabbitmq-server").exists() {
            skip("rabbitmq-server is not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("plugins"), "[].").expect("written");
        std::fs::write(dir.path().join("rabbitmq.conf"), conf).expect("written");
        let [port, distribution, mapper_port] = [(); 3].map(|()| free_port());
        let mapper = Command::new("epmd")
            .args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd comes with RabbitMQ");
        let server = server(dir.path(), port, distribution, mapper_port);
        let mut rabbit = Rabbit {
            dir,
            user: user.to_owned(),
            port,
            distribution,
            mapper_port,
            mapper,
            server,
        };
        rabbit.ready().await;
        Some(rabbit)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The URL through a relay on this port.
    pub fn url_at(&self, port: u16) -> String {
        format!("amqp://{}@127.0.0.1:{port}", self.user)
    }

    async fn ready(&mut self) {
        let began = Instant::now();
        while !self.logs().contains("Server startup complete") {
            let ended = self.server.try_wait().expect("its state");
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "RabbitMQ does not start:\n{}",
                self.logs()
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn log_files(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.dir.path().join("log"))
            .into_iter()
            .flatten()
            .flatten();
        folder
            .map(|entry| entry.path())
            .chain([self.dir.path().join("out")])
            .collect()
    }

    fn logs(&self) -> String {
        self.log_files()
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap_or_default())
            .collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill().expect("killed");
        self.server.wait().expect("gone");
        for file in self.log_files() {
            let _ = std::fs::remove_file(file);
        }
    }

    /// Starts it again on what it kept.
    pub async fn restart(&mut self) {
        self.server = server(self.dir.path(), self.port, self.distribution, self.mapper_port);
        self.ready().await;
    }

    /// Runs one of its programs (`rabbitmqctl`, `rabbitmq-diagnostics`); what it printed.
    pub async fn tool(&self, program: &str, arguments: &[String]) -> String {
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        environment(
            &mut command,
            self.dir.path(),
            self.port,
            self.distribution,
            self.mapper_port,
        );
        command.args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("joined")
            .expect("it runs");
        let text = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{text}",
            output.status
        );
        text
    }

    pub async fn control(&self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.tool("rabbitmqctl", &arguments).await
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.mapper] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn server(dir: &Path, port: u16, distribution: u16, mapper_port: u16) -> Child {
    let mut server = Command::new(Path::new(PROGRAMS).join("rabbitmq-server"));
    environment(&mut server, dir, port, distribution, mapper_port);
    let log = std::fs::File::create(dir.join("out")).expect("a log");
    // As under systemd the script becomes the server, so that the child is what is to be killed.
    server
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null());
    server.spawn().expect("rabbitmq-server starts")
}

fn environment(command: &mut Command, dir: &Path, port: u16, distribution: u16, mapper_port: u16) {
    let path = |name: &str| dir.join(name);
    command
        .env("HOME", dir)
        .env("RABBITMQ_NODENAME", format!("snapbridge{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", mapper_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
        .env("RABBITMQ_LOG_BASE", path("log"))
        .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
        .env("RABBITMQ_PID_FILE", path("pid"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        );
}
