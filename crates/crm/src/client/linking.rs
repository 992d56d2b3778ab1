//! People found in a CRM, and records that are given a link (`[link]`).

use contacts::ErrorKind;
use contacts::linking::Needle;
use minijinja::Value;
use minijinja::value::ValueKind;
use serde::Serialize;
use serde_json::Value as Json;

use super::listing::lacks;
use super::{Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, to_json, value_of};
use crate::map::e164;
use crate::reply::{Judged, Tests};
use crate::spec::{LinkSpec, Request};

const OPERATION: &str = "link";

/// A record, as far as linking is about it.
#[derive(Clone, Default, PartialEq)]
pub struct Linked {
    pub id: String,
    pub organization: Option<String>,
    pub conversation: Option<String>,
    pub name: Option<String>,
    pub emails: Vec<String>,
    pub phones: Vec<String>,
    /// All its links; `None`: it has a place for ours alone.
    pub links: Option<Vec<Json>>,
    /// What stands in that place.
    pub url: Option<String>,
    /// What `[link.map] record` keeps for the next write; null without it.
    pub record: Json,
}

/// Personal data stays out of logs.
impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a record is given: `link`, for expressions.
#[derive(Clone, Default, PartialEq, Serialize)]
pub struct LinkTo {
    /// The record's own id.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Absent: the link is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// All links of the record, as they are to stand.
    pub links: Vec<Json>,
    /// Absent: the record keeps its own, as with the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// [`Linked::record`], as it was read.
    pub record: Json,
}

/// Personal data stays out of logs.
impl std::fmt::Debug for LinkTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkTo").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Find<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
}

#[derive(Serialize)]
struct Read<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
}

impl Client {
    /// The records that bear a needle: an e-mail address or a phone number in one of its forms. A needle of a kind that the
    /// CRM cannot look for finds nobody.
    pub async fn find_linked(&self, needle: &Needle, organization: Option<&str>) -> CrmResult<Vec<Linked>> {
        let link = self.link()?;
        let (request, value) = match needle {
            Needle::Email(value) => (&link.find.email, value),
            Needle::Phone(value) => (&link.find.phone, value),
        };
        let Some(request) = request else { return Ok(Vec::new()) };
        let names = [("find", value_of(&Find { value, organization }))];
        let answer = match self.call(call(request, Tests::default(), &names)).await {
            // Some say so where others give an empty list.
            Err(error) if error.kind == ErrorKind::Missing => return Ok(Vec::new()),
            answer => answer?,
        };
        if answer.judged == Judged::Empty {
            return Ok(Vec::new());
        }
        let items = link.find.items.eval(&answer.scope).map_err(CrmError::expression)?;
        if items.kind() != ValueKind::Seq {
            let message = format!("the reply has no list at `{}`", link.find.items.text());
            return Err(CrmError::new(ErrorKind::BadReply, message));
        }
        let unreadable = |_| CrmError::new(ErrorKind::BadReply, "the rows cannot be read");
        let mut found = Vec::new();
        for item in items.try_iter().map_err(unreadable)? {
            let linked = self.linked(link, &item)?;
            let foreign = linked
                .organization
                .as_deref()
                .zip(organization)
                .is_some_and(|(a, b)| a != b);
            if !foreign && needle.is_borne_by(&linked.emails, &linked.phones, |text| e164(text, self.region)) {
                found.push(linked);
            }
        }
        Ok(found)
    }

    /// One record. `Missing`: it is not there.
    pub async fn read_linked(&self, id: &str, organization: Option<&str>) -> CrmResult<Linked> {
        let link = self.link()?;
        let names = [("link", value_of(&Read { id, organization }))];
        let answer = self.call(call(&link.read.request, Tests::default(), &names)).await?;
        let is_missing = |expr: &Expr| expr.is_true(&answer.scope).map_err(CrmError::expression);
        if answer.judged == Judged::Empty || link.read.missing.as_ref().map_or(Ok(false), is_missing)? {
            return Err(CrmError::new(ErrorKind::Missing, "the CRM does not have the record"));
        }
        let item = link.read.item.eval(&answer.scope).map_err(CrmError::expression)?;
        let linked = self.linked(link, &item)?;
        if linked.id != id {
            let message = "the CRM answered with another record than the one asked for";
            return Err(CrmError::new(ErrorKind::BadReply, message));
        }
        Ok(linked)
    }

    /// Gives a record its link, and what of the person is to be written. It says how things are to stand, so once more does
    /// no harm. `Missing`: the record is not there.
    pub async fn write_link(&self, to: &LinkTo) -> CrmResult<()> {
        let link = self.link()?;
        let names = [("link", value_of(to))];
        let tests = Tests {
            ok: link.write.ok.as_ref(),
            bare_is_good: true,
            ..Tests::default()
        };
        self.call(call(&link.write.request, tests, &names)).await.map(drop)
    }

    fn link(&self) -> CrmResult<&LinkSpec> {
        self.spec().link.as_ref().ok_or_else(|| lacks("links"))
    }

    fn linked(&self, link: &LinkSpec, item: &Value) -> CrmResult<Linked> {
        let names = self.item_scope(item);
        let map = &link.map;
        let text = |expr: &Option<Expr>| {
            let found = expr.as_ref().map_or(Ok(None), |expr| expr.text_of(&names));
            found.map_err(CrmError::expression)
        };
        let texts = |expr: &Option<Expr>| {
            let found = expr.as_ref().map_or(Ok(Vec::new()), |expr| expr.texts_of(&names));
            found.map_err(CrmError::expression)
        };
        let id = map.id.text_of(&names).map_err(CrmError::expression)?;
        let links = match &map.links {
            None => None,
            // What is no list is not read as an empty one: the links of others would be written away.
            Some(expr) => match to_json(&expr.eval(&names).map_err(CrmError::expression)?) {
                Json::Array(links) => Some(links),
                _ => return Err(CrmError::new(ErrorKind::BadReply, "a record's links are no list")),
            },
        };
        Ok(Linked {
            id: id.ok_or_else(|| CrmError::new(ErrorKind::BadReply, "a row has no id"))?,
            organization: text(&map.organization)?,
            conversation: text(&map.conversation)?,
            name: text(&map.name)?,
            emails: texts(&map.emails)?,
            phones: texts(&map.phones)?,
            links,
            url: text(&map.url)?,
            record: match &map.record {
                None => Json::Null,
                Some(expr) => to_json(&expr.eval(&names).map_err(CrmError::expression)?),
            },
        })
    }
}

fn call<'a>(request: &'a Request, tests: Tests<'a>, names: &'a [(&'a str, Value)]) -> Call<'a> {
    Call {
        operation: OPERATION,
        request,
        tests,
        names,
        url: None,
    }
}
