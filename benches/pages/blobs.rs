//! The measure: a handler that fetches one finished blob a page from Redis and sends it, behind the same server as the
//! front.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use snapbridge::server::{self, Limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::RedisServer;

/// Blobs by size of their snapshot and number of their page.
#[derive(Clone)]
pub struct Blobs {
    redis: ConnectionManager,
}

impl Blobs {
    pub async fn new(redis: &RedisServer) -> anyhow::Result<Blobs> {
        Ok(Blobs {
            redis: ConnectionManager::new(redis.client()?).await?,
        })
    }

    pub async fn put(&self, size: u64, page: usize, body: &[u8]) -> anyhow::Result<()> {
        Ok(self.redis.clone().set::<_, _, ()>(key(size, page), body).await?)
    }

    pub async fn serve(self, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
        let router = Router::new().route("/{size}/{page}", get(blob)).with_state(self);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let limits = Limits {
            header_timeout: Duration::from_secs(10),
            connections: 512,
            drain: Duration::from_secs(1),
        };
        tokio::spawn(server::serve(
            listener,
            router,
            limits,
            None,
            server::Stopping::at(stop),
        ));
        Ok(address)
    }
}

fn key(size: u64, page: usize) -> String {
    format!("blob:{size}:{page}")
}

async fn blob(State(blobs): State<Blobs>, Path((size, page)): Path<(u64, usize)>) -> impl IntoResponse {
    let body: Result<Option<Bytes>, _> = blobs.redis.clone().get(key(size, page)).await;
    match body {
        Ok(Some(body)) => Ok(([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body)),
        Ok(None) => Err((StatusCode::NOT_FOUND, "no such blob".to_owned())),
        Err(error) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
    }
}
