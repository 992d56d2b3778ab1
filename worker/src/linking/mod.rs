//! What lies in a dealer's inbox is done here: the records of a DMS and of Web1on1 that are one person's learn each other's
//! links. Who is meant, what stands among links and which event is news are decided in [`contacts::linking`].
//!
//! A drain runs under the account's lease, so the links of a contact are read and written back by one at a time. Each step says
//! how things are to stand, so a payload that is done again, whoever died in between, finds it done.

mod again;
mod pair;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::inbox::{self, Appended, Urgency};
use contacts::keys::Keys;
use contacts::linking::records::{self, Side};
use contacts::linking::{Event, Field, Needle, Owner, Payload, Remove, Seed, Tidy, Update, UrlTemplate};
use contacts::{AccountId, Clock, ErrorKind, Micros, Store, StoreError};
use crm::{Client, CrmError, CrmResult, LinkTo, Linked, Region};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::source::{Handled, Linker};

/// A record that its own system does not show yet is looked for again until this long after it was told of: a webhook may be
/// sent before what it tells of is committed.
const GRACE: Duration = Duration::from_secs(30);
/// Between two such looks.
const LOOK: Duration = Duration::from_secs(5);
/// Until a seeding that is far enough ahead of the work goes on.
const AHEAD: Duration = Duration::from_secs(2);
/// Records that one step of a removal, or of a tidying, looks at.
const AT_ONCE: usize = 20;
/// How long an answer is kept for who waits for it.
const ANSWER_LIFE: Duration = Duration::from_secs(60);

/// One of the two systems, as linking sees it.
#[async_trait]
pub trait System: Send + Sync {
    /// Who bears the needle, in the organization.
    async fn find(&self, needle: &Needle, organization: Option<&str>) -> CrmResult<Vec<Linked>>;

    /// [`ErrorKind::Missing`]: it is not there.
    async fn read(&self, id: &str, organization: Option<&str>) -> CrmResult<Linked>;

    /// [`ErrorKind::Missing`]: it is not there.
    async fn write(&self, to: &LinkTo) -> CrmResult<()>;

    /// A page of all records, and where the next one is.
    async fn page(&self, cursor: Option<&Value>) -> CrmResult<(Vec<Listed>, Option<Value>)>;

    /// Whether it takes the credentials at all, and answers.
    async fn check(&self) -> CrmResult<()>;

    /// Slots that were taken ahead go back.
    async fn rest(&self);
}

/// A record of a list, as far as it can be looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub email: Option<String>,
    pub phone: Option<String>,
}

#[async_trait]
impl System for Client {
    async fn find(&self, needle: &Needle, organization: Option<&str>) -> CrmResult<Vec<Linked>> {
        self.find_linked(needle, organization).await
    }

    async fn read(&self, id: &str, organization: Option<&str>) -> CrmResult<Linked> {
        self.read_linked(id, organization).await
    }

    async fn write(&self, to: &LinkTo) -> CrmResult<()> {
        self.write_link(to).await
    }

    async fn page(&self, cursor: Option<&Value>) -> CrmResult<(Vec<Listed>, Option<Value>)> {
        let page = self.full_page(cursor).await?;
        let rows = page.rows.into_iter().filter(|row| !row.removed);
        let listed = rows.map(|row| Listed {
            id: row.contact.id,
            email: row.contact.emails.into_iter().next(),
            phone: row.contact.phones.into_iter().next(),
        });
        Ok((listed.collect(), page.next))
    }

    async fn check(&self) -> CrmResult<()> {
        Client::check(self).await.map(drop)
    }

    async fn rest(&self) {
        Client::rest(self).await;
    }
}

/// How a link looks in one of the systems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub label: String,
    /// Address of a small picture; empty: none.
    pub icon: String,
    pub url: UrlTemplate,
}

/// What a dealer's linking goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Web1on1's id of the dealer.
    pub organization: String,
    /// The link to the DMS's record, at Web1on1.
    pub to_dms: Look,
    /// The link to the conversation, at the DMS.
    pub to_web1on1: Look,
    /// Whose value of a field counts.
    pub owners: BTreeMap<Field, Owner>,
    /// Whose national phone numbers are assumed.
    pub region: Option<Region>,
    /// Payloads that may wait.
    pub inbox: usize,
    /// Payloads that a seeding puts ahead of the work.
    pub seed_ahead: usize,
}

/// What came of an update, for who waits for it, and when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub at: Micros,
    pub answer: Answer,
}

/// What came of a payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Answer {
    /// Something was written.
    Updated {
        contact: String,
        conversation: Option<String>,
    },
    /// Everything stood there already.
    Unchanged {
        contact: String,
        conversation: Option<String>,
    },
    Unmatched,
    Ambiguous {
        matches: usize,
    },
    /// The contact is linked with another record of the DMS.
    Taken,
    /// The DMS does not have the record.
    Gone,
    Removed,
}

impl Answer {
    /// For metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Answer::Updated { .. } => "updated",
            Answer::Unchanged { .. } => "unchanged",
            Answer::Unmatched => "unmatched",
            Answer::Ambiguous { .. } => "ambiguous",
            Answer::Taken => "taken",
            Answer::Gone => "gone",
            Answer::Removed => "removed",
        }
    }
}

/// What one payload came to.
enum Step {
    Done(Answer),
    /// Nothing to do: an echo, or news that had been overtaken.
    Known,
    Later(Micros),
}

/// A dealer's two systems.
pub struct Pairing {
    pub account: AccountId,
    pub store: Arc<dyn Store>,
    pub keys: Arc<Keys>,
    pub clock: Arc<dyn Clock>,
    pub dms: Arc<dyn System>,
    pub web1on1: Arc<dyn System>,
    pub rules: Rules,
}

#[async_trait]
impl Linker for Pairing {
    async fn handle(&self, payload: &[u8], came: Micros) -> CrmResult<Handled> {
        let payload = Payload::read(payload)
            .ok_or_else(|| CrmError::new(ErrorKind::Rejected, "this version does not know what lies in the inbox"))?;
        let kind = payload.kind();
        let at = self.clock.now();
        let mut answering = None;
        let step = match payload {
            Payload::Update(update) => {
                let step = self.update(&update, came, true).await?;
                answering = Some(update.id);
                step
            }
            Payload::Event(event) => self.event(&event, came).await?,
            Payload::Seed(seed) => self.seed(seed).await?,
            Payload::Remove(remove) => self.remove(remove).await?,
            Payload::Tidy(tidy) => self.tidy(tidy).await?,
            Payload::Look(again) => self.look(again).await?,
        };
        let (result, handled) = match &step {
            Step::Done(answer) => (answer.as_str(), Handled::Done),
            Step::Known => ("known", Handled::Done),
            Step::Later(at) => ("later", Handled::Later(*at)),
        };
        metrics::counter!("snapbridge_link_payloads_total", "kind" => kind, "result" => result).increment(1);
        if let (Some(record), Step::Done(answer)) = (answering, step) {
            let body = serde_json::to_vec(&Told { at, answer }).unwrap_or_default();
            let key = answer_key(&self.keys, &self.account, &record);
            let kept = self.store.put(&key, &body, ANSWER_LIFE, self.clock.now()).await;
            kept.map_err(store_down)?;
        }
        Ok(handled)
    }

    async fn check(&self) -> CrmResult<()> {
        self.web1on1.check().await.map_err(|error| of(Side::Web1on1, error))?;
        self.dms.check().await.map_err(|error| of(Side::Dms, error))
    }

    async fn rest(&self) {
        self.dms.rest().await;
        self.web1on1.rest().await;
    }
}

/// Where the answer to the last update of a record is kept, among the store's scratch values.
pub fn answer_key(keys: &Keys, account: &AccountId, record: &str) -> String {
    format!(
        "link-answer|{}",
        keys.fingerprint("link-answer", format!("{account}|{record}").as_bytes())
            .0
    )
}

/// Puts a payload into a dealer's inbox.
pub async fn put(
    store: &dyn Store,
    keys: &Keys,
    account: &AccountId,
    (payload, urgency): (&Payload, Urgency),
    limit: usize,
    now: Micros,
) -> Result<Appended, StoreError> {
    let given = (&*payload.key(), &*payload.to_bytes(), urgency);
    inbox::append(store, keys, account, given, limit, now).await
}

fn store_down(error: StoreError) -> CrmError {
    CrmError::because(
        ErrorKind::StoreDown,
        "what is known of links cannot be read or written",
        error,
    )
}

impl Pairing {
    /// One page of the DMS goes into the inbox, as if the DMS had told of each record, but behind whatever it really tells of;
    /// never far ahead of the work, so that there is room for that.
    async fn seed(&self, seed: Seed) -> CrmResult<Step> {
        let now = self.clock.now();
        let fill = inbox::fill(&*self.store, &self.account).await.map_err(store_down)?;
        // It waits there itself.
        if fill.waiting > self.rules.seed_ahead as u64 {
            return Ok(Step::Later(now.plus(AHEAD)));
        }
        let (page, next) = self
            .dms
            .page(seed.cursor.as_ref())
            .await
            .map_err(|error| of(Side::Dms, error))?;
        // One that is gone meanwhile: the page begins anew, and who is told of twice is found done.
        let behind = seed
            .last
            .as_ref()
            .and_then(|last| page.iter().position(|record| record.id == *last));
        let from = behind.map_or(0, |at| at + 1);
        let mut put_in = 0;
        for record in page.iter().skip(from).take(self.rules.seed_ahead) {
            if let Some(update) = told(record, &self.rules.organization)
                && self.take_in(&Payload::Update(update)).await? == Appended::Full
            {
                break;
            }
            put_in += 1;
        }
        let ended = from + put_in >= page.len();
        if put_in == 0 && !ended {
            return Ok(Step::Later(now.plus(AHEAD)));
        }
        let seen = seed.seen + put_in as u64;
        let done = ended && next.is_none();
        records::change_seeding(&*self.store, &self.account, |seeding| {
            seeding.began = Some(seed.began);
            seeding.seen = seen;
            seeding.ended = done.then_some(now);
        })
        .await
        .map_err(store_down)?;
        if done {
            tracing::info!(account = %self.account, records = seen, "all records of the DMS were put up for linking");
            // Whom the list did not name may be gone.
            self.take_in(&Payload::Tidy(Tidy::default())).await?;
            return Ok(Step::Known);
        }
        let (cursor, last) = match ended {
            true => (next, None),
            false => (seed.cursor, page.get(from + put_in - 1).map(|record| record.id.clone())),
        };
        let further = Seed {
            began: seed.began,
            cursor,
            last,
            seen,
        };
        // It takes this one's place, so settling this one changes nothing.
        self.take_in(&Payload::Seed(further)).await?;
        Ok(Step::Known)
    }

    /// Takes links away: of one record, or of a handful of all.
    async fn remove(&self, remove: Remove) -> CrmResult<Step> {
        if let Some(record) = &remove.record {
            self.part(record).await?;
            return Ok(Step::Done(Answer::Removed));
        }
        let (page, after) = self.handful(remove.after.as_deref()).await?;
        for record in &page {
            self.part(record).await?;
        }
        if after.is_some() {
            self.take_in(&Payload::Remove(Remove { record: None, after })).await?;
        }
        Ok(Step::Done(Answer::Removed))
    }

    /// Takes the links of records away that the DMS no longer has.
    async fn tidy(&self, tidy: Tidy) -> CrmResult<Step> {
        let (page, after) = self.handful(tidy.after.as_deref()).await?;
        for record in &page {
            self.part_if_gone(record).await?;
        }
        if after.is_some() {
            self.take_in(&Payload::Tidy(Tidy { after })).await?;
        }
        Ok(Step::Known)
    }

    /// Known records of the DMS, and behind which there are more.
    async fn handful(&self, after: Option<&str>) -> CrmResult<(Vec<String>, Option<String>)> {
        let page = records::ids(&*self.store, &self.account, Side::Dms, after, AT_ONCE).await;
        let page = page.map_err(store_down)?;
        let further = page.last().filter(|_| page.len() == AT_ONCE).cloned();
        Ok((page, further))
    }

    /// What this worker has thought of by itself.
    async fn take_in(&self, payload: &Payload) -> CrmResult<Appended> {
        let (limit, now) = (self.rules.inbox, self.clock.now());
        let given = (payload, Urgency::Bulk);
        put(&*self.store, &self.keys, &self.account, given, limit, now)
            .await
            .map_err(store_down)
    }
}

/// A listed record, as the DMS would tell of it. `None`: there is nothing to look for.
fn told(record: &Listed, organization: &str) -> Option<Update> {
    let body = serde_json::json!({
        "id": record.id, "organization": organization, "email": record.email, "telephone": record.phone,
    });
    Update::read(body.to_string().as_bytes()).ok()
}

/// Says whose failure it is.
fn of(side: Side, error: CrmError) -> CrmError {
    CrmError::because(error.kind, side.name(), error)
}

/// Whether an event's contact may not be there yet.
fn may_come(event: &Event) -> bool {
    event.change != contacts::linking::Change::Deleted
}
