//! What the authentication type of an integration (Talkdesk integration configuration) means for its connector.

use std::collections::BTreeMap;

use crm::{Connector, FieldSource, Grant};
use process::settings::{self, AuthType};

use super::exposed;

/// Chooses by which grant tokens are minted, or says why the connector does not go with this type.
pub fn choose_grant(connector: &mut Connector, auth_type: AuthType) -> Result<(), String> {
    let (word, wanted) = match auth_type {
        // The file's first grant that mints, if any: the fields decide.
        AuthType::None | AuthType::Custom => return Ok(()),
        AuthType::OAuth2 => ("oauth2", Grant::Code),
        AuthType::OAuth2Password => ("oauth2_password", Grant::Password),
        AuthType::OAuth2ClientCredentials => ("oauth2_client_credentials", Grant::ClientCredentials),
    };
    let Some(grants) = connector.grants() else {
        return Err(format!(
            "auth_type = \"{word}\" needs a connector with auth kind \"oauth2\"; this one has another"
        ));
    };
    if !grants.contains(&wanted) {
        let offered: Vec<&str> = grants.iter().map(|grant| grant.as_str()).collect();
        return Err(format!(
            "auth_type = \"{word}\" needs the grant {}; the connector has: {}",
            wanted.as_str(),
            offered.join(", ")
        ));
    }
    connector.set_minting(wanted.mints().then_some(wanted));
    Ok(())
}

/// The credentials of the settings, where Talkdesk sends none.
pub fn credentials(
    connector: &Connector,
    settings: &settings::Integration,
    problems: &mut Vec<String>,
) -> Option<BTreeMap<String, String>> {
    let mut given = exposed(&settings.credentials);
    given.retain(|_, value| !value.is_empty());
    if settings.auth_type != AuthType::None {
        if !given.is_empty() {
            problems.push("credentials are for auth_type = \"none\" only: here Talkdesk sends them".to_owned());
        }
        return None;
    }
    check_names("credentials", connector, &given, problems);
    if let Some(missing) = connector.missing_field(&given) {
        problems.push(format!(
            "credentials.{missing} is missing: with auth_type = \"none\" the workers have no other credentials"
        ));
    }
    Some(given)
}

/// Fields that the connector does not take of a customer.
pub fn check_names(key: &str, connector: &Connector, given: &BTreeMap<String, String>, problems: &mut Vec<String>) {
    let fields = connector.fields().iter();
    let known = fields.filter(|(_, field)| field.source == FieldSource::Auth);
    let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
    for name in given.keys().filter(|name| !known.contains(&name.as_str())) {
        problems.push(format!(
            "{key}.{name} is not a field that the connector takes (it takes: {})",
            known.join(", ")
        ));
    }
}

/// What auth_validation returns comes back in `auth` of every call: it must be something that was learned.
pub fn check_return_fields(connector: &Connector, fields: &[String], problems: &mut Vec<String>) {
    for field in fields {
        if !connector.learned_names().any(|name| name == field) {
            let known: Vec<&str> = connector.learned_names().collect();
            let known = if known.is_empty() {
                "nothing".to_owned()
            } else {
                known.join(", ")
            };
            problems.push(format!(
                "return_fields names {field:?}, which the connector's check does not learn (it learns: {known})"
            ));
        }
    }
}
