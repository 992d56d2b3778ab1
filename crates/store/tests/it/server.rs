//! Redis for tests: the shared one with a namespace for each test, and servers of a test's own that it may break.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use contacts::Store;
use futures::FutureExt;
use store::suite::wait_until;
use store::{RedisSettings, RedisStore, StoreUrl};
use tempfile::TempDir;

/// What a test says when it cannot run. With REQUIRE_SERVICES=1 that is a failure.
fn skip(why: &str) {
    assert!(
        std::env::var("REQUIRE_SERVICES").as_deref() != Ok("1"),
        "{why}, and REQUIRE_SERVICES=1 is set"
    );
    #[expect(clippy::print_stderr, reason = "a test that does not run must say so")]
    {
        eprintln!("SKIPPED: {why}");
    }
}

/// Short limits, so that tests of faults are over soon.
pub fn quick() -> RedisSettings {
    RedisSettings {
        read_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(600),
        ping_every: Duration::from_millis(200),
        ping_misses: 3,
    }
}

/// For tests without faults: a busy machine may take its time.
pub fn patient() -> RedisSettings {
    let second = Duration::from_secs(1);
    RedisSettings {
        read_timeout: 10 * second,
        write_timeout: 10 * second,
        ping_every: second,
        ping_misses: 30,
    }
}

/// Namespaces on the shared server, removed at the end.
pub struct Shared {
    url: StoreUrl,
    raw: redis::aio::MultiplexedConnection,
    test: String,
}

impl Shared {
    /// Runs `test` unless there is no server.
    pub async fn with(test: impl AsyncFnOnce(&Shared)) {
        let url = std::env::var("SNAPBRIDGE_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
        let client = redis::Client::open(url.as_str()).expect("the URL of the shared Redis");
        let raw = match client.get_multiplexed_async_connection().await {
            Ok(raw) => raw,
            Err(error) => return skip(&format!("there is no Redis for tests ({error})")),
        };
        let test_name = format!("test-{:016x}", rand::random::<u64>());
        let shared = Shared {
            url: url.parse().expect("the URL of the shared Redis"),
            raw,
            test: test_name,
        };
        let outcome = AssertUnwindSafe(test(&shared)).catch_unwind().await;
        shared.clean_up().await;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// A namespace that nobody used.
    pub fn namespace(&self) -> String {
        format!("{}.{:08x}", self.test, rand::random::<u32>())
    }

    /// One command, past the store.
    pub async fn command<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        command
            .query_async(&mut self.raw.clone())
            .await
            .expect("a command succeeds")
    }

    /// Several commands at once, past the store.
    pub async fn pipeline(&self, commands: &redis::Pipeline) {
        let done: redis::RedisResult<()> = commands.query_async(&mut self.raw.clone()).await;
        done.expect("commands succeed");
    }

    /// An empty store.
    pub async fn store(&self) -> Arc<dyn Store> {
        let namespace = self.namespace();
        store::migrate(&self.url, &namespace, false).await.expect("migrates");
        Arc::new(connect(&self.url, &namespace, patient()).await)
    }

    async fn clean_up(&self) {
        let mut raw = self.raw.clone();
        let mut cursor = "0".to_owned();
        loop {
            let scan = redis::cmd("SCAN")
                .arg(&cursor)
                .arg("MATCH")
                .arg(format!("*:{}*", self.test))
                .arg("COUNT")
                .arg(5000)
                .clone();
            let (next, keys): (String, Vec<String>) = scan.query_async(&mut raw).await.expect("cleans up");
            if !keys.is_empty() {
                let _: u64 = redis::cmd("UNLINK")
                    .arg(keys)
                    .query_async(&mut raw)
                    .await
                    .expect("cleans up");
            }
            if next == "0" {
                return;
            }
            cursor = next;
        }
    }
}

pub async fn connect(url: &StoreUrl, namespace: &str, settings: RedisSettings) -> RedisStore {
    let StoreUrl::Redis(target) = url else {
        panic!("not a Redis: {url}")
    };
    RedisStore::connect(target, namespace, settings)
        .await
        .expect("connects")
}

/// A server of a test's own, on a socket in a folder of its own.
pub struct Server {
    child: Child,
    dir: TempDir,
    extra: Vec<String>,
}

impl Server {
    /// `None`: there is no `redis-server` (the test is skipped).
    pub async fn start(extra: &[&str]) -> Option<Server> {
        let dir = tempfile::tempdir().expect("a folder");
        let extra: Vec<String> = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let child = match spawn(&dir, &extra) {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("redis-server does not start ({error})"));
                return None;
            }
        };
        let server = Server { child, dir, extra };
        server.wait_ready().await;
        Some(server)
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("socket")
    }

    pub fn url(&self) -> StoreUrl {
        format!("redis+unix://{}", self.socket().display())
            .parse()
            .expect("a URL")
    }

    /// A migrated and connected store.
    pub async fn store(&self, settings: RedisSettings) -> RedisStore {
        store::migrate(&self.url(), "own", false).await.expect("migrates");
        connect(&self.url(), "own", settings).await
    }

    /// One command by a connection of its own.
    pub async fn command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis+unix://{}", self.socket().display()))?;
        let mut raw = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut raw).await
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Ends the process as a crash does, without a chance to save.
    pub fn crash(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }

    pub async fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.extra).expect("starts again");
        self.wait_ready().await;
    }

    async fn wait_ready(&self) {
        let ready = async || match self.command(&["PING"]).await {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOAUTH"),
        };
        wait_until("a redis-server of the test's own answers", ready).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &TempDir, extra: &[String]) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--unixsocket",
            "socket",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ])
        .args(extra)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
