//! The absolute URLs of an integration, for people: what Talkdesk's integration configuration asks for, and the CRM's
//! webhooks.

use process::settings::Settings;

use crate::images::Image;
use crate::integrations::Integration;

/// Stands for a path secret, which is not kept.
const SECRET: &str = "SECRET";

/// Talkdesk's name of each endpoint that the integration has, and the end of its path.
fn endpoints(integration: &Integration) -> Vec<(String, String)> {
    let connector = &integration.connector;
    let has_interactions = connector.interaction_types().next().is_some();
    let every = [
        ("auth_validation_endpoint", "auth_validation", true),
        ("contact_synchronization_endpoint", "contact_sync", true),
        ("interaction_retrieval_endpoint", "interaction_update", has_interactions),
        ("agent_synchronization_endpoint", "agent_sync", connector.has_agents()),
    ];
    let endpoints = every.into_iter().filter(|(_, _, has)| *has);
    let actions = connector
        .actions()
        .map(|name| (format!("endpoint of {name}"), format!("actions/{name}")));
    endpoints
        .map(|(name, path, _)| (name.to_owned(), path.to_owned()))
        .chain(actions)
        .collect()
}

/// `http.public_url`, without a slash at its end.
pub fn base(settings: &Settings) -> Option<String> {
    let url = settings.http.public_url.as_ref()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Name and URL of everything under the integration's name.
pub fn of(base: &str, integration: &Integration) -> Vec<(String, String)> {
    let here = format!("{base}/{}", integration.name);
    let calls = match integration.guard.has_path_secret() {
        true => format!("{here}/k/{SECRET}"),
        false => here.clone(),
    };
    let image = |name: &str, image: &Image| {
        let extension = image.format.extension();
        (format!("{name}_url"), format!("{here}/{name}.{extension}"))
    };
    let mut urls = vec![image("logo", &integration.logo), image("icon", &integration.icon)];
    urls.extend(
        endpoints(integration)
            .into_iter()
            .map(|(name, path)| (name, format!("{calls}/{path}"))),
    );
    let hooks = integration.connector.webhook();
    if hooks.is_some_and(|hooks| hooks.is_app_level()) && !integration.app_secrets().is_empty() {
        urls.push(("webhooks of the CRM's app".to_owned(), format!("{here}/webhooks")));
    }
    if hooks.is_some_and(|hooks| hooks.is_per_account()) {
        urls.push(("webhooks of an account".to_owned(), format!("{here}/webhooks/HOOK")));
    }
    urls
}
