//! RabbitMQ for tests: namespaces that are deleted again, and a broker of one's own that may be killed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::{Connection, ConnectionProperties};
use tempfile::TempDir;

use crate::RabbitSettings;
use crate::rabbitmq::delete_namespace;

const PATIENCE: Duration = Duration::from_secs(90);

/// The URL of the RabbitMQ that tests share, or `None` (said aloud) if it does not answer.
///
/// # Panics
/// When it does not answer and `REQUIRE_SERVICES=1`.
pub async fn service_url() -> Option<String> {
    let url =
        std::env::var("SNAPBRIDGE_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned());
    if answers(&url).await {
        return Some(url);
    }
    skip("RabbitMQ does not answer at SNAPBRIDGE_TEST_AMQP_URL (default: the local one)");
    None
}

#[allow(clippy::print_stderr)]
fn skip(why: &str) {
    assert!(std::env::var("REQUIRE_SERVICES").as_deref() != Ok("1"), "{why}");
    eprintln!("SKIPPED: {why}");
}

async fn answers(url: &str) -> bool {
    let connect = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        connection.create_channel().await.map(drop)
    };
    matches!(tokio::time::timeout(Duration::from_secs(5), connect).await, Ok(Ok(())))
}

/// Runs a test in a random namespace and deletes that, also after a panic.
///
/// # Panics
/// When the test did.
pub async fn in_namespace<F: Future<Output = ()> + Send + 'static>(
    url: &str,
    settings: RabbitSettings,
    test: impl FnOnce(String) -> F,
) {
    let namespace = format!("test-{:016x}", rand::random::<u64>());
    let result = tokio::spawn(test(namespace.clone())).await;
    let deleted = delete_namespace(url, &namespace, &settings).await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
    deleted.expect("the test's queues can be deleted");
}

/// Polls until `is` says so.
///
/// # Panics
/// When that takes more than 90 s.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let started = Instant::now();
    while !is().await {
        assert!(started.elapsed() < PATIENCE, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port for a server that this process starts, however often it is started: no other test is given it, and it lies below
/// those that the system gives to outgoing connections and to listeners that do not choose.
///
/// # Panics
/// When 1,000 drawn ports are all taken.
pub fn free_port() -> u16 {
    (0..1_000)
        .map(|_| rand::random_range(20_000..32_000))
        .find(|port| reserve(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// False: another process of tests has it. An abstract name is given back when its process ends, however it does.
#[cfg(target_os = "linux")]
fn reserve(port: u16) -> bool {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let name = SocketAddr::from_abstract_name(format!("snapbridge-test-port-{port}")).expect("a short name");
    UnixListener::bind_addr(&name).map(std::mem::forget).is_ok()
}

/// Left to luck: such names are Linux's own.
#[cfg(not(target_os = "linux"))]
fn reserve(_: u16) -> bool {
    true
}

/// A RabbitMQ of one's own: own folder, node name, ports and port mapper. It ends with this value.
pub struct Broker {
    dir: TempDir,
    port: u16,
    distribution: u16,
    mapper_port: u16,
    mapper: Child,
    server: Child,
    programs: PathBuf,
}

impl Broker {
    /// Starts one and waits until it answers (5 to 10 s). `None` (said aloud) if there is no `rabbitmq-server`.
    ///
    /// # Panics
    /// When it is not installed and `REQUIRE_SERVICES=1`, or does not come up.
    pub async fn start() -> Option<Broker> {
        // Debian's program in the search path changes the user; this one does not.
        let programs = PathBuf::from("/usr/lib/rabbitmq/bin");
        if !programs.join("rabbitmq-server").exists() {
            skip("/usr/lib/rabbitmq/bin/rabbitmq-server is not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("plugins"), "[].").expect("written");
        fs::write(dir.path().join("rabbitmq.conf"), "loopback_users = none\n").expect("written");
        let [port, distribution, mapper_port] = [(); 3].map(|()| free_port());
        let mapper = Command::new("epmd")
            .args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd is installed with RabbitMQ");
        let server = spawn(&programs, dir.path(), port, distribution, mapper_port);
        let broker = Broker {
            dir,
            port,
            distribution,
            mapper_port,
            mapper,
            server,
            programs,
        };
        broker.ready().await;
        Some(broker)
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    async fn ready(&self) {
        let url = self.url();
        wait_until("the broker answers", || answers(&url)).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill().expect("killed");
        self.server.wait().expect("gone");
    }

    /// Starts it again on the same data.
    pub async fn restart(&mut self) {
        self.server = spawn(
            &self.programs,
            self.dir.path(),
            self.port,
            self.distribution,
            self.mapper_port,
        );
        self.ready().await;
    }

    /// `SIGSTOP`: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.server.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Runs `rabbitmqctl`.
    pub async fn control(&self, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join("rabbitmqctl"));
        environment(
            &mut command,
            self.dir.path(),
            self.port,
            self.distribution,
            self.mapper_port,
        );
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status())
            .await
            .expect("joined")
            .expect("it runs");
        assert!(status.success(), "rabbitmqctl {arguments:?}: {status}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.mapper] {
            // Killed already, perhaps by the test.
            drop(child.kill());
            drop(child.wait());
        }
    }
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

fn spawn(programs: &Path, dir: &Path, port: u16, distribution: u16, mapper_port: u16) -> Child {
    let mut command = Command::new(programs.join("rabbitmq-server"));
    environment(&mut command, dir, port, distribution, mapper_port);
    // As under systemd the script becomes the server, so that the child is what is to be killed.
    command
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("rabbitmq-server runs")
}
