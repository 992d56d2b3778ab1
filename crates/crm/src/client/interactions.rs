//! Interactions of a contact: tickets, cases, whatever the connector names (Talkdesk interaction retriever).

use contacts::{ErrorKind, Micros};
use minijinja::Value;
use minijinja::value::ValueKind;
use serde::{Deserialize, Serialize};

use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, scope, to_text, value_of};
use crate::map::{Counts, Tally, clipped, plain, url};
use crate::reply::{Judged, Tests};
use crate::spec::{self, InteractionMap, PRIORITIES, STATUSES};

/// Whose interactions are asked for: `contact`, for expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The CRM's id.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub emails: Vec<String>,
    pub phones: Vec<String>,
}

/// One interaction, in Talkdesk's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interaction {
    pub id: String,
    pub subject: String,
    /// Plain text, in one line.
    pub description: Option<String>,
    pub date: Micros,
    pub url: Option<String>,
    /// One of [`PRIORITIES`].
    pub priority: Option<String>,
    /// One of [`STATUSES`].
    pub status: Option<String>,
}

/// What was found, in the CRM's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interactions {
    pub items: Vec<Interaction>,
    pub dropped: Counts,
}

const LONGEST_SUBJECT: usize = 255;
const LONGEST_DESCRIPTION: usize = 500;
const LONGEST_ID: usize = 255;

impl Client {
    /// The interactions of one type of one contact. `Missing`: the CRM does not have the contact.
    pub async fn interactions(&self, kind: &str, person: &Person) -> CrmResult<Interactions> {
        let found = self.spec().interactions.iter().find(|known| known.kind == kind);
        let interaction = found
            .ok_or_else(|| CrmError::new(ErrorKind::Rejected, "the connector has no interactions of this type"))?;
        let contact = value_of(person);
        let items = match self.chain(interaction, &contact).await {
            // The CRM's module is not installed.
            Err(error) if error.kind == ErrorKind::Missing && interaction.optional => Vec::new(),
            chained => chained?,
        };
        let mut tally = Tally::default();
        let mapped = items.iter().filter_map(|item| {
            let names = scope([
                ("item", item.clone()),
                ("conn", self.conn.clone()),
                ("contact", contact.clone()),
            ]);
            map(&interaction.map, &names, &mut tally)
        });
        Ok(Interactions {
            items: mapped.collect(),
            dropped: tally.dropped,
        })
    }

    /// Calls the steps in their order; each sees the replies of those before it.
    async fn chain(&self, interaction: &spec::Interaction, contact: &Value) -> CrmResult<Vec<Value>> {
        let mut names = vec![("contact", contact.clone())];
        let mut last: Option<Answer> = None;
        for step in &interaction.chain {
            if let Some(when) = &step.when {
                let mut seen = names.clone();
                seen.push(("conn", self.conn.clone()));
                if !when.is_true(&scope(seen)).map_err(CrmError::expression)? {
                    return Ok(Vec::new());
                }
            }
            let call = Call {
                operation: "interactions",
                request: &step.request,
                tests: Tests::default(),
                names: &names,
                url: None,
            };
            let answer = self.call(call).await?;
            if answer.judged == Judged::Empty {
                return Ok(Vec::new());
            }
            names.push((step.name.as_str(), answer.reply.value.clone()));
            last = Some(answer);
        }
        let Some(last) = last else { return Ok(Vec::new()) };
        let mut seen = vec![("conn", self.conn.clone()), ("response", last.reply.value.clone())];
        seen.extend(last.scope.get_attr("session").ok().map(|session| ("session", session)));
        seen.extend(names.into_iter().skip(1));
        self.rows(&interaction.items, &scope(seen))
    }

    /// A reply without the list is no reply: an error page must not look like a contact without interactions.
    fn rows(&self, items: &Expr, names: &Value) -> CrmResult<Vec<Value>> {
        let list = items.eval(names).map_err(CrmError::expression)?;
        if list.kind() != ValueKind::Seq {
            let message = format!("the reply has no list at `{}`", items.text());
            return Err(CrmError::new(ErrorKind::BadReply, message));
        }
        let limit = self.http.settings.rows_limit;
        let rows = list
            .try_iter()
            .map_err(|_| CrmError::new(ErrorKind::BadReply, "the rows cannot be read"))?;
        Ok(rows.take(limit).collect())
    }
}

/// `None` for an item that Talkdesk could not show; the reason is counted.
fn map(map: &InteractionMap, names: &Value, tally: &mut Tally) -> Option<Interaction> {
    match read(map, names, tally) {
        Ok(interaction) => interaction,
        Err(_) => {
            tally.dropped("row_unreadable");
            None
        }
    }
}

fn read(map: &InteractionMap, names: &Value, tally: &mut Tally) -> Result<Option<Interaction>, crate::expr::ExprError> {
    let text = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(None), |expr| expr.text_of(names));
    let id = map.id.text_of(names)?.map(|id| id.trim().to_owned());
    let Some(id) = id.filter(|id| !id.is_empty() && id.chars().count() <= LONGEST_ID) else {
        tally.dropped("no_id");
        return Ok(None);
    };
    let date = to_text(&map.date.eval(names)?).and_then(|text| map.date_as.parse_time(&text));
    let Some(date) = date else {
        tally.dropped("no_date");
        return Ok(None);
    };
    let subject = plain(map.subject.text_of(names)?, LONGEST_SUBJECT, tally);
    let status = text(&map.status)?.and_then(|text| word(&text, &STATUSES, &map.statuses));
    let priority = match &map.priority {
        None => None,
        // A CRM's own scale has no place in Talkdesk's.
        Some(expr) => expr
            .text_of(names)?
            .and_then(|text| word(&text, &PRIORITIES, &map.priorities))
            .or(Some("none")),
    };
    Ok(Some(Interaction {
        subject: subject.unwrap_or_else(|| format!("({id})")),
        description: plain(text(&map.description)?, LONGEST_DESCRIPTION, tally),
        date,
        url: url(clipped(text(&map.url)?, 2_048, tally), false, tally),
        priority: priority.map(str::to_owned),
        status: status.map(str::to_owned),
        id,
    }))
}

/// Talkdesk's word for the CRM's: the connector's own list first, then Talkdesk's words as they are.
fn word(
    theirs: &str,
    known: &[&'static str],
    own: &std::collections::BTreeMap<String, &'static str>,
) -> Option<&'static str> {
    let theirs = theirs.trim().to_lowercase();
    let same = || known.iter().find(|known| **known == theirs).copied();
    own.get(&theirs).copied().or_else(same)
}
