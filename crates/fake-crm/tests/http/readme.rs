//! The tables of the README against the code.

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
