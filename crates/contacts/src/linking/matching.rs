//! Whom an update means. Web1on1 joins its filters with "and", so the recipe's one query with both misses who has only one of
//! the two: each needle is asked for by itself, and what the answers hold together counts.

use std::collections::BTreeSet;

use super::Update;
use super::request::email;

/// One value to look for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needle {
    Email(String),
    Phone(String),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    Nobody,
    One(String),
    /// Ids of all of them, in order.
    Many(Vec<String>),
}

/// The needles of an update, each once. `e164`: the number in its one form, where the region makes it a valid one. Web1on1
/// compares texts, and its numbers are E.164 where people keep to it, so the number is looked for in that form, without its
/// `+`, and as it was written.
pub fn needles(update: &Update, e164: Option<&str>) -> Vec<Needle> {
    let mut needles: Vec<Needle> = update.email.iter().flat_map(|text| addresses(text)).collect();
    let written = update.phone.as_deref();
    let bare = e164.and_then(|phone| phone.strip_prefix('+'));
    for phone in [e164, bare, written].into_iter().flatten() {
        let needle = Needle::Phone(phone.to_owned());
        if !needles.contains(&needle) {
            needles.push(needle);
        }
    }
    needles
}

/// An address in small letters, in which it is compared, and as it was written, as the other system may compare texts.
fn addresses(text: &str) -> Vec<Needle> {
    let Some(small) = email(text) else { return Vec::new() };
    let written = text.trim();
    let other = (written != small).then(|| Needle::Email(written.to_owned()));
    std::iter::once(Needle::Email(small)).chain(other).collect()
}

/// The needles of a record, each once: its addresses and its numbers, these also in their one form. `e164` gives it.
pub fn needles_of(emails: &[String], phones: &[String], e164: impl Fn(&str) -> Option<String>) -> Vec<Needle> {
    let mut all: Vec<Needle> = emails.iter().flat_map(|text| addresses(text)).collect();
    for phone in phones {
        let update = Update {
            id: String::new(),
            organization: String::new(),
            email: None,
            phone: Some(phone.clone()),
            deleted: false,
        };
        all.extend(needles(&update, e164(phone).as_deref()));
    }
    let mut seen = BTreeSet::new();
    all.retain(|needle| seen.insert(needle.clone()));
    all
}

/// The union of what the needles found.
pub fn matched<'a>(found: impl IntoIterator<Item = &'a str>) -> Matched {
    let mut ids: Vec<String> = found
        .into_iter()
        .filter(|id| !id.is_empty())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(str::to_owned)
        .collect();
    match (ids.pop(), ids.is_empty()) {
        (None, _) => Matched::Nobody,
        (Some(id), true) => Matched::One(id),
        (Some(last), false) => {
            ids.push(last);
            Matched::Many(ids)
        }
    }
}

impl Needle {
    /// Whether a record that the other system gave for it bears it at all: a system that does not know a filter ignores it,
    /// and answers with everybody. `e164` puts a number in its one form.
    pub fn is_borne_by(&self, emails: &[String], phones: &[String], e164: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Needle::Email(wanted) => {
                let wanted = email(wanted);
                wanted.is_some() && emails.iter().any(|own| email(own) == wanted)
            }
            Needle::Phone(wanted) => {
                let form = |text: &str| {
                    e164(text)
                        .or_else(|| e164(&format!("+{text}")))
                        .unwrap_or_else(|| digits(text))
                };
                phones.iter().any(|own| own == wanted || form(own) == form(wanted))
            }
        }
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn update(email: Option<&str>, phone: Option<&str>) -> Update {
        Update {
            id: "1".into(),
            organization: "o".into(),
            email: email.map(str::to_owned),
            phone: phone.map(str::to_owned),
            deleted: false,
        }
    }

    /// Norway's numbers have eight digits.
    fn norwegian(text: &str) -> Option<String> {
        let digits = digits(text);
        match (text.starts_with('+'), digits.len()) {
            (true, 10) => Some(format!("+{digits}")),
            (false, 8) => Some(format!("+47{digits}")),
            _ => None,
        }
    }

    #[test]
    fn a_number_is_looked_for_in_each_form_once() {
        let phone = |text: &str| Needle::Phone(text.into());
        let both = update(Some("a@b"), Some("22 33 44 55"));
        assert_eq!(
            needles(&both, Some("+4722334455")),
            [
                Needle::Email("a@b".into()),
                phone("+4722334455"),
                phone("4722334455"),
                phone("22 33 44 55")
            ]
        );
        let plain = update(None, Some("+4722334455"));
        assert_eq!(
            needles(&plain, Some("+4722334455")),
            [phone("+4722334455"), phone("4722334455")]
        );
        assert_eq!(needles(&plain, None), [phone("+4722334455")]);
        let written = update(Some("Ines@B"), None);
        assert_eq!(
            needles(&written, None),
            [Needle::Email("ines@b".into()), Needle::Email("Ines@B".into())]
        );
    }

    #[test]
    fn who_was_given_must_bear_what_was_asked_for() {
        let (emails, phones) = (["Ines@B".to_owned()], ["22334455".to_owned()]);
        for needle in [
            Needle::Email("ines@b".into()),
            Needle::Email("Ines@b".into()),
            Needle::Phone("+4722334455".into()),
            Needle::Phone("4722334455".into()),
        ] {
            assert!(needle.is_borne_by(&emails, &phones, norwegian), "{needle:?}");
        }
        for needle in [Needle::Email("b@b".into()), Needle::Phone("+4799999999".into())] {
            assert!(!needle.is_borne_by(&emails, &phones, norwegian), "{needle:?}");
        }
    }

    proptest! {
        #[test]
        fn zero_one_and_many_are_told_apart_however_often_each_was_found(ids in prop::collection::vec("[a-c]?", 0..8)) {
            let known: BTreeSet<&str> = ids.iter().map(String::as_str).filter(|id| !id.is_empty()).collect();
            let expected = match known.len() {
                0 => Matched::Nobody,
                1 => Matched::One(known.first().unwrap().to_string()),
                _ => Matched::Many(known.iter().map(ToString::to_string).collect()),
            };
            prop_assert_eq!(matched(ids.iter().map(String::as_str)), expected);
        }
    }
}
