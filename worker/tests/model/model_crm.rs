//! The model CRM: contacts with their whole history, seen at any time directly or through an index that lags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contacts::Micros;
use contacts::time::micros;

/// How this CRM behaves, drawn once per run.
#[derive(Clone, Debug)]
pub struct Manners {
    pub page: usize,
    pub full_order: Order,
    pub changes: bool,
    pub changes_order: Order,
    pub changes_indexed: bool,
    pub full_indexed: bool,
    /// Rows carry a modified time.
    pub times: bool,
    pub whole_seconds: bool,
    pub lag: Duration,
    pub overlap: Duration,
    /// From a change's stamp until everyone sees it, at most.
    pub visible_within: Duration,
    /// Ids per fetch; 0: none.
    pub get_many: usize,
    pub deletions: Deletions,
    pub ids_list: bool,
    /// The CRM's clock minus ours.
    pub skew: i64,
    pub says_time: SaysTime,
    pub webhooks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Keyset by id.
    Id,
    /// Keyset by id within a time window that closes when the listing begins; what is edited leaves it.
    ClosedWindow,
    /// Keyset by (time, id).
    Updated,
    /// Numbered pages, oldest first: rows move between pages, and some are never returned.
    Moving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// Listings and fetches go on showing the row, flagged.
    Flag,
    List,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaysTime {
    Never,
    /// To the second, as a `Date` header.
    Seconds,
    Exactly,
}

impl Manners {
    /// Every contact that is there is in a full listing.
    pub fn lists_all(&self) -> bool {
        self.full_order != Order::Moving
    }

    /// Absence can be proven, or deletions are told.
    pub fn proves_deletions(&self) -> bool {
        self.get_many > 0 || self.ids_list
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Living,
    Deleted,
    Merged(String),
}

#[derive(Clone, Debug)]
pub struct Version {
    /// What the contact's name says; a touch changes the stamp and not the content.
    pub content: u32,
    pub stamp: Micros,
    /// When direct reads see it (our clock).
    pub committed: Micros,
    /// When the index shows it (our clock).
    pub indexed: Micros,
    pub state: State,
    pub aliases: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Record {
    pub versions: Vec<Version>,
    /// Not shown to these credentials during these times (our clock).
    pub hidden: Vec<(Micros, Micros)>,
}

impl Record {
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("a record has at least one version")
    }

    pub fn is_hidden(&self, at: Micros) -> bool {
        self.hidden.iter().any(|(from, to)| *from <= at && at < *to)
    }

    /// What is to be seen at a time.
    pub fn seen(&self, at: Micros, indexed: bool) -> Option<&Version> {
        if self.is_hidden(at) {
            return None;
        }
        let shows = |version: &&Version| (if indexed { version.indexed } else { version.committed }) <= at;
        self.versions.iter().rev().find(shows)
    }

    /// Living and shown at every moment between.
    pub fn lived_throughout(&self, from: Micros, to: Micros) -> bool {
        let hidden = self.hidden.iter().any(|(start, end)| *start <= to && from < *end);
        let at_start = self.versions.iter().rev().find(|version| version.committed <= from);
        let meanwhile = self
            .versions
            .iter()
            .filter(|version| version.committed > from && version.committed <= to);
        !hidden
            && at_start
                .into_iter()
                .chain(meanwhile)
                .all(|version| version.state == State::Living)
    }

    /// Living and shown at some moment between.
    pub fn lived_between(&self, from: Micros, to: Micros) -> bool {
        let starts = self.versions.iter().map(|version| version.committed);
        let shown = self.hidden.iter().map(|(_, until)| *until);
        let mut moments = starts
            .chain(shown)
            .filter(|at| from <= *at && *at <= to)
            .chain([from, to]);
        moments.any(|at| {
            self.seen(at, false)
                .is_some_and(|version| version.state == State::Living)
        })
    }

    /// Has never been anything but living and shown.
    pub fn is_steady(&self) -> bool {
        self.hidden.is_empty() && self.versions.iter().all(|version| version.state == State::Living)
    }

    pub fn is_living(&self) -> bool {
        self.newest().state == State::Living
    }
}

/// The model CRM of one account.
pub struct Crm {
    pub manners: Manners,
    /// Ids begin with it: no two accounts share one.
    pub prefix: String,
    pub records: BTreeMap<String, Record>,
    /// Contacts that the integration does not want.
    pub unwanted: BTreeSet<String>,
    next_id: u32,
}

impl Crm {
    pub fn new(manners: Manners, prefix: &str) -> Crm {
        Crm {
            manners,
            prefix: prefix.to_owned(),
            records: BTreeMap::new(),
            unwanted: BTreeSet::new(),
            next_id: 0,
        }
    }

    pub fn clock(&self, now: Micros) -> Micros {
        Micros(now.0.saturating_add_signed(self.manners.skew))
    }

    fn stamp(&self, now: Micros) -> Micros {
        let exact = self.clock(now);
        if self.manners.whole_seconds {
            Micros(exact.0 - exact.0 % 1_000_000)
        } else {
            exact
        }
    }

    pub fn create(&mut self, now: Micros, late: Late) -> String {
        let id = format!("{}{:04}", self.prefix, self.next_id);
        self.next_id += 1;
        self.records.insert(id.clone(), Record::default());
        self.add(&id, now, late, |version| version.content = 1);
        id
    }

    /// `false`: a transaction over this contact is still open, so nothing happened.
    pub fn edit(&mut self, id: &str, now: Micros, late: Late) -> bool {
        self.add(id, now, late, |version| version.content += 1)
    }

    /// A new stamp and the same content.
    pub fn touch(&mut self, id: &str, now: Micros, late: Late) -> bool {
        self.add(id, now, late, |_| {})
    }

    pub fn delete(&mut self, id: &str, now: Micros, late: Late) -> bool {
        self.add(id, now, late, |version| version.state = State::Deleted)
    }

    pub fn restore(&mut self, id: &str, now: Micros, late: Late) -> bool {
        self.add(id, now, late, |version| {
            version.state = State::Living;
            version.content += 1;
        })
    }

    /// The survivor carries the other's id, and those that were merged into it before. `changes` it otherwise, too.
    pub fn merge(&mut self, gone: &str, into: &str, changes: bool, now: Micros) -> bool {
        if !self.is_free(gone, now) || !self.is_free(into, now) {
            return false;
        }
        let mut aliases = self.records[gone].newest().aliases.clone();
        aliases.push(gone.to_owned());
        let late = Late::default();
        self.add(gone, now, late, |version| {
            version.state = State::Merged(into.to_owned())
        });
        self.add(into, now, late, |version| {
            version.content += u32::from(changes);
            version.aliases.append(&mut aliases);
        })
    }

    pub fn hide(&mut self, id: &str, from: Micros, to: Micros) {
        if let Some(record) = self.records.get_mut(id) {
            record.hidden.push((from, to));
        }
    }

    fn is_free(&self, id: &str, now: Micros) -> bool {
        self.records
            .get(id)
            .is_some_and(|record| record.versions.last().is_none_or(|last| last.committed <= now))
    }

    fn add(&mut self, id: &str, now: Micros, late: Late, change: impl FnOnce(&mut Version)) -> bool {
        if !self.is_free(id, now) {
            return false;
        }
        let committed = now.plus(late.commit);
        let stamp = if self.manners.times {
            self.stamp(now)
        } else {
            Micros::ZERO
        };
        let Some(record) = self.records.get_mut(id) else {
            return false;
        };
        let last = record.versions.last();
        let mut version = Version {
            content: last.map_or(0, |last| last.content),
            stamp,
            committed,
            // An index never shows an older version after a newer one.
            indexed: committed
                .plus(late.index)
                .max(last.map_or(Micros::ZERO, |last| last.indexed)),
            state: last.map_or(State::Living, |last| last.state.clone()),
            aliases: last.map(|last| last.aliases.clone()).unwrap_or_default(),
        };
        change(&mut version);
        record.versions.push(version);
        true
    }

    /// Ids of what lives, is shown and is in no open transaction.
    pub fn living(&self, now: Micros) -> Vec<String> {
        let living = self
            .records
            .iter()
            .filter(|(id, record)| record.is_living() && !record.is_hidden(now) && self.is_free(id, now));
        living.map(|(id, _)| id.clone()).collect()
    }

    /// Ids of what was deleted long enough ago that a restoration carries a later stamp.
    pub fn deleted(&self, now: Micros) -> Vec<String> {
        let settled = micros(Duration::from_secs(2));
        let deleted = self.records.iter().filter(|(_, record)| {
            let newest = record.newest();
            newest.state == State::Deleted && newest.committed.0 + settled <= now.0
        });
        deleted.map(|(id, _)| id.clone()).collect()
    }
}

/// How late a change becomes visible: to direct reads, and from then on to the index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Late {
    pub commit: Duration,
    pub index: Duration,
}
