//! What offsets and checkpoints mean: pages asked for again, runs begun anew, runs from each page's checkpoint.

use std::collections::HashSet;

use super::Check;
use super::call::Stop;
use super::rules::{
    CHECKPOINT_FALLS_BACK, CHECKPOINT_LOSES, CHECKPOINT_REPEATS, CHECKPOINT_STANDS, REPEAT_DIFFERS, REPEAT_REFUSED,
    RESTART, RESUME_DIFFERS, RESUME_REFUSED, Rule,
};
use super::runs::{again, listed, lost, missing, moved, owned, spread, standing};
use super::sync::{Got, Meta, Page, Walk};

/// A rule that seems to be broken, and what was seen.
pub(super) type Suspicion = (&'static Rule, String);

#[derive(Clone, Copy)]
enum Look {
    Repeat,
    Restart,
    Resume,
    Starts,
    FallBack,
}

impl Check {
    pub(super) async fn meaning(&mut self, reference: &Walk) -> Result<(), Stop> {
        if !reference.ended {
            let why = "the initial sync did not come to its end";
            self.findings.skip("repeated pages, restarts, checkpoints", why);
            return Ok(());
        }
        if reference.pages.len() > 1 {
            self.look_twice(Look::Repeat, reference).await?;
            self.look_twice(Look::Restart, reference).await?;
            if self.findings.has(&REPEAT_REFUSED) || self.findings.has(&REPEAT_DIFFERS) {
                self.findings
                    .skip("old offsets", "a page cannot even be repeated at once");
            } else {
                self.look_twice(Look::Resume, reference).await?;
            }
        } else {
            let why = "the account fits on one page";
            self.findings
                .skip("next pages, repeated pages, restarts, old offsets", why);
        }
        self.look_twice(Look::Starts, reference).await?;
        if self.findings.has(&CHECKPOINT_LOSES) || self.findings.has(&CHECKPOINT_REPEATS) {
            return Ok(());
        }
        self.look_twice(Look::FallBack, reference).await?;
        let (same, steps) = standing(reference);
        if steps > 0 && same * 2 >= steps {
            let seen = format!("initial sync: {same} of {steps} pages have the checkpoint of the page before");
            self.findings.add(&CHECKPOINT_STANDS, seen);
        }
        Ok(())
    }

    /// Counts what a second look, against a fresh run, sees too: contacts may have changed under the first.
    async fn look_twice(&mut self, look: Look, reference: &Walk) -> Result<(), Stop> {
        if self.look(look, reference).await?.is_empty() {
            return Ok(());
        }
        let fresh = self.walk(Meta::default(), "initial sync, again").await?;
        if !fresh.ended {
            return Ok(());
        }
        for (rule, seen) in self.look(look, &fresh).await? {
            self.findings.add(rule, seen);
        }
        Ok(())
    }

    async fn look(&mut self, look: Look, reference: &Walk) -> Result<Vec<Suspicion>, Stop> {
        match look {
            Look::Repeat => self.repeat().await,
            Look::Restart => self.restart(reference).await,
            Look::Resume => self.resume(reference).await,
            Look::Starts => self.starts(reference).await,
            Look::FallBack => self.fall_back(reference).await,
        }
    }

    /// A run of which each page after the first is asked for twice.
    async fn repeat(&mut self) -> Result<Vec<Suspicion>, Stop> {
        let mut found = Vec::new();
        let mut meta = Meta::default();
        for number in 1..=self.plan.limits.starts + 1 {
            let place = format!("initial sync, page {number}");
            let Got::Page(page) = self.page(&meta, &place).await? else {
                break;
            };
            if number > 1 {
                match self.page(&meta, &format!("{place}, repeated")).await? {
                    Got::Page(again) => {
                        let lost = owned(missing(page.rows.iter(), &again.rows));
                        let lost = self.not_later(lost, &again).await?;
                        if let Some(ids) = listed(&lost) {
                            found.push((&REPEAT_DIFFERS, format!("{place}, repeated: lacks {ids}")));
                        }
                    }
                    Got::Refused(_, why) => found.push((&REPEAT_REFUSED, format!("{place}, repeated: {why}"))),
                    Got::Broken => {}
                }
            }
            match page.next_meta() {
                Some(next) => meta = next,
                None => break,
            }
        }
        Ok(found)
    }

    /// Two pages, then from the beginning.
    async fn restart(&mut self, reference: &Walk) -> Result<Vec<Suspicion>, Stop> {
        if let Got::Page(first) = self.page(&Meta::default(), "initial sync, page 1").await? {
            // The look before this one broke a run off, too.
            let lost = owned(missing(reference.pages[0].rows.iter(), &first.rows));
            if let Some(ids) = listed(&self.not_later(lost, &first).await?) {
                return Ok(vec![(
                    &RESTART,
                    format!("begun anew, the initial sync's page 1 lacks {ids}"),
                )]);
            }
            if let Some(next) = first.next_meta() {
                self.page(&next, "initial sync, page 2").await?;
            }
        }
        let anew = self.walk(Meta::default(), "initial sync begun anew").await?;
        if let Some((_, why)) = anew.refused {
            return Ok(vec![(&RESTART, why)]);
        }
        if !anew.ended {
            return Ok(Vec::new());
        }
        let lost = owned(missing(reference.rows(), anew.rows()));
        let lost = self.not_next(lost, anew.last_checkpoint()).await?;
        let seen = listed(&lost).map(|ids| format!("begun anew after two pages, the initial sync lacks {ids}"));
        Ok(seen.into_iter().map(|seen| (&RESTART, seen)).collect())
    }

    /// The offset of a middle page, after its run's end.
    async fn resume(&mut self, reference: &Walk) -> Result<Vec<Suspicion>, Stop> {
        let middle = reference.pages.len() / 2;
        let place = format!("initial sync, page {} after the run's end", middle + 1);
        let page = match self.page(&reference.pages[middle].meta, &place).await? {
            Got::Page(page) => page,
            Got::Refused(_, why) => return Ok(vec![(&RESUME_REFUSED, format!("{place}: {why}"))]),
            Got::Broken => return Ok(Vec::new()),
        };
        let mut rows = page.rows.clone();
        let mut checkpoint = page.checkpoint.clone();
        if let Some(next) = page.next_meta() {
            let rest = self.walk(next, "initial sync, taken up again").await?;
            if !rest.ended {
                return Ok(Vec::new());
            }
            rows.extend(rest.rows().cloned());
            checkpoint = rest.last_checkpoint().map(str::to_owned);
        }
        let wanted = reference.pages[middle..].iter().flat_map(|page| &page.rows);
        let lost = owned(missing(wanted, &rows));
        let lost = self.not_next(lost, checkpoint.as_deref()).await?;
        let seen = listed(&lost).map(|ids| format!("{place}: the rest of the run lacks {ids}"));
        Ok(seen.into_iter().map(|seen| (&RESUME_DIFFERS, seen)).collect())
    }

    async fn starts(&mut self, reference: &Walk) -> Result<Vec<Suspicion>, Stop> {
        let (mut found, count) = (Vec::new(), reference.pages.len());
        for number in spread(count, self.plan.limits.starts) {
            let Some(checkpoint) = &reference.pages[number - 1].checkpoint else {
                self.findings.skip("runs from some checkpoints", "they are no strings");
                continue;
            };
            let name = format!("run from the checkpoint of page {number} of {count}");
            let run = self.walk(Meta::from(checkpoint), &name).await?;
            if !run.ended {
                continue;
            }
            let lost = owned(lost(reference, number, &run));
            let lost = self.not_next(lost, run.last_checkpoint()).await?;
            if let Some(ids) = listed(&lost) {
                found.push((&CHECKPOINT_LOSES, format!("{name}: lacks {ids} of later pages")));
            }
            if let Some(again) = self.settled_repeats(reference, number, &run).await? {
                found.push((&CHECKPOINT_REPEATS, format!("{name}: {again}")));
            }
        }
        Ok(found)
    }

    /// Runs from the checkpoint of a run that brought nothing.
    async fn fall_back(&mut self, reference: &Walk) -> Result<Vec<Suspicion>, Stop> {
        let Some(before) = reference.last_checkpoint() else {
            return Ok(Vec::new());
        };
        let run = self.walk(Meta::from(before), "next run").await?;
        let Some(after) = run.last_checkpoint().filter(|after| run.ended && *after != before) else {
            return Ok(Vec::new());
        };
        let run = self.walk(Meta::from(after), "run after the next").await?;
        let again = self.settled_repeats(reference, reference.pages.len(), &run).await?;
        let seen = again.map(|again| format!("run after the next: {again}"));
        Ok(seen.into_iter().map(|seen| (&CHECKPOINT_FALLS_BACK, seen)).collect())
    }

    /// Those of `lost` that do not come later in the run of `page`, or in the next run: those that do were edited, and
    /// have moved.
    async fn not_later(&mut self, lost: Vec<String>, page: &Page) -> Result<Vec<String>, Stop> {
        if lost.is_empty() {
            return Ok(lost);
        }
        let mut checkpoint = page.checkpoint.clone();
        let mut lost = lost;
        if let Some(next) = page.next_meta() {
            let rest = self.walk(next, "initial sync, the rest").await?;
            lost.retain(|id| rest.rows().all(|row| row.id != *id));
            checkpoint = rest.last_checkpoint().map(str::to_owned);
        }
        self.not_next(lost, checkpoint.as_deref()).await
    }

    /// Those of `lost` that a run from `checkpoint` does not deliver either.
    async fn not_next(&mut self, mut lost: Vec<String>, checkpoint: Option<&str>) -> Result<Vec<String>, Stop> {
        if let Some(checkpoint) = checkpoint.filter(|_| !lost.is_empty()) {
            let next = self.walk(Meta::from(checkpoint), "next run").await?;
            lost.retain(|id| next.rows().all(|row| row.id != *id));
        }
        Ok(lost)
    }

    /// [`again`], but for contacts that a fresh run shows to have moved: the CRM touched them without changing what
    /// Talkdesk sees.
    async fn settled_repeats(&mut self, reference: &Walk, number: usize, run: &Walk) -> Result<Option<String>, Stop> {
        let ties = self.plan.limits.ties;
        if again(reference, number, run, ties, &HashSet::new()).is_none() {
            return Ok(None);
        }
        let fresh = self.walk(Meta::default(), "initial sync, again").await?;
        Ok(again(reference, number, run, ties, &moved(reference, &fresh)))
    }
}
