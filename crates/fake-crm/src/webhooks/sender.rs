//! Sends what waits in the outbox of an account.

use std::sync::Weak;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Delivery;
use crate::account::Account;
use crate::clock;
use crate::updates;
use crate::vendors::{Hook, Outgoing};

/// Sends the events of one account until nobody holds the account any more.
pub(crate) async fn dispatch(account: Weak<Account>) {
    let client = client();
    let mut running = JoinSet::new();
    loop {
        let (wake, next_at) = {
            let Some(account) = account.upgrade() else {
                return;
            };
            let mut state = account.lock();
            let now = Instant::now();
            let vendor = account.profile.vendor();
            let (most, one_kind) = (vendor.hook_batch(), vendor.hook_one_kind());
            let parallel = state.outbox.subscriptions.values().map(|known| known.webhook.parallel);
            let parallel = parallel.max().unwrap_or(1);
            while running.len() < parallel
                && let Some(delivery) = state.outbox.next(now, most, one_kind)
            {
                let hook = Hook {
                    state: &state,
                    id: &delivery.id,
                    webhook: &delivery.webhook,
                    events: &delivery.events,
                    attempt: delivery.attempt,
                    now_ms: clock::now_ms(),
                };
                let outgoing = if !delivery.is_the_vendors() {
                    updates::call(&hook)
                } else if delivery.events.is_empty() {
                    vendor.greeting(&hook)
                } else {
                    Some(vendor.hook(&hook))
                };
                let Some(outgoing) = outgoing else {
                    state.outbox.pass_over(&delivery);
                    continue;
                };
                let timeout = Duration::from_millis(delivery.timeout_ms(vendor));
                running.spawn(send(client.clone(), delivery, outgoing, timeout));
            }
            let visible_in = state
                .contacts
                .next_due()
                .map(|due| (due - clock::now_ms()).max(1).unsigned_abs());
            let visible_at = visible_in.map(|ms| now + Duration::from_millis(ms));
            // With all senders busy a retry that is due has to wait for one of them, not for its time.
            let retry_at = state
                .outbox
                .retries
                .keys()
                .next()
                .map(|key| key.0)
                .filter(|_| running.len() < parallel);
            (account.wake.clone(), visible_at.into_iter().chain(retry_at).min())
        };
        tokio::select! {
            () = wake.notified() => {}
            Some(sent) = running.join_next() => {
                if let (Ok((delivery, result)), Some(account)) = (sent, account.upgrade()) {
                    let vendor = account.profile.vendor();
                    account.lock().outbox.settle(delivery, result, vendor, Instant::now());
                }
            }
            () = sleep_until(next_at) => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn send(
    client: reqwest::Client,
    delivery: Delivery,
    outgoing: Outgoing,
    timeout: Duration,
) -> (Delivery, Result<u16, &'static str>) {
    let request = if outgoing.get {
        client.get(&outgoing.url)
    } else {
        client.post(&outgoing.url).body(outgoing.body)
    };
    let mut request = request.timeout(timeout);
    for (name, value) in outgoing.headers {
        request = request.header(name, value);
    }
    if let Some((name, value)) = outgoing.named {
        request = request.header(name, value);
    }
    let result = match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            match outgoing.expects {
                Some(expected) if response.status().is_success() => {
                    let body = response.text().await.unwrap_or_default();
                    let whole = outgoing.get;
                    if (whole && body == expected) || (!whole && body.contains(&expected)) {
                        Ok(status)
                    } else {
                        Err("not acknowledged")
                    }
                }
                _ => Ok(status),
            }
        }
        Err(error) if error.is_timeout() => Err("timeout"),
        Err(error) => {
            tracing::debug!(%error, "webhook was not delivered");
            Err("unreachable")
        }
    };
    (delivery, result)
}

fn client() -> reqwest::Client {
    // Err: a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client without settings that could be wrong")
}
