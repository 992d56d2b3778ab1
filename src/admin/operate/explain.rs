//! One contact explained: who is meant, what the CRM says of it now, what the mapping made of that, and how the snapshot stands to
//! it. Fields are named and counted; their values are for administrators who ask for them.

use std::collections::{BTreeMap, BTreeSet};

use contacts::accounts::{self, Account};
use contacts::explain::{self, Seen, Standing};
use contacts::ports::Head;
use contacts::record::{Known, Removal};
use contacts::work::{self, Work};
use contacts::{AccountId, Contact, Kind, Micros, Stream, holds, runs};
use crm::Many;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use worker::progress::Progress;

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::admin::view::{When, when};
use crate::status::span;

/// Contacts that share a phone or an e-mail address and are explained at once.
const MOST: usize = 5;
/// No contact has a longer id: the mapping drops those.
const LONGEST: usize = 255;

/// Who is asked about, and how much is shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// An id of the CRM, a phone number or an e-mail address.
    pub who: String,
    /// The values of fields, too.
    #[serde(default)]
    pub values: bool,
}

#[derive(Debug, Serialize)]
pub struct Explained {
    pub account: String,
    pub integration: String,
    /// What `who` was taken for: `id`, `phone` or `email`.
    pub by: &'static str,
    pub contacts: Vec<ContactView>,
    /// What is to be known beside them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ContactView {
    pub id: String,
    pub standing: Standing,
    /// How it stands and what comes next, in one sentence.
    pub sentence: String,
    /// The way from the CRM to Talkdesk, in order.
    pub steps: Vec<Step>,
    pub fields: Vec<FieldView>,
    /// Of the row in the snapshot. `None`: there is none.
    pub position: Option<When>,
    pub crm_time: Option<When>,
    pub observed: Option<When>,
    pub version: Option<String>,
    /// A webhook named it, and it has not been fetched since.
    pub dirty: bool,
}

#[derive(Debug, Serialize)]
pub struct Step {
    pub step: &'static str,
    pub text: String,
}

/// A field of the contact: how many entries it has on both sides, and whether they are the same.
#[derive(Debug, Serialize)]
pub struct FieldView {
    pub field: String,
    /// `None`: the CRM was not asked, or has no such contact.
    pub crm: Option<usize>,
    pub snapshot: Option<usize>,
    pub same: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crm_value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_value: Option<Value>,
}

/// What the CRM answered, and what the mapping made of it.
struct Fetched {
    seen: Seen,
    /// For the step `crm`.
    answer: String,
    /// For the step `mapping`. `None`: there is nothing to map.
    mapping: Option<String>,
    /// For the step `filter`.
    filter: Option<String>,
    contact: Option<Contact>,
}

impl Fetched {
    fn without(seen: Seen, answer: impl Into<String>) -> Fetched {
        Fetched {
            seen,
            answer: answer.into(),
            mapping: None,
            filter: None,
            contact: None,
        }
    }
}

/// Whom a question means.
struct Meant {
    by: &'static str,
    ids: Vec<String>,
    note: Option<String>,
}

impl Operate {
    /// Explains the contacts that a question means.
    pub async fn explain(&self, who: &Operator, account: &str, question: &Question) -> Result<Explained, Refusal> {
        allow(who, if question.values { Grant::Admin } else { Grant::Operate })?;
        let account = self.known_account(account).await?;
        let asked = question.who.trim();
        if asked.is_empty() || asked.chars().count() > LONGEST || asked.chars().any(char::is_control) {
            return Err(Refusal::BadRequest(format!(
                "say who: the CRM's id, a phone number or an e-mail address, at most {LONGEST} characters"
            )));
        }
        let meant = self.meant_contacts(&account, asked).await?;
        let mut contacts = Vec::new();
        for id in meant.ids.iter().take(MOST) {
            contacts.push(self.explain_one(&account, id, question.values).await?);
        }
        let note = match meant.ids.len() {
            count if count > MOST => Some(format!("{count} contacts share it; the first {MOST} are explained")),
            _ => meant.note,
        };
        // Ids are no secret here; what was typed may be a person's number.
        let ids: Vec<&str> = meant.ids.iter().take(MOST).map(String::as_str).collect();
        let with = if question.values { ", with values" } else { "" };
        let detail = format!("by {}{with}: {}", meant.by, ids.join(" "));
        self.note(who, "explain", account.id.as_str(), &detail).await?;
        Ok(Explained {
            account: account.id.to_string(),
            integration: account.integration,
            by: meant.by,
            contacts,
            note,
        })
    }

    pub(in crate::admin) async fn known_account(&self, id: &str) -> Result<Account, Refusal> {
        let no_account = || Refusal::NotFound(format!("there is no account `{id}`"));
        let id: AccountId = id.parse().map_err(|_| no_account())?;
        accounts::get(&*self.store, &id).await?.ok_or_else(no_account)
    }

    /// An id that the snapshot knows comes first: many CRMs have ids that could be phone numbers.
    async fn meant_contacts(&self, account: &Account, asked: &str) -> Result<Meant, Refusal> {
        let find = |key: String| {
            let key = self.worker.keys.lookup_key(&account.id, &key);
            async move { self.store.find(&account.id, Stream::Contacts, key).await }
        };
        if asked.contains('@') {
            let ids = find(format!("email:{}", asked.to_lowercase())).await?;
            let note = ids.is_empty().then(|| nobody("e-mail address"));
            return Ok(Meant { by: "email", ids, note });
        }
        let known = self.known_contact(account, asked).await?;
        if known.as_ref().is_none_or(Known::is_tombstone) {
            let survivors = find(format!("alias:{asked}")).await?;
            if let Some(survivor) = survivors.into_iter().next() {
                let note = format!("{asked} was merged into {survivor}, which is explained");
                return Ok(Meant {
                    by: "id",
                    ids: vec![survivor],
                    note: Some(note),
                });
            }
        }
        if known.is_none() {
            let region = self.region(account).and_then(|code| crm::Region::from_code(&code).ok());
            if let Some(phone) = crm::e164(asked, region) {
                let ids = find(format!("phone:{phone}")).await?;
                if !ids.is_empty() {
                    return Ok(Meant {
                        by: "phone",
                        ids,
                        note: None,
                    });
                }
                if asked.starts_with('+') {
                    return Ok(Meant {
                        by: "phone",
                        ids,
                        note: Some(nobody("phone number")),
                    });
                }
            }
        }
        Ok(Meant {
            by: "id",
            ids: vec![asked.to_owned()],
            note: None,
        })
    }

    async fn known_contact(&self, account: &Account, id: &str) -> Result<Option<Known>, Refusal> {
        let ids = [id.to_owned()];
        Ok(self
            .store
            .known(&account.id, Stream::Contacts, &ids)
            .await?
            .pop()
            .flatten())
    }

    fn region(&self, account: &Account) -> Option<String> {
        self.integrations.get(&account.integration)?.region.clone()
    }

    async fn explain_one(&self, account: &Account, id: &str, values: bool) -> Result<ContactView, Refusal> {
        let work = work::load(&*self.store, &account.id).await?;
        // The CRM first: what a worker writes meanwhile is then in the snapshot, and not said to be missing there.
        let mut fetched = self.fetch(account, &work, id).await?;
        let head = self.store.head(&account.id, Stream::Contacts).await?;
        let known = self.known_contact(account, id).await?;
        let ids = [id.to_owned()];
        let body = self.store.bodies(&account.id, Stream::Contacts, &ids).await?;
        let body: Option<Value> = body
            .into_iter()
            .next()
            .flatten()
            .and_then(|body| serde_json::from_slice(&body).ok());
        let dirty = self.store.dirty(&account.id, usize::MAX).await?;
        let dirty = dirty.iter().any(|dirty| dirty.id == id);
        let kept = runs::list(&*self.store, &account.id).await?;

        let now = self.clock.now();
        if let (Seen::Wanted(row), Some(head)) = (&mut fetched.seen, &head) {
            row.waits = Progress::read(&head.progress).waits(id, now, self.worker.policy.remap_within);
        }
        let erased = self.erased_since(&account.id, id).await?;
        let standing = match erased {
            Some(_) if known.as_ref().is_none_or(Known::is_tombstone) => Standing::Erased,
            _ => explain::standing(&fetched.seen, known.as_ref()),
        };
        let living = known.as_ref().filter(|known| !known.is_tombstone());
        let mapped = fetched
            .contact
            .as_ref()
            .and_then(|contact| serde_json::to_value(contact).ok());
        let mut steps = vec![Step {
            step: "crm",
            text: fetched.answer,
        }];
        let mut add = |step, text: Option<String>| steps.extend(text.map(|text| Step { step, text }));
        add("mapping", fetched.mapping);
        add("filter", fetched.filter);
        add(
            "erased",
            erased.map(|at| format!("kept out by an operator, {}", words(at, now))),
        );
        add("snapshot", Some(in_snapshot(head.as_ref(), known.as_ref(), now)));
        add(
            "webhook",
            dirty.then(|| "a webhook named it, and it has not been fetched since".to_owned()),
        );
        add("written", living.map(|known| written_by(known, &kept, now)));
        add("talkdesk", living.map(|known| delivered(known, account, now)));
        let seen_time = |at: Micros| (at > Micros::ZERO).then(|| when(at, now));
        Ok(ContactView {
            sentence: sentence(standing, &work, dirty, now),
            standing,
            steps,
            fields: fields(mapped.as_ref(), body.as_ref(), values),
            position: living.map(|known| when(Micros(known.position.0), now)),
            crm_time: known.as_ref().and_then(|known| seen_time(known.updated)),
            observed: known.as_ref().and_then(|known| seen_time(known.observed)),
            version: living.map(|known| format!("{:016x}", known.hash)),
            dirty,
            id: id.to_owned(),
        })
    }

    /// Asks the CRM for one contact, by its budget and with the account's credentials, as a worker does.
    async fn fetch(&self, account: &Account, work: &Work, id: &str) -> Result<Fetched, Refusal> {
        let unasked = |why: String| Ok(Fetched::without(Seen::Unasked, format!("not asked: {why}")));
        if work.pause.is_some() {
            return unasked("the account is paused".into());
        }
        if work.suspended.is_some() {
            return unasked("the account is suspended, and has no credentials".into());
        }
        if work.park.is_some() {
            return unasked("the account's credentials are refused".into());
        }
        let holds = holds::load(&*self.store).await?;
        if holds.connectors.contains_key(&account.connector) {
            return unasked(format!("connector {} is paused", account.connector));
        }
        let source = match self.worker.sources.source(account).await {
            Ok(source) => source,
            Err(error) => return unasked(process::chain(&error)),
        };
        if source.traits().get_many == 0 {
            return unasked(format!(
                "connector {} cannot fetch one contact by its id",
                account.connector
            ));
        }
        let asked_at = self.clock.now();
        let many = source.get_many(&[id.to_owned()]).await;
        source.rest().await;
        Ok(match many {
            Ok(many) => self.read(account, many, id, asked_at),
            Err(error) => Fetched::without(Seen::Unasked, format!("asked in vain: {}", process::chain(&error))),
        })
    }

    /// What the worker would make of the answer.
    fn read(&self, account: &Account, many: Many, id: &str, asked_at: Micros) -> Fetched {
        let Many { page, missing } = many;
        let removal = |updated| {
            Seen::Gone(Removal {
                id: id.to_owned(),
                updated,
                observed: asked_at,
            })
        };
        let region = self.region(account);
        let Some(observed) = page.rows.into_iter().find(|row| row.contact.id == id) else {
            if missing.iter().any(|gone| gone == id) {
                return Fetched::without(removal(Micros::ZERO), "it has no contact of this id");
            }
            if page.dropped.is_empty() {
                let answer =
                    "it returned nothing for this id, which its connector does not take for a proof that it is gone";
                return Fetched::without(Seen::Unusable, answer);
            }
            let why = counted(&page.dropped, region.as_deref());
            return Fetched {
                mapping: Some(format!("no contact can be made of it: {why}")),
                ..Fetched::without(Seen::Unusable, "it has it")
            };
        };
        let updated = observed.updated;
        let answer = match updated {
            Micros::ZERO => "it has it, without a time of change".to_owned(),
            at => format!("it has it, changed {}", words(at, self.clock.now())),
        };
        let mut dropped = page.dropped;
        dropped.remove("unwanted");
        let (is_removed, is_unwanted) = (observed.removed, observed.unwanted);
        let contact = observed.contact.clone();
        let mut mapping = vec![shape(&contact)];
        if !dropped.is_empty() {
            mapping.push(format!("dropped: {}", counted(&dropped, region.as_deref())));
        }
        if !page.repairs.is_empty() {
            mapping.push(format!("repaired: {}", counted(&page.repairs, region.as_deref())));
        }
        let filter = match (is_removed, is_unwanted) {
            (true, _) => "left out: its row says that it is archived or deleted",
            (false, true) => "left out: the filter of the integration does not want it",
            (false, false) => "kept: nothing speaks against it",
        };
        let seen = if is_removed || is_unwanted {
            removal(updated)
        } else {
            let keys = &self.worker.keys;
            Seen::Wanted(worker::row(keys, &account.id, observed, asked_at, false))
        };
        Fetched {
            seen,
            answer,
            mapping: Some(mapping.join("; ")),
            filter: Some(filter.to_owned()),
            contact: Some(contact),
        }
    }
}

fn nobody(what: &str) -> String {
    format!("no contact of the snapshot has this {what}. CRMs can be asked by id only: give the id to ask this one")
}

fn words(at: Micros, now: Micros) -> String {
    when(at, now).words
}

/// `1 × phone_invalid (no phone number of region PT)`.
fn counted(counts: &BTreeMap<&'static str, u32>, region: Option<&str>) -> String {
    let one = |(reason, count): (&&str, &u32)| match meaning(reason, region) {
        Some(meaning) => format!("{count} × {reason} ({meaning})"),
        None => format!("{count} × {reason}"),
    };
    counts.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What a reason of the mapping means.
fn meaning(reason: &str, region: Option<&str>) -> Option<String> {
    let words = match reason {
        "phone_invalid" => {
            return Some(match region {
                Some(region) => format!("no phone number, also not of region {region}"),
                None => "no phone number with its country code, and the integration has no region".to_owned(),
            });
        }
        "phone_repeated" => "a phone number that is there already",
        "phone_formatted" => "a phone number brought into the form +…",
        "too_many_phones" | "too_many_emails" => "beyond the first 100",
        "email_invalid" => "no e-mail address",
        "email_repeated" => "an e-mail address that is there already",
        "url_invalid" => "no http(s) URL",
        "website_scheme" => "a website that came without https://",
        "twitter_invalid" => "no user name",
        "twitter_shortened" => "a user name cut out of more",
        "clipped" => "a text longer than Talkdesk takes",
        "name_filled" => "without a name: company, e-mail address, phone or id stand in",
        "time_unreadable" => "its time of change cannot be read",
        "time_ahead" => "its time of change lies ahead of the CRM's clock",
        "no_id" => "the row has no id",
        "id_too_long" => "its id is longer than 255 characters",
        "row_unreadable" => "an expression of the mapping fails on it",
        "unwanted" => "the filter of the integration does not want it",
        _ => return None,
    };
    Some(words.to_owned())
}

/// `company, 2 emails, name, 1 phone`.
fn shape(contact: &Contact) -> String {
    let value = serde_json::to_value(contact).unwrap_or_default();
    let mut parts = Vec::new();
    for (field, value) in value.as_object().into_iter().flatten() {
        match value {
            _ if field == "id" => {}
            Value::Array(entries) => match entries.len() {
                1 => parts.push(format!("1 {}", field.trim_end_matches('s'))),
                count => parts.push(format!("{count} {field}")),
            },
            _ => parts.push(field.clone()),
        }
    }
    parts.join(", ")
}

fn entries(value: Option<&Value>) -> usize {
    match value {
        Some(Value::Array(entries)) => entries.len(),
        Some(Value::Null) | None => 0,
        Some(_) => 1,
    }
}

/// The fields of either side. Values only where they were asked for.
fn fields(crm: Option<&Value>, snapshot: Option<&Value>, values: bool) -> Vec<FieldView> {
    let keys = |side: Option<&Value>| -> Vec<String> {
        let object = side.and_then(Value::as_object).into_iter();
        object.flatten().map(|(key, _)| key.clone()).collect()
    };
    let names: BTreeSet<String> = keys(crm).into_iter().chain(keys(snapshot)).collect();
    let view = |field: String| {
        let (ours, theirs) = (
            snapshot.and_then(|of| of.get(&field)),
            crm.and_then(|of| of.get(&field)),
        );
        FieldView {
            crm: crm.map(|_| entries(theirs)),
            snapshot: snapshot.map(|_| entries(ours)),
            same: ours == theirs,
            crm_value: theirs.filter(|_| values).cloned(),
            snapshot_value: ours.filter(|_| values).cloned(),
            field,
        }
    };
    names.into_iter().filter(|name| name != "id").map(view).collect()
}

fn in_snapshot(head: Option<&Head>, known: Option<&Known>, now: Micros) -> String {
    let Some(head) = head else {
        return "there is no snapshot yet".to_owned();
    };
    let state = if head.ready {
        ""
    } else {
        "; the snapshot is still being built"
    };
    match known {
        None => format!("not there, and it never was since deletions are remembered{state}"),
        Some(known) if known.is_tombstone() => {
            format!(
                "taken out; that was looked at last {}{state}",
                words(known.observed, now)
            )
        }
        Some(known) => {
            let crm = match known.updated {
                Micros::ZERO => "without a CRM time".to_owned(),
                at => format!("CRM time {at}"),
            };
            format!(
                "there at position {}, version {:016x}, {crm}, fetched by a call that began {}{state}",
                Micros(known.position.0),
                known.hash,
                known.observed,
            )
        }
    }
}

fn written_by(known: &Known, kept: &[runs::Run], now: Micros) -> String {
    let at = Micros(known.position.0);
    let since = kept.iter().filter(|run| run.began > at && run.kind != Kind::Agents);
    let since: u32 = since.map(|run| run.times).sum();
    match explain::writer(known.position, kept) {
        Some(run) => format!(
            "by the run of {} in lane {} that began {}; {since} of the kept runs came after it",
            run.kind,
            run.lane,
            words(run.began, now)
        ),
        None => format!("{}; the run that wrote it is not kept any more", words(at, now)),
    }
}

/// Positions are times, so a later call of Talkdesk meets them; which pages it took is not kept anywhere but in its checkpoint.
fn delivered(known: &Known, account: &Account, now: Micros) -> String {
    let at = Micros(known.position.0);
    let known_by = "Only Talkdesk's checkpoint says for certain: `snapbridge token explain` reads it";
    match account.called {
        Micros::ZERO => "Talkdesk has not called yet; its first run delivers it".to_owned(),
        called if called > at => format!(
            "called last {}, after this version was written: a run that began since then has had it. {known_by}",
            words(called, now)
        ),
        called => format!(
            "called last {}, before this version was written (calls are noted once a minute): the next run delivers it. {known_by}",
            words(called, now)
        ),
    }
}

fn sentence(standing: Standing, work: &Work, dirty: bool, now: Micros) -> String {
    let next = if work.is_held() {
        "when the account's work goes on".to_owned()
    } else if dirty {
        "with the fetch that its webhook asked for".to_owned()
    } else {
        let due = |kind| work.tasks.get(&kind).and_then(|task| task.due);
        match due(Kind::Changes).or(due(Kind::Full)) {
            Some(at) if at > now => format!("with the next poll that finds it ({}), or a full pass", words(at, now)),
            Some(at) => format!(
                "with the poll that has been due for {}, or a full pass",
                span(now.since(at))
            ),
            None => "with the next full pass".to_owned(),
        }
    };
    match standing {
        Standing::Current => "The snapshot holds what the CRM has".to_owned(),
        Standing::Waits => {
            "The mapping has changed, and its turn to take that on (refresh.remap_within) has not come; a change at the CRM \
             does not wait for it"
                .to_owned()
        }
        Standing::Behind => format!("The CRM has another version than the snapshot; it comes {next}"),
        Standing::ToCome => format!("The CRM has it, the snapshot does not yet; it comes {next}"),
        Standing::ToGo => {
            format!("The snapshot still holds it, though it is gone or not wanted; it is taken out {next}")
        }
        Standing::Newer => "The snapshot knows of something newer than what the CRM shows, and keeps that".to_owned(),
        Standing::Kept => {
            "The snapshot keeps an earlier version, as nothing proves that the contact is gone".to_owned()
        }
        Standing::LeftOut => "It is left out: what the CRM has makes no contact".to_owned(),
        Standing::Erased => {
            "It was erased, and is kept out whatever the CRM has until `snapbridge contact lift` ends that".to_owned()
        }
        Standing::Gone => "It is not delivered: the CRM does not have it, or it is not wanted".to_owned(),
        Standing::Unconfirmed => "The snapshot holds it; the CRM was not asked".to_owned(),
        Standing::Unknown => "The snapshot does not hold it; the CRM was not asked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_counted_and_compared_and_values_are_shown_when_asked_for_only() {
        let crm = json!({"id": "7", "name": "Ada", "phones": ["+1", "+2"], "emails": []});
        let held = json!({"id": "7", "name": "Ada", "phones": ["+1"], "emails": [], "title": "Dr"});
        let shown = |values| serde_json::to_value(fields(Some(&crm), Some(&held), values)).unwrap();
        assert_eq!(
            shown(false),
            json!([
                {"field": "emails", "crm": 0, "snapshot": 0, "same": true},
                {"field": "name", "crm": 1, "snapshot": 1, "same": true},
                {"field": "phones", "crm": 2, "snapshot": 1, "same": false},
                {"field": "title", "crm": 0, "snapshot": 1, "same": false},
            ])
        );
        let with = shown(true);
        assert_eq!(with[2]["crm_value"], json!(["+1", "+2"]));
        assert_eq!(with[3]["snapshot_value"], "Dr");
        let unasked = serde_json::to_value(fields(None, Some(&held), false)).unwrap();
        assert_eq!(
            unasked[0],
            json!({"field": "emails", "crm": null, "snapshot": 0, "same": false})
        );
    }

    #[test]
    fn a_mapping_is_told_by_numbers_and_reasons() {
        let contact = Contact {
            id: "7".into(),
            name: "Ada".into(),
            phones: vec!["+351211234567".into()],
            ..Contact::default()
        };
        assert_eq!(shape(&contact), "0 emails, name, 1 phone");
        let counts = BTreeMap::from([("phone_invalid", 1), ("some_new_reason", 2)]);
        assert_eq!(
            counted(&counts, Some("NL")),
            "1 × phone_invalid (no phone number, also not of region NL), 2 × some_new_reason"
        );
    }
}
