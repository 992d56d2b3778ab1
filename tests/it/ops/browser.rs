//! The ops page in a real Chromium, by WebDriver: each button clicked, as an operator would.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use contacts::{Kind, dead, work};
use serde_json::{Value, json};

use super::{ADMIN, refuse_lists, tokens};
use crate::faults::servers::{free_port, skip};
use crate::harness::*;

/// A browser of its own, which ends with the test.
struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver takes the browser with it when it is asked to quit; a kill alone would leave it.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// `None`: there is no chromedriver, and the test is skipped, loudly; with `REQUIRE_SERVICES=1` it fails.
async fn browser(folder: &std::path::Path) -> Option<Browser> {
    // Left to choose (`--port=0`) it takes a port that is free on ::1 and gives up when 127.0.0.1 has given that one away.
    let port = free_port();
    let started = Command::new("chromedriver")
        .arg(format!("--port={port}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut driver = match started {
        Ok(driver) => driver,
        Err(error) => {
            skip(&format!("chromedriver cannot be started: {error}"));
            return None;
        }
    };
    let mut said = Vec::new();
    let listens = BufReader::new(driver.stdout.take().expect("its output"))
        .lines()
        .map_while(Result::ok)
        .inspect(|line| said.push(line.clone()))
        .any(|line| line.contains("started successfully"));
    assert!(listens, "chromedriver does not listen on {port}: {said:#?}");
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let profile = format!("--user-data-dir={}", folder.join("chromium").display());
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1200,1000",
        &profile,
    ];
    let wanted = json!({"capabilities": {"alwaysMatch": {
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
    }}});
    let base = format!("http://127.0.0.1:{port}/session");
    let answer: Value = http
        .post(&base)
        .json(&wanted)
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let id = answer["value"]["sessionId"]
        .as_str()
        .unwrap_or_else(|| panic!("no session: {answer}"));
    Some(Browser {
        driver,
        session: format!("{base}/{id}"),
        http,
    })
}

impl Browser {
    async fn post(&self, path: &str, body: Value) -> Result<Value, Value> {
        let sent = self
            .http
            .post(format!("{}{path}", self.session))
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let fine = sent.status().is_success();
        let answer: Value = sent.json().await.expect("JSON");
        if fine {
            Ok(answer["value"].clone())
        } else {
            Err(answer["value"].clone())
        }
    }

    async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await.expect("a page");
    }

    async fn find(&self, xpath: &str) -> Result<String, Value> {
        let found = self.post("/element", json!({"using": "xpath", "value": xpath})).await?;
        let id = found
            .as_object()
            .and_then(|pair| pair.values().next())
            .and_then(Value::as_str);
        Ok(id.expect("an element").to_owned())
    }

    async fn type_into(&self, xpath: &str, text: &str) {
        let id = self.find(xpath).await.expect("a field");
        self.post(&format!("/element/{id}/value"), json!({"text": text}))
            .await
            .expect("typed");
    }

    /// The live update may replace an element between its finding and the click.
    async fn click(&self, xpath: &str) {
        let last = std::cell::RefCell::new(Value::Null);
        until(&format!("{xpath} is clicked"), || async {
            let clicked = match self.find(xpath).await {
                Ok(id) => self.post(&format!("/element/{id}/click"), json!({})).await,
                Err(error) => Err(error),
            };
            match clicked {
                Ok(_) => true,
                Err(error) => {
                    last.replace(error);
                    false
                }
            }
        })
        .await;
    }

    async fn text(&self) -> String {
        let script = json!({"script": "return document.body ? document.body.innerText : ''", "args": []});
        let text = self.post("/execute/sync", script).await.unwrap_or_default();
        text.as_str().unwrap_or_default().to_owned()
    }

    async fn until_shows(&self, text: &str) {
        until(&format!("the page shows {text:?}"), || async {
            self.text().await.contains(text)
        })
        .await;
    }

    /// A button that asks whether one is sure.
    async fn click_and_agree(&self, xpath: &str) {
        self.click(xpath).await;
        until("it asks", || async {
            self.post("/alert/accept", json!({})).await.is_ok()
        })
        .await;
    }

    /// What the page complained of.
    async fn complaints(&self) -> Vec<Value> {
        let log = self.post("/se/log", json!({"type": "browser"})).await.expect("a log");
        let mut log = log.as_array().cloned().unwrap_or_default();
        log.retain(|line| line["level"] == "SEVERE");
        log
    }

    async fn quit(self) {
        let _ = self.http.delete(&self.session).send().await;
    }
}

fn button(label: &str) -> String {
    format!("//button[normalize-space(.)='{label}']")
}

#[tokio::test]
async fn an_operator_clicks_through_the_page() {
    let crm = Crm::start(60).await;
    let more = tokens("retry.attempts = 1\nretry.first = \"10ms\"\nrefresh.poll = \"1h\"");
    let bridge = Bridge::start(Backend::Embedded, &crm, &more).await;
    let Some(browser) = browser(bridge.folder()).await else {
        return bridge.stop().await;
    };
    let account = bridge.build().await;
    let work = || async { work::load(&*bridge.store, &account).await.expect("a store") };

    browser.go(&format!("{}/ops", bridge.admin)).await;
    browser
        .type_into("//input[@name='token']", "wrong-4b7c0d1e2f3a4958")
        .await;
    browser.click(&button("Log in")).await;
    browser.until_shows("That is no token").await;
    browser.type_into("//input[@name='token']", ADMIN).await;
    browser.type_into("//input[@name='name']", "Ann").await;
    browser.click(&button("Log in")).await;
    browser.until_shows("All is well").await;
    // The refused login is a 401, which a browser counts as a failed load.
    browser.complaints().await;

    browser.click("//tbody//a[starts-with(@href,'/ops/accounts/')]").await;
    browser.until_shows(account.as_str()).await;
    for label in ["Refresh now", "Full pass now", "Reconcile", "Agents now"] {
        browser.click(&button(label)).await;
        browser.until_shows("worker").await;
    }
    browser.click(&button("Pause")).await;
    browser.until_shows("paused by Ann").await;
    assert!(work().await.pause.is_some());
    browser.click(&button("Resume")).await;
    browser.until_shows("Resumed").await;
    assert!(work().await.pause.is_none());

    for (part, held) in [
        ("//section[h2='Lanes']//tr[th='refresh']", "lane refresh"),
        ("//section[h2='Connectors']", "connector demo"),
    ] {
        browser.go(&format!("{}/ops", bridge.admin)).await;
        browser.click_and_agree(&format!("{part}{}", button("Pause"))).await;
        browser.until_shows(&format!("{held} is paused by Ann")).await;
        browser.click(&format!("{part}{}", button("Resume"))).await;
        browser.until_shows("All is well").await;
    }

    // The page shows what happens without being loaded anew.
    refuse_lists(&crm, u32::MAX);
    let die = || async {
        super::admin(&bridge)
            .post(&format!("/api/accounts/{account}/refresh"))
            .await;
        until("it has died", || async {
            !dead::list(&*bridge.store, 9).await.expect("a store").is_empty()
        })
        .await;
    };
    // The connector's pause holds the poll back for a while.
    until("a poll may run", || async {
        let task = work().await.tasks.remove(&Kind::Changes);
        task.and_then(|task| task.not_before)
            .is_none_or(|at| at < contacts::Clock::now(&contacts::SystemClock))
    })
    .await;
    die().await;
    browser.until_shows("1 dead letter:").await;
    browser.click("//a[@href='/ops/dead']").await;
    browser.click("//article//button[.='Redrive']").await;
    browser.until_shows("1 redriven").await;
    until("it dies again", || async {
        !dead::list(&*bridge.store, 9).await.expect("a store").is_empty()
    })
    .await;
    browser.go(&format!("{}/ops/dead", bridge.admin)).await;
    browser.type_into("//article//input[@name='reason']", "a test").await;
    browser.click("//article//button[.='Discard']").await;
    browser.until_shows("1 discarded").await;
    browser.until_shows("There are none").await;
    die().await;
    browser.go(&format!("{}/ops/dead", bridge.admin)).await;
    browser
        .type_into("//main/div//input[@name='reason']", "all of them")
        .await;
    browser.click_and_agree(&button("Discard all 1")).await;
    browser.until_shows("There are none").await;

    for (tab, shows) in [("Budgets", "calls"), ("Audit", "all of them")] {
        browser.click(&format!("//nav//a[.='{tab}']")).await;
        browser.until_shows(shows).await;
    }
    browser.go(&format!("{}/ops/accounts/{account}", bridge.admin)).await;
    browser.click_and_agree(&button("Forget")).await;
    browser.until_shows("Forgotten").await;
    browser.until_shows("No account yet").await;
    assert_eq!(browser.complaints().await, Vec::<Value>::new());
    browser.click(&button("Log out")).await;
    browser.until_shows("Token").await;
    browser.quit().await;
    bridge.stop().await;
}
