//! The profiles, each through the vendor's own paths: what the vendor's documentation says, seen by a client.

mod dataverse;
mod espocrm;
mod freshdesk;
mod hubspot;
mod intercom;
mod odoo;
mod pipedrive;
mod salesforce;
mod twenty;
mod web1on1;
mod zendesk;
mod zoho;

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use fake_crm::{AccountOptions, Control, FakeCrm, Options, Profile, RateLimit, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{Served, serve, wait_until};

const TOKEN: &str = "key-1";

/// A CRM of one vendor, with an account `demo` that takes [`TOKEN`].
struct Crm {
    served: Served,
    profile: Profile,
}

async fn crm(profile: Profile, contacts: usize) -> Crm {
    with_token(profile, contacts, TOKEN).await
}

async fn with_token(profile: Profile, contacts: usize, token: &str) -> Crm {
    let account = AccountOptions {
        profile,
        token: token.to_owned(),
        contacts,
        users: 3,
        ..AccountOptions::default()
    };
    let options = Options {
        accounts: vec![account],
        ..Options::default()
    };
    Crm {
        served: serve(FakeCrm::new(options)).await,
        profile,
    }
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answered {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text))
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("text")
    }
}

impl Crm {
    /// A call without credentials.
    fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.served
            .client
            .request(method, format!("{}{path}", self.served.base))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let bare = self.bare(method, path);
        match self.profile {
            Profile::Pipedrive => bare.header("x-api-token", TOKEN),
            Profile::EspoCrm => bare.header("x-api-key", TOKEN),
            Profile::Zendesk => bare.basic_auth("admin@example.com/token", Some(TOKEN)),
            Profile::Zoho => bare.header("authorization", format!("Zoho-oauthtoken {TOKEN}")),
            Profile::Freshdesk => bare.basic_auth(TOKEN, Some("X")),
            _ => bare.bearer_auth(TOKEN),
        }
    }

    async fn get(&self, path: &str) -> Answered {
        sent(self.request(Method::GET, path)).await
    }

    /// A call that has to be answered 200.
    async fn ok(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    async fn post(&self, path: &str, body: &Value) -> Answered {
        sent(self.request(Method::POST, path).json(body)).await
    }

    fn limit(&self, name: &str, limit: &str) {
        let limit: RateLimit = limit.parse().expect("a limit");
        self.served.crm.knobs("demo", |knobs| {
            knobs.limits.insert(name.to_owned(), Some(limit));
        });
    }

    fn control(&self, control: Control) -> Vec<String> {
        self.served.crm.control(control).done().ids()
    }

    /// The operator's subscription, with quick retries.
    fn subscribe(&self, inbox: &Inbox, secret: &str) {
        let webhook = Webhook {
            backoff_ms: 1,
            ..Webhook::new(&inbox.url, secret)
        };
        self.control(Control::webhook("demo", Some(webhook)));
    }
}

async fn sent(request: RequestBuilder) -> Answered {
    let response = request.send().await.expect("an answer");
    Answered {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.expect("a body"),
    }
}

/// What a subscriber got.
#[derive(Clone)]
struct Delivered {
    method: Method,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Delivered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("text")
    }
}

/// A subscriber: 200 and nothing more, unless told otherwise.
#[derive(Clone)]
struct Inbox {
    url: String,
    got: Arc<Mutex<Vec<Delivered>>>,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
}

impl Inbox {
    async fn open() -> Inbox {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let inbox = Inbox {
            url: format!("http://{}/hook", listener.local_addr().expect("address")),
            got: Arc::default(),
            answers: Arc::default(),
        };
        let kept = inbox.clone();
        let receive = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let query = uri.query().unwrap_or_default().to_owned();
            let delivered = Delivered {
                method,
                query,
                headers,
                body,
            };
            kept.got.lock().push(delivered);
            let (status, text) = kept.answers.lock().pop_front().unwrap_or((200, String::new()));
            (StatusCode::from_u16(status).expect("status"), text).into_response()
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(receive)).await });
        inbox
    }

    fn answer(&self, status: u16, text: &str) {
        self.answers.lock().push_back((status, text.to_owned()));
    }

    /// The deliveries, once there are so many.
    async fn wait(&self, count: usize) -> Vec<Delivered> {
        wait_until(&format!("{count} deliveries"), || self.got.lock().len() >= count).await;
        self.got.lock().clone()
    }
}

fn hmac_sha256(key: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hmac_sha1(key: &str, text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A query string of pairs.
fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// The vendor's ids of contacts.
fn own(profile: Profile, ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(|id| profile.contact_id(&id.to_string())).collect()
}

/// What a list says of each of its rows, as text.
fn each(list: &Value, field: &str) -> Vec<String> {
    let rows = list.as_array().unwrap_or_else(|| panic!("no list: {list}")).iter();
    rows.map(|row| {
        row[field]
            .as_str()
            .map_or_else(|| row[field].to_string(), str::to_owned)
    })
    .collect()
}

#[tokio::test]
async fn every_profile_refuses_a_wrong_key_in_its_own_words_and_lets_the_operator_in() {
    for profile in Profile::ALL {
        let crm = with_token(*profile, 3, "another").await;
        let path = match profile {
            Profile::HubSpot => "/account-info/v3/details",
            Profile::Pipedrive => "/v1/users/me",
            Profile::EspoCrm => "/api/v1/App/user",
            Profile::Zendesk => "/api/v2/users?role[]=agent",
            Profile::Zoho => "/crm/v8/org",
            Profile::Salesforce => "/services/data/v61.0/limits",
            Profile::Freshdesk => "/api/v2/agents/me",
            Profile::Intercom => "/me",
            Profile::Dataverse => "/api/data/v9.2/WhoAmI",
            Profile::Twenty => "/rest/workspaceMembers?limit=1",
            Profile::Web1on1 => "/v2/users/me",
            // Its calls are all POST; it has a test of its own.
            Profile::Odoo | Profile::House => continue,
        };
        assert_eq!(crm.get(path).await.status, 401, "{profile}");
        assert_eq!(sent(crm.bare(Method::GET, path)).await.status, 401, "{profile}");
        let (stats, truth) = (crm.served.crm.stats("demo"), crm.served.crm.truth("demo"));
        assert_eq!(
            (stats.answered(401), stats.counted, truth.len()),
            (2, 0, 3),
            "{profile}"
        );
        let shown = sent(crm.bare(Method::GET, "/_stats")).await.json();
        assert_eq!(shown["statuses"]["401"], 2, "{profile}");
    }
}

#[tokio::test]
async fn accounts_of_several_vendors_share_a_listener() {
    let account = |name: &str, profile, token: &str| AccountOptions {
        name: name.to_owned(),
        profile,
        token: token.to_owned(),
        contacts: 5,
        ..AccountOptions::default()
    };
    let accounts = vec![
        account("a", Profile::HubSpot, "one"),
        account("b", Profile::HubSpot, "two"),
        account("c", Profile::House, "three"),
    ];
    let served = serve(FakeCrm::new(Options {
        accounts,
        ..Options::default()
    }))
    .await;
    let mut portals = Vec::new();
    for token in ["one", "two"] {
        let url = format!("{}/account-info/v3/details", served.base);
        let details = sent(served.client.get(url).bearer_auth(token)).await.json();
        portals.push(details["portalId"].as_u64().expect("a number"));
    }
    assert_ne!(portals[0], portals[1]);
    let url = format!("{}/api/c/contacts", served.base);
    assert_eq!(sent(served.client.get(url).bearer_auth("three")).await.status, 200);
    assert_eq!(served.crm.stats("b").counted, 1);
}
