//! What the pages and the API show, gathered from store and queue. No contact data but ids, and no credentials.

use contacts::audit;
use contacts::dead::{self, DeadLetter};
use contacts::holds::{self, Holds};
use contacts::ledger::Left;
use contacts::runs::{self, Run};
use contacts::subscription::{self, Standing, Subscription};
use contacts::work::{self, Task, Work};
use contacts::{AccountId, Lane, Micros, StoreError, Stream, accounts};
use serde::Serialize;

use super::Admin;
use super::history::Line;
use crate::integrations::{ByHand, renewals};
use crate::sampling::account_ids;
use crate::status::{self, AccountStatus, State, Status, held, span};

/// A time as people and machines read it.
#[derive(Debug, Serialize)]
pub struct When {
    pub at: String,
    /// `3 min ago`, `in 41 min`.
    pub words: String,
}

pub fn when(at: Micros, now: Micros) -> When {
    let words = match at > now {
        true => format!("in {}", span(at.since(now))),
        false => format!("{} ago", span(now.since(at))),
    };
    When {
        at: at.to_string(),
        words,
    }
}

fn known(at: Micros, now: Micros) -> Option<When> {
    (at > Micros::ZERO).then(|| when(at, now))
}

/// Something that is late or stands still, and where to act.
#[derive(Debug, Serialize)]
pub struct Trouble {
    /// `bad` (nothing moves, or somebody must act) or `warn` (it waits, and goes on by itself).
    pub level: &'static str,
    pub text: String,
    pub link: String,
}

#[derive(Debug, Serialize)]
pub struct Chart {
    pub depth: String,
    pub most_depth: u64,
    pub age: String,
    pub most_age: String,
}

#[derive(Debug, Serialize)]
pub struct LaneView {
    pub lane: Lane,
    pub depth: Option<u64>,
    pub backlog: u64,
    pub oldest: Option<String>,
    pub held: Option<String>,
    pub chart: Chart,
}

#[derive(Debug, Serialize)]
pub struct ConnectorView {
    pub name: String,
    pub integrations: Vec<String>,
    pub held: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Overview {
    pub troubles: Vec<Trouble>,
    pub lanes: Vec<LaneView>,
    pub connectors: Vec<ConnectorView>,
    pub chart_span: String,
    pub waiting: Option<u64>,
    pub in_flight: u64,
    pub dead: Option<u64>,
    pub dead_letters: u64,
    pub accounts: Vec<AccountStatus>,
    /// Accounts that the filter left out, or that did not fit.
    pub hidden: usize,
    pub states: Vec<(State, usize)>,
}

#[derive(Debug, Serialize)]
pub struct TaskView {
    pub kind: String,
    pub lane: Option<Lane>,
    pub due: Option<When>,
    /// `waits for a worker`, `runs`, `not before …`, `planned`.
    pub now: String,
    pub last_done: Option<When>,
    pub failed: u32,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SnapshotView {
    pub stream: String,
    pub ready: bool,
    pub records: u64,
    pub fresh: Option<When>,
    /// The CRM time up to which everything has been read.
    pub watermark: Option<When>,
    pub committed: Option<When>,
}

#[derive(Debug, Serialize)]
pub struct RunView {
    pub started: When,
    pub took: String,
    #[serde(flatten)]
    pub run: Run,
}

#[derive(Debug, Serialize)]
pub struct AccountView {
    #[serde(flatten)]
    pub status: AccountStatus,
    pub connector: String,
    pub created: When,
    pub called: Option<When>,
    pub verified: Option<When>,
    pub last_webhook: Option<When>,
    /// How a person sets its webhook up at the CRM, where none has come and the bridge cannot ask for one.
    pub by_hand: Option<ByHand>,
    /// Credentials that end at the CRM, one sentence each.
    pub renewals: Vec<String>,
    /// Ids that webhooks named and nobody has fetched since.
    pub dirty: usize,
    pub paused: bool,
    pub tasks: Vec<TaskView>,
    pub snapshots: Vec<SnapshotView>,
    pub budgets: Vec<LeftView>,
    pub runs: Vec<RunView>,
    pub dead_letters: Vec<LetterView>,
}

#[derive(Debug, Serialize)]
pub struct LetterView {
    pub died: When,
    #[serde(flatten)]
    pub letter: DeadLetter,
}

/// What is left of a limit, and when it is whole again if that has a time.
#[derive(Debug, Serialize)]
pub struct LeftView {
    #[serde(flatten)]
    pub left: Left,
    pub resets: Option<When>,
}

fn left_views(limits: Vec<Left>, now: Micros) -> Vec<LeftView> {
    let view = |left: Left| LeftView {
        resets: left.resets.map(|at| when(at, now)),
        left,
    };
    limits.into_iter().map(view).collect()
}

/// Limits of two connectors may have one name.
fn left_views_of(budgets: Vec<(String, Vec<Left>)>, now: Micros) -> Vec<LeftView> {
    let several = budgets.len() > 1;
    let mut views = Vec::new();
    for (connector, limits) in budgets {
        let named = |mut view: LeftView| {
            if several {
                view.left.limit = format!("{connector}: {}", view.left.limit);
            }
            view
        };
        views.extend(left_views(limits, now).into_iter().map(named));
    }
    views
}

#[derive(Debug, Serialize)]
pub struct BudgetView {
    pub account: String,
    pub integration: String,
    /// Whose account it is, where an integration links; then there is one of each system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dealer: Option<String>,
    pub connector: String,
    pub limits: Vec<LeftView>,
}

#[derive(Debug, Serialize)]
pub struct AuditView {
    pub when: When,
    #[serde(flatten)]
    pub entry: audit::Entry,
}

/// Which accounts the overview lists.
#[derive(Debug, Default, Serialize)]
pub struct Filter {
    pub state: Option<String>,
    /// Part of an id or of an integration's name.
    pub text: Option<String>,
}

/// Accounts that are looked at for one page.
pub const ACCOUNTS: usize = 1_000;
/// Accounts that are listed.
const LISTED: usize = 200;

impl Admin {
    pub async fn status(&self, limit: usize) -> Result<Status, StoreError> {
        let depths = tokio::time::timeout(super::PROBE, self.queue.depth()).await;
        let depths = depths.ok().and_then(Result::ok);
        status::read(&*self.store, depths, self.clock.now(), limit).await
    }

    pub async fn overview(&self, filter: &Filter) -> Result<Overview, StoreError> {
        let now = self.clock.now();
        let status = self.status(ACCOUNTS).await?;
        let holds = holds::load(&*self.store).await?;
        let troubles = self.troubles(&status, &holds, now);
        let mut states: Vec<(State, usize)> = Vec::new();
        for account in &status.accounts {
            match states.iter_mut().find(|(state, _)| *state == account.state) {
                Some((_, count)) => *count += 1,
                None => states.push((account.state, 1)),
            }
        }
        let all = status.accounts.len();
        let text = filter.text.as_deref().unwrap_or_default().to_lowercase();
        let mut accounts = status.accounts;
        accounts.retain(|account| {
            filter
                .state
                .as_ref()
                .is_none_or(|state| account.state.as_str() == state)
                && (account.id.contains(&text) || account.integration.to_lowercase().contains(&text))
        });
        accounts.sort_by_key(|account| account.state.urgency());
        accounts.truncate(LISTED);
        Ok(Overview {
            troubles,
            lanes: status
                .lanes
                .iter()
                .map(|lane| LaneView {
                    lane: lane.lane,
                    depth: lane.depth,
                    backlog: lane.backlog,
                    oldest: (lane.backlog > 0).then(|| span(std::time::Duration::from_secs(lane.oldest_seconds))),
                    held: holds
                        .lanes
                        .get(&lane.lane)
                        .map(|pause| held(&holds::Scope::Lane(lane.lane), pause, now)),
                    chart: chart(self.history.lines(lane.lane, now)),
                })
                .collect(),
            connectors: self.connectors(&holds, now),
            chart_span: span(self.history.span()),
            waiting: status.waiting,
            in_flight: status.running,
            dead: status.dead,
            dead_letters: status.dead_letters,
            hidden: all - accounts.len(),
            accounts,
            states,
        })
    }

    fn connectors(&self, holds: &Holds, now: Micros) -> Vec<ConnectorView> {
        let mut connectors: Vec<ConnectorView> = Vec::new();
        for (name, connector) in self
            .integrations
            .iter()
            .map(|integration| (integration.name.clone(), integration.connector.id().to_owned()))
        {
            match connectors.iter_mut().find(|known| known.name == connector) {
                Some(known) => known.integrations.push(name),
                None => connectors.push(ConnectorView {
                    held: holds
                        .connectors
                        .get(&connector)
                        .map(|pause| held(&holds::Scope::Connector(connector.clone()), pause, now)),
                    name: connector,
                    integrations: vec![name],
                }),
            }
        }
        connectors
    }

    /// What somebody who was just woken must know, the worst first.
    fn troubles(&self, status: &Status, holds: &Holds, now: Micros) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut add = |level, text: String, link: String| troubles.push(Trouble { level, text, link });
        if status.waiting.is_none() {
            let text = "The queue does not answer: webhooks are refused and no refresh begins. Snapshots go on being served. \
                        Look at RabbitMQ; everything goes on by itself when it is back";
            add("bad", text.into(), String::new());
        }
        if self.queue.is_blocked() {
            let text = "The broker blocks publishers (its memory or disk alarm): free some, or nothing is rung for";
            add("bad", text.into(), String::new());
        }
        for lane in &status.lanes {
            if lane.backlog > 0 && lane.oldest_seconds > LATE.as_secs() {
                let waits = span(std::time::Duration::from_secs(lane.oldest_seconds));
                let text = format!(
                    "{} due in lane {}, the oldest for {waits}: the workers do not keep up, or none runs. Start more workers, \
                     or look at what they wait for below",
                    lane.backlog, lane.lane
                );
                add("bad", text, String::new());
            }
        }
        let count = |state| status.accounts.iter().filter(|account| account.state == state).count();
        let accounts = |count: usize| {
            if count == 1 {
                "1 account".to_owned()
            } else {
                format!("{count} accounts")
            }
        };
        let (dealers, parked): (Vec<_>, Vec<_>) = status
            .accounts
            .iter()
            .filter(|account| account.state == State::Parked)
            .partition(|account| account.dealer.is_some());
        if !parked.is_empty() {
            let text = format!(
                "{}: the CRM refused the credentials. Its customer must reconnect the CRM in Talkdesk; nothing else helps",
                accounts(parked.len())
            );
            add("bad", text, "/ops?state=parked".into());
        }
        if !dealers.is_empty() {
            let text = format!(
                "{}: Web1on1 or the DMS refused the credentials of a dealer. Put right ones into the settings and start anew",
                accounts(dealers.len())
            );
            add("bad", text, "/ops?state=parked".into());
        }
        let failing = count(State::Failing);
        if failing > 0 {
            let text = format!(
                "{}: the last refresh failed, and is tried again by itself",
                accounts(failing)
            );
            add("bad", text, "/ops?state=failing".into());
        }
        if status.dead_letters > 0 {
            let text = match status.dead_letters {
                1 => "1 dead letter: work that was given up. Mend the cause, then redrive it".to_owned(),
                count => format!("{count} dead letters: work that was given up. Mend the cause, then redrive them"),
            };
            add("bad", text, "/ops/dead".into());
        }
        let waiting = count(State::Waiting);
        if waiting > 0 {
            let text = format!("{}: waits for a CRM's limit, and goes on by itself", accounts(waiting));
            add("warn", text, "/ops?state=waiting".into());
        }
        for (name, pause) in &holds.connectors {
            add(
                "warn",
                held(&holds::Scope::Connector(name.clone()), pause, now),
                "/ops#connectors".into(),
            );
        }
        for (lane, pause) in &holds.lanes {
            add(
                "warn",
                held(&holds::Scope::Lane(*lane), pause, now),
                "/ops#lanes".into(),
            );
        }
        let paused = count(State::Paused);
        if paused > 0 {
            add(
                "warn",
                format!("{}: paused by an operator", accounts(paused)),
                "/ops?state=paused".into(),
            );
        }
        troubles
    }

    /// `None`: there is no such account.
    pub async fn account(&self, id: &str) -> Result<Option<AccountView>, StoreError> {
        let Ok(id) = id.parse::<AccountId>() else {
            return Ok(None);
        };
        let Some(account) = accounts::get(&*self.store, &id).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let work = work::load(&*self.store, &id).await?;
        let mut snapshots = Vec::new();
        let mut of_contacts = None;
        let mut agents = None;
        for stream in [Stream::Contacts, Stream::Agents] {
            let Some(head) = self.store.head(&id, stream).await? else {
                continue;
            };
            snapshots.push(SnapshotView {
                stream: stream.as_str().to_owned(),
                ready: head.ready,
                records: head.count,
                fresh: known(head.fresh, now),
                watermark: known(head.watermark, now),
                committed: known(head.committed, now),
            });
            match stream {
                Stream::Contacts => of_contacts = Some(head),
                Stream::Agents => agents = head.ready.then_some(head.count),
            }
        }
        let mut status = status::describe(&account, &work, of_contacts.as_ref(), now);
        status.agents = agents;
        let holds = holds::load(&*self.store).await?;
        status.mind_holds(&account.connector, &work, &holds, now);
        if account.dealer.is_some() {
            status.mind_inbox(&*self.store, &id, now).await?;
        }
        let subscription = subscription::load(&*self.store, &id).await?;
        status.webhook = subscription.as_ref().map(|known| status::webhook(known, now));
        let integration = self.integrations.get(&account.integration);
        let budgets = self.integrations.budgets_left(&account).await?;
        let waits_for_a_person = match subscription.as_ref().map(Subscription::standing) {
            Some(Standing::ByHand(_) | Standing::Failing(_)) => true,
            Some(Standing::Pending | Standing::Subscribed) => false,
            // Of an app's webhook nobody knows whether it is there before it has spoken.
            None => true,
        };
        let by_hand = integration
            .as_ref()
            .filter(|_| waits_for_a_person && work.last_event.is_none())
            .and_then(|integration| integration.webhook_by_hand(&id))
            .filter(|by_hand| subscription.is_some() || by_hand.secret_setting.is_some());
        let runs = runs::list(&*self.store, &id).await?;
        let mut letters = dead::list(&*self.store, super::operate::LETTERS).await?;
        letters.retain(|letter| letter.account.as_ref() == Some(&id));
        Ok(Some(AccountView {
            status,
            connector: account.connector,
            created: when(account.created, now),
            called: known(account.called, now),
            verified: known(account.verified, now),
            last_webhook: work.last_event.map(|at| when(at, now)),
            by_hand,
            renewals: integration.map_or_else(Vec::new, |integration| renewals(&integration.connector)),
            dirty: self.store.dirty(&id, 10_000).await?.len(),
            paused: work.pause.is_some(),
            tasks: work
                .tasks
                .iter()
                .map(|(kind, task)| task_view(&work, *kind, task, now))
                .collect(),
            snapshots,
            budgets: left_views_of(budgets, now),
            runs: runs.into_iter().map(|run| run_view(run, now)).collect(),
            dead_letters: letters.into_iter().map(|letter| letter_view(letter, now)).collect(),
        }))
    }

    /// What is left of every account's limits.
    pub async fn budgets(&self) -> Result<Vec<BudgetView>, StoreError> {
        let mut budgets = Vec::new();
        for id in account_ids(&*self.store, LISTED).await? {
            let Some(account) = accounts::get(&*self.store, &id).await? else {
                continue;
            };
            for (connector, limits) in self.integrations.budgets_left(&account).await? {
                budgets.push(BudgetView {
                    limits: left_views(limits, self.clock.now()),
                    account: id.to_string(),
                    integration: account.integration.clone(),
                    dealer: account.dealer.clone(),
                    connector,
                });
            }
        }
        let least = |view: &BudgetView| {
            let share = |left: &Left| left.left.saturating_mul(1_000) / left.max.max(1);
            view.limits
                .iter()
                .map(|view| share(&view.left))
                .min()
                .unwrap_or(u64::MAX)
        };
        budgets.sort_by_key(least);
        Ok(budgets)
    }

    pub async fn audit(&self) -> Result<Vec<AuditView>, StoreError> {
        let now = self.clock.now();
        let entries = audit::list(&*self.store).await?;
        let view = |entry: audit::Entry| AuditView {
            when: when(entry.at, now),
            entry,
        };
        Ok(entries.into_iter().map(view).collect())
    }
}

/// Due for longer than this is late.
const LATE: std::time::Duration = std::time::Duration::from_secs(300);

pub fn letter_view(letter: DeadLetter, now: Micros) -> LetterView {
    LetterView {
        died: when(letter.at, now),
        // Sealed, and of no use to anybody who looks.
        letter: DeadLetter {
            payload: None,
            ..letter
        },
    }
}

fn run_view(run: Run, now: Micros) -> RunView {
    let took = run.ended.since(run.began);
    RunView {
        started: when(run.began, now),
        took: match took.as_secs() {
            0..=9 => format!("{:.1} s", took.as_secs_f64()),
            _ => span(took),
        },
        run,
    }
}

fn task_view(work: &Work, kind: contacts::Kind, task: &Task, now: Micros) -> TaskView {
    let runs = work
        .lease_of(kind)
        .is_some_and(|lease| lease.kind == kind && lease.until > now);
    let due = task.due.is_some_and(|due| due <= now);
    let state = if runs {
        "runs".to_owned()
    } else if let Some(at) = task.not_before.filter(|at| *at > now) {
        format!("not before {}", when(at, now).words)
    } else if task.marker.is_some() {
        "waits for a worker".to_owned()
    } else if due && work.is_held() {
        "stands still".to_owned()
    } else if due {
        "is rung for at the next sweep".to_owned()
    } else if task.due.is_some() {
        "planned".to_owned()
    } else {
        "when it is asked for".to_owned()
    };
    TaskView {
        kind: kind.to_string(),
        lane: task.lane,
        due: task.due.map(|at| when(at, now)),
        now: state,
        last_done: task.last_done.map(|at| when(at, now)),
        failed: task.failed,
        error: task.last_error.as_ref().map(|failure| failure.message.clone()),
    }
}

fn chart((depth, age): (Line, Line)) -> Chart {
    Chart {
        most_depth: depth.most as u64,
        most_age: span(std::time::Duration::from_secs_f64(age.most)),
        depth: depth.path(240.0, 36.0),
        age: age.path(240.0, 36.0),
    }
}
