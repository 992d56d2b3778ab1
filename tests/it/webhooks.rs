//! Webhooks through the front door: proof, dedupe, routing, coalescing, 2xx only when the work is safe.

use std::time::{SystemTime, UNIX_EPOCH};

use fake_crm::{Change, Control, Webhook, signature};
use serde_json::{Value, json};

use crate::accounts::{built, run_at};
use crate::harness::*;
use crate::interactions::{beside, connector};

const SLOW_POLL: &str = "refresh.sweep = \"200ms\"";

struct Hook<'a> {
    bridge: &'a Bridge,
    url: String,
    secret: String,
}

impl Hook<'_> {
    async fn of(bridge: &Bridge) -> Hook<'_> {
        let account = bridge.account().await;
        let url = format!("{}/demo/webhooks/{}", bridge.url, bridge.keys.hook_id(&account));
        Hook {
            bridge,
            url,
            secret: bridge.keys.hook_secret(&account),
        }
    }

    async fn send(&self, events: &Value) -> u16 {
        let body = events.to_string();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis()
            .to_string();
        self.send_raw(&body, &now, &signature(&self.secret, &now, body.as_bytes()))
            .await
    }

    /// As a CRM does: what is not taken comes again until it is.
    async fn deliver(&self, events: &Value) {
        until("a delivery is taken", || async {
            let status = self.send(events).await;
            assert!(status == 202 || status == 503, "{status}");
            status == 202
        })
        .await;
    }

    async fn send_raw(&self, body: &str, timestamp: &str, signature: &str) -> u16 {
        let request = self
            .bridge
            .http
            .post(&self.url)
            .header(fake_crm::TIMESTAMP_HEADER, timestamp)
            .header(fake_crm::SIGNATURE_HEADER, signature)
            .body(body.to_owned());
        request.send().await.expect("an answer").status().as_u16()
    }
}

fn event(n: u64, id: &str) -> Value {
    json!({"event_id": format!("e{n}"), "account": "demo", "type": "contact.updated", "id": id, "at": 1_760_000_000_000u64})
}

on_both!(
    an_edit_reaches_talkdesk_through_the_crms_own_webhook,
    |backend| async move {
        let crm = Crm::start(200).await;
        let bridge = Bridge::start(backend, &crm, SLOW_POLL).await;
        bridge.build().await;
        let before = bridge.run(None).await;
        let hook = Hook::of(&bridge).await;
        crm.crm
            .control(Control::webhook("demo", Some(Webhook::new(&hook.url, &hook.secret))))
            .done();
        crm.crm.control(Control::edit("demo", Change::ids([10, 20]))).done();
        crm.crm.control(Control::delete("demo", Change::ids([30]))).done();
        until("both edits arrive, and nothing else", || async {
            let run = bridge.run(Some(&before.checkpoint)).await;
            run.ids().into_iter().collect::<Vec<_>>() == ["10", "20"]
        })
        .await;
        until("the deleted one is gone", || async {
            bridge.run(None).await.titles() == truth(&crm)
        })
        .await;
        assert_eq!(crm.crm.stats("demo").webhooks.given_up, 0);
        bridge.stop().await;
    }
);

on_both!(
    an_edit_arrives_though_the_poll_that_its_webhook_led_to_ended_before_it,
    |backend| async move {
        let crm = Crm::start(40).await;
        let folder = tempfile::tempdir().unwrap();
        let polled = connector(folder.path(), "polled", |source| {
            let (head, rest) = source.split_once("[contacts.get_many]").expect("a fetch by id");
            let (_, rest) = rest.split_once("\n\n").expect("its end");
            format!("{head}{rest}")
        });
        // Regular polls are ten minutes apart, and their windows end two seconds before they begin.
        let more = beside("polled", &polled, &crm) + "integrations.polled.lag = \"2s\"\n" + SLOW_POLL;
        let bridge = Bridge::start(backend, &crm, &more).await;
        let (status, body) = bridge.post("/polled/auth_validation", json!({ "auth": auth() })).await;
        assert_eq!(status, 200, "{body}");
        let account = bridge.account().await;
        built(&bridge, &account).await;
        let before = run_at(&bridge, "/polled/contact_sync", &auth(), None).await;
        let hook = Hook::of(&bridge).await;
        let hook = Hook {
            url: hook.url.replace("/demo/", "/polled/"),
            ..hook
        };
        crm.crm
            .control(Control::webhook("demo", Some(Webhook::new(&hook.url, &hook.secret))))
            .done();
        crm.crm.control(Control::edit("demo", Change::ids([10, 20]))).done();
        until("both edits arrive", || async {
            let run = run_at(&bridge, "/polled/contact_sync", &auth(), Some(&before.checkpoint)).await;
            run.ids().into_iter().collect::<Vec<_>>() == ["10", "20"]
        })
        .await;
        bridge.stop().await;
    }
);

on_both!(deliveries_without_proof_are_refused, |backend| async move {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(backend, &crm, SLOW_POLL).await;
    bridge.build().await;
    let hook = Hook::of(&bridge).await;
    let body = json!([event(1, "1")]).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let good = signature(&hook.secret, &now.to_string(), body.as_bytes());
    assert_eq!(
        hook.send_raw(&format!("{body} "), &now.to_string(), &good).await,
        401,
        "one byte more"
    );
    assert_eq!(
        hook.send_raw(&body, &(now + 1).to_string(), &good).await,
        401,
        "another time"
    );
    let old = (now - 3_600_000).to_string();
    assert_eq!(
        hook.send_raw(&body, &old, &signature(&hook.secret, &old, body.as_bytes()))
            .await,
        401,
        "too old"
    );
    assert_eq!(hook.send_raw(&body, &now.to_string(), "").await, 401, "no signature");
    assert_eq!(
        hook.send_raw(&body, &now.to_string(), &good.to_uppercase()).await,
        202,
        "hex is hex"
    );
    let wrong = Hook {
        url: format!("{}x", hook.url),
        ..Hook::of(&bridge).await
    };
    assert_eq!(wrong.send(&json!([])).await, 404, "a hook nobody gave out");
    let big = "x".repeat(600 * 1024);
    assert_eq!(hook.send_raw(&big, &now.to_string(), &good).await, 413);
    bridge.stop().await;
});

on_both!(
    app_level_events_are_routed_by_the_account_they_name,
    |backend| async move {
        let crm = Crm::start(40).await;
        let bridge = Bridge::start(
            backend,
            &crm,
            &format!("{SLOW_POLL}\nintegrations.demo.app.webhook_secret = \"app-secret-1\""),
        )
        .await;
        bridge.build().await;
        let before = bridge.run(None).await;
        let hook = Hook {
            bridge: &bridge,
            url: format!("{}/demo/webhooks", bridge.url),
            secret: "app-secret-1".into(),
        };
        crm.crm.control(Control::edit("demo", Change::ids([4]))).done();
        let stranger = json!({"event_id": "s", "account": "nobody", "type": "contact.updated", "id": "4", "at": 1});
        assert_eq!(
            hook.send(&json!([stranger])).await,
            202,
            "an unknown account is no reason to send it again"
        );
        assert_eq!(hook.send(&json!([event(1, "4")])).await, 202);
        until("the edit arrives", || async {
            bridge.run(Some(&before.checkpoint)).await.ids().contains("4")
        })
        .await;
        assert_eq!(
            snapbridge::sampling::account_ids(&*bridge.store, 10)
                .await
                .unwrap()
                .len(),
            1,
            "nothing was created"
        );
        bridge.stop().await;
    }
);

on_both!(
    invariant_9_a_storm_for_one_account_leads_to_few_jobs_and_loses_no_id,
    |backend| async move {
        let crm = Crm::start(600).await;
        let bridge = Bridge::start(backend, &crm, SLOW_POLL).await;
        let account = bridge.build().await;
        let before = bridge.run(None).await;
        crm.crm.control(Control::edit("demo", Change::ids(1..=600))).done();
        let hook = Hook::of(&bridge).await;
        let fetches = crm.crm.stats("demo").calls_of("contacts.batch");
        // 100 events a delivery, as senders batch them; all ids again and again.
        let deliveries = storm();
        let sending = futures::stream::iter((0..deliveries).map(|n| {
            let events: Vec<Value> = (0..100)
                .map(|i| event(n * 100 + i, &((n * 100 + i) % 600 + 1).to_string()))
                .collect();
            let hook = &hook;
            async move { hook.deliver(&Value::Array(events)).await }
        }));
        use futures::StreamExt;
        sending.buffer_unordered(8).collect::<Vec<()>>().await;
        until("every edit has arrived", || async {
            bridge.run(Some(&before.checkpoint)).await.ids().len() == 600
        })
        .await;
        until("nothing is left dirty", || async {
            bridge.store.dirty(&account, 10).await.unwrap().is_empty()
        })
        .await;
        let fetches = crm.crm.stats("demo").calls_of("contacts.batch") - fetches;
        assert!(
            fetches < deliveries,
            "{} events led to {fetches} fetches",
            deliveries * 100
        );
        bridge.stop().await;
    }
);

/// Deliveries of a storm: 100,000 events by default; fewer where a machine is slow.
fn storm() -> u64 {
    std::env::var("SNAPBRIDGE_TEST_STORM")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000)
}

on_both!(repeated_events_are_dropped_and_get_their_2xx, |backend| async move {
    let crm = Crm::start(20).await;
    let bridge = Bridge::start(backend, &crm, SLOW_POLL).await;
    let account = bridge.build().await;
    let hook = Hook::of(&bridge).await;
    assert_eq!(hook.send(&json!([event(1, "1")])).await, 202);
    until("it has been fetched", || async {
        bridge.store.dirty(&account, 10).await.unwrap().is_empty()
    })
    .await;
    let calls = crm.calls();
    for _ in 0..20 {
        assert_eq!(hook.send(&json!([event(1, "1")])).await, 202);
    }
    assert!(bridge.store.dirty(&account, 10).await.unwrap().is_empty());
    assert_eq!(crm.calls(), calls);
    bridge.stop().await;
});
