//! An OAuth 2 authorization server (RFC 6749) whose tokens the fake CRM takes. It plays the grants `authorization_code`,
//! `refresh_token`, `password` and `client_credentials`, with lives, revocation and rotation, and counts what it is asked.
//!
//! A refresh token is good once, and one that comes twice voids the whole family of its tokens (RFC 9700, section 4.14.2):
//! whoever refreshes with somebody else's token does harm that shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct OauthServer {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    frozen: watch::Sender<bool>,
}

/// Whose contacts a token shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    pub account: String,
    /// 1 is `u-1`.
    pub user: usize,
}

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct OauthKnobs {
    /// How long access tokens live that are issued from now on.
    pub life: Duration,
    /// Whether `expires_in` is told.
    pub tells_life: bool,
    /// Every token call is answered so.
    pub fail_status: Option<u16>,
    /// Token calls are answered with a log-in page and status 200.
    pub html_200: bool,
    /// Client id and secret are taken from the `Authorization` header only.
    pub basic_only: bool,
    /// Answers are kept back this long.
    pub slow: Duration,
}

impl Default for OauthKnobs {
    fn default() -> OauthKnobs {
        OauthKnobs {
            life: Duration::from_secs(3600),
            tells_life: true,
            fail_status: None,
            html_200: false,
            basic_only: false,
            slow: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OauthStats {
    /// Token calls by grant, whatever they were answered.
    pub calls: BTreeMap<String, u64>,
    pub issued: u64,
    /// Times that a refresh token came twice, which voided its family.
    pub reused: u64,
}

impl OauthStats {
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    pub fn of(&self, grant: &str) -> u64 {
        self.calls.get(grant).copied().unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    knobs: OauthKnobs,
    clients: HashMap<String, Client>,
    users: HashMap<String, User>,
    codes: HashMap<String, Viewer>,
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    spent: HashMap<String, u64>,
    voided: HashSet<u64>,
    families: u64,
    made: u64,
    stats: OauthStats,
}

struct Client {
    secret: String,
    account: String,
}

struct User {
    password: String,
    viewer: Viewer,
}

struct Access {
    viewer: Viewer,
    until: Instant,
    family: u64,
}

struct Refresh {
    viewer: Viewer,
    family: u64,
}

/// An error of RFC 6749, section 5.2.
struct Refused(StatusCode, &'static str);

impl Default for OauthServer {
    fn default() -> OauthServer {
        OauthServer::new()
    }
}

impl OauthServer {
    pub fn new() -> OauthServer {
        OauthServer {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                frozen: watch::Sender::new(false),
            }),
        }
    }

    /// Makes a client, or gives it another secret. Its own tokens are those of the account's first user.
    pub fn client(&self, id: &str, secret: &str, account: &str) {
        let client = Client {
            secret: secret.to_owned(),
            account: account.to_owned(),
        };
        self.inner.state.lock().clients.insert(id.to_owned(), client);
    }

    /// Makes a user, or gives it another password.
    pub fn user(&self, name: &str, password: &str, account: &str, user: usize) {
        let made = User {
            password: password.to_owned(),
            viewer: Viewer {
                account: account.to_owned(),
                user,
            },
        };
        self.inner.state.lock().users.insert(name.to_owned(), made);
    }

    pub fn knobs(&self, change: impl FnOnce(&mut OauthKnobs)) {
        change(&mut self.inner.state.lock().knobs);
    }

    /// Answers are kept back until it is thawed again.
    pub fn freeze(&self, frozen: bool) {
        self.inner.frozen.send_replace(frozen);
    }

    /// The user has consented: a code for the client to exchange.
    ///
    /// # Panics
    /// When there is no such user.
    #[track_caller]
    pub fn consent(&self, user: &str) -> String {
        let mut state = self.inner.state.lock();
        let viewer = state.users.get(user).expect("a user of this name").viewer.clone();
        let code = state.make("code");
        state.codes.insert(code.clone(), viewer);
        code
    }

    /// Every access token so far is good for nothing from now on.
    pub fn revoke_all(&self) {
        self.inner.state.lock().access.clear();
    }

    pub fn revoke(&self, token: &str) {
        self.inner.state.lock().access.remove(token);
    }

    /// Whose contacts a token shows, if it is good now.
    pub fn accepts(&self, token: &str) -> Option<Viewer> {
        let state = self.inner.state.lock();
        let access = state.access.get(token)?;
        let good = access.until > Instant::now() && !state.voided.contains(&access.family);
        good.then(|| access.viewer.clone())
    }

    /// Every access token that was issued and not revoked.
    pub fn tokens(&self) -> Vec<String> {
        self.inner.state.lock().access.keys().cloned().collect()
    }

    pub fn stats(&self) -> OauthStats {
        self.inner.state.lock().stats.clone()
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/oauth/token", post(token))
            .with_state(self.clone())
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: tokio::net::TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let serving = axum::serve(listener, self.router());
        tokio::select! {
            served = async { serving.await } => Ok(served?),
            () = stop.cancelled() => Ok(()),
        }
    }
}

async fn token(Extract(server): Extract<OauthServer>, headers: HeaderMap, body: Bytes) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let (answer, slow) = {
        let mut state = server.inner.state.lock();
        (state.answer(&headers, &form), state.knobs.slow)
    };
    // Err would mean that the sender is gone, and it lives in `server`.
    let _ = server.inner.frozen.subscribe().wait_for(|frozen| !frozen).await;
    tokio::time::sleep(slow).await;
    answer
}

impl State {
    fn answer(&mut self, headers: &HeaderMap, form: &HashMap<String, String>) -> Response {
        let grant = form.get("grant_type").map_or("", String::as_str);
        *self.stats.calls.entry(grant.to_owned()).or_default() += 1;
        if let Some(status) = self.knobs.fail_status {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return (status, "out of order").into_response();
        }
        if self.knobs.html_200 {
            let page = "<!doctype html><title>Sign in</title>";
            return ([(header::CONTENT_TYPE, "text/html")], page).into_response();
        }
        match self.grant(grant, headers, form) {
            Ok(body) => ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response(),
            Err(Refused(status, error)) => {
                // Some servers quote what they were sent: nobody should pass that on.
                let sent = form.get("client_secret").or(form.get("password"));
                let body = json!({"error": error, "error_description": format!("refused: {sent:?}")});
                (status, Json(body)).into_response()
            }
        }
    }

    fn grant(&mut self, grant: &str, headers: &HeaderMap, form: &HashMap<String, String>) -> Result<Value, Refused> {
        let bad_grant = || Refused(StatusCode::BAD_REQUEST, "invalid_grant");
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let account = self.client_of(headers, form)?;
        match grant {
            "client_credentials" => {
                let viewer = Viewer { account, user: 1 };
                let family = self.family();
                Ok(self.issue(viewer, family, false))
            }
            "password" => {
                let user = self.users.get(field("username")).ok_or_else(bad_grant)?;
                if user.password != field("password") {
                    return Err(bad_grant());
                }
                let viewer = user.viewer.clone();
                let family = self.family();
                Ok(self.issue(viewer, family, true))
            }
            "authorization_code" => {
                let viewer = self.codes.remove(field("code")).ok_or_else(bad_grant)?;
                let family = self.family();
                Ok(self.issue(viewer, family, true))
            }
            "refresh_token" => {
                let given = field("refresh_token");
                if let Some(family) = self.spent.get(given) {
                    self.voided.insert(*family);
                    self.stats.reused += 1;
                    return Err(bad_grant());
                }
                let refresh = self.refresh.remove(given).ok_or_else(bad_grant)?;
                self.spent.insert(given.to_owned(), refresh.family);
                if self.voided.contains(&refresh.family) {
                    return Err(bad_grant());
                }
                Ok(self.issue(refresh.viewer, refresh.family, true))
            }
            _ => Err(Refused(StatusCode::BAD_REQUEST, "unsupported_grant_type")),
        }
    }

    /// The account of the client that asks, by its `Authorization` header or its body.
    fn client_of(&self, headers: &HeaderMap, form: &HashMap<String, String>) -> Result<String, Refused> {
        let refused = || Refused(StatusCode::UNAUTHORIZED, "invalid_client");
        let basic = headers.get(header::AUTHORIZATION).and_then(basic_pair);
        let in_body = || Some((form.get("client_id")?.clone(), form.get("client_secret")?.clone()));
        let pair = if self.knobs.basic_only {
            basic
        } else {
            basic.or_else(in_body)
        };
        let (id, secret) = pair.ok_or_else(refused)?;
        let client = self.clients.get(&id).filter(|client| client.secret == secret);
        Ok(client.ok_or_else(refused)?.account.clone())
    }

    fn family(&mut self) -> u64 {
        self.families += 1;
        self.families
    }

    fn make(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}-{}-{:016x}", self.made, rand_bits())
    }

    fn issue(&mut self, viewer: Viewer, family: u64, refreshable: bool) -> Value {
        let token = self.make("access");
        let life = self.knobs.life;
        let access = Access {
            viewer: viewer.clone(),
            until: Instant::now() + life,
            family,
        };
        self.access.insert(token.clone(), access);
        self.stats.issued += 1;
        let mut body = json!({"access_token": token, "token_type": "Bearer"});
        if self.knobs.tells_life {
            body["expires_in"] = json!(life.as_secs_f64());
        }
        if refreshable {
            let refresh = self.make("refresh");
            body["refresh_token"] = json!(refresh);
            self.refresh.insert(refresh, Refresh { viewer, family });
        }
        body
    }
}

fn basic_pair(value: &http::HeaderValue) -> Option<(String, String)> {
    let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let decoded = |text: &str| {
        let pair = format!("x={text}");
        let value = url::form_urlencoded::parse(pair.as_bytes()).next()?.1.into_owned();
        Some(value)
    };
    Some((decoded(id)?, decoded(secret)?))
}

/// Bits that nobody can tell beforehand; std's hasher keys are random per process and instance.
fn rand_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
