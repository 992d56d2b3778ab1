//! Listings and fetches: contacts, deletions, ids. A page is read and mapped whole before any of it is returned.

use std::collections::HashSet;

use contacts::{ErrorKind, Micros};
use minijinja::Value;
use minijinja::value::ValueKind;
use serde_json::Value as Json;

use super::prepare::time_value;
use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, scope, value_of};
use crate::map::{Counts, Mapper, Observed, Tally};
use crate::reply::{Judged, Tests};
use crate::spec::{Deletion, Order, Pass, Request, Since};
use crate::walk::Cursor;

/// A page of contacts.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub rows: Vec<Observed>,
    /// The cursor of the next page; `None` after the last one.
    pub next: Option<Json>,
    pub repairs: Counts,
    pub dropped: Counts,
    /// The CRM's own clock at the reply, if it said.
    pub crm_clock: Option<Micros>,
    /// Our clock just before the call.
    pub asked_at: Micros,
}

/// Contacts fetched by id.
#[derive(Clone, Debug, Default)]
pub struct Many {
    pub page: Page,
    /// Ids that the CRM no longer has. Empty unless the connector says that a missing one is a deleted one.
    pub missing: Vec<String>,
}

/// The time window of a change pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub since: Micros,
    /// Exclusive.
    pub until: Micros,
}

/// A page of deletions.
#[derive(Clone, Debug, Default)]
pub struct DeletedPage {
    pub deleted: Vec<Deleted>,
    pub next: Option<Json>,
    pub asked_at: Micros,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    pub id: String,
    /// The CRM's time of it; [`Micros::ZERO`] if it has none.
    pub at: Micros,
    /// The record that it was merged into.
    pub merged_into: Option<String>,
}

/// A page of the ids of all contacts.
#[derive(Clone, Debug, Default)]
pub struct IdsPage {
    pub ids: Vec<String>,
    pub next: Option<Json>,
    pub asked_at: Micros,
}

/// A listing about to be read.
pub(super) struct Listing<'a> {
    pub operation: &'static str,
    pub request: &'a Request,
    pub items: &'a Expr,
    pub page: &'a crate::spec::Paging,
    pub tests: Tests<'a>,
    pub window: Option<(&'a Since, Window)>,
}

pub(super) struct Listed {
    pub items: Vec<Value>,
    pub next: Option<Json>,
    pub answer: Answer,
}

impl Client {
    /// A page of all contacts. `cursor` is the `next` of the page before.
    pub async fn full_page(&self, cursor: Option<&Json>) -> CrmResult<Page> {
        self.pass("contacts.full", &self.spec().contacts.full, None, cursor)
            .await
    }

    /// A page of what changed within a window. Keep the window for all its pages.
    pub async fn changes_page(&self, window: Window, cursor: Option<&Json>) -> CrmResult<Page> {
        let changes = self
            .spec()
            .contacts
            .changes
            .as_ref()
            .ok_or_else(|| lacks("change passes"))?;
        self.pass("contacts.changes", changes, Some(window), cursor).await
    }

    async fn pass(
        &self,
        operation: &'static str,
        pass: &Pass,
        window: Option<Window>,
        cursor: Option<&Json>,
    ) -> CrmResult<Page> {
        let listing = Listing {
            operation,
            request: &pass.request,
            items: &pass.items,
            page: &pass.page,
            tests: Tests {
                ok: pass.ok.as_ref(),
                denied: pass.denied.as_ref(),
                ..Tests::default()
            },
            window: pass.since.as_ref().zip(window),
        };
        let mut listed = self.list(&listing, cursor).await?;
        if let Some(filter) = &pass.filter {
            let times = listing
                .window
                .map(|(since, window)| window_values(since, window))
                .unwrap_or_default();
            let mut kept = Vec::with_capacity(listed.items.len());
            for item in listed.items {
                let mut names = vec![("item", item.clone()), ("conn", self.conn.clone())];
                names.extend(times.iter().cloned());
                if filter.is_true(&scope(names)).map_err(CrmError::expression)? {
                    kept.push(item);
                }
            }
            listed.items = kept;
        }
        let mut page = self.map(&listed.items, &listed.answer);
        if pass.order == Order::Window {
            page.rows
                .sort_by(|a, b| (a.updated, &a.contact.id).cmp(&(b.updated, &b.contact.id)));
        }
        page.next = listed.next;
        Ok(page)
    }

    /// Fetches contacts by id, in as many calls as the connector needs.
    pub async fn get_many(&self, ids: &[String]) -> CrmResult<Many> {
        let get_many = self
            .spec()
            .contacts
            .get_many
            .as_ref()
            .ok_or_else(|| lacks("fetches by id"))?;
        let mut many = Many::default();
        for chunk in ids.chunks(usize::try_from(get_many.max).unwrap_or(1)) {
            let names = [
                ("ids", value_of(&chunk)),
                ("props", value_of(&self.spec().contacts.props)),
            ];
            let tests = Tests {
                ok: get_many.ok.as_ref(),
                denied: get_many.denied.as_ref(),
                ..Tests::default()
            };
            let operation = "contacts.get_many";
            let call = Call {
                operation,
                request: &get_many.request,
                tests,
                names: &names,
                url: None,
            };
            let asked_at = self.clock.now();
            let answer = match self.call(call).await {
                // Asked for one by its own address, a CRM says so by the status.
                Err(error)
                    if error.kind == ErrorKind::Missing && chunk.len() == 1 && get_many.missing_means_deleted =>
                {
                    many.missing.extend_from_slice(chunk);
                    if many.page.asked_at == Micros::ZERO {
                        many.page.asked_at = asked_at;
                    }
                    continue;
                }
                answered => answered?,
            };
            let items = self.items(&get_many.items, &answer)?;
            let page = self.map(&items, &answer);
            if get_many.missing_means_deleted {
                // A row that came is there, even if it could not be mapped.
                let mapper = Mapper::new(self.spec(), self.conn.clone(), self.region, None);
                let came: HashSet<String> = items.iter().filter_map(|item| mapper.id(item)).collect();
                many.missing
                    .extend(chunk.iter().filter(|id| !came.contains(*id)).cloned());
            }
            if many.page.asked_at == Micros::ZERO {
                many.page.asked_at = page.asked_at;
            }
            many.page.crm_clock = page.crm_clock.or(many.page.crm_clock);
            many.page.rows.extend(page.rows);
            add(&mut many.page.repairs, page.repairs);
            add(&mut many.page.dropped, page.dropped);
        }
        Ok(many)
    }

    /// A page of the CRM's own list of deletions.
    pub async fn deleted_page(&self, since: Micros, cursor: Option<&Json>) -> CrmResult<DeletedPage> {
        let list = self.spec().contacts.deleted.iter().find_map(|deletion| match deletion {
            Deletion::List(list) => Some(list),
            _ => None,
        });
        let list = list.ok_or_else(|| lacks("lists of deletions"))?;
        let changes = self
            .spec()
            .contacts
            .changes
            .as_ref()
            .and_then(|changes| changes.since.as_ref());
        let window = Window {
            since,
            until: self.clock.now(),
        };
        let listing = Listing {
            operation: "contacts.deleted",
            request: &list.request,
            items: &list.items,
            page: &list.page,
            tests: Tests::default(),
            window: list.since.as_ref().or(changes).map(|form| (form, window)),
        };
        let listed = self.list(&listing, cursor).await?;
        let wire = &self.spec().contacts.map.updated_as;
        let mut deleted = Vec::with_capacity(listed.items.len());
        for item in &listed.items {
            let names = self.item_scope(item);
            let text = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), |expr| expr.text_of(&names));
            let Some(id) = list.id.text_of(&names).map_err(CrmError::expression)? else {
                continue;
            };
            let at = text(&list.at)
                .map_err(CrmError::expression)?
                .and_then(|text| wire.parse_time(&text));
            let merged_into = text(&list.merged_into).map_err(CrmError::expression)?;
            deleted.push(Deleted {
                id,
                at: at.unwrap_or_default(),
                merged_into,
            });
        }
        Ok(DeletedPage {
            deleted,
            next: listed.next,
            asked_at: listed.answer.asked_at,
        })
    }

    /// A page of the ids of all contacts.
    pub async fn ids_page(&self, cursor: Option<&Json>) -> CrmResult<IdsPage> {
        let list = self.spec().contacts.deleted.iter().find_map(|deletion| match deletion {
            Deletion::Reconcile(list) => Some(list),
            _ => None,
        });
        let list = list.ok_or_else(|| lacks("lists of all ids"))?;
        let listing = Listing {
            operation: "contacts.ids",
            request: &list.request,
            items: &list.items,
            page: &list.page,
            tests: Tests::default(),
            window: None,
        };
        let listed = self.list(&listing, cursor).await?;
        let mut ids = Vec::with_capacity(listed.items.len());
        for item in &listed.items {
            // An id that cannot be read would make a living contact look deleted.
            let id = list.id.text_of(&self.item_scope(item)).map_err(CrmError::expression)?;
            ids.push(id.ok_or_else(|| CrmError::new(ErrorKind::BadReply, "a row of the id list has no id"))?);
        }
        Ok(IdsPage {
            ids,
            next: listed.next,
            asked_at: listed.answer.asked_at,
        })
    }

    pub(super) async fn list(&self, listing: &Listing<'_>, cursor: Option<&Json>) -> CrmResult<Listed> {
        let cursor = Cursor::read(cursor)?;
        let mut names = vec![
            ("page", cursor.value(listing.page)),
            ("props", value_of(&self.spec().contacts.props)),
        ];
        names.extend(
            listing
                .window
                .map(|(since, window)| window_values(since, window))
                .unwrap_or_default(),
        );
        let url = cursor.url()?;
        let call = Call {
            operation: listing.operation,
            request: listing.request,
            tests: listing.tests,
            names: &names,
            url: url.as_ref(),
        };
        let answer = self.call(call).await?;
        let items = self.items(listing.items, &answer)?;
        let next = match answer.judged {
            Judged::Empty => None,
            Judged::Ok => cursor.advance(
                listing.page,
                &answer.scope,
                &items,
                &|item| self.item_scope(item),
                &answer.called,
            )?,
        };
        let next = next.map(|next| next.write()).transpose()?;
        Ok(Listed { items, next, answer })
    }

    /// The rows of a reply. A reply without the list is no reply: an error page must never look like an empty CRM.
    fn items(&self, items: &Expr, answer: &Answer) -> CrmResult<Vec<Value>> {
        if answer.judged == Judged::Empty {
            return Ok(Vec::new());
        }
        let list = items.eval(&answer.scope).map_err(CrmError::expression)?;
        if list.kind() != ValueKind::Seq {
            let message = format!("the reply has no list at `{}`", items.text());
            return Err(CrmError::new(ErrorKind::BadReply, message));
        }
        let limit = self.http.settings.rows_limit;
        if list.len().is_some_and(|length| length > limit) {
            return Err(CrmError::new(
                ErrorKind::BadReply,
                format!("the reply has more than {limit} rows"),
            ));
        }
        let rows = list
            .try_iter()
            .map_err(|_| CrmError::new(ErrorKind::BadReply, "the rows cannot be read"))?;
        Ok(rows.collect())
    }

    fn map(&self, items: &[Value], answer: &Answer) -> Page {
        // The header counts whole seconds; rows may be stamped within the current one.
        let latest = answer
            .reply
            .clock
            .map(|clock| clock.plus(std::time::Duration::from_secs(1)));
        let mapper = Mapper::new(self.spec(), self.conn.clone(), self.region, latest);
        let mut tally = Tally::default();
        let rows = items.iter().filter_map(|item| mapper.map(item, &mut tally)).collect();
        Page {
            rows,
            next: None,
            repairs: tally.repairs,
            dropped: tally.dropped,
            crm_clock: answer.reply.clock,
            asked_at: answer.asked_at,
        }
    }

    pub(super) fn item_scope(&self, item: &Value) -> Value {
        scope([("item", item.clone()), ("conn", self.conn.clone())])
    }
}

fn window_values(since: &Since, window: Window) -> Vec<(&'static str, Value)> {
    vec![
        ("since", time_value(&since.wire, since.lower(window.since), true)),
        ("until", time_value(&since.wire, since.upper(window.until), true)),
    ]
}

pub(super) fn lacks(what: &str) -> CrmError {
    CrmError::new(ErrorKind::Rejected, format!("this connector has no {what}"))
}

fn add(to: &mut Counts, from: Counts) {
    for (reason, count) in from {
        *to.entry(reason).or_default() += count;
    }
}
