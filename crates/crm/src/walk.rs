//! From one page to the next, with guards against cursors that do not move.

use contacts::ErrorKind;
use minijinja::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use url::Url;

use crate::error::{CrmError, CrmResult};
use crate::expr::{scope, to_json, value_of};
use crate::hosts::same_origin;
use crate::spec::{Paging, PagingKind, Stop};

/// Where a walk stands. Opaque outside; kept between slices and processes as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Pages read so far.
    pages: u64,
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

    /// `page`, for expressions.
    pub fn value(&self, paging: &Paging) -> Value {
        scope([
            ("token", self.token.as_ref().map_or(Value::UNDEFINED, value_of)),
            ("keys", value_of(&self.keys)),
            ("size", paging.size.map_or(Value::UNDEFINED, Value::from)),
            ("number", Value::from(self.pages + 1)),
            ("offset", Value::from(self.pages * paging.size.unwrap_or_default())),
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

    /// The cursor behind a page, or `None` after the last one. `reply` is the scope of the reply, `called` the URL.
    pub fn advance(
        &self,
        paging: &Paging,
        reply: &Value,
        rows: &[Value],
        item_scope: &dyn Fn(&Value) -> Value,
        called: &Url,
    ) -> CrmResult<Option<Cursor>> {
        let mut next = Cursor {
            pages: self.pages + 1,
            ..Cursor::default()
        };
        match &paging.kind {
            PagingKind::None => return Ok(None),
            PagingKind::Token { next: token, more } => {
                if let Some(more) = more
                    && !more.is_true(reply).map_err(CrmError::expression)?
                {
                    return Ok(None);
                }
                let token = token.eval(reply).map_err(CrmError::expression)?;
                if crate::expr::is_empty(&token) {
                    return Ok(None);
                }
                next.token = Some(to_json(&token));
                if next.token == self.token {
                    return Err(stuck("the CRM gave the same page token twice"));
                }
            }
            PagingKind::NextUrl { next: url } => {
                let Some(url) = url.text_of(reply).map_err(CrmError::expression)? else {
                    return Ok(None);
                };
                // Relative ones are usual (Salesforce).
                let url = called.join(&url).map_err(|error| {
                    CrmError::because(ErrorKind::BadReply, "the next page's URL cannot be read", error)
                })?;
                if !same_origin(&url, called) {
                    return Err(CrmError::new(
                        ErrorKind::HostRefused,
                        "the next page lies on another host",
                    ));
                }
                if url == *called {
                    return Err(stuck("the CRM named the same page as its next"));
                }
                next.url = Some(url.into());
            }
            PagingKind::Keyset { keys, stop } => {
                let full = rows.len() as u64 >= paging.size.unwrap_or(1);
                let Some(last) = rows.last().filter(|_| *stop == Stop::EmptyPage || full) else {
                    return Ok(None);
                };
                let scope = item_scope(last);
                for key in keys {
                    let value = key.eval(&scope).map_err(CrmError::expression)?;
                    if crate::expr::is_empty(&value) {
                        return Err(CrmError::new(ErrorKind::BadReply, "the last row of a page has no key"));
                    }
                    next.keys.push(to_json(&value));
                }
                if next.keys == self.keys || goes_back(&self.keys, &next.keys) {
                    return Err(stuck("the CRM answered with rows before the key that was asked for"));
                }
            }
            PagingKind::Page { .. } | PagingKind::Offset { .. } | PagingKind::LinkHeader => {
                return Err(CrmError::new(ErrorKind::Rejected, "this kind of paging is not run yet"));
            }
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
        next.seen = self.remember(rows)?;
        Ok(Some(next))
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
