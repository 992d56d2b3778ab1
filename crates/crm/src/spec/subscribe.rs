//! How a CRM is asked for its webhook: the calls that list, make, renew and end a subscription.

use std::time::Duration;

use contacts::subscription::SecretOf;

use super::{Paging, Request, Vocabulary, Wire};
use crate::expr::{Attributes, Expr};
use crate::load::Table;

/// `[webhook.subscribe]`
#[derive(Debug)]
pub struct Subscribe {
    /// Steps for a person.
    pub manual: Vec<String>,
    /// The CRM takes no longer secret of ours than so many characters.
    pub secret_length: Option<usize>,
    /// `None`: the CRM's API does not offer it, and a person sets the webhook up.
    pub calls: Option<Calls>,
}

/// The calls by which a subscription comes, stays and goes.
#[derive(Debug)]
pub struct Calls {
    /// A subscription is made for each; a single empty one where one tells of everything.
    pub topics: Vec<String>,
    pub list: SubscriptionList,
    pub create: Request,
    /// `create` once more, if there is none.
    pub renew: Option<Request>,
    pub delete: Request,
    pub capture: Capture,
    pub reveal: Option<Reveal>,
    /// How long a subscription is asked for.
    pub life: Option<Duration>,
    /// The form of `hook.until.wire`.
    pub until_as: Wire,
    pub renew_before: Option<Duration>,
}

/// `[webhook.subscribe.list]`
#[derive(Debug)]
pub struct SubscriptionList {
    pub request: Request,
    pub items: Expr,
    pub page: Paging,
    pub id: Expr,
    pub url: Expr,
    pub topic: Option<Expr>,
    pub expires: Option<Expr>,
}

/// `[webhook.subscribe.capture]`: what the reply to `create`, and to `renew`, holds.
#[derive(Debug)]
pub struct Capture {
    pub id: Expr,
    pub secret: Option<Expr>,
    pub expires: Option<Expr>,
}

/// `[webhook.subscribe.reveal]`: a secret that the CRM made and tells whenever it is asked (Zendesk).
#[derive(Debug)]
pub struct Reveal {
    pub request: Request,
    pub secret: Expr,
}

const LONGEST_SECRET: u64 = 64;
const SHORTEST_SECRET: u64 = 32;

impl Subscribe {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Subscribe {
        let manual = table.texts("manual").unwrap_or_default();
        let secret_length = table.number("secret_length", SHORTEST_SECRET..=LONGEST_SECRET);
        let calls = Calls::read(&table, vocabulary);
        table.finish();
        Subscribe {
            manual: manual.into_iter().map(|(step, _)| step).collect(),
            secret_length: secret_length.and_then(|length| usize::try_from(length).ok()),
            calls,
        }
    }
}

impl Calls {
    fn read(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Calls> {
        let hook = ["url", "secret", "number", "topic", "id", "until"];
        let names = vocabulary.call().with("hook", Attributes::only(hook));
        let topics: Vec<String> = table
            .texts("topics")
            .unwrap_or_default()
            .into_iter()
            .map(|(topic, _)| topic)
            .collect();
        let request = |key| table.table(key).and_then(|request| Request::read(request, &names));
        let list = table
            .table("list")
            .and_then(|list| SubscriptionList::read(list, vocabulary));
        let (create, renew, delete) = (request("create"), request("renew"), request("delete"));
        let capture = table
            .table("capture")
            .and_then(|capture| Capture::read(capture, vocabulary));
        let reveal = table.table("reveal").and_then(|reveal| {
            let read = (
                reveal
                    .need_table("request")
                    .and_then(|request| Request::read(request, &names)),
                reveal.need_expr("secret", &vocabulary.reply()),
            );
            reveal.finish();
            Some(Reveal {
                request: read.0?,
                secret: read.1?,
            })
        });
        let (life, renew_before) = (table.duration("life"), table.duration("renew_before"));
        let until_as = Wire::read(table, "until_as").unwrap_or(Wire::Iso);
        if let (Some(life), Some(before)) = (life, renew_before)
            && before >= life
        {
            let what = "`webhook.subscribe.renew_before` is as long as a subscription lives";
            table.problem(
                "renew_before",
                what,
                Some("a quarter of `life` leaves room for failures"),
            );
        }
        if !table.has("create") {
            let needless = [
                "list",
                "renew",
                "delete",
                "capture",
                "reveal",
                "topics",
                "renew_before",
                "life",
            ];
            if let Some(key) = needless.into_iter().find(|key| table.has(key)) {
                let what = format!("`webhook.subscribe.{key}` is for nothing without `create`");
                table.problem(key, what, None);
            }
            return None;
        }
        for (key, why) in [
            ("list", "a lost answer to `create` would lead to a second subscription"),
            ("delete", "what is made must be ended some day"),
            ("capture", "the id of what was made stands in the reply"),
        ] {
            if !table.has(key) {
                let what = format!("`webhook.subscribe.{key}` is missing");
                table.problem("create", what, Some(why));
            }
        }
        let list = list?;
        if topics.len() > 1 && list.topic.is_none() {
            let what = "`webhook.subscribe.list.topic` is missing";
            table.problem("topics", what, Some("it tells the subscriptions of an account apart"));
        }
        Some(Calls {
            topics: if topics.is_empty() { vec![String::new()] } else { topics },
            list,
            create: create?,
            renew,
            delete: delete?,
            capture: capture?,
            reveal,
            life,
            until_as,
            renew_before,
        })
    }

    /// Where the secret of its deliveries comes from.
    pub fn secret(&self) -> SecretOf {
        match (&self.capture.secret, &self.reveal) {
            (_, Some(_)) => SecretOf::Question,
            (Some(_), None) => SecretOf::Creation,
            (None, None) => SecretOf::Bridge,
        }
    }
}

impl SubscriptionList {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<SubscriptionList> {
        let item = vocabulary.item();
        let hook = Attributes::only(["url", "number"]);
        let request = table
            .need_table("request")
            .and_then(|request| Request::read(request, &vocabulary.paged().with("hook", hook)));
        let items = table.need_expr("items", &vocabulary.reply());
        let page = match table.table("page") {
            Some(page) => Paging::read(page, vocabulary, &item),
            None => Some(Paging::single()),
        };
        let (id, url) = (table.need_expr("id", &item), table.need_expr("url", &item));
        let (topic, expires) = (table.expr("topic", &item), table.expr("expires", &item));
        table.finish();
        Some(SubscriptionList {
            request: request?,
            items: items?,
            page: page?,
            id: id?,
            url: url?,
            topic,
            expires,
        })
    }
}

impl Capture {
    fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Capture> {
        let reply = vocabulary.reply();
        let id = table.need_expr("id", &reply);
        let (secret, expires) = (table.expr("secret", &reply), table.expr("expires", &reply));
        table.finish();
        Some(Capture {
            id: id?,
            secret,
            expires,
        })
    }
}
