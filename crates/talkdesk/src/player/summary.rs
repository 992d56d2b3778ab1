use std::time::Duration;

use serde::Serialize;

use super::PlayError;

/// What a run was.
#[derive(Debug, Serialize)]
#[must_use]
pub struct RunSummary {
    /// Contacts delivered, repeats included.
    pub contacts: u64,
    /// Different ids among them.
    pub distinct: u64,
    pub pages: u64,
    /// Pages without contacts that said "more to come".
    pub empty_pages: u64,
    /// Bytes of all pages, after decompression.
    pub bytes: u64,
    /// Time per page, without the empty ones, in milliseconds.
    pub page_ms: PageMillis,
    /// Time spent in empty pages and in pauses before a repetition, in milliseconds.
    pub wait_ms: u64,
    /// Time of the whole run, in milliseconds.
    pub total_ms: u64,
    /// Requests beyond one per page.
    pub retries: u64,
    /// Of the first page; `None` where it had none.
    pub checkpoint_first: Option<String>,
    /// Of the last page seen.
    pub checkpoint_last: Option<String>,
    #[serde(flatten)]
    pub ended: Ended,
}

/// How a run ended.
#[derive(Debug, Serialize)]
#[serde(tag = "ended", rename_all = "snake_case")]
pub enum Ended {
    /// With a page that had no `next_offset`.
    Complete,
    Failed {
        #[serde(rename = "error", serialize_with = "chain")]
        error: PlayError,
    },
}

/// Milliseconds, each a real page's (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PageMillis {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl RunSummary {
    /// The run's error, if it failed.
    pub fn complete(self) -> Result<Self, PlayError> {
        match self.ended {
            Ended::Complete => Ok(self),
            Ended::Failed { error } => Err(error),
        }
    }
}

impl PageMillis {
    pub(super) fn of(mut pages: Vec<Duration>) -> Self {
        pages.sort_unstable();
        let rank = |percent: usize| {
            let rank = (pages.len() * percent).div_ceil(100).max(1);
            pages
                .get(rank - 1)
                .map_or(0.0, |page| (page.as_secs_f64() * 1e6).round() / 1e3)
        };
        Self {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: rank(100),
        }
    }
}

fn chain<S: serde::Serializer>(error: &PlayError, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::cli::chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_real_pages() {
        let pages = |range: std::ops::RangeInclusive<u64>| range.rev().map(Duration::from_millis).collect();
        assert_eq!(
            PageMillis::of(pages(1..=100)),
            PageMillis {
                p50: 50.0,
                p90: 90.0,
                p99: 99.0,
                max: 100.0
            }
        );
        assert_eq!(
            PageMillis::of(pages(7..=7)),
            PageMillis {
                p50: 7.0,
                p90: 7.0,
                p99: 7.0,
                max: 7.0
            }
        );
        assert_eq!(
            PageMillis::of(pages(1..=3)),
            PageMillis {
                p50: 2.0,
                p90: 3.0,
                p99: 3.0,
                max: 3.0
            }
        );
        assert_eq!(PageMillis::of(Vec::new()), PageMillis::default());
    }
}
