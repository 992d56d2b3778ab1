//! The operators' commands: `accounts`, `contact`, `token`, `link`, `dead`, `budgets`, `audit`, `pause`, `resume`, `refresh`. They ask the admin
//! listener of a running process, so they work beside an embedded one, too.

mod contact;
mod doctor;
mod link;
mod webhook;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use process::settings::TOKEN_VARIABLE;
use reqwest::Method;
use serde_json::{Value, json};

use super::health::reachable;
use super::typed::{Typed, pairs};
use super::{Failure, print, settings};
use crate::admin::access::NAME_HEADER;
use crate::status::span;
use crate::wiring::TOKEN_FILE;

pub use contact::{Contact, Token, contact, token};
pub use doctor::{Doctor, doctor};
pub use link::{Link, link};

/// Longer than an account is waited for before it is forgotten.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Where to ask, and with what.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// Admin listener to ask [default: http.admin_listen of the settings, on this machine]
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// File with the token [default: the token in $SNAPBRIDGE_OPS_TOKEN, else the file ops.token in --data, which `up` makes]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Folder of the embedded store and queue
    #[arg(long, value_name = "DIR", default_value = ".snapbridge", global = true)]
    data: PathBuf,
    /// What the audit calls you [default: $USER]
    #[arg(long, value_name = "NAME", global = true)]
    name: Option<String>,
    /// The answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Access {
    /// Folder of the embedded store.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

#[derive(Debug, Subcommand)]
pub enum Accounts {
    /// All accounts with their state, the most urgent first
    List {
        /// Only those in this state: ready, building, refreshing, waiting, failing, parked, paused, suspended
        #[arg(long)]
        state: Option<String>,
    },
    /// One account: work, snapshots, budgets, last runs, dead letters
    Show { id: String },
    /// How its webhook is set up at the CRM by hand: URL, secret and steps. Needs a token of ops.admin
    Webhook { id: String },
    /// Adds an account before Talkdesk calls: its credentials are put to the CRM, and its snapshot is built
    Add {
        integration: String,
        /// Field of `auth` as Talkdesk would send it; repeat for more. KEY=@FILE takes the value from a file
        #[arg(long, value_name = "KEY=VALUE")]
        auth: Vec<Typed>,
    },
    /// Deletes an account whole: credentials, snapshots, work, history. Talkdesk's next call makes a new one
    Forget {
        id: String,
        /// Really do it
        #[arg(long, required = true)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Dead {
    /// Dead letters, oldest first
    List(Filter),
    /// Asks for their work again and removes them
    Redrive(Filter),
    /// Removes them for good
    Discard {
        #[command(flatten)]
        filter: Filter,
        /// Why; kept in the audit
        #[arg(long)]
        reason: String,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct Filter {
    /// By their ids
    ids: Vec<String>,
    /// Of this account
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Of this kind of work
    #[arg(long, value_parser = PossibleValuesParser::new(contacts::Kind::ALL.map(contacts::Kind::as_str)))]
    kind: Option<String>,
    /// With this text in reason or detail
    #[arg(long)]
    text: Option<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["ids", "account", "kind", "text"])]
    all: bool,
}

impl Filter {
    fn body(&self) -> Value {
        let mut body = json!({"ids": self.ids, "all": self.all});
        for (name, value) in [("account", &self.account), ("kind", &self.kind), ("text", &self.text)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        body
    }
}

/// What is paused or resumed: one of the three.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// Account id
    account: Option<String>,
    /// All accounts of this connector
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// All work of this lane: build, refresh, reconcile
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// A poll: what changed
    Changes,
    /// A full pass, which also deletes what the CRM no longer has
    Full,
    /// A full pass when nothing more urgent waits
    Reconcile,
    /// The CRM's users
    Agents,
}

impl What {
    fn action(self) -> &'static str {
        match self {
            What::Changes => "refresh",
            What::Full => "full",
            What::Reconcile => "reconcile",
            What::Agents => "agents",
        }
    }
}

/// A client of one admin listener.
pub struct Ops {
    base: String,
    token: String,
    name: String,
    json: bool,
    client: reqwest::Client,
}

impl Ops {
    pub fn open(config: Option<&Path>, access: Access) -> Result<Ops, Failure> {
        let base = match &access.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", reachable(settings(config)?.0.http.admin_listen)),
        };
        let named = std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.trim().is_empty());
        let token = match (&access.token_file, named) {
            (Some(file), _) => read(file)?,
            (None, Some(token)) => token,
            (None, None) => {
                let file = access.data.join(TOKEN_FILE);
                if !file.exists() {
                    return Err(Failure::Usage(vec![format!(
                        "no token: set {TOKEN_VARIABLE}, or name a file with --token-file. `snapbridge up` keeps its own in \
                         {TOKEN_FILE} of its folder (--data)"
                    )]));
                }
                read(&file)?
            }
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("the HTTP client")?;
        let name = access.name.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
        Ok(Ops {
            base,
            token: token.trim().to_owned(),
            name: name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect(),
            json: access.json,
            client,
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let mut url = url::Url::parse(&format!("{}{path}", self.base)).context("--url")?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(&self.token)
            .header(NAME_HEADER, &self.name);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let sent = request.send().await;
        let answer = sent.with_context(|| {
            format!(
                "nothing answers at {}; is `snapbridge up`, `serve` or `worker` running?",
                self.base
            )
        })?;
        let status = answer.status();
        let text = answer.text().await.context("the answer broke off")?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        match value["message"].as_str() {
            Some(message) => Err(anyhow!("{message}")),
            None => Err(anyhow!("{} answered {status}; is it an admin listener?", self.base)),
        }
    }

    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, query, None).await
    }

    pub async fn post(&self, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, &[], body).await
    }

    pub fn show(&self, value: &Value, text: impl FnOnce(&Value) -> String) {
        match self.json {
            true => print(&value.to_string()),
            false => print(&text(value)),
        }
    }

    async fn act(&self, path: &str) -> anyhow::Result<()> {
        let said = self.post(path, None).await?;
        self.show(&said, |said| said["said"].as_str().unwrap_or("done").to_owned());
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(text)
}

/// One step of a path, whatever it holds.
fn step(text: &str) -> String {
    let mut url = url::Url::parse("http://x/").expect("a URL");
    if let Ok(mut steps) = url.path_segments_mut() {
        steps.clear().push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

pub async fn accounts(config: Option<&Path>, access: Access, command: Option<Accounts>) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    match command.unwrap_or(Accounts::List { state: None }) {
        Accounts::List { state } => {
            let mut status = ops.get("/api/status", &[("accounts", "1000")]).await?;
            let mut accounts = status["accounts"].take();
            if let (Some(state), Some(list)) = (state, accounts.as_array_mut()) {
                list.retain(|account| account["state"] == state.as_str());
            }
            ops.show(&accounts, |accounts| {
                let cells = ["id", "integration", "state", "contacts", "sentence"];
                table(&cells, &rows(accounts), |account, name| text(&account[name]))
            });
        }
        Accounts::Show { id } => {
            let account = ops.get(&format!("/api/accounts/{}", step(&id)), &[]).await?;
            ops.show(&account, account_text);
        }
        Accounts::Webhook { id } => {
            let told = ops.post(&format!("/api/accounts/{}/webhook", step(&id)), None).await?;
            ops.show(&told, webhook::text);
        }
        Accounts::Add { integration, auth } => {
            let mut problems = Vec::new();
            let auth = pairs("--auth", &auth, &mut problems);
            if !problems.is_empty() {
                return Err(Failure::Usage(problems));
            }
            let auth: serde_json::Map<String, Value> = auth
                .into_iter()
                .map(|(field, value)| (field, Value::from(value)))
                .collect();
            let added = ops
                .post("/api/accounts", Some(json!({"integration": integration, "auth": auth})))
                .await?;
            ops.show(&added, |added| {
                format!("{}\n{}", text(&added["account"]), text(&added["said"]))
            });
        }
        Accounts::Forget { id, yes: _ } => ops.act(&format!("/api/accounts/{}/forget", step(&id))).await?,
    }
    Ok(())
}

pub async fn dead(config: Option<&Path>, access: Access, command: Dead) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    match command {
        Dead::List(filter) => {
            let mut query = Vec::new();
            for (name, value) in [
                ("account", &filter.account),
                ("kind", &filter.kind),
                ("text", &filter.text),
            ] {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            let mut letters = ops.get("/api/dead", &query).await?;
            if let (false, Some(list)) = (filter.ids.is_empty(), letters.as_array_mut()) {
                list.retain(|letter| filter.ids.iter().any(|id| letter["id"] == id.as_str()));
            }
            ops.show(&letters, |letters| {
                let cells = ["id", "account", "kind", "died", "attempts", "reason", "detail"];
                table(&cells, &rows(letters), |letter, name| match name {
                    "died" => text(&letter["died"]["words"]),
                    name => text(&letter[name]),
                })
            });
        }
        Dead::Redrive(filter) => {
            let settled = ops.post("/api/dead/redrive", Some(filter.body())).await?;
            ops.show(&settled, settled_text);
            return stays(&settled);
        }
        Dead::Discard { filter, reason } => {
            let mut body = filter.body();
            body["reason"] = json!(reason);
            let settled = ops.post("/api/dead/discard", Some(body)).await?;
            ops.show(&settled, settled_text);
        }
    }
    Ok(())
}

pub async fn budgets(config: Option<&Path>, access: Access) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    let budgets = ops.get("/api/budgets", &[]).await?;
    ops.show(&budgets, |budgets| {
        table(
            &["account", "integration", "connector", "left"],
            &rows(budgets),
            |budget, name| match name {
                "left" => limits_text(&budget["limits"]),
                "integration" if budget["dealer"].is_string() => {
                    format!("{}, dealer {}", text(&budget["integration"]), text(&budget["dealer"]))
                }
                name => text(&budget[name]),
            },
        )
    });
    Ok(())
}

pub async fn audit(config: Option<&Path>, access: Access) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    let audit = ops.get("/api/audit", &[]).await?;
    ops.show(&audit, |audit| {
        table(
            &["at", "by", "role", "action", "target", "detail"],
            &rows(audit),
            |entry, name| match name {
                "at" => text(&entry["when"]["at"]),
                name => text(&entry[name]),
            },
        )
    });
    Ok(())
}

pub async fn hold(config: Option<&Path>, access: Access, target: Target, action: &str) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    let path = match (&target.account, &target.connector, &target.lane) {
        (Some(id), ..) => format!("/api/accounts/{}/{action}", step(id)),
        (_, Some(name), _) => format!("/api/holds/connector/{}/{action}", step(name)),
        (_, _, Some(lane)) => format!("/api/holds/lane/{}/{action}", step(lane)),
        _ => return Err(Failure::Usage(vec!["name an account, a connector or a lane".into()])),
    };
    Ok(ops.act(&path).await?)
}

pub async fn refresh(config: Option<&Path>, access: Access, account: &str, what: What) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    Ok(ops
        .act(&format!("/api/accounts/{}/{}", step(account), what.action()))
        .await?)
}

/// What a script must notice: not all of them could be redriven.
fn stays(settled: &Value) -> Result<(), Failure> {
    match settled["stay"].as_array().is_some_and(|stay| !stay.is_empty()) {
        true => Err(Failure::Told(1)),
        false => Ok(()),
    }
}

fn settled_text(settled: &Value) -> String {
    let mut lines = vec![format!("{} done", text(&settled["done"]))];
    lines.extend(
        rows(&settled["stay"])
            .iter()
            .map(|line| format!("stays: {}", text(line))),
    );
    lines.join("\n")
}

fn limits_text(limits: &Value) -> String {
    let limit = |left: &Value| {
        let resets = left["resets"]["words"].as_str();
        let anew = resets.map_or_else(String::new, |words| format!(" (anew {words})"));
        format!(
            "{} {} of {}{anew}",
            text(&left["limit"]),
            text(&left["left"]),
            text(&left["max"])
        )
    };
    rows(limits).iter().map(limit).collect::<Vec<_>>().join(", ")
}

fn account_text(account: &Value) -> String {
    let words = |value: &Value| match value["words"].as_str() {
        Some(words) => words.to_owned(),
        None => "-".to_owned(),
    };
    let mut out = format!(
        "{} of {} ({})\n{}\n\nregistered {}, Talkdesk called {}, credentials proven {}, last webhook {}\nleft of the limits: {}\n\n",
        text(&account["id"]),
        text(&account["integration"]),
        text(&account["connector"]),
        text(&account["sentence"]),
        words(&account["created"]),
        words(&account["called"]),
        words(&account["verified"]),
        words(&account["last_webhook"]),
        limits_text(&account["budgets"]),
    );
    out.push_str(&webhook::of_account(account));
    let timed = |row: &Value, name: &str| match &row[name] {
        value @ Value::Object(_) => words(value),
        value => text(value),
    };
    for (name, cells) in [
        (
            "tasks",
            &["kind", "lane", "due", "now", "last_done", "failed", "error"][..],
        ),
        ("snapshots", &["stream", "ready", "records", "fresh", "watermark"]),
        (
            "runs",
            &[
                "started", "kind", "times", "took", "outcome", "pages", "written", "same", "removed", "error",
            ],
        ),
        ("dead_letters", &["id", "kind", "died", "reason", "detail"]),
    ] {
        let rows = rows(&account[name]);
        if !rows.is_empty() {
            out.push_str(&table(cells, &rows, timed));
            out.push_str("\n\n");
        }
    }
    out
}

pub fn rows(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub fn table(names: &[&str], rows: &[Value], cell: impl Fn(&Value, &str) -> String) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(names.iter().map(|name| name.replace('_', " ")));
    for row in rows {
        table.add_row(names.iter().map(|name| cell(row, name)));
    }
    table.trim_fmt()
}

/// Prints the status again and again; ends with Ctrl-C.
pub async fn watch<F>(every: Duration, read: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<String, Failure>>,
{
    use std::io::IsTerminal;
    let clear = if std::io::stdout().is_terminal() {
        "\x1b[2J\x1b[H"
    } else {
        ""
    };
    loop {
        let text = read().await?;
        print(&format!("{clear}{text}\n(again every {}; Ctrl-C ends)", span(every)));
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
    }
}
