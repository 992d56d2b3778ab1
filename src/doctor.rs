//! What `snapbridge doctor` finds: each check with what was seen and what to do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use x509_cert::der::Decode;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// It works, and something about it is not as it should be.
    Warning,
    /// It does not work, or cannot be told.
    Error,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub check: String,
    pub level: Level,
    pub seen: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    pub fn ok(check: impl Into<String>, seen: impl Into<String>) -> Check {
        Check {
            check: check.into(),
            level: Level::Ok,
            seen: seen.into(),
            advice: None,
        }
    }

    pub fn warning(check: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            level: Level::Warning,
            advice: Some(advice.into()),
            ..Check::ok(check, seen)
        }
    }

    pub fn error(check: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            level: Level::Error,
            ..Check::warning(check, seen, advice)
        }
    }
}

/// A certificate this close to its end should have been renewed: automatic renewal begins 30 days before.
const RENEWED_BY: Duration = Duration::from_secs(21 * 24 * 3600);

/// Judges the dates of a certificate. `der`: as it was served.
pub fn certificate(check: &str, der: &[u8], now: SystemTime) -> Check {
    let advice = "renew it; `http.tls` takes renewed files by itself";
    let Ok(parsed) = x509_cert::Certificate::from_der(der) else {
        return Check::error(check, "a certificate that cannot be read", advice);
    };
    let validity = parsed.tbs_certificate().validity();
    let (begins, ends) = (
        validity.not_before.to_unix_duration(),
        validity.not_after.to_unix_duration(),
    );
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    judged(check, begins, ends, now)
}

fn judged(check: &str, begins: Duration, ends: Duration, now: Duration) -> Check {
    let advice = "renew it; `http.tls` takes renewed files by itself";
    let span = crate::status::span;
    if now < begins {
        let seen = format!("it is valid only in {}", span(begins - now));
        return Check::error(check, seen, "look at the clock of this machine, or wait");
    }
    match ends.checked_sub(now) {
        None => Check::error(check, format!("it expired {} ago", span(now - ends)), advice),
        Some(left) if left < RENEWED_BY => Check::warning(check, format!("it expires in {}", span(left)), advice),
        Some(left) => Check::ok(check, format!("it expires in {}", span(left))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_dates() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        for (now, level, seen) in [
            (days(9), Level::Error, "it is valid only in 24 h"),
            (days(10), Level::Ok, "it expires in 90 days"),
            (days(79), Level::Ok, "it expires in 21 days"),
            (days(80), Level::Warning, "it expires in 20 days"),
            (days(103), Level::Error, "it expired 3 days ago"),
        ] {
            let check = judged("certificate", days(10), days(100), now);
            assert_eq!((check.level, check.seen.as_str()), (level, seen));
        }
        assert_eq!(certificate("c", b"no certificate", UNIX_EPOCH).level, Level::Error);
    }
}
