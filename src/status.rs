//! What is late and why, in words: depth and age per lane, dead letters, each account in one plain sentence.

use std::fmt::Write as _;
use std::time::Duration;

use contacts::accounts::{self, Account};
use contacts::holds::{self, Holds, Scope};
use contacts::linking::records;
use contacts::ports::Head;
use contacts::queue::Depths;
use contacts::subscription::{self, Standing, Subscription};
use contacts::work::{self, Failure, Pause, Task, Work, due_index};
use contacts::{AccountId, Kind, Lane, Micros, Store, StoreError, Stream, dead, inbox};
use serde::Serialize;

use crate::sampling::account_ids;

/// The whole picture.
#[derive(Debug, Serialize)]
pub struct Status {
    pub lanes: Vec<LaneStatus>,
    /// Jobs in the wait queues; `None` if the queue did not answer.
    pub waiting: Option<u64>,
    /// Jobs the broker gave up on that are not taken in yet.
    pub dead: Option<u64>,
    pub dead_letters: u64,
    /// Slices that run now.
    pub running: u64,
    /// What operators have paused for everybody, one sentence each.
    pub held: Vec<String>,
    pub accounts: Vec<AccountStatus>,
}

#[derive(Debug, Serialize)]
pub struct LaneStatus {
    pub lane: Lane,
    /// Jobs ready, as the broker counts them; `None` if it did not answer.
    pub depth: Option<u64>,
    /// Tasks that are due, as the store counts them.
    pub backlog: u64,
    /// How long the oldest of them has been due.
    pub oldest_seconds: u64,
}

#[derive(Debug, Serialize)]
pub struct AccountStatus {
    pub id: String,
    pub integration: String,
    /// A dealer of a linking integration, by its name in the settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dealer: Option<String>,
    pub state: State,
    /// State, cause and what comes next, in one sentence.
    pub sentence: String,
    pub contacts: u64,
    pub fresh_seconds: Option<u64>,
    /// `None`: they were never read whole.
    pub agents: Option<u64>,
    /// `None`: the CRM has no webhook of an account's own, or the snapshot is not built yet.
    pub webhook: Option<WebhookStatus>,
}

/// How the CRM's webhook of an account stands.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct WebhookStatus {
    pub state: WebhookState,
    /// The same in words, with its cause.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookState {
    /// The CRM is about to be asked for it.
    Pending,
    Subscribed,
    /// A person sets it up.
    Manual,
    /// The CRM was asked, in vain so far.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ready,
    Building,
    Refreshing,
    Waiting,
    Failing,
    Parked,
    Paused,
    /// Talkdesk no longer calls for it.
    Suspended,
}

impl State {
    pub const ALL: [State; 8] = [
        State::Ready,
        State::Building,
        State::Refreshing,
        State::Waiting,
        State::Failing,
        State::Parked,
        State::Paused,
        State::Suspended,
    ];

    /// As it is serialised.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Building => "building",
            State::Refreshing => "refreshing",
            State::Waiting => "waiting",
            State::Failing => "failing",
            State::Parked => "parked",
            State::Paused => "paused",
            State::Suspended => "suspended",
        }
    }

    /// What somebody must look at first is the least.
    pub fn urgency(self) -> u8 {
        match self {
            State::Parked => 0,
            State::Failing => 1,
            State::Waiting => 2,
            State::Paused => 3,
            State::Building => 4,
            State::Refreshing => 5,
            State::Ready => 6,
            State::Suspended => 7,
        }
    }
}

/// Reads the picture. `depths`: the broker's own count, if it answered.
pub async fn read(store: &dyn Store, depths: Option<Depths>, now: Micros, limit: usize) -> Result<Status, StoreError> {
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        let backlog = store.index_summary(&due_index(lane), now).await?;
        let of_lane = |depths: &Depths| {
            depths
                .lanes
                .iter()
                .find(|depth| depth.lane == lane)
                .map(|depth| depth.ready)
        };
        lanes.push(LaneStatus {
            lane,
            depth: depths.as_ref().and_then(of_lane),
            backlog: backlog.count,
            oldest_seconds: backlog.oldest.map_or(0, |at| now.since(at).as_secs()),
        });
    }
    let holds = holds::load(store).await?;
    let mut running = 0;
    let mut accounts = Vec::new();
    for id in account_ids(store, limit).await? {
        let Some(account) = accounts::get(store, &id).await? else {
            continue;
        };
        let work = work::load(store, &id).await?;
        let head = store.head(&id, Stream::Contacts).await?;
        let mut status = describe(&account, &work, head.as_ref(), now);
        status.mind_holds(&account.connector, &work, &holds, now);
        if account.dealer.is_some() {
            status.mind_inbox(store, &id, now).await?;
        }
        let leases = [&work.lease, &work.agents_lease].into_iter().flatten();
        running += leases.filter(|lease| lease.until > now).count() as u64;
        let agents = store.head(&id, Stream::Agents).await?.filter(|head| head.ready);
        status.agents = agents.map(|head| head.count);
        if let Some(known) = subscription::load(store, &id).await? {
            status.webhook = Some(webhook(&known, now));
        }
        accounts.push(status);
    }
    Ok(Status {
        lanes,
        waiting: depths.as_ref().map(|depths| depths.waiting),
        dead: depths.as_ref().map(|depths| depths.dead),
        dead_letters: dead::summary(store).await?.count,
        running,
        held: sentences(&holds, now),
        accounts,
    })
}

fn sentences(holds: &Holds, now: Micros) -> Vec<String> {
    let connectors = holds
        .connectors
        .iter()
        .map(|(name, pause)| (Scope::Connector(name.clone()), pause));
    let lanes = holds.lanes.iter().map(|(lane, pause)| (Scope::Lane(*lane), pause));
    connectors
        .chain(lanes)
        .map(|(scope, pause)| held(&scope, pause, now))
        .collect()
}

/// `connector demo is paused by Ann for 3 min`.
pub fn held(scope: &Scope, pause: &Pause, now: Micros) -> String {
    format!("{scope} is paused by {} for {}", pause.by, span(now.since(pause.since)))
}

impl AccountStatus {
    /// An account whose connector, or the lane of whose next work, is paused stands still, too.
    pub fn mind_holds(&mut self, connector: &str, work: &Work, holds: &Holds, now: Micros) {
        if work.is_held() || holds.is_empty() {
            return;
        }
        let due = work
            .tasks
            .values()
            .filter(|task| task.due.is_some_and(|due| due <= now));
        let lanes = due.filter_map(|task| task.lane);
        let mut by = lanes.filter_map(|lane| holds.of(connector, lane));
        let found = by.next().or_else(|| {
            let pause = holds.connectors.get(connector)?;
            Some((Scope::Connector(connector.to_owned()), pause))
        });
        if let Some((scope, pause)) = found {
            self.state = State::Paused;
            self.sentence = format!("{}; {}", held(&scope, pause, now), self.sentence);
        }
    }
}

impl AccountStatus {
    /// Adds what lies in a dealer's inbox, and how far a seeding is.
    pub async fn mind_inbox(&mut self, store: &dyn Store, id: &AccountId, now: Micros) -> Result<(), StoreError> {
        let fill = inbox::fill(store, id).await?;
        let seeding = records::seeding(store, id).await?;
        self.sentence.push_str(&match fill.oldest {
            Some(oldest) => format!("; {} wait, the oldest for {}", fill.waiting, span(now.since(oldest))),
            None => "; nothing waits".to_owned(),
        });
        if let (Some(_), None) = (seeding.began, seeding.ended) {
            self.sentence
                .push_str(&format!("; seeding, {} records so far", seeding.seen));
        }
        Ok(())
    }
}

/// How late the agents may be before that is said.
const AGENTS_LATE: Duration = Duration::from_secs(120);

/// One account in one sentence. What `work` does not tell of the agents is left open.
pub fn describe(account: &Account, work: &Work, head: Option<&Head>, now: Micros) -> AccountStatus {
    let contacts = head.map_or(0, |head| head.count);
    let ready = head.is_some_and(|head| head.ready);
    let fresh = head.map(|head| head.fresh).filter(|fresh| *fresh > Micros::ZERO);
    let ago = |at: Micros| format!("{} ago", span(now.since(at)));
    let within = |at: Micros| format!("in {}", span(at.since(now)));
    let held = match (ready, fresh) {
        _ if account.dealer.is_some() => format!("dealer {}", account.dealer.as_deref().unwrap_or_default()),
        (true, Some(fresh)) => format!("{contacts} contacts as of {}", ago(fresh)),
        (true, None) => format!("{contacts} contacts"),
        (false, _) => format!("{contacts} contacts so far"),
    };
    let failing = work
        .tasks
        .iter()
        .filter(|(kind, _)| **kind != Kind::Agents)
        .filter_map(|(kind, task)| Some((*kind, task, task.last_error.as_ref()?)))
        .max_by_key(|(_, _, failure)| failure.at);
    let next_poll = work.tasks.get(&Kind::Changes).and_then(|task| task.due);
    let running = work.lease.as_ref().filter(|lease| lease.until > now);

    let (state, sentence) = if let Some(pause) = &work.pause {
        (
            State::Paused,
            format!("paused by {} {}; {held}", pause.by, ago(pause.since)),
        )
    } else if let Some(since) = work.suspended {
        let silent = span(now.since(contacts::life::last_call(account)));
        (
            State::Suspended,
            format!(
                "suspended {}, as Talkdesk has not called for {silent}; its next call revives it; {held}",
                ago(since)
            ),
        )
    } else if let Some(park) = &work.park {
        let because = format!("the CRM refused the credentials {}", ago(park.since));
        (
            State::Parked,
            match park.handed_back {
                _ if account.dealer.is_some() => format!(
                    "stopped {}: {}; tried again every 10 min, and at once with other credentials in the settings; {held}",
                    ago(park.since),
                    park.message
                ),
                true => format!("stopped: {because}; Talkdesk was told, and is to send working ones; {held}"),
                false => format!("stopped: {because}; waits for Talkdesk to send working ones; {held}"),
            },
        )
    } else if let Some((kind, task, failure)) = failing {
        let next = next_try(task, failure, now);
        let waits = is_wait(failure);
        let state = if waits { State::Waiting } else { State::Failing };
        let what = if waits { "waits" } else { "fails" };
        (
            state,
            format!("{kind} {what}: {}; next try {next}; {held}", failure.message),
        )
    } else if account.dealer.is_some() {
        match running {
            Some(_) => (State::Refreshing, format!("links what waits; {held}")),
            None => (State::Ready, format!("links what it is told of; {held}")),
        }
    } else if !ready {
        (State::Building, format!("being fetched for the first time; {held}"))
    } else if let Some(lease) = running {
        (State::Refreshing, format!("{} is running; {held}", lease.kind))
    } else {
        let next = match next_poll {
            Some(at) if at > now => format!("next poll {}", within(at)),
            Some(at) => format!("a poll has been due for {}", span(now.since(at))),
            None => "no poll planned".to_owned(),
        };
        (State::Ready, format!("up to date: {held}; {next}"))
    };
    let (state, sentence) = match agents_trouble(work, now) {
        Some((of_agents, clause)) if !work.is_held() => {
            let fine = matches!(state, State::Ready | State::Refreshing);
            (if fine { of_agents } else { state }, format!("{sentence}; {clause}"))
        }
        _ => (state, sentence),
    };
    AccountStatus {
        id: account.id.to_string(),
        integration: account.integration.clone(),
        dealer: account.dealer.clone(),
        state,
        sentence,
        contacts,
        fresh_seconds: fresh.map(|fresh| now.since(fresh).as_secs()),
        agents: None,
        webhook: None,
    }
}

/// The CRM's webhook in a few words.
pub fn webhook(known: &Subscription, now: Micros) -> WebhookStatus {
    let (state, sentence) = match known.standing() {
        Standing::Pending => (WebhookState::Pending, "webhook not asked for yet".to_owned()),
        Standing::Subscribed => {
            let end = known.held.iter().filter_map(|held| held.expires).min();
            let until = end
                .map(|end| format!(" for {}", span(end.since(now))))
                .unwrap_or_default();
            (WebhookState::Subscribed, format!("webhook subscribed{until}"))
        }
        Standing::ByHand(why) => (WebhookState::Manual, format!("webhook by hand: {why}")),
        Standing::Failing(failure) => {
            let again = failure.again.filter(|at| *at > now);
            let next = again.map_or("soon".to_owned(), |at| format!("in {}", span(at.since(now))));
            (
                WebhookState::Failed,
                format!("webhook failed: {}; next try {next}", failure.message),
            )
        }
    };
    WebhookStatus { state, sentence }
}

/// What is wrong with the agents: they fail, or are late.
fn agents_trouble(work: &Work, now: Micros) -> Option<(State, String)> {
    let task = work.tasks.get(&Kind::Agents)?;
    if let Some(failure) = &task.last_error {
        let next = next_try(task, failure, now);
        let (state, what) = match is_wait(failure) {
            true => (State::Waiting, "wait"),
            false => (State::Failing, "fail"),
        };
        return Some((state, format!("agents {what}: {}; next try {next}", failure.message)));
    }
    let late = task.due.map(|due| now.since(due)).filter(|late| *late > AGENTS_LATE)?;
    let runs = work.agents_lease.as_ref().is_some_and(|lease| lease.until > now);
    let what = if runs { "have been read" } else { "have been due" };
    Some((State::Ready, format!("agents {what} for {}", span(late))))
}

fn next_try(task: &Task, failure: &Failure, now: Micros) -> String {
    let again = failure.again.or(task.due).filter(|at| *at > now);
    again.map_or("soon".to_owned(), |at| format!("in {}", span(at.since(now))))
}

/// The CRM or the budget says when to go on; nothing is wrong otherwise.
pub fn is_wait(failure: &Failure) -> bool {
    matches!(failure.kind.as_str(), "throttled" | "quota" | "no_budget")
}

impl Status {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let number = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
        let _ = writeln!(out, "{:<10} {:>8} {:>8} {:>12}", "lane", "queued", "due", "oldest");
        for lane in &self.lanes {
            let oldest = match lane.backlog {
                0 => "-".to_owned(),
                _ => span(Duration::from_secs(lane.oldest_seconds)),
            };
            let _ = writeln!(
                out,
                "{:<10} {:>8} {:>8} {oldest:>12}",
                lane.lane,
                number(lane.depth),
                lane.backlog
            );
        }
        let _ = writeln!(
            out,
            "waiting to be tried again: {}   given up by the queue: {}   dead letters: {}",
            number(self.waiting),
            number(self.dead),
            self.dead_letters
        );
        for held in &self.held {
            let _ = writeln!(out, "{held}");
        }
        if self.waiting.is_none() {
            let _ = writeln!(out, "the queue did not answer: its own counts are unknown");
        }
        let _ = writeln!(out);
        if self.accounts.is_empty() {
            let _ = writeln!(out, "no account yet: the first call of Talkdesk registers one");
        }
        for account in &self.accounts {
            let _ = write!(out, "{}  {:<12} {}", account.id, account.integration, account.sentence);
            let _ = match &account.webhook {
                Some(webhook) => writeln!(out, "; {}", webhook.sentence),
                None => writeln!(out),
            };
        }
        out
    }
}

/// A duration for people: `41 min`, `3 h 5 min`, `12 s`.
pub fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0 => "0 s".to_owned(),
        1..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 if secs % 3600 < 60 => format!("{} h", secs / 3600),
        7_200..=172_799 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contacts::accounts::Sealed;
    use contacts::keys::Fingerprint;
    use contacts::work::{Lease, Park};
    use contacts::{Fence, Generation, Position};

    use super::*;

    fn account() -> Account {
        Account {
            id: "abcdefghijklmnopqrstuvwx23".parse().unwrap(),
            integration: "demo".into(),
            connector: "demo".into(),
            budget: "b".into(),
            user_budget: None,
            dealer: None,
            created: Micros::ZERO,
            credentials: Sealed {
                kid: "k".into(),
                data: String::new(),
            },
            fingerprint: Fingerprint("f".into()),
            learned: BTreeMap::new(),
            route: None,
            called: Micros::ZERO,
            verified: Micros::ZERO,
            tokens: Default::default(),
        }
    }

    fn head(ready: bool) -> Head {
        Head {
            generation: Generation(1),
            position: Position(1),
            fence: Fence(1),
            ready,
            watermark: Micros::ZERO,
            count: 42,
            progress: vec![],
            committed: Micros::ZERO,
            fresh: Micros::from_secs(1_000),
        }
    }

    #[test]
    fn each_state_is_told_with_cause_and_next_step() {
        let now = Micros::from_secs(1_180);
        let say = |work: &Work, ready: bool| describe(&account(), work, Some(&head(ready)), now).sentence;
        let task = |error: Option<(&str, &str)>, due: u64| Task {
            due: Some(Micros::from_secs(due)),
            last_error: error.map(|(kind, message)| Failure {
                at: Micros::from_secs(1_100),
                kind: kind.into(),
                message: message.into(),
                again: Some(Micros::from_secs(due)),
            }),
            ..Task::default()
        };
        let with = |task: Task| Work {
            tasks: BTreeMap::from([(Kind::Changes, task)]),
            ..Work::default()
        };

        assert_eq!(
            say(&with(task(None, 1_600)), true),
            "up to date: 42 contacts as of 3 min ago; next poll in 7 min"
        );
        assert_eq!(
            say(&Work::default(), false),
            "being fetched for the first time; 42 contacts so far"
        );
        assert_eq!(
            say(&with(task(Some(("quota", "the daily quota is used up")), 3_640)), true),
            "contacts.changes waits: the daily quota is used up; next try in 41 min; 42 contacts as of 3 min ago"
        );
        assert_eq!(
            say(&with(task(Some(("timeout", "no answer")), 1_200)), true),
            "contacts.changes fails: no answer; next try in 20 s; 42 contacts as of 3 min ago"
        );
        let park = Park {
            since: Micros::from_secs(1_060),
            message: "401".into(),
            handed_back: false,
            rechecked: Micros::ZERO,
        };
        assert_eq!(
            say(
                &Work {
                    park: Some(park),
                    ..Work::default()
                },
                true
            ),
            "stopped: the CRM refused the credentials 2 min ago; waits for Talkdesk to send working ones; 42 contacts as of \
             3 min ago"
        );
    }

    #[test]
    fn the_webhook_is_told_of_with_its_cause() {
        let now = Micros::from_secs(1_180);
        let say = |known: &Subscription| {
            let told = webhook(known, now);
            (told.state, told.sentence)
        };
        let mut known = Subscription::default();
        assert_eq!(
            say(&known),
            (WebhookState::Pending, "webhook not asked for yet".to_owned())
        );
        known.succeeded(Some("http.public_url is not set".to_owned()));
        assert_eq!(
            say(&known),
            (
                WebhookState::Manual,
                "webhook by hand: http.public_url is not set".to_owned()
            )
        );
        known.succeeded(None);
        known.held.push(subscription::Held {
            topic: String::new(),
            id: "7".into(),
            url: "https://bridge.example/demo/webhooks/x".into(),
            secret: None,
            created: now,
            expires: None,
        });
        assert_eq!(say(&known), (WebhookState::Subscribed, "webhook subscribed".to_owned()));
        known.held[0].expires = Some(now.plus(Duration::from_secs(2_460)));
        assert_eq!(say(&known).1, "webhook subscribed for 41 min");
        known.failed(
            contacts::ErrorKind::Rejected,
            "forbidden".to_owned(),
            now,
            &contacts::outcome::RetryPolicy::default(),
        );
        assert_eq!(
            say(&known),
            (
                WebhookState::Failed,
                "webhook failed: forbidden; next try in 5 s".to_owned()
            )
        );
    }

    #[test]
    fn agents_are_told_of_when_they_fail_or_are_late() {
        let now = Micros::from_secs(1_180);
        let say = |agents: Task, lease: Option<Lease>| {
            let polled = Task {
                due: Some(Micros::from_secs(1_600)),
                ..Task::default()
            };
            let work = Work {
                tasks: BTreeMap::from([(Kind::Changes, polled), (Kind::Agents, agents)]),
                agents_lease: lease,
                ..Work::default()
            };
            let status = describe(&account(), &work, Some(&head(true)), now);
            (status.state, status.sentence)
        };
        let fine = "up to date: 42 contacts as of 3 min ago; next poll in 7 min";
        let due = |secs| Task {
            due: Some(Micros::from_secs(secs)),
            ..Task::default()
        };
        for secs in [1_100, 9_000] {
            assert_eq!(say(due(secs), None), (State::Ready, fine.to_owned()));
        }
        assert_eq!(
            say(due(880), None),
            (State::Ready, format!("{fine}; agents have been due for 5 min"))
        );
        let lease = Lease {
            owner: "w".into(),
            fence: Fence(1),
            kind: Kind::Agents,
            until: Micros::from_secs(1_200),
        };
        assert_eq!(
            say(due(880), Some(lease)),
            (State::Ready, format!("{fine}; agents have been read for 5 min"))
        );
        for (kind, state, what) in [("rejected", State::Failing, "fail"), ("quota", State::Waiting, "wait")] {
            let failed = Task {
                last_error: Some(Failure {
                    at: Micros::from_secs(1_100),
                    kind: kind.into(),
                    message: "not today".into(),
                    again: None,
                }),
                ..due(3_640)
            };
            let sentence = format!("{fine}; agents {what}: not today; next try in 41 min");
            assert_eq!(say(failed, None), (state, sentence));
        }
    }
}
