//! An integration's configuration, from its settings and its connector.

use std::path::Path;

use crm::{Connector, FieldSource, FieldType, Role};
use process::settings::{self, Settings};
use talkdesk::config::{
    Action, AuthField, AuthType, Configuration, FieldType as Obtained, Input, InputType, Integration, Wants,
};

use super::document::{Block, Document};
use crate::images::{Image, Purpose};
use crate::integrations::connector_source;

/// Stands in URLs for a secret that is not shown.
pub const MASK: &str = "***";

/// A configuration without a problem, and what else its documents need to know.
#[derive(Debug)]
pub struct Described {
    pub configuration: Configuration,
    /// The CRM's name for people.
    pub crm: String,
    /// The bridge secret stands in the URLs and is masked there.
    pub masked: bool,
    /// Authentication fields that are secrets.
    pub secret_fields: Vec<String>,
}

/// Why there is no configuration; one line each, with its place and where to mend it.
pub type Problems = Vec<String>;

/// Describes the integration of this name. `folder` is where relative paths start. `secret` is the bridge's secret for the
/// URLs, which the settings keep as a hash only; without it, it is masked there.
///
/// # Errors
/// Every problem at once: of the settings, the connector, and the rules of [`talkdesk::config`].
pub fn describe(name: &str, all: &Settings, folder: &Path, secret: Option<&str>) -> Result<Described, Problems> {
    let Some(integration) = all.integrations.get(name) else {
        let known: Vec<&str> = all.integrations.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        return Err(vec![format!("no integration is called {name:?}: {known}")]);
    };
    let (source, file) = connector_source(&integration.connector, folder).map_err(|problem| vec![problem])?;
    let connector = Connector::load(&source, &file)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Problems>())?;
    let mut problems = Vec::new();
    if all.http.public_url.is_none() {
        let what = "http.public_url is not set: the endpoints need the URL under which Talkdesk reaches the bridge";
        problems.push(what.to_owned());
    }
    let root = all
        .http
        .public_url
        .as_ref()
        .map_or("https://bridge.invalid", |url| url.as_str().trim_end_matches('/'));
    let secret = match (integration.path_secret.is_empty(), secret) {
        (true, None) => None,
        (true, Some(_)) => {
            problems.push(format!(
                "a secret was given, but integrations.{name}.path_secret is not set"
            ));
            None
        }
        (false, None) => Some(MASK),
        (false, Some(secret)) => {
            if !integration.path_secret.admit(secret) {
                problems.push(format!("the given secret is none of integrations.{name}.path_secret"));
            }
            Some(secret)
        }
    };
    let mut picture = |purpose: Purpose, file: &Option<std::path::PathBuf>| {
        let image = Image::load(purpose, file.as_deref(), folder, all.http.image_limit.0);
        let image = image
            .map_err(|problem| problems.push(format!("integrations.{name}.{problem}")))
            .ok();
        image.map_or("png", |image| image.format.extension())
    };
    let pictures = [
        format!("logo.{}", picture(Purpose::Logo, &integration.logo)),
        format!("icon.{}", picture(Purpose::Icon, &integration.icon)),
    ];
    let urls = Urls {
        pictures: pictures.map(|picture| format!("{root}/{name}/{picture}")),
        endpoints: match secret {
            Some(secret) => format!("{root}/{name}/k/{secret}"),
            None => format!("{root}/{name}"),
        },
    };
    let crm = crm_name(connector.title()).to_owned();
    let configuration = configuration(name, integration, &connector, &crm, &urls);
    let wants = Wants { cti: integration.cti };
    let found = configuration.problems(wants);
    problems.extend(
        found
            .iter()
            .map(|problem| format!("{problem} ({})", mend(&problem.place, name, &file))),
    );
    if problems.is_empty() {
        Ok(Described {
            configuration,
            crm,
            masked: secret == Some(MASK),
            secret_fields: connector
                .fields()
                .iter()
                .filter(|(_, field)| field.kind == FieldType::Secret)
                .map(|(name, _)| name.clone())
                .collect(),
        })
    } else {
        Err(problems)
    }
}

/// Where a problem's cause stands.
fn mend(place: &str, name: &str, file: &str) -> String {
    let setting = |key: &str| format!("set integrations.{name}.{key}");
    match place {
        "integration.display_name" => setting("display_name"),
        "integration.description" => setting("description"),
        "integration.logo_url" => setting("logo_url"),
        "integration.icon_url" => setting("icon_url"),
        "integration.authentication_configuration" => format!("{}, or see {file}", setting("auth_type")),
        place if place.ends_with("_endpoint") || place.ends_with(".endpoint") => format!("http.public_url, {file}"),
        _ => format!("in {file}"),
    }
}

/// A connector's title without what it says of versions: `Odoo 14 to 18 (JSON-RPC)` is `Odoo` to a reader.
pub fn crm_name(title: &str) -> &str {
    let end = title
        .find(|c: char| c == '(' || c.is_ascii_digit())
        .unwrap_or(title.len());
    match title[..end].trim() {
        "" => title,
        name => name,
    }
}

struct Urls {
    /// Of the logo and the icon that the front serves.
    pictures: [String; 2],
    endpoints: String,
}

fn configuration(
    name: &str,
    settings: &settings::Integration,
    connector: &Connector,
    crm: &str,
    urls: &Urls,
) -> Configuration {
    let endpoint = |path: &str| format!("{}/{path}", urls.endpoints);
    let text = |set: &Option<String>, otherwise: String| set.clone().unwrap_or(otherwise);
    let image = |set: &Option<url::Url>, served: &str| {
        set.as_ref()
            .map_or_else(|| served.to_owned(), |url| url.as_str().to_owned())
    };
    let display_name = text(&settings.display_name, crm.to_owned());
    let kind = auth_type(settings.auth_type);
    let interaction_types: Vec<String> = connector.interaction_types().map(str::to_owned).collect();
    let integration = Integration {
        name: name.to_owned(),
        description: text(
            &settings.description,
            format!("Contacts of {display_name}, kept up to date in Talkdesk"),
        ),
        display_name,
        logo_url: image(&settings.logo_url, &urls.pictures[0]),
        icon_url: image(&settings.icon_url, &urls.pictures[1]),
        authentication_type: kind,
        authentication_configuration: fields(kind, settings, connector),
        auth_validation_endpoint: Some(endpoint("auth_validation")),
        contact_synchronization_endpoint: Some(endpoint("contact_sync")),
        interaction_retrieval_endpoint: (!interaction_types.is_empty()).then(|| endpoint("interaction_update")),
        agent_synchronization_endpoint: connector.has_agents().then(|| endpoint("agent_sync")),
        interaction_types,
    };
    let actions = connector
        .actions()
        .filter_map(|name| connector.action(name))
        .map(|action| {
            let display = text(&action.display, action.name.replace('_', " "));
            Action {
                provider: name.to_owned(),
                name: action.name.clone(),
                description: text(
                    &action.description,
                    format!("{display} in {}", integration.display_name),
                ),
                display,
                endpoint: endpoint(&format!("actions/{}", action.name)),
                inputs: inputs(action),
            }
        })
        .collect();
    Configuration { integration, actions }
}

fn auth_type(kind: settings::AuthType) -> AuthType {
    match kind {
        settings::AuthType::None => AuthType::None,
        settings::AuthType::Custom => AuthType::Custom,
        settings::AuthType::OAuth2 => AuthType::OAuth2,
        settings::AuthType::OAuth2Password => AuthType::OAuth2Password,
        settings::AuthType::OAuth2ClientCredentials => AuthType::OAuth2ClientCredentials,
    }
}

/// The connector's own fields in the order of its file, then those that the grant needs and the connector does not know:
/// Talkdesk gets tokens with them by itself.
fn fields(kind: AuthType, settings: &settings::Integration, connector: &Connector) -> Vec<AuthField> {
    if kind == AuthType::None {
        return Vec::new();
    }
    let oauth = !kind.mandatory_fields().is_empty();
    let mut known: Vec<_> = connector
        .fields()
        .iter()
        .filter(|(_, field)| field.source == FieldSource::Auth)
        // One file may offer several grants; what only another one asks for is not asked for here.
        .filter(|(name, _)| !oauth || kind.mandatory_fields().contains(&name.as_str()) || !is_of_a_grant(name))
        .collect();
    known.sort_by_key(|(_, field)| field.at);
    let mut fields: Vec<AuthField> = known
        .into_iter()
        .map(|(name, field)| {
            let supplied = field.oauth || (oauth && connector.token_fields().contains(name));
            let needed = kind.mandatory_fields().contains(&name.as_str());
            // What auth_validation returns for Talkdesk to keep has to be configured, too, but nobody fills it in.
            let hint = field.role == Some(Role::Ignored);
            AuthField {
                field_name: name.clone(),
                display: field.title.clone().unwrap_or_else(|| spoken(name)),
                mandatory: needed || (field.default.is_none() && !supplied && !hint),
                kind: if supplied { Obtained::OAuth } else { Obtained::Input },
                store: field.store,
                help: help(field, supplied),
                format: field.format.clone(),
            }
        })
        .collect();
    for name in kind.mandatory_fields() {
        if fields.iter().all(|field| field.field_name != *name) {
            let secret = matches!(*name, "client_secret" | "password");
            fields.push(AuthField {
                field_name: (*name).to_owned(),
                display: spoken(name),
                mandatory: true,
                kind: Obtained::Input,
                store: true,
                help: secret.then(|| SECRET.to_owned()),
                format: None,
            });
        }
    }
    fields.extend(bridge_key(settings));
    for name in &settings.return_fields {
        if fields.iter().all(|field| field.field_name != *name) {
            fields.push(AuthField {
                field_name: name.clone(),
                display: spoken(name),
                mandatory: false,
                kind: Obtained::Input,
                store: true,
                help: Some("Leave it empty: the bridge fills it in when the credentials are validated".to_owned()),
                format: None,
            });
        }
    }
    fields
}

fn is_of_a_grant(name: &str) -> bool {
    let grants = [
        AuthType::OAuth2,
        AuthType::OAuth2Password,
        AuthType::OAuth2ClientCredentials,
    ];
    grants.iter().any(|kind| kind.mandatory_fields().contains(&name))
}

/// The field in which Talkdesk sends the bridge's own secret, if there is one.
fn bridge_key(settings: &settings::Integration) -> Option<AuthField> {
    (!settings.bridge_key.is_empty()).then(|| AuthField {
        field_name: settings.bridge_key_field.clone(),
        display: spoken(&settings.bridge_key_field),
        mandatory: true,
        kind: Obtained::Input,
        store: true,
        help: Some(format!("From the operator of the bridge. {SECRET}")),
        format: None,
    })
}

/// Talkdesk has no type for a secret, so the help text says it.
const SECRET: &str = "A secret: please show it as a password field";

fn help(field: &crm::Field, supplied: bool) -> Option<String> {
    let secret = (field.kind == FieldType::Secret && !supplied).then_some(SECRET);
    match (&field.help, secret) {
        (Some(help), Some(secret)) => Some(format!("{}. {secret}", help.trim_end_matches('.'))),
        (Some(help), None) => Some(help.clone()),
        (None, secret) => secret.map(str::to_owned),
    }
}

/// `client_id` as people say it.
fn spoken(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + letters.as_str()
}

fn inputs(action: &crm::spec::Action) -> Vec<Input> {
    let mut known: Vec<_> = action.inputs.iter().collect();
    known.sort_by_key(|(_, input)| input.at);
    known
        .into_iter()
        .map(|(key, input)| Input {
            key: key.clone(),
            name: input.title.clone().unwrap_or_else(|| spoken(key)),
            mandatory: input.mandatory,
            // The connector's words are the contract's.
            kind: InputType::of(input.kind).unwrap_or(InputType::Text),
            format: match input.options.is_empty() {
                true => input.default.clone(),
                false => Some(input.options.join(",")),
            },
        })
        .collect()
}

#[derive(serde::Serialize)]
struct Noted<'a> {
    #[serde(flatten)]
    configuration: &'a Configuration,
    notes: Vec<String>,
}

impl Described {
    /// The configuration as JSON, in the order of the contract, with the notes that a reader needs.
    pub fn json(&self) -> String {
        let noted = Noted {
            configuration: &self.configuration,
            notes: self.notes(),
        };
        // Texts and lists of texts have no way to fail.
        serde_json::to_string_pretty(&noted).unwrap_or_default()
    }

    /// The configuration as a document.
    pub fn document(&self) -> Document {
        let it = &self.configuration.integration;
        let mut blocks = vec![
            Block::heading(1, format!("{} in Talkdesk", it.display_name)),
            Block::heading(2, "Integration"),
            Block::table(["Field", "Value"], integration_rows(it)),
            Block::heading(2, "Actions"),
        ];
        if self.configuration.actions.is_empty() {
            blocks.push(Block::text(NO_ACTIONS));
        }
        for action in &self.configuration.actions {
            blocks.push(Block::heading(3, action.name.clone()));
            blocks.push(Block::table(["Field", "Value"], action_rows(action)));
        }
        blocks.push(Block::heading(2, "Notes"));
        blocks.extend(self.notes().into_iter().map(Block::Item));
        Document::new(format!("{} in Talkdesk", it.display_name), blocks)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = talkdesk::config::EDITIONS.iter().map(ToString::to_string).collect();
        if self.masked {
            notes.push(MASKED.to_owned());
        }
        notes
    }
}

pub(super) const NO_ACTIONS: &str = "Not applicable: this integration has no actions.";
/// Why URLs hold `***`.
pub(super) const MASKED: &str = "The endpoints hold the bridge's secret, which is masked here as ***; it is handed over by \
                                 Keybase or another private way.";

/// The twelve rows of the integration, in the order of the manifest.
pub(super) fn integration_rows(it: &Integration) -> Vec<[String; 2]> {
    let endpoint = |url: &Option<String>, what: &str| {
        url.clone()
            .unwrap_or_else(|| format!("not applicable: this integration has no {what}"))
    };
    let fields: Vec<String> = it.authentication_configuration.iter().map(field_lines).collect();
    let listed = |items: Vec<String>, separator: &str| match items.is_empty() {
        true => "not applicable".to_owned(),
        false => items.join(separator),
    };
    [
        ("name", it.name.clone()),
        ("display_name", it.display_name.clone()),
        ("description", it.description.clone()),
        ("logo_url", it.logo_url.clone()),
        ("icon_url", it.icon_url.clone()),
        ("authentication_type", it.authentication_type.as_str().to_owned()),
        ("authentication_configuration", listed(fields, "\n\n")),
        (
            "auth_validation_endpoint",
            endpoint(&it.auth_validation_endpoint, "validation of credentials"),
        ),
        (
            "contact_synchronization_endpoint",
            endpoint(&it.contact_synchronization_endpoint, "contacts"),
        ),
        (
            "interaction_retrieval_endpoint",
            endpoint(&it.interaction_retrieval_endpoint, "interactions"),
        ),
        (
            "agent_synchronization_endpoint",
            endpoint(&it.agent_synchronization_endpoint, "agents"),
        ),
        ("interaction_types", listed(it.interaction_types.clone(), ", ")),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

/// The six rows of an action.
pub(super) fn action_rows(action: &Action) -> Vec<[String; 2]> {
    let inputs: Vec<String> = action.inputs.iter().map(input_lines).collect();
    let inputs = match inputs.is_empty() {
        true => "not applicable: the action takes no inputs".to_owned(),
        false => inputs.join("\n\n"),
    };
    [
        ("provider", action.provider.clone()),
        ("name", action.name.clone()),
        ("display", action.display.clone()),
        ("description", action.description.clone()),
        ("endpoint", action.endpoint.clone()),
        ("inputs", inputs),
    ]
    .map(|(name, value)| [name.to_owned(), value])
    .into()
}

fn field_lines(field: &AuthField) -> String {
    let mut lines = vec![
        format!("field_name: {}", field.field_name),
        format!("display: {}", field.display),
        format!(
            "mandatory: {}, type: {}, store: {}",
            field.mandatory,
            field.kind.as_str(),
            field.store
        ),
    ];
    lines.extend(field.help.iter().map(|help| format!("help: {help}")));
    lines.extend(field.format.iter().map(|format| format!("format: {format}")));
    lines.join("\n")
}

fn input_lines(input: &Input) -> String {
    let mut lines = vec![
        format!("key: {}, name: {}", input.key, input.name),
        format!("mandatory: {}, type: {}", input.mandatory, input.kind.as_str()),
    ];
    lines.extend(input.format.iter().map(|format| format!("format: {format}")));
    lines.join("\n")
}
