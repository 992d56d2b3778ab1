//! Reads `[auth]` of the kind `oauth2`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::expr::{Attributes, Names, Template};
use crate::load::{Table, suggest};
use crate::spec::{Assertion, ClientAuth, Grant, Oauth2, Vocabulary, named_templates};

const GRANTS: [Grant; 4] = [Grant::Code, Grant::ClientCredentials, Grant::Password, Grant::JwtBearer];

/// Where Talkdesk keeps an access token unless the integration's configuration names the field otherwise.
const ACCESS_TOKEN: &str = "access_token";
/// How long an assertion is good unless the file says otherwise: enough for two clocks that differ a little.
const LIFETIME: Duration = Duration::from_secs(180);
/// The token endpoint among the fields of Talkdesk's configuration.
const ACCESS_TOKEN_URL: &str = "access_token_url";

pub(super) fn read(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Oauth2> {
    let names = vocabulary.call();
    let grants = read_grants(table);
    let token_fields = read_token_fields(table, vocabulary);
    let client_auth = table.choice(
        "client_auth",
        &[("body", ClientAuth::Body), ("basic", ClientAuth::Basic)],
    );
    let no_secrets = vocabulary.call().withholding(vocabulary.secrets.iter().cloned());
    let token_url = if table.has("token_url") {
        table.template("token_url", &no_secrets)
    } else {
        Template::compile(&format!("${{conn.{ACCESS_TOKEN_URL}}}"), &no_secrets, &|_| table.at).ok()
    };
    let has_assertion = table.has("assertion");
    let assertion = table
        .table("assertion")
        .and_then(|assertion| read_assertion(assertion, &no_secrets));
    let (scope, lifetime) = (table.text("scope"), table.duration("lifetime"));
    let params = table
        .table("params")
        .map_or_else(Default::default, |params| named_templates(params, &names));
    // Not a name of `session` for all expressions: what replies are tested for or learned from must not see a token.
    let with_token = vocabulary.call().with("session", Attributes::only([ACCESS_TOKEN]));
    let headers = table
        .table("headers")
        .map_or_else(Default::default, |headers| named_templates(headers, &with_token));
    crate::spec::request::check_header_names(table, headers.keys());

    let grants = grants?;
    for field in &token_fields {
        secret(table, vocabulary, field);
    }
    if grants.contains(&Grant::Code) && token_fields.is_empty() {
        let what = format!("the grant `code` needs a field that carries the token: `connection.fields.{ACCESS_TOKEN}`");
        table.problem("grants", what, None);
    }
    // Tokens from a code that the bridge exchanged could be kept by Talkdesk, but never renewed: a refresh token that
    // rotates has no way back into what Talkdesk has stored.
    if vocabulary.fields.contains("code") {
        let what = "a one-time `code` in `auth` is not exchanged here: its tokens could not be renewed later";
        let hint = "take auth_type \"oauth2\": Talkdesk exchanges the code, renews the token and brings it";
        table.problem("grants", what, Some(hint));
    }
    if grants.contains(&Grant::JwtBearer) && !has_assertion {
        let hint = "assertion = { audience = \"https://login.example\", lifetime = \"3m\" }";
        table.problem("grants", "the grant `jwt_bearer` needs `auth.assertion`", Some(hint));
    }
    if grants.iter().any(|grant| grant.mints()) {
        check_minting(table, vocabulary, &grants, token_url.as_ref());
    }
    Some(Oauth2 {
        grants,
        token_fields,
        token_url,
        client_auth: client_auth.unwrap_or(ClientAuth::Body),
        scope,
        assertion,
        params,
        headers,
        lifetime,
    })
}

fn read_assertion(table: Table<'_, '_>, names: &Names) -> Option<Assertion> {
    let audience = table.need_template("audience", names);
    let lifetime = table.duration("lifetime").unwrap_or(LIFETIME);
    if lifetime < Duration::from_secs(10) || lifetime > Duration::from_secs(3600) {
        table.problem("lifetime", "an assertion is good for 10s to 1h", None);
    }
    table.finish();
    Some(Assertion {
        audience: audience?,
        lifetime,
    })
}

fn read_grants(table: &Table<'_, '_>) -> Option<Vec<Grant>> {
    let words = GRANTS.map(Grant::as_str);
    if !table.has("grants") {
        let hint = format!("a list of {}", words.join(", "));
        table.problem("grants", "`auth.grants` is missing", Some(&hint));
        return None;
    }
    let mut grants = Vec::new();
    for (text, at) in table.texts("grants")? {
        match GRANTS.into_iter().find(|grant| grant.as_str() == text) {
            Some(grant) => grants.push(grant),
            None => {
                let what = format!("`auth.grants` does not know `{text}`");
                table.reader.problem(at, what, suggest(&text, &words));
            }
        }
    }
    if grants.is_empty() {
        table.problem("grants", "`auth.grants` names no grant that is run", None);
    }
    Some(grants)
}

/// `access_token` first, then what the file adds.
fn read_token_fields(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    if vocabulary.fields.contains(ACCESS_TOKEN) {
        fields.push(ACCESS_TOKEN.to_owned());
    }
    for (field, at) in table.texts("token_fields").unwrap_or_default() {
        if !vocabulary.fields.contains(&field) {
            let what = format!("`auth.token_fields` names `{field}`, which is no field of the connection");
            table.reader.problem(at, what, None);
        } else if !fields.contains(&field) {
            fields.push(field);
        }
    }
    fields
}

fn secret(table: &Table<'_, '_>, vocabulary: &Vocabulary, field: &str) {
    if vocabulary.fields.contains(field) && !vocabulary.secrets.contains(field) {
        let what = format!("the field `{field}` must be of type `secret`");
        table.problem("grants", what, None);
    }
}

fn check_minting(table: &Table<'_, '_>, vocabulary: &Vocabulary, grants: &[Grant], token_url: Option<&Template>) {
    let wanted: BTreeSet<&str> = grants.iter().flat_map(|grant| grant.fields()).copied().collect();
    for field in wanted {
        if !vocabulary.fields.contains(field) {
            let what = format!("minting tokens needs the field `{field}` under `connection.fields`");
            table.problem("grants", what, None);
        }
    }
    secret(table, vocabulary, "client_secret");
    secret(table, vocabulary, "password");
    secret(table, vocabulary, "private_key");
    if token_url.is_none() {
        let what = format!("`auth.token_url` is missing, and there is no field `{ACCESS_TOKEN_URL}` in its place");
        table.problem("grants", what, None);
    }
}
