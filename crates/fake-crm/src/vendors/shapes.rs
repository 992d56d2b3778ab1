//! What the vendors' modules share: times in their spellings, pages, tickets by number, signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use crate::account::State;
use crate::data::{self, Row, Ticket};
use crate::rng::Rng;
use crate::select::Selection;
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

    /// The first address that says something.
    pub(crate) fn any_email(&self) -> Option<&str> {
        first(&self.row.emails)
    }

    /// The first number that says something.
    pub(crate) fn any_phone(&self) -> Option<&str> {
        first(&self.row.phones)
    }

    pub(crate) fn phone(&self, at: usize) -> Option<&str> {
        self.row
            .phones
            .get(at)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}

fn first(texts: &[String]) -> Option<&str> {
    texts.iter().map(|text| text.trim()).find(|text| !text.is_empty())
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

/// As [`page`], from behind a place of the list (time, id) on.
pub(crate) fn page_behind(state: &State, selection: &Selection, place: (i64, u64)) -> (Vec<Person>, bool) {
    page(state, &selection.behind(place))
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

/// A call to a token endpoint: a form, the client's own words perhaps in HTTP Basic.
pub(crate) struct Grant {
    form: Vec<(String, String)>,
    basic: Option<(String, String)>,
}

impl Grant {
    pub(crate) fn read(request: &Request) -> Grant {
        Grant {
            form: request.form(),
            basic: request.basic(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let basic = self.basic.as_ref();
        let found = match name {
            "client_id" => basic.map(|(id, _)| id),
            "client_secret" => basic.map(|(_, secret)| secret),
            _ => None,
        };
        let in_form = || {
            self.form
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value)
        };
        found.or_else(in_form).map(String::as_str)
    }

    /// What the grant is given for: the account's token, in one place or another.
    pub(crate) fn secret(&self) -> Option<&str> {
        match self.get("grant_type")? {
            "refresh_token" => self.get("refresh_token"),
            "password" => self.get("password"),
            _ => self.get("client_secret"),
        }
    }

    pub(crate) fn is_good(&self, state: &State) -> bool {
        self.secret()
            .is_some_and(|secret| state.tokens.iter().any(|token| token == secret))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_what_openssl_says() {
        // printf 'POSThttp://127.0.0.1:1/hook[]1700000000000' | openssl dgst -sha256 -hmac client-secret -binary | base64
        let parts: [&[u8]; 4] = [b"POST", b"http://127.0.0.1:1/hook", b"[]", b"1700000000000"];
        let signed = base64(sha256("client-secret", &parts));
        assert_eq!(signed, "eLc3WeCFquj8mEPZwfWFnNCBqvUrNDt+tKRhiUJ8tgw=");
        // printf '{"a":1}' | openssl dgst -sha1 -hmac test-secret
        let signed = hex::encode(sha1("test-secret", &[br#"{"a":1}"#]));
        assert_eq!(signed, "d9a014d66df1a07cce236dab2de28e4880a5edca");
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let at = 1_714_557_600_123;
        assert_eq!(iso_ms(at), "2024-05-01T10:00:00.123Z");
        assert_eq!(iso(at), "2024-05-01T10:00:00Z");
        assert_eq!(plain(at), "2024-05-01 10:00:00");
        assert_eq!(parse_iso("2024-05-01T12:00:00.123+02:00"), Some(at));
        assert_eq!(parse_plain("2024-05-01 10:00:00"), Some(1_714_557_600_000));
        assert_eq!(
            (parse_iso("yesterday"), parse_plain("2024-05-01T10:00:00Z")),
            (None, None)
        );
    }

    #[test]
    fn a_ticket_is_found_by_its_number() {
        let seed = 7;
        for contact in 1..=50 {
            for ticket in data::tickets(seed, contact) {
                let number = ticket_number(&ticket);
                assert_eq!(number / 10, contact);
                let again = data::tickets(seed, number / 10);
                assert_eq!(again.iter().filter(|one| ticket_number(one) == number).count(), 1);
            }
        }
    }
}
