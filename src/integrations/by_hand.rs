//! What people do at a CRM because the bridge cannot: set a webhook up, renew a secret.

use contacts::AccountId;
use crm::Connector;
use secrecy::SecretString;
use serde::Serialize;

use super::Integration;
use crate::status::span;

/// How a person sets a webhook up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ByHand {
    /// Where the CRM delivers; the path alone while `http.public_url` is not set.
    pub url: String,
    /// The setting with the secret of the CRM's app. `None`: the account has a secret of its own.
    pub secret_setting: Option<String>,
    pub steps: Vec<String>,
}

impl Integration {
    /// `None`: the CRM has no webhooks.
    pub fn webhook_by_hand(&self, account: &AccountId) -> Option<ByHand> {
        let hooks = self.connector.webhook()?;
        let own = hooks.is_per_account();
        let hook = own.then(|| format!("/{}", self.deps.keys.hook_id(account)));
        Some(ByHand {
            url: format!(
                "{}/{}/webhooks{}",
                self.base.as_deref().unwrap_or_default(),
                self.name,
                hook.unwrap_or_default()
            ),
            secret_setting: (!own).then(|| format!("integrations.{}.app.webhook_secret", self.name)),
            steps: hooks.manual_steps().to_vec(),
        })
    }

    /// The account's own secret, as its CRM takes it; `None` where the CRM's app has one for all accounts.
    pub fn webhook_secret(&self, account: &AccountId) -> Option<SecretString> {
        let hooks = self.connector.webhook().filter(crm::Hooks::is_per_account)?;
        Some(hooks.secret(&self.deps.keys.hook_secret(account)))
    }
}

/// Fields whose values end at the CRM, one sentence each.
pub fn renewals(connector: &Connector) -> Vec<String> {
    let fields = connector.fields().iter();
    fields
        .filter_map(|(name, field)| {
            let within = field.rotate_within?;
            let title = field.title.as_deref().unwrap_or(name);
            Some(format!(
                "{title} (`{name}`): the customer renews it within {}, and Talkdesk is told the new one",
                span(within)
            ))
        })
        .collect()
}
