//! Which contacts a list or a search shows, whatever language a vendor asks in.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::account::State;
use crate::api;
use crate::state::Record;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archived {
    Hidden,
    Shown,
    Only,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Id,
    IdDown,
    Time,
    TimeDown,
}

/// All conditions hold at once.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// since ≤ modified < until, by the column's own precision.
    pub since: i64,
    pub until: i64,
    /// after < id < before.
    pub after: u64,
    pub before: u64,
    pub ids: Option<BTreeSet<u64>>,
    /// Only what comes behind this place (time, id) in the order asked for.
    pub behind: Option<(i64, u64)>,
    pub archived: Archived,
    pub order: Order,
    pub offset: usize,
    pub limit: usize,
    /// The table itself, not an index that lags behind it.
    pub newest: bool,
}

impl Default for Selection {
    fn default() -> Selection {
        Selection {
            since: i64::MIN,
            until: i64::MAX,
            after: 0,
            before: u64::MAX,
            ids: None,
            behind: None,
            archived: Archived::Hidden,
            order: Order::Id,
            offset: 0,
            limit: usize::MAX,
            newest: false,
        }
    }
}

impl Selection {
    pub(crate) fn of_ids(ids: impl IntoIterator<Item = u64>) -> Selection {
        Selection {
            ids: Some(ids.into_iter().collect()),
            ..Selection::default()
        }
    }

    /// The rest of the list behind a place, the index of times used where it can be.
    #[must_use]
    pub(crate) fn behind(&self, (at, id): (i64, u64)) -> Selection {
        let mut rest = Selection {
            behind: Some((at, id)),
            ..self.clone()
        };
        match self.order {
            Order::Id => rest.after = rest.after.max(id),
            Order::IdDown => rest.before = rest.before.min(id),
            Order::Time => rest.since = rest.since.max(at),
            Order::TimeDown => rest.until = rest.until.min(at.saturating_add(1)),
        }
        rest
    }

    /// Narrows the times by a comparison: `>`, `>=`, `<`, `<=`, `=`. False for another one.
    pub(crate) fn compare_time(&mut self, operator: &str, at: i64) -> bool {
        match operator {
            ">" => self.since = self.since.max(at.saturating_add(1)),
            ">=" => self.since = self.since.max(at),
            "<" => self.until = self.until.min(at),
            "<=" => self.until = self.until.min(at.saturating_add(1)),
            "=" => {
                self.since = self.since.max(at);
                self.until = self.until.min(at.saturating_add(1));
            }
            _ => return false,
        }
        true
    }

    /// Narrows the ids in the same way.
    pub(crate) fn compare_id(&mut self, operator: &str, id: u64) -> bool {
        match operator {
            ">" => self.after = self.after.max(id),
            ">=" => self.after = self.after.max(id.saturating_sub(1)),
            "<" => self.before = self.before.min(id),
            "<=" => self.before = self.before.min(id.saturating_add(1)),
            "=" => self.among([id]),
            _ => return false,
        }
        true
    }

    /// Narrows the ids to some.
    pub(crate) fn among(&mut self, ids: impl IntoIterator<Item = u64>) {
        let ids: BTreeSet<u64> = ids.into_iter().collect();
        self.ids = Some(match &self.ids {
            None => ids,
            Some(known) => known.intersection(&ids).copied().collect(),
        });
    }

    pub(crate) fn window(&self) -> Range<i64> {
        self.since..self.until
    }

    fn holds(&self, state: &State, id: u64, record: &Record) -> bool {
        let archived = match self.archived {
            Archived::Hidden => !record.archived,
            Archived::Shown => true,
            Archived::Only => record.archived,
        };
        let behind = self.behind.is_none_or(|(at, last)| match self.order {
            Order::Id => id > last,
            Order::IdDown => id < last,
            Order::Time => (record.modified, id) > (at, last),
            Order::TimeDown => (record.modified, id) < (at, last),
        });
        archived
            && behind
            && self.after < id
            && id < self.before
            && self.window().contains(&record.modified)
            && api::shown(state, id)
    }

    /// The contacts on this page.
    pub(crate) fn run<'a>(&self, state: &'a State) -> Vec<(u64, &'a Record)> {
        let contacts = &state.contacts;
        let holds = |&(id, record): &(u64, &Record)| self.holds(state, id, record);
        if let Some(ids) = &self.ids {
            let record = |&id: &u64| {
                if self.newest {
                    contacts.newest(id)
                } else {
                    contacts.get(id)
                }
            };
            let mut found: Vec<_> = ids
                .iter()
                .filter_map(|id| Some((*id, record(id)?)))
                .filter(holds)
                .collect();
            self.sort(&mut found);
            return self.page(found.into_iter());
        }
        match self.order {
            Order::Id if self.newest => self.page(contacts.newest_after(self.after).filter(holds)),
            // The index of times is made for the narrow windows of polls.
            Order::Id if self.offset == 0 && self.since != i64::MIN => {
                let window = (self.since, self.until);
                contacts.modified_after(window, self.after, self.limit, |id, record| {
                    self.holds(state, id, record)
                })
            }
            Order::Id => self.page(contacts.after(self.after).filter(holds)),
            Order::Time if !self.newest => self.page(contacts.modified_within(self.since, self.until).filter(holds)),
            _ => {
                let mut found: Vec<_> = if self.newest {
                    contacts.newest_after(self.after).filter(holds).collect()
                } else {
                    contacts.after(self.after).filter(holds).collect()
                };
                self.sort(&mut found);
                self.page(found.into_iter())
            }
        }
    }

    fn sort(&self, found: &mut [(u64, &Record)]) {
        match self.order {
            Order::Id => {}
            Order::IdDown => found.reverse(),
            Order::Time => found.sort_by_key(|(id, record)| (record.modified, *id)),
            Order::TimeDown => found.sort_by_key(|(id, record)| std::cmp::Reverse((record.modified, *id))),
        }
    }

    fn page<'a>(&self, found: impl Iterator<Item = (u64, &'a Record)>) -> Vec<(u64, &'a Record)> {
        found.skip(self.offset).take(self.limit).collect()
    }

    /// How many there are on all pages.
    pub(crate) fn count(&self, state: &State) -> usize {
        let all = Selection {
            offset: 0,
            limit: usize::MAX,
            order: Order::Id,
            ..self.clone()
        };
        all.run(state).len()
    }
}
