//! The `[link]` of the shipped connectors against stateful fakes of both sides: Web1on1, and a Dealer Management System that
//! is the demo CRM or Odoo.

use contacts::ErrorKind;
use contacts::linking::{Link, Matched, Merged, Needle, Own, UrlTemplate, matched, merge};
use crm::{Client, Connector, LinkTo, Linked, Pacer};
use fake_crm::{AccountOptions, Change, Control, FakeCrm, Fields, Options, Profile, Row};
use serde_json::{Value, json};

use crate::support::{client_with, serve};

const ICON: &str = "https://dms.example/favicon.ico";

/// Both sides, which know the same people.
struct Sides {
    crm: FakeCrm,
    chat: Client,
    dms: Client,
    dms_profile: Profile,
}

async fn sides(dms_profile: Profile, contacts: usize) -> Sides {
    let account = |name: &str, profile, like: Option<&str>| AccountOptions {
        name: name.to_owned(),
        profile,
        like: like.map(str::to_owned),
        token: format!("{name}-token"),
        contacts,
        users: 3,
        limit: None,
        ..AccountOptions::default()
    };
    let crm = FakeCrm::new(Options {
        accounts: vec![
            account("dms", dms_profile, None),
            account("chat", Profile::Web1on1, Some("dms")),
        ],
        ..Options::default()
    });
    crm.knobs("chat", |knobs| {
        for name in ["second", "address"] {
            knobs.limits.insert(name.to_owned(), None);
        }
    });
    let origin = serve(crm.router()).await;
    let client = |id: &str, fields: &[(&str, &str)]| {
        let source = Connector::shipped(id).expect("it is shipped");
        let connector = Connector::load(source, id).expect("it loads");
        client_with(connector, &origin, fields, Default::default(), Pacer::unlimited()).expect("a client")
    };
    let dms = match dms_profile {
        Profile::Odoo => client("odoo", &[("db", "dms"), ("login", "any"), ("api_key", "dms-token")]),
        _ => client("demo", &[("account", "dms"), ("token", "dms-token")]),
    };
    let organization = Profile::Web1on1.organization_id("chat");
    Sides {
        chat: client(
            "web1on1",
            &[("bot_token", "chat-token"), ("organization", &organization)],
        ),
        crm,
        dms,
        dms_profile,
    }
}

impl Sides {
    fn organization(&self) -> String {
        Profile::Web1on1.organization_id("chat")
    }

    fn edit(&self, account: &str, id: u64, fields: Fields) {
        let change = Change::ids([id]).with(fields);
        self.crm.control(Control::edit(account, change)).done();
    }

    /// The contact that bears an address, by the operator's id.
    fn row(&self, account: &str, id: &str) -> Row {
        let rows = self.crm.truth(account);
        rows.into_iter().find(|row| row.id == id).expect("it is there")
    }
}

fn url_of(row: &Row) -> String {
    format!("https://dms.example/customer/{}/", row.id)
}

async fn meant(client: &Client, needle: &Needle, organization: Option<&str>) -> Matched {
    let found: Vec<Linked> = client.find_linked(needle, organization).await.expect("an answer");
    matched(found.iter().map(|linked| linked.id.as_str()))
}

/// What is written keeps the person unless it says otherwise.
fn kept(read: &Linked) -> LinkTo {
    LinkTo {
        id: read.id.clone(),
        links: read.links.clone().unwrap_or_default(),
        record: read.record.clone(),
        ..LinkTo::default()
    }
}

/// Links everybody who is known by an address on both sides; says how many.
async fn link_all(sides: &Sides) -> usize {
    let organization = sides.organization();
    let own = Own {
        template: UrlTemplate::parse("https://dms.example/customer/{id}/", "id").ok(),
        shown: Vec::new(),
    };
    let mut linked = 0;
    for row in sides.crm.truth("dms") {
        let email = row.emails.iter().map(|email| email.trim().to_lowercase());
        let Some(email) = email.into_iter().find(|email| email.contains('@')) else {
            continue;
        };
        let needle = Needle::Email(email);
        let at_chat = meant(&sides.chat, &needle, Some(&organization)).await;
        let at_dms = meant(&sides.dms, &needle, None).await;
        let (Matched::One(chat), Matched::One(dms)) = (at_chat, at_dms) else {
            continue;
        };
        let read = sides
            .chat
            .read_linked(&chat, Some(&organization))
            .await
            .expect("it is there");
        let conversation = read.conversation.clone().expect("it has one");
        let wanted = Link {
            label: "View in DMS".to_owned(),
            url: url_of(&row),
            icon: ICON.to_owned(),
        };
        if let Merged::Write(links) = merge(read.links.as_deref().unwrap_or_default(), &own, &wanted) {
            let to = LinkTo { links, ..kept(&read) };
            sides.chat.write_link(&to).await.expect("it is written");
        }
        let read = sides.dms.read_linked(&dms, None).await.expect("it is there");
        let url = format!("https://app.web1on1.chat/conversations/{conversation}");
        if read.url.as_ref() != Some(&url) {
            let to = LinkTo {
                url: Some(url),
                conversation: Some(conversation),
                organization: Some(organization.clone()),
                ..kept(&read)
            };
            sides.dms.write_link(&to).await.expect("it is written");
        }
        linked += 1;
    }
    linked
}

#[tokio::test]
async fn each_pair_carries_one_link_on_each_side_and_keeps_everything_else() {
    for profile in [Profile::House, Profile::Odoo] {
        let sides = sides(profile, 30).await;
        let others =
            vec![json!({"label": "Existing", "url": "https://a.example/1", "icon": "https://a.example/i.png"})];
        for id in 1..=30 {
            sides.edit(
                "chat",
                id,
                Fields {
                    links: Some(others.clone()),
                    ..Fields::default()
                },
            );
        }
        let (dms_before, chat_before) = (sides.crm.truth("dms"), sides.crm.truth("chat"));
        let linked = link_all(&sides).await;
        assert!(linked > 15, "{profile}: {linked}");
        let writes = |account| sides.crm.stats(account).calls_of("contacts.update");
        assert_eq!((writes("dms"), writes("chat")), (linked as u64, linked as u64));
        assert_eq!(link_all(&sides).await, linked);
        assert_eq!(
            (writes("dms"), writes("chat")),
            (linked as u64, linked as u64),
            "once is enough"
        );

        let plain = |row: &Row| Row {
            web1on1: None,
            links: Vec::new(),
            modified_at: String::new(),
            version: 0,
            ..row.clone()
        };
        let mut pairs = 0;
        for (dms, chat) in sides.crm.truth("dms").iter().zip(sides.crm.truth("chat")) {
            assert_eq!(dms.id, chat.id);
            let ours: Vec<&Value> = chat
                .links
                .iter()
                .filter(|link| link["label"] == "View in DMS")
                .collect();
            assert_eq!(
                chat.links[0], others[0],
                "{profile}: those of others stay where they were"
            );
            let Some(link) = &dms.web1on1 else {
                assert!(ours.is_empty());
                continue;
            };
            pairs += 1;
            let conversation = Profile::Web1on1.conversation_id(&chat.id).expect("it has one");
            assert_eq!(
                link.url,
                Some(format!("https://app.web1on1.chat/conversations/{conversation}"))
            );
            assert_eq!(link.organization, Some(sides.organization()));
            assert_eq!(
                ours,
                [&json!({"label": "View in DMS", "url": url_of(dms), "icon": ICON})]
            );
        }
        assert_eq!(pairs, linked);
        let same = |before: &[Row], account| {
            let now: Vec<Row> = sides.crm.truth(account).iter().map(plain).collect();
            now == before.iter().map(plain).collect::<Vec<_>>()
        };
        assert!(same(&dms_before, "dms"), "{profile}");
        assert!(same(&chat_before, "chat"), "{profile}: the profile was not touched");
    }
}

#[tokio::test]
async fn a_persons_fields_arrive_and_the_rest_of_the_person_stays() {
    for profile in [Profile::House, Profile::Odoo] {
        let sides = sides(profile, 3).await;
        let fields = || Fields {
            first_name: Some("Ines".to_owned()),
            last_name: Some("Marchetti".to_owned()),
            company: Some("Nordlys AS".to_owned()),
            job_title: Some("Buyer".to_owned()),
            emails: Some(vec!["ines@nordlys.example".to_owned(), "ines@home.example".to_owned()]),
            phones: Some(vec!["22 33 44 55".to_owned()]),
            ..Fields::default()
        };
        for account in ["dms", "chat"] {
            sides.edit(account, 2, fields());
        }
        let organization = sides.organization();
        let at_chat = Needle::Email("ines@nordlys.example".to_owned());
        let at_dms = Needle::Phone("+351223344556".to_owned());
        assert_eq!(meant(&sides.dms, &at_dms, None).await, Matched::Nobody);
        let at_dms = Needle::Phone("22334455".to_owned());
        let changed = |read: &Linked| LinkTo {
            name: Some("Ines de la Cruz".to_owned()),
            email: Some("new@nordlys.example".to_owned()),
            phone: Some("+4722000000".to_owned()),
            ..kept(read)
        };
        for (client, needle, organization) in [
            (&sides.chat, &at_chat, Some(organization.as_str())),
            (&sides.dms, &at_dms, None),
        ] {
            let Matched::One(id) = meant(client, needle, organization).await else {
                panic!("{profile}: one is meant");
            };
            let read = client.read_linked(&id, organization).await.expect("it is there");
            client.write_link(&changed(&read)).await.expect("it is written");
            let read = client.read_linked(&id, organization).await.expect("it is there");
            assert_eq!(read.name.as_deref(), Some("Ines de la Cruz"), "{profile}");
            assert_eq!(read.emails.first().map(String::as_str), Some("new@nordlys.example"));
            assert_eq!(read.phones.first().map(String::as_str), Some("+4722000000"));
        }
        let (dms, chat) = (sides.row("dms", "2"), sides.row("chat", "2"));
        assert_eq!(
            (chat.company.as_str(), chat.job_title.as_str()),
            ("Nordlys AS", "Buyer")
        );
        assert_eq!((dms.company.as_str(), dms.job_title.as_str()), ("Nordlys AS", "Buyer"));
        assert_eq!(
            (dms.first_name.as_str(), dms.last_name.as_str()),
            ("Ines", "de la Cruz")
        );
        let emails = dms.emails.join(",").replace(' ', "");
        assert_eq!(
            emails, "new@nordlys.example,ines@home.example",
            "{profile}: further addresses stay"
        );
    }
}

#[tokio::test]
async fn who_is_gone_is_missing_and_a_link_is_taken_away() {
    for profile in [Profile::House, Profile::Odoo] {
        let sides = sides(profile, 4).await;
        let (chat, dms) = (Profile::Web1on1.contact_id("2"), sides.dms_profile.contact_id("2"));
        for (client, id) in [(&sides.chat, &chat), (&sides.dms, &dms)] {
            let read = client.read_linked(id, None).await.expect("it is there");
            let to = LinkTo {
                url: Some("https://x.example/1".to_owned()),
                links: vec![json!({"label": "L", "url": "https://x.example/1"})],
                ..kept(&read)
            };
            client.write_link(&to).await.expect("it is written");
        }
        assert_eq!(sides.row("chat", "2").links.len(), 1);
        assert!(sides.row("dms", "2").web1on1.is_some());
        for (client, id) in [(&sides.chat, &chat), (&sides.dms, &dms)] {
            let to = LinkTo {
                id: id.clone(),
                ..LinkTo::default()
            };
            client.write_link(&to).await.expect("it is taken away");
        }
        assert!(sides.row("chat", "2").links.is_empty());
        assert_eq!(sides.row("dms", "2").web1on1, None);
        for (account, client, id) in [("chat", &sides.chat, &chat), ("dms", &sides.dms, &dms)] {
            sides.crm.control(Control::delete(account, Change::ids([2]))).done();
            let read = client.read_linked(id, None).await.expect_err("it is gone");
            assert_eq!(read.kind, ErrorKind::Missing, "{profile} {account}");
            let to = LinkTo {
                id: id.clone(),
                ..LinkTo::default()
            };
            let wrote = client.write_link(&to).await.expect_err("it is gone");
            assert_eq!(wrote.kind, ErrorKind::Missing, "{profile} {account}");
        }
    }
}
