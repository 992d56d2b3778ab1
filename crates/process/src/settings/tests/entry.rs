//! Who may come in, and how: secrets and HTTPS.

use super::*;

#[test]
fn the_file_names_secret_files_too_and_variables_win() {
    let more = "path_secret_file = \"path\"\nbridge_key_file = \"/run/secrets/two\"";
    let mut source = integration(more);
    source.file.as_mut().unwrap().path = "/run/secrets/snapbridge.toml".into();
    source.read_file = secrets;
    let acme = load(&source).integrations.remove("acme-crm").unwrap();
    assert!(acme.path_secret.admit(PATH_SECRET), "relative to the settings file");
    assert!(acme.bridge_key.admit(PATH_SECRET) && acme.bridge_key.admit("0123456789abcdef"));
    assert!(!acme.bridge_key.admit("0123456789abcdeF"));

    let source = source.with_var(
        "SNAPBRIDGE_INTEGRATIONS__ACME_CRM__PATH_SECRET",
        "another-secret-01, a-third-secret-02",
    );
    let acme = load(&source).integrations.remove("acme-crm").unwrap();
    assert!(acme.path_secret.admit("another-secret-01") && acme.path_secret.admit("a-third-secret-02"));
    assert!(!acme.path_secret.admit(PATH_SECRET));
}

#[test]
fn https_settings_are_checked_together_and_all_at_once() {
    let text = "\
[http]
public_url = \"http://bridge.example\"
trusted_proxies = [\"10.0.0.0/33\"]
require_https = 1

[http.tls]
cert = \"cert.pem\"
crt = \"cert.pem\"
handshake_timeout = \"1h\"
";
    let expected = [
        "snapbridge.toml:2:1: `http.public_url` is http although `http.tls.cert` is set (nobody would get through; write \
         https://)",
        "snapbridge.toml:3:1: `http.trusted_proxies`: expected a list of networks and addresses such as [\"10.0.0.0/8\", \
         \"127.0.0.1\"]",
        "snapbridge.toml:4:1: `http.require_https`: expected true or false",
        "snapbridge.toml:7:1: `http.tls.cert` needs `http.tls.key` beside it (the PEM file of the certificate's private key)",
        "snapbridge.toml:8:1: unknown key `crt` in [http.tls] (did you mean `cert`?)",
        "snapbridge.toml:9:1: `http.tls.handshake_timeout`: must lie between 10ms and 5m",
    ];
    assert_eq!(problems(&Source::text(text)), expected);
    for (text, expected) in [
        ("[http]\nrequire_https = true", "would refuse every request"),
        (
            "[http]\ntrusted_proxies = [\"0.0.0.0/0\"]",
            "a network of all addresses",
        ),
        ("[http]\ntls = 3", "write [http.tls]"),
        ("http.tls.key = \"k\"", "`http.tls.key` needs `http.tls.cert` beside it"),
        (
            "[http]\nrequire_https = true\ntrusted_proxies = [\"10.0.0.1\"]\npublic_url = \"http://bridge.example\"",
            "`http.public_url` is http although `http.require_https` is set",
        ),
    ] {
        let found = problem(&Source::text(text));
        assert!(found.contains(expected), "{text}\n  {found}");
    }
    let settings = load(
        &Source::text("http.tls.cert = \"cert.pem\"\nhttp.require_https = true")
            .with_var("SNAPBRIDGE_HTTP__TLS__KEY", "/run/secrets/key.pem")
            .with_var("SNAPBRIDGE_HTTP__TRUSTED_PROXIES", "10.1.2.3/8, ::1"),
    );
    assert_eq!(
        settings.http_tls.key.as_deref(),
        Some(Path::new("/run/secrets/key.pem"))
    );
    let masked = settings.masked();
    assert!(
        masked.contains("trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]"),
        "{masked}"
    );
    assert!(masked.contains("\n[http.tls]\ncert = \"cert.pem\"\n"), "{masked}");
    assert_eq!(load(&Source::text(&masked)).masked(), masked);
}
