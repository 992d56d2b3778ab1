//! The front in small: registers the account, answers contact sync from the snapshot, takes webhooks. It uses the same
//! decisions as the real one (`contacts::reading`, `worker::Requests`) in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contacts::accounts::{self, Account, Sealed};
use contacts::keys::{Identity, Keys};
use contacts::ports::{Head, Slice, Snapshots, StoreError, StoreErrorKind, StoreResult};
use contacts::reading::{self, Answer, Narrowing, Plan};
use contacts::token::{Checkpoint, End, Offset};
use contacts::work;
use contacts::{Clock, Fence, Generation, Kind, Lane, Micros, Position, Stream};
use worker::Requests;
use worker::requests::RequestError;

use crate::port::Port;

/// How long a request is held while a growing snapshot has nothing new.
const HOLD: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
const READS: usize = 40;
/// How long the CRM's last acceptance of credentials is good for.
const REVOCATION_WINDOW: Duration = Duration::from_secs(600);

pub struct Front {
    pub port: Arc<Port>,
    pub requests: Arc<Requests>,
    pub keys: Arc<Keys>,
    pub account: Account,
    pub narrowing: Narrowing,
    pub page: usize,
}

pub struct Reply {
    pub bodies: Vec<Bytes>,
    pub checkpoint: String,
    pub next: Option<String>,
    pub ready: bool,
    pub tokens: Answer,
    /// The run's end is frozen, and so many records lay before it when this page was planned.
    pub remaining: Option<usize>,
}

impl Front {
    pub fn account(keys: &Keys, name: &str, now: Micros) -> Account {
        let id = keys.account_id(&Identity {
            integration: "model",
            site: "",
            org: name,
            principal: "",
        });
        Account {
            credentials: Sealed::seal(keys, &id, &BTreeMap::new()),
            fingerprint: keys.fingerprint("model", name.as_bytes()),
            id,
            integration: "model".to_owned(),
            connector: "model".to_owned(),
            budget: name.to_owned(),
            user_budget: None,
            dealer: None,
            created: now,
            learned: BTreeMap::new(),
            route: None,
            called: now,
            verified: now,
            tokens: Default::default(),
        }
    }

    fn now(&self) -> Micros {
        self.port.net.clock.now()
    }

    /// Known credentials are taken; unknown and rejected ones are checked, and the account's work goes on.
    pub async fn identify(&self) -> StoreResult<()> {
        let known = accounts::by_fingerprint(&*self.port, &self.account.fingerprint, self.now()).await?;
        let young = known.is_some_and(|known| self.now().since(known.verified) <= REVOCATION_WINDOW);
        if young && accounts::get(&*self.port, &self.account.id).await?.is_some() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        let now = self.now();
        let account = Account {
            called: now,
            verified: now,
            ..self.account.clone()
        };
        accounts::register(&*self.port, &account).await?;
        accounts::accept(&*self.port, &account.fingerprint, &account.id, now).await?;
        if work::load(&*self.port, &account.id).await?.park.is_some() {
            asked(self.requests.unpark(&account.id).await)?;
        }
        self.ensure_building().await
    }

    async fn ensure_building(&self) -> StoreResult<()> {
        let account = &self.account.id;
        let ready = self
            .port
            .head(account, Stream::Contacts)
            .await?
            .is_some_and(|head| head.ready);
        if !ready {
            let work = work::load(&*self.port, account).await?;
            let started = work.tasks.get(&Kind::Full).is_some_and(|task| task.due.is_some());
            if !started
                || work
                    .look_at(Kind::Full, &self.requests.times())
                    .is_some_and(|at| at <= self.now())
            {
                asked(
                    self.requests
                        .ring(account, Kind::Full, Lane::Build, None)
                        .await
                        .map(drop),
                )?;
            }
        }
        Ok(())
    }

    /// A webhook: `Ok` is the 2xx. `false`: the account is not known, so nothing was promised.
    pub async fn hook(&self, ids: &[String], by_id: bool) -> Result<bool, RequestError> {
        if accounts::get(&*self.port, &self.account.id).await?.is_none() {
            return Ok(false);
        }
        self.requests.changed(&self.account.id, ids, by_id).await.map(|_| true)
    }

    pub async fn sync(&self, checkpoint: Option<&str>, offset: Option<&str>) -> StoreResult<Reply> {
        self.identify().await?;
        let (keys, account) = (&*self.keys, &self.account.id);
        let unusable = |_| StoreError::new(StoreErrorKind::Unreadable, "a token of our own does not open");
        let open = |text| Offset::open(text, keys, account, Stream::Contacts, self.now());
        let offset = offset.map(open).transpose().map_err(unusable)?;
        let checkpoint = checkpoint.filter(|_| offset.is_none());
        let open = |text| Checkpoint::open(text, keys, account, Stream::Contacts);
        let checkpoint = checkpoint.map(open).transpose().map_err(unusable)?;
        let began = self.now();
        loop {
            let head = match self.port.head(account, Stream::Contacts).await? {
                Some(head) => head,
                None => {
                    self.ensure_building().await?;
                    unopened()
                }
            };
            let plan = reading::plan(checkpoint, offset, &head, 1, self.narrowing);
            let remaining = self.remaining(&plan).await;
            let (bodies, last, more) = match self.read(&plan).await {
                Ok(read) => read,
                Err(error) if error.kind == StoreErrorKind::NoSnapshot => (Vec::new(), None, false),
                Err(error) => return Err(error),
            };
            let tokens = plan.answer(last, more, self.now());
            if tokens.next.is_none() {
                let again = self.port.head(account, Stream::Contacts).await?;
                if again.map(|head| head.generation) != Some(head.generation) {
                    continue;
                }
            }
            if bodies.is_empty() && !plan.is_ready() && self.now().since(began) < HOLD {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            return Ok(Reply {
                bodies,
                checkpoint: tokens.checkpoint.seal(keys, account, Stream::Contacts),
                next: tokens.next.map(|next| next.seal(keys, account, Stream::Contacts)),
                ready: plan.is_ready(),
                tokens,
                remaining,
            });
        }
    }

    async fn read(&self, plan: &Plan) -> StoreResult<(Vec<Bytes>, Option<Position>, bool)> {
        let mut slice = plan.slice(self.page, 1 << 20);
        let mut last = None;
        for _ in 0..READS {
            let page = self.port.page(&self.account.id, Stream::Contacts, &slice).await?;
            last = page.last.or(last);
            if !page.bodies.is_empty() || !page.more {
                return Ok((page.bodies, last, page.more));
            }
            slice.after = page.last.unwrap_or(slice.after);
        }
        Ok((Vec::new(), last, true))
    }

    async fn remaining(&self, plan: &Plan) -> Option<usize> {
        let End::Frozen { position, .. } = plan.end else {
            return None;
        };
        let all = Slice {
            after: plan.after,
            until: Some(position),
            rows: usize::MAX,
            bytes: usize::MAX,
            newer_than: None,
        };
        let page = self.port.inner.page(&self.account.id, Stream::Contacts, &all).await;
        Some(page.map_or(0, |page| page.bodies.len()))
    }
}

/// A queue that does not answer fails no read: the store has the work, and the sweep rings.
fn asked(result: Result<(), RequestError>) -> StoreResult<()> {
    match result {
        Ok(()) | Err(RequestError::Queue(_)) => Ok(()),
        Err(RequestError::Store(error)) => Err(error),
    }
}

fn unopened() -> Head {
    Head {
        generation: Generation(0),
        position: Position::START,
        fence: Fence(0),
        ready: false,
        watermark: Micros::ZERO,
        count: 0,
        progress: Vec::new(),
        committed: Micros::ZERO,
        fresh: Micros::ZERO,
    }
}
