//! `contact_sync`: answered from the snapshot, whatever the CRM is doing (Talkdesk contact synchronization).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use contacts::accounts::{self, Account};
use contacts::ports::{Head, Page, Slice, StoreErrorKind, StoreResult};
use contacts::reading::{self, Answer, Plan};
use contacts::rotation::Met;
use contacts::token::{Checkpoint, CheckpointText, Offset, TokenError, key_of};
use contacts::work::{Failure, Park};
use contacts::{AccountId, ErrorKind, Fence, Generation, Kind, Micros, Position, Stream};
use process::settings::ColdAnswer;
use rand::Rng;
use serde_json::{Value, json};
use talkdesk::wire::{SyncReply, SyncRequest};

use super::error::{ApiError, ApiResult, json as json_response};
use super::identify::Proof;
use super::{AddressPath, Front};
use crate::integrations::Integration;

/// Reads in a row that passed over everything they saw (a resend) before the page goes out empty, with an offset.
const READS: usize = 40;
/// How often the front looks whether a growing snapshot has something new.
pub(super) const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// What a page is made of, read while the account is looked up.
struct Ahead {
    head: StoreResult<Option<Head>>,
    page: Option<EarlyPage>,
}

/// The records that an offset names, if its snapshot is still there.
struct EarlyPage {
    generation: Generation,
    slice: Slice,
    page: Page,
}

pub async fn handle(State(front): State<Arc<Front>>, address: AddressPath, body: Body) -> ApiResult<Response> {
    let began = Instant::now();
    let (integration, bytes) = front
        .receive(&address.integration, address.secret.as_deref(), body)
        .await?;
    let request = SyncRequest::parse(&bytes)?;
    let auth = integration.auth(&request.auth);
    let ahead = |account| front.look_ahead(account, request.offset.as_deref());
    let (account, ahead) = front.identify_beside(&integration, &auth, Proof::Young, ahead).await?;
    let starts = request.offset.is_none();

    let offset = request
        .offset
        .as_deref()
        .map(|text| front.open_offset(&account, text))
        .transpose()?;
    // Beside an offset the checkpoint is ignored.
    let checkpoint = match offset {
        Some(_) => None,
        None => request
            .checkpoint
            .as_deref()
            .and_then(|text| front.open_checkpoint(&account, text)),
    };
    let checkpoint_shown = matches!(checkpoint, Some(CheckpointText::Ours(_)));
    let (plan, read, answer) = front
        .page(&integration, &account, (checkpoint, offset), ahead, began)
        .await?;
    // The token of this call is good now, and may not be any more when the next poll is due. What the poll finds is the
    // next run's.
    if starts
        && plan.is_ready()
        && integration.polls_behind(&auth)
        && let Err(error) = front.poll_behind(&account.id).await
    {
        tracing::warn!(account = %account.id, cause = error.cause, "the poll behind a call could not be asked for");
    }

    let context = answer
        .next
        .is_some()
        .then(|| context(request.context.as_ref(), &plan, read.len()));
    let checkpoint = answer.checkpoint.seal(&front.keys, &account.id, Stream::Contacts);
    let next = answer
        .next
        .map(|next| next.seal(&front.keys, &account.id, Stream::Contacts));
    metrics::counter!("snapbridge_pages_total", "mode" => plan.mode.as_str()).increment(1);
    metrics::counter!("snapbridge_delivered_total").increment(read.len() as u64);
    metrics::histogram!("snapbridge_page_seconds").record(began.elapsed().as_secs_f64());
    let shown = match (&request.offset, checkpoint_shown) {
        (Some(offset), _) => key_of(offset),
        (None, true) => request.checkpoint.as_deref().and_then(key_of),
        (None, false) => None,
    };
    front.note_tokens(&account, shown, starts, &checkpoint).await;
    let reply = SyncReply {
        checkpoint: &checkpoint,
        next_offset: next.as_deref(),
        context: context.as_ref(),
    };
    Ok(json_response(StatusCode::OK, reply.write(&read)))
}

impl Front {
    /// A foreign, tampered or expired offset is refused: page one in its place would be a run without end.
    fn open_offset(&self, account: &Account, text: &str) -> ApiResult<Offset> {
        Offset::open(text, &self.keys, &account.id, Stream::Contacts, self.clock.now()).map_err(|error| {
            count_token("offset", error);
            let message = format!("meta.offset cannot be used: {error}. Start again without an offset");
            ApiError::new(StatusCode::BAD_REQUEST, "bad_offset", message)
        })
    }

    /// An unreadable checkpoint means a full sync: a 400 would block the account for good, as nobody can edit what
    /// Talkdesk has stored.
    fn open_checkpoint(&self, account: &Account, text: &str) -> Option<CheckpointText> {
        match Checkpoint::open(text, &self.keys, &account.id, Stream::Contacts) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                count_token("checkpoint", error);
                tracing::warn!(account = %account.id, %error, "an unreadable checkpoint: a full sync follows");
                None
            }
        }
    }

    /// Notes which sealing keys Talkdesk's tokens need. A note that is lost costs a full sync at worst, so no page fails of it.
    async fn note_tokens(&self, account: &Account, shown: Option<&str>, begins: bool, given: &str) {
        let met = Met {
            shown,
            begins: begins && shown.is_some(),
            given: key_of(given).unwrap_or_default(),
            now: self.clock.now(),
        };
        let every = self.policy.tokens_noted;
        let noted = accounts::note_tokens(&*self.store, account, &met, &self.keys.kids(), every).await;
        if let Err(error) = noted {
            tracing::warn!(account = %account.id, %error, "the keys of its tokens could not be noted");
        }
    }

    async fn look_ahead(&self, account: AccountId, offset: Option<&str>) -> Ahead {
        let now = self.clock.now();
        let offset = offset.and_then(|text| Offset::open(text, &self.keys, &account, Stream::Contacts, now).ok());
        let (rows, bytes) = self.page_size();
        let page = async {
            let offset = offset?;
            let slice = offset.slice(rows, bytes)?;
            // After a failure it is read again, or the head's failure is the answer.
            let page = self.store.page(&account, Stream::Contacts, &slice).await.ok()?;
            Some(EarlyPage {
                generation: offset.generation,
                slice,
                page,
            })
        };
        let (head, page) = tokio::join!(self.store.head(&account, Stream::Contacts), page);
        Ahead { head, page }
    }

    /// Contacts and bytes of a page.
    fn page_size(&self) -> (usize, usize) {
        let page = &self.policy.page;
        (page.contacts.min(page.max_contacts), page.bytes.0)
    }

    /// Reads the page, and holds the request while a growing snapshot has nothing new.
    async fn page(
        &self,
        integration: &Arc<Integration>,
        account: &Account,
        (checkpoint, offset): (Option<CheckpointText>, Option<Offset>),
        mut ahead: Option<Ahead>,
        began: Instant,
    ) -> ApiResult<(Plan, Vec<Bytes>, Answer)> {
        loop {
            let (head, early) = match ahead.take() {
                Some(ahead) => (ahead.head?, ahead.page),
                None => (self.store.head(&account.id, Stream::Contacts).await?, None),
            };
            let head = match head {
                Some(head) => head,
                None => {
                    self.ensure_building(account).await?;
                    unopened()
                }
            };
            let plan = reading::plan(
                checkpoint,
                offset,
                &head,
                integration.mapping_version(),
                integration.narrowing(),
            );
            if plan.rolled_back {
                metrics::counter!("snapbridge_rollbacks_total").increment(1);
                tracing::error!(account = %account.id, "a checkpoint lies beyond its snapshot: the store was rolled back");
            }
            let (read, last, more) = match self.read(account, &plan, &head, early).await {
                Ok(read) => read,
                // Not opened yet, or lost since its head was read: there is nothing to read for now.
                Err(error) if error.kind == StoreErrorKind::NoSnapshot => (Vec::new(), None, false),
                Err(error) => return Err(error.into()),
            };
            let answer = plan.answer(last, more, self.clock.now());
            // A snapshot lost between head and page looks like an empty tail. The last page makes claims, so it looks again.
            if answer.next.is_none() && self.generation(account).await? != Some(head.generation) {
                metrics::counter!("snapbridge_snapshots_lost_total").increment(1);
                continue;
            }
            if !read.is_empty() || plan.is_ready() {
                worker::trace::link_commit(&head.progress);
                return Ok((plan, read, answer));
            }
            // Nothing new yet, and the build goes on.
            self.pass_on_build_error(integration, account).await?;
            let left = self.policy.cold.hold.saturating_sub(began.elapsed());
            if left.is_zero() {
                metrics::counter!("snapbridge_held_total").increment(1);
                return match self.policy.cold.answer {
                    ColdAnswer::Hold => Ok((plan, read, answer)),
                    ColdAnswer::Unavailable => Err(ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "building",
                        "The contacts are being fetched for the first time",
                    )
                    .retry_after(Duration::from_secs(15))),
                };
            }
            let pause = rand::rng().random_range(LOOK.0..LOOK.1);
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    async fn generation(&self, account: &Account) -> ApiResult<Option<Generation>> {
        Ok(self
            .store
            .head(&account.id, Stream::Contacts)
            .await?
            .map(|head| head.generation))
    }

    /// The records of a page, the position of the last one looked at, and whether more remain.
    async fn read(
        &self,
        account: &Account,
        plan: &Plan,
        head: &Head,
        early: Option<EarlyPage>,
    ) -> StoreResult<(Vec<Bytes>, Option<Position>, bool)> {
        let (rows, bytes) = self.page_size();
        let mut slice = plan.slice(rows, bytes);
        // A generation is never used twice: what was read of it before its head was is of the same snapshot.
        let mut early = early.filter(|early| early.generation == head.generation && early.slice == slice);
        let mut last = None;
        for _ in 0..READS {
            let page = match early.take() {
                Some(early) => early.page,
                None => self.store.page(&account.id, Stream::Contacts, &slice).await?,
            };
            last = page.last.or(last);
            if !page.bodies.is_empty() || !page.more {
                return Ok((page.bodies, last, page.more));
            }
            slice.after = page.last.unwrap_or(slice.after);
        }
        Ok((Vec::new(), last, true))
    }

    /// While a cold account waits, the build's last error is its answer.
    async fn pass_on_build_error(&self, integration: &Integration, account: &Account) -> ApiResult<()> {
        let work = contacts::work::load(&*self.store, &account.id).await?;
        let failure = work.tasks.get(&Kind::Full).and_then(|task| task.last_error.as_ref());
        build_error(integration, work.park.as_ref(), failure, self.clock.now())
    }
}

/// What a build's last error, or the park of its account, is to Talkdesk. `Ok`: nothing that it need know.
pub(super) fn build_error(
    integration: &Integration,
    park: Option<&Park>,
    failure: Option<&Failure>,
    now: Micros,
) -> ApiResult<()> {
    if let Some(park) = park {
        return Err(ApiError::crm(ErrorKind::Credentials, &integration.title, now).cause(park.message.clone()));
    }
    let Some(failure) = failure else {
        return Ok(());
    };
    let until = failure.again.unwrap_or(now);
    let kind = match failure.kind.as_str() {
        "throttled" => ErrorKind::Throttled { until },
        "quota" => ErrorKind::Quota { until },
        "no_budget" => return Ok(()),
        "timeout" => ErrorKind::Timeout,
        "unavailable" => ErrorKind::Unavailable,
        "host_refused" => ErrorKind::HostRefused,
        "store_down" => return Ok(()),
        _ => ErrorKind::BadReply,
    };
    let mut error = ApiError::crm(kind, &integration.title, now).cause(failure.message.clone());
    if let Some(again) = failure.again {
        error = error.retry_after(again.since(now).max(Duration::from_secs(1)));
    }
    Err(error)
}

/// Stands for the snapshot that a worker has not opened yet: no generation, nothing in it, not ready.
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

fn count_token(kind: &'static str, error: TokenError) {
    let why = match error {
        TokenError::Foreign => "foreign",
        TokenError::UnknownKey => "unknown_key",
        TokenError::Forged => "forged",
        TokenError::Expired => "expired",
    };
    metrics::counter!("snapbridge_token_failures_total", "token" => kind, "why" => why).increment(1);
}

/// What rides along between pages (Talkdesk contact sync, `meta.context`): counters for people and metrics. Absent,
/// foreign or damaged, it starts anew; which contacts are returned never depends on it.
fn context(given: Option<&Value>, plan: &Plan, delivered: usize) -> Value {
    let of = |key: &str| given.and_then(|given| given.get(key));
    let run = of("run")
        .and_then(Value::as_str)
        .filter(|run| run.len() <= 32 && run.bytes().all(|b| b.is_ascii_alphanumeric()));
    let number = |key: &str| {
        of(key)
            .and_then(Value::as_u64)
            .filter(|number| *number < 1 << 48)
            .unwrap_or(0)
    };
    let (page, before) = if run.is_some() {
        (number("page"), number("delivered"))
    } else {
        (0, 0)
    };
    let run = run.map_or_else(|| format!("{:012x}", rand::rng().random::<u64>() >> 16), str::to_owned);
    json!({"run": run, "page": page + 1, "delivered": before + delivered as u64, "mode": plan.mode.as_str()})
}
