//! The tables of the README against the code.

use fake_crm::{AccountOptions, FakeCrm, Options, Profile};
use serde_json::json;

use crate::harness::served;

#[tokio::test]
async fn every_knob_is_explained() {
    let readme = include_str!("../../README.md");
    let crm = served(1).await;
    let (_, body) = crm.control(json!({"set": {}})).await;
    for knob in body["ok"]["knobs"].as_object().expect("knobs").keys() {
        assert!(readme.contains(&format!("`{knob}`")), "{knob}");
    }
}

#[test]
fn every_profile_and_every_limit_is_in_the_tables() {
    let readme = include_str!("../../README.md");
    for &profile in Profile::ALL {
        assert!(readme.contains(&format!("| `{profile}` | ")), "{profile}");
        let account = AccountOptions {
            profile,
            contacts: 1,
            ..AccountOptions::default()
        };
        let crm = FakeCrm::new(Options {
            accounts: vec![account],
            ..Options::default()
        });
        for limit in crm.stats("demo").limits.keys() {
            let row = |line: &&str| line.contains(profile.name()) && line.contains(&format!("`{limit}` ("));
            assert!(readme.lines().any(|line| row(&line)), "{profile}: {limit}");
        }
    }
}
