//! Salesforce's outbound messages through the front: XML in, its acknowledgement out, and nothing for who knows the URL alone.

use super::*;

const ACK: &str = "<Ack>true</Ack>";

/// A message as Salesforce sends it.
fn message(id: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>
<notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>00D5g000000AAAAEA4</OrganizationId>
<Notification><Id>04l5g00000AAAAA</Id><sObject xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>{id}</sf:Id></sObject>
</Notification></notifications></soapenv:Body></soapenv:Envelope>"#
    )
}

on_both!(
    a_message_is_acknowledged_once_it_is_taken_and_only_then,
    |backend| async move {
        let case = case("salesforce");
        let crm = case.crm(30).await;
        let bridge = Bridge::start(backend, &crm, &case.settings(&crm, "1h")).await;
        let scene = Scene::new(case, &crm, bridge);
        scene.build().await;
        let first = scene.run(None).await;
        let account = scene.bridge.account().await;
        let keys = &scene.bridge.keys;
        let (url, secret) = (
            format!("{}/crm/webhooks/{}", scene.bridge.url, keys.hook_id(&account)),
            keys.hook_secret(&account),
        );
        let send = |url: String, body: String| {
            let call = scene
                .bridge
                .http
                .post(url)
                .header("content-type", "text/xml; charset=utf-8");
            let call = call.header("soapaction", "\"\"").body(body).send();
            async move {
                let reply = call.await.expect("an answer");
                let kind = reply.headers().get("content-type").and_then(|kind| kind.to_str().ok());
                let kind = kind.unwrap_or_default().to_owned();
                (reply.status().as_u16(), kind, reply.text().await.expect("a text"))
            }
        };
        crm.crm.control(renamed(&[7], "Told")).done();
        let id = scene.id("7");
        for (url, body, refused) in [
            (url.clone(), message(&id), 401),
            (format!("{url}?key=guessed"), message(&id), 401),
            (format!("{url}?key={secret}"), "<Envelope>".to_owned(), 400),
            (format!("{url}?key={secret}"), json!({"Id": id}).to_string(), 400),
        ] {
            let (status, _, text) = send(url, body).await;
            assert_eq!(status, refused, "{text}");
            assert!(!text.contains(ACK), "{text}");
        }
        assert!(scene.run(Some(&first.checkpoint)).await.contacts.is_empty());

        let (status, kind, text) = send(format!("{url}?key={secret}"), message(&id)).await;
        assert_eq!((status, kind.as_str()), (200, "text/xml"), "{text}");
        assert!(text.contains(ACK), "{text}");
        let edited = BTreeSet::from([id]);
        until("the edit arrives", || async {
            scene.run(Some(&first.checkpoint)).await.ids() == edited
        })
        .await;
        scene.bridge.stop().await;
    }
);
