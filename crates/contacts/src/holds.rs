//! What an operator has paused for everybody: all accounts of a connector, or a lane. One account alone:
//! [`crate::work::Work::pause`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::docs::{self, Change};
use crate::ids::Lane;
use crate::ports::{DocKey, DocKind, Documents, StoreResult};
use crate::time::Micros;
use crate::work::Pause;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    #[serde(default)]
    pub connectors: BTreeMap<String, Pause>,
    #[serde(default)]
    pub lanes: BTreeMap<Lane, Pause>,
}

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Connector(String),
    Lane(Lane),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Connector(name) => write!(f, "connector {name}"),
            Scope::Lane(lane) => write!(f, "lane {lane}"),
        }
    }
}

impl Holds {
    pub fn is_empty(&self) -> bool {
        self.connectors.is_empty() && self.lanes.is_empty()
    }

    /// What holds work of a connector in a lane back.
    pub fn of(&self, connector: &str, lane: Lane) -> Option<(Scope, &Pause)> {
        let of_connector = self.connectors.get(connector);
        of_connector
            .map(|pause| (Scope::Connector(connector.to_owned()), pause))
            .or_else(|| self.lanes.get(&lane).map(|pause| (Scope::Lane(lane), pause)))
    }

    /// `false`: it was held already, and stays held by whom it was.
    pub fn pause(&mut self, scope: &Scope, by: String, now: Micros) -> bool {
        let pause = Pause { since: now, by };
        match scope {
            Scope::Connector(name) if !self.connectors.contains_key(name) => {
                self.connectors.insert(name.clone(), pause).is_none()
            }
            Scope::Lane(lane) if !self.lanes.contains_key(lane) => self.lanes.insert(*lane, pause).is_none(),
            _ => false,
        }
    }

    /// `false`: it was not held.
    pub fn resume(&mut self, scope: &Scope) -> bool {
        match scope {
            Scope::Connector(name) => self.connectors.remove(name).is_some(),
            Scope::Lane(lane) => self.lanes.remove(lane).is_some(),
        }
    }
}

fn key() -> DocKey {
    DocKey::by_id(DocKind::Holds, "all")
}

pub async fn load(docs: &(impl Documents + ?Sized)) -> StoreResult<Holds> {
    Ok(docs::load(docs, &key()).await?.unwrap_or_default())
}

pub async fn update(docs: &(impl Documents + ?Sized), mut change: impl FnMut(&mut Holds) -> bool) -> StoreResult<bool> {
    docs::update(docs, &key(), |known: Option<Holds>| {
        let mut holds = known.unwrap_or_default();
        match change(&mut holds) {
            true => (Change::Put(holds), Vec::new(), true),
            false => (Change::Keep, Vec::new(), false),
        }
    })
    .await
}
