//! Invariant 11: no answer holds another principal's contacts.

use fake_crm::owner;
use serde_json::json;

use super::*;

/// Users of the fake CRM's account.
const USERS: usize = 12;

fn all_belong_to(run: &Run, user: usize) -> bool {
    !run.contacts.is_empty()
        && run
            .ids()
            .iter()
            .all(|id| owner(id.parse().expect("a number"), USERS) == user)
}

on_both!(
    invariant_11_two_principals_of_one_tenant_never_share_a_snapshot,
    |backend| async move {
        let stage = Stage::start(240).await;
        stage.crm.crm.knobs("demo", |knobs| knobs.own_contacts = true);
        let bridge = stage.bridge(backend, "oauth2_password", "page.contacts = 5\n").await;
        let (ana, bea) = (stage.password(USER, PASSWORD), stage.password("bea", PASSWORD));
        let first = bridge.built_as(&ana).await;
        let second = bridge.built_as(&bea).await;
        assert_ne!(first, second);
        assert_eq!(bridge.accounts().await.len(), 2);
        let (of_ana, of_bea) = (bridge.run_as(&ana, None).await, bridge.run_as(&bea, None).await);
        assert!(all_belong_to(&of_ana, 1), "{:?}", of_ana.ids());
        assert!(all_belong_to(&of_bea, 2), "{:?}", of_bea.ids());

        // Neither's places in the other's list.
        let (_, page) = bridge.sync_as(&ana, json!(null)).await;
        let (status, body) = bridge.sync_as(&bea, json!({"offset": page["next_offset"]})).await;
        assert_eq!((status, &body["code"]), (400, &json!("bad_offset")));
        let run = bridge.run_as(&bea, Some(&of_ana.checkpoint)).await;
        assert_eq!(
            run.ids(),
            of_bea.ids(),
            "a foreign checkpoint is a full sync of the caller's own"
        );
        bridge.stop().await;
    }
);

on_both!(principals_who_see_the_same_share_one_snapshot, |backend| async move {
    let stage = Stage::start(30).await;
    let bridge = stage.bridge(backend, "oauth2_password", "").await;
    let first = bridge.built_as(&stage.password(USER, PASSWORD)).await;
    let second = bridge.built_as(&stage.password("bea", PASSWORD)).await;
    assert_eq!(first, second);
    let run = bridge.run_as(&stage.password("bea", PASSWORD), None).await;
    assert_eq!(run.titles(), truth(&stage.crm));
    bridge.stop().await;
});

on_both!(
    invariant_11_a_brought_token_shows_what_its_own_user_may_see,
    |backend| async move {
        let stage = Stage::start(120).await;
        stage.crm.crm.knobs("demo", |knobs| knobs.own_contacts = true);
        let bridge = stage.bridge(backend, "oauth2", "").await;
        let (ana, _) = stage.dance(USER).await;
        let (bea, _) = stage.dance("bea").await;
        bridge.built_as(&stage.brought(&ana)).await;
        bridge.built_as(&stage.brought(&bea)).await;
        assert!(all_belong_to(&bridge.run_as(&stage.brought(&ana), None).await, 1));
        assert!(all_belong_to(&bridge.run_as(&stage.brought(&bea), None).await, 2));
        assert_eq!(
            bridge.sync_as(&stage.brought("access-1-guess"), json!(null)).await.0,
            401
        );
        bridge.stop().await;
    }
);
