//! The units of deploy/systemd.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ground, ROOT, Run};
use crate::compose::{read, sync};
use crate::faults::child::binary;
use crate::faults::servers::skip;

const FOLDER: &str = "deploy/systemd";
const COMMON: &str = "snapbridge-.service.d/10-common.conf";
const UNITS: [&str; 4] = [
    "snapbridge-up.service",
    "snapbridge-front@.service",
    "snapbridge-worker@.service",
    "snapbridge-migrate.service",
];
const BINARY: &str = "/usr/local/bin/snapbridge";
/// Of the sandbox, in tenths, as `systemd-analyze security` has it: below 20 is "OK".
const EXPOSURE: &str = "15";

fn at(name: &str) -> PathBuf {
    Path::new(ROOT).join(FOLDER).join(name)
}

/// `Name=value` lines, in order.
fn lines(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', ';', '[']));
    let parts = lines.filter_map(|line| line.split_once('='));
    parts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What systemd makes of a unit and its drop-in: `%d`, `%S`, `%i` and the paths become those of this machine.
fn run(ground: &Ground, unit: &str, instance: &str) -> Run {
    let credentials = ground.path("credentials");
    let state = ground.path("state");
    let here = |text: &str| {
        text.replace("%d", &credentials.display().to_string())
            .replace("%S/snapbridge", &state.display().to_string())
            .replace("%i", instance)
            .replace("/etc/snapbridge", &ground.folder.path().display().to_string())
    };
    let lines = [lines(&read(&at(unit))), lines(&read(&at(COMMON)))].concat();
    let all = |name: &'static str| {
        lines
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    std::fs::create_dir_all(&credentials).expect("a folder");
    for credential in all("LoadCredential") {
        let (name, from) = credential.split_once(':').expect("NAME:PATH");
        let to = credentials.join(name);
        // As systemd hands it over: read-only, for the service's user through an access list, which shows as the group's.
        let _ = std::fs::remove_file(&to);
        std::fs::copy(here(from), &to).expect("the credential's file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o440);
        std::fs::set_permissions(&to, mode).expect("a mode");
    }
    let environment = all("Environment").map(|pair| {
        let (name, value) = pair.split_once('=').expect("NAME=value");
        (name.to_owned(), here(value))
    });
    let environment: BTreeMap<String, String> = environment.collect();
    let commands: Vec<&str> = all("ExecStart").collect();
    let [command] = commands[..] else {
        panic!("{unit}: {commands:?}")
    };
    let mut words = command.split(' ').map(here);
    assert_eq!(words.next().as_deref(), Some(BINARY), "{unit}");
    let grace = all("TimeoutStopSec").next_back().expect("a time to stop");
    Run {
        name: unit.trim_end_matches(".service").replace('@', ""),
        arguments: words.collect(),
        environment,
        grace: humantime::parse_duration(grace).expect("a time"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_unit_runs_and_a_sync_passes_through() {
    let Some(ground) = Ground::lay().await else { return };
    let said = ground.run(&run(&ground, UNITS[3], "")).await;
    assert!(said.contains("applied now"), "{said}");
    let front = ground.start(&run(&ground, UNITS[1], "8080")).await;
    let worker = ground.start(&run(&ground, UNITS[2], "18181")).await;
    sync(ground.folder.path(), &front.url, &ground.crm).await;
    front.stop().await;
    worker.stop().await;

    let embedded = ground.start(&run(&ground, UNITS[0], "")).await;
    sync(ground.folder.path(), &embedded.url, &ground.crm).await;
    embedded.stop().await;
    assert!(ground.path("state/store.db").is_file());
    assert!(!ground.path("state/keys").exists(), "the keys are the credential");
}

/// An instance's two ports are as its comment says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_listens_where_it_says() {
    let Some(ground) = Ground::lay().await else { return };
    let front = run(&ground, UNITS[1], "8090").environment;
    assert_eq!(front["SNAPBRIDGE_HTTP__LISTEN"], "127.0.0.1:8090");
    assert_eq!(front["SNAPBRIDGE_HTTP__ADMIN_LISTEN"], "127.0.0.1:18090");
    let worker = run(&ground, UNITS[2], "18181").environment;
    assert_eq!(worker["SNAPBRIDGE_HTTP__ADMIN_LISTEN"], "127.0.0.1:18181");
}

/// Reads the units as systemd does, with the binary under test in its place.
#[test]
fn systemd_itself_takes_the_units_and_finds_them_shut_in() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip("systemd-analyze is not installed (Debian's package systemd has it)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("snapbridge-.service.d")).expect("a folder");
    for name in UNITS.iter().chain([&COMMON]) {
        let text = read(&at(name)).replace(BINARY, &binary().display().to_string());
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let analyze = |arguments: &[&str], unit: &str| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(folder.path().join(unit))
            // The colon at its end: the system's own units as well.
            .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
            .output()
            .expect("systemd-analyze runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    for unit in UNITS {
        let (well, said) = analyze(&["verify", "--man=no"], unit);
        assert!(well && said.is_empty(), "{unit}: {said}");
        let threshold = format!("--threshold={EXPOSURE}");
        let (well, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold], unit);
        assert!(well, "{unit}: {said}");
    }
}
