//! Workers and two fronts on one credential share one budget (invariant 10): by the CRM's own counter no call is
//! over the limit, hardly any is wasted, and whoever waits for an answer gets it in time. A worker is killed and
//! started again in the middle.

use std::time::Instant;

use fake_crm::{RateLimit, Stats};

use super::*;

const CONTACTS: usize = 20_000;
/// All on one CRM account; each refreshes on its own, so there is work for every worker.
const INTEGRATIONS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
/// The default.
const CHECK_TIMEOUT: Duration = Duration::from_secs(8);
/// The first calls of a start are not counted.
const RUN_UP: Duration = Duration::from_secs(2);

struct Scene {
    limit: &'static str,
    length: Duration,
    workers: usize,
    /// The last worker is killed in the middle and started again.
    restart: bool,
    /// A slot is busy for its call's own time too, so how much of a limit is used depends on how long its window is
    /// compared to what a call takes on a loaded machine.
    least_used: f64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_10_fifty_calls_in_two_seconds() {
    let scene = Scene {
        limit: "50/2s",
        length: Duration::from_secs(16),
        workers: 3,
        restart: true,
        // Below this, calls are being lost, not delayed.
        least_used: 0.4,
    };
    scene.play().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_10_a_hundred_calls_in_ten_seconds_and_hardly_any_is_wasted() {
    for workers in [1, 3, 4] {
        let scene = Scene {
            limit: "100/10s",
            length: Duration::from_secs(31),
            workers,
            restart: workers == 3,
            // What a killed worker had taken counts as used.
            least_used: if workers == 3 { 0.95 } else { 0.98 },
        };
        scene.play().await;
    }
}

/// The demo connector with the CRM's own limit and small pages.
fn connector(limit: RateLimit) -> String {
    let text = include_str!("../../../connectors/demo/connector.toml");
    let text = text.replace(
        "window = \"1s\"",
        &format!("window = \"{}ms\"", limit.window.as_millis()),
    );
    text.replace("limit = \"500\"", "limit = \"10\"")
}

fn settings(crm: &Crm, limit: RateLimit) -> String {
    let integration = |name: &&str| {
        format!(
            "[integrations.{name}]\nconnector = \"connector.toml\"\nallow_hosts = [\"{url}\"]\nregion = \"PT\"\n\
             connection = {{ site = \"{url}\", per_second = \"{max}\" }}\n",
            url = crm.url,
            max = limit.max
        )
    };
    let integrations: String = INTEGRATIONS.iter().map(integration).collect();
    format!(
        "worker.slots = 3\nworker.slice_time = \"4s\"\nworker.lease = \"5s\"\nrefresh.marker = \"5s\"\n\
         refresh.sweep = \"500ms\"\n\
         credentials.check_timeout = \"{}ms\"\ncredentials.checks_per_minute = 6000\n{integrations}",
        CHECK_TIMEOUT.as_millis()
    )
}

impl Scene {
    async fn play(self) {
        if !services() {
            return;
        }
        let length = self.length;
        let limit: RateLimit = self.limit.parse().expect("a limit");
        let crm = Crm::limited(CONTACTS, Some(limit)).await;
        let files = [("connector.toml", &*connector(limit))];
        let site = Site::new(Backend::Distributed, &crm, &settings(&crm, limit), &files);
        let fronts = [site.start("serve").await, site.start("serve").await];
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            workers.push(site.start("worker").await);
        }
        let http = Talkdesk::of(&fronts[0]).http;
        let talkdesk = |front: &Process, name: &str| Talkdesk {
            http: http.clone(),
            url: format!("{}/{name}", front.url()),
        };
        for name in INTEGRATIONS {
            assert_eq!(talkdesk(&fronts[0], name).validate().await.expect("an answer"), 200);
        }

        let began = Instant::now();
        let checking = fronts.iter().map(|front| {
            let talkdesk = talkdesk(front, "a");
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < RUN_UP + length {
                    let asked = Instant::now();
                    assert_eq!(
                        talkdesk.validate().await.expect("an answer"),
                        200,
                        "after {:?}",
                        asked.elapsed()
                    );
                    took.push(asked.elapsed());
                    tokio::time::sleep(Duration::from_secs(1).saturating_sub(asked.elapsed())).await;
                }
                took
            })
        });
        let checking: Vec<_> = checking.collect();
        tokio::time::sleep(RUN_UP).await;
        let from = fake_now();
        tokio::time::sleep(length / 2).await;
        if self.restart
            && let Some(mut last) = workers.pop()
        {
            last.kill();
            workers.push(site.start("worker").await);
        }
        tokio::time::sleep((RUN_UP + length).saturating_sub(began.elapsed())).await;
        let stats = crm.crm.stats("demo");
        let mut checks: Vec<Duration> = Vec::new();
        for checking in checking {
            checks.extend(checking.await.expect("every check is answered"));
        }
        let used = used(&stats, limit, from, fake_now());
        let slowest = checks.iter().max().copied().unwrap_or_default();
        figure(&format!(
            "{limit}, {} workers: {:.1} % used, {} over the limit, most in a sliding window {}, \
         {} live checks, the slowest {} ms; calls {:?}, statuses {:?}, \
         windows {:?}",
            self.workers,
            used * 100.0,
            stats.over_limit,
            stats.max_sliding,
            checks.len(),
            slowest.as_millis(),
            stats.calls,
            stats.statuses,
            stats.windows.iter().map(|window| window.calls).collect::<Vec<_>>()
        ));
        assert_eq!((stats.over_limit, stats.answered(429)), (0, 0));
        assert!(
            stats.max_sliding <= limit.max,
            "{} in a sliding window",
            stats.max_sliding
        );
        assert!(slowest < CHECK_TIMEOUT);
        let building = |account: &Value| account["state"] == "building" || account["state"] == "waiting";
        let status = site.status();
        assert!(
            status["accounts"]
                .as_array()
                .is_some_and(|accounts| accounts.iter().all(building)),
            "bulk work to the end: {status}"
        );
        assert!(used >= self.least_used, "only {:.1} % used", used * 100.0);
        site.assert_nothing_given_up();
    }
}

fn fake_now() -> i64 {
    i64::try_from(now().0 / 1_000).expect("a time")
}

/// What was called in the whole windows between two times, as a share of what was allowed.
fn used(stats: &Stats, limit: RateLimit, from: i64, until: i64) -> f64 {
    let length = i64::try_from(limit.window.as_millis()).expect("a length");
    let whole = stats
        .windows
        .iter()
        .filter(|window| window.start_ms >= from && window.start_ms + length <= until);
    let calls: Vec<u32> = whole.map(|window| window.calls).collect();
    f64::from(calls.iter().sum::<u32>()) / (calls.len() as f64 * f64::from(limit.max))
}
