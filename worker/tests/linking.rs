//! Linking over two systems in memory: whatever happens in whatever order, done once or again, the links come out right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use contacts::inbox::{self, Settled, Urgency};
use contacts::keys::{Identity, Keys, RawKey};
use contacts::linking::records::{self, Side, Trouble};
use contacts::linking::{
    Change, Event, Field, Needle, Owner, Payload, Person, Remove, Seed, Stamp, Tidy, Update, UrlTemplate,
};
use contacts::ports::Scratch;
use contacts::{AccountId, Clock, ErrorKind, Micros, SystemClock};
use crm::{CrmError, CrmResult, LinkTo, Linked, Region, e164};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::MemoryStore;
use worker::Linker;
use worker::linking::{Answer, Listed, Look, Pairing, Rules, System, Told, answer_key};
use worker::source::Handled;

const ORGANIZATION: &str = "5c13";

fn norwegian() -> Option<Region> {
    Region::from_code("NO").ok()
}

/// A person's record in one of the systems.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    name: String,
    email: String,
    phone: String,
    /// Of Web1on1: all links. Of the DMS: at most ours.
    links: Vec<Value>,
    conversation: Option<String>,
}

/// One of the two systems. Web1on1 keeps lists of links, the DMS a place for one.
#[derive(Default)]
struct Memory {
    rows: Mutex<BTreeMap<String, Row>>,
    lists: bool,
    /// Calls that may still be made before all fail; none: no end.
    budget: Mutex<Option<u32>>,
    writes: AtomicU32,
}

impl Memory {
    fn spend(&self) -> CrmResult<()> {
        match &mut *self.budget.lock() {
            Some(0) => Err(CrmError::new(ErrorKind::Unavailable, "away")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn linked(&self, id: &str, row: &Row) -> Linked {
        let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
        Linked {
            id: id.to_owned(),
            organization: self.lists.then(|| ORGANIZATION.to_owned()),
            conversation: row.conversation.clone(),
            name: filled(&row.name),
            emails: filled(&row.email).into_iter().collect(),
            phones: filled(&row.phone).into_iter().collect(),
            links: self.lists.then(|| row.links.clone()),
            url: match self.lists {
                true => None,
                false => row
                    .links
                    .first()
                    .and_then(|link| link["url"].as_str())
                    .map(str::to_owned),
            },
            record: Value::Null,
        }
    }

    fn urls(&self, id: &str) -> Vec<String> {
        let rows = self.rows.lock();
        let links = rows.get(id).map(|row| row.links.clone()).unwrap_or_default();
        links
            .iter()
            .filter_map(|link| link["url"].as_str())
            .map(str::to_owned)
            .collect()
    }

    fn edit(&self, id: &str, edit: impl FnOnce(&mut Row)) {
        edit(self.rows.lock().entry(id.to_owned()).or_default());
    }
}

#[async_trait]
impl System for Memory {
    async fn find(&self, needle: &Needle, _: Option<&str>) -> CrmResult<Vec<Linked>> {
        self.spend()?;
        let rows = self.rows.lock();
        // By text, as Web1on1 compares.
        let bears = |row: &Row| match needle {
            Needle::Email(email) => row.email.eq_ignore_ascii_case(email),
            Needle::Phone(phone) => row.phone == *phone,
        };
        Ok(rows
            .iter()
            .filter(|(_, row)| bears(row))
            .map(|(id, row)| self.linked(id, row))
            .collect())
    }

    async fn read(&self, id: &str, _: Option<&str>) -> CrmResult<Linked> {
        self.spend()?;
        let rows = self.rows.lock();
        let row = rows
            .get(id)
            .ok_or_else(|| CrmError::new(ErrorKind::Missing, "not there"))?;
        Ok(self.linked(id, row))
    }

    async fn write(&self, to: &LinkTo) -> CrmResult<()> {
        self.spend()?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut rows = self.rows.lock();
        let row = rows
            .get_mut(&to.id)
            .ok_or_else(|| CrmError::new(ErrorKind::Missing, "not there"))?;
        row.links = match (self.lists, &to.url) {
            (true, _) => to.links.clone(),
            (false, Some(url)) => vec![json!({"url": url, "organization": to.organization})],
            (false, None) => Vec::new(),
        };
        for (field, value) in [
            (&mut row.name, &to.name),
            (&mut row.email, &to.email),
            (&mut row.phone, &to.phone),
        ] {
            if let Some(value) = value {
                *field = value.clone();
            }
        }
        Ok(())
    }

    async fn page(&self, cursor: Option<&Value>) -> CrmResult<(Vec<Listed>, Option<Value>)> {
        const PAGE: usize = 3;
        self.spend()?;
        let rows = self.rows.lock();
        let from = cursor.and_then(Value::as_u64).unwrap_or_default() as usize;
        let page = rows.iter().skip(from).take(PAGE);
        let listed = page.map(|(id, row)| Listed {
            id: id.clone(),
            email: Some(row.email.clone()),
            phone: Some(row.phone.clone()),
        });
        let next = (from + PAGE < rows.len()).then(|| json!(from + PAGE));
        Ok((listed.collect(), next))
    }

    async fn check(&self) -> CrmResult<()> {
        self.spend()
    }

    async fn rest(&self) {}
}

struct Scene {
    dms: Arc<Memory>,
    web1on1: Arc<Memory>,
    store: MemoryStore,
    keys: Arc<Keys>,
    account: AccountId,
    pairing: Pairing,
}

fn template(text: &str, name: &'static str) -> UrlTemplate {
    UrlTemplate::parse(text, name).expect("a template")
}

impl Scene {
    fn new(owners: &[(Field, Owner)]) -> Scene {
        let raw = |byte| RawKey::new(Box::new([byte; 32]));
        let keys = Arc::new(Keys::new(&raw(1), &[("k".to_owned(), raw(2))]).expect("keys"));
        let account = keys.account_id(&Identity {
            integration: "dealers",
            site: "",
            org: ORGANIZATION,
            principal: "",
        });
        let (dms, web1on1) = (
            Arc::new(Memory::default()),
            Arc::new(Memory {
                lists: true,
                ..Memory::default()
            }),
        );
        let store = MemoryStore::new();
        let pairing = Pairing {
            account: account.clone(),
            store: Arc::new(store.clone()),
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            dms: dms.clone(),
            web1on1: web1on1.clone(),
            rules: Rules {
                organization: ORGANIZATION.into(),
                to_dms: Look {
                    label: "View in DMS".into(),
                    icon: String::new(),
                    url: template("https://dms.example/customer/{id}/", "id"),
                },
                to_web1on1: Look {
                    label: "View in Web1on1".into(),
                    icon: String::new(),
                    url: template("https://app.example/conversations/{conversation}", "conversation"),
                },
                owners: owners.iter().copied().collect(),
                region: norwegian(),
                inbox: 1_000,
                seed_ahead: 4,
            },
        };
        Scene {
            dms,
            web1on1,
            store,
            keys,
            account,
            pairing,
        }
    }

    fn person(&self, n: u32, email: &str, dms_phone: &str, web_phone: &str) {
        self.dms.edit(&format!("d{n}"), |row| {
            (row.email, row.phone) = (email.into(), dms_phone.into());
        });
        self.web1on1.edit(&format!("c{n}"), |row| {
            (row.email, row.phone) = (email.into(), web_phone.into());
            row.conversation = Some(format!("v{n}"));
        });
    }

    fn update(&self, id: &str) -> Payload {
        let row = self.dms.rows.lock().get(id).cloned().unwrap_or_default();
        Payload::Update(read(
            json!({"id": id, "organization": ORGANIZATION, "email": row.email, "telephone": row.phone}),
        ))
    }

    fn event(&self, id: &str, change: Change, at: u64) -> Payload {
        let row = self.web1on1.rows.lock().get(id).cloned().unwrap_or_default();
        Payload::Event(Event {
            change,
            organization: ORGANIZATION.into(),
            contact: id.into(),
            conversation: row.conversation,
            stamp: Stamp {
                updated: Some(Micros(at)),
                published: Some(Micros(at)),
            },
            person: Person {
                name: Some(row.name),
                email: Some(row.email),
                phone: Some(row.phone),
            },
        })
    }

    /// As an old one: nothing is waited for.
    async fn handle(&self, payload: &Payload) -> CrmResult<Handled> {
        self.pairing.handle(&payload.to_bytes(), Micros::ZERO).await
    }

    async fn done(&self, payload: &Payload) -> Option<Answer> {
        assert_eq!(self.handle(payload).await.expect("no failure"), Handled::Done);
        let Payload::Update(update) = payload else { return None };
        let key = answer_key(&self.keys, &self.account, &update.id);
        let kept = self
            .store
            .get(&key, SystemClock.now())
            .await
            .unwrap()
            .expect("an answer");
        let told: Told = serde_json::from_slice(&kept).unwrap();
        Some(told.answer)
    }

    async fn trouble(&self, side: Side, id: &str) -> Option<Trouble> {
        let known = records::load(&self.store, &self.account, side, id).await.unwrap();
        known.and_then(|known| known.trouble)
    }

    fn writes(&self) -> u32 {
        self.dms.writes.load(Ordering::SeqCst) + self.web1on1.writes.load(Ordering::SeqCst)
    }

    fn is_linked(&self, n: u32) -> bool {
        self.dms.urls(&format!("d{n}")) == [format!("https://app.example/conversations/v{n}")]
            && self
                .web1on1
                .urls(&format!("c{n}"))
                .contains(&format!("https://dms.example/customer/d{n}/"))
    }

    fn has_no_links(&self) -> bool {
        let none = |memory: &Memory| memory.rows.lock().values().all(|row| row.links.is_empty());
        none(&self.dms) && none(&self.web1on1)
    }

    /// Works on what lies in the inbox until nothing is left of it, put-off work included.
    async fn drain(&self) {
        for _ in 0..10_000 {
            let far = Micros(u64::MAX / 2);
            let items = inbox::peek(&self.store, &self.keys, &self.account, 1, far)
                .await
                .unwrap();
            let Some(item) = items.into_iter().next() else { return };
            let payload = item.payload.expect("it opens");
            let settled = match self.pairing.handle(&payload.0, Micros::ZERO).await.expect("no failure") {
                Handled::Done => Settled::Gone,
                // Behind the others, as its time would have it.
                Handled::Later(_) => {
                    let all = inbox::peek(&self.store, &self.keys, &self.account, 100, far)
                        .await
                        .unwrap();
                    let other = all
                        .into_iter()
                        .find(|other| other.ticket != item.ticket)
                        .expect("work to wait for");
                    let payload = other.payload.expect("it opens");
                    self.pairing.handle(&payload.0, Micros::ZERO).await.expect("no failure");
                    let gone = [(other.ticket, Settled::Gone)];
                    inbox::settle(&self.store, &self.account, &gone).await.unwrap();
                    continue;
                }
            };
            inbox::settle(&self.store, &self.account, &[(item.ticket, settled)])
                .await
                .unwrap();
        }
        panic!("the inbox never empties");
    }
}

fn read(body: Value) -> Update {
    Update::read(body.to_string().as_bytes()).expect("an update")
}

#[tokio::test]
async fn who_shares_an_address_or_a_number_is_linked_and_once() {
    let scene = Scene::new(&[]);
    scene.person(1, "ines@nordlys.example", "", "");
    scene.person(2, "", "22 33 44 55", "+4722334455");
    let others = json!({"label": "Existing", "url": "https://a.example/1"});
    scene.web1on1.edit("c1", |row| row.links.push(others.clone()));
    let answer = scene.done(&scene.update("d1")).await;
    let (contact, conversation) = ("c1".to_owned(), Some("v1".to_owned()));
    assert_eq!(
        answer,
        Some(Answer::Updated {
            contact: contact.clone(),
            conversation: conversation.clone()
        })
    );
    assert!(scene.is_linked(1));
    assert_eq!(
        scene.web1on1.rows.lock()["c1"].links[0],
        others,
        "what others put there stays"
    );
    assert_eq!(
        scene.done(&scene.update("d1")).await,
        Some(Answer::Unchanged { contact, conversation })
    );
    assert_eq!(scene.writes(), 2, "a repetition writes nothing");
    scene.done(&scene.update("d2")).await;
    assert!(scene.is_linked(2), "a number in another form");
}

#[tokio::test]
async fn nobody_and_several_are_told_apart_and_nothing_is_written() {
    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.web1on1.rows.lock().remove("c1");
    assert_eq!(scene.done(&scene.update("d1")).await, Some(Answer::Unmatched));
    assert_eq!(scene.trouble(Side::Dms, "d1").await, Some(Trouble::Unmatched));
    // Two contacts of one address; and of another person, two records of the DMS.
    scene.person(2, "two@x.example", "", "");
    scene.person(3, "two@x.example", "", "");
    scene.dms.rows.lock().remove("d3");
    assert_eq!(
        scene.done(&scene.update("d2")).await,
        Some(Answer::Ambiguous { matches: 2 })
    );
    scene.person(4, "four@x.example", "", "");
    scene.person(5, "four@x.example", "", "");
    scene.web1on1.rows.lock().remove("c5");
    for payload in [
        scene.update("d4"),
        scene.update("d5"),
        scene.event("c4", Change::Created, 1),
        scene.event("c2", Change::Updated, 1),
        scene.event("c3", Change::Updated, 1),
    ] {
        scene.done(&payload).await;
    }
    for (side, id) in [
        (Side::Dms, "d4"),
        (Side::Dms, "d5"),
        (Side::Web1on1, "c4"),
        (Side::Web1on1, "c2"),
    ] {
        assert!(
            matches!(scene.trouble(side, id).await, Some(Trouble::Ambiguous { .. })),
            "{id}"
        );
    }
    assert!(scene.has_no_links() && scene.writes() == 0);
    // One of the two goes: now it is clear who is meant.
    scene.web1on1.rows.lock().remove("c3");
    scene.done(&scene.update("d2")).await;
    assert!(scene.is_linked(2));
    assert_eq!(scene.trouble(Side::Dms, "d2").await, None);
}

#[tokio::test]
async fn an_event_links_from_the_other_side_and_its_echo_calls_nobody() {
    let scene = Scene::new(&[]);
    scene.person(1, "ines@nordlys.example", "", "");
    scene.done(&scene.event("c1", Change::Created, 1)).await;
    assert!(scene.is_linked(1));
    *scene.dms.budget.lock() = Some(0);
    *scene.web1on1.budget.lock() = Some(0);
    scene.done(&scene.event("c1", Change::Updated, 2)).await;
    scene.done(&scene.event("c1", Change::Created, 1)).await;
    assert_eq!(scene.writes(), 2);
}

#[tokio::test]
async fn a_contact_without_a_conversation_is_shown_in_the_dms_once_it_has_one() {
    let scene = Scene::new(&[]);
    scene.person(1, "ines@nordlys.example", "", "");
    scene.web1on1.edit("c1", |row| row.conversation = None);
    scene.done(&scene.update("d1")).await;
    assert!(scene.dms.urls("d1").is_empty() && scene.web1on1.urls("c1").len() == 1);
    scene.web1on1.edit("c1", |row| row.conversation = Some("v1".into()));
    scene.done(&scene.event("c1", Change::Updated, 2)).await;
    assert!(scene.is_linked(1));
}

#[tokio::test]
async fn links_go_when_either_record_is_deleted_or_somebody_says_so() {
    for how in ["dms told", "dms gone", "web1on1 told", "removed", "removed all"] {
        let scene = Scene::new(&[]);
        scene.person(1, "ines@nordlys.example", "", "");
        scene.done(&scene.update("d1")).await;
        assert!(scene.is_linked(1));
        let (mut dms_stays, mut contact_stays) = (true, true);
        let payload = match how {
            "dms told" => Payload::Update(read(json!({"id": "d1", "organization": ORGANIZATION, "deleted": true}))),
            "dms gone" => {
                let update = scene.update("d1");
                scene.dms.rows.lock().remove("d1");
                dms_stays = false;
                update
            }
            "web1on1 told" => {
                let event = scene.event("c1", Change::Deleted, 9);
                scene.web1on1.rows.lock().remove("c1");
                contact_stays = false;
                event
            }
            "removed" => Payload::Remove(Remove {
                record: Some("d1".into()),
                after: None,
            }),
            _ => Payload::Remove(Remove::default()),
        };
        scene.done(&payload).await;
        scene.drain().await;
        assert!(scene.has_no_links(), "{how}");
        assert_eq!(scene.dms.rows.lock().contains_key("d1"), dms_stays, "{how}");
        assert_eq!(scene.web1on1.rows.lock().contains_key("c1"), contact_stays, "{how}");
        // What had been on its way since before does not bring it back.
        if how == "web1on1 told" {
            let writes = scene.writes();
            scene.done(&scene.event("c1", Change::Updated, 5)).await;
            assert_eq!(scene.writes(), writes);
        }
    }
}

#[tokio::test]
async fn a_link_moves_when_somebody_else_alone_is_meant_and_stays_when_nobody_is() {
    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.person(2, "two@x.example", "", "");
    scene.dms.rows.lock().remove("d2");
    scene.done(&scene.update("d1")).await;
    assert!(scene.is_linked(1));
    scene.dms.edit("d1", |row| row.email = "new@x.example".into());
    scene.done(&scene.update("d1")).await;
    assert!(scene.is_linked(1), "the address changed in one system only");
    scene.dms.edit("d1", |row| row.email = "two@x.example".into());
    scene.done(&scene.update("d1")).await;
    assert!(scene.web1on1.urls("c1").is_empty());
    assert_eq!(scene.web1on1.urls("c2"), ["https://dms.example/customer/d1/"]);
    assert_eq!(scene.dms.urls("d1"), ["https://app.example/conversations/v2"]);
}

#[tokio::test]
async fn the_first_record_keeps_its_contact_until_it_is_gone() {
    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.done(&scene.update("d1")).await;
    scene.dms.edit("d9", |row| row.email = "one@x.example".into());
    assert_eq!(scene.done(&scene.update("d9")).await, Some(Answer::Taken));
    assert_eq!(
        scene.trouble(Side::Dms, "d9").await,
        Some(Trouble::Taken { by: "d1".into() })
    );
    assert!(scene.is_linked(1));
    scene.dms.rows.lock().remove("d1");
    scene.done(&scene.update("d9")).await;
    assert_eq!(scene.web1on1.urls("c1"), ["https://dms.example/customer/d9/"]);
}

/// Whom the others stood against is linked without being told of once more.
#[tokio::test]
async fn who_was_in_doubt_is_looked_at_again_when_the_others_change() {
    let deleted = |scene: &Scene, id: &str| {
        scene.dms.rows.lock().remove(id);
        Payload::Update(read(json!({"id": id, "organization": ORGANIZATION, "deleted": true})))
    };
    let other = |row: &mut Row| row.email = "other@x.example".into();
    for how in [
        "another address in the DMS",
        "gone from the DMS",
        "another address at Web1on1",
        "gone from Web1on1",
    ] {
        let scene = Scene::new(&[]);
        scene.person(1, "one@x.example", "", "");
        let at_dms = how.ends_with("DMS");
        match at_dms {
            true => scene.dms.edit("d2", |row| row.email = "one@x.example".into()),
            false => scene.web1on1.edit("c2", |row| row.email = "one@x.example".into()),
        }
        scene.done(&scene.update("d1")).await;
        if at_dms {
            scene.done(&scene.update("d2")).await;
        }
        scene.drain().await;
        assert!(scene.has_no_links(), "{how}");
        let payload = match how {
            "another address in the DMS" => {
                scene.dms.edit("d2", other);
                scene.update("d2")
            }
            "gone from the DMS" => deleted(&scene, "d2"),
            "another address at Web1on1" => {
                scene.web1on1.edit("c2", other);
                scene.event("c2", Change::Updated, 2)
            }
            _ => {
                let event = scene.event("c2", Change::Deleted, 2);
                scene.web1on1.rows.lock().remove("c2");
                event
            }
        };
        scene.done(&payload).await;
        scene.drain().await;
        assert!(scene.is_linked(1), "{how}");
        assert_eq!(scene.trouble(Side::Dms, "d1").await, None, "{how}");
    }
    // Whose contact was somebody else's, and whose contact is gone while another bears its address.
    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.done(&scene.update("d1")).await;
    scene.dms.edit("d9", |row| row.email = "one@x.example".into());
    assert_eq!(scene.done(&scene.update("d9")).await, Some(Answer::Taken));
    scene.done(&deleted(&scene, "d1")).await;
    scene.drain().await;
    assert_eq!(scene.web1on1.urls("c1"), ["https://dms.example/customer/d9/"]);
    scene.person(2, "one@x.example", "", "");
    scene.dms.rows.lock().remove("d2");
    let event = scene.event("c1", Change::Deleted, 5);
    scene.web1on1.rows.lock().remove("c1");
    scene.done(&event).await;
    scene.drain().await;
    assert_eq!(scene.web1on1.urls("c2"), ["https://dms.example/customer/d9/"]);
    assert_eq!(scene.dms.urls("d9"), ["https://app.example/conversations/v2"]);
}

#[tokio::test]
async fn what_stood_against_a_contact_that_is_gone_is_forgotten_and_who_was_taken_apart_stays_so() {
    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.dms.edit("d2", |row| row.email = "one@x.example".into());
    scene.done(&scene.event("c1", Change::Created, 1)).await;
    assert!(scene.trouble(Side::Web1on1, "c1").await.is_some());
    let event = scene.event("c1", Change::Deleted, 2);
    scene.web1on1.rows.lock().remove("c1");
    scene.done(&event).await;
    assert_eq!(scene.trouble(Side::Web1on1, "c1").await, None);

    let scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.done(&scene.update("d1")).await;
    scene.dms.edit("d9", |row| row.email = "one@x.example".into());
    scene.done(&scene.update("d9")).await;
    scene.dms.rows.lock().remove("d9");
    scene.done(&Payload::Remove(Remove::default())).await;
    scene.drain().await;
    assert!(scene.has_no_links());
}

#[tokio::test]
async fn a_record_that_is_not_there_yet_is_waited_for() {
    let scene = Scene::new(&[]);
    let (update, event) = (
        Payload::Update(read(json!({"id": "d1", "organization": ORGANIZATION, "email": "a@b"}))),
        scene.event("c1", Change::Created, 1),
    );
    for payload in [&update, &event] {
        let young = scene
            .pairing
            .handle(&payload.to_bytes(), SystemClock.now())
            .await
            .unwrap();
        assert!(
            matches!(young, Handled::Later(at) if at > SystemClock.now()),
            "{}",
            payload.kind()
        );
        assert_eq!(scene.handle(payload).await.unwrap(), Handled::Done);
    }
    assert_eq!(scene.trouble(Side::Dms, "d1").await, Some(Trouble::Gone));
}

#[tokio::test]
async fn fields_flow_to_who_does_not_own_them_and_come_to_rest() {
    let scene = Scene::new(&[
        (Field::Name, Owner::Web1on1),
        (Field::Phone, Owner::Dms),
        (Field::Email, Owner::Dms),
    ]);
    scene.person(1, "ines@nordlys.example", "+4722334455", "22 33 44 55");
    scene.web1on1.edit("c1", |row| row.name = "Ines Marchetti".into());
    scene.done(&scene.event("c1", Change::Created, 1)).await;
    assert_eq!(scene.dms.rows.lock()["d1"].name, "Ines Marchetti");
    assert_eq!(
        scene.web1on1.rows.lock()["c1"].phone,
        "22 33 44 55",
        "the same number in another form is no news"
    );
    let writes = scene.writes();
    // Both writes come back as news from each side.
    scene.done(&scene.update("d1")).await;
    scene.done(&scene.event("c1", Change::Updated, 2)).await;
    assert_eq!(scene.writes(), writes, "no ping-pong");
    scene.dms.edit("d1", |row| {
        (row.phone, row.name) = ("+4799999999".into(), "Somebody Else".into())
    });
    scene.done(&scene.update("d1")).await;
    assert_eq!(scene.web1on1.rows.lock()["c1"].phone, "+4799999999");
    assert_eq!(
        scene.dms.rows.lock()["d1"].name,
        "Ines Marchetti",
        "its owner's value counts"
    );
}

#[tokio::test]
async fn all_records_are_seeded_in_small_steps_and_with_progress() {
    let scene = Scene::new(&[]);
    for n in 1..=20 {
        scene.person(n, &format!("p{n}@x.example"), "", "");
    }
    let payload = Payload::Seed(Seed {
        began: Micros(7),
        ..Seed::default()
    });
    let put = worker::linking::put(
        &scene.store,
        &scene.keys,
        &scene.account,
        (&payload, Urgency::Bulk),
        1_000,
        Micros(1),
    );
    put.await.unwrap();
    let mut most = 0;
    for _ in 0..500 {
        let fill = inbox::fill(&scene.store, &scene.account).await.unwrap();
        most = most.max(fill.waiting);
        if fill.waiting == 0 {
            break;
        }
        let far = Micros(u64::MAX / 2);
        let mut items = inbox::peek(&scene.store, &scene.keys, &scene.account, 100, far)
            .await
            .unwrap();
        let first = items.remove(0);
        match scene
            .pairing
            .handle(&first.payload.unwrap().0, Micros::ZERO)
            .await
            .unwrap()
        {
            Handled::Done => inbox::settle(&scene.store, &scene.account, &[(first.ticket, Settled::Gone)])
                .await
                .unwrap(),
            Handled::Later(_) => {
                let next = items.remove(0);
                scene
                    .pairing
                    .handle(&next.payload.unwrap().0, Micros::ZERO)
                    .await
                    .unwrap();
                inbox::settle(&scene.store, &scene.account, &[(next.ticket, Settled::Gone)])
                    .await
                    .unwrap();
            }
        }
    }
    assert!((1..=20).all(|n| scene.is_linked(n)));
    assert!(
        most <= 10,
        "{most} waited at once: there would be no room for what happens meanwhile"
    );
    let seeding = records::seeding(&scene.store, &scene.account).await.unwrap();
    assert_eq!((seeding.began, seeding.seen), (Some(Micros(7)), 20));
    assert!(seeding.ended.is_some());
}

#[tokio::test]
async fn links_of_records_that_the_dms_lost_without_a_word_are_tidied_away() {
    let scene = Scene::new(&[]);
    for n in 1..=25 {
        scene.person(n, &format!("p{n}@x.example"), "", "");
        scene.done(&scene.update(&format!("d{n}"))).await;
    }
    for n in [3, 24] {
        scene.dms.rows.lock().remove(&format!("d{n}"));
    }
    scene.done(&Payload::Tidy(Tidy::default())).await;
    scene.drain().await;
    for n in 1..=25 {
        let is_gone = [3, 24].contains(&n);
        assert_eq!(scene.is_linked(n), !is_gone, "{n}");
        assert_eq!(scene.web1on1.urls(&format!("c{n}")).is_empty(), is_gone, "{n}");
    }
    assert_eq!(scene.trouble(Side::Web1on1, "c3").await, Some(Trouble::Unmatched));
}

#[tokio::test]
async fn a_link_that_looks_otherwise_takes_the_old_one_s_place() {
    let mut scene = Scene::new(&[]);
    scene.person(1, "one@x.example", "", "");
    scene.done(&scene.update("d1")).await;
    scene.pairing.rules.to_dms.url = template("https://new.example/c/{id}", "id");
    scene.done(&scene.update("d1")).await;
    assert_eq!(scene.web1on1.urls("c1"), ["https://new.example/c/d1"]);
}

/// What may happen to a few people, of whom some share addresses.
#[derive(Clone, Debug)]
enum Act {
    Update(u32),
    Event(u32),
    Edit(u32, u8),
    /// The systems go away after so many calls, in the middle of whatever is done then.
    Away(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let who = 0..4u32;
    let act = prop_oneof![
        3 => who.clone().prop_map(Act::Update),
        3 => who.clone().prop_map(Act::Event),
        1 => (who, 0..3u8).prop_map(|(n, email)| Act::Edit(n, email)),
        1 => (0..9u32).prop_map(Act::Away),
    ];
    prop::collection::vec(act, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In the end, when everybody was told of once more: who is alone with an address in both systems is linked, once on each
    /// side, no link leads to somebody else's partner, and nothing more is written.
    #[test]
    fn whatever_happens_and_wherever_it_breaks_off_links_come_out_right(acts in acts(), emails in prop::collection::vec(0..4u8, 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new(&[]);
            let address = |n: u8| format!("p{n}@x.example");
            for n in 0..4u32 {
                let (dms, web1on1) = (emails[n as usize], emails[n as usize + 4]);
                scene.dms.edit(&format!("d{n}"), |row| row.email = address(dms));
                scene.web1on1.edit(&format!("c{n}"), |row| {
                    row.email = address(web1on1);
                    row.conversation = Some(format!("v{n}"));
                });
            }
            let mut at = 0;
            for act in acts {
                at += 1;
                match act {
                    Act::Update(n) => drop(scene.handle(&scene.update(&format!("d{n}"))).await),
                    Act::Event(n) => drop(scene.handle(&scene.event(&format!("c{n}"), Change::Updated, at)).await),
                    Act::Edit(n, email) => scene.web1on1.edit(&format!("c{n}"), |row| row.email = address(email)),
                    Act::Away(calls) => {
                        *scene.web1on1.budget.lock() = Some(calls);
                        *scene.dms.budget.lock() = Some(calls);
                        drop(scene.handle(&scene.update("d0")).await);
                        drop(scene.handle(&scene.event("c0", Change::Updated, at)).await);
                        *scene.web1on1.budget.lock() = None;
                        *scene.dms.budget.lock() = None;
                    }
                }
            }
            for round in 0..3 {
                let before = scene.writes();
                for n in 0..4 {
                    scene.handle(&scene.update(&format!("d{n}"))).await.unwrap();
                    scene.drain().await;
                    at += 1;
                    scene.handle(&scene.event(&format!("c{n}"), Change::Updated, at)).await.unwrap();
                    scene.drain().await;
                }
                prop_assert!(round < 2 || scene.writes() == before, "it comes to rest");
            }
            let mut partners = BTreeSet::new();
            for n in 0..4u32 {
                let record = format!("d{n}");
                let known = records::load(&scene.store, &scene.account, Side::Dms, &record).await.unwrap().unwrap_or_default();
                let urls = scene.dms.urls(&record);
                match &known.with {
                    Some(contact) => {
                        prop_assert!(partners.insert(contact.clone()), "two records share a contact");
                        prop_assert_eq!(&scene.web1on1.urls(contact), &[format!("https://dms.example/customer/{record}/")]);
                        prop_assert_eq!(&urls, &[format!("https://app.example/conversations/v{}", &contact[1..])]);
                    }
                    None => prop_assert!(urls.is_empty(), "{record} shows {urls:?}"),
                }
                let mine = scene.dms.rows.lock()[&record].email.clone();
                let bearers = |memory: &Memory| -> Vec<String> {
                    let rows = memory.rows.lock();
                    rows.iter().filter(|(_, row)| row.email == mine).map(|(id, _)| id.clone()).collect()
                };
                if let ([_], [contact]) = (bearers(&scene.dms).as_slice(), bearers(&scene.web1on1).as_slice()) {
                    let theirs = records::load(&scene.store, &scene.account, Side::Web1on1, contact).await.unwrap().unwrap_or_default();
                    // Unless one of them has held on to another since before an edit.
                    let free = known.with.is_none() && theirs.with.is_none();
                    prop_assert!(!free, "{record} and {contact} are alone with {mine}");
                }
            }
            let linked = partners.len();
            let shown = scene.web1on1.rows.lock().values().filter(|row| !row.links.is_empty()).count();
            prop_assert_eq!(shown, linked, "no link is left behind");
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Of each edit is told once, by the system where it was made, and of nothing else: that is enough.
    #[test]
    fn who_is_told_of_once_is_linked_whoever_stood_against_it(
        emails in prop::collection::vec(0..4u8, 8),
        edits in prop::collection::vec((any::<bool>(), 0..4u32, 0..6u8, any::<bool>()), 0..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new(&[]);
            let address = |n: u8| format!("p{n}@x.example");
            let edit = |at_dms: bool, n: u32, email: u8, at: u64| match at_dms {
                true => {
                    scene.dms.edit(&format!("d{n}"), |row| row.email = address(email));
                    scene.update(&format!("d{n}"))
                }
                false => {
                    scene.web1on1.edit(&format!("c{n}"), |row| {
                        row.email = address(email);
                        row.conversation = Some(format!("v{n}"));
                    });
                    scene.event(&format!("c{n}"), Change::Updated, at)
                }
            };
            let first = (0..8usize).map(|i| (i < 4, i as u32 % 4, emails[i], false));
            let mut at = 0;
            for (at_dms, n, email, works) in first.chain(edits) {
                at += 1;
                let payload = edit(at_dms, n, email, at);
                let put = worker::linking::put(&scene.store, &scene.keys, &scene.account, (&payload, Urgency::News), 1_000, Micros(at));
                put.await.unwrap();
                if works {
                    scene.drain().await;
                }
            }
            scene.drain().await;
            for n in 0..4 {
                let record = format!("d{n}");
                let mine = scene.dms.rows.lock()[&record].email.clone();
                let bearers = |memory: &Memory| -> Vec<String> {
                    let rows = memory.rows.lock();
                    rows.iter().filter(|(_, row)| row.email == mine).map(|(id, _)| id.clone()).collect()
                };
                let (at_dms, at_web1on1) = (bearers(&scene.dms), bearers(&scene.web1on1));
                let ([_], [contact]) = (at_dms.as_slice(), at_web1on1.as_slice()) else { continue };
                let known = |side, id: String| {
                    let (store, account) = (&scene.store, &scene.account);
                    async move { records::load(store, account, side, &id).await.unwrap().unwrap_or_default() }
                };
                let (own, theirs) = (known(Side::Dms, record.clone()).await, known(Side::Web1on1, contact.clone()).await);
                // Unless one of them has held on to another since before an edit.
                let free = own.with.is_none() && theirs.with.is_none();
                prop_assert!(!free, "{record} and {contact} are alone with {mine}: {own:?} {theirs:?}");
            }
            Ok(())
        })?;
    }
}

#[test]
fn numbers_are_compared_in_their_one_form() {
    assert_eq!(e164("22 33 44 55", norwegian()).as_deref(), Some("+4722334455"));
}
