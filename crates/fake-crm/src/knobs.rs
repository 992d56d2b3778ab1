//! The knobs of one account: how its CRM misbehaves. All of them are off by default.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api::Op;

/// How the CRM of one account misbehaves. The table in the crate's README says what each knob is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// An edit keeps its stamp, reads and listings see it this much later. 0: at once.
    pub visibility_lag_ms: u64,
    /// Each edit draws its own lag between 0 and `visibility_lag_ms`.
    pub visibility_lag_random: bool,
    /// All rows of one control call are one transaction: stamped with its start, visible together at its commit.
    pub equal_stamps: bool,
    /// Stamps are shown without their fractions while the filters still know them (Odoo).
    pub whole_second_stamps: bool,
    /// Stamps have no fractions at all, in filters neither.
    pub whole_second_columns: bool,
    /// What the CRM's clock is ahead (or, negative, behind): `Date` header and stamps.
    pub clock_skew_ms: i64,
    /// Offset paging answers 400 beyond this many results.
    pub cap: u64,
    /// The next n calls are answered 429 though the limit is not reached.
    pub burst_429: u32,
    /// The next n calls are answered with `fail_status`.
    pub fail_5xx: u32,
    pub fail_status: u16,
    /// The next n writes are refused for what they say: 422, nothing is made.
    pub refuse_writes: u32,
    /// The next n answers never leave: the connection is closed after they were worked out.
    pub cut: u32,
    /// The next n bodies end halfway although `Content-Length` promises all of them.
    pub truncate: u32,
    /// The next n calls are answered with a log-in page: 200, text/html.
    pub html_200: u32,
    /// The next n bodies have `huge_bytes` of white space (legal JSON) before their first byte, and no length.
    pub huge_body: u32,
    pub huge_bytes: u64,
    /// Each answer is kept back this long after it was worked out: it may be old when it leaves.
    pub slow_ms: u64,
    /// Bodies leave in pieces of `drip_bytes`, one each `drip_ms`. 0: off.
    pub drip_ms: u64,
    pub drip_bytes: usize,
    pub endless_cursor: EndlessCursor,
    /// Answers are worked out, then kept back until this is off again.
    pub frozen: bool,
    /// Done after every page of contacts that was served: rows move while somebody pages.
    pub edits_per_page: EditsPerPage,
    /// None: no limit.
    pub limit: Option<RateLimit>,
    /// Changes the vendor's limits by name; null switches one off. The house has none of them.
    pub limits: BTreeMap<String, Option<RateLimit>>,
    /// IANA name of the account's time zone: where its days begin.
    pub time_zone: String,
    /// A list of changes keeps the newest ones back this long (Zendesk).
    pub hold_back_ms: u64,
    /// Tokens of changes (Dataverse) and of pages (Zoho) are forgotten after this long.
    pub token_life_ms: u64,
    /// The address that token endpoints, and Salesforce's userinfo, tell for the API (Salesforce, Zoho). None: the one that was
    /// called.
    pub instance_url: Option<String>,
    /// Access tokens that the account's own token endpoint makes live this long.
    pub access_life_ms: u64,
    /// Such tokens are older by this than they are.
    pub access_age_ms: u64,
    /// A token that is no longer good is answered 403 in place of 401 (Web1on1, whose sources differ).
    pub expired_403: bool,
    /// Calls at the same time; one more is answered 429. None: no bound.
    pub concurrency: Option<u32>,
    /// Sent as `Retry-After` instead of the true seconds; may be absurd, must be a legal header value.
    pub retry_after: Option<String>,
    /// Refused calls are answered 200 with an `error` object and a traceback that quotes the token (Odoo).
    pub errors_as_200: bool,
    /// The list of deleted contacts stays empty: a deletion leaves no trace (Odoo).
    pub no_tombstones: bool,
    /// `contacts/changes` leaves archived rows out too (Odoo).
    pub hide_archived: bool,
    /// After n more calls every token is refused, until this is off again.
    pub revoke_after: Option<u32>,
    /// Reads show only this share of the contacts, always the same ones: a lost permission or a wrong filter.
    pub shown_percent: u8,
    /// Users see their own contacts only ([`crate::owner`]), those whose token tells who they are.
    pub own_contacts: bool,
    /// Operations that the account's user may not do: 403.
    pub forbidden_ops: Vec<Op>,
    /// Which operations `burst_429`, `fail_5xx`, `html_200`, `refuse_writes`, `cut`, `truncate`, `huge_body`, `slow_ms`, `drip_ms` and
    /// `frozen` concern. Empty: all.
    pub fault_ops: Vec<Op>,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            visibility_lag_ms: 0,
            visibility_lag_random: false,
            equal_stamps: false,
            whole_second_stamps: false,
            whole_second_columns: false,
            clock_skew_ms: 0,
            cap: 10_000,
            burst_429: 0,
            fail_5xx: 0,
            fail_status: 503,
            refuse_writes: 0,
            cut: 0,
            truncate: 0,
            html_200: 0,
            huge_body: 0,
            huge_bytes: 64 * 1024 * 1024,
            slow_ms: 0,
            drip_ms: 0,
            drip_bytes: 1,
            endless_cursor: EndlessCursor::Off,
            frozen: false,
            edits_per_page: EditsPerPage::default(),
            limit: None,
            limits: BTreeMap::new(),
            time_zone: "UTC".to_owned(),
            hold_back_ms: 0,
            token_life_ms: 7 * 24 * 3600 * 1000,
            instance_url: None,
            access_life_ms: 3_600_000,
            access_age_ms: 0,
            expired_403: false,
            concurrency: None,
            retry_after: None,
            errors_as_200: false,
            no_tombstones: false,
            hide_archived: false,
            revoke_after: None,
            shown_percent: 100,
            own_contacts: false,
            forbidden_ops: Vec::new(),
            fault_ops: Vec::new(),
        }
    }
}

/// Lists that never end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndlessCursor {
    #[default]
    Off,
    /// The token of the next page is the token that was sent, so the second page comes again and again.
    Same,
    /// After the last page the list begins anew, with tokens that were never seen before.
    Cycle,
}

/// What happens behind the back of somebody who pages, after each page of contacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EditsPerPage {
    pub edits: u32,
    pub deletes: u32,
    pub adds: u32,
}

/// So many calls per fixed window. Written `100/1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub max: u32,
    pub window: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rate limit: write calls/window, such as `100/1s` or `5000/5m`")]
pub struct BadRateLimit(String);

impl FromStr for RateLimit {
    type Err = BadRateLimit;

    fn from_str(text: &str) -> Result<RateLimit, BadRateLimit> {
        let bad = || BadRateLimit(text.to_owned());
        let (max, window) = text.split_once('/').ok_or_else(bad)?;
        let max = max.trim().parse().map_err(|_| bad())?;
        let window = humantime::parse_duration(window.trim()).map_err(|_| bad())?;
        if window < Duration::from_millis(1) {
            return Err(bad());
        }
        Ok(RateLimit { max, window })
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = humantime::format_duration(self.window).to_string();
        write!(f, "{}/{}", self.max, window.replace(' ', ""))
    }
}

impl Serialize for RateLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RateLimit, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Knobs {
    /// Sets the named knobs and leaves the others alone; `null` switches a knob off. Either all of them or none.
    ///
    /// # Errors
    /// One sentence that names the knob.
    pub fn set(&mut self, values: &serde_json::Map<String, serde_json::Value>) -> Result<(), String> {
        let as_map = |knobs: &Knobs| match serde_json::to_value(knobs) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let off = as_map(&Knobs::default());
        let mut changed = self.clone();
        for (name, value) in values {
            let Some(default) = off.get(name) else {
                let known: Vec<&str> = off.keys().map(String::as_str).collect();
                return Err(format!("no knob is called `{name}`; there are {}", known.join(", ")));
            };
            let mut map = as_map(&changed);
            map.insert(
                name.clone(),
                if value.is_null() {
                    default.clone()
                } else {
                    value.clone()
                },
            );
            changed = serde_json::from_value(map.into()).map_err(|error| format!("knob `{name}`: {error}"))?;
            changed.check().map_err(|error| format!("knob `{name}`: {error}"))?;
        }
        *self = changed;
        Ok(())
    }

    /// The account's time zone.
    pub(crate) fn zone(&self) -> TimeZone {
        TimeZone::get(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    fn check(&self) -> Result<(), &'static str> {
        const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
        if !(500..=599).contains(&self.fail_status) {
            return Err("must be a status from 500 to 599");
        }
        if self.shown_percent > 100 {
            return Err("must be 0 to 100");
        }
        if TimeZone::get(&self.time_zone).is_err() {
            return Err("must be a time zone such as `Europe/Lisbon`");
        }
        if self.drip_bytes == 0 {
            return Err("must be at least 1");
        }
        if self.clock_skew_ms.unsigned_abs() > TEN_YEARS_MS || self.visibility_lag_ms > TEN_YEARS_MS {
            return Err("must be within ten years");
        }
        if self
            .retry_after
            .as_deref()
            .is_some_and(|text| http::HeaderValue::from_str(text).is_err())
        {
            return Err("must be a legal header value");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(knobs: &mut Knobs, values: serde_json::Value) -> Result<(), String> {
        knobs.set(values.as_object().expect("an object"))
    }

    #[test]
    fn named_knobs_change_and_the_others_stay() {
        let mut knobs = Knobs {
            slow_ms: 5,
            ..Knobs::default()
        };
        set(
            &mut knobs,
            json!({"cap": 100, "limit": "3/2s", "edits_per_page": {"adds": 2}}),
        )
        .expect("set");
        assert_eq!((knobs.slow_ms, knobs.cap, knobs.edits_per_page.adds), (5, 100, 2));
        assert_eq!(
            knobs.limit,
            Some(RateLimit {
                max: 3,
                window: Duration::from_secs(2)
            })
        );
        set(&mut knobs, json!({"slow_ms": null, "cap": null, "limit": null})).expect("unset");
        assert_eq!((knobs.slow_ms, knobs.cap, knobs.limit), (0, 10_000, None));
    }

    #[test]
    fn a_bad_value_is_named_and_nothing_changes() {
        let mut knobs = Knobs::default();
        for (values, says) in [
            (json!({"slow_ms": 9, "sloow": 1}), "no knob is called `sloow`"),
            (json!({"slow_ms": "soon"}), "knob `slow_ms`"),
            (json!({"limit": "100"}), "100/1s"),
            (json!({"fail_status": 404}), "500 to 599"),
            (json!({"time_zone": "Mars/Olympus"}), "Europe/Lisbon"),
            (json!({"limits": {"daily": "many"}}), "100/1s"),
            (json!({"retry_after": "a\nb"}), "legal header"),
            (json!({"edits_per_page": {"moves": 1}}), "unknown field `moves`"),
            (json!({"fault_ops": ["contacts.lst"]}), "contacts.list"),
        ] {
            let error = set(&mut knobs, values).expect_err(says);
            assert!(error.contains(says), "{error}");
            assert_eq!(knobs, Knobs::default());
        }
    }

    #[test]
    fn a_rate_limit_reads_as_it_is_written() {
        for text in ["100/1s", "5000/5m", "1/250ms", "7/1m30s"] {
            assert_eq!(text.parse::<RateLimit>().expect(text).to_string(), text);
        }
        for text in ["", "100", "x/1s", "1/0s", "1/", "-1/1s"] {
            assert!(text.parse::<RateLimit>().is_err(), "{text}");
        }
    }
}
