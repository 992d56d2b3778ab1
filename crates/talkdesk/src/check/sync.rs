//! Pages and whole runs of the contact sync.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::Check;
use super::call::{Ask, Stop};
use super::rules::{NEXT_PAGE, NEXT_RUN, NEXT_RUN_PAGE, PAGING_END, PAGING_PROGRESS, PAGING_REPEATS};
use super::shape::{self, quoted};

/// `meta` of a request; what is absent is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meta {
    pub checkpoint: Option<String>,
    pub offset: Option<String>,
    pub context: Option<Value>,
}

impl Meta {
    pub(super) fn from(checkpoint: &str) -> Self {
        Self {
            checkpoint: Some(checkpoint.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn json(&self) -> Value {
        let fields = [
            ("synchronization_checkpoint", self.checkpoint.clone().map(Value::from)),
            ("offset", self.offset.clone().map(Value::from)),
            ("context", self.context.clone()),
        ];
        let present = fields
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
        Value::Object(present.collect::<Map<_, _>>())
    }
}

/// A contact, as far as it is remembered: `hash` tells its versions apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub id: String,
    pub hash: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Page {
    /// What it was asked for with.
    pub meta: Meta,
    /// Each id once.
    pub rows: Vec<Row>,
    pub checkpoint: Option<String>,
    pub next: Option<String>,
    pub context: Option<Value>,
}

impl Page {
    /// What asks for the page after this one, if there is one. The run's own checkpoint goes with every page of it.
    pub(super) fn next_meta(&self) -> Option<Meta> {
        self.next.clone().map(|offset| Meta {
            checkpoint: self.meta.checkpoint.clone(),
            offset: Some(offset),
            context: self.context.clone(),
        })
    }
}

/// What a request for a page brought.
pub(super) enum Got {
    Page(Page),
    /// No page: the status, and what to say of it.
    Refused(u16, String),
    /// A page that cannot be used; its findings have been told.
    Broken,
}

/// A run, as far as it went.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    pub pages: Vec<Page>,
    /// It came to a last page.
    pub ended: bool,
    /// Why an initial sync has no first page: the status, and what to say of it.
    pub refused: Option<(u16, String)>,
}

impl Walk {
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.pages.iter().flat_map(|page| &page.rows)
    }

    /// The checkpoint that Talkdesk keeps of the run.
    pub(super) fn last_checkpoint(&self) -> Option<&str> {
        self.pages.last().and_then(|page| page.checkpoint.as_deref())
    }
}

impl Check {
    /// The first whole initial sync, against which everything else is held.
    pub(super) async fn reference(&mut self) -> Result<Walk, Stop> {
        const NAME: &str = "initial sync";
        let walk = self.walk(Meta::default(), NAME).await?;
        if let Some((status, why)) = walk.refused {
            return Err(Stop::Unfit(format!("{why}{}", hint(status))));
        }
        self.pages = walk.pages.len() as u64;
        self.contacts = walk.rows().count() as u64;
        if walk.ended {
            let repeats = repeats_within(&walk);
            if !repeats.is_empty() {
                let again = repeats_within(&self.walk(Meta::default(), NAME).await?);
                // The others were touched while they were read.
                for (id, seen) in repeats.iter().filter(|(id, _)| again.contains_key(*id)) {
                    let seen = format!("{NAME}: contact {} {seen}", quoted(id));
                    self.findings.add(&PAGING_REPEATS, seen);
                }
            }
            if self.contacts == 0 {
                self.findings.skip("most rules", "the account has no contacts");
            }
        }
        Ok(walk)
    }

    /// A run from `start` on, to its last page unless the bridge gets in the way.
    pub(super) async fn walk(&mut self, start: Meta, name: &str) -> Result<Walk, Stop> {
        let limits = self.plan.limits.clone();
        let (mut walk, mut meta) = (Walk::default(), start);
        let mut used: HashSet<String> = meta.offset.iter().cloned().collect();
        let mut known: HashMap<String, u64> = HashMap::new();
        let (mut idle, mut empty) = (0, 0);
        loop {
            let number = walk.pages.len() as u64 + 1;
            if number > limits.patience.pages {
                let limit = limits.patience.pages;
                return Err(Stop::Unfit(format!(
                    "the {name} did not end within {limit} pages (--pages)"
                )));
            }
            let place = format!("{name}, page {number}");
            let page = match self.page(&meta, &place).await? {
                Got::Page(page) => page,
                Got::Broken => return Ok(walk),
                Got::Refused(status, why) => {
                    let why = format!("{place}: {why}");
                    match (meta.checkpoint.is_some(), meta.offset.is_some()) {
                        (false, false) => walk.refused = Some((status, why)),
                        (false, true) => self.findings.add(&NEXT_PAGE, why),
                        (true, false) => self.findings.add(&NEXT_RUN, why),
                        (true, true) => self.findings.add(&NEXT_RUN_PAGE, why),
                    }
                    return Ok(walk);
                }
            };
            let news = page
                .rows
                .iter()
                .filter(|row| known.insert(row.id.clone(), row.hash) != Some(row.hash));
            (idle, empty) = match (news.count(), page.rows.is_empty()) {
                (_, true) => (idle, empty + 1),
                (0, _) => (idle + 1, 0),
                _ => (0, 0),
            };
            let next = page.next_meta();
            walk.pages.push(page);
            let Some(next) = next else {
                walk.ended = true;
                return Ok(walk);
            };
            if next.offset.as_ref().is_some_and(|offset| !used.insert(offset.clone())) {
                self.findings
                    .add(&PAGING_PROGRESS, format!("{place}: an offset that was used before"));
                return Ok(walk);
            }
            if idle >= limits.idle_pages {
                let seen = format!("{place}: no new contact on {idle} pages in a row (--idle-pages)");
                self.findings.add(&PAGING_END, seen);
                return Ok(walk);
            }
            if empty >= limits.patience.empty_pages {
                let seen = format!(
                    "{place}: {empty} empty pages in a row (--empty-pages); a bridge that is still fetching is checked when it is done"
                );
                self.findings.add(&PAGING_END, seen);
                return Ok(walk);
            }
            meta = next;
        }
    }

    pub(super) async fn page(&mut self, meta: &Meta, place: &str) -> Result<Got, Stop> {
        let body = self.body(&meta.json());
        self.page_of(&Ask::json(&body), meta.clone(), place).await
    }

    /// As [`Check::page`], with a request of any form.
    pub(super) async fn page_of(&mut self, ask: &Ask, meta: Meta, place: &str) -> Result<Got, Stop> {
        let url = self.plan.url.clone();
        let answer = self.ask(&url, ask, place).await?;
        let json = match &answer.json {
            Some(json) if answer.is_success() => json,
            _ => return Ok(Got::Refused(answer.status, answer.told())),
        };
        if self.samples.is_empty() {
            let contacts = json.get("contacts").and_then(Value::as_array);
            let limit = self.plan.limits.samples;
            self.samples = contacts.into_iter().flatten().take(limit).cloned().collect();
        }
        Ok(match shape::page(json, meta, place, &mut self.findings) {
            Some(page) => Got::Page(page),
            None => Got::Broken,
        })
    }

    pub(super) fn body(&self, meta: &Value) -> Value {
        json!({"auth": self.auth, "meta": meta})
    }
}

/// Contacts that came on two pages unchanged, and where; twice on one page is another rule.
fn repeats_within(walk: &Walk) -> BTreeMap<String, String> {
    let mut known: HashMap<&str, (u64, usize)> = HashMap::new();
    let mut repeats = BTreeMap::new();
    for (number, page) in walk.pages.iter().enumerate() {
        for row in &page.rows {
            let before = known.insert(&row.id, (row.hash, number));
            if let Some((_, first)) = before.filter(|(hash, first)| *hash == row.hash && *first != number) {
                let seen = format!("on page {} and, unchanged, on page {}", first + 1, number + 1);
                repeats.insert(row.id.clone(), seen);
            }
        }
    }
    repeats
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; are the credentials (--auth) right?",
        200..300 | 404 | 405 => "; is this the contact sync endpoint?",
        _ => "",
    }
}
