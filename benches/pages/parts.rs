//! Where the time of a page goes: what the front does for it, step by step, straight on the store's port.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use contacts::ports::{DocKey, DocKind, Slice};
use contacts::reading::{self, Narrowing};
use contacts::{AccountId, Clock, Position, Stream, SystemClock};
use serde_json::json;
use talkdesk::wire::SyncReply;

use crate::bridge::{Bridge, PAGE};
use crate::support::median;

const TIMES: usize = 200;

/// (step, median microseconds), one after the other, nobody else asking.
pub async fn measure(bridge: &Bridge, account: &AccountId) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let store = &bridge.store;
    let stream = Stream::Contacts;
    let now = SystemClock.now();
    let head = store
        .head(account, stream)
        .await?
        .ok_or_else(|| anyhow::anyhow!("no snapshot"))?;
    let slice = |after| Slice {
        after,
        until: Some(head.position),
        rows: PAGE as usize,
        bytes: 1 << 20,
        newer_than: None,
    };
    // Where pages start, so that other ones can be read each time: the same one would lie in the processor's cache.
    let mut starts = vec![Position::START];
    let page = loop {
        let after = starts[starts.len() - 1];
        let page = store.page(account, stream, &slice(after)).await?;
        match page.last {
            Some(last) if page.more => starts.push(last),
            _ => break page,
        }
    };
    let turn = AtomicUsize::new(0);
    let any = || slice(starts[turn.fetch_add(7_919, Ordering::Relaxed) % starts.len()]);
    let plan = reading::plan(None, None, &head, 1, Narrowing::Never);
    let answer = plan.answer(page.last, true, now);
    let document = DocKey::of_account(DocKind::Account, account);
    let context = json!({"run": "0123456789ab", "page": 1, "delivered": PAGE, "mode": "full"});
    let sealed = || {
        let checkpoint = answer.checkpoint.seal(&bridge.keys, account, stream);
        let offset = answer.next.map(|next| next.seal(&bridge.keys, account, stream));
        (checkpoint, offset)
    };
    let (checkpoint, offset) = sealed();
    let reply = SyncReply {
        checkpoint: &checkpoint,
        next_offset: offset.as_deref(),
        context: Some(&context),
    };
    Ok(vec![
        (
            "a scratch value (fingerprint)",
            timed(async || store.get("fingerprint|none", now).await.map(drop)).await?,
        ),
        (
            "a document (account)",
            timed(async || store.load(&document).await.map(drop)).await?,
        ),
        (
            "the head",
            timed(async || store.head(account, stream).await.map(drop)).await?,
        ),
        (
            "the page",
            timed(async || store.page(account, stream, &any()).await.map(drop)).await?,
        ),
        (
            "sealing both tokens",
            timed(async || {
                std::hint::black_box(sealed());
                anyhow::Ok(())
            })
            .await?,
        ),
        (
            "putting the reply together",
            timed(async || {
                std::hint::black_box(reply.write(&page.bodies));
                anyhow::Ok(())
            })
            .await?,
        ),
    ])
}

async fn timed<E>(act: impl AsyncFn() -> Result<(), E>) -> Result<f64, E> {
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        act().await?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&took))
}
