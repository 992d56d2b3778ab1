//! What of an installation is carried to another store: what neither Talkdesk's next call nor a pass over the CRM would bring
//! back. Accounts with their sealed credentials and the webhooks that they asked for, operators' pauses, erasures, the audit. Snapshots, work, budgets and
//! fingerprints are not: they are made anew.

use serde::{Deserialize, Serialize};

use crate::accounts::{self, Account};
use crate::audit;
use crate::erased::{self, Erased};
use crate::holds::{self, Holds, Scope};
use crate::ids::{AccountId, Shard};
use crate::ports::{DocKind, Documents, StoreResult};
use crate::subscription::{self, Held};
use crate::time::Micros;
use crate::work::{self, Pause, WorkTimes};

/// Of the form below. A reader takes no later one.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub snapbridge_export: u32,
    /// [`crate::keys::Keys::installation`]: only with the same key file the rest means anything.
    pub installation: String,
    pub at: Micros,
}

/// Every further line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case", deny_unknown_fields)]
pub enum Item {
    Account {
        account: Box<Account>,
        #[serde(default)]
        pause: Option<Pause>,
        #[serde(default)]
        suspended: Option<Micros>,
        /// Webhooks that the bridge asked for: some CRMs tell a secret only once.
        #[serde(default)]
        webhooks: Vec<Held>,
    },
    /// Erasures outlive their account.
    Erased {
        account: AccountId,
        erased: Erased,
    },
    /// Pauses of connectors and lanes.
    Holds {
        holds: Holds,
    },
    Audit {
        entries: Vec<audit::Entry>,
    },
}

/// How many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub accounts: u64,
    /// Of them, those that stand still by a pause or because Talkdesk no longer called.
    pub standing: u64,
    /// Accounts with erasures.
    pub erasures: u64,
    pub holds: u64,
    pub audit: u64,
}

impl Counts {
    pub fn count(&mut self, item: &Item) {
        match item {
            Item::Account { pause, suspended, .. } => {
                self.accounts += 1;
                self.standing += u64::from(pause.is_some() || suspended.is_some());
            }
            Item::Erased { .. } => self.erasures += 1,
            Item::Holds { holds } => self.holds += (holds.connectors.len() + holds.lanes.len()) as u64,
            Item::Audit { entries } => self.audit += entries.len() as u64,
        }
    }
}

/// Ids of the accounts that have a document of this kind.
pub async fn accounts_of(docs: &(impl Documents + ?Sized), kind: DocKind) -> StoreResult<Vec<AccountId>> {
    const PAGE: usize = 500;
    let mut found = Vec::new();
    for shard in Shard::all() {
        let mut after: Option<String> = None;
        loop {
            let page = docs.list(kind, shard, after.as_deref(), PAGE).await?;
            found.extend(page.iter().filter_map(|id| id.parse().ok()));
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.clone()),
                _ => break,
            }
        }
    }
    Ok(found)
}

/// An account as it is carried. `None`: it has gone.
pub async fn account(docs: &(impl Documents + ?Sized), id: &AccountId) -> StoreResult<Option<Item>> {
    let Some(account) = accounts::get(docs, id).await? else {
        return Ok(None);
    };
    let work = work::load(docs, id).await?;
    Ok(Some(Item::Account {
        account: Box::new(account),
        pause: work.pause,
        suspended: work.suspended,
        webhooks: subscription::load(docs, id).await?.unwrap_or_default().held,
    }))
}

/// Everything beside the accounts.
pub async fn others(docs: &(impl Documents + ?Sized)) -> StoreResult<Vec<Item>> {
    let mut items = Vec::new();
    for account in accounts_of(docs, DocKind::Erased).await? {
        let erased = erased::load(docs, &account).await?;
        items.push(Item::Erased { account, erased });
    }
    let holds = holds::load(docs).await?;
    if !holds.is_empty() {
        items.push(Item::Holds { holds });
    }
    let mut entries = audit::list(docs).await?;
    entries.reverse();
    if !entries.is_empty() {
        items.push(Item::Audit { entries });
    }
    Ok(items)
}

/// What is to be asked for after an item was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// The account is there, and its snapshot is to be built.
    Build(AccountId),
}

/// Takes an item in. May be repeated, and beside processes that already run: what is known here and newer stays.
pub async fn bring(
    docs: &(impl Documents + ?Sized),
    item: &Item,
    times: &WorkTimes,
    keep_audit: usize,
    now: Micros,
) -> StoreResult<Then> {
    match item {
        Item::Account {
            account,
            pause,
            suspended,
            webhooks,
        } => {
            let new = accounts::bring(docs, account).await?;
            work::update(docs, &account.id, times, |work| {
                if let Some(pause) = pause {
                    work.pause(pause.by.clone(), pause.since);
                }
                // Of one that is known here, Talkdesk's last call has said whether it goes on.
                if let (true, Some(since)) = (new, suspended) {
                    work.suspend(*since);
                }
            })
            .await?;
            if !webhooks.is_empty() {
                subscription::bring(docs, &account.id, webhooks, now).await?;
            }
            Ok(Then::Build(account.id.clone()))
        }
        Item::Erased { account, erased } => {
            erased::bring(docs, account, erased).await?;
            Ok(Then::Nothing)
        }
        Item::Holds { holds } => {
            let scopes = scopes(holds);
            holds::update(docs, |known| {
                let mut changed = false;
                for (scope, pause) in &scopes {
                    changed |= known.pause(scope, pause.by.clone(), pause.since);
                }
                changed
            })
            .await?;
            Ok(Then::Nothing)
        }
        Item::Audit { entries } => {
            audit::bring(docs, entries, keep_audit).await?;
            Ok(Then::Nothing)
        }
    }
}

fn scopes(holds: &Holds) -> Vec<(Scope, Pause)> {
    let connectors = holds.connectors.iter();
    let connectors = connectors.map(|(name, pause)| (Scope::Connector(name.clone()), pause.clone()));
    let lanes = holds
        .lanes
        .iter()
        .map(|(lane, pause)| (Scope::Lane(*lane), pause.clone()));
    connectors.chain(lanes).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::accounts::Sealed;
    use crate::keys::Fingerprint;

    fn account(verified: u64, called: u64, created: u64, wiped: bool) -> Account {
        let sealed = Sealed {
            kid: "k".into(),
            data: format!("sealed at {verified}"),
        };
        Account {
            id: "abcdefghijklmnopqrstuvwx23".parse().unwrap(),
            integration: "demo".into(),
            connector: "demo".into(),
            budget: "b".into(),
            user_budget: None,
            dealer: None,
            tokens: Default::default(),
            created: Micros::from_secs(created),
            credentials: if wiped { Sealed::none() } else { sealed },
            fingerprint: Fingerprint(format!("f{verified}")),
            learned: BTreeMap::new(),
            route: None,
            called: Micros::from_secs(called),
            verified: Micros::from_secs(verified),
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_nothing_else_is() {
        let pause = Pause {
            since: Micros::from_secs(5),
            by: "Ann".into(),
        };
        let mut holds = Holds::default();
        holds.pause(&Scope::Connector("demo".into()), "Ben".into(), Micros::from_secs(6));
        let items = [
            Item::Account {
                account: Box::new(account(3, 4, 1, false)),
                pause: Some(pause),
                suspended: Some(Micros::from_secs(9)),
                webhooks: Vec::new(),
            },
            Item::Holds { holds },
            Item::Audit { entries: Vec::new() },
        ];
        for item in items {
            let line = serde_json::to_string(&item).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Item>(&line).unwrap(), item);
        }
        for wrong in [
            r#"{"item":"account"}"#,
            r#"{"item":"holds","holds":{},"more":1}"#,
            r#"{"item":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Item>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// Whichever is brought to which: the newest accepted credentials stay, and no call of Talkdesk is forgotten.
        #[test]
        fn of_two_accounts_the_newest_credentials_stay(
            one in (1..50u64, 0..50u64, 0..50u64, any::<bool>()), other in (1..50u64, 0..50u64, 0..50u64, any::<bool>()),
        ) {
            let [one, other] = [one, other].map(|(verified, called, created, wiped)| account(verified, called, created, wiped));
            let both = [&one, &other];
            for (known, brought) in [(&one, &other), (&other, &one)] {
                let merged = crate::accounts::merged(known.clone(), brought.clone());
                prop_assert_eq!(merged.called, one.called.max(other.called));
                prop_assert_eq!(merged.created, one.created.min(other.created));
                let usable: Vec<&&Account> = both.iter().filter(|account| !account.credentials.is_none()).collect();
                let newest = usable.iter().map(|account| account.verified).max();
                prop_assert_eq!(merged.credentials.is_none(), usable.is_empty());
                if let Some(newest) = newest {
                    prop_assert_eq!(merged.verified, newest);
                    prop_assert!(usable.iter().any(|account| account.fingerprint == merged.fingerprint
                        && account.credentials == merged.credentials));
                }
            }
        }
    }
}
