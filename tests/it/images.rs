//! Logos, icons, and the URLs that Talkdesk is given.

use serde_json::json;

use crate::faults::Rig;
use crate::harness::*;

const SVG: &str = "<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 9 9\">\
                   <rect width=\"9\" height=\"9\"/></svg>\n";

async fn get(bridge: &Bridge, path: &str, known: Option<&str>) -> reqwest::Response {
    let mut request = bridge.http.get(format!("{}{path}", bridge.url));
    if let Some(tag) = known {
        request = request.header("if-none-match", tag);
    }
    request.send().await.expect("an answer")
}

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    let value = answer.headers().get(name).unwrap_or_else(|| panic!("no {name}"));
    value.to_str().expect("text")
}

on_both!(
    pictures_are_served_with_their_type_and_kept_by_caches,
    |backend| async move {
        let crm = Crm::start(5).await;
        let folder = tempfile::tempdir().unwrap();
        let icon = folder.path().join("icon");
        std::fs::write(&icon, SVG).unwrap();
        let more = format!(
            "integrations.demo.icon = \"{}\"\nintegrations.demo.path_secret = \"0123456789abcdefghij\"",
            icon.display()
        );
        let bridge = Bridge::start(backend, &crm, &more).await;
        for (path, kind) in [("/demo/logo.png", "image/png"), ("/demo/icon.svg", "image/svg+xml")] {
            let answer = get(&bridge, path, None).await;
            assert_eq!(answer.status(), 200, "{path}: pictures are for anybody");
            assert_eq!(header(&answer, "content-type"), kind);
            assert_eq!(header(&answer, "cache-control"), "public, max-age=3600");
            assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
            assert!(header(&answer, "content-security-policy").contains("sandbox"));
            let tag = header(&answer, "etag").to_owned();
            let bytes = answer.bytes().await.unwrap();
            match kind {
                "image/png" => assert!(bytes.starts_with(b"\x89PNG")),
                _ => assert_eq!(bytes, SVG.as_bytes()),
            }
            for known in [
                tag.clone(),
                format!("W/{tag}"),
                format!("\"other\", {tag}"),
                "*".to_owned(),
            ] {
                let answer = get(&bridge, path, Some(&known)).await;
                assert_eq!(
                    (answer.status().as_u16(), header(&answer, "etag")),
                    (304, tag.as_str()),
                    "{known}"
                );
                assert!(answer.bytes().await.unwrap().is_empty());
            }
            assert_eq!(get(&bridge, path, Some("\"other\"")).await.status(), 200);
        }
        for path in [
            "/demo/logo.svg",
            "/demo/icon.png",
            "/nobody/logo.png",
            "/demo/logo",
            "/demo/picture.png",
        ] {
            assert_eq!(get(&bridge, path, None).await.status(), 404, "{path}");
        }
        assert_eq!(bridge.post("/demo/logo.png", json!({})).await.0, 405);
        let missing = bridge
            .http
            .post(format!("{}/demo/k/x/contact_sync", bridge.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            header(&missing, "cache-control"),
            "no-store",
            "all else is kept by nobody"
        );
        bridge.stop().await;
    }
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_urls_for_talkdesk_are_absolute_and_lead_somewhere() {
    let mut rig = Rig::new(5, "", "").await;
    let (code, text) = rig.command(&["talkdesk", "urls"]).await;
    assert!(code == Some(2) && text.contains("http.public_url is not set"), "{text}");
    rig.set("http.public_url = \"https://bridge.example/\"");
    let mut up = rig.start("up");
    up.until_ready().await;
    let (code, text) = rig.command(&["talkdesk", "urls"]).await;
    assert_eq!(code, Some(0), "{text}");
    let urls: Vec<(&str, &str)> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.trim().rsplit_once(' '))
        .collect();
    let names: Vec<&str> = urls.iter().map(|(name, _)| name.trim()).collect();
    for name in [
        "logo_url",
        "icon_url",
        "auth_validation_endpoint",
        "contact_synchronization_endpoint",
    ] {
        assert!(names.contains(&name), "{name} is not in {text}");
    }
    for (name, url) in urls {
        let path = url
            .strip_prefix("https://bridge.example/demo/")
            .expect("an absolute URL");
        let here = format!("{}/demo/{path}", up.url);
        let request = match name.trim().ends_with("_url") {
            true => up.http.get(here),
            false => up.http.post(here).body("{}"),
        };
        let status = request.send().await.unwrap().status().as_u16();
        // An account's webhook needs the account's own name in the URL.
        assert_eq!(status == 404, url.ends_with("/HOOK"), "{name} {url}: {status}");
    }
    up.stop().await;

    rig.set("integrations.demo.path_secret = \"0123456789abcdefghij\"");
    let (_, text) = rig.command(&["talkdesk", "urls"]).await;
    assert!(
        text.contains("https://bridge.example/demo/k/SECRET/contact_sync"),
        "{text}"
    );
    assert!(
        text.contains("https://bridge.example/demo/logo.png") && !text.contains("0123456789"),
        "{text}"
    );
}
