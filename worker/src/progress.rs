//! How far the refresh of an account has come. Lies in the head of its snapshot and moves with the commits, so a worker
//! that dies repeats at most one page.

use std::time::Duration;

use contacts::remap::Mapped;
use contacts::time::micros;
use contacts::{Fence, Micros};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Versioned by its fields: new ones get defaults, so that old and new workers read each other's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The end of the last complete poll window, on the CRM's clock: everything stamped before it has been asked for.
    #[serde(default)]
    pub cursor: Micros,
    /// The CRM's clock minus ours, in microseconds, at the last reply.
    #[serde(default)]
    pub skew: i64,
    #[serde(default)]
    pub poll: Option<Poll>,
    #[serde(default)]
    pub full: Option<Full>,
    /// A full pass that wanted to delete too much: the next one must agree.
    #[serde(default)]
    pub brake: Option<Braked>,
    /// Where the next change pass begins, for a CRM that gives out tokens for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaToken>,
    /// When the last full pass ended.
    #[serde(default)]
    pub last_full: Micros,
    /// When that pass began.
    #[serde(default)]
    pub last_full_began: Micros,
    /// The fence under which that pass began.
    #[serde(default)]
    pub last_full_fence: Fence,
    /// The mapping that rows are written by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<Mapped>,
    /// The trace of the commit that last changed a record ([`crate::trace`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A token that stands for a moment of a CRM's stream of changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeltaToken {
    pub token: Value,
    /// Our clock when the pass began that ended with it.
    pub at: Micros,
}

/// A poll in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    pub since: Micros,
    pub until: Micros,
    /// Our clock when it began: how fresh the snapshot is once it ends.
    pub started: Micros,
    pub stage: PollStage,
    /// Where the next page is; `None`: at the start of the stage.
    #[serde(default)]
    pub page: Option<Value>,
    /// The delta token it goes by instead of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollStage {
    Changes,
    /// The CRM's list of deletions.
    Deleted,
}

/// A full pass in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Full {
    /// Our clock when it began: what has not been observed since is a deletion candidate.
    pub started: Micros,
    /// The CRM's clock then.
    pub crm_started: Micros,
    #[serde(default)]
    pub page: Option<Value>,
    pub stage: FullStage,
    /// The fence under which it began.
    #[serde(default)]
    pub fence: Fence,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullStage {
    Listing,
    /// A poll over the time of the listing: what was edited meanwhile may have moved out of its sight.
    Polling,
    /// Looking the candidates up.
    Confirming {
        /// Where the walk over the candidates stands.
        cursor: String,
        /// Proven to be gone: (id, our clock before the proving call). No more than the brake lets through: a pass that
        /// agrees with a braked one removes as it goes.
        missing: Vec<(String, Micros)>,
    },
    Removing {
        missing: Vec<(String, Micros)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Braked {
    /// When the pass that braked began.
    pub started: Micros,
    pub missing: u64,
    pub living: u64,
}

impl Progress {
    /// Unreadable progress (of a version far away) counts as none: work is repeated, nothing is lost.
    pub fn read(bytes: &[u8]) -> Progress {
        if bytes.is_empty() {
            return Progress::default();
        }
        serde_json::from_slice(bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored progress cannot be read; the account starts over");
            Progress::default()
        })
    }

    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The turn of a contact to take on a changed mapping has not come.
    pub fn waits(&self, id: &str, now: Micros, within: Duration) -> bool {
        self.mapped.is_some_and(|mapped| !mapped.turn_of(id, now, within))
    }

    /// A full pass that began under a later fence is complete, and none is under way.
    pub fn has_completed_after(&self, fence: Fence) -> bool {
        self.full.is_none() && self.last_full_fence > fence
    }

    /// The earlier pass that wanted to delete too much. A pass that braked and died before it ended meets its own brake,
    /// and must not agree with itself.
    pub fn braked_before(&self, full: &Full) -> Option<&Braked> {
        self.brake.as_ref().filter(|brake| brake.started != full.started)
    }

    /// Forgets where the walk in progress stands, not what it is; `false`: it stands at its start.
    pub fn forget_page(&mut self) -> bool {
        let polling = self.poll.as_mut().map(|poll| poll.page.take());
        let listing = self.full.as_mut().map(|full| full.page.take());
        polling.flatten().is_some() || listing.flatten().is_some()
    }

    /// The CRM no longer knows the delta token that the poll in progress goes by: the poll, and the token, are forgotten;
    /// `false`: it goes by none.
    pub fn forget_token(&mut self) -> bool {
        let by_token = self.poll.as_ref().is_some_and(|poll| poll.token.is_some());
        if by_token {
            (self.poll, self.delta) = (None, None);
        }
        by_token
    }

    /// A pass that began at `at` ended with this token: the next one begins there.
    pub fn begin_from(&mut self, token: Option<Value>, at: Micros) {
        self.delta = token.map(|token| DeltaToken { token, at });
    }

    /// The delta token, if the CRM still knows it.
    pub fn delta_at(&self, now: Micros, lifetime: Option<Duration>) -> Option<&DeltaToken> {
        let delta = self.delta.as_ref()?;
        let old = lifetime.is_some_and(|lifetime| now.since(delta.at) >= lifetime);
        (!old).then_some(delta)
    }

    /// The CRM's clock now, as far as its last reply told.
    pub fn crm_now(&self, now: Micros) -> Micros {
        Micros(now.0.saturating_add_signed(self.skew))
    }

    /// Notes what a reply told of the CRM's clock. The CRM wrote it before the reply was in, and `Date` headers are cut to
    /// whole seconds: against our clock *after* the reply the noted clock runs behind, never ahead, so a window ends too
    /// early rather than too late.
    pub fn note_clock(&mut self, crm_clock: Option<Micros>, replied_at: Micros) {
        if let Some(crm) = crm_clock {
            self.skew = i64::try_from(crm.0)
                .unwrap_or(i64::MAX)
                .saturating_sub_unsigned(replied_at.0);
        }
    }

    /// The window of the next poll.
    pub fn window(&self, now: Micros, lag: Duration, overlap: Duration) -> Poll {
        let until = self.crm_now(now).minus(lag);
        let since = Micros(self.cursor.0.saturating_sub(micros(overlap))).min(until);
        Poll {
            since,
            until,
            started: now,
            stage: PollStage::Changes,
            page: None,
            token: None,
        }
    }

    /// A listing was read whole, which shows everything that lives: returns the watermark. What was deleted since the last
    /// poll is missing from it; where absence cannot be proven, only a poll from there tells of it.
    pub fn listed(&mut self, covered: Micros, overlap: Duration, proves_absence: bool) -> Micros {
        if proves_absence || self.cursor == Micros::ZERO {
            return self.polled(covered, overlap);
        }
        self.poll = None;
        covered.minus(overlap)
    }

    /// A poll window was read whole: returns the watermark.
    pub fn polled(&mut self, until: Micros, overlap: Duration) -> Micros {
        // A CRM clock that stepped back does not take back what was read.
        self.cursor = self.cursor.max(until);
        self.poll = None;
        until.minus(overlap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn invariant_4_windows_leave_no_gap_whatever_the_clocks_do(
            steps in prop::collection::vec((0..1_000u64, -5_000_000..5_000_000i64), 1..30),
            lag in 0..200u64, overlap in 0..300u64,
        ) {
            let (lag, overlap) = (Duration::from_micros(lag), Duration::from_micros(overlap));
            let mut progress = Progress::default();
            let mut now = Micros::from_secs(1_000);
            let mut covered = Micros::ZERO;
            for (pause, skew) in steps {
                now = now.plus(Duration::from_micros(pause));
                progress.skew = skew;
                let poll = progress.window(now, lag, overlap);
                prop_assert!(poll.since <= poll.until);
                prop_assert!(poll.since.plus(overlap) <= covered.max(poll.until) || covered == Micros::ZERO);
                prop_assert!(poll.since <= covered, "a gap between {covered} and {}", poll.since);
                let watermark = progress.polled(poll.until, overlap);
                prop_assert!(watermark <= poll.until);
                covered = covered.max(poll.until);
                prop_assert_eq!(progress.cursor, covered);
            }
        }
    }

    fn pass(started: u64) -> Full {
        Full {
            started: Micros(started),
            crm_started: Micros(started),
            page: None,
            stage: FullStage::Listing,
            fence: Fence(8),
        }
    }

    #[test]
    fn invariant_13_a_listing_skips_no_deletion_that_only_a_poll_tells() {
        let overlap = Duration::from_secs(5);
        let polled = Progress {
            cursor: Micros::from_secs(100),
            ..Progress::default()
        };
        for (before, proves_absence, cursor) in [
            (Progress::default(), false, 500),
            (polled.clone(), false, 100),
            (polled, true, 500),
        ] {
            let mut progress = before;
            let watermark = progress.listed(Micros::from_secs(500), overlap, proves_absence);
            assert_eq!(watermark, Micros::from_secs(495), "all that lives was read");
            assert_eq!(progress.cursor, Micros::from_secs(cursor));
        }
    }

    #[test]
    fn a_pass_counts_as_done_only_if_it_began_under_a_later_fence_and_none_is_under_way() {
        let mut progress = Progress {
            last_full_fence: Fence(7),
            ..Progress::default()
        };
        assert!(progress.has_completed_after(Fence(6)));
        assert!(!progress.has_completed_after(Fence(7)));
        progress.full = Some(pass(1));
        assert!(!progress.has_completed_after(Fence(6)));
    }

    #[test]
    fn invariant_13_a_pass_does_not_agree_with_its_own_brake() {
        let mut progress = Progress::default();
        assert_eq!(progress.braked_before(&pass(5)), None);
        progress.brake = Some(Braked {
            started: Micros(5),
            missing: 100,
            living: 100,
        });
        assert_eq!(progress.braked_before(&pass(5)), None, "it goes on after a crash");
        assert_eq!(progress.braked_before(&pass(9)), progress.brake.as_ref());
    }

    #[test]
    fn the_noted_clock_never_runs_ahead_of_the_crms() {
        // Asked at 100 s; the CRM, 7 s ahead of us, wrote its time 3 s later; the reply was in after 5 s.
        let (written, replied) = (Micros::from_secs(110), Micros::from_secs(105));
        let mut progress = Progress::default();
        progress.note_clock(Some(written), replied);
        assert!(
            progress.crm_now(replied) <= Micros::from_secs(112),
            "the CRM's clock then"
        );
        progress.note_clock(None, Micros::from_secs(500));
        assert_eq!(progress.crm_now(replied), written);
    }

    #[test]
    fn a_delta_token_is_used_while_the_crm_knows_it_and_forgotten_with_its_poll() {
        let week = Duration::from_secs(7 * 86_400);
        let mut progress = Progress {
            delta: Some(DeltaToken {
                token: "t".into(),
                at: Micros::from_secs(100),
            }),
            ..Progress::default()
        };
        let later = |by: Duration| Micros::from_secs(100).plus(by);
        assert!(
            progress
                .delta_at(later(week - Duration::from_secs(1)), Some(week))
                .is_some()
        );
        assert!(progress.delta_at(later(week), Some(week)).is_none());
        assert!(progress.delta_at(later(week * 50), None).is_some());
        progress.poll = Some(progress.window(later(week), Duration::ZERO, Duration::ZERO));
        assert!(!progress.forget_token(), "a poll by time has no token to forget");
        assert!(progress.poll.is_some() && progress.delta.is_some());
        progress.poll.as_mut().unwrap().token = Some("t".into());
        assert!(progress.forget_token());
        assert!(progress.poll.is_none() && progress.delta.is_none());
    }

    #[test]
    fn the_first_shape_of_stored_progress_is_read_for_ever() {
        let stored = br#"{"cursor":5,"skew":-3,"poll":{"since":1,"until":5,"started":2,"stage":"deleted","page":{"t":"x"}},"full":{"started":1,"crm_started":1,"stage":{"confirming":{"cursor":"c","missing":[["7",9]]}}}}"#;
        let progress = Progress::read(stored);
        assert_eq!(progress.cursor, Micros(5));
        assert_eq!(progress.poll.as_ref().unwrap().stage, PollStage::Deleted);
        let full = progress.full.as_ref().unwrap();
        assert!(matches!(&full.stage, FullStage::Confirming { missing, .. } if missing.len() == 1));
        assert_eq!(Progress::read(&progress.write()), progress);
        assert_eq!(Progress::read(b"{\"cursor\":\"x\"}"), Progress::default());
    }
}
