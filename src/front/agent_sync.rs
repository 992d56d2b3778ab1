//! `agent_sync`: answered from the snapshot of the agents, every run the whole list (Talkdesk agent synchronization).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use contacts::accounts::Account;
use contacts::agents::{self, UnknownOffset};
use contacts::ports::{Page, StoreErrorKind};
use contacts::work::Task;
use contacts::{Kind, Lane, Stream};
use rand::Rng;
use talkdesk::wire::{AgentReply, AgentRequest};

use super::contact_sync::{LOOK, build_error};
use super::error::{ApiError, ApiResult, json as json_response};
use super::identify::Proof;
use super::{AddressPath, Front};
use crate::integrations::Integration;

/// A list that could not be read is asked for again when Talkdesk calls this long after the failure.
const ASK_AGAIN: Duration = Duration::from_secs(60);

pub async fn handle(State(front): State<Arc<Front>>, address: AddressPath, body: Body) -> ApiResult<Response> {
    let began = Instant::now();
    let (integration, bytes) = front
        .receive(&address.integration, address.secret.as_deref(), body)
        .await?;
    if !integration.connector.has_agents() {
        return Err(ApiError::not_configured("agents"));
    }
    let request = AgentRequest::parse(&bytes)?;
    let account = front
        .identify(&integration, &integration.auth(&request.auth), Proof::Young)
        .await?;
    let page = front.agents(&integration, &account, request.offset, began).await?;
    if request.offset.is_none()
        && let Err(error) = front.read_agents_behind(&account).await
    {
        tracing::warn!(account = %account.id, cause = error.cause, "the reading behind an agent sync could not be asked for");
    }
    metrics::counter!("snapbridge_agents_delivered_total").increment(page.bodies.len() as u64);
    let reply = AgentReply {
        next_offset: agents::next_offset(&page),
    };
    Ok(json_response(StatusCode::OK, reply.write(&page.bodies)))
}

impl Front {
    /// Reads the page. There is no way to say "nothing yet, more to come" in a list of agents (its offset is the place of
    /// an agent), so a list that was never read whole holds the request, and is then an error (invariant 6).
    async fn agents(
        &self,
        integration: &Integration,
        account: &Account,
        offset: Option<u64>,
        began: Instant,
    ) -> ApiResult<Page> {
        let mut asked = false;
        loop {
            if let Some(page) = self.agents_page(account, offset).await? {
                return Ok(page);
            }
            if !std::mem::replace(&mut asked, true) {
                self.ensure_read(account, Kind::Agents).await?;
                self.ask_again(account).await?;
            }
            self.pass_on_agents_error(integration, account).await?;
            let left = self.policy.cold.hold.saturating_sub(began.elapsed());
            if left.is_zero() {
                metrics::counter!("snapbridge_held_total").increment(1);
                return Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "building",
                    "The agents are being fetched for the first time",
                )
                .retry_after(Duration::from_secs(15)));
            }
            let pause = rand::rng().random_range(LOOK.0..LOOK.1);
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// `None`: the list is not there, or was lost while it was read.
    async fn agents_page(&self, account: &Account, offset: Option<u64>) -> ApiResult<Option<Page>> {
        let head = self.store.head(&account.id, Stream::Agents).await?;
        let Some(head) = head.filter(|head| head.ready) else {
            return Ok(None);
        };
        let (rows, bytes) = (self.policy.page.agents, self.policy.page.bytes.0);
        let slice = agents::slice(offset, &head, rows, bytes).map_err(|error: UnknownOffset| {
            let message = format!("meta.offset cannot be used: {error}. Start again without an offset");
            ApiError::new(StatusCode::BAD_REQUEST, "bad_offset", message)
        })?;
        let page = match self.store.page(&account.id, Stream::Agents, &slice).await {
            Ok(page) => page,
            Err(error) if error.kind == StoreErrorKind::NoSnapshot => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if page.more {
            return Ok(Some(page));
        }
        // A snapshot lost between head and page looks like the end of the list. The last page claims to be it.
        let now = self.store.head(&account.id, Stream::Agents).await?;
        let same = now.is_some_and(|now| now.generation == head.generation);
        if !same {
            metrics::counter!("snapbridge_snapshots_lost_total").increment(1);
        }
        Ok(same.then_some(page))
    }

    /// A user who is new at the CRM need not wait for the next reading to be an agent: a list that has some age is read
    /// again right behind the call, and what it brings comes with the next run.
    async fn read_agents_behind(&self, account: &Account) -> ApiResult<()> {
        let now = self.clock.now();
        let work = contacts::work::load(&*self.store, &account.id).await?;
        if work.is_stale(Kind::Agents, self.policy.agents_on_request, now) {
            let rung = self.requests.ring(&account.id, Kind::Agents, Lane::Refresh, None).await;
            self.asked(rung.map(drop))?;
        }
        Ok(())
    }

    /// A list that could not be read is tried again in a day; somebody who wants it now need not wait for that.
    async fn ask_again(&self, account: &Account) -> ApiResult<()> {
        let now = self.clock.now();
        let work = contacts::work::load(&*self.store, &account.id).await?;
        let rests = work.tasks.get(&Kind::Agents).is_some_and(|task| {
            !work.is_under_way(Kind::Agents, now)
                && task.not_before.is_none_or(|at| at <= now)
                && task
                    .last_error
                    .as_ref()
                    .is_some_and(|failure| now.since(failure.at) >= ASK_AGAIN)
        });
        if rests {
            let rung = self.requests.ring(&account.id, Kind::Agents, Lane::Build, None).await;
            self.asked(rung.map(drop))?;
        }
        Ok(())
    }

    /// While nothing is there, the last error is the answer, unless somebody has asked again since.
    async fn pass_on_agents_error(&self, integration: &Integration, account: &Account) -> ApiResult<()> {
        let work = contacts::work::load(&*self.store, &account.id).await?;
        let now = self.clock.now();
        let task = work.tasks.get(&Kind::Agents);
        // One that waits for its next try has failed; one that may run now has not, yet.
        let waits = |task: &Task| task.not_before.is_some_and(|at| at > now);
        let failure = task
            .filter(|task| waits(task) || !work.is_under_way(Kind::Agents, now))
            .and_then(|task| task.last_error.as_ref());
        match failure {
            Some(failure) if failure.kind == "rejected" && work.park.is_none() => {
                let message = format!("{} does not let its users be listed", integration.title);
                let refused = ApiError::new(StatusCode::BAD_GATEWAY, "crm_refused", message);
                Err(refused.retry_after(ASK_AGAIN).cause(failure.message.clone()))
            }
            failure => build_error(integration, work.park.as_ref(), failure, now),
        }
    }
}
