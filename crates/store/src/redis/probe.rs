//! What the server says of itself. Read with INFO, which needs no right to see or change its configuration.

use async_trait::async_trait;
use contacts::StoreError;
use contacts::ports::{Probe, StoreErrorKind, StoreResult};
use redis::InfoDict;

use super::RedisStore;
use super::link::Link;

async fn info(link: &Link, section: &str) -> StoreResult<InfoDict> {
    link.query("describe itself", redis::cmd("INFO").arg(section)).await
}

/// Eviction takes pieces out of snapshots without a word.
pub(super) async fn refuse_eviction(link: &Link) -> StoreResult<()> {
    match info(link, "memory").await?.get::<String>("maxmemory_policy") {
        Some(policy) if policy != "noeviction" => Err(StoreError::new(
            StoreErrorKind::Unreadable,
            format!("redis evicts keys when memory runs out (maxmemory-policy is {policy}): set it to noeviction"),
        )),
        _ => Ok(()),
    }
}

/// The oldest major version that this is tested with.
const OLDEST: u32 = 7;

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[async_trait]
impl Probe for RedisStore {
    fn describe(&self) -> String {
        format!("{} in namespace {}", self.target, self.keys.namespace())
    }

    async fn ping(&self) -> StoreResult<()> {
        self.reads
            .query::<redis::Value>("answer a ping", &redis::cmd("PING"))
            .await
            .map(drop)
    }

    async fn warnings(&self) -> StoreResult<Vec<String>> {
        let mut warnings = Vec::new();
        let version = info(&self.reads, "server").await?.get::<String>("redis_version");
        if let Some(version) = version.filter(|version| major(version).is_some_and(|major| major < OLDEST)) {
            warnings.push(format!(
                "redis is version {version}, and {OLDEST} or newer is what this is tested with"
            ));
        }
        match info(&self.reads, "memory").await?.get::<String>("maxmemory_policy") {
            Some(policy) if policy == "noeviction" => {}
            Some(policy) => warnings.push(format!(
                "maxmemory-policy is {policy}: redis evicts keys, and snapshots lose contacts; set it to noeviction"
            )),
            None => warnings.push("redis does not tell its maxmemory-policy: make sure that it is noeviction".into()),
        }
        let persistence = info(&self.reads, "persistence").await?;
        match persistence.get::<String>("aof_enabled").as_deref() {
            Some("1") => {}
            Some(_) => warnings.push(
                "the append-only file is off: a crash of redis loses what was written since its last save; set \
                 `appendonly yes`"
                    .into(),
            ),
            None => warnings.push("redis does not tell whether its append-only file is on".into()),
        }
        if persistence
            .get::<String>("aof_last_write_status")
            .is_some_and(|status| status != "ok")
        {
            warnings.push("the last write to the append-only file failed: look at the server's disk".into());
        }
        Ok(warnings)
    }
}
