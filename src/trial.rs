//! A connector tried against a CRM, before anything is configured: the credentials are checked and the first contacts are
//! read, mapped and shown, with what it took. Nothing is stored, and the connector's limits are kept.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contacts::ledger::{Class, Ledger, Scopes, Times};
use contacts::{Clock, Contact, SystemClock};
use crm::{
    AllowHosts, Client, ClientSettings, Connection, Connector, Counts, CrmError, FieldSource, FieldType, Http, Pacer,
    Patience, Region, Sent,
};
use parking_lot::Mutex;
use serde::Serialize;
use store::MemoryStore;

pub struct Plan {
    pub connector: Connector,
    /// As Talkdesk would send it.
    pub auth: BTreeMap<String, String>,
    /// As the settings of an integration would have it.
    pub fixed: BTreeMap<String, String>,
    pub region: Option<String>,
    pub allow: AllowHosts,
    pub pages: u32,
    pub call_timeout: Duration,
}

/// What came of it. Holds contacts; the credentials are in none of its texts.
#[derive(Debug, Serialize)]
pub struct Trial {
    pub connector: String,
    pub account: Option<Account>,
    /// As Talkdesk would get them.
    pub contacts: Vec<Contact>,
    /// Contacts that the CRM says are archived or deleted.
    pub removed: Vec<String>,
    /// Contacts that the filter leaves out.
    pub unwanted: u32,
    pub pages: u32,
    /// There are more contacts than were read.
    pub more: bool,
    /// How often something was mended, by reason.
    pub repaired: BTreeMap<String, u32>,
    /// How often something was left out, by reason.
    pub dropped: BTreeMap<String, u32>,
    pub requests: Vec<Request>,
    /// Units spent of each limit.
    pub spent: Vec<Spent>,
    /// Why it ended early.
    pub error: Option<Failed>,
}

/// Whose credentials they are.
#[derive(Debug, Serialize)]
pub struct Account {
    pub org: String,
    pub principal: String,
    /// Every user of the organisation sees the same contacts.
    pub sees_all: bool,
    pub learned: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct Request {
    pub operation: &'static str,
    pub method: String,
    pub url: String,
    pub status: Option<u16>,
    pub bytes: usize,
    pub ms: u64,
}

#[derive(Debug, Serialize)]
pub struct Spent {
    pub limit: String,
    pub units: u64,
    /// Of the limit, after our share.
    pub max: u64,
}

#[derive(Debug, Serialize)]
pub struct Failed {
    /// `check`, or the page that failed.
    pub at: String,
    pub kind: &'static str,
    pub message: String,
}

impl Plan {
    /// Fields that are missing or that the connector does not know, all at once.
    ///
    /// # Errors
    /// One sentence per problem.
    pub fn problems(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let option = |source: FieldSource| match source {
            FieldSource::Auth => "--auth",
            FieldSource::Integration => "--connection",
        };
        for (given, source) in [(&self.auth, FieldSource::Auth), (&self.fixed, FieldSource::Integration)] {
            for name in given.keys() {
                match self.connector.fields().get(name) {
                    Some(field) if field.source == source => {}
                    Some(field) => problems.push(format!("`{name}` is given with {}", option(field.source))),
                    None => problems.push(format!("{} {name}: the connector has no such field", option(source))),
                }
            }
        }
        if let Some(name) = self.connector.missing_field(&self.auth) {
            problems.push(format!("--auth {name}=… is missing ({})", self.describe(name)));
        }
        for (name, field) in self.connector.fields() {
            let given = self.fixed.contains_key(name) || field.default.is_some();
            if field.source == FieldSource::Integration && !given {
                problems.push(format!("--connection {name}=… is missing ({})", self.describe(name)));
            }
        }
        if let Some(Err(error)) = self.region.as_deref().map(Region::from_code) {
            problems.push(format!("--region: {error}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn describe(&self, name: &str) -> String {
        let field = self.connector.fields().get(name);
        let title = field.and_then(|field| field.title.as_deref()).unwrap_or(name);
        match field.map(|field| field.kind) {
            Some(FieldType::Secret) => format!("{title}; a secret, better from a file: {name}=@FILE"),
            _ => title.to_owned(),
        }
    }
}

/// A slot is waited for this long: whoever tries a connector has time, and its limits are kept.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the client tells of its calls.
#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    spent: BTreeMap<String, u64>,
}

pub async fn run(plan: Plan) -> Trial {
    let mut trial = Trial {
        connector: plan.connector.id().to_owned(),
        account: None,
        contacts: Vec::new(),
        removed: Vec::new(),
        unwanted: 0,
        pages: 0,
        more: false,
        repaired: BTreeMap::new(),
        dropped: BTreeMap::new(),
        requests: Vec::new(),
        spent: Vec::new(),
        error: None,
    };
    let log = Arc::new(Mutex::new(Log::default()));
    let mut fields = plan.auth.clone();
    fields.extend(plan.fixed.clone());
    let caller = Caller {
        connector: Arc::new(plan.connector),
        allow: plan.allow,
        region: plan.region,
        call_timeout: plan.call_timeout,
        ledger: Arc::new(Ledger::new(Arc::new(MemoryStore::new()))),
        log: log.clone(),
    };
    if let Err(failed) = caller.read(&mut fields, plan.pages, &mut trial).await {
        trial.error = Some(failed);
    }
    for (name, field) in caller.connector.fields() {
        if let Some(default) = &field.default {
            fields.entry(name.clone()).or_insert_with(|| default.clone());
        }
    }
    let log = std::mem::take(&mut *log.lock());
    trial.requests = log.requests;
    let limits = caller.connector.limits(&fields, SystemClock.now()).unwrap_or_default();
    trial.spent = limits
        .iter()
        .filter_map(|limit| {
            Some(Spent {
                limit: limit.name.clone(),
                units: *log.spent.get(&limit.name)?,
                max: limit.kind.max(),
            })
        })
        .collect();
    trial
}

struct Caller {
    connector: Arc<Connector>,
    allow: AllowHosts,
    region: Option<String>,
    call_timeout: Duration,
    ledger: Arc<Ledger<MemoryStore>>,
    log: Arc<Mutex<Log>>,
}

impl Caller {
    /// The check, then the pages. What was learned goes to the fields.
    async fn read(&self, fields: &mut BTreeMap<String, String>, pages: u32, trial: &mut Trial) -> Result<(), Failed> {
        let failed = |at: &str| {
            let at = at.to_owned();
            move |error: CrmError| Failed {
                at,
                kind: error.kind.as_str(),
                message: process::chain(&error),
            }
        };
        let client = self.client(fields).map_err(failed("check"))?;
        let checked = client.check().await.map_err(failed("check"))?;
        fields.extend(checked.learned.clone());
        trial.account = Some(Account {
            org: checked.org,
            principal: checked.principal,
            sees_all: checked.sees_all,
            learned: checked.learned,
        });
        let client = self.client(fields).map_err(failed("check"))?;
        let mut cursor = None;
        while trial.pages < pages {
            let at = format!("page {}", trial.pages + 1);
            let page = client.full_page(cursor.as_ref()).await.map_err(failed(&at))?;
            trial.pages += 1;
            for row in page.rows {
                match (row.removed, row.unwanted) {
                    (true, _) => trial.removed.push(row.contact.id),
                    (false, true) => trial.unwanted += 1,
                    (false, false) => trial.contacts.push(row.contact),
                }
            }
            add(&mut trial.repaired, &page.repairs);
            add(&mut trial.dropped, &page.dropped);
            cursor = page.next;
            trial.more = cursor.is_some();
            if !trial.more {
                break;
            }
        }
        Ok(())
    }

    fn client(&self, fields: &BTreeMap<String, String>) -> Result<Client, CrmError> {
        let settings = ClientSettings {
            call_timeout: self.call_timeout,
            ..ClientSettings::default()
        };
        let clock = Arc::new(SystemClock);
        let patience = Patience {
            bulk: PATIENCE,
            ..Patience::default()
        };
        // Of a store of its own, where nobody else has budgets.
        let key = || Some("trial".to_owned());
        let scopes = Scopes {
            ip: key(),
            app: key(),
            account: key(),
            user: key(),
        };
        let pacer = Pacer::new(
            self.ledger.clone(),
            scopes,
            Class::Bulk,
            patience,
            Times::default(),
            "trial",
            clock.clone(),
        );
        let connection = Connection {
            fields: fields.clone(),
            region: self.region.clone(),
        };
        let http = Http::new(settings, self.allow.clone())?;
        let client = Client::new(self.connector.clone(), http, &connection, pacer, clock)?;
        let log = self.log.clone();
        Ok(client.watched(Arc::new(move |sent| log.lock().note(sent))))
    }
}

impl Log {
    fn note(&mut self, sent: Sent) {
        for (limit, units) in &sent.cost {
            *self.spent.entry(limit.clone()).or_default() += u64::from(*units);
        }
        self.requests.push(Request {
            operation: sent.operation,
            method: sent.method.to_string(),
            url: sent.url,
            status: sent.status,
            bytes: sent.bytes,
            ms: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

fn add(sum: &mut BTreeMap<String, u32>, counts: &Counts) {
    for (reason, count) in counts {
        *sum.entry((*reason).to_owned()).or_default() += count;
    }
}
