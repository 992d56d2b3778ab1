//! `interaction_update`: a contact's tickets and the like, asked of the CRM while somebody looks at the contact (Talkdesk
//! interaction retriever).
//!
//! Each type of each contact is fetched and kept by itself. When the deadline comes, the types that are complete are the
//! answer: half a type would look like all of it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use contacts::accounts::Account;
use contacts::{ErrorKind, Micros};
use crm::{CrmError, Person, Reached};
use futures::future;
use process::settings::DateForm;
use talkdesk::wire::{self, InteractionRequest};
use tokio::time::{Instant, timeout_at};

use super::desk::Visitor;
use super::error::{ApiError, ApiResult, json};
use super::identify::Proof;
use super::whom::Whom;
use super::{AddressPath, Front};
use crate::integrations::Integration;

/// What a call for one type of one contact came to; shared by all who waited for it.
pub type Fetched = Result<Arc<Vec<crm::Interaction>>, Arc<CrmError>>;

pub async fn handle(State(front): State<Arc<Front>>, address: AddressPath, body: Body) -> ApiResult<Response> {
    let deadline = Instant::now() + front.policy.interactions.deadline;
    let (integration, bytes) = front
        .receive(&address.integration, address.secret.as_deref(), body)
        .await?;
    if integration.connector.interaction_types().next().is_none() {
        return Err(ApiError::not_configured("interactions"));
    }
    let request = InteractionRequest::parse(&bytes)?;
    let auth = integration.auth(&request.auth);
    let late = |_| late(&integration);
    let known = front.identify(&integration, &auth, Proof::Young);
    let account = timeout_at(deadline, known).await.map_err(late)??;
    let people = timeout_at(deadline, front.people(&integration, &account, &request))
        .await
        .map_err(late)??;
    let visitor = front.visitor(&integration, &account, &auth);
    let found = front
        .interactions(&visitor, &types(&integration, &request.types), &people, deadline)
        .await?;
    Ok(json(StatusCode::OK, wire::interactions(&found)))
}

/// A type: the connector's spelling and the caller's.
struct Type {
    own: String,
    shown: String,
}

/// The types that were asked for and that there are; all of them if none was named.
fn types(integration: &Integration, asked: &[String]) -> Vec<Type> {
    let known = integration.connector.interaction_types();
    known
        .filter_map(|own| {
            let shown = match asked {
                [] => Some(own),
                asked => asked
                    .iter()
                    .find(|asked| asked.to_lowercase() == own.to_lowercase())
                    .map(String::as_str),
            };
            Some(Type {
                own: own.to_owned(),
                shown: shown?.to_owned(),
            })
        })
        .collect()
}

impl Front {
    /// The contacts that a request means. Nobody: there is nothing to show.
    async fn people(
        &self,
        integration: &Integration,
        account: &Account,
        request: &InteractionRequest,
    ) -> ApiResult<Vec<Person>> {
        let mut ids = match &request.contact {
            Some(id) => match self.whom(account, id).await? {
                Whom::Living(id) | Whom::Unknown(id) => vec![id],
                Whom::Gone => Vec::new(),
            },
            None => {
                self.look_up(integration, account, &request.phones, &request.emails)
                    .await?
            }
        };
        ids.truncate(self.policy.interactions.contacts);
        let person = |id| Person {
            id,
            name: request.name.clone(),
            emails: request.emails.clone(),
            phones: request.phones.clone(),
        };
        Ok(ids.into_iter().map(person).collect())
    }

    /// Newest first, each once, no more than the setting.
    async fn interactions(
        &self,
        visitor: &Visitor<'_>,
        types: &[Type],
        people: &[Person],
        deadline: Instant,
    ) -> ApiResult<Vec<wire::Interaction>> {
        if types.is_empty() || people.is_empty() {
            return Ok(Vec::new());
        }
        let of_type = |kind: &'_ Type| {
            let own = kind.own.clone();
            async move {
                let all = future::try_join_all(people.iter().map(|person| self.of(visitor, &own, person)));
                match timeout_at(deadline, all).await {
                    Ok(found) => found,
                    Err(_) => Err(Arc::new(CrmError::new(ErrorKind::Timeout, "the deadline came first"))),
                }
            }
        };
        let results = future::join_all(types.iter().map(of_type)).await;
        let (mut complete, mut failed) = (Vec::new(), Vec::new());
        for (kind, result) in types.iter().zip(results) {
            match result {
                Ok(lists) => complete.push((kind, lists)),
                Err(error) => failed.push(error),
            }
        }
        self.judge(visitor, &failed, complete.is_empty()).await?;
        let mut seen = HashSet::new();
        let mut found: Vec<(&Type, &crm::Interaction)> = complete
            .iter()
            .flat_map(|(kind, lists)| lists.iter().flat_map(|list| list.iter()).map(|item| (*kind, item)))
            .filter(|(kind, item)| seen.insert((kind.own.as_str(), item.id.as_str())))
            .collect();
        found.sort_by(|(_, a), (_, b)| (b.date, &b.id).cmp(&(a.date, &a.id)));
        found.truncate(self.policy.interactions.max);
        let dates = self.policy.interactions.dates;
        Ok(found.into_iter().map(|(kind, item)| shown(kind, item, dates)).collect())
    }

    /// Refused credentials are always the answer, as a new token mends them; of other failures only if nothing is complete.
    async fn judge(&self, visitor: &Visitor<'_>, failed: &[Arc<CrmError>], nothing: bool) -> ApiResult<()> {
        let count = |result: &'static str| {
            metrics::counter!("snapbridge_interactions_total", "result" => result).increment(1);
        };
        let Some(first) = failed.first() else {
            count("complete");
            return Ok(());
        };
        let refused =
            |error: &&Arc<CrmError>| error.kind == ErrorKind::Credentials && error.reached != Reached::Replied(403);
        if let Some(error) = failed.iter().find(refused) {
            count("failed");
            return Err(self.refused(visitor, error).await?);
        }
        if !nothing {
            count("partial");
            tracing::warn!(account = %visitor.account.id, error = process::chain(&**first), "some interactions are missing");
            return Ok(());
        }
        count("failed");
        let kind = match first.kind {
            // Good credentials that may not read this.
            ErrorKind::Credentials => ErrorKind::Rejected,
            kind => kind,
        };
        Err(ApiError::crm(kind, &visitor.integration.title, self.clock.now()).cause(process::chain(&**first)))
    }

    /// One type of one contact, from the cache or by one call for all who want it at the same time.
    async fn of(&self, visitor: &Visitor<'_>, kind: &str, person: &Person) -> Fetched {
        let key = self.interactions_key(visitor.account, kind, &person.id);
        let keep = self.policy.interactions.cache;
        if !keep.is_zero() {
            let kept = self.store.get(&key, self.clock.now()).await.map_err(store_down)?;
            if let Some(kept) = kept.and_then(|kept| serde_json::from_slice(&kept).ok()) {
                metrics::counter!("snapbridge_interactions_fetched_total", "from" => "cache").increment(1);
                return Ok(Arc::new(kept));
            }
        }
        // Not with others' credentials: theirs may be the ones that are refused.
        let flight = format!("{key}|{}", visitor.fingerprint.0);
        let fetch = || async {
            metrics::counter!("snapbridge_interactions_fetched_total", "from" => "crm").increment(1);
            let items = self.fetch(visitor, kind, person).await.map_err(Arc::new)?;
            if !keep.is_zero() {
                let kept = serde_json::to_vec(&items).unwrap_or_default();
                if let Err(error) = self.store.put(&key, &kept, keep, self.clock.now()).await {
                    tracing::debug!(%error, "interactions could not be kept");
                }
            }
            Ok(Arc::new(items))
        };
        self.desk.flights.join(&flight, fetch).await
    }

    async fn fetch(
        &self,
        visitor: &Visitor<'_>,
        kind: &str,
        person: &Person,
    ) -> Result<Vec<crm::Interaction>, CrmError> {
        let client = self.client(visitor)?;
        let found = match client.interactions(kind, person).await {
            Ok(found) => found,
            // A contact that the CRM does not have has no interactions.
            Err(error) if error.kind == ErrorKind::Missing => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        for (reason, count) in &found.dropped {
            metrics::counter!("snapbridge_interactions_dropped_total", "reason" => *reason)
                .increment(u64::from(*count));
        }
        let mut items = found.items;
        items.sort_by(|a, b| (b.date, &b.id).cmp(&(a.date, &a.id)));
        items.truncate(self.policy.interactions.max);
        Ok(items)
    }

    /// What an action changed is fetched anew.
    pub(super) async fn forget_interactions(&self, integration: &Integration, account: &Account, contact: &str) {
        for kind in integration.connector.interaction_types() {
            let key = self.interactions_key(account, kind, contact);
            if let Err(error) = self.store.delete(&key).await {
                tracing::debug!(%error, "kept interactions could not be forgotten");
            }
        }
    }

    /// Of one account alone; hashed, as the id comes from outside.
    fn interactions_key(&self, account: &Account, kind: &str, contact: &str) -> String {
        let named = format!("{}|{kind}|{contact}", account.id);
        let hash = self.keys.fingerprint(&account.integration, named.as_bytes());
        format!("interactions|{}|{}", account.id, hash.0)
    }
}

fn store_down(error: contacts::StoreError) -> Arc<CrmError> {
    let message = "the bridge's store is out of reach";
    Arc::new(CrmError::because(ErrorKind::StoreDown, message, error))
}

fn late(integration: &Integration) -> ApiError {
    ApiError::crm(ErrorKind::Timeout, &integration.title, Micros::ZERO)
}

fn shown(kind: &Type, item: &crm::Interaction, dates: DateForm) -> wire::Interaction {
    wire::Interaction {
        id: item.id.clone(),
        kind: kind.shown.clone(),
        subject: item.subject.clone(),
        description: item.description.clone(),
        date: written(item.date, dates),
        url: item.url.clone(),
        priority: item.priority.clone(),
        status: item.status.clone(),
    }
}

/// In whole seconds.
fn written(date: Micros, form: DateForm) -> String {
    let text = date.to_string();
    let (day, clock) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    match form {
        DateForm::Talkdesk => format!("{day} {clock} UTC"),
        DateForm::Rfc3339 => format!("{day}T{clock}Z"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_have_the_shape_of_the_documents() {
        let date = Micros(1_353_520_431_999_999);
        assert_eq!(written(date, DateForm::Talkdesk), "2012-11-21 17:53:51 UTC");
        assert_eq!(written(date, DateForm::Rfc3339), "2012-11-21T17:53:51Z");
    }

    proptest! {
        #[test]
        fn a_written_date_reads_back(seconds in 0..253_402_300_000_u64, micros in 0..1_000_000_u64) {
            let date = Micros(seconds * 1_000_000 + micros);
            for form in [DateForm::Talkdesk, DateForm::Rfc3339] {
                prop_assert_eq!(Micros::parse(&written(date, form)), Some(Micros::from_secs(seconds)));
            }
        }
    }
}
