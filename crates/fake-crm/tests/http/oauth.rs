//! The authorization server: grants, rotation, lives, and what the CRM makes of its tokens.

use std::time::Duration;

use fake_crm::OauthServer;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Served, served};

struct Scene {
    crm: Served,
    oauth: OauthServer,
    url: String,
}

async fn scene() -> Scene {
    let crm = served(24).await;
    let oauth = OauthServer::new();
    oauth.client("id", "secret", "demo");
    oauth.user("ana", "password", "demo", 3);
    crm.crm.trust(&oauth);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/oauth/token", listener.local_addr().expect("an address"));
    tokio::spawn(oauth.clone().serve(listener, CancellationToken::new()));
    Scene { crm, oauth, url }
}

impl Scene {
    async fn token(&self, form: &str) -> (StatusCode, Value) {
        let request = self.crm.client.post(&self.url);
        let response = request.body(form.to_owned()).send().await.expect("an answer");
        (response.status(), response.json().await.expect("JSON"))
    }

    async fn me(&self, token: &str) -> (StatusCode, Value) {
        let request = self.crm.client.get(format!("{}/api/demo/me", self.crm.base));
        let response = request.bearer_auth(token).send().await.expect("an answer");
        (response.status(), response.json().await.expect("JSON"))
    }
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().expect(name).to_owned()
}

const CLIENT: &str = "client_id=id&client_secret=secret";

#[tokio::test]
async fn each_grant_gives_a_token_that_the_crm_takes_for_its_user() {
    let scene = scene().await;
    scene.crm.crm.knobs("demo", |knobs| knobs.own_contacts = true);
    let code = scene.oauth.consent("ana");
    for (form, user) in [
        (format!("grant_type=client_credentials&{CLIENT}"), "u-1"),
        (
            format!("grant_type=password&username=ana&password=password&{CLIENT}"),
            "u-3",
        ),
        (format!("grant_type=authorization_code&code={code}&{CLIENT}"), "u-3"),
    ] {
        let (status, body) = scene.token(&form).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let (status, me) = scene.me(&text(&body, "access_token")).await;
        assert_eq!((status, me["user"]["id"].as_str()), (StatusCode::OK, Some(user)));
        assert_eq!(me["visibility"], "own");
    }
    for (form, error) in [
        (
            format!("grant_type=authorization_code&code={code}&{CLIENT}"),
            "invalid_grant",
        ),
        (
            format!("grant_type=password&username=ana&password=x&{CLIENT}"),
            "invalid_grant",
        ),
        (
            "grant_type=client_credentials&client_id=id&client_secret=x".to_owned(),
            "invalid_client",
        ),
        (format!("grant_type=device&{CLIENT}"), "unsupported_grant_type"),
    ] {
        assert_eq!(scene.token(&form).await.1["error"], error, "{form}");
    }
    let stats = scene.oauth.stats();
    assert_eq!((stats.total(), stats.issued, stats.of("password")), (7, 3, 2));
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_second_use_voids_its_family() {
    let scene = scene().await;
    let code = scene.oauth.consent("ana");
    let (_, first) = scene
        .token(&format!("grant_type=authorization_code&code={code}&{CLIENT}"))
        .await;
    let refresh = format!(
        "grant_type=refresh_token&refresh_token={}&{CLIENT}",
        text(&first, "refresh_token")
    );
    let (status, second) = scene.token(&refresh).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(scene.me(&text(&second, "access_token")).await.0, StatusCode::OK);
    assert_eq!(scene.token(&refresh).await.1["error"], "invalid_grant");
    assert_eq!(
        scene.me(&text(&second, "access_token")).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(scene.oauth.stats().reused, 1);
}

#[tokio::test]
async fn a_token_ends_with_its_life_or_when_it_is_revoked() {
    let scene = scene().await;
    let form = format!("grant_type=client_credentials&{CLIENT}");
    let (_, body) = scene.token(&form).await;
    let token = text(&body, "access_token");
    assert_eq!(scene.me(&token).await.0, StatusCode::OK);
    scene.oauth.revoke(&token);
    assert_eq!(scene.me(&token).await.0, StatusCode::UNAUTHORIZED);
    scene.oauth.knobs(|knobs| knobs.life = Duration::ZERO);
    let (_, body) = scene.token(&form).await;
    assert_eq!(scene.me(&text(&body, "access_token")).await.0, StatusCode::UNAUTHORIZED);
}
