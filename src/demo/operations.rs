//! The agent's part of the play: each action once, then the interactions of the contact that came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};
use talkdesk::player::{PlayerState, RunSummary};
use talkdesk::wire::{ActionReply, Interaction};
use url::Url;

use super::compare::Copy;
use super::{ACCOUNT, INTEGRATION, PATIENCE, Play, TOKEN};

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Operations {
    /// Status by action.
    pub actions: BTreeMap<&'static str, u16>,
    /// Status of interaction_update.
    pub interaction_update: u16,
    /// Interactions of the contact that the agent created.
    pub interactions: usize,
    /// The ticket that the agent created is one of them.
    pub ticket_shown: bool,
    /// What the CRM has made on the agent's behalf: contacts, tickets, calls.
    pub made: BTreeMap<String, u64>,
}

/// What the actions of the demo make, one each, and nothing else.
const MADE: [&str; 3] = ["contacts", "tickets", "calls"];

impl Operations {
    /// Each was done, and done once.
    pub fn is_good(&self) -> bool {
        self.actions.len() == 3
            && self.actions.values().all(|status| *status == 201)
            && self.interaction_update == 200
            && self.ticket_shown
            && self
                .made
                .iter()
                .all(|(what, count)| *count == u64::from(MADE.contains(&what.as_str())))
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<String> = self
            .actions
            .iter()
            .map(|(name, status)| format!("{name} {status}"))
            .collect();
        let ticket = if self.ticket_shown {
            "the new ticket"
        } else {
            "no new ticket"
        };
        write!(
            f,
            "{}; interaction_update {} with {ticket}",
            actions.join(", "),
            self.interaction_update
        )
    }
}

impl Play<'_> {
    /// Has an agent create a contact and a ticket for it, log a call, and look at the contact.
    pub(super) async fn operate(&self) -> anyhow::Result<Operations> {
        let mut operations = Operations::default();
        let person = json!({"first_name": "Ines", "last_name": "Marchetti", "email": "ines@nordlys.example", "phone": "+4722334455"});
        let contact: ActionReply = self.act(&mut operations, "create_contact", json!({}), person).await?;
        let contact = contact.contact_external_id.context("create_contact named no contact")?;
        let meta = json!({"contact_external_id": contact, "agent_external_id": "u-1"});
        let ticket = json!({"subject": "Parcel arrived damaged", "priority": "high"});
        let ticket = self
            .act(&mut operations, "create_ticket", meta.clone(), ticket)
            .await?
            .external_id;
        let call = json!({"direction": "inbound", "started": "2026-11-25T10:30:00Z", "duration": 61});
        self.act(&mut operations, "log_call", meta, call).await?;

        let asked = json!({"meta": {"interaction_types": ["Ticket"]}, "data": {"contact_external_id": contact}});
        let (status, found) = self.post("interaction_update", asked).await?;
        let found: Vec<Interaction> = serde_json::from_value(found).context("interaction_update")?;
        operations.interaction_update = status;
        operations.interactions = found.len();
        operations.ticket_shown = ticket.is_some_and(|ticket| found.iter().any(|item| item.id == ticket));
        operations.made = self.crm.stats(ACCOUNT).made;
        Ok(operations)
    }

    /// Syncs until Talkdesk's side holds the contact that the agent created, too.
    pub(super) async fn catch_up(
        &self,
        state: &mut PlayerState,
        copy: &Copy,
        mut difference: Option<usize>,
    ) -> anyhow::Result<(Vec<RunSummary>, Option<usize>)> {
        let (mut runs, began) = (Vec::new(), Instant::now());
        loop {
            runs.push(self.sync(state, copy).await?);
            let before = difference;
            difference = copy.difference(&self.crm.truth(ACCOUNT));
            if difference.is_none() || (before == difference && began.elapsed() > PATIENCE) {
                return Ok((runs, difference));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn act(
        &self,
        operations: &mut Operations,
        name: &'static str,
        meta: Value,
        data: Value,
    ) -> anyhow::Result<ActionReply> {
        let (status, reply) = self
            .post(&format!("actions/{name}"), json!({"meta": meta, "data": data}))
            .await?;
        operations.actions.insert(name, status);
        if status != 201 {
            bail!("{name} answered {status}: {reply}");
        }
        serde_json::from_value(reply).context(name)
    }

    async fn post(&self, path: &str, mut body: Value) -> anyhow::Result<(u16, Value)> {
        let url = Url::parse(&format!("{}/{INTEGRATION}/{path}", self.bridge))?;
        body["auth"] = json!({"account": ACCOUNT, "token": TOKEN});
        let client = talkdesk::player::client(&url)?;
        let answer = client
            .post(url)
            .json(&body)
            .send()
            .await
            .with_context(|| path.to_owned())?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or(Value::Null)))
    }
}
