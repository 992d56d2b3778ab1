//! Changing the sealing keys while everything runs: which keys the processes have, what is still sealed with an old one, and
//! sealing it anew.
//!
//! A key goes through three states, and no page fails in between: every process can open with it, then it seals, then
//! nothing is left that the one before it sealed. What is stored is sealed anew ([`reseal`]). Tokens are not ours to change:
//! Talkdesk holds them, and gets new ones with each answer. So an account notes which keys the tokens were sealed with that
//! it was shown and gave ([`TokenKeys`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::{AccountId, Shard};
use crate::keys::Keys;
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;
use crate::{accounts, dead, inbox, subscription};

/// The keys that the tokens of an account are sealed with, by key id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenKeys(BTreeMap<String, Seen>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// When a token of this key was last shown or given.
    at: Micros,
    /// When a run last began with a checkpoint of this key: Talkdesk had no older one then. 0: never.
    #[serde(default)]
    began: Micros,
}

/// The tokens of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// The key of the checkpoint or offset that was shown and could be opened.
    pub shown: Option<&'a str>,
    /// It was a checkpoint, so a run begins.
    pub begins: bool,
    /// The key of the tokens that were given.
    pub given: &'a str,
    pub now: Micros,
}

/// Whether tokens of an account need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    No,
    /// The tokens that Talkdesk holds may be sealed with it.
    Yes,
    /// No token was met since tokens are noted, though Talkdesk has called.
    Unknown,
}

impl TokenKeys {
    /// Whether it is worth a write. `every`: how old a note may get.
    pub fn is_news(&self, met: &Met<'_>, every: Duration) -> bool {
        let is_old = |at: Option<Micros>| at.is_none_or(|at| met.now.since(at) >= every);
        let at = |kid: &str| self.0.get(kid).map(|seen| seen.at);
        let begins = met.shown.filter(|_| met.begins);
        let latest = self.0.values().map(|seen| seen.began).max().unwrap_or_default();
        is_old(at(met.given))
            || met.shown.is_some_and(|kid| is_old(at(kid)))
            || begins.is_some_and(|kid| {
                self.0
                    .get(kid)
                    .is_none_or(|seen| seen.began < latest || is_old(Some(seen.began)))
            })
    }

    /// Notes an answer; keys that are no longer `listed` are forgotten.
    pub fn note(&mut self, met: &Met<'_>, listed: &[String]) {
        for kid in met.shown.into_iter().chain([met.given]) {
            let seen = self.0.entry(kid.to_owned()).or_default();
            seen.at = seen.at.max(met.now);
        }
        if let Some(seen) = met.shown.filter(|_| met.begins).and_then(|kid| self.0.get_mut(kid)) {
            seen.began = seen.began.max(met.now);
        }
        self.0.retain(|kid, _| listed.contains(kid));
    }

    /// Whether tokens that Talkdesk may hold need `kid`: until a later run began with a checkpoint of another key, and `grace`
    /// has passed since the last token was met, as several of Talkdesk's may read one account.
    pub fn need(&self, kid: &str, called: bool, grace: Duration, now: Micros) -> Need {
        if self.0.is_empty() {
            return if called { Need::Unknown } else { Need::No };
        }
        let Some(seen) = self.0.get(kid) else { return Need::No };
        let others = self.0.iter().filter(|(other, _)| *other != kid);
        let replaced = others.map(|(_, other)| other.began).max().unwrap_or_default() > seen.at;
        match replaced && now.since(seen.at) >= grace {
            true => Need::No,
            false => Need::Yes,
        }
    }
}

/// The keys of the processes that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keyring(pub BTreeMap<String, Loaded>);

/// What one process has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// `front`, `worker` or `both`.
    pub role: String,
    /// Key ids; the first one seals.
    pub kids: Vec<String>,
    /// Until when the process is believed to live, if it says no more.
    pub until: Micros,
}

impl Keyring {
    /// Notes a process, and drops those that have fallen silent.
    pub fn note(&mut self, owner: &str, loaded: Loaded, now: Micros) {
        self.0.insert(owner.to_owned(), loaded);
        self.0.retain(|_, loaded| loaded.until > now);
    }

    /// The processes that run at `now`.
    pub fn living(&self, now: Micros) -> impl Iterator<Item = (&String, &Loaded)> {
        self.0.iter().filter(move |(_, loaded)| loaded.until > now)
    }

    /// The key ids that living processes seal with: one, but for the moments in which a change is on its way.
    pub fn sealing(&self, now: Micros) -> BTreeSet<&str> {
        self.living(now)
            .filter_map(|(_, loaded)| loaded.kids.first().map(String::as_str))
            .collect()
    }

    /// The living processes that do not have `kid`.
    pub fn without(&self, kid: &str, now: Micros) -> Vec<&str> {
        let lacks = |loaded: &Loaded| !loaded.kids.iter().any(|has| has == kid);
        let lacking = self.living(now).filter(|(_, loaded)| lacks(loaded));
        lacking.map(|(owner, _)| owner.as_str()).collect()
    }
}

fn keyring_key() -> DocKey {
    DocKey::by_id(DocKind::Keyring, "processes")
}

pub async fn keyring(docs: &(impl Documents + ?Sized)) -> StoreResult<Keyring> {
    Ok(docs::load(docs, &keyring_key()).await?.unwrap_or_default())
}

/// Notes what a process has loaded; returns all of them.
pub async fn report(
    docs: &(impl Documents + ?Sized),
    owner: &str,
    loaded: &Loaded,
    now: Micros,
) -> StoreResult<Keyring> {
    docs::update(docs, &keyring_key(), |known: Option<Keyring>| {
        let mut keyring = known.unwrap_or_default();
        keyring.note(owner, loaded.clone(), now);
        (Change::Put(keyring.clone()), Vec::new(), keyring)
    })
    .await
}

/// The process ends.
pub async fn leave(docs: &(impl Documents + ?Sized), owner: &str) -> StoreResult<()> {
    docs::update(docs, &keyring_key(), |known: Option<Keyring>| {
        let mut keyring = known.unwrap_or_default();
        match keyring.0.remove(owner) {
            Some(_) => (Change::Put(keyring), Vec::new(), ()),
            None => (Change::Keep, Vec::new(), ()),
        }
    })
    .await
}

/// What is sealed with one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Accounts whose credentials are.
    pub credentials: u64,
    /// Secrets of webhooks that the CRM made.
    pub webhook_secrets: u64,
    /// Payloads that wait in inboxes.
    pub payloads: u64,
    /// Payloads in dead letters.
    pub dead_letters: u64,
    /// Accounts of which Talkdesk may hold a token.
    pub tokens: u64,
    /// Accounts of which nobody knows whether it does.
    pub unknown: u64,
}

impl Uses {
    /// Nothing that is stored.
    pub fn nothing_stored(&self) -> bool {
        self.credentials + self.webhook_secrets + self.payloads + self.dead_letters == 0
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.nothing_stored() && self.tokens + self.unknown == 0
    }
}

impl std::fmt::Display for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            (self.credentials, "accounts' credentials"),
            (self.webhook_secrets, "webhook secrets"),
            (self.payloads, "payloads in inboxes"),
            (self.dead_letters, "dead letters"),
            (self.tokens, "accounts of which Talkdesk may hold a token"),
            (
                self.unknown,
                "accounts that have not synchronized since tokens are noted",
            ),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        match parts.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// Subscriptions of a shard that are looked at; more than a store would hold.
const EVERY_SUBSCRIPTION: usize = 10_000_000;
/// Ids that are listed at once.
const LISTED: usize = 500;

/// What each key is used for, of all that is listed and all that is met. Walks over everything.
pub async fn uses(
    docs: &(impl Documents + ?Sized),
    keys: &Keys,
    grace: Duration,
    now: Micros,
) -> StoreResult<BTreeMap<String, Uses>> {
    let listed = keys.kids();
    let mut uses: BTreeMap<String, Uses> = listed.iter().map(|kid| (kid.clone(), Uses::default())).collect();
    let mut of = |kid: &str, count: &dyn Fn(&mut Uses)| count(uses.entry(kid.to_owned()).or_default());
    for id in every(docs, DocKind::Account)
        .await?
        .iter()
        .filter_map(|id| id.parse().ok())
    {
        let Some(account) = accounts::get(docs, &id).await? else {
            continue;
        };
        if !account.credentials.is_none() {
            of(&account.credentials.kid, &|uses| uses.credentials += 1);
        }
        let called = account.called > Micros::ZERO;
        for kid in &listed {
            match account.tokens.need(kid, called, grace, now) {
                Need::No => {}
                Need::Yes => of(kid, &|uses| uses.tokens += 1),
                Need::Unknown => of(kid, &|uses| uses.unknown += 1),
            }
        }
    }
    for id in subscribed(docs).await? {
        let held = subscription::load(docs, &id)
            .await?
            .map(|found| found.held)
            .unwrap_or_default();
        for secret in held.iter().filter_map(|held| held.secret.as_ref()) {
            of(&secret.kid, &|uses| uses.webhook_secrets += 1);
        }
    }
    for (kid, count) in inbox::kids(docs).await? {
        of(&kid, &|uses| uses.payloads += count);
    }
    for id in every(docs, DocKind::DeadLetter).await? {
        let letter = dead::get(docs, &crate::ids::JobId(id)).await?;
        if let Some(payload) = letter.and_then(|letter| letter.payload) {
            of(payload.kid(), &|uses| uses.dead_letters += 1);
        }
    }
    Ok(uses)
}

/// What was sealed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    pub credentials: u64,
    pub webhook_secrets: u64,
    pub payloads: u64,
    pub dead_letters: u64,
}

impl Resealed {
    pub fn count(&self) -> u64 {
        self.credentials + self.webhook_secrets + self.payloads + self.dead_letters
    }

    pub fn add(&mut self, other: Resealed) {
        self.credentials += other.credentials;
        self.webhook_secrets += other.webhook_secrets;
        self.payloads += other.payloads;
        self.dead_letters += other.dead_letters;
    }
}

impl std::fmt::Display for Resealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} accounts' credentials, {} webhook secrets, {} payloads, {} dead letters",
            self.credentials, self.webhook_secrets, self.payloads, self.dead_letters
        )
    }
}

/// Seals what is stored of one account beside its inbox with the key `to`, while it seals: once another key file is taken on, what
/// was decided by the old one ends.
pub async fn reseal_account(
    docs: &(impl Documents + ?Sized),
    keys: &Keys,
    to: &str,
    id: &AccountId,
) -> StoreResult<Resealed> {
    Ok(Resealed {
        credentials: u64::from(accounts::reseal(docs, keys, to, id).await?),
        webhook_secrets: subscription::reseal(docs, keys, to, id).await?,
        ..Resealed::default()
    })
}

/// Seals all payloads, waiting and dead, with the key `to`, while it seals.
pub async fn reseal_payloads(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str) -> StoreResult<Resealed> {
    let mut dead_letters = 0;
    for id in every(docs, DocKind::DeadLetter).await? {
        dead_letters += u64::from(dead::reseal(docs, keys, to, &crate::ids::JobId(id)).await?);
    }
    Ok(Resealed {
        payloads: inbox::reseal(docs, keys, to).await?,
        dead_letters,
        ..Resealed::default()
    })
}

/// Seals everything that is stored with the key `to`, while it seals. Broken off, it goes on where it stopped: what is sealed anew is
/// passed over.
pub async fn reseal(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str) -> StoreResult<Resealed> {
    let mut all = Resealed::default();
    for id in every(docs, DocKind::Account)
        .await?
        .iter()
        .filter_map(|id| id.parse().ok())
    {
        all.add(reseal_account(docs, keys, to, &id).await?);
    }
    all.add(reseal_payloads(docs, keys, to).await?);
    Ok(all)
}

async fn subscribed(docs: &(impl Documents + ?Sized)) -> StoreResult<Vec<AccountId>> {
    let until = Micros(u64::MAX >> 1);
    let members = docs
        .index_until(subscription::SUBSCRIBE, until, EVERY_SUBSCRIPTION)
        .await?;
    Ok(members.iter().filter_map(|(id, _)| id.parse().ok()).collect())
}

async fn every(docs: &(impl Documents + ?Sized), kind: DocKind) -> StoreResult<Vec<String>> {
    let mut ids = Vec::new();
    for shard in Shard::all() {
        let mut after: Option<String> = None;
        loop {
            let mut page = docs.list(kind, shard, after.as_deref(), LISTED).await?;
            let is_last = page.len() < LISTED;
            after = page.last().cloned();
            ids.append(&mut page);
            if is_last {
                break;
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(100);
    const EVERY: Duration = Duration::from_secs(10);

    proptest! {
        /// Talkdesk keeps the last checkpoint it was given, or, where it lost an answer, the one it showed; runs begin with
        /// it, and more than `GRACE` passes before a key goes that any token may be sealed with.
        #[test]
        fn a_key_is_needed_for_as_long_as_talkdesk_holds_a_checkpoint_of_it(
            calls in prop::collection::vec((0..60u64, prop::bool::weighted(0.3), prop::bool::ANY), 1..40),
        ) {
            let listed = ["a".to_owned(), "b".to_owned()];
            let mut tokens = TokenKeys::default();
            let (mut now, mut rotated) = (Micros::from_secs(1_000), false);
            let mut holds: Option<&str> = None;
            for (pause, rotates, kept) in calls {
                now = now.plus(Duration::from_secs(pause));
                rotated |= rotates;
                let given = if rotated { "b" } else { "a" };
                let met = Met { shown: holds, begins: holds.is_some(), given, now };
                if tokens.is_news(&met, EVERY) {
                    tokens.note(&met, &listed);
                }
                if kept {
                    holds = Some(given);
                }
                for later in [now, now.plus(GRACE), now.plus(GRACE * 1000)] {
                    if let Some(held) = holds {
                        prop_assert_eq!(tokens.need(held, true, GRACE, later), Need::Yes, "{:?}", tokens);
                    }
                }
            }
            // Once it has begun two runs with a checkpoint of the new key, the old one goes, after the grace.
            for _ in 0..2 {
                now = now.plus(EVERY);
                tokens.note(&Met { shown: Some("b"), begins: true, given: "b", now }, &listed);
            }
            prop_assert_eq!(tokens.need("a", true, GRACE, now.plus(GRACE)), Need::No);
            prop_assert_eq!(tokens.need("b", true, GRACE, now.plus(GRACE)), Need::Yes);
        }
    }

    #[test]
    fn notes_are_written_when_they_say_something_new() {
        let listed = ["b".to_owned()];
        let at = |secs: u64| Micros::from_secs(1_000 + secs);
        let met = |shown, given, begins, now| Met {
            shown,
            begins,
            given,
            now,
        };
        let mut tokens = TokenKeys::default();
        assert_eq!(tokens.need("a", false, GRACE, at(0)), Need::No, "nobody has called");
        assert_eq!(tokens.need("a", true, GRACE, at(0)), Need::Unknown);
        let first = met(None, "a", false, at(0));
        assert!(tokens.is_news(&first, EVERY));
        tokens.note(&first, &["a".to_owned()]);
        assert!(!tokens.is_news(&met(Some("a"), "a", false, at(5)), EVERY));
        assert!(tokens.is_news(&met(Some("a"), "a", true, at(5)), EVERY), "a run begins");
        assert!(tokens.is_news(&met(Some("a"), "b", false, at(5)), EVERY), "another key");
        assert!(
            tokens.is_news(&met(Some("a"), "a", false, at(10)), EVERY),
            "an old note"
        );
        tokens.note(&met(Some("a"), "b", true, at(5)), &listed);
        assert_eq!(
            tokens.need("a", true, GRACE, at(5)),
            Need::No,
            "it is not listed any more"
        );
    }

    #[test]
    fn the_keyring_knows_who_lacks_a_key_and_forgets_who_fell_silent() {
        let now = Micros::from_secs(1_000);
        let loaded = |kids: &[&str], until| Loaded {
            role: "front".into(),
            kids: kids.iter().map(|kid| (*kid).to_owned()).collect(),
            until,
        };
        let later = now.plus(EVERY);
        let mut keyring = Keyring::default();
        keyring.note("gone", loaded(&["a"], now), now.minus(EVERY));
        keyring.note("one", loaded(&["a", "b"], later), now.minus(EVERY));
        assert_eq!(keyring.living(now).count(), 1);
        keyring.note("two", loaded(&["a"], later), now);
        assert_eq!(keyring.0.len(), 2);
        assert_eq!(keyring.without("b", now), ["two"]);
        assert_eq!(keyring.sealing(now), BTreeSet::from(["a"]));
        keyring.note("two", loaded(&["b", "a"], later), now);
        assert_eq!(keyring.sealing(now).len(), 2);
    }
}
