//! One HTTP request of a connector.

use std::collections::BTreeMap;

use http::{HeaderName, Method};

use crate::expr::{Names, Template, Tree};
use crate::load::Table;

/// `request = { method, path, … }`
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// Replaces the base URL's path for this operation (Pipedrive mixes versions): `"/v1"`.
    pub base: Option<Template>,
    /// Computed parts are percent-encoded, so that they stay within their segment.
    pub path: Template,
    /// Repeated keys have several values, or one that is a list. A value that is nothing is left out.
    pub query: Vec<(String, Vec<Template>)>,
    pub headers: BTreeMap<String, Template>,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    None,
    Json(Tree),
    Form(Vec<(String, Template)>),
}

impl Request {
    pub(super) fn read(table: Table<'_, '_>, names: &Names) -> Option<Request> {
        let method = table
            .choice(
                "method",
                &[
                    ("GET", "GET"),
                    ("POST", "POST"),
                    ("PUT", "PUT"),
                    ("PATCH", "PATCH"),
                    ("DELETE", "DELETE"),
                ],
            )
            .unwrap_or("GET");
        let base = table.template("base", names);
        let path = table.need_template("path", names);
        if table.text("path").is_some_and(|path| !path.starts_with('/')) {
            table.problem("path", format!("`{}.path` must begin with /", table.path), None);
        }
        let query = table
            .table("query")
            .map_or_else(Vec::new, |query| read_query(&query, names));
        let headers = table
            .table("headers")
            .map_or_else(BTreeMap::new, |headers| super::named_templates(headers, names));
        check_header_names(&table, headers.keys());
        let form = table.table("form").map(|form| super::named_templates(form, names));
        let json = table.has("json").then(|| table.tree("json", names));
        let body = match (json, form) {
            (Some(_), Some(_)) => {
                table.problem("form", "a request has either `json` or `form`", None);
                None
            }
            (Some(json), None) => json.map(Body::Json),
            (None, Some(form)) => Some(Body::Form(form.into_iter().collect())),
            (None, None) => Some(Body::None),
        };
        table.finish();
        Some(Request {
            method: method.parse().unwrap_or(Method::GET),
            base,
            path: path?,
            query,
            headers,
            body: body?,
        })
    }
}

pub(super) fn check_header_names<'a>(table: &Table<'_, '_>, headers: impl Iterator<Item = &'a String>) {
    const OURS: [&str; 5] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
    ];
    for name in headers {
        let known = HeaderName::try_from(name.as_str());
        if known.is_err() || OURS.contains(&name.to_ascii_lowercase().as_str()) {
            table.problem("headers", format!("`{name}` cannot be set as a header"), None);
        }
    }
}

/// Values of a query language inside a parameter must be quoted for it, or a value could change the question.
const QUOTED: [(&str, &str); 2] = [("q", "soql"), ("$filter", "odata")];

fn read_query(table: &Table<'_, '_>, names: &Names) -> Vec<(String, Vec<Template>)> {
    let mut query = Vec::new();
    for (name, texts) in table.named_text_lists() {
        let mut templates = Vec::new();
        for (text, at) in texts {
            let Some(template) = table.compile_template(&text, at, names) else {
                continue;
            };
            if let Some((_, filter)) = QUOTED.iter().find(|(key, _)| *key == name) {
                for expr in template.expressions().filter(|expr| !is_quoted(expr.text(), filter)) {
                    let what = format!("`${{{}}}` stands unquoted in `{name}`", expr.text());
                    table
                        .reader
                        .problem(expr.at, what, Some(format!("end it with `|{filter}` or `|int`")));
                }
            }
            templates.push(template);
        }
        query.push((name, templates));
    }
    query
}

fn is_quoted(expr: &str, filter: &str) -> bool {
    let ours = ["since.wire", "until.wire", "page.size"];
    let last = expr.rsplit('|').next().unwrap_or_default().trim();
    (expr.contains('|') && (last == filter || last == "int")) || ours.contains(&expr.trim())
}
