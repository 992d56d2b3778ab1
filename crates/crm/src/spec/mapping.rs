//! How a row becomes Talkdesk's contact.

use std::collections::BTreeMap;

use super::{Vocabulary, Wire};
use crate::expr::{Attributes, Expr};
use crate::load::Table;

/// `[contacts.map]`: from a row to Talkdesk's contact (Talkdesk contact sync, contact object).
#[derive(Debug)]
pub struct Mapping {
    /// Names for parts of the row, computed first, in the order of their names.
    pub lets: BTreeMap<String, Expr>,
    pub id: Expr,
    pub updated: Option<Expr>,
    /// The form of `updated` in a row.
    pub updated_as: Wire,
    /// Whether `updated` moves with everything that is mapped, joined records included.
    pub updated_covers_all: bool,
    pub name: Option<Expr>,
    pub company: Option<Expr>,
    pub title: Option<Expr>,
    pub emails: Option<Expr>,
    pub phones: Option<Expr>,
    pub photo_url: Option<Expr>,
    pub address: Option<Expr>,
    pub websites: Option<Expr>,
    pub twitter: Option<Expr>,
    pub url: Option<Expr>,
    /// Ids of records that were merged into this one.
    pub aliases: Option<Expr>,
    /// Which contacts an integration wants; never from the connector's file.
    pub filter: Option<Expr>,
}

impl Mapping {
    /// `looked_up`: the names of the lookups, `lookup.NAME`.
    pub(super) fn read(
        table: Table<'_, '_>,
        vocabulary: &Vocabulary,
        looked_up: Vec<String>,
        wire: Option<Wire>,
    ) -> Option<Mapping> {
        let item = vocabulary.item_with(looked_up);
        let lets = table
            .table("let")
            .map_or_else(BTreeMap::new, |lets| super::named_exprs(lets, &item));
        let names = lets
            .keys()
            .fold(item, |names, name| names.with(name.clone(), Attributes::Any));
        let reserved = lets
            .keys()
            .find(|name| matches!(name.as_str(), "item" | "conn" | "lookup"));
        if let Some(name) = reserved {
            table.problem("let", format!("`{name}` is taken"), None);
        }
        if table.has("archived") {
            let hint = "write [[contacts.deleted]] with mode = \"flag\" and when = \"…\"";
            table.problem("archived", "archived rows are a way of deletion", Some(hint));
        }
        let id = table.need_expr("id", &names);
        let updated_as = Wire::read(&table, "updated_as").or(wire).unwrap_or(Wire::Iso);
        if !table.has("name") {
            table.problem(
                "name",
                "`contacts.map.name` is missing",
                Some("Talkdesk needs a name for every contact"),
            );
        }
        let updated_covers_all = table.boolean("updated_covers_all").unwrap_or(false);
        let expr = |key| table.expr(key, &names);
        let (updated, name, company, title) = (expr("updated"), expr("name"), expr("company"), expr("title"));
        let (emails, phones, photo_url, address) = (expr("emails"), expr("phones"), expr("photo_url"), expr("address"));
        let (websites, twitter, url, aliases) = (expr("websites"), expr("twitter"), expr("url"), expr("aliases"));
        table.finish();
        Some(Mapping {
            id: id?,
            lets,
            updated,
            updated_as,
            updated_covers_all,
            name,
            company,
            title,
            emails,
            phones,
            photo_url,
            address,
            websites,
            twitter,
            url,
            aliases,
            filter: None,
        })
    }
}
