//! Puts the parts together: settings → store, queue, keys, integrations → front, worker, admin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use contacts::keys::Keys;
use contacts::outcome::RetryPolicy;
use contacts::work::WorkTimes;
use contacts::{Clock, Queue, Store, SystemClock};
use jobs::RabbitSettings;
use process::keys::KeyFile;
use process::settings::{QueueUrl, Settings, StoreUrl};
use store::RedisSettings;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use worker::deps::{Brake, Plan};
use worker::{Deps, Policy, Requests};

use crate::admin::{self, Admin};
use crate::dealers::Dealers;
use crate::front::{self, Front};
use crate::integrations::Integrations;
use crate::server::{self, Stopping};
use crate::tls::Tls;
use crate::{keyring, origin, sampling};

/// The parts that every role shares.
pub struct Parts {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub keys: Arc<Keys>,
    pub key_file: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub requests: Arc<Requests>,
    pub integrations: Arc<Integrations>,
    /// Names this process in leases and budgets.
    pub owner: String,
}

/// Which parts a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Front,
    Worker,
    /// Both, in one process.
    Both,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Front => "front",
            Role::Worker => "worker",
            Role::Both => "both",
        }
    }

    fn has_front(self) -> bool {
        self != Role::Worker
    }

    fn has_worker(self) -> bool {
        self != Role::Front
    }
}

/// Where the store and the queue are if nothing is set.
#[derive(Clone, Debug)]
pub enum Defaults {
    /// Redis and RabbitMQ on this machine.
    Distributed,
    /// SQLite and a key file in this folder.
    Embedded(PathBuf),
}

impl Defaults {
    pub fn store(&self, settings: &Settings) -> anyhow::Result<store::StoreUrl> {
        let text = match (&settings.store.url, self) {
            (Some(StoreUrl::Sqlite(dir)), _) => return Ok(store::StoreUrl::Sqlite(dir.clone())),
            (Some(StoreUrl::Redis(url)), _) => url.expose().to_owned(),
            (None, Defaults::Distributed) => "redis://127.0.0.1:6379".to_owned(),
            (None, Defaults::Embedded(dir)) => return Ok(store::StoreUrl::Sqlite(dir.clone())),
        };
        text.parse().context("store.url")
    }

    pub fn queue(&self, settings: &Settings) -> String {
        match (&settings.queue.url, self) {
            (Some(QueueUrl::Sqlite(dir)), _) => format!("sqlite:{}", dir.display()),
            (Some(QueueUrl::Amqp(url)), _) => url.expose().to_owned(),
            (None, Defaults::Distributed) => "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            (None, Defaults::Embedded(dir)) => format!("sqlite:{}", dir.display()),
        }
    }

    pub fn key_file(&self, settings: &Settings) -> anyhow::Result<PathBuf> {
        match (&settings.keys.file, self) {
            (Some(path), _) => Ok(path.clone()),
            (None, Defaults::Embedded(dir)) => Ok(dir.join("keys")),
            (None, Defaults::Distributed) => Err(anyhow!(
                "keys.file is not set. Make a key file once with `snapbridge keys new FILE`, give the same one to every \
                 front and worker, and set keys.file (or SNAPBRIDGE_KEYS__FILE)"
            )),
        }
    }

    /// The key file's keys; only the embedded roles make one, so that two machines never end up with two identities.
    pub fn keys(&self, path: &Path) -> anyhow::Result<KeyFile> {
        Ok(match self {
            Defaults::Distributed => process::keys::load(path)?,
            Defaults::Embedded(_) => process::keys::create_if_missing(path)?,
        })
    }
}

pub fn redis_settings(settings: &Settings) -> RedisSettings {
    RedisSettings {
        read_timeout: settings.redis.read_timeout,
        write_timeout: settings.redis.write_timeout,
        ping_every: settings.redis.watchdog_ping,
        ping_misses: settings.redis.watchdog_misses,
    }
}

pub fn rabbit_settings(settings: &Settings) -> RabbitSettings {
    RabbitSettings {
        heartbeat: settings.rabbitmq.heartbeat,
        connect_timeout: settings.rabbitmq.connect_timeout,
        confirm_timeout: settings.rabbitmq.confirm_timeout,
        ..RabbitSettings::default()
    }
}

fn work_times(settings: &Settings) -> WorkTimes {
    WorkTimes {
        lease: settings.worker.lease,
        marker: settings.refresh.marker,
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        slots: settings.worker.slots,
        slice: Plan {
            time: settings.worker.slice_time,
            pages: settings.worker.slice_pages,
        },
        retry: RetryPolicy {
            attempts: settings.retry.attempts,
            first: settings.retry.first,
            max: settings.retry.max,
        },
        times: work_times(settings),
        sweep: settings.refresh.sweep,
        commit_rows: settings.worker.commit_rows,
        stop_grace: settings.worker.stop_grace,
        brake: Brake {
            ratio: settings.refresh.brake_ratio,
            min: settings.refresh.brake_min,
            max: settings.refresh.brake_max,
        },
        dirty_limit: settings.refresh.dirty_limit,
        held_look: settings.refresh.held_look,
        remap_within: settings.refresh.remap_within,
        life: contacts::life::Ages {
            suspend: settings.accounts.suspend_after,
            drop: settings.accounts.drop_after,
        },
        walk: settings.accounts.walk,
        audit: settings.ops.audit,
        ..Policy::default()
    }
}

impl Parts {
    /// Connects and loads everything. `folder` is where relative paths of the settings start.
    pub async fn build(mut settings: Settings, defaults: &Defaults, folder: &Path) -> anyhow::Result<Parts> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        if let Defaults::Embedded(folder) = defaults {
            own_token(&mut settings, folder)?;
        }
        let key_file = defaults.key_file(&settings)?;
        let keys = keyring::derived(defaults.keys(&key_file)?)?;
        let url = defaults.store(&settings)?;
        let namespace = &settings.store.namespace;
        let store = store::connect(&url, namespace, redis_settings(&settings), clock.clone())
            .await
            .with_context(|| format!("the store at {url} cannot be used"))?;
        let queue_url = defaults.queue(&settings);
        let queue = jobs::connect(
            &queue_url,
            &settings.queue.namespace,
            rabbit_settings(&settings),
            clock.clone(),
        )
        .await
        .context("the queue cannot be used")?;
        let owner = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        let integrations = Integrations::load(
            &settings,
            folder,
            store.clone(),
            keys.clone(),
            clock.clone(),
            owner.clone(),
        )
        .map_err(|problems| anyhow!("the integrations cannot be run:\n  {}", problems.join("\n  ")))?;
        let requests = Requests::new(
            store.clone(),
            queue.clone(),
            clock.clone(),
            work_times(&settings),
            settings.refresh.dirty_limit,
        );
        Ok(Parts {
            store,
            queue,
            keys,
            key_file,
            clock,
            requests: Arc::new(requests),
            integrations: Arc::new(integrations),
            owner,
            settings,
        })
    }

    pub fn worker(&self) -> Deps {
        Deps {
            store: self.store.clone(),
            queue: self.queue.clone(),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            sources: self.integrations.clone(),
            requests: self.requests.clone(),
            held: Arc::default(),
            policy: policy(&self.settings),
            owner: self.owner.clone(),
        }
    }

    pub fn front(&self) -> Front {
        Front::new(
            self.store.clone(),
            self.queue.clone(),
            self.requests.clone(),
            self.keys.clone(),
            self.clock.clone(),
            self.integrations.clone(),
            front::Policy::of(&self.settings),
        )
    }
}

/// The file with the token of an embedded installation, in its folder.
pub const TOKEN_FILE: &str = "ops.token";

/// Where no token is set, the embedded roles make one, so that there is an ops page and no default password.
fn own_token(settings: &mut Settings, folder: &Path) -> anyhow::Result<()> {
    let ops = &mut settings.ops;
    if [&ops.read, &ops.operate, &ops.admin]
        .into_iter()
        .any(|tokens| !tokens.is_empty())
    {
        return Ok(());
    }
    let path = folder.join(TOKEN_FILE);
    let token = process::secrets::kept(&path).with_context(|| format!("the token in {}", path.display()))?;
    ops.admin = process::secrets::Secrets::read([token.as_str()])
        .with_context(|| format!("{} holds no token; delete it to have a new one made", path.display()))?;
    Ok(())
}

/// The listeners of a process, bound before anything else starts, so that a taken port is the first thing one hears.
pub struct Listeners {
    pub public: Option<TcpListener>,
    /// Of the public listener.
    pub tls: Option<Arc<Tls>>,
    pub admin: TcpListener,
}

impl Listeners {
    /// `folder` is where relative paths of the settings start.
    pub async fn bind(settings: &Settings, role: Role, folder: &Path) -> anyhow::Result<Listeners> {
        let (tls, public) = match role.has_front() {
            true => (
                Tls::load(settings, folder).await?,
                Some(bind(settings.http.listen, "http.listen").await?),
            ),
            false => (None, None),
        };
        Ok(Listeners {
            public,
            tls,
            admin: bind(settings.http.admin_listen, "http.admin_listen").await?,
        })
    }
}

pub async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({setting}); is it taken? Port 0 takes any free one"))
}

/// Runs a role until `stop`: listeners, worker, gauges. Returns when everything has ended or its grace is over. From `stop` on
/// the process is not ready; its public listener closes `http.drain` later, and the admin listener after that.
pub async fn run(
    parts: Parts,
    role: Role,
    listeners: Listeners,
    metrics: process::telemetry::Metrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    process::telemetry::build_info(env!("CARGO_PKG_VERSION"), role.as_str());
    tracing::info!(
        role = role.as_str(),
        store = parts.store.describe(),
        queue = parts.queue.describe(),
        "starting"
    );
    if parts.integrations.is_empty() {
        tracing::warn!("no integration is configured: every call will be answered 404");
    }
    let tasks = TaskTracker::new();
    tasks.spawn(sampling::run(
        sampling::Sampler::new(
            parts.store.clone(),
            parts.queue.clone(),
            parts.integrations.clone(),
            parts.clock.clone(),
        ),
        stop.clone(),
    ));
    let dealers = Dealers {
        store: parts.store.clone(),
        requests: parts.requests.clone(),
        keys: parts.keys.clone(),
        clock: parts.clock.clone(),
        integrations: parts.integrations.clone(),
    };
    tasks.spawn(dealers.run(stop.clone()));
    let watch = keyring::Watch {
        path: parts.key_file.clone(),
        keys: parts.keys.clone(),
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        owner: parts.owner.clone(),
        role,
        every: parts.settings.keys.reload,
    };
    tasks.spawn(watch.run(stop.clone()));
    let upkeep = metrics.spawn_upkeep(stop.clone());
    tracing::info!(address = %listeners.admin.local_addr()?, "serving health and metrics");
    let admin = Admin::new(role, &parts, metrics, stop.clone());
    tasks.spawn(admin.clone().keep_history(stop.clone()));
    let (http, stop_grace) = (&parts.settings.http, parts.settings.worker.stop_grace);
    let limits = server::Limits {
        header_timeout: http.header_timeout,
        connections: http.max_connections,
        drain: stop_grace,
    };
    let front_ended = match listeners.public {
        Some(_) => CancellationToken::new(),
        None => stop.clone(),
    };
    tasks.spawn(server::serve(
        listeners.admin,
        admin::router(admin),
        limits,
        None,
        Stopping::at(front_ended.clone()),
    ));
    let mut grace = stop_grace;
    if let Some(listener) = listeners.public {
        let address = listener.local_addr()?;
        tracing::info!(%address, tls = listeners.tls.is_some(), "serving Talkdesk and webhooks");
        if origin::is_exposed(&parts.settings, address.ip()) {
            tracing::warn!(
                "credentials may cross the network readably: there is no http.tls.cert, and http.public_url is not https. \
                 Talkdesk calls nothing but HTTPS"
            );
        }
        if let Some(tls) = &listeners.tls {
            tasks.spawn(tls.clone().watch(stop.clone()));
        }
        // Whatever takes longer than the deadline is answered 504.
        let limits = server::Limits {
            drain: http.request_deadline,
            ..limits
        };
        let closing = CancellationToken::new();
        let serving = server::serve(
            listener,
            front::router(Arc::new(parts.front())),
            limits,
            listeners.tls,
            Stopping {
                last_call: stop.clone(),
                stop: closing.clone(),
            },
        );
        tasks.spawn(async move {
            serving.await;
            front_ended.cancel();
        });
        let (stop, drain) = (stop.clone(), http.drain);
        tasks.spawn(async move {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
            closing.cancel();
        });
        grace = grace.max(http.drain + http.request_deadline);
    }
    let result = if role.has_worker() {
        tokio::select! {
            result = worker::run(parts.worker(), stop.clone()) => result.context("the worker cannot take jobs"),
            () = forever(&stop) => Ok(()),
        }
    } else {
        stop.cancelled().await;
        Ok(())
    };
    stop.cancel();
    let _ = process::stop::drain(&tasks, grace + Duration::from_secs(1)).await;
    upkeep.abort();
    result
}

/// Never ends by itself: the worker returns on `stop`, after its grace.
async fn forever(stop: &CancellationToken) {
    stop.cancelled().await;
    std::future::pending::<()>().await;
}

/// Keys for checks that store nothing.
pub fn throwaway_keys() -> anyhow::Result<Arc<Keys>> {
    let raw = || Box::new(rand::random::<[u8; 32]>()).into();
    Ok(Arc::new(Keys::new(&raw(), &[("check".to_owned(), raw())])?))
}

/// Builds, and tries again while what it needs is not there yet: services of a deployment start in any order. What no
/// waiting mends (wrong settings, a layout that needs `migrate`) fails at once. `None`: stopped meanwhile.
pub async fn until_ready<F>(build: impl Fn() -> F, stop: &CancellationToken) -> anyhow::Result<Option<Parts>>
where
    F: Future<Output = anyhow::Result<Parts>>,
{
    let mut pause = Duration::from_millis(500);
    loop {
        let error = match build().await {
            Ok(parts) => return Ok(Some(parts)),
            Err(error) => error,
        };
        if !may_pass(&error) {
            return Err(error);
        }
        tracing::warn!(error = process::chain(error.as_ref()), again_in = ?pause, "not ready yet");
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

fn may_pass(error: &anyhow::Error) -> bool {
    use contacts::ports::StoreErrorKind;
    use contacts::queue::QueueErrorKind;
    let store = error.downcast_ref::<contacts::StoreError>().map(|error| error.kind);
    let queue = error.downcast_ref::<contacts::QueueError>().map(|error| error.kind);
    store == Some(StoreErrorKind::Unavailable) || queue == Some(QueueErrorKind::Unavailable)
}
