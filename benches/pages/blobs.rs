//! The measure: handlers that fetch one finished blob a page and send it, behind the same server as the front.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use parking_lot::Mutex;
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use snapbridge::server::{self, Limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bridge::Backend;
use crate::support::RedisServer;

/// Blobs by (size of their snapshot, number of the page), in the bench's Redis and in a SQLite file.
pub struct Blobs {
    redis: ConnectionManager,
    file: std::path::PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Blobs {
    pub async fn new(redis: &RedisServer, folder: &Path) -> anyhow::Result<Arc<Blobs>> {
        let file = folder.join("blobs.db");
        let writer = Connection::open(&file)?;
        writer.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE blob (size INTEGER, page INTEGER, body BLOB NOT NULL);
             CREATE UNIQUE INDEX blob_page ON blob (size, page)",
        )?;
        Ok(Arc::new(Blobs {
            redis: ConnectionManager::new(redis.client()?).await?,
            file,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        }))
    }

    pub async fn put(&self, backend: Backend, size: u64, page: usize, body: &[u8]) -> anyhow::Result<()> {
        match backend {
            Backend::Redis => self.redis.clone().set::<_, _, ()>(key(size, page), body).await?,
            Backend::Sqlite => {
                let insert = "INSERT INTO blob (size, page, body) VALUES (?1, ?2, ?3)";
                self.writer.lock().execute(insert, (size as i64, page as i64, body))?;
            }
        }
        Ok(())
    }

    pub async fn serve(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
        let router = Router::new()
            .route("/redis/{size}/{page}", get(from_redis))
            .route("/sqlite/{size}/{page}", get(from_sqlite))
            .with_state(self);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let limits = Limits { header_timeout: Duration::from_secs(10), connections: 512, drain: Duration::from_secs(1) };
        tokio::spawn(server::serve(listener, router, limits, stop));
        Ok(address)
    }

    fn read(&self, size: u64, page: usize) -> anyhow::Result<Option<Vec<u8>>> {
        let idle = self.readers.lock().pop();
        let db = match idle {
            Some(db) => db,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(&self.file, flags)?;
                // As the store's readers have it.
                db.execute_batch("PRAGMA cache_size = -8192")?;
                db
            }
        };
        let body = db
            .prepare_cached("SELECT body FROM blob WHERE size = ?1 AND page = ?2")?
            .query_row((size as i64, page as i64), |row| row.get(0))
            .optional()?;
        self.readers.lock().push(db);
        Ok(body)
    }
}

fn key(size: u64, page: usize) -> String {
    format!("blob:{size}:{page}")
}

async fn from_redis(State(blobs): State<Arc<Blobs>>, UrlPath((size, page)): UrlPath<(u64, usize)>) -> impl IntoResponse {
    let body: Result<Option<Bytes>, _> = blobs.redis.clone().get(key(size, page)).await;
    answer(body.context("a blob from Redis"))
}

async fn from_sqlite(State(blobs): State<Arc<Blobs>>, UrlPath((size, page)): UrlPath<(u64, usize)>) -> impl IntoResponse {
    let body = tokio::task::spawn_blocking(move || blobs.read(size, page)).await;
    answer(body.context("a blob from SQLite").flatten().map(|body| body.map(Bytes::from)))
}

fn answer(body: anyhow::Result<Option<Bytes>>) -> impl IntoResponse {
    match body {
        Ok(Some(body)) => Ok(([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body)),
        Ok(None) => Err((StatusCode::NOT_FOUND, "no such blob".to_owned())),
        Err(error) => Err((StatusCode::BAD_GATEWAY, format!("{error:#}"))),
    }
}
