//! `[link.events]`: what a delivery says of the records that are to be linked. Here a body is data: of which record it speaks, and by
//! which values an echo of our own writes is known.

use crate::expr::{Attributes, Expr, Names};
use crate::load::Table;

/// `[link.events]`; each expression over `body` and `ev`, one of `webhook.events.each`.
#[derive(Debug)]
pub struct LinkEvents {
    pub when: Expr,
    pub contact: Expr,
    pub organization: Expr,
    pub created: Option<Expr>,
    pub deleted: Option<Expr>,
    pub conversation: Option<Expr>,
    /// The record's own time of change.
    pub updated: Option<Expr>,
    /// When the event was published.
    pub published: Option<Expr>,
    pub name: Option<Expr>,
    pub email: Option<Expr>,
    pub phone: Option<Expr>,
    /// It is about a user of that organization.
    pub users: Option<Expr>,
}

impl LinkEvents {
    pub(super) fn read(table: Table<'_, '_>) -> Option<LinkEvents> {
        let names = Names::default()
            .with("body", Attributes::Any)
            .with("ev", Attributes::Any);
        let needed = |key| table.need_expr(key, &names);
        let (when, contact, organization) = (needed("when"), needed("contact"), needed("organization"));
        let expr = |key| table.expr(key, &names);
        let optional = [
            "created",
            "deleted",
            "conversation",
            "updated",
            "published",
            "name",
            "email",
            "phone",
            "users",
        ]
        .map(expr);
        let [
            created,
            deleted,
            conversation,
            updated,
            published,
            name,
            email,
            phone,
            users,
        ] = optional;
        table.finish();
        Some(LinkEvents {
            when: when?,
            contact: contact?,
            organization: organization?,
            created,
            deleted,
            conversation,
            updated,
            published,
            name,
            email,
            phone,
            users,
        })
    }

    /// All of them.
    pub(crate) fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let optional = [
            &self.created,
            &self.deleted,
            &self.conversation,
            &self.updated,
            &self.published,
            &self.name,
            &self.email,
            &self.phone,
            &self.users,
        ];
        let needed = [&self.when, &self.contact, &self.organization];
        needed.into_iter().chain(optional.into_iter().flatten())
    }
}
