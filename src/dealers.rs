//! Dealers of linking integrations. The settings name them, so their accounts are brought into the store when a process starts,
//! not when somebody calls.

use std::sync::Arc;
use std::time::Duration;

use contacts::inbox::{Appended, Urgency};
use contacts::linking::records::{self, Seeding, Side, Trouble};
use contacts::linking::{Payload, Seed};
use contacts::{AccountId, Clock, Store, StoreError, accounts, inbox, work};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use worker::Requests;
use worker::requests::RequestError;

use crate::integrations::{Dealer, Integrations, Linking};

/// Between two tries to bring the dealers in while the store is away.
const AGAIN: Duration = Duration::from_secs(5);
/// A dealer whose credentials were refused is tried again this often: nobody sends new ones, as the settings hold them.
const RECHECK: Duration = Duration::from_secs(10 * 60);
/// Records that a report lists at once, and reads at once.
const PAGE: usize = 500;
const AT_ONCE: usize = 32;

#[derive(Clone)]
pub struct Dealers {
    pub store: Arc<dyn Store>,
    pub requests: Arc<Requests>,
    pub keys: Arc<contacts::keys::Keys>,
    pub clock: Arc<dyn Clock>,
    pub integrations: Arc<Integrations>,
}

impl Dealers {
    /// Brings them in, and looks after those that are parked, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let dealers: Vec<_> = self.integrations.all_linking().cloned().collect();
        if dealers.is_empty() {
            return;
        }
        // Only a process that starts has links written anew: two with unlike settings would do so for ever.
        let mut starts = true;
        loop {
            let mut pause = RECHECK;
            for linking in &dealers {
                for dealer in linking.dealers() {
                    if let Err(error) = self.bring_in(linking, dealer, starts).await {
                        tracing::warn!(
                            dealer = dealer.name,
                            error = process::chain(&error),
                            "a dealer could not be brought in"
                        );
                        pause = AGAIN;
                    }
                }
            }
            starts &= pause == AGAIN;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The same done twice, so processes need no leader.
    async fn bring_in(&self, linking: &Linking, dealer: &Dealer, starts: bool) -> Result<(), RequestError> {
        let now = self.clock.now();
        let account = linking.account(dealer, now);
        let registered = accounts::register(&*self.store, &account).await?;
        if registered.new {
            tracing::info!(account = %account.id, integration = linking.name, dealer = dealer.name, "a dealer was brought in");
        }
        let work = work::load(&*self.store, &account.id).await?;
        // Other credentials are tried at once.
        let parked = work
            .park
            .filter(|park| registered.changed || now.since(park.since) >= RECHECK);
        if parked.is_some() {
            self.requests.unpark(&account.id).await?;
        }
        let seeding = records::seeding(&*self.store, &account.id).await?;
        // It was suspended while the settings did not name it.
        self.requests.unsuspend(&account.id).await?;
        if starts && dealer.seed && seeding.rules != dealer.looks() {
            self.seed(linking, dealer).await?;
        }
        Ok(())
    }

    /// Has all records of the dealer's DMS linked; one that is under way begins anew.
    pub async fn seed(&self, linking: &Linking, dealer: &Dealer) -> Result<Appended, RequestError> {
        let now = self.clock.now();
        let id = &dealer.account;
        // Before the work, which says how far it is; the looks behind it, so that one that was not taken in is tried again.
        records::change_seeding(&*self.store, id, |seeding| {
            *seeding = Seeding {
                rules: std::mem::take(&mut seeding.rules),
                began: Some(now),
                ..Seeding::default()
            };
        })
        .await?;
        let payload = Payload::Seed(Seed {
            began: now,
            ..Seed::default()
        });
        let put = worker::linking::put(
            &*self.store,
            &self.keys,
            id,
            (&payload, Urgency::Bulk),
            linking.inbox,
            now,
        )
        .await?;
        if put == Appended::Full {
            tracing::warn!(
                dealer = dealer.name,
                "the seeding has to wait: the dealer's inbox is full"
            );
            return Ok(put);
        }
        let looks = dealer.looks();
        records::change_seeding(&*self.store, id, |seeding| seeding.rules = looks.clone()).await?;
        self.requests.drain(id).await?;
        Ok(put)
    }
}

/// How a dealer's linking stands. Ids only: names and addresses stay in the two systems.
#[derive(Debug, Serialize)]
pub struct Report {
    pub integration: String,
    pub dealer: String,
    pub organization: String,
    pub account: AccountId,
    /// Pairs of records. Each shows the link to the other once a worker has written it and the contact has a conversation.
    pub linked: u64,
    pub unmatched: u64,
    pub ambiguous: u64,
    /// Records whose contact is linked with another one.
    pub taken: u64,
    /// Records that were told of and are not in their own system.
    pub gone: u64,
    /// Updates and events that wait.
    pub waiting: u64,
    pub seeding: Seeding,
    /// Those that are linked with nobody, as many as were asked for.
    pub records: Vec<Unlinked>,
}

#[derive(Debug, Serialize)]
pub struct Unlinked {
    pub side: Side,
    pub id: String,
    #[serde(flatten)]
    pub trouble: Trouble,
    pub since: String,
}

/// Reads what is known of a dealer's records; of those that are linked with nobody at most `most` are named.
pub async fn report(store: &dyn Store, linking: &Linking, dealer: &Dealer, most: usize) -> Result<Report, StoreError> {
    let account = &dealer.account;
    let mut report = Report {
        integration: linking.name.clone(),
        dealer: dealer.name.clone(),
        organization: dealer.organization.clone(),
        account: account.clone(),
        linked: 0,
        unmatched: 0,
        ambiguous: 0,
        taken: 0,
        gone: 0,
        waiting: inbox::fill(store, account).await?.waiting,
        seeding: records::seeding(store, account).await?,
        records: Vec::new(),
    };
    for side in [Side::Dms, Side::Web1on1] {
        let mut after: Option<String> = None;
        loop {
            let ids = records::ids(store, account, side, after.as_deref(), PAGE).await?;
            let more = ids.len() == PAGE;
            after = ids.last().cloned();
            let loads = ids.into_iter().map(async |id| {
                let record = records::load(store, account, side, &id).await?;
                Ok::<_, StoreError>((id, record))
            });
            let page: Vec<_> = stream::iter(loads).buffered(AT_ONCE).try_collect().await?;
            for (id, record) in page {
                let Some(record) = record else { continue };
                // A pair is known from both sides.
                report.linked += u64::from(side == Side::Dms && record.with.is_some());
                let Some(trouble) = record.trouble else { continue };
                let count = match &trouble {
                    Trouble::Unmatched => &mut report.unmatched,
                    Trouble::Ambiguous { .. } => &mut report.ambiguous,
                    Trouble::Taken { .. } => &mut report.taken,
                    Trouble::Gone => &mut report.gone,
                };
                *count += 1;
                if report.records.len() < most {
                    report.records.push(Unlinked {
                        side,
                        id,
                        trouble,
                        since: record.at.to_string(),
                    });
                }
            }
            if !more {
                break;
            }
        }
    }
    Ok(report)
}
