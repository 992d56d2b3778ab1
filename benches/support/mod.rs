//! What the benches share: a Redis of their own, contacts like real ones, and the arithmetic of rounds.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use contacts::contact::{Contact, content_hash};
use contacts::keys::Keys;
use contacts::record::Row;
use contacts::{AccountId, Clock, Micros, SystemClock};

/// Rows of one commit, as the worker writes them.
pub const COMMIT: u64 = 100;

/// A Redis of this process, without persistence; it ends with this value.
pub struct RedisServer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl RedisServer {
    pub async fn start() -> anyhow::Result<RedisServer> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server cannot be started; is it installed?")?;
        let mut server = RedisServer {
            child,
            port,
            _folder: folder,
        };
        let began = Instant::now();
        while server.client()?.get_multiplexed_async_connection().await.is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("redis-server ended at once: {status}");
            }
            if began.elapsed() > Duration::from_secs(10) {
                bail!("redis-server does not answer");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> anyhow::Result<redis::Client> {
        Ok(redis::Client::open(self.url())?)
    }

    /// Seconds of processor time so far.
    pub fn processor_seconds(&self) -> anyhow::Result<f64> {
        process_seconds(&self.child.id().to_string())
    }

    /// A field of INFO.
    pub async fn info(&self, field: &str) -> anyhow::Result<String> {
        let mut connection = self.client()?.get_multiplexed_async_connection().await?;
        let info: redis::InfoDict = redis::cmd("INFO").query_async(&mut connection).await?;
        Ok(info.get(field).unwrap_or_default())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time of all threads of a process; Linux counts them in ticks of 10 ms.
pub fn process_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold blanks. User and system time are the fields 14 and 15 of all.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("an unknown form of stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .context("an unknown form of stat")
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The number `n` contact of a CRM in its `version`th form; 460 bytes of JSON on average.
pub fn row(keys: &Keys, account: &AccountId, n: u64, version: u64) -> Row {
    let contact = contact(n, version);
    let values = contact.emails.iter().chain(&contact.phones);
    let keys = values.map(|value| keys.lookup_key(account, value)).collect();
    let body = contact.to_json();
    Row {
        id: contact.id,
        updated: Micros(1_700_000_000_000_000 + n * 1_000 + version),
        observed: SystemClock.now(),
        indexed: false,
        waits: false,
        hash: content_hash(&body),
        body,
        keys,
    }
}

fn contact(n: u64, version: u64) -> Contact {
    const FIRST: [&str; 12] = [
        "Ana",
        "Bjørn",
        "Catarina",
        "Dmitri",
        "Elif",
        "Francisco",
        "Grace",
        "Haruki",
        "Inês",
        "Jonathan",
        "Katarzyna",
        "Lu",
    ];
    const LAST: [&str; 12] = [
        "Almeida",
        "Bergström",
        "Castellanos",
        "Dvořák",
        "Eriksen",
        "Ferreira",
        "Goldschmidt",
        "Hashimoto",
        "Ivanova",
        "Jaramillo",
        "Kowalczyk",
        "Okonkwo",
    ];
    const COMPANY: [&str; 8] = [
        "Northwind Logistics",
        "Atlantic Freight",
        "Blue Harbour Insurance",
        "Cedar & Sons",
        "Delta Medical Supplies",
        "Evergreen Energy",
        "Foxglove Publishing",
        "Granite Construction",
    ];
    const TITLE: [&str; 8] = [
        "Head of Procurement",
        "Account Manager",
        "Regional Director, Southern Europe",
        "Technician",
        "Chief Financial Officer",
        "Customer Care Agent",
        "Owner",
        "Senior Software Engineer",
    ];
    const STREET: [&str; 8] = [
        "Rua do Salitre",
        "Karl Johans gate",
        "Avenida Paulista",
        "Baker Street",
        "Friedrichstraße",
        "Rue de Rivoli",
        "Calle de Alcalá",
        "Market Street",
    ];
    // A bijection, so ids are distinct and come in no order, as in most CRMs.
    let mut mixed = mix(n);
    let id = format!("003{mixed:016x}");
    let mut pick = |of: usize| {
        mixed = mix(mixed);
        (mixed % of as u64) as usize
    };
    let (first, last, company) = (FIRST[pick(12)], LAST[pick(12)], COMPANY[pick(8)]);
    let slug = |text: &str| {
        text.to_lowercase()
            .replace(|letter: char| !letter.is_ascii_alphanumeric(), "")
    };
    let domain = format!("{}.example", slug(company));
    let mut emails = vec![format!("{}.{}{n}@{domain}", slug(first), slug(last))];
    if pick(4) == 0 {
        emails.push(format!("{}{n}@mail.example", slug(last)));
    }
    let mut phones = vec![format!("+3512{:08}", pick(100_000_000))];
    if pick(2) == 0 {
        phones.push(format!("+3519{:08}", pick(100_000_000)));
    }
    let number = pick(400) + 1;
    Contact {
        name: format!("{first} {last}"),
        company: Some(format!("{company} {}", ["Ltd", "GmbH", "S.A.", "Inc."][pick(4)])),
        // What changes from version to version.
        title: Some(format!("{} ({version})", TITLE[pick(8)])),
        emails,
        phones,
        photo_url: (pick(2) == 0).then(|| format!("https://images.crm.example/people/{id}/portrait-256.jpg")),
        address: Some(format!(
            "{} {number}, {:04}-{:03} Lisboa, Portugal",
            STREET[pick(8)],
            pick(9000) + 1000,
            pick(1000)
        )),
        websites: vec![format!("https://www.{domain}/team/{}", slug(last))],
        twitter: (pick(4) == 0).then(|| format!("{}_{}", slug(first), slug(last))),
        url: Some(format!("https://acme.crm.example/lightning/r/Contact/{id}/view")),
        id,
    }
}

fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

/// Round by round, how `values` stand to `base`: what both suffered alike falls out.
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

/// `median (least … most)`.
pub fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({least:.2} … {most:.2})", median(values))
}

/// A number of the environment.
pub fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.trim().parse().with_context(|| format!("{name} must be a number")),
        Err(_) => Ok(default),
    }
}

/// Whether `cargo bench` runs this: `cargo test --all-targets` starts benches too, and must not wait for them.
pub fn asked_for() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// One line about the machine.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({}), load average before {}",
        model.map_or("unknown", |(_, model)| model),
        load.split(' ').next().unwrap_or("unknown")
    )
}
