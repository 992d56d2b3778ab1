//! One account's view of its CRM: requests are rendered, paced, sent and judged here.

mod actions;
mod agents;
mod assertion;
mod check;
mod interactions;
mod linking;
mod listing;
mod lookups;
mod parts;
pub(crate) mod prepare;
mod session;
mod subscriptions;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contacts::ledger::Charge;
use contacts::{Clock, ErrorKind, Micros};
use jiff::tz::TimeZone;
use minijinja::Value;
use secrecy::SecretString;
use tracing::Instrument;
use url::Url;

use crate::connector::Connector;
use crate::error::{CrmError, CrmResult, Reached};
use crate::expr::{scope, value_of};
use crate::http::{Http, Prepared};
use crate::map::Region;
use crate::mint::Mint;
use crate::pacer::{Pacer, Slot};
use crate::reply::{Judged, Reply, Tests, cost, holds, judge};
use crate::spec::{AuthSpec, FieldSource, FieldType, Request, Spec, zone};

use self::lookups::LookedUp;

pub use actions::{Deed, Done};
pub use agents::AgentsPage;
pub use check::Checked;
pub use interactions::{Interaction, Interactions, Person};
pub use linking::{LinkTo, Linked};
pub use listing::{Deleted, DeletedPage, IdsPage, Many, Page, Window};
pub use subscriptions::{Hook, Subscribed};

/// What a client needs to know of its account. Holds secrets; debug output shows none.
#[derive(Clone, Default)]
pub struct Connection {
    /// `auth`, the integration's fixed values and what the check learned, by name. Unknown names are ignored.
    pub fields: BTreeMap<String, String>,
    /// Two-letter country code whose national phone numbers are assumed.
    pub region: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.fields.keys().collect();
        f.debug_struct("Connection")
            .field("fields", &names)
            .field("region", &self.region)
            .finish()
    }
}

/// Calls one account's CRM.
pub struct Client {
    connector: Arc<Connector>,
    http: Http,
    pacer: Pacer,
    clock: Arc<dyn Clock>,
    /// `conn`, for expressions.
    conn: Value,
    base: Url,
    region: Option<Region>,
    /// The CRM's time zone, where its forms of time do not say it.
    zone: TimeZone,
    looked_up: LookedUp,
    secrets: Vec<String>,
    session: session::Store,
    mint: Arc<Mint>,
    mint_key: String,
    watch: Option<Watch>,
}

/// A call that was sent, for people: no secret of the account is in it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub operation: &'static str,
    pub method: http::Method,
    pub url: String,
    /// `None`: no reply came.
    pub status: Option<u16>,
    /// Length of the reply's body.
    pub bytes: usize,
    pub took: Duration,
    /// Units of each limit that it was charged to.
    pub cost: Vec<(String, u32)>,
}

/// Is told of every call of a client, whatever came of it.
pub type Watch = Arc<dyn Fn(Sent) + Send + Sync>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("connector", &self.connector.id())
            .field("host", &self.base.host_str())
            .finish()
    }
}

/// A good reply and where it came from.
pub(crate) struct Answer {
    pub reply: Reply,
    pub judged: Judged,
    /// `response` and what else tests and row paths may use.
    pub scope: Value,
    pub called: Url,
    /// Our clock just before the call.
    pub asked_at: Micros,
}

/// One operation about to be called.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub operation: &'static str,
    pub request: &'a Request,
    pub tests: Tests<'a>,
    /// Names of this call beside `conn`, `session` and `now`.
    pub names: &'a [(&'a str, Value)],
    /// Replaces the rendered URL: the next page, as the CRM named it.
    pub url: Option<&'a Url>,
}

/// A call that may be sent now.
struct Ready {
    prepared: Prepared,
    charges: Vec<Charge>,
    slot: Slot,
}

impl Client {
    /// Fails with `Credentials` if a field is missing or malformed, and with `HostRefused` if its host may not be called.
    pub fn new(
        connector: Arc<Connector>,
        http: Http,
        connection: &Connection,
        pacer: Pacer,
        clock: Arc<dyn Clock>,
    ) -> CrmResult<Client> {
        let spec = connector.spec();
        let fields = fields(&connector, &connection.fields)?;
        let secrets = spec
            .connection
            .fields
            .iter()
            .filter(|(_, field)| field.kind == FieldType::Secret)
            .filter_map(|(name, _)| fields.get(name).cloned())
            .collect();
        let base = prepare::base_url(spec, &fields)?;
        http.check(&base, &spec.connection.hosts)?;
        let brought = connector.brought_token(&fields).is_some();
        let mut conn = fields;
        conn.insert("base_url".to_owned(), base.as_str().trim_end_matches('/').to_owned());
        let conn = value_of(&conn);
        if let (AuthSpec::Oauth2(oauth), Some(_), false) = (&spec.auth, connector.minting(), brought) {
            http.check(&token::token_url(oauth, &conn)?, &spec.connection.hosts)?;
        }
        let region = match &connection.region {
            None => None,
            Some(code) => Some(Region::from_code(code).map_err(|error| {
                CrmError::because(
                    ErrorKind::Rejected,
                    "the account's phone region is no country code",
                    error,
                )
            })?),
        };
        let tz = spec
            .contacts
            .changes
            .as_ref()
            .and_then(|changes| changes.since.as_ref()?.tz.as_ref());
        let zone = match tz {
            Some(tz) => zone(tz, &scope([("conn", conn.clone())]))?,
            None => TimeZone::UTC,
        };
        Ok(Client {
            http,
            pacer,
            zone,
            looked_up: LookedUp::default(),
            mint: Arc::new(Mint::alone(clock.clone())),
            mint_key: String::new(),
            watch: None,
            clock,
            conn,
            base,
            region,
            secrets,
            session: session::Store::default(),
            connector,
        })
    }

    /// Shares minted tokens with the other clients of the process, and with other processes, under a key that stands for
    /// these credentials and no others.
    pub fn with_mint(mut self, mint: Arc<Mint>, key: impl Into<String>) -> Client {
        self.mint = mint;
        self.mint_key = key.into();
        self
    }

    pub fn watched(mut self, watch: Watch) -> Client {
        self.watch = Some(watch);
        self
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Gives unused slots back. Call it at the end of a slice.
    pub async fn rest(&self) {
        self.pacer.rest().await;
    }

    fn spec(&self) -> &Spec {
        self.connector.spec()
    }

    /// Calls an operation. A session or a minted token that the CRM no longer takes is renewed once.
    async fn call(&self, call: Call<'_>) -> CrmResult<Answer> {
        let first = self.entry().await?;
        match self.call_once(call, first.value.as_ref()).await {
            Err(error) if error.kind == ErrorKind::Credentials => {
                if !self.refused(&first).await? {
                    return Err(error);
                }
                let second = self.entry().await?;
                let answer = self.call_once(call, second.value.as_ref()).await;
                if answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Credentials) {
                    self.refused(&second).await?;
                }
                answer
            }
            first => first,
        }
    }

    /// Logs in, or fetches a token, where the connector asks for it. Nothing of the call itself is sent.
    async fn entry(&self) -> CrmResult<Entry> {
        let entry = match &self.spec().auth {
            AuthSpec::Session(login) => self.session(login).await.map(|(value, fresh)| Entry {
                value: Some(value),
                kept: Kept::Session,
                fresh,
            }),
            AuthSpec::Oauth2(oauth) => self.token_entry(oauth).await,
            _ => Ok(Entry {
                value: None,
                kept: Kept::Nothing,
                fresh: true,
            }),
        };
        entry.map_err(|error| error.reaching(Reached::Nobody))
    }

    /// The CRM refused a call with this: it is kept no longer. `true`: another one is worth a try.
    async fn refused(&self, entry: &Entry) -> CrmResult<bool> {
        match &entry.kept {
            Kept::Nothing => return Ok(false),
            Kept::Session => self.session.drop_it().await,
            Kept::Token(token) => self.mint.drop_token(&self.mint_key, token).await?,
        }
        Ok(!entry.fresh)
    }

    async fn call_once(&self, call: Call<'_>, session: Option<&Value>) -> CrmResult<Answer> {
        let ready = self.ready(call, session).await?;
        self.go(call, session, ready).await
    }

    /// All that comes before the first byte: the request is put together, and its slot is taken.
    async fn ready(&self, call: Call<'_>, session: Option<&Value>) -> CrmResult<Ready> {
        let spec = self.spec();
        let mut request_names = self.names(session);
        request_names.push(("now", prepare::now_value(self.clock.now())));
        request_names.extend(call.names.iter().cloned());
        let request_scope = scope(request_names);
        let prepared = prepare::prepare(
            spec,
            call.request,
            &self.base,
            call.url,
            &request_scope,
            session.is_some(),
        )?;
        self.http.check(&prepared.url, &spec.connection.hosts)?;

        let charges = self.connector.charges(call.operation, &self.conn, self.clock.now())?;
        let slot = self.pacer.slot(&charges).await?;
        Ok(Ready {
            prepared,
            charges,
            slot,
        })
    }

    async fn go(&self, call: Call<'_>, session: Option<&Value>, ready: Ready) -> CrmResult<Answer> {
        let spec = self.spec();
        let Ready {
            prepared,
            charges,
            slot,
        } = ready;
        let mut names = self.names(session);
        let (called, method) = (prepared.url.clone(), prepared.method.clone());
        let asked_at = self.clock.now();
        let span = tracing::info_span!("crm_call", operation = %call.operation, status = tracing::field::Empty);
        let sent = self.http.send(prepared).instrument(span.clone()).await;
        span.record("status", sent.as_ref().ok().map(|reply| reply.status));
        if let Some(watch) = &self.watch {
            watch(Sent {
                operation: call.operation,
                method,
                url: self.scrub(called.as_str(), session),
                status: sent.as_ref().ok().map(|reply| reply.status),
                bytes: sent.as_ref().map_or(0, |reply| reply.body.len()),
                took: self.clock.now().since(asked_at),
                cost: charges
                    .iter()
                    .map(|charge| (charge.limit.name.clone(), charge.cost))
                    .collect(),
            });
        }
        match &sent {
            // The host was refused on the way: nothing was sent.
            Err(error) if error.kind == ErrorKind::HostRefused => self.pacer.give_back(slot).await,
            _ => self.pacer.settle(slot).await,
        }
        let replied = |error: CrmError, status: u16| error.reaching(Reached::Replied(status));
        let outcome = if sent.is_ok() { "answered" } else { "failed" };
        metrics::counter!("snapbridge_crm_calls_total", "connector" => spec.id.clone(), "operation" => call.operation, "outcome" => outcome)
            .increment(1);
        let reply = Reply::new(&sent?);
        let status = reply.status;
        let now = self.clock.now();
        names.push(("response", reply.value.clone()));
        let scope = scope(names);

        if let Some(cost) = cost(spec, &reply, &scope) {
            let noted = self.pacer.really_cost(&charges, cost).await;
            noted.map_err(|error| replied(error, status))?;
        }
        let settings = &self.http.settings;
        for none_left in holds(spec, &reply, &scope, settings, now) {
            let noted = self.pacer.none_left(&none_left, &charges, asked_at).await;
            noted.map_err(|error| replied(error, status))?;
        }
        let scrub = |text: &str| self.scrub(text, session);
        let judged = judge(spec, call.tests, &reply, &scope, settings, &scrub, now);
        if let Err(error) = &judged {
            for stop in self.connector.hold_for(error.kind, call.operation) {
                let held = self.pacer.hold(&stop).await;
                held.map_err(|error| replied(error, status))?;
            }
        }
        match judged {
            Ok(judged) => Ok(Answer {
                reply,
                judged,
                scope,
                called,
                asked_at,
            }),
            Err(error) => Err(replied(error, status)),
        }
    }

    /// The names that every expression about a call may use.
    fn names(&self, session: Option<&Value>) -> Vec<(&'static str, Value)> {
        let session = session.map(|session| ("session", session.clone()));
        [("conn", self.conn.clone())].into_iter().chain(session).collect()
    }

    /// Takes the account's secrets out of a text that a CRM sent.
    fn scrub(&self, text: &str, session: Option<&Value>) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| secret.len() >= 4) {
            text = text.replace(secret.as_str(), "***");
        }
        if let Some(session) = session {
            let names = session.try_iter().into_iter().flatten();
            for value in names.filter_map(|name| session.get_item(&name).ok()) {
                let long = value.as_str().filter(|value| value.len() >= 8);
                if let Some(value) = long {
                    text = text.replace(value, "***");
                }
            }
        }
        text
    }
}

/// What lets a call in, beside the account's fields.
struct Entry {
    /// `session` in expressions.
    value: Option<Value>,
    kept: Kept,
    /// Made just now: if the CRM refuses it, another one is no better.
    fresh: bool,
}

/// What is forgotten when the CRM refuses it.
enum Kept {
    /// The fields alone, or a token that Talkdesk brought.
    Nothing,
    Session,
    Token(SecretString),
}

/// The known fields with their defaults, normalised and checked.
fn fields(connector: &Connector, given: &BTreeMap<String, String>) -> CrmResult<BTreeMap<String, String>> {
    let spec = connector.spec();
    if let Some(name) = connector.missing_field(given) {
        let message = format!("`{name}` is missing in auth");
        return Err(CrmError::new(ErrorKind::Credentials, message));
    }
    let mut fields = BTreeMap::new();
    for (name, field) in &spec.connection.fields {
        let Some(value) = given.get(name).or(field.default.as_ref()) else {
            match field.source {
                // Not needed with what else there is.
                FieldSource::Auth => continue,
                FieldSource::Integration => {
                    let message = format!("`{name}` is missing in the integration's settings");
                    return Err(CrmError::new(ErrorKind::Rejected, message));
                }
            }
        };
        let Some(normal) = field.normal(value) else {
            let kind = match field.source {
                FieldSource::Auth => ErrorKind::Credentials,
                FieldSource::Integration => ErrorKind::Rejected,
            };
            return Err(CrmError::new(
                kind,
                format!("`{name}` is not what the connector expects there"),
            ));
        };
        fields.insert(name.clone(), normal);
    }
    let learned = spec
        .check
        .learn
        .keys()
        .filter_map(|name| Some((name.clone(), given.get(name)?.clone())));
    fields.extend(learned);
    Ok(fields)
}
