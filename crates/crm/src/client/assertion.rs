//! The signed assertion of the grant `jwt_bearer` (RFC 7523, section 2.1; RS256 of RFC 7518, section 3.3).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contacts::Micros;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

/// Who asks, for whom, and where.
pub(super) struct Claims<'a> {
    /// The client id.
    pub issuer: &'a str,
    /// The user in whose name calls are made.
    pub subject: &'a str,
    pub audience: &'a str,
}

/// Why nothing was signed. Holds no part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("it holds no private key in PEM")]
    NoPem,
    #[error("it is no RSA key of 2048 to 8192 bits")]
    NoRsa,
}

/// A token that is good from `now` for `life`; whole seconds, as its time is written in them. `pem` is PKCS#8 or PKCS#1; line
/// breaks may be the two characters `\n`, as environment variables often have them.
pub(super) fn sign(pem: &str, claims: &Claims<'_>, now: Micros, life: Duration) -> Result<String, KeyError> {
    let pem = pem.replace("\\n", "\n");
    let der = PrivateKeyDer::from_pem_slice(pem.trim().as_bytes()).map_err(|_| KeyError::NoPem)?;
    let key = any_supported_type(&der).map_err(|_| KeyError::NoRsa)?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
        .ok_or(KeyError::NoRsa)?;
    let expires = now.plus(life).0 / 1_000_000;
    let payload = json!({
        "aud": claims.audience, "exp": expires, "iss": claims.issuer, "sub": claims.subject,
    });
    let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&payload));
    let signature = signer.sign(message.as_bytes()).map_err(|_| KeyError::NoRsa)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Keys of these tests alone; the token was signed with `openssl dgst -sha256 -sign`.
    const PKCS8: &str = include_str!("../../tests/data/assertion-key.pem");
    const PKCS1: &str = include_str!("../../tests/data/assertion-key-pkcs1.pem");
    const EC: &str = include_str!("../../tests/data/assertion-key-ec.pem");
    const TOKEN: &str = include_str!("../../tests/data/assertion.jwt");

    const CLAIMS: Claims<'_> = Claims {
        issuer: "3MVG9",
        subject: "ada@example.org",
        audience: "https://login.example",
    };

    fn signed(pem: &str) -> Result<String, KeyError> {
        sign(pem, &CLAIMS, Micros(1_763_683_200_999_999), Duration::from_secs(180))
    }

    #[test]
    fn it_is_what_openssl_signs() {
        for pem in [PKCS8, PKCS1, &PKCS8.replace('\n', "\\n")] {
            assert_eq!(signed(pem).as_deref(), Ok(TOKEN.trim()));
        }
    }

    #[test]
    fn a_key_that_cannot_sign_is_said_to_be_so() {
        assert_eq!(signed(""), Err(KeyError::NoPem));
        assert_eq!(signed("MIIEvQ"), Err(KeyError::NoPem));
        assert_eq!(signed(EC), Err(KeyError::NoRsa));
    }

    proptest! {
        #[test]
        fn any_text_in_place_of_a_key_is_refused(text in any::<String>()) {
            prop_assert!(signed(&text).is_err());
        }
    }
}
