//! OAuth 2: what a file must say, what is sent to a token endpoint, and how many callers share one token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contacts::{ErrorKind, SystemClock};
use crm::{AllowHosts, Client, ClientSettings, Connection, Connector, CrmResult, Grant, Http, Mint, Pacer};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::support::{SMALL, fields, listed, load, serve};

/// The small connector with OAuth 2; `auth` are further lines of `[auth]`, `more_fields` of the connection's fields.
fn oauth(auth: &str, more_fields: &str) -> String {
    SMALL
        .replace(
            "token = { type = \"secret\" }",
            &format!(
                "access_token = {{ type = \"secret\" }}\nclient_id = {{ type = \"string\", role = \"secret\" }}\n\
                 client_secret = {{ type = \"secret\" }}\nusername = {{ type = \"string\", role = \"principal\" }}\n\
                 password = {{ type = \"secret\" }}\n{more_fields}"
            ),
        )
        .replace(
            "kind = \"bearer\"\ntoken = \"${conn.token}\"",
            &format!("kind = \"oauth2\"\n{auth}"),
        )
}

fn problems(source: &str) -> String {
    match Connector::load(source, "small.toml") {
        Ok(_) => String::new(),
        Err(problems) => listed(&problems),
    }
}

const GRANTS: &str = "grants = [\"password\", \"code\"]\ntoken_url = \"${conn.site}/token\"";

#[test]
fn a_file_says_what_its_grants_need() {
    assert_eq!(problems(&oauth(GRANTS, "")), "");
    let with = |auth: &str| problems(&oauth(auth, ""));
    for (text, says) in [
        (with("token_url = \"${conn.site}/t\""), "`auth.grants` is missing"),
        (
            with("grants = [\"pasword\"]"),
            "does not know `pasword` (did you mean `password`?)",
        ),
        (with("grants = [\"password\"]"), "`auth.token_url` is missing"),
        (
            with("grants = [\"password\"]\ntoken_url = \"https://x.example/${conn.client_secret}\""),
            "the secret `conn.client_secret` must not be used",
        ),
        (
            with(&format!("{GRANTS}\ntoken_fields = [\"tokn\"]")),
            "names `tokn`, which is no field",
        ),
        (
            with(&format!("{GRANTS}\nheaders = {{ host = \"x\" }}")),
            "`host` cannot be set as a header",
        ),
        (
            problems(&oauth(GRANTS, "").replace("password = { type = \"secret\" }", "")),
            "minting tokens needs the field `password`",
        ),
        (
            problems(&oauth(GRANTS, "").replace(
                "username = { type = \"string\", role = \"principal\" }",
                "username = { type = \"string\", role = \"ignored\" }",
            )),
            "the field `username` proves who is calling",
        ),
        (
            problems(&oauth(GRANTS, "").replace(
                "access_token = { type = \"secret\" }",
                "access_token = { type = \"string\", role = \"secret\" }",
            )),
            "the field `access_token` must be of type `secret`",
        ),
        (
            problems(
                &oauth(
                    "grants = [\"client_credentials\"]",
                    "access_token_url = { type = \"string\", role = \"ignored\" }",
                )
                .replace(
                    "client_secret = { type = \"secret\" }",
                    "client_secret = { type = \"secret\", from = \"integration\" }",
                ),
            ),
            "the client secret of the settings would go to the `access_token_url`",
        ),
        (
            problems(&oauth(GRANTS, "").replace("plan = \"response.body.plan\"", "plan = \"session.access_token\"")),
            "`session` is not known",
        ),
        (
            problems(&SMALL.replace("principal = \"response.body.user\"\n", "")),
            "nothing tells the users of one organisation apart",
        ),
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
}

#[test]
fn a_token_makes_needless_what_one_is_minted_with_and_the_other_way_round() {
    let mut connector = load(&oauth(GRANTS, ""));
    let site = ("site", "https://s.example");
    let (id, secret) = (("client_id", "i"), ("client_secret", "s"));
    let user = [site, id, secret, ("username", "u"), ("password", "p")];
    assert_eq!(connector.minting(), Some(Grant::Password));
    assert_eq!(connector.missing_field(&fields(&user)), None);
    assert_eq!(connector.missing_field(&fields(&user[..4])), Some("password"));
    assert_eq!(connector.missing_field(&fields(&[site, ("access_token", "t")])), None);
    assert_eq!(connector.missing_field(&fields(&[("access_token", "t")])), Some("site"));
    connector.set_minting(None);
    assert_eq!(connector.missing_field(&fields(&user)), Some("access_token"));
    connector.set_minting(Some(Grant::ClientCredentials));
    assert_eq!(connector.missing_field(&fields(&user[..3])), None);
}

/// A token endpoint beside an API that takes its newest token.
#[derive(Default)]
struct Server {
    /// Bodies and `Authorization` headers of token calls.
    asked: Vec<(String, String)>,
    /// Answers of the next token calls; then tokens.
    answers: Vec<(u16, Value)>,
    /// `Authorization` headers of API calls.
    called: Vec<String>,
    good: Option<String>,
}

type Shared = Arc<Mutex<Server>>;

async fn token(State(server): State<Shared>, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut server = server.lock().await;
    let authorization = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    server.asked.push((body, authorization.unwrap_or_default()));
    if !server.answers.is_empty() {
        let (status, body) = server.answers.remove(0);
        return (StatusCode::from_u16(status).unwrap(), Json(body));
    }
    let token = format!("token-number-{}", server.asked.len());
    server.good = Some(token.clone());
    (StatusCode::OK, Json(json!({"access_token": token, "expires_in": 3600})))
}

async fn me(State(server): State<Shared>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let mut server = server.lock().await;
    let sent = headers["authorization"].to_str().unwrap().to_owned();
    let good = server.good.as_ref().is_some_and(|good| sent.ends_with(good.as_str()));
    server.called.push(sent);
    match good {
        true => (StatusCode::OK, Json(json!({"org": "o", "user": "u"}))),
        false => (StatusCode::UNAUTHORIZED, Json(json!({"error": "expired"}))),
    }
}

async fn start() -> (Shared, String) {
    let server = Shared::default();
    let router = Router::new()
        .route("/token", post(token))
        .route("/me", get(me))
        .with_state(server.clone());
    (server.clone(), serve(router).await)
}

fn client(source: &str, origin: &str, extra: &[(&str, &str)]) -> CrmResult<Client> {
    let http = Http::new(ClientSettings::default(), AllowHosts::parse(&[origin]).unwrap())?;
    let mut all = fields(&[
        ("site", origin),
        ("client_id", "id:&%"),
        ("client_secret", "s3cret/+="),
        ("username", "ada"),
        ("password", "pass word"),
    ]);
    all.extend(fields(extra));
    let connection = Connection {
        fields: all,
        region: None,
    };
    let connector = Arc::new(load(source));
    Client::new(connector, http, &connection, Pacer::unlimited(), Arc::new(SystemClock))
}

#[tokio::test]
async fn a_token_call_is_what_rfc_6749_says() {
    let (server, origin) = start().await;
    let more = "scope = \"a b\"\nparams = { audience = \"${conn.site}\" }";
    client(&oauth(&format!("{GRANTS}\n{more}"), ""), &origin, &[])
        .unwrap()
        .check()
        .await
        .unwrap();
    let basic = format!(
        "{GRANTS}\nclient_auth = \"basic\"\nheaders = {{ Authorization = \"Zoho-oauthtoken ${{session.access_token}}\" }}"
    );
    client(&oauth(&basic, ""), &origin, &[]).unwrap().check().await.unwrap();
    let server = server.lock().await;
    let audience = origin.replace(':', "%3A").replace('/', "%2F");
    assert_eq!(
        server.asked[0].0,
        format!(
            "grant_type=password&client_id=id%3A%26%25&client_secret=s3cret%2F%2B%3D&username=ada&password=pass+word\
             &scope=a+b&audience={audience}"
        )
    );
    assert_eq!(server.asked[0].1, "");
    assert_eq!(server.asked[1].0, "grant_type=password&username=ada&password=pass+word");
    // id%3A%26%25:s3cret%2F%2B%3D
    assert_eq!(server.asked[1].1, "Basic aWQlM0ElMjYlMjU6czNjcmV0JTJGJTJCJTNE");
    assert_eq!(
        server.called,
        ["Bearer token-number-1", "Zoho-oauthtoken token-number-2"]
    );
}

const ASSERTION: &str = "grants = [\"jwt_bearer\"]\ntoken_url = \"${conn.site}/token\"\n\
                         assertion = { audience = \"https://login.example\", lifetime = \"2m\" }";
const PRIVATE_KEY: &str = "private_key = { type = \"secret\" }";

#[tokio::test]
async fn an_assertion_says_who_for_whom_and_where_and_holds_no_secret() {
    let (server, origin) = start().await;
    let key = include_str!("../data/assertion-key.pem");
    let before = jiff::Timestamp::now().as_second();
    let source = oauth(ASSERTION, PRIVATE_KEY);
    client(&source, &origin, &[("private_key", key)])
        .unwrap()
        .check()
        .await
        .unwrap();
    let after = jiff::Timestamp::now().as_second();
    let server = server.lock().await;
    let (body, authorization) = &server.asked[0];
    assert_eq!(authorization, "");
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).collect();
    assert_eq!(form.len(), 2, "no client secret, no password: {body}");
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let parts: Vec<Value> = form["assertion"]
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[0], json!({"alg": "RS256", "typ": "JWT"}));
    let mut claims = parts[1].clone();
    let expires = claims["exp"].take().as_i64().unwrap();
    assert!(
        (before + 120..=after + 120).contains(&expires),
        "{before} {expires} {after}"
    );
    assert_eq!(
        claims,
        json!({"aud": "https://login.example", "exp": null, "iss": "id:&%", "sub": "ada"})
    );
    assert_eq!(server.called, ["Bearer token-number-1"]);
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_the_callers_or_the_operators_to_put_right() {
    let (server, origin) = start().await;
    let ours = "from = \"integration\"";
    let settings = oauth(
        &ASSERTION.replace("${conn.site}/token", &format!("{origin}/token")),
        &PRIVATE_KEY.replace("\"secret\"", &format!("\"secret\", {ours}")),
    )
    .replace("role = \"secret\" }", &format!("{ours} }}"))
    .replace("role = \"principal\" }", &format!("{ours} }}"));
    for (source, kind) in [
        (oauth(ASSERTION, PRIVATE_KEY), ErrorKind::Credentials),
        (settings, ErrorKind::Rejected),
    ] {
        let key = "-----BEGIN NONSENSE-----hush";
        let client = client(&source, &origin, &[("private_key", key)]).unwrap();
        let error = client.check().await.expect_err("no key");
        assert_eq!(error.kind, kind);
        let told = format!("{error} {error:?}");
        assert!(
            told.contains("`private_key` cannot sign") && !told.contains("hush"),
            "{told}"
        );
    }
    assert!(
        server.lock().await.asked.is_empty(),
        "nothing is sent without a signature"
    );
}

#[test]
fn what_a_key_of_the_settings_signs_is_not_for_callers_to_choose() {
    let with = |auth: &str, key: &str| problems(&oauth(auth, key));
    let ours = "private_key = { type = \"secret\", from = \"integration\" }";
    assert_eq!(with(ASSERTION, PRIVATE_KEY), "");
    for (text, says) in [
        (with(ASSERTION, ""), "minting tokens needs the field `private_key`"),
        (
            with(ASSERTION, "private_key = { type = \"string\", role = \"secret\" }"),
            "the field `private_key` must be of type `secret`",
        ),
        (
            with(
                "grants = [\"jwt_bearer\"]\ntoken_url = \"https://x.example\"",
                PRIVATE_KEY,
            ),
            "the grant `jwt_bearer` needs `auth.assertion`",
        ),
        (
            with(&ASSERTION.replace("2m", "2h"), PRIVATE_KEY),
            "an assertion is good for 10s to 1h",
        ),
        (
            with(
                &ASSERTION.replace("https://login.example", "${conn.client_secret}"),
                PRIVATE_KEY,
            ),
            "the secret `conn.client_secret` must not be used",
        ),
        (with(ASSERTION, ours), "`username` must not be the caller's to choose"),
        (with(ASSERTION, ours), "would go where the caller's `site` says"),
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
}

#[tokio::test]
async fn many_clients_share_one_token_and_one_renewal() {
    let (server, origin) = start().await;
    let mint = Arc::new(Mint::alone(Arc::new(SystemClock)));
    let source = oauth(GRANTS, "");
    let clients: Vec<Arc<Client>> = (0..20)
        .map(|_| Arc::new(client(&source, &origin, &[]).unwrap().with_mint(mint.clone(), "key")))
        .collect();
    let all = async || {
        let tasks: Vec<_> = clients
            .iter()
            .map(|client| {
                let client = client.clone();
                tokio::spawn(async move { client.check().await.map(|checked| checked.org) })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), "o");
        }
    };
    all().await;
    assert_eq!(server.lock().await.asked.len(), 1);
    // The CRM forgets the token: all of them are refused, one of them asks for another.
    server.lock().await.good = None;
    all().await;
    assert_eq!(server.lock().await.asked.len(), 2);
    let other = client(&source, &origin, &[]).unwrap().with_mint(mint, "another key");
    other.check().await.unwrap();
    assert_eq!(
        server.lock().await.asked.len(),
        3,
        "other credentials have a token of their own"
    );
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_the_end_and_a_brought_one_is_never_replaced() {
    let (server, origin) = start().await;
    let api_token = json!({"access_token": "not the API's", "expires_in": 60});
    server.lock().await.answers.push((200, api_token));
    let minting = client(&oauth(GRANTS, ""), &origin, &[]).unwrap();
    let error = minting.check().await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Credentials);
    assert_eq!(server.lock().await.asked.len(), 1, "another one would not do better");
    minting.check().await.expect("the next call starts with a new one");

    let brought = client(&oauth(GRANTS, ""), &origin, &[("access_token", "talkdesk's own")]).unwrap();
    let error = brought.check().await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Credentials);
    let server = server.lock().await;
    assert_eq!(server.asked.len(), 2);
    assert_eq!(server.called.last().unwrap(), "Bearer talkdesk's own");
}

#[tokio::test]
async fn what_a_token_endpoint_says_is_judged_and_quoted_by_nobody() {
    let (server, origin) = start().await;
    let quoting = |error: &str| json!({"error": error, "error_description": "bad secret s3cret/+= of ada, pass word"});
    for (status, body, kind, says) in [
        (
            400,
            quoting("invalid_grant"),
            ErrorKind::Credentials,
            "refused the credentials (invalid_grant)",
        ),
        (
            401,
            quoting("invalid_client"),
            ErrorKind::Credentials,
            "refused the credentials (invalid_client)",
        ),
        (
            401,
            json!(null),
            ErrorKind::Credentials,
            "refused the credentials (status 401)",
        ),
        (
            400,
            quoting("invalid_scope"),
            ErrorKind::Rejected,
            "refused the request (invalid_scope)",
        ),
        (
            403,
            quoting("blocked"),
            ErrorKind::BadReply,
            "answered 403 without a reason",
        ),
        (
            500,
            quoting("server_error"),
            ErrorKind::Unavailable,
            "the CRM failed (status 500)",
        ),
        (200, quoting("no"), ErrorKind::BadReply, "gave no access token"),
    ] {
        server.lock().await.answers.push((status, body));
        let error = client(&oauth(GRANTS, ""), &origin, &[])
            .unwrap()
            .check()
            .await
            .expect_err("no token");
        let text = format!("{error} {error:?}");
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("s3cret") && !text.contains("pass word"), "{text}");
    }
    assert!(server.lock().await.called.is_empty());
}

#[tokio::test]
async fn a_token_endpoint_is_a_host_like_any_other() {
    let (server, origin) = start().await;
    let source = oauth(
        "grants = [\"password\"]",
        "access_token_url = { type = \"string\", role = \"ignored\" }",
    );
    let at = |url: &str| client(&source, &origin, &[("access_token_url", url)]);
    for url in [
        "http://169.254.169.254/latest",
        "https://10.0.0.1/token",
        "https://evil.example/token",
        "https://small.invalid:8443/token",
        "http://small.invalid/token",
        "https://u:p@small.invalid/token",
        "https://small.invalid@evil.example/",
        "https://small.invalid\\@evil.example/",
        "https://small.invalid\n.evil.example/",
        "//small.invalid/token",
        "javascript:alert(1)",
        "",
    ] {
        let error = at(url).expect_err(url);
        let kind = if url.is_empty() {
            ErrorKind::HostRefused
        } else {
            error.kind
        };
        assert_eq!(kind, ErrorKind::HostRefused, "{url}: {error}");
    }
    assert!(at("https://small.invalid/oauth/token?tenant=1").is_ok());
    at(&format!("{origin}/token")).unwrap().check().await.unwrap();
    assert_eq!(server.lock().await.asked.len(), 1);
    // Nobody mints with it, so nobody minds it.
    let brought = [("access_token_url", "https://evil.example/"), ("access_token", "t")];
    assert!(client(&source, &origin, &brought).is_ok());
}
