//! Examples from a live run: a bridge of its own, in this process, on a store that is thrown away afterwards, is called as
//! Talkdesk would. The CRM behind it is the configured one, or the fake one of this project.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use fake_crm::{AccountOptions, FakeCrm, Options};
use jiff::civil::Date;
use process::Secrets;
use process::settings::{self, Settings};
use process::telemetry::Metrics;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use talkdesk::config::{Action, Configuration, InputType};
use tokio_util::sync::CancellationToken;

use super::examples::{Example, Examples};
use super::mask;
use crate::wiring::{self, Defaults, Listeners, Parts, Role};

/// The connector that the fake CRM speaks.
pub const FAKE: &str = "demo";
const FAKE_ACCOUNT: &str = "demo";
const FAKE_TOKEN: &str = "demo-token";
const FAKE_CONTACTS: usize = 25;
/// Contacts of a page, so that examples are short and there is a second page.
const PAGE: usize = 2;
/// What the examples say where the fake CRM listened.
const FAKE_SITE: &str = "https://crm.example";
/// Time a call may take, and time for the first contacts to come.
const CALL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);

/// Whom the bridge asks.
pub enum Crm {
    /// The configured one, with these credentials.
    Configured(BTreeMap<String, String>),
    /// The fake one; the connector must be [`FAKE`].
    Fake,
}

/// A live run.
pub struct Plan<'a> {
    pub name: &'a str,
    pub configuration: &'a Configuration,
    pub crm: Crm,
    /// Executes each action once, which writes into the CRM.
    pub actions: bool,
    /// The day in dates that actions are called with.
    pub today: Date,
}

/// Runs the bridge and calls every endpoint of the configuration.
///
/// # Errors
/// The bridge does not start, the credentials are refused, or no contact comes in time. An endpoint that answers with an
/// error is noted in the examples and is none.
pub async fn record(mut settings: Settings, folder: &std::path::Path, plan: Plan<'_>) -> anyhow::Result<Examples> {
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    settings.integrations.retain(|name, _| name == plan.name);
    let integration = settings
        .integrations
        .get_mut(plan.name)
        .with_context(|| format!("no integration is called {:?}", plan.name))?;
    let (auth, origin, site) = match &plan.crm {
        Crm::Configured(auth) => {
            let origin = "Its examples were recorded from a live run against the CRM.";
            (auth.clone(), origin, None)
        }
        Crm::Fake => {
            let (auth, site) = fake(integration, &stop).await?;
            let origin = "Its examples were recorded from a live run against a made-up CRM.";
            (auth, origin, Some(site))
        }
    };
    // Nobody else reaches this bridge, and of its secrets the settings keep hashes only.
    (integration.path_secret, integration.bridge_key) = (Secrets::default(), Secrets::default());
    let data = tempfile::Builder::new()
        .prefix("snapbridge-examples-")
        .tempdir()
        .context("no temporary folder")?;
    alone(&mut settings)?;
    let listeners = Listeners::bind(&settings, Role::Both, folder).await?;
    let address = match &listeners.public {
        Some(listener) => listener.local_addr()?,
        None => bail!("no public listener"),
    };
    let metrics = Metrics::install()?;
    let defaults = Defaults::Embedded(data.path().to_owned());
    let parts = Parts::build(settings, &defaults, folder).await?;
    let running = tokio::spawn(wiring::run(parts, Role::Both, listeners, metrics, stop.clone()));
    let caller = Caller {
        http: reqwest::Client::builder().timeout(CALL).build()?,
        root: format!("http://{address}/{}", plan.name),
        auth,
    };
    let examples = caller.all(&plan, origin).await;
    stop.cancel();
    running.await??;
    let mut examples = examples?;
    if let Some(site) = site {
        examples.each_body(|body| mask::replace(body, std::slice::from_ref(&site), FAKE_SITE));
    }
    Ok(examples)
}

/// A bridge beside the real one: ports, store, queue and keys of its own.
fn alone(settings: &mut Settings) -> anyhow::Result<()> {
    let any = "127.0.0.1:0".parse().context("an address")?;
    (settings.http.listen, settings.http.admin_listen) = (any, any);
    settings.store.url = None;
    settings.queue.url = None;
    settings.keys.file = None;
    settings.page.contacts = PAGE;
    settings.worker.slots = 1;
    Ok(())
}

/// Starts a fake CRM and points the integration to it: the credentials, and where it listens.
async fn fake(
    integration: &mut settings::Integration,
    stop: &CancellationToken,
) -> anyhow::Result<(BTreeMap<String, String>, String)> {
    if integration.connector != FAKE {
        bail!(
            "the fake CRM speaks the connector \"{FAKE}\" only, not {:?}",
            integration.connector
        );
    }
    let any = "127.0.0.1:0".parse().context("an address")?;
    let listener = wiring::bind(any, "the fake CRM").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let crm = FakeCrm::new(Options {
        seed: 1,
        accounts: vec![AccountOptions {
            name: FAKE_ACCOUNT.into(),
            token: FAKE_TOKEN.into(),
            contacts: FAKE_CONTACTS,
            ..AccountOptions::default()
        }],
    });
    tokio::spawn(crm.serve(listener, stop.clone()));
    integration.allow_hosts.push(url.clone());
    integration
        .connection
        .insert("site".into(), SecretString::from(url.clone()));
    let auth = [("account", FAKE_ACCOUNT), ("token", FAKE_TOKEN)];
    Ok((
        auth.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        url,
    ))
}

struct Caller {
    http: reqwest::Client,
    root: String,
    auth: BTreeMap<String, String>,
}

impl Caller {
    async fn all(&self, plan: &Plan<'_>, origin: &str) -> anyhow::Result<Examples> {
        let mut examples = Examples::new(origin);
        let it = &plan.configuration.integration;
        let valid = self.call("auth_validation", "Valid credentials", json!({})).await?;
        if !(200..300).contains(&valid.status) {
            bail!(
                "the bridge refused the credentials: {} {}",
                valid.status,
                valid.response
            );
        }
        examples.add("auth_validation", valid);
        let contact = self.contacts(&mut examples).await?;
        let mut agent = None;
        if it.agent_synchronization_endpoint.is_some() {
            let meta = json!({"meta": {"offset": null}});
            let found = self.note(&mut examples, "agent_sync", "First page", meta).await?;
            agent = found.and_then(|found| found.pointer("/agents/0/id").cloned());
        }
        if it.interaction_retrieval_endpoint.is_some() {
            let body = json!({
                "meta": {"interaction_types": it.interaction_types},
                "data": {
                    "contact_external_id": contact["id"],
                    "contact_name": contact["name"],
                    "contact_emails": contact["emails"],
                    "contact_phones": contact["phones"],
                },
            });
            self.note(&mut examples, "interaction_update", "A synchronized contact", body)
                .await?;
        }
        for action in &plan.configuration.actions {
            let path = format!("actions/{}", action.name);
            if !plan.actions {
                examples.lacks(
                    path,
                    "No example: actions write into the CRM and were left out of the live run.",
                );
                continue;
            }
            let mut meta = Map::new();
            meta.insert("contact_external_id".into(), contact["id"].clone());
            meta.extend(agent.clone().map(|agent| ("agent_external_id".to_owned(), agent)));
            let body = json!({"meta": meta, "data": data_of(action, &contact, plan.today)});
            self.note(&mut examples, &path, "A call from an automation", body)
                .await?;
        }
        Ok(examples)
    }

    /// Initial sync, next page and incremental sync; gives the first contact.
    async fn contacts(&self, examples: &mut Examples) -> anyhow::Result<Value> {
        let path = "contact_sync";
        let began = std::time::Instant::now();
        let first = loop {
            let page = self.call(path, "Initial synchronization", json!({"meta": {}})).await?;
            let retry = page.status == 503 || (page.status == 200 && page.response["contacts"] == json!([]));
            match page.status {
                200 if !retry => break page,
                _ if retry && began.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(200)).await,
                status => bail!("the contact sync was answered {status}: {}", page.response),
            }
        };
        let contact = first.response["contacts"][0].clone();
        let mut last = first.clone();
        examples.add(path, first);
        if !last.response["next_offset"].is_null() {
            let meta = json!({"meta": {
                "offset": last.response["next_offset"],
                "context": last.response["context"],
            }});
            last = self.call(path, "Next page", meta).await?;
            examples.add(path, last.clone());
        }
        let meta = json!({"meta": {"synchronization_checkpoint": last.response["synchronization_checkpoint"]}});
        let later = self.call(path, "Incremental synchronization", meta).await?;
        examples.add(path, later);
        Ok(contact)
    }

    /// Calls, and notes the answer, or that it was an error.
    async fn note(
        &self,
        examples: &mut Examples,
        path: &str,
        title: &str,
        body: Value,
    ) -> anyhow::Result<Option<Value>> {
        let example = self.call(path, title, body).await?;
        if (200..300).contains(&example.status) {
            let response = example.response.clone();
            examples.add(path, example);
            return Ok(Some(response));
        }
        let message = example.response["message"]
            .as_str()
            .unwrap_or("without a message")
            .to_owned();
        examples.lacks(
            path,
            format!("No example: the bridge answered {} ({message}).", example.status),
        );
        Ok(None)
    }

    async fn call(&self, path: &str, title: &str, body: Value) -> anyhow::Result<Example> {
        let mut request = Map::new();
        request.insert("auth".into(), json!(self.auth));
        if let Value::Object(more) = body {
            request.extend(more);
        }
        let request = Value::Object(request);
        let response = self
            .http
            .post(format!("{}/{path}", self.root))
            .json(&request)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("the call of {path} failed"))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(reqwest::Error::without_url)?;
        let response = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).with_context(|| format!("{path} did not answer JSON"))?,
        };
        Ok(Example {
            title: title.to_owned(),
            request,
            status,
            response,
        })
    }
}

/// Values for every input: its default, with the contact's values in it, or something of its type.
pub fn data_of(action: &Action, contact: &Value, today: Date) -> Value {
    let value = |kind: InputType, name: &str| match kind {
        InputType::Text | InputType::Textarea | InputType::Select => format!("Example of {name}"),
        InputType::Number => "1".to_owned(),
        InputType::Tel => "+15555550100".to_owned(),
        InputType::Url => "https://example.com/".to_owned(),
        InputType::Datetime => format!("{today}T09:00:00Z"),
    };
    let inputs = action.inputs.iter().map(|input| {
        let given = match (&input.format, input.kind) {
            (Some(_), InputType::Select) => input.options().first().map(ToString::to_string),
            (Some(format), _) => Some(filled(format, contact)).filter(|text| !text.trim().is_empty()),
            (None, _) => None,
        };
        // The contract has no type for e-mail addresses, and CRMs look at them all the same.
        let mail = input.kind == InputType::Text && input.key.contains("mail");
        let given = given.unwrap_or_else(|| match mail {
            true => "somebody@example.com".to_owned(),
            false => value(input.kind, &input.name.to_lowercase()),
        });
        (input.key.clone(), Value::String(given))
    });
    Value::Object(inputs.collect())
}

/// `{{contact.email}}` as Talkdesk fills it in, with what a synchronized contact has.
fn filled(format: &str, contact: &Value) -> String {
    let name = contact["name"].as_str().unwrap_or_default();
    let (first, last) = name.rsplit_once(' ').unwrap_or((name, ""));
    let text = |pointer: &str| {
        contact
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let value = |name: &str| match name {
        "first_name" => first.to_owned(),
        "last_name" => last.to_owned(),
        "email" => text("/emails/0"),
        "phone" => text("/phones/0"),
        "website" => text("/websites/0"),
        name => text(&format!("/{name}")),
    };
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, inside)) = rest.split_once("{{") {
        out += before;
        let (name, after) = inside.split_once("}}").unwrap_or((inside, ""));
        out += &value(name.trim().strip_prefix("contact.").unwrap_or_default());
        rest = after;
    }
    out + rest
}
