//! Sessions: the result of a login call, kept by its client.

use contacts::{ErrorKind, Micros};
use minijinja::Value;
use tokio::sync::Mutex;

use super::{Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::scope;
use crate::reply::{Judged, Tests};
use crate::spec::Session;

/// The session of one client, if it has logged in.
#[derive(Default)]
pub(super) struct Store(Mutex<Option<Kept>>);

struct Kept {
    value: Value,
    until: Option<Micros>,
}

impl Store {
    pub async fn drop_it(&self) {
        *self.0.lock().await = None;
    }
}

impl Client {
    /// The session, and whether it was made just now. Callers at the same time share one login.
    pub(super) async fn session(&self, login: &Session) -> CrmResult<(Value, bool)> {
        let mut kept = self.session.0.lock().await;
        let now = self.clock.now();
        if let Some(found) = kept.as_ref().filter(|kept| kept.until.is_none_or(|until| until > now)) {
            return Ok((found.value.clone(), false));
        }
        let tests = Tests {
            ok: login.ok.as_ref(),
            denied: login.denied.as_ref(),
            ..Tests::default()
        };
        let call = Call {
            operation: "login",
            request: &login.request,
            tests,
            names: &[],
            url: None,
        };
        let answer = self.call_once(call, None).await?;
        if answer.judged == Judged::Empty {
            return Err(CrmError::new(ErrorKind::BadReply, "the login gave an empty reply"));
        }
        let mut values = Vec::new();
        for (name, expr) in &login.learn {
            let value = expr.eval(&answer.scope).map_err(CrmError::expression)?;
            if crate::expr::is_empty(&value) {
                return Err(CrmError::new(
                    ErrorKind::BadReply,
                    format!("the login gave no `{name}`"),
                ));
            }
            values.push((name.as_str(), value));
        }
        let value = scope(values);
        *kept = Some(Kept {
            value: value.clone(),
            until: login.lifetime.map(|lifetime| now.plus(lifetime)),
        });
        Ok((value, true))
    }
}
