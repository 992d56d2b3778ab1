//! The vocabulary of connector files: one type for everything that the CRMs studied need, read from the parsed TOML with
//! all expressions compiled. What the engine does not run yet is refused here by name, so a file that loads can run.

mod adjust;
mod auth;
mod connection;
mod contacts;
mod link;
mod link_events;
mod mapping;
mod operations;
mod pacing;
mod paging;
mod replies;
mod request;
mod subscribe;
mod times;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};

use crate::expr::{Attributes, Names};
use crate::load::{Reader, Table};

pub(crate) use adjust::adjust;

pub use adjust::Adjustments;
pub use auth::{Assertion, AuthSpec, ClientAuth, Grant, HmacAuth, Oauth2, Session};
pub(crate) use connection::mentions;
pub use connection::{ConnectionSpec, Field, FieldSource, FieldType, Role};
pub use contacts::{ContactsSpec, Cursor, DeletedList, Deletion, Delta, GetMany, IdList, Lookup, Order, Pass};
pub(crate) use link::LINK_NAMES;
pub use link::{LinkFind, LinkMap, LinkRead, LinkSpec, LinkWrite};
pub use link_events::LinkEvents;
pub use mapping::Mapping;
pub use operations::{
    Action, ActionResult, Agents, Check, Input, Interaction, InteractionMap, PRIORITIES, STATUSES, Step,
};
pub use pacing::{LimitKind, LimitSpec, Maximum, Remaining, Reset, Signal, SignalSource, Throttle, Unit};
pub use paging::{AtCap, Paging, PagingKind, Stop};
pub use replies::{Replies, Rule, Verdict};
pub use request::{Body, Request};
pub use subscribe::{Calls, Capture, Reveal, Subscribe, SubscriptionList};
pub(crate) use times::zone;
pub use times::{Since, Wire};
pub use webhook::{
    Challenge, Decode, Encoding, Events, HashKind, HookScope, Part, Timestamp, TimestampUnit, Verify, VerifyKind,
    Webhook, Where, Wrap,
};

/// Names of the operations, as `only`, `except` and `cost` of a limit use them.
pub const OPERATIONS: &[&str] = &[
    "login",
    "check",
    "contacts.full",
    "contacts.changes",
    "contacts.get_many",
    "contacts.deleted",
    "contacts.ids",
    "contacts.lookups",
    "agents",
    "interactions",
    "actions",
    "webhook",
    "link",
];

/// A whole connector file.
#[derive(Debug)]
pub struct Spec {
    pub id: String,
    pub title: String,
    /// The vendor's name of the API version that the file speaks.
    pub api: Option<String>,
    pub connection: ConnectionSpec,
    pub auth: AuthSpec,
    pub limits: Vec<LimitSpec>,
    pub throttle: Throttle,
    pub replies: Replies,
    pub check: Check,
    pub contacts: ContactsSpec,
    pub agents: Option<Agents>,
    pub interactions: Vec<Interaction>,
    pub actions: Vec<Action>,
    pub webhook: Option<Webhook>,
    pub link: Option<LinkSpec>,
}

impl Spec {
    pub(crate) fn read(root: Table<'_, '_>) -> Option<Spec> {
        read_format(&root);
        let id = root.need_text("id").filter(|id| check_id(&root, id));
        let title = root.need_text("title");
        let api = root.text("api");

        let mut vocabulary = Vocabulary::default();
        // The base URL may be one that the check learns.
        vocabulary
            .learned
            .extend(root.table("check").map(operations::learned_names).unwrap_or_default());
        let connection = root
            .need_table("connection")
            .and_then(|table| ConnectionSpec::read(table, &mut vocabulary));
        let auth_table = root.need_table("auth");
        if let Some(table) = &auth_table {
            vocabulary.session.extend(auth::session_names(table));
        }
        let clashes = connection.iter().flat_map(|connection| connection.fields.keys());
        for name in clashes.filter(|name| vocabulary.learned.contains(*name)) {
            root.problem(
                "check",
                format!("`check.learn.{name}` has the name of a field"),
                Some("give one of them another name"),
            );
        }

        let auth = auth_table.and_then(|table| AuthSpec::read(table, &vocabulary));
        let limits: Vec<LimitSpec> = root
            .tables("limits")
            .into_iter()
            .filter_map(|table| LimitSpec::read(table, &vocabulary))
            .collect();
        check_limit_names(&root, &limits);
        let throttle = root.table("throttle").map_or_else(Throttle::default, |table| {
            Throttle::read(table, &vocabulary, &limits).unwrap_or_default()
        });
        let replies = root
            .table("replies")
            .map_or_else(Replies::default, |table| Replies::read(table, &vocabulary));
        let check = root
            .need_table("check")
            .and_then(|table| Check::read(table, &vocabulary));
        let contacts = root
            .need_table("contacts")
            .and_then(|table| ContactsSpec::read(table, &vocabulary));
        let agents = root.table("agents").and_then(|table| Agents::read(table, &vocabulary));
        if root.has("users") {
            // The contract calls them agents; drafts of connector files said users.
            root.problem(
                "users",
                "unknown key `users`",
                Some("the CRM's users stand under `[agents]`"),
            );
        }
        let interactions: Vec<Interaction> = root
            .tables("interactions")
            .into_iter()
            .filter_map(|table| Interaction::read(table, &vocabulary))
            .collect();
        let actions: Vec<Action> = root
            .tables("actions")
            .into_iter()
            .filter_map(|table| Action::read(table, &vocabulary))
            .collect();
        operations::check_names(&root, &interactions, &actions);
        let webhook = root
            .table("webhook")
            .and_then(|table| Webhook::read(table, &vocabulary));
        let link = root.table("link").and_then(|table| LinkSpec::read(table, &vocabulary));
        let (reader, auth_at, check_at) = (root.reader, root.place("auth"), root.place("check"));
        let limits_at = root.place("limits");
        root.finish();

        let spec = Spec {
            id: id?,
            title: title?,
            api,
            connection: connection?,
            auth: auth?,
            limits,
            throttle,
            replies,
            check: check?,
            contacts: contacts?,
            agents,
            interactions,
            actions,
            webhook,
            link,
        };
        auth::check_sources(reader, auth_at, &spec);
        check_identity(reader, check_at, &spec);
        pacing::check_scopes(reader, limits_at, &spec);
        Some(spec)
    }
}

fn read_format(root: &Table<'_, '_>) {
    if !root.has("format") {
        root.problem(
            "format",
            "`format` is missing",
            Some("begin the file with `format = 1`"),
        );
    }
    root.number("format", 1..=1);
}

fn check_id(root: &Table<'_, '_>, id: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !id.is_empty() && id.len() <= 32 && id.chars().all(legal);
    if !good {
        root.problem("id", "`id` must be 1 to 32 characters of a-z, 0-9 and -", None);
    }
    good
}

/// Two users of a CRM must never share a snapshot by accident (design: isolation): the file says how they are told apart,
/// or that they need not be.
fn check_identity(reader: &Reader<'_>, at: usize, spec: &Spec) {
    let named = spec
        .connection
        .fields
        .values()
        .any(|field| field.role == Some(Role::Principal));
    if !named && spec.check.principal.is_none() && spec.check.visibility.is_none() {
        let hint =
            "give `check.principal`, a field with the role `principal`, or `check.visibility` where all see the same";
        reader.problem(
            at,
            "nothing tells the users of one organisation apart",
            Some(hint.to_owned()),
        );
    }
}

fn check_limit_names(root: &Table<'_, '_>, limits: &[LimitSpec]) {
    for (i, limit) in limits.iter().enumerate() {
        if limits[..i].iter().any(|other| other.name == limit.name) {
            root.problem("limits", format!("two limits are called `{}`", limit.name), None);
        }
    }
}

/// Which names stand in reach of the expressions of this file.
#[derive(Debug, Default)]
pub struct Vocabulary {
    pub(crate) fields: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) learned: BTreeSet<String>,
    pub(crate) session: BTreeSet<String>,
}

impl Vocabulary {
    fn conn(&self) -> Attributes {
        let own = ["base_url".to_owned()];
        Attributes::only(self.fields.iter().chain(&self.learned).chain(&own).cloned())
    }

    fn session_attributes(&self) -> Attributes {
        Attributes::only(self.session.iter().cloned())
    }

    /// In the base URL: fields and learned values, nothing else.
    pub(crate) fn base(&self) -> Names {
        Names::default().with(
            "conn",
            Attributes::only(self.fields.iter().chain(&self.learned).cloned()),
        )
    }

    /// In headers that every call carries.
    pub(crate) fn call(&self) -> Names {
        let now = Attributes::only(["epoch_s", "epoch_ms", "iso"]);
        let names = Names::default().with("conn", self.conn()).with("now", now);
        if self.session.is_empty() {
            names
        } else {
            names.with("session", self.session_attributes())
        }
    }

    /// In a request that may be one of several pages.
    pub(crate) fn paged(&self) -> Names {
        self.call()
            .with("page", Attributes::only(["token", "keys", "size", "number", "offset"]))
            .with("props", Attributes::Plain)
    }

    /// In a request that has a time window.
    pub(crate) fn windowed(&self) -> Names {
        let since = Attributes::only(["wire", "epoch_s", "epoch_ms", "iso", "token"]);
        let until = Attributes::only(["wire", "epoch_s", "epoch_ms", "iso"]);
        self.paged().with("since", since).with("until", until)
    }

    /// In tests on a reply. No secrets: what is learned is stored and logged.
    pub(crate) fn reply(&self) -> Names {
        let names = Names::default()
            .with("response", Attributes::only(["status", "headers", "body"]))
            .with("conn", self.conn())
            .withholding(self.secrets.iter().cloned());
        if self.session.is_empty() {
            names
        } else {
            names.with("session", self.session_attributes())
        }
    }

    /// In the mapping of one contact's row, with the names of what is looked up for it.
    pub(crate) fn item_with(&self, looked_up: impl IntoIterator<Item = String>) -> Names {
        let mut looked_up = looked_up.into_iter().peekable();
        match looked_up.peek() {
            Some(_) => self.item().with("lookup", Attributes::only(looked_up)),
            None => self.item(),
        }
    }

    /// In the mapping of one row. No secrets and no session.
    pub(crate) fn item(&self) -> Names {
        Names::default()
            .with("item", Attributes::Any)
            .with("conn", self.conn())
            .withholding(self.secrets.iter().cloned())
    }
}

/// A table of author-named templates, in the order of their names.
pub(crate) fn named_templates(table: Table<'_, '_>, names: &Names) -> BTreeMap<String, crate::expr::Template> {
    let texts = table.named_texts();
    texts
        .into_iter()
        .filter_map(|(name, text, at)| {
            table
                .compile_template(&text, at, names)
                .map(|template| (name, template))
        })
        .collect()
}

/// A table of author-named expressions.
pub(crate) fn named_exprs(table: Table<'_, '_>, names: &Names) -> BTreeMap<String, crate::expr::Expr> {
    let texts = table.named_texts();
    texts
        .into_iter()
        .filter_map(|(name, text, at)| table.compile(&text, at, names).map(|expr| (name, expr)))
        .collect()
}

/// The problems of parsing itself, then the spec. `None` if there was any problem.
pub(crate) fn parse(reader: &Reader<'_>) -> Option<Spec> {
    let (root, errors) = toml::de::DeTable::parse_recoverable(reader.text);
    for error in &errors {
        reader.problem(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
            None,
        );
    }
    if !errors.is_empty() {
        return None;
    }
    let spec = Spec::read(Table::root(reader, root.get_ref()));
    spec.filter(|_| !reader.has_problems())
}
