//! The page that explains one contact: a form's answer, made when it is asked for and kept nowhere.

use std::sync::Arc;

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::{FOREIGN, to_login};
use crate::admin::Admin;
use crate::admin::access;
use crate::admin::operate::explain::Question;

#[derive(Deserialize)]
pub(super) struct Asked {
    csrf: String,
    account: String,
    who: String,
}

/// Never with values: those are for who asks for them by the API.
pub(super) async fn explain(State(admin): State<Arc<Admin>>, headers: HeaderMap, Form(asked): Form<Asked>) -> Response {
    let Some(session) = admin.session(&headers) else {
        return to_login(&admin, "/ops");
    };
    if access::is_foreign(&headers) || session.csrf != asked.csrf {
        return admin.error(StatusCode::FORBIDDEN, FOREIGN);
    }
    let question = Question {
        who: asked.who,
        values: false,
    };
    match admin.operate.explain(&session.who, &asked.account, &question).await {
        Ok(explained) => admin.page(&session, "explain.html", "", explained),
        Err(refusal) => admin.refused(&refusal),
    }
}
