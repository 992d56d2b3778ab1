//! Takes one contact out of a snapshot at once. Only the holder of the lease writes, so the lease is taken between two slices.

use std::time::Duration;

use contacts::ports::{Commit, HeadChange, StoreErrorKind};
use contacts::record::Removal;
use contacts::{AccountId, Generation, StoreError, Stream, work};

use crate::deps::Deps;

/// Time between two looks whether the lease is free.
const LOOK: Duration = Duration::from_millis(100);

/// Removes the contact. `false`: a worker held the lease all the time. Whoever begins a slice later must know already that the
/// contact is kept out.
pub async fn remove(deps: &Deps, account: &AccountId, id: &str, wait: Duration) -> Result<bool, StoreError> {
    let times = &deps.policy.times;
    let began = deps.clock.now();
    let fence = loop {
        let now = deps.clock.now();
        let seized = work::update(&*deps.store, account, times, |work| work.seize(&deps.owner, now, times)).await?;
        if let Some(fence) = seized {
            break fence;
        }
        if now.since(began) >= wait {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    };
    let removed = commit(deps, account, id, fence).await;
    work::update(&*deps.store, account, times, |work| work.let_go(fence)).await?;
    match removed {
        Err(error) if error.kind == StoreErrorKind::Fenced => Ok(false),
        removed => removed.map(|()| true),
    }
}

async fn commit(deps: &Deps, account: &AccountId, id: &str, fence: contacts::Fence) -> Result<(), StoreError> {
    let stream = Stream::Contacts;
    if deps.store.head(account, stream).await?.is_some() {
        let head = deps.store.open(account, stream, fence, Generation::random()).await?;
        let now = deps.clock.now();
        let commit = Commit {
            fence,
            generation: head.generation,
            now,
            rows: Vec::new(),
            removals: vec![Removal {
                id: id.to_owned(),
                updated: contacts::Micros::ZERO,
                observed: now,
            }],
            head: HeadChange::default(),
        };
        deps.store.commit(account, stream, &commit).await?;
    }
    let mut dirty = deps.store.dirty(account, usize::MAX).await?;
    dirty.retain(|dirty| dirty.id == id);
    deps.store.clear(account, &dirty).await?;
    Ok(())
}
