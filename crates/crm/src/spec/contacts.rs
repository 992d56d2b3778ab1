//! How contacts are listed, fetched, found gone and mapped.

use std::time::Duration;

use super::{Mapping, Paging, Request, Since, Vocabulary};
use crate::expr::{Attributes, Expr, Names};
use crate::load::Table;

/// `[contacts]`
#[derive(Debug)]
pub struct ContactsSpec {
    /// Names of the fields to ask for: `props` in requests.
    pub props: Vec<String>,
    /// Most of them that one request takes (Zoho: 50); more are asked for in as many requests, joined by id.
    pub props_chunk: Option<usize>,
    pub full: Pass,
    pub changes: Option<Pass>,
    pub get_many: Option<GetMany>,
    pub deleted: Vec<Deletion>,
    pub lookups: Vec<Lookup>,
    pub map: Mapping,
}

/// A listing: `[contacts.full]` or `[contacts.changes]`.
#[derive(Debug)]
pub struct Pass {
    pub request: Request,
    pub items: Expr,
    pub page: Paging,
    pub order: Order,
    pub cursor: Cursor,
    /// Change passes only.
    pub since: Option<Since>,
    /// Rows to keep, where the CRM's own filter is coarser (Intercom's whole days).
    pub filter: Option<Expr>,
    /// Whether rows come from an index that may lag behind deletions.
    pub indexed: bool,
    pub ok: Option<Expr>,
    pub denied: Option<Expr>,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    ServerAsc,
    /// None within a closed window: sorted locally.
    Window,
    /// Newest first: read until older than the mark.
    Desc,
    None,
}

/// What a change pass goes by.
#[derive(Debug)]
pub enum Cursor {
    Time,
    /// An opaque token with a lifetime, and a full pass when it is over (Dataverse, Zendesk).
    Delta(Delta),
}

/// `cursor = { kind = "delta", … }`
#[derive(Debug)]
pub struct Delta {
    /// Where the last page of a pass has the token of the next one.
    pub token: Expr,
    /// The token is the URL to be called (Dataverse's delta link); else it is `since.token` in the request.
    pub is_url: bool,
    /// How long the CRM knows it.
    pub lifetime: Option<Duration>,
}

impl Cursor {
    pub fn delta(&self) -> Option<&Delta> {
        match self {
            Cursor::Delta(delta) => Some(delta),
            Cursor::Time => None,
        }
    }
}

/// `[contacts.get_many]`
#[derive(Debug)]
pub struct GetMany {
    pub request: Request,
    pub items: Expr,
    /// Ids per call.
    pub max: u64,
    /// Whether an id that is asked for and not returned is deleted.
    pub missing_means_deleted: bool,
    pub ok: Option<Expr>,
    pub denied: Option<Expr>,
}

/// `[[contacts.deleted]]`: a CRM may have several ways.
#[derive(Debug)]
pub enum Deletion {
    /// A row says so itself.
    Flag { when: Expr },
    /// A listing of what is gone.
    List(Box<DeletedList>),
    /// A row of the delta stream says so.
    Delta { when: Expr, id: Option<Expr> },
    /// Only webhooks do.
    Event,
    /// Nothing does: compare with a listing of all ids.
    Reconcile(Box<IdList>),
}

#[derive(Debug)]
pub struct DeletedList {
    pub request: Request,
    pub items: Expr,
    pub page: Paging,
    pub since: Option<Since>,
    pub id: Expr,
    pub at: Option<Expr>,
    pub merged_into: Option<Expr>,
}

#[derive(Debug)]
pub struct IdList {
    pub request: Request,
    pub items: Expr,
    pub page: Paging,
    pub id: Expr,
    /// How often to compare.
    pub every: Option<Duration>,
}

/// `[[contacts.lookups]]`: a second request joined by key and remembered (company names).
#[derive(Debug)]
pub struct Lookup {
    /// `lookup.NAME` in the mapping.
    pub name: String,
    /// The key in a contact's row.
    pub of: Expr,
    pub request: Request,
    pub items: Expr,
    /// The key and the value in a row that was looked up.
    pub key: Expr,
    pub value: Expr,
    /// Keys that one request takes.
    pub max: usize,
    /// How long a value is believed.
    pub keep: Duration,
}

impl ContactsSpec {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<ContactsSpec> {
        let props = table
            .texts("props")
            .unwrap_or_default()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let props_chunk = table.number("props_chunk", 1..=10_000);
        let props_chunk = props_chunk.and_then(|most| usize::try_from(most).ok());
        let changes = table
            .table("changes")
            .and_then(|changes| Pass::read(changes, vocabulary, true));
        let full = table.need_table("full").and_then(|full| match full.has("same_as") {
            true => read_same_as(full, &table, vocabulary),
            false => Pass::read(full, vocabulary, false),
        });
        if let (Some(full), Some(changes)) = (&full, &changes) {
            check_delta(&table, full, changes);
        }
        let get_many = table
            .table("get_many")
            .and_then(|get_many| GetMany::read(get_many, vocabulary));
        let deleted: Vec<Deletion> = table
            .tables("deleted")
            .into_iter()
            .filter_map(|deleted| Deletion::read(deleted, vocabulary))
            .collect();
        let lookups: Vec<Lookup> = table
            .tables("lookups")
            .into_iter()
            .filter_map(|lookup| Lookup::read(lookup, vocabulary))
            .collect();
        for (i, lookup) in lookups.iter().enumerate() {
            if lookups[..i].iter().any(|other| other.name == lookup.name) {
                table.problem("lookups", format!("two lookups are called `{}`", lookup.name), None);
            }
        }
        let looked_up = lookups.iter().map(|lookup| lookup.name.clone()).collect();
        let wire = changes
            .as_ref()
            .and_then(|changes| changes.since.as_ref())
            .map(|since| since.wire.clone());
        let map = table
            .need_table("map")
            .and_then(|map| Mapping::read(map, vocabulary, looked_up, wire));
        if table.has("changes") && map.as_ref().is_some_and(|map| map.updated.is_none()) {
            table.problem(
                "map",
                "`contacts.map.updated` is missing",
                Some("a change pass needs the CRM's modified time"),
            );
        }
        table.finish();
        Some(ContactsSpec {
            props,
            props_chunk,
            full: full?,
            changes,
            get_many,
            deleted,
            lookups,
            map: map?,
        })
    }
}

fn read_page(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Paging> {
    match table.table("page") {
        Some(page) => Paging::read(page, vocabulary, &vocabulary.item()),
        None if table.has("page") => None,
        None => Some(Paging::single()),
    }
}

/// `[contacts.full] same_as = "contacts.changes"`: the change pass over all time is the full pass.
fn read_same_as(full: Table<'_, '_>, contacts: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Pass> {
    let same = full.choice("same_as", &[("contacts.changes", ())]);
    if !contacts.has("changes") {
        full.problem("same_as", "there is no `contacts.changes`", None);
    }
    full.finish();
    same?;
    let mut pass = contacts
        .table("changes")
        .and_then(|changes| Pass::read(changes, vocabulary, true))?;
    pass.order = Order::None;
    Some(pass)
}

/// A delta stream needs a beginning: the token of a full pass, or a time.
fn check_delta(table: &Table<'_, '_>, full: &Pass, changes: &Pass) {
    if let (Some(_), None, None) = (changes.cursor.delta(), full.cursor.delta(), &changes.since) {
        let hint = "give `contacts.full.cursor` too, or `contacts.changes.since` to begin with a time";
        table.problem("changes", "nothing gives the first delta token", Some(hint));
    }
}

impl Pass {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary, changes: bool) -> Option<Pass> {
        let names = if changes {
            vocabulary.windowed()
        } else {
            vocabulary.paged()
        };
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let items = table.need_expr("items", &vocabulary.reply());
        let page = read_page(&table, vocabulary);
        let order = table
            .choice(
                "order",
                &[
                    ("server_asc", Order::ServerAsc),
                    ("window", Order::Window),
                    ("desc", Order::Desc),
                    ("none", Order::None),
                ],
            )
            .unwrap_or(if changes { Order::Window } else { Order::None });
        if order == Order::Desc && !changes {
            table.problem("order", "a full pass has no mark to stop at", Some("leave `order` out"));
        }
        let cursor = table
            .table("cursor")
            .map_or(Some(Cursor::Time), |cursor| read_cursor(cursor, vocabulary));
        let since = changes
            .then(|| table.table("since").and_then(|since| Since::read(since, vocabulary)))
            .flatten();
        let delta = matches!(cursor, Some(Cursor::Delta(_)));
        if changes && !delta && !table.has("since") {
            table.problem(
                "since",
                format!("`{}.since` is missing", table.path),
                Some("how the CRM takes the time window"),
            );
        } else if !changes && table.has("since") {
            table.problem("since", "a full pass has no `since`", None);
        }
        let filter_names = filter_names(vocabulary, changes);
        let filter = table.expr("filter", &filter_names);
        let indexed = table.boolean("indexed").unwrap_or(false);
        let (ok, denied) = (
            table.expr("ok", &vocabulary.reply()),
            table.expr("denied", &vocabulary.reply()),
        );
        table.finish();
        if changes && !delta {
            since.as_ref()?;
        }
        Some(Pass {
            request: request?,
            items: items?,
            page: page?,
            order,
            cursor: cursor?,
            since,
            filter,
            indexed,
            ok,
            denied,
        })
    }
}

fn filter_names(vocabulary: &Vocabulary, changes: bool) -> Names {
    let time = || Attributes::only(["wire", "epoch_s", "epoch_ms", "iso"]);
    let names = vocabulary.item();
    if changes {
        names.with("since", time()).with("until", time())
    } else {
        names
    }
}

fn read_cursor(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Cursor> {
    #[derive(Clone, Copy)]
    enum Word {
        Time,
        Delta,
    }
    let cursor = match table.need_choice("kind", &[("time", Word::Time), ("delta", Word::Delta)])? {
        Word::Time => Some(Cursor::Time),
        Word::Delta => {
            let token = table.need_expr("token", &vocabulary.reply());
            let is_url = table.boolean("is_url").unwrap_or(false);
            let lifetime = table.duration("lifetime");
            token.map(|token| {
                Cursor::Delta(Delta {
                    token,
                    is_url,
                    lifetime,
                })
            })
        }
    };
    table.finish();
    cursor
}

impl GetMany {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<GetMany> {
        let names = vocabulary
            .call()
            .with("ids", Attributes::Plain)
            .with("props", Attributes::Plain);
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let items = table.need_expr("items", &vocabulary.reply());
        if !table.has("max") {
            table.problem(
                "max",
                format!("`{}.max` is missing", table.path),
                Some("the ids that one call takes"),
            );
        }
        let max = table.number("max", 1..=10_000);
        let missing_means_deleted = table.boolean("missing_means_deleted").unwrap_or(false);
        let (ok, denied) = (
            table.expr("ok", &vocabulary.reply()),
            table.expr("denied", &vocabulary.reply()),
        );
        table.finish();
        Some(GetMany {
            request: request?,
            items: items?,
            max: max?,
            missing_means_deleted,
            ok,
            denied,
        })
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Flag,
    List,
    Delta,
    Event,
    Reconcile,
}

impl Deletion {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Deletion> {
        let mode = table.need_choice(
            "mode",
            &[
                ("flag", Mode::Flag),
                ("list", Mode::List),
                ("delta", Mode::Delta),
                ("event", Mode::Event),
                ("reconcile", Mode::Reconcile),
            ],
        );
        let item = vocabulary.item();
        let listing = |names: &Names| {
            let request = table
                .need_table("request")
                .and_then(|request| Request::read(request, names));
            let items = table.need_expr("items", &vocabulary.reply());
            let page = read_page(&table, vocabulary);
            let id = table.need_expr("id", &item);
            Some((request?, items?, page?, id?))
        };
        let deletion = mode.and_then(|mode| match mode {
            Mode::Flag => Some(Deletion::Flag {
                when: table.need_expr("when", &item)?,
            }),
            Mode::List => {
                let listed = listing(&vocabulary.windowed());
                let since = table.table("since").and_then(|since| Since::read(since, vocabulary));
                let (at, merged_into) = (table.expr("at", &item), table.expr("merged_into", &item));
                let (request, items, page, id) = listed?;
                Some(Deletion::List(Box::new(DeletedList {
                    request,
                    items,
                    page,
                    since,
                    id,
                    at,
                    merged_into,
                })))
            }
            Mode::Delta => {
                let (when, id) = (table.need_expr("when", &item), table.expr("id", &item));
                Some(Deletion::Delta { when: when?, id })
            }
            Mode::Event => Some(Deletion::Event),
            Mode::Reconcile => {
                let listed = listing(&vocabulary.paged());
                let every = table.duration("every");
                let (request, items, page, id) = listed?;
                Some(Deletion::Reconcile(Box::new(IdList {
                    request,
                    items,
                    page,
                    id,
                    every,
                })))
            }
        });
        table.finish();
        deletion
    }
}

impl Lookup {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Lookup> {
        let names = vocabulary.call().with("keys", Attributes::Plain);
        let name = table.need_text("as").filter(|name| {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let good = !name.is_empty() && name.chars().all(legal);
            if !good {
                table.problem("as", format!("`{name}` cannot be a name"), Some("a-z, 0-9 and _"));
            }
            good
        });
        let of = table.need_expr("of", &vocabulary.item());
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let items = table.need_expr("items", &vocabulary.reply());
        let (key, value) = (
            table.need_expr("key", &vocabulary.item()),
            table.need_expr("value", &vocabulary.item()),
        );
        let max = table.number("max", 1..=1_000).unwrap_or(1);
        let keep = table.duration("keep").unwrap_or(KEEP);
        table.finish();
        Some(Lookup {
            name: name?,
            of: of?,
            request: request?,
            items: items?,
            key: key?,
            value: value?,
            max: usize::try_from(max).unwrap_or(1),
            keep,
        })
    }
}

/// A looked-up value is asked for again after this time where the file says nothing.
const KEEP: Duration = Duration::from_secs(3_600);
