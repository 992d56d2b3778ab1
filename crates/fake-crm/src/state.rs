//! The contacts of one account: what readers see now, what they will see later, and what has happened.
//!
//! No clock is read here; the caller hands in a [`Moment`] or the real time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::data::{self, Fields, Row};
use crate::history::{History, NEVER, PastEdit};
use crate::needles::Needles;
use crate::rng::{Purpose, Rng};
use crate::webhooks::{EventKind, News};

/// When an edit is stamped and when it is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub modified: i64,
    pub visible: i64,
    /// Real time at which it becomes visible; [`NEVER`]: at commit.
    pub due: i64,
    /// Real time.
    pub now: i64,
    pub skew: i64,
    /// The event goes out with the edit, not when the edit becomes visible.
    pub news_at_once: bool,
    /// The edit came through the vendor's API.
    pub by_api: bool,
}

/// The bookkeeping of one version. What it says comes from [`data::content`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub modified: i64,
    pub version: u64,
    pub revision: u32,
    pub archived: bool,
    pub more: Option<Box<More>>,
}

/// What few contacts have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct More {
    pub fields: Fields,
    pub merged: Vec<u64>,
}

/// A version that nobody sees yet.
#[derive(Debug)]
struct Change {
    id: u64,
    version: u64,
    record: Option<Record>,
    modified: i64,
    skew: i64,
    merged_into: Option<u64>,
    news: Option<EventKind>,
    by_api: bool,
    past: usize,
}

#[derive(Debug)]
struct Newest {
    record: Option<Record>,
    waiting: u32,
}

pub(crate) struct Contacts {
    pub seed: u64,
    pub whole_seconds: bool,
    next_id: u64,
    version: u64,
    /// What readers see; the contact with id n lies at n − 1.
    seen: Vec<Option<Record>>,
    by_time: BTreeSet<(i64, u64)>,
    /// Neither deleted nor archived, of those that readers see.
    live: u64,
    dead: HashSet<u64>,
    tombstones: BTreeMap<(i64, u64), Option<u64>>,
    /// The newest versions of contacts that have edits waiting.
    newest: HashMap<u64, Newest>,
    waiting: BTreeMap<(i64, u64), Change>,
    sequence: u64,
    /// Made when somebody is looked for.
    needles: Option<Needles>,
    pub history: History,
    pub rng: Rng,
}

impl Contacts {
    /// `whole_seconds`: the CRM keeps no fractions of its stamps.
    pub(crate) fn new(seed: u64, count: u64, whole_seconds: bool) -> Contacts {
        let stamp = |id| data::first_stamp(seed, id, whole_seconds);
        let record = |id| Record {
            modified: stamp(id),
            version: id,
            ..Record::default()
        };
        let seen: Vec<Option<Record>> = (1..=count).map(|id| Some(record(id))).collect();
        let by_time = (1..)
            .zip(&seen)
            .filter_map(|(id, record)| Some((record.as_ref()?.modified, id)))
            .collect();
        Contacts {
            seed,
            next_id: count + 1,
            version: count,
            seen,
            by_time,
            live: count,
            dead: HashSet::new(),
            tombstones: BTreeMap::new(),
            newest: HashMap::new(),
            waiting: BTreeMap::new(),
            sequence: 0,
            needles: None,
            history: History::new(seed, count, whole_seconds),
            whole_seconds,
            rng: Rng::of(seed, Purpose::Choices, 0),
        }
    }

    // ---- reading: what the API shows

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Record> {
        self.seen.get(usize::try_from(id.checked_sub(1)?).ok()?)?.as_ref()
    }

    pub(crate) fn after(&self, id: u64) -> impl Iterator<Item = (u64, &Record)> {
        let start = usize::try_from(id).unwrap_or(usize::MAX).min(self.seen.len());
        (start as u64 + 1..)
            .zip(&self.seen[start..])
            .filter_map(|(id, record)| Some((id, record.as_ref()?)))
    }

    /// since ≤ modified < until, by (modified, id).
    pub(crate) fn modified_within(&self, since: i64, until: i64) -> impl Iterator<Item = (u64, &Record)> {
        let range = (since < until).then(|| self.by_time.range((since, 0)..(until, 0)));
        range
            .into_iter()
            .flatten()
            .filter_map(|&(_, id)| Some((id, self.get(id)?)))
    }

    /// since ≤ modified < until and an id past `after`, by id, at most `limit` of those that `keep` wants.
    pub(crate) fn modified_after(
        &self,
        (since, until): (i64, i64),
        after: u64,
        limit: usize,
        keep: impl Fn(u64, &Record) -> bool,
    ) -> Vec<(u64, &Record)> {
        /// Below this many rows in the window the window is sorted; above it the ids are walked.
        const NARROW: usize = 4096;
        let mut narrow: Vec<_> = self.modified_within(since, until).take(NARROW + 1).collect();
        if narrow.len() > NARROW {
            return self
                .after(after)
                .filter(|(id, record)| (since..until).contains(&record.modified) && keep(*id, record))
                .take(limit)
                .collect();
        }
        narrow.retain(|(id, record)| *id > after && keep(*id, record));
        narrow.sort_unstable_by_key(|(id, _)| *id);
        narrow.truncate(limit);
        narrow
    }

    /// Deleted at or after `since`, past `after` in (time, id) order: time, id, and what it was merged into.
    pub(crate) fn deleted(&self, since: i64, after: (i64, u64)) -> impl Iterator<Item = (i64, u64, Option<u64>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.max((since, 0));
        self.tombstones
            .range((Excluded(from), Unbounded))
            .map(|(&(at, id), &into)| (at, id, into))
    }

    /// No version up to this one will become visible any more.
    pub(crate) fn settled_version(&self) -> u64 {
        let first = self.waiting.values().map(|change| change.version).min();
        first.map_or(self.version, |version| version - 1)
    }

    /// Version and id of those that were deleted after a version, as far as readers see it.
    pub(crate) fn deleted_after(&self, version: u64) -> impl Iterator<Item = (u64, u64)> {
        let deletions = self.history.deletions();
        deletions.filter(move |(found, id)| *found > version && self.dead.contains(id))
    }

    /// When a contact was deleted, if it was.
    pub(crate) fn deleted_at(&self, id: u64) -> Option<i64> {
        if !self.dead.contains(&id) {
            return None;
        }
        self.tombstones
            .keys()
            .find(|(_, known)| *known == id)
            .map(|(at, _)| *at)
    }

    pub(crate) fn row(&self, id: u64, record: &Record, whole_seconds: bool) -> Row {
        let fields = record.more.as_ref().map(|more| &more.fields);
        let content = data::content(self.seed, id, record.revision, fields);
        let merged = record
            .more
            .as_ref()
            .map(|more| more.merged.as_slice())
            .unwrap_or_default();
        Row {
            id: id.to_string(),
            first_name: content.first_name,
            last_name: content.last_name,
            company: content.company,
            job_title: content.job_title,
            emails: content.emails,
            phones: content.phones,
            address: content.address,
            website: content.website,
            twitter: content.twitter,
            photo_url: content.photo_url,
            web1on1: fields
                .and_then(|fields| fields.web1on1.clone())
                .filter(|link| !link.is_empty()),
            links: fields.and_then(|fields| fields.links.clone()).unwrap_or_default(),
            modified_at: data::stamp_text(record.modified, whole_seconds),
            archived: record.archived,
            merged_ids: merged.iter().map(u64::to_string).collect(),
            version: record.version,
        }
    }

    /// Ids of those who may bear an e-mail address or a phone number, in one version or another: who asks compares.
    pub(crate) fn candidates(&mut self, text: &str) -> BTreeSet<u64> {
        let needles = match self.needles.take() {
            Some(needles) => needles,
            None => {
                let seen = self.after(0);
                let waiting = self.waiting.values();
                let waiting = waiting.filter_map(|change| Some((change.id, change.record.as_ref()?)));
                let mut needles = Needles::default();
                for (id, record) in seen.chain(self.newest_after(0)).chain(waiting) {
                    needles.add(id, &self.content(id, record));
                }
                needles
            }
        };
        let found = needles.of(text);
        self.needles = Some(needles);
        found
    }

    fn content(&self, id: u64, record: &Record) -> data::Content {
        let fields = record.more.as_ref().map(|more| &more.fields);
        data::content(self.seed, id, record.revision, fields)
    }

    // ---- the truth, for tests

    /// The newest version, whether somebody sees it yet or not; None when deleted (or never made).
    pub(crate) fn newest(&self, id: u64) -> Option<&Record> {
        match self.newest.get(&id) {
            Some(newest) => newest.record.as_ref(),
            None => self.get(id),
        }
    }

    /// Every contact past an id in its newest version.
    pub(crate) fn newest_after(&self, id: u64) -> impl Iterator<Item = (u64, &Record)> {
        (id.saturating_add(1)..self.next_id).filter_map(|id| Some((id, self.newest(id)?)))
    }

    pub(crate) fn truth(&self, whole_seconds: bool) -> impl Iterator<Item = Row> {
        let newest = (1..self.next_id).filter_map(|id| Some((id, self.newest(id)?)));
        newest
            .filter(|(_, record)| !record.archived)
            .map(move |(id, record)| self.row(id, record, whole_seconds))
    }

    // ---- edits

    pub(crate) fn create(&mut self, fields: Option<&Fields>, at: Moment, news: &mut Vec<News>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let more = fields.map(|fields| {
            Box::new(More {
                fields: fields.clone(),
                merged: Vec::new(),
            })
        });
        self.write(
            id,
            Some(Record {
                more,
                ..Record::default()
            }),
            at,
            EventKind::Created,
            None,
            news,
        );
        id
    }

    /// Writes the next version of a contact that exists. False when it does not.
    pub(crate) fn update(
        &mut self,
        id: u64,
        at: Moment,
        kind: EventKind,
        news: &mut Vec<News>,
        change: impl FnOnce(&mut Record),
    ) -> bool {
        let Some(mut record) = self.newest(id).cloned() else {
            return false;
        };
        change(&mut record);
        self.write(id, Some(record), at, kind, None, news);
        true
    }

    /// False when there is nothing to delete.
    pub(crate) fn delete(&mut self, id: u64, at: Moment, into: Option<u64>, news: &mut Vec<News>) -> bool {
        if self.newest(id).is_none() {
            return false;
        }
        let kind = if into.is_some() {
            EventKind::Merged
        } else {
            EventKind::Deleted
        };
        self.write(id, None, at, kind, into, news);
        true
    }

    /// `count` different contacts that are (not) archived, or all of them when there are fewer.
    pub(crate) fn pick(&mut self, count: usize, archived: bool) -> Vec<u64> {
        let fits = |contacts: &Contacts, id| contacts.newest(id).is_some_and(|record| record.archived == archived);
        let ids = self.next_id - 1;
        if !archived && (count as u64).saturating_mul(8) <= ids {
            let mut picked = Vec::with_capacity(count);
            let mut known = HashSet::with_capacity(count);
            for _ in 0..count * 16 {
                if picked.len() == count {
                    return picked;
                }
                let id = 1 + self.rng.below(ids);
                if fits(self, id) && known.insert(id) {
                    picked.push(id);
                }
            }
        }
        // Most are wanted, or few are left: look at each.
        let mut all: Vec<u64> = (1..=ids).filter(|&id| fits(self, id)).collect();
        self.rng.shuffle(&mut all);
        all.truncate(count);
        all
    }

    /// Makes what waits for `commit` visible now.
    pub(crate) fn commit(&mut self, now: i64) -> usize {
        let held = self.waiting.split_off(&(NEVER, 0));
        let count = held.len();
        for ((_, sequence), change) in held {
            self.history.becomes_visible(change.past, now + change.skew);
            self.waiting.insert((now, sequence), change);
        }
        count
    }

    /// Shows readers what has become visible by `now` and returns what webhooks have to say about it.
    pub(crate) fn settle(&mut self, now: i64) -> Vec<News> {
        let mut news = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let change = entry.remove();
            if let Some(newest) = self.newest.get_mut(&change.id) {
                newest.waiting -= 1;
                if newest.waiting == 0 {
                    self.newest.remove(&change.id);
                }
            }
            self.show(change, &mut news);
        }
        news
    }

    /// When the next waiting edit becomes visible by itself, real time.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let (&(due, _), _) = self.waiting.first_key_value()?;
        (due != NEVER).then_some(due)
    }

    fn write(
        &mut self,
        id: u64,
        mut record: Option<Record>,
        at: Moment,
        kind: EventKind,
        merged_into: Option<u64>,
        news: &mut Vec<News>,
    ) {
        self.version += 1;
        let version = self.version;
        if let Some(record) = &mut record {
            record.version = version;
            record.modified = at.modified;
        }
        if let (Some(mut needles), Some(record)) = (self.needles.take(), &record) {
            needles.add(id, &self.content(id, record));
            self.needles = Some(needles);
        }
        let deleted = record.is_none();
        let past = self.history.add(PastEdit {
            id,
            version,
            modified: at.modified,
            visible: at.visible,
            deleted,
        });
        let mut change = Change {
            id,
            version,
            record,
            modified: at.modified,
            skew: at.skew,
            merged_into,
            news: Some(kind),
            by_api: at.by_api,
            past,
        };
        if at.news_at_once {
            news.extend(change.take_news());
        }
        if at.due <= at.now {
            if let Some(newest) = self.newest.get_mut(&id) {
                newest.record.clone_from(&change.record);
            }
            self.show(change, news);
        } else {
            let newest = self.newest.entry(id).or_insert(Newest {
                record: None,
                waiting: 0,
            });
            newest.record.clone_from(&change.record);
            newest.waiting += 1;
            self.sequence += 1;
            self.waiting.insert((at.due, self.sequence), change);
        }
    }

    /// An index that lags never goes back: a version older than the one shown is passed over.
    fn show(&mut self, mut change: Change, news: &mut Vec<News>) {
        news.extend(change.take_news());
        let at = (change.id - 1) as usize;
        if at >= self.seen.len() {
            self.seen.resize_with(at + 1, || None);
        }
        let older = self.seen[at]
            .as_ref()
            .is_some_and(|record| record.version > change.version);
        if older || self.dead.contains(&change.id) {
            return;
        }
        if let Some(before) = &self.seen[at] {
            self.by_time.remove(&(before.modified, change.id));
            self.live -= u64::from(!before.archived);
        }
        match &change.record {
            Some(record) => {
                self.by_time.insert((record.modified, change.id));
                self.live += u64::from(!record.archived);
            }
            None => {
                self.dead.insert(change.id);
                self.tombstones.insert((change.modified, change.id), change.merged_into);
            }
        }
        self.seen[at] = change.record;
    }
}

impl Change {
    fn take_news(&mut self) -> Option<News> {
        let kind = self.news.take()?;
        Some(News {
            kind,
            id: self.id,
            merged_into: self.merged_into,
            at: self.modified,
            by_api: self.by_api,
            user: false,
            record: self.record.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
