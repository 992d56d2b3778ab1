//! Talkdesk's side of the demo: what was delivered, and how it differs from the CRM.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fake_crm::Row;
use parking_lot::Mutex;
use serde::Deserialize;

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
