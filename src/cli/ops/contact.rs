//! `snapbridge contact` and `snapbridge token`: one contact, or what Talkdesk carries for us, explained.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Access, Ops, rows, step, table, text};
use crate::cli::Failure;

#[derive(Debug, Subcommand)]
pub enum Contact {
    /// Why a contact is, or is not, delivered: what the CRM says of it now, the mapping, the filter, its row in the snapshot
    ///
    /// Asks the CRM, once, by the account's budget. Names and counts fields; their values show with --values.
    Explain {
        /// The CRM's id, a phone number or an e-mail address
        #[arg(value_name = "ID|PHONE|EMAIL")]
        who: String,
        /// Whose contact
        #[arg(long, value_name = "ID")]
        account: String,
        /// The values of its fields, too; needs a token of ops.admin
        #[arg(long)]
        values: bool,
    },
    /// Takes a contact out of the snapshot and keeps it out, whatever the CRM has; Talkdesk keeps what it has already
    Erase(Erasure),
    /// Ends an erasure: the contact is fetched again
    Lift(Erasure),
}

#[derive(Debug, Args)]
#[group(skip)]
pub struct Erasure {
    /// The CRM's id
    id: String,
    /// Whose contact
    #[arg(long, value_name = "ID")]
    account: String,
    /// Why; kept in the audit
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// What a checkpoint or an offset holds, whose it is, and what it would bring now
    Explain {
        /// As Talkdesk holds it
        token: String,
        /// Whose it is [default: every account is tried]
        #[arg(long, value_name = "ID")]
        account: Option<String>,
    },
}

pub async fn token(config: Option<&Path>, access: Access, command: Token) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    let Token::Explain { token, account } = command;
    let question = json!({"token": token, "account": account});
    let told = ops.post("/api/tokens/explain", Some(question)).await?;
    ops.show(&told, token_text);
    Ok(())
}

fn token_text(told: &Value) -> String {
    let mut out = format!("{}\n\n", text(&told["sentence"]));
    for (name, value) in told.as_object().into_iter().flatten() {
        let value = match (&value["at"], &value["words"]) {
            (Value::String(at), Value::String(words)) => format!("{at} ({words})"),
            _ => text(value),
        };
        if name != "sentence" && value != "-" {
            out.push_str(&format!("{:<22} {value}\n", name.replace('_', " ")));
        }
    }
    out
}

impl Ops {
    async fn change(&self, erasure: &Erasure, how: &str) -> anyhow::Result<()> {
        let path = format!("/api/accounts/{}/{how}", step(&erasure.account));
        let body = json!({"contact": erasure.id, "reason": erasure.reason});
        let said = self.post(&path, Some(body)).await?;
        self.show(&said, |said| text(&said["said"]));
        Ok(())
    }
}

pub async fn contact(config: Option<&Path>, access: Access, command: Contact) -> Result<(), Failure> {
    let ops = Ops::open(config, access)?;
    match command {
        Contact::Explain { who, account, values } => {
            let path = format!("/api/accounts/{}/explain", step(&account));
            let explained = ops.post(&path, Some(json!({"who": who, "values": values}))).await?;
            ops.show(&explained, |explained| explained_text(explained, values));
        }
        Contact::Erase(erasure) => ops.change(&erasure, "erase").await?,
        Contact::Lift(erasure) => ops.change(&erasure, "lift").await?,
    }
    Ok(())
}

fn explained_text(explained: &Value, values: bool) -> String {
    let mut out = String::new();
    if let Some(note) = explained["note"].as_str() {
        out.push_str(&format!("{note}\n\n"));
    }
    for contact in rows(&explained["contacts"]) {
        out.push_str(&format!("{}: {}\n\n", text(&contact["id"]), text(&contact["sentence"])));
        for step in rows(&contact["steps"]) {
            out.push_str(&format!("{:<10} {}\n", text(&step["step"]), text(&step["text"])));
        }
        let fields = rows(&contact["fields"]);
        if !fields.is_empty() {
            let names: &[&str] = match values {
                true => &["field", "crm", "snapshot", "same", "crm_value", "snapshot_value"],
                false => &["field", "crm", "snapshot", "same"],
            };
            out.push_str(&format!(
                "\n{}\n\n",
                table(names, &fields, |field, name| text(&field[name]))
            ));
        }
    }
    out
}
