//! The credential check, agents, interactions and actions.

use std::collections::BTreeMap;

use super::{Paging, Request, Vocabulary, Wire, named_exprs};
use crate::expr::{Attributes, Expr, Names};
use crate::load::Table;

/// `[check]`: the cheapest call that tells whose credentials these are.
#[derive(Debug)]
pub struct Check {
    pub request: Request,
    pub ok: Option<Expr>,
    pub denied: Option<Expr>,
    /// The CRM's own id of the organisation and of the user.
    pub org: Expr,
    pub principal: Option<Expr>,
    /// `"all"` if every user of the organisation sees the same contacts; anything else is per principal.
    pub visibility: Option<Expr>,
    /// Further values, `conn.NAME` from then on (hosts, portal ids).
    pub learn: BTreeMap<String, Expr>,
}

/// `[agents]`: the CRM's users (Talkdesk agent sync).
#[derive(Debug)]
pub struct Agents {
    pub request: Request,
    pub items: Expr,
    pub page: Paging,
    /// Rows to keep: active users with a licence.
    pub filter: Option<Expr>,
    pub id: Expr,
    pub name: Option<Expr>,
    pub email: Expr,
}

/// `[[interactions]]` (Talkdesk interaction retrieval).
#[derive(Debug)]
pub struct Interaction {
    pub kind: String,
    /// At most three requests, each with the replies of those before it in reach.
    pub chain: Vec<Step>,
    pub items: Expr,
    /// The CRM's module may not be installed: a missing one means none.
    pub optional: bool,
    pub map: InteractionMap,
}

#[derive(Debug)]
pub struct Step {
    pub name: String,
    /// Over the replies before it. Where it does not hold there are no interactions: nothing is left to ask for.
    pub when: Option<Expr>,
    pub request: Request,
}

#[derive(Debug)]
pub struct InteractionMap {
    pub id: Expr,
    pub subject: Expr,
    pub date: Expr,
    /// The form of `date`.
    pub date_as: Wire,
    pub description: Option<Expr>,
    pub status: Option<Expr>,
    pub priority: Option<Expr>,
    /// From the CRM's words, in lower case, to Talkdesk's; those are understood as they are.
    pub statuses: BTreeMap<String, &'static str>,
    pub priorities: BTreeMap<String, &'static str>,
    pub url: Option<Expr>,
}

/// Talkdesk's words (Talkdesk interaction retriever, response).
pub const STATUSES: [&str; 5] = ["new", "open", "pending", "solved", "closed"];
pub const PRIORITIES: [&str; 5] = ["none", "low", "normal", "high", "urgent"];

/// `[[actions]]` (Talkdesk action execution).
#[derive(Debug)]
pub struct Action {
    pub name: String,
    /// Lower case and short, for Talkdesk's sentences and combo boxes; without it the name stands in.
    pub display: Option<String>,
    /// In lower case, for Talkdesk's sentences.
    pub description: Option<String>,
    pub inputs: BTreeMap<String, Input>,
    /// It is about a contact, and cannot be done without one.
    pub needs_contact: bool,
    /// It is done for an agent, and cannot be done without one.
    pub needs_agent: bool,
    pub request: Request,
    pub ok: Option<Expr>,
    pub result: ActionResult,
}

#[derive(Clone, Debug)]
pub struct Input {
    /// Its place in the file, which is the order for people.
    pub at: usize,
    /// What Talkdesk fills in where nobody does; it may hold `{{contact.email}}` (Talkdesk actions, configuration).
    pub default: Option<String>,
    pub mandatory: bool,
    pub kind: &'static str,
    pub title: Option<String>,
    /// What a `select` may be.
    pub options: Vec<String>,
    /// The form in which a `datetime` goes into the request; without one, as Talkdesk wrote it.
    pub wire: Option<Wire>,
}

#[derive(Debug, Default)]
pub struct ActionResult {
    pub message: Option<Expr>,
    pub external_id: Option<Expr>,
    pub contact_external_id: Option<Expr>,
    pub contact_external_type: Option<Expr>,
    pub contact_external_url: Option<Expr>,
}

/// The names that `[check]` learns, read ahead of everything that may use them.
pub(super) fn learned_names(check: Table<'_, '_>) -> Vec<String> {
    let Some(learn) = check.table("learn") else {
        return Vec::new();
    };
    learn.named_texts().into_iter().map(|(name, _, _)| name).collect()
}

impl Check {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Check> {
        let reply = vocabulary.reply();
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &vocabulary.call()));
        let org = table.need_expr("org", &reply);
        let (ok, denied) = (table.expr("ok", &reply), table.expr("denied", &reply));
        let (principal, visibility) = (table.expr("principal", &reply), table.expr("visibility", &reply));
        let learn = table
            .table("learn")
            .map_or_else(BTreeMap::new, |learn| named_exprs(learn, &reply));
        table.finish();
        Some(Check {
            request: request?,
            ok,
            denied,
            org: org?,
            principal,
            visibility,
            learn,
        })
    }
}

impl Agents {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Agents> {
        let item = vocabulary.item();
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &vocabulary.paged()));
        let items = table.need_expr("items", &vocabulary.reply());
        let page = match table.table("page") {
            Some(page) => Paging::read(page, vocabulary, &item),
            None => Some(Paging::single()),
        };
        let filter = table.expr("filter", &item);
        let map = table.need_table("map").and_then(|map| {
            let found = (
                map.need_expr("id", &item),
                map.expr("name", &item),
                map.need_expr("email", &item),
            );
            map.finish();
            Some((found.0?, found.1, found.2?))
        });
        table.finish();
        let (id, name, email) = map?;
        Some(Agents {
            request: request?,
            items: items?,
            page: page?,
            filter,
            id,
            name,
            email,
        })
    }
}

const LONGEST_CHAIN: usize = 3;

impl Interaction {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Interaction> {
        let kind = table.need_text("type");
        let contact = Attributes::only(["id", "name", "emails", "phones"]);
        let mut names = vocabulary.call().with("contact", contact.clone());
        let mut chain = Vec::new();
        let mut last = vocabulary.reply();
        if let Some(request) = table.table("request") {
            chain.extend(Request::read(request, &names).map(|request| Step {
                name: "response".to_owned(),
                when: None,
                request,
            }));
        }
        let steps = table.tables("chain");
        if table.has("request") == table.has("chain") {
            table.problem(
                "chain",
                format!("`{}` needs either `request` or `chain`", table.path),
                None,
            );
        }
        if steps.len() > LONGEST_CHAIN {
            table.problem("chain", format!("a chain has at most {LONGEST_CHAIN} steps"), None);
        }
        for step in steps.into_iter().take(LONGEST_CHAIN) {
            let name = step.need_text("as");
            let when = step.expr("when", &last);
            let request = step
                .need_table("request")
                .and_then(|request| Request::read(request, &names));
            step.finish();
            let Some(name) = name else { continue };
            let reply = Attributes::only(["status", "headers", "body"]);
            names = names.with(name.clone(), reply.clone());
            last = last.with(name.clone(), reply);
            chain.extend(request.map(|request| Step { name, when, request }));
        }
        let items = table.need_expr("items", &last);
        let optional = table.boolean("optional").unwrap_or(false);
        let item = vocabulary.item().with("contact", contact);
        let map = table.need_table("map").and_then(|map| InteractionMap::read(map, &item));
        table.finish();
        Some(Interaction {
            kind: kind?,
            chain,
            items: items?,
            optional,
            map: map?,
        })
    }
}

impl InteractionMap {
    fn read(table: Table<'_, '_>, names: &Names) -> Option<InteractionMap> {
        let (id, subject) = (table.need_expr("id", names), table.need_expr("subject", names));
        let date = table.need_expr("date", names);
        let date_as = match table.has("date_as") {
            true => Wire::read(&table, "date_as"),
            false => Some(Wire::Iso),
        };
        let description = table.expr("description", names);
        let (status, priority) = (table.expr("status", names), table.expr("priority", names));
        let (statuses, priorities) = (
            words(&table, "statuses", &STATUSES),
            words(&table, "priorities", &PRIORITIES),
        );
        let url = table.expr("url", names);
        table.finish();
        Some(InteractionMap {
            id: id?,
            subject: subject?,
            date: date?,
            date_as: date_as?,
            description,
            status,
            priority,
            statuses,
            priorities,
            url,
        })
    }
}

/// `statuses = { "In Progress" = "open" }`: the CRM's words, in lower case, and what Talkdesk calls them.
fn words(table: &Table<'_, '_>, key: &'static str, known: &[&'static str]) -> BTreeMap<String, &'static str> {
    let mut words = BTreeMap::new();
    let Some(given) = table.table(key) else { return words };
    for (theirs, word, at) in given.named_texts() {
        match known.iter().find(|known| **known == word) {
            Some(word) => {
                words.insert(theirs.trim().to_lowercase(), *word);
            }
            None => {
                let hint = format!("there are {}", known.join(", "));
                let what = format!("`{word}` is no word of Talkdesk's in `{key}`");
                table.reader.problem(at, what, Some(hint));
            }
        }
    }
    words
}

/// Names stand in URLs and in Talkdesk's configuration: each once.
pub(super) fn check_names(root: &Table<'_, '_>, interactions: &[Interaction], actions: &[Action]) {
    for (i, interaction) in interactions.iter().enumerate() {
        let same = |other: &Interaction| other.kind.to_lowercase() == interaction.kind.to_lowercase();
        if interactions[..i].iter().any(same) {
            let what = format!("two interactions are of the type `{}`", interaction.kind);
            root.problem("interactions", what, None);
        }
    }
    for (i, action) in actions.iter().enumerate() {
        if actions[..i].iter().any(|other| other.name == action.name) {
            root.problem("actions", format!("two actions are called `{}`", action.name), None);
        }
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if !(1..=64).contains(&action.name.len()) || !action.name.bytes().all(legal) {
            let what = format!("the action name {:?} must be 1 to 64 of a-z, 0-9, _ and -", action.name);
            root.problem("actions", what, Some("it stands in a URL"));
        }
    }
}

impl Action {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Action> {
        let name = table.need_text("name");
        let (display, description) = (table.text("display"), table.text("description"));
        let inputs = match table.need_table("inputs") {
            Some(inputs) => inputs.named(|_, at, input| Some(Input::read(at, input))),
            None => BTreeMap::new(),
        };
        let needs_contact = table.boolean("needs_contact").unwrap_or(false);
        let needs_agent = table.boolean("needs_agent").unwrap_or(false);
        let names = vocabulary
            .call()
            .with("input", Attributes::only(inputs.keys().cloned()))
            .with("contact", Attributes::only(["id"]))
            .with("agent", Attributes::only(["id"]));
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &names));
        let reply = vocabulary.reply();
        let ok = table.expr("ok", &reply);
        let result = table.table("result").map_or_else(ActionResult::default, |result| {
            let found = ActionResult {
                message: result.expr("message", &reply),
                external_id: result.expr("external_id", &reply),
                contact_external_id: result.expr("contact_external_id", &reply),
                contact_external_type: result.expr("contact_external_type", &reply),
                contact_external_url: result.expr("contact_external_url", &reply),
            };
            result.finish();
            found
        });
        table.finish();
        Some(Action {
            name: name?,
            display,
            description,
            inputs,
            needs_contact,
            needs_agent,
            request: request?,
            ok,
            result,
        })
    }
}

/// The types of inputs (Talkdesk actions, configuration).
const INPUT_TYPES: [&str; 7] = ["text", "textarea", "number", "tel", "url", "datetime", "select"];

impl Input {
    fn read(at: usize, table: Table<'_, '_>) -> Input {
        let default = table.text("default");
        if default.is_some() && table.has("options") {
            // Talkdesk's one `format` holds either the values or the default.
            table.problem("default", "a select has no `default`", None);
        }
        let words = INPUT_TYPES.map(|word| (word, word));
        let kind = table.choice("type", &words).unwrap_or("text");
        let options: Vec<String> = table
            .texts("options")
            .unwrap_or_default()
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        if (kind == "select") == options.is_empty() {
            table.problem(
                "options",
                format!("`{}`: a select has `options`, and nothing else has", table.path),
                Some("options = [\"low\", \"high\"]"),
            );
        }
        // Talkdesk's configuration writes them as one comma separated text.
        if options
            .iter()
            .any(|option| option.trim() != option || option.is_empty() || option.contains(','))
        {
            table.problem(
                "options",
                "an option is not empty and has no comma or outer blank",
                None,
            );
        }
        let wire = match table.has("as") {
            true => Wire::read(&table, "as"),
            false => None,
        };
        if wire.is_some() && kind != "datetime" {
            table.problem("as", "only a `datetime` has a form of time", None);
        }
        let input = Input {
            at,
            default,
            mandatory: table.boolean("mandatory").unwrap_or(false),
            kind,
            title: table.text("title"),
            options,
            wire,
        };
        table.finish();
        input
    }
}
