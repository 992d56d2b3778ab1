//! Whom an e-mail address or a phone number may mean, so that nobody walks over all contacts for each question.

use std::collections::{BTreeSet, HashMap};

use crate::data::Content;

/// Ids by address and number. What was taken in stays, whatever becomes of the contact.
#[derive(Default)]
pub(crate) struct Needles(HashMap<String, BTreeSet<u64>>);

/// Digits that tell a number from others, whatever stands before them.
const DIGITS: usize = 8;

/// An address in small letters; of a number the last eight digits; of anything else what it says.
fn key(text: &str) -> String {
    let text = text.trim();
    let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    if text.contains('@') || digits.is_empty() {
        return text.to_lowercase();
    }
    digits[digits.len().saturating_sub(DIGITS)..].iter().collect()
}

/// Whether two numbers have the same last digits: a national and an international spelling do.
pub(crate) fn same_number(one: &str, other: &str) -> bool {
    !one.contains('@') && key(one) == key(other)
}

impl Needles {
    pub(crate) fn add(&mut self, id: u64, content: &Content) {
        for text in content.emails.iter().chain(&content.phones) {
            self.0.entry(key(text)).or_default().insert(id);
        }
    }

    pub(crate) fn of(&self, text: &str) -> BTreeSet<u64> {
        self.0.get(&key(text)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_have_one_key_and_others_have_not() {
        let spellings = ["+351 912 345 678", "00351912345678", "912345678", "(912) 345-678"];
        assert!(spellings.iter().all(|text| same_number(text, "+351912345678")));
        for (one, other) in [("912345678", "912345679"), ("12345", "912345678"), ("n/a", "12345")] {
            assert!(!same_number(one, other), "{one} {other}");
        }
        assert_eq!(key(" Ada@Example.com "), "ada@example.com");
    }
}
