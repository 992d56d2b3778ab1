//! How a CRM writes times, and the window of a change pass.

use std::time::Duration;

use contacts::{ErrorKind, Micros};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Vocabulary;
use crate::error::{CrmError, CrmResult};
use crate::expr::Template;
use crate::load::Table;

/// The written form of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    EpochSeconds,
    EpochMillis,
    /// RFC 3339 with milliseconds, UTC: `2026-11-21T01:02:03.456Z`.
    Iso,
    /// RFC 3339 in whole seconds (Pipedrive answers 400 to fractions).
    IsoSeconds,
    /// A strftime pattern, in the CRM's time zone (UTC if it names none).
    Strftime(String),
}

/// `since = { … }` of a change pass.
#[derive(Debug)]
pub struct Since {
    pub wire: Wire,
    /// The CRM's time zone, by its IANA name; it may be one that the check learned (Intercom's workspaces). `None`: UTC.
    pub tz: Option<Template>,
    /// What the CRM rounds its times to. Both ends of a window are widened to it; days are those of the time zone.
    pub precision: Duration,
    /// Whether a row stamped exactly `since` is returned; else the window begins one step earlier.
    pub inclusive: bool,
    /// How far back each window reaches into the one before: the assumed lateness of rows.
    pub overlap: Duration,
    /// How far before now each window ends.
    pub lag: Duration,
}

impl Wire {
    pub(super) fn parse(text: &str) -> Option<Wire> {
        Some(match text {
            "epoch_s" => Wire::EpochSeconds,
            "epoch_ms" => Wire::EpochMillis,
            "iso" => Wire::Iso,
            "iso_s" => Wire::IsoSeconds,
            pattern if pattern.contains('%') && Timestamp::UNIX_EPOCH.strftime(pattern).to_string().len() > 3 => {
                Wire::Strftime(pattern.to_owned())
            }
            _ => return None,
        })
    }

    pub(super) fn read(table: &Table<'_, '_>, key: &'static str) -> Option<Wire> {
        let text = table.text(key)?;
        let valid = jiff::fmt::strtime::format(&text, Timestamp::UNIX_EPOCH).is_ok();
        let wire = if valid { Wire::parse(&text) } else { None };
        if wire.is_none() {
            let hint = "epoch_s, epoch_ms, iso, iso_s or a strftime pattern";
            table.problem(
                key,
                format!("`{}.{key}` is not a form of time: {text:?}", table.path),
                Some(hint),
            );
        }
        wire
    }

    /// The time as a request carries it, in UTC; numbers stay numbers.
    pub fn write(&self, time: Micros) -> serde_json::Value {
        self.write_in(time, &TimeZone::UTC)
    }

    /// The same in a time zone, where the form does not say which it is.
    pub fn write_in(&self, time: Micros, zone: &TimeZone) -> serde_json::Value {
        let stamp = Timestamp::from_microsecond(i64::try_from(time.0).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
        match self {
            Wire::EpochSeconds => (time.0 / 1_000_000).into(),
            Wire::EpochMillis => time.millis().into(),
            Wire::Iso => format!("{stamp:.3}").into(),
            Wire::IsoSeconds => format!("{stamp:.0}").into(),
            Wire::Strftime(pattern) => stamp.to_zoned(zone.clone()).strftime(pattern).to_string().into(),
        }
    }

    /// Reads a time of a row. Numbers may come as text (HubSpot). `None` if it is none.
    pub fn parse_time(&self, text: &str) -> Option<Micros> {
        self.parse_time_in(text, &TimeZone::UTC)
    }

    /// The same in a time zone, where the form does not say which it is.
    pub fn parse_time_in(&self, text: &str, zone: &TimeZone) -> Option<Micros> {
        match self {
            Wire::EpochSeconds => scaled(text, 1_000_000.0),
            Wire::EpochMillis => scaled(text, 1_000.0),
            Wire::Iso | Wire::IsoSeconds => Micros::parse(text),
            Wire::Strftime(pattern) => jiff::civil::DateTime::strptime(pattern, text)
                .ok()
                .and_then(|civil| civil.to_zoned(zone.clone()).ok())
                .and_then(|zoned| u64::try_from(zoned.timestamp().as_microsecond()).ok())
                .map(Micros)
                .or_else(|| Micros::parse(text)),
        }
    }
}

/// Epoch numbers up to the year 9999; whole ones exactly.
fn scaled(text: &str, factor: f64) -> Option<Micros> {
    const LATEST: f64 = 253_402_300_800_000_000.0;
    if let Ok(whole) = text.trim().parse::<u64>() {
        let micros = whole.checked_mul(factor as u64)?;
        return (micros < LATEST as u64).then_some(Micros(micros));
    }
    let micros = text.trim().parse::<f64>().ok()? * factor;
    (0.0..LATEST).contains(&micros).then_some(Micros(micros as u64))
}

impl Since {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Since> {
        if !table.has("wire") {
            table.problem("wire", format!("`{}.wire` is missing", table.path), None);
        }
        let wire = Wire::read(&table, "wire");
        let tz = read_zone(&table, vocabulary);
        let precision = table.duration("precision").unwrap_or(Duration::from_millis(1));
        let inclusive = table.boolean("inclusive").unwrap_or(true);
        let overlap = table.duration("overlap");
        let lag = table.duration("lag").unwrap_or_default();
        let known = [1, 1_000, 60_000, 3_600_000, 86_400_000].map(Duration::from_millis);
        if !known.contains(&precision) {
            table.problem("precision", "`precision` must be 1ms, 1s, 1m, 1h or 1d", None);
        }
        match overlap {
            None if !table.has("overlap") => {
                let hint = "how late a row may appear with an older time; at least one `precision`";
                table.problem("overlap", format!("`{}.overlap` is missing", table.path), Some(hint));
            }
            Some(overlap) if overlap < precision => {
                table.problem("overlap", "`overlap` must be at least one `precision`", None);
            }
            _ => {}
        }
        table.finish();
        Some(Since {
            wire: wire?,
            tz,
            precision,
            inclusive,
            overlap: overlap?,
            lag,
        })
    }

    /// The lower bound as asked for: rounded down, and one step earlier if the CRM leaves out the bound itself.
    pub fn lower(&self, since: Micros, zone: &TimeZone) -> Micros {
        let floor = self.floor(since, zone);
        if self.inclusive {
            floor
        } else {
            // A day of a time zone may be shorter than 24 hours, so what lies one second before it is rounded again.
            self.floor(floor.minus(self.precision.min(DAY / 2)), zone)
        }
    }

    /// The upper bound as asked for: rounded up, so that nothing before it is missed.
    pub fn upper(&self, until: Micros, zone: &TimeZone) -> Micros {
        let floor = self.floor(until, zone);
        if floor == until {
            until
        } else if self.precision < DAY {
            floor.plus(self.precision)
        } else {
            // From noon or so of the next day: days have 23 to 25 hours.
            self.floor(floor.plus(DAY + DAY / 2), zone)
        }
    }

    fn floor(&self, time: Micros, zone: &TimeZone) -> Micros {
        let step = contacts::time::micros(self.precision).max(1);
        let utc = Micros(time.0 / step * step);
        if self.precision < DAY || *zone == TimeZone::UTC {
            return utc;
        }
        let stamp = i64::try_from(time.0)
            .ok()
            .and_then(|micros| Timestamp::from_microsecond(micros).ok());
        let start = stamp.and_then(|stamp| stamp.to_zoned(zone.clone()).start_of_day().ok());
        // Before 1970 in some zones: the beginning of time will do.
        start.map_or(utc, |start| {
            Micros(u64::try_from(start.timestamp().as_microsecond()).unwrap_or(0))
        })
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// The zone that a template names; `names` holds `conn`. Before the check has learned it, UTC.
pub(crate) fn zone(template: &Template, names: &minijinja::Value) -> CrmResult<TimeZone> {
    let name = template.render_optional(names).map_err(CrmError::request)?;
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(TimeZone::UTC);
    };
    TimeZone::get(&name)
        .map_err(|error| CrmError::because(ErrorKind::BadReply, "the CRM's time zone is not known", error))
}

/// `tz = "Europe/Lisbon"`, or a template over what the check learned.
pub(super) fn read_zone(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Template> {
    let template = table.template("tz", &vocabulary.base())?;
    let fixed = template.expressions().next().is_none();
    let name = table.text("tz").unwrap_or_default();
    if fixed && TimeZone::get(&name).is_err() {
        let hint = "an IANA name such as Europe/Lisbon, or ${conn.NAME} that the check learns";
        table.problem("tz", format!("{name:?} is no time zone"), Some(hint));
        return None;
    }
    Some(template)
}
