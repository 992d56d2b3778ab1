//! The inputs of an action: what Talkdesk sent, checked by the types that the connector declares (Talkdesk actions,
//! configuration). Pure functions of (declaration, value, region).

use std::collections::BTreeMap;

use contacts::Micros;
use jiff::civil::{Date, DateTime};
use serde_json::{Map, Value as Json};
use url::Url;

use crate::connector::Connector;
use crate::map::{Region, e164};
use crate::spec::{Action, Input};

/// Inputs that were checked, by key. Those that are absent are not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs(pub(crate) BTreeMap<String, Json>);

/// Why inputs are refused: one sentence for each, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct BadInputs(pub Vec<String>);

impl Connector {
    /// Checks the inputs of an action; keys that it does not know are ignored. `None`: there is no such action.
    pub fn inputs(
        &self,
        action: &str,
        data: &Map<String, Json>,
        region: Option<&str>,
    ) -> Option<Result<Inputs, BadInputs>> {
        let region = region.and_then(|code| Region::from_code(code).ok());
        self.action(action).map(|action| read(action, data, region))
    }
}

fn read(action: &Action, data: &Map<String, Json>, region: Option<Region>) -> Result<Inputs, BadInputs> {
    let (mut inputs, mut bad) = (BTreeMap::new(), Vec::new());
    for (key, input) in &action.inputs {
        let name = input.title.as_deref().unwrap_or(key);
        match input.take(data.get(key), region) {
            Ok(Some(value)) => {
                inputs.insert(key.clone(), value);
            }
            Ok(None) if input.mandatory => bad.push(format!("{name} is missing")),
            Ok(None) => {}
            Err(why) => bad.push(format!("{name} {why}")),
        }
    }
    if bad.is_empty() {
        Ok(Inputs(inputs))
    } else {
        Err(BadInputs(bad))
    }
}

impl Input {
    /// The value as it goes into the request: text, or a number where one is asked for. `None`: absent. The error goes on
    /// after the input's name and holds nothing that was sent.
    fn take(&self, value: Option<&Json>, region: Option<Region>) -> Result<Option<Json>, String> {
        let text = match value {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(text)) => text.trim().to_owned(),
            Some(Json::Number(number)) => number.to_string(),
            Some(Json::Bool(truth)) => truth.to_string(),
            Some(Json::Array(_) | Json::Object(_)) => return Err("must be a text or a number".to_owned()),
        };
        if text.is_empty() || is_unexpanded(&text) {
            return Ok(None);
        }
        let read = match self.kind {
            "number" => integer(&text)
                .map(Json::from)
                .ok_or("must be a whole number".to_owned()),
            "tel" => phone(&text, region)
                .map(Json::from)
                .ok_or("is not a phone number".to_owned()),
            "url" => web_address(&text)
                .map(Json::from)
                .ok_or("is not a web address".to_owned()),
            "datetime" => self.time(&text),
            "select" => self.option(&text),
            "textarea" => Ok(lines(&text).into()),
            _ => Ok(one_line(&text).into()),
        };
        Ok(read.map(Some)?.filter(|value| value.as_str() != Some("")))
    }

    /// The three forms of the contract; without a zone they are read as UTC.
    fn time(&self, text: &str) -> Result<Json, String> {
        let Some((written, stamp)) = time(text) else {
            return Err("is not a time: write 2026-11-25, 2026-11-25T10:30:00 or 2026-11-25T10:30:00Z".to_owned());
        };
        match &self.wire {
            None => Ok(written.into()),
            Some(wire) => stamp
                .map(|stamp| wire.write(stamp))
                .ok_or("lies before the year 1970".to_owned()),
        }
    }

    fn option(&self, text: &str) -> Result<Json, String> {
        let lower = text.to_lowercase();
        let exact = self.options.iter().find(|option| **option == text);
        let found = exact.or_else(|| self.options.iter().find(|option| option.to_lowercase() == lower));
        found
            .map(|option| option.as_str().into())
            .ok_or_else(|| format!("must be one of {}", self.options.join(", ")))
    }
}

/// Nothing but value providers that Talkdesk did not fill in: `{{contact.email}}`, also several with blanks between.
fn is_unexpanded(text: &str) -> bool {
    let mut rest = text.trim();
    while let Some(body) = rest.strip_prefix("{{") {
        let Some((name, after)) = body.split_once("}}") else {
            return false;
        };
        if !name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' '))
        {
            return false;
        }
        rest = after.trim_start();
    }
    rest.is_empty()
}

fn integer(text: &str) -> Option<i64> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole);
    }
    // `5.0`, which some senders make of 5.
    let (whole, fraction) = text.split_once('.')?;
    (!fraction.is_empty() && fraction.bytes().all(|b| b == b'0'))
        .then(|| whole.parse().ok())
        .flatten()
}

/// E.164 where the number is a valid one; else an extension or a short number, as it was typed.
fn phone(text: &str, region: Option<Region>) -> Option<String> {
    if let Some(phone) = e164(text, region) {
        return Some(phone);
    }
    let legal = |c: char| c.is_ascii_digit() || " +-()./*#".contains(c);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (text.chars().all(legal) && (2..=20).contains(&digits) && text.len() <= 40).then(|| text.to_owned())
}

fn web_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let good = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    good.then(|| url.into())
}

/// The time in its own form, put right, and as a moment if it lies after 1970.
fn time(text: &str) -> Option<(String, Option<Micros>)> {
    let moment = |civil: DateTime| {
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        u64::try_from(zoned.timestamp().as_microsecond()).ok().map(Micros)
    };
    match text.len() {
        10 => {
            let date = Date::strptime("%Y-%m-%d", text).ok()?;
            Some((
                date.to_string(),
                moment(date.to_datetime(jiff::civil::Time::midnight())),
            ))
        }
        19 | 20 => {
            let (civil, zone) = match text.strip_suffix('Z') {
                Some(civil) => (civil, "Z"),
                None => (text, ""),
            };
            let civil = (civil.len() == 19).then(|| DateTime::strptime("%Y-%m-%dT%H:%M:%S", civil).ok())??;
            Some((format!("{}{zone}", civil.strftime("%Y-%m-%dT%H:%M:%S")), moment(civil)))
        }
        _ => None,
    }
}

/// A one-line box: line breaks and control characters become blanks.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text: String = text
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec::Wire;

    fn input(kind: &'static str) -> Input {
        Input {
            at: 0,
            default: None,
            mandatory: false,
            kind,
            title: None,
            options: vec!["Low".to_owned(), "High".to_owned()],
            wire: None,
        }
    }

    fn given(kind: &'static str, value: Json) -> Result<Option<Json>, String> {
        input(kind).take(Some(&value), Region::from_code("PT").ok())
    }

    const KINDS: [&str; 7] = ["text", "textarea", "number", "tel", "url", "datetime", "select"];

    #[test]
    fn each_type_takes_what_is_meant() {
        for (kind, value, read) in [
            ("text", json!(" a\r\n b\u{7} "), json!("a b")),
            ("text", json!(5), json!("5")),
            ("text", json!(true), json!("true")),
            ("textarea", json!("a\r\nb\u{7}"), json!("a\nb")),
            ("number", json!("12"), json!(12)),
            ("number", json!(-3), json!(-3)),
            ("number", json!(5.0), json!(5)),
            ("tel", json!("912 345 678"), json!("+351912345678")),
            ("tel", json!("+1 (310) 867-5309"), json!("+13108675309")),
            ("tel", json!("204"), json!("204")),
            ("url", json!("https://x.test/a?b"), json!("https://x.test/a?b")),
            ("select", json!("high"), json!("High")),
            ("datetime", json!("2026-11-25"), json!("2026-11-25")),
            ("datetime", json!("2026-11-25T10:30:00"), json!("2026-11-25T10:30:00")),
            ("datetime", json!("2026-11-25T10:30:00Z"), json!("2026-11-25T10:30:00Z")),
        ] {
            assert_eq!(given(kind, value.clone()), Ok(Some(read)), "{kind} {value}");
        }
    }

    #[test]
    fn each_type_refuses_the_rest_and_repeats_nothing_of_it() {
        for (kind, value) in [
            ("text", json!(["canary"])),
            ("number", json!("canary")),
            ("number", json!(1.5)),
            ("number", json!("99999999999999999999")),
            ("tel", json!("canary")),
            ("tel", json!("1")),
            ("url", json!("canary")),
            ("url", json!("javascript:canary")),
            ("url", json!("https://u:canary@x.test/")),
            ("select", json!("canary")),
            ("datetime", json!("25.11.2026")),
            ("datetime", json!("2026-13-25")),
            ("datetime", json!("2026-11-25 10:30:00")),
            ("datetime", json!("2026-11-25T10:30:00+01:00")),
            ("datetime", json!("2026-02-30T10:30:00Z")),
            ("datetime", json!("2026-11-25T10:30:0Z")),
        ] {
            let why = given(kind, value.clone()).expect_err(kind);
            assert!(!why.contains("canary"), "{kind} {value}: {why}");
        }
    }

    #[test]
    fn what_is_null_blank_or_not_filled_in_is_absent() {
        for kind in KINDS {
            for value in [
                json!(null),
                json!("  "),
                json!("{{contact.email}}"),
                json!("{{ contact.first_name }} {{contact.last_name}}"),
            ] {
                assert_eq!(given(kind, value.clone()), Ok(None), "{kind} {value}");
            }
        }
        for text in [
            "{{contact.email}} called",
            "{{",
            "{{a}",
            "Hi {{contact.email}}",
            "{{1 + 1}}",
        ] {
            assert_eq!(given("text", json!(text)), Ok(Some(json!(text))), "{text}");
        }
    }

    #[test]
    fn times_go_out_in_the_connectors_form() {
        let mut when = input("datetime");
        for (wire, written) in [
            (Wire::EpochMillis, json!(1_795_602_600_000_u64)),
            (Wire::Iso, json!("2026-11-25T10:30:00.000Z")),
            (Wire::Strftime("%Y-%m-%d %H:%M:%S".into()), json!("2026-11-25 10:30:00")),
        ] {
            when.wire = Some(wire);
            let value = json!("2026-11-25T10:30:00");
            assert_eq!(when.take(Some(&value), None), Ok(Some(written)));
        }
        assert!(when.take(Some(&json!("1969-12-31")), None).is_err());
    }

    fn scalar() -> impl Strategy<Value = Json> {
        prop_oneof![
            any::<String>().prop_map(Json::from),
            "[0-9T:Z.+ -]{0,24}".prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(|number| json!(number)),
            any::<bool>().prop_map(Json::from),
            Just(Json::Null),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_read_reads_the_same_again(which in 0..KINDS.len(), value in scalar()) {
            let kind = KINDS[which];
            if let Ok(Some(read)) = given(kind, value) {
                match kind {
                    "number" => prop_assert!(read.is_i64()),
                    "select" => prop_assert!(read == json!("Low") || read == json!("High")),
                    _ => prop_assert!(read.as_str().is_some_and(|text| !text.trim().is_empty())),
                }
                if kind == "text" {
                    prop_assert!(!read.as_str().unwrap_or_default().contains(char::is_control));
                }
                prop_assert_eq!(given(kind, read.clone()), Ok(Some(read)));
            }
        }

        #[test]
        fn every_day_and_second_is_read_in_all_three_forms(
            year in 1970..9999_i16, month in 1..=12_i8, day in 1..=28_i8, hour in 0..24_i8, minute in 0..60_i8, second in 0..60_i8,
        ) {
            let date = format!("{year:04}-{month:02}-{day:02}");
            let clock = format!("{hour:02}:{minute:02}:{second:02}");
            let of = |text: &str| time(text).and_then(|(_, stamp)| stamp);
            let midnight = of(&date).unwrap();
            let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
            let later = Micros(midnight.0 + seconds as u64 * 1_000_000);
            prop_assert_eq!(of(&format!("{date}T{clock}")), Some(later));
            prop_assert_eq!(of(&format!("{date}T{clock}Z")), Some(later));
            for near in [format!("{date} {clock}"), format!("{date}T{clock}z"), format!("{date}T"), format!("{date}T{clock}ZZ")] {
                prop_assert_eq!(of(&near), None);
            }
        }
    }
}
