//! Phone numbers as E.164.

use rlibphonenumber::{PhoneNumber, PhoneNumberFormat};

use super::{LONGEST_LIST, Tally};

/// A country whose national numbers are assumed, by its two-letter code.
pub type Region = rlibphonenumber::Region;

/// Longer texts are no phone number, and parsing them is not free.
const LONGEST_NUMBER: usize = 100;

/// Valid numbers in E.164, each once, in their order. Extensions are cut off: E.164 has none.
pub(super) fn phones(texts: Vec<String>, region: Option<Region>, tally: &mut Tally) -> Vec<String> {
    let mut phones: Vec<String> = Vec::new();
    for text in texts {
        match e164(&text, region) {
            None => tally.dropped("phone_invalid"),
            Some(_) if phones.len() >= LONGEST_LIST => tally.dropped("too_many_phones"),
            Some(phone) => {
                if phone != text {
                    tally.repaired("phone_formatted");
                }
                if phones.contains(&phone) {
                    tally.dropped("phone_repeated");
                } else {
                    phones.push(phone);
                }
            }
        }
    }
    phones
}

/// A valid number in E.164: the form in which contacts hold and index their phones.
pub fn e164(text: &str, region: Option<Region>) -> Option<String> {
    let text = text.trim();
    if text.len() > LONGEST_NUMBER {
        return None;
    }
    let number = PhoneNumber::parse(text, region).ok()?;
    number
        .is_valid()
        .then(|| number.format_as(PhoneNumberFormat::E164).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapped(texts: &[&str], region: Option<Region>) -> (Vec<String>, Tally) {
        let mut tally = Tally::default();
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        (phones(texts, region, &mut tally), tally)
    }

    #[test]
    fn numbers_become_e164_and_extensions_go() {
        let region = Region::from_code("PT").ok();
        let (phones, tally) = mapped(
            &[
                "+351 21 123 4567",
                "21 123 4567 ext. 12",
                "00351 912 345 678",
                "+1 (310) 867-5309",
                "+4722334455;ext=9",
            ],
            region,
        );
        assert_eq!(
            phones,
            ["+351211234567", "+351912345678", "+13108675309", "+4722334455"]
        );
        assert_eq!(tally.repairs["phone_formatted"], 5);
        assert_eq!(tally.dropped["phone_repeated"], 1);
    }

    #[test]
    fn what_is_no_number_is_dropped_and_counted() {
        let (phones, tally) = mapped(
            &["n/a", "123", "+999 1234", "21 123 4567", "1".repeat(200).as_str()],
            None,
        );
        assert_eq!(phones, Vec::<String>::new());
        assert_eq!(tally.dropped["phone_invalid"], 5);
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_only_e164_comes_out(text in ".{0,120}") {
            let region = Region::from_code("US").ok();
            for phone in phones(vec![text], region, &mut Tally::default()) {
                prop_assert!(phone.starts_with('+') && phone[1..].bytes().all(|b| b.is_ascii_digit()), "{}", phone);
                prop_assert!((8..=16).contains(&phone.len()), "{}", phone);
            }
        }
    }
}
