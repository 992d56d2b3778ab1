//! The body of a delivery as JSON, whatever form the sender writes.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Map, Value as Json};

use crate::spec::Decode;

/// Elements of an XML body beyond which it is refused, and how deep they may lie in each other.
const MOST_NODES: u32 = 100_000;
const DEEPEST: usize = 64;

/// `None`: it is not of that form.
pub(super) fn decode(form: Decode, body: &[u8]) -> Option<Json> {
    match form {
        Decode::Json => serde_json::from_slice(body).ok(),
        Decode::Form => Some(form_fields(body)),
        Decode::Xml => xml(std::str::from_utf8(body).ok()?),
    }
}

/// Fields by name; one that comes several times is a list.
fn form_fields(body: &[u8]) -> Json {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        add(&mut fields, &name, Json::String(value.into_owned()));
    }
    Json::Object(fields)
}

/// Elements by their local names: those with elements in them are objects, others are texts. One that comes several times is
/// a list, so `[x]|flatten` reads one and many alike. Attributes are `@name`. Document type declarations, and with them all
/// entities of the sender's own, are refused.
fn xml(text: &str) -> Option<Json> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).ok()?;
    let root = document.root_element();
    let mut body = Map::new();
    body.insert(root.tag_name().name().to_owned(), element(root, 1)?);
    Some(Json::Object(body))
}

fn element(node: Node<'_, '_>, depth: usize) -> Option<Json> {
    if depth > DEEPEST {
        return None;
    }
    let mut fields = Map::new();
    for child in node.children().filter(Node::is_element) {
        let value = element(child, depth + 1)?;
        add(&mut fields, child.tag_name().name(), value);
    }
    if fields.is_empty() {
        let text: String = node.children().filter_map(|child| child.text()).collect();
        return Some(Json::String(text.trim().to_owned()));
    }
    for attribute in node.attributes() {
        fields.insert(format!("@{}", attribute.name()), attribute.value().into());
    }
    Some(Json::Object(fields))
}

fn add(fields: &mut Map<String, Json>, name: &str, value: Json) {
    match fields.get_mut(name) {
        None => {
            fields.insert(name.to_owned(), value);
        }
        Some(Json::Array(list)) => list.push(value),
        Some(one) => *one = Json::Array(vec![one.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_soap_message_becomes_objects_lists_and_texts() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
             <soapenv:Body><notifications xmlns="http://soap.sforce.com/2005/09/outbound">
              <OrganizationId>00D1</OrganizationId>
              <Notification><Id>04l1</Id><sObject xsi:type="sf:Contact" xmlns:sf="urn:x"><sf:Id>0031</sf:Id><sf:Name>A &amp; B</sf:Name></sObject></Notification>
              <Notification><Id>04l2</Id><sObject xsi:type="sf:Contact" xmlns:sf="urn:x"><sf:Id>0032</sf:Id></sObject></Notification>
             </notifications></soapenv:Body>
            </soapenv:Envelope>"#;
        let body = decode(Decode::Xml, text.as_bytes()).expect("XML");
        let notifications = &body["Envelope"]["Body"]["notifications"];
        assert_eq!(notifications["OrganizationId"], "00D1");
        assert_eq!(
            notifications["Notification"][0]["sObject"],
            json!({ "Id": "0031", "Name": "A & B", "@type": "sf:Contact" })
        );
        assert_eq!(notifications["Notification"][1]["sObject"]["Id"], "0032");
    }

    #[test]
    fn what_could_hurt_is_refused() {
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><x>&b;</x>";
        let outside = "<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><x>&a;</x>";
        let deep = format!("{}{}", "<a>".repeat(200), "</a>".repeat(200));
        let many = format!("<a>{}</a>", "<b/>".repeat(MOST_NODES as usize + 1));
        for text in [bomb, outside, &deep, &many, "<a>", "", "{}", "<a></b>"] {
            assert_eq!(
                decode(Decode::Xml, text.as_bytes()),
                None,
                "{}",
                &text[..text.len().min(40)]
            );
        }
        assert_eq!(decode(Decode::Xml, b"<a>\xff</a>"), None);
    }

    #[test]
    fn a_form_has_fields_and_lists() {
        let body = decode(Decode::Form, b"id=7&tag=a&tag=b%20c&empty=").expect("a form");
        assert_eq!(body, json!({ "id": "7", "tag": ["a", "b c"], "empty": "" }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0..3usize) {
            let form = [Decode::Json, Decode::Form, Decode::Xml][form];
            let _ = decode(form, &bytes);
        }
    }
}
