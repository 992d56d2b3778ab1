//! What an integration changes of a connector: other expressions, further fields, a filter.

use axum::extract::RawQuery;
use axum::routing::get;
use axum::{Json, Router};
use crm::{Adjustments, Connector, Page};
use serde_json::{Value, json};

use crate::support::{client, load, serve, small_with};

fn adjustments(map: &[(&str, &str)], filter: Option<&str>) -> Adjustments {
    Adjustments {
        map: map
            .iter()
            .map(|(field, text)| ((*field).to_owned(), (*text).to_owned()))
            .collect(),
        props: Vec::new(),
        filter: filter.map(str::to_owned),
    }
}

fn adjusted(source: &str, adjustments: &Adjustments) -> Connector {
    let mut connector = load(source);
    if let Err(problems) = connector.adjust(adjustments) {
        panic!("{}", problems.join("\n"));
    }
    connector
}

fn rows() -> Value {
    json!([
        { "id": 1, "name": "Ada", "phones": ["+351211234567"], "tier": "gold", "owner": "7" },
        { "id": 2, "name": "Bob", "phones": [], "tier": "silver", "owner": "7" },
        { "id": 3, "name": "Cyd", "phones": ["+351217654321"], "owner": "8" },
    ])
}

async fn page(connector: Connector) -> Page {
    let answer = || async { Json(json!({ "results": rows() })) };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    client(connector, &origin).full_page(None).await.expect("a page")
}

fn wanted(page: &Page) -> Vec<&str> {
    let rows = page.rows.iter().filter(|row| !row.unwanted);
    rows.map(|row| row.contact.id.as_str()).collect()
}

#[tokio::test]
async fn an_expression_of_the_integration_takes_the_place_of_the_connectors() {
    let small = small_with(&[]);
    let plain = page(load(&small)).await;
    assert_eq!(plain.rows[0].contact.title, None);
    let changes = adjustments(&[("title", "item.tier"), ("company", "'Owner ' ~ item.owner")], None);
    let changed = page(adjusted(&small, &changes)).await;
    let titles: Vec<Option<&str>> = changed.rows.iter().map(|row| row.contact.title.as_deref()).collect();
    assert_eq!(titles, [Some("gold"), Some("silver"), None]);
    assert_eq!(changed.rows[2].contact.company.as_deref(), Some("Owner 8"));
    assert_eq!(changed.rows[0].contact.name, "Ada", "what is not changed stays");
}

#[tokio::test]
async fn a_filter_sees_the_row_and_the_mapped_contact_and_is_counted() {
    let small = small_with(&[]);
    for (filter, expected) in [
        ("contact.phones", vec!["1", "3"]),
        ("item.owner == '7'", vec!["1", "2"]),
        ("contact.phones and item.tier == 'gold'", vec!["1"]),
        ("contact.name != ''", vec!["1", "2", "3"]),
    ] {
        let page = page(adjusted(&small, &adjustments(&[], Some(filter)))).await;
        assert_eq!(wanted(&page), expected, "{filter}");
        let left_out = page.dropped.get("unwanted").copied().unwrap_or(0);
        assert_eq!(left_out as usize, 3 - expected.len(), "{filter}");
        assert!(page.rows.iter().all(|row| !row.removed));
    }
}

#[tokio::test]
async fn a_contact_that_is_gone_is_gone_and_not_unwanted() {
    let source = small_with(&[(
        "[contacts.map]",
        "[[contacts.deleted]]\nmode = \"flag\"\nwhen = \"item.owner == '8'\"\n\n[contacts.map]",
    )]);
    let page = page(adjusted(&source, &adjustments(&[], Some("item.tier == 'gold'")))).await;
    let flags: Vec<(bool, bool)> = page.rows.iter().map(|row| (row.removed, row.unwanted)).collect();
    assert_eq!(flags, [(false, false), (false, true), (true, false)]);
}

#[tokio::test]
async fn further_fields_are_asked_for() {
    let source = small_with(&[
        ("[contacts.full]", "[contacts]\nprops = [\"name\"]\n\n[contacts.full]"),
        ("after = \"${page.token}\"", "fields = \"${props|join(',')}\""),
    ]);
    let changes = Adjustments {
        props: vec!["tier".to_owned(), "name".to_owned()],
        ..Adjustments::default()
    };
    let answer = |RawQuery(query): RawQuery| async move {
        let fields = query.unwrap_or_default();
        Json(json!({ "results": [{ "id": 1, "name": fields }] }))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let page = client(adjusted(&source, &changes), &origin)
        .full_page(None)
        .await
        .expect("a page");
    assert_eq!(page.rows[0].contact.name, "fields=name%2Ctier");
}

#[test]
fn what_is_wrong_is_told_all_at_once_and_nothing_is_changed() {
    let mut connector = load(&small_with(&[]));
    let mut wrong = adjustments(
        &[
            ("titel", "item.tier"),
            ("id", "item.other"),
            ("company", "item.("),
            ("name", "conn.token"),
            ("address", "itme.street"),
        ],
        Some("contact.phone"),
    );
    wrong.props = vec!["tier".to_owned()];
    let problems = connector.adjust(&wrong).expect_err("refused");
    let all = problems.join("\n");
    for part in [
        "map.titel: no such field of a contact (did you mean `title`?)",
        "map.id: no such field",
        "map.company: `item.(` is not an expression",
        "map.name: ",
        "map.address: ",
        "filter: ",
        "props: the connector asks for no fields by name",
    ] {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
    assert_eq!(problems.len(), 7, "{all}");
}
