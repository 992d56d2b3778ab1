//! Calls to CRMs on behalf of somebody who waits: interactions and actions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use contacts::AccountId;
use contacts::accounts::{self, Account};
use contacts::keys::Fingerprint;
use crm::{Client, CrmError, CrmResult};
use parking_lot::Mutex;

use super::Front;
use super::error::{ApiError, ApiResult};
use super::flight::Flights;
use super::interactions::Fetched;
use crate::integrations::Integration;

/// Clients kept; beyond this they are made anew.
const CLIENTS: usize = 2_000;

/// The clients of accounts in conversation, and what is being fetched with them.
#[derive(Default)]
pub struct Desk {
    clients: Mutex<HashMap<AccountId, (Fingerprint, Arc<Client>)>>,
    pub(super) flights: Flights<String, Fetched>,
}

/// On whose behalf the CRM is called: the account, and the credentials of the request.
pub struct Visitor<'a> {
    pub integration: &'a Arc<Integration>,
    pub account: &'a Account,
    pub auth: &'a BTreeMap<String, String>,
    pub fingerprint: Fingerprint,
}

impl Front {
    pub(super) fn visitor<'a>(
        &self,
        integration: &'a Arc<Integration>,
        account: &'a Account,
        auth: &'a BTreeMap<String, String>,
    ) -> Visitor<'a> {
        let canonical = integration.connector.canonical(auth);
        Visitor {
            integration,
            account,
            auth,
            fingerprint: self.keys.fingerprint(&integration.name, &canonical.fingerprint_input),
        }
    }

    /// The visitor's client. It is kept, as a session at the CRM is worth a call.
    pub(super) fn client(&self, visitor: &Visitor<'_>) -> CrmResult<Arc<Client>> {
        let id = &visitor.account.id;
        if let Some((fingerprint, client)) = self.desk.clients.lock().get(id)
            && fingerprint.matches(&visitor.fingerprint)
        {
            return Ok(client.clone());
        }
        let client = Arc::new(visitor.integration.visit(visitor.account, visitor.auth)?);
        let mut clients = self.desk.clients.lock();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(id.clone(), (visitor.fingerprint.clone(), client.clone()));
        Ok(client)
    }

    /// The CRM has refused credentials that were good before: whoever comes with them next is checked live (invariant 11).
    pub(super) async fn refused(&self, visitor: &Visitor<'_>, error: &CrmError) -> ApiResult<ApiError> {
        self.desk.clients.lock().remove(&visitor.account.id);
        accounts::reject(&*self.store, &visitor.fingerprint).await?;
        Ok(ApiError::crm(error.kind, &visitor.integration.title, self.clock.now()).cause(process::chain(error)))
    }
}
