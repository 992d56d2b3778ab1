//! The model CRM as the worker's source: calls take time, fail in every way, and are written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contacts::accounts::Account;
use contacts::{AccountId, Clock, ErrorKind, Micros};
use crm::{AgentsPage, CrmError, CrmResult, DeletedPage, IdsPage, Many, Page, Window};
use parking_lot::Mutex;
use serde_json::Value;
use worker::deps::Brake;
use worker::source::{Pace, Source, Sources, Traits};

use crate::machine::{Dice, Faults, Process, SimClock};
use crate::model_crm::{Crm, Deletions, SaysTime};

/// A call that the worker made.
#[derive(Clone, Debug)]
pub struct Call {
    pub what: &'static str,
    pub ids: Vec<String>,
    pub asked_at: Micros,
    /// When the reply was in the caller's hands; `None`: it failed, or its caller died.
    pub answered: Option<Micros>,
}

/// One account's CRM with what surrounds it.
pub struct Site {
    pub crm: Mutex<Crm>,
    pub calls: Mutex<Vec<Call>>,
    /// Calls under way, and the most that ever were.
    pub in_flight: Mutex<(u32, u32)>,
    /// The next calls fail so, whatever the dice say.
    pub failing: Mutex<Option<ErrorKind>>,
    pub latency: Mutex<(u64, u64)>,
    /// Cursors given so far are refused, until somebody asks without one.
    pub forgetful: Mutex<bool>,
}

impl Site {
    pub fn new(crm: Crm) -> Site {
        Site {
            crm: Mutex::new(crm),
            calls: Mutex::default(),
            in_flight: Mutex::default(),
            failing: Mutex::default(),
            latency: Mutex::new((1, 150)),
            forgetful: Mutex::default(),
        }
    }

    pub fn calls_of(&self, what: &str) -> usize {
        self.calls.lock().iter().filter(|call| call.what == what).count()
    }
}

/// What all sites share.
pub struct Net {
    pub clock: Arc<SimClock>,
    pub dice: Arc<Dice>,
    pub faults: Arc<Mutex<Faults>>,
    pub sites: Mutex<BTreeMap<AccountId, Arc<Site>>>,
    pub pace: Mutex<Option<Pace>>,
    pub brake: Brake,
}

/// The sources as one process sees them.
pub struct SimSources {
    pub net: Arc<Net>,
    pub process: Process,
}

#[async_trait]
impl Sources for SimSources {
    async fn source(&self, account: &Account) -> CrmResult<Arc<dyn Source>> {
        self.process.pass().await;
        let site = self.net.sites.lock().get(&account.id).cloned();
        let site = site.ok_or_else(|| CrmError::new(ErrorKind::Missing, "no such integration"))?;
        let traits = traits(&site.crm.lock());
        Ok(Arc::new(SimSource {
            net: self.net.clone(),
            site,
            process: self.process.clone(),
            traits,
        }))
    }

    fn pace(&self, _integration: &str) -> Option<Pace> {
        *self.net.pace.lock()
    }
}

fn traits(crm: &Crm) -> Traits {
    let manners = &crm.manners;
    Traits {
        changes: manners.changes,
        changes_indexed: manners.changes_indexed,
        full_indexed: manners.full_indexed,
        lag: manners.lag,
        overlap: manners.overlap,
        get_many: manners.get_many,
        deleted_list: manners.deletions == Deletions::List,
        ids_list: manners.ids_list,
        // Their passes have tests of their own (`tests/agents.rs`).
        agents: false,
        agents_may_slip: false,
        mapping: 1,
        delta: None,
    }
}

struct SimSource {
    net: Arc<Net>,
    site: Arc<Site>,
    process: Process,
    traits: Traits,
}

/// Counts a call that is under way, also if its caller gives up.
struct UnderWay<'a>(&'a Site);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.lock().0 -= 1;
    }
}

impl SimSource {
    /// Asks the CRM: the request travels, the CRM answers from its state of that moment, the reply travels.
    async fn call<T>(
        &self,
        what: &'static str,
        ids: &[String],
        answer: impl FnOnce(&Crm, Micros) -> T,
    ) -> CrmResult<(Micros, Option<Micros>, T)> {
        self.process.pass().await;
        let net = &self.net;
        let asked_at = net.clock.now();
        let number = {
            let mut calls = self.site.calls.lock();
            calls.push(Call {
                what,
                ids: ids.to_vec(),
                asked_at,
                answered: None,
            });
            calls.len() - 1
        };
        let _under_way = {
            let mut in_flight = self.site.in_flight.lock();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
            UnderWay(&self.site)
        };
        let faults = *net.faults.lock();
        let (from, to) = *self.site.latency.lock();
        let (mut there, mut back) = (net.dice.millis(from, to), net.dice.millis(from, to));
        if net.dice.chance(faults.crm_dawdles) {
            *(if net.dice.chance(0.5) { &mut there } else { &mut back }) += net.dice.millis(2_000, 12_000);
        }
        tokio::time::sleep(there).await;
        let failing = *self.site.failing.lock();
        if let Some(kind) = failing.or_else(|| net.dice.chance(faults.crm_fails).then(|| self.any_error())) {
            return Err(CrmError::new(kind, "the model CRM fails"));
        }
        let at = net.clock.now();
        let (reply, clock) = {
            let crm = self.site.crm.lock();
            (answer(&crm, at), says_time(&crm, at))
        };
        tokio::time::sleep(back).await;
        self.process.pass().await;
        self.site.calls.lock()[number].answered = Some(net.clock.now());
        Ok((asked_at, clock, reply))
    }

    fn knows(&self, cursor: Option<&Value>) -> CrmResult<()> {
        let mut forgetful = self.site.forgetful.lock();
        *forgetful &= cursor.is_some();
        if *forgetful {
            return Err(CrmError::new(
                ErrorKind::CursorStuck,
                "the model CRM has forgotten its cursors",
            ));
        }
        Ok(())
    }

    fn any_error(&self) -> ErrorKind {
        let dice = &self.net.dice;
        let until = self.net.clock.now().plus(dice.up_to(Duration::from_secs(20)));
        *dice.pick(&[
            ErrorKind::Credentials,
            ErrorKind::Throttled { until },
            ErrorKind::Quota { until },
            ErrorKind::NoBudget { until },
            ErrorKind::Unavailable,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Timeout,
            ErrorKind::BadReply,
            ErrorKind::Rejected,
            ErrorKind::CursorStuck,
            ErrorKind::HostRefused,
            ErrorKind::Missing,
            ErrorKind::StoreDown,
        ])
    }
}

fn says_time(crm: &Crm, at: Micros) -> Option<Micros> {
    let exact = crm.clock(at);
    match crm.manners.says_time {
        SaysTime::Never => None,
        SaysTime::Seconds => Some(Micros(exact.0 - exact.0 % 1_000_000)),
        SaysTime::Exactly => Some(exact),
    }
}

#[async_trait]
impl Source for SimSource {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    async fn full_page(&self, cursor: Option<&Value>) -> CrmResult<Page> {
        let asked = self.call("full", &[], |crm, at| crm.full_page(cursor, at)).await?;
        self.knows(cursor)?;
        let (asked_at, crm_clock, (rows, next)) = asked;
        Ok(Page {
            rows,
            next,
            crm_clock,
            asked_at,
            ..Page::default()
        })
    }

    async fn changes_page(&self, window: Window, _: Option<&Value>, cursor: Option<&Value>) -> CrmResult<Page> {
        let asked = self
            .call("changes", &[], |crm, at| crm.changes_page(window, cursor, at))
            .await?;
        self.knows(cursor)?;
        let (asked_at, crm_clock, (rows, next)) = asked;
        Ok(Page {
            rows,
            next,
            crm_clock,
            asked_at,
            ..Page::default()
        })
    }

    async fn get_many(&self, ids: &[String]) -> CrmResult<Many> {
        assert!(ids.len() <= self.traits.get_many, "more ids than a fetch takes");
        let (asked_at, crm_clock, (rows, missing)) = self.call("get", ids, |crm, at| crm.get_many(ids, at)).await?;
        Ok(Many {
            page: Page {
                rows,
                crm_clock,
                asked_at,
                ..Page::default()
            },
            missing,
        })
    }

    async fn deleted_page(&self, since: Micros, cursor: Option<&Value>) -> CrmResult<DeletedPage> {
        let asked = self
            .call("deleted", &[], |crm, at| crm.deleted_page(since, cursor, at))
            .await?;
        self.knows(cursor)?;
        let (asked_at, _, (deleted, next)) = asked;
        Ok(DeletedPage {
            deleted,
            next,
            asked_at,
        })
    }

    async fn ids_page(&self, cursor: Option<&Value>) -> CrmResult<IdsPage> {
        let (asked_at, _, (ids, next)) = self.call("ids", &[], |crm, at| crm.ids_page(cursor, at)).await?;
        Ok(IdsPage { ids, next, asked_at })
    }

    async fn agents_page(&self, _cursor: Option<&Value>) -> CrmResult<AgentsPage> {
        Err(CrmError::new(ErrorKind::Rejected, "the model CRM has no users"))
    }

    async fn check(&self) -> CrmResult<()> {
        self.call("check", &[], |_, _| ()).await.map(drop)
    }

    async fn rest(&self) {}
}
