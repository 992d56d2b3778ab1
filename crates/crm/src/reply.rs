//! What a reply means, and what it says about the budget. Pure functions of (reply, now).

use std::time::Duration;

use contacts::ledger::LimitScope;
use contacts::{ErrorKind, Micros};
use http::HeaderMap;
use jiff::fmt::rfc2822;
use minijinja::Value;

use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, scope, value_of};
use crate::http::{ClientSettings, RawReply};
use crate::spec::{LimitKind, Reset, Signal, SignalSource, Spec, Unit, Verdict};

/// A reply with its JSON read.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// `response`, for expressions.
    pub value: Value,
    json: Parsed,
    /// There was no body at all.
    bare: bool,
    /// The CRM's clock, from its `Date` header.
    pub clock: Option<Micros>,
}

enum Parsed {
    Json,
    /// Said to be JSON, and is not.
    Broken(serde_json::Error),
    Other,
}

/// A good reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Ok,
    /// Good, and without rows.
    Empty,
}

/// The tests of one operation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tests<'a> {
    pub ok: Option<&'a Expr>,
    pub denied: Option<&'a Expr>,
    /// A good reply need not have a body (204 after a write).
    pub bare_is_good: bool,
    /// That it is not there is believed of the API alone: a proxy, or the host of a customer who moved, has a page for everything.
    pub missing_is_proof: bool,
}

/// Calls must stop until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The limit's name, or [`contacts::ledger::EVERYTHING`].
    pub limit: String,
    /// Whose budget the limit is in.
    pub scope: LimitScope,
    pub until: Micros,
    pub quota: bool,
}

impl Reply {
    pub fn new(raw: &RawReply) -> Reply {
        let (body, json) = match raw.is_json() {
            true => match serde_json::from_slice::<Value>(&raw.body) {
                Ok(body) => (body, Parsed::Json),
                Err(error) => (Value::UNDEFINED, Parsed::Broken(error)),
            },
            false => (Value::UNDEFINED, Parsed::Other),
        };
        let headers: std::collections::BTreeMap<&str, &str> = raw
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let value = scope([
            ("status", Value::from(raw.status)),
            ("headers", value_of(&headers)),
            ("body", body),
        ]);
        let clock = raw
            .headers
            .get(http::header::DATE)
            .and_then(|date| http_date(date.to_str().ok()?));
        Reply {
            status: raw.status,
            headers: raw.headers.clone(),
            value,
            json,
            bare: raw.body.is_empty(),
            clock,
        }
    }
}

/// Judges a reply. `scope` holds `response` and whatever else the tests may use; `scrub` takes secrets out of texts.
pub(crate) fn judge(
    spec: &Spec,
    tests: Tests<'_>,
    reply: &Reply,
    scope: &Value,
    settings: &ClientSettings,
    scrub: &dyn Fn(&str) -> String,
    now: Micros,
) -> CrmResult<Judged> {
    let is = |expr: Option<&Expr>| {
        expr.map_or(Ok(false), |expr| expr.is_true(scope))
            .map_err(CrmError::expression)
    };
    let fail = |kind: ErrorKind, what: &str| Err(failure(spec, kind, what, reply, scope, scrub));
    let throttle = &spec.throttle;
    let throttled = || ErrorKind::Throttled {
        until: now.plus(wait(spec, reply, scope, settings, false, now)),
    };
    let quota = || ErrorKind::Quota {
        until: now.plus(wait(spec, reply, scope, settings, true, now)),
    };

    if is(throttle.quota_when.as_ref())? {
        return fail(quota(), "the CRM's quota is used up");
    }
    if reply.status == 429 || is(throttle.when.as_ref())? {
        return fail(throttled(), "the CRM asks to slow down");
    }
    for rule in &spec.replies.rules {
        if !is(Some(&rule.when))? {
            continue;
        }
        return match rule.verdict {
            Verdict::Empty => Ok(Judged::Empty),
            Verdict::Retry => fail(ErrorKind::Unavailable, "the CRM failed"),
            Verdict::Throttled => fail(throttled(), "the CRM asks to slow down"),
            Verdict::Quota => fail(quota(), "the CRM's quota is used up"),
            Verdict::Denied => fail(ErrorKind::Credentials, "the CRM refused the credentials"),
            Verdict::Missing => fail(ErrorKind::Missing, "the CRM does not have what was asked for"),
            Verdict::GoneToken => fail(ErrorKind::CursorStuck, "the CRM no longer knows the page token"),
            Verdict::Permanent => fail(ErrorKind::Rejected, "the CRM refused the request"),
        };
    }
    if is(tests.denied)? {
        return fail(ErrorKind::Credentials, "the CRM refused the credentials");
    }
    if is(spec.replies.empty.as_ref())? {
        return Ok(Judged::Empty);
    }
    let good = match tests.ok.or(spec.replies.ok.as_ref()) {
        Some(expr) => expr.is_true(scope).map_err(CrmError::expression)?,
        None => (200..300).contains(&reply.status),
    };
    if good {
        return match &reply.json {
            _ if tests.bare_is_good && reply.bare => Ok(Judged::Empty),
            Parsed::Json => Ok(Judged::Ok),
            Parsed::Broken(error) => {
                let message = format!("the reply is no complete JSON: {error}");
                Err(CrmError::new(ErrorKind::BadReply, scrub(&message)))
            }
            Parsed::Other => fail(ErrorKind::BadReply, "the reply is not JSON"),
        };
    }
    match reply.status {
        401 | 403 => fail(ErrorKind::Credentials, "the CRM refused the credentials"),
        404 | 410 if tests.missing_is_proof && !reply.bare && !matches!(reply.json, Parsed::Json) => fail(
            ErrorKind::BadReply,
            "something that is not the CRM's API says that what was asked for is not there",
        ),
        404 | 410 => fail(ErrorKind::Missing, "the CRM does not have what was asked for"),
        408 | 423 | 425 | 500..=599 => fail(ErrorKind::Unavailable, "the CRM failed"),
        400..=499 => fail(ErrorKind::Rejected, "the CRM refused the request"),
        300..=399 => fail(
            ErrorKind::BadReply,
            "the CRM answered with a redirect, which is not followed",
        ),
        _ => fail(ErrorKind::BadReply, "the CRM answered with an error"),
    }
}

const LONGEST_MESSAGE: usize = 200;

fn failure(
    spec: &Spec,
    kind: ErrorKind,
    what: &str,
    reply: &Reply,
    scope: &Value,
    scrub: &dyn Fn(&str) -> String,
) -> CrmError {
    let said = spec
        .replies
        .message
        .as_ref()
        .and_then(|expr| expr.text_of(scope).ok().flatten());
    let message = match said {
        Some(said) => {
            let said: String = scrub(&said).split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{what} (status {}: {})", reply.status, clip(&said, LONGEST_MESSAGE))
        }
        None => format!("{what} (status {})", reply.status),
    };
    CrmError::new(kind, message)
}

/// The first `most` characters.
pub(crate) fn clip(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// How long to stay away after a throttled reply.
fn wait(spec: &Spec, reply: &Reply, scope: &Value, settings: &ClientSettings, quota: bool, now: Micros) -> Duration {
    let standard = Signal {
        source: SignalSource::Header(http::header::RETRY_AFTER),
        unit: Unit::Seconds,
    };
    let said = spec
        .throttle
        .retry_after
        .iter()
        .chain(std::iter::once(&standard))
        .find_map(|signal| read_signal(signal, reply, scope, now));
    let longest = if quota {
        settings.quota_max
    } else {
        spec.throttle.ceiling.unwrap_or(settings.throttle_max)
    };
    let default = if quota {
        quota_turns_in(spec, scope, now).unwrap_or(settings.throttle_max)
    } else {
        settings.throttle_default
    };
    said.unwrap_or(default).min(longest).max(settings.throttle_min)
}

/// The time to the end of the current period of the shortest declared quota.
fn quota_turns_in(spec: &Spec, scope: &Value, now: Micros) -> Option<Duration> {
    spec.limits
        .iter()
        .filter_map(|limit| match limit.kind {
            // What comes back bit by bit turns at no time.
            LimitKind::Quota {
                reset: Reset::Rolling, ..
            } => None,
            LimitKind::Quota { period, .. } => {
                let period = contacts::time::micros(period).max(1);
                let offset = limit.offset(scope, now).unwrap_or_default();
                Some(Duration::from_micros(period - now.minus(offset).0 % period))
            }
            LimitKind::Window { .. } | LimitKind::Concurrency => None,
        })
        .min()
}

/// What a call has really cost, where the CRM says so.
pub(crate) fn cost(spec: &Spec, reply: &Reply, scope: &Value) -> Option<u32> {
    let signal = spec.throttle.used.as_ref()?;
    let text = match &signal.source {
        SignalSource::Header(name) => reply.headers.get(name)?.to_str().ok()?.to_owned(),
        SignalSource::Body(expr) => expr.text_of(scope).ok()??,
    };
    // A fraction of a call is a call.
    let cost = text
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|cost| (0.0..1e9).contains(cost))?;
    Some(cost.ceil() as u32)
}

fn read_signal(signal: &Signal, reply: &Reply, scope: &Value, now: Micros) -> Option<Duration> {
    let text = match &signal.source {
        SignalSource::Header(name) => reply.headers.get(name)?.to_str().ok()?.to_owned(),
        SignalSource::Body(expr) => expr.text_of(scope).ok()??,
    };
    wait_from(&text, signal.unit, now)
}

/// Reads a wait. A number in a foreign unit is never guessed; an HTTP date is understood wherever one may stand.
pub(crate) fn wait_from(text: &str, unit: Unit, now: Micros) -> Option<Duration> {
    const LONGEST: f64 = 1e9;
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        if !number.is_finite() || number < 0.0 {
            return None;
        }
        return Some(match unit {
            Unit::Seconds => Duration::from_secs_f64(number.min(LONGEST)),
            Unit::Millis => Duration::from_secs_f64((number / 1_000.0).min(LONGEST)),
            Unit::Epoch => Micros::from_secs(number.min(253_402_300_799.0) as u64).since(now),
            Unit::HttpDate => return None,
        });
    }
    http_date(text).map(|at| at.since(now))
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`
pub(crate) fn http_date(text: &str) -> Option<Micros> {
    let stamp = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    u64::try_from(stamp.as_microsecond()).ok().map(Micros)
}

/// What a reply, good or bad, says about the calls to come.
pub(crate) fn holds(spec: &Spec, reply: &Reply, scope: &Value, settings: &ClientSettings, now: Micros) -> Vec<Hold> {
    let mut holds = Vec::new();
    for remaining in &spec.throttle.remaining {
        let Some(text) = reply
            .headers
            .get(&remaining.header)
            .and_then(|value| value.to_str().ok())
        else {
            continue;
        };
        let left = match &remaining.pattern {
            None => text.trim().parse::<f64>().ok().filter(|left| left.is_finite()),
            Some(pattern) => pattern.captures(text).and_then(|found| {
                let number = |name: &str| found.name(name)?.as_str().parse::<f64>().ok();
                number("left").or_else(|| Some(number("limit")? - number("used")?))
            }),
        };
        if left.is_none_or(|left| left > remaining.reserve as f64) {
            continue;
        }
        let limit = spec.limits.iter().find(|limit| limit.name == remaining.limit);
        let quota = limit.is_some_and(|limit| matches!(limit.kind, LimitKind::Quota { .. }));
        let window = limit.and_then(|limit| match limit.kind {
            LimitKind::Window { length } => Some(length),
            LimitKind::Quota { .. } | LimitKind::Concurrency => None,
        });
        let said = remaining
            .reset
            .as_ref()
            .and_then(|reset| read_signal(reset, reply, scope, now));
        let longest = if quota {
            settings.quota_max
        } else {
            settings.throttle_max
        };
        let turns = said.or(if quota {
            quota_turns_in(spec, scope, now)
        } else {
            window
        });
        let wait = turns.unwrap_or(settings.throttle_default).min(longest);
        holds.push(Hold {
            limit: remaining.limit.clone(),
            scope: scope_of(spec, &remaining.limit),
            until: now.plus(wait),
            quota,
        });
    }
    holds
}

fn scope_of(spec: &Spec, limit: &str) -> LimitScope {
    let named = spec.limits.iter().find(|other| other.name == limit);
    named.map_or(LimitScope::Account, |limit| limit.scope)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_are_read_in_every_form_and_never_guessed() {
        let now = Micros::from_secs(1_445_412_470);
        let seconds = |text| wait_from(text, Unit::Seconds, now).map(|wait| wait.as_secs_f64());
        assert_eq!(seconds("10"), Some(10.0));
        assert_eq!(seconds(" 0.5 "), Some(0.5));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(10.0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:27:00 GMT"), Some(0.0));
        for bad in ["", "soon", "-1", "NaN", "inf", "1 2"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(wait_from("1500", Unit::Millis, now), Some(Duration::from_millis(1_500)));
        assert_eq!(wait_from("1445412480", Unit::Epoch, now), Some(Duration::from_secs(10)));
        assert_eq!(wait_from("5", Unit::HttpDate, now), None);
    }

    fn throttled(retry_after: &str, now: Micros) -> Option<Micros> {
        let source = crate::Connector::shipped("demo").unwrap_or_default();
        let connector = crate::Connector::load(source, "connector.toml").ok()?;
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", http::HeaderValue::from_str(retry_after).ok()?);
        let reply = Reply::new(&RawReply {
            status: 429,
            headers,
            body: Vec::new(),
        });
        let scope = scope([("response", reply.value.clone())]);
        let settings = ClientSettings::default();
        match judge(
            connector.spec(),
            Tests::default(),
            &reply,
            &scope,
            &settings,
            &str::to_owned,
            now,
        ) {
            Err(CrmError {
                kind: ErrorKind::Throttled { until },
                ..
            }) => Some(until),
            _ => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_throttled_call_waits_between_a_second_and_a_quarter_of_an_hour(
            text in prop_oneof!["[0-9]{1,30}", "-?[0-9.e+]{1,10}", "[ -~]{0,40}"], now in 0..4_000_000_000_000_000_u64,
        ) {
            if let Some(until) = throttled(&text, Micros(now)) {
                let wait = until.since(Micros(now));
                prop_assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(15 * 60), "{:?}", wait);
            }
        }
    }

    #[test]
    fn every_wait_that_is_a_legal_header_throttles() {
        for text in ["", "0", "9", "soon", "1e300", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert!(throttled(text, Micros::ZERO).is_some(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_always_within_reason(text in ".{0,40}", now in 0..4_000_000_000_000_000_u64) {
            for unit in [Unit::Seconds, Unit::Millis, Unit::Epoch, Unit::HttpDate] {
                if let Some(wait) = wait_from(&text, unit, Micros(now)) {
                    prop_assert!(wait <= Duration::from_secs(300_000_000_000));
                }
            }
        }

        #[test]
        fn numbers_of_any_size_do_not_overflow(number in any::<f64>(), now in any::<u64>()) {
            for unit in [Unit::Seconds, Unit::Millis, Unit::Epoch] {
                let _ = wait_from(&number.to_string(), unit, Micros(now));
            }
        }
    }
}
