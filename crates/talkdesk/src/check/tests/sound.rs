//! Other ways of paging that keep the contract: no errors, whatever is recommended against.

use super::*;

/// A contact's second, which four share, and its number.
fn rows() -> Vec<(u64, u64)> {
    (0..60)
        .map(|number| (1_700_000_000 + number / 4 * 10, number))
        .collect()
}

fn contacts(rows: &[(u64, u64)]) -> Vec<Value> {
    let contact = |(_, number): &(u64, u64)| json!({"id": number.to_string(), "name": format!("C {number}")});
    rows.iter().map(contact).collect()
}

/// A contact sync that refuses wrong credentials and hands the rest to `answer`.
async fn start(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Server {
    Server::of(move |_, body| {
        if body["auth"] != json!({"account": ACCOUNT, "token": TOKEN}) {
            return error(401, "no");
        }
        match answer(&body["meta"]) {
            Some(page) => reply(200, &page),
            None => error(400, "malformed"),
        }
    })
    .await
}

fn text(time: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(time).unwrap())
        .unwrap()
        .to_string()
}

fn time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

async fn no_errors(server: &Server) -> Report {
    let report = checked(server.plan()).await;
    assert_eq!((report.errors, &report.could_not_run), (0, &None), "{}", report.text());
    assert_eq!(report.contacts, 60);
    report
}

/// Page numbers count from the checkpoint beside them, and `context` must come back.
#[tokio::test]
async fn page_numbers_as_offsets() {
    let server = start(|meta| {
        let since = match &meta["synchronization_checkpoint"] {
            Value::Null => 0,
            text => time(text.as_str()?)?,
        };
        let number: usize = match &meta["offset"] {
            Value::Null => 1,
            text => text.as_str()?.parse().ok()?,
        };
        if number > 1 && meta["context"]["page"] != json!(number) {
            return None;
        }
        // One a second, so that nothing is tied.
        let rows: Vec<_> = (0..60).map(|number| (1_700_000_000 + number, number)).collect();
        let rows: Vec<_> = rows.into_iter().filter(|(time, _)| *time > since).collect();
        let page = rows.chunks(8).nth(number - 1).unwrap_or_default();
        let until = page.last().map_or(since, |(time, _)| *time);
        let mut answer = json!({"contacts": contacts(page), "synchronization_checkpoint": text(until)});
        if rows.len() > number * 8 {
            answer["next_offset"] = json!((number + 1).to_string());
            answer["context"] = json!({"page": number + 1});
        }
        Some(answer)
    })
    .await;
    let report = no_errors(&server).await;
    assert!(
        report.broken().is_superset(&["offset.alone", "context.needed"].into()),
        "{}",
        report.text()
    );
}

/// Whole seconds, which several contacts share: those of the checkpoint's second come again.
#[tokio::test]
async fn a_date_as_checkpoint_with_repeats_of_the_same_second() {
    let server = start(|meta| {
        let since = match &meta["synchronization_checkpoint"] {
            Value::Null => 0,
            text => time(text.as_str()?)?,
        };
        let skip: usize = match &meta["offset"] {
            Value::Null => 0,
            text => text.as_str()?.parse().ok()?,
        };
        let rows: Vec<_> = rows().into_iter().filter(|(time, _)| *time >= since).collect();
        let page = &rows[skip.min(rows.len())..(skip + 7).min(rows.len())];
        let until = page.last().map_or(since, |(time, _)| *time);
        let mut answer =
            json!({"contacts": contacts(page), "synchronization_checkpoint": text(until), "context": null});
        if rows.len() > skip + 7 {
            answer["next_offset"] = json!((skip + 7).to_string());
        }
        Some(answer)
    })
    .await;
    let _ = no_errors(&server).await;
    // The repeats are there, and would be seen if they were not allowed.
    let mut plan = server.plan();
    plan.limits.ties = 0;
    let report = checked(plan).await;
    assert!(
        report.errors == 1 && report.broken().contains("checkpoint.repeats"),
        "{}",
        report.text()
    );
}

/// Opaque cursors that hold everything, an overlap of 20 seconds, and no context anywhere.
#[tokio::test]
async fn cursors_without_context_and_an_overlap() {
    let server = start(|meta| {
        let key = |text: &Value| -> Option<(u64, u64)> {
            let (time, number) = text.as_str()?.split_once('/')?;
            Some((time.parse().ok()?, number.parse().ok()?))
        };
        let after = match (&meta["offset"], &meta["synchronization_checkpoint"]) {
            (Value::Null, Value::Null) => (0, 0),
            (Value::Null, checkpoint) => (key(checkpoint).map_or(0, |(time, _)| time - 20), 0),
            (offset, _) => key(offset)?,
        };
        let rows: Vec<_> = rows()
            .into_iter()
            .filter(|row| *row > after || after == (0, 0))
            .collect();
        let page = &rows[..rows.len().min(9)];
        let until = page.last().unwrap_or(&after);
        let token = format!("{}/{}", until.0, until.1);
        let mut answer = json!({"contacts": contacts(page), "synchronization_checkpoint": token});
        if rows.len() > 9 {
            answer["next_offset"] = json!(token);
        }
        Some(answer)
    })
    .await;
    let report = no_errors(&server).await;
    assert!(!report.broken().contains("offset.alone"), "{}", report.text());
}

/// No paging at all.
#[tokio::test]
async fn everything_on_one_page() {
    let server = start(|meta| {
        let since: u64 = match &meta["synchronization_checkpoint"] {
            Value::Null => 0,
            text => text.as_str()?.parse().ok()?,
        };
        let rows: Vec<_> = (1..=60).map(|number| (number, number)).collect();
        let rows: Vec<_> = rows.into_iter().filter(|(place, _)| *place > since).collect();
        let until = rows.last().map_or(since, |(place, _)| *place);
        Some(json!({"contacts": contacts(&rows), "synchronization_checkpoint": until.to_string()}))
    })
    .await;
    let report = no_errors(&server).await;
    assert_eq!(report.not_checked.len(), 1, "{}", report.text());
}

/// What is got wrong in earnest: the order, the comparison, the clock.
#[tokio::test]
async fn well_known_mistakes_are_told() {
    type Rows = [(u64, u64)];
    type Checkpoint = fn(&Rows) -> u64;
    type Newer = fn(u64, u64) -> bool;
    let last: Checkpoint = |page| page.last().unwrap().0;
    let newest: Checkpoint = |page| page.iter().map(|(time, _)| *time).max().unwrap();
    let now: Checkpoint = |_| 1_800_000_000;
    let after: Newer = |time, since| time > since;
    let from: Newer = |time, since| time >= since;
    let mistakes: [(Checkpoint, Newer, bool, &str); 5] = [
        // The rest of a second that a page was cut in never comes.
        (last, after, false, "checkpoint.loses"),
        (now, from, false, "checkpoint.loses"),
        (newest, from, true, "checkpoint.loses"),
        // The oldest contact of all, as the last one delivered.
        (last, from, true, "checkpoint.repeats"),
        (|_| 0, from, false, "checkpoint.repeats"),
    ];
    for (index, (checkpoint, newer, newest_first, rule)) in mistakes.into_iter().enumerate() {
        let server = start(move |meta| {
            let since = meta["synchronization_checkpoint"].as_str().map_or(Some(0), time)?;
            let skip: usize = meta["offset"].as_str().map_or(Some(0), |text| text.parse().ok())?;
            let mut rows: Vec<_> = rows().into_iter().filter(|(time, _)| newer(*time, since)).collect();
            if newest_first {
                rows.reverse();
            }
            let page = &rows[skip.min(rows.len())..(skip + 7).min(rows.len())];
            let until = if page.is_empty() { since } else { checkpoint(page) };
            let mut answer = json!({"contacts": contacts(page), "synchronization_checkpoint": text(until)});
            if rows.len() > skip + 7 {
                answer["next_offset"] = json!((skip + 7).to_string());
            }
            Some(answer)
        })
        .await;
        let report = checked(server.plan()).await;
        assert!(report.broken().contains(rule), "mistake {index}: {}", report.text());
    }
}
