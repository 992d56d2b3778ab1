//! Ways of paging, delta tokens, look-ups and fields in parts: whole walks over small servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{OriginalUri, Query};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use contacts::{ErrorKind, Micros};
use crm::{Client, CrmError, Page, Window};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{SMALL, client, load, serve, small_with};

type Params = Query<HashMap<String, String>>;

fn number(query: &Params, name: &str) -> Option<usize> {
    query.get(name)?.parse().ok()
}

fn rows(from: usize, to: usize) -> Vec<Value> {
    (from..to)
        .map(|id| json!({ "id": id + 1, "name": format!("Row {id}") }))
        .collect()
}

/// `SMALL` with another way of paging its contacts.
fn paged(page: &str, query: &str) -> String {
    small_with(&[
        ("{ after = \"${page.token}\" }", &format!("{{ {query} }}")),
        (
            "{ kind = \"token\", next = \"response.body.next\", max_pages = 50 }",
            page,
        ),
    ])
}

async fn walk(client: &Client) -> Result<Vec<String>, CrmError> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.full_page(cursor.as_ref()).await?;
        ids.extend(page.rows.iter().map(|row| row.contact.id.clone()));
        // A cursor lives in the store between slices.
        cursor = page
            .next
            .map(|next| serde_json::from_str(&next.to_string()).expect("a stored cursor"));
        if cursor.is_none() {
            return Ok(ids);
        }
    }
}

fn expected(count: usize) -> Vec<String> {
    (1..=count).map(|id| id.to_string()).collect()
}

/// What was asked for, in order.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, uri: &Uri) {
        self.0.lock().push(uri.query().unwrap_or_default().to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

#[tokio::test]
async fn pages_are_counted_from_either_number_and_end_in_each_way() {
    for count in [0, 1, 4, 5] {
        for (page, first) in [
            ("{ kind = \"page\", size = 2, more = \"response.body.more\" }", 1),
            ("{ kind = \"page\", size = 2, first = 0, stop = \"short_page\" }", 0),
            ("{ kind = \"page\", size = 2, stop = \"empty_page\" }", 1),
        ] {
            let answer = move |query: Params| async move {
                assert_eq!(number(&query, "size"), Some(2));
                let at = (number(&query, "page").expect("a number") - first) * 2;
                let found = rows(at.min(count), (at + 2).min(count));
                Json(json!({ "results": found, "more": at + 2 < count }))
            };
            let origin = serve(Router::new().route("/contacts", get(answer))).await;
            let source = paged(page, "page = \"${page.number}\", size = \"${page.size}\"");
            let found = walk(&client(load(&source), &origin)).await.expect("a walk");
            assert_eq!(found, expected(count), "{page}");
        }
    }
}

#[tokio::test]
async fn offsets_count_the_rows_that_came_and_end_in_each_way() {
    // The CRM gives fewer rows than it is asked for.
    const MOST: usize = 3;
    for page in [
        "{ kind = \"offset\", size = 5, total = \"response.body.total\" }",
        "{ kind = \"offset\", size = 5, more = \"response.body.total > 0 and response.body.results\" }",
        "{ kind = \"offset\", size = 5 }",
    ] {
        let answer = move |query: Params| async move {
            let at = number(&query, "offset").expect("an offset");
            Json(json!({ "results": rows(at.min(8), (at + MOST).min(8)), "total": 8 }))
        };
        let origin = serve(Router::new().route("/contacts", get(answer))).await;
        let source = paged(page, "offset = \"${page.offset}\"");
        assert_eq!(
            walk(&client(load(&source), &origin)).await.expect("a walk"),
            expected(8),
            "{page}"
        );
    }
}

#[tokio::test]
async fn a_total_that_is_wrong_neither_loses_rows_that_come_nor_asks_for_ever() {
    let answer = move |query: Params| async move {
        let at = number(&query, "offset").expect("an offset");
        Json(json!({ "results": rows(at.min(4), (at + 2).min(4)), "total": 1_000 }))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let source = paged(
        "{ kind = \"offset\", size = 2, total = \"response.body.total\" }",
        "offset = \"${page.offset}\"",
    );
    assert_eq!(
        walk(&client(load(&source), &origin)).await.expect("a walk"),
        expected(4)
    );
}

#[tokio::test]
async fn the_link_header_leads_on_and_stays_on_its_host() {
    let answer = |OriginalUri(uri): OriginalUri, query: Params, headers: HeaderMap| async move {
        let at = number(&query, "at").unwrap_or(0);
        let host = headers["host"].to_str().expect("a host").to_owned();
        let mut reply = HeaderMap::new();
        if at < 4 {
            let first = format!("<{}>; rel=\"first\"", uri.path());
            reply.append("link", first.parse().expect("a value"));
            let next = match at {
                0 => "</contacts?at=2>; rel=\"next\"; title=\"a, b\"".to_owned(),
                _ => format!("<http://{host}/contacts?at={}>; rel=next", at + 2),
            };
            reply.append("link", next.parse().expect("a value"));
        }
        (reply, Json(json!({ "results": rows(at, (at + 2).min(5)) })))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let source = paged("{ kind = \"link_header\" }", "x = \"1\"");
    assert_eq!(
        walk(&client(load(&source), &origin)).await.expect("a walk"),
        expected(5)
    );

    let astray = || async {
        (
            [("link", "<http://169.254.169.254/x>; rel=\"next\"")],
            Json(json!({ "results": rows(0, 1) })),
        )
    };
    let origin = serve(Router::new().route("/contacts", get(astray))).await;
    let error = walk(&client(load(&source), &origin)).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::HostRefused);
}

#[tokio::test]
async fn at_the_cap_page_numbers_go_over_to_a_token() {
    let asked = Asked::default();
    let seen = asked.clone();
    // Two pages by number, then tokens; both at once are an error, as at Zoho.
    let answer = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let at = match (number(&query, "page"), query.get("token")) {
            (Some(page), None) if page <= 2 => (page - 1) * 2,
            (None, Some(token)) => token.trim_start_matches('t').parse().expect("a token"),
            _ => return StatusCode::BAD_REQUEST.into_response(),
        };
        let more = at + 2 < 7;
        let token = more.then(|| format!("t{}", at + 2));
        Json(json!({ "results": rows(at, (at + 2).min(7)), "more": more, "token": token })).into_response()
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let page = "{ kind = \"page\", size = 2, more = \"response.body.more\", cap = 4, at_cap = \"token\", next = \"response.body.token\" }";
    let source = paged(page, "page = \"${page.number}\", token = \"${page.token}\"");
    assert_eq!(
        walk(&client(load(&source), &origin)).await.expect("a walk"),
        expected(7)
    );
    assert_eq!(asked.all(), ["page=1", "page=2", "token=t4", "token=t6"]);
}

#[tokio::test]
async fn at_the_cap_without_a_token_the_walk_fails_and_loses_nobody_in_silence() {
    let answer = |query: Params| async move {
        let at = (number(&query, "page").expect("a number") - 1) * 2;
        Json(json!({ "results": rows(at, at + 2), "more": true }))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let page = "{ kind = \"page\", size = 2, more = \"response.body.more\", cap = 4, at_cap = \"token\", next = \"response.body.token\" }";
    let source = paged(page, "page = \"${page.number}\", token = \"${page.token}\"");
    let error = walk(&client(load(&source), &origin)).await.expect_err("there is more");
    assert_eq!(error.kind, ErrorKind::BadReply);
}

#[tokio::test]
async fn at_the_cap_a_new_query_begins_behind_the_last_row() {
    let asked = Asked::default();
    let seen = asked.clone();
    // A search that gives four rows of a query at most, two a page, in the order of ids.
    let answer = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let above = number(&query, "above").unwrap_or(0);
        let after = number(&query, "after").unwrap_or(0);
        if after >= 4 {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let at = (above + after).min(9);
        let next = (at + 2 < 9).then(|| (after + 2).to_string());
        Json(json!({ "results": rows(at, (at + 2).min(9)), "next": next })).into_response()
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let page = "{ kind = \"token\", next = \"response.body.next\", size = 2, cap = 4, at_cap = \"keyset\", keys = [\"item.id\"] }";
    let source = paged(page, "above = \"${page.keys[0]}\", after = \"${page.token}\"");
    assert_eq!(
        walk(&client(load(&source), &origin)).await.expect("a walk"),
        expected(9)
    );
    assert_eq!(
        asked.all(),
        ["", "after=2", "above=4", "above=4&after=2", "above=8"],
        "each query meets its cap once"
    );
}

fn window(since: u64, until: u64) -> Window {
    Window {
        since: Micros::from_secs(since),
        until: Micros::from_secs(until),
    }
}

fn changes(rest: &str) -> String {
    format!(
        "{SMALL}updated = \"item.at\"\nupdated_as = \"epoch_s\"\n[contacts.changes]\nitems = \"response.body.results\"\n{rest}\n"
    )
}

async fn changed(
    client: &Client,
    window: Window,
    token: Option<&Value>,
) -> Result<(Vec<String>, Option<Value>), CrmError> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let Page { rows, next, delta, .. } = client.changes_page(window, token, cursor.as_ref()).await?;
        ids.extend(rows.into_iter().map(|row| match row.removed {
            true => format!("-{}", row.contact.id),
            false => row.contact.id,
        }));
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok((ids, delta)),
        }
    }
}

#[tokio::test]
async fn a_delta_stream_begins_with_a_time_and_goes_on_with_its_token() {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let at = number(&query, "cursor").unwrap_or(0);
        let gone = json!({ "id": at + 1, "at": 50, "active": at % 4 != 2, "name": "x" });
        Json(json!({ "results": [gone], "after": (at + 1).to_string(), "end": (at + 1).is_multiple_of(3) }))
    };
    let origin = serve(Router::new().route("/incremental", get(answer))).await;
    let source = changes(
        "request = { path = \"/incremental\", query = { start = \"${since.epoch_s}\", cursor = \"${page.token or since.token}\" } }\n\
         page = { kind = \"token\", next = \"response.body.after\", more = \"not response.body.end\" }\n\
         cursor = { kind = \"delta\", token = \"response.body.after\" }\n\
         since = { wire = \"epoch_s\", precision = \"1s\", overlap = \"1m\" }\n\
         [[contacts.deleted]]\nmode = \"delta\"\nwhen = \"item.active == false\"",
    );
    let client = client(load(&source), &origin);
    let (first, token) = changed(&client, window(1_000, 2_000), None).await.expect("a pass");
    assert_eq!(
        (first, &token),
        (["1", "2", "-3"].map(str::to_owned).to_vec(), &Some(json!("3")))
    );
    let (second, token) = changed(&client, window(1_900, 3_000), token.as_ref())
        .await
        .expect("the next pass");
    assert_eq!(
        (second, token),
        (["4", "5", "6"].map(str::to_owned).to_vec(), Some(json!("6")))
    );
    let asked = asked.all();
    assert_eq!(asked[0], "start=1000", "{asked:?}");
    assert_eq!(asked[3], "cursor=3", "a token takes the place of the time: {asked:?}");
}

#[tokio::test]
async fn a_delta_link_of_the_full_pass_is_called_as_it_is() {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |OriginalUri(uri): OriginalUri, query: Params, headers: HeaderMap| async move {
        seen.note(&uri);
        assert_eq!(headers["prefer"], "odata.track-changes", "on every page");
        match (query.get("deltatoken").map(String::as_str), query.get("skip")) {
            (None, None) => Json(json!({ "results": rows(0, 2), "next": "/contacts?skip=2" })),
            (None, Some(_)) => Json(json!({ "results": rows(2, 3), "delta": "/contacts?deltatoken=d1%2B" })),
            (Some("d1+"), _) => {
                Json(json!({ "results": [{ "gone": "2", "reason": "deleted" }], "delta": "/contacts?deltatoken=d2" }))
            }
            (Some(_), _) => Json(json!({ "results": [], "delta": "http://169.254.169.254/contacts?deltatoken=d3" })),
        }
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let cursor = "cursor = { kind = \"delta\", token = \"response.body.delta\", is_url = true, lifetime = \"7d\" }";
    let source = small_with(&[
        (
            "query = { after = \"${page.token}\" }",
            "headers = { Prefer = \"odata.track-changes\" }",
        ),
        (
            "page = { kind = \"token\", next = \"response.body.next\", max_pages = 50 }",
            &format!("page = {{ kind = \"next_url\", next = \"response.body.next\" }}\n{cursor}"),
        ),
    ]);
    let source = format!(
        "{source}updated = \"item.at\"\n[contacts.changes]\nitems = \"response.body.results\"\n\
         request = {{ path = \"/contacts\", headers = {{ Prefer = \"odata.track-changes\" }} }}\n\
         page = {{ kind = \"next_url\", next = \"response.body.next\" }}\n{cursor}\n\
         [[contacts.deleted]]\nmode = \"delta\"\nwhen = \"item.reason == 'deleted'\"\nid = \"item.gone\"\n"
    );
    let connector = load(&source);
    let delta = connector.delta().expect("it goes by deltas");
    assert_eq!(
        (delta.lifetime, delta.begins_with_time),
        (Some(Duration::from_secs(7 * 86_400)), false)
    );
    let client = client(connector, &origin);

    let error = changed(&client, window(1, 2), None)
        .await
        .expect_err("nothing to begin with");
    assert_eq!(error.kind, ErrorKind::CursorStuck);
    let first = client.full_page(None).await.expect("a page");
    assert_eq!(first.delta, None, "only the end of the pass has one");
    let last = client.full_page(first.next.as_ref()).await.expect("the last page");
    let (gone, token) = changed(&client, window(1, 2), last.delta.as_ref())
        .await
        .expect("a delta");
    assert_eq!(gone, ["-2"]);
    let (none, astray) = changed(&client, window(1, 2), token.as_ref()).await.expect("another");
    assert!(none.is_empty());
    let error = changed(&client, window(1, 2), astray.as_ref())
        .await
        .expect_err("another host");
    assert_eq!(error.kind, ErrorKind::HostRefused);
    assert_eq!(asked.all(), ["", "skip=2", "deltatoken=d1%2B", "deltatoken=d2"]);
}

#[tokio::test]
async fn newest_first_is_read_until_older_than_the_mark() {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let page = number(&query, "page").expect("a number") as u64;
        let row = |back: u64| json!({ "id": 100 - back, "at": 1_000 - back * 10, "name": "x" });
        let from = (page - 1) * 3;
        Json(json!({ "results": (from..from + 3).map(row).collect::<Vec<_>>() }))
    };
    let origin = serve(Router::new().route("/changes", get(answer))).await;
    let source = changes(
        "request = { path = \"/changes\", query = { page = \"${page.number}\" } }\norder = \"desc\"\n\
         page = { kind = \"page\", size = 3 }\nsince = { wire = \"epoch_s\", precision = \"1s\", overlap = \"1m\" }",
    );
    let client = client(load(&source), &origin);
    let (ids, _) = changed(&client, window(955, 2_000), None).await.expect("a pass");
    assert_eq!(ids, ["100", "99", "98", "97", "96"]);
    assert_eq!(asked.all(), ["page=1", "page=2"]);
}

#[tokio::test]
async fn the_change_pass_over_all_time_is_the_full_pass() {
    let answer = |query: Params| async move {
        let (since, until) = (
            number(&query, "since").expect("since"),
            number(&query, "until").expect("until"),
        );
        let found = json!([{ "id": 1, "at": since, "name": "x" }]);
        Json(json!({ "results": if until > 1_700_000_000 { found } else { json!([]) } }))
    };
    let origin = serve(Router::new().route("/changes", get(answer))).await;
    let source = changes(
        "request = { path = \"/changes\", query = { since = \"${since.wire}\", until = \"${until.wire}\" } }\n\
         page = { kind = \"none\" }\nsince = { wire = \"epoch_s\", precision = \"1s\", overlap = \"1m\" }",
    );
    let from = "[contacts.full]\nrequest = { path = \"/contacts\", query = { after = \"${page.token}\" } }\nitems = \"response.body.results\"\n\
                page = { kind = \"token\", next = \"response.body.next\", max_pages = 50 }\n";
    assert!(source.contains(from));
    let source = source.replace(from, "[contacts.full]\nsame_as = \"contacts.changes\"\n");
    let page = client(load(&source), &origin).full_page(None).await.expect("a page");
    assert_eq!((page.rows.len(), page.rows[0].updated), (1, Micros::ZERO));
}

#[tokio::test]
async fn whole_days_are_those_of_the_crms_time_zone() {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |OriginalUri(uri): OriginalUri| async move {
        seen.note(&uri);
        Json(json!({ "results": [] }))
    };
    let me = || async { Json(json!({ "org": 1, "user": 2, "plan": "America/Los_Angeles" })) };
    let origin = serve(Router::new().route("/changes", get(answer)).route("/me", get(me))).await;
    // The zone is what the check learned; `>` begins with the day after the one that is named.
    let source = changes(
        "request = { path = \"/changes\", query = { a = \"${since.wire}\", b = \"${until.wire}\", day = \"${since.epoch_s}\" } }\n\
         page = { kind = \"none\" }\n\
         since = { wire = \"%Y-%m-%d %H:%M\", tz = \"${conn.plan}\", precision = \"1d\", inclusive = false, overlap = \"2d\" }",
    );
    let connector = load(&source);
    // 2026-11-01 is the day on which summer time ends there: it has 25 hours.
    let since = Micros::parse("2026-11-02T07:30:00Z").expect("a time");
    let until = Micros::parse("2026-11-02T08:30:00Z").expect("a time");
    let learned = crate::support::client_with(
        connector,
        &origin,
        &[("plan", "America/Los_Angeles")],
        crm::ClientSettings::default(),
        crm::Pacer::unlimited(),
    )
    .expect("a client");
    learned
        .changes_page(Window { since, until }, None, None)
        .await
        .expect("a page");
    assert_eq!(
        asked.all(),
        ["a=2026-10-31+00%3A00&b=2026-11-03+00%3A00&day=1793430000"],
        "half past eleven at night of the first, the day before it, and the end of the second"
    );
}

#[tokio::test]
async fn what_stands_in_other_records_is_looked_up_in_one_call_and_remembered() {
    let asked = Asked::default();
    let seen = asked.clone();
    let orgs = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let ids = query.get("ids").cloned().unwrap_or_default();
        let known = ids
            .split(',')
            .filter(|id| *id != "9")
            .map(|id| json!({ "id": id, "name": format!("Org {id}") }));
        Json(json!({ "results": known.collect::<Vec<_>>() }))
    };
    let contacts = || async {
        let row = |id: u32, org: Value| json!({ "id": id, "name": "x", "org": org });
        let rows = [
            row(1, json!(5)),
            row(2, json!(6)),
            row(3, json!(5)),
            row(4, json!(null)),
            row(5, json!(9)),
            row(6, json!(7)),
        ];
        Json(json!({ "results": rows }))
    };
    let origin = serve(
        Router::new()
            .route("/contacts", get(contacts))
            .route("/orgs", get(orgs)),
    )
    .await;
    let source = small_with(&[(
        "[contacts.map]",
        "[[contacts.lookups]]\nas = \"company\"\nof = \"item.org|string\"\nmax = 3\nitems = \"response.body.results\"\nkey = \"item.id\"\n\
         value = \"item.name\"\nrequest = { path = \"/orgs\", query = { ids = \"${keys|join(',')}\" } }\n\
         [contacts.map]\ncompany = \"lookup.company\"",
    )]);
    let client = client(load(&source), &origin);
    for _ in 0..2 {
        let page = client.full_page(None).await.expect("a page");
        let companies: Vec<Option<&str>> = page.rows.iter().map(|row| row.contact.company.as_deref()).collect();
        assert_eq!(
            companies,
            [Some("Org 5"), Some("Org 6"), Some("Org 5"), None, None, Some("Org 7")]
        );
    }
    assert_eq!(
        asked.all(),
        ["ids=5%2C6%2C7", "ids=9"],
        "four keys, three a call, and none twice"
    );
}

#[tokio::test]
async fn more_fields_than_a_request_takes_are_asked_for_in_parts_and_joined() {
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |OriginalUri(uri): OriginalUri, query: Params| async move {
        seen.note(&uri);
        let fields = query.get("fields").cloned().unwrap_or_default();
        let row = |id: u32| {
            let mut row = json!({ "id": id, "more": {} });
            for field in fields.split(',') {
                row[field] = json!(format!("{field} {id}"));
                row["more"][field] = json!(id);
            }
            row
        };
        // The other part comes in another order.
        let ids = if fields.contains("name") { [1, 2] } else { [2, 1] };
        Json(json!({ "results": ids.map(row) }))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let source = small_with(&[
        (
            "[contacts.full]",
            "[contacts]\nprops = [\"name\", \"title\", \"company\", \"street\", \"web\"]\nprops_chunk = 2\n[contacts.full]",
        ),
        ("after = \"${page.token}\"", "fields = \"${props|join(',')}\""),
        (
            "phones = \"item.phones\"",
            "title = \"item.title\"\ncompany = \"item.company\"\naddress = \"item.street ~ item.more.web\"",
        ),
    ]);
    let page = client(load(&source), &origin).full_page(None).await.expect("a page");
    let second = &page.rows[1].contact;
    assert_eq!(
        (second.name.as_str(), second.title.as_deref(), second.company.as_deref()),
        ("name 2", Some("title 2"), Some("company 2"))
    );
    assert_eq!(second.address.as_deref(), Some("street 22"));
    assert_eq!(
        asked.all(),
        ["fields=name%2Ctitle", "fields=company%2Cstreet", "fields=web"]
    );
}

#[tokio::test]
async fn a_row_that_went_between_two_parts_is_no_row_with_empty_fields() {
    let answer = |query: Params| async move {
        let all = query.get("fields").is_some_and(|fields| fields.contains("name"));
        Json(json!({ "results": if all { rows(0, 2) } else { rows(0, 1) } }))
    };
    let origin = serve(Router::new().route("/contacts", get(answer))).await;
    let source = small_with(&[
        (
            "[contacts.full]",
            "[contacts]\nprops = [\"name\", \"title\"]\nprops_chunk = 1\n[contacts.full]",
        ),
        ("after = \"${page.token}\"", "fields = \"${props|join(',')}\""),
    ]);
    let error = client(load(&source), &origin)
        .full_page(None)
        .await
        .expect_err("read again");
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

/// A contact that is fetched by an address of its own is gone if the API says so, and not if anybody else does.
#[tokio::test]
async fn a_page_that_is_not_the_apis_proves_no_deletion() {
    let html = [("content-type", "text/html")];
    let json = [("content-type", "application/json")];
    let routes = Router::new()
        .route(
            "/contacts/1",
            get(|| async { Json(json!({ "id": "1", "name": "Ada" })) }),
        )
        .route("/contacts/2", get(|| async { StatusCode::NOT_FOUND }))
        .route(
            "/contacts/3",
            get(move || async move { (StatusCode::NOT_FOUND, json, r#"{"error": "no such contact"}"#) }),
        )
        .route(
            "/contacts/4",
            get(move || async move { (StatusCode::NOT_FOUND, html, "<h1>There is no helpdesk here</h1>") }),
        )
        .route(
            "/contacts/5",
            get(move || async move { (StatusCode::GONE, json, r#"{"error": "no su"#) }),
        );
    let origin = serve(routes).await;
    let one_by_one = "[contacts.get_many]\nmax = 1\nrequest = { path = \"/contacts/${ids[0]}\" }\nitems = \"[response.body]\"\n\
                      missing_means_deleted = true\n\n[contacts.map]";
    let connector = load(&small_with(&[("[contacts.map]", one_by_one)]));
    let client = client(connector, &origin);
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let many = client.get_many(&ids(&["1", "2", "3"])).await.expect("an answer");
    assert_eq!(many.missing, ids(&["2", "3"]));
    assert_eq!(many.page.rows.len(), 1);
    for id in ["4", "5"] {
        let error = client.get_many(&ids(&[id])).await.expect_err("no proof");
        assert_eq!(error.kind, ErrorKind::BadReply, "{id}: {error}");
    }
}
