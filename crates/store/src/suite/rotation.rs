//! Changing the sealing keys: what is stored is found by its key, and sealed anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contacts::accounts::{self, Account, Sealed};
use contacts::dead::{self, DeadLetter};
use contacts::docs::{self, Change};
use contacts::inbox::{self, Urgency};
use contacts::keys::{Fingerprint, Keys};
use contacts::ports::{DocKey, DocKind};
use contacts::rotation::{self, Resealed, Uses};
use contacts::subscription::{self, Held};
use contacts::{AccountId, JobId, Micros, Store};

use super::any_account;

const NOW: Micros = Micros(1_000_000);

fn keys(seals: &[(&str, u8)]) -> Keys {
    let raw = |byte: u8| Box::new([byte; 32]).into();
    let seals: Vec<_> = seals
        .iter()
        .map(|(kid, byte)| ((*kid).to_owned(), raw(*byte)))
        .collect();
    Keys::new(&raw(1), &seals).expect("legal keys")
}

fn fields() -> BTreeMap<String, String> {
    BTreeMap::from([("token".to_owned(), "t".to_owned())])
}

/// One of everything that is sealed.
async fn one_of_each(store: &Arc<dyn Store>, keys: &Keys, id: &AccountId) {
    let account = Account {
        id: id.clone(),
        integration: "demo".into(),
        connector: "demo".into(),
        budget: "b".into(),
        user_budget: None,
        dealer: None,
        created: NOW,
        credentials: Sealed::seal(keys, id, &fields()),
        fingerprint: Fingerprint("f".into()),
        learned: BTreeMap::new(),
        route: None,
        called: Micros::ZERO,
        verified: NOW,
        tokens: Default::default(),
    };
    accounts::register(&**store, &account).await.unwrap();
    subscription::expect(&**store, id, NOW).await.unwrap();
    let held = |topic: &str, secret: Option<&str>| Held {
        topic: topic.into(),
        id: topic.into(),
        secret: secret.map(|secret| subscription::seal(keys, id, topic, &secret.to_owned().into())),
        url: String::new(),
        created: NOW,
        expires: None,
    };
    subscription::update(&**store, id, |subscription| {
        subscription.held = vec![held("a", Some("s1")), held("b", None)];
    })
    .await
    .unwrap();
    for key in ["x", "y", "z"] {
        inbox::append(&**store, keys, id, (key, key.as_bytes(), Urgency::News), 100, NOW)
            .await
            .unwrap();
    }
    let item = inbox::peek(&**store, keys, id, 1, NOW).await.unwrap().remove(0);
    let letter = DeadLetter {
        id: JobId("l".into()),
        account: Some(id.clone()),
        kind: None,
        lane: None,
        reason: String::new(),
        detail: String::new(),
        attempts: 1,
        at: NOW,
        ids: Vec::new(),
        payload: Some(item.kept),
    };
    dead::put(&**store, &letter).await.unwrap();
}

async fn uses(store: &Arc<dyn Store>, keys: &Keys) -> BTreeMap<String, Uses> {
    rotation::uses(&**store, keys, Duration::ZERO, NOW).await.unwrap()
}

pub(super) async fn what_an_old_key_sealed_is_sealed_anew_and_opens_without_it(
    make: &impl AsyncFn() -> Arc<dyn Store>,
) {
    let store = make().await;
    let (id, old) = (any_account(), keys(&[("old", 2)]));
    one_of_each(&store, &old, &id).await;
    let ticket = inbox::peek(&*store, &old, &id, 1, NOW).await.unwrap().remove(0).ticket;

    let both = keys(&[("new", 3), ("old", 2)]);
    let stored = Uses {
        credentials: 1,
        webhook_secrets: 1,
        payloads: 3,
        dead_letters: 1,
        ..Uses::default()
    };
    assert_eq!(
        uses(&store, &both).await,
        [("new".into(), Uses::default()), ("old".into(), stored)].into()
    );
    assert_eq!(
        rotation::reseal(&*store, &both, "old").await.unwrap(),
        Resealed::default(),
        "another key seals by now"
    );
    let resealed = rotation::reseal(&*store, &both, "new").await.unwrap();
    let all = Resealed {
        credentials: 1,
        webhook_secrets: 1,
        payloads: 3,
        dead_letters: 1,
    };
    assert_eq!(resealed, all);
    assert_eq!(
        uses(&store, &both).await,
        [("new".into(), stored), ("old".into(), Uses::default())].into()
    );
    assert_eq!(
        rotation::reseal(&*store, &both, "new").await.unwrap(),
        Resealed::default(),
        "once is enough"
    );

    let new = keys(&[("new", 3)]);
    let account = accounts::get(&*store, &id).await.unwrap().unwrap();
    assert_eq!(account.credentials.open(&new, &id), Ok(fields()));
    let held = subscription::load(&*store, &id).await.unwrap().unwrap().held;
    assert!(subscription::open(&new, &id, &held[0]).unwrap().is_ok());
    let items = inbox::peek(&*store, &new, &id, 9, NOW).await.unwrap();
    assert!(items.len() == 3 && items.iter().all(|item| item.payload.is_ok()));
    // Who had one in hand meanwhile settles it.
    inbox::settle(&*store, &id, &[(ticket, inbox::Settled::Gone)])
        .await
        .unwrap();
    assert_eq!(inbox::fill(&*store, &id).await.unwrap().waiting, 2);
    let letter = dead::get(&*store, &JobId("l".into())).await.unwrap().unwrap();
    assert!(
        inbox::restore(&*store, &id, &letter.payload.unwrap(), NOW)
            .await
            .unwrap()
    );
    let items = inbox::peek(&*store, &new, &id, 9, NOW).await.unwrap();
    assert!(items.len() == 3 && items.iter().all(|item| item.payload.is_ok()));
}

pub(super) async fn what_no_key_opens_stays_as_it_is_and_shows(make: &impl AsyncFn() -> Arc<dyn Store>) {
    let store = make().await;
    let id = any_account();
    one_of_each(&store, &keys(&[("lost", 2)]), &id).await;
    let others = keys(&[("new", 3), ("old", 4)]);
    assert_eq!(
        rotation::reseal(&*store, &others, "new").await.unwrap(),
        Resealed::default()
    );
    let uses = uses(&store, &others).await;
    assert_eq!(uses.keys().collect::<Vec<_>>(), ["lost", "new", "old"]);
    assert_eq!((uses["lost"].credentials, uses["lost"].payloads), (1, 3));
    assert!(uses["old"].is_empty());
}

pub(super) async fn accounts_that_were_called_for_before_tokens_were_noted_are_unknown(
    make: &impl AsyncFn() -> Arc<dyn Store>,
) {
    let store = make().await;
    let (id, keys) = (any_account(), keys(&[("new", 3), ("old", 2)]));
    one_of_each(&store, &keys, &id).await;
    let key = DocKey::of_account(DocKind::Account, &id);
    let called = |known: Option<Account>| {
        let known = known.expect("an account");
        (Change::Put(Account { called: NOW, ..known }), Vec::new(), ())
    };
    docs::update(&*store, &key, called).await.unwrap();
    assert_eq!(uses(&store, &keys).await["old"].unknown, 1);

    let account = accounts::get(&*store, &id).await.unwrap().unwrap();
    let met = rotation::Met {
        shown: Some("old"),
        begins: true,
        given: "new",
        now: NOW,
    };
    let every = Duration::from_secs(1);
    accounts::note_tokens(&*store, &account, &met, &keys.kids(), every)
        .await
        .unwrap();
    let noted = uses(&store, &keys).await["old"];
    assert_eq!((noted.unknown, noted.tokens), (0, 1));
    // A registration keeps the note.
    accounts::register(&*store, &account).await.unwrap();
    assert_eq!(uses(&store, &keys).await["old"].tokens, 1);
}
