//! Serves a router over HTTP/1.1 with the limits that `axum::serve` lacks: a time for the request head, a cap on
//! connections, a bounded drain; over TLS where there is a certificate.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A client that has not sent its request head within this time is let go.
    pub header_timeout: Duration,
    /// Connections at once, those in their handshake included; more wait in the backlog.
    pub connections: usize,
    /// How long requests in hand may take once `stop` is given.
    pub drain: Duration,
}

/// The other end of a connection, as the socket tells; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    pub tls: bool,
}

/// When a server ends: at `last_call` it begins to part from its clients, at `stop` it takes nobody any more.
#[derive(Clone, Debug)]
pub struct Stopping {
    /// Every answer from now on ends its connection, as the next request on it might meet a listener that is gone.
    pub last_call: CancellationToken,
    pub stop: CancellationToken,
}

impl Stopping {
    /// Without a last call.
    pub fn at(stop: CancellationToken) -> Stopping {
        Stopping {
            last_call: stop.clone(),
            stop,
        }
    }
}

/// Serves until it is to stop, then finishes the requests in hand within the drain.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, tls: Option<Arc<Tls>>, stopping: Stopping) {
    let Stopping { last_call, stop } = stopping;
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .keep_alive(true);
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that was gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Pages are written whole; waiting for more to send would only add latency.
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            ip: address.ip().to_canonical(),
            tls: tls.is_some(),
        };
        let (http, router, watcher) = (http.clone(), router.clone(), graceful.watcher());
        let (tls, stop, last_call) = (tls.clone(), stop.clone(), last_call.clone());
        tokio::spawn(async move {
            match tls {
                None => talk(stream, peer, http, router, last_call, watcher).await,
                Some(tls) => {
                    let greeted = tokio::select! {
                        () = stop.cancelled() => None,
                        greeted = tls.greet(stream) => greeted,
                    };
                    if let Some(stream) = greeted {
                        talk(stream, peer, http, router, last_call, watcher).await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in hand did not end within the drain");
    }
}

async fn talk<S>(
    stream: S,
    peer: Peer,
    http: http1::Builder,
    router: Router,
    last_call: CancellationToken,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (answer, last_call) = (router.call(request), last_call.clone());
        async move {
            let mut answer = answer.await?;
            if last_call.is_cancelled() {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
