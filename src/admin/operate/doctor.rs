//! The checks that only a running process can make: the credentials of its accounts, and a webhook followed through from its
//! delivery to a contact that is served.

use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::ports::Slice;
use contacts::{Kind, Micros, Position, Stream, dead, holds, subscription, work};
use crm::{Connector, Hooks};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::doctor::Check;
use crate::integrations::Integration;
use crate::sampling::account_ids;
use crate::status::span;

/// Longest wait for an answer of the front.
const DELIVERY: Duration = Duration::from_secs(15);

/// Which webhook is tried.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    pub account: String,
    /// Where the front is reached: `http.public_url`, or an address on this machine.
    pub base: String,
    /// The body of a delivery as the CRM sends it, for connectors that are not shipped.
    pub sample: Option<String>,
}

/// What a process says of itself and its accounts.
#[derive(Debug, Serialize)]
pub struct Examined {
    /// As the front shows it in `/bridge.json`.
    pub id: String,
    pub checks: Vec<Check>,
}

impl Operate {
    /// Looks at what this process sees. Puts the credentials of accounts to their CRMs, one call each, by their budgets.
    pub async fn examine(&self, who: &Operator) -> Result<Examined, Refusal> {
        allow(who, Grant::Operate)?;
        let mut checks = Vec::new();
        checks.push(match self.store.ping().await {
            Ok(()) => Check::ok("process: store", self.store.describe()),
            Err(error) => Check::error(
                "process: store",
                process::chain(&error),
                "bring the store back; until then nothing is served",
            ),
        });
        checks.push(match self.worker.queue.ping().await {
            Ok(()) if self.worker.queue.is_blocked() => Check::error(
                "process: queue",
                "the broker blocks publishers",
                "free memory or disk of the broker",
            ),
            Ok(()) => Check::ok("process: queue", self.worker.queue.describe()),
            Err(error) => Check::error(
                "process: queue",
                process::chain(&error),
                "bring the queue back; webhooks are refused until then",
            ),
        });
        let letters = dead::summary(&*self.store).await?.count;
        checks.push(match letters {
            0 => Check::ok("dead letters", "none"),
            count => Check::warning(
                "dead letters",
                match count {
                    1 => "1 piece of work was given up".to_owned(),
                    count => format!("{count} pieces of work were given up"),
                },
                "`snapbridge dead list`; mend the cause, then redrive them",
            ),
        });
        let most = self.doctor_accounts;
        let ids = account_ids(&*self.store, most + 1).await?;
        for id in ids.iter().take(most) {
            if let Some(account) = accounts::get(&*self.store, id).await? {
                checks.push(self.credentials(&account).await?);
            }
        }
        if ids.len() > most {
            let seen = format!("the first {most} were looked at (ops.doctor_accounts), and there are more");
            checks.push(Check::ok("accounts", seen));
        }
        let detail = format!("{} accounts", ids.len().min(most));
        self.note(who, "doctor", "credentials", &detail).await?;
        Ok(Examined {
            id: self.worker.keys.installation(),
            checks,
        })
    }

    async fn credentials(&self, account: &Account) -> Result<Check, Refusal> {
        let check = format!("credentials of {} ({})", account.id, account.integration);
        let work = work::load(&*self.store, &account.id).await?;
        if work.pause.is_some() {
            return Ok(Check::ok(check, "not asked: the account is paused"));
        }
        if work.suspended.is_some() {
            return Ok(Check::ok(
                check,
                "none: Talkdesk no longer calls, and the account is suspended",
            ));
        }
        if holds::load(&*self.store)
            .await?
            .connectors
            .contains_key(&account.connector)
        {
            return Ok(Check::ok(
                check,
                format!("not asked: connector {} is paused", account.connector),
            ));
        }
        let reconnect = "the customer reconnects the CRM in Talkdesk; nothing else helps";
        if let Some(park) = &work.park {
            let ago = span(self.clock.now().since(park.since));
            return Ok(Check::error(
                check,
                format!("the CRM refused them {ago} ago"),
                reconnect,
            ));
        }
        let asked = match self.worker.sources.source(account).await {
            Ok(source) => {
                let asked = source.check().await;
                source.rest().await;
                asked
            }
            Err(error) => Err(error),
        };
        Ok(match asked {
            Ok(()) => Check::ok(check, "the CRM takes them"),
            Err(error) => {
                let advice = match error.kind {
                    contacts::ErrorKind::Credentials => reconnect,
                    contacts::ErrorKind::Missing => "configure the integration again, or forget the account",
                    _ => "look at the CRM, and at the account's page; refreshes are tried again by themselves",
                };
                Check::error(check, process::chain(&error), advice)
            }
        })
    }

    /// Delivers an event of our own making to an account's webhook, and follows it to the contact that is served.
    pub async fn try_webhook(&self, who: &Operator, trial: &Trial) -> Result<Vec<Check>, Refusal> {
        // The delivery carries what proves the sender, to wherever it is told.
        allow(who, Grant::Admin)?;
        let account = self.known_account(&trial.account).await?;
        let integration = self.integrations.get(&account.integration).ok_or_else(|| {
            Refusal::Conflict(format!(
                "the integration {} is not configured here",
                account.integration
            ))
        })?;
        let checks = self.follow(&account, &integration, trial).await?;
        let worst = checks.iter().map(|check| check.level).max();
        let detail = worst.map_or("", crate::doctor::Level::as_str);
        self.note(who, "try webhook", account.id.as_str(), detail).await?;
        Ok(checks)
    }

    async fn follow(&self, account: &Account, integration: &Integration, trial: &Trial) -> Result<Vec<Check>, Refusal> {
        let connector = &integration.connector;
        let hooks = connector.webhook().ok_or_else(|| {
            Refusal::Conflict(format!(
                "connector {} has no webhooks; polls find its changes",
                connector.id()
            ))
        })?;
        let id = self.some_contact(account).await?;
        let sample = trial
            .sample
            .clone()
            .or_else(|| Connector::shipped_delivery(connector.id()));
        let sample = sample.ok_or_else(|| {
            Refusal::BadRequest(format!(
                "no delivery of connector {} is known; give one of the CRM's with --event FILE",
                connector.id()
            ))
        })?;
        let nonce = u64::from(rand::random::<u32>());
        let body = hooks
            .body_for(&sample, &id, account.route.as_deref(), nonce)
            .map_err(|_| Refusal::BadRequest("the sample cannot be made to name a contact of the account".into()))?;
        let (path, secret, hook_id) = self.proof(account, integration, hooks).await?;
        let url = format!("{}{path}", trial.base.trim_end_matches('/'));
        let now = self.clock.now();
        let made = hooks
            .sign(&url, body, &secret, Some(&hook_id), now)
            .ok_or_else(|| Refusal::BadRequest("the sample has no place for the proof of its sender".into()))?;

        let mut checks = Vec::new();
        let mut client = reqwest::Client::builder().no_proxy().timeout(DELIVERY);
        client = client.redirect(reqwest::redirect::Policy::none());
        let client = client
            .build()
            .map_err(|error| Refusal::Conflict(process::chain(&error)))?;
        let sent = client
            .post(&made.url)
            .headers(made.headers)
            .body(made.body)
            .send()
            .await;
        // The URL may hold the secret.
        let sent = sent.map_err(reqwest::Error::without_url);
        match sent {
            Ok(answer) if answer.status().is_success() => {
                checks.push(Check::ok("webhook: delivered", format!("answered {}", answer.status())));
            }
            Ok(answer) => {
                let advice = match answer.status().as_u16() {
                    401 => "front and this process have other keys, or the public URL is not what the sender signs",
                    404 => "the URL leads to another bridge, or the front knows no such integration",
                    503 => "the store or the queue is away",
                    _ => "look at the proxy before the front, and at the front's log",
                };
                checks.push(Check::error(
                    "webhook: delivered",
                    format!("answered {}", answer.status()),
                    advice,
                ));
                return Ok(checks);
            }
            Err(error) => {
                let advice = "see that the front runs, and that this machine reaches it there";
                checks.push(Check::error("webhook: delivered", process::chain(&error), advice));
                return Ok(checks);
            }
        }
        self.watch(account, connector, &id, now, &mut checks).await?;
        Ok(checks)
    }

    /// From the marker to the contact that is served.
    async fn watch(
        &self,
        account: &Account,
        connector: &Connector,
        id: &str,
        sent: Micros,
        checks: &mut Vec<Check>,
    ) -> Result<(), Refusal> {
        let by_id = connector.has_get_many();
        let kind = if by_id { Kind::Ids } else { Kind::Changes };
        let rung = |work: &work::Work| work.last_event.is_some_and(|at| at >= sent);
        let took = |operate: &Operate| span_ms(operate.clock.now().since(sent));
        let work = self.until(account, rung).await?;
        if work.is_none() {
            checks.push(Check::error(
                "webhook: marked",
                "the front took it, and no work was asked for",
                "it counts as repeated, names another account, or a job waited already; try again in a while",
            ));
            return Ok(());
        }
        checks.push(Check::ok(
            "webhook: marked",
            format!("{kind} was rung for after {}", took(self)),
        ));
        let done = |work: &work::Work| {
            let task = work.tasks.get(&kind);
            task.and_then(|task| task.last_done).is_some_and(|at| at >= sent)
        };
        if self.until(account, done).await?.is_none() {
            let work = work::load(&*self.store, &account.id).await?;
            let task = work.tasks.get(&kind);
            let why = match (work.is_held(), task.and_then(|task| task.last_error.as_ref())) {
                (true, _) => "the account stands still".to_owned(),
                (false, Some(failure)) => failure.message.clone(),
                (false, None) => format!("nothing came of it within {}", span(self.try_wait)),
            };
            let advice = "see that a worker runs and keeps up; the account's page says what it waits for";
            checks.push(Check::error("webhook: job", why, advice));
            return Ok(());
        }
        checks.push(Check::ok(
            "webhook: job",
            format!("a worker was done after {}", took(self)),
        ));
        let ids = [id.to_owned()];
        let known = self
            .store
            .known(&account.id, Stream::Contacts, &ids)
            .await?
            .pop()
            .flatten();
        checks.push(match &known {
            Some(known) if !by_id || known.observed >= sent => Check::ok(
                "webhook: commit",
                format!(
                    "contact {id} stands in the snapshot as of a call that began {}",
                    known.observed
                ),
            ),
            _ => Check::error(
                "webhook: commit",
                format!("contact {id} was not written again"),
                format!("`snapbridge contact explain {id} --account {}`", account.id),
            ),
        });
        let Some(known) = known.filter(|known| !known.is_tombstone()) else {
            let seen = format!("contact {id} has been deleted in the CRM meanwhile");
            checks.push(Check::warning(
                "webhook: served",
                seen,
                "try again: another one is taken",
            ));
            return Ok(());
        };
        // What a page that begins right before it would hold.
        let slice = Slice {
            after: Position(known.position.0.saturating_sub(1)),
            until: Some(known.position),
            rows: 1,
            bytes: usize::MAX,
            newer_than: None,
        };
        let page = self.store.page(&account.id, Stream::Contacts, &slice).await?;
        let served = page.bodies.len() == 1;
        checks.push(match served {
            true => Check::ok(
                "webhook: served",
                format!("contact {id} is on the page of its position"),
            ),
            false => Check::error(
                "webhook: served",
                format!("contact {id} is not on the page of its position"),
                "it was changed meanwhile; try again",
            ),
        });
        Ok(())
    }

    async fn until(
        &self,
        account: &Account,
        holds: impl Fn(&work::Work) -> bool,
    ) -> Result<Option<work::Work>, Refusal> {
        let began = self.clock.now();
        loop {
            let work = work::load(&*self.store, &account.id).await?;
            if holds(&work) {
                return Ok(Some(work));
            }
            if self.clock.now().since(began) >= self.try_wait / 2 {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The first contact of the snapshot.
    async fn some_contact(&self, account: &Account) -> Result<String, Refusal> {
        let slice = Slice {
            after: Position::START,
            until: None,
            rows: 1,
            bytes: usize::MAX,
            newer_than: None,
        };
        let none = || Refusal::Conflict("the account has no contact yet that an event could name".into());
        let page = match self.store.page(&account.id, Stream::Contacts, &slice).await {
            Err(error) if error.kind == contacts::ports::StoreErrorKind::NoSnapshot => return Err(none()),
            page => page?,
        };
        let first = page.bodies.first().ok_or_else(none)?;
        let contact: contacts::Contact = serde_json::from_slice(first).map_err(|_| none())?;
        Ok(contact.id)
    }

    /// The path of the account's webhook, and what a delivery there is proven with.
    async fn proof(
        &self,
        account: &Account,
        integration: &Integration,
        hooks: Hooks<'_>,
    ) -> Result<(String, SecretString, String), Refusal> {
        let keys = &self.worker.keys;
        let name = &integration.name;
        if hooks.is_per_account() {
            let path = format!("/{name}/webhooks/{}", keys.hook_id(&account.id));
            let known = subscription::load(&*self.store, &account.id).await?.unwrap_or_default();
            for held in &known.held {
                if let Some(Ok(secret)) = subscription::open(keys, &account.id, held) {
                    return Ok((path, secret, held.id.clone()));
                }
            }
            let own = hooks.secret(&keys.hook_secret(&account.id));
            return Ok((path, own, "doctor".to_owned()));
        }
        let secret = integration.app_secrets().into_iter().next().ok_or_else(|| {
            Refusal::Conflict(format!(
                "integrations.{name}.app.webhook_secret is not set: its webhooks are refused"
            ))
        })?;
        Ok((format!("/{name}/webhooks"), secret, "doctor".to_owned()))
    }
}

fn span_ms(took: Duration) -> String {
    match took.as_secs() {
        0..=9 => format!("{} ms", took.as_millis()),
        _ => span(took),
    }
}
