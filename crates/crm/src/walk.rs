//! From one page to the next, with guards against cursors that do not move.

use contacts::ErrorKind;
use http::HeaderMap;
use minijinja::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use url::Url;

use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, scope, to_json, value_of};
use crate::hosts::same_origin;
use crate::link::next_target;
use crate::spec::{AtCap, Paging, PagingKind, Stop};

/// Where a walk stands. Opaque outside; kept between slices and processes as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Pages read so far.
    pages: u64,
    /// Pages and rows of the query in hand; a walk that meets a cap is made of several.
    #[serde(default, skip_serializing_if = "is_zero")]
    query_pages: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    query_rows: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Json>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Hashes of the rows of the last pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seen: Vec<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a page said, as the next one needs it.
pub(crate) struct Turn<'a> {
    /// The scope of the reply.
    pub reply: &'a Value,
    pub headers: &'a HeaderMap,
    pub rows: &'a [Value],
    pub item_scope: &'a dyn Fn(&Value) -> Value,
    /// The URL that was called.
    pub called: &'a Url,
}

/// Pages whose rows are remembered, to notice one that comes again.
const REMEMBERED: usize = 8;
/// A cursor is stored with the account's work; a CRM must not fill that.
const LONGEST_TOKEN: usize = 8 * 1024;

fn stuck(what: impl Into<String>) -> CrmError {
    CrmError::new(ErrorKind::CursorStuck, what)
}

impl Cursor {
    pub fn read(cursor: Option<&Json>) -> CrmResult<Cursor> {
        let Some(json) = cursor else {
            return Ok(Cursor::default());
        };
        serde_json::from_value(json.clone())
            .map_err(|error| CrmError::because(ErrorKind::CursorStuck, "the stored page cursor cannot be read", error))
    }

    pub fn write(&self) -> CrmResult<Json> {
        serde_json::to_value(self)
            .map_err(|error| CrmError::because(ErrorKind::CursorStuck, "the page cursor cannot be stored", error))
    }

    /// `page`, for expressions. Pages that are counted and tokens exclude each other.
    pub fn value(&self, paging: &Paging) -> Value {
        let counted = |number: u64| match self.token {
            Some(_) => Value::UNDEFINED,
            None => Value::from(number),
        };
        let first = match paging.kind {
            PagingKind::Page { first, .. } => first,
            _ => 1,
        };
        scope([
            ("token", self.token.as_ref().map_or(Value::UNDEFINED, value_of)),
            ("keys", value_of(&self.keys)),
            ("size", paging.size.map_or(Value::UNDEFINED, Value::from)),
            ("number", counted(first + self.query_pages)),
            ("offset", counted(self.query_rows)),
        ])
    }

    /// The URL of this page, where the page before named it.
    pub fn url(&self) -> CrmResult<Option<Url>> {
        let Some(url) = &self.url else { return Ok(None) };
        let parsed = Url::parse(url);
        parsed
            .map(Some)
            .map_err(|error| CrmError::because(ErrorKind::CursorStuck, "the next page's URL is none", error))
    }

    /// The cursor behind a page, or `None` after the last one.
    pub fn advance(&self, paging: &Paging, turn: &Turn<'_>) -> CrmResult<Option<Cursor>> {
        let mut next = Cursor {
            pages: self.pages + 1,
            query_pages: self.query_pages + 1,
            query_rows: self.query_rows + turn.rows.len() as u64,
            // Where the query in hand begins; a walk by keys moves them on.
            keys: self.keys.clone(),
            ..Cursor::default()
        };
        let size = paging.size.unwrap_or(1);
        let goes_on = |more: &Option<Expr>, stop: Stop| match more {
            Some(more) => match more.is_true(turn.reply).map_err(CrmError::expression)? {
                true if turn.rows.is_empty() => Err(stuck("the CRM says that there is more, and gave no rows")),
                goes_on => Ok(goes_on),
            },
            None => Ok(match stop {
                Stop::EmptyPage => !turn.rows.is_empty(),
                Stop::ShortPage => turn.rows.len() as u64 >= size,
            }),
        };
        match &paging.kind {
            PagingKind::None => return Ok(None),
            // Gone over to tokens at the cap.
            PagingKind::Page { .. } | PagingKind::Offset { .. } if self.token.is_some() => {
                let Some(AtCap::Token(token)) = &paging.at_cap else {
                    return Err(stuck("the stored page cursor is of another file"));
                };
                match self.next_token(token, turn.reply)? {
                    Some(token) => next.token = Some(token),
                    None => return Ok(None),
                }
            }
            PagingKind::Page { more, stop, .. } => {
                if !goes_on(more, *stop)? {
                    return Ok(None);
                }
            }
            PagingKind::Offset { total, more, stop } => {
                let total = total.as_ref().map(|total| total.eval(turn.reply)).transpose();
                let total = total.map_err(CrmError::expression)?;
                let goes_on = match total.and_then(|total| u64::try_from(total).ok()) {
                    // A page without rows before the end would be asked for for ever.
                    Some(total) => next.query_rows < total && !turn.rows.is_empty(),
                    None => goes_on(more, *stop)?,
                };
                if !goes_on {
                    return Ok(None);
                }
            }
            PagingKind::Token { next: token, more } => {
                // Pages of tokens may be empty, and not the last.
                let says_more = match more {
                    Some(more) => more.is_true(turn.reply).map_err(CrmError::expression)?,
                    None => false,
                };
                if more.is_some() && !says_more {
                    return Ok(None);
                }
                match self.next_token(token, turn.reply)? {
                    Some(token) => next.token = Some(token),
                    None if says_more => {
                        let message = "the CRM says that there is more, and gave no page token";
                        return Err(CrmError::new(ErrorKind::BadReply, message));
                    }
                    None => return Ok(None),
                }
            }
            PagingKind::NextUrl { next: url } => {
                let Some(url) = url.text_of(turn.reply).map_err(CrmError::expression)? else {
                    return Ok(None);
                };
                next.url = Some(next_url(&url, turn.called)?);
            }
            PagingKind::LinkHeader => {
                let Some(url) = next_target(turn.headers) else {
                    return Ok(None);
                };
                next.url = Some(next_url(&url, turn.called)?);
            }
            PagingKind::Keyset { keys, stop } => {
                let full = turn.rows.len() as u64 >= size;
                let Some(last) = turn.rows.last().filter(|_| *stop == Stop::EmptyPage || full) else {
                    return Ok(None);
                };
                next.keys = self.next_keys(keys, last, turn)?;
            }
        }
        if let Some(cap) = paging.cap
            && (next.query_rows >= cap || next.query_pages.saturating_mul(size) >= cap)
        {
            next = self.past_the_cap(paging, next, turn)?;
        }
        if next.pages >= paging.max_pages {
            return Err(stuck(format!("more than {} pages", paging.max_pages)));
        }
        if next
            .token
            .as_ref()
            .is_some_and(|token| token.to_string().len() > LONGEST_TOKEN)
            || next.url.as_ref().is_some_and(|url| url.len() > LONGEST_TOKEN)
        {
            return Err(CrmError::new(ErrorKind::BadReply, "the page token is too long"));
        }
        next.seen = self.remember(turn.rows)?;
        Ok(Some(next))
    }

    /// One query gives no more: how the walk goes on.
    fn past_the_cap(&self, paging: &Paging, next: Cursor, turn: &Turn<'_>) -> CrmResult<Cursor> {
        match &paging.at_cap {
            Some(AtCap::Token(_)) if next.token.is_some() => Ok(next),
            Some(AtCap::Token(token)) => {
                let token = self.next_token(token, turn.reply)?;
                // There is more, and no way to it: rows would be lost in silence.
                let token = token.ok_or_else(|| {
                    CrmError::new(
                        ErrorKind::BadReply,
                        "the CRM gave no page token where its page numbers end",
                    )
                })?;
                Ok(Cursor {
                    token: Some(token),
                    ..next
                })
            }
            Some(AtCap::Keyset(keys)) => {
                let Some(last) = turn.rows.last() else { return Ok(next) };
                Ok(Cursor {
                    pages: next.pages,
                    keys: self.next_keys(keys, last, turn)?,
                    ..Cursor::default()
                })
            }
            // A walk by keys begins a new query with every page.
            None => Ok(next),
        }
    }

    fn next_token(&self, token: &Expr, reply: &Value) -> CrmResult<Option<Json>> {
        let token = token.eval(reply).map_err(CrmError::expression)?;
        if crate::expr::is_empty(&token) {
            return Ok(None);
        }
        let token = to_json(&token);
        if self.token.as_ref() == Some(&token) {
            return Err(stuck("the CRM gave the same page token twice"));
        }
        Ok(Some(token))
    }

    fn next_keys(&self, keys: &[Expr], last: &Value, turn: &Turn<'_>) -> CrmResult<Vec<Json>> {
        let scope = (turn.item_scope)(last);
        let mut next = Vec::with_capacity(keys.len());
        for key in keys {
            let value = key.eval(&scope).map_err(CrmError::expression)?;
            if crate::expr::is_empty(&value) {
                return Err(CrmError::new(ErrorKind::BadReply, "the last row of a page has no key"));
            }
            next.push(to_json(&value));
        }
        if next == self.keys || goes_back(&self.keys, &next) {
            return Err(stuck("the CRM answered with rows before the key that was asked for"));
        }
        Ok(next)
    }

    fn remember(&self, rows: &[Value]) -> CrmResult<Vec<u64>> {
        let mut seen = self.seen.clone();
        if rows.is_empty() {
            return Ok(seen);
        }
        let hash = hash_of(rows);
        if seen.contains(&hash) {
            return Err(stuck("the CRM gave the same page again under another token"));
        }
        seen.push(hash);
        let surplus = seen.len().saturating_sub(REMEMBERED);
        seen.drain(..surplus);
        Ok(seen)
    }
}

/// The URL of the next page, which may be relative (Salesforce). It is called with the account's credentials, so it lies where
/// this page lay.
fn next_url(url: &str, called: &Url) -> CrmResult<String> {
    let url = called
        .join(url)
        .map_err(|error| CrmError::because(ErrorKind::BadReply, "the next page's URL cannot be read", error))?;
    if !same_origin(&url, called) {
        return Err(CrmError::new(
            ErrorKind::HostRefused,
            "the next page lies on another host",
        ));
    }
    if url == *called {
        return Err(stuck("the CRM named the same page as its next"));
    }
    Ok(url.into())
}

/// Stable over processes, as cursors are.
fn hash_of(rows: &[Value]) -> u64 {
    let text = serde_json::to_vec(rows).unwrap_or_default();
    contacts::contact::content_hash(&text)
}

/// Whether numeric keys got smaller. Others have an order only the CRM knows.
fn goes_back(before: &[Json], after: &[Json]) -> bool {
    let number = |json: &Json| match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.parse::<u64>().ok().map(|number| number as f64),
        _ => None,
    };
    match (before, after) {
        ([before], [after]) => matches!((number(before), number(after)), (Some(before), Some(after)) if after < before),
        _ => false,
    }
}
