//! What the full write rule costs in Redis, as ratios within one run: commits of 100 rows through the store's port
//! against pipelines of 100 plain HSETs of the same bodies. Several accounts at a time, each with one writer, as leases
//! have it; the plain load has as many pipelines on their way. docs/performance.md explains and keeps figures.
//!
//! `cargo bench --bench writes`, with BENCH_CONTACTS (100000, of all accounts together), BENCH_ROUNDS (7) and BENCH_ACCOUNTS
//! (4) in the environment.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use contacts::keys::Keys;
use contacts::ports::{Commit, Committed, HeadChange};
use contacts::record::Row;
use contacts::{AccountId, Clock, Fence, Generation, Store, Stream, SystemClock};
use futures::future::try_join_all;
use redis::aio::ConnectionManager;

use support::{COMMIT, RedisServer, machine, median, ratios, row, setting, spread};

/// What a load is to the records that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    New,
    Changed,
    Unchanged,
}

const CASES: [Case; 3] = [Case::New, Case::Changed, Case::Unchanged];

/// A round each.
#[derive(Default)]
struct Rates {
    plain: Rate,
    rule: Rate,
    rule_without_keys: Rate,
}

#[derive(Default)]
struct Rate {
    /// Rows per second.
    rows: Vec<f64>,
    /// Microseconds of Redis' processor time a row. Strangers on the machine hardly move it.
    processor: Vec<f64>,
}

impl Rate {
    fn push(&mut self, (rows, processor): (f64, f64)) {
        self.rows.push(rows);
        self.processor.push(processor);
    }

    /// Both figures, and how they stand to `base`'s.
    fn beside(&self, base: &Rate) -> String {
        format!(
            "{:7.0} rows/s: {:20}  {:5.2} µs: {:20}",
            median(&self.rows),
            spread(&ratios(&self.rows, &base.rows)),
            median(&self.processor),
            spread(&ratios(&self.processor, &base.processor))
        )
    }
}

fn main() -> anyhow::Result<()> {
    if !support::asked_for() {
        println!("run this with `cargo bench --bench writes`");
        return Ok(());
    }
    process::tls::install_provider();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let accounts = setting("BENCH_ACCOUNTS", 4)?.max(1);
    let contacts = setting("BENCH_CONTACTS", 100_000)?
        .max(COMMIT)
        .next_multiple_of(COMMIT * accounts);
    let rounds = setting("BENCH_ROUNDS", 7)?.max(1);
    let redis = RedisServer::start().await?;
    println!("{}; Redis {}", machine(), redis.info("redis_version").await?);
    let url: store::StoreUrl = redis.url().parse()?;
    store::migrate(&url, "bench", false).await?;
    // On a busy machine a commit may take its time.
    let settings = store::RedisSettings {
        write_timeout: Duration::from_secs(60),
        ..store::RedisSettings::default()
    };
    let store = store::connect(&url, "bench", settings, Arc::new(SystemClock)).await?;
    let writer = Writer {
        store,
        plain: ConnectionManager::new(redis.client()?).await?,
    };
    let keys = snapbridge::wiring::throwaway_keys()?;

    let mut rates: [Rates; CASES.len()] = Default::default();
    for round in 0..=rounds {
        let some = || -> Vec<AccountId> { (0..accounts).map(|_| store::suite::any_account()).collect() };
        let (with, without) = (some(), some());
        let plain = |account: &AccountId| format!("plain:{account}");
        for account in with.iter().chain(&without) {
            writer
                .store
                .open(account, Stream::Contacts, Fence(1), GENERATION)
                .await?;
        }
        for (case, rates) in CASES.into_iter().zip(&mut rates) {
            let loads: Vec<(AccountId, Vec<Row>)> = with
                .iter()
                .map(|account| (account.clone(), rows(&keys, account, contacts / accounts, case)))
                .collect();
            let hsets = loads
                .iter()
                .map(|(account, rows)| pipelines(&plain(account), rows))
                .collect();
            let bare = without.iter().zip(&loads);
            let bare = bare
                .map(|(account, (_, rows))| (account.clone(), commits(rows, false)))
                .collect();
            let full = loads
                .iter()
                .map(|(account, rows)| (account.clone(), commits(rows, true)))
                .collect();
            drop(loads);
            let ((), plain) = timed(&redis, contacts, writer.hset(hsets)).await?;
            let (done, rule) = timed(&redis, contacts, writer.commit(full)).await?;
            check(case, contacts, done)?;
            let (done, rule_without_keys) = timed(&redis, contacts, writer.commit(bare)).await?;
            check(case, contacts, done)?;

            // The first round only warms.
            if round > 0 {
                rates.plain.push(plain);
                rates.rule.push(rule);
                rates.rule_without_keys.push(rule_without_keys);
            }
        }
        let mut connection = writer.plain.clone();
        for account in with.iter().chain(&without) {
            writer.store.drop_snapshot(account, Stream::Contacts).await?;
            redis::cmd("UNLINK")
                .arg(plain(account))
                .exec_async(&mut connection)
                .await?;
        }
        // Freed in the background, which must not be the next round's load.
        while redis.info("lazyfree_pending_objects").await? != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    report(&rates);
    Ok(())
}

/// What `load` gave, and its rows per second and Redis' processor time a row.
async fn timed<T>(
    redis: &RedisServer,
    rows: u64,
    load: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, (f64, f64))> {
    let (began, before) = (Instant::now(), redis.processor_seconds()?);
    let done = load.await?;
    let (took, spent) = (began.elapsed().as_secs_f64(), redis.processor_seconds()? - before);
    Ok((done, (rows as f64 / took, spent * 1e6 / rows as f64)))
}

struct Writer {
    store: Arc<dyn Store>,
    plain: ConnectionManager,
}

impl Writer {
    /// The pipelines of each account one after the other, all accounts at a time.
    async fn hset(&self, loads: Vec<Vec<redis::Pipeline>>) -> anyhow::Result<()> {
        let send = |loads: Vec<redis::Pipeline>| async move {
            let mut connection = self.plain.clone();
            for load in loads {
                load.query_async::<()>(&mut connection).await?;
            }
            Ok(())
        };
        try_join_all(loads.into_iter().map(send)).await.map(drop)
    }

    /// The same with commits.
    async fn commit(&self, loads: Vec<(AccountId, Vec<Commit>)>) -> anyhow::Result<Committed> {
        let send = |(account, commits): (AccountId, Vec<Commit>)| async move {
            let mut sum = Committed::default();
            for commit in commits {
                let done = self.store.commit(&account, Stream::Contacts, &commit).await?;
                sum.written += done.written;
                sum.same += done.same;
            }
            anyhow::Ok(sum)
        };
        let sums = try_join_all(loads.into_iter().map(send)).await?;
        Ok(Committed {
            written: sums.iter().map(|sum| sum.written).sum(),
            same: sums.iter().map(|sum| sum.same).sum(),
            ..Committed::default()
        })
    }
}

/// Observed anew each time; changed ones have other content.
fn rows(keys: &Keys, account: &AccountId, contacts: u64, case: Case) -> Vec<Row> {
    let version = if case == Case::New { 1 } else { 2 };
    (0..contacts).map(|n| row(keys, account, n, version)).collect()
}

fn pipelines(key: &str, rows: &[Row]) -> Vec<redis::Pipeline> {
    let pipeline = |rows: &[Row]| {
        let mut pipeline = redis::Pipeline::with_capacity(rows.len());
        for row in rows {
            pipeline.hset(key, &row.id, &row.body).ignore();
        }
        pipeline
    };
    rows.chunks(COMMIT as usize).map(pipeline).collect()
}

const GENERATION: Generation = Generation(1);

fn commits(rows: &[Row], with_keys: bool) -> Vec<Commit> {
    let row = |row: &Row| Row {
        keys: if with_keys { row.keys.clone() } else { Vec::new() },
        ..row.clone()
    };
    let commit = |rows: &[Row]| Commit {
        fence: Fence(1),
        generation: GENERATION,
        now: SystemClock.now(),
        rows: rows.iter().map(row).collect(),
        removals: Vec::new(),
        head: HeadChange::default(),
    };
    rows.chunks(COMMIT as usize).map(commit).collect()
}

fn check(case: Case, contacts: u64, done: Committed) -> anyhow::Result<()> {
    let counted = if case == Case::Unchanged {
        done.same
    } else {
        done.written
    };
    ensure!(u64::from(counted) == contacts, "{case:?}: {done:?}");
    Ok(())
}

fn report(rates: &[Rates]) {
    println!("rows/s, and processor time of Redis a row; as a multiple of the plain HSETs', median (least … most)");
    for (case, rates) in CASES.into_iter().zip(rates) {
        let plain = &rates.plain;
        println!(
            "{case:?}\n  plain HSET           {:7.0} rows/s {:21} {:5.2} µs",
            median(&plain.rows),
            "",
            median(&plain.processor)
        );
        println!("  write rule           {}", rates.rule.beside(plain));
        println!("  without lookup keys  {}", rates.rule_without_keys.beside(plain));
    }
    let share = median(&ratios(&rates[0].rule.rows, &rates[0].plain.rows));
    println!(
        "a load of new rows: {share:.2}, goal at least 0.3: {}",
        if share >= 0.3 { "met" } else { "MISSED" }
    );
}
