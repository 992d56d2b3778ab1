//! Listings and fetches: contacts, deletions, ids. A page is read and mapped whole before any of it is returned.

use std::collections::HashSet;

use contacts::{ErrorKind, Micros};
use minijinja::Value;
use minijinja::value::ValueKind;
use serde_json::Value as Json;
use url::Url;

use super::prepare::time_value;
use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, scope, to_json, value_of};
use crate::hosts::same_origin;
use crate::map::{Counts, Mapper, Observed, Tally};
use crate::reply::{Judged, Tests};
use crate::spec::{Deletion, Order, Pass, Request, Since};
use crate::walk::{Cursor, Turn};

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
    /// Where the next change pass begins, on the last page of a pass whose connector goes by delta tokens.
    pub delta: Option<Json>,
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
    pub from: From<'a>,
}

/// Where a listing begins.
#[derive(Clone, Copy, Default)]
pub(super) struct From<'a> {
    pub window: Option<(&'a Since, Window)>,
    /// The token that the pass before ended with; it takes the place of the time.
    pub token: Option<&'a Json>,
    /// The token is the URL to call.
    pub is_url: bool,
}

pub(super) struct Listed {
    pub items: Vec<Value>,
    pub next: Option<Json>,
    pub answer: Answer,
}

impl Client {
    /// A page of all contacts. `cursor` is the `next` of the page before.
    pub async fn full_page(&self, cursor: Option<&Json>) -> CrmResult<Page> {
        let full = &self.spec().contacts.full;
        // A change pass over all time.
        let window = full.since.as_ref().map(|since| {
            let window = Window {
                since: Micros::ZERO,
                until: self.clock.now().plus(DAY),
            };
            (since, window)
        });
        let from = From {
            window,
            ..From::default()
        };
        self.pass("contacts.full", full, from, cursor).await
    }

    /// A page of what changed within a window, or since a delta token. Keep both for all pages of a pass.
    pub async fn changes_page(&self, window: Window, token: Option<&Json>, cursor: Option<&Json>) -> CrmResult<Page> {
        let changes = self
            .spec()
            .contacts
            .changes
            .as_ref()
            .ok_or_else(|| lacks("change passes"))?;
        let delta = changes.cursor.delta();
        let from = From {
            window: changes.since.as_ref().map(|since| (since, window)),
            token: token.filter(|_| delta.is_some()),
            is_url: delta.is_some_and(|delta| delta.is_url),
        };
        if from.window.is_none() && from.token.is_none() {
            let message = "a delta token is needed, and there is none";
            return Err(CrmError::new(ErrorKind::CursorStuck, message));
        }
        self.pass("contacts.changes", changes, from, cursor).await
    }

    async fn pass(
        &self,
        operation: &'static str,
        pass: &Pass,
        from: From<'_>,
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
            from,
        };
        let mut listed = self.list(&listing, cursor).await?;
        if let Some(filter) = &pass.filter {
            let times = self.begin_values(from);
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
        let mut page = self.map(&listed.items, &listed.answer).await?;
        if pass.order == Order::Window {
            page.rows
                .sort_by(|a, b| (a.updated, &a.contact.id).cmp(&(b.updated, &b.contact.id)));
        }
        page.next = listed.next;
        if let (Order::Desc, Some((since, window))) = (pass.order, from.window) {
            // Newest first: what is older than the mark has been read before, and so has all that follows.
            let mark = since.lower(window.since, &self.zone);
            let is_old = |row: &Observed| row.updated > Micros::ZERO && row.updated < mark;
            if page.rows.iter().any(is_old) {
                page.rows.retain(|row| !is_old(row));
                page.next = None;
            }
        }
        if let (Some(delta), None) = (pass.cursor.delta(), &page.next) {
            let token = delta.token.eval(&listed.answer.scope).map_err(CrmError::expression)?;
            page.delta = (!crate::expr::is_empty(&token)).then(|| to_json(&token));
        }
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
            let ids = [("ids", value_of(&chunk))];
            let tests = Tests {
                ok: get_many.ok.as_ref(),
                denied: get_many.denied.as_ref(),
                missing_is_proof: true,
                ..Tests::default()
            };
            let operation = "contacts.get_many";
            let call = Call {
                operation,
                request: &get_many.request,
                tests,
                names: &ids,
                url: None,
            };
            let asked_at = self.clock.now();
            let (items, answer) = match self.asked_rows(call, &get_many.items).await {
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
            let page = self.map(&items, &answer).await?;
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
            from: From {
                window: list.since.as_ref().or(changes).map(|form| (form, window)),
                ..From::default()
            },
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
                .and_then(|text| wire.parse_time_in(&text, &self.zone));
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
            from: From::default(),
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
        self.list_with(listing, &[], cursor).await
    }

    /// The same with further names in reach of the request.
    pub(super) async fn list_with(
        &self,
        listing: &Listing<'_>,
        more: &[(&str, Value)],
        cursor: Option<&Json>,
    ) -> CrmResult<Listed> {
        let first = cursor.is_none();
        let cursor = Cursor::read(cursor)?;
        let mut names = vec![("page", cursor.value(listing.page))];
        names.extend(more.iter().cloned());
        names.extend(self.begin_values(listing.from));
        let mut url = cursor.url()?;
        if let (true, true, Some(token)) = (first, listing.from.is_url, listing.from.token) {
            url = Some(self.delta_url(token)?);
        }
        let call = Call {
            operation: listing.operation,
            request: listing.request,
            tests: listing.tests,
            names: &names,
            url: url.as_ref(),
        };
        let (items, answer) = self.asked_rows(call, listing.items).await?;
        let next = match answer.judged {
            Judged::Empty => None,
            Judged::Ok => cursor.advance(
                listing.page,
                &Turn {
                    reply: &answer.scope,
                    headers: &answer.reply.headers,
                    rows: &items,
                    item_scope: &|item| self.item_scope(item),
                    called: &answer.called,
                },
            )?,
        };
        let next = next.map(|next| next.write()).transpose()?;
        Ok(Listed { items, next, answer })
    }

    /// A delta link is called with the account's credentials, so it lies where the CRM lies.
    fn delta_url(&self, token: &Json) -> CrmResult<Url> {
        let url = token.as_str().and_then(|token| self.base.join(token).ok());
        let url = url.ok_or_else(|| CrmError::new(ErrorKind::CursorStuck, "the stored delta link is no URL"))?;
        if !same_origin(&url, &self.base) {
            return Err(CrmError::new(
                ErrorKind::HostRefused,
                "the delta link lies on another host",
            ));
        }
        Ok(url)
    }

    /// The rows of a reply. A reply without the list is no reply: an error page must never look like an empty CRM.
    pub(super) fn items(&self, items: &Expr, answer: &Answer) -> CrmResult<Vec<Value>> {
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

    async fn map(&self, items: &[Value], answer: &Answer) -> CrmResult<Page> {
        // The header counts whole seconds; rows may be stamped within the current one.
        let latest = answer
            .reply
            .clock
            .map(|clock| clock.plus(std::time::Duration::from_secs(1)));
        let looked_up = self.look_up(items).await?;
        let mapper = Mapper::new(self.spec(), self.conn.clone(), self.region, latest).in_zone(self.zone.clone());
        let mut tally = Tally::default();
        let rows = items.iter().zip(looked_up);
        let rows = rows.filter_map(|(item, looked_up)| mapper.map(item, looked_up, &mut tally));
        Ok(Page {
            rows: rows.collect(),
            next: None,
            repairs: tally.repairs,
            dropped: tally.dropped,
            crm_clock: answer.reply.clock,
            asked_at: answer.asked_at,
            delta: None,
        })
    }

    /// `since` and `until`, for expressions.
    fn begin_values(&self, from: From<'_>) -> Vec<(&'static str, Value)> {
        let mut names = Vec::new();
        if let Some(token) = from.token {
            names.push(("since", scope([("token", value_of(token))])));
        } else if let Some((since, window)) = from.window {
            let time = |time| scope(time_value(Some((&since.wire, &self.zone)), time));
            names.push(("since", time(since.lower(window.since, &self.zone))));
            names.push(("until", time(since.upper(window.until, &self.zone))));
        }
        names
    }

    pub(super) fn item_scope(&self, item: &Value) -> Value {
        scope([("item", item.clone()), ("conn", self.conn.clone())])
    }
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

pub(super) fn lacks(what: &str) -> CrmError {
    CrmError::new(ErrorKind::Rejected, format!("this connector has no {what}"))
}

fn add(to: &mut Counts, from: Counts) {
    for (reason, count) in from {
        *to.entry(reason).or_default() += count;
    }
}
