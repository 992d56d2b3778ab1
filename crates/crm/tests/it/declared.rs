//! What a connector's file declares for Talkdesk's configuration: fields, interaction types, actions and their inputs.

use crm::Connector;

use crate::support::{SMALL, listed, small_with};

fn load(source: &str) -> Connector {
    Connector::load(source, "small.toml").unwrap_or_else(|problems| panic!("{}", listed(&problems)))
}

const ACTION: &str = r#"
[[actions]]
name = "open_case"
display = "open a case"
description = "open a case for somebody"
request = { method = "POST", path = "/cases", json = '{ "subject": "${input.subject}" }' }
[actions.inputs]
subject = { mandatory = true, title = "Subject", default = "for {{contact.email}}" }
colour  = { type = "select", options = ["red", "green"] }
"#;

#[test]
fn actions_keep_their_words_and_the_order_of_the_file() {
    let connector = load(&format!("{SMALL}\n{ACTION}"));
    assert_eq!(connector.actions().collect::<Vec<_>>(), ["open_case"]);
    let action = connector.action("open_case").expect("the action");
    assert_eq!(action.display.as_deref(), Some("open a case"));
    assert_eq!(action.description.as_deref(), Some("open a case for somebody"));
    let (subject, colour) = (&action.inputs["subject"], &action.inputs["colour"]);
    assert!(subject.at < colour.at, "the file's order, not that of the names");
    assert_eq!(subject.default.as_deref(), Some("for {{contact.email}}"));
    assert_eq!(colour.options, ["red", "green"]);
    assert!(connector.action("close_case").is_none());
}

#[test]
fn a_select_has_options_and_nothing_else_has() {
    for (from, to, why) in [
        (
            "\"select\", options = [\"red\", \"green\"]",
            "\"select\"",
            "a select has `options`",
        ),
        ("title = \"Subject\"", "options = [\"red\"]", "a select has `options`"),
        (
            "[\"red\", \"green\"]",
            "[\"red\"], default = \"red\"",
            "a select has no `default`",
        ),
    ] {
        let source = format!("{SMALL}\n{}", ACTION.replacen(from, to, 1));
        let problems = Connector::load(&source, "small.toml").expect_err("refused");
        assert!(listed(&problems).contains(why), "{}", listed(&problems));
    }
}

#[test]
fn fields_say_what_the_form_shows() {
    let plain = load(SMALL);
    let token = &plain.fields()["token"];
    assert!(token.store && !token.oauth && token.help.is_none() && token.format.is_none());
    let more = "token = { help = \"Settings > API\", format = \"key {{token}}\", oauth = true, store = false, type = \"secret\"";
    let connector = load(&small_with(&[("token = { type = \"secret\"", more)]));
    let token = &connector.fields()["token"];
    assert!(!token.store && token.oauth);
    assert_eq!(token.help.as_deref(), Some("Settings > API"));
    assert_eq!(token.format.as_deref(), Some("key {{token}}"));
}
