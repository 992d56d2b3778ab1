//! Newtypes of everything that has an identity, so that one cannot stand in for another.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// How many shards an account id can fall into. An account's keys carry its shard as hash tag, so they and the shard's
/// due index change in one step on Redis Cluster.
pub const SHARDS: u16 = 256;

/// One customer's CRM principal behind one integration: 26 characters of lower-case base32 (130 bits), a keyed hash of
/// (integration, site, org, principal). Made by [`crate::keys::Keys::account_id`] only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(String);

impl AccountId {
    pub const LENGTH: usize = 26;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn shard(&self) -> Shard {
        Shard::of(&self.0)
    }
}

/// A text is no account id.
#[derive(Debug, thiserror::Error)]
#[error("not an account id: expected {} characters of a-z and 2-7", AccountId::LENGTH)]
pub struct NotAnAccountId;

impl FromStr for AccountId {
    type Err = NotAnAccountId;

    fn from_str(text: &str) -> Result<AccountId, NotAnAccountId> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        if text.len() == AccountId::LENGTH && text.bytes().all(legal) {
            Ok(AccountId(text.to_owned()))
        } else {
            Err(NotAnAccountId)
        }
    }
}

impl TryFrom<String> for AccountId {
    type Error = NotAnAccountId;

    fn try_from(text: String) -> Result<AccountId, NotAnAccountId> {
        text.parse()
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> String {
        id.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A slice of the key space, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a key: FNV-1a, folded to eight bits. Stable for ever: stored keys carry it.
    pub fn of(key: &str) -> Shard {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Shard(((hash ^ (hash >> 32)) as u16) % SHARDS)
    }

    pub fn all() -> impl Iterator<Item = Shard> {
        (0..SHARDS).map(Shard)
    }
}

impl fmt::Display for Shard {
    /// `s000` to `s255`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:03}", self.0)
    }
}

/// What a snapshot holds: contacts, or the agents (CRM users) of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Contacts,
    Agents,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Contacts => "contacts",
            Stream::Agents => "agents",
        }
    }
}

/// The checkpoint field: where a contact stands in its snapshot, in microseconds of the store's clock at ingestion.
/// Grows within a generation; `Position(0)` lies before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    pub const START: Position = Position(0);

    /// The position for the next record: `max(last + 1, store clock)`. Larger than every one given before, and, because
    /// it is shaped like time, also larger than those of a snapshot that was lost.
    pub fn next(self, clock: crate::Micros) -> Position {
        Position(self.0.saturating_add(1).max(clock.0))
    }

    /// Sixteen hex digits: sorts as text like the number.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// The random id of a snapshot's life. New only when the store was lost or the format broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    pub fn random() -> Generation {
        // Never 0: stores use it for "none".
        Generation(rand::rng().random_range(1..=u64::MAX))
    }
}

/// A fencing token: grows with every lease of an account, also over the loss of the store. A store refuses writes under an
/// older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// The id of one job, and the value of the marker that says "this job waits".
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl JobId {
    pub fn random() -> JobId {
        JobId(format!("{:024x}", rand::rng().random::<u128>() >> 32))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job asks a worker to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Fetch the contacts of the dirty set.
    #[serde(rename = "contacts.ids")]
    Ids,
    /// Poll: what changed since the cursor.
    #[serde(rename = "contacts.changes")]
    Changes,
    /// Full pass: the first build, later the reconcile.
    #[serde(rename = "contacts.full")]
    Full,
    /// The whole list of agents.
    #[serde(rename = "agents")]
    Agents,
    /// Do what lies in the account's inbox ([`crate::inbox`]).
    #[serde(rename = "link")]
    Link,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Ids, Kind::Changes, Kind::Full, Kind::Agents, Kind::Link];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ids => "contacts.ids",
            Kind::Changes => "contacts.changes",
            Kind::Full => "contacts.full",
            Kind::Agents => "agents",
            Kind::Link => "link",
        }
    }

    /// What it is about, and so which lease it needs. A dealer's account has no snapshot: its one lease is for its inbox.
    pub fn stream(self) -> Stream {
        match self {
            Kind::Ids | Kind::Changes | Kind::Full | Kind::Link => Stream::Contacts,
            Kind::Agents => Stream::Agents,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A queue of its own for each urgency: priorities within one quorum queue differ between broker versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// First builds: someone is waiting.
    Build,
    /// Webhook and poll work.
    Refresh,
    /// Full passes over what is already there.
    Reconcile,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Build, Lane::Refresh, Lane::Reconcile];

    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Build => "build",
            Lane::Refresh => "refresh",
            Lane::Reconcile => "reconcile",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Micros;

    #[test]
    fn invariant_1_positions_grow_even_when_the_clock_stands_or_steps_back() {
        let mut last = Position::START;
        for clock in [5, 5, 3, 0, 9, u64::MAX - 10] {
            let next = last.next(Micros(clock));
            assert!(next > last);
            assert!(next.0 >= clock);
            assert!(next.hex() > last.hex());
            last = next;
        }
    }

    #[test]
    fn only_account_ids_parse_as_account_ids() {
        assert!("abcdefghijklmnopqrstuvwx23".parse::<AccountId>().is_ok());
        for text in [
            "",
            "abc",
            "ABCDEFGHIJKLMNOPQRSTUVWX23",
            "abcdefghijklmnopqrstuvwx2{",
            "abcdefghijklmnopqrstuvwx018",
        ] {
            assert!(text.parse::<AccountId>().is_err(), "{text}");
        }
    }

    #[test]
    fn shards_are_stable_because_stored_keys_carry_them() {
        assert_eq!(Shard::of("abcdefghijklmnopqrstuvwx23"), Shard(155));
        assert_eq!(Shard::of(""), Shard(193));
        assert_eq!(Shard(7).to_string(), "s007");
    }
}
