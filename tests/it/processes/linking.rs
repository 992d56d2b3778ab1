//! Contact linking by the real binary, killed in the middle: whoever dies, each two records of a person show each other once.

mod points;
mod proof;

use std::collections::BTreeMap;

use fake_crm::{Change, Control, Fields, Profile};

use super::crash_points::{Running, compiled};
use super::*;
use crate::faults::servers::free_port;
use crate::linking::{ADMIN, Sides};

/// As [`QUICK`]; the sweep is in the settings of both sides.
const TIMES: &str = "worker.slice_time = \"1s\"\nworker.lease = \"1500ms\"\nrefresh.marker = \"1500ms\"\n\
                     retry.first = \"200ms\"\n";

/// An installation for a dealer whose front is found again after each start: both systems know its address.
struct Dealer {
    site: Site,
    front: String,
}

impl Dealer {
    /// `queue`: the URL of a broker of the test's own.
    fn new(backend: Backend, sides: &Sides, more: &str, queue: Option<&str>) -> Dealer {
        let port = free_port();
        let settings = sides.settings(&format!("{TIMES}{more}"));
        let site = Site::edited(backend, &sides.url, &settings, &[], |text| {
            let text = text.replacen(
                "http.listen = \"127.0.0.1:0\"",
                &format!("http.listen = \"127.0.0.1:{port}\""),
                1,
            );
            match queue {
                Some(url) => text.replace(&amqp_url(), url),
                None => text,
            }
        });
        let front = format!("http://127.0.0.1:{port}");
        Dealer { site, front }
    }

    /// Payloads that wait, put-off ones included; 0 before the dealer is brought in.
    async fn waiting(&self) -> u64 {
        let store = self.site.store().await;
        let Some(account) = account_ids(&**store, 1).await.expect("accounts").pop() else {
            return 0;
        };
        contacts::inbox::fill(&**store, &account)
            .await
            .expect("the inbox")
            .waiting
    }

    /// Nothing waits anywhere, and nobody writes any more.
    async fn is_at_rest(&self, sides: &Sides) -> bool {
        // Asked again and again, so the cheapest first.
        if self.waiting().await > 0 {
            return false;
        }
        let accounts = ["dms", "chat"];
        let versions = || accounts.map(|account| sides.crm.history(account).len());
        let before = versions();
        // What was told is in the inbox, done, or has been written: each of these is seen.
        self.waiting().await == 0
            && accounts
                .iter()
                .all(|account| sides.crm.stats(account).webhooks.waiting == 0)
            && self.waiting().await == 0
            && versions() == before
    }

    async fn report(&self, front: &Process) -> Value {
        let url = format!("{}/api/links?dealer=oslo", front.admin());
        let answer = reqwest::Client::new()
            .get(url)
            .bearer_auth(ADMIN)
            .send()
            .await
            .expect("an answer");
        let reports: Value = answer.json().await.expect("JSON");
        reports[0].clone()
    }
}

/// Where the conversation of a person is, and its id.
fn conversation(id: u64) -> (String, String) {
    let id = Profile::Web1on1
        .conversation_id(&id.to_string())
        .expect("a conversation");
    (format!("https://app.example/conversations/{id}"), id)
}

/// The people of a system, by number.
fn people(sides: &Sides, account: &str) -> BTreeMap<u64, Value> {
    let rows = sides.crm.truth(account).into_iter();
    rows.map(|row| (row.id.parse().expect("a number"), json!(row)))
        .collect()
}
