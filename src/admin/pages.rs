//! The ops page: HTML made here, of templates that are part of the binary. Works without its script, which only keeps it
//! up to date.

mod explain;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use data_encoding::BASE64URL_NOPAD;
use minijinja::value::Serde;
use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};

use super::access::{self, COOKIE, Grant, Operator};
use super::operate::{Action, Refusal, Which, scope};
use super::view::Filter;
use super::{Admin, view};

/// Nothing from anywhere else, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// What a form led to, shown once on the page it leads back to.
const SAID: &str = "snapbridge_said";
const STYLE: &str = include_str!("pages/style.css");
const SCRIPT: &str = include_str!("pages/live.js");
const ICON: &[u8] = include_bytes!("../images/icon.png");
const TEMPLATES: [(&str, &str); 10] = [
    ("macros.html", include_str!("pages/macros.html")),
    ("base.html", include_str!("pages/base.html")),
    ("overview.html", include_str!("pages/overview.html")),
    ("account.html", include_str!("pages/account.html")),
    ("explain.html", include_str!("pages/explain.html")),
    ("dead.html", include_str!("pages/dead.html")),
    ("budgets.html", include_str!("pages/budgets.html")),
    ("audit.html", include_str!("pages/audit.html")),
    ("login.html", include_str!("pages/login.html")),
    ("error.html", include_str!("pages/error.html")),
];

pub fn templates() -> Environment<'static> {
    let mut templates = Environment::new();
    for (name, source) in TEMPLATES {
        templates.add_template(name, source).expect("a template of our own");
    }
    templates
}

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/ops", get(overview))
        .route("/ops/accounts/{id}", get(account))
        .route("/ops/dead", get(dead))
        .route("/ops/budgets", get(budgets))
        .route("/ops/audit", get(audit))
        .route("/ops/login", get(login).post(log_in))
        .route("/ops/logout", post(log_out))
        .route("/ops/act", post(act))
        .route("/ops/explain", post(explain::explain))
        .route("/ops/style.css", get(style))
        .route("/ops/live.js", get(script))
        .route("/ops/icon.png", get(icon))
}

async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

async fn icon() -> Response {
    asset("image/png", ICON)
}

fn asset(kind: &'static str, text: impl IntoResponse) -> Response {
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (fields, text).into_response()
}

/// A logged-in operator's session.
struct Session {
    who: Operator,
    csrf: String,
    said: Option<String>,
}

impl Admin {
    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let cookie = access::cookie(headers, COOKIE)?;
        let who = self.access.by_session(&self.keys, cookie, self.clock.now())?;
        let said = access::cookie(headers, SAID)
            .and_then(|said| BASE64URL_NOPAD.decode(said.as_bytes()).ok())
            .and_then(|said| String::from_utf8(said).ok());
        Some(Session {
            who,
            csrf: access::csrf(cookie),
            said,
        })
    }

    fn page(&self, session: &Session, name: &str, tab: &str, data: impl Serialize) -> Response {
        let page = context! {
            who => session.who.name.as_str(),
            grant => session.who.grant.as_str(),
            may_operate => session.who.grant >= Grant::Operate,
            may_admin => session.who.grant >= Grant::Admin,
            csrf => session.csrf.as_str(),
            said => session.said.as_deref(),
            tab => tab,
            version => env!("CARGO_PKG_VERSION"),
            now => self.clock.now().to_string(),
            data => Serde(data),
        };
        let mut response = self.render(StatusCode::OK, name, page);
        if session.said.is_some() {
            set_cookie(
                &mut response,
                &format!("{SAID}=; Path=/ops; Max-Age=0; HttpOnly; SameSite=Strict"),
            );
        }
        response
    }

    fn render(&self, status: StatusCode, name: &str, page: minijinja::Value) -> Response {
        let rendered = self
            .templates
            .get_template(name)
            .and_then(|template| template.render(page));
        let (status, html) = match rendered {
            Ok(html) => (status, html),
            Err(error) => {
                tracing::error!(%error, name, "a page of the ops page could not be made");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "This page could not be made; the log says why".to_owned(),
                )
            }
        };
        let mut response = (status, Html(html)).into_response();
        let fields = response.headers_mut();
        let mut set = |name: HeaderName, value| fields.insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "same-origin");
        response
    }

    fn error(&self, status: StatusCode, message: &str) -> Response {
        self.render(
            status,
            "error.html",
            context! { message => message, tab => "", version => env!("CARGO_PKG_VERSION") },
        )
    }

    fn refused(&self, refusal: &Refusal) -> Response {
        let (status, _) = refusal.status();
        if status.is_server_error() {
            tracing::warn!(
                error = process::chain(refusal),
                "the ops page could not do what it was asked"
            );
        }
        self.error(status, &refusal.told())
    }
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// To the login, and back to where one wanted to go.
fn to_login(admin: &Admin, wanted: &str) -> Response {
    if admin.access.is_closed() {
        let message = "There is no ops page yet, because no token may open it. Make one with `snapbridge keys hash --new`, \
                       set its hash as ops.read, ops.operate or ops.admin, and restart";
        return admin.error(StatusCode::FORBIDDEN, message);
    }
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("to", wanted)
        .finish();
    Redirect::to(&format!("/ops/login?{query}")).into_response()
}

/// Only into the ops page itself.
fn inside(path: &str) -> &str {
    let fine = path == "/ops" || path.starts_with("/ops/") || path.starts_with("/ops?");
    if fine && !path.contains(['\r', '\n', '\\']) {
        path
    } else {
        "/ops"
    }
}

macro_rules! session {
    ($admin:expr, $headers:expr, $wanted:expr) => {
        match $admin.session(&$headers) {
            Some(session) => session,
            None => return to_login(&$admin, $wanted),
        }
    };
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[derive(Debug, Default, Deserialize)]
struct Listing {
    state: Option<String>,
    q: Option<String>,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    listing: &'a Filter,
    #[serde(flatten)]
    data: view::Overview,
}

async fn overview(State(admin): State<Arc<Admin>>, Query(listing): Query<Listing>, headers: HeaderMap) -> Response {
    let session = session!(admin, headers, "/ops");
    let filter = Filter {
        state: non_empty(listing.state),
        text: non_empty(listing.q),
    };
    match admin.overview(&filter).await {
        Ok(data) => {
            let data = Listed { listing: &filter, data };
            admin.page(&session, "overview.html", "overview", data)
        }
        Err(error) => admin.refused(&error.into()),
    }
}

async fn account(State(admin): State<Arc<Admin>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let session = session!(admin, headers, &format!("/ops/accounts/{id}"));
    match admin.account(&id).await {
        Ok(Some(data)) => admin.page(&session, "account.html", "", data),
        Ok(None) => admin.error(
            StatusCode::NOT_FOUND,
            "There is no such account; it may have been forgotten",
        ),
        Err(error) => admin.refused(&error.into()),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    account: Option<String>,
    kind: Option<String>,
    q: Option<String>,
}

#[derive(Serialize)]
struct Letters {
    letters: Vec<view::LetterView>,
    count: usize,
    kinds: [&'static str; 5],
    filtered: bool,
    #[serde(flatten)]
    which: Which,
}

/// Dead letters that a page lists.
const SHOWN: usize = 200;

async fn dead(State(admin): State<Arc<Admin>>, Query(letters): Query<Wanted>, headers: HeaderMap) -> Response {
    let session = session!(admin, headers, "/ops/dead");
    let which = Which {
        account: non_empty(letters.account),
        kind: non_empty(letters.kind),
        text: non_empty(letters.q),
        ..Which::default()
    };
    let now = admin.clock.now();
    match admin.operate.letters(&which).await {
        Ok(found) => {
            let count = found.len();
            let shown: Vec<_> = found
                .into_iter()
                .take(SHOWN)
                .map(|letter| view::letter_view(letter, now))
                .collect();
            let data = Letters {
                letters: shown,
                count,
                kinds: contacts::Kind::ALL.map(|kind| kind.as_str()),
                filtered: !which.is_empty(),
                which,
            };
            admin.page(&session, "dead.html", "dead", data)
        }
        Err(refusal) => admin.refused(&refusal),
    }
}

async fn budgets(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let session = session!(admin, headers, "/ops/budgets");
    match admin.budgets().await {
        Ok(data) => admin.page(&session, "budgets.html", "budgets", data),
        Err(error) => admin.refused(&error.into()),
    }
}

async fn audit(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let session = session!(admin, headers, "/ops/audit");
    match admin.audit().await {
        Ok(data) => admin.page(&session, "audit.html", "audit", data),
        Err(error) => admin.refused(&error.into()),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Login {
    to: Option<String>,
}

async fn login(State(admin): State<Arc<Admin>>, Query(login): Query<Login>) -> Response {
    if admin.access.is_closed() {
        return to_login(&admin, "/ops");
    }
    login_page(&admin, StatusCode::OK, login.to.as_deref(), false)
}

fn login_page(admin: &Admin, status: StatusCode, to: Option<&str>, wrong: bool) -> Response {
    let page = context! {
        to => inside(to.unwrap_or("/ops")), wrong => wrong, tab => "", version => env!("CARGO_PKG_VERSION"),
    };
    admin.render(status, "login.html", page)
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    to: String,
}

async fn log_in(State(admin): State<Arc<Admin>>, headers: HeaderMap, Form(given): Form<Credentials>) -> Response {
    if access::is_foreign(&headers) {
        return admin.error(StatusCode::FORBIDDEN, "This login came from another site");
    }
    let Some(grant) = admin.access.grant_of(given.token.trim()) else {
        tracing::warn!("a login to the ops page with a wrong token");
        metrics::counter!("snapbridge_ops_logins_total", "outcome" => "refused").increment(1);
        return login_page(&admin, StatusCode::UNAUTHORIZED, Some(&given.to), true);
    };
    metrics::counter!("snapbridge_ops_logins_total", "outcome" => "admitted").increment(1);
    let session = admin
        .access
        .open_session(&admin.keys, &given.name, grant, admin.clock.now());
    let mut response = Redirect::to(inside(&given.to)).into_response();
    let life = admin.access.session_life().as_secs();
    set_cookie(
        &mut response,
        &format!("{COOKIE}={session}; Path=/ops; Max-Age={life}; HttpOnly; SameSite=Strict"),
    );
    response
}

#[derive(Deserialize)]
struct LogOut {
    csrf: String,
}

async fn log_out(State(admin): State<Arc<Admin>>, headers: HeaderMap, Form(form): Form<LogOut>) -> Response {
    let session = session!(admin, headers, "/ops");
    if session.csrf != form.csrf {
        return admin.error(StatusCode::FORBIDDEN, FOREIGN);
    }
    let mut response = Redirect::to("/ops/login").into_response();
    set_cookie(
        &mut response,
        &format!("{COOKIE}=; Path=/ops; Max-Age=0; HttpOnly; SameSite=Strict"),
    );
    response
}

const FOREIGN: &str = "This form is not of your session. Go back, load the page anew and try again";

/// A form of the page: what to do, to what, and where to go then.
#[derive(Debug, Deserialize)]
struct Deed {
    csrf: String,
    /// `account`, `connector`, `lane` or `dead`.
    on: String,
    action: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    back: String,
    // Of dead letters.
    #[serde(default)]
    account: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    reason: String,
}

impl Deed {
    fn which(&self) -> Which {
        let some = |text: &String| non_empty(Some(text.clone()));
        Which {
            ids: some(&self.target).into_iter().collect(),
            account: some(&self.account),
            kind: some(&self.kind),
            text: some(&self.text),
            all: self.all,
        }
    }
}

async fn act(State(admin): State<Arc<Admin>>, headers: HeaderMap, Form(deed): Form<Deed>) -> Response {
    let session = session!(admin, headers, "/ops");
    if access::is_foreign(&headers) || session.csrf != deed.csrf {
        return admin.error(StatusCode::FORBIDDEN, FOREIGN);
    }
    match admin.carry_out(&session.who, &deed).await {
        Ok(said) => {
            let forgotten = deed.on == "account" && deed.action == Action::Forget.as_str();
            let back = if forgotten { "/ops" } else { inside(&deed.back) };
            let mut response = Redirect::to(back).into_response();
            let said = BASE64URL_NOPAD.encode(said.as_bytes());
            set_cookie(
                &mut response,
                &format!("{SAID}={said}; Path=/ops; Max-Age=60; HttpOnly; SameSite=Strict"),
            );
            response
        }
        Err(refusal) => admin.refused(&refusal),
    }
}

impl Admin {
    async fn carry_out(&self, who: &Operator, deed: &Deed) -> Result<String, Refusal> {
        match (deed.on.as_str(), deed.action.as_str()) {
            ("account", action) => self.operate.account(who, &deed.target, action.parse()?).await,
            (kind @ ("connector" | "lane"), action @ ("pause" | "resume")) => {
                let scope = scope(kind, &deed.target)?;
                self.operate.hold(who, &scope, action == "pause").await
            }
            ("dead", "redrive") => {
                let settled = self.operate.redrive(who, &deed.which()).await?;
                let stay = match settled.stay.as_slice() {
                    [] => String::new(),
                    [first, ..] => format!(" {} stay: {first}", settled.stay.len()),
                };
                Ok(format!("{} redriven.{stay}", settled.done))
            }
            ("dead", "discard") => {
                let settled = self.operate.discard(who, &deed.which(), &deed.reason).await?;
                Ok(format!("{} discarded", settled.done))
            }
            _ => Err(Refusal::BadRequest(
                "the page asked for something that does not exist".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_led_back_into_the_ops_page_only() {
        for path in ["/ops", "/ops?state=parked", "/ops/dead?q=a"] {
            assert_eq!(inside(path), path);
        }
        for path in [
            "",
            "https://evil.example",
            "//evil.example",
            "/opsx",
            "/ops/\\evil",
            "/ops\r\nSet-Cookie: a=b",
        ] {
            assert_eq!(inside(path), "/ops", "{path}");
        }
    }

    #[test]
    fn what_came_from_outside_is_escaped() {
        let page = templates()
            .get_template("error.html")
            .and_then(|template| template.render(context! { message => "<script>alert(1)</script>" }))
            .unwrap();
        assert!(
            !page.contains("<script>alert") && page.contains("&lt;script&gt;"),
            "{page}"
        );
    }
}
