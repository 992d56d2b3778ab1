//! The API manifest that Talkdesk asks a customer to hand in (Talkdesk, API manifest): its headings and rows, filled from
//! the configuration, the customer's data and example calls.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use talkdesk::config::{Action, Configuration, Integration};

use super::configuration::{MASKED, NO_ACTIONS, action_rows, integration_rows};
use super::document::{Block, Document};
use super::examples::{Example, Examples, Shown};

/// What stands in the manifest beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub name: String,
    pub contacts: Vec<Contact>,
    pub keybase_user: String,
    pub production_test: bool,
    /// `acme.mytalkdesk.com`
    pub talkdesk_domain: String,
    /// In the customer's words; without it the manifest has its own sentence.
    pub use_case: Option<String>,
    /// Pages of the CRM's API documentation.
    pub api_docs: Vec<String>,
}

/// A technical contact, written `Name <address>` or `Name <address>; note`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    pub name: String,
    pub email: String,
    pub note: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no contact: write \"Name <address>\", or \"Name <address>; note\"")]
pub struct BadContact(String);

impl FromStr for Contact {
    type Err = BadContact;

    fn from_str(text: &str) -> Result<Contact, BadContact> {
        let bad = || BadContact(text.to_owned());
        let (name, rest) = text.split_once('<').ok_or_else(bad)?;
        let (email, rest) = rest.split_once('>').ok_or_else(bad)?;
        let note = match rest.trim() {
            "" => "",
            rest => rest.strip_prefix(';').ok_or_else(bad)?.trim(),
        };
        let (name, email) = (name.trim(), email.trim());
        let local_and_host = email.split_once('@');
        let good = local_and_host.is_some_and(|(local, host)| !local.is_empty() && host.contains('.'));
        if name.is_empty() || !good || email.contains(char::is_whitespace) || text.contains(char::is_control) {
            return Err(bad());
        }
        Ok(Contact {
            name: name.to_owned(),
            email: email.to_owned(),
            note: note.to_owned(),
        })
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

/// Everything that the manifest is made of.
pub struct Manifest<'a> {
    pub configuration: &'a Configuration,
    /// The CRM's name.
    pub crm: &'a str,
    /// The endpoints hold a secret that is masked.
    pub masked: bool,
    pub customer: &'a Customer,
    pub examples: &'a Examples,
    pub date: Date,
}

/// Talkdesk's own pages.
const TALKDESK: [(&str, &str); 6] = [
    ("Configuring a Talkdesk Integration", "integration-configuration"),
    ("Implementing an Action Executor", "implementing-an-action-executor"),
    (
        "Implementing an Agent Retriever",
        "implementing-an-agent-synchronization",
    ),
    (
        "Implementing an Authorization Validator",
        "implementing-an-authorization-validator",
    ),
    (
        "Implementing a Contact Retriever",
        "implementing-a-contact-synchronization",
    ),
    ("Implementing an Interaction Retriever", "implementing-contact-activity"),
];

pub const SUBJECT: &str = "New Talkdesk CRM Integration";
pub const RECIPIENT: &str = "developers@talkdesk.com";

impl Manifest<'_> {
    fn it(&self) -> &Integration {
        &self.configuration.integration
    }

    pub fn title(&self) -> String {
        format!("{} API Manifest - {}", self.it().display_name, self.customer.name)
    }

    pub fn document(&self) -> Document {
        let mut blocks = self.front_page();
        blocks.extend(components());
        blocks.extend(self.integration());
        blocks.extend(self.actions());
        blocks.extend(self.endpoint(3, "agent_sync", &self.it().agent_synchronization_endpoint, "agents"));
        blocks.extend(self.endpoint(4, "auth_validation", &self.it().auth_validation_endpoint, "credentials"));
        blocks.extend(self.endpoint(
            5,
            "contact_sync",
            &self.it().contact_synchronization_endpoint,
            "contacts",
        ));
        blocks.extend(self.endpoint(
            6,
            "interaction_update",
            &self.it().interaction_retrieval_endpoint,
            "interactions",
        ));
        blocks.extend(self.completed());
        Document::new(self.title(), blocks)
    }

    fn front_page(&self) -> Vec<Block> {
        let customer = self.customer;
        let rows = customer.contacts.iter().enumerate().map(|(index, contact)| {
            let note = if contact.note.is_empty() { "–" } else { &contact.note };
            [
                format!("Contact {}", index + 1),
                format!("{}\n{}", contact.name, contact.email),
                note.to_owned(),
            ]
        });
        let head = format!("{} Technical Contact", customer.name);
        vec![
            Block::heading(1, self.title()),
            Block::text("Talkdesk CRM Integration"),
            Block::field("Date:", self.date.to_string()),
            Block::field(
                "Instructions:",
                format!(
                    "Filled in by snapbridge, the bridge that runs this integration. {} Nothing is left to fill in.",
                    self.examples.origin
                ),
            ),
            Block::Table {
                head: vec![head, "Name & Email".to_owned(), "Notes".to_owned()],
                rows: rows.map(Vec::from).collect(),
            },
            Block::heading(2, "Use Case Description"),
            Block::text(self.use_case()),
        ]
    }

    fn use_case(&self) -> String {
        let it = self.it();
        customer_words(&self.customer.use_case).unwrap_or_else(|| {
            format!(
                "{} connects {} with Talkdesk. In use: {}.",
                self.customer.name,
                it.display_name,
                self.components_in_use().join(", ")
            )
        })
    }

    fn components_in_use(&self) -> Vec<String> {
        let it = self.it();
        let mut used = Vec::new();
        let mut add = |used_at_all: bool, what: &str| {
            if used_at_all {
                used.push(what.to_owned());
            }
        };
        add(it.auth_validation_endpoint.is_some(), "authorization validation");
        add(it.contact_synchronization_endpoint.is_some(), "contact synchronization");
        add(it.agent_synchronization_endpoint.is_some(), "agent synchronization");
        add(it.interaction_retrieval_endpoint.is_some(), "interaction retrieval");
        if !self.configuration.actions.is_empty() {
            let names: Vec<&str> = self
                .configuration
                .actions
                .iter()
                .map(|action| action.name.as_str())
                .collect();
            used.push(format!("actions ({})", names.join(", ")));
        }
        used
    }

    fn integration(&self) -> Vec<Block> {
        let it = self.it();
        let customer = self.customer;
        let crm_docs = match customer.api_docs.is_empty() {
            true => "not applicable: no public documentation was named".to_owned(),
            false => customer.api_docs.join(" , "),
        };
        let kind = it.authentication_type.as_str();
        let fields = match it.authentication_configuration.len() {
            0 => format!("{kind}, without fields"),
            1 => format!("{kind}, with one field"),
            several => format!("{kind}, with {several} fields"),
        };
        let test = match (customer.production_test, it.authentication_configuration.is_empty()) {
            (false, _) => "No".to_owned(),
            (true, true) => "Yes".to_owned(),
            (true, false) => "Yes. Credentials follow by Keybase when asked for.".to_owned(),
        };
        let mut blocks = vec![
            Block::heading(2, format!("1: {}", TALKDESK[0].0)),
            weblink(0),
            Block::field(format!("{} Weblink:", it.display_name), crm_docs),
            Block::field("Authentication Type:", fields),
            Block::field("Keybase User Name:", customer.keybase_user.clone()),
            Block::field("Should it be tested in the production environment?", test),
            Block::field("Example Configuration Input:", "the table below is the input itself"),
            Block::table(["TD Field Name:", "Your Inputs:"], integration_rows(it)),
            Block::text("Notes on the inputs:"),
        ];
        blocks.extend(talkdesk::config::EDITIONS.map(Block::item));
        if self.masked {
            blocks.push(Block::item(MASKED));
        }
        blocks.push(Block::code("The same as JSON", pretty(it)));
        blocks
    }

    fn actions(&self) -> Vec<Block> {
        let mut blocks = vec![
            Block::heading(2, format!("2: {}", TALKDESK[1].0)),
            weblink(1),
            Block::field(
                "Example Configuration Input:",
                "the tables below are the input itself, one for each action",
            ),
            Block::heading(3, "Your Actions"),
        ];
        if self.configuration.actions.is_empty() {
            blocks.push(Block::text(NO_ACTIONS));
            let nothing = ["provider", "name", "display", "description", "endpoint", "inputs"];
            let rows = nothing.map(|row| [row.to_owned(), "not applicable".to_owned()]);
            blocks.push(Block::table(["TD Field Name:", "Your Inputs:"], rows.into()));
        }
        for action in &self.configuration.actions {
            blocks.extend(self.action(action));
        }
        blocks
    }

    fn action(&self, action: &Action) -> Vec<Block> {
        let mut blocks = vec![
            Block::heading(3, format!("Action: {}", action.name)),
            Block::table(["TD Field Name:", "Your Inputs:"], action_rows(action)),
            Block::code("The same as JSON", pretty(action)),
        ];
        blocks.extend(calls(
            &self.examples.of(&format!("actions/{}", action.name)),
            &action.endpoint,
        ));
        blocks
    }

    fn endpoint(&self, number: usize, path: &str, url: &Option<String>, what: &str) -> Vec<Block> {
        let (heading, _) = TALKDESK[number - 1];
        let mut blocks = vec![Block::heading(2, format!("{number}: {heading}")), weblink(number - 1)];
        match url {
            None => blocks.push(Block::text(format!("Not applicable: this integration has no {what}."))),
            Some(url) => {
                blocks.push(Block::field("Endpoint:", url.clone()));
                blocks.extend(calls(&self.examples.of(path), url));
            }
        }
        blocks
    }

    fn completed(&self) -> Vec<Block> {
        let customer = self.customer;
        let docs = match customer.api_docs.is_empty() {
            true => "not applicable".to_owned(),
            false => customer.api_docs.join(" , "),
        };
        vec![
            Block::heading(2, "Completed Document Instructions"),
            Block::text(format!("This document goes by e-mail to {RECIPIENT}, with:")),
            Block::field("Subject:", SUBJECT),
            Block::field(
                "Body:",
                format!(
                    "the summary of the integration, its components and objectives; the Talkdesk domain {}; the Keybase \
                     user {}",
                    customer.talkdesk_domain, customer.keybase_user
                ),
            ),
            Block::field(
                "Attachments:",
                "this document as PDF, and the documentation of the connected system",
            ),
            Block::field("API documentation:", docs),
        ]
    }

    /// The text of the e-mail.
    pub fn letter(&self) -> String {
        let (it, customer) = (self.it(), self.customer);
        let mut lines = vec![
            "Hello,".to_owned(),
            String::new(),
            format!(
                "please add the integration \"{}\" of {} with {}. The API manifest is attached.",
                it.display_name, customer.name, self.crm
            ),
            String::new(),
            "Summary and objectives".to_owned(),
            self.use_case(),
            String::new(),
            "Components in use".to_owned(),
        ];
        lines.extend(
            self.components_in_use()
                .iter()
                .map(|component| format!("- {component}")),
        );
        lines.extend([
            String::new(),
            format!("Talkdesk Account / Domain Name: {}", customer.talkdesk_domain),
            format!("Keybase Username: {}", customer.keybase_user),
        ]);
        if !customer.api_docs.is_empty() {
            lines.extend([String::new(), "API documentation".to_owned()]);
            lines.extend(customer.api_docs.iter().map(|url| format!("- {url}")));
        }
        lines.extend([String::new(), "Technical contacts".to_owned()]);
        lines.extend(customer.contacts.iter().map(|contact| format!("- {contact}")));
        lines.push(String::new());
        lines.join("\r\n")
    }
}

fn customer_words(words: &Option<String>) -> Option<String> {
    words.clone().filter(|words| !words.trim().is_empty())
}

fn weblink(index: usize) -> Block {
    let (_, page) = TALKDESK[index];
    Block::field("Talkdesk Weblink:", format!("https://docs.talkdesk.com/docs/{page}"))
}

/// What each component does here, in our words.
fn components() -> Vec<Block> {
    let mut blocks = vec![Block::heading(2, "Components Description")];
    for (name, text) in [
        (
            "Talkdesk Integration",
            "Connects the CRM's data with Talkdesk. The bridge keeps a snapshot of it that follows the CRM's changes, so \
             Talkdesk is answered at once, whatever the CRM is doing.",
        ),
        (
            "Action Executor",
            "Carries out an action in the CRM when an automation or an agent asks for it, once for each call.",
        ),
        (
            "Agent Retriever",
            "Gives Talkdesk the CRM's active users, so that agents are matched by their e-mail address.",
        ),
        (
            "Authorization Validation",
            "Tries the credentials that a customer entered against the CRM: 200 if they work, 401 if they do not.",
        ),
        (
            "Contact Retriever",
            "Gives Talkdesk the contacts page by page: all of them on the first synchronization, later what has changed \
             since the checkpoint of the last one.",
        ),
        (
            "Interaction Retriever",
            "Gives Talkdesk the tickets, cases and the like of the contact that is on the agent's screen.",
        ),
    ] {
        blocks.push(Block::heading(3, name));
        blocks.push(Block::text(text));
    }
    blocks
}

fn calls(shown: &Shown, url: &str) -> Vec<Block> {
    match shown {
        Shown::None(why) => vec![Block::text(why.clone())],
        Shown::Examples(examples) => examples.iter().flat_map(|example| call(example, url)).collect(),
    }
}

fn call(example: &Example, url: &str) -> [Block; 2] {
    [
        Block::code(
            format!("{}: request (POST {url})", example.title),
            pretty(&example.request),
        ),
        Block::code(
            format!("{}: response (status {})", example.title, example.status),
            pretty(&example.response),
        ),
    ]
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
