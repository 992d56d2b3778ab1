//! A TCP relay that can lose connections in every way a network does.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio_util::task::AbortOnDropHandle;

use super::servers::free_port;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nobody listens; what was open is closed.
    Refuse,
    /// Whatever is open now, or is opened while this lasts, stays open and silent for ever: half-open, as after a firewall
    /// that forgot its connections. Only connections made after it pass again.
    Swallow,
    /// What is open is reset, and so is whoever tries anew.
    Reset,
}

/// Passes bytes on to `target`, which need not be there.
pub struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    mode: watch::Sender<Mode>,
    listening: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Relay {
    pub async fn to(target: SocketAddr, mode: Mode) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", free_port()))
            .await
            .expect("the port is ours");
        let address = listener.local_addr().expect("an address");
        let relay = Relay {
            address,
            target,
            mode: watch::Sender::new(mode),
            listening: Mutex::default(),
        };
        if mode == Mode::Refuse {
            drop(listener);
        } else {
            *relay.listening.lock().await = Some(relay.listen(listener));
        }
        relay
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub async fn set(&self, mode: Mode) {
        let mut listening = self.listening.lock().await;
        self.mode.send_replace(mode);
        if mode == Mode::Refuse {
            if let Some(task) = listening.take() {
                task.abort();
                // Until it is gone the port is open.
                let _ = task.await;
            }
        } else if listening.is_none() {
            let listener = TcpListener::bind(self.address).await.expect("the port is still ours");
            *listening = Some(self.listen(listener));
        }
    }

    fn listen(&self, listener: TcpListener) -> AbortOnDropHandle<()> {
        let (target, mode) = (self.target, self.mode.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, target, mode.subscribe()));
            }
        }))
    }
}

/// Lives until its relay is dropped, however silent.
async fn connection(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow_and_update();
    if now == Mode::Pass {
        let Ok(mut server) = TcpStream::connect(target).await else {
            // As if nobody listened here.
            return reset(&client);
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = mode.changed() => {}
        }
        let now = *mode.borrow_and_update();
        return match now {
            Mode::Swallow => silence(mode).await,
            Mode::Reset => reset(&client),
            Mode::Pass | Mode::Refuse => {}
        };
    }
    match now {
        Mode::Swallow => silence(mode).await,
        _ => reset(&client),
    }
}

async fn silence(mut mode: watch::Receiver<Mode>) {
    while mode.changed().await.is_ok() {}
}

/// The socket is dropped right after.
fn reset(client: &TcpStream) {
    let _ = client.set_zero_linger();
}
