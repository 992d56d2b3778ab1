//! The last check at load: every request is rendered with sample values and every row expression is tried on an empty
//! row. CRM rows are sparse, so an expression that fails on an empty one would lose contacts.

use std::collections::BTreeMap;

use contacts::Micros;
use jiff::tz::TimeZone;
use minijinja::Value;
use url::Url;

use crate::client::prepare::{now_value, prepare, time_value};
use crate::client::token::{session_of, token_url};
use crate::expr::{Expr, Template, scope, value_of};
use crate::load::Reader;
use crate::spec::{
    AtCap, AuthSpec, Calls, Deletion, FieldType, LINK_NAMES, LinkSpec, Mapping, Maximum, Paging, PagingKind, Pass,
    Request, SignalSource, Since, Spec, Verdict, Wire,
};

pub(crate) fn check(reader: &Reader<'_>, spec: &Spec) {
    let checker = Checker {
        reader,
        spec,
        conn: sample_conn(spec),
        session: sample_session(spec),
    };
    checker.requests();
    checker.replies();
    checker.rows();
    checker.webhook();
}

/// Tries an expression of an integration on an empty row, and its mapped contact.
pub(crate) fn evaluates(spec: &Spec, expr: &Expr) -> Result<(), String> {
    let empty = || value_of(&BTreeMap::<&str, &str>::new());
    let mut names = vec![("item", empty()), ("conn", sample_conn(spec)), ("contact", empty())];
    let lets = spec.contacts.map.lets.keys();
    names.extend(lets.map(|name| (name.as_str(), Value::UNDEFINED)));
    let tried = expr.eval(&scope(names));
    tried.map(|_| ()).map_err(|error| {
        format!(
            "{}: it is tried on an empty row, so guard what may be missing: (x or '')",
            error.what
        )
    })
}

struct Checker<'a> {
    reader: &'a Reader<'a>,
    spec: &'a Spec,
    conn: Value,
    session: Value,
}

const SAMPLE_TIME: Micros = Micros(1_795_223_045_678_901);

fn sample_conn(spec: &Spec) -> Value {
    let mut conn = BTreeMap::new();
    for (name, field) in &spec.connection.fields {
        let sample = match field.kind {
            FieldType::Text if name.ends_with("_url") => "https://sample.example/token",
            FieldType::Text | FieldType::Secret => "sample",
            FieldType::Int => "100",
            FieldType::Host => "sample.example",
            FieldType::Site => "https://sample.example",
        };
        conn.insert(name.as_str(), sample);
    }
    // What is learned may be where the CRM is.
    let learned = |name: &String| {
        if name.ends_with("_url") {
            "https://sample.example"
        } else {
            "sample"
        }
    };
    conn.extend(spec.check.learn.keys().map(|name| (name.as_str(), learned(name))));
    conn.insert("base_url", "https://sample.example");
    value_of(&conn)
}

fn sample_session(spec: &Spec) -> Value {
    let AuthSpec::Session(session) = &spec.auth else {
        return match &spec.auth {
            AuthSpec::Oauth2(_) => session_of(&"sample".to_owned().into()),
            _ => Value::UNDEFINED,
        };
    };
    scope(session.learn.keys().map(|name| (name.as_str(), Value::from(7))))
}

impl Checker<'_> {
    fn eval(&self, expr: &Expr, names: &Value) {
        if let Err(error) = expr.eval(names) {
            let hint = "it is tried on an empty row: guard what may be missing, `(x or '')`".to_owned();
            self.reader.problem(expr.at, error.what, Some(hint));
        }
    }

    fn requests(&self) {
        let spec = self.spec;
        let base = |template: &Template| {
            let text = template.render(&scope([("conn", self.conn.clone())]));
            match text.map(|text| Url::parse(&text)) {
                Ok(Ok(url)) if url.has_host() => {}
                _ => self.at_template(template, "the base URL is no URL"),
            }
        };
        base(&spec.connection.base_url);
        for limit in &spec.limits {
            if let Maximum::Computed(template) = &limit.max {
                let text = template.render(&scope([("conn", self.conn.clone())]));
                if text.is_ok_and(|text| text.trim().parse::<u64>().is_err()) {
                    let what = format!("the limit `{}` is no number", limit.name);
                    self.at_template(template, &format!("{what}; use a field of type int"));
                }
            }
        }
        if let AuthSpec::Session(session) = &spec.auth {
            self.request(&session.request, &[], false);
        }
        if let AuthSpec::Oauth2(oauth) = &spec.auth
            && let (Some(template), Err(_)) = (&oauth.token_url, token_url(oauth, &self.conn))
        {
            self.at_template(template, "the token endpoint is no URL");
        }
        if let AuthSpec::Oauth2(oauth) = &spec.auth
            && let Some(assertion) = &oauth.assertion
            && assertion
                .audience
                .render(&scope([("conn", self.conn.clone()), ("now", now_value(SAMPLE_TIME))]))
                .is_err()
        {
            self.at_template(
                &assertion.audience,
                "the audience cannot be rendered with sample values",
            );
        }
        self.request(&spec.check.request, &[], true);
        self.pass(&spec.contacts.full);
        spec.contacts.changes.iter().for_each(|changes| self.pass(changes));
        if let Some(get_many) = &spec.contacts.get_many {
            let ids = value_of(&["1", "2"]);
            self.request(
                &get_many.request,
                &[("ids", ids), ("props", value_of(&spec.contacts.props))],
                true,
            );
        }
        let changes = spec
            .contacts
            .changes
            .as_ref()
            .and_then(|changes| changes.since.as_ref());
        for deletion in &spec.contacts.deleted {
            match deletion {
                Deletion::List(list) => self.paged(&list.request, &list.page, list.since.as_ref().or(changes)),
                Deletion::Reconcile(list) => self.paged(&list.request, &list.page, None),
                Deletion::Flag { .. } | Deletion::Delta { .. } | Deletion::Event => {}
            }
        }
        for lookup in &spec.contacts.lookups {
            self.request(&lookup.request, &[("keys", value_of(&["1", "2"]))], true);
        }
        if let Some(agents) = &spec.agents {
            self.paged(&agents.request, &agents.page, None);
        }
        self.calls().into_iter().for_each(|calls| self.subscription(calls));
        if let Some(link) = &spec.link {
            self.link_requests(link);
        }
        for interaction in &spec.interactions {
            let reply = self.reply(200);
            let mut names = vec![("contact", value_of(&BTreeMap::from([("id", "1"), ("name", "Ada")])))];
            for step in &interaction.chain {
                if let Some(when) = &step.when {
                    let mut seen = names.clone();
                    seen.push(("conn", self.conn.clone()));
                    self.eval(when, &scope(seen));
                }
                self.request(&step.request, &names, true);
                names.push((step.name.as_str(), reply.clone()));
            }
        }
        for action in &spec.actions {
            let all: BTreeMap<&str, &str> = action.inputs.keys().map(|name| (name.as_str(), "sample")).collect();
            let needed = |needed: bool| BTreeMap::from_iter(needed.then_some(("id", "1")));
            let mandatory = action.inputs.iter().filter(|(_, input)| input.mandatory);
            let least: BTreeMap<&str, &str> = mandatory.map(|(name, _)| (name.as_str(), "sample")).collect();
            // With everything, and with no more than there must be.
            for (input, contact, agent) in [
                (all, needed(true), needed(true)),
                (least, needed(action.needs_contact), needed(action.needs_agent)),
            ] {
                let names = [
                    ("input", value_of(&input)),
                    ("contact", value_of(&contact)),
                    ("agent", value_of(&agent)),
                ];
                self.request(&action.request, &names, true);
            }
        }
    }

    fn subscription(&self, calls: &Calls) {
        let hook = |id: Value| {
            let until = scope(time_value(Some((&calls.until_as, &TimeZone::UTC)), SAMPLE_TIME));
            scope([
                ("url", Value::from("https://sample.example/crm/webhooks/sample")),
                ("secret", Value::from("sample")),
                ("number", Value::from(1)),
                ("topic", Value::from("sample")),
                ("id", id),
                ("until", until),
            ])
        };
        self.paged_with(
            &calls.list.request,
            &calls.list.page,
            None,
            &[("hook", hook(Value::UNDEFINED))],
        );
        self.request(&calls.create, &[("hook", hook(Value::UNDEFINED))], true);
        let named = calls.renew.iter().chain([&calls.delete]);
        for request in named.chain(calls.reveal.iter().map(|reveal| &reveal.request)) {
            self.request(request, &[("hook", hook(Value::from("1")))], true);
        }
    }

    /// With everything, and with no more than there must be.
    fn link_requests(&self, link: &LinkSpec) {
        let all: BTreeMap<&str, Value> = LINK_NAMES
            .iter()
            .map(|name| match *name {
                "links" => (*name, value_of(&[BTreeMap::from([("url", "https://sample.example")])])),
                "record" => (*name, value_of(&BTreeMap::from([("sample", "sample")]))),
                name => (name, Value::from("sample")),
            })
            .collect();
        for (find, names) in [
            (BTreeMap::from([("value", "sample"), ("organization", "sample")]), all),
            (
                BTreeMap::from([("value", "sample")]),
                BTreeMap::from([("id", Value::from("1"))]),
            ),
        ] {
            for request in link.find.email.iter().chain(&link.find.phone) {
                self.request(request, &[("find", value_of(&find))], true);
            }
            let names = scope(names);
            for request in [&link.read.request, &link.write.request] {
                self.request(request, &[("link", names.clone())], true);
            }
        }
    }

    fn pass(&self, pass: &Pass) {
        self.paged(&pass.request, &pass.page, pass.since.as_ref());
    }

    fn calls(&self) -> Option<&Calls> {
        self.spec.webhook.as_ref()?.subscribe.as_ref()?.calls.as_ref()
    }

    fn paged(&self, request: &Request, paging: &Paging, since: Option<&Since>) {
        self.paged_with(request, paging, since, &[]);
    }

    /// The first page and one in the middle.
    fn paged_with(&self, request: &Request, paging: &Paging, since: Option<&Since>, more: &[(&str, Value)]) {
        let wire = since.map_or(&Wire::Iso, |since| &since.wire);
        let time = || scope(time_value(Some((wire, &TimeZone::UTC)), SAMPLE_TIME));
        let delta = || scope([("token", Value::from("https://sample.example/delta"))]);
        let none = || Value::from(Vec::<Value>::new());
        // The first page and a later one; from a time, and from a delta token.
        for (token, keys, since) in [
            (Value::UNDEFINED, none(), time()),
            (Value::from("t"), value_of(&[1, 1]), time()),
            (Value::UNDEFINED, none(), delta()),
        ] {
            let page = scope([
                ("token", token),
                ("keys", keys),
                ("size", Value::from(paging.size.unwrap_or(100))),
                ("number", Value::from(1)),
                ("offset", Value::from(0)),
            ]);
            let mut names = vec![
                ("page", page),
                ("props", value_of(&self.spec.contacts.props)),
                ("since", since),
                ("until", time()),
            ];
            names.extend(more.iter().cloned());
            self.request(request, &names, true);
        }
    }

    fn request(&self, request: &Request, names: &[(&str, Value)], logged_in: bool) {
        let mut all = vec![("conn", self.conn.clone()), ("now", now_value(SAMPLE_TIME))];
        if logged_in {
            all.push(("session", self.session.clone()));
        }
        all.extend(names.iter().cloned());
        let Ok(base) = Url::parse("https://sample.example") else {
            return;
        };
        if let Err(error) = prepare(self.spec, request, &base, None, &scope(all), logged_in) {
            let why = error.source.map_or(error.message, |source| source.to_string());
            self.at_template(
                &request.path,
                &format!("the request cannot be rendered with sample values: {why}"),
            );
        }
    }

    fn at_template(&self, template: &Template, what: &str) {
        self.reader.problem(template.at, what, None);
    }

    fn reply(&self, status: u16) -> Value {
        scope([
            ("status", Value::from(status)),
            ("headers", Value::UNDEFINED),
            ("body", Value::UNDEFINED),
        ])
    }

    /// Tests on replies must bear any reply: one without a body, too.
    fn replies(&self) {
        let spec = self.spec;
        for status in [200, 500] {
            let names = scope([
                ("response", self.reply(status)),
                ("conn", self.conn.clone()),
                ("session", self.session.clone()),
            ]);
            let signals = spec
                .throttle
                .retry_after
                .iter()
                .filter_map(|signal| match &signal.source {
                    SignalSource::Body(expr) => Some(expr),
                    SignalSource::Header(_) => None,
                });
            let check = &spec.check;
            let mut tests: Vec<&Expr> = signals
                .chain(&spec.throttle.when)
                .chain(&spec.throttle.quota_when)
                .chain(&spec.replies.ok)
                .chain(&spec.replies.empty)
                .chain(&spec.replies.message)
                .chain(spec.replies.rules.iter().map(|rule| &rule.when))
                .chain([&check.org])
                .chain(&check.principal)
                .chain(&check.visibility)
                .chain(&check.ok)
                .chain(&check.denied)
                .chain(check.learn.values())
                .collect();
            if let AuthSpec::Session(session) = &spec.auth {
                tests.extend(session.ok.iter().chain(&session.denied).chain(session.learn.values()));
            }
            let passes = std::iter::once(&spec.contacts.full).chain(&spec.contacts.changes);
            for pass in passes {
                tests.extend(pass.ok.iter().chain(&pass.denied).chain([&pass.items]));
                match &pass.page.kind {
                    PagingKind::Token { next, more } => tests.extend(std::iter::once(next).chain(more)),
                    PagingKind::NextUrl { next } => tests.push(next),
                    PagingKind::Page { more, .. } => tests.extend(more),
                    PagingKind::Offset { total, more, .. } => tests.extend(total.iter().chain(more)),
                    PagingKind::None | PagingKind::LinkHeader | PagingKind::Keyset { .. } => {}
                }
                if let Some(AtCap::Token(token)) = &pass.page.at_cap {
                    tests.push(token);
                }
                tests.extend(pass.cursor.delta().map(|delta| &delta.token));
            }
            if let Some(calls) = self.calls() {
                let capture = &calls.capture;
                tests.extend(capture.secret.iter().chain(&capture.expires));
                tests.extend([&capture.id, &calls.list.items]);
                tests.extend(calls.reveal.iter().map(|reveal| &reveal.secret));
            }
            if let Some(link) = &spec.link {
                let read = [&link.find.items, &link.read.item];
                tests.extend(read.into_iter().chain(&link.read.missing).chain(&link.write.ok));
            }
            for action in &spec.actions {
                let result = &action.result;
                tests.extend(action.ok.iter().chain(&result.message).chain(&result.external_id));
                tests.extend(result.contact_external_id.iter().chain(&result.contact_external_type));
                tests.extend(&result.contact_external_url);
            }
            tests.into_iter().for_each(|expr| self.eval(expr, &names));
            self.denials(&names);
        }
    }

    /// A reply without a body is what proxies give in a bad hour: it must not count as refused credentials, which would
    /// park the account.
    fn denials(&self, names: &Value) {
        let spec = self.spec;
        let rules = spec
            .replies
            .rules
            .iter()
            .filter(|rule| rule.verdict == Verdict::Denied)
            .map(|rule| &rule.when);
        let session = if let AuthSpec::Session(session) = &spec.auth {
            session.denied.as_ref()
        } else {
            None
        };
        let passes = std::iter::once(&spec.contacts.full).chain(&spec.contacts.changes);
        let denials = rules
            .chain(session)
            .chain(&spec.check.denied)
            .chain(passes.filter_map(|pass| pass.denied.as_ref()))
            .chain(
                spec.contacts
                    .get_many
                    .as_ref()
                    .and_then(|get_many| get_many.denied.as_ref()),
            );
        for expr in denials {
            if expr.is_true(names).unwrap_or(false) {
                let what = format!(
                    "`{}` says that credentials are refused when a reply has no body",
                    expr.text()
                );
                self.reader.problem(
                    expr.at,
                    what,
                    Some("ask for what the CRM sends when it refuses them".to_owned()),
                );
            }
        }
    }

    fn rows(&self) {
        let contacts = &self.spec.contacts;
        let item = || ("item", value_of(&BTreeMap::<&str, &str>::new()));
        let base = scope([item(), ("conn", self.conn.clone())]);
        let map = &contacts.map;
        for lookup in &contacts.lookups {
            let exprs = [&lookup.of, &lookup.key, &lookup.value];
            exprs.into_iter().for_each(|expr| self.eval(expr, &base));
        }
        let mut names = vec![item(), ("conn", self.conn.clone())];
        names.extend(map.lets.keys().map(|name| (name.as_str(), Value::UNDEFINED)));
        map.lets.values().for_each(|expr| self.eval(expr, &base));
        let with_lets = scope(names);
        mapped(map).into_iter().for_each(|expr| self.eval(expr, &with_lets));

        for deletion in &contacts.deleted {
            match deletion {
                Deletion::Flag { when } => self.eval(when, &base),
                Deletion::List(list) => {
                    std::iter::once(&list.id)
                        .chain(&list.at)
                        .chain(&list.merged_into)
                        .for_each(|expr| self.eval(expr, &base));
                }
                Deletion::Reconcile(list) => self.eval(&list.id, &base),
                Deletion::Delta { when, id } => std::iter::once(when).chain(id).for_each(|expr| self.eval(expr, &base)),
                Deletion::Event => {}
            }
        }
        if let Some(agents) = &self.spec.agents {
            let exprs = [&agents.id, &agents.email]
                .into_iter()
                .chain(&agents.name)
                .chain(&agents.filter);
            exprs.for_each(|expr| self.eval(expr, &base));
        }
        if let Some(link) = &self.spec.link {
            link.map.exprs().for_each(|expr| self.eval(expr, &base));
        }
        for interaction in &self.spec.interactions {
            let map = &interaction.map;
            let exprs = [&map.id, &map.subject, &map.date]
                .into_iter()
                .chain(&map.description)
                .chain(&map.status);
            exprs
                .chain(&map.priority)
                .chain(&map.url)
                .for_each(|expr| self.eval(expr, &base));
        }
    }

    fn webhook(&self) {
        let Some(webhook) = &self.spec.webhook else { return };
        if let Some(calls) = self.calls() {
            let row = scope([
                ("item", value_of(&BTreeMap::<&str, &str>::new())),
                ("conn", self.conn.clone()),
            ]);
            let list = &calls.list;
            let exprs = [&list.id, &list.url]
                .into_iter()
                .chain(&list.topic)
                .chain(&list.expires);
            exprs.for_each(|expr| self.eval(expr, &row));
        }
        let empty = || value_of(&BTreeMap::<&str, &str>::new());
        let names = scope([("body", empty()), ("ev", empty())]);
        let events = &webhook.events;
        let exprs = [&events.each, &events.ids]
            .into_iter()
            .chain(&events.when)
            .chain(&events.account);
        exprs
            .chain(&events.deleted)
            .chain(&events.at)
            .chain(&events.dedupe)
            .chain(&events.agents)
            .for_each(|expr| self.eval(expr, &names));
        let link = self.spec.link.iter().filter_map(|link| link.events.as_ref());
        link.flat_map(|events| events.exprs())
            .for_each(|expr| self.eval(expr, &names));
    }
}

fn mapped(map: &Mapping) -> Vec<&Expr> {
    let optional = [
        &map.updated,
        &map.name,
        &map.company,
        &map.title,
        &map.emails,
        &map.phones,
        &map.photo_url,
        &map.address,
        &map.websites,
        &map.twitter,
        &map.url,
        &map.aliases,
    ];
    std::iter::once(&map.id).chain(optional.into_iter().flatten()).collect()
}
