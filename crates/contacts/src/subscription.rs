//! The webhook that the bridge asks an account's CRM for by itself: what is there, what is wanted, and what is done next.
//! One document per account; the worker finds it through the index [`SUBSCRIBE`].
//!
//! The CRM's own list comes first, always: [`plan`] compares it with what is held and says what to do. So an answer that was
//! lost, a store that was lost, or two workers at once never lead to a second subscription that stays, and what somebody else
//! made is left alone: only what delivers to the account's own URL, which nobody can guess, is ever ended.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::accounts::Sealed;
use crate::docs::{self, Change};
use crate::ids::AccountId;
use crate::keys::{Keys, Purpose, SealError};
use crate::outcome::{ErrorKind, RetryPolicy};
use crate::ports::{DocKey, DocKind, Documents, IndexChange, StoreResult};
use crate::time::Micros;
use crate::work::Failure;

/// Index of when the subscription of an account is to be looked at. Members: account ids.
pub const SUBSCRIBE: &str = "subscribe";

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// What the CRM is known to have, one per topic.
    #[serde(default)]
    pub held: Vec<Held>,
    /// Why a person has to set the webhook up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<String>,
    #[serde(default)]
    pub due: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Failed attempts since the last success.
    #[serde(default)]
    pub failed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
}

/// One subscription of the CRM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Empty where one subscription tells of everything.
    #[serde(default)]
    pub topic: String,
    /// The CRM's own id of it.
    pub id: String,
    /// Where it delivers.
    pub url: String,
    /// The secret that the CRM made ([`seal`]); `None`: the account's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Sealed>,
    #[serde(default)]
    pub created: Micros,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Micros>,
}

/// Who is at it. It stands for nothing once its time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub owner: String,
    pub until: Micros,
}

/// What the integration wants of an account's CRM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub url: String,
    /// A subscription for each; a single empty one where there is one for everything.
    pub topics: Vec<String>,
    pub secret: SecretOf,
    /// How long before its end one is renewed; `None`: they do not end.
    pub renew_before: Option<Duration>,
}

/// Where the secret of a delivery's proof comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretOf {
    /// The bridge gives its own.
    Bridge,
    /// The reply to the creation holds it, that reply alone.
    Creation,
    /// It can be asked for at any time.
    Question,
}

/// One row of the CRM's list of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub url: String,
    /// `None`: the CRM does not tell, or there are no topics.
    pub topic: Option<String>,
    pub expires: Option<Micros>,
}

/// One call to the CRM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Delete {
        id: String,
    },
    Renew {
        id: String,
    },
    /// Ask for the secret of one that is there.
    Ask {
        id: String,
    },
    Create {
        topic: String,
    },
}

/// What a look at the CRM's list comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is there and is kept.
    pub held: Vec<Held>,
    /// What is done, in this order. Ends come first: a subscriber may choose the id, and would end what it just made.
    pub steps: Vec<Step>,
}

/// Compares. `wanted`: `None` ends what is held.
pub fn plan(wanted: Option<&Wanted>, held: &[Held], listed: &[Listed], now: Micros) -> Plan {
    let known = |row: &Listed| held.iter().find(|held| held.id == row.id && held.url == row.url);
    let is_ours = |row: &&Listed| wanted.is_some_and(|wanted| wanted.url == row.url) || known(row).is_some();
    let ours: Vec<&Listed> = listed.iter().filter(is_ours).collect();

    let mut plan = Plan::default();
    let (mut renewals, mut questions, mut creations) = (Vec::new(), Vec::new(), Vec::new());
    for topic in wanted.iter().flat_map(|wanted| &wanted.topics) {
        let Some(wanted) = wanted else { continue };
        let fits = |row: &&&Listed| {
            row.url == wanted.url && row.topic.as_ref().is_none_or(|told| told == topic || topic.is_empty())
        };
        let usable = |row: &&&Listed| {
            wanted.secret != SecretOf::Creation || known(row).is_some_and(|held| held.secret.is_some())
        };
        let taken = |row: &&&Listed| plan.held.iter().any(|held| held.id == row.id);
        // Of several the one that is known, so that a look changes nothing that is good.
        let mut candidates: Vec<&&Listed> = ours
            .iter()
            .filter(fits)
            .filter(usable)
            .filter(|row| !taken(row))
            .collect();
        candidates.sort_by_key(|row| known(row).is_none());
        let Some(row) = candidates.first() else {
            creations.push(Step::Create { topic: topic.clone() });
            continue;
        };
        let known = known(row);
        let kept = Held {
            topic: topic.clone(),
            id: row.id.clone(),
            url: row.url.clone(),
            secret: known.and_then(|held| held.secret.clone()),
            created: known.map_or(now, |held| held.created),
            expires: row.expires.or(known.and_then(|held| held.expires)),
        };
        if let Some(before) = wanted.renew_before
            && kept.expires.is_none_or(|at| at <= now.plus(before))
        {
            renewals.push(Step::Renew { id: row.id.clone() });
        }
        if wanted.secret == SecretOf::Question && kept.secret.is_none() {
            questions.push(Step::Ask { id: row.id.clone() });
        }
        plan.held.push(kept);
    }
    let superfluous = ours
        .iter()
        .filter(|row| !plan.held.iter().any(|held| held.id == row.id));
    let ends = superfluous.map(|row| Step::Delete { id: row.id.clone() });
    plan.steps = ends.collect();
    plan.steps
        .extend(renewals.into_iter().chain(questions).chain(creations));
    plan
}

/// How a subscription stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It was not looked at yet.
    Pending,
    Subscribed,
    /// A person sets it up, because of this.
    ByHand(&'a str),
    Failing(&'a Failure),
}

impl Subscription {
    pub fn standing(&self) -> Standing<'_> {
        match (&self.last_error, &self.by_hand) {
            (Some(failure), _) => Standing::Failing(failure),
            (None, Some(why)) => Standing::ByHand(why),
            (None, None) if self.held.is_empty() => Standing::Pending,
            (None, None) => Standing::Subscribed,
        }
    }

    /// Whether what is held, or left to a person, is what is wanted. While somebody is at it, or the last attempt failed, that is
    /// for the look to come.
    pub fn fits(&self, wanted: Option<&Wanted>, by_hand: Option<&str>) -> bool {
        if self.claim.is_some() || self.last_error.is_some() {
            return true;
        }
        let Some(wanted) = wanted else {
            return self.held.is_empty() && self.by_hand.as_deref() == by_hand;
        };
        let topics: BTreeSet<&str> = self.held.iter().map(|held| held.topic.as_str()).collect();
        let is_all = topics
            .iter()
            .copied()
            .eq(wanted.topics.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let is_there = is_all && self.held.iter().all(|held| held.url == wanted.url);
        self.by_hand.is_none() && (self.held.is_empty() || is_there)
    }

    /// Takes it in hand, if it is due and nobody else has it.
    pub fn begin(&mut self, owner: &str, now: Micros, life: Duration) -> bool {
        if self.look_at() > now {
            return false;
        }
        self.claim = Some(Claim {
            owner: owner.to_owned(),
            until: now.plus(life),
        });
        true
    }

    /// Goes on; `false`: somebody else has it by now.
    pub fn go_on(&mut self, owner: &str, now: Micros, life: Duration) -> bool {
        match &mut self.claim {
            Some(claim) if claim.owner == owner => {
                claim.until = now.plus(life);
                true
            }
            _ => false,
        }
    }

    /// Lets go of it until `due`.
    pub fn rest(&mut self, owner: &str, due: Micros) {
        if self.claim.as_ref().is_some_and(|claim| claim.owner == owner) {
            self.claim = None;
            self.due = due;
        }
    }

    /// Everything is as it should be, or a person's business.
    pub fn succeeded(&mut self, by_hand: Option<String>) {
        self.by_hand = by_hand;
        self.failed = 0;
        self.last_error = None;
    }

    /// It could not be brought about; returns when it is tried again.
    pub fn failed(&mut self, kind: ErrorKind, message: String, now: Micros, policy: &RetryPolicy) -> Micros {
        self.failed = self.failed.saturating_add(1);
        let again = again(kind, self.failed, now, policy);
        self.by_hand = None;
        self.last_error = Some(Failure {
            at: now,
            kind: kind.as_str().to_owned(),
            message,
            again: Some(again),
        });
        again
    }

    /// When it must be looked at.
    pub fn look_at(&self) -> Micros {
        self.due
            .max(self.claim.as_ref().map_or(Micros::ZERO, |claim| claim.until))
    }

    /// When it is looked at next if all is well: every `every`, and in time before one ends.
    pub fn next(&self, renew_before: Option<Duration>, every: Duration, now: Micros) -> Micros {
        let ends = self.held.iter().filter_map(|held| held.expires);
        // A CRM that grants less than `renew_before` is not asked all the time: half of what is left may pass.
        let renewals = ends.map(|end| {
            end.minus(renew_before.unwrap_or_default())
                .max(now.plus(end.since(now) / 2))
        });
        renewals.fold(now.plus(every), Micros::min).max(now.plus(SOONEST))
    }
}

/// Two looks that found nothing wrong lie at least this far apart.
const SOONEST: Duration = Duration::from_secs(1);

/// When a failed attempt is followed by the next: a refusal is no reason to give up, as somebody may grant the right.
fn again(kind: ErrorKind, failed: u32, now: Micros, policy: &RetryPolicy) -> Micros {
    let wait = now.plus(policy.wait(failed));
    match kind {
        ErrorKind::Throttled { until } | ErrorKind::Quota { until } | ErrorKind::NoBudget { until } => wait.max(until),
        _ => wait,
    }
}

/// Seals a secret that the CRM made for one subscription of the account. It opens for no other.
pub fn seal(keys: &Keys, account: &AccountId, id: &str, secret: &SecretString) -> Sealed {
    let (kid, sealed) = keys.seal(
        Purpose::Credentials,
        &owner(account, id),
        secret.expose_secret().as_bytes(),
    );
    Sealed {
        kid,
        data: BASE64.encode(&sealed),
    }
}

/// The secret of a held one; `None`: it has none of its own.
pub fn open(keys: &Keys, account: &AccountId, held: &Held) -> Option<Result<SecretString, SealError>> {
    let sealed = held.secret.as_ref()?;
    let open = || {
        let data = BASE64.decode(sealed.data.as_bytes()).map_err(|_| SealError::Forged)?;
        let plain = keys.open(Purpose::Credentials, &owner(account, &held.id), &sealed.kid, &data)?;
        String::from_utf8(plain)
            .map(SecretString::from)
            .map_err(|_| SealError::Forged)
    };
    Some(open())
}

/// Seals the secrets of a subscription with the key `to`, while it seals; returns how many were sealed with another one.
pub async fn reseal(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str, account: &AccountId) -> StoreResult<u64> {
    let resealed = update(docs, account, |subscription| {
        let mut resealed = 0;
        for held in &mut subscription.held {
            if !held.secret.as_ref().is_some_and(|secret| keys.is_old(to, &secret.kid)) {
                continue;
            }
            if let Some(Ok(secret)) = open(keys, account, held) {
                held.secret = Some(seal(keys, account, &held.id, &secret));
                resealed += 1;
            }
        }
        resealed
    });
    Ok(resealed.await?.unwrap_or_default())
}

fn owner(account: &AccountId, id: &str) -> String {
    format!("subscription|{account}|{id}")
}

pub async fn load(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Option<Subscription>> {
    docs::load(docs, &key(account)).await
}

/// Sees to it that the account's subscription is looked at; one that is known keeps its time.
pub async fn expect(docs: &(impl Documents + ?Sized), account: &AccountId, now: Micros) -> StoreResult<()> {
    change(docs, account, |known| match known {
        Some(_) => (None, ()),
        None => {
            let new = Subscription {
                due: now,
                ..Subscription::default()
            };
            (Some(new), ())
        }
    })
    .await
}

/// Takes over what another store held, secrets included, and has it compared with the CRM's list at once. What is known here
/// stays.
pub async fn bring(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    held: &[Held],
    now: Micros,
) -> StoreResult<()> {
    change(docs, account, |known| match known {
        Some(known) if !known.held.is_empty() => (None, ()),
        known => {
            let taken = Subscription {
                held: held.to_vec(),
                due: now,
                ..known.unwrap_or_default()
            };
            (Some(taken), ())
        }
    })
    .await
}

pub async fn forget(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<()> {
    docs::update(docs, &key(account), |_: Option<Subscription>| {
        let index = IndexChange {
            index: SUBSCRIBE.to_owned(),
            member: account.to_string(),
            at: None,
        };
        (Change::<Subscription>::Delete, vec![index], ())
    })
    .await
}

/// Changes a known subscription as one step, index entry included; `None`: there is none. `change` may run several times.
pub async fn update<R>(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    mut decide: impl FnMut(&mut Subscription) -> R,
) -> StoreResult<Option<R>> {
    change(docs, account, |known| match known {
        Some(mut known) => {
            let result = decide(&mut known);
            (Some(known), Some(result))
        }
        None => (None, None),
    })
    .await
}

async fn change<R>(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    mut decide: impl FnMut(Option<Subscription>) -> (Option<Subscription>, R),
) -> StoreResult<R> {
    docs::update(docs, &key(account), |known: Option<Subscription>| {
        let (after, result) = decide(known.clone());
        match after {
            Some(after) if known.as_ref() != Some(&after) => {
                let index = IndexChange {
                    index: SUBSCRIBE.to_owned(),
                    member: account.to_string(),
                    at: Some(after.look_at()),
                };
                (Change::Put(after), vec![index], result)
            }
            _ => (Change::Keep, Vec::new(), result),
        }
    })
    .await
}

fn key(account: &AccountId) -> DocKey {
    DocKey::of_account(DocKind::Subscription, account)
}

#[cfg(test)]
mod tests;
