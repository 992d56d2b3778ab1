//! From a CRM's row to Talkdesk's contact. Whatever is repaired or left out is counted by reason, so that bad data shows
//! up in numbers instead of in support calls.

mod agent;
mod phone;
mod plain;
mod text;

use std::collections::BTreeMap;

use contacts::{Contact, Micros};
use jiff::tz::TimeZone;
use minijinja::Value;
use minijinja::value::merge_maps;

use crate::expr::{Expr, ExprError, scope, to_text, value_of};
use crate::spec::{Deletion, Mapping, Spec};

pub(crate) use agent::agent;
pub use phone::{Region, e164};
pub(crate) use plain::plain;
pub(crate) use text::{clipped, url};

/// How often something happened, by reason.
pub type Counts = BTreeMap<&'static str, u32>;

/// What was repaired and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub repairs: Counts,
    pub dropped: Counts,
}

impl Tally {
    fn repaired(&mut self, reason: &'static str) {
        *self.repairs.entry(reason).or_default() += 1;
    }

    pub fn dropped(&mut self, reason: &'static str) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

/// A row as it was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub contact: Contact,
    /// The CRM's modified time; [`Micros::ZERO`] if it has none.
    pub updated: Micros,
    /// The row says itself that it is archived or deleted.
    pub removed: bool,
    /// The contact is there, but not one that the integration wants.
    pub unwanted: bool,
    /// Ids of records that were merged into this one.
    pub aliases: Vec<String>,
}

/// Maps the rows of one account.
pub(crate) struct Mapper<'a> {
    map: &'a Mapping,
    flags: Vec<&'a Expr>,
    /// Rows of the delta stream that say what is gone, and where its id stands.
    gone: Vec<(&'a Expr, Option<&'a Expr>)>,
    conn: Value,
    region: Option<Region>,
    zone: TimeZone,
    /// No row is newer than this: the CRM's clock, where it is known.
    latest: Option<Micros>,
}

/// Longest texts Talkdesk is sent, in characters.
const LONGEST_TEXT: usize = 255;
const LONGEST_ADDRESS: usize = 1024;
const LONGEST_ID: usize = 255;
/// Most entries of a list of one contact.
const LONGEST_LIST: usize = 100;

impl<'a> Mapper<'a> {
    pub fn new(spec: &'a Spec, conn: Value, region: Option<Region>, latest: Option<Micros>) -> Mapper<'a> {
        let flag = |deletion: &'a Deletion| {
            if let Deletion::Flag { when } = deletion {
                Some(when)
            } else {
                None
            }
        };
        let flags = spec.contacts.deleted.iter().filter_map(flag).collect();
        let gone = |deletion: &'a Deletion| match deletion {
            Deletion::Delta { when, id } => Some((when, id.as_ref())),
            _ => None,
        };
        let gone = spec.contacts.deleted.iter().filter_map(gone).collect();
        Mapper {
            map: &spec.contacts.map,
            flags,
            gone,
            conn,
            region,
            zone: TimeZone::UTC,
            latest,
        }
    }

    /// The CRM's time zone, where its forms of time do not say it.
    pub fn in_zone(mut self, zone: TimeZone) -> Mapper<'a> {
        self.zone = zone;
        self
    }

    /// `None` for a row that cannot become a contact; the reason is counted. `looked_up`: what other records say of it.
    pub fn map(&self, item: &Value, looked_up: Value, tally: &mut Tally) -> Option<Observed> {
        let base = match (self.flags.is_empty(), self.gone.is_empty()) {
            (true, true) => Value::UNDEFINED,
            _ => scope([("item", item.clone()), ("conn", self.conn.clone())]),
        };
        let found = match self.gone(&base) {
            Ok(Some(id)) => Ok(self.tombstone(id, tally)),
            Ok(None) => self
                .with_lets(item, looked_up)
                .and_then(|names| self.map_in(&base, &names, tally)),
            Err(error) => Err(error),
        };
        match found {
            Ok(observed) => observed,
            Err(_) => {
                tally.dropped("row_unreadable");
                None
            }
        }
    }

    /// The id of what a row of the delta stream says is gone; empty if it has none.
    fn gone(&self, base: &Value) -> Result<Option<String>, ExprError> {
        for (when, id) in &self.gone {
            if when.is_true(base)? {
                let id = id.unwrap_or(&self.map.id).text_of(base)?;
                return Ok(Some(id.unwrap_or_default().trim().to_owned()));
            }
        }
        Ok(None)
    }

    fn tombstone(&self, id: String, tally: &mut Tally) -> Option<Observed> {
        if id.is_empty() || id.chars().count() > LONGEST_ID {
            tally.dropped(if id.is_empty() { "no_id" } else { "id_too_long" });
            return None;
        }
        Some(Observed {
            contact: Contact {
                id,
                ..Contact::default()
            },
            updated: Micros::ZERO,
            removed: true,
            unwanted: false,
            aliases: Vec::new(),
        })
    }

    /// The id of a row alone.
    pub fn id(&self, item: &Value) -> Option<String> {
        let names = self.with_lets(item, Value::UNDEFINED).ok()?;
        self.map
            .id
            .text_of(&names)
            .ok()
            .flatten()
            .map(|id| id.trim().to_owned())
    }

    fn with_lets(&self, item: &Value, looked_up: Value) -> Result<Value, ExprError> {
        let mut names = vec![
            ("item", item.clone()),
            ("conn", self.conn.clone()),
            ("lookup", looked_up),
        ];
        let base = scope(names.clone());
        if self.map.lets.is_empty() {
            return Ok(base);
        }
        for (name, expr) in &self.map.lets {
            names.push((name.as_str(), expr.eval(&base)?));
        }
        Ok(scope(names))
    }

    fn map_in(&self, base: &Value, names: &Value, tally: &mut Tally) -> Result<Option<Observed>, ExprError> {
        let text = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), |expr| expr.text_of(names));
        let texts = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(Vec::new()), |expr| expr.texts_of(names));

        let Some(id) = self
            .map
            .id
            .text_of(names)?
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty())
        else {
            tally.dropped("no_id");
            return Ok(None);
        };
        if id.chars().count() > LONGEST_ID {
            tally.dropped("id_too_long");
            return Ok(None);
        }
        let mut removed = false;
        for flag in &self.flags {
            removed |= flag.is_true(base)?;
        }
        let updated = self.updated(names, tally)?;
        let emails = text::emails(texts(&self.map.emails)?, tally);
        let phones = phone::phones(texts(&self.map.phones)?, self.region, tally);
        let company = text::clipped(text(&self.map.company)?, LONGEST_TEXT, tally);
        let name = text::clipped(text(&self.map.name)?, LONGEST_TEXT, tally);
        let name = match name {
            Some(name) => name,
            None => {
                tally.repaired("name_filled");
                let first = |list: &[String]| list.first().cloned();
                let known = company.clone().or_else(|| first(&emails)).or_else(|| first(&phones));
                known.unwrap_or_else(|| format!("Unknown ({id})"))
            }
        };
        let contact = Contact {
            name: crate::reply::clip(&name, LONGEST_TEXT).to_owned(),
            company,
            title: text::clipped(text(&self.map.title)?, LONGEST_TEXT, tally),
            emails,
            phones,
            photo_url: text::url(text(&self.map.photo_url)?, false, tally),
            address: text::clipped(text(&self.map.address)?, LONGEST_ADDRESS, tally),
            websites: text::websites(texts(&self.map.websites)?, tally),
            twitter: text::twitter(text(&self.map.twitter)?, tally),
            url: text::url(text(&self.map.url)?, false, tally),
            id,
        };
        let mut aliases: Vec<String> = texts(&self.map.aliases)?;
        aliases.retain(|alias| *alias != contact.id);
        aliases.truncate(LONGEST_LIST);
        let unwanted = match &self.map.filter {
            Some(filter) if !removed => {
                let contact = [("contact", value_of(&contact))];
                !filter.is_true(&merge_maps([scope(contact), names.clone()]))?
            }
            _ => false,
        };
        if unwanted {
            tally.dropped("unwanted");
        }
        Ok(Some(Observed {
            contact,
            updated,
            removed,
            unwanted,
            aliases,
        }))
    }

    /// A time that lies ahead of the CRM's own clock would win over every later edit: it is taken back to the clock.
    fn updated(&self, names: &Value, tally: &mut Tally) -> Result<Micros, ExprError> {
        let Some(expr) = &self.map.updated else {
            return Ok(Micros::ZERO);
        };
        let Some(text) = to_text(&expr.eval(names)?) else {
            return Ok(Micros::ZERO);
        };
        let Some(updated) = self.map.updated_as.parse_time_in(&text, &self.zone) else {
            tally.repaired("time_unreadable");
            return Ok(Micros::ZERO);
        };
        match self.latest {
            Some(latest) if updated > latest => {
                tally.repaired("time_ahead");
                Ok(latest)
            }
            _ => Ok(updated),
        }
    }
}
