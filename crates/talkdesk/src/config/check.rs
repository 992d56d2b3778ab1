//! The rules of both configurations. All problems come at once, each with its place in the document.

use std::fmt;

use url::{Host, Url};

use super::template::names;
use super::{Action, AuthField, AuthType, CONTACT_COLLECTION, Configuration, FieldType, Input, InputType, Integration};

/// Characters of an action's `display`, which stands in a combo box.
pub const DISPLAY_LONGEST: usize = 40;

/// One thing that Talkdesk would refuse, or show wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `integration.authentication_configuration[1].format`
    pub place: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What the integration is meant for, as far as rules depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Calls from within the CRM; they rest on agent synchronization.
    pub cti: bool,
}

impl Configuration {
    /// Every problem there is, in the order of the document.
    pub fn problems(&self, wants: Wants) -> Vec<Problem> {
        let mut check = Check::default();
        check.integration(&self.integration, wants);
        for (index, action) in self.actions.iter().enumerate() {
            check.action(&format!("actions[{index}]"), action, &self.integration);
        }
        let named: Vec<_> = self.actions.iter().map(|action| action.name.as_str()).collect();
        check.unique("actions", "name", &named);
        check.problems
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn problem(&mut self, place: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            place: place.to_owned(),
            what: what.into(),
        });
    }

    fn filled(&mut self, place: &str, text: &str) {
        if text.trim().is_empty() {
            self.problem(place, "is missing");
        } else if text.trim() != text {
            self.problem(place, "begins or ends with white space");
        }
    }

    /// Reports every element whose `field` an earlier one has; empty ones are reported elsewhere.
    fn unique(&mut self, list: &str, field: &str, values: &[&str]) {
        for (index, value) in values.iter().enumerate() {
            if !value.is_empty() && values[..index].contains(value) {
                self.problem(&format!("{list}[{index}].{field}"), format!("{value:?} is there twice"));
            }
        }
    }

    fn url(&mut self, place: &str, text: &str) {
        if text.is_empty() {
            return self.problem(place, "is missing");
        }
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                self.problem(place, "must be an absolute http or https URL");
            }
            Ok(url) if url.scheme() == "http" && !is_loopback(&url) => {
                self.problem(place, "must be https: Talkdesk calls nothing else");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.problem(place, "must not hold a user or password");
            }
            Ok(url) if url.fragment().is_some() => self.problem(place, "must not have a fragment"),
            Ok(_) => {}
            Err(_) => self.problem(place, "is not a URL"),
        }
    }

    fn integration(&mut self, it: &Integration, wants: Wants) {
        for (field, text) in [
            ("name", &it.name),
            ("display_name", &it.display_name),
            ("description", &it.description),
        ] {
            self.filled(&format!("integration.{field}"), text);
        }
        self.url("integration.logo_url", &it.logo_url);
        self.url("integration.icon_url", &it.icon_url);
        self.authentication(it);
        for (field, endpoint) in [
            ("auth_validation_endpoint", &it.auth_validation_endpoint),
            ("contact_synchronization_endpoint", &it.contact_synchronization_endpoint),
            ("interaction_retrieval_endpoint", &it.interaction_retrieval_endpoint),
            ("agent_synchronization_endpoint", &it.agent_synchronization_endpoint),
        ] {
            if let Some(url) = endpoint {
                self.url(&format!("integration.{field}"), url);
            }
        }
        if wants.cti && it.agent_synchronization_endpoint.is_none() {
            let what = "is missing: CTI is wanted, and rests on agent synchronization";
            self.problem("integration.agent_synchronization_endpoint", what);
        }
        self.interaction_types(it);
    }

    fn interaction_types(&mut self, it: &Integration) {
        let place = "integration.interaction_types";
        match (&it.interaction_retrieval_endpoint, it.interaction_types.is_empty()) {
            (Some(_), true) => self.problem(
                place,
                "is empty: the retrieval endpoint would never be asked for anything",
            ),
            (None, false) => self.problem(place, "names types, but there is no interaction_retrieval_endpoint"),
            _ => {}
        }
        for (index, kind) in it.interaction_types.iter().enumerate() {
            let place = format!("{place}[{index}]");
            self.filled(&place, kind);
            let twice = |other: &String| other.to_lowercase() == kind.to_lowercase();
            if !kind.is_empty() && it.interaction_types[..index].iter().any(twice) {
                self.problem(&place, format!("{kind:?} is there twice"));
            }
        }
    }

    fn authentication(&mut self, it: &Integration) {
        let place = "integration.authentication_configuration";
        let fields = &it.authentication_configuration;
        let kind = it.authentication_type;
        if kind == AuthType::None && !fields.is_empty() {
            self.problem(place, "has fields, but authentication_type none asks for nothing");
        }
        if kind != AuthType::None && fields.is_empty() {
            self.problem(place, format!("is empty, but {} needs fields", kind.as_str()));
        }
        for needed in kind.mandatory_fields() {
            match fields.iter().position(|field| field.field_name == *needed) {
                None => self.problem(place, format!("{} needs the field `{needed}`", kind.as_str())),
                Some(at) if !fields[at].mandatory => {
                    let what = format!("must be true: {} needs the field `{needed}`", kind.as_str());
                    self.problem(&format!("{place}[{at}].mandatory"), what);
                }
                Some(_) => {}
            }
        }
        for (index, field) in fields.iter().enumerate() {
            self.field(&format!("{place}[{index}]"), field, it);
        }
        let named: Vec<_> = fields.iter().map(|field| field.field_name.as_str()).collect();
        self.unique(place, "field_name", &named);
    }

    fn field(&mut self, place: &str, field: &AuthField, it: &Integration) {
        self.filled(&format!("{place}.field_name"), &field.field_name);
        self.filled(&format!("{place}.display"), &field.display);
        if field.kind == FieldType::OAuth && !it.authentication_type.is_oauth() {
            let what = format!(
                "must be input: with {} there is no OAuth authority",
                it.authentication_type.as_str()
            );
            self.problem(&format!("{place}.type"), what);
        }
        if let Some(format) = &field.format {
            let place = format!("{place}.format");
            match names(format) {
                Err(why) => self.problem(&place, why),
                Ok(found) if !found.contains(&field.field_name.as_str()) => {
                    self.problem(
                        &place,
                        format!("must hold {{{{{}}}}}, the field itself", field.field_name),
                    );
                }
                Ok(found) => {
                    let known = |name: &&&str| it.authentication_configuration.iter().any(|f| f.field_name == **name);
                    for name in found.iter().filter(|name| !known(name)) {
                        self.problem(&place, format!("{{{{{name}}}}} is no field of this configuration"));
                    }
                }
            }
        }
    }

    fn action(&mut self, place: &str, action: &Action, it: &Integration) {
        if action.provider != it.name {
            let what = format!(
                "is {:?}, but must be the integration's name, {:?}",
                action.provider, it.name
            );
            self.problem(&format!("{place}.provider"), what);
        }
        self.filled(&format!("{place}.name"), &action.name);
        let display = format!("{place}.display");
        self.filled(&display, &action.display);
        if action.display.chars().any(char::is_uppercase) {
            self.problem(&display, "must be lower case: it stands within a sentence");
        }
        if action.display.chars().count() > DISPLAY_LONGEST {
            let what = format!("is longer than {DISPLAY_LONGEST} characters: it stands in a combo box");
            self.problem(&display, what);
        }
        let description = format!("{place}.description");
        self.filled(&description, &action.description);
        if !is_lower_case(&action.description, &it.display_name) {
            let what = format!(
                "must be lower case, the name {:?} apart: it stands within a sentence",
                it.display_name
            );
            self.problem(&description, what);
        }
        self.url(&format!("{place}.endpoint"), &action.endpoint);
        for (index, input) in action.inputs.iter().enumerate() {
            self.input(&format!("{place}.inputs[{index}]"), input);
        }
        let keys: Vec<_> = action.inputs.iter().map(|input| input.key.as_str()).collect();
        self.unique(&format!("{place}.inputs"), "key", &keys);
    }

    fn input(&mut self, place: &str, input: &Input) {
        self.filled(&format!("{place}.key"), &input.key);
        self.filled(&format!("{place}.name"), &input.name);
        let place = format!("{place}.format");
        match &input.format {
            _ if input.kind == InputType::Select => self.select(&place, input),
            Some(format) => self.preset(&place, input.kind, format),
            None => {}
        }
    }

    fn select(&mut self, place: &str, input: &Input) {
        let options = input.options();
        if input.format.as_deref().unwrap_or_default().trim().is_empty() {
            return self.problem(place, "is missing: a select needs its values, separated by commas");
        }
        if options.iter().any(|option| option.is_empty()) {
            self.problem(place, "holds an empty value");
        }
        for (index, option) in options.iter().enumerate() {
            if options[..index].contains(option) && !option.is_empty() {
                self.problem(place, format!("holds {option:?} twice"));
            }
        }
        if options
            .iter()
            .any(|option| option.contains("{{") || option.contains("}}"))
        {
            self.problem(place, "holds a template, but the values of a select are fixed");
        }
    }

    /// A default: templates of the contact collection, or a value of the input's type.
    fn preset(&mut self, place: &str, kind: InputType, format: &str) {
        let found = match names(format) {
            Ok(found) => found,
            Err(why) => return self.problem(place, why),
        };
        for name in &found {
            match name.split_once('.') {
                Some(("contact", value)) if CONTACT_COLLECTION.contains(&value) => {}
                Some(("contact", _)) => {
                    let known = CONTACT_COLLECTION.join(", ");
                    self.problem(
                        place,
                        format!("{{{{{name}}}}} is not in the contact collection ({known})"),
                    );
                }
                _ => self.problem(place, format!("{{{{{name}}}}} is unknown: write {{{{contact.…}}}}")),
            }
        }
        if found.is_empty() {
            let wrong = match kind {
                InputType::Number => format.trim().parse::<i64>().is_err(),
                InputType::Url => Url::parse(format.trim()).is_err(),
                InputType::Tel => !format.chars().any(|c| c.is_ascii_digit()),
                InputType::Datetime => !is_datetime(format.trim()),
                InputType::Text | InputType::Textarea | InputType::Select => false,
            };
            if wrong {
                self.problem(
                    place,
                    format!("{format:?} is no default for the type {}", kind.as_str()),
                );
            }
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Capitals only within the name of the product: "create a ticket in Zendesk" is the documentation's own wording. Even a
/// name would be the first word of Talkdesk's phrase, and its first letter is looked at even while there is no name.
fn is_lower_case(text: &str, product: &str) -> bool {
    let mut letters = text.chars();
    let first = letters.next();
    let rest = match product.trim() {
        "" => String::new(),
        product => letters.as_str().replace(product, ""),
    };
    !first.is_some_and(char::is_uppercase) && !rest.chars().any(char::is_uppercase)
}

fn is_datetime(text: &str) -> bool {
    let day = |text: &str| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    match text.split_once('T') {
        None => day(text),
        Some((date, time)) => {
            let time = time.strip_suffix('Z').unwrap_or(time);
            day(date) && time.len() == 8 && time.parse::<jiff::civil::Time>().is_ok()
        }
    }
}
