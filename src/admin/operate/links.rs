//! Linking, as operators see and drive it.

use std::sync::Arc;

use contacts::inbox::{Appended, Urgency};
use contacts::linking::{Payload, Remove};
use serde::{Deserialize, Serialize};

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::dealers::{Dealers, Report, report};
use crate::integrations::{Dealer, Linking};

/// Records that one report names.
const NAMED: usize = 10_000;

/// Which dealer, by its name in the settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    pub dealer: String,
}

/// Whose links are taken away: of one record of the DMS, or all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    pub dealer: String,
    #[serde(default)]
    pub record: Option<String>,
    #[serde(default)]
    pub all: bool,
}

/// Which dealers, and how many records of each are named.
#[derive(Debug, Default, Deserialize)]
pub struct Reported {
    pub dealer: Option<String>,
    pub records: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct Told {
    pub account: String,
    pub said: String,
}

impl Operate {
    /// How linking stands, dealer by dealer.
    pub async fn link_report(&self, reported: &Reported) -> Result<Vec<Report>, Refusal> {
        let most = reported.records.unwrap_or(100).min(NAMED);
        let mut reports = Vec::new();
        if let Some(name) = &reported.dealer {
            let (linking, at) = self.dealer(name)?;
            reports.push(report(&*self.store, &linking, dealer_at(&linking, at)?, most).await?);
            return Ok(reports);
        }
        for linking in self.integrations.all_linking() {
            for dealer in linking.dealers() {
                reports.push(report(&*self.store, linking, dealer, most).await?);
            }
        }
        Ok(reports)
    }

    /// Has all records of a dealer's DMS linked.
    pub async fn link_seed(&self, who: &Operator, whose: &Whose) -> Result<Told, Refusal> {
        allow(who, Grant::Operate)?;
        let (linking, at) = self.dealer(&whose.dealer)?;
        let dealer = dealer_at(&linking, at)?;
        let said = match self.dealers().seed(&linking, dealer).await? {
            Appended::New => {
                "Asked for: all records of the DMS are looked at, a few at a time; `link report` shows how far it is"
            }
            Appended::Replaced | Appended::Waiting => {
                "It was under way and begins anew; `link report` shows how far it is"
            }
            Appended::Full => return Err(full()),
        };
        self.note(who, "link seed", dealer.account.as_str(), said).await?;
        Ok(Told {
            account: dealer.account.to_string(),
            said: said.to_owned(),
        })
    }

    /// Takes links away in both systems.
    pub async fn link_remove(&self, who: &Operator, removal: &Removal) -> Result<Told, Refusal> {
        allow(who, Grant::Admin)?;
        if removal.record.is_some() == removal.all {
            return Err(Refusal::BadRequest("name one record of the DMS, or say all".into()));
        }
        let (linking, at) = self.dealer(&removal.dealer)?;
        let dealer = dealer_at(&linking, at)?;
        let payload = Payload::Remove(Remove {
            record: removal.record.clone(),
            after: None,
        });
        let now = self.clock.now();
        let put = worker::linking::put(
            &*self.store,
            &self.worker.keys,
            &dealer.account,
            // Behind what a seeding has put there already: that would link again what this takes away.
            (&payload, Urgency::Bulk),
            linking.inbox,
            now,
        );
        if put.await? == Appended::Full {
            return Err(full());
        }
        self.requests.drain(&dealer.account).await?;
        let said = match removal.record {
            Some(_) => {
                "Asked for: the links of the record and of its contact are taken away. If the DMS or Web1on1 tell of one of them once that is done, \
                 or all are seeded, they are linked again"
            }
            None => {
                "Asked for: all links of the dealer are taken away, a few at a time. Whom the DMS, Web1on1 or a seeding names after that is \
                 linked again: take the dealer out of the settings once `link report` shows none"
            }
        };
        let record = removal.record.as_deref().unwrap_or("all");
        let note = format!("record {record}: {said}");
        self.note(who, "link remove", dealer.account.as_str(), &note).await?;
        Ok(Told {
            account: dealer.account.to_string(),
            said: said.to_owned(),
        })
    }

    fn dealer(&self, name: &str) -> Result<(Arc<Linking>, usize), Refusal> {
        let found = self.integrations.all_linking().find_map(|linking| {
            let at = linking.dealers().iter().position(|dealer| dealer.name == name)?;
            Some((linking.clone(), at))
        });
        found.ok_or_else(|| {
            let all = self.integrations.all_linking().flat_map(|linking| linking.dealers());
            let names: Vec<&str> = all.map(|dealer| dealer.name.as_str()).collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            Refusal::NotFound(format!(
                "there is no dealer `{name}` in the settings; there are: {names}"
            ))
        })
    }

    fn dealers(&self) -> Dealers {
        Dealers {
            store: self.store.clone(),
            requests: self.requests.clone(),
            keys: self.worker.keys.clone(),
            clock: self.clock.clone(),
            integrations: self.integrations.clone(),
        }
    }
}

fn full() -> Refusal {
    Refusal::Conflict("the dealer's inbox is full; try again when some of it is done".into())
}

fn dealer_at(linking: &Linking, at: usize) -> Result<&Dealer, Refusal> {
    linking
        .dealers()
        .get(at)
        .ok_or_else(|| Refusal::NotFound("the dealer is gone".into()))
}
