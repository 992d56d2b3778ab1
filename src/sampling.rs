//! Gauges that are read off the store and the queue from time to time. Labels are bounded: lanes, connectors, limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contacts::ports::DocKind;
use contacts::work::{self, due_index};
use contacts::{AccountId, Clock, Lane, Queue, Shard, Store, accounts, dead};
use tokio_util::sync::CancellationToken;

use crate::integrations::Integrations;

const EVERY: Duration = Duration::from_secs(5);
/// Accounts whose budgets are read per round.
const BUDGETS: usize = 50;

pub struct Sampler {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    integrations: Arc<Integrations>,
    clock: Arc<dyn Clock>,
}

pub async fn run(sampler: Sampler, stop: CancellationToken) {
    describe();
    loop {
        if let Err(error) = sampler.once().await {
            tracing::debug!(%error, "the gauges could not all be read");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

impl Sampler {
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        integrations: Arc<Integrations>,
        clock: Arc<dyn Clock>,
    ) -> Sampler {
        Sampler {
            store,
            queue,
            integrations,
            clock,
        }
    }

    async fn once(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let blocked = if self.queue.is_blocked() { 1.0 } else { 0.0 };
        metrics::gauge!("snapbridge_queue_blocked").set(blocked);
        match self.queue.depth().await {
            Ok(depths) => {
                metrics::gauge!("snapbridge_queue_up").set(1.0);
                for depth in depths.lanes {
                    metrics::gauge!("snapbridge_queue_depth", "lane" => depth.lane.as_str()).set(depth.ready as f64);
                }
                metrics::gauge!("snapbridge_queue_waiting").set(depths.waiting as f64);
                metrics::gauge!("snapbridge_queue_dead").set(depths.dead as f64);
            }
            Err(_) => metrics::gauge!("snapbridge_queue_up").set(0.0),
        }
        let up = if self.store.ping().await.is_ok() { 1.0 } else { 0.0 };
        metrics::gauge!("snapbridge_store_up").set(up);

        let now = self.clock.now();
        for lane in Lane::ALL {
            let backlog = self.store.index_summary(&due_index(lane), now).await?;
            let oldest = backlog.oldest.map_or(0.0, |at| now.since(at).as_secs_f64());
            metrics::gauge!("snapbridge_backlog", "lane" => lane.as_str()).set(backlog.count as f64);
            metrics::gauge!("snapbridge_oldest_seconds", "lane" => lane.as_str()).set(oldest);
        }
        let fresh = self.store.index_summary(work::FRESH, now).await?;
        metrics::gauge!("snapbridge_snapshots").set(fresh.count as f64);
        let age = fresh.oldest.map_or(0.0, |at| now.since(at).as_secs_f64());
        metrics::gauge!("snapbridge_snapshot_age_seconds").set(age);
        let parked = self.store.index_summary(work::PARKED, now).await?;
        metrics::gauge!("snapbridge_accounts_parked").set(parked.count as f64);
        let paused = self.store.index_summary(work::PAUSED, now).await?;
        metrics::gauge!("snapbridge_accounts_paused").set(paused.count as f64);
        metrics::gauge!("snapbridge_dead_letters").set(dead::summary(&*self.store).await?.count as f64);
        self.budgets().await
    }

    /// The least that any account has left, per connector and limit.
    async fn budgets(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut least: BTreeMap<(String, String), f64> = BTreeMap::new();
        for id in account_ids(&*self.store, BUDGETS).await? {
            let Some(account) = accounts::get(&*self.store, &id).await? else {
                continue;
            };
            let Some(integration) = self.integrations.get(&account.integration) else {
                continue;
            };
            for left in integration.budget_left(&account).await {
                let share = left.left as f64 / (left.max as f64).max(1.0);
                let known = least.entry((account.connector.clone(), left.limit)).or_insert(share);
                *known = known.min(share);
            }
        }
        for ((connector, limit), share) in least {
            metrics::gauge!("snapbridge_budget_left", "connector" => connector, "limit" => limit).set(share);
        }
        Ok(())
    }
}

/// Account ids, at most `limit`.
pub async fn account_ids(store: &dyn Store, limit: usize) -> Result<Vec<AccountId>, contacts::StoreError> {
    let mut ids = Vec::new();
    for shard in Shard::all() {
        let mut after: Option<String> = None;
        loop {
            let page = store.list(DocKind::Account, shard, after.as_deref(), 500).await?;
            ids.extend(page.iter().filter_map(|id| id.parse().ok()));
            if ids.len() >= limit {
                ids.truncate(limit);
                return Ok(ids);
            }
            match page.last() {
                Some(last) if page.len() == 500 => after = Some(last.clone()),
                _ => break,
            }
        }
    }
    Ok(ids)
}

/// The help texts of all metrics.
fn describe() {
    use metrics::{Unit, describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    gauge!(
        "snapbridge_queue_depth",
        "Jobs ready in a lane, as the broker counts them"
    );
    gauge!("snapbridge_queue_waiting", "Jobs in the wait queues");
    gauge!(
        "snapbridge_queue_dead",
        "Jobs the broker gave up on, not yet taken into the dead letters"
    );
    gauge!("snapbridge_queue_up", "1 if the queue answers");
    gauge!("snapbridge_queue_blocked", "1 while the broker blocks publishers");
    gauge!("snapbridge_store_up", "1 if the store answers");
    gauge!(
        "snapbridge_backlog",
        "Tasks that are due, as the store's ledger of work counts them"
    );
    gauge!(
        "snapbridge_oldest_seconds",
        Unit::Seconds,
        "How long the oldest due task of a lane has been due"
    );
    gauge!("snapbridge_in_flight", "Deliveries in hand in this process");
    gauge!(
        "snapbridge_snapshots",
        "Accounts that have been refreshed at least once"
    );
    gauge!(
        "snapbridge_snapshot_age_seconds",
        Unit::Seconds,
        "Time since the stalest snapshot was refreshed"
    );
    gauge!(
        "snapbridge_accounts_parked",
        "Accounts whose CRM no longer takes their credentials"
    );
    gauge!("snapbridge_accounts_paused", "Accounts paused by an operator");
    counter!("snapbridge_ops_logins_total", "Logins to the ops page, by outcome");
    gauge!("snapbridge_dead_letters", "Dead letters kept in the store");
    gauge!(
        "snapbridge_budget_left",
        "Least share of a limit that any account has left, 0 to 1"
    );
    histogram!(
        "snapbridge_lateness_seconds",
        Unit::Seconds,
        "How late rows became visible in change passes"
    );
    histogram!(
        "snapbridge_page_seconds",
        Unit::Seconds,
        "Time of a contact sync answer, holds included"
    );
    histogram!(
        "snapbridge_request_seconds",
        Unit::Seconds,
        "Time of a request, by endpoint"
    );
    histogram!(
        "snapbridge_live_check_seconds",
        Unit::Seconds,
        "Time of a live credential check"
    );
    gauge!(
        "snapbridge_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of the public listener expires, in Unix time"
    );
    counter!(
        "snapbridge_tls_reloads_total",
        "Certificates that took the place of another, or failed to, by result"
    );
    counter!(
        "snapbridge_tls_handshake_failures_total",
        "Connections without a TLS handshake, by why"
    );
    counter!("snapbridge_requests_total", "Requests by endpoint and status");
    counter!("snapbridge_errors_total", "Error answers by code");
    counter!("snapbridge_pages_total", "Contact sync pages by mode of their run");
    counter!("snapbridge_delivered_total", "Contacts delivered to Talkdesk");
    counter!(
        "snapbridge_held_total",
        "Answers of a sync that had nothing yet, after the hold"
    );
    counter!(
        "snapbridge_token_failures_total",
        "Checkpoints and offsets that could not be used"
    );
    counter!(
        "snapbridge_rollbacks_total",
        "Checkpoints beyond their snapshot: the store was rolled back"
    );
    counter!(
        "snapbridge_snapshots_lost_total",
        "Snapshots that were lost between two looks of one page"
    );
    counter!("snapbridge_live_checks_total", "Live credential checks by result");
    counter!(
        "snapbridge_crm_calls_total",
        "Calls to CRMs by connector, operation and outcome"
    );
    counter!(
        "snapbridge_webhook_events_total",
        "Webhook events by integration and result"
    );
    counter!(
        "snapbridge_webhook_refused_total",
        "Webhook deliveries refused, by reason"
    );
    counter!("snapbridge_jobs_total", "Jobs by kind and outcome");
    counter!("snapbridge_contacts_total", "Contacts committed by verdict");
    counter!("snapbridge_contacts_repaired_total", "Repairs while mapping, by reason");
    counter!(
        "snapbridge_contacts_dropped_total",
        "Contacts that could not be mapped, by reason"
    );
    counter!("snapbridge_agents_delivered_total", "Agents delivered to Talkdesk");
    counter!("snapbridge_agents_total", "Agents committed by verdict");
    counter!(
        "snapbridge_agents_repaired_total",
        "Repairs while mapping agents, by reason"
    );
    counter!("snapbridge_agents_dropped_total", "Users who are no agents, by reason");
    counter!(
        "snapbridge_deletion_braked_total",
        "Full passes that wanted to delete too much"
    );
    counter!("snapbridge_dead_letters_total", "Work given up, by kind");
    counter!("snapbridge_dirty_overflow_total", "Dirty sets that were full");
    counter!("snapbridge_sweep_rings_total", "Jobs the sweep rang for");
    counter!("snapbridge_queue_publishes_total", "Publishes to the broker by outcome");
    counter!(
        "snapbridge_queue_disconnects_total",
        "Connections to the broker that ended or could not be made, by role"
    );
    counter!(
        "snapbridge_queue_redeclared_total",
        "Queues and exchanges that were missing on the broker and declared again"
    );
    counter!(
        "snapbridge_queue_unsettled_total",
        "Deliveries whose connection was lost before they were settled"
    );
    counter!(
        "snapbridge_redis_timeouts_total",
        "Commands that Redis did not answer in time, by connection"
    );
    counter!(
        "snapbridge_redis_connections_replaced_total",
        "Connections to Redis given up as silent, by connection"
    );
    counter!("snapbridge_panics_total", "Requests that panicked");
}
