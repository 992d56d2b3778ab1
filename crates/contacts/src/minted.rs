//! Access tokens that the bridge mints itself (OAuth 2, password and client-credentials grants): how long one is used,
//! and where it lies between processes. In the store it is sealed, under a key that only its credentials lead to.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::keys::{Keys, Purpose};
use crate::ports::{Scratch, StoreResult};
use crate::time::Micros;

/// The life of a token of which nobody says how long it lives.
pub const UNTOLD: Duration = Duration::from_secs(3600);
/// The longest life that is believed.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// A token is renewed this long before its end, or a tenth of its life before, whichever is shorter.
const MARGIN: Duration = Duration::from_secs(60);

/// A token and until when it is used. Debug output hides it.
#[derive(Clone, Debug)]
pub struct Minted {
    pub token: SecretString,
    /// Renewed from then on, a little before the token's own end.
    pub until: Micros,
}

impl Minted {
    /// A token asked for at `asked_at` (our clock *before* the call, so that its life is never taken for longer than it
    /// is) that lives for `life`; `None`: the server did not say.
    pub fn new(token: SecretString, asked_at: Micros, life: Option<Duration>) -> Minted {
        let life = life.unwrap_or(UNTOLD).min(LONGEST);
        let usable = life - MARGIN.min(life / 10);
        Minted {
            token,
            until: asked_at.plus(usable),
        }
    }

    pub fn is_good(&self, now: Micros) -> bool {
        now < self.until
    }

    /// Whether it is this token. Constant time is not needed: both are ours.
    pub fn is(&self, token: &SecretString) -> bool {
        self.token.expose_secret() == token.expose_secret()
    }
}

/// What lies in the store.
#[derive(Serialize, Deserialize)]
struct Stored {
    kid: String,
    /// Base64 of nonce and ciphertext of [`Plain`].
    data: String,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    token: String,
    until: Micros,
}

/// Minted tokens between processes.
pub struct Vault<S: ?Sized> {
    scratch: Arc<S>,
    keys: Arc<Keys>,
}

impl<S: Scratch + ?Sized> Vault<S> {
    pub fn new(scratch: Arc<S>, keys: Arc<Keys>) -> Vault<S> {
        Vault { scratch, keys }
    }

    /// The token of `key`, if one is kept and still good. One that cannot be opened any more counts as none.
    pub async fn load(&self, key: &str, now: Micros) -> StoreResult<Option<Minted>> {
        let Some(stored) = self.scratch.get(&place(key), now).await? else {
            return Ok(None);
        };
        Ok(self.open(key, &stored).filter(|minted| minted.is_good(now)))
    }

    fn open(&self, key: &str, stored: &[u8]) -> Option<Minted> {
        let stored: Stored = serde_json::from_slice(stored).ok()?;
        let sealed = BASE64.decode(stored.data.as_bytes()).ok()?;
        let plain = self
            .keys
            .open(Purpose::Credentials, &place(key), &stored.kid, &sealed)
            .ok()?;
        let plain: Plain = serde_json::from_slice(&plain).ok()?;
        Some(Minted {
            token: plain.token.into(),
            until: plain.until,
        })
    }

    /// Keeps a token for as long as it is good.
    pub async fn keep(&self, key: &str, minted: &Minted, now: Micros) -> StoreResult<()> {
        let plain = Plain {
            token: minted.token.expose_secret().to_owned(),
            until: minted.until,
        };
        // Plain data has no way to fail.
        let plain = serde_json::to_vec(&plain).unwrap_or_default();
        let (kid, sealed) = self.keys.seal(Purpose::Credentials, &place(key), &plain);
        let stored = Stored {
            kid,
            data: BASE64.encode(&sealed),
        };
        let stored = serde_json::to_vec(&stored).unwrap_or_default();
        let life = minted.until.since(now);
        if life.is_zero() {
            return Ok(());
        }
        self.scratch.put(&place(key), &stored, life, now).await
    }

    pub async fn forget(&self, key: &str) -> StoreResult<()> {
        self.scratch.delete(&place(key)).await
    }

    /// Whether the caller is the one, of all processes, who asks for the next token; for at most `life`.
    pub async fn claim(&self, key: &str, life: Duration, now: Micros) -> StoreResult<bool> {
        self.scratch.claim(&turn(key), b"1", life, now).await
    }

    pub async fn release(&self, key: &str) -> StoreResult<()> {
        self.scratch.delete(&turn(key)).await
    }
}

fn place(key: &str) -> String {
    format!("minted|{key}")
}

fn turn(key: &str) -> String {
    format!("minting|{key}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_renewed_before_its_end_and_used_for_most_of_its_life(
            asked in 0..4_000_000_000_000_000_u64, life in prop_oneof![Just(0), 1_000..u64::MAX / 2],
        ) {
            let (asked, life) = (Micros(asked), Duration::from_micros(life));
            let minted = Minted::new("t".to_owned().into(), asked, Some(life));
            let used = minted.until.since(asked);
            prop_assert!(used <= life);
            prop_assert!(used >= life.min(LONGEST).mul_f64(0.89));
            prop_assert!(life.is_zero() || used < life);
            prop_assert!(life < Duration::from_secs(600) || life - used >= MARGIN);
            prop_assert!(!minted.is_good(minted.until));
        }
    }

    #[test]
    fn debug_output_hides_a_token() {
        let minted = Minted::new("canary-4711".to_owned().into(), Micros::ZERO, None);
        assert!(!format!("{minted:?}").contains("canary"));
        assert_eq!(minted.until, Micros::from_secs(3540));
    }
}
