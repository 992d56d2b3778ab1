//! One link of ours among the links of others. Web1on1's PATCH replaces arrays, so whoever writes `links` writes all of them:
//! what others put there stays as it was, in its place.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A link as it is to stand at a contact (Web1on1 recipe, "Links in the Web1on1 UI").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub label: String,
    pub url: String,
    /// Address of a small picture; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub icon: String,
}

/// By what our links are known again: exactly, as what others put there is not ours to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// How our addresses are made today.
    pub template: Option<UrlTemplate>,
    /// Addresses that were written for this record, also by another template.
    pub shown: Vec<String>,
}

impl Own {
    fn is(&self, link: &Value) -> bool {
        let Some(url) = link.get("url").and_then(Value::as_str) else {
            return false;
        };
        let template = self.template.as_ref();
        self.shown.iter().any(|shown| shown == url) || template.is_some_and(|template| template.id_of(url).is_some())
    }

    /// Ours among `links`, the first one.
    pub fn find<'a>(&self, links: &'a [Value]) -> Option<&'a Value> {
        links.iter().find(|link| self.is(link))
    }
}

/// What a merge comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Merged {
    /// It stands there already, and once: nothing is to be written.
    Same,
    /// All links, as they are to be written.
    Write(Vec<Value>),
}

/// The links of a contact with ours among them, once: put in the place of what stands there of ours, else at the end.
pub fn merge(links: &[Value], own: &Own, wanted: &Link) -> Merged {
    let is_ours = |link: &Value| own.is(link) || link.get("url").and_then(Value::as_str) == Some(&wanted.url);
    let mut placed = false;
    let mut merged = Vec::with_capacity(links.len() + 1);
    for link in links {
        if !is_ours(link) {
            merged.push(link.clone());
        } else if !placed {
            placed = true;
            merged.push(wanted.over(link));
        }
    }
    if !placed {
        merged.push(wanted.over(&Value::Null));
    }
    if merged == links {
        Merged::Same
    } else {
        Merged::Write(merged)
    }
}

/// The links of a contact without ours.
pub fn without(links: &[Value], own: &Own) -> Merged {
    let left: Vec<Value> = links.iter().filter(|link| !own.is(link)).cloned().collect();
    if left.len() == links.len() {
        Merged::Same
    } else {
        Merged::Write(left)
    }
}

impl Link {
    /// What the other system keeps beside label, address and icon (an id of its own) stays.
    fn over(&self, present: &Value) -> Value {
        let mut link: Map<String, Value> = present.as_object().cloned().unwrap_or_default();
        link.insert("label".into(), json!(self.label));
        link.insert("url".into(), json!(self.url));
        if self.icon.is_empty() {
            link.remove("icon");
        } else {
            link.insert("icon".into(), json!(self.icon));
        }
        Value::Object(link)
    }
}

/// An address with one place for an id: `https://dms.example/customer/{id}/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    before: String,
    after: String,
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("needs its {{{0}}} once, behind the host")]
    Place(&'static str),
    #[error("must begin with https:// or http:// and a host")]
    Scheme,
    #[error("holds a character that no address has, or another place in braces")]
    Character,
}

impl UrlTemplate {
    /// `name`: what stands in the braces.
    pub fn parse(text: &str, name: &'static str) -> Result<UrlTemplate, BadTemplate> {
        let text = text.trim();
        let place = format!("{{{name}}}");
        let (before, after) = text.split_once(&place).ok_or(BadTemplate::Place(name))?;
        if after.contains(&place) {
            return Err(BadTemplate::Place(name));
        }
        let rest = ["https://", "http://"]
            .into_iter()
            .find_map(|scheme| before.strip_prefix(scheme));
        let rest = rest.ok_or(BadTemplate::Scheme)?;
        // An id in the host would let who chooses ids choose where people are led.
        match rest.find(['/', '?', '#']) {
            Some(0) => return Err(BadTemplate::Scheme),
            Some(_) => {}
            None => return Err(BadTemplate::Place(name)),
        }
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '{' | '}' | '<' | '>' | '"' | '`' | '\\' | '^' | '|');
        if before.chars().chain(after.chars()).any(odd) {
            return Err(BadTemplate::Character);
        }
        Ok(UrlTemplate {
            before: before.to_owned(),
            after: after.to_owned(),
        })
    }

    /// The address of one record. The id is percent-encoded, so it stays within its place.
    pub fn render(&self, id: &str) -> String {
        let mut url = self.before.clone();
        for byte in id.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
                byte => url.push_str(&format!("%{byte:02X}")),
            }
        }
        url.push_str(&self.after);
        url
    }

    /// What all addresses of it begin with.
    pub fn prefix(&self) -> &str {
        &self.before
    }

    /// The id in an address that was made with it.
    pub fn id_of(&self, url: &str) -> Option<String> {
        let id = url.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let mut bytes = Vec::with_capacity(id.len());
        let mut rest = id.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let hex = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
                }
                byte => byte,
            });
        }
        // Another spelling of the same bytes was not made here.
        String::from_utf8(bytes).ok().filter(|id| self.render(id) == url)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(url: &str) -> Link {
        Link {
            label: "View in DMS".into(),
            url: url.into(),
            icon: "https://dms.example/i.png".into(),
        }
    }

    fn own() -> Own {
        Own {
            template: UrlTemplate::parse("https://dms.example/customer/{id}/", "id").ok(),
            shown: vec!["https://old.example/customer/1".into()],
        }
    }

    /// Links of others and of ours, as they may be found.
    fn any_link() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({"label": "Existing", "url": "https://a.example/1", "icon": "x", "id": 7})),
            Just(json!({"label": "View in CRM", "url": "https://crm.example/c/1"})),
            Just(json!({"label": "View in DMS", "url": "https://old.example/customer/1"})),
            Just(json!({"label": "DMS", "url": "https://dms.example/customer/2/", "id": 9})),
            Just(json!({"label": "View in DMS", "url": "https://dms.example/customer/2/orders"})),
            Just(json!({"url": 5})),
            Just(json!(null)),
        ]
    }

    fn others(links: &[Value]) -> Vec<&Value> {
        links.iter().filter(|link| !own().is(link)).collect()
    }

    proptest! {
        #[test]
        fn ours_stands_once_and_the_others_as_they_were(
            links in prop::collection::vec(any_link(), 0..6), ids in prop::collection::vec(0..3u8, 1..4),
        ) {
            let mut now = links.clone();
            for id in &ids {
                let wanted = link(&format!("https://dms.example/customer/{id}/"));
                if let Merged::Write(merged) = merge(&now, &own(), &wanted) {
                    prop_assert_ne!(&merged, &now);
                    now = merged;
                }
                prop_assert_eq!(others(&now), others(&links));
                prop_assert_eq!(now.iter().filter(|link| own().is(link)).count(), 1);
                prop_assert_eq!(&own().find(&now).unwrap()["url"], &json!(wanted.url));
                prop_assert_eq!(merge(&now, &own(), &wanted), Merged::Same, "a second time writes nothing");
            }
            match without(&now, &own()) {
                Merged::Write(left) => {
                    prop_assert_eq!(left.iter().collect::<Vec<_>>(), others(&links));
                    prop_assert_eq!(without(&left, &own()), Merged::Same);
                }
                Merged::Same => prop_assert!(false, "ours was there"),
            }
        }

        #[test]
        fn an_id_stays_in_its_place_and_is_read_again(id in ".{1,30}") {
            let template = UrlTemplate::parse("https://dms.example/customer/{id}/?tab=1", "id").unwrap();
            let url = template.render(&id);
            let middle = &url[template.prefix().len()..url.len() - "/?tab=1".len()];
            prop_assert!(middle.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{}", url);
            prop_assert_eq!(template.id_of(&url), Some(id));
        }

        #[test]
        fn what_was_not_made_here_has_no_id(url in "https://dms.example/customer/[a-z%/]{0,8}") {
            let template = UrlTemplate::parse("https://dms.example/customer/{id}/", "id").unwrap();
            if let Some(id) = template.id_of(&url) {
                prop_assert_eq!(template.render(&id), url);
            }
        }
    }

    #[test]
    fn what_others_keep_at_our_link_stays() {
        let links = [json!({"label": "View in DMS", "url": "https://dms.example/customer/1/", "id": 9, "icon": "old"})];
        let Merged::Write(merged) = merge(&links, &own(), &link("https://dms.example/customer/2/")) else {
            panic!("another address")
        };
        assert_eq!(
            merged,
            [
                json!({"label": "View in DMS", "url": "https://dms.example/customer/2/", "id": 9, "icon": "https://dms.example/i.png"})
            ]
        );
    }

    #[test]
    fn without_a_key_to_know_them_by_nothing_is_ours_but_the_same_address() {
        let nothing = Own::default();
        let links = [
            json!({"label": "", "url": "https://a.example/"}),
            json!({"label": "View in DMS", "url": "https://b.example/"}),
        ];
        assert_eq!(without(&links, &nothing), Merged::Same);
        let Merged::Write(merged) = merge(&links, &nothing, &link("https://b.example/")) else {
            panic!("no icon yet")
        };
        assert_eq!(merged.len(), 2);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, why) in [
            ("https://dms.example/customer", BadTemplate::Place("id")),
            ("https://dms.example/{id}/{id}", BadTemplate::Place("id")),
            ("https://{id}.example/", BadTemplate::Place("id")),
            ("https://dms.example{id}", BadTemplate::Place("id")),
            ("https:///{id}", BadTemplate::Scheme),
            ("javascript:alert({id})", BadTemplate::Scheme),
            ("/customer/{id}", BadTemplate::Scheme),
            ("https://dms.example/{org}/{id}", BadTemplate::Character),
            ("https://dms.example/a b/{id}", BadTemplate::Character),
        ] {
            assert_eq!(UrlTemplate::parse(text, "id"), Err(why), "{text}");
        }
        assert_eq!(
            BadTemplate::Place("id").to_string(),
            "needs its {id} once, behind the host"
        );
    }
}
