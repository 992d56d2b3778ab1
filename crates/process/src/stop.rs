//! Stopping: the first signal asks, the second one does not.

use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cancels `token` on SIGTERM or SIGINT; on the next one ends the process at once, with 143 or 130 as a shell would
/// report it. The handlers stand when this returns; the task that serves them lives as long as the process should.
pub fn on_signals(token: CancellationToken) -> io::Result<JoinHandle<()>> {
    let mut signals = Signals::new()?;
    Ok(tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(
            signal = first.name(),
            "stopping; a second signal ends the process at once"
        );
        token.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second.name(), "second signal: leaving at once");
        std::process::exit(second.exit_code());
    }))
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Every task ended by itself.
    Clean,
    /// The grace ran out with so many still running; they end with the process.
    Cut { left: usize },
}

/// Closes `tracker` and waits up to `grace` for its tasks; the log says which way it ended.
pub async fn drain(tracker: &TaskTracker, grace: Duration) -> Drained {
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_ok() {
        tracing::info!("drained: every task ended by itself");
        return Drained::Clean;
    }
    let left = tracker.len();
    tracing::warn!(
        left,
        grace_ms = grace.as_millis() as u64,
        "drain cut short: tasks still run after the grace"
    );
    Drained::Cut { left }
}

#[derive(Clone, Copy)]
enum Signal {
    Terminate,
    Interrupt,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// 128 + the signal's number.
    fn exit_code(self) -> i32 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without a handler nothing will ever come.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_tasks_that_end() {
        let tracker = TaskTracker::new();
        let token = CancellationToken::new();
        for _ in 0..3 {
            let token = token.clone();
            tracker.spawn(async move { token.cancelled().await });
        }
        token.cancel();
        assert_eq!(drain(&tracker, Duration::from_secs(30)).await, Drained::Clean);
    }

    #[tokio::test]
    async fn a_drain_is_cut_when_a_task_does_not_end() {
        let tracker = TaskTracker::new();
        tracker.spawn(std::future::pending::<()>());
        tracker.spawn(async {});
        assert_eq!(
            drain(&tracker, Duration::from_millis(50)).await,
            Drained::Cut { left: 1 }
        );
    }

    const CHILD: &str = "PROCESS_STOP_TEST_CHILD";

    /// What the tests below run as a process of its own: in the normal run of the suite it has nothing to do.
    #[test]
    #[expect(clippy::print_stdout, reason = "the parent test reads these lines")]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let token = CancellationToken::new();
                let _serving = on_signals(token.clone()).unwrap();
                println!("\nready");
                token.cancelled().await;
                println!("\nstopping");
                // Never ends by itself: only a second signal, or the parent's patience, ends this process.
                std::future::pending::<()>().await;
            });
    }

    fn spawn_child() -> (Child, impl Iterator<Item = String>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stop::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        (child, lines)
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends_with_its_own_code() {
        for (first, second, code) in [("-TERM", "-INT", 130), ("-INT", "-TERM", 143)] {
            let (mut child, mut lines) = spawn_child();
            let pid = child.id().to_string();
            let send = |signal: &str| {
                assert!(
                    Command::new("kill")
                        .args([signal, pid.as_str()])
                        .status()
                        .unwrap()
                        .success()
                )
            };
            assert!(lines.any(|line| line == "ready"));
            send(first);
            assert!(lines.any(|line| line == "stopping"));
            send(second);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{first} then {second}");
        }
    }
}
