//! What expressions can do, seen through a mapping.

use crate::support::{client, load, serve, small_with};
use axum::Json;
use axum::routing::get;
use serde_json::{Value, json};

/// The name that `expression` gives for a row.
async fn name_of(expression: &str, row: Value) -> String {
    let quoted = format!("name = {}", serde_json::to_string(expression).unwrap());
    let connector = load(&small_with(&[("name = \"item.name\"", &quoted)]));
    let reply = json!({ "results": [row] });
    let origin = serve(axum::Router::new().route("/contacts", get(move || async move { Json(reply) }))).await;
    let page = client(connector, &origin).full_page(None).await.expect("a page");
    page.rows[0].contact.name.clone()
}

#[tokio::test]
async fn the_expressions_of_the_worked_examples_give_what_they_say() {
    let row = json!({
        "id": 7, "first": "Ada", "last": false, "mails": "a@x.test; b@x.test;", "parent": [3, "Acme, Inc."],
        "list": [{"v": {"w": "x"}}, {"v": {"w": "y"}}, {}], "zip": "", "city": null, "quote": "O'Hara \\ \"x\"",
    });
    for (expression, expected) in [
        ("[item.first, item.last]|compact|join(' ')", "Ada"),
        ("item.mails|split(';')|compact|last", "b@x.test"),
        ("item.parent|label", "Acme, Inc."),
        ("item.last|label or 'none'", "none"),
        ("item.list|map(attribute='v.w')|compact|join('+')", "x+y"),
        ("['b', 'a', 'b', 1, '1']|unique|join(',')", "b,a,1,1"),
        ("[['a'], 'b', []]|flatten|join(',')", "a,b"),
        (
            "[item.zip, item.city, item.nowhere.deeper]|compact|join(' ') or 'empty'",
            "empty",
        ),
        ("item.id|string ~ '/' ~ (item.id|int)", "7/7"),
        ("item.quote|soql", r#"'O\'Hara \\ "x"'"#),
        ("item.quote|odata", r#"'O''Hara \ "x"'"#),
        (
            "'yes' if item.first is startingwith('A') and item.nowhere is not defined else 'no'",
            "yes",
        ),
        ("item.first|lower ~ item.first|upper ~ (' x '|trim)", "adaADAx"),
        ("(item.list|first|put(v='z', id=item.nowhere)).v", "z"),
        ("'kept' if (item.list|first|put(id=1)).v.w == 'x'", "kept"),
        ("((item.mails ~ '12 3-4')|digits)[-3:]|split('')|join('%')", "2%3%4"),
        ("(item.nowhere|put(id='new', v=item.nowhere)).id", "new"),
        ("'none' if (item.city|put(v=item.nowhere)).v is not defined", "none"),
    ] {
        assert_eq!(name_of(expression, row.clone()).await, expected, "{expression}");
    }
}

#[tokio::test]
async fn a_contact_without_a_name_gets_one() {
    for (row, expected) in [
        (
            json!({"id": "1", "name": "  ", "phones": ["+351211234567"]}),
            "+351211234567",
        ),
        (json!({"id": "1", "name": null, "phones": ["junk"]}), "Unknown (1)"),
        (json!({"id": "1", "name": ["a", "list"]}), "Unknown (1)"),
        (json!({"id": "1", "name": "x".repeat(300)}), &"x".repeat(255)),
    ] {
        assert_eq!(name_of("item.name", row).await, expected);
    }
}

#[test]
fn there_is_no_way_out_of_the_language() {
    for (expression, why) in [
        ("range(100000)", "there are no functions"),
        ("item.name.upper()", "there are no functions"),
        ("item.name * 100000000", "`*` is not part"),
        ("item.name|tojson", "unknown filter `tojson`"),
        ("item.name is divisibleby(3)", "unknown test `divisibleby`"),
        ("'x' if item.a else item.b|nosuch", "unknown filter `nosuch`"),
        ("loop.index", "`loop` is not known"),
        ("item.name ||", "unknown filter"),
        ("", "an expression is empty"),
    ] {
        let quoted = format!("name = {}", serde_json::to_string(expression).unwrap());
        let problems = crm::Connector::load(&small_with(&[("name = \"item.name\"", &quoted)]), "x.toml").unwrap_err();
        let text = crate::support::listed(&problems);
        assert!(text.contains(why), "{expression}: {text}");
    }
}
