//! A trial for people.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use contacts::Contact;

use super::Trial;

/// Contacts shown as a table; all of them go into `--json` and `--out`.
const SHOWN: usize = 10;

impl Trial {
    /// Tables of contacts, requests and limits, and what was mended or left out.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(account) = &self.account {
            let who = match (account.principal.as_str(), account.sees_all) {
                (_, true) => "every user sees the same contacts".to_owned(),
                ("", false) => "the user is told by a field of auth".to_owned(),
                (principal, false) => format!("user {principal}"),
            };
            let _ = writeln!(
                text,
                "The CRM accepts these credentials: organisation {}, {who}",
                account.org
            );
            for (name, value) in &account.learned {
                let _ = writeln!(text, "  learned {name} = {value}");
            }
        }
        if self.pages > 0 {
            self.write_contacts(&mut text);
        }
        self.write_counts(&mut text);
        self.write_requests(&mut text);
        if let Some(failed) = &self.error {
            let _ = writeln!(text, "\nFailed at {} ({}): {}", failed.at, failed.kind, failed.message);
        }
        text
    }

    /// The contacts as Talkdesk would get them, one per line.
    pub fn json_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for contact in &self.contacts {
            lines.extend(contact.to_json());
            lines.push(b'\n');
        }
        lines
    }

    fn write_contacts(&self, text: &mut String) {
        let more = if self.more {
            ", and there are more"
        } else {
            ", and that is all"
        };
        let _ = writeln!(
            text,
            "\n{} on {}{more}",
            counted(self.contacts.len(), "contact"),
            counted(self.pages as usize, "page")
        );
        let mut table = table(&["id", "name", "company", "title", "emails", "phones", "address"]);
        for contact in self.contacts.iter().take(SHOWN) {
            table.add_row(row(contact));
        }
        let _ = writeln!(text, "{table}");
        if self.contacts.len() > SHOWN {
            let _ = writeln!(text, "the first {SHOWN}; --json and --out have all of them");
        }
        if let Some(whole) = self.contacts.iter().max_by_key(|contact| contact.to_json().len()) {
            let json = serde_json::to_string_pretty(whole).unwrap_or_default();
            let _ = writeln!(text, "\nThe fullest of them, as Talkdesk would get it:\n{json}");
        }
        if self.unwanted > 0 {
            let _ = writeln!(
                text,
                "not wanted, by --filter: {}",
                counted(self.unwanted as usize, "contact")
            );
        }
        if !self.removed.is_empty() {
            let _ = writeln!(text, "archived or deleted, and not shown: {}", self.removed.len());
        }
    }

    fn write_counts(&self, text: &mut String) {
        for (what, counts) in [("mended", &self.repaired), ("left out", &self.dropped)] {
            if !counts.is_empty() {
                let list: Vec<String> = counts
                    .iter()
                    .map(|(reason, count)| format!("{reason} {count}"))
                    .collect();
                let _ = writeln!(text, "{what}: {}", list.join(", "));
            }
        }
    }

    fn write_requests(&self, text: &mut String) {
        if self.requests.is_empty() {
            return;
        }
        let mut requests = table(&["operation", "request", "status", "bytes", "ms"]);
        for request in &self.requests {
            requests.add_row([
                request.operation.to_owned(),
                format!("{} {}", request.method, request.url),
                request
                    .status
                    .map_or_else(|| "-".to_owned(), |status| status.to_string()),
                request.bytes.to_string(),
                request.ms.to_string(),
            ]);
        }
        let _ = writeln!(text, "\n{requests}");
        for spent in &self.spent {
            let _ = writeln!(text, "limit {}: {} of {} spent", spent.limit, spent.units, spent.max);
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(head.iter().copied());
    table
}

const WIDTH: u16 = 140;

fn row(contact: &Contact) -> [String; 7] {
    [
        contact.id.clone(),
        contact.name.clone(),
        contact.company.clone().unwrap_or_default(),
        contact.title.clone().unwrap_or_default(),
        contact.emails.join("\n"),
        contact.phones.join("\n"),
        contact.address.clone().unwrap_or_default(),
    ]
}
