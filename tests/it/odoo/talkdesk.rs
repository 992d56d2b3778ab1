//! Talkdesk's synchronizer, with its memory.

use std::io::{self, Write};
use std::sync::Arc;

use ::talkdesk::player::{Keep, PlayError, Player, PlayerState, client};
use ::talkdesk::wire::Auth;
use parking_lot::Mutex;
use serde_json::Value;
use url::Url;

use super::within;

pub struct Talkdesk {
    url: Url,
    pub auth: Auth,
    state: PlayerState,
}

impl Talkdesk {
    pub fn new(url: Url, auth: Auth) -> Talkdesk {
        Talkdesk {
            url,
            auth,
            state: PlayerState::default(),
        }
    }

    /// The next run: what changed since the last one.
    pub async fn sync(&mut self) -> Result<Vec<Value>, PlayError> {
        let sink = Sink::default();
        let http = client(&self.url).expect("a client");
        let mut player = Player::new(self.url.clone(), self.auth.clone(), http)
            .keep(Keep::Last)
            .out(sink.clone());
        let _ = player.run(&mut self.state).await.complete()?;
        let written = sink.0.lock();
        let lines = written.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines
            .map(|line| serde_json::from_slice(line).expect("a contact"))
            .collect())
    }

    /// A run without a checkpoint.
    pub async fn full(&self) -> Vec<Value> {
        Talkdesk::new(self.url.clone(), self.auth.clone())
            .sync()
            .await
            .expect("a full sync")
    }

    /// Runs until what came says so, and returns all of it.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut came = Vec::new();
        within(what, async || {
            came.extend(self.sync().await.expect("a sync"));
            enough(&came).then_some(())
        })
        .await;
        came
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
