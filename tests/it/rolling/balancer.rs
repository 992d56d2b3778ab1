//! What a Service of Kubernetes is to its fronts: it hands each new connection to one whose /readyz said 200 when it last
//! looked, and never tries again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::until;
use crate::processes::Process;

/// How often it looks; the fronts' `http.drain` must be longer.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Backend {
    address: SocketAddr,
    admin: String,
    ready: bool,
}

#[derive(Default)]
struct Known {
    backends: Vec<Backend>,
    turn: usize,
}

/// Gone with this value.
pub struct Balancer {
    pub url: String,
    known: Arc<Mutex<Known>>,
    tasks: [JoinHandle<()>; 2],
}

impl Balancer {
    pub async fn start() -> Balancer {
        process::tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let known = Arc::<Mutex<Known>>::default();
        let tasks = [
            tokio::spawn(hand_out(listener, known.clone())),
            tokio::spawn(look(known.clone())),
        ];
        Balancer { url, known, tasks }
    }

    /// Takes a front in, and waits until it is used.
    pub async fn add(&self, front: &Process) {
        let backend = Backend {
            address: address(front),
            admin: front.admin(),
            ready: false,
        };
        self.known.lock().backends.push(backend);
        let is_used = |backend: &Backend| backend.admin == front.admin() && backend.ready;
        until("the balancer uses a front", || async {
            self.known.lock().backends.iter().any(is_used)
        })
        .await;
    }

    /// Waits until it sees that a front has gone, by nothing but its readiness, and forgets it.
    pub async fn sees_go(&self, front: &Process) {
        let is_used = |backend: &Backend| backend.admin == front.admin() && backend.ready;
        until("a front that stops says that it is not ready", || async {
            !self.known.lock().backends.iter().any(is_used)
        })
        .await;
        self.known
            .lock()
            .backends
            .retain(|backend| backend.admin != front.admin());
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn address(front: &Process) -> SocketAddr {
    let url = front.url();
    url.trim_start_matches("http://").parse().expect("an address")
}

async fn look(known: Arc<Mutex<Known>>) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()
        .expect("a client");
    loop {
        let backends = known.lock().backends.clone();
        for backend in backends {
            let asked = http.get(format!("{}/readyz", backend.admin)).send().await;
            let ready = asked.is_ok_and(|answer| answer.status().as_u16() == 200);
            let mut known = known.lock();
            let same = known.backends.iter_mut().find(|known| known.admin == backend.admin);
            if let Some(same) = same {
                same.ready = ready;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn hand_out(listener: TcpListener, known: Arc<Mutex<Known>>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            return;
        };
        let address = {
            let mut known = known.lock();
            known.turn += 1;
            let ready: Vec<SocketAddr> = known
                .backends
                .iter()
                .filter(|backend| backend.ready)
                .map(|backend| backend.address)
                .collect();
            // Nobody is ready: the client sees its connection end, and the test fails.
            let Some(address) = ready.get(known.turn % ready.len().max(1)) else {
                continue;
            };
            *address
        };
        tokio::spawn(async move {
            let Ok(mut front) = TcpStream::connect(address).await else {
                return;
            };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut front).await;
        });
    }
}
