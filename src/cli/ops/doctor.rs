//! `snapbridge doctor`: everything looked at once. What the settings say is looked at here; what only a running process sees, its
//! admin listener is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use contacts::SystemClock;
use jobs::rabbitmq::State;
use process::settings::Settings;
use serde_json::{Value, json};
use store::StepState;

use super::{Access, Ops, rows, text};
use crate::cli::health::reachable;
use crate::cli::{Failure, check, print, settings};
use crate::doctor::{Check, Level, certificate};
use crate::tls::Tls;
use crate::wiring::{Defaults, rabbit_settings, redis_settings};

/// Longest wait for one answer of a part that is looked at from here.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[group(skip)]
pub struct Doctor {
    /// Deliver a signed event of our own to this account's webhook, and follow it to the contact that is served; needs a
    /// token of ops.admin
    #[arg(long, value_name = "ACCOUNT")]
    webhook: Option<String>,
    /// The body of a delivery as the CRM sends it, for a connector of your own
    #[arg(long, value_name = "FILE", requires = "webhook")]
    event: Option<PathBuf>,
    /// Where the front is reached [default: http.public_url, else http.listen on this machine]
    #[arg(long, value_name = "URL")]
    front: Option<String>,
    /// Warnings fail it, too
    #[arg(long)]
    strict: bool,
}

/// Exit code 0: no errors; 1: errors (with --strict, warnings too); 2: wrong usage.
pub async fn doctor(config: Option<&Path>, access: Access, args: Doctor) -> Result<(), Failure> {
    let event = match &args.event {
        Some(file) => Some(super::read(file)?),
        None => None,
    };
    let json = access.json;
    let checks = examine(config, access, &args, event).await?;
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    match json {
        true => print(&json!({"worst": worst, "checks": checks}).to_string()),
        false => print(&told(&checks)),
    }
    let fails = worst == Level::Error || (args.strict && worst == Level::Warning);
    if fails { Err(Failure::Told(1)) } else { Ok(()) }
}

async fn examine(
    config: Option<&Path>,
    access: Access,
    args: &Doctor,
    event: Option<String>,
) -> Result<Vec<Check>, Failure> {
    let (settings, folder) = match settings(config) {
        Ok(read) => read,
        Err(Failure::Usage(problems)) => {
            let advice = "mend the settings; `snapbridge config reference` explains each";
            return Ok(problems
                .into_iter()
                .map(|problem| Check::error("settings", problem, advice))
                .collect());
        }
        Err(other) => return Err(other),
    };
    let mut checks = vec![integrations(&settings, &folder)];
    // As `status` does: without a store in the settings, it is the embedded one.
    let defaults = match settings.store.url {
        None => Defaults::Embedded(access.data.clone()),
        Some(_) => Defaults::Distributed,
    };
    let (keys, id) = keys(&settings, &defaults);
    checks.push(keys);
    store(&settings, &defaults, &mut checks).await;
    queue(&settings, &defaults, &mut checks).await;
    if settings.http_tls.cert.is_some() {
        checks.push(match Tls::load(&settings, &folder).await {
            Ok(_) => Check::ok("http.tls", "certificate and key belong together"),
            Err(error) => Check::error("http.tls", process::chain(error.as_ref()), "mend the files"),
        });
    }
    public_url(&settings, args, id.as_deref(), &mut checks).await;
    bridge(config, access, args, &settings, event, id.as_deref(), &mut checks).await?;
    Ok(checks)
}

fn integrations(settings: &Settings, folder: &Path) -> Check {
    match check::loaded(settings, folder) {
        Ok(integrations) => match integrations.iter().count() {
            0 => Check::warning(
                "integrations",
                "none is configured",
                "`snapbridge integration new` writes one",
            ),
            count => Check::ok("integrations", format!("{count} with sound connectors")),
        },
        Err(Failure::Usage(problems)) => Check::error("integrations", problems.join("; "), "`snapbridge config check`"),
        Err(_) => Check::error("integrations", "could not be loaded", "`snapbridge config check`"),
    }
}

/// Never makes a key file; that is for the roles.
fn keys(settings: &Settings, defaults: &Defaults) -> (Check, Option<String>) {
    let Ok(path) = defaults.key_file(settings) else {
        let advice = "`snapbridge keys new FILE` once, and the same file for every front and worker";
        return (Check::error("key file", "keys.file is not set", advice), None);
    };
    let advice = "it must be there, belong to the bridge, and be closed to others (chmod 600)";
    match process::keys::load(&path) {
        Ok(file) => {
            let kids: Vec<String> = file.seals.iter().map(|seal| seal.kid.clone()).collect();
            let (seals, others) = (kids.first().map_or("-", String::as_str), kids.len().saturating_sub(1));
            let seen = match others {
                0 => format!("{}, sealing with {seals}", path.display()),
                _ => format!("{}, sealing with {seals}, opening with {} more", path.display(), others),
            };
            match crate::keyring::derived(file) {
                Ok(keys) => (Check::ok("key file", seen), Some(keys.installation())),
                Err(error) => (Check::error("key file", process::chain(error.as_ref()), advice), None),
            }
        }
        Err(error) => (Check::error("key file", process::chain(&error), advice), None),
    }
}

async fn store(settings: &Settings, defaults: &Defaults, checks: &mut Vec<Check>) {
    let url = match defaults.store(settings) {
        Ok(url) => url,
        Err(error) => {
            checks.push(Check::error("store", process::chain(error.as_ref()), "mend store.url"));
            return;
        }
    };
    let namespace = &settings.store.namespace;
    if let store::StoreUrl::Sqlite(dir) = &url {
        checks.push(match store::SqliteStore::open_read_only(dir.clone()).await {
            Ok(_) => Check::ok("store", format!("SQLite in {}", dir.display())),
            Err(error) => Check::error(
                "store",
                process::chain(&error),
                "`snapbridge up` makes it; --data names its folder",
            ),
        });
        return;
    }
    let reached = "start Redis, or mend store.url";
    let steps = match within(store::migration_status(&url, namespace)).await {
        Ok(steps) => steps,
        Err(why) => {
            checks.push(Check::error("store", why, reached));
            return;
        }
    };
    let pending: Vec<String> = steps
        .iter()
        .filter(|step| step.state == StepState::Pending)
        .map(|step| step.name.clone())
        .collect();
    checks.push(match pending.is_empty() {
        true => Check::ok("store: layout", format!("all {} steps are taken", steps.len())),
        false => Check::error(
            "store: layout",
            format!("missing: {}", pending.join(", ")),
            "`snapbridge migrate`",
        ),
    });
    if !pending.is_empty() {
        return;
    }
    let connected = store::connect(&url, namespace, redis_settings(settings), Arc::new(SystemClock));
    match within(connected).await {
        Ok(store) => {
            checks.push(Check::ok("store", store.describe()));
            match within(store.warnings()).await {
                Ok(warnings) if warnings.is_empty() => {
                    checks.push(Check::ok(
                        "store: policy",
                        "version, noeviction and append-only file are as they should be",
                    ));
                }
                Ok(warnings) => checks.extend(
                    warnings
                        .into_iter()
                        .map(|warning| Check::warning("store: policy", warning, "deploy/redis.conf is a good one")),
                ),
                Err(why) => checks.push(Check::error("store: policy", why, reached)),
            }
        }
        Err(why) => checks.push(Check::error("store", why, reached)),
    }
}

async fn queue(settings: &Settings, defaults: &Defaults, checks: &mut Vec<Check>) {
    let url = defaults.queue(settings);
    if let Some(dir) = url.strip_prefix("sqlite:") {
        checks.push(match jobs::SqliteQueue::open_read_only(dir) {
            Ok(_) => Check::ok("queue", format!("SQLite in {dir}")),
            Err(error) => Check::error(
                "queue",
                process::chain(&error),
                "`snapbridge up` makes it; --data names its folder",
            ),
        });
        return;
    }
    let reached = "start RabbitMQ, or mend queue.url";
    match within(jobs::migrate(&url, &settings.queue.namespace, true)).await {
        Ok(reports) => {
            let wrong: Vec<String> = reports
                .iter()
                .filter(|report| report.state != State::Present)
                .map(ToString::to_string)
                .collect();
            checks.push(match wrong.is_empty() {
                true => Check::ok(
                    "queue: topology",
                    format!("all {} parts are as recorded", reports.len()),
                ),
                false => Check::error("queue: topology", wrong.join("; "), "`snapbridge migrate`"),
            });
        }
        Err(why) => {
            checks.push(Check::error("queue", why, reached));
            return;
        }
    }
    let connected = jobs::connect(
        &url,
        &settings.queue.namespace,
        rabbit_settings(settings),
        Arc::new(SystemClock),
    );
    let queue = match within(connected).await {
        Ok(queue) => queue,
        Err(why) => return checks.push(Check::error("queue", why, reached)),
    };
    checks.push(match within(queue.depth()).await {
        Ok(_) if queue.is_blocked() => Check::error(
            "queue",
            "the broker blocks publishers",
            "free memory or disk of the broker",
        ),
        Ok(depths) => {
            let ready: u64 = depths.lanes.iter().map(|lane| lane.ready).sum();
            Check::ok("queue", format!("{}; {ready} jobs wait", queue.describe()))
        }
        Err(why) => Check::error("queue", why, reached),
    });
}

async fn within<T, E: std::error::Error>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(PROBE, asked).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(process::chain(&error)),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}

/// Where the front is reached from here.
fn front_at(settings: &Settings, args: &Doctor) -> String {
    let here = || {
        let scheme = if settings.http_tls.cert.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", reachable(settings.http.listen))
    };
    let base = args.front.clone().or_else(|| crate::urls::base(settings));
    base.map_or_else(here, |base| base.trim_end_matches('/').to_owned())
}

async fn public_url(settings: &Settings, args: &Doctor, id: Option<&str>, checks: &mut Vec<Check>) {
    match &settings.http.public_url {
        None => checks.push(Check::warning(
            "http.public_url",
            "not set",
            "set it to the URL under which Talkdesk and CRMs reach the bridge: webhook URLs are made of it",
        )),
        Some(url) if url.scheme() != "https" => checks.push(Check::warning(
            "http.public_url",
            format!("{url} is not https"),
            "Talkdesk calls nothing but HTTPS",
        )),
        Some(_) => {}
    }
    let base = front_at(settings, args);
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PROBE)
        .tls_info(true)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let Ok(client) = client else { return };
    let answer = match client.get(format!("{base}/bridge.json")).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let advice =
                "see that the front runs, that DNS and the proxy lead to it, and that the certificate is for this name";
            checks.push(Check::error(
                format!("front at {base}"),
                process::chain(&error.without_url()),
                advice,
            ));
            return;
        }
    };
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>();
    if let Some(der) = info.and_then(reqwest::tls::TlsInfo::peer_certificate) {
        checks.push(certificate("certificate", der, SystemTime::now()));
    }
    let status = answer.status();
    let told: Value = answer.json().await.unwrap_or_default();
    let advice = "the URL leads elsewhere, or to a front with another key file";
    let check = format!("front at {base}");
    checks.push(match (told["id"].as_str(), id) {
        (Some(told), Some(id)) if told == id => Check::ok(check, format!("answers with our id {id}")),
        (Some(told), Some(id)) => Check::error(check, format!("answers with id {told}, and ours is {id}"), advice),
        (Some(told), None) => Check::warning(check, format!("answers with id {told}; ours is not known"), advice),
        (None, _) => Check::error(check, format!("answered {status}, and not as a bridge"), advice),
    });
}

/// What a running process sees.
async fn bridge(
    config: Option<&Path>,
    access: Access,
    args: &Doctor,
    settings: &Settings,
    event: Option<String>,
    id: Option<&str>,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let advice = "start `snapbridge up`, `serve` or `worker`; --url and --token-file say where it is and what opens it";
    let ops = match Ops::open(config, access) {
        Ok(ops) => ops,
        Err(Failure::Usage(problems)) => {
            checks.push(Check::error("process", problems.join("; "), advice));
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    let examined = match ops.post("/api/doctor", None).await {
        Ok(examined) => examined,
        Err(error) => {
            checks.push(Check::error("process", process::chain(error.as_ref()), advice));
            return Ok(());
        }
    };
    let its = text(&examined["id"]);
    checks.push(match id {
        Some(id) if id != its => Check::error(
            "process",
            format!("it at {} has id {its}, and ours is {id}", ops.base),
            "every front and worker needs the same key file",
        ),
        _ => Check::ok("process", format!("answers at {}", ops.base)),
    });
    checks.extend(read_checks(&examined["checks"]));
    if let Some(account) = &args.webhook {
        let trial = json!({"account": account, "base": front_at(settings, args), "sample": event});
        match ops.post("/api/doctor/webhook", Some(trial)).await {
            Ok(told) => checks.extend(read_checks(&told)),
            Err(error) => checks.push(Check::error(
                "webhook",
                process::chain(error.as_ref()),
                "give an account that has a snapshot, and a token of ops.admin",
            )),
        }
    }
    Ok(())
}

fn read_checks(value: &Value) -> Vec<Check> {
    let read = |check| serde_json::from_value(check).ok();
    rows(value).into_iter().filter_map(read).collect()
}

fn told(checks: &[Check]) -> String {
    let mut out = String::new();
    for check in checks {
        out.push_str(&format!(
            "{:<8} {}: {}\n",
            check.level.as_str(),
            check.check,
            check.seen
        ));
        if let Some(advice) = &check.advice {
            out.push_str(&format!("{:<8} → {advice}\n", ""));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    out.push_str(&format!(
        "\n{} ok, {} warnings, {} errors\n",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Error)
    ));
    out
}
