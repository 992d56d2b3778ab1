//! Everything that is derived from the key file: account ids, fingerprints, hook ids and secrets, lookup keys, and the
//! sealing of credentials and tokens.
//!
//! Two kinds of keys. The **identity** key names things and is never rotated: a new one would be a new account for
//! every customer. **Sealing** keys hide things; they carry a key id, the first seals, every one still listed opens. They
//! may be replaced while the process runs ([`Keys::take_sealing`]).

use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::BASE32_NOPAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::ids::AccountId;

/// Raw key material, 32 bytes.
pub type RawKey = SecretBox<[u8; 32]>;

/// Who an account is to its CRM; the input of its id. `visibility_is_shared` connectors leave `principal` empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    pub integration: &'a str,
    /// The locator fields of `auth`, canonical (host, account name).
    pub site: &'a str,
    /// The CRM's own id of the organisation, learned by the check.
    pub org: &'a str,
    /// The CRM's own id of the user, or the principal field; empty if all users see the same.
    pub principal: &'a str,
}

/// A keyed hash of the canonical `auth`: 32 hex digits. Useless without the identity key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// Compares in constant time.
    pub fn matches(&self, other: &Fingerprint) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

struct SealingKey {
    kid: String,
    tokens: RawKey,
    credentials: RawKey,
    sessions: RawKey,
    payloads: RawKey,
}

/// What is sealed, each with a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Tokens,
    Credentials,
    /// Of operators, on the ops page.
    Sessions,
    /// What waits in an inbox.
    Payloads,
}

/// A sealed text could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("sealed with a key that is not in the key file")]
    UnknownKey,
    #[error("not sealed by us for this use, or changed on the way")]
    Forged,
}

/// The keys were given wrongly.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("no sealing key: the key file needs at least one `seal` line")]
    NoSealingKey,
    #[error("key id {0:?} is not 1 to 16 characters of a-z, 0-9")]
    BadKeyId(String),
    #[error("key id {0:?} is listed twice")]
    TwiceListed(String),
    #[error("the identity key is another one. It is never rotated: put the old one back")]
    OtherIdentity,
}

/// All derived keys of one installation.
pub struct Keys {
    accounts: RawKey,
    fingerprints: RawKey,
    budgets: RawKey,
    lookups: RawKey,
    hooks: RawKey,
    logs: RawKey,
    sealing: RwLock<Arc<[SealingKey]>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("sealing", &self.kids())
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// `sealing`: (key id, key); the first one seals.
    pub fn new(identity: &RawKey, sealing: &[(String, RawKey)]) -> Result<Keys, KeysError> {
        let sealing = derive_sealing(sealing)?;
        Ok(Keys {
            accounts: derive(identity, ACCOUNTS),
            fingerprints: derive(identity, "snapbridge fingerprint v1"),
            budgets: derive(identity, "snapbridge budget scope v1"),
            lookups: derive(identity, "snapbridge lookup key v1"),
            hooks: derive(identity, "snapbridge hook v1"),
            logs: derive(identity, "snapbridge log id v1"),
            sealing: RwLock::new(sealing),
        })
    }

    /// Takes other sealing keys from now on; the identity must be the same. Nothing changes on an error.
    pub fn take_sealing(&self, identity: &RawKey, sealing: &[(String, RawKey)]) -> Result<(), KeysError> {
        let same: bool = derive(identity, ACCOUNTS)
            .expose_secret()
            .ct_eq(self.accounts.expose_secret())
            .into();
        if !same {
            return Err(KeysError::OtherIdentity);
        }
        let sealing = derive_sealing(sealing)?;
        *self.sealing.write().unwrap_or_else(PoisonError::into_inner) = sealing;
        Ok(())
    }

    fn sealing(&self) -> Arc<[SealingKey]> {
        self.sealing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key ids; the first one seals.
    pub fn kids(&self) -> Vec<String> {
        self.sealing().iter().map(|key| key.kid.clone()).collect()
    }

    /// Whether what carries this key id is to be sealed anew with the key `to`; nothing is, once another one seals.
    pub fn is_old(&self, to: &str, kid: &str) -> bool {
        kid != to && self.sealing()[0].kid == to
    }

    pub fn account_id(&self, identity: &Identity<'_>) -> AccountId {
        let parts = [identity.integration, identity.site, identity.org, identity.principal];
        let text = BASE32_NOPAD.encode(&mac(&self.accounts, &parts)).to_ascii_lowercase();
        text[..AccountId::LENGTH]
            .parse()
            .expect("base32 in lower case, cut to the length of an account id")
    }

    /// `canonical`: the connector's canonical form of `auth`, which no two different inputs share.
    pub fn fingerprint(&self, integration: &str, canonical: &[u8]) -> Fingerprint {
        Fingerprint(hex(&mac_bytes(
            &self.fingerprints,
            &[integration.as_bytes(), canonical],
        )[..16]))
    }

    /// The key that the budget of one account at a CRM is kept under: two integrations on it share its limit.
    pub fn budget_scope(&self, connector: &str, account: &str) -> String {
        hex(&mac(&self.budgets, &[connector, account])[..16])
    }

    /// That of the calls of one of its users.
    pub fn user_budget_scope(&self, connector: &str, account: &str, user: &str) -> String {
        hex(&mac(&self.budgets, &[connector, account, "user", user])[..16])
    }

    /// That of all calls of an integration.
    pub fn app_budget_scope(&self, connector: &str, integration: &str) -> String {
        hex(&mac(&self.budgets, &[connector, integration, "app"])[..16])
    }

    /// That of all calls to one origin, for whatever integration.
    pub fn ip_budget_scope(&self, connector: &str, origin: &str) -> String {
        hex(&mac(&self.budgets, &[connector, origin, "ip"])[..16])
    }

    /// The keyed hash under which a phone, an email or an alias of a contact is looked up.
    pub fn lookup_key(&self, account: &AccountId, value: &str) -> u64 {
        let digest = mac(&self.lookups, &[account.as_str(), value]);
        u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
    }

    /// The unguessable id of an account's own webhook URL. It holds the account id, so it needs no storage and outlives
    /// the loss of the store.
    pub fn hook_id(&self, account: &AccountId) -> String {
        let proof = mac(&self.hooks, &["id", account.as_str()]);
        format!("{account}{}", BASE32_NOPAD.encode(&proof[..20]).to_ascii_lowercase())
    }

    /// The account that a hook id names, if we made it. Constant time in the proof.
    pub fn hook_account(&self, hook: &str) -> Option<AccountId> {
        let account: AccountId = hook.get(..AccountId::LENGTH)?.parse().ok()?;
        let known: bool = self.hook_id(&account).as_bytes().ct_eq(hook.as_bytes()).into();
        known.then_some(account)
    }

    /// The webhook secret of an account: 64 hex digits, derived, so it survives the loss of the store.
    pub fn hook_secret(&self, account: &AccountId) -> String {
        hex(&mac(&self.hooks, &["secret", account.as_str()]))
    }

    /// Fifteen digits that name an account's webhook where the CRM lets the subscriber choose an id, and takes a number.
    pub fn hook_number(&self, account: &AccountId) -> u64 {
        const LEAST: u64 = 100_000_000_000_000;
        let digest = mac(&self.hooks, &["number", account.as_str()]);
        LEAST + u64::from_be_bytes(std::array::from_fn(|i| digest[i])) % (9 * LEAST)
    }

    /// What tells this installation from others, for whoever asks whether a URL leads to it. Says nothing of the keys.
    pub fn installation(&self) -> String {
        hex(&mac(&self.logs, &["installation"])[..8])
    }

    /// Eight hex digits that stand for a value in logs.
    pub fn log_id(&self, value: &str) -> String {
        hex(&mac(&self.logs, &[value])[..4])
    }

    /// Seals with the first key: (key id, nonce and ciphertext). `owner` is bound in: a text sealed for one owner does
    /// not open for another.
    pub fn seal(&self, purpose: Purpose, owner: &str, plain: &[u8]) -> (String, Vec<u8>) {
        let sealing = self.sealing();
        // There always is one, see `derive_sealing`.
        let key = &sealing[0];
        let mut nonce = [0u8; 24];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: plain,
            aad: owner.as_bytes(),
        };
        let sealed = cipher(key, purpose)
            .encrypt(&XNonce::from(nonce), payload)
            .expect("XChaCha20-Poly1305 only fails beyond 256 GiB");
        let mut out = nonce.to_vec();
        out.extend_from_slice(&sealed);
        (key.kid.clone(), out)
    }

    pub fn open(&self, purpose: Purpose, owner: &str, kid: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealing = self.sealing();
        let key = sealing.iter().find(|key| key.kid == kid).ok_or(SealError::UnknownKey)?;
        let (nonce, sealed) = sealed.split_first_chunk::<24>().ok_or(SealError::Forged)?;
        let payload = Payload {
            msg: sealed,
            aad: owner.as_bytes(),
        };
        cipher(key, purpose)
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| SealError::Forged)
    }
}

const ACCOUNTS: &str = "snapbridge account id v1";

fn derive_sealing(sealing: &[(String, RawKey)]) -> Result<Arc<[SealingKey]>, KeysError> {
    if sealing.is_empty() {
        return Err(KeysError::NoSealingKey);
    }
    for (i, (kid, _)) in sealing.iter().enumerate() {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=16).contains(&kid.len()) || !kid.bytes().all(legal) {
            return Err(KeysError::BadKeyId(kid.clone()));
        }
        if sealing[..i].iter().any(|(other, _)| other == kid) {
            return Err(KeysError::TwiceListed(kid.clone()));
        }
    }
    let derived = sealing.iter().map(|(kid, key)| SealingKey {
        kid: kid.clone(),
        tokens: derive(key, "snapbridge seal tokens v1"),
        credentials: derive(key, "snapbridge seal credentials v1"),
        sessions: derive(key, "snapbridge seal sessions v1"),
        payloads: derive(key, "snapbridge seal payloads v1"),
    });
    Ok(derived.collect())
}

fn cipher(key: &SealingKey, purpose: Purpose) -> XChaCha20Poly1305 {
    let raw = match purpose {
        Purpose::Tokens => &key.tokens,
        Purpose::Credentials => &key.credentials,
        Purpose::Sessions => &key.sessions,
        Purpose::Payloads => &key.payloads,
    };
    XChaCha20Poly1305::new(&Key::from(*raw.expose_secret()))
}

fn derive(key: &RawKey, label: &str) -> RawKey {
    let mut out = [0u8; 32];
    Hkdf::<Sha256>::new(None, key.expose_secret())
        .expand(label.as_bytes(), &mut out)
        .expect("32 bytes is a legal output length of HKDF-SHA256");
    let boxed = SecretBox::new(Box::new(out));
    out.zeroize();
    boxed
}

fn mac(key: &RawKey, parts: &[&str]) -> [u8; 32] {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    mac_bytes(key, &parts)
}

/// HMAC-SHA256 over length-prefixed parts, so that ("ab", "c") and ("a", "bc") differ.
fn mac_bytes(key: &RawKey, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
pub(crate) fn test_keys(seed: u8) -> Keys {
    let raw = |byte: u8| SecretBox::new(Box::new([byte; 32]));
    Keys::new(
        &raw(seed),
        &[("new".into(), raw(seed + 1)), ("old".into(), raw(seed + 2))],
    )
    .expect("legal test keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity<'a>(org: &'a str, principal: &'a str) -> Identity<'a> {
        Identity {
            integration: "demo",
            site: "acme",
            org,
            principal,
        }
    }

    #[test]
    fn accounts_differ_by_every_part_and_parts_do_not_run_together() {
        let keys = test_keys(1);
        let id = keys.account_id(&identity("a", "b"));
        assert_eq!(id, keys.account_id(&identity("a", "b")));
        for other in [
            identity("ab", ""),
            identity("", "ab"),
            identity("a", "c"),
            identity("b", "a"),
        ] {
            assert_ne!(id, keys.account_id(&other));
        }
        assert_ne!(id, test_keys(9).account_id(&identity("a", "b")));
    }

    #[test]
    fn a_hook_id_opens_for_its_own_account_only() {
        let keys = test_keys(1);
        let account = keys.account_id(&identity("a", "b"));
        let hook = keys.hook_id(&account);
        assert_eq!(keys.hook_account(&hook), Some(account.clone()));
        for i in 0..hook.len() {
            let mut other = hook.clone().into_bytes();
            other[i] = if other[i] == b'a' { b'b' } else { b'a' };
            assert_eq!(keys.hook_account(&String::from_utf8(other).unwrap()), None, "byte {i}");
        }
        for text in ["", "é", &hook[..30], &format!("{hook}a")] {
            assert_eq!(keys.hook_account(text), None);
        }
    }

    #[test]
    fn invariant_12_sealed_texts_open_only_for_their_owner_and_use_and_with_old_keys() {
        let keys = test_keys(1);
        let (kid, sealed) = keys.seal(Purpose::Credentials, "owner", b"plain");
        assert_eq!(kid, "new");
        assert_eq!(
            keys.open(Purpose::Credentials, "owner", &kid, &sealed).unwrap(),
            b"plain"
        );
        assert_eq!(
            keys.open(Purpose::Credentials, "other", &kid, &sealed),
            Err(SealError::Forged)
        );
        assert_eq!(
            keys.open(Purpose::Tokens, "owner", &kid, &sealed),
            Err(SealError::Forged)
        );
        assert_eq!(
            keys.open(Purpose::Credentials, "owner", "gone", &sealed),
            Err(SealError::UnknownKey)
        );
        assert_eq!(
            keys.open(Purpose::Credentials, "owner", &kid, b"short"),
            Err(SealError::Forged)
        );

        let raw = |byte: u8| SecretBox::new(Box::new([byte; 32]));
        let rotated = Keys::new(&raw(1), &[("newer".into(), raw(7)), ("new".into(), raw(2))]).unwrap();
        assert_eq!(
            rotated.open(Purpose::Credentials, "owner", &kid, &sealed).unwrap(),
            b"plain"
        );
        assert_eq!(
            rotated.account_id(&identity("a", "b")),
            keys.account_id(&identity("a", "b"))
        );
    }

    #[test]
    fn other_sealing_keys_are_taken_while_it_runs_and_another_identity_is_not() {
        let raw = |byte: u8| -> RawKey { SecretBox::new(Box::new([byte; 32])) };
        let keys = test_keys(1);
        let (_, sealed) = keys.seal(Purpose::Payloads, "owner", b"plain");
        keys.take_sealing(&raw(1), &[("newer".into(), raw(7)), ("new".into(), raw(2))])
            .unwrap();
        assert_eq!(keys.kids(), ["newer", "new"]);
        assert_eq!(keys.seal(Purpose::Payloads, "owner", b"plain").0, "newer");
        assert_eq!(keys.open(Purpose::Payloads, "owner", "new", &sealed).unwrap(), b"plain");
        for (identity, sealing) in [(2, vec![("newer".to_owned(), raw(7))]), (1, Vec::new())] {
            assert!(keys.take_sealing(&raw(identity), &sealing).is_err());
            assert_eq!(keys.kids(), ["newer", "new"], "nothing changes on an error");
        }
        assert_eq!(
            keys.account_id(&identity("a", "b")),
            test_keys(1).account_id(&identity("a", "b"))
        );
    }

    #[test]
    fn debug_shows_key_ids_only() {
        assert_eq!(format!("{:?}", test_keys(1)), r#"Keys { sealing: ["new", "old"], .. }"#);
    }
}
