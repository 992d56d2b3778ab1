//! An account's inbox: payload work that somebody was told would be done. It lies here sealed, and the queue's job only says
//! that there is some.
//!
//! An inbox is a chest of [`DRAWERS`] documents. A payload's key says in which drawer it lies, so that a sender's repetition
//! finds what is there already and senders seldom meet in one drawer; the document's version makes of each change one step,
//! so an inbox needs no port of its own. A change writes its drawer anew, so many small ones bear a flood better than few
//! large ones. The index [`INBOX`], which changes in the same step, brings back what nobody rang for.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::accounts::Sealed;
use crate::docs::{self, Change};
use crate::ids::{AccountId, JobId};
use crate::keys::{Fingerprint, Keys, Purpose, SealError};
use crate::ports::{DocKey, DocKind, Documents, IndexChange, StoreResult};
use crate::time::Micros;

/// Index of when the earliest payload of a drawer is due. Members: `account|drawer`.
pub const INBOX: &str = "inbox";

/// Drawers of an inbox. What lies in those of another number is found and worked off all the same; only a repetition of it
/// counts as new.
pub const DRAWERS: u8 = 64;

/// A payload that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    key: Fingerprint,
    /// Another one for each payload under this key: who worked on an earlier one must not settle this.
    mark: u64,
    /// When it came.
    at: Micros,
    /// Keyed, so that it tells equal payloads and nothing else.
    digest: Fingerprint,
    sealed: Sealed,
    #[serde(default)]
    failed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Micros>,
    #[serde(default)]
    urgency: Urgency,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Somebody has just told of it.
    #[default]
    News,
    /// It was looked up to be done with the rest: whatever is news goes ahead.
    Bulk,
}

impl Stored {
    fn due(&self) -> Micros {
        self.not_before.unwrap_or(self.at)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Drawer {
    items: Vec<Stored>,
}

/// A payload outside the inbox, sealed: in a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    key: Fingerprint,
    digest: Fingerprint,
    sealed: Sealed,
}

/// A payload as a worker takes it in hand; it stays in the inbox until it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub ticket: Ticket,
    pub kept: Kept,
    /// When it came.
    pub at: Micros,
    /// Failed attempts so far.
    pub failed: u32,
    pub urgency: Urgency,
    /// `Err`: its key is no longer in the key file, or it was changed on the way.
    pub payload: Result<Payload, SealError>,
}

/// Bytes that debug output does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Names one payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    drawer: String,
    key: Fingerprint,
    mark: u64,
}

impl Kept {
    pub fn kid(&self) -> &str {
        &self.sealed.kid
    }

    /// Seals it with the key `to`, while it seals. `false`: it does not, it is already, or no key opens it.
    pub fn reseal(&mut self, keys: &Keys, to: &str, account: &AccountId) -> bool {
        reseal_one(keys, to, account, &self.key, &mut self.sealed)
    }
}

impl Ticket {
    /// The id of the dead letter of this payload, the same in each attempt to write it.
    pub fn letter(&self) -> JobId {
        let key = self.key.0.get(..8).unwrap_or_default();
        JobId(format!("{key}{:016x}", self.mark))
    }
}

/// What an append did. The payload is kept in each case but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    New,
    /// It took the place of another one under the same key.
    Replaced,
    /// It waits already.
    Waiting,
    /// Nothing was taken.
    Full,
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Done with, or kept elsewhere.
    Gone,
    /// Again at that time. `failed`: it has used up an attempt.
    Later { at: Micros, failed: bool },
}

/// How full an inbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    pub waiting: u64,
    /// When the oldest one came.
    pub oldest: Option<Micros>,
    /// When the next one is due.
    pub due: Option<Micros>,
}

/// Keeps a payload, durably once this returns. `key` stands for what it is about: another payload under it takes the place
/// of the one that waits, and the more urgent of both says when its turn is. `limit`: payloads of an inbox, about, as each
/// drawer has its share.
pub async fn append(
    docs: &(impl Documents + ?Sized),
    keys: &Keys,
    account: &AccountId,
    (key, payload, urgency): (&str, &[u8], Urgency),
    limit: usize,
    now: Micros,
) -> StoreResult<Appended> {
    let digest = keys.fingerprint(INBOX, &[account.as_str().as_bytes(), b"|payload|", payload].concat());
    let key = keys.fingerprint(INBOX, format!("{account}|key|{key}").as_bytes());
    let sealed = seal(keys, account, &key, payload);
    let mark = rand::random();
    let share = limit.div_ceil(usize::from(DRAWERS));
    change(docs, account, &drawer_of(&key), |items| {
        let new = Stored {
            key: key.clone(),
            mark,
            at: now,
            digest: digest.clone(),
            sealed: sealed.clone(),
            failed: 0,
            not_before: None,
            urgency,
        };
        let is_full = items.len() >= share;
        match items.iter_mut().find(|item| item.key == key) {
            Some(present) if present.digest == digest => {
                // Whoever has it in hand may have looked before what this repetition tells of.
                present.mark = mark;
                present.urgency = present.urgency.min(urgency);
                Appended::Waiting
            }
            Some(present) => {
                // It keeps its place: what changes all the time would never be the oldest.
                *present = Stored {
                    at: present.at,
                    urgency: present.urgency.min(urgency),
                    ..new
                };
                Appended::Replaced
            }
            None if is_full => Appended::Full,
            None => {
                items.push(new);
                Appended::New
            }
        }
    })
    .await
}

/// Puts a payload back, whatever else waits, as news: somebody asks for it. `false`: a newer one under its key has taken its place.
pub async fn restore(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    kept: &Kept,
    now: Micros,
) -> StoreResult<bool> {
    let mark = rand::random();
    change(docs, account, &drawer_of(&kept.key), |items| {
        if let Some(present) = items.iter().find(|item| item.key == kept.key) {
            return present.digest == kept.digest;
        }
        items.push(Stored {
            key: kept.key.clone(),
            mark,
            at: now,
            digest: kept.digest.clone(),
            sealed: kept.sealed.clone(),
            failed: 0,
            not_before: None,
            urgency: Urgency::News,
        });
        true
    })
    .await
}

/// Payloads that are due, news first and of these the oldest, at most `limit`. They stay.
pub async fn peek(
    docs: &(impl Documents + ?Sized),
    keys: &Keys,
    account: &AccountId,
    limit: usize,
    now: Micros,
) -> StoreResult<Vec<Item>> {
    let mut due: Vec<(String, Stored)> = Vec::new();
    for (drawer, items) in all(docs, account).await? {
        let items = items.into_iter().filter(|item| item.due() <= now);
        due.extend(items.map(|item| (drawer.clone(), item)));
    }
    due.sort_by(|(_, a), (_, b)| (a.urgency, a.at, &a.key).cmp(&(b.urgency, b.at, &b.key)));
    due.truncate(limit);
    let open = |(drawer, item)| open(keys, account, drawer, item);
    Ok(due.into_iter().map(open).collect())
}

/// Says what became of payloads. One that was replaced since it was taken in hand is left alone. What lies in one drawer
/// changes in one step.
pub async fn settle(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    settled: &[(Ticket, Settled)],
) -> StoreResult<()> {
    let mut by_drawer: BTreeMap<&str, Vec<&(Ticket, Settled)>> = BTreeMap::new();
    for one in settled {
        by_drawer.entry(&one.0.drawer).or_default().push(one);
    }
    for (drawer, settled) in by_drawer {
        change(docs, account, drawer, |items| {
            for (ticket, settled) in &settled {
                let is_it = |item: &Stored| item.key == ticket.key && item.mark == ticket.mark;
                match settled {
                    Settled::Gone => items.retain(|item| !is_it(item)),
                    Settled::Later { at, failed } => {
                        for item in items.iter_mut().filter(|item| is_it(item)) {
                            item.not_before = Some(*at);
                            item.failed += u32::from(*failed);
                        }
                    }
                }
            }
        })
        .await?;
    }
    Ok(())
}

pub async fn fill(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Fill> {
    let mut fill = Fill::default();
    for (_, items) in all(docs, account).await? {
        for item in items {
            fill.waiting += 1;
            fill.oldest = [fill.oldest, Some(item.at)].into_iter().flatten().min();
            fill.due = [fill.due, Some(item.due())].into_iter().flatten().min();
        }
    }
    Ok(fill)
}

/// Accounts whose inbox holds something that is due; about `limit` a shard.
pub async fn due(docs: &(impl Documents + ?Sized), now: Micros, limit: usize) -> StoreResult<Vec<AccountId>> {
    let members = docs.index_until(INBOX, now, limit).await?;
    let account = |member: &str| member.split_once('|')?.0.parse().ok();
    let mut accounts: Vec<AccountId> = members.iter().filter_map(|(member, _)| account(member)).collect();
    accounts.sort();
    accounts.dedup();
    Ok(accounts)
}

/// Throws everything away: the account is forgotten.
pub async fn forget(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<()> {
    for drawer in filled(docs, account).await? {
        change(docs, account, &drawer, Vec::clear).await?;
    }
    Ok(())
}

/// Every drawer that holds something.
async fn drawers(docs: &(impl Documents + ?Sized)) -> StoreResult<Vec<(AccountId, String)>> {
    let members = docs.index_until(INBOX, Micros(u64::MAX >> 1), EVERY_DRAWER).await?;
    let parse = |member: &str| {
        let (account, drawer) = member.split_once('|')?;
        Some((account.parse().ok()?, drawer.to_owned()))
    };
    Ok(members.iter().filter_map(|(member, _)| parse(member)).collect())
}

/// Drawers of a shard that are looked at; more than a store would hold.
const EVERY_DRAWER: usize = 10_000_000;

/// How many waiting payloads are sealed with each key, by its id.
pub async fn kids(docs: &(impl Documents + ?Sized)) -> StoreResult<BTreeMap<String, u64>> {
    let mut kids = BTreeMap::new();
    for (account, drawer) in drawers(docs).await? {
        for item in load(docs, &account, &drawer).await? {
            *kids.entry(item.sealed.kid).or_default() += 1;
        }
    }
    Ok(kids)
}

/// Seals what waits with the key `to`, while it seals, in all inboxes; returns how many payloads were sealed with another one.
/// They stay the same payloads: who has one in hand settles it all the same.
pub async fn reseal(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str) -> StoreResult<u64> {
    let mut all = 0;
    for (account, drawer) in drawers(docs).await? {
        all += change(docs, &account, &drawer, |items| {
            let mut resealed = 0;
            for item in items {
                resealed += u64::from(reseal_one(keys, to, &account, &item.key, &mut item.sealed));
            }
            resealed
        })
        .await?;
    }
    Ok(all)
}

/// The drawers of an account that hold something.
async fn filled(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Vec<String>> {
    let before = format!("{account}|");
    let names = docs
        .list(DocKind::Inbox, account.shard(), Some(&before), MOST_DRAWERS)
        .await?;
    Ok(names
        .iter()
        .map_while(|name| name.strip_prefix(&before).map(str::to_owned))
        .collect())
}

/// Drawers of one account, those of another number of drawers included.
const MOST_DRAWERS: usize = 1_000;

async fn all(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Vec<(String, Vec<Stored>)>> {
    let mut all = Vec::new();
    for drawer in filled(docs, account).await? {
        let items = load(docs, account, &drawer).await?;
        all.push((drawer, items));
    }
    Ok(all)
}

async fn load(docs: &(impl Documents + ?Sized), account: &AccountId, drawer: &str) -> StoreResult<Vec<Stored>> {
    let drawer: Option<Drawer> = docs::load(docs, &doc_key(account, drawer)).await?;
    Ok(drawer.unwrap_or_default().items)
}

/// Changes a drawer and its entry in the index as one step.
async fn change<R>(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    drawer: &str,
    mut change: impl FnMut(&mut Vec<Stored>) -> R,
) -> StoreResult<R> {
    let key = doc_key(account, drawer);
    docs::update(docs, &key, |known: Option<Drawer>| {
        let before = known.unwrap_or_default();
        let mut after = before.clone();
        let result = change(&mut after.items);
        if after == before {
            return (Change::Keep, Vec::new(), result);
        }
        let entry = IndexChange {
            index: INBOX.to_owned(),
            member: key.id.clone(),
            at: after.items.iter().map(Stored::due).min(),
        };
        let what = match after.items.is_empty() {
            true => Change::Delete,
            false => Change::Put(after),
        };
        (what, vec![entry], result)
    })
    .await
}

fn doc_key(account: &AccountId, drawer: &str) -> DocKey {
    DocKey {
        kind: DocKind::Inbox,
        shard: account.shard(),
        id: format!("{account}|{drawer}"),
    }
}

/// The keyed hash spreads evenly, whatever keys senders choose.
fn drawer_of(key: &Fingerprint) -> String {
    let first = key.0.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    format!("{:02}", first.unwrap_or_default() % DRAWERS)
}

fn owner(account: &AccountId, key: &Fingerprint) -> String {
    format!("{account}|inbox|{}", key.0)
}

fn seal(keys: &Keys, account: &AccountId, key: &Fingerprint, payload: &[u8]) -> Sealed {
    let (kid, sealed) = keys.seal(Purpose::Payloads, &owner(account, key), payload);
    Sealed {
        kid,
        data: BASE64.encode(&sealed),
    }
}

fn unseal(keys: &Keys, account: &AccountId, key: &Fingerprint, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
    let data = BASE64.decode(sealed.data.as_bytes()).map_err(|_| SealError::Forged)?;
    keys.open(Purpose::Payloads, &owner(account, key), &sealed.kid, &data)
}

fn reseal_one(keys: &Keys, to: &str, account: &AccountId, key: &Fingerprint, sealed: &mut Sealed) -> bool {
    if !keys.is_old(to, &sealed.kid) {
        return false;
    }
    let Ok(payload) = unseal(keys, account, key, sealed).map(Zeroizing::new) else {
        return false;
    };
    *sealed = seal(keys, account, key, &payload);
    true
}

fn open(keys: &Keys, account: &AccountId, drawer: String, item: Stored) -> Item {
    let payload = unseal(keys, account, &item.key, &item.sealed);
    Item {
        at: item.at,
        failed: item.failed,
        urgency: item.urgency,
        payload: payload.map(Payload),
        ticket: Ticket {
            drawer,
            key: item.key.clone(),
            mark: item.mark,
        },
        kept: Kept {
            key: item.key,
            digest: item.digest,
            sealed: item.sealed,
        },
    }
}
