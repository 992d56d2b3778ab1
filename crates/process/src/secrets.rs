//! Secrets with which callers of the bridge prove themselves. Only their hashes are kept, and this is the one place where
//! a given one is compared: the hashes have no `==`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// In front of a hash, in the settings.
const HASHED: &str = "sha256:";

/// A shorter one could be guessed.
const CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// One caller's secret, the one it replaces, and a few to spare.
const MOST: usize = 16;

/// Any of these will do: the old and the new one while they are rotated. Empty: none is asked for.
#[derive(Clone, Default)]
pub struct Secrets(Vec<[u8; 32]>);

/// Why a text is no secret; it does not hold the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    #[error("a secret must be 16 to 128 letters, digits, _ or -, or `sha256:` and 64 hex digits")]
    Shape,
    #[error("there may be at most {MOST} secrets")]
    TooMany,
}

impl Secrets {
    /// Each as it is, or as [`hashed`] writes it.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Secrets, NoSecret> {
        let hashes: Vec<[u8; 32]> = texts.into_iter().map(read).collect::<Result<_, _>>()?;
        if hashes.len() > MOST {
            return Err(NoSecret::TooMany);
        }
        Ok(Secrets(hashes))
    }

    /// Whether `given` is one of these. All are compared, and each in constant time.
    pub fn admit(&self, given: &str) -> bool {
        let given = hash(given);
        let found = self
            .0
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        found.into()
    }

    /// Stands for these secrets, and changes with each of them; tells nothing of any.
    pub fn digest(&self) -> String {
        let all = self.0.iter().fold(Sha256::new(), |all, hash| all.chain_update(hash));
        hex::encode(all.finalize())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} hashed)", self.0.len())
    }
}

/// Whether `given` is the secret, compared in constant time.
pub fn same(given: &str, secret: &SecretString) -> bool {
    hash(given).ct_eq(&hash(secret.expose_secret())).into()
}

/// Whether `signature`, in hex, is the HMAC-SHA256 of `raw` under the secret.
pub fn signs(signature: &str, raw: &[u8], secret: &SecretString) -> bool {
    let (Ok(mac), Ok(given)) = (
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()),
        hex::decode(signature),
    ) else {
        return false;
    };
    mac.chain_update(raw).verify_slice(&given).is_ok()
}

/// `sha256:…` of a secret, for the settings; refuses what would not be taken there.
pub fn hashed(secret: &str) -> Result<String, NoSecret> {
    if secret.starts_with(HASHED) {
        return Err(NoSecret::Shape);
    }
    Ok(format!("{HASHED}{}", hex::encode(read(secret)?)))
}

/// A new random secret.
pub fn fresh() -> String {
    hex::encode(rand::random::<[u8; 24]>())
}

/// The secret of a file (mode 0600), made if it is not there.
pub fn kept(path: &std::path::Path) -> std::io::Result<String> {
    if !path.exists() {
        crate::keys::write_once(path, format!("{}\n", fresh()).as_bytes())?;
    }
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

fn read(text: &str) -> Result<[u8; 32], NoSecret> {
    if let Some(digits) = text.strip_prefix(HASHED) {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NoSecret::Shape)?;
        return Ok(bytes);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if CHARS.contains(&text.len()) && text.bytes().all(allowed) {
        Ok(hash(text))
    } else {
        Err(NoSecret::Shape)
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "the-old-secret-of-the-bridge";
    const NEW: &str = "the-new-secret-of-the-bridge";

    #[test]
    fn old_and_new_are_admitted_and_nothing_else() {
        let hash = hashed(NEW).unwrap();
        let secrets = Secrets::read([OLD, &hash]).unwrap();
        assert!(secrets.admit(OLD) && secrets.admit(NEW));
        for other in ["", "the-old-secret-of-the-bridgE", &hash, &hash["sha256:".len()..], " "] {
            assert!(!secrets.admit(other), "{other}");
        }
        assert!(!Secrets::default().admit(""), "no secret admits nobody");
    }

    #[test]
    fn a_secret_that_is_kept_whole_is_compared_and_signs() {
        let secret = SecretString::from(OLD);
        assert!(same(OLD, &secret) && !same(NEW, &secret) && !same("", &secret));
        // printf %s '{"id":1}' | openssl dgst -sha256 -hmac the-old-secret-of-the-bridge
        let signature = "728739157bcc36fbe5871344bc5846e27859506c7cd8fcd35bc4fcf13845f12f";
        assert!(signs(signature, br#"{"id":1}"#, &secret) && signs(&signature.to_uppercase(), br#"{"id":1}"#, &secret));
        assert!(
            !signs(signature, br#"{"id":2}"#, &secret) && !signs(signature, br#"{"id":1}"#, &SecretString::from(NEW))
        );
        assert!(!signs("", b"", &secret) && !signs("zz", b"", &secret));
    }

    #[test]
    fn a_hash_is_the_sha256_of_the_secret_s_bytes() {
        // printf %s 0123456789abcdef | sha256sum
        assert_eq!(
            hashed("0123456789abcdef").unwrap(),
            "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f"
        );
        let fresh = fresh();
        assert!(Secrets::read([hashed(&fresh).unwrap().as_str()]).unwrap().admit(&fresh));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        let long = "x".repeat(129);
        for text in [
            "short",
            "a secret with spaces",
            "sha256:12",
            "sha256:zz",
            &long,
            "ümlaut-is-no-ascii",
        ] {
            let error = Secrets::read([text]).unwrap_err();
            assert_eq!(error, NoSecret::Shape);
            assert!(!error.to_string().contains(text));
        }
        assert_eq!(Secrets::read([OLD; 17]).unwrap_err(), NoSecret::TooMany);
        assert_eq!(
            hashed(&hashed(OLD).unwrap()),
            Err(NoSecret::Shape),
            "a hash is not hashed again"
        );
        assert!(!format!("{:?}", Secrets::read([OLD]).unwrap()).contains("old"));
    }
}
