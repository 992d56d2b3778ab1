//! A real Odoo, called past the bridge.

use std::collections::{BTreeMap, BTreeSet};

use ::talkdesk::wire::Auth;
use serde_json::{Value, json};

use super::{CONTACTS, tell};

pub struct Odoo {
    pub url: String,
    db: String,
    uid: Value,
    password: String,
    pub http: reqwest::Client,
    /// Begins every name that this test makes.
    pub tag: String,
}

impl Odoo {
    pub async fn connect() -> Option<Odoo> {
        let setting = |name: &str| std::env::var(format!("SNAPBRIDGE_TEST_ODOO_{name}")).ok();
        let Some(url) = setting("URL") else {
            tell("SKIPPED: SNAPBRIDGE_TEST_ODOO_URL names no Odoo to test against");
            return None;
        };
        process::tls::install_provider();
        let or = |name, default: &str| setting(name).unwrap_or_else(|| default.to_owned());
        let mut odoo = Odoo {
            url: url.trim_end_matches('/').to_owned(),
            db: or("DB", "crm"),
            uid: Value::Null,
            password: or("PASSWORD", "admin"),
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            tag: format!("it{:010x}", rand::random::<u64>() >> 24),
        };
        let given = json!([odoo.db, or("LOGIN", "admin"), odoo.password, {}]);
        odoo.uid = odoo.rpc("common", "authenticate", given).await;
        assert!(odoo.uid.is_u64(), "Odoo refused the administrator");
        Some(odoo)
    }

    async fn rpc(&self, service: &str, method: &str, args: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "method": "call", "id": 1,
            "params": { "service": service, "method": method, "args": args } });
        let reply = self
            .http
            .post(format!("{}/jsonrpc", self.url))
            .json(&body)
            .send()
            .await
            .expect("Odoo answers");
        let mut reply: Value = reply.json().await.expect("JSON");
        assert!(
            reply["error"].is_null(),
            "{method}: {}",
            reply["error"]["data"]["message"]
        );
        reply["result"].take()
    }

    pub async fn execute(&self, model: &str, method: &str, args: Value) -> Value {
        self.execute_kw(model, method, args, json!({})).await
    }

    pub async fn execute_kw(&self, model: &str, method: &str, args: Value, named: Value) -> Value {
        let args = json!([self.db, self.uid, self.password, model, method, args, named]);
        self.rpc("object", "execute_kw", args).await
    }

    pub async fn write(&self, model: &str, id: &str, values: Value) {
        self.execute(model, "write", json!([[number(id)], values])).await;
    }

    pub async fn unlink(&self, id: &str) {
        self.execute("res.partner", "unlink", json!([[number(id)]])).await;
    }

    pub fn name(&self, number: usize) -> String {
        format!("{} contact {number}", self.tag)
    }

    /// Numbers as people type them: with the country's code and without.
    pub async fn make_contacts(&self) -> Vec<String> {
        let row = |number: usize| {
            let (head, tail) = (number / 10_000, number % 10_000);
            json!({ "name": self.name(number), "phone": format!("+351 21{head:03} {tail:04}"),
                    "mobile": format!("91{number:07}"), "email": format!("c{number}@{}.test", self.tag) })
        };
        let mut ids = Vec::new();
        for first in (0..CONTACTS).step_by(100) {
            let rows: Vec<Value> = (first..first + 100).map(row).collect();
            ids.extend(strings(&self.execute("res.partner", "create", json!([rows])).await));
        }
        ids
    }

    /// A user who may read contacts; their login is the tag.
    pub async fn make_user(&self, password: &str) -> String {
        let values = json!({ "name": self.tag, "login": self.tag, "password": password });
        self.execute("res.users", "create", json!([values])).await.to_string()
    }

    pub fn auth(&self, password: &str) -> Auth {
        let fields = [
            ("site", &*self.url),
            ("db", &*self.db),
            ("login", &*self.tag),
            ("api_key", password),
        ];
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The contacts of this test, the user's own aside, by id; of several versions the last.
    pub fn mine(&self, contacts: &[Value]) -> BTreeMap<String, Value> {
        let start = format!("{} ", self.tag);
        let text = |contact: &Value, field: &str| contact[field].as_str().unwrap_or_default().to_owned();
        contacts
            .iter()
            .filter(|contact| text(contact, "name").starts_with(&start))
            .map(|contact| (text(contact, "id"), contact.clone()))
            .collect()
    }

    /// The ids that Odoo has now, archived ones aside.
    pub async fn living(&self) -> BTreeSet<String> {
        let found = self
            .execute(
                "res.partner",
                "search",
                json!([[["name", "=like", format!("{} %", self.tag)]]]),
            )
            .await;
        strings(&found).into_iter().collect()
    }

    /// `write_date` by id.
    pub async fn stamps(&self) -> BTreeMap<String, String> {
        let domain = json!([[["name", "=like", format!("{} %", self.tag)]]]);
        let rows = self
            .execute_kw(
                "res.partner",
                "search_read",
                domain,
                json!({ "fields": ["write_date"] }),
            )
            .await;
        let stamp = |row: &Value| {
            (
                row["id"].to_string(),
                row["write_date"].as_str().expect("a stamp").to_owned(),
            )
        };
        rows.as_array().expect("rows").iter().map(stamp).collect()
    }

    pub async fn clean_up(&self) {
        let all = |field: &str| {
            json!([[
                [field, "=like", format!("{}%", self.tag)],
                ["active", "in", [true, false]]
            ]])
        };
        for (model, field) in [("res.users", "login"), ("res.partner", "name")] {
            let found = self.execute(model, "search", all(field)).await;
            for ids in found.as_array().expect("ids").chunks(500) {
                self.execute(model, "unlink", json!([ids])).await;
            }
        }
    }
}

pub fn number(id: &str) -> u64 {
    id.parse().expect("Odoo's ids are numbers")
}

pub fn strings(ids: &Value) -> Vec<String> {
    ids.as_array().expect("ids").iter().map(ToString::to_string).collect()
}
