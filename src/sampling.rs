//! Gauges that are read off the store and the queue from time to time. Labels are bounded: lanes, connectors, limits.

use std::sync::Arc;
use std::time::Duration;

use contacts::ports::DocKind;
use contacts::work::{self, due_index};
use contacts::{AccountId, Clock, Kind, Lane, Queue, Shard, Store, dead};
use tokio_util::sync::CancellationToken;

use crate::census::Census;
use crate::integrations::Integrations;

const EVERY: Duration = Duration::from_secs(5);

pub struct Sampler {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    integrations: Arc<Integrations>,
    clock: Arc<dyn Clock>,
    census: Census,
    /// What the store warned of last.
    warned: Vec<String>,
}

pub async fn run(mut sampler: Sampler, stop: CancellationToken) {
    describe();
    sampler.begin_counters();
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
            census: Census::new(store.clone(), integrations.clone(), clock.clone()),
            store,
            queue,
            integrations,
            clock,
            warned: Vec::new(),
        }
    }

    /// A counter that first shows with its first event hides that event from `increase`. So those of rare events that an
    /// alert asks about begin at zero.
    fn begin_counters(&self) {
        metrics::counter!("snapbridge_deletion_braked_total").increment(0);
        metrics::counter!("snapbridge_panics_total").increment(0);
        for kind in Kind::ALL {
            metrics::counter!("snapbridge_dead_letters_total", "kind" => kind.as_str()).increment(0);
        }
        let _ = metrics::histogram!("snapbridge_lateness_seconds");
        for integration in self.integrations.iter() {
            let name = || integration.name.clone();
            metrics::counter!("snapbridge_late_rows_total", "integration" => name()).increment(0);
            metrics::counter!("snapbridge_unannounced_total", "integration" => name()).increment(0);
            metrics::counter!("snapbridge_webhook_events_total", "integration" => name(), "result" => "accepted")
                .increment(0);
        }
    }

    async fn once(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
        self.warnings().await;

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
        let suspended = self.store.index_summary(work::SUSPENDED, now).await?;
        metrics::gauge!("snapbridge_accounts_suspended").set(suspended.count as f64);
        metrics::gauge!("snapbridge_dead_letters").set(dead::summary(&*self.store).await?.count as f64);
        self.census.step().await?;
        Ok(())
    }

    /// How the store is set up may change under a running process. Each warning is logged when it begins.
    async fn warnings(&mut self) {
        let Ok(warnings) = self.store.warnings().await else {
            return;
        };
        metrics::gauge!("snapbridge_store_warnings").set(warnings.len() as f64);
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.warned = warnings;
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
        "snapbridge_store_warnings",
        "What is wrong with the set-up of the store: eviction, persistence; the log says what"
    );
    gauge!("snapbridge_accounts", "Accounts by integration and state");
    gauge!(
        "snapbridge_freshness_seconds",
        Unit::Seconds,
        "Time since the stalest snapshot of an integration was refreshed; parked and paused accounts left out"
    );
    gauge!(
        "snapbridge_poll_seconds",
        Unit::Seconds,
        "Time between two polls of an account, as the settings have it"
    );
    gauge!(
        "snapbridge_quota_wait_seconds",
        Unit::Seconds,
        "Longest time until the CRM or the budget lets an account of the integration go on"
    );
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
    gauge!(
        "snapbridge_accounts_suspended",
        "Accounts that Talkdesk no longer calls for"
    );
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
    counter!(
        "snapbridge_late_rows_total",
        "Rows that became visible later than the connector's lag and half its overlap, by integration"
    );
    counter!(
        "snapbridge_unannounced_total",
        "Changes that polls found after webhooks had fallen silent, by integration"
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
        "snapbridge_key_reloads_total",
        "Changed key files that were taken on (ok) or could not be (failed)"
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
    counter!("snapbridge_actions_total", "Actions by name and outcome");
    counter!("snapbridge_interactions_total", "Interaction requests by result");
    counter!(
        "snapbridge_interactions_fetched_total",
        "Interactions fetched, from the CRM or out of the cache"
    );
    counter!(
        "snapbridge_interactions_dropped_total",
        "Interactions that could not be mapped, by reason"
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
    counter!(
        "snapbridge_link_updates_total",
        "Records that a DMS told of, by integration"
    );
    counter!(
        "snapbridge_link_full_total",
        "Updates and events that a full inbox sent away, by integration"
    );
    counter!("snapbridge_link_payloads_total", "Linking work by kind and result");
    counter!(
        "snapbridge_link_writes_total",
        "Records that were written for linking, by side"
    );
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
