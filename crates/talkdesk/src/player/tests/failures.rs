//! Bridges that are busy, wrong or gone.

use std::io;

use super::*;

async fn failed(player: &mut Player, state: &mut PlayerState) -> PlayError {
    player.run(state).await.complete().map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn repetition_ends_with_the_bridges_own_words() {
    let bridge = Bridge::start(|_, _| status(503, r#"{"code":"cold","message":"still building\n"}"#)).await;
    let error = failed(&mut bridge.player(), &mut PlayerState::default()).await;
    assert!(matches!(
        error,
        PlayError::GaveUp {
            attempts: 4,
            status: 503,
            ..
        }
    ));
    assert!(error.to_string().ends_with(": still building  (cold)"), "{error}");
    assert_eq!(bridge.seen().len(), 4);
    let long = Bridge::start(|_, _| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")])).await;
    let error = failed(&mut long.player(), &mut PlayerState::default()).await;
    assert!(error.to_string().contains("3600 s, more than the 60 s"), "{error}");
}

#[tokio::test]
async fn offsets_that_come_again_end_the_run() {
    let stuck = Bridge::start(|_, _| page(json!({"contacts": [{"id": "1"}], "next_offset": "same"}))).await;
    let error = failed(&mut stuck.player(), &mut PlayerState::default()).await;
    assert!(matches!(error, PlayError::StuckOffset { page: 2 }), "{error}");
    let circle = Bridge::start(|_, request: SyncRequest| {
        let next = if request.offset.as_deref() == Some("a") {
            "b"
        } else {
            "a"
        };
        page(json!({"contacts": [{"id": "1"}], "next_offset": next}))
    })
    .await;
    let error = failed(&mut circle.player(), &mut PlayerState::default()).await;
    assert!(matches!(error, PlayError::StuckOffset { page: 3 }), "{error}");
}

#[tokio::test]
async fn runs_without_end_are_ended() {
    let bridge = |contacts: Value| {
        Bridge::start(move |number, _| page(json!({"contacts": contacts, "next_offset": number.to_string()})))
    };
    let endless = bridge(json!([{"id": 1}])).await;
    let patience = Patience {
        pages: 5,
        empty_pages: 3,
        ..quick()
    };
    let error = failed(
        &mut endless.player().patience(patience.clone()),
        &mut PlayerState::default(),
    )
    .await;
    assert!(matches!(error, PlayError::EndlessPages { limit: 5 }), "{error}");
    assert_eq!(endless.seen().len(), 5);
    let empty = bridge(json!([])).await;
    let error = failed(&mut empty.player().patience(patience), &mut PlayerState::default()).await;
    assert!(matches!(error, PlayError::EmptyPages { limit: 3 }), "{error}");
}

#[tokio::test]
async fn a_401_asks_for_new_credentials_once_per_request() {
    let bridge = Bridge::start(|number, request| {
        if request.auth.get("token").map(String::as_str) == Some("renewed") {
            three_pages(number, request)
        } else {
            status(401, r#"{"code":"invalid_credentials","message":"expired"}"#)
        }
    })
    .await;
    let error = failed(&mut bridge.player(), &mut PlayerState::default()).await;
    assert!(matches!(error, PlayError::Unauthorized { page: 1, .. }), "{error}");
    assert_eq!(bridge.seen().len(), 1);

    let renew =
        |token: &'static str| move || async move { Some([("token".into(), token.into())].into_iter().collect()) };
    let summary = bridge
        .player()
        .on_unauthorized(renew("renewed"))
        .run(&mut PlayerState::default())
        .await;
    assert_eq!(summary.retries, 1);
    assert_eq!(summary.complete().unwrap().pages, 3);

    let before = bridge.seen().len();
    let error = failed(
        &mut bridge.player().on_unauthorized(renew("wrong again")),
        &mut PlayerState::default(),
    )
    .await;
    assert!(matches!(error, PlayError::Unauthorized { .. }), "{error}");
    assert_eq!(bridge.seen().len() - before, 2);
}

#[tokio::test]
async fn what_is_no_page_ends_the_run_at_once() {
    for body in [
        "<html>",
        "",
        "{\"contacts\": 3}",
        "{\"contacts\": [{\"name\": \"no id\"}]}",
    ] {
        let bridge = Bridge::start(move |_, _| body).await;
        let error = failed(&mut bridge.player(), &mut PlayerState::default()).await;
        assert!(matches!(error, PlayError::Garbage { page: 1, .. }), "{body}: {error}");
        assert_eq!(bridge.seen().len(), 1);
    }
    let large = Bridge::start(|_, _| "x".repeat(2000)).await;
    let mut player = large.player().patience(Patience {
        body_limit: 1000,
        ..quick()
    });
    assert!(matches!(
        failed(&mut player, &mut PlayerState::default()).await,
        PlayError::TooLarge { limit: 1000, .. }
    ));
}

#[tokio::test]
async fn other_refusals_and_redirects_are_not_repeated() {
    for code in [302, 400, 403, 404, 413, 500] {
        let bridge = Bridge::start(move |_, _| status(code, r#"{"code":"x","message":"y"}"#)).await;
        let error = failed(&mut bridge.player(), &mut PlayerState::default()).await;
        assert!(
            matches!(error, PlayError::Refused { status, .. } if status == code),
            "{error}"
        );
        assert_eq!(bridge.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_bridge_that_is_not_there_is_tried_again_and_no_secret_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = Url::parse(&format!("http://{address}/k/canary/contact_sync")).unwrap();
    // Hangs up on everybody.
    let server = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let auth = [("token".to_owned(), "canary".to_owned())].into_iter().collect();
    let mut player = Player::new(url.clone(), auth, client(&url).unwrap()).patience(quick());
    let summary = player.run(&mut PlayerState::default()).await;
    assert_eq!(summary.retries, 3);
    let told = format!("{player:?} {summary:?} {}", serde_json::to_string(&summary).unwrap());
    assert!(!told.contains("canary"), "{told}");
    assert!(matches!(
        summary.ended,
        Ended::Failed {
            error: PlayError::Unreachable { attempts: 4, .. }
        }
    ));
    server.abort();
}

#[tokio::test]
async fn a_page_that_takes_too_long_counts_as_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    // Accepts and keeps silent.
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let patience = Patience {
        attempts: 2,
        page_timeout: Duration::from_millis(50),
        ..quick()
    };
    let mut player = Player::new(url.clone(), Auth::default(), client(&url).unwrap()).patience(patience);
    let error = failed(&mut player, &mut PlayerState::default()).await;
    assert!(
        matches!(&error, PlayError::Unreachable { source, .. } if source.is_timeout()),
        "{error}"
    );
    server.abort();
}

#[tokio::test]
async fn contacts_that_cannot_be_written_end_the_run() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bridge = Bridge::start(three_pages).await;
    let mut state = PlayerState::default();
    assert!(matches!(
        failed(&mut bridge.player().out(Full), &mut state).await,
        PlayError::Out(_)
    ));
    assert_eq!(state, PlayerState::default());
}
