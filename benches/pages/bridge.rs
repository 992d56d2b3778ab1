//! The bridge under measure: a real front in this process, whose accounts are registered by a live check at a fake CRM
//! and whose snapshots are written through the store's port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use contacts::keys::Keys;
use contacts::ports::{Commit, HeadChange};
use contacts::{AccountId, Clock, Fence, Generation, Store, Stream, SystemClock};
use fake_crm::{AccountOptions, FakeCrm, Options};
use futures::{StreamExt, TryStreamExt, stream};
use process::settings::{Settings, Source};
use process::telemetry::Metrics;
use serde_json::{Value, json};
use snapbridge::sampling::account_ids;
use snapbridge::wiring::{self, Defaults, Listeners, Parts, Role};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::load::Client;
use crate::support::{COMMIT, RedisServer, row};

const TOKEN: &str = "demo-token";
/// Contacts of a page.
pub const PAGE: u64 = 1_000;
/// Commits on their way at a time.
const COMMITS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Redis,
    Sqlite,
}

impl Backend {
    pub const ALL: [Backend; 2] = [Backend::Redis, Backend::Sqlite];

    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Redis => "redis",
            Backend::Sqlite => "sqlite",
        }
    }
}

/// A fake CRM with an account for each size.
pub async fn crm(sizes: &[u64], stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let account = |size: &u64| AccountOptions {
        name: name(*size),
        token: TOKEN.into(),
        contacts: 3,
        limit: None,
        ..AccountOptions::default()
    };
    let crm = FakeCrm::new(Options {
        seed: 7,
        accounts: sizes.iter().map(account).collect(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(crm.serve(listener, stop));
    Ok(address)
}

fn name(size: u64) -> String {
    format!("size{size}")
}

pub struct Bridge {
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub keys: Arc<Keys>,
}

/// A page as it was asked for and answered.
pub struct Walked {
    pub request: Vec<u8>,
    pub reply: Vec<u8>,
}

impl Bridge {
    pub async fn start(
        backend: Backend,
        redis: &RedisServer,
        crm: SocketAddr,
        folder: &Path,
        stop: CancellationToken,
    ) -> anyhow::Result<Bridge> {
        let folder = folder.join(backend.as_str());
        std::fs::create_dir_all(&folder)?;
        let store = match backend {
            // Loading and walking are not what is measured; on a busy machine they may take their time.
            Backend::Redis => format!(
                "store.url = \"{}\"\nstore.namespace = \"bench\"\nredis.write_timeout = \"1m\"\nredis.read_timeout = \"10s\"",
                redis.url()
            ),
            Backend::Sqlite => String::new(),
        };
        let text = format!(
            "http.listen = \"127.0.0.1:0\"\nhttp.admin_listen = \"127.0.0.1:0\"\npage.contacts = {PAGE}\n\
             integrations.demo.connector = \"demo\"\nintegrations.demo.allow_hosts = [\"http://{crm}\"]\n\
             integrations.demo.connection.site = \"http://{crm}\"\n{store}\n"
        );
        let settings =
            Settings::load(&Source::text(&text)).map_err(|problems| anyhow::anyhow!("settings: {problems:?}"))?;
        // The queue is a doorbell that a page never touches, and no worker listens to it here: the embedded one will do.
        let defaults = Defaults::Embedded(folder);
        if backend == Backend::Redis {
            store::migrate(&defaults.store(&settings)?, "bench", false).await?;
        }
        let parts = Parts::build(settings, &defaults, Path::new("")).await?;
        let listeners = Listeners::bind(&parts.settings, Role::Front, Path::new("")).await?;
        let address = listeners.public.as_ref().context("a public listener")?.local_addr()?;
        let (store, keys) = (parts.store.clone(), parts.keys.clone());
        tokio::spawn(wiring::run(parts, Role::Front, listeners, Metrics::install()?, stop));
        Ok(Bridge { address, store, keys })
    }

    /// Registers the account of a size, as Talkdesk does, and writes its contacts. Returns the mean size of one.
    pub async fn fill(&self, size: u64) -> anyhow::Result<(AccountId, usize)> {
        let before = account_ids(&*self.store, 100).await?;
        let body = json!({"auth": {"account": name(size), "token": TOKEN}});
        let address = self.address;
        let request = request("auth_validation", &body);
        tokio::task::spawn_blocking(move || Client::connect(address)?.ask(&request, |_| {})).await??;
        let after = account_ids(&*self.store, 100).await?;
        let account = after
            .into_iter()
            .find(|id| !before.contains(id))
            .context("the account was not registered")?;

        let stream = Stream::Contacts;
        let head = self
            .store
            .open(&account, stream, Fence(1), Generation::random())
            .await?;
        let commit = |rows, change| commit(head.generation, rows, change);
        let bytes: usize = stream::iter((0..size).step_by(COMMIT as usize))
            .map(|from| {
                let account = &account;
                async move {
                    let rows: Vec<_> = (from..from + COMMIT).map(|n| row(&self.keys, account, n, 1)).collect();
                    let bytes: usize = rows.iter().map(|row| row.body.len()).sum();
                    self.store
                        .commit(account, stream, &commit(rows, HeadChange::default()))
                        .await?;
                    anyhow::Ok(bytes)
                }
            })
            .buffer_unordered(COMMITS)
            .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
            .await?;
        let now = SystemClock.now();
        let ready = HeadChange {
            ready: Some(true),
            watermark: Some(now),
            fresh: Some(now),
            progress: None,
        };
        self.store.commit(&account, stream, &commit(Vec::new(), ready)).await?;
        Ok((account, bytes / size as usize))
    }

    /// One whole run, page by page, each checked: the requests that random reads repeat, and what the blobs hold.
    pub async fn walk(&self, size: u64) -> anyhow::Result<Vec<Walked>> {
        let address = self.address;
        tokio::task::spawn_blocking(move || walk(address, size)).await?
    }
}

fn commit(generation: Generation, rows: Vec<contacts::record::Row>, head: HeadChange) -> Commit {
    Commit {
        fence: Fence(1),
        generation,
        now: SystemClock.now(),
        rows,
        removals: Vec::new(),
        head,
    }
}

fn walk(address: SocketAddr, size: u64) -> anyhow::Result<Vec<Walked>> {
    #[derive(serde::Deserialize)]
    struct Contact {
        id: String,
    }
    #[derive(serde::Deserialize)]
    struct Reply {
        contacts: Vec<Contact>,
        next_offset: Option<String>,
        context: Option<Value>,
    }
    let mut client = Client::connect(address)?;
    let mut pages = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut meta = json!({});
    loop {
        let request = request(
            "contact_sync",
            &json!({"auth": {"account": name(size), "token": TOKEN}, "meta": meta}),
        );
        let mut reply = Vec::new();
        client.ask(&request, |bytes| reply.extend_from_slice(bytes))?;
        let read: Reply = serde_json::from_slice(&reply)?;
        ensure!(
            read.contacts.len() as u64 == PAGE,
            "a page of {} contacts",
            read.contacts.len()
        );
        ids.extend(read.contacts.into_iter().map(|contact| contact.id));
        pages.push(Walked { request, reply });
        let Some(offset) = read.next_offset else { break };
        meta = json!({"offset": offset, "context": read.context});
    }
    ensure!(
        ids.len() as u64 == size,
        "{} contacts in a snapshot of {size}",
        ids.len()
    );
    Ok(pages)
}

fn request(endpoint: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST /demo/{endpoint} HTTP/1.1\r\nhost: bridge\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
