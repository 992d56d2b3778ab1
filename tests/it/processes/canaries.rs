//! Invariant 12 over every byte that the binary emits: at the finest log level it goes through everything that could make it
//! talk, and what was planted shows up nowhere.

use fake_crm::{Change, Control, Op};
use futures::StreamExt as _;
use reqwest::Method;

use super::*;
use crate::canary::Detector;

// With characters that each spelling treats in its own way.
const CRM_TOKEN: &str = "canary-crm/5b0f+7c1e9d=2a";
const WRONG_TOKEN: &str = "canary-wrong/11+88aa55=";
const ADMIN_TOKEN: &str = "canary-admin-4b7c0d1e2f3a4958";
const WRONG_ADMIN: &str = "canary-nobody-4b7c0d1e2f3a4958";
const PATH_SECRET: &str = "canary-path-5d20aa31bb42cc53";
const WRONG_PATH: &str = "canary-guess-5d20aa31bb42cc53";
const APP_SECRET: &str = "canary-app-aa41";
const CONTACT_NAME: &str = "Canaria-Ünique/Person";
const CONTACT_MAIL: &str = "canary.person@example.net";
const CONTACT_PHONE: &str = "+351912345678";
const JOB_TITLE: &str = "Canary keeper & sons";
const PAYLOAD: &str = "canary-payload \"quoted\"/1";

const SETTINGS: &str = "refresh.poll = \"400ms\"\nrefresh.sweep = \"150ms\"\nretry.first = \"50ms\"\nretry.attempts = 1\n\
                        keys.reload = \"100ms\"\nlog.level = \"trace\"\npage.contacts = 20\n\
                        credentials.recheck_after = \"1s\"\n";

fn settings(format: &str, crm: &Crm) -> String {
    format!(
        "{SETTINGS}log.format = \"{format}\"\nops.admin = \"{ADMIN_TOKEN}\"\n\
         integrations.demo.app.webhook_secret = \"{APP_SECRET}\"\n\
         integrations.closed.connector = \"demo\"\nintegrations.closed.path_secret = \"{PATH_SECRET}\"\n\
         integrations.closed.allow_hosts = [\"{0}\"]\nintegrations.closed.connection.site = \"{0}\"\n",
        crm.url
    )
}

/// What was emitted, each with where.
#[derive(Default)]
struct Emitted(Vec<(String, Vec<u8>)>);

impl Emitted {
    fn add(&mut self, what: &str, bytes: impl AsRef<[u8]>) {
        self.0.push((what.to_owned(), bytes.as_ref().to_vec()));
    }
}

struct Scene {
    site: Site,
    crm: Crm,
    front: Process,
    talkdesk: Talkdesk,
    /// What only Talkdesk may see, beside the contacts.
    tokens: Vec<String>,
    answers: Emitted,
    shown: Emitted,
    /// Pages of contacts, which hold what must be nowhere else.
    pages: Vec<u8>,
}

impl Scene {
    async fn call(&mut self, path: &str, body: String) -> u16 {
        let root = self.front.url();
        let sent = self.talkdesk.http.post(format!("{root}{path}")).body(body).send().await;
        let answer = sent.expect("an answer");
        let status = answer.status().as_u16();
        self.answers.add(path, answer.bytes().await.expect("a body"));
        status
    }

    async fn sync(&mut self, meta: Value) -> Value {
        let body = json!({"auth": {"account": "demo", "token": CRM_TOKEN}, "meta": meta});
        let (status, page) = self.talkdesk.post("contact_sync", body).await.expect("an answer");
        assert_eq!(status, 200, "{page}");
        self.pages.extend_from_slice(page.to_string().as_bytes());
        for token in [&page["synchronization_checkpoint"], &page["next_offset"]] {
            // The last part is what is sealed; a checkpoint's date is for people.
            let sealed = token.as_str().and_then(|token| token.rsplit('.').next());
            self.tokens.extend(sealed.map(str::to_owned));
        }
        page
    }

    /// What a page or the API shows, to somebody who may see it.
    async fn look(&mut self, method: Method, path: &str, body: Option<Value>, cookie: &str) -> u16 {
        let url = format!("{}{path}", self.front.admin());
        let mut request = self.talkdesk.http.request(method, url);
        request = match cookie {
            "" => request.bearer_auth(ADMIN_TOKEN),
            cookie => request.header("cookie", cookie),
        };
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        self.shown.add(path, answer.bytes().await.expect("a body"));
        status
    }

    async fn talkdesk_calls(&mut self) {
        let auth = |token: &str| json!({"account": "demo", "token": token});
        let page = self.sync(json!({"synchronization_checkpoint": null})).await;
        assert!(page["next_offset"].is_string(), "{page}");
        let (mut next, mut pages) = (page.clone(), 1);
        while next["next_offset"].is_string() {
            next = self
                .sync(json!({"offset": next["next_offset"], "context": next["context"]}))
                .await;
            pages += 1;
            assert!(pages < 100, "a run without end");
        }
        self.sync(json!({"synchronization_checkpoint": page["synchronization_checkpoint"]}))
            .await;
        let wrong = json!({ "auth": auth(WRONG_TOKEN) }).to_string();
        assert_eq!(self.call("/demo/auth_validation", wrong.clone()).await, 401);
        assert_eq!(self.call("/demo/contact_sync", wrong).await, 401);
        for offset in [format!("v1.kid.{PAYLOAD}"), PAYLOAD.to_owned()] {
            let body = json!({"auth": auth(CRM_TOKEN), "meta": {"offset": offset}});
            assert_eq!(self.call("/demo/contact_sync", body.to_string()).await, 400);
        }
        let order = |subject: &str| {
            json!({"auth": auth(CRM_TOKEN), "meta": {"contact_external_id": "1"}, "data": {"subject": subject}})
                .to_string()
        };
        assert_eq!(self.call("/demo/actions/create_ticket", order(PAYLOAD)).await, 201);
        self.crm.crm.knobs("demo", |knobs| knobs.refuse_writes = 1);
        assert_eq!(
            self.call("/demo/actions/create_ticket", order(&format!("{PAYLOAD} refused")))
                .await,
            400
        );
        self.crm.crm.knobs("demo", |knobs| knobs.cut = 1);
        let who = json!({"auth": auth(CRM_TOKEN), "data": {"contact_external_id": "1", "phone": CONTACT_PHONE}});
        self.call("/demo/interaction_update", who.to_string()).await;
        let who = json!({"auth": auth(CRM_TOKEN), "meta": {"email": CONTACT_MAIL}, "data": {"subject": PAYLOAD}});
        self.call("/demo/actions/create_ticket", who.to_string()).await;

        for malformed in [
            format!("{{\"auth\": \"{CRM_TOKEN}\""),
            json!({"auth": {"token": [CRM_TOKEN], "account": {"x": PAYLOAD}}}).to_string(),
            json!({"auth": auth(CRM_TOKEN), "meta": PAYLOAD}).to_string(),
            json!({"auth": auth(CRM_TOKEN), "meta": {"offset": {"x": PAYLOAD}}, "data": PAYLOAD}).to_string(),
            json!(PAYLOAD).to_string(),
        ] {
            for path in [
                "contact_sync",
                "agent_sync",
                "auth_validation",
                "interaction_update",
                "actions/create_ticket",
            ] {
                let status = self.call(&format!("/demo/{path}"), malformed.clone()).await;
                assert!(status < 500, "{path}: {status}");
            }
        }
        let good = json!({ "auth": auth(CRM_TOKEN) }).to_string();
        assert_eq!(
            self.call(&format!("/closed/k/{PATH_SECRET}/auth_validation"), good.clone())
                .await,
            200
        );
        assert_eq!(
            self.call(&format!("/closed/k/{WRONG_PATH}/contact_sync"), good.clone())
                .await,
            403
        );
        assert_eq!(
            self.call(
                &format!("/nobody/k/{PATH_SECRET}/contact_sync?token={CRM_TOKEN}"),
                good.clone()
            )
            .await,
            404
        );
        assert_eq!(self.call(&format!("/demo/actions/{WRONG_PATH}"), good).await, 404);
    }

    async fn webhooks(&mut self, hook: &str) {
        let event =
            json!({"event_id": PAYLOAD, "account": "demo", "type": "contact.updated", "id": "1", "at": PAYLOAD})
                .to_string();
        let root = self.front.url();
        for (path, body) in [
            (format!("/demo/webhooks/{hook}"), event.clone()),
            (format!("/demo/webhooks/{hook}?secret={APP_SECRET}"), PAYLOAD.to_owned()),
            ("/demo/webhooks".to_owned(), event.clone()),
            (format!("/demo/webhooks/{WRONG_PATH}"), event),
        ] {
            for signature in [APP_SECRET, "00"] {
                let request = self.talkdesk.http.post(format!("{root}{path}")).body(body.clone());
                let request = request.header(fake_crm::SIGNATURE_HEADER, signature);
                let answer = request
                    .header(fake_crm::TIMESTAMP_HEADER, "1")
                    .send()
                    .await
                    .expect("an answer");
                assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
                self.answers.add(&path, answer.bytes().await.expect("a body"));
            }
        }
    }

    /// Operators see everything there is to see, and mistype.
    async fn operators(&mut self, account: &AccountId) {
        let http = self.talkdesk.http.clone();
        let admin = self.front.admin();
        let login = |token: &'static str| {
            let body = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("token", token), ("name", "Ann"), ("to", "/ops")])
                .finish();
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none());
            let request = client.build().expect("a client").post(format!("{admin}/ops/login"));
            request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
                .send()
        };
        let refused = login(WRONG_ADMIN).await.expect("an answer");
        assert_eq!(refused.status(), 401);
        let admitted = login(ADMIN_TOKEN).await.expect("an answer");
        let cookie = admitted.headers()["set-cookie"].to_str().expect("a cookie");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        self.shown.add("/ops/login", refused.bytes().await.expect("a body"));
        self.tokens.extend(
            cookie
                .rsplit(['=', '.'])
                .find(|part| part.len() > 40)
                .map(str::to_owned),
        );
        for path in [
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/status",
            "/api/dead",
            "/api/budgets",
            "/api/audit",
            "/api/keys",
        ] {
            assert_eq!(self.look(Method::GET, path, None, "").await, 200, "{path}");
        }
        assert_eq!(
            self.look(Method::GET, &format!("/api/accounts/{account}"), None, "")
                .await,
            200
        );
        for path in [
            "/ops",
            "/ops/dead",
            "/ops/budgets",
            "/ops/audit",
            &format!("/ops/accounts/{account}"),
        ] {
            assert_eq!(self.look(Method::GET, path, None, &cookie).await, 200, "{path}");
        }
        for who in [CONTACT_MAIL, CONTACT_PHONE, "1"] {
            let path = format!("/api/accounts/{account}/explain");
            assert_eq!(
                self.look(Method::POST, &path, Some(json!({ "who": who })), "").await,
                200
            );
        }
        for (path, body) in [
            ("/api/tokens/explain", json!({"token": format!("v1.kid.{PAYLOAD}")})),
            (
                "/api/accounts",
                json!({"integration": "demo", "auth": {"account": "demo", "token": WRONG_TOKEN}}),
            ),
            ("/api/dead/redrive", json!({ "text": PAYLOAD, "kin": 1 })),
            ("/api/keys/step", json!({"step": "drop", "kid": "none"})),
            ("/api/doctor", json!({})),
        ] {
            self.look(Method::POST, path, Some(body), "").await;
        }
        let unknown = http
            .get(format!("{admin}/api/status"))
            .bearer_auth(WRONG_ADMIN)
            .send()
            .await;
        assert_eq!(unknown.expect("an answer").status(), 401);
        let url = self.front.admin();
        let file = self.site.file("token").display().to_string();
        for command in [
            &["accounts"][..],
            &["dead", "list"],
            &["budgets"],
            &["audit"],
            &["keys", "show"],
        ] {
            let access = ["--url", &url, "--token-file", &file];
            let printed = self.site.tried(&[command, &access].concat()).expect("a command");
            self.shown.add(&command.join(" "), printed);
        }
    }
}

/// What lies in the queue, as it lies there.
async fn queue_bodies(site: &Site) -> Vec<u8> {
    match site.backend {
        Backend::Embedded => std::fs::read(site.data().join("queue.db")).expect("the queue"),
        Backend::Distributed => {
            let connection = lapin::Connection::connect(&amqp_url(), lapin::ConnectionProperties::default()).await;
            let connection = connection.expect("the broker");
            let mut all = Vec::new();
            for step in migrations::rabbitmq::STEPS {
                for queue in step.queues {
                    let channel = connection.create_channel().await.expect("a channel");
                    let name = format!("{}.{}", site.namespace, queue.name);
                    let options = lapin::options::BasicConsumeOptions::default();
                    let table = lapin::types::FieldTable::default();
                    let consumer = channel
                        .basic_consume(name.into(), "canary".into(), options, table)
                        .await;
                    let Ok(mut consumer) = consumer else { continue };
                    // Unacknowledged, they go back when the channel closes.
                    let quiet = Duration::from_millis(200);
                    while let Ok(Some(delivery)) = tokio::time::timeout(quiet, consumer.next()).await {
                        let delivery = delivery.expect("a delivery");
                        all.extend_from_slice(&delivery.data);
                        all.extend_from_slice(format!("{:?}", delivery.properties).as_bytes());
                    }
                }
            }
            all
        }
    }
}

on_both!(
    invariant_12_no_byte_that_the_binary_emits_holds_a_canary,
    |backend| async move {
        let crm = Crm::start(60).await;
        crm.crm.control(Control::tokens("demo", &[CRM_TOKEN])).done();
        let fields = fake_crm::Fields {
            first_name: Some(CONTACT_NAME.into()),
            job_title: Some(JOB_TITLE.into()),
            emails: Some(vec![CONTACT_MAIL.into()]),
            phones: Some(vec![CONTACT_PHONE.into()]),
            ..fake_crm::Fields::default()
        };
        crm.crm
            .control(Control::edit("demo", Change::ids([1]).with(fields.clone())))
            .done();
        let (format, roles) = match backend {
            Backend::Embedded => ("text", &["up"][..]),
            Backend::Distributed => ("json", &["serve", "worker"][..]),
        };
        let site = Site::new(backend, &crm, &settings(format, &crm), &[("token", ADMIN_TOKEN)]);
        let front = site.start(roles[0]).await;
        let mut worker = match roles.get(1) {
            Some(role) => Some(site.start(role).await),
            None => None,
        };
        let talkdesk = Talkdesk::of(&front);
        let mut scene = Scene {
            site,
            crm,
            front,
            talkdesk,
            tokens: Vec::new(),
            answers: Emitted::default(),
            shown: Emitted::default(),
            pages: Vec::new(),
        };
        let good = json!({"auth": {"account": "demo", "token": CRM_TOKEN}}).to_string();
        assert_eq!(scene.call("/demo/auth_validation", good.clone()).await, 200);
        until("the snapshot is complete", || scene.site.is_settled()).await;
        let account = scene.site.account().await;
        let hook = scene.site.keys.hook_id(&account);
        scene.site.subscribe(&scene.crm, &scene.front, &account);
        scene
            .crm
            .crm
            .control(Control::edit("demo", Change::ids([1]).with(fields)))
            .done();
        until("a webhook is delivered", || async {
            scene.crm.crm.stats("demo").webhooks.delivered > 0
        })
        .await;

        scene.talkdesk_calls().await;
        scene.webhooks(&hook).await;
        // A CRM that quotes the token in its errors, and work that is given up.
        scene.crm.crm.knobs("demo", |knobs| {
            knobs.errors_as_200 = true;
            knobs.fail_5xx = 100_000;
            knobs.fail_status = 400;
            knobs.fault_ops = vec![Op::List, Op::Changes];
        });
        let dead = |scene: &Scene| scene.site.status()["dead_letters"].as_u64().unwrap_or_default();
        until("work is given up", || async { dead(&scene) > 0 }).await;
        if backend == Backend::Distributed {
            let settings = jobs::RabbitSettings::default();
            let queue = jobs::RabbitQueue::connect(&amqp_url(), &scene.site.namespace, settings)
                .await
                .expect("the queue");
            let before = dead(&scene);
            for body in [
                PAYLOAD.to_owned(),
                json!({"v": 1, "kind": PAYLOAD, "account": CRM_TOKEN}).to_string(),
            ] {
                until("the broker takes it", || async {
                    queue
                        .publish_body(contacts::Lane::Refresh, body.as_bytes())
                        .await
                        .is_ok()
                })
                .await;
            }
            until("unreadable jobs are kept", || async { dead(&scene) >= before + 2 }).await;
        }
        scene.operators(&account).await;
        scene.crm.crm.knobs("demo", |knobs| knobs.fail_5xx = 0);
        assert_eq!(
            scene
                .look(Method::POST, "/api/dead/redrive", Some(json!({"all": true})), "")
                .await,
            200
        );
        // The CRM refuses the token from one call to the next, and quotes it.
        scene
            .crm
            .crm
            .control(Control::tokens("demo", &["another-token-of-the-crm"]))
            .done();
        let parked = || async {
            let work = contacts::work::load(&**scene.site.store().await, &account).await;
            work.expect("a store").park.is_some()
        };
        until("the worker meets the refusal", parked).await;
        assert_eq!(scene.call("/demo/contact_sync", good).await, 401);
        scene.operators(&account).await;

        // What lies in the queue while nobody takes it.
        scene.crm.crm.control(Control::tokens("demo", &[CRM_TOKEN])).done();
        let mut ended = Vec::new();
        if let Some(mut worker) = worker.take() {
            worker.terminate();
            assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());
            ended.push(worker);
            let said = scene
                .look(Method::POST, &format!("/api/accounts/{account}/full"), None, "")
                .await;
            assert_eq!(said, 200);
            let good = json!({"auth": {"account": "demo", "token": CRM_TOKEN}}).to_string();
            until("the account is taken up again", || async {
                let sent = scene
                    .talkdesk
                    .http
                    .post(format!("{}/auth_validation", scene.talkdesk.url));
                sent.body(good.clone()).send().await.expect("an answer").status() == 200
            })
            .await;
        }
        let Scene {
            site,
            mut front,
            tokens,
            answers,
            shown,
            crm,
            pages,
            ..
        } = scene;
        front.terminate();
        assert_eq!(front.ended().await.code(), Some(0), "{}", front.log());
        ended.push(front);
        let queued = queue_bodies(&site).await;
        let is_there = |what: &[u8]| queued.windows(what.len()).any(|window| window == what);
        assert!(is_there(account.as_str().as_bytes()), "there were jobs to search");

        let keys = std::fs::read_to_string(site.file("keys")).expect("the key file");
        let keys = keys
            .split_whitespace()
            .filter(|word| word.len() == 64)
            .map(|key| ("a key", key.to_owned()));
        let secrets = [
            ("the CRM's token", CRM_TOKEN),
            ("a wrong token", WRONG_TOKEN),
            ("an operator's token", ADMIN_TOKEN),
            ("a wrong operator's token", WRONG_ADMIN),
            ("a path secret", PATH_SECRET),
            ("a wrong path secret", WRONG_PATH),
            ("the app's webhook secret", APP_SECRET),
        ];
        let secrets = secrets.map(|(name, value)| (name, value.to_owned()));
        let hook_secret = ("the account's webhook secret", site.keys.hook_secret(&account));
        let secrets: Vec<_> = secrets.into_iter().chain(keys).chain([hook_secret]).collect();
        let private = [CONTACT_NAME, CONTACT_MAIL, CONTACT_PHONE, JOB_TITLE, PAYLOAD];
        let private = private.map(|value| ("contact data", value.to_owned()));
        let seen = Detector::of(private.clone()).found(&pages);
        assert!(!seen.is_empty(), "the detector sees the contact where it belongs");
        assert!(
            tokens.len() > 5 && tokens.iter().all(|token| token.len() > 40),
            "{tokens:?}"
        );
        let held = tokens
            .into_iter()
            .map(|token| ("a token that Talkdesk or an operator holds", token));
        let strict = Detector::of(secrets.iter().cloned().chain(private).chain(held));
        let secrets = Detector::of(secrets);

        assert!(
            ended.iter().any(|process| process.has_said("DEBUG")),
            "finer lines were heard"
        );
        for process in &ended {
            let said = process.emitted();
            assert!(said.len() > 1_000, "it was heard: {}", said.len());
            strict.assert_clean(&format!("the log of {}", process.role), said.as_bytes());
        }
        for (what, bytes) in &shown.0 {
            strict.assert_clean(what, bytes);
        }
        strict.assert_clean("the queue", &queued);
        for (what, bytes) in &answers.0 {
            secrets.assert_clean(what, bytes);
        }
        drop(crm);
    }
);
