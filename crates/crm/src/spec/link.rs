//! `[link]`: how a person is found, and how a record shows where the same person is in another system.

use super::{Body, LinkEvents, Request, Vocabulary};
use crate::expr::{Attributes, Expr};
use crate::load::Table;

/// `[link]`
#[derive(Debug)]
pub struct LinkSpec {
    pub find: LinkFind,
    pub read: LinkRead,
    pub write: LinkWrite,
    pub map: LinkMap,
    pub events: Option<LinkEvents>,
}

/// `[link.find]`: one request for each kind of needle, as filters in one request are joined with "and".
#[derive(Debug)]
pub struct LinkFind {
    pub email: Option<Request>,
    pub phone: Option<Request>,
    pub items: Expr,
}

/// `[link.read]`: one record by its id.
#[derive(Debug)]
pub struct LinkRead {
    pub request: Request,
    pub item: Expr,
    /// When a good reply says that the record is not there.
    pub missing: Option<Expr>,
}

/// `[link.write]`
#[derive(Debug)]
pub struct LinkWrite {
    pub request: Request,
    pub ok: Option<Expr>,
}

/// `[link.map]`: from a row to what linking needs of it.
#[derive(Debug)]
pub struct LinkMap {
    pub id: Expr,
    pub organization: Option<Expr>,
    pub conversation: Option<Expr>,
    pub name: Option<Expr>,
    pub emails: Option<Expr>,
    pub phones: Option<Expr>,
    /// All links of the record, those of others too. Absent: the record has a place for ours alone.
    pub links: Option<Expr>,
    /// The address that stands in the place for ours.
    pub url: Option<Expr>,
    /// What a write needs of the record as it is: `link.record`.
    pub record: Option<Expr>,
}

impl LinkSpec {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LinkSpec> {
        let find = table
            .need_table("find")
            .and_then(|find| LinkFind::read(find, vocabulary));
        let read = table
            .need_table("read")
            .and_then(|read| LinkRead::read(read, vocabulary));
        let write = table
            .need_table("write")
            .and_then(|write| LinkWrite::read(write, vocabulary));
        let map = table.need_table("map").and_then(|map| LinkMap::read(map, vocabulary));
        let events = table.table("events").and_then(LinkEvents::read);
        if let (Some(write), Some(map)) = (&write, &map) {
            let writes = |name: &str| {
                let reads = |expr: &Expr| expr.text().contains(name);
                matches!(&write.request.body, Body::Json(tree) if tree.any(&reads))
            };
            if writes("link.links") && map.links.is_none() {
                // The links of others would be lost with the first write.
                let what = "`link.write` writes all links, and `link.map` does not say which there are";
                table.problem("map", what, Some("links = \"item.links\""));
            }
            if writes("link.record") && map.record.is_none() {
                // What is written over the record as it was would stand there alone.
                let what = "`link.write` reads `link.record`, and `link.map` does not say what that is";
                table.problem("map", what, Some("record = \"item.profile\""));
            }
        }
        table.finish();
        Some(LinkSpec {
            find: find?,
            read: read?,
            write: write?,
            map: map?,
            events,
        })
    }
}

impl LinkFind {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LinkFind> {
        let names = vocabulary
            .call()
            .with("find", Attributes::only(["value", "organization"]));
        let request = |key| table.table(key).and_then(|request| Request::read(request, &names));
        let (email, phone) = (request("by_email"), request("by_phone"));
        if !table.has("by_email") && !table.has("by_phone") {
            let what = "`link.find` has neither `by_email` nor `by_phone`: nobody could be found";
            table.problem("by_email", what, None);
        }
        let items = table.need_expr("items", &vocabulary.reply());
        table.finish();
        Some(LinkFind {
            email,
            phone,
            items: items?,
        })
    }
}

impl LinkRead {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LinkRead> {
        let names = vocabulary.call().with("link", Attributes::only(["id", "organization"]));
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let item = table.need_expr("item", &vocabulary.reply());
        let missing = table.expr("missing", &vocabulary.reply());
        table.finish();
        Some(LinkRead {
            request: request?,
            item: item?,
            missing,
        })
    }
}

/// What `[link.write]` has in reach as `link.NAME`.
pub(crate) const LINK_NAMES: [&str; 11] = [
    "id",
    "organization",
    "conversation",
    "url",
    "label",
    "icon",
    "links",
    "name",
    "email",
    "phone",
    "record",
];

impl LinkWrite {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LinkWrite> {
        let names = vocabulary.call().with("link", Attributes::only(LINK_NAMES));
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let ok = table.expr("ok", &vocabulary.reply());
        table.finish();
        Some(LinkWrite { request: request?, ok })
    }
}

impl LinkMap {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LinkMap> {
        let item = vocabulary.item();
        let map = LinkMap {
            id: table.need_expr("id", &item)?,
            organization: table.expr("organization", &item),
            conversation: table.expr("conversation", &item),
            name: table.expr("name", &item),
            emails: table.expr("emails", &item),
            phones: table.expr("phones", &item),
            links: table.expr("links", &item),
            url: table.expr("url", &item),
            record: table.expr("record", &item),
        };
        if map.emails.is_none() && map.phones.is_none() {
            // Who ignores a filter that it does not know answers with everybody.
            let what =
                "`link.map` has neither `emails` nor `phones`: nobody could tell whether the right one was found";
            table.problem("emails", what, None);
        }
        table.finish();
        Some(map)
    }

    /// All of them.
    pub(crate) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let optional = [
            &self.organization,
            &self.conversation,
            &self.name,
            &self.emails,
            &self.phones,
            &self.links,
            &self.url,
            &self.record,
        ];
        std::iter::once(&self.id).chain(optional.into_iter().flatten())
    }
}
