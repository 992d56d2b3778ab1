//! The model Talkdesk: applies pages by id, keeps the first, the last or every page's checkpoint, repeats requests and
//! gives up runs halfway.

use std::collections::BTreeMap;
use std::sync::Arc;

use contacts::ports::{Slice, Snapshots};
use contacts::token::Checkpoint;
use contacts::{Clock, Generation, Micros, Position, Stream};
use serde_json::Value;

use crate::front::{Front, Reply};
use crate::model_crm::Record;
use crate::source::Site;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    First,
    Last,
    Every,
}

/// A synchronization under way.
struct Run {
    keep: Keep,
    offset: Option<String>,
    pages: usize,
    /// Requests made so far, to be repeated at random.
    asked: Vec<(Option<String>, Option<String>)>,
    frozen: Option<Frozen>,
}

struct Frozen {
    generation: Generation,
    /// Our clock after the page that froze the end.
    at: Micros,
    pages: usize,
    limit: usize,
}

pub struct Talkdesk {
    front: Arc<Front>,
    site: Arc<Site>,
    pub checkpoint: Option<String>,
    run: Option<Run>,
    /// Contact id → the content it was last delivered with.
    pub table: BTreeMap<String, u32>,
    pub finished: usize,
}

/// Reads `"<id> v<content>"`, as the model CRM names its contacts.
pub fn read_body(body: &[u8]) -> (String, u32) {
    let contact: Value = serde_json::from_slice(body).expect("bodies are JSON");
    let (id, name) = (
        contact["id"].as_str().expect("an id"),
        contact["name"].as_str().expect("a name"),
    );
    let (named, content) = name.rsplit_once(" v").expect("the model's name");
    assert_eq!(named, id, "a name belongs to its id");
    (id.to_owned(), content.parse().expect("a number"))
}

impl Talkdesk {
    pub fn new(front: Arc<Front>, site: Arc<Site>) -> Talkdesk {
        Talkdesk {
            front,
            site,
            checkpoint: None,
            run: None,
            table: BTreeMap::new(),
            finished: 0,
        }
    }

    /// Makes the next request of the run, or the first of a new one. Errors are retried with the next step.
    pub async fn step(&mut self) {
        let front = self.front.clone();
        let dice = &front.port.net.dice;
        let mut run = self.run.take().unwrap_or_else(|| Run {
            keep: *dice.pick(&[Keep::First, Keep::Last, Keep::Every]),
            offset: None,
            pages: 0,
            asked: Vec::new(),
            frozen: None,
        });
        let checkpoint = self.checkpoint.clone();
        let Ok(reply) = front.sync(checkpoint.as_deref(), run.offset.as_deref()).await else {
            self.run = Some(run);
            return;
        };
        run.asked
            .push((checkpoint.filter(|_| run.offset.is_none()), run.offset.clone()));
        self.apply(&reply);
        self.check_length(&mut run, &reply);
        if run.keep == Keep::Every || (run.keep == Keep::First && run.pages == 0) {
            self.checkpoint = Some(reply.checkpoint.clone());
        }
        run.pages += 1;
        if dice.chance(0.1) {
            let (checkpoint, offset) = dice.pick(&run.asked).clone();
            if let Ok(again) = front.sync(checkpoint.as_deref(), offset.as_deref()).await {
                self.apply(&again);
            }
        }
        match reply.next.clone() {
            Some(_) if dice.chance(0.08) => {}
            Some(next) => {
                run.offset = Some(next);
                self.run = Some(run);
            }
            None => {
                if run.keep == Keep::Last {
                    self.checkpoint = Some(reply.checkpoint.clone());
                }
                self.finished += 1;
                self.check_finished(&reply, run.frozen.map_or(Micros::ZERO, |frozen| frozen.at))
                    .await;
            }
        }
    }

    fn apply(&mut self, reply: &Reply) {
        for body in &reply.bodies {
            let (id, content) = read_body(body);
            if !id.starts_with(&self.site.crm.lock().prefix) {
                self.breach(format!("invariant 11: {id} belongs to another account"));
            }
            self.table.insert(id, content);
        }
        if reply.next.is_none() && !reply.ready {
            self.breach("invariant 6: a run ended before its snapshot was ready".to_owned());
        }
    }

    fn check_length(&self, run: &mut Run, reply: &Reply) {
        let generation = reply.tokens.checkpoint.generation;
        let Some(remaining) = reply.remaining else { return };
        // A lost snapshot makes a run start over.
        let frozen = match &mut run.frozen {
            Some(frozen) if frozen.generation == generation => frozen,
            frozen => {
                let (at, limit) = (self.now(), remaining.div_ceil(self.front.page) + 1);
                frozen.insert(Frozen {
                    generation,
                    at,
                    pages: 0,
                    limit,
                })
            }
        };
        frozen.pages += 1;
        if frozen.pages > frozen.limit {
            self.breach(format!(
                "invariant 7: {} pages of a run that may have {}",
                frozen.pages, frozen.limit
            ));
        }
    }

    async fn check_finished(&self, reply: &Reply, frozen: Micros) {
        let Checkpoint {
            generation,
            position,
            watermark,
            ..
        } = reply.tokens.checkpoint;
        self.check_snapshot(generation, position).await;
        let steady: Vec<(String, Record)> = {
            let crm = self.site.crm.lock();
            // Without times there is no watermark; a listing that leaves rows out makes no such claim.
            if !crm.manners.times || !crm.manners.lists_all() {
                return;
            }
            let steady = crm.records.iter().filter(|(_, record)| record.is_steady());
            steady.map(|(id, record)| (id.clone(), record.clone())).collect()
        };
        let (store, account) = (&self.front.port.inner, &self.front.account.id);
        let same = store.head(account, Stream::Contacts).await.unwrap_or_default();
        let same = same.is_some_and(|head| head.generation == generation);
        let ids: Vec<String> = steady.iter().map(|(id, _)| id.clone()).collect();
        let known = store.known(account, Stream::Contacts, &ids).await.unwrap_or_default();
        for ((id, record), known) in steady.iter().zip(known) {
            let due = record.versions.iter().rev().find(|version| version.stamp <= watermark);
            let Some(due) = due else { continue };
            let has = self.table.get(id);
            if has.is_some_and(|has| *has >= due.content) {
                continue;
            }
            // A newer version, past the window that was read or past the end of the run, is the next run's, also if that
            // has to go by the watermark.
            let newer = |until| {
                record
                    .versions
                    .iter()
                    .any(|v| v.stamp > watermark && v.committed <= until)
            };
            let moved = match (known, same) {
                (_, true) if newer(frozen) => true,
                (Some(known), true) => known.position > position && known.updated > watermark,
                (None, true) => false,
                (_, false) => newer(Micros(u64::MAX)),
            };
            if !moved {
                self.breach(format!(
                    "invariant 4: a run ended with watermark {} ({}) and {id} at {has:?}, which was {due:?}",
                    watermark.0, watermark
                ));
            }
        }
    }

    /// What lies in the snapshot up to the checkpoint has been delivered, or something newer has.
    async fn check_snapshot(&self, generation: Generation, until: Position) {
        let (store, account) = (&self.front.port.inner, &self.front.account.id);
        let head = store.head(account, Stream::Contacts).await.unwrap_or_default();
        if head.is_none_or(|head| head.generation != generation) {
            return;
        }
        let all = Slice {
            after: Position::START,
            until: Some(until),
            rows: usize::MAX,
            bytes: usize::MAX,
            newer_than: None,
        };
        let page = store.page(account, Stream::Contacts, &all).await.unwrap_or_default();
        for body in page.bodies {
            let (id, content) = read_body(&body);
            if self.table.get(&id).is_none_or(|has| *has < content) {
                let has = self.table.get(&id);
                self.breach(format!(
                    "invariant 3: a run ended and {id} is at {has:?} instead of {content}"
                ));
            }
        }
    }

    fn now(&self) -> Micros {
        self.front.port.net.clock.now()
    }

    fn breach(&self, what: String) {
        self.front.port.witness.breach(format!("{what} (at {})", self.now()));
    }
}
