//! The credential check.

use std::collections::BTreeMap;

use contacts::ErrorKind;

use super::{Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::Expr;
use crate::reply::{Judged, Tests};

/// Whose credentials these are, as the CRM says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The CRM's own id of the organisation.
    pub org: String,
    /// The CRM's own id of the user; empty where the connector cannot learn it.
    pub principal: String,
    /// Whether every user of the organisation sees the same contacts.
    pub sees_all: bool,
    /// Values to keep with the account and to give to every later client.
    pub learned: BTreeMap<String, String>,
}

impl Client {
    /// Asks the CRM whose credentials these are. `Credentials` if it does not take them.
    pub async fn check(&self) -> CrmResult<Checked> {
        let check = &self.spec().check;
        let tests = Tests {
            ok: check.ok.as_ref(),
            denied: check.denied.as_ref(),
            ..Tests::default()
        };
        let call = Call {
            operation: "check",
            request: &check.request,
            tests,
            names: &[],
            url: None,
        };
        let answer = self.call(call).await?;
        if answer.judged == Judged::Empty {
            return Err(CrmError::new(ErrorKind::BadReply, "the check gave an empty reply"));
        }
        let text = |expr: &Expr| expr.text_of(&answer.scope).map_err(CrmError::expression);
        let optional = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), text);
        let Some(org) = text(&check.org)? else {
            return Err(CrmError::new(
                ErrorKind::BadReply,
                "the check did not say which organisation it is",
            ));
        };
        let principal = optional(&check.principal)?;
        if check.principal.is_some() && principal.is_none() {
            return Err(CrmError::new(
                ErrorKind::BadReply,
                "the check did not say which user it is",
            ));
        }
        let mut learned = BTreeMap::new();
        for (name, expr) in &check.learn {
            learned.extend(text(expr)?.map(|value| (name.clone(), value)));
        }
        Ok(Checked {
            org,
            principal: principal.unwrap_or_default(),
            sees_all: optional(&check.visibility)?.as_deref() == Some("all"),
            learned,
        })
    }
}
