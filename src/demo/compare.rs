//! Talkdesk's side of the demo: what was delivered, and how it differs from the CRM.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fake_crm::{Row, User};
use parking_lot::Mutex;
use serde::Deserialize;
use talkdesk::wire::Agent;

/// The contacts Talkdesk holds: the latest delivery of each id.
#[derive(Clone, Default)]
pub struct Copy {
    held: Arc<Mutex<BTreeMap<String, Held>>>,
}

#[derive(Deserialize)]
struct Held {
    id: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    company: Option<String>,
}

impl Copy {
    /// Takes contacts as lines of JSON.
    pub fn writer(&self) -> impl io::Write + Send + Sync + 'static {
        Lines {
            copy: self.clone(),
            rest: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// How many living contacts of the CRM are missing or held in another version; `None`: none. Every edit of the fake
    /// CRM changes the job title, so the title tells the version.
    pub fn difference(&self, truth: &[Row]) -> Option<usize> {
        let held = self.held.lock();
        let same = |text: &str, held: &Option<String>| text.trim() == held.as_deref().unwrap_or_default();
        // Long names are clipped on the way.
        let begins = |text: &str, held: &Option<String>| text.trim().starts_with(held.as_deref().unwrap_or_default());
        let missing = truth
            .iter()
            .filter(|row| {
                held.get(&row.id)
                    .is_none_or(|held| !same(&row.job_title, &held.title) || !begins(&row.company, &held.company))
            })
            .count();
        Some(missing).filter(|missing| *missing > 0)
    }
}

/// How many agents differ from the CRM's users: every active one with an e-mail address, each address once, by name.
pub fn wrong_agents(agents: &[Agent], users: &[User]) -> usize {
    let mut wanted: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for user in users.iter().filter(|user| user.active) {
        let Some(email) = &user.email else { continue };
        let known = wanted.values().any(|(known, _)| known.eq_ignore_ascii_case(email));
        if !known {
            wanted.insert(&user.id, (email, format!("{} {}", user.first_name, user.last_name)));
        }
    }
    let right = agents.iter().filter(|agent| {
        wanted
            .remove(agent.id.as_str())
            .is_some_and(|(email, name)| email == agent.email && name == agent.name)
    });
    agents.len() - right.count() + wanted.len()
}

struct Lines {
    copy: Copy,
    rest: Vec<u8>,
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let held: Held = serde_json::from_slice(&line)?;
            self.copy.held.lock().insert(held.id.clone(), held);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
