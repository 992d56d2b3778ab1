//! What callers make through the vendor's API: contacts, tickets of contacts, logged calls.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::account::State;
use crate::api::{ApiError, bad, invalid, no_contact};
use crate::data::{self, Fields, Row, Ticket};
use crate::state::Moment;
use crate::webhooks::EventKind;

/// A ticket that was made through the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeTicket {
    #[serde(flatten)]
    pub ticket: Ticket,
    pub contact_id: String,
    /// The user it was made for.
    pub agent_id: Option<String>,
    pub due_at: Option<String>,
}

/// A call that was logged through the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedCall {
    pub id: String,
    pub contact_id: String,
    pub agent_id: Option<String>,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    pub duration_s: u64,
    pub phone: Option<String>,
    pub recording_url: Option<String>,
    pub notes: Option<String>,
}

/// A note that was written through the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeNote {
    pub id: String,
    pub contact_id: String,
    pub agent_id: Option<String>,
    pub body: String,
    pub created_at: String,
}

/// Everything that was made, each in the order it was made in.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub tickets: Vec<MadeTicket>,
    pub calls: Vec<LoggedCall>,
    pub notes: Vec<MadeNote>,
    contacts: u64,
}

impl Made {
    pub(crate) fn tickets_of(&self, contact: u64) -> impl Iterator<Item = Ticket> {
        let id = contact.to_string();
        let of = self.tickets.iter().filter(move |made| made.contact_id == id);
        of.map(|made| made.ticket.clone())
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let counts = [
            ("contacts", self.contacts),
            ("tickets", self.tickets.len() as u64),
            ("calls", self.calls.len() as u64),
            ("notes", self.notes.len() as u64),
        ];
        counts
            .into_iter()
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewContact {
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: String,
    #[serde(default)]
    company: String,
    #[serde(default)]
    emails: Vec<String>,
    #[serde(default)]
    phones: Vec<String>,
    website: Option<String>,
}

/// A contact with the house's own fields.
pub(crate) fn read_contact(state: &mut State, body: &[u8]) -> Result<Row, ApiError> {
    let new: NewContact = read(body)?;
    let named = [&new.first_name, &new.last_name, &new.company];
    if named.iter().all(|text| text.trim().is_empty()) {
        return Err(invalid("a contact needs a name or a company"));
    }
    if let Some(email) = new.emails.iter().find(|email| !email.contains('@')) {
        return Err(invalid(format!("`{email}` is no e-mail address")));
    }
    let fields = Fields {
        first_name: Some(new.first_name),
        last_name: Some(new.last_name),
        company: Some(new.company),
        emails: Some(new.emails),
        phones: Some(new.phones),
        website: new.website,
        ..Fields::default()
    };
    let id = contact(state, &fields);
    let record = state.contacts.newest(id).ok_or_else(no_contact)?;
    Ok(state.contacts.row(id, record, state.knobs.whole_second_stamps))
}

fn moment(state: &mut State) -> Moment {
    let transaction = state.begin(false, None, false);
    Moment {
        by_api: true,
        ..state.moment(&transaction)
    }
}

/// Makes a contact and returns its id. What is not given is generated.
pub(crate) fn contact(state: &mut State, fields: &Fields) -> u64 {
    let at = moment(state);
    let mut news = Vec::new();
    let id = state.contacts.create(Some(fields), at, &mut news);
    state.publish(news);
    state.made.contacts += 1;
    id
}

/// A change through the API. False when there is no such contact.
pub(crate) fn change(state: &mut State, id: u64, fields: &Fields) -> bool {
    let at = moment(state);
    let mut news = Vec::new();
    let done = state.contacts.update(id, at, EventKind::Updated, &mut news, |record| {
        record.more.get_or_insert_default().fields.lay_over(fields);
        if fields.job_title.is_some() {
            record.revision = 0;
        }
    });
    state.publish(news);
    done
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTicket {
    pub subject: String,
    #[serde(default)]
    pub description: String,
    pub priority: Option<String>,
    pub due_at: Option<String>,
    pub agent_id: Option<String>,
}

const PRIORITIES: [&str; 4] = ["low", "normal", "high", "urgent"];

pub(crate) fn read_ticket(state: &mut State, contact: u64, body: &[u8]) -> Result<MadeTicket, ApiError> {
    ticket(state, contact, read(body)?)
}

pub(crate) fn ticket(state: &mut State, contact: u64, new: NewTicket) -> Result<MadeTicket, ApiError> {
    if state.contacts.newest(contact).is_none() {
        return Err(no_contact());
    }
    let priority = new.priority.unwrap_or_else(|| "normal".to_owned());
    if new.subject.trim().is_empty() {
        return Err(invalid("subject is empty"));
    }
    if !PRIORITIES.contains(&priority.as_str()) {
        return Err(invalid(format!("priority must be one of {}", PRIORITIES.join(", "))));
    }
    check_agent(state, new.agent_id.as_deref())?;
    let now = data::stamp_text(state.crm_now(), state.knobs.whole_second_stamps);
    let id = format!("t-new-{}", state.made.tickets.len() + 1);
    let made = MadeTicket {
        ticket: Ticket {
            url: format!("https://crm.example/tickets/{id}"),
            id,
            subject: new.subject,
            description: new.description,
            status: "new".to_owned(),
            priority,
            created_at: now.clone(),
            updated_at: now,
        },
        contact_id: contact.to_string(),
        agent_id: new.agent_id,
        due_at: new.due_at,
    };
    state.made.tickets.push(made.clone());
    Ok(made)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCall {
    pub direction: String,
    pub started_at: i64,
    pub duration_s: u64,
    pub phone: Option<String>,
    pub recording_url: Option<String>,
    pub notes: Option<String>,
    pub agent_id: Option<String>,
}

pub(crate) fn read_call(state: &mut State, contact: u64, body: &[u8]) -> Result<LoggedCall, ApiError> {
    call(state, contact, read(body)?)
}

pub(crate) fn call(state: &mut State, contact: u64, new: NewCall) -> Result<LoggedCall, ApiError> {
    if state.contacts.newest(contact).is_none() {
        return Err(no_contact());
    }
    if !matches!(new.direction.as_str(), "inbound" | "outbound") {
        return Err(invalid("direction must be inbound or outbound"));
    }
    check_agent(state, new.agent_id.as_deref())?;
    let made = LoggedCall {
        id: format!("call-{}", state.made.calls.len() + 1),
        contact_id: contact.to_string(),
        agent_id: new.agent_id,
        direction: new.direction,
        started_at: new.started_at,
        duration_s: new.duration_s,
        phone: new.phone,
        recording_url: new.recording_url,
        notes: new.notes,
    };
    state.made.calls.push(made.clone());
    Ok(made)
}

pub(crate) fn note(
    state: &mut State,
    contact: u64,
    agent_id: Option<String>,
    body: String,
) -> Result<MadeNote, ApiError> {
    if state.contacts.newest(contact).is_none() {
        return Err(no_contact());
    }
    if body.trim().is_empty() {
        return Err(invalid("a note says something"));
    }
    check_agent(state, agent_id.as_deref())?;
    let made = MadeNote {
        id: (state.made.notes.len() + 1).to_string(),
        contact_id: contact.to_string(),
        agent_id,
        body,
        created_at: data::stamp_text(state.crm_now(), state.knobs.whole_second_stamps),
    };
    state.made.notes.push(made.clone());
    Ok(made)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}

fn check_agent(state: &State, agent: Option<&str>) -> Result<(), ApiError> {
    let Some(agent) = agent else { return Ok(()) };
    let ordinal = agent.strip_prefix("u-").and_then(|number| number.parse().ok());
    match ordinal.and_then(|ordinal| state.user(ordinal)) {
        Some(_) => Ok(()),
        None => Err(invalid(format!("there is no user {agent}"))),
    }
}
