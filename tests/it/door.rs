//! Where the world reaches a bridge under test: an address that is known before the bridge listens, and stays when another
//! bridge takes its place.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::Bridge;

pub struct Door {
    /// `http.public_url`.
    pub url: String,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Door {
    pub async fn open() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let leads_to: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let behind = leads_to.clone();
        let listening = tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                let target = *behind.lock();
                tokio::spawn(async move {
                    // Nobody behind the door: the caller is hung up on.
                    let Some(target) = target else { return };
                    if let Ok(mut inside) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut outside, &mut inside).await;
                    }
                });
            }
        });
        Door {
            url,
            leads_to,
            _listening: AbortOnDropHandle::new(listening),
        }
    }

    pub fn lead_to(&self, bridge: &Bridge) {
        let address = bridge.url.trim_start_matches("http://").parse().expect("an address");
        *self.leads_to.lock() = Some(address);
    }
}
