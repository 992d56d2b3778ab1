//! `snapbridge demo`: the whole story on one machine. A fake CRM behind a rate limit, the bridge in one process, and the
//! player in Talkdesk's place: activate, sync while the build runs, edit at the CRM, webhook, incremental sync, agents,
//! actions.

mod compare;
mod operations;
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use contacts::keys::Keys;
use fake_crm::{AccountOptions, Change, Control, FakeCrm, Options, RateLimit, Webhook};
use indicatif::{ProgressBar, ProgressStyle};
use process::settings::{Settings, Source};
use process::telemetry::{self, Metrics};
use serde_json::{Value, json};
use talkdesk::player::{AgentsRun, Player, PlayerState, RunSummary};
use talkdesk::wire::Auth;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::sampling::account_ids;
use crate::wiring::{self, Defaults, Listeners, Parts, Role};
use compare::Copy;
use report::{Narrator, Report};

const INTEGRATION: &str = "demo";
const ACCOUNT: &str = "demo";
const TOKEN: &str = "demo-token";
/// The fake CRM's limit, so that the build takes long enough to be watched.
const LIMIT: RateLimit = RateLimit {
    max: 10,
    window: Duration::from_secs(1),
};
/// How long the edits may take to reach Talkdesk's side.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Contacts in the fake CRM
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    contacts: usize,
    /// Address of the bridge; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of health and metrics
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin_listen: SocketAddr,
    /// Address of the fake CRM
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8099")]
    crm_listen: SocketAddr,
    /// Folder of store, queue and key file [default: a new temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another store, say redis://127.0.0.1:6379 [default: SQLite in the folder]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Another queue, say amqp://guest:guest@127.0.0.1:5672 [default: SQLite in the folder]
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
    /// End after the play; exit code 0 only if Talkdesk's side holds every contact in its newest version, and each action
    /// was done once
    #[arg(long)]
    exit: bool,
    /// Print the summary as one JSON object, last on stdout
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    process::stop::on_signals(stop.clone())?;
    // The story is told on stdout; logs would get in its way unless something is wrong.
    telemetry::init_logs(process::settings::LogFormat::Text, "error")?;
    let narrator = Narrator::new(args.json);

    let temporary = match &args.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("snapbridge-demo-")
                .tempdir()
                .context("no temporary folder")?,
        ),
    };
    let data = match (&args.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => bail!("no folder"),
    };
    std::fs::create_dir_all(&data).with_context(|| format!("the folder {} cannot be made", data.display()))?;
    let _lock = process::lock::FolderLock::take(&data)?;

    let crm_listener = wiring::bind(args.crm_listen, "--crm-listen").await?;
    let crm_url = format!("http://{}", crm_listener.local_addr()?);
    let crm = FakeCrm::new(Options {
        seed: 1,
        accounts: vec![AccountOptions {
            name: ACCOUNT.into(),
            token: TOKEN.into(),
            contacts: args.contacts,
            limit: Some(LIMIT),
            ..AccountOptions::default()
        }],
    });
    let settings = settings(&args, &crm_url)?;
    let listeners = Listeners::bind(&settings, Role::Both, &data).await?;
    let bridge = match &listeners.public {
        Some(listener) => format!("http://{}", listener.local_addr()?),
        None => bail!("no public listener"),
    };
    let admin = format!("http://{}", listeners.admin.local_addr()?);
    let defaults = Defaults::Embedded(data.clone());
    if settings.store.url.is_some() {
        prepare(&settings, &defaults).await?;
    }
    let metrics = Metrics::install()?;
    let parts = Parts::build(settings, &defaults, &data).await?;
    let (store, keys) = (parts.store.clone(), parts.keys.clone());
    narrator.say(&format!(
        "CRM      {crm_url}  a fake one: {} contacts, {LIMIT} calls allowed",
        args.contacts
    ));
    narrator.say(&format!(
        "bridge   {bridge}  {}, {}",
        parts.store.describe(),
        parts.queue.describe()
    ));

    let serving = tokio::spawn(crm.clone().serve(crm_listener, stop.clone()));
    let running = tokio::spawn(wiring::run(parts, Role::Both, listeners, metrics, stop.clone()));
    let play = Play {
        crm,
        bridge: bridge.clone(),
        store,
        keys,
        narrator: &narrator,
        contacts: args.contacts,
    };
    let played = tokio::select! {
        played = play.run() => played,
        () = stop.cancelled() => Ok(None),
    };

    let good = match &played {
        Ok(Some(report)) => {
            narrator.say(&report.text());
            report.is_good()
        }
        Ok(None) | Err(_) => false,
    };
    if let (false, Ok(Some(_))) = (args.exit, &played) {
        narrator.say(&invitation(&bridge, &admin, &crm_url, &data));
        stop.cancelled().await;
    }
    stop.cancel();
    running.await??;
    serving.await??;
    let Some(report) = played? else { return Ok(()) };
    if args.json {
        narrator.result(&report);
    }
    if report.missing > 0 || report.agents == 0 || report.agents_wrong > 0 {
        bail!("Talkdesk's side does not hold every contact and every agent of the CRM in its newest version");
    }
    if !good {
        bail!("not every action was done once and seen: {}", report.operations);
    }
    Ok(())
}

/// The bridge's settings: one integration, refreshed often so that the play need not wait.
fn settings(args: &Args, crm_url: &str) -> anyhow::Result<Settings> {
    let quote = |text: &str| Value::from(text).to_string();
    let host = crm_url;
    let mut text = format!(
        "[http]\nlisten = {listen}\nadmin_listen = {admin}\n[refresh]\npoll = \"20s\"\nsweep = \"2s\"\n\
         [integrations.{INTEGRATION}]\nconnector = \"demo\"\nallow_hosts = [{host}]\nregion = \"PT\"\n\
         [integrations.{INTEGRATION}.connection]\nsite = {site}\nper_second = \"{max}\"\n",
        listen = quote(&args.listen.to_string()),
        admin = quote(&args.admin_listen.to_string()),
        host = quote(host),
        site = quote(crm_url),
        max = LIMIT.max,
    );
    // A namespace of its own, so that the demo never meets a real installation.
    let namespace = format!("demo{:08x}", rand::random::<u32>());
    for (section, url) in [("store", &args.store), ("queue", &args.queue)] {
        if let Some(url) = url {
            text += &format!("[{section}]\nurl = {}\nnamespace = \"{namespace}\"\n", quote(url));
        }
    }
    Settings::load(&Source::text(&text)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the demo's settings are wrong:\n  {}", lines.join("\n  "))
    })
}

/// Brings a store and a queue that were named up to date; the embedded ones do so themselves.
async fn prepare(settings: &Settings, defaults: &Defaults) -> anyhow::Result<()> {
    let url = defaults.store(settings)?;
    store::migrate(&url, &settings.store.namespace, false)
        .await
        .with_context(|| format!("the store at {url}"))?;
    let queue = defaults.queue(settings);
    if !queue.starts_with("sqlite:") {
        jobs::migrate(&queue, &settings.queue.namespace, false)
            .await
            .context("the queue")?;
    }
    Ok(())
}

struct Play<'a> {
    crm: FakeCrm,
    bridge: String,
    store: Arc<dyn contacts::Store>,
    keys: Arc<Keys>,
    narrator: &'a Narrator,
    contacts: usize,
}

impl Play<'_> {
    async fn run(&self) -> anyhow::Result<Option<Report>> {
        let copy = Copy::default();
        let mut state = PlayerState::default();

        self.narrator
            .step("1. a user activates the integration (auth_validation)");
        self.activate().await?;

        self.narrator
            .step("2. Talkdesk syncs for the first time, while the bridge is still fetching");
        let first = self.sync(&mut state, &copy).await?;
        self.narrator.say(&format!(
            "   {} contacts in {} pages, {} s",
            first.distinct,
            first.pages,
            first.total_ms / 1_000
        ));

        self.narrator
            .step("3. people edit contacts in the CRM; it tells the bridge by webhook");
        self.subscribe().await?;
        let edits = self.edit()?;
        self.narrator.say(&format!("   {edits}"));

        self.narrator
            .step("4. Talkdesk syncs again, from its checkpoint: only what changed");
        let began = Instant::now();
        let mut later = Vec::new();
        let difference = loop {
            later.push(self.sync(&mut state, &copy).await?);
            let difference = copy.difference(&self.crm.truth(ACCOUNT));
            if difference.is_none() || began.elapsed() > PATIENCE {
                break difference;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let edits = began.elapsed();
        let delivered: u64 = later.iter().map(|run| run.contacts).sum();
        self.narrator.say(&format!(
            "   {delivered} contacts, there {:.1} s after the edits",
            edits.as_secs_f64()
        ));

        self.narrator
            .step("5. Talkdesk asks who works there (agent_sync): the CRM's users, by e-mail address");
        let agents = self.agents().await?;
        let wrong = compare::wrong_agents(&agents.agents, &self.crm.users(ACCOUNT));
        self.narrator.say(&format!("   {} agents", agents.agents.len()));

        self.narrator
            .step("6. an agent creates a contact and a ticket, logs a call, and looks at the contact");
        let operations = self.operate().await?;
        self.narrator.say(&format!("   {operations}"));
        let (late, difference) = self.catch_up(&mut state, &copy, difference).await?;
        later.extend(late);
        let mut runs = vec![first];
        runs.extend(later);
        let mut report = Report::new(&runs, &copy, difference, &self.crm.stats(ACCOUNT), edits, operations);
        (report.agents, report.agents_wrong) = (agents.agents.len(), wrong);
        Ok(Some(report))
    }

    async fn agents(&self) -> anyhow::Result<AgentsRun> {
        let url = Url::parse(&format!("{}/{INTEGRATION}/agent_sync", self.bridge))?;
        let client = talkdesk::player::client(&url)?;
        let run = Player::new(url, auth(), client).agents().await;
        run.context("Talkdesk's agent sync")
    }

    async fn activate(&self) -> anyhow::Result<()> {
        let url = format!("{}/{INTEGRATION}/auth_validation", self.bridge);
        let auth = json!({"auth": {"account": ACCOUNT, "token": TOKEN}});
        let client = talkdesk::player::client(&Url::parse(&url)?)?;
        let answer = client.post(&url).json(&auth).send().await.context("auth_validation")?;
        let status = answer.status();
        if !status.is_success() {
            bail!(
                "auth_validation answered {status}: {}",
                answer.text().await.unwrap_or_default()
            );
        }
        Ok(())
    }

    async fn sync(&self, state: &mut PlayerState, copy: &Copy) -> anyhow::Result<RunSummary> {
        let url = Url::parse(&format!("{}/{INTEGRATION}/contact_sync", self.bridge))?;
        let client = talkdesk::player::client(&url)?;
        let bar = self.bar(state.checkpoint.is_none());
        let shown = bar.clone();
        let mut player = Player::new(url, auth(), client)
            .on_progress(move |progress| shown.set_position(progress.contacts))
            .out(copy.writer());
        let summary = player.run(state).await;
        bar.finish_and_clear();
        summary.complete().context("Talkdesk's sync")
    }

    fn bar(&self, first: bool) -> ProgressBar {
        if !first || self.narrator.is_quiet() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(self.contacts as u64);
        let style = ProgressStyle::with_template("   {bar:40} {pos}/{len} contacts  {per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    /// Gives the CRM the account's own webhook URL and secret.
    async fn subscribe(&self) -> anyhow::Result<()> {
        let ids = account_ids(&*self.store, 1).await?;
        let account = ids.first().context("no account was registered")?;
        let url = format!("{}/{INTEGRATION}/webhooks/{}", self.bridge, self.keys.hook_id(account));
        let webhook = Webhook::new(url, self.keys.hook_secret(account));
        self.control(Control::webhook(ACCOUNT, Some(webhook)))
    }

    fn edit(&self) -> anyhow::Result<String> {
        let (edits, created, deleted) = (25, 5, 3);
        self.control(Control::edit(ACCOUNT, Change::random(edits.min(self.contacts))))?;
        self.control(Control::create(ACCOUNT, created))?;
        self.control(Control::delete(ACCOUNT, Change::random(deleted.min(self.contacts))))?;
        Ok(format!("{edits} edited, {created} created, {deleted} deleted"))
    }

    fn control(&self, control: Control) -> anyhow::Result<()> {
        let refused = |refusal: fake_crm::Refusal| anyhow::anyhow!("the fake CRM refused: {}", refusal.message);
        self.crm.control(control).into_result().map(drop).map_err(refused)
    }
}

/// The credentials that Talkdesk's side holds.
fn auth() -> Auth {
    let fields = [("account", ACCOUNT), ("token", TOKEN)];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn invitation(bridge: &str, admin: &str, crm: &str, data: &Path) -> String {
    let body = |more: Value| {
        let mut body = json!({"auth": {"account": ACCOUNT, "token": TOKEN}});
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        body.to_string()
    };
    let auth = body(json!({}));
    let whose = body(json!({"data": {"contact_external_id": "1"}}));
    let ticket = body(json!({"meta": {"contact_external_id": "1"}, "data": {"subject": "Call back"}}));
    let token = data.join(wiring::TOKEN_FILE);
    let (token, listen) = (token.display(), admin.trim_start_matches("http://"));
    format!(
        "\nThe bridge stays up; Ctrl-C ends it. The ops page is {admin}/ops, its token lies in {token}. Try:\n\
         \x20 curl -s {bridge}/{INTEGRATION}/contact_sync -d '{auth}' | head -c 600\n\
         \x20 curl -s {bridge}/{INTEGRATION}/agent_sync -d '{auth}'\n\
         \x20 curl -s {bridge}/{INTEGRATION}/auth_validation -d '{auth}'\n\
         \x20 curl -s {bridge}/{INTEGRATION}/interaction_update -d '{whose}'\n\
         \x20 curl -s {bridge}/{INTEGRATION}/actions/create_ticket -d '{ticket}'\n\
         \x20 curl -s {crm}/_control -d '{{\"account\":\"{ACCOUNT}\",\"edit\":{{\"count\":10}}}}'\n\
         \x20 SNAPBRIDGE_HTTP__ADMIN_LISTEN={listen} snapbridge accounts --token-file {token}\n\
         \x20 curl -s {admin}/readyz\n\
         \x20 curl -s {admin}/metrics | grep snapbridge_\n\
         \x20 snapbridge talkdesk sync {bridge}/{INTEGRATION}/contact_sync --auth account={ACCOUNT} --auth token={TOKEN}"
    )
}
