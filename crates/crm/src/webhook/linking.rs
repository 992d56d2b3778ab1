//! What a delivery says of records that are to be linked (`[link.events]`).

use contacts::linking::{Change, Event, Person, Stamp};
use minijinja::Value;

use super::{LONGEST_ID, Refused, Verified, any_time, each};
use crate::connector::Connector;
use crate::expr::{Expr, ExprError, scope, to_text, value_of};
use crate::spec::LinkEvents;

/// What there is to hear of in one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkNews {
    pub events: Vec<Event>,
    /// Organizations whose users changed, each once.
    pub users_of: Vec<String>,
}

impl Connector {
    /// Whether deliveries can tell of records that are to be linked.
    pub fn has_link_news(&self) -> bool {
        self.webhook().is_some() && self.spec().link.as_ref().is_some_and(|link| link.events.is_some())
    }

    /// What a verified delivery says of records that are to be linked. Nothing, if the connector does not say how.
    pub fn link_news(&self, verified: &Verified) -> Result<LinkNews, Refused> {
        let bad = |_: ExprError| Refused::BadBody;
        let mut news = LinkNews::default();
        let (Some(webhook), Some(spec)) = (&self.spec().webhook, self.spec().link.as_ref()) else {
            return Ok(news);
        };
        let Some(spec) = &spec.events else { return Ok(news) };
        let body = value_of(&verified.body);
        for ev in each(webhook, &body)? {
            let names = scope([("body", body.clone()), ("ev", ev)]);
            if is(&spec.users, &names).map_err(bad)? {
                let organization = text(&spec.organization, &names).map_err(bad)?;
                news.users_of
                    .extend(organization.filter(|of| !news.users_of.contains(of)));
            } else if spec.when.is_true(&names).map_err(bad)? {
                news.events.extend(event(spec, &names).map_err(bad)?);
            }
        }
        Ok(news)
    }
}

/// `None`: it names no record, or nobody's.
fn event(spec: &LinkEvents, names: &Value) -> Result<Option<Event>, ExprError> {
    let (contact, organization) = (text(&spec.contact, names)?, text(&spec.organization, names)?);
    let (Some(contact), Some(organization)) = (contact, organization) else {
        return Ok(None);
    };
    let given = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), |expr| expr.text_of(names));
    let time = |expr: &Option<Expr>| -> Result<_, ExprError> {
        let value = expr.as_ref().map(|expr| expr.eval(names)).transpose()?;
        Ok(value.as_ref().and_then(to_text).as_deref().and_then(any_time))
    };
    let change = match (is(&spec.deleted, names)?, is(&spec.created, names)?) {
        (true, _) => Change::Deleted,
        (false, true) => Change::Created,
        (false, false) => Change::Updated,
    };
    Ok(Some(Event {
        change,
        organization,
        contact,
        conversation: given(&spec.conversation)?,
        stamp: Stamp {
            updated: time(&spec.updated)?,
            published: time(&spec.published)?,
        },
        person: Person {
            name: given(&spec.name)?,
            email: given(&spec.email)?,
            phone: given(&spec.phone)?,
        },
    }))
}

fn is(expr: &Option<Expr>, names: &Value) -> Result<bool, ExprError> {
    expr.as_ref().map_or(Ok(false), |expr| expr.is_true(names))
}

/// An id; one that is too long is none.
fn text(expr: &Expr, names: &Value) -> Result<Option<String>, ExprError> {
    let text = expr.text_of(names)?;
    Ok(text.filter(|text| !text.is_empty() && text.chars().count() <= LONGEST_ID))
}
