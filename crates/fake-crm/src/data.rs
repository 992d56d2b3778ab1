//! What a contact, a user or a ticket says: a pure function of the seed and the id.
//!
//! Nothing of it is stored. A contact costs its bookkeeping only (stamps, version), so a million of them fit in memory
//! and are created in the time it takes to draw a million stamps.

mod words;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::words::{COMPANY_NAMES, FIRST_NAMES, JOB_TITLES, LAST_NAMES, SUBJECTS};
use crate::rng::{Purpose, Rng};

/// A contact as the API shows it. `modified_at` is UTC, with milliseconds unless the knob `whole_second_stamps` is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub id: String,
    pub first_name: String,
    pub last_name: String,
    pub company: String,
    pub job_title: String,
    pub emails: Vec<String>,
    pub phones: Vec<String>,
    pub address: Address,
    pub website: Option<String>,
    pub twitter: Option<String>,
    pub photo_url: Option<String>,
    pub modified_at: String,
    pub archived: bool,
    pub merged_ids: Vec<String>,
    /// Grows with each edit of the account; the newest version of a contact has the largest one.
    pub version: u64,
    /// Where the contact's conversation in Web1on1 is, as a DMS keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web1on1: Option<Web1on1Link>,
    /// Links in other systems, as Web1on1 keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Value>,
}

/// The place that a contact of a DMS has for the same person in Web1on1. All of it empty is as if it were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web1on1Link {
    pub url: Option<String>,
    /// Web1on1's ids.
    pub conversation: Option<String>,
    pub organization: Option<String>,
    pub label: Option<String>,
}

impl Web1on1Link {
    pub fn is_empty(&self) -> bool {
        *self == Web1on1Link::default()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub street: String,
    pub city: String,
    pub zip: String,
    /// ISO 3166 code: PT, US or DE; the national phone numbers of the contact belong to it.
    pub country: String,
}

/// Values that a control call lays over the generated ones. What is `None` keeps its generated value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emails: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phones: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web1on1: Option<Web1on1Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Value>>,
}

impl Fields {
    /// Every value given, and nothing in it.
    pub(crate) fn empty() -> Fields {
        Fields {
            first_name: Some(String::new()),
            last_name: Some(String::new()),
            company: Some(String::new()),
            job_title: Some(String::new()),
            emails: Some(Vec::new()),
            phones: Some(Vec::new()),
            address: Some(Address::default()),
            website: Some(String::new()),
            web1on1: None,
            links: None,
        }
    }

    pub(crate) fn lay_over(&mut self, newer: &Fields) {
        macro_rules! take {
            ($($field:ident),*) => { $( if newer.$field.is_some() { self.$field = newer.$field.clone(); } )* };
        }
        take!(
            first_name, last_name, company, job_title, emails, phones, address, website, web1on1, links
        );
    }

    fn apply(&self, content: &mut Content) {
        macro_rules! put {
            ($($field:ident),*) => { $( if let Some(value) = &self.$field { content.$field = value.clone(); } )* };
        }
        put!(first_name, last_name, company, job_title, emails, phones, address);
        if self.website.is_some() {
            content.website = self.website.clone();
        }
    }
}

/// A user (agent) as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: String,
    pub first_name: String,
    pub last_name: String,
    pub email: Option<String>,
    pub active: bool,
}

/// What a control call says of a user instead of the generated values. What is `None` stays as it was; an empty `email`
/// is shown as null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl UserFields {
    pub(crate) fn lay_over(&mut self, newer: &UserFields) {
        macro_rules! take {
            ($($field:ident),*) => { $( if newer.$field.is_some() { self.$field = newer.$field.clone(); } )* };
        }
        take!(first_name, last_name, email);
    }
}

/// A ticket of a contact as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub id: String,
    pub subject: String,
    pub description: String,
    pub status: String,
    pub priority: String,
    pub created_at: String,
    pub updated_at: String,
    pub url: String,
}

/// The part of a [`Row`] that comes from the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub first_name: String,
    pub last_name: String,
    pub company: String,
    pub job_title: String,
    pub emails: Vec<String>,
    pub phones: Vec<String>,
    pub address: Address,
    pub website: Option<String>,
    pub twitter: Option<String>,
    pub photo_url: Option<String>,
}

/// 2024-01-01T00:00:00Z. Generated contacts were last modified within the two years that follow, so their stamps do
/// not depend on when the fake was started.
const FIRST_STAMP_MS: i64 = 1_704_067_200_000;
const STAMP_SPAN_MS: u64 = 2 * 365 * 24 * 3600 * 1000;

pub(crate) fn first_stamp(seed: u64, id: u64, whole_seconds: bool) -> i64 {
    let offset = Rng::of(seed, Purpose::Stamp, id).below(STAMP_SPAN_MS);
    let exact = FIRST_STAMP_MS + offset as i64;
    if whole_seconds {
        exact.div_euclid(1000) * 1000
    } else {
        exact
    }
}

pub(crate) fn content(seed: u64, id: u64, revision: u32, fields: Option<&Fields>) -> Content {
    let rng = &mut Rng::of(seed, Purpose::Contact, id);
    let (first, first_ascii) = *rng.pick(FIRST_NAMES);
    let (last, last_ascii) = *rng.pick(LAST_NAMES);
    let handle = format!("{first_ascii}.{last_ascii}{id}").to_lowercase();
    let country = *rng.pick(&["PT", "PT", "PT", "US", "DE"]);
    let mut content = Content {
        first_name: first.to_owned(),
        last_name: last.to_owned(),
        company: company(rng),
        job_title: (*rng.pick(JOB_TITLES)).to_owned(),
        emails: emails(rng, &handle),
        phones: phones(rng, country),
        address: address(rng, country),
        website: website(rng, id),
        twitter: match rng.below(6) {
            0 => Some(format!("@{first_ascii}_{id}").to_lowercase()),
            1 => Some(format!("https://twitter.com/{first_ascii}{id}").to_lowercase()),
            _ => None,
        },
        photo_url: (rng.below(4) == 0).then(|| format!("https://img.example/{id}.jpg")),
    };
    // The odd ones, so that the name fallback chain and the repairs of a mapping have work.
    match rng.below(100) {
        0..=4 => content.last_name.clear(),
        5..=7 => {
            content.first_name.clear();
            content.last_name.clear();
        }
        8 => {
            content.first_name.clear();
            content.last_name.clear();
            content.company.clear();
        }
        9 => content.first_name = format!("  {first} "),
        10 => content.last_name = format!("{last}\u{a0}"),
        11 if rng.below(5) == 0 => content.company = "Very Long Holding Name ".repeat(20),
        _ => {}
    }
    if let Some(fields) = fields {
        fields.apply(&mut content);
    }
    if revision > 0 {
        content.job_title = format!("{} (rev {revision})", content.job_title);
    }
    content
}

/// The user (1 is `u-1`) whose contact it is.
pub fn owner(contact: u64, users: usize) -> usize {
    (contact as usize) % users.max(1) + 1
}

/// 0 to 99: which share of the contacts one belongs to.
pub(crate) fn percentile(seed: u64, id: u64) -> u8 {
    Rng::of(seed, Purpose::Share, id).below(100) as u8
}

pub(crate) fn user(seed: u64, ordinal: u64, revision: u32, active: bool, fields: &UserFields) -> User {
    let rng = &mut Rng::of(seed, Purpose::User, ordinal);
    let (first, first_ascii) = *rng.pick(FIRST_NAMES);
    let (last, last_ascii) = *rng.pick(LAST_NAMES);
    let email = format!("{first_ascii}.{last_ascii}.{ordinal}@staff.example").to_lowercase();
    let or = |set: &Option<String>, generated: &str| set.clone().unwrap_or_else(|| generated.to_owned());
    let last = or(&fields.last_name, last);
    User {
        id: format!("u-{ordinal}"),
        first_name: or(&fields.first_name, first),
        last_name: match revision {
            0 => last,
            n => format!("{last} (rev {n})"),
        },
        email: Some(or(&fields.email, &email)).filter(|email| !email.is_empty()),
        active,
    }
}

/// Up to three tickets, the same for the same contact whenever it is asked.
pub(crate) fn tickets(seed: u64, contact: u64) -> Vec<Ticket> {
    let rng = &mut Rng::of(seed, Purpose::Ticket, contact);
    let count = rng.below(4);
    (1..=count)
        .map(|n| {
            let created = FIRST_STAMP_MS + rng.below(STAMP_SPAN_MS) as i64;
            let updated = created + rng.below(30 * 24 * 3600 * 1000) as i64;
            let subject = *rng.pick(SUBJECTS);
            Ticket {
                id: format!("t-{contact}-{n}"),
                subject: subject.to_owned(),
                description: format!("{subject}. Reported by contact {contact}."),
                status: (*rng.pick(&["open", "pending", "solved"])).to_owned(),
                priority: (*rng.pick(&["low", "normal", "high"])).to_owned(),
                created_at: stamp_text(created, false),
                updated_at: stamp_text(updated, false),
                url: format!("https://crm.example/tickets/t-{contact}-{n}"),
            }
        })
        .collect()
}

/// RFC 3339 in UTC. Times outside of what a calendar can say are clamped: skew knobs may be absurd.
pub(crate) fn stamp_text(ms: i64, whole_seconds: bool) -> String {
    let whole = ms.div_euclid(1000);
    if whole_seconds {
        let stamp = jiff::Timestamp::from_second(whole).unwrap_or(jiff::Timestamp::MAX);
        return format!("{stamp:.0}");
    }
    let stamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{stamp:.3}")
}

fn company(rng: &mut Rng) -> String {
    let name = *rng.pick(COMPANY_NAMES);
    let form = *rng.pick(&["Lda.", "GmbH", "Inc.", "S.A.", "& Söhne", ""]);
    let text = format!("{name} {} {form}", rng.below(400));
    text.trim_end().to_owned()
}

fn emails(rng: &mut Rng, handle: &str) -> Vec<String> {
    let domain = *rng.pick(&["example.com", "example.org", "mail.example.net"]);
    let email = format!("{handle}@{domain}");
    match rng.below(40) {
        0..=3 => Vec::new(),
        4..=6 => {
            let shouted = email.to_uppercase();
            vec![email, shouted]
        }
        7 => vec![email.replace('@', ".")],
        8 => vec![format!(" {email} ")],
        9 => vec![String::new(), email],
        10..=14 => vec![email, format!("{handle}@home.example")],
        _ => vec![email],
    }
}

fn phones(rng: &mut Rng, country: &str) -> Vec<String> {
    let count = *rng.pick(&[0, 1, 1, 1, 2, 3]);
    (0..count).map(|_| phone(rng, country)).collect()
}

fn phone(rng: &mut Rng, country: &str) -> String {
    if rng.below(25) == 0 {
        let invalid = [
            "n/a",
            "12345",
            "call the office",
            "+000 000",
            "",
            "999999999999999999999",
        ];
        return (*rng.pick(&invalid)).to_owned();
    }
    // Country code, trunk prefix of national writing, and the groups of the national number.
    let (code, trunk, groups): (&str, &str, Vec<String>) = match (country, rng.below(2)) {
        ("US", _) => {
            let area = *rng.pick(&["212", "312", "415", "617"]);
            // 2xx to 8xx without the service codes such as 411.
            let exchange = 200 + rng.below(6) * 100 + 20 + rng.below(80);
            ("1", "", vec![area.to_owned(), exchange.to_string(), digits(rng, 4)])
        }
        ("DE", 0) => ("49", "0", vec!["30".to_owned(), format!("2{}", digits(rng, 7))]),
        ("DE", _) => ("49", "0", vec!["151".to_owned(), format!("2{}", digits(rng, 7))]),
        (_, 0) => (
            "351",
            "",
            vec![format!("91{}", rng.below(10)), digits(rng, 3), digits(rng, 3)],
        ),
        (_, _) => (
            "351",
            "",
            vec![format!("21{}", 1 + rng.below(9)), digits(rng, 3), digits(rng, 3)],
        ),
    };
    let plain = groups.concat();
    match rng.below(10) {
        0..=2 => format!("+{code}{plain}"),
        3 => format!("+{code} {}", groups.join(" ")),
        4 => format!("00{code} {}", groups.join("-")),
        5 | 6 => format!("{trunk}{}", groups.join(" ")),
        7 => format!("({trunk}{}) {}", groups[0], groups[1..].join("-")),
        8 => format!("+{code} {} ext. {}", groups.join(" "), 10 + rng.below(90)),
        _ => format!("{trunk}{plain}"),
    }
}

fn digits(rng: &mut Rng, count: usize) -> String {
    (0..count).map(|_| char::from(b'0' + rng.below(10) as u8)).collect()
}

fn address(rng: &mut Rng, country: &str) -> Address {
    let (streets, cities): (&[&str], &[(&str, &str)]) = match country {
        "US" => (
            &["Main St", "Oak Avenue", "2nd Street"],
            &[("New York", "10001"), ("Boston", "02108")],
        ),
        "DE" => (
            &["Hauptstraße", "Gartenweg", "Am Markt"],
            &[("Berlin", "10115"), ("Köln", "50667")],
        ),
        _ => (
            &["Rua da Prata", "Avenida da Liberdade", "Travessa São João"],
            &[("Lisboa", "1100-420"), ("Évora", "7000-803")],
        ),
    };
    if rng.below(8) == 0 {
        return Address {
            country: country.to_owned(),
            ..Address::default()
        };
    }
    let (city, zip) = *rng.pick(cities);
    Address {
        street: format!("{} {}", rng.pick(streets), 1 + rng.below(200)),
        city: city.to_owned(),
        zip: zip.to_owned(),
        country: country.to_owned(),
    }
}

fn website(rng: &mut Rng, id: u64) -> Option<String> {
    match rng.below(30) {
        0..=9 => Some(format!("https://www.site{id}.example/")),
        10..=12 => Some(format!("http://site{id}.example")),
        13 => Some(format!("www.site{id}.example")),
        14 => Some(format!("ftp://files.site{id}.example")),
        15 => Some("javascript:alert(1)".to_owned()),
        16 => Some("htp:/broken".to_owned()),
        17 => Some(String::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(content(7, 42, 0, None), content(7, 42, 0, None));
        assert_ne!(content(7, 42, 0, None), content(8, 42, 0, None));
        assert_eq!(first_stamp(7, 42, false), first_stamp(7, 42, false));
        assert_ne!(Rng::account_seed(1, "a"), Rng::account_seed(1, "b"));
    }

    #[test]
    fn every_repair_of_a_mapping_finds_work() {
        let all: Vec<Content> = (1..=5_000).map(|id| content(1, id, 0, None)).collect();
        let some = |what: &str, test: &dyn Fn(&Content) -> bool| {
            let share = all.iter().filter(|c| test(c)).count() as f64 / all.len() as f64;
            assert!(share > 0.001 && share < 0.5, "{what}: {share}");
        };
        some("no last name", &|c| !c.first_name.is_empty() && c.last_name.is_empty());
        some("company only", &|c| {
            c.first_name.is_empty() && c.last_name.is_empty() && !c.company.is_empty()
        });
        some("no name at all", &|c| {
            c.first_name.is_empty() && c.last_name.is_empty() && c.company.is_empty()
        });
        some("not ASCII", &|c| !c.last_name.is_ascii());
        some("emails that differ in case", &|c| {
            c.emails.len() == 2 && c.emails[0] != c.emails[1] && c.emails[0].eq_ignore_ascii_case(&c.emails[1])
        });
        some("email without @", &|c| {
            c.emails.iter().any(|e| !e.is_empty() && !e.contains('@'))
        });
        some("several phones", &|c| c.phones.len() > 1);
        some("E.164", &|c| {
            c.phones
                .iter()
                .any(|p| p.starts_with('+') && p[1..].bytes().all(|b| b.is_ascii_digit()))
        });
        some("extension", &|c| c.phones.iter().any(|p| p.contains("ext.")));
        some("invalid phone", &|c| {
            c.phones.iter().any(|p| p == "n/a" || p == "12345")
        });
        some("scheme that is not http", &|c| {
            c.website
                .as_deref()
                .is_some_and(|w| w.starts_with("ftp:") || w.starts_with("java"))
        });
    }

    #[test]
    fn an_edit_shows_and_given_fields_win() {
        let fields = Fields {
            first_name: Some("Eva".into()),
            job_title: Some("Pilot".into()),
            ..Fields::default()
        };
        let plain = content(1, 5, 0, Some(&fields));
        assert_eq!((plain.first_name.as_str(), plain.job_title.as_str()), ("Eva", "Pilot"));
        assert_eq!(content(1, 5, 3, Some(&fields)).job_title, "Pilot (rev 3)");
    }

    #[test]
    fn stamps_are_written_in_utc_and_cut_not_rounded() {
        assert_eq!(stamp_text(1_795_223_663_999, false), "2026-11-21T01:14:23.999Z");
        assert_eq!(stamp_text(1_795_223_663_999, true), "2026-11-21T01:14:23Z");
        assert_eq!(stamp_text(i64::MAX, false), stamp_text(i64::MAX, false));
    }
}
