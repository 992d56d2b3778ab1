//! The account document: who it is, its sealed credentials, and what its check learned.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::AccountId;
use crate::keys::{Fingerprint, Keys, Purpose, SealError};
use crate::ports::{DocKey, DocKind, Documents, Scratch, StoreResult};
use crate::rotation::{self, TokenKeys};
use crate::time::Micros;

/// One customer's CRM principal behind an integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    pub integration: String,
    pub connector: String,
    /// The key its budget is kept under ([`Keys::budget_scope`]).
    pub budget: String,
    /// The key of the budget of its user's calls ([`Keys::user_budget_scope`]).
    #[serde(default)]
    pub user_budget: Option<String>,
    /// A dealer of a linking integration, by its name in the settings; `None`: an account that Talkdesk calls for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dealer: Option<String>,
    pub created: Micros,
    /// The newest credentials that the CRM accepted.
    pub credentials: Sealed,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// What the check learned (instance URL, ids). Not secret.
    pub learned: BTreeMap<String, serde_json::Value>,
    /// The name that app-level webhooks use for it.
    #[serde(default)]
    pub route: Option<String>,
    /// The last call of Talkdesk.
    pub called: Micros,
    /// When the CRM last accepted the credentials.
    pub verified: Micros,
    /// The sealing keys of the tokens that Talkdesk may hold.
    #[serde(default)]
    pub tokens: TokenKeys,
}

/// A sealed map of credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub kid: String,
    /// Base64 of nonce and ciphertext.
    pub data: String,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Sealed {
    /// What stands where credentials were wiped; it opens for nobody.
    pub fn none() -> Sealed {
        Sealed {
            kid: String::new(),
            data: String::new(),
        }
    }

    pub fn is_none(&self) -> bool {
        self.data.is_empty()
    }

    pub fn seal(keys: &Keys, account: &AccountId, fields: &BTreeMap<String, String>) -> Sealed {
        // A map of strings has no way to fail.
        let plain = serde_json::to_vec(fields).unwrap_or_default();
        let (kid, sealed) = keys.seal(Purpose::Credentials, account.as_str(), &plain);
        Sealed {
            kid,
            data: BASE64.encode(&sealed),
        }
    }

    pub fn open(&self, keys: &Keys, account: &AccountId) -> Result<BTreeMap<String, String>, SealError> {
        let sealed = BASE64.decode(self.data.as_bytes()).map_err(|_| SealError::Forged)?;
        let plain = keys.open(Purpose::Credentials, account.as_str(), &self.kid, &sealed)?;
        serde_json::from_slice(&plain).map_err(|_| SealError::Forged)
    }
}

/// What registering did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    pub new: bool,
    /// The stored credentials were replaced by these.
    pub changed: bool,
}

/// Stores an account whose credentials the CRM has just accepted. Keeps what a known one has had before.
pub async fn register(docs: &(impl Documents + ?Sized), account: &Account) -> StoreResult<Registered> {
    let key = DocKey::of_account(DocKind::Account, &account.id);
    let registered = docs::update(docs, &key, |known: Option<Account>| {
        let new = known.is_none();
        let changed = known
            .as_ref()
            .is_none_or(|known| known.fingerprint != account.fingerprint);
        let (created, tokens) = known.map_or_else(
            || (account.created, account.tokens.clone()),
            |known| (known.created, known.tokens),
        );
        let put = Account {
            created,
            tokens,
            ..account.clone()
        };
        (Change::Put(put), Vec::new(), Registered { new, changed })
    })
    .await?;
    put_route(docs, account).await?;
    Ok(registered)
}

async fn put_route(docs: &(impl Documents + ?Sized), account: &Account) -> StoreResult<()> {
    let Some(route) = &account.route else { return Ok(()) };
    let key = DocKey::by_id(DocKind::Route, route_id(&account.integration, route));
    docs::update(docs, &key, |accounts: Option<Vec<AccountId>>| {
        let mut accounts = accounts.unwrap_or_default();
        if accounts.contains(&account.id) {
            return (Change::Keep, Vec::new(), ());
        }
        accounts.push(account.id.clone());
        (Change::Put(accounts), Vec::new(), ())
    })
    .await
}

/// Stores an account as another store knew it. Of the two, the one whose credentials the CRM accepted later stays. Its
/// fingerprint is not remembered, so Talkdesk's next call is put to the CRM. `false`: the account was known here.
pub async fn bring(docs: &(impl Documents + ?Sized), account: &Account) -> StoreResult<bool> {
    let key = DocKey::of_account(DocKind::Account, &account.id);
    let (new, kept) = docs::update(docs, &key, |known: Option<Account>| {
        let new = known.is_none();
        let kept = match known {
            Some(known) => merged(known, account.clone()),
            None => account.clone(),
        };
        (Change::Put(kept.clone()), Vec::new(), (new, kept))
    })
    .await?;
    put_route(docs, &kept).await?;
    Ok(new)
}

/// One account as two stores know it.
pub(crate) fn merged(one: Account, other: Account) -> Account {
    let (created, called) = (one.created.min(other.created), one.called.max(other.called));
    let newer = match (one.credentials.is_none(), other.credentials.is_none()) {
        (true, false) => other,
        (false, true) => one,
        _ if other.verified > one.verified => other,
        _ => one,
    };
    Account {
        created,
        called,
        ..newer
    }
}

pub async fn get(docs: &(impl Documents + ?Sized), id: &AccountId) -> StoreResult<Option<Account>> {
    docs::load(docs, &DocKey::of_account(DocKind::Account, id)).await
}

/// Forgets an account: the document with its credentials, its route, and what is remembered of its fingerprint. Its work,
/// runs and snapshots are the caller's. `None`: it was not there.
pub async fn forget<S: Documents + Scratch + ?Sized>(store: &S, id: &AccountId) -> StoreResult<Option<Account>> {
    let key = DocKey::of_account(DocKind::Account, id);
    let gone = docs::update(store, &key, |known: Option<Account>| match known {
        Some(known) => (Change::<Account>::Delete, Vec::new(), Some(known)),
        None => (Change::Keep, Vec::new(), None),
    })
    .await?;
    let Some(account) = gone else { return Ok(None) };
    if let Some(route) = &account.route {
        let key = DocKey::by_id(DocKind::Route, route_id(&account.integration, route));
        docs::update(store, &key, |accounts: Option<Vec<AccountId>>| {
            let mut accounts = accounts.unwrap_or_default();
            accounts.retain(|other| other != id);
            let change = match accounts.is_empty() {
                true => Change::Delete,
                false => Change::Put(accounts),
            };
            (change, Vec::new(), ())
        })
        .await?;
    }
    store.delete(&fingerprint_key(&account.fingerprint)).await?;
    store.delete(&refusal_key(&account.fingerprint)).await?;
    Ok(Some(account))
}

/// Takes the credentials of an account away, and what is remembered of their fingerprint, if `still` says so of the account as it is
/// now. `false`: it did not, or there were none.
pub async fn wipe<S: Documents + Scratch + ?Sized>(
    store: &S,
    account: &Account,
    still: impl Fn(&Account) -> bool,
) -> StoreResult<bool> {
    let key = DocKey::of_account(DocKind::Account, &account.id);
    let wiped = docs::update(store, &key, |known: Option<Account>| match known {
        Some(known) if !known.credentials.is_none() && still(&known) => {
            let old = known.fingerprint.clone();
            let put = Account {
                credentials: Sealed::none(),
                // No credentials have this one.
                fingerprint: Fingerprint(String::new()),
                ..known
            };
            (Change::Put(put), Vec::new(), Some(old))
        }
        _ => (Change::Keep, Vec::new(), None),
    })
    .await?;
    let Some(fingerprint) = wiped else { return Ok(false) };
    store.delete(&fingerprint_key(&fingerprint)).await?;
    store.delete(&refusal_key(&fingerprint)).await?;
    Ok(true)
}

/// An account that was added by hand has not been called for by Talkdesk.
pub async fn uncalled(docs: &(impl Documents + ?Sized), id: &AccountId) -> StoreResult<()> {
    let key = DocKey::of_account(DocKind::Account, id);
    docs::update(docs, &key, |known: Option<Account>| match known {
        Some(known) if known.called > Micros::ZERO => {
            let put = Account {
                called: Micros::ZERO,
                ..known
            };
            (Change::Put(put), Vec::new(), ())
        }
        _ => (Change::Keep, Vec::new(), ()),
    })
    .await
}

/// Notes a call of Talkdesk, or that the CRM accepted the credentials; skipped when the last note is younger than
/// `at_most_every`, because the figures need no more.
pub async fn touch(
    docs: &(impl Documents + ?Sized),
    account: &Account,
    called: Option<Micros>,
    verified: Option<Micros>,
    at_most_every: Duration,
) -> StoreResult<()> {
    let old = |known: Micros, new: Option<Micros>| new.is_some_and(|new| new.since(known) >= at_most_every);
    if !old(account.called, called) && !old(account.verified, verified) {
        return Ok(());
    }
    let key = DocKey::of_account(DocKind::Account, &account.id);
    docs::update(docs, &key, |known: Option<Account>| match known {
        Some(mut known) => {
            known.called = known.called.max(called.unwrap_or_default());
            known.verified = known.verified.max(verified.unwrap_or_default());
            (Change::Put(known), Vec::new(), ())
        }
        None => (Change::Keep, Vec::new(), ()),
    })
    .await
}

/// Notes which keys sealed the tokens that Talkdesk has just shown and been given, if that says anything new.
pub async fn note_tokens(
    docs: &(impl Documents + ?Sized),
    account: &Account,
    met: &rotation::Met<'_>,
    listed: &[String],
    at_most_every: Duration,
) -> StoreResult<()> {
    if !account.tokens.is_news(met, at_most_every) {
        return Ok(());
    }
    let key = DocKey::of_account(DocKind::Account, &account.id);
    docs::update(docs, &key, |known: Option<Account>| match known {
        Some(mut known) => {
            known.tokens.note(met, listed);
            (Change::Put(known), Vec::new(), ())
        }
        None => (Change::Keep, Vec::new(), ()),
    })
    .await
}

/// Seals the credentials with the key `to`, while it seals. `false`: it does not, they are sealed with it already, there are none, or no key
/// opens them.
pub async fn reseal(docs: &(impl Documents + ?Sized), keys: &Keys, to: &str, id: &AccountId) -> StoreResult<bool> {
    let key = DocKey::of_account(DocKind::Account, id);
    docs::update(docs, &key, |known: Option<Account>| match known {
        Some(mut known) if !known.credentials.is_none() && keys.is_old(to, &known.credentials.kid) => {
            match known.credentials.open(keys, id) {
                Ok(fields) => {
                    known.credentials = Sealed::seal(keys, id, &fields);
                    (Change::Put(known), Vec::new(), true)
                }
                Err(_) => (Change::Keep, Vec::new(), false),
            }
        }
        _ => (Change::Keep, Vec::new(), false),
    })
    .await
}

/// The accounts that an app-level webhook means by `route`.
pub async fn by_route(docs: &(impl Documents + ?Sized), integration: &str, route: &str) -> StoreResult<Vec<AccountId>> {
    let key = DocKey::by_id(DocKind::Route, route_id(integration, route));
    Ok(docs::load(docs, &key).await?.unwrap_or_default())
}

/// How long a fingerprint is remembered after the CRM last accepted its credentials.
const FINGERPRINT_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is known of a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub account: AccountId,
    /// When the CRM last accepted these credentials.
    pub verified: Micros,
    /// The whole fingerprint, compared in constant time after the look-up.
    fingerprint: Fingerprint,
}

/// The account of credentials, if the CRM has accepted them before and has not refused them since.
pub async fn by_fingerprint(
    scratch: &(impl Scratch + ?Sized),
    fingerprint: &Fingerprint,
    now: Micros,
) -> StoreResult<Option<Known>> {
    let Some(value) = scratch.get(&fingerprint_key(fingerprint), now).await? else {
        return Ok(None);
    };
    let known: Option<Known> = serde_json::from_slice(&value).ok();
    Ok(known.filter(|known| known.fingerprint.matches(fingerprint)))
}

/// The CRM accepted these credentials at `now`. Of an acceptance and a refusal the later one counts, whichever is written
/// first (invariant 11): a slice notes the success of a call that was sent before another one was refused.
pub async fn accept(
    scratch: &(impl Scratch + ?Sized),
    fingerprint: &Fingerprint,
    account: &AccountId,
    now: Micros,
) -> StoreResult<()> {
    match refusal(scratch, fingerprint, now).await? {
        Some(refusal) if refusal.at > now => return Ok(()),
        Some(_) => scratch.delete(&refusal_key(fingerprint)).await?,
        None => {}
    }
    let known = Known {
        account: account.clone(),
        verified: now,
        fingerprint: fingerprint.clone(),
    };
    let value = serde_json::to_vec(&known).unwrap_or_default();
    scratch
        .put(&fingerprint_key(fingerprint), &value, FINGERPRINT_LIFE, now)
        .await
}

/// The CRM has just refused these credentials (invariant 11).
pub async fn reject(scratch: &(impl Scratch + ?Sized), fingerprint: &Fingerprint) -> StoreResult<()> {
    scratch.delete(&fingerprint_key(fingerprint)).await
}

/// How long a refusal of credentials that an account has had is remembered.
pub const REFUSAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The CRM has refused these credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub at: Micros,
    /// The account that they opened until then; `None`: they never opened any.
    pub account: Option<AccountId>,
    fingerprint: Fingerprint,
}

/// Rejects credentials and remembers that for `life`, so that the same ones again cost no call.
pub async fn refuse(
    scratch: &(impl Scratch + ?Sized),
    fingerprint: &Fingerprint,
    account: Option<&AccountId>,
    life: Duration,
    now: Micros,
) -> StoreResult<()> {
    reject(scratch, fingerprint).await?;
    if life.is_zero() {
        return Ok(());
    }
    let refusal = Refusal {
        at: now,
        account: account.cloned(),
        fingerprint: fingerprint.clone(),
    };
    let value = serde_json::to_vec(&refusal).unwrap_or_default();
    scratch.put(&refusal_key(fingerprint), &value, life, now).await
}

/// What is remembered of the last refusal of these credentials, unless the CRM has accepted them since.
pub async fn refusal(
    scratch: &(impl Scratch + ?Sized),
    fingerprint: &Fingerprint,
    now: Micros,
) -> StoreResult<Option<Refusal>> {
    let Some(value) = scratch.get(&refusal_key(fingerprint), now).await? else {
        return Ok(None);
    };
    let refusal: Option<Refusal> = serde_json::from_slice(&value).ok();
    Ok(refusal.filter(|refusal| refusal.fingerprint.matches(fingerprint)))
}

fn fingerprint_key(fingerprint: &Fingerprint) -> String {
    format!("fingerprint|{}", fingerprint.0)
}

fn refusal_key(fingerprint: &Fingerprint) -> String {
    format!("refused|{}", fingerprint.0)
}

fn route_id(integration: &str, route: &str) -> String {
    format!("{integration}|{route}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Identity, test_keys};

    #[test]
    fn invariant_12_credentials_open_for_their_account_only_and_debug_hides_them() {
        let keys = test_keys(1);
        let id = |org| {
            keys.account_id(&Identity {
                integration: "demo",
                site: "",
                org,
                principal: "",
            })
        };
        let (mine, yours) = (id("a"), id("b"));
        let fields = BTreeMap::from([("token".to_owned(), "canary-4711".to_owned())]);
        let sealed = Sealed::seal(&keys, &mine, &fields);
        assert_eq!(sealed.open(&keys, &mine), Ok(fields));
        assert_eq!(sealed.open(&keys, &yours), Err(SealError::Forged));
        let stored = serde_json::to_string(&sealed).unwrap();
        assert!(!stored.contains("canary") && !stored.contains(&BASE64.encode(b"canary-4711")));
        assert!(!format!("{sealed:?}").contains(&sealed.data));
    }
}
