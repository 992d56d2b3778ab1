//! What a person needs to set an account's webhook up at its CRM, the secret included.

use contacts::subscription;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::integrations::ByHand;
use crate::status;

/// Its debug output would show the secret: it has none.
#[derive(Serialize)]
pub struct WebhookView {
    #[serde(flatten)]
    pub by_hand: ByHand,
    /// What deliveries are proven with; `None`: the one of the setting that `secret_setting` names.
    pub secret: Option<String>,
    /// How the webhook stands, where the CRM has one for each account.
    pub sentence: Option<String>,
}

impl Operate {
    /// The audit notes who has seen the secret.
    pub async fn webhook(&self, who: &Operator, id: &str) -> Result<WebhookView, Refusal> {
        allow(who, Grant::Admin)?;
        let account = self.known_account(id).await?;
        let name = &account.integration;
        let integration = self
            .integrations
            .get(name)
            .ok_or_else(|| Refusal::Conflict(format!("the integration {name} is not configured any more")))?;
        let by_hand = integration.webhook_by_hand(&account.id).ok_or_else(|| {
            Refusal::Conflict(format!(
                "connector {} has no webhooks; polls find its changes",
                account.connector
            ))
        })?;
        let known = subscription::load(&*self.store, &account.id).await?;
        let now = self.clock.now();
        let secret = integration.webhook_secret(&account.id);
        self.note(who, "show webhook", account.id.as_str(), "its URL and secret")
            .await?;
        Ok(WebhookView {
            by_hand,
            secret: secret.map(|secret| secret.expose_secret().to_owned()),
            sentence: known.map(|known| status::webhook(&known, now).sentence),
        })
    }
}
