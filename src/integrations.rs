//! The configured integrations: each a connector with its settings, and the CRM clients of their accounts.

mod auth_type;
mod budgets;
mod by_hand;
mod linking;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use contacts::accounts::Account;
use contacts::keys::{Fingerprint, Keys};
use contacts::ledger::{Class, Ledger, Left, Scopes, Times};
use contacts::minted::Vault;
use contacts::reading::Narrowing;
use contacts::{AccountId, Clock, ErrorKind, Store, StoreError};
use crm::{
    Adjustments, AllowHosts, Client, ClientSettings, Connection, Connector, CrmError, CrmResult, FieldSource, Hook,
    Http, Mint, Pacer, Patience, Role,
};
use parking_lot::Mutex;
use process::settings::{self, IntegrationKind, Settings};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use worker::source::Pace;
use worker::{CrmSource, Linker, Source, Sources, Subscribing, Traits};

use crate::guard::Guard;
use crate::images::{Image, Purpose};

pub use by_hand::{ByHand, renewals};
pub use linking::{Dealer, Linking};

/// Clients kept for their accounts; beyond this the least wanted go.
const CLIENTS: usize = 2_000;

/// One integration.
pub struct Integration {
    pub name: String,
    /// The CRM's name, for messages.
    pub title: String,
    pub connector: Arc<Connector>,
    pub auth_success_status: u16,
    /// Fields that auth_validation returns for Talkdesk to keep.
    pub return_fields: Vec<String>,
    /// Served under the integration's name for Talkdesk to show.
    pub logo: Image,
    pub icon: Image,
    pub guard: Guard,
    fixed: BTreeMap<String, SecretString>,
    /// In place of `auth`, where Talkdesk sends none (`auth_type = "none"`).
    credentials: Option<BTreeMap<String, String>>,
    app: BTreeMap<String, SecretString>,
    /// Two-letter country code whose national phone numbers are assumed.
    pub region: Option<String>,
    http: Http,
    traits: Traits,
    pace: Pace,
    mapping: u32,
    /// `http.public_url`.
    base: Option<String>,
    /// Where the world reaches the webhooks of its accounts, or why the CRM is not asked for one.
    hooks_at: Result<String, String>,
    /// The key of the budget of all calls to the host that its accounts share, if they do.
    ip_budget: Option<String>,
    deps: Deps,
}

/// What every integration's clients share.
#[derive(Clone)]
struct Deps {
    ledger: Arc<Ledger<dyn Store>>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    times: Times,
    /// Names this process in the ledger.
    waiter: String,
    mint: Arc<Mint>,
}

/// What a check learned of an account.
#[derive(Clone, Debug)]
pub struct Learned {
    pub site: String,
    pub org: String,
    pub principal: String,
    /// Whose budgets its calls count against.
    pub budgets: Scopes,
    pub values: BTreeMap<String, serde_json::Value>,
    pub route: Option<String>,
}

/// Why a check failed.
#[derive(Clone, Debug)]
pub struct CheckError {
    pub kind: ErrorKind,
    pub message: String,
}

/// Why an integration cannot be run; one line each.
pub type Problems = Vec<String>;

/// All integrations, by name.
pub struct Integrations {
    by_name: BTreeMap<String, Arc<Integration>>,
    linking: BTreeMap<String, Arc<Linking>>,
    clients: Mutex<HashMap<(AccountId, Fingerprint), Arc<CrmSource>>>,
}

impl Integrations {
    /// Loads every connector; all problems come at once. `folder` is where relative connector paths start.
    pub fn load(
        settings: &Settings,
        folder: &Path,
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        waiter: String,
    ) -> Result<Integrations, Problems> {
        let times = Times {
            call_timeout: settings.crm.call_timeout,
            ..Times::default()
        };
        let deps = Deps {
            mint: Arc::new(Mint::new(
                Arc::new(Vault::new(store.clone(), keys.clone())),
                clock.clone(),
                settings.credentials.check_timeout,
            )),
            ledger: Arc::new(Ledger::new(store.clone())),
            keys,
            clock,
            times,
            waiter,
        };
        let mut problems = Vec::new();
        let mut by_name = BTreeMap::new();
        let mut linking = BTreeMap::new();
        for (name, integration) in &settings.integrations {
            let loaded = match integration.kind {
                IntegrationKind::Talkdesk => {
                    Integration::load(name, integration, settings, folder, &deps).map(|integration| {
                        by_name.insert(name.clone(), Arc::new(integration));
                    })
                }
                IntegrationKind::Linking => Linking::load(name, integration, settings, folder, store.clone(), &deps)
                    .map(|loaded| {
                        linking.insert(name.clone(), Arc::new(loaded));
                    }),
            };
            if let Err(found) = loaded {
                let whole = |problem: String| match problem.starts_with("dealers.") {
                    true => problem,
                    false => format!("integrations.{name}: {problem}"),
                };
                problems.extend(found.into_iter().map(whole));
            }
        }
        if problems.is_empty() {
            Ok(Integrations {
                by_name,
                linking,
                clients: Mutex::default(),
            })
        } else {
            Err(problems)
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Integration>> {
        self.by_name.get(name).cloned()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Integration>> {
        self.by_name.values()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.linking.is_empty()
    }

    /// An integration of the kind `linking`.
    pub fn linking(&self, name: &str) -> Option<Arc<Linking>> {
        self.linking.get(name).cloned()
    }

    /// What is left of the limits that an account's calls count against, by connector. Nothing where its integration is not
    /// configured any more.
    pub async fn budgets_left(&self, account: &Account) -> Result<Vec<(String, Vec<Left>)>, StoreError> {
        if let Some(integration) = self.by_name.get(&account.integration) {
            return Ok(vec![(
                account.connector.clone(),
                integration.budget_left(account).await,
            )]);
        }
        match self.linking.get(&account.integration) {
            Some(linking) => linking.budgets_left(&account.id).await,
            None => Ok(Vec::new()),
        }
    }

    pub fn all_linking(&self) -> impl Iterator<Item = &Arc<Linking>> {
        self.linking.values()
    }
}

/// The text of a connector: a shipped one by its id, or a file.
pub fn connector_source(name: &str, folder: &Path) -> Result<(String, String), String> {
    if let Some(source) = Connector::shipped(name) {
        return Ok((source.to_owned(), format!("connectors/{name}/connector.toml")));
    }
    let path = folder.join(name);
    if name.contains('/') || path.extension().is_some_and(|extension| extension == "toml") {
        let shown = path.display().to_string();
        return match std::fs::read_to_string(&path) {
            Ok(source) => Ok((source, shown)),
            Err(error) => Err(format!("the connector file {shown} cannot be read: {error}")),
        };
    }
    let shipped: Vec<&str> = Connector::shipped_ids().collect();
    Err(format!(
        "there is no connector {name:?}: shipped are {}; a path of a file works too",
        shipped.join(", ")
    ))
}

impl Integration {
    fn load(
        name: &str,
        settings: &settings::Integration,
        all: &Settings,
        folder: &Path,
        deps: &Deps,
    ) -> Result<Integration, Problems> {
        let (source, file) = connector_source(&settings.connector, folder).map_err(|problem| vec![problem])?;
        let mut connector = Connector::load(&source, &file)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Problems>())?;
        let mut problems = Vec::new();
        let allow = AllowHosts::parse(&settings.allow_hosts);
        let http = match allow {
            Ok(allow) => Http::new(client_settings(all), allow).map_err(|error| error.to_string()),
            Err(error) => Err(format!("allow_hosts: {error}")),
        };
        let http = http.map_err(|problem| problems.push(problem)).ok();
        let adjustments = Adjustments {
            map: settings.map.clone(),
            props: settings.props.clone(),
            filter: settings.filter.clone(),
        };
        if let Err(found) = connector.adjust(&adjustments) {
            problems.extend(found);
        }
        if let Err(problem) = auth_type::choose_grant(&mut connector, settings.auth_type) {
            problems.push(problem);
        }
        if connector.fields().contains_key(&settings.bridge_key_field) {
            problems.push(format!(
                "bridge_key_field is {:?}, which is a field of the connector; take another name",
                settings.bridge_key_field
            ));
        }
        let picture =
            |purpose, file: &Option<PathBuf>| Image::load(purpose, file.as_deref(), folder, all.http.image_limit.0);
        let (logo, icon) = (
            picture(Purpose::Logo, &settings.logo)
                .map_err(|problem| problems.push(problem))
                .ok(),
            picture(Purpose::Icon, &settings.icon)
                .map_err(|problem| problems.push(problem))
                .ok(),
        );
        let credentials = auth_type::credentials(&connector, settings, &mut problems);
        auth_type::check_return_fields(&connector, &settings.return_fields, &mut problems);
        for field in settings.connection.keys() {
            if !connector
                .fields()
                .get(field)
                .is_some_and(|known| known.source == FieldSource::Integration)
            {
                let known: Vec<&str> = connector
                    .fields()
                    .iter()
                    .filter(|(_, field)| field.source == FieldSource::Integration)
                    .map(|(name, _)| name.as_str())
                    .collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                problems.push(format!(
                    "connection.{field} is not a value that the connector takes (it takes: {known})"
                ));
            }
        }
        for (field, spec) in connector.fields() {
            let needed = spec.source == FieldSource::Integration && spec.default.is_none();
            if needed && !settings.connection.contains_key(field) {
                problems.push(format!("connection.{field} is missing; the connector needs it"));
            }
        }
        let origin = connector.shared_origin(&exposed(&settings.connection));
        if origin.is_none() && connector.counts_by_address() && problems.is_empty() {
            problems.push(
                "connection: no address of the CRM can be made of it, as the connector's base_url needs".to_owned(),
            );
        }
        let (Some(http), Some(logo), Some(icon), true) = (http, logo, icon, problems.is_empty()) else {
            return Err(problems);
        };
        let mapping = mapping_version(&source, &adjustments, settings.region.as_deref());
        Ok(Integration {
            name: name.to_owned(),
            title: connector.title().to_owned(),
            traits: Traits::of(&connector, mapping, settings.lag, settings.overlap),
            pace: Pace {
                poll: settings.poll.unwrap_or(all.refresh.poll),
                reconcile: settings
                    .reconcile
                    .or(connector.deletions().every)
                    .unwrap_or(all.refresh.reconcile),
                jitter: all.refresh.jitter,
                silence: all.refresh.quiet_webhooks,
                agents: connector
                    .has_agents()
                    .then_some(settings.agents.unwrap_or(all.refresh.agents)),
            },
            mapping,
            base: crate::urls::base(all),
            hooks_at: hooks_at(name, &connector, settings, all),
            ip_budget: origin.map(|origin| deps.keys.ip_budget_scope(connector.id(), &origin)),
            connector: Arc::new(connector),
            auth_success_status: settings.auth_success_status,
            return_fields: settings.return_fields.clone(),
            logo,
            icon,
            guard: Guard::of(settings),
            fixed: settings.connection.clone(),
            credentials,
            app: settings.app.clone(),
            region: settings.region.clone(),
            http,
            deps: deps.clone(),
        })
    }

    /// The fields of `auth` that the connector knows; others, such as the bridge key, are ignored, and empty ones count
    /// as missing. Where Talkdesk sends none, the settings' own credentials stand in their place.
    pub fn auth(&self, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        if let Some(credentials) = &self.credentials {
            return credentials.clone();
        }
        let known = |(name, value): &(&String, &String)| {
            !value.is_empty()
                && self
                    .connector
                    .fields()
                    .get(name.as_str())
                    .is_some_and(|field| field.source == FieldSource::Auth)
        };
        given
            .iter()
            .filter(known)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The first field that `auth` must have and has not.
    pub fn missing_field(&self, auth: &BTreeMap<String, String>) -> Option<&str> {
        self.connector.missing_field(auth)
    }

    /// What of `auth` is kept for the account's workers. Credentials of the settings are nowhere else.
    pub fn kept(&self, auth: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        match self.credentials {
            Some(_) => BTreeMap::new(),
            None => auth.clone(),
        }
    }

    /// Whether the token in `auth` may be over before the next poll would use it: then a poll runs right behind the call
    /// that brought it. A connector that does not say how long tokens live is taken to have short ones.
    pub fn polls_behind(&self, auth: &BTreeMap<String, String>) -> bool {
        self.connector.brought_token(auth).is_some()
            && self
                .connector
                .token_lifetime()
                .is_none_or(|lifetime| lifetime <= self.pace.poll.mul_f64(1.0 + self.pace.jitter))
    }

    /// The secrets of app-level webhooks; several are valid during a rotation.
    pub fn app_secrets(&self) -> Vec<SecretString> {
        let webhook = |name: &str| name == "webhook_secret" || name.starts_with("webhook_secret_");
        self.app
            .iter()
            .filter(|(name, _)| webhook(name))
            .map(|(_, secret)| secret.clone())
            .collect()
    }

    /// What is wanted of an account's webhook. `None`: the CRM has none of an account's own.
    fn subscribing(&self, account: &Account) -> Option<Subscribing> {
        let hooks = self.connector.webhook().filter(crm::Hooks::is_per_account)?;
        let keys = &self.deps.keys;
        let url = self
            .hooks_at
            .as_ref()
            .map(|base| format!("{base}/{}", keys.hook_id(&account.id)));
        let hook = Hook {
            url: url.clone().unwrap_or_default(),
            secret: hooks.secret(&keys.hook_secret(&account.id)),
            number: keys.hook_number(&account.id),
        };
        Some(Subscribing {
            wanted: url.ok().and_then(|url| hooks.wanted(url)),
            by_hand: self.hooks_at.as_ref().err().cloned(),
            hook,
        })
    }

    /// Changes whenever the connector's file does; part of checkpoints.
    pub fn mapping_version(&self) -> u32 {
        self.mapping
    }

    /// Whether a run over a lost generation may be narrowed to what changed since.
    pub fn narrowing(&self) -> Narrowing {
        if self.connector.updated_covers_all() {
            Narrowing::Allowed {
                precision: self.connector.precision(),
            }
        } else {
            Narrowing::Never
        }
    }

    /// Asks the CRM whose credentials these are.
    pub async fn check(&self, auth: &BTreeMap<String, String>, class: Class) -> Result<Learned, CheckError> {
        let failed = |error: CrmError| CheckError {
            kind: error.kind,
            message: process::chain(&error),
        };
        let canonical = self.connector.canonical(auth);
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (locator, login) = (named(&canonical.locator), named(&canonical.principal));
        // Of a host where all organisations log in, nobody's budget is known before the check.
        let locator = locator.filter(|_| !self.connector.learns_its_address());
        let before = self.budgets(locator.as_deref(), login.as_deref());
        let spent: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let client = self
            .client(auth.clone(), before.clone(), class, "check")
            .map_err(failed)?;
        let client = client.watched({
            let spent = spent.clone();
            Arc::new(move |sent| {
                for (limit, cost) in sent.cost {
                    *spent.lock().entry(limit).or_default() += cost;
                }
            })
        });
        let checked = client.check().await;
        client.rest().await;
        let checked = checked.map_err(failed)?;
        let budgets = self.budgets(
            locator.or_else(|| named(&checked.org)).as_deref(),
            login.or_else(|| named(&checked.principal)).as_deref(),
        );
        let spent = std::mem::take(&mut *spent.lock());
        let values: BTreeMap<String, serde_json::Value> = checked
            .learned
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        self.charge_later(&spent, (&before, &budgets), (auth, &values))
            .await
            .map_err(failed)?;
        // Users of a CRM that shows everybody the same share one snapshot; others never do.
        let principal = match (checked.sees_all, checked.principal.is_empty()) {
            (true, _) => String::new(),
            (false, true) => canonical.principal,
            (false, false) => checked.principal,
        };
        if !checked.sees_all && principal.is_empty() {
            return Err(CheckError {
                kind: ErrorKind::BadReply,
                message: "the check did not say whose contacts these are".to_owned(),
            });
        }
        Ok(Learned {
            site: canonical.locator.clone(),
            route: Some(checked.org.clone()),
            org: checked.org,
            principal,
            budgets,
            values,
        })
    }

    fn with_fixed(&self, mut fields: BTreeMap<String, String>) -> BTreeMap<String, String> {
        fields.extend(exposed(&self.fixed));
        fields
    }

    fn client(&self, auth: BTreeMap<String, String>, budgets: Scopes, class: Class, who: &str) -> CrmResult<Client> {
        self.client_in(self.region.clone(), auth, budgets, class, who)
    }

    /// `region`: whose national phone numbers are assumed.
    fn client_in(
        &self,
        region: Option<String>,
        auth: BTreeMap<String, String>,
        budgets: Scopes,
        class: Class,
        who: &str,
    ) -> CrmResult<Client> {
        let fields = self.with_fixed(auth);
        let mint_key = self.mint_key(&fields);
        let connection = Connection { fields, region };
        let waiter = format!("{}|{who}|{:08x}", self.deps.waiter, rand::random::<u32>());
        let pacer = Pacer::new(
            self.deps.ledger.clone(),
            budgets,
            class,
            Patience::default(),
            self.deps.times,
            waiter,
            self.deps.clock.clone(),
        );
        let client = Client::new(
            self.connector.clone(),
            self.http.clone(),
            &connection,
            pacer,
            self.deps.clock.clone(),
        )?;
        Ok(client.with_mint(self.deps.mint.clone(), mint_key))
    }

    /// Stands for everything that a token is minted with; only who has it all is led to the token.
    fn mint_key(&self, fields: &BTreeMap<String, String>) -> String {
        let mut input = Vec::new();
        for name in self.connector.fields().keys() {
            if let Some(value) = fields.get(name) {
                for text in [name, value] {
                    input.extend_from_slice(&(text.len() as u64).to_be_bytes());
                    input.extend_from_slice(text.as_bytes());
                }
            }
        }
        self.deps.keys.fingerprint(&format!("mint|{}", self.name), &input).0
    }

    /// A client for somebody who waits: with the credentials of the request, and ahead of the workers.
    pub fn visit(&self, account: &Account, auth: &BTreeMap<String, String>) -> CrmResult<Client> {
        let fields = with_learned(auth.clone(), &account.learned);
        self.client(
            fields,
            self.budgets_of(account),
            Class::Interactive,
            account.id.as_str(),
        )
    }

    fn source(&self, account: &Account) -> CrmResult<CrmSource> {
        let auth = match &self.credentials {
            Some(credentials) => credentials.clone(),
            None => account
                .credentials
                .open(&self.deps.keys, &account.id)
                .map_err(|error| {
                    CrmError::because(ErrorKind::Credentials, "the stored credentials cannot be opened", error)
                })?,
        };
        let fields = with_learned(auth, &account.learned);
        let client = self.client(fields, self.budgets_of(account), Class::Bulk, account.id.as_str())?;
        Ok(CrmSource {
            client,
            traits: self.traits.clone(),
        })
    }
}

#[async_trait]
impl Sources for Integrations {
    async fn source(&self, account: &Account) -> CrmResult<Arc<dyn Source>> {
        let integration = self.get(&account.integration).ok_or_else(|| {
            let message = format!("the integration {} is not configured any more", account.integration);
            CrmError::new(ErrorKind::Missing, message)
        })?;
        let key = (account.id.clone(), account.fingerprint.clone());
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = Arc::new(integration.source(account)?);
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS {
            clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        // New credentials: the client of the old ones is done with.
        clients.retain(|(id, _), _| *id != account.id);
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn pace(&self, integration: &str) -> Option<Pace> {
        self.by_name.get(integration).map(|integration| integration.pace)
    }

    fn forget(&self, account: &AccountId) {
        self.clients.lock().retain(|(id, _), _| id != account);
        for linking in self.linking.values() {
            linking.forget(account);
        }
    }

    async fn linker(&self, account: &Account) -> CrmResult<Arc<dyn Linker>> {
        let linking = self.linking.get(&account.integration).ok_or_else(|| {
            let message = format!("the integration {} links nothing", account.integration);
            CrmError::new(ErrorKind::Missing, message)
        })?;
        Ok(linking.pairing(account).await?)
    }

    fn keeps(&self, account: &Account) -> bool {
        let linking = self.linking.get(&account.integration);
        linking.is_some_and(|linking| linking.dealer_of(&account.id).is_some())
    }

    fn subscribing(&self, account: &Account) -> Option<Subscribing> {
        self.by_name.get(&account.integration)?.subscribing(account)
    }
}

/// Where the webhooks of an integration's accounts are reached, or why the CRM is not asked for one.
fn hooks_at(
    name: &str,
    connector: &Connector,
    settings: &settings::Integration,
    all: &Settings,
) -> Result<String, String> {
    if !connector.webhook().is_some_and(|hooks| hooks.can_subscribe()) {
        return Err("its API does not offer it".to_owned());
    }
    if settings.subscribe == settings::Subscribe::Off {
        return Err(format!("integrations.{name}.subscribe is off"));
    }
    let (Some(base), Some(url)) = (crate::urls::base(all), &all.http.public_url) else {
        return Err("http.public_url is not set".to_owned());
    };
    let here = url.host().is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    });
    // What a delivery names is a customer's business; to a CRM on this machine it crosses no network.
    if url.scheme() != "https" && !here {
        return Err("http.public_url is not https".to_owned());
    }
    Ok(format!("{base}/{name}/webhooks"))
}

fn exposed(fields: &settings::SecretMap) -> BTreeMap<String, String> {
    let exposed = |(name, value): (&String, &SecretString)| (name.clone(), value.expose_secret().to_owned());
    fields.iter().map(exposed).collect()
}

fn with_learned(
    mut fields: BTreeMap<String, String>,
    learned: &BTreeMap<String, serde_json::Value>,
) -> BTreeMap<String, String> {
    for (name, value) in learned {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fields.entry(name.clone()).or_insert(text);
    }
    fields
}

fn client_settings(settings: &Settings) -> ClientSettings {
    ClientSettings {
        connect_timeout: settings.crm.connect_timeout,
        read_timeout: settings.crm.read_timeout,
        call_timeout: settings.crm.call_timeout,
        body_limit: settings.crm.body_limit.0,
        throttle_max: settings.retry.retry_after_max,
        ..ClientSettings::default()
    }
}

/// The role of a field in words, for `config check`.
pub fn role_name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Locator) => "locator",
        Some(Role::Principal) => "principal",
        Some(Role::Secret) => "secret",
        Some(Role::Ignored) => "ignored",
        None => "-",
    }
}

/// Another file, another adjustment of it, or another region of its phones is another mapping.
fn mapping_version(source: &str, adjustments: &Adjustments, region: Option<&str>) -> u32 {
    let mut text = format!("{}\n{source}", region.unwrap_or_default());
    if !adjustments.is_empty() {
        text.push_str(&format!("{adjustments:?}"));
    }
    let digest = Sha256::digest(text.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
