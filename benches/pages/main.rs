//! What a page of 1,000 contacts costs, as ratios within one run: the front, on Redis and on SQLite, against a handler
//! that fetches one finished blob of the same bytes from that Redis, behind the same server. docs/performance.md
//! explains and keeps figures.
//!
//! `cargo bench --bench pages`, with BENCH_SIZES (`100000,1000000`), BENCH_STORES (`redis,sqlite`), BENCH_ROUNDS (7),
//! BENCH_CONNECTIONS (4) and BENCH_MILLIS (1000, of one measurement) in the environment.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod blobs;
mod bridge;
mod load;
mod parts;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contacts::AccountId;
use tokio_util::sync::CancellationToken;

use blobs::Blobs;
use bridge::{Backend, Bridge, PAGE};
use load::{Sample, Station};
use support::{RedisServer, machine, median, ratios, setting, spread};

/// Where pages come from: the front over a store, or the handler of blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Front(Backend),
    Blob,
}

impl From {
    fn as_str(self) -> &'static str {
        match self {
            From::Front(Backend::Redis) => "front on Redis",
            From::Front(Backend::Sqlite) => "front on SQLite",
            From::Blob => "blob",
        }
    }
}

/// One thing that is measured, and its samples: over one connection, and over several.
struct Subject {
    from: From,
    size: u64,
    station: Station,
    alone: Vec<Sample>,
    together: Vec<Sample>,
}

impl Subject {
    fn new(from: From, size: u64, address: SocketAddr, requests: Vec<Vec<u8>>, lengths: Vec<usize>) -> Subject {
        let station = Station {
            address,
            requests,
            lengths,
        };
        Subject {
            from,
            size,
            station,
            alone: Vec::new(),
            together: Vec::new(),
        }
    }

    fn micros(&self) -> Vec<f64> {
        self.alone.iter().map(|sample| sample.micros).collect()
    }

    fn processor(&self) -> Vec<f64> {
        self.together.iter().map(|sample| sample.processor).collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.together.iter().map(|sample| sample.pages_per_second).collect()
    }
}

fn main() -> anyhow::Result<()> {
    if !support::asked_for() {
        println!("run this with `cargo bench --bench pages`");
        return Ok(());
    }
    process::tls::install_provider();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let sizes = std::env::var("BENCH_SIZES").unwrap_or_else(|_| "100000,1000000".into());
    let sizes: Vec<u64> = sizes
        .split(',')
        .map(|size| size.trim().parse())
        .collect::<Result<_, _>>()
        .context("BENCH_SIZES")?;
    ensure!(
        sizes.iter().all(|size| *size > 0 && size % PAGE == 0),
        "BENCH_SIZES must be multiples of {PAGE}"
    );
    let rounds = setting("BENCH_ROUNDS", 7)?.max(1);
    let connections = setting("BENCH_CONNECTIONS", 4)?.max(1);
    let time = Duration::from_millis(setting("BENCH_MILLIS", 1_000)?);

    let folder = tempfile::tempdir()?;
    let redis = RedisServer::start().await?;
    println!("{}; Redis {}", machine(), redis.info("redis_version").await?);
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let crm = bridge::crm(&sizes, stop.clone()).await?;
    let blobs = Blobs::new(&redis).await?;
    let blob_address = blobs.clone().serve(stop.clone()).await?;

    let mut subjects: Vec<Subject> = Vec::new();
    let stores = std::env::var("BENCH_STORES").unwrap_or_else(|_| "redis,sqlite".into());
    for backend in Backend::ALL
        .into_iter()
        .filter(|backend| stores.contains(backend.as_str()))
    {
        let bridge = Bridge::start(backend, &redis, crm, folder.path(), stop.clone()).await?;
        let mut last: Option<AccountId> = None;
        for size in &sizes {
            let used = || async { anyhow::Ok(redis.info("used_memory").await?.parse::<u64>()?) };
            let (began, before) = (Instant::now(), used().await?);
            let (account, mean) = bridge.fill(*size).await?;
            let took = began.elapsed().as_secs_f64();
            print!(
                "{} {size}: contacts of {mean} bytes, written at {:.0}/s",
                backend.as_str(),
                *size as f64 / took
            );
            match backend {
                Backend::Redis => {
                    let each = used().await?.saturating_sub(before) as f64 / *size as f64;
                    println!(
                        ", {each:.0} bytes of memory each ({:.2} of the JSON)",
                        each / mean as f64
                    );
                }
                Backend::Sqlite => println!(),
            }
            let walked = bridge.walk(*size).await?;
            let lengths: Vec<usize> = walked.iter().map(|page| page.reply.len()).collect();
            match find(&subjects, From::Blob, *size) {
                Some(blob) => ensure!(blob.station.lengths == lengths, "the stores' pages differ in size"),
                None => {
                    for (page, walked) in walked.iter().enumerate() {
                        blobs.put(*size, page, &walked.reply).await?;
                    }
                    let get = |page| format!("GET /{size}/{page} HTTP/1.1\r\nhost: blobs\r\n\r\n").into_bytes();
                    let requests = (0..walked.len()).map(get).collect();
                    subjects.push(Subject::new(From::Blob, *size, blob_address, requests, lengths.clone()));
                }
            }
            let requests = walked.into_iter().map(|page| page.request).collect();
            subjects.push(Subject::new(
                From::Front(backend),
                *size,
                bridge.address,
                requests,
                lengths,
            ));
            last = Some(account);
        }
        if let Some(account) = last {
            println!("{}, steps of a page, median µs:", backend.as_str());
            for (step, micros) in parts::measure(&bridge, &account).await? {
                println!("  {micros:8.1}  {step}");
            }
        }
    }

    // The load is made by threads that block, outside of the runtime that serves it.
    let subjects = tokio::task::spawn_blocking(move || measure(&redis, subjects, rounds, connections, time)).await??;
    report(&subjects, connections);
    judge(&subjects);
    Ok(())
}

/// Round by round all subjects in turn, so that what else the machine does meets each alike. The first round only warms.
fn measure(
    redis: &RedisServer,
    mut subjects: Vec<Subject>,
    rounds: u64,
    connections: u64,
    time: Duration,
) -> anyhow::Result<Vec<Subject>> {
    for round in 0..=rounds {
        let count = subjects.len();
        for at in 0..count {
            // Every other round backwards: no subject always follows the same one.
            let subject = &mut subjects[if round % 2 == 0 { at } else { count - 1 - at }];
            let alone = subject.station.load(redis, 1, time / 2, round + 1)?;
            let together = subject.station.load(redis, connections, time, round + 101)?;
            if round > 0 {
                subject.alone.push(alone);
                subject.together.push(together);
            }
        }
    }
    Ok(subjects)
}

fn find(subjects: &[Subject], from: From, size: u64) -> Option<&Subject> {
    subjects
        .iter()
        .find(|subject| (subject.from, subject.size) == (from, size))
}

fn report(subjects: &[Subject], connections: u64) {
    println!(
        "\n1 connection: median µs; {connections} connections: pages/s and µs of processor time a page (server and Redis)."
    );
    println!("Behind the front's: as a multiple of its blob's, median (least … most) of the rounds.");
    for subject in subjects {
        print!("{:8}  {:15}", subject.size, subject.from.as_str());
        let blob = find(subjects, From::Blob, subject.size).filter(|_| subject.from != From::Blob);
        for figures in [Subject::micros, Subject::rates, Subject::processor] {
            let own = figures(subject);
            let compared = blob
                .map(|blob| spread(&ratios(&own, &figures(blob))))
                .unwrap_or_default();
            print!("  {:6.0} {compared:20}", median(&own));
        }
        println!();
    }
}

/// The goals, as far as the sizes allow.
fn judge(subjects: &[Subject]) {
    let verdict = |holds| if holds { "met" } else { "MISSED" };
    println!();
    for subject in subjects {
        let goal = match subject.from {
            From::Front(Backend::Redis) => 0.2,
            From::Front(Backend::Sqlite) => 0.3,
            From::Blob => continue,
        };
        let Some(blob) = find(subjects, From::Blob, subject.size) else {
            continue;
        };
        let share = median(&ratios(&subject.rates(), &blob.rates()));
        let (from, size) = (subject.from.as_str(), subject.size);
        println!(
            "{from}, {size}: {share:.2} of the blob's pages/s, goal at least {goal}: {}",
            verdict(share >= goal)
        );
    }
    let sizes: Vec<u64> = subjects.iter().map(|subject| subject.size).collect();
    let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) else {
        return;
    };
    for from in Backend::ALL.map(From::Front) {
        let growth = |from, figures: fn(&Subject) -> Vec<f64>| {
            let of = |size| find(subjects, from, size).map(figures);
            Some(ratios(&of(*most)?, &of(*least)?))
        };
        for (name, figures) in [
            ("time", Subject::micros as fn(&Subject) -> _),
            ("processor time", Subject::processor),
        ] {
            let (Some(front), Some(blob)) = (growth(from, figures), growth(From::Blob, figures)) else {
                continue;
            };
            if least < most {
                let share = median(&ratios(&front, &blob));
                println!(
                    "{}, {least} → {most}: {name} of a page × {:.2}, of a blob × {:.2}: {share:.2}, goal at most 1.3: {}",
                    from.as_str(),
                    median(&front),
                    median(&blob),
                    verdict(share <= 1.3)
                );
            }
        }
    }
}
