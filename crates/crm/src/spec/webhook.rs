//! How a webhook proves who sent it, and what it says.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Subscribe, Vocabulary};
use crate::expr::{Attributes, Expr, Names, Template};
use crate::load::Table;

/// `[webhook]`
#[derive(Debug)]
pub struct Webhook {
    /// The sender's patience (Odoo: 1 s).
    pub answer_within: Option<Duration>,
    pub scope: HookScope,
    pub verify: Verify,
    pub events: Events,
    pub subscribe: Option<Subscribe>,
}

/// Whose webhook it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookScope {
    /// One URL for all accounts; the event names the account and the secret is the integration's.
    App,
    /// One URL per account, with a derived secret.
    Connection,
    /// Either.
    Both,
}

/// `[webhook.verify]`
#[derive(Debug)]
pub struct Verify {
    pub kind: VerifyKind,
    pub challenge: Option<Challenge>,
    /// The form of the body.
    pub decode: Decode,
    /// What the sender wants as an answer: status, content type, body (Salesforce's SOAP acknowledgement).
    pub ack: Option<(u16, String, String)>,
}

#[derive(Debug)]
pub enum VerifyKind {
    Hmac {
        hash: HashKind,
        header: HeaderName,
        encoding: Encoding,
        prefix: String,
        /// What is signed, in this order, as bytes.
        signed: Vec<Part>,
        timestamp: Option<Timestamp>,
        wrap: Option<Wrap>,
    },
    /// The secret itself stands somewhere.
    Shared(Where),
    /// `Authorization: Basic`; the secret is the password, the user name is free.
    Basic,
    /// Said aloud: anyone can send these.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    Sha1,
    Sha256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

/// One piece of the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Method,
    /// The configured public URL, as given.
    Url,
    /// The same with HubSpot's twelve percent sequences decoded.
    UrlHubspot,
    Timestamp,
    Text(String),
    Body,
}

/// `timestamp = { header, unit, tolerance }`
#[derive(Clone, Debug)]
pub struct Timestamp {
    pub header: HeaderName,
    pub unit: TimestampUnit,
    pub tolerance: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    Seconds,
    Millis,
    Rfc3339,
}

/// `wrap = { as = "base64", template = "${hook.id}:${sig}" }`: the header carries this instead of the signature.
#[derive(Debug)]
pub struct Wrap {
    pub base64: bool,
    pub template: Template,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    Header(HeaderName),
    Query(String),
    /// A field of the body (Zoho).
    Body(String),
}

/// `challenge = { method = "GET", when, answer }`: the set-up handshake.
#[derive(Debug)]
pub struct Challenge {
    pub when: Expr,
    pub answer: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    Json,
    Xml,
    Form,
}

/// `[webhook.events]`
#[derive(Debug)]
pub struct Events {
    pub each: Expr,
    pub when: Option<Expr>,
    pub account: Option<Expr>,
    pub ids: Expr,
    pub deleted: Option<Expr>,
    pub at: Option<Expr>,
    pub dedupe: Option<Expr>,
    /// It is about a user of the CRM.
    pub agents: Option<Expr>,
}

impl Webhook {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Webhook> {
        let scope = table.need_choice(
            "scope",
            &[
                ("app", HookScope::App),
                ("connection", HookScope::Connection),
                ("both", HookScope::Both),
            ],
        );
        let answer_within = table.duration("answer_within");
        if !table.has("verify") {
            let hint = "for a sender that proves nothing say so: [webhook.verify] kind = \"none\"";
            table.problem("verify", "`webhook.verify` is missing", Some(hint));
        }
        let verify = table.table("verify").and_then(Verify::read);
        let events = table.need_table("events").and_then(Events::read);
        let routed = events.as_ref().is_none_or(|events| events.account.is_some());
        if matches!(scope, Some(HookScope::App | HookScope::Both)) && !routed {
            let hint = "an expression over `ev` that gives what `check` learned as `org`";
            table.problem("events", "an app-level webhook needs `events.account`", Some(hint));
        }
        let subscribe = table
            .table("subscribe")
            .map(|subscribe| Subscribe::read(subscribe, vocabulary));
        let own_url = matches!(scope, Some(HookScope::Connection | HookScope::Both));
        if scope.is_some() && !own_url && subscribe.as_ref().is_some_and(|subscribe| subscribe.calls.is_some()) {
            let hint = "it is asked for with an account's credentials: scope = \"connection\" or \"both\"";
            table.problem(
                "scope",
                "a webhook of one URL for all accounts is not asked for by an account",
                Some(hint),
            );
        }
        table.finish();
        Some(Webhook {
            answer_within,
            scope: scope?,
            verify: verify?,
            events: events?,
            subscribe,
        })
    }
}

#[derive(Clone, Copy)]
enum Word {
    Hmac,
    Shared,
    Basic,
    None,
}

impl Verify {
    /// Reads one stanza; also used on its own by tests that hold many CRMs' stanzas.
    pub(crate) fn read(table: Table<'_, '_>) -> Option<Verify> {
        let word = table.need_choice(
            "kind",
            &[
                ("hmac", Word::Hmac),
                ("shared", Word::Shared),
                ("basic", Word::Basic),
                ("none", Word::None),
            ],
        );
        let kind = word.and_then(|word| match word {
            Word::Hmac => read_hmac(&table),
            Word::Shared => table.need_table("in").and_then(read_where).map(VerifyKind::Shared),
            Word::Basic => Some(VerifyKind::Basic),
            Word::None => Some(VerifyKind::None),
        });
        let challenge = table.table("challenge").and_then(Challenge::read);
        let decode = table
            .choice(
                "decode",
                &[("json", Decode::Json), ("xml", Decode::Xml), ("form", Decode::Form)],
            )
            .unwrap_or(Decode::Json);
        let ack = table.table("ack").and_then(read_ack);
        table.finish();
        Some(Verify {
            kind: kind?,
            challenge,
            decode,
            ack,
        })
    }
}

fn read_ack(table: Table<'_, '_>) -> Option<(u16, String, String)> {
    let status = table.number("status", 200..=299).unwrap_or(200) as u16;
    let kind = table.need_text("type");
    if kind
        .as_ref()
        .is_some_and(|kind| HeaderValue::try_from(kind.as_str()).is_err())
    {
        table.problem("type", "`type` is no content type", Some("for example \"text/xml\""));
    }
    let body = table.need_text("body");
    table.finish();
    Some((status, kind?, body?))
}

fn header(table: &Table<'_, '_>) -> Option<HeaderName> {
    let text = table.need_text("header")?;
    let name = HeaderName::try_from(text.as_str()).ok();
    if name.is_none() {
        table.problem("header", format!("{text:?} is not a header name"), None);
    }
    name
}

fn read_hmac(table: &Table<'_, '_>) -> Option<VerifyKind> {
    let hash = table.need_choice("hash", &[("sha1", HashKind::Sha1), ("sha256", HashKind::Sha256)]);
    let header = header(table);
    let encoding = table.need_choice("encoding", &[("hex", Encoding::Hex), ("base64", Encoding::Base64)]);
    let prefix = table.text("prefix").unwrap_or_default();
    let timestamp = table.table("timestamp").and_then(read_timestamp);
    let signed = read_signed(table);
    let wrap = table.table("wrap").and_then(read_wrap);
    let signs_time = signed.as_ref().is_some_and(|parts| parts.contains(&Part::Timestamp));
    match (signs_time, table.has("timestamp")) {
        (true, false) => table.problem(
            "signed",
            "`timestamp` is signed, but nothing says where it stands",
            None,
        ),
        (false, true) => {
            table.problem(
                "timestamp",
                "a timestamp that is not signed proves nothing",
                Some("add it to `signed`"),
            );
        }
        _ => {}
    }
    Some(VerifyKind::Hmac {
        hash: hash?,
        header: header?,
        encoding: encoding?,
        prefix,
        signed: signed?,
        timestamp,
        wrap,
    })
}

fn read_signed(table: &Table<'_, '_>) -> Option<Vec<Part>> {
    let texts = table.texts("signed");
    if texts.is_none() {
        table.problem(
            "signed",
            "`signed` is missing",
            Some("what is signed, in order: [\"timestamp\", \"text:.\", \"body\"]"),
        );
    }
    let texts = texts?;
    let mut parts = Vec::new();
    for (text, at) in &texts {
        parts.push(match text.as_str() {
            "method" => Part::Method,
            "url" => Part::Url,
            "url:hubspot" => Part::UrlHubspot,
            "timestamp" => Part::Timestamp,
            "body" => Part::Body,
            other => match other.strip_prefix("text:") {
                Some(literal) => Part::Text(literal.to_owned()),
                None => {
                    let hint = "method, url, url:hubspot, timestamp, text:…, body".to_owned();
                    table
                        .reader
                        .problem(*at, format!("`{other}` is no part of signed bytes"), Some(hint));
                    return None;
                }
            },
        });
    }
    if !parts.contains(&Part::Body) {
        table.problem(
            "signed",
            "a signature that does not cover the body proves nothing",
            None,
        );
        return None;
    }
    Some(parts)
}

fn read_timestamp(table: Table<'_, '_>) -> Option<Timestamp> {
    let header = header(&table);
    let unit = table.need_choice(
        "unit",
        &[
            ("s", TimestampUnit::Seconds),
            ("ms", TimestampUnit::Millis),
            ("rfc3339", TimestampUnit::Rfc3339),
        ],
    );
    let tolerance = table.duration("tolerance");
    if tolerance.is_none_or(|tolerance| tolerance.is_zero() || tolerance > Duration::from_secs(86_400)) {
        table.problem(
            "tolerance",
            "a timestamp needs a `tolerance` of up to 24h",
            Some("for example \"5m\""),
        );
    }
    table.finish();
    Some(Timestamp {
        header: header?,
        unit: unit?,
        tolerance: tolerance?,
    })
}

fn read_wrap(table: Table<'_, '_>) -> Option<Wrap> {
    let names = Names::default()
        .with("hook", Attributes::only(["id"]))
        .with("sig", Attributes::Plain);
    let base64 = table.need_choice("as", &[("base64", true), ("text", false)]);
    let template = table.need_template("template", &names);
    table.finish();
    Some(Wrap {
        base64: base64?,
        template: template?,
    })
}

fn read_where(table: Table<'_, '_>) -> Option<Where> {
    let header = table.has("header").then(|| header(&table)).flatten().map(Where::Header);
    let query = table.text("query").map(Where::Query);
    let body = table.text("body").map(Where::Body);
    if [table.has("header"), table.has("query"), table.has("body")]
        .iter()
        .filter(|has| **has)
        .count()
        != 1
    {
        table.problem(
            "header",
            format!("`{}` needs one of `header`, `query`, `body`", table.path),
            None,
        );
    }
    table.finish();
    header.or(query).or(body)
}

impl Challenge {
    fn read(table: Table<'_, '_>) -> Option<Challenge> {
        let names = Names::default().with("query", Attributes::Any);
        if table.text("method").is_some_and(|method| method != "GET") {
            let hint =
                "a test delivery by `POST` (Intercom's ping) is a delivery: it is verified and named by no `ids`";
            table.problem("method", "a challenge comes by `GET`", Some(hint));
        }
        let (when, answer) = (table.need_expr("when", &names), table.need_expr("answer", &names));
        table.finish();
        Some(Challenge {
            when: when?,
            answer: answer?,
        })
    }
}

impl Events {
    fn read(table: Table<'_, '_>) -> Option<Events> {
        let body = Names::default().with("body", Attributes::Any);
        let event = body.clone().with("ev", Attributes::Any);
        let each = table.need_expr("each", &body);
        let ids = table.need_expr("ids", &event);
        if table.boolean("trust_body").unwrap_or(false) {
            let what =
                "a body is never taken as data: deliveries come late, twice and in any order, and pass by the mapping";
            table.problem(
                "trust_body",
                what,
                Some("leave it out: what a delivery names is fetched"),
            );
        }
        let (when, account, deleted) = (
            table.expr("when", &event),
            table.expr("account", &event),
            table.expr("deleted", &event),
        );
        let (at, dedupe) = (table.expr("at", &event), table.expr("dedupe", &event));
        let agents = table.expr("agents", &event);
        table.finish();
        Some(Events {
            each: each?,
            when,
            account,
            ids: ids?,
            deleted,
            at,
            dedupe,
            agents,
        })
    }
}
