//! What is known of the records of both systems: who is linked with whom, and why somebody is not. A document for each record, so
//! that linking one costs the same however many there are. Ids only: names and addresses stay in the two systems. Beside
//! them, of each system, what its check told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Applied, Matched, Wrote};
use crate::docs::{self, Change};
use crate::ids::AccountId;
use crate::keys::Fingerprint;
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;

/// Which system a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Dms,
    Web1on1,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Dms => Side::Web1on1,
            Side::Web1on1 => Side::Dms,
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Side::Dms => "the DMS",
            Side::Web1on1 => "Web1on1",
        }
    }

    /// Part of stored keys.
    fn key(self) -> &'static str {
        match self {
            Side::Dms => "d",
            Side::Web1on1 => "w",
        }
    }
}

/// Why a record is linked with nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Trouble {
    /// Nobody in the other system bears its e-mail address or phone number.
    Unmatched,
    /// These may all be meant, of the one system or of the other.
    Ambiguous { ids: Vec<String> },
    /// The one that is meant is linked with this one.
    Taken { by: String },
    /// Its own system does not have it.
    Gone,
}

/// What is known of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The record of the other system that it is linked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// Of a contact of Web1on1: the last event that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// Addresses of ours that it was given, the last ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<String>,
    /// What was written into its fields, and into its place for our link.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wrote: BTreeMap<String, Wrote>,
    /// Keyed: what it could be found by when it was linked with nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sought_by: Option<Fingerprint>,
    /// Records that cannot be linked while this one stands as it does: they are to be looked at again when it changes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub waited_for_by: BTreeSet<(Side, String)>,
    /// When that was found.
    pub at: Micros,
}

/// Records that wait for one and the same: more of them have nothing in common but junk.
const MOST_WAITING: usize = 50;

impl Record {
    /// Nothing is worth to be known of it.
    fn is_empty(&self) -> bool {
        let worth_nothing = Record {
            at: self.at,
            ..Record::default()
        };
        *self == worth_nothing
    }

    /// It has no partner and shows nothing of one; what events told of it stays known.
    pub fn stands_alone(&mut self) {
        self.with = None;
        self.trouble = None;
        self.shown.clear();
        self.sought_by = None;
        self.wrote.clear();
    }

    /// Another record is to be looked at when this one changes.
    pub fn is_waited_for(&mut self, side: Side, id: &str) {
        if self.waited_for_by.len() < MOST_WAITING {
            self.waited_for_by.insert((side, id.to_owned()));
        }
    }
}

impl Trouble {
    /// The records whose change may end the trouble of the record `own` of `side`.
    pub fn awaits(&self, side: Side, own: &str) -> Vec<(Side, String)> {
        match self {
            Trouble::Unmatched | Trouble::Gone => Vec::new(),
            Trouble::Taken { by } => vec![(side, by.clone())],
            Trouble::Ambiguous { ids } => {
                // Rivals are named with the record itself; who else may be meant is of the other system.
                let of = match ids.iter().any(|id| id == own) {
                    true => side,
                    false => side.other(),
                };
                let others = ids.iter().filter(|id| *id != own);
                others.map(|id| (of, id.clone())).collect()
            }
        }
    }
}

/// Whom a record means, given whom it is linked with (`None`: nobody, or one that is gone). A link stays where nothing speaks for
/// another: one whose address was changed in one system only is still the same person.
pub fn resolve(known: Option<&str>, matched: Matched) -> Matched {
    match (known, matched) {
        (Some(known), Matched::Nobody) => Matched::One(known.to_owned()),
        (Some(known), Matched::Many(ids)) if ids.iter().any(|id| id == known) => Matched::One(known.to_owned()),
        (_, matched) => matched,
    }
}

/// Whom else the found one means when it is looked for from its side: all that may be meant, if that is not `own` alone.
pub fn rivals(own: &str, back: Matched) -> Option<Vec<String>> {
    let mut ids = match back {
        // It is not found by what the other side says of it: then nothing speaks for somebody else.
        Matched::Nobody => return None,
        Matched::One(id) if id == own => return None,
        Matched::One(id) => vec![id],
        Matched::Many(ids) => ids,
    };
    if !ids.iter().any(|id| id == own) {
        ids.push(own.to_owned());
        ids.sort();
    }
    Some(ids)
}

pub async fn load(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    side: Side,
    id: &str,
) -> StoreResult<Option<Record>> {
    docs::load(docs, &doc_key(account, side, id)).await
}

/// Changes what is known of a record; one of which nothing is worth to be known any more is forgotten.
pub async fn change(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    (side, id): (Side, &str),
    now: Micros,
    mut change: impl FnMut(&mut Record),
) -> StoreResult<()> {
    docs::update(docs, &doc_key(account, side, id), |known: Option<Record>| {
        let before = known.unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return (Change::Keep, Vec::new(), ());
        }
        after.at = now;
        let what = match after.is_empty() {
            true => Change::Delete,
            false => Change::Put(after),
        };
        (what, Vec::new(), ())
    })
    .await
}

/// Two records are linked with each other.
pub async fn join(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    (dms, web1on1): (&str, &str),
    now: Micros,
) -> StoreResult<()> {
    for (side, id, with) in [(Side::Dms, dms, web1on1), (Side::Web1on1, web1on1, dms)] {
        change(docs, account, (side, id), now, |record| {
            record.with = Some(with.to_owned());
            record.trouble = None;
        })
        .await?;
    }
    Ok(())
}

/// Ids of the known records of one side, in order, after `after`; fewer than `limit`: the end.
pub async fn ids(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    side: Side,
    after: Option<&str>,
    limit: usize,
) -> StoreResult<Vec<String>> {
    let prefix = prefix(account, side);
    let after = format!("{prefix}{}", after.unwrap_or_default());
    let ids = docs.list(DocKind::Link, account.shard(), Some(&after), limit).await?;
    let own = ids.iter().map_while(|id| id.strip_prefix(&prefix));
    Ok(own.map(str::to_owned).collect())
}

/// Forgets all that is known.
pub async fn forget(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<()> {
    const AT_ONCE: usize = 500;
    for side in [Side::Dms, Side::Web1on1] {
        loop {
            let ids = ids(docs, account, side, None, AT_ONCE).await?;
            for id in &ids {
                docs::update(docs, &doc_key(account, side, id), |_: Option<Record>| {
                    (Change::<Record>::Delete, Vec::new(), ())
                })
                .await?;
            }
            if ids.len() < AT_ONCE {
                break;
            }
        }
        docs::update(docs, &checked_key(account, side), |_: Option<Checked>| {
            (Change::<Checked>::Delete, Vec::new(), ())
        })
        .await?;
    }
    docs::update(docs, &seeding_key(account), |_: Option<Seeding>| {
        (Change::<Seeding>::Delete, Vec::new(), ())
    })
    .await
}

/// How the seeding of a dealer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeding {
    /// Stands for how links are written: other links are written anew.
    #[serde(default)]
    pub rules: String,
    #[serde(default)]
    pub began: Option<Micros>,
    /// Records put into the inbox so far.
    #[serde(default)]
    pub seen: u64,
    #[serde(default)]
    pub ended: Option<Micros>,
}

pub async fn seeding(docs: &(impl Documents + ?Sized), account: &AccountId) -> StoreResult<Seeding> {
    Ok(docs::load(docs, &seeding_key(account)).await?.unwrap_or_default())
}

pub async fn change_seeding(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    mut change: impl FnMut(&mut Seeding),
) -> StoreResult<()> {
    docs::update(docs, &seeding_key(account), |known: Option<Seeding>| {
        let mut seeding = known.unwrap_or_default();
        change(&mut seeding);
        (Change::Put(seeding), Vec::new(), ())
    })
    .await
}

/// What a side's check told: whose budgets its calls count against, and what its limits depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    pub account_budget: Option<String>,
    pub user_budget: Option<String>,
    /// Not secret.
    pub learned: BTreeMap<String, serde_json::Value>,
}

/// Nothing, before the side was called.
pub async fn checked(docs: &(impl Documents + ?Sized), account: &AccountId, side: Side) -> StoreResult<Checked> {
    Ok(docs::load(docs, &checked_key(account, side)).await?.unwrap_or_default())
}

pub async fn note_checked(
    docs: &(impl Documents + ?Sized),
    account: &AccountId,
    side: Side,
    checked: &Checked,
) -> StoreResult<()> {
    docs::update(docs, &checked_key(account, side), |known: Option<Checked>| {
        let change = match known.as_ref() == Some(checked) {
            true => Change::Keep,
            false => Change::Put(checked.clone()),
        };
        (change, Vec::new(), ())
    })
    .await
}

fn prefix(account: &AccountId, side: Side) -> String {
    format!("{account}|{}|", side.key())
}

fn doc_key(account: &AccountId, side: Side, id: &str) -> DocKey {
    DocKey {
        kind: DocKind::Link,
        shard: account.shard(),
        id: format!("{}{id}", prefix(account, side)),
    }
}

fn seeding_key(account: &AccountId) -> DocKey {
    DocKey {
        kind: DocKind::Link,
        shard: account.shard(),
        id: format!("{account}|seeding"),
    }
}

fn checked_key(account: &AccountId, side: Side) -> DocKey {
    DocKey {
        kind: DocKind::Link,
        shard: account.shard(),
        id: format!("{account}|checked|{}", side.key()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_matched() -> impl Strategy<Value = Matched> {
        prop::collection::btree_set("[a-d]", 0..4).prop_map(|ids| {
            let mut ids: Vec<String> = ids.into_iter().collect();
            match ids.len() {
                0 => Matched::Nobody,
                1 => Matched::One(ids.remove(0)),
                _ => Matched::Many(ids),
            }
        })
    }

    #[test]
    fn who_stands_against_a_link_is_waited_for() {
        let ids = |ids: &[&str]| Trouble::Ambiguous {
            ids: ids.iter().map(ToString::to_string).collect(),
        };
        let taken = Trouble::Taken { by: "e".into() };
        let awaits = |trouble: &Trouble| trouble.awaits(Side::Dms, "d");
        assert_eq!(awaits(&taken), [(Side::Dms, "e".into())]);
        assert_eq!(awaits(&ids(&["d", "e"])), [(Side::Dms, "e".into())]);
        assert_eq!(
            awaits(&ids(&["a", "b"])),
            [(Side::Web1on1, "a".into()), (Side::Web1on1, "b".into())]
        );
        assert_eq!(awaits(&Trouble::Unmatched), []);
        let mut record = Record::default();
        (0..2 * MOST_WAITING).for_each(|n| record.is_waited_for(Side::Dms, &n.to_string()));
        assert_eq!(record.waited_for_by.len(), MOST_WAITING);
    }

    proptest! {
        #[test]
        fn a_link_stays_unless_somebody_else_alone_is_meant(known in prop::option::of("[a-d]"), matched in any_matched()) {
            let resolved = resolve(known.as_deref(), matched.clone());
            match (&known, &matched) {
                (None, _) => prop_assert_eq!(resolved, matched),
                (Some(_), Matched::One(_)) => prop_assert_eq!(resolved, matched),
                (Some(known), Matched::Many(ids)) if !ids.contains(known) => prop_assert_eq!(resolved, matched),
                (Some(known), _) => prop_assert_eq!(resolved, Matched::One(known.clone())),
            }
        }

        #[test]
        fn who_is_found_from_both_sides_has_no_rival(own in "[a-d]", back in any_matched()) {
            match rivals(&own, back.clone()) {
                None => prop_assert!(back == Matched::Nobody || back == Matched::One(own)),
                Some(ids) => {
                    prop_assert!(ids.len() > 1 && ids.contains(&own));
                    let others = ids.iter().all(|id| *id == own || match &back {
                        Matched::One(one) => one == id,
                        Matched::Many(many) => many.contains(id),
                        Matched::Nobody => false,
                    });
                    prop_assert!(others);
                }
            }
        }
    }
}
