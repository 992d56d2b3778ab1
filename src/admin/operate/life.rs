//! The beginning of an account by hand, and the end of one contact.

use std::collections::BTreeMap;

use contacts::{Kind, Lane, Micros, accounts, erased};
use serde::{Deserialize, Serialize};

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::front::Proof;

/// Longest id and reason.
const LONGEST: usize = 255;

/// An account to be added, with what Talkdesk would send as `auth`. Nothing prints it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newcomer {
    pub integration: String,
    pub auth: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct Added {
    pub account: String,
    pub new: bool,
    pub said: String,
}

/// Which contact, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    pub contact: String,
    pub reason: String,
}

impl Operate {
    /// Puts credentials to the CRM and begins to build the account's snapshot, as auth_validation does, before Talkdesk calls.
    pub async fn add(&self, who: &Operator, newcomer: &Newcomer) -> Result<Added, Refusal> {
        allow(who, Grant::Admin)?;
        let name = &newcomer.integration;
        let integration = self
            .integrations
            .get(name)
            .ok_or_else(|| Refusal::NotFound(format!("there is no integration `{name}`")))?;
        let auth = integration.auth(&newcomer.auth);
        let unknown: Vec<&str> = newcomer
            .auth
            .keys()
            .filter(|field| !auth.contains_key(*field))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let fields = integration.connector.fields().iter();
            let known = fields.filter(|(_, field)| field.source == crm::FieldSource::Auth);
            let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
            return Err(Refusal::BadRequest(format!(
                "auth has empty fields, or such as {name} does not know: {}; it knows: {}",
                unknown.join(", "),
                known.join(", ")
            )));
        }
        let began = self.clock.now();
        let checked = self.front.identify(&integration, &auth, Proof::Live).await;
        let account = checked.map_err(|error| match error.cause {
            Some(cause) => Refusal::Conflict(format!("{}: {cause}", error.message)),
            None => Refusal::Conflict(error.message),
        })?;
        let stored = accounts::get(&*self.store, &account.id).await?;
        let new = stored.is_some_and(|stored| stored.created >= began);
        if new {
            accounts::uncalled(&*self.store, &account.id).await?;
        }
        let said = match new {
            true => "Added: its snapshot is being built, and Talkdesk finds it when it calls",
            false => "It was there already; it has these credentials now",
        };
        self.note(who, "add", account.id.as_str(), &format!("{name}: {said}"))
            .await?;
        Ok(Added {
            account: account.id.to_string(),
            new,
            said: said.to_owned(),
        })
    }

    /// Takes one contact out of the snapshot and keeps it out, whatever the CRM says, until that is lifted.
    pub async fn erase(&self, who: &Operator, account: &str, erasure: &Erasure) -> Result<String, Refusal> {
        allow(who, Grant::Admin)?;
        let account = self.known_account(account).await?;
        let (id, reason) = named(erasure)?;
        let keys = &self.worker.keys;
        // First the word that it is kept out: a slice that begins later heeds it, and one that runs is waited for.
        let new = erased::add(&*self.store, keys, &account.id, id, self.clock.now()).await?;
        let removed = worker::erase::remove(&self.worker, &account.id, id, self.forget_wait).await?;
        // The audit outlives the contact, so it has a hash of its id only.
        let hash = keys.log_id(&format!("{}|{id}", account.id));
        let detail = format!("contact #{hash}: {reason}");
        self.note(who, "erase", account.id.as_str(), &detail).await?;
        match (removed, new) {
            (false, _) => Err(Refusal::Conflict(
                "It is kept out from the next slice on, and still in the snapshot, as a worker runs a slice of the account. Try again \
                 in a minute"
                    .into(),
            )),
            (true, true) => Ok("Erased: it is out of the snapshot, and kept out until that is lifted. Talkdesk keeps what it has".into()),
            (true, false) => Ok("It was erased already".into()),
        }
    }

    /// Ends an erasure: the contact comes back with the next look at the CRM.
    pub async fn lift(&self, who: &Operator, account: &str, erasure: &Erasure) -> Result<String, Refusal> {
        allow(who, Grant::Admin)?;
        let account = self.known_account(account).await?;
        let (id, reason) = named(erasure)?;
        let keys = &self.worker.keys;
        if !erased::lift(&*self.store, keys, &account.id, id).await? {
            return Err(Refusal::NotFound(
                "no contact of this id is erased in this account".into(),
            ));
        }
        let by_id = self
            .integrations
            .get(&account.integration)
            .is_some_and(|integration| integration.connector.has_get_many());
        match by_id {
            true => self.requests.made(&account.id, id, true).await?,
            // A poll finds what changed only.
            false => {
                self.requests
                    .ring(&account.id, Kind::Full, Lane::Reconcile, None)
                    .await?
            }
        };
        let hash = keys.log_id(&format!("{}|{id}", account.id));
        let detail = format!("contact #{hash}: {reason}");
        self.note(who, "lift", account.id.as_str(), &detail).await?;
        Ok("Lifted: it is fetched again, and delivered if the CRM has it".into())
    }

    /// Since when a contact is kept out.
    pub(super) async fn erased_since(
        &self,
        account: &contacts::AccountId,
        id: &str,
    ) -> Result<Option<Micros>, Refusal> {
        let erased = erased::load(&*self.store, account).await?;
        Ok(erased.since(&self.worker.keys, account, id))
    }
}

fn named(erasure: &Erasure) -> Result<(&str, &str), Refusal> {
    let (id, reason) = (erasure.contact.trim(), erasure.reason.trim());
    if id.is_empty() || id.chars().count() > LONGEST || id.chars().any(char::is_control) {
        return Err(Refusal::BadRequest(format!(
            "say which contact: its id in the CRM, at most {LONGEST} characters"
        )));
    }
    if reason.is_empty() {
        return Err(Refusal::BadRequest("say why: the audit keeps the reason".into()));
    }
    Ok((id, reason))
}
