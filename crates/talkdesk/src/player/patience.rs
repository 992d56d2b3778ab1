use std::time::Duration;

use jiff::Timestamp;

/// How long a run goes on against a bridge that is slow, busy or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Requests for one page before the run gives up.
    pub attempts: u32,
    /// Wait before the second attempt where the bridge names none; doubled each time.
    pub first_wait: Duration,
    /// Longest such wait.
    pub max_wait: Duration,
    /// Longest `Retry-After` that is waited for; a longer one ends the run.
    pub longest_pause: Duration,
    /// Time of one request, body included.
    pub page_timeout: Duration,
    /// Empty pages in a row that say "more to come" before it counts as stuck.
    pub empty_pages: u64,
    /// Pages of one run.
    pub pages: u64,
    /// Bytes of one answer, after decompression.
    pub body_limit: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_wait: Duration::from_millis(500),
            max_wait: Duration::from_secs(30),
            longest_pause: Duration::from_secs(15 * 60),
            page_timeout: Duration::from_secs(60),
            // A bridge that holds each for 15 s may build for three hours.
            empty_pages: 720,
            pages: 1_000_000,
            body_limit: 64 << 20,
        }
    }
}

/// What an attempt that failed is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait(Duration),
    GiveUp,
    /// The bridge asked for a longer pause than is allowed.
    PauseTooLong(Duration),
}

/// Statuses after which the same request may succeed later (Talkdesk's own rule is not known).
pub(crate) fn worth_repeating(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

impl Patience {
    /// `attempt` counts from 1; `asked` is the pause the bridge named.
    pub(crate) fn after(&self, attempt: u32, asked: Option<Duration>) -> Next {
        if attempt >= self.attempts {
            return Next::GiveUp;
        }
        match asked {
            Some(asked) if asked > self.longest_pause => Next::PauseTooLong(asked),
            Some(asked) => Next::Wait(asked),
            None => {
                let doubled = self.first_wait.saturating_mul(2_u32.saturating_pow(attempt - 1));
                Next::Wait(doubled.min(self.max_wait))
            }
        }
    }
}

/// `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3). Anything else counts as absent.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let patience = Patience {
            attempts: 5,
            first_wait: SECOND,
            max_wait: 3 * SECOND,
            longest_pause: 9 * SECOND,
            ..Patience::default()
        };
        assert_eq!(patience.after(1, None), Next::Wait(SECOND));
        assert_eq!(patience.after(2, None), Next::Wait(2 * SECOND));
        assert_eq!(patience.after(3, None), Next::Wait(3 * SECOND));
        assert_eq!(patience.after(4, Some(9 * SECOND)), Next::Wait(9 * SECOND));
        assert_eq!(patience.after(4, Some(10 * SECOND)), Next::PauseTooLong(10 * SECOND));
        assert_eq!(patience.after(5, Some(SECOND)), Next::GiveUp);
        assert_eq!(
            Patience {
                attempts: u32::MAX,
                ..patience
            }
            .after(1000, None),
            Next::Wait(3 * SECOND)
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(retry_after(" 120 ", now), Some(120 * SECOND));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(37 * SECOND));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for wrong in ["", "soon", "-5", "1.5"] {
            assert_eq!(retry_after(wrong, now), None, "{wrong}");
        }
    }
}
