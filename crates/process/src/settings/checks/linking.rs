//! Integrations of the kind `linking`, and their dealers.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::{Checks, DEALERS, INTEGRATIONS};
use crate::settings::Settings;
use crate::settings::sections::{Dealer, FieldOwner, Integration, IntegrationKind, UpdateAuth};

/// A shorter one could be guessed.
const SHORTEST_SECRET: usize = 16;

pub(super) fn run(checks: &mut Checks<'_>, s: &Settings) {
    for (name, integration) in &s.integrations {
        match integration.kind {
            IntegrationKind::Linking => linking(checks, name, integration),
            IntegrationKind::Talkdesk => talkdesk(checks, name, integration),
        }
    }
    let mut organizations = BTreeMap::new();
    for (name, dealer) in &s.dealers {
        dealer_of(checks, s, name, dealer);
        let key = format!("{DEALERS}.{name}.organization");
        if !dealer.organization.is_empty()
            && let Some(other) = organizations.insert(dealer.organization.as_str(), name)
        {
            let what = format!("`{key}` is the same as that of `{DEALERS}.{other}`");
            let hint = "a dealer has one set of settings: two would write the links of one contact at the same time";
            checks.refuse(&[&key], what, Some(hint));
        }
    }
    let open: Vec<&String> = s
        .integrations
        .iter()
        .filter(|(_, integration)| integration.kind == IntegrationKind::Linking && integration.auth == UpdateAuth::None)
        .map(|(name, _)| name)
        .collect();
    if let [first, second, ..] = open.as_slice() {
        let key = format!("{INTEGRATIONS}.{second}.auth");
        let what = format!("`{key}` is \"none\", as is that of `{INTEGRATIONS}.{first}`");
        checks.refuse(&[&key], what, Some("only one can have the root paths"));
    }
}

fn linking(checks: &mut Checks<'_>, name: &str, integration: &Integration) {
    let path = format!("{INTEGRATIONS}.{name}");
    let key = |key: &str| format!("{path}.{key}");
    if integration.dms.as_deref().unwrap_or_default().is_empty() {
        let hint = "the name of a shipped connector with a [link] section, or the path of a connector's file";
        let what = format!("`{path}` is of the kind \"linking\" and needs a `dms`");
        checks.refuse(&[&key("dms"), &path], what, Some(hint));
    }
    if integration.seed_ahead > integration.inbox / 2 {
        let (ahead, inbox) = (key("seed_ahead"), key("inbox"));
        let what = format!("`{ahead}` must be at most half of `{inbox}`");
        checks.refuse(
            &[&ahead, &inbox],
            what,
            Some("what happens while a dealer is seeded needs room, too"),
        );
    }
    for (name, set) in [
        ("path_secret", !integration.path_secret.is_empty()),
        ("bridge_key", !integration.bridge_key.is_empty()),
    ] {
        if set {
            let key = key(name);
            let what = format!("`{key}` guards nothing of an integration of the kind \"linking\"");
            checks.refuse(&[&key], what, Some("a DMS proves itself with [dealers.NAME] secrets"));
        }
    }
}

/// What would be taken silently and do nothing.
fn talkdesk(checks: &mut Checks<'_>, name: &str, integration: &Integration) {
    let path = format!("{INTEGRATIONS}.{name}");
    let set = [
        ("dms", integration.dms.is_some()),
        ("dms_url", integration.dms_url.is_some()),
        ("dms_icon", integration.dms_icon.is_some()),
        ("dms_hosts", !integration.dms_hosts.is_empty()),
        ("dms_connection", !integration.dms_connection.is_empty()),
        ("auth", integration.auth != UpdateAuth::Bearer),
        ("owner_name", integration.owner_name != FieldOwner::Nobody),
        ("owner_email", integration.owner_email != FieldOwner::Nobody),
        ("owner_phone", integration.owner_phone != FieldOwner::Nobody),
    ];
    for (key, _) in set.into_iter().filter(|(_, set)| *set) {
        let key = format!("{path}.{key}");
        let what = format!("`{key}` is for the kind \"linking\"");
        checks.refuse(&[&key], what, Some("write kind = \"linking\", or take it out"));
    }
}

fn dealer_of(checks: &mut Checks<'_>, s: &Settings, name: &str, dealer: &Dealer) {
    let path = format!("{DEALERS}.{name}");
    let key = |key: &str| format!("{path}.{key}");
    let integration = s.integrations.get(&dealer.integration);
    let linking = integration.filter(|integration| integration.kind == IntegrationKind::Linking);
    if linking.is_none() {
        let what = match (dealer.integration.is_empty(), integration) {
            (true, _) => format!("`{path}` needs an `integration`"),
            (_, None) => format!(
                "`{path}` names the integration {:?}, which is not there",
                dealer.integration
            ),
            (_, Some(_)) => format!(
                "`{path}` names the integration {:?}, which is not of the kind \"linking\"",
                dealer.integration
            ),
        };
        checks.refuse(
            &[&key("integration"), &path],
            what,
            Some("the name of an integration with kind = \"linking\""),
        );
    }
    let good = |c: char| !c.is_control() && !c.is_whitespace();
    if dealer.organization.is_empty() || dealer.organization.len() > 255 || !dealer.organization.chars().all(good) {
        let what = format!("`{path}` needs an `organization`, of at most 255 characters and without blanks");
        checks.refuse(&[&key("organization"), &path], what, Some("Web1on1's id of the dealer"));
    }
    if linking.is_some_and(|linking| linking.auth != UpdateAuth::None) && dealer.secrets.is_empty() {
        let what = format!("`{path}` needs `secrets`: its DMS has nothing to prove itself with");
        checks.refuse(
            &[&key("secrets"), &path],
            what,
            Some("such as secrets = { first = \"…\" }; `openssl rand -hex 24` makes one"),
        );
    }
    for (of, secret) in &dealer.secrets {
        if secret.expose_secret().len() < SHORTEST_SECRET {
            let key = format!("{}.{of}", key("secrets"));
            checks.refuse(
                &[&key],
                format!("`{key}` must have {SHORTEST_SECRET} characters or more"),
                None,
            );
        }
    }
    if let Some(linking) = linking
        && linking.dms_url.is_none()
        && dealer.dms_url.is_none()
    {
        let what = format!("`{path}` has no `dms_url`, and neither has its integration");
        checks.refuse(
            &[&key("dms_url"), &path],
            what,
            Some("such as https://dms.example/customer/{id}/"),
        );
    }
    checks.region(&key("region"), dealer.region.as_deref());
}
