//! The names of keys, form `v1`: `{s042}:<namespace>:v1:<what>…`. The shard comes first, as hash tag, so that all
//! keys of an account and the indexes of its shard lie in one slot of a Redis Cluster.

use contacts::ports::{DocKey, DocKind, StoreErrorKind};
use contacts::{AccountId, Shard, StoreError, Stream};

use super::lookups::BUCKETS;

/// Keeps the keys of one installation apart from all others on the same server.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    namespace: String,
}

/// The keys of a snapshot.
pub(super) struct SnapshotKeys {
    /// Hash: the head.
    pub head: String,
    /// Lex sorted set: position (16 hex digits), CRM time (the same), JSON.
    pub bodies: String,
    /// Hash: id → position, CRM time, observed, content hash, lookup keys; 8 bytes each.
    pub ids: String,
    /// Lex sorted set: observed (16 hex digits), id.
    pub stones: String,
    /// Hash: number of a bucket → how many bytes of it mean nothing any more; without those of which none do.
    pub worn: String,
    /// Of the buckets.
    prefix: String,
}

impl SnapshotKeys {
    /// The head and what it counts, in the order in which scripts take them. Whatever changes a snapshot changes one of them.
    pub fn counted(&self) -> [&str; 4] {
        [&self.head, &self.bodies, &self.ids, &self.stones]
    }

    /// String: pairs of lookup key and id ([`super::lookups`]).
    pub fn bucket(&self, number: u8) -> String {
        format!("{}{number:02x}", self.prefix)
    }

    /// The counted ones first.
    pub fn all(&self) -> Vec<String> {
        let counted = self.counted().map(str::to_owned).into_iter();
        let buckets = (0..BUCKETS).map(|number| self.bucket(number));
        counted.chain([self.worn.clone()]).chain(buckets).collect()
    }
}

impl Keys {
    /// `namespace`: 1 to 40 of a-z, A-Z, 0-9, `_`, `-` and `.`.
    pub fn new(namespace: &str) -> Result<Keys, StoreError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if namespace.is_empty() || namespace.len() > 40 || !namespace.bytes().all(legal) {
            let message = "the namespace must be 1 to 40 of a-z, A-Z, 0-9, `_`, `-` and `.`";
            return Err(StoreError::new(StoreErrorKind::Unreadable, message));
        }
        Ok(Keys {
            namespace: namespace.to_owned(),
        })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn of(&self, shard: Shard, rest: std::fmt::Arguments<'_>) -> String {
        format!("{{{shard}}}:{}:v1:{rest}", self.namespace)
    }

    pub fn document(&self, key: &DocKey) -> String {
        self.of(key.shard, format_args!("doc:{}:{}", key.kind.as_str(), key.id))
    }

    /// Lex sorted set: the ids of a kind in a shard.
    pub fn list(&self, kind: DocKind, shard: Shard) -> String {
        self.of(shard, format_args!("list:{}", kind.as_str()))
    }

    /// Sorted set: members by time.
    pub fn index(&self, index: &str, shard: Shard) -> String {
        self.of(shard, format_args!("index:{index}"))
    }

    pub fn snapshot(&self, account: &AccountId, stream: Stream) -> SnapshotKeys {
        let key = |part| {
            self.of(
                account.shard(),
                format_args!("snap:{account}:{}:{part}", stream.as_str()),
            )
        };
        SnapshotKeys {
            head: key("head"),
            bodies: key("bodies"),
            ids: key("ids"),
            stones: key("stones"),
            worn: key("worn"),
            prefix: key("keys:"),
        }
    }

    /// Pattern of a part of all snapshots.
    pub fn everywhere(&self, part: &str) -> String {
        format!("{{s???}}:{}:v1:snap:*:{part}", self.namespace)
    }

    /// Sorted set: dirty ids by mark.
    pub fn dirty(&self, account: &AccountId) -> String {
        self.of(account.shard(), format_args!("dirty:{account}"))
    }

    pub fn last_mark(&self, account: &AccountId) -> String {
        self.of(account.shard(), format_args!("mark:{account}"))
    }

    pub fn scratch(&self, key: &str) -> String {
        self.of(Shard::of(key), format_args!("scratch:{key}"))
    }

    /// Hash: step → name. Without the form's version, since it records which forms there are.
    pub fn layout(&self) -> String {
        format!("{{{}}}:{}:layout", Shard(0), self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_begin_with_their_shard_and_stay_as_they_are() {
        let keys = Keys::new("prod-1").unwrap();
        let account: AccountId = "abcdefghijklmnopqrstuvwx23".parse().unwrap();
        assert_eq!(
            keys.snapshot(&account, Stream::Contacts).bodies,
            "{s155}:prod-1:v1:snap:abcdefghijklmnopqrstuvwx23:contacts:bodies"
        );
        assert_eq!(
            keys.snapshot(&account, Stream::Contacts).bucket(63),
            "{s155}:prod-1:v1:snap:abcdefghijklmnopqrstuvwx23:contacts:keys:3f"
        );
        assert_eq!(
            keys.document(&DocKey::of_account(DocKind::Work, &account)),
            "{s155}:prod-1:v1:doc:work:abcdefghijklmnopqrstuvwx23"
        );
        assert_eq!(
            keys.index("look:refresh", account.shard()),
            "{s155}:prod-1:v1:index:look:refresh"
        );
    }

    #[test]
    fn a_namespace_cannot_reach_into_another() {
        for namespace in ["", "a:b", "a{b", "a b", &"x".repeat(41)] {
            assert!(Keys::new(namespace).is_err(), "{namespace}");
        }
    }
}
