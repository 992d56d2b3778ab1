//! What the vendors' modules share: times in their spellings, pages, tickets by number, signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use crate::account::State;
use crate::data::{self, Row, Ticket};
use crate::rng::Rng;
use crate::select::{Order, Selection};
use crate::state::Record;
use crate::wire::Request;

/// A contact as its vendor is about to show it.
pub(crate) struct Person {
    pub id: u64,
    pub modified: i64,
    pub created: i64,
    pub row: Row,
}

impl Person {
    pub(crate) fn new(state: &State, id: u64, record: &Record) -> Person {
        let first = data::first_stamp(state.contacts.seed, id, state.contacts.whole_seconds);
        Person {
            id,
            modified: record.modified,
            created: first.min(record.modified),
            row: state.contacts.row(id, record, state.knobs.whole_second_stamps),
        }
    }

    /// Somebody who is gone: nothing is known but the name of the first day.
    pub(crate) fn gone(state: &State, id: u64, at: i64) -> Person {
        let record = Record {
            modified: at,
            ..Record::default()
        };
        Person::new(state, id, &record)
    }

    pub(crate) fn name(&self) -> String {
        let parts = [self.row.first_name.trim(), self.row.last_name.trim()];
        parts.map(str::to_owned).join(" ").trim().to_owned()
    }

    pub(crate) fn email(&self, at: usize) -> Option<&str> {
        self.row
            .emails
            .get(at)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    pub(crate) fn phone(&self, at: usize) -> Option<&str> {
        self.row
            .phones
            .get(at)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}

/// The contacts on one page, and whether there are more.
pub(crate) fn page(state: &State, selection: &Selection) -> (Vec<Person>, bool) {
    let wider = Selection {
        limit: selection.limit.saturating_add(1),
        ..selection.clone()
    };
    let mut found = wider.run(state);
    let more = found.len() > selection.limit;
    found.truncate(selection.limit);
    let people = found.into_iter().map(|(id, record)| Person::new(state, id, record));
    (people.collect(), more)
}

/// As [`page`], behind a place in the list's own order: a time and an id.
pub(crate) fn page_behind(state: &State, selection: &Selection, (at, id): (i64, u64)) -> (Vec<Person>, bool) {
    let mut rest = selection.clone();
    let mut same = None;
    match selection.order {
        Order::Id => rest.after = rest.after.max(id),
        Order::IdDown => rest.before = rest.before.min(id),
        Order::Time | Order::TimeDown => {
            // Among those of one stamp the id says where to go on.
            let mut one = selection.clone();
            if one.compare_time("=", at) {
                one.limit = usize::MAX;
                same = Some(one.count(state));
            }
            let onwards = if selection.order == Order::Time { ">=" } else { "<=" };
            rest.compare_time(onwards, at);
        }
    }
    rest.limit = selection.limit.saturating_add(same.unwrap_or(0));
    let behind = |person: &Person| match selection.order {
        Order::Time => (person.modified, person.id) > (at, id),
        Order::TimeDown => (person.modified, person.id) < (at, id),
        Order::Id | Order::IdDown => true,
    };
    let (people, more) = page(state, &rest);
    let mut people: Vec<Person> = people.into_iter().filter(behind).collect();
    let more = more || people.len() > selection.limit;
    people.truncate(selection.limit);
    (people, more)
}

/// What is empty is null to most.
pub(crate) fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The first contact whose first e-mail address it is.
pub(crate) fn somebody_with_email(state: &State, email: &str) -> Option<u64> {
    let has = |(id, record): &(u64, &Record)| {
        let row = state.contacts.row(*id, record, false);
        row.emails
            .first()
            .is_some_and(|known| known.trim().eq_ignore_ascii_case(email))
    };
    state.contacts.newest_after(0).find(has).map(|(id, _)| id)
}

// ---- times

fn timestamp(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

/// `2024-05-01T10:00:00.123Z`
pub(crate) fn iso_ms(ms: i64) -> String {
    data::stamp_text(ms, false)
}

/// `2024-05-01T10:00:00Z`
pub(crate) fn iso(ms: i64) -> String {
    data::stamp_text(ms, true)
}

/// `2024-05-01 10:00:00`, UTC.
pub(crate) fn plain(ms: i64) -> String {
    timestamp(ms).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// RFC 3339 with any offset.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond())
}

/// `2024-05-01 10:00:00`, UTC.
pub(crate) fn parse_plain(text: &str) -> Option<i64> {
    let at = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

// ---- numbers and opaque words

/// A number that belongs to a word and is always the same: an account's portal, organisation or company.
pub(crate) fn number_of(word: &str, digits: u32) -> u64 {
    let low = 10_u64.pow(digits - 1);
    low + Rng::account_seed(4, word) % (9 * low)
}

/// A token that callers cannot read.
pub(crate) fn opaque(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub(crate) fn read_opaque(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// The secret that a call to a token endpoint brings, by its grant.
pub(crate) fn granted_by(request: &Request) -> Option<String> {
    let form = request.form();
    let given = |name: &str| {
        form.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    match given("grant_type")?.as_str() {
        "refresh_token" => given("refresh_token"),
        "password" => given("password"),
        _ => given("client_secret"),
    }
}

// ---- tickets

/// The tickets of a contact and of those that were merged into it; `None` without the contact.
pub(crate) fn tickets_of(state: &State, contact: u64) -> Option<Vec<Ticket>> {
    let record = state.contacts.newest(contact)?;
    let merged = record
        .more
        .as_ref()
        .map(|more| more.merged.as_slice())
        .unwrap_or_default();
    let mut tickets = Vec::new();
    for id in std::iter::once(&contact).chain(merged) {
        tickets.extend(data::tickets(state.contacts.seed, *id));
        tickets.extend(state.made.tickets_of(*id));
    }
    Some(tickets)
}

const MADE: u64 = 9_000_000_000;

/// The house's `t-7-2` is 72, and `t-new-3` is 9000000003.
pub(crate) fn ticket_number(ticket: &Ticket) -> u64 {
    let mut parts = ticket.id.rsplit('-').map(|part| part.parse::<u64>().ok());
    let last = parts.next().flatten().unwrap_or_default();
    match parts.next().flatten() {
        Some(contact) => contact * 10 + last,
        None => MADE + last,
    }
}

pub(crate) fn ticket_by_number(state: &State, number: u64) -> Option<Ticket> {
    if number > MADE {
        let made = state.made.tickets.get((number - MADE - 1) as usize)?;
        return Some(made.ticket.clone());
    }
    let tickets = data::tickets(state.contacts.seed, number / 10);
    tickets.into_iter().find(|ticket| ticket_number(ticket) == number)
}

// ---- signatures

pub(crate) fn sha256(key: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn sha1(key: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
