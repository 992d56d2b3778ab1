//! The whole of linking in one scene, beside every trouble it promises to outlive. People of both systems are told of by either,
//! in double and out of order, while they are edited and deleted and processes and the broker are killed with -9. In the end each
//! pair shows itself exactly once on each side, nobody else is shown, and the report counts what is true.
//!
//! `LINK_PROOF_PEOPLE=10000` plays it with as many people, for as long as that takes. By default there are as many as a debug build links within
//! a minute or so, on two cores that others use, too.

use fake_crm::RateLimit;

use super::*;
use crate::faults::rabbit::Rabbit;
use crate::linking::SECRET;

const PEOPLE: u64 = 400;
/// Calls that each system takes. Few enough to hold the work back where the machine is quick; `LINK_PROOF_PER_SECOND` for others.
const PER_SECOND: u32 = 60;

fn per_second() -> u32 {
    std::env::var("LINK_PROOF_PER_SECOND").map_or(PER_SECOND, |calls| calls.parse().expect("how many"))
}

/// What is to become of a person. Of each hundred, so many are of each lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lot {
    /// Two people have one address, in both systems.
    Shared,
    /// Two people have one address in the DMS; Web1on1 knows the first one by it.
    SharedAtDms,
    /// … in Web1on1; the DMS knows the first one by it.
    SharedAtChat,
    /// The systems know different addresses.
    Strangers,
    /// Web1on1 learns the right address while the scene runs.
    Late,
    /// Two people have one address in the DMS, until it learns the second one's own while the scene runs.
    Cleared,
    GoneAtDms,
    GoneAtChat,
    /// No address in common, but a number, written otherwise.
    ByPhone,
    Capitals,
    /// Has links of others.
    HasLinks,
    /// Gets another name in the DMS, whose names count.
    Renamed,
    Plain,
}

impl Lot {
    fn of(id: u64) -> Lot {
        match (id - 1) % 100 {
            0..2 => Lot::Shared,
            2..4 => Lot::SharedAtDms,
            4..6 => Lot::SharedAtChat,
            6..8 => Lot::Strangers,
            8..12 => Lot::Late,
            12..14 => Lot::GoneAtDms,
            14..16 => Lot::GoneAtChat,
            16..26 => Lot::ByPhone,
            26..32 => Lot::Capitals,
            32..38 => Lot::HasLinks,
            38..42 => Lot::Renamed,
            42..46 => Lot::Cleared,
            _ => Lot::Plain,
        }
    }

    fn is_pair(self) -> bool {
        use Lot::*;
        matches!(self, Late | Cleared | ByPhone | Capitals | HasLinks | Renamed | Plain)
    }
}

/// Why a person's record is linked with nobody, in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Unmatched,
    Ambiguous,
}

/// In the DMS, and in Web1on1.
fn troubles(id: u64) -> (Option<Trouble>, Option<Trouble>) {
    use Trouble::*;
    let first = id % 2 == 1;
    match (Lot::of(id), first) {
        (Lot::Shared, _) | (Lot::SharedAtDms | Lot::SharedAtChat, true) => (Some(Ambiguous), Some(Ambiguous)),
        (Lot::SharedAtDms, false) => (Some(Ambiguous), Some(Unmatched)),
        (Lot::SharedAtChat, false) => (Some(Unmatched), Some(Ambiguous)),
        (Lot::Strangers, _) => (Some(Unmatched), Some(Unmatched)),
        (Lot::GoneAtDms, _) => (None, Some(Unmatched)),
        (Lot::GoneAtChat, _) => (Some(Unmatched), None),
        _ => (None, None),
    }
}

struct Scene {
    sides: Sides,
    dealer: Dealer,
    people: u64,
}

impl Scene {
    async fn new(backend: Backend, queue: Option<&str>) -> Scene {
        let people = std::env::var("LINK_PROOF_PEOPLE").map_or(PEOPLE, |people| people.parse().expect("how many"));
        assert_eq!(people % 100, 0, "whole hundreds");
        let sides = Sides::limited(people as usize, per_second()).await;
        let more = "integrations.dealers.region = \"NO\"\nintegrations.dealers.owner_name = \"dms\"\n";
        let dealer = Dealer::new(backend, &sides, more, queue);
        let scene = Scene { sides, dealer, people };
        scene.cast();
        scene
    }

    fn of(&self, lots: &[Lot]) -> Vec<u64> {
        (1..=self.people).filter(|id| lots.contains(&Lot::of(*id))).collect()
    }

    /// Says who has which address.
    fn cast(&self) {
        for id in 1..=self.people {
            let own = format!("p{id}@x.example");
            let first = format!("p{}@x.example", (id - 1) / 2 * 2 + 1);
            let number = format!("{:08}", 22_000_000 + id);
            let (dms, chat) = match Lot::of(id) {
                Lot::Shared => (first.clone(), first),
                Lot::SharedAtDms | Lot::Cleared => (first, own),
                Lot::SharedAtChat => (own, first),
                Lot::Strangers | Lot::Late => (own, format!("other{id}@x.example")),
                Lot::ByPhone => {
                    let (a, b) = number.split_at(2);
                    self.sides
                        .edit("dms", id, &format!("dms{id}@x.example"), &format!("{a} {b}"));
                    let plus = if id % 2 == 0 { "+" } else { "" };
                    self.sides.edit("chat", id, "", &format!("{plus}47{number}"));
                    continue;
                }
                Lot::Capitals => (own.to_uppercase(), own),
                _ => (own.clone(), own),
            };
            self.sides.edit("dms", id, &dms, "");
            self.sides.edit("chat", id, &chat, "");
            if Lot::of(id) == Lot::HasLinks {
                let links = Some(vec![others(id)]);
                self.change(
                    "chat",
                    &[id],
                    Fields {
                        links,
                        ..Fields::default()
                    },
                );
            }
        }
    }

    fn change(&self, account: &str, ids: &[u64], fields: Fields) {
        self.sides
            .crm
            .control(Control::edit(account, Change::ids(ids).with(fields)))
            .done();
    }

    /// Both systems begin to tell, and do not give up: a full inbox may send the last of many away for longer than 30 attempts take.
    fn tell(&self) {
        let front = &self.dealer.front;
        let mut hook = json!({"duplicate_every": 2, "shuffle": true, "late_every": 3, "late_ms": 1_500, "parallel": 2});
        let mut update = json!({"all": true, "duplicate_every": 3, "shuffle": true});
        hook["attempts"] = json!(u16::MAX);
        update["attempts"] = json!(u16::MAX);
        self.sides.subscribe(front, hook);
        self.sides.tell(front, update);
    }

    /// Something that does not concern linking changes, in both systems.
    fn stir(&self, step: u64) {
        let some = |id: &u64| id % 10 == step % 10;
        let ids: Vec<u64> = self.of(&[Lot::Plain]).into_iter().filter(some).collect();
        for account in ["dms", "chat"] {
            self.sides.crm.control(Control::edit(account, Change::ids(&ids))).done();
        }
    }

    /// Until so many percent of the pairs are written at Web1on1.
    async fn reaches(&self, percent: u64) {
        let wanted = self.people * percent / 100;
        let what = format!("{wanted} of {} people are linked", self.people);
        until_within(self.patience(), &what, || async {
            self.sides.crm.stats("chat").calls_of("contacts.update") >= wanted
        })
        .await;
        self.stir(percent / 10);
    }

    /// A debug build on a machine that is busy with other things.
    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_millis(100) * self.people as u32
    }

    fn rename(&self) {
        for id in self.of(&[Lot::Renamed]) {
            let fields = Fields {
                first_name: Some("Renata".into()),
                last_name: Some(format!("Nova{id}")),
                ..Fields::default()
            };
            self.change("dms", &[id], fields);
        }
    }

    fn put_right(&self) {
        for id in self.of(&[Lot::Late]) {
            self.sides.edit("chat", id, &format!("p{id}@x.example"), "");
        }
        // Nobody tells of the first ones once more.
        for id in self.of(&[Lot::Cleared]).into_iter().filter(|id| id % 2 == 0) {
            self.sides.edit("dms", id, &format!("p{id}@x.example"), "");
        }
    }

    /// Deletes in both systems; the DMS's own program tells of it, until it is heard.
    async fn delete(&self) {
        let gone = self.of(&[Lot::GoneAtChat]);
        self.sides
            .crm
            .control(Control::delete("chat", Change::ids(&gone)))
            .done();
        let gone = self.of(&[Lot::GoneAtDms]);
        self.sides
            .crm
            .control(Control::delete("dms", Change::ids(&gone)))
            .done();
        let http = reqwest::Client::new();
        for id in gone {
            let body = json!({"id": id, "organization": self.sides.organization(), "deleted": true});
            let (http, body) = (&http, &body);
            until("a deletion is heard", || async move {
                let call = http.post(format!("{}/dealers/updatecontact", self.dealer.front));
                let answer = call.bearer_auth(SECRET).json(body).send().await;
                answer.is_ok_and(|answer| answer.status() == 202)
            })
            .await;
        }
    }

    /// Web1on1 tells of everybody who is to be linked with nobody: their own side's trouble is known, too.
    fn mention_the_unlinked(&self) {
        use Lot::*;
        let ids = self.of(&[Shared, SharedAtDms, SharedAtChat, Strangers, GoneAtDms]);
        let company = Some("Somewhere else".to_owned());
        let first_name = Some("Somebody".to_owned());
        self.change(
            "chat",
            &ids,
            Fields {
                first_name,
                company,
                ..Fields::default()
            },
        );
    }

    async fn rests(&self) {
        until_within(self.patience(), "everything comes to rest", || async {
            self.dealer.is_at_rest(&self.sides).await
        })
        .await;
    }

    /// What both systems show is what they should.
    fn assert_true(&self) {
        let (dms, chat) = (people(&self.sides, "dms"), people(&self.sides, "chat"));
        for id in 1..=self.people {
            let lot = Lot::of(id);
            let links = |row: &Value| row["links"].as_array().cloned().unwrap_or_default();
            let links = chat.get(&id).map(links);
            let place = dms.get(&id).map(|row| row["web1on1"].clone());
            let says = format!("{lot:?} {id}: {links:?} and {place:?}");
            assert_eq!(links.is_none(), lot == Lot::GoneAtChat, "{says}");
            assert_eq!(place.is_none(), lot == Lot::GoneAtDms, "{says}");
            let (mut links, place) = (links.unwrap_or_default(), place.unwrap_or_default());
            if lot == Lot::HasLinks {
                let kept = links.iter().position(|link| *link == others(id));
                links.remove(kept.unwrap_or_else(|| panic!("the link of others is gone: {says}")));
            }
            if !lot.is_pair() {
                assert!(links.is_empty() && place["url"].is_null(), "{says}");
                continue;
            }
            let (url, conversation) = conversation(id);
            assert_eq!(links.len(), 1, "{says}");
            assert_eq!(links[0]["url"], format!("https://dms.example/customer/{id}/"), "{says}");
            assert_eq!(
                (&place["url"], &place["conversation"], &place["organization"]),
                (&json!(url), &json!(conversation), &json!(self.sides.organization())),
                "{says}"
            );
            if lot == Lot::Renamed {
                let name = |row: &Value| (row["first_name"].clone(), row["last_name"].clone());
                assert_eq!(
                    name(&chat[&id]),
                    (json!("Renata"), json!(format!("Nova{id}"))),
                    "{says}"
                );
            }
        }
    }

    async fn assert_reported(&self, front: &Process) {
        let report = self.dealer.report(front).await;
        let all = 1..=self.people;
        let sides: Vec<_> = all.clone().map(troubles).flat_map(|(dms, chat)| [dms, chat]).collect();
        let count = |trouble| json!(sides.iter().filter(|known| **known == Some(trouble)).count());
        let linked = all.filter(|id| Lot::of(*id).is_pair()).count();
        assert_eq!(
            (
                &report["linked"],
                &report["unmatched"],
                &report["ambiguous"],
                &report["taken"],
                &report["waiting"]
            ),
            (
                &json!(linked),
                &count(Trouble::Unmatched),
                &count(Trouble::Ambiguous),
                &json!(0),
                &json!(0)
            ),
            "{report:#}"
        );
        // An update that was sent before a deletion may come after it.
        let gone = report["gone"].as_u64().expect("a count");
        assert!(gone <= self.of(&[Lot::GoneAtDms]).len() as u64, "{report:#}");
    }

    /// By the systems' own counters.
    fn assert_within_limits(&self) {
        let limit = RateLimit {
            max: per_second(),
            window: Duration::from_secs(1),
        };
        let mut calls = BTreeMap::new();
        for account in ["dms", "chat"] {
            let stats = self.sides.crm.stats(account);
            assert_eq!(
                (stats.over_limit, stats.webhooks.given_up),
                (0, 0),
                "{account}: {stats:?}"
            );
            let most = stats
                .limits
                .get("second")
                .map_or(u64::from(stats.max_in_window), |limit| limit.max_in_window);
            calls.insert(account, (stats.counted, most));
        }
        assert_eq!(self.sides.crm.stats("dms").limit, Some(limit));
        for name in ["second", "address"] {
            assert_eq!(self.sides.crm.stats("chat").limits[name].limit, Some(limit));
        }
        let pairs = (1..=self.people).filter(|id| Lot::of(*id).is_pair()).count();
        figure(&format!(
            "{pairs} pairs, {} people: calls, and the most in a second of {}: {calls:?}",
            self.people,
            per_second()
        ));
    }
}

fn others(id: u64) -> Value {
    json!({"label": "View in CRM", "url": format!("https://crm.example/c/{id}"), "icon": "https://crm.example/i.png"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() {
    if !services() {
        return;
    }
    let Some(mut broker) = Rabbit::start().await else {
        return;
    };
    let scene = Scene::new(Backend::Distributed, Some(&broker.url())).await;
    let site = &scene.dealer.site;
    let (mut front, mut worker) = (site.start("serve").await, site.start("worker").await);
    scene.tell();
    for percent in [5, 10, 20] {
        scene.reaches(percent).await;
        worker.kill();
        worker = site.start("worker").await;
    }
    scene.rename();
    scene.reaches(30).await;
    broker.kill();
    scene.put_right();
    broker.restart().await;
    scene.reaches(40).await;
    scene.delete().await;
    scene.reaches(50).await;
    front.kill();
    scene.mention_the_unlinked();
    front = site.start("serve").await;
    scene.reaches(60).await;
    worker.kill();
    worker = site.start("worker").await;
    scene.rests().await;
    scene.assert_within_limits();
    site.assert_nothing_given_up();
    scene.assert_true();
    scene.assert_reported(&front).await;
    drop((front, worker));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let scene = Scene::new(Backend::Embedded, None).await;
    let site = &scene.dealer.site;
    let mut all = site.start("up").await;
    scene.tell();
    let mut percent = 0;
    for step in 0..6 {
        percent += 10;
        scene.reaches(percent).await;
        all.kill();
        match step {
            1 => scene.rename(),
            2 => scene.put_right(),
            _ => {}
        }
        all = site.start("up").await;
        match step {
            3 => scene.delete().await,
            4 => scene.mention_the_unlinked(),
            _ => {}
        }
    }
    scene.rests().await;
    scene.assert_within_limits();
    site.assert_nothing_given_up();
    scene.assert_true();
    scene.assert_reported(&all).await;
}
