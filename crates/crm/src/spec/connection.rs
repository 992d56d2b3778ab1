//! Where the CRM is and what an account has to give for it.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

use super::{Vocabulary, named_templates};
use crate::expr::Template;
use crate::load::Table;

/// Whether a field or a learned value is part of one of these.
pub(crate) fn mentions<'a>(mut templates: impl Iterator<Item = &'a Template>, name: &str) -> bool {
    let name = format!("conn.{name}");
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = |text: &str| {
        text.match_indices(&name)
            .any(|(at, _)| !text[at + name.len()..].starts_with(goes_on))
    };
    templates.any(|template| template.expressions().any(|expr| named(expr.text())))
}

/// `[connection]`
#[derive(Debug)]
pub struct ConnectionSpec {
    pub base_url: Template,
    /// Host names that the rendered base URL may have, as an anchored regular expression over the lower-case host.
    /// Anything else needs `allow_hosts` of the integration.
    pub hosts: Regex,
    /// Sent with every call (`Prefer`, `Intercom-Version`, …).
    pub headers: BTreeMap<String, Template>,
    pub fields: BTreeMap<String, Field>,
}

/// One value that an account or an integration supplies.
#[derive(Clone, Debug)]
pub struct Field {
    pub kind: FieldType,
    pub source: FieldSource,
    /// `None` for values of the integration.
    pub role: Option<Role>,
    pub title: Option<String>,
    pub default: Option<String>,
    /// How often the customer has to renew it (Odoo's keys live 90 days).
    pub rotate_within: Option<Duration>,
    /// What Talkdesk's form shows with it: where to find the value.
    pub help: Option<String>,
    /// How Talkdesk's form shows it, `https://{{account}}.crm.example` (Talkdesk, authentication_configuration).
    pub format: Option<String>,
    /// Supplied by the OAuth authority, not by the customer.
    pub oauth: bool,
    /// Whether Talkdesk keeps it; one-time codes are not kept.
    pub store: bool,
    /// Its place in the file, which is the order for people.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Text,
    Secret,
    Int,
    /// A bare host name.
    Host,
    /// An origin, `https://` assumed: `acme.example`, `https://acme.example`, `http://127.0.0.1:8069`.
    Site,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldSource {
    /// In `auth` of every Talkdesk call.
    Auth,
    /// Fixed in the settings of the integration.
    Integration,
}

/// What an `auth` field says about the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Which CRM or tenant: site, account name, database.
    Locator,
    /// Which user of it.
    Principal,
    Secret,
    /// A hint that the bridge gave out itself; never identity.
    Ignored,
}

impl Field {
    /// A value as it is used. `None`: it is not of the field's type.
    pub(crate) fn normal(&self, value: &str) -> Option<String> {
        match self.kind {
            FieldType::Text | FieldType::Secret => Some(value.to_owned()),
            FieldType::Int => value.trim().parse::<i64>().ok().map(|number| number.to_string()),
            FieldType::Host => crate::identity::host(value),
            FieldType::Site => crate::identity::site(value),
        }
    }
}

impl ConnectionSpec {
    /// What in `base_url` may be another thing for each account: a field of `auth`, or something `learned`.
    pub(crate) fn base_differs_by<'a>(&'a self, learned: impl Iterator<Item = &'a String>) -> Option<&'a str> {
        let of_auth = |(name, field): (&'a String, &Field)| (field.source == FieldSource::Auth).then_some(name);
        let mut names = self.fields.iter().filter_map(of_auth).chain(learned);
        let base = || std::iter::once(&self.base_url);
        names.find(|name| mentions(base(), name)).map(String::as_str)
    }

    pub(super) fn read(table: Table<'_, '_>, vocabulary: &mut Vocabulary) -> Option<ConnectionSpec> {
        let fields = match table.need_table("fields") {
            Some(fields) => fields.named(|name, at, field| Field::read(name, at, field)),
            None => BTreeMap::new(),
        };
        vocabulary.fields.extend(fields.keys().cloned());
        let secret = |field: &&Field| field.kind == FieldType::Secret;
        vocabulary.secrets.extend(
            fields
                .iter()
                .filter(|(_, field)| secret(field))
                .map(|(name, _)| name.clone()),
        );

        let base_url = table.need_template("base_url", &vocabulary.base());
        for expr in base_url.iter().flat_map(Template::expressions) {
            if let Some(name) = vocabulary
                .secrets
                .iter()
                .find(|name| expr.text().contains(&format!("conn.{name}")))
            {
                table.problem(
                    "base_url",
                    format!("the secret `{name}` must not be part of a URL"),
                    None,
                );
            }
        }
        let hosts = read_hosts(&table);
        // `base_url` is not known yet inside itself, and headers come after it.
        let headers = table
            .table("headers")
            .map_or_else(BTreeMap::new, |headers| named_templates(headers, &vocabulary.base()));
        super::request::check_header_names(&table, headers.keys());
        table.finish();
        Some(ConnectionSpec {
            base_url: base_url?,
            hosts: hosts?,
            headers,
            fields,
        })
    }
}

fn read_hosts(table: &Table<'_, '_>) -> Option<Regex> {
    let hint = "for example `^[a-z0-9-]{1,63}\\.example\\.com$`; other hosts need `allow_hosts` of the integration";
    let pattern = table.need_text("hosts")?;
    if !pattern.starts_with('^') || !pattern.ends_with('$') {
        table.problem(
            "hosts",
            "`connection.hosts` must begin with ^ and end with $",
            Some(hint),
        );
        return None;
    }
    match Regex::new(&format!("^(?:{})$", &pattern[1..pattern.len() - 1])) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            table.problem(
                "hosts",
                format!("`connection.hosts` is not a regular expression: {last}"),
                Some(hint),
            );
            None
        }
    }
}

impl Field {
    fn read(name: &str, at: usize, table: Table<'_, '_>) -> Option<Field> {
        let kind = table.need_choice(
            "type",
            &[
                ("string", FieldType::Text),
                ("secret", FieldType::Secret),
                ("int", FieldType::Int),
                ("host", FieldType::Host),
                ("site", FieldType::Site),
            ],
        );
        let source = table
            .choice(
                "from",
                &[("auth", FieldSource::Auth), ("integration", FieldSource::Integration)],
            )
            .unwrap_or(FieldSource::Auth);
        let role = table.choice(
            "role",
            &[
                ("locator", Role::Locator),
                ("principal", Role::Principal),
                ("secret", Role::Secret),
                ("ignored", Role::Ignored),
            ],
        );
        let role = role.or((kind == Some(FieldType::Secret)).then_some(Role::Secret));
        let hint = Some("one of locator, principal, secret, ignored".to_owned());
        match source {
            FieldSource::Auth if role.is_none() && kind.is_some() => {
                table.reader.problem(at, format!("field `{name}` needs a `role`"), hint);
            }
            FieldSource::Auth if kind == Some(FieldType::Secret) && role != Some(Role::Secret) => {
                table.reader.problem(
                    at,
                    format!("field `{name}` is a secret, its role must be `secret`"),
                    None,
                );
            }
            FieldSource::Integration if table.has("role") => {
                table.problem(
                    "role",
                    format!("field `{name}` comes from the settings and has no role"),
                    None,
                );
            }
            _ => {}
        }
        if !name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            || name == "base_url"
        {
            table.reader.problem(
                at,
                format!("`{name}` cannot be the name of a field"),
                Some("a-z, 0-9 and _".to_owned()),
            );
        }
        let field = Field {
            kind: kind.unwrap_or(FieldType::Text),
            source,
            role: if source == FieldSource::Auth { role } else { None },
            title: table.text("title"),
            default: table.text("default"),
            rotate_within: table.duration("rotate_within"),
            help: table.text("help"),
            format: table.text("format"),
            oauth: table.boolean("oauth").unwrap_or(false),
            store: table.boolean("store").unwrap_or(true),
            at,
        };
        table.finish();
        kind.map(|_| field)
    }
}
