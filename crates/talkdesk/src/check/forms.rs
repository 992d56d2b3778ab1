//! Forms in which the same request may come: fields absent, null, empty, typed otherwise.

use serde_json::{Map, Value, json};

use super::Check;
use super::call::{Ask, Stop};
use super::meaning::Suspicion;
use super::rules::{
    CHECKPOINT_NUMBER, CHECKPOINT_UNREADABLE, CONTEXT_FOREIGN, CONTEXT_NEEDED, CONTEXT_NULL, NEXT_PAGE, NEXT_RUN,
    OFFSET_ALONE, OFFSET_NUMBER, OFFSET_UNREADABLE, REQUEST_EMPTY, REQUEST_META, REQUEST_NULL, REQUEST_NUMBER,
    REQUEST_TYPE, REQUEST_UNKNOWN, RESTART, Rule,
};
use super::runs::{listed, missing, owned};
use super::sync::{Got, Meta, Page, Row, Walk};

/// A text that no bridge has given out.
const UNREADABLE: &str = "snapbridge-check: not one of yours";

/// How often a form must differ.
const LOOKS: usize = 2;

/// A request that should bring a known page.
struct Form {
    rule: &'static Rule,
    what: &'static str,
    ask: Ask,
}

impl Form {
    fn new(rule: &'static Rule, what: &'static str, body: &Value) -> Self {
        let ask = Ask::json(body);
        Self { rule, what, ask }
    }
}

impl Check {
    pub(super) async fn forms(&mut self, reference: &Walk) -> Result<(), Stop> {
        if self.findings.has(&RESTART) || reference.pages.is_empty() {
            let why = "a run cannot be begun anew";
            self.findings.skip("forms of the request", why);
            return Ok(());
        }
        for form in self.first_page_forms() {
            self.compare(&form, &Meta::default(), "initial sync, page 1").await?;
        }
        let checkpoint = reference.pages[0].checkpoint.as_deref().unwrap_or_default();
        if let Some(number) = number(checkpoint).filter(|_| !self.findings.has(&NEXT_RUN)) {
            let body = self.body(&json!({"synchronization_checkpoint": number}));
            let form = Form::new(&CHECKPOINT_NUMBER, "with its checkpoint as a JSON number", &body);
            self.compare(&form, &Meta::from(checkpoint), "next run, page 1").await?;
        }
        if reference.pages.len() > 1 && !self.findings.has(&NEXT_PAGE) {
            self.second_page_forms().await?;
        }
        self.unreadable_offset().await
    }

    fn first_page_forms(&self) -> Vec<Form> {
        let auth = &self.auth;
        let plain = self.body(&json!({}));
        let mut forms = vec![
            Form::new(&REQUEST_META, "without `meta`", &json!({"auth": auth})),
            Form::new(&REQUEST_META, "with a null `meta`", &self.body(&Value::Null)),
            Form::new(
                &REQUEST_NULL,
                "with a null checkpoint",
                &self.body(&json!({"synchronization_checkpoint": null})),
            ),
            Form::new(
                &REQUEST_NULL,
                "with a null offset",
                &self.body(&json!({"offset": null})),
            ),
            Form::new(
                &REQUEST_EMPTY,
                "with an empty checkpoint",
                &self.body(&json!({"synchronization_checkpoint": ""})),
            ),
            Form::new(
                &REQUEST_EMPTY,
                "with an empty offset",
                &self.body(&json!({"offset": ""})),
            ),
            Form::new(
                &CONTEXT_NULL,
                "with a null context",
                &self.body(&json!({"context": null})),
            ),
            Form::new(
                &CONTEXT_FOREIGN,
                "with a context of nobody's",
                &self.body(&json!({"context": [1, {"a": null}]})),
            ),
            Form::new(
                &REQUEST_UNKNOWN,
                "with an unknown key",
                &json!({"auth": auth, "meta": {}, "snapbridge_check": [1]}),
            ),
            Form::new(
                &REQUEST_UNKNOWN,
                "with an unknown key in `meta`",
                &self.body(&json!({"snapbridge_check": {"a": null}})),
            ),
        ];
        for (what, name) in [
            (
                "as application/json; charset=utf-8",
                Some("application/json; charset=utf-8"),
            ),
            ("as text/plain", Some("text/plain")),
            ("without a Content-Type", None),
        ] {
            let ask = Ask::json(&plain).content_type(name);
            forms.push(Form {
                rule: &REQUEST_TYPE,
                what,
                ask,
            });
        }
        if let Some(typed) = with_numbers(auth) {
            let body = json!({"auth": typed, "meta": {}});
            forms.push(Form::new(&REQUEST_NUMBER, "with a number in `auth`", &body));
        }
        if !self.findings.has(&NEXT_RUN) {
            let body = self.body(&json!({"synchronization_checkpoint": UNREADABLE}));
            forms.push(Form::new(
                &CHECKPOINT_UNREADABLE,
                "with a checkpoint of nobody's",
                &body,
            ));
        }
        forms
    }

    /// A form beside the same request in its plain form, `meta`; what differs is compared anew.
    async fn compare(&mut self, form: &Form, meta: &Meta, place: &str) -> Result<(), Stop> {
        for look in 1..=LOOKS {
            let Got::Page(plain) = self.page(meta, place).await? else {
                return Ok(());
            };
            let Some((rule, seen)) = self.differs(form, &plain, place).await? else {
                return Ok(());
            };
            if look == LOOKS {
                self.findings.add(rule, seen);
            }
        }
        Ok(())
    }

    /// What the form lacks of `plain`, if it brings a page at all.
    async fn differs(&mut self, form: &Form, plain: &Page, place: &str) -> Result<Option<Suspicion>, Stop> {
        let what = format!("{place}, {}", form.what);
        let seen = match self.page_of(&form.ask, plain.meta.clone(), &what).await? {
            Got::Page(page) => {
                let mut lost = owned(missing(plain.rows.iter(), &page.rows));
                if !lost.is_empty() {
                    // An edit may have moved them; then they are not where they were.
                    let again = self.plain_again(plain, place).await?;
                    lost.retain(|id| again.iter().any(|row| row.id == *id));
                }
                listed(&lost).map(|ids| format!("{what}: lacks {ids}"))
            }
            Got::Refused(_, why) => Some(format!("{what}: {why}")),
            Got::Broken => None,
        };
        Ok(seen.map(|seen| (form.rule, seen)))
    }

    async fn plain_again(&mut self, plain: &Page, place: &str) -> Result<Vec<Row>, Stop> {
        let again = match plain.meta.offset {
            Some(_) => self.second_page().await?,
            None => match self.page(&plain.meta, place).await? {
                Got::Page(page) => Some(page),
                _ => None,
            },
        };
        Ok(again.map(|page| page.rows).unwrap_or_default())
    }

    /// Each form in a run of its own: a bridge may serve a page once only, which is another rule.
    async fn second_page_forms(&mut self) -> Result<(), Stop> {
        const PLACE: &str = "initial sync, page 2";
        for index in 0.. {
            for look in 1..=LOOKS {
                let Some(plain) = self.second_page().await? else {
                    return Ok(());
                };
                let Got::Page(first) = self.page(&Meta::default(), "initial sync, page 1").await? else {
                    return Ok(());
                };
                let mut forms = self.next_page_forms(&first);
                if index >= forms.len() {
                    return Ok(());
                }
                let Some((rule, seen)) = self.differs(&forms.swap_remove(index), &plain, PLACE).await? else {
                    break;
                };
                if look == LOOKS {
                    self.findings.add(rule, seen);
                }
            }
        }
        Ok(())
    }

    /// The plain second page of a fresh run.
    async fn second_page(&mut self) -> Result<Option<Page>, Stop> {
        let Got::Page(first) = self.page(&Meta::default(), "initial sync, page 1").await? else {
            return Ok(None);
        };
        let Some(next) = first.next_meta() else {
            return Ok(None);
        };
        Ok(match self.page(&next, "initial sync, page 2").await? {
            Got::Page(second) => Some(second),
            _ => None,
        })
    }

    fn next_page_forms(&self, first: &Page) -> Vec<Form> {
        let Some(next) = first.next_meta() else {
            return Vec::new();
        };
        let with = |key: &str, value: Value| {
            let mut meta = next.json();
            meta[key] = value;
            self.body(&meta)
        };
        let mut forms = Vec::new();
        if let Some(checkpoint) = &first.checkpoint {
            let body = with("synchronization_checkpoint", json!(checkpoint));
            forms.push(Form::new(
                &OFFSET_ALONE,
                "with the checkpoint of page 1 beside its offset",
                &body,
            ));
        }
        let offset = next.offset.as_deref().unwrap_or_default();
        if let Some(number) = number(offset) {
            forms.push(Form::new(
                &OFFSET_NUMBER,
                "with its offset as a JSON number",
                &with("offset", number),
            ));
        }
        if first.context.as_ref().is_none_or(Value::is_null) {
            let body = with("context", Value::Null);
            forms.push(Form::new(&CONTEXT_NULL, "with a null context", &body));
        } else {
            let meta = Meta { context: None, ..next };
            forms.push(Form::new(
                &CONTEXT_NEEDED,
                "without its context",
                &self.body(&meta.json()),
            ));
        }
        forms
    }

    async fn unreadable_offset(&mut self) -> Result<(), Stop> {
        let body = self.body(&json!({"offset": UNREADABLE}));
        let url = self.plan.url.clone();
        let answer = self.ask_refusal(&url, &Ask::json(&body)).await?;
        if !answer.is_refusal() {
            let seen = format!("initial sync, with an offset of nobody's: {}", answer.told());
            self.findings.add(&OFFSET_UNREADABLE, seen);
        }
        Ok(())
    }
}

/// The text's JSON number, if it is an integer's only way of writing.
fn number(text: &str) -> Option<Value> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then(|| number.into())
}

/// The same credentials with integers as JSON numbers; `None` where there are none.
fn with_numbers(auth: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut typed = auth.clone();
    let mut any = false;
    for value in typed.values_mut() {
        if let Some(number) = value.as_str().and_then(number) {
            *value = number;
            any = true;
        }
    }
    any.then_some(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_that_are_plain_integers_become_numbers() {
        assert_eq!((number("17"), number("-3")), (Some(json!(17)), Some(json!(-3))));
        for text in ["", "007", "+1", "1.5", "1e3", "99999999999999999999", "v1"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
