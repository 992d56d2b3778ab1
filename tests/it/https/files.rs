//! Certificates that cannot be served: told at start and by `config check`, with the file's name and nothing of it.

use super::Ca;
use crate::faults::Rig;
use crate::faults::child::{Process, Start, binary};
use crate::faults::servers::free_port;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_cannot_be_served_is_named_at_start() {
    let (mut rig, ca) = (Rig::new(5, "", "").await, Ca::new());
    let good = ca.pair(2049);
    rig.set(&good.settings(&rig.folder()));
    let (code, text) = rig.command(&["config", "check"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("[http.tls]\ncert = \"tls.crt\"\nkey = \"tls.key\""),
        "{text}"
    );

    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let half = &good.cert[..good.cert.len() / 2];
    let broken = good.cert.replacen("MII", "M!!", 1);
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let weird = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let other = ca.pair(2049).key;
    let rows: [(Option<&str>, Option<&str>, &str); 10] = [
        (None, Some(&good.key), "http.tls.cert: tls.crt cannot be read"),
        (Some(&good.cert), None, "http.tls.key: tls.key cannot be read"),
        (
            Some(""),
            Some(&good.key),
            "http.tls.cert: tls.crt holds no certificate in PEM form",
        ),
        (Some(half), Some(&good.key), "http.tls.cert: tls.crt is not sound PEM"),
        (
            Some(&broken),
            Some(&good.key),
            "http.tls.cert: tls.crt is not sound PEM",
        ),
        (
            Some(empty),
            Some(&good.key),
            "http.tls.cert: tls.crt holds a certificate that cannot be read",
        ),
        (
            Some(&good.cert),
            Some(&good.cert),
            "http.tls.key: tls.key holds no private key in PEM form",
        ),
        (Some(&good.cert), Some(&encrypted), "http.tls.key: tls.key is encrypted"),
        (
            Some(&good.cert),
            Some(weird),
            "http.tls.key: tls.key holds a private key that cannot be used",
        ),
        (
            Some(&good.cert),
            Some(&other),
            "http.tls.key: tls.key is not the key of the certificate in tls.crt",
        ),
    ];
    for (cert, key, expected) in rows {
        for (name, text) in [("tls.crt", cert), ("tls.key", key)] {
            let file = rig.folder().join(name);
            match text {
                Some(text) => std::fs::write(file, text).unwrap(),
                None => std::fs::remove_file(file).unwrap(),
            }
        }
        for (command, exit) in [(&["config", "check"][..], 2), (&["up"], 1)] {
            let (code, text) = rig.command(command).await;
            assert_eq!(code, Some(exit), "{command:?}: {text}");
            assert!(text.contains(expected), "{expected} is not in {text}");
            let secret = good.key.lines().nth(1).unwrap();
            assert!(!text.contains(secret), "a key in an error");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_without_tls_that_others_reach_is_warned_of() {
    let mut rig = Rig::new(5, "", "").await;
    for (public, warned) in [("http", true), ("https", false)] {
        rig.set(&format!("http.public_url = \"{public}://bridge.example\""));
        let (listen, admin) = (free_port(), free_port());
        let environment = [("SNAPBRIDGE_HTTP__LISTEN".to_owned(), format!("0.0.0.0:{listen}"))];
        std::fs::write(rig.folder().join("up.toml"), rig.settings(listen, admin)).unwrap();
        let mut up = Process::start(Start {
            name: "up",
            program: binary(),
            arguments: ["up", "--config", "up.toml"].map(str::to_owned).to_vec(),
            environment: environment.into(),
            folder: &rig.folder(),
            listen: Some(listen),
            admin,
        });
        up.until_ready().await;
        let log = up.log();
        assert_eq!(
            log.contains("credentials may cross the network readably"),
            warned,
            "{log}"
        );
        up.stop().await;
    }
}
