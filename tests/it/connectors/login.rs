//! Where credentials are taken apart from where the CRM is: a login host that all organisations share, an assertion that is
//! signed in place of a secret, and a signature over each request.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::routing::{get, post};
use contacts::accounts;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use fake_crm::{AccountOptions, FakeCrm, Options, Profile};
use parking_lot::Mutex;
use rustls::SignatureScheme;
use snapbridge::sampling::account_ids;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// Plays `login.salesforce.com`: it says who somebody is and gives tokens, and knows no contacts.
struct Login {
    url: String,
    /// What was asked for that is not of a login host.
    strays: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Behind {
    crm: String,
    http: reqwest::Client,
    strays: Arc<Mutex<Vec<String>>>,
}

impl Login {
    async fn open(crm: &Crm) -> Login {
        process::tls::install_provider();
        let strays: Arc<Mutex<Vec<String>>> = Arc::default();
        let behind = Behind {
            crm: crm.url.clone(),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            strays: strays.clone(),
        };
        let routes = Router::new()
            .route("/services/oauth2/userinfo", get(userinfo))
            .route("/services/oauth2/token", post(token))
            .fallback(async |State(behind): State<Behind>, uri: Uri| {
                behind.strays.lock().push(uri.to_string());
                StatusCode::NOT_FOUND
            })
            .with_state(behind);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Login {
            url,
            strays,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// The settings of a case, whose organisations are at `crm` and log in here.
    fn settings(&self, case: &Case, crm: &Crm) -> String {
        let hosts = format!("allow_hosts = [\"{}\", ", self.url);
        case.settings(crm, "1s").replace("allow_hosts = [", &hosts)
    }
}

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

fn told(status: StatusCode, json: String) -> Answer {
    (status, [(header::CONTENT_TYPE, "application/json")], json)
}

async fn userinfo(State(behind): State<Behind>, headers: HeaderMap) -> Answer {
    let authorization = headers.get("authorization").expect("a token").clone();
    let call = behind.http.get(format!("{}/services/oauth2/userinfo", behind.crm));
    let reply = call
        .header("authorization", authorization)
        .send()
        .await
        .expect("an answer");
    told(reply.status(), reply.text().await.expect("a text"))
}

/// A token for an assertion that the key of the tests has signed for `ada`.
async fn token(State(behind): State<Behind>, body: Bytes) -> Answer {
    let form: std::collections::BTreeMap<_, _> = url::form_urlencoded::parse(&body).collect();
    if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer" || !is_good(&form["assertion"]) {
        return told(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}).to_string());
    }
    let token = json!({"access_token": TOKEN, "instance_url": behind.crm, "token_type": "Bearer"});
    told(StatusCode::OK, token.to_string())
}

fn is_good(assertion: &str) -> bool {
    const PUBLIC_KEY: &str = include_str!("../../../crates/crm/tests/data/assertion-key-public.pem");
    let lines: String = PUBLIC_KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let key = BASE64.decode(lines.as_bytes()).expect("a key");
    let (message, signature) = assertion.rsplit_once('.').expect("three parts");
    let decoded = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url");
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let (_, rs256) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256)
        .expect("RS256");
    let is_signed = rs256.iter().any(|rs256| {
        rs256
            .verify_signature(&key, message.as_bytes(), &decoded(signature))
            .is_ok()
    });
    let (_, claims) = message.split_once('.').expect("three parts");
    let claims: Value = serde_json::from_slice(&decoded(claims)).expect("JSON");
    is_signed && claims["sub"] == "ada" && claims["iss"] == "3MVG9" && claims["aud"] == "https://login.salesforce.com"
}

/// An account of Salesforce whose address a check has to tell.
fn organisation(name: &str, token: &str, contacts: usize) -> AccountOptions {
    AccountOptions {
        name: name.into(),
        profile: Profile::Salesforce,
        token: token.into(),
        contacts,
        limit: NO_LIMIT,
        ..AccountOptions::default()
    }
}

/// Two organisations at one address, which their own host tells.
async fn salesforce() -> Crm {
    let accounts = vec![organisation("demo", TOKEN, 60), organisation("other", "other-token", 7)];
    let crm = FakeCrm::new(Options { seed: 7, accounts });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    for name in ["demo", "other"] {
        crm.knobs(name, |knobs| knobs.instance_url = Some(url.clone()));
    }
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(crm.clone().serve(listener, stop.clone()));
    Crm::of(crm, url, stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn organisations_that_log_in_at_one_host_are_called_at_their_own_and_share_no_budget() {
    let (case, crm) = (case("salesforce"), salesforce().await);
    let login = Login::open(&crm).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, &login.settings(case, &crm)).await;
    let mut scene = Scene::new(case, &crm, bridge);
    scene.auth = json!({"site": login.url, "access_token": TOKEN});
    scene.build().await;
    let contacts = scene.run(None).await;
    assert_eq!(contacts.ids(), scene.living());
    let link = contacts.contacts[0]["url"].as_str().expect("a link");
    assert!(link.starts_with(&crm.url), "{link}");
    interactions(&scene).await;
    actions(&scene).await;

    scene.auth = json!({"site": login.url, "access_token": "other-token"});
    assert_eq!(scene.post("auth_validation", json!({})).await.0, 200);
    let store = &*scene.bridge.store;
    let mut budgets = BTreeSet::new();
    for id in account_ids(store, 10).await.expect("accounts") {
        let account = accounts::get(store, &id).await.expect("an answer").expect("an account");
        assert_eq!(account.learned["instance_url"], crm.url.as_str());
        budgets.insert(account.budget);
    }
    assert_eq!(budgets.len(), 2, "{budgets:?}");
    assert_eq!(*login.strays.lock(), [""; 0]);
    scene.bridge.stop().await;
}

/// A shipped connector with another way in, as a file that an integration names.
fn changed(connector: &str, folder: &tempfile::TempDir, changes: &[(&str, &str)]) -> String {
    let mut source = crm::Connector::shipped(connector).expect("it is shipped").to_owned();
    for (from, to) in changes {
        assert!(source.contains(from), "{from}");
        source = source.replace(from, to);
    }
    let file = folder.path().join(format!("{connector}.toml"));
    std::fs::write(&file, source).expect("a file");
    file.to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_that_the_bridge_signs_opens_the_crm_for_its_user_alone() {
    const KEY: &str = include_str!("../../../crates/crm/tests/data/assertion-key.pem");
    let (case, crm) = (case("salesforce"), salesforce().await);
    let login = Login::open(&crm).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = "client_secret = { type = \"secret\", title = \"Consumer secret\" }";
    let instead = "username = { type = \"string\", role = \"principal\" }\nprivate_key = { type = \"secret\" }";
    let grants = "grants    = [\"code\", \"client_credentials\"]";
    let assertion =
        "grants = [\"jwt_bearer\"]\nassertion = { audience = \"https://login.salesforce.com\", lifetime = \"2m\" }";
    let file = changed("salesforce", &folder, &[(secret, instead), (grants, assertion)]);
    let settings = login.settings(case, &crm);
    let settings = settings.replace("connector = \"salesforce\"", &format!("connector = \"{file}\""));
    let bridge = Bridge::start(Backend::Embedded, &crm, &settings).await;
    let mut scene = Scene::new(case, &crm, bridge);

    let auth = |key: &str| json!({"site": login.url, "client_id": "3MVG9", "username": "ada", "private_key": key});
    let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let mut wrong_user = auth(KEY);
    wrong_user["username"] = json!("eve");
    for bad in [auth(&other), wrong_user] {
        scene.auth = bad;
        let (status, told) = scene.post("auth_validation", json!({})).await;
        assert_eq!(status, 401, "{told}");
        assert!(!told.to_string().contains("PRIVATE KEY"), "{told}");
    }
    scene.auth = auth(KEY);
    scene.build().await;
    assert_eq!(scene.run(None).await.ids(), scene.living());
    assert_eq!(*login.strays.lock(), [""; 0]);
    scene.bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crm_that_wants_each_request_signed_takes_ours_and_no_forged_one() {
    const PAIR: &str = "the-api-key:the-secret-key";
    let folder = tempfile::tempdir().expect("a folder");
    let auth = "kind    = \"header\"\nheaders = { X-Api-Key = \"${conn.api_key}\" }";
    let signed = "kind = \"request_hmac\"\nkey_id = \"${conn.api_key}\"\nsecret = \"${conn.secret_key}\"\n\
                  header = \"X-Hmac-Authorization\"";
    // What is signed is the path below the base.
    let below = [
        ("base_url = \"${conn.site}\"", "base_url = \"${conn.site}/api/v1\""),
        ("\"/api/v1/", "\"/"),
        (auth, signed),
        (
            "[connection.fields]",
            "[connection.fields]\nsecret_key = { type = \"secret\" }",
        ),
    ];
    let file = changed("espocrm", &folder, &below);
    let case = case("espocrm");
    let crm = case.crm(60).await;
    let settings = case.settings(&crm, "1s");
    let settings = settings.replace("connector = \"espocrm\"", &format!("connector = \"{file}\""));
    let bridge = Bridge::start(Backend::Embedded, &crm, &settings).await;
    let mut scene = Scene::new(case, &crm, bridge);
    crm.crm.control(Control::tokens("demo", &[PAIR])).done();

    let auth = |secret: &str| json!({"site": crm.url, "api_key": "the-api-key", "secret_key": secret});
    scene.auth = auth("guessed");
    assert_eq!(scene.post("auth_validation", json!({})).await.0, 401);
    scene.auth = auth("the-secret-key");
    scene.build().await;
    assert_eq!(scene.run(None).await.ids(), scene.living());
    interactions(&scene).await;
    scene.bridge.stop().await;
}
