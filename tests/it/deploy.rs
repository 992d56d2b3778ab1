//! deploy/systemd and deploy/kubernetes without systemd or a cluster: every command of theirs is run with its environment, as
//! a process on a Redis and a RabbitMQ of the test's own.

mod kubernetes;
mod moving;
mod restoring;
mod systemd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::compose::profiles::settings;
use crate::faults::child::{Process, Start, binary, finish};
use crate::faults::rabbit::Rabbit;
use crate::faults::servers::{Redis, free_port};
use crate::harness::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a unit or a container runs.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// How long its supervisor waits between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// What stands for the world around it: servers, a CRM, and the files of an installation.
pub struct Ground {
    pub folder: tempfile::TempDir,
    pub crm: Crm,
    pub rabbit: Rabbit,
    _redis: Redis,
}

impl Ground {
    pub async fn lay() -> Option<Ground> {
        let mut redis = Redis::new()?;
        redis.up().await;
        let rabbit = Rabbit::start().await?;
        let crm = Crm::start(120).await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
        file("redis_url", redis.url());
        file("amqp_url", rabbit.url());
        file("snapbridge.toml", crate::compose::here::demo(&crm.url));
        process::keys::create_if_missing(&folder.path().join("keys")).expect("a key file");
        Some(Ground {
            folder,
            crm,
            rabbit,
            _redis: redis,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs one that ends by itself.
    pub async fn run(&self, run: &Run) -> String {
        let (status, said) = finish(binary(), &run.arguments, &run.environment, self.folder.path()).await;
        assert!(status.success(), "{}: {said}", run.name);
        said
    }

    /// Starts one that serves, on ports of this machine, and waits until it is ready.
    pub async fn start(&self, run: &Run) -> Process {
        let (listen, admin) = (free_port(), free_port());
        let mut environment = run.environment.clone();
        let asked = settings(&environment);
        let needs = asked
            .worker
            .stop_grace
            .max(asked.http.drain + asked.http.request_deadline);
        assert!(
            run.grace > needs + Duration::from_secs(2),
            "{}: {:?} to stop, it may need {needs:?}",
            run.name,
            run.grace
        );
        environment.insert("SNAPBRIDGE_HTTP__LISTEN".into(), format!("127.0.0.1:{listen}"));
        environment.insert("SNAPBRIDGE_HTTP__ADMIN_LISTEN".into(), format!("127.0.0.1:{admin}"));
        let mut process = Process::start(Start {
            name: &run.name,
            program: binary(),
            arguments: run.arguments.clone(),
            environment,
            folder: self.folder.path(),
            listen: Some(listen),
            admin,
        });
        process.until_ready().await;
        process
    }
}
