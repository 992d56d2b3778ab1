//! The CRM's users, who become Talkdesk's agents.

use contacts::contact::Agent;
use contacts::{ErrorKind, Micros};
use serde_json::Value as Json;

use super::Client;
use super::listing::{From, Listing, lacks};
use crate::error::{CrmError, CrmResult};
use crate::expr::Expr;
use crate::map::{Counts, Tally, agent};
use crate::reply::Tests;

/// A page of the CRM's users: those who can be agents, in the order of the CRM.
#[derive(Clone, Debug, Default)]
pub struct AgentsPage {
    pub agents: Vec<Agent>,
    /// The cursor of the next page; `None` after the last one.
    pub next: Option<Json>,
    pub repairs: Counts,
    /// Users who are no agents, by reason: `filtered` (inactive), `no_email`, `email_invalid`.
    pub dropped: Counts,
    /// The CRM's own clock at the reply, if it said.
    pub crm_clock: Option<Micros>,
    /// Our clock just before the call.
    pub asked_at: Micros,
}

impl Client {
    /// A page of the CRM's users. `cursor` is the `next` of the page before.
    pub async fn agents_page(&self, cursor: Option<&Json>) -> CrmResult<AgentsPage> {
        let agents = self.spec().agents.as_ref().ok_or_else(|| lacks("agents"))?;
        let listing = Listing {
            operation: "agents",
            request: &agents.request,
            items: &agents.items,
            page: &agents.page,
            tests: Tests::default(),
            from: From::default(),
        };
        let listed = self.list(&listing, cursor).await?;
        let mut tally = Tally::default();
        let mut found = Vec::with_capacity(listed.items.len());
        for item in &listed.items {
            let names = self.item_scope(item);
            let text = |expr: &Expr| expr.text_of(&names).map_err(CrmError::expression);
            if let Some(filter) = &agents.filter
                && !filter.is_true(&names).map_err(CrmError::expression)?
            {
                tally.dropped("filtered");
                continue;
            }
            // A user who cannot be read would look deleted at the end of the list.
            let id = text(&agents.id)?
                .map(|id| id.trim().to_owned())
                .filter(|id| !id.is_empty())
                .ok_or_else(|| CrmError::new(ErrorKind::BadReply, "a row of the user list has no id"))?;
            let name = agents.name.as_ref().map_or(Ok(None), text)?;
            found.extend(agent(id, name, text(&agents.email)?, &mut tally));
        }
        Ok(AgentsPage {
            agents: found,
            next: listed.next,
            repairs: tally.repairs,
            dropped: tally.dropped,
            crm_clock: listed.answer.reply.clock,
            asked_at: listed.answer.asked_at,
        })
    }
}
