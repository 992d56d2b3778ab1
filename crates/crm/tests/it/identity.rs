//! The canonical form of `auth`: what is the same stays the same, what differs never meets.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::support::{fields, load, small_with};

fn connector() -> crm::Connector {
    load(&small_with(&[(
        "token = { type = \"secret\" }",
        "token = { type = \"secret\" }\ndb = { type = \"string\", role = \"locator\" }\n\
         login = { type = \"string\", role = \"principal\" }\nhint = { type = \"string\", role = \"ignored\" }\n\
         pace = { type = \"int\", from = \"integration\", default = \"1\" }",
    )]))
}

#[test]
fn spelling_of_the_site_and_ignored_fields_change_nothing() {
    let connector = connector();
    let base = fields(&[
        ("site", "https://acme.example"),
        ("db", "crm"),
        ("login", "ada"),
        ("token", "t"),
    ]);
    let expected = connector.canonical(&base);
    assert_eq!(expected.locator, "crm|https://acme.example");
    assert_eq!(expected.principal, "ada");
    for (name, value) in [
        ("site", "ACME.example/web"),
        ("hint", "x"),
        ("unknown", "x"),
        ("pace", "9"),
    ] {
        let mut other = base.clone();
        other.insert(name.to_owned(), value.to_owned());
        assert!(connector.canonical(&other) == expected, "{name}");
    }
    for (name, value) in [
        ("site", "acme2.example"),
        ("db", "CRM"),
        ("login", "Ada"),
        ("token", "t "),
        ("token", ""),
    ] {
        let mut other = base.clone();
        other.insert(name.to_owned(), value.to_owned());
        assert!(
            connector.canonical(&other).fingerprint_input != expected.fingerprint_input,
            "{name}"
        );
    }
    let mut without = base.clone();
    without.remove("token");
    assert!(connector.canonical(&without).fingerprint_input != expected.fingerprint_input);
}

#[test]
fn debug_output_holds_no_secret() {
    let canonical = connector().canonical(&fields(&[("token", "very-secret"), ("db", "crm")]));
    assert!(!format!("{canonical:?}").contains("very-secret"));
    let connection = crm::Connection {
        fields: fields(&[("token", "very-secret")]),
        region: None,
    };
    assert!(!format!("{connection:?}").contains("very-secret"));
}

fn auth() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop_oneof![Just(String::new()), "[a-b|%=:\u{0}]{0,4}", ".{0,6}"];
    prop::collection::btree_map(prop::sample::select(vec!["db", "login", "token"]), value, 0..4)
        .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

proptest! {
    #[test]
    fn different_auth_never_has_the_same_canonical_form(a in auth(), b in auth()) {
        let connector = connector();
        let (ca, cb) = (connector.canonical(&a), connector.canonical(&b));
        // Locators are trimmed; everything else counts to the byte.
        let plain = |auth: &BTreeMap<String, String>| {
            let mut auth = auth.clone();
            if let Some(db) = auth.get_mut("db") { *db = db.trim().to_owned(); }
            auth
        };
        prop_assert_eq!(plain(&a) == plain(&b), ca.fingerprint_input == cb.fingerprint_input);
    }
}
