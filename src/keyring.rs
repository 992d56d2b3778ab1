//! The key file, looked at again while the process runs, and what all processes have loaded of it.
//!
//! A changed file is taken on without a restart; one that cannot be used leaves the old keys in place. Each process reports
//! the ids of its keys to the store ([`contacts::rotation::Keyring`]), so that no key seals before all can open with it, and
//! none goes that somebody still seals with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use contacts::keys::{Keys, RawKey};
use contacts::rotation::{self, Keyring, Loaded};
use contacts::{Clock, Store};
use process::keys::{Digest, KeyFile};
use tokio_util::sync::CancellationToken;

use crate::wiring::Role;

/// How often a process that loaded nothing new says that it lives.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Reports that may be missed before a process counts as gone.
const MISSED: u32 = 4;

pub struct Watch {
    pub path: PathBuf,
    pub keys: Arc<Keys>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Names this process.
    pub owner: String,
    pub role: Role,
    /// Time between two looks.
    pub every: Duration,
}

impl Watch {
    /// Looks at the file until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut judged = None;
        let mut reported: Option<(Vec<String>, contacts::Micros)> = None;
        // What was complained of, so that it is said once.
        let mut lacking: Vec<String> = Vec::new();
        loop {
            self.look(&mut judged).await;
            let kids = self.keys.kids();
            let now = self.clock.now();
            let is_due = reported
                .as_ref()
                .is_none_or(|(of, at)| *of != kids || now.since(*at) >= REPORT_EVERY);
            if is_due {
                match self.report(&kids).await {
                    Ok(keyring) => {
                        reported = Some((kids.clone(), now));
                        let lacks = unopened(&keyring, &kids, now);
                        if !lacks.is_empty() && lacks != lacking {
                            tracing::error!(
                                keys = lacks.join(", "),
                                file = %self.path.display(),
                                "other processes seal with keys that this key file does not have: give every process the same file"
                            );
                        }
                        lacking = lacks;
                    }
                    Err(error) => tracing::debug!(%error, "the keys of this process could not be reported"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.every) => {}
            }
        }
        if let Err(error) = rotation::leave(&*self.store, &self.owner).await {
            tracing::debug!(%error, "the end of this process could not be reported");
        }
    }

    async fn look(&self, judged: &mut Option<Judged>) {
        let path = self.path.clone();
        let known = judged.as_ref().and_then(|judged| judged.digest);
        let read = tokio::task::spawn_blocking(move || process::keys::load_changed(&path, known)).await;
        let Ok(read) = read else { return };
        let (digest, taken) = match read {
            Ok(None) => {
                if let Some(judged) = judged {
                    judged.error = None;
                }
                return;
            }
            Ok(Some((file, digest))) => (Some(digest), self.take(file)),
            // The digest stays: the same file again, after it was away, is no news.
            Err(error) => (known, Err(error.into())),
        };
        let error = taken.as_ref().err().map(|error| process::chain(error.as_ref()));
        let is_first = judged.is_none();
        let told = judged.as_ref().and_then(|judged| judged.error.as_ref());
        let result = match taken {
            Ok(false) => None,
            Ok(true) if is_first => None,
            Ok(true) => {
                tracing::info!(
                    keys = self.keys.kids().join(", "),
                    "the changed key file has been taken on; the first key seals"
                );
                Some("ok")
            }
            Err(_) if told == error.as_ref() => None,
            Err(_) => {
                let error = error.as_deref().unwrap_or_default();
                tracing::error!(error, "the changed key file cannot be used, the old keys stay");
                Some("failed")
            }
        };
        if let Some(result) = result {
            metrics::counter!("snapbridge_key_reloads_total", "result" => result).increment(1);
        }
        *judged = Some(Judged { digest, error });
    }

    /// `false`: it holds the keys that are in use.
    fn take(&self, file: KeyFile) -> anyhow::Result<bool> {
        let kids: Vec<String> = file.seals.iter().map(|seal| seal.kid.clone()).collect();
        let is_new = kids != self.keys.kids();
        let (identity, seals) = raw(file);
        self.keys.take_sealing(&identity, &seals)?;
        Ok(is_new)
    }

    async fn report(&self, kids: &[String]) -> Result<Keyring, contacts::StoreError> {
        let now = self.clock.now();
        let loaded = Loaded {
            role: self.role.as_str().to_owned(),
            kids: kids.to_vec(),
            until: now.plus((self.every + REPORT_EVERY) * MISSED),
        };
        rotation::report(&*self.store, &self.owner, &loaded, now).await
    }
}

/// What was made of the file.
struct Judged {
    digest: Option<Digest>,
    error: Option<String>,
}

/// The keys that living processes seal with and that are not among `kids`.
fn unopened(keyring: &Keyring, kids: &[String], now: contacts::Micros) -> Vec<String> {
    let sealing = keyring.sealing(now).into_iter().map(str::to_owned);
    sealing.filter(|kid| !kids.contains(kid)).collect()
}

fn raw(file: KeyFile) -> (RawKey, Vec<(String, RawKey)>) {
    let seals = file.seals.into_iter().map(|seal| (seal.kid, seal.key)).collect();
    (file.identity, seals)
}

/// Keys as the domain derives them from a key file.
pub fn derived(file: KeyFile) -> anyhow::Result<Arc<Keys>> {
    let (identity, seals) = raw(file);
    let keys = Keys::new(&identity, &seals).context("the key file cannot be used")?;
    Ok(Arc::new(keys))
}

/// When the keys of a file were made, by kid; empty if it cannot be read.
pub fn made(path: &Path) -> std::collections::BTreeMap<String, contacts::Micros> {
    let file = process::keys::load(path);
    let made = file.map(|file| file.made).unwrap_or_default().into_iter();
    made.filter_map(|(kid, at)| Some((kid, contacts::Micros::from_secs(at.as_second().try_into().ok()?))))
        .collect()
}
