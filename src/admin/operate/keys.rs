//! The sealing keys: what they are used for, and whether the next step of a rotation may be taken. The key file itself is
//! changed by whoever has it; this process reads it.

use contacts::rotation::{self, Keyring, Resealed, Uses};
use contacts::{Micros, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Grant, Operate, Operator, Refusal, allow};
use crate::keyring;

/// A step that somebody wants to take in the key file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub step: StepKind,
    pub kid: String,
    /// Take it whatever stands against it.
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Add,
    Rotate,
    Drop,
}

impl StepKind {
    fn action(self) -> &'static str {
        match self {
            StepKind::Add => "keys add",
            StepKind::Rotate => "keys rotate",
            StepKind::Drop => "keys drop",
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    kid: String,
    /// Whether processes seal or open with it, or do not have it.
    state: &'static str,
    made: Option<String>,
    age_seconds: Option<u64>,
    #[serde(flatten)]
    uses: Uses,
    /// What keeps `keys drop` from it, in words; `None`: nothing.
    kept_by: Option<String>,
}

impl Operate {
    /// Keys, what each is used for, and what the processes have.
    pub async fn keys(&self) -> Result<Value, Refusal> {
        let now = self.clock.now();
        let keyring = rotation::keyring(&*self.store).await?;
        let listed = self.worker.keys.kids();
        let mut uses = self.key_uses(now).await?;
        let made = keyring::made(&self.key_file);
        let mut kids = listed.clone();
        // What lies sealed with a key that nobody has any more.
        kids.extend(uses.keys().filter(|kid| !listed.contains(kid)).cloned());
        let keys: Vec<Shown> = kids
            .iter()
            .map(|kid| {
                let uses = uses.remove(kid).unwrap_or_default();
                let state = match (listed.contains(kid), keyring.sealing(now).contains(kid.as_str())) {
                    (false, _) => "missing",
                    (true, true) => "seals",
                    (true, false) if listed.first() == Some(kid) => "seals",
                    (true, false) => "opens",
                };
                let made = made.get(kid).copied();
                Shown {
                    state,
                    made: made.map(|made| made.to_string()),
                    age_seconds: made.map(|made| now.since(made).as_secs()),
                    kept_by: stands_against_drop(kid, &uses, &keyring, now),
                    uses,
                    kid: kid.clone(),
                }
            })
            .collect();
        let processes: Vec<Value> = keyring
            .living(now)
            .map(|(owner, loaded)| json!({"process": owner, "role": loaded.role, "kids": loaded.kids}))
            .collect();
        Ok(json!({"keys": keys, "processes": processes}))
    }

    async fn key_uses(&self, now: Micros) -> Result<std::collections::BTreeMap<String, Uses>, StoreError> {
        rotation::uses(&*self.store, &self.worker.keys, self.token_grace, now).await
    }

    /// Whether a step may be taken; what is allowed is in the audit before it happens.
    pub async fn step_keys(&self, who: &Operator, step: &Step) -> Result<String, Refusal> {
        allow(who, Grant::Admin)?;
        let now = self.clock.now();
        let against = match step.step {
            StepKind::Add => None,
            StepKind::Rotate => {
                let keyring = rotation::keyring(&*self.store).await?;
                stands_against_rotation(&step.kid, &keyring, now)
            }
            StepKind::Drop => {
                let keyring = rotation::keyring(&*self.store).await?;
                let uses = self.key_uses(now).await?.remove(&step.kid).unwrap_or_default();
                stands_against_drop(&step.kid, &uses, &keyring, now)
            }
        };
        let said = match (against, step.force) {
            (None, _) => "nothing stands against it".to_owned(),
            (Some(why), true) => format!("forced, although {why}"),
            (Some(why), false) => return Err(Refusal::Conflict(why)),
        };
        self.note(who, step.step.action(), &step.kid, &said).await?;
        Ok(said)
    }

    /// Seals everything that is stored with the key that seals now.
    pub async fn reseal(&self, who: &Operator) -> Result<Resealed, Refusal> {
        allow(who, Grant::Admin)?;
        let keys = &self.worker.keys;
        let keyring = rotation::keyring(&*self.store).await?;
        let sealing = keyring.sealing(self.clock.now());
        let kid = keys.kids().first().cloned().unwrap_or_default();
        if sealing.iter().any(|other| *other != kid) {
            let all: Vec<&str> = sealing.into_iter().collect();
            return Err(Refusal::Conflict(format!(
                "the processes seal with different keys ({}): give all of them the same key file first",
                all.join(", ")
            )));
        }
        let resealed = rotation::reseal(&*self.store, keys, &kid).await?;
        self.note(who, "keys reseal", &kid, &resealed.to_string()).await?;
        Ok(resealed)
    }
}

fn stands_against_rotation(kid: &str, keyring: &Keyring, now: Micros) -> Option<String> {
    let without = keyring.without(kid, now);
    if keyring.living(now).count() == 0 {
        return Some("no process has reported its keys yet; wait for keys.reload".to_owned());
    }
    (!without.is_empty()).then(|| {
        format!(
            "these processes do not have the key {kid} yet and could not open what it seals: {}. Give them the key file; they \
             look at it every keys.reload",
            without.join(", ")
        )
    })
}

fn stands_against_drop(kid: &str, uses: &Uses, keyring: &Keyring, now: Micros) -> Option<String> {
    if keyring.sealing(now).contains(kid) {
        return Some(format!("a process still seals with {kid}"));
    }
    if uses.is_empty() {
        return None;
    }
    let next = match uses.nothing_stored() {
        false => "what is stored is sealed anew by the sweep, or at once by `snapbridge keys reseal`",
        true => {
            "Talkdesk's next syncs bring new tokens, and keys.token_grace must pass; without the key, these accounts' next sync is \
             a full one"
        }
    };
    Some(format!("it is still needed by {uses}: {next}"))
}

#[cfg(test)]
mod tests {
    use contacts::rotation::Loaded;

    use super::*;

    #[test]
    fn a_key_seals_when_all_have_it_and_goes_when_nobody_needs_it() {
        let now = Micros::from_secs(1_000);
        let loaded = |kids: &[&str]| Loaded {
            role: "front".into(),
            kids: kids.iter().map(|kid| (*kid).to_owned()).collect(),
            until: Micros::from_secs(2_000),
        };
        let mut keyring = Keyring::default();
        assert!(stands_against_rotation("b", &keyring, now).is_some(), "nobody is known");
        keyring.note("one", loaded(&["a", "b"]), now);
        assert_eq!(stands_against_rotation("b", &keyring, now), None);
        keyring.note("two", loaded(&["a"]), now);
        let why = stands_against_rotation("b", &keyring, now).unwrap_or_default();
        assert!(why.contains("two") && !why.contains("one"), "{why}");

        let none = Uses::default();
        assert!(stands_against_drop("a", &none, &keyring, now).is_some());
        keyring.note("one", loaded(&["b", "a"]), now);
        keyring.note("two", loaded(&["b"]), now);
        assert_eq!(stands_against_drop("a", &none, &keyring, now), None);
        for (uses, next) in [
            (Uses { payloads: 1, ..none }, "reseal"),
            (Uses { tokens: 1, ..none }, "full one"),
            (Uses { unknown: 1, ..none }, "full one"),
        ] {
            let why = stands_against_drop("a", &uses, &keyring, now).unwrap_or_default();
            assert!(why.contains(next), "{why}");
        }
    }
}
