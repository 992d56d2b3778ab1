//! Limits a CRM declares, and the signs by which it says how much is left.

use std::collections::BTreeMap;
use std::time::Duration;

use contacts::Micros;
use contacts::ledger::LimitScope;
use http::HeaderName;
use jiff::Timestamp;
use minijinja::Value;
use regex::Regex;

use super::times::zone;
use super::{OPERATIONS, Spec, Vocabulary};
use crate::error::CrmResult;
use crate::expr::{Expr, Template};
use crate::load::{Reader, Table, suggest};

/// `[[limits]]`
#[derive(Debug)]
pub struct LimitSpec {
    pub name: String,
    pub kind: LimitKind,
    pub max: Maximum,
    /// Part of `max` that is ours; the rest is left to the customer's other applications.
    pub share: f64,
    pub scope: LimitScope,
    /// The time zone of a quota that turns at the account's midnight.
    pub tz: Option<Template>,
    /// Operations it counts; empty: all but `except`.
    pub only: Vec<String>,
    pub except: Vec<String>,
    /// Units per call, where not 1.
    pub cost: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    Window { length: Duration },
    Concurrency,
    Quota { period: Duration, reset: Reset },
}

/// When a quota turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// At multiples of the period, UTC.
    Utc,
    /// Over the last period, whenever (Zoho's credits).
    Rolling,
    /// At midnight of the account's time zone (HubSpot).
    AccountMidnight,
}

/// A number, or a text with `${…}` over the account's fields, for limits that depend on its plan.
#[derive(Debug)]
pub enum Maximum {
    Fixed(u64),
    Computed(Template),
}

/// `[throttle]`
#[derive(Debug, Default)]
pub struct Throttle {
    /// Which replies say "slow down"; status 429 always does.
    pub when: Option<Expr>,
    /// Which say "nothing more until the quota turns".
    pub quota_when: Option<Expr>,
    /// Where the wait stands, tried in order; `Retry-After` is always the last of them.
    pub retry_after: Vec<Signal>,
    pub remaining: Vec<Remaining>,
    /// What a call has really cost, told afterwards (Freshdesk).
    pub used: Option<Signal>,
    /// The longest wait that is believed.
    pub ceiling: Option<Duration>,
}

/// A time in a reply.
#[derive(Debug)]
pub struct Signal {
    pub source: SignalSource,
    pub unit: Unit,
}

#[derive(Debug)]
pub enum SignalSource {
    Header(HeaderName),
    Body(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Millis,
    /// Seconds since 1970.
    Epoch,
    HttpDate,
}

/// `remaining = [{ header, limit, … }]`: a header that says how many calls are left.
#[derive(Debug)]
pub struct Remaining {
    pub header: HeaderName,
    /// The limit that it speaks of.
    pub limit: String,
    /// With groups `used` and `limit` (Salesforce's `api-usage=18/5000`), or `left`.
    pub pattern: Option<Regex>,
    /// Where the time stands at which more is to be had.
    pub reset: Option<Signal>,
    /// Hold when no more than this are left.
    pub reserve: u64,
}

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Copy)]
enum Word {
    Window,
    Concurrency,
    Quota,
}

impl LimitSpec {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<LimitSpec> {
        let name = table.need_text("name");
        let word = table.need_choice(
            "kind",
            &[
                ("window", Word::Window),
                ("concurrency", Word::Concurrency),
                ("quota", Word::Quota),
            ],
        );
        let window = table.duration("window");
        let reset = table.choice(
            "reset",
            &[
                ("utc", Reset::Utc),
                ("rolling", Reset::Rolling),
                ("account_midnight", Reset::AccountMidnight),
            ],
        );
        match word {
            Some(Word::Concurrency) if window.is_some() => {
                table.problem("window", "a concurrency limit has no window", None)
            }
            Some(Word::Window | Word::Quota) if !table.has("window") => {
                table.problem(
                    "window",
                    format!("`{}.window` is missing", table.path),
                    Some("for example \"10s\""),
                );
            }
            _ => {}
        }
        if window.is_some_and(|window| window.is_zero() || window > Duration::from_secs(90 * 86_400)) {
            table.problem("window", "`window` must lie between 1ms and 90d", None);
        }
        let tz = super::times::read_zone(&table, vocabulary);
        match (reset, table.has("tz")) {
            (Some(Reset::AccountMidnight), false) => {
                let hint = "an IANA name such as Europe/Lisbon, or ${conn.NAME} that the check learns";
                table.problem(
                    "reset",
                    "nothing says whose midnight it is: `tz` is missing",
                    Some(hint),
                );
            }
            (Some(Reset::AccountMidnight), true) if window.is_some_and(|window| window != DAY) => {
                table.problem("window", "a quota that turns at midnight is one of \"1d\"", None);
            }
            (None | Some(Reset::Utc | Reset::Rolling), true) => {
                table.problem(
                    "tz",
                    "only a quota with `reset = \"account_midnight\"` has a time zone",
                    None,
                );
            }
            _ => {}
        }
        if reset.is_some() && !matches!(word, Some(Word::Quota)) {
            table.problem("reset", "only a quota turns", None);
        }
        let kind = word.and_then(|word| match word {
            Word::Window => Some(LimitKind::Window { length: window? }),
            Word::Concurrency => Some(LimitKind::Concurrency),
            Word::Quota => Some(LimitKind::Quota {
                period: window?,
                reset: reset.unwrap_or(Reset::Utc),
            }),
        });
        let max = read_maximum(&table, vocabulary);
        let share = table.share("share").unwrap_or(1.0);
        let scope = table.choice(
            "scope",
            &[
                ("account", LimitScope::Account),
                ("user", LimitScope::User),
                ("app", LimitScope::App),
                ("ip", LimitScope::Ip),
            ],
        );
        let (only, except) = (operations(&table, "only"), operations(&table, "except"));
        if !only.is_empty() && !except.is_empty() {
            table.problem("except", "a limit has either `only` or `except`", None);
        }
        let cost = table.table("cost").map_or_else(BTreeMap::new, |cost| read_cost(cost));
        table.finish();
        Some(LimitSpec {
            name: name?,
            kind: kind?,
            max: max?,
            share,
            scope: scope.unwrap_or(LimitScope::Account),
            tz,
            only,
            except,
            cost,
        })
    }

    /// How far past midnight UTC a day of the quota begins: at midnight of the account's time zone, as it is now. Summer time
    /// moves it by an hour on two days of the year. `names` holds `conn`.
    pub(crate) fn offset(&self, names: &Value, now: Micros) -> CrmResult<Duration> {
        let (LimitKind::Quota { .. }, Some(tz)) = (self.kind, &self.tz) else {
            return Ok(Duration::ZERO);
        };
        let zone = zone(tz, names)?;
        let stamp = i64::try_from(now.0)
            .ok()
            .and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let east = stamp.map_or(0, |stamp| i64::from(zone.to_offset(stamp).seconds()));
        // A day more than it need be, for every zone: days are counted from there, and where summer time takes a zone past
        // UTC the count must not jump back, or a day would be let in twice.
        let day = i64::try_from(DAY.as_secs()).unwrap_or(i64::MAX);
        Ok(Duration::from_secs((day - east).unsigned_abs()))
    }

    /// What one call of `operation` costs; 0 if it is not counted.
    pub fn cost_of(&self, operation: &str) -> u32 {
        let named = |list: &[String]| list.iter().any(|name| name == operation);
        if (!self.only.is_empty() && !named(&self.only)) || named(&self.except) {
            return 0;
        }
        self.cost.get(operation).copied().unwrap_or(1)
    }
}

/// Whose calls come to one host has to be known before an account's first call.
pub(super) fn check_scopes(reader: &Reader<'_>, at: usize, spec: &Spec) {
    let Some(name) = spec.connection.base_differs_by(spec.check.learn.keys()) else {
        return;
    };
    for limit in spec.limits.iter().filter(|limit| limit.scope == LimitScope::Ip) {
        let what = format!(
            "the limit `{}` is of all calls to one host, but `{name}` in `base_url` may be another for each account",
            limit.name
        );
        let hint = format!("take `{name}` from the settings (from = \"integration\"), or choose another scope");
        reader.problem(at, what, Some(hint));
    }
}

fn read_maximum(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Maximum> {
    if !table.has("max") {
        table.problem("max", format!("`{}.max` is missing", table.path), None);
        return None;
    }
    if table.is_text("max") {
        return table.template("max", &vocabulary.base()).map(Maximum::Computed);
    }
    table.number("max", 1..=1_000_000_000).map(Maximum::Fixed)
}

fn check_operation(table: &Table<'_, '_>, name: &str, at: usize) -> bool {
    let known = OPERATIONS.contains(&name);
    if !known {
        let hint = suggest(name, OPERATIONS).unwrap_or_else(|| format!("there are {}", OPERATIONS.join(", ")));
        table
            .reader
            .problem(at, format!("`{name}` is not an operation"), Some(hint));
    }
    known
}

fn operations(table: &Table<'_, '_>, key: &'static str) -> Vec<String> {
    let texts = table.texts(key).unwrap_or_default();
    texts
        .into_iter()
        .filter(|(name, at)| check_operation(table, name, *at))
        .map(|(name, _)| name)
        .collect()
}

fn read_cost(table: Table<'_, '_>) -> BTreeMap<String, u32> {
    let numbers = table.named_numbers(0..=100_000);
    numbers
        .into_iter()
        .filter(|(name, _, at)| check_operation(&table, name, *at))
        .map(|(name, cost, _)| (name, u32::try_from(cost).unwrap_or(u32::MAX)))
        .collect()
}

impl Throttle {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary, limits: &[LimitSpec]) -> Option<Throttle> {
        let names = vocabulary.reply();
        let retry_after = table
            .tables("retry_after")
            .into_iter()
            .filter_map(|signal| Signal::read(signal, vocabulary))
            .collect();
        let remaining = table
            .tables("remaining")
            .into_iter()
            .filter_map(|remaining| Remaining::read(remaining, vocabulary, limits))
            .collect();
        let used = table.table("used").and_then(|signal| Signal::read(signal, vocabulary));
        let throttle = Throttle {
            when: table.expr("when", &names),
            quota_when: table.expr("quota_when", &names),
            retry_after,
            remaining,
            used,
            ceiling: table.duration("ceiling"),
        };
        table.finish();
        Some(throttle)
    }
}

fn header_name(table: &Table<'_, '_>, key: &'static str) -> Option<HeaderName> {
    let text = table.text(key)?;
    let name = HeaderName::try_from(text.as_str()).ok();
    if name.is_none() {
        table.problem(key, format!("{text:?} is not a header name"), None);
    }
    name
}

impl Signal {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Signal> {
        let header = header_name(&table, "header");
        let body = table.expr("body", &vocabulary.reply());
        if table.has("header") == table.has("body") {
            table.problem(
                "header",
                format!("`{}` needs either `header` or `body`", table.path),
                None,
            );
        }
        let unit = table.choice(
            "unit",
            &[
                ("s", Unit::Seconds),
                ("ms", Unit::Millis),
                ("epoch", Unit::Epoch),
                ("http_date", Unit::HttpDate),
            ],
        );
        table.finish();
        let source = header.map(SignalSource::Header).or(body.map(SignalSource::Body));
        Some(Signal {
            source: source?,
            unit: unit.unwrap_or(Unit::Seconds),
        })
    }
}

impl Remaining {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary, limits: &[LimitSpec]) -> Option<Remaining> {
        if !table.has("header") {
            table.problem("header", format!("`{}.header` is missing", table.path), None);
        }
        let header = header_name(&table, "header");
        let limit = table.need_text("limit").filter(|name| {
            let known: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
            let found = known.contains(&name.as_str());
            if !found {
                let hint = suggest(name, &known).unwrap_or_else(|| format!("there are {}", known.join(", ")));
                table.problem("limit", format!("no limit is called `{name}`"), Some(&hint));
            }
            found
        });
        let pattern = table.text("pattern").and_then(|pattern| {
            let regex = Regex::new(&pattern).ok();
            let groups = |regex: &Regex| regex.capture_names().flatten().map(str::to_owned).collect::<Vec<_>>();
            let good = regex.as_ref().map(groups).is_some_and(|groups| {
                let has = |name: &str| groups.iter().any(|group| group == name);
                has("left") || (has("used") && has("limit"))
            });
            if !good {
                let hint = "a regular expression with the group (?<left>…), or (?<used>…) and (?<limit>…)";
                table.problem("pattern", "`pattern` does not say what is left", Some(hint));
            }
            regex.filter(|_| good)
        });
        let reset = table.table("reset").and_then(|signal| Signal::read(signal, vocabulary));
        let reserve = table.number("reserve", 0..=1_000_000).unwrap_or(0);
        table.finish();
        Some(Remaining {
            header: header?,
            limit: limit?,
            pattern,
            reset,
            reserve,
        })
    }
}
