//! What is read: contacts and what belongs to them.

use serde_json::{Map, Value, json};

use super::{Call, fields, wrong};
use crate::account::State;
use crate::api::ApiError;
use crate::data::Ticket;
use crate::select::{Archived, Order, Selection};
use crate::vendors::shapes::{self, Person, parse_iso, parse_plain, plain, some};

pub(super) fn selection(call: &Call) -> Result<Selection, ApiError> {
    let mut selection = Selection {
        offset: call.named["offset"].as_u64().unwrap_or(0) as usize,
        limit: call.limit(),
        ..Selection::default()
    };
    if call.named["context"]["active_test"] == false {
        selection.archived = Archived::Shown;
    }
    for leaf in call.domain() {
        // Who is looked for is seen to by `found`.
        if leaf == "&" || leaf == "|" || matches!(leaf[0].as_str(), Some("email" | "phone" | "mobile")) {
            continue;
        }
        let (Some(field), Some(operator)) = (leaf[0].as_str(), leaf[1].as_str()) else {
            return Err(wrong(format!("this fake knows no domain with {leaf}")));
        };
        let value = &leaf[2];
        let known = match (field, operator) {
            ("id", "in") => {
                selection.among(value.as_array().into_iter().flatten().filter_map(Value::as_u64));
                true
            }
            ("id", operator) => selection.compare_id(operator, value.as_u64().unwrap_or(0)),
            ("write_date", operator) => {
                let at = value.as_str().and_then(parse_plain);
                let at =
                    at.ok_or_else(|| wrong(format!("time data {value} does not match format '%Y-%m-%d %H:%M:%S'")))?;
                selection.compare_time(operator, at)
            }
            ("active", "=") => {
                selection.archived = if value == true {
                    Archived::Hidden
                } else {
                    Archived::Only
                };
                true
            }
            ("active", "in") => {
                selection.archived = Archived::Shown;
                true
            }
            // Every contact of the fake is a person.
            ("is_company", "=") => {
                if value == true {
                    selection.among([]);
                }
                true
            }
            _ => return Err(wrong(format!("Invalid field 'res.partner.{field}' in leaf {leaf}"))),
        };
        if !known {
            return Err(wrong(format!("Invalid operator {operator} in domain")));
        }
    }
    let order: Vec<&str> = call.named["order"]
        .as_str()
        .unwrap_or("id asc")
        .split(',')
        .map(str::trim)
        .collect();
    selection.order = match order.as_slice() {
        ["id" | "id asc"] => Order::Id,
        ["id desc"] => Order::IdDown,
        ["write_date" | "write_date asc", ..] => Order::Time,
        ["write_date desc", ..] => Order::TimeDown,
        _ => return Err(wrong(format!("this fake does not order by {}", order.join(", ")))),
    };
    Ok(selection)
}

/// Nothing is `false`.
fn or_false(text: Option<&str>) -> Value {
    text.map_or(Value::Bool(false), Value::from)
}

fn partner(person: &Person, fields: &[String], mobile: bool) -> Result<Value, ApiError> {
    let row = &person.row;
    let country = match row.address.country.as_str() {
        "PT" => json!([183, "Portugal"]),
        "US" => json!([233, "United States"]),
        "DE" => json!([57, "Germany"]),
        _ => json!(false),
    };
    let parent = some(&row.company).map_or(json!(false), |name| json!([1_000_000 + person.id, name]));
    let emails: Vec<&str> = row
        .emails
        .iter()
        .map(|email| email.trim())
        .filter(|email| !email.is_empty())
        .collect();
    let normal = emails
        .first()
        .map(|email| email.to_lowercase())
        .filter(|email| email.contains('@'));
    let web1on1 = row.web1on1.as_ref();
    let mut shown = Map::new();
    shown.insert("id".to_owned(), person.id.into());
    for field in fields {
        let value = match field.as_str() {
            "id" => continue,
            "name" | "display_name" => or_false(some(&person.name())),
            "email" => or_false(some(&emails.join(","))),
            "email_normalized" => or_false(normal.as_deref()),
            "phone" => or_false(person.phone(0)),
            "mobile" if mobile => or_false(person.phone(1)),
            "parent_id" => parent.clone(),
            "company_name" | "street2" | "state_id" | "is_company" => json!(false),
            "function" => or_false(some(&row.job_title)),
            "street" => or_false(some(&row.address.street)),
            "zip" => or_false(some(&row.address.zip)),
            "city" => or_false(some(&row.address.city)),
            "country_id" => country.clone(),
            "website" => or_false(row.website.as_deref().and_then(some)),
            "active" => json!(!row.archived),
            "x_web1on1_url" => or_false(web1on1.and_then(|link| link.url.as_deref())),
            "x_web1on1_organization" => or_false(web1on1.and_then(|link| link.organization.as_deref())),
            "create_date" => json!(plain(person.created)),
            "write_date" => json!(plain(person.modified)),
            _ => return Err(wrong(format!("Invalid field '{field}' on model 'res.partner'"))),
        };
        shown.insert(field.clone(), value);
    }
    Ok(shown.into())
}

pub(super) fn partners(
    state: &State,
    call: &Call,
    selection: &Selection,
    fields: &[String],
) -> Result<Value, ApiError> {
    // `mobile` went in version 19.
    let mobile = !call.json2;
    partner(&Person::gone(state, 1, 0), fields, mobile)?;
    let found = selection.run(state).into_iter();
    found
        .map(|(id, record)| partner(&Person::new(state, id, record), fields, mobile))
        .collect()
}

/// `%` is anything and `_` any sign; capitals do not count.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (
        text.to_lowercase().chars().collect(),
        pattern.to_lowercase().chars().collect(),
    );
    // Which beginnings of the text the pattern so far fits.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for sign in pattern {
        let before = fits.clone();
        for end in 0..fits.len() {
            fits[end] = match (sign, end) {
                ('%', 0) => before[0],
                ('%', end) => before[end] || fits[end - 1],
                (_, 0) => false,
                (sign, end) => before[end - 1] && (sign == '_' || sign == text[end - 1]),
            };
        }
    }
    fits[text.len()]
}

/// Those whose e-mail address or number is like what is asked for: one leaf of the domain is enough (`|`).
pub(super) fn found(state: &State, call: &Call, selection: Selection, fields: &[String]) -> Result<Value, ApiError> {
    let asked: Vec<(String, String)> = call
        .domain()
        .iter()
        .filter(|leaf| matches!(leaf[0].as_str(), Some("email" | "phone" | "mobile")))
        .map(|leaf| {
            let (field, value) = (
                leaf[0].as_str().unwrap_or_default(),
                leaf[2].as_str().unwrap_or_default(),
            );
            let pattern = match leaf[1].as_str() {
                Some("ilike") => format!("%{value}%"),
                Some("=ilike") => value.to_owned(),
                _ => return Err(wrong(format!("this fake knows no domain with {leaf}"))),
            };
            // `mobile` went in version 19.
            match field {
                "mobile" if call.json2 => Err(wrong("Invalid field 'res.partner.mobile'")),
                field => Ok((field.to_owned(), pattern)),
            }
        })
        .collect::<Result<_, ApiError>>()?;
    let asked_fields: Vec<String> = asked.iter().map(|(field, _)| field.clone()).collect();
    let limit = selection.limit;
    let wide = Selection {
        limit: usize::MAX,
        ..selection
    };
    let people = wide
        .run(state)
        .into_iter()
        .map(|(id, record)| Person::new(state, id, record));
    let mut rows = Vec::new();
    for person in people {
        let own = partner(&person, &asked_fields, !call.json2)?;
        let is_meant =
            |(field, pattern): &(String, String)| own[field].as_str().is_some_and(|own| is_like(own, pattern));
        if asked.iter().any(is_meant) {
            rows.push(partner(&person, fields, !call.json2)?);
        }
        if rows.len() == limit {
            break;
        }
    }
    Ok(rows.into())
}

pub(super) fn users(state: &State, call: &Call) -> Result<Value, ApiError> {
    let (wanted, mut after, only) = if call.method == "read" {
        (fields(call.arg(1, "fields")), 0, Some(call.ids()))
    } else {
        (fields(&call.named["fields"]), 0, None)
    };
    let mut hidden = true;
    for leaf in call.domain().iter().filter(|_| only.is_none()) {
        match (leaf[0].as_str(), leaf[1].as_str()) {
            (Some("share"), Some("=")) => {}
            (Some("id"), Some(">")) => after = leaf[2].as_u64().unwrap_or(0),
            (Some("active"), _) => hidden = false,
            _ => return Err(wrong(format!("this fake knows no domain of users with {leaf}"))),
        }
    }
    let all = (1..=state.users.len()).filter_map(|at| Some((at as u64 + 1, state.user(at)?)));
    let found = all.filter(|(uid, user)| match &only {
        Some(ids) => ids.contains(uid),
        None => *uid > after && (user.active || !hidden),
    });
    let show = |(uid, user): (u64, crate::User)| {
        let all = json!({
            "name": format!("{} {}", user.first_name, user.last_name), "login": format!("user{uid}"),
            "email": or_false(user.email.as_deref()), "active": user.active, "share": false,
        });
        let mut shown = json!({"id": uid});
        for field in &wanted {
            shown[field] = all[field].clone();
        }
        shown
    };
    Ok(found.take(call.limit()).map(show).collect())
}

pub(super) fn no_model(call: &Call) -> ApiError {
    ApiError::new(404, "no_model", format!("Object {} doesn't exist", call.model))
}

fn ticket(ticket: &Ticket) -> Value {
    let stage = match ticket.status.as_str() {
        "pending" => json!([3, "On Hold"]),
        "open" => json!([2, "In Progress"]),
        "solved" => json!([4, "Solved"]),
        _ => json!([1, "New"]),
    };
    let priority = match ticket.priority.as_str() {
        "normal" => "1",
        "high" => "2",
        "urgent" => "3",
        _ => "0",
    };
    json!({
        "id": shapes::ticket_number(ticket), "name": ticket.subject, "stage_id": stage, "priority": priority,
        "description": or_false(some(&ticket.description)), "create_date": parse_iso(&ticket.created_at).map(plain),
        "write_date": parse_iso(&ticket.updated_at).map(plain),
    })
}

/// Helpdesk is installed, other applications are not.
pub(super) fn tickets(state: &State, call: &Call) -> Result<Value, ApiError> {
    if call.model != "helpdesk.ticket" {
        return Err(no_model(call));
    }
    let of = call
        .domain()
        .iter()
        .find(|leaf| leaf[0] == "partner_id")
        .and_then(|leaf| leaf[2].as_u64());
    let contact = of.ok_or_else(|| wrong("this fake finds tickets by partner_id"))?;
    let mut tickets = shapes::tickets_of(state, contact).unwrap_or_default();
    tickets.sort_by(|one, other| other.created_at.cmp(&one.created_at));
    Ok(tickets.iter().take(call.limit()).map(ticket).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_sql() {
        for (text, pattern) in [
            ("+351 912 345 678", "%1%2%3%4%5%6%7%8"),
            ("Ada@Example.com", "%ada@example.com%"),
            ("a_b", "a_b"),
            ("axb", "a_b"),
            ("", "%"),
        ] {
            assert!(is_like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("912345679", "%1%2%3%4%5%6%7%8"), ("ab", "a_b"), ("x", ""), ("", "_")] {
            assert!(!is_like(text, pattern), "{text} {pattern}");
        }
    }
}
