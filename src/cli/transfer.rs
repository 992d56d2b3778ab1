//! `export`, `import`: what is carried from one store to another, say from the embedded one to Redis.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use contacts::ports::DocKind;
use contacts::transfer::{self, Counts, Header, Item, Then, VERSION};
use contacts::{Clock, Kind, Lane, Store, SystemClock};
use process::lock::FolderLock;
use process::settings::Settings;

use super::{Failure, print, settings};
use crate::keyring;
use crate::wiring::{Defaults, Parts};

/// Where the store is; the embedded one is locked, as what changed while it was read would be left behind.
fn place(settings: &Settings, data: PathBuf) -> anyhow::Result<(Defaults, Option<FolderLock>)> {
    if settings.store.url.is_some() {
        return Ok((Defaults::Distributed, None));
    }
    let lock = FolderLock::take(&data)?;
    Ok((Defaults::Embedded(data), Some(lock)))
}

pub async fn export(config: Option<&Path>, file: &Path, data: PathBuf) -> Result<(), Failure> {
    let (settings, _) = settings(config)?;
    let (defaults, _lock) = place(&settings, data)?;
    let keys = keyring::derived(defaults.keys(&defaults.key_file(&settings)?)?)?;
    let clock = Arc::new(SystemClock);
    let (store, _) = super::manage::open(&settings, &defaults, clock.clone()).await?;
    // Sealed credentials and names of accounts: nobody else's to read. A file that is there may be the only copy.
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let out = out.with_context(|| format!("{} cannot be made", file.display()))?;
    let mut out = BufWriter::new(out);
    let header = Header {
        snapbridge_export: VERSION,
        installation: keys.installation(),
        at: clock.now(),
    };
    let written = write(&mut out, &*store, &header).await;
    let counts = match written {
        Ok(counts) => counts,
        Err(error) => {
            // Half of one must not be taken for the whole.
            let _ = std::fs::remove_file(file);
            return Err(error.into());
        }
    };
    print(&format!("{} written: {}", file.display(), told(&counts)));
    print(&left_behind(&*store).await?);
    Ok(())
}

async fn write(out: &mut BufWriter<std::fs::File>, store: &dyn Store, header: &Header) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    line(out, header)?;
    for id in transfer::accounts_of(store, DocKind::Account).await? {
        if let Some(item) = transfer::account(store, &id).await? {
            counts.count(&item);
            line(out, &item)?;
        }
    }
    for item in transfer::others(store).await? {
        counts.count(&item);
        line(out, &item)?;
    }
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(counts)
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn told(counts: &Counts) -> String {
    format!(
        "{} accounts ({} stand still), erasures of {}, {} pauses of connectors and lanes, {} entries of the audit",
        counts.accounts, counts.standing, counts.erasures, counts.holds, counts.audit
    )
}

/// What is in no export, so that nobody is surprised.
async fn left_behind(store: &dyn Store) -> anyhow::Result<String> {
    let dead = contacts::dead::summary(store).await?.count;
    let mut payloads = 0;
    for account in transfer::accounts_of(store, DocKind::Account).await? {
        payloads += contacts::inbox::fill(store, &account).await?.waiting;
    }
    let mut text = "not in it, and made anew: snapshots, work that is due, budgets".to_owned();
    if dead > 0 || payloads > 0 {
        text += &format!(
            "\nnot in it, and lost if this store goes: {dead} dead letters, {payloads} payloads that wait. Start the bridge once \
             more and let it finish them, or redrive them, if they matter"
        );
    }
    Ok(text)
}

pub async fn import(config: Option<&Path>, file: &Path, data: PathBuf) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let (defaults, _lock) = place(&settings, data)?;
    let parts = Parts::build(settings, &defaults, &folder).await?;
    let items = read(file, &parts.keys.installation())?;
    let mut counts = Counts::default();
    let mut strangers = std::collections::BTreeSet::new();
    for item in &items {
        counts.count(item);
        let (times, now) = (parts.requests.times(), parts.clock.now());
        let then = transfer::bring(&*parts.store, item, &times, parts.settings.ops.audit, now)
            .await
            .context("the store")?;
        let (Then::Build(id), Item::Account { account, .. }) = (then, item) else {
            continue;
        };
        match parts.integrations.get(&account.integration) {
            Some(integration) => {
                build(&parts, &id, Kind::Full).await?;
                if integration.connector.has_agents() {
                    build(&parts, &id, Kind::Agents).await?;
                }
            }
            None => drop(strangers.insert(account.integration.as_str())),
        }
    }
    print(&format!("taken in: {}", told(&counts)));
    print("their snapshots are built by the workers now, or by Talkdesk's next call");
    if !strangers.is_empty() {
        let names: Vec<&str> = strangers.into_iter().collect();
        print(&format!(
            "these integrations are not in the settings here, so nothing is done for their accounts: {}",
            names.join(", ")
        ));
    }
    Ok(())
}

/// Asks for a first pass, unless there is a complete snapshot.
async fn build(parts: &Parts, account: &contacts::AccountId, kind: Kind) -> anyhow::Result<()> {
    let head = parts.store.head(account, kind.stream()).await.context("the store")?;
    if head.is_none_or(|head| !head.ready) {
        let rung = parts.requests.ring(account, kind, Lane::Build, None).await;
        // What the store has taken is rung for by the sweep.
        if let Err(worker::requests::RequestError::Store(error)) = rung {
            return Err(error).context("the store");
        }
    }
    Ok(())
}

/// All items of a file: a damaged one is refused before anything of it is taken in.
fn read(file: &Path, installation: &str) -> Result<Vec<Item>, Failure> {
    let wrong = |what: String| Failure::Usage(vec![format!("{}: {what}", file.display())]);
    let open = std::fs::File::open(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut lines = BufReader::new(open).lines();
    let first = match lines.next() {
        Some(line) => line.map_err(|error| wrong(format!("cannot be read: {error}")))?,
        None => return Err(wrong("is empty".into())),
    };
    let header: Header = serde_json::from_str(&first)
        .map_err(|_| wrong("is no export of snapbridge: the first line should name one".into()))?;
    if header.snapbridge_export > VERSION {
        return Err(wrong(
            "was written by a newer snapbridge; use that version or a later one to read it".into(),
        ));
    }
    if header.installation != installation {
        return Err(wrong(
            "belongs to another key file: with other keys its credentials cannot be opened, and its accounts would have other \
             ids. Set keys.file to a copy of that installation's"
                .into(),
        ));
    }
    let item = |(number, line): (usize, std::io::Result<String>)| {
        let line = line.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        serde_json::from_str(&line).map_err(|error| {
            // Its words are left out: they may be a line's contents.
            wrong(format!(
                "line {} is damaged (column {}); nothing was taken in",
                number + 2,
                error.column()
            ))
        })
    };
    lines.enumerate().map(item).collect()
}
