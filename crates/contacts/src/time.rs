//! Time as the whole project counts it: microseconds since the Unix epoch, UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// A point in time: microseconds since 1970-01-01T00:00:00Z. `Micros(0)` stands for "none known" where a field says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    pub const ZERO: Micros = Micros(0);

    pub fn from_millis(millis: u64) -> Micros {
        Micros(millis.saturating_mul(1_000))
    }

    pub fn from_secs(secs: u64) -> Micros {
        Micros(secs.saturating_mul(1_000_000))
    }

    pub fn millis(self) -> u64 {
        self.0 / 1_000
    }

    pub fn plus(self, by: Duration) -> Micros {
        Micros(self.0.saturating_add(micros(by)))
    }

    pub fn minus(self, by: Duration) -> Micros {
        Micros(self.0.saturating_sub(micros(by)))
    }

    /// The time from `earlier` to `self`; zero when `earlier` lies later.
    pub fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Parses what CRMs and predecessor bridges write: RFC 3339 (with `T` or a blank, `Z` or an offset), the seeds' own
    /// `2012-11-20 23:01:00 UTC`, and a bare `2012-11-20 23:01:00`, read as UTC. `None` for anything else, for times
    /// before 1970 and for texts over 64 bytes.
    pub fn parse(text: &str) -> Option<Micros> {
        let text = text.trim();
        if text.len() > 64 {
            return None;
        }
        let stamp = text.parse::<Timestamp>().ok().or_else(|| {
            let civil = text.strip_suffix("UTC").unwrap_or(text).trim_end();
            civil
                .parse::<DateTime>()
                .ok()?
                .to_zoned(TimeZone::UTC)
                .ok()
                .map(|zoned| zoned.timestamp())
        })?;
        u64::try_from(stamp.as_microsecond()).ok().map(Micros)
    }
}

/// A duration in whole microseconds, saturating.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Display for Micros {
    /// `2026-11-21T01:02:03.456789Z`, always with six digits, so that texts sort as times do. What lies beyond the year
    /// 9999 is written as its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = i64::try_from(self.0)
            .ok()
            .and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let stamp = stamp.unwrap_or(Timestamp::MAX);
        write!(f, "{stamp:.6}")
    }
}

/// Where `now` comes from at the edges; everything further in takes a [`Micros`].
pub trait Clock: Send + Sync {
    fn now(&self) -> Micros;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros(micros(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_crms_and_predecessors_write_are_read() {
        let expected = Some(Micros::from_secs(1_353_452_460));
        for text in [
            "2012-11-20 23:01:00 UTC",
            "2012-11-20 23:01:00",
            "2012-11-20T23:01:00Z",
            "2012-11-20 23:01:00Z",
            "2012-11-20T23:01:00",
            "2012-11-21T00:01:00+01:00",
            " 2012-11-20T23:01:00.000000Z ",
        ] {
            assert_eq!(Micros::parse(text), expected, "{text}");
        }
        for text in [
            "",
            "now",
            "2",
            "1969-01-01T00:00:00Z",
            "2012-13-20 23:01:00 UTC",
            &"9".repeat(65),
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }

    #[test]
    fn written_times_sort_as_times_and_read_back() {
        let early = Micros(1_700_000_000_000_000);
        let late = Micros(1_700_000_000_000_001);
        assert_eq!(early.to_string(), "2023-11-14T22:13:20.000000Z");
        assert!(early.to_string() < late.to_string());
        assert_eq!(Micros::parse(&late.to_string()), Some(late));
        assert!(Micros(u64::MAX).to_string().starts_with("9999-12-3"));
    }
}
