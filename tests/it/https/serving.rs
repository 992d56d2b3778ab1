//! Handshakes good and bad, against the real binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use fake_crm::Op;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Ca, address, certificate, over_tls, replace};
use crate::faults::Rig;
use crate::faults::child::Process;
use crate::faults::servers::free_port;
use crate::harness::*;

const NAMES: [&str; 3] = [
    "snapbridge_tls_certificate_expiry_timestamp_seconds",
    "snapbridge_tls_reloads_total",
    "snapbridge_tls_handshake_failures_total",
];

async fn metric(process: &Process, series: &str) -> f64 {
    let Some((200, text)) = process.look("/metrics").await else {
        return 0.0;
    };
    for name in NAMES.iter().filter(|name| text.contains(&format!("# TYPE {name}"))) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

async fn up(rig: &mut Rig, ca: &Ca, more: &str) -> Process {
    rig.set(&ca.pair(2049).settings(&rig.folder()));
    rig.set(more);
    let mut up = rig.start("up");
    over_tls(&mut up, ca.client().build().expect("a client"));
    up.until_ready().await;
    up
}

/// Connects and sends: whoever comes later is accepted later.
fn send(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.write_all(bytes).expect("sent");
    stream
}

/// Reads until the other side closes; an abrupt close is an error.
async fn answer(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let read = move || {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    tokio::task::spawn_blocking(read).await.expect("joined")
}

on_both!(a_sync_passes_over_tls, |backend| async move {
    let crm = Crm::start(120).await;
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let settings = ca.pair(2049).settings(folder.path());
    let settings = settings.replace("\"tls.", &format!("\"{}/tls.", folder.path().display()));
    let more = format!("{settings}\nhttp.require_https = true");
    let mut bridge = Bridge::start(backend, &crm, &more).await;
    bridge.url = bridge.url.replace("http://", "https://");
    bridge.http = ca.client().build().unwrap();
    bridge.build().await;
    assert_eq!(bridge.run(None).await.titles(), truth(&crm));

    let old = ca
        .client()
        .max_tls_version(reqwest::tls::Version::TLS_1_2)
        .build()
        .unwrap();
    let answer = old
        .post(format!("{}/demo/contact_sync", bridge.url))
        .json(&json!({"auth": auth()}));
    assert_eq!(answer.send().await.unwrap().status(), 200, "TLS 1.2 will do");
    let stranger = Ca::new().client().build().unwrap();
    let refused = stranger.get(format!("{}/demo/logo.png", bridge.url)).send().await;
    assert!(refused.is_err(), "the certificate is of another CA");
    bridge.stop().await;
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_open_connections_and_a_broken_one_is_not_taken() {
    let (mut rig, ca) = (Rig::new(30, "", "").await, Ca::new());
    let mut up = up(&mut rig, &ca, "http.tls.reload = \"50ms\"").await;
    let first = std::fs::read_to_string(rig.folder().join("tls.crt")).unwrap();
    let expiry = "snapbridge_tls_certificate_expiry_timestamp_seconds ";
    let ask = async |client: &reqwest::Client, url: &str| {
        let answer = client
            .get(format!("{url}/demo/logo.png"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
        let certificate = certificate(&answer);
        answer.bytes().await.expect("a picture");
        certificate
    };
    let fresh = || ca.client().pool_max_idle_per_host(0).build().unwrap();
    let url = up.url.clone();
    let kept = up.http.clone();
    let old = ask(&kept, &url).await;
    assert_eq!(metric(&up, expiry).await, ca.pair(2049).expires as f64);

    let renewed = ca.pair(2048);
    renewed.write(&rig.folder());
    until("new connections get the new certificate", || async {
        ask(&fresh(), &url).await == renewed.der
    })
    .await;
    assert_eq!(ask(&kept, &url).await, old, "the open connection goes on");
    until("the metrics know", || async {
        metric(&up, expiry).await == renewed.expires as f64
            && metric(&up, "snapbridge_tls_reloads_total{result=\"ok\"}").await >= 1.0
    })
    .await;

    // A key that is not the certificate's, then half a file, then none.
    let failed = "snapbridge_tls_reloads_total{result=\"failed\"}";
    let before = metric(&up, failed).await;
    let folder = rig.folder();
    let break_it: [&dyn Fn(); 3] = [
        &|| replace(&folder, "tls.key", &ca.pair(2047).key),
        &|| replace(&folder, "tls.crt", &first[..first.len() / 2]),
        &|| std::fs::remove_file(folder.join("tls.crt")).unwrap(),
    ];
    for (index, breaks) in break_it.iter().enumerate() {
        breaks();
        until("the broken pair is noticed", || async {
            metric(&up, failed).await >= before + index as f64 + 1.0
        })
        .await;
        assert_eq!(ask(&fresh(), &url).await, renewed.der, "the old pair stays");
    }
    assert_eq!(metric(&up, expiry).await, renewed.expires as f64);
    let log = up.log();
    assert!(log.contains("is not the key of the certificate in"), "{log}");
    assert!(log.contains("cannot be used, the old one stays"), "{log}");

    let last = ca.pair(2046);
    last.write(&rig.folder());
    until("a good pair is taken again", || async {
        ask(&fresh(), &url).await == last.der
    })
    .await;
    up.assert_runs();
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_shake_hands_is_let_go_and_takes_no_place_for_long() {
    let (mut rig, ca) = (Rig::new(5, "", "").await, Ca::new());
    let more = "http.tls.handshake_timeout = \"300ms\"\nhttp.max_connections = 1";
    let mut up = up(&mut rig, &ca, more).await;
    // A connection that is kept would keep the only place.
    up.http = ca.client().pool_max_idle_per_host(0).build().unwrap();
    let to = address(&up.url);
    let failed = async |why: &str, times: f64| {
        let series = format!("snapbridge_tls_handshake_failures_total{{why=\"{why}\"}}");
        until(&format!("{why} is counted"), || async {
            metric(&up, &series).await == times
        })
        .await;
    };

    // Nothing at all, and the beginning of a handshake; each has the only place until it is cut.
    for (bytes, times) in [(&[][..], 1.0), (&[22, 3, 1, 2, 0, 1], 2.0)] {
        let slow = send(to, bytes);
        let served = up.http.get(format!("{}/demo/logo.png", up.url)).send().await.unwrap();
        assert_eq!(served.status(), 200, "served after the slow one was cut");
        failed("timeout", times).await;
        let _ = answer(slow).await;
    }

    let request = "POST /demo/contact_sync HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n";
    let plain = send(to, &[request.as_bytes(), &[b'x'; 3000]].concat());
    plain.shutdown(std::net::Shutdown::Write).unwrap();
    let text = answer(plain).await.expect("a clean close");
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.starts_with("HTTP/1.1 403 ") && text.contains("\"code\":\"https_required\""),
        "{text}"
    );
    failed("plain_http", 1.0).await;

    // No TLS at all, and a handshake that is none.
    for (bytes, times) in [(&[0, 1, 2][..], 1.0), (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], 2.0)] {
        let _ = answer(send(to, bytes)).await;
        failed("failed", times).await;
    }
    // A look whether the port is open is no failure.
    drop(send(to, &[]));
    let served = up.http.get(format!("{}/demo/logo.png", up.url)).send().await.unwrap();
    assert_eq!(served.status(), 200);
    failed("timeout", 2.0).await;
    up.stop().await;
}

/// A handshake that offers these protocols.
async fn greet(ca: &Ca, to: SocketAddr, offered: &[&str]) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM"))
        .expect("a CA");
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(to).await?;
    let name = "127.0.0.1".try_into().expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_1_is_what_is_spoken_and_slow_heads_are_cut() {
    let (mut rig, ca) = (Rig::new(5, "", "").await, Ca::new());
    let up = up(&mut rig, &ca, "http.header_timeout = \"300ms\"").await;
    let to = address(&up.url);
    for (offered, chosen) in [(&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let stream = greet(&ca, to, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
    }
    assert!(greet(&ca, to, &["h2"]).await.is_err(), "nothing in common");

    let mut slow = greet(&ca, to, &[]).await.unwrap();
    slow.write_all(b"POST /demo/contact_sync HTTP/1.1\r\nx-slow: ")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer)).await;
    // With or without a close_notify: hyper drops a connection whose head is late.
    let _ = ended.expect("it is cut");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_hand_ends_over_tls_when_the_process_is_stopped() {
    let (mut rig, ca) = (Rig::new(5, "", "").await, Ca::new());
    let up = up(&mut rig, &ca, "cold.hold = \"3s\"").await;
    rig.crm.crm.knobs("demo", |knobs| {
        knobs.frozen = true;
        knobs.fault_ops = vec![Op::List];
    });
    let request = up
        .http
        .post(format!("{}/demo/contact_sync", up.url))
        .json(&json!({"auth": auth()}));
    // Who is in the middle of a handshake is not waited for.
    let half = send(address(&up.url), &[22, 3, 1]);
    let stop = async {
        until("the request is held", || async {
            rig.crm.crm.stats("demo").in_flight > 0
        })
        .await;
        up.stop().await;
    };
    let (held, ()) = tokio::join!(request.send(), stop);
    let held = held.expect("an answer, not a hang-up");
    assert_eq!(held.status(), 200);
    assert!(held.text().await.unwrap().contains("next_offset"), "more to come");
    drop(half);
}

/// While it waits for its store it says so, over TLS as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_that_is_starting_says_so_over_tls() {
    let store = format!("redis://127.0.0.1:{}", free_port());
    let (mut rig, ca) = (Rig::new(5, &store, "").await, Ca::new());
    rig.set(&ca.pair(2049).settings(&rig.folder()));
    let mut front = rig.start("serve");
    over_tls(&mut front, ca.client().build().unwrap());
    let ask = async || {
        let request = front.http.post(format!("{}/demo/contact_sync", front.url));
        let answer = request.json(&json!({"auth": auth()})).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    };
    until("it answers", || async {
        ask()
            .await
            .is_some_and(|(status, text)| status == 503 && text.contains("\"starting\""))
    })
    .await;
    front.stop().await;
}
