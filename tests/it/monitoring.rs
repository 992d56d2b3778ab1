//! deploy/prometheus, deploy/grafana: every query is read by Prometheus' own parser and is about metrics and labels that a
//! running bridge shows, and every alert is seen firing and silent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use contacts::accounts::{self, Account};
use serde_json::{Value, json};

use crate::compose::yaml;
use crate::faults::servers::skip;
use crate::harness::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What Prometheus makes itself.
const PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// Labels that Prometheus gives.
const OF_TARGETS: [&str; 2] = ["job", "instance"];
/// Shown by a front with a certificate of its own, which `https` has.
const OF_HTTPS: [&str; 1] = ["snapbridge_tls_certificate_expiry_timestamp_seconds"];

fn at(path: &str) -> PathBuf {
    Path::new(ROOT).join("deploy").join(path)
}

/// The rules of the alerts. `None` (said aloud): nothing here reads YAML.
fn alerts() -> Option<Vec<Value>> {
    let file = yaml(&at("prometheus/alerts.yml"))?;
    let groups = file["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone());
    Some(rules.collect())
}

/// Every query of the dashboard. Grafana puts a number in the place of its variable.
fn of_the_dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let expr = fields.get("expr").and_then(Value::as_str);
                found.extend(expr.map(|expr| expr.replace("$__rate_interval", "1m")));
                fields.values().for_each(|field| collect(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(at("grafana/snapbridge.json")).expect("the dashboard");
    let mut found = Vec::new();
    collect(&serde_json::from_str(&text).expect("JSON"), &mut found);
    assert!(found.len() > 20, "queries of the dashboard: {found:?}");
    found
}

/// A metric in a query, and what stands in its braces: label, operator, value.
type Selector = (String, Vec<(String, String, String)>);

/// The metrics that a query selects. Sees words only; that it is a query at all is for promtool to say.
fn selectors(query: &str) -> Vec<Selector> {
    const WORDS: [&str; 12] = [
        "and", "or", "unless", "bool", "sum", "max", "min", "count", "avg", "topk", "bottomk", "quantile",
    ];
    const WITH_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut found: Vec<Selector> = Vec::new();
    let mut rest = query;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    while let Some(first) = rest.chars().next() {
        if !is_word(first) {
            let end = match first {
                '"' => rest[1..].find('"').expect("the end of a text") + 2,
                '[' => rest.find(']').expect("the end of a range") + 1,
                '{' => panic!("no metric before the braces: {query}"),
                _ => first.len_utf8(),
            };
            rest = &rest[end..];
            continue;
        }
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        if WITH_LABELS.contains(&word) {
            let open = after.trim_start();
            rest = open
                .strip_prefix('(')
                .map_or(after, |labels| labels.split_once(')').expect("labels").1);
        } else if first.is_ascii_digit() || WORDS.contains(&word) || after.trim_start().starts_with('(') {
        } else {
            let mut matchers = Vec::new();
            if let Some(inside) = after.strip_prefix('{') {
                let (inside, behind) = inside.split_once('}').expect("the end of the matchers");
                rest = behind;
                for matcher in inside.split(", ") {
                    let (label, value) = matcher.split_once('"').expect("a value");
                    let name = label.trim_end_matches(['=', '~', '!']);
                    let operator = &label[name.len()..];
                    matchers.push((
                        name.to_owned(),
                        operator.to_owned(),
                        value.trim_end_matches('"').to_owned(),
                    ));
                }
            }
            found.push((word.to_owned(), matchers));
        }
    }
    found
}

#[test]
fn metrics_are_found_in_queries() {
    let names = |query| selectors(query).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(
        names(r#"max by (lane) (a_b{x="y or z", k=~"v"}[1h]) > 3 * sum(rate(c_d[5m])) unless on () e"#),
        ["a_b", "c_d", "e"]
    );
    let expected = [("x", "=", "y"), ("k", "=~", "v|w")].map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(
        selectors(r#"a{x="y", k=~"v|w"}"#),
        [("a".to_owned(), expected.to_vec())]
    );
    assert_eq!(
        names("histogram_quantile(0.99, sum by (le) (rate(h_bucket[1m])))"),
        ["h_bucket"]
    );
}

/// Metric → the labels of each of its series.
fn exposed(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut exposed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').expect("a sample");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        exposed
            .entry(name.to_owned())
            .or_default()
            .push(format!(",{}", labels.trim_end_matches('}')));
    }
    exposed
}

/// What of a query nothing would answer.
fn problem(query: &str, exposed: &BTreeMap<String, Vec<String>>) -> Option<String> {
    selectors(query).into_iter().find_map(|(name, matchers)| {
        if PROMETHEUS.contains(&name.as_str()) || OF_HTTPS.contains(&name.as_str()) {
            return None;
        }
        let Some(series) = exposed.get(&name) else {
            return Some(format!("no metric {name}: {query}"));
        };
        matchers.into_iter().find_map(|(label, operator, value)| {
            let values = match operator.as_str() {
                "=" | "=~" => value.split('|').map(|value| format!(",{label}=\"{value}\"")).collect(),
                _ => vec![format!(",{label}=\"")],
            };
            let all = values
                .iter()
                .all(|value| series.iter().any(|labels| labels.contains(value.as_str())));
            (!all && !OF_TARGETS.contains(&label.as_str()))
                .then(|| format!("no {name} with {label}{operator}{value:?}: {query}"))
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_is_about_metrics_that_a_bridge_shows() {
    let crm = Crm::start(50).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, "refresh.sweep = \"200ms\"").await;
    let account = bridge.build().await;
    bridge.run(None).await;
    let (status, agents) = bridge.post("/demo/agent_sync", json!({ "auth": auth() })).await;
    assert_eq!(status, 200, "{agents}");
    let hook = format!("/demo/webhooks/{}", bridge.keys.hook_id(&account));
    assert_eq!(bridge.post(&hook, json!([])).await.0, 401);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_millis()
        .to_string();
    let body = json!([{"event_id": "e1", "account": "demo", "type": "contact.updated", "id": "1", "at": 1_760_000_000_000u64}]).to_string();
    let signature = fake_crm::signature(&bridge.keys.hook_secret(&account), &now, body.as_bytes());
    let request = bridge.http.post(format!("{}{hook}", bridge.url)).body(body);
    let request = request
        .header(fake_crm::TIMESTAMP_HEADER, now)
        .header(fake_crm::SIGNATURE_HEADER, signature);
    assert_eq!(request.send().await.expect("an answer").status(), 202);

    let mut queries = of_the_dashboard();
    if let Some(alerts) = alerts() {
        queries.extend(
            alerts
                .iter()
                .map(|alert| alert["expr"].as_str().expect("an expression").to_owned()),
        );
    }
    let problems = || async {
        let response = bridge
            .http
            .get(format!("{}/metrics", bridge.admin))
            .send()
            .await
            .expect("an answer");
        let exposed = exposed(&response.text().await.expect("metrics"));
        queries
            .iter()
            .filter_map(|query| problem(query, &exposed))
            .collect::<Vec<_>>()
    };
    // Gauges come with their next sample.
    let began = std::time::Instant::now();
    let mut left = problems().await;
    while !left.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{}", left.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        left = problems().await;
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_account_is_counted_however_many_there_are() {
    let crm = Crm::start(5).await;
    let bridge = Bridge::start(Backend::Embedded, &crm, "").await;
    let account = bridge.build().await;
    let known = accounts::get(&*bridge.store, &account)
        .await
        .expect("the store")
        .expect("the account");
    // More than two steps of the walk.
    for n in 0..120u8 {
        let letter = |n: u8| char::from(b'a' + n);
        let id = format!("{}{}{}", letter(n % 26), letter(n / 26), "a".repeat(24));
        let other = Account {
            id: id.parse().expect("an id"),
            ..known.clone()
        };
        accounts::register(&*bridge.store, &other).await.expect("registered");
    }
    let counted = |state: &'static str| {
        let bridge = &bridge;
        async move {
            let response = bridge
                .http
                .get(format!("{}/metrics", bridge.admin))
                .send()
                .await
                .expect("an answer");
            let text = response.text().await.expect("metrics");
            let name = format!("snapbridge_accounts{{integration=\"demo\",state=\"{state}\"}} ");
            text.lines()
                .find_map(|line| line.strip_prefix(&name).map(str::to_owned))
        }
    };
    until("each is counted once, as what it is", || async {
        counted("building").await.as_deref() == Some("120") && counted("ready").await.as_deref() == Some("1")
    })
    .await;
    bridge.stop().await;
}

#[test]
fn every_alert_says_what_to_do_and_is_seen_firing() {
    let (Some(alerts), Some(tests)) = (alerts(), yaml(&at("prometheus/alerts_test.yml"))) else {
        return;
    };
    let mut names = BTreeSet::new();
    for alert in &alerts {
        let name = alert["alert"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} twice");
        let severity = alert["labels"]["severity"].as_str().expect("a severity");
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        for (annotation, least) in [("summary", 20), ("description", 150)] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > least, "{name}: its {annotation} says {text:?}");
        }
    }
    let tests = tests["tests"].as_array().expect("tests");
    let of = |test: &Value| -> Vec<(String, bool)> {
        let cases = test["promql_expr_test"].as_array().expect("cases").clone();
        let fires = |case: &Value| {
            case["exp_samples"]
                .as_array()
                .is_some_and(|samples| !samples.is_empty())
        };
        cases
            .iter()
            .map(|case| (case["exp_samples"].to_string(), fires(case)))
            .collect()
    };
    let firing: String = tests
        .iter()
        .flat_map(of)
        .filter(|(_, fires)| *fires)
        .map(|(samples, _)| samples)
        .collect();
    for name in &names {
        assert!(
            firing.contains(&format!("alertname=\\\"{name}\\\"")),
            "no test has {name} firing"
        );
    }
    // The healthy bridge has every series that an alert looks at, so its silence says something.
    let healthy = tests.first().expect("a test");
    assert!(of(healthy).iter().all(|(_, fires)| !fires));
    let series = healthy["input_series"].to_string();
    for alert in &alerts {
        for (metric, _) in selectors(alert["expr"].as_str().expect("an expression")) {
            assert!(series.contains(&metric), "the healthy bridge has no {metric}");
        }
    }
}

/// Runs promtool. `None` (said aloud): it is not installed.
fn promtool(arguments: &[&str], file: &Path) -> Option<()> {
    let run = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .current_dir(at("prometheus"))
        .output();
    let Ok(output) = run else {
        skip("promtool is not installed (Debian's package prometheus has it)");
        return None;
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "promtool {arguments:?} {}: {said}",
        file.display()
    );
    Some(())
}

#[test]
fn promtool_reads_the_rules_and_passes_their_tests() {
    let checks = [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
    ];
    for (verb, what, file) in checks {
        if promtool(&[verb, what], Path::new(file)).is_none() {
            return;
        }
    }
}

#[test]
fn promtool_reads_every_query_of_the_dashboard() {
    let rules: Vec<Value> = of_the_dashboard()
        .iter()
        .enumerate()
        .map(|(n, query)| json!({"record": format!("query:{n}"), "expr": query}))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    // JSON is YAML.
    let file = folder.path().join("queries.yml");
    let group = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&file, group.to_string()).expect("written");
    promtool(&["check", "rules"], &file);
}
