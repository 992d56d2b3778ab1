use std::io;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

mod entry;
mod linking;

const PATH_SECRET: &str = "canary-path-secret-0123456789";

fn problems(source: &Source) -> Vec<String> {
    match Settings::load(source) {
        Ok(_) => panic!("no problem found"),
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    }
}

fn load(source: &Source) -> Settings {
    Settings::load(source).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The one problem there is.
fn problem(source: &Source) -> String {
    let mut problems = problems(source);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

#[test]
fn defaults_stand_and_have_no_problem() {
    let settings = load(&Source::text(""));
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.http.body_limit, ByteSize(256 * 1024));
    assert_eq!(settings.refresh.poll, Duration::from_secs(600));
    assert_eq!(settings.refresh.brake_ratio, 0.2);
    assert_eq!(settings.cold.answer, ColdAnswer::Hold);
    assert!(settings.store.url.is_none() && settings.http.public_url.is_none());
    assert!(settings.integrations.is_empty());
    assert_eq!(settings.masked(), Settings::default().masked());
}

#[test]
fn every_default_lies_within_its_own_bounds() {
    // Each default given as an operator would: whatever is out of bounds or unreadable becomes a problem.
    let mut read = 0;
    for section in SECTIONS {
        for key in section.keys.iter().filter(|key| !key.default.is_empty()) {
            let section = section.name.replace('.', "__");
            let name = format!("{PREFIX}{section}__{}", key.name).to_ascii_uppercase();
            load(&Source::text("").with_var(name, key.default));
            read += 1;
        }
    }
    assert!(read > 50);
}

#[test]
fn file_and_variables_win_over_defaults_in_this_order() {
    let text = "[worker]\nslots = 8\nslice_time = \"5s\"\n[log]\nformat = \"json\"\n";
    let settings = load(&Source::text(text).with_var("SNAPBRIDGE_WORKER__SLOTS", "16"));
    assert_eq!(settings.worker.slots, 16);
    assert_eq!(settings.worker.slice_time, Duration::from_secs(5));
    assert_eq!(settings.worker.lease, Duration::from_secs(30));
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let text = "\
[http]
lisen = \"127.0.0.1:1\"
header_timeout = \"10\"
max_connections = 0

[htpp]
listen = \"x\"

[worker]
slots = \"four\"
poll = \"1m\"

[cold]
answer = \"hodl\"
hold = \"1m\"
";
    let source = Source::text(text)
        .with_var("SNAPBRIDGE_STORE__ULR", "redis://localhost")
        .with_var("SNAPBRIDGE_QUEUE__URL", "kafka://localhost");
    let expected = [
        "snapbridge.toml:2:1: unknown key `lisen` in [http] (did you mean `listen`?)",
        "snapbridge.toml:3:1: `http.header_timeout`: expected a duration with its unit, such as \"10s\", \"500ms\" or \
         \"1h 30m\"",
        "snapbridge.toml:4:1: `http.max_connections`: must lie between 1 and 65535",
        "snapbridge.toml:6:2: unknown section or key `htpp` (did you mean `http`?)",
        "snapbridge.toml:10:1: `worker.slots`: expected a whole number",
        "snapbridge.toml:11:1: unknown key `poll` in [worker] (it belongs into [refresh])",
        "snapbridge.toml:14:1: `cold.answer`: expected one of \"hold\", \"unavailable\" (did you mean `hold`?)",
        "snapbridge.toml:15:1: `cold.hold` (1m) must be shorter than `http.request_deadline` (25s) (a held request must \
         still be answered)",
        "SNAPBRIDGE_QUEUE__URL: `queue.url`: expected \"sqlite:DIR\", \"amqp://…\" or \"amqps://…\"",
        "SNAPBRIDGE_STORE__ULR: unknown variable (did you mean `SNAPBRIDGE_STORE__URL`?)",
    ];
    assert_eq!(problems(&source), expected);
}

#[test]
fn syntax_errors_come_all_together_and_never_with_the_line_itself() {
    let text = "[http]\nlisten = 127.0.0.1:8080\n[store]\nurl = \"redis://u:canary@h\n[worker]\nslots = \n";
    let problems = problems(&Source::text(text).with_var("SNAPBRIDGE_NOPE", "1"));
    for place in [
        "snapbridge.toml:2:",
        "snapbridge.toml:4:",
        "snapbridge.toml:6:",
        "SNAPBRIDGE_NOPE",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(place)),
            "{place} in {problems:#?}"
        );
    }
    assert!(!problems.concat().contains("canary"), "{problems:#?}");
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for (text, expected) in [
        ("http = 3", "write [http]"),
        ("listen = \"127.0.0.1:80\"", "it belongs into [http]"),
        ("[http.listen]\na = 1", "expected a value, not a table"),
        ("[worker]\nslots = \"4\"", "expected a whole number"),
        ("[worker]\nslots = -4", "expected a whole number"),
        ("[worker]\nslice_time = 20", "expected a duration"),
        ("[refresh]\njitter = nan", "expected a number"),
        ("[page]\nbytes = \"1MB\"", "expected a number of bytes"),
        ("[http]\npublic_url = \"bridge.example\"", "absolute URL"),
        (
            "[http]\npublic_url = \"ftp://bridge.example\"",
            "absolute http or https",
        ),
        (
            "[http]\npublic_url = \"https://u:p@bridge.example\"",
            "user or password",
        ),
        (
            "[http]\npublic_url = \"https://bridge.example?x=1\"",
            "query or fragment",
        ),
        ("[store]\nurl = \"sqlite:\"", "folder is missing"),
        ("[log]\nlevel = \"info,worker=loudly\"", "not a level"),
        ("[store]\nnamespace = \"a b\"", "1 to 64 letters"),
        ("integrations = 3", "write [integrations]"),
        ("[integrations]\nacme = 3", "write [integrations.acme]"),
        (
            "[integrations.acme]\nconnector = \"odoo\"\nconnection = 3",
            "expected a table",
        ),
        (
            "[integrations.acme]\nconnector = \"odoo\"\nconnection = {\"a b\" = \"1\"}",
            "letters, digits",
        ),
        (
            "[integrations.acme]\nconnector = \"odoo\"\napp = {secret = \"\"}",
            "not empty",
        ),
    ] {
        let found = problem(&Source::text(text));
        assert!(found.contains(expected), "{text}\n  {found}");
    }
}

#[test]
fn what_goes_together_is_checked_together() {
    for (text, expected) in [
        (
            "[worker]\nslice_time = \"30s\"",
            "`worker.slice_time` (30s) must be shorter than `worker.lease` (30s)",
        ),
        (
            "[worker]\nlease = \"10s\"",
            "`worker.slice_time` (20s) must be shorter than `worker.lease` (10s)",
        ),
        ("[refresh]\nmarker = \"5s\"", "must be shorter than `refresh.marker`"),
        (
            "[crm]\ncall_timeout = \"5s\"\nread_timeout = \"6s\"",
            "`crm.read_timeout` (6s) must not be longer",
        ),
        (
            "[page]\nmax_contacts = 100",
            "`page.contacts` must not be more than `page.max_contacts`",
        ),
        ("[http]\nadmin_listen = \"127.0.0.1:8080\"", "are the same address"),
        ("[refresh]\nbrake_min = 5000", "`refresh.brake_min` must not be more"),
        (
            "[credentials]\ncheck_timeout = \"26s\"",
            "`credentials.check_timeout` (26s) must be shorter",
        ),
        (
            "[retry]\nmax = \"1s\"",
            "`retry.first` (5s) must not be longer than `retry.max` (1s)",
        ),
        ("[rabbitmq]\nheartbeat = \"1500ms\"", "whole seconds"),
    ] {
        let found = problem(&Source::text(text));
        assert!(found.contains(expected), "{text}\n  {found}");
        assert!(found.starts_with("snapbridge.toml:"), "{found}");
    }
    let both = Source::text("[http]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"");
    load(&both);
}

#[test]
fn a_check_is_silent_about_a_setting_that_has_a_problem_already() {
    assert!(problem(&Source::text("[worker]\nlease = \"soon\"\nslice_time = \"40s\"")).contains("expected a duration"));
}

fn integration(rest: &str) -> Source {
    Source::text(format!("[integrations.acme-crm]\nconnector = \"odoo\"\n{rest}"))
}

#[test]
fn an_integration_is_read_with_its_maps_and_overrides() {
    let settings = load(&integration(
        "auth_type = \"oauth2_password\"\nregion = \"PT\"\npoll = \"1m\"\nreturn_fields = [\"db\"]\n\
         auth_success_status = 204\nconnection = { url = \"https://odoo.example\", company = 7 }\n\
         [integrations.acme-crm.app]\nsecret = \"s\"\n",
    ));
    let acme = &settings.integrations["acme-crm"];
    assert_eq!(acme.kind, IntegrationKind::Talkdesk);
    assert_eq!(acme.auth_type, AuthType::OAuth2Password);
    assert_eq!((acme.region.as_deref(), acme.auth_success_status), (Some("PT"), 204));
    assert_eq!((acme.poll, acme.lag), (Some(Duration::from_secs(60)), None));
    assert_eq!(acme.return_fields, ["db"]);
    assert_eq!(acme.connection["url"].expose_secret(), "https://odoo.example");
    assert_eq!(acme.connection["company"].expose_secret(), "7");
    assert_eq!(acme.app["secret"].expose_secret(), "s");
}

#[test]
fn integrations_are_refused_for_what_cannot_run() {
    for (text, expected) in [
        ("kind = \"linking\"", "needs a `dms`"),
        ("dms_url = \"https://dms.example/{id}\"", "is for the kind \"linking\""),
        ("kind = \"linkng\"", "did you mean `linking`?"),
        ("auth_type = \"none\"", "needs a `path_secret`"),
        ("path_secret = \"short\"", "must be 16 to 128"),
        ("path_secret = \"sha256:0123\"", "64 hex digits"),
        (
            "path_secret = [\"0123456789abcdef\", 7]",
            "expected a secret, or a list of them",
        ),
        (
            "bridge_key = [\"0123456789abcdef\", \"two words in one\"]",
            "must be 16 to 128",
        ),
        ("bridge_key_field = \"a b\"", "1 to 64 letters"),
        (
            "path_secret_file = 7",
            "`integrations.acme-crm.path_secret_file`: expected the path of a file",
        ),
        (
            "path_secret_file = \"/nowhere/at/all\"",
            "`integrations.acme-crm.path_secret_file`: cannot read the file it names",
        ),
        (
            "path_secret_file = \"a\"\npath_secret = \"0123456789abcdef\"",
            "`integrations.acme-crm.path_secret_file` sets the same as",
        ),
        ("logo = 7", "expected a path"),
        ("auth_success_status = 201", "must be 200 or 204"),
        ("region = \"pt\"", "two capital letters"),
        ("allow_hosts = [\" \"]", "holds an empty entry"),
        (
            "poll = \"25h\"",
            "must not be longer than `integrations.acme-crm.reconcile`",
        ),
        ("conector = \"odoo\"", "did you mean `connector`?"),
    ] {
        let found = problem(&integration(text));
        assert!(found.contains(expected), "{text}\n  {found}");
    }
    assert!(problem(&Source::text("[integrations.acme]\n")).contains("needs a `connector`"));
    assert!(problem(&Source::text("[integrations.Acme]\nconnector = \"odoo\"")).contains("cannot be the name"));
    load(&integration(&format!(
        "auth_type = \"none\"\npath_secret = \"{PATH_SECRET}\""
    )));
}

#[test]
fn credentials_of_an_integration_come_from_files_and_are_masked() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "canary-4711\n").unwrap();
    let source = integration(&format!("auth_type = \"none\"\npath_secret = \"{PATH_SECRET}\"")).with_var(
        "SNAPBRIDGE_INTEGRATIONS__ACME_CRM__CREDENTIALS__TOKEN_FILE",
        file.path().to_str().unwrap(),
    );
    let settings = load(&source);
    let credentials = &settings.integrations["acme-crm"].credentials;
    assert_eq!(credentials["token"].expose_secret(), "canary-4711");
    assert!(settings.masked().contains("[integrations.acme-crm.credentials]"));
    assert!(!settings.masked().contains("canary"));
}

#[test]
fn variables_reach_integrations_old_and_new() {
    let source = integration("")
        .with_var("SNAPBRIDGE_INTEGRATIONS__ACME_CRM__REGION", "DE")
        .with_var(
            "SNAPBRIDGE_INTEGRATIONS__ACME_CRM__ALLOW_HOSTS",
            "localhost:8069, crm.internal",
        )
        .with_var("SNAPBRIDGE_INTEGRATIONS__ACME_CRM__CONNECTION__API_KEY", "k")
        .with_var("SNAPBRIDGE_INTEGRATIONS__OTHER__CONNECTOR", "hubspot")
        .with_var("SNAPBRIDGE_INTEGRATIONS__OTHER__REGION", "");
    let settings = load(&source);
    let acme = &settings.integrations["acme-crm"];
    assert_eq!(acme.region.as_deref(), Some("DE"));
    assert_eq!(acme.allow_hosts, ["localhost:8069", "crm.internal"]);
    assert_eq!(acme.connection["api_key"].expose_secret(), "k");
    assert_eq!(settings.integrations["other"].connector, "hubspot");
    assert_eq!(settings.integrations["other"].region, None);
    assert_eq!(settings.integrations.len(), 2);
}

#[test]
fn unknown_variables_are_refused_and_those_of_others_are_not_looked_at() {
    for name in [
        "SNAPBRIDGE_HTTP",
        "SNAPBRIDGE_HTTP__LISTEN__X",
        "SNAPBRIDGE_HTTP__LISTEN_FILE",
        "SNAPBRIDGE_INTEGRATIONS__ACME__NOPE",
        "SNAPBRIDGE_INTEGRATIONS__ACME__CONNECTION",
        "SNAPBRIDGE_INTEGRATIONS__ACME__REGION__X",
    ] {
        let found = problem(&Source::text("").with_var(name, "x"));
        assert!(found.starts_with(&format!("{name}: unknown variable")), "{found}");
    }
    let source = Source::text("")
        .with_var("HTTP__LISTEN", "x")
        .with_var("SNAPBRIDGE_CONFIG", "elsewhere.toml")
        .with_var("SNAPBRIDGE_OPS_TOKEN", "an operator's")
        .with_var("SNAPBRIDGE_SERVICE_HOST", "10.0.0.1")
        .with_var("SNAPBRIDGE_PORT_8080_TCP", "tcp://10.0.0.1:8080");
    load(&source);
}

fn secrets(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/run/secrets/redis") => Ok("redis://:canary@redis:6379/0\n".into()),
        Some("/run/secrets/path") => Ok(format!("{PATH_SECRET}\r\n")),
        Some("/run/secrets/two") => Ok(format!("{PATH_SECRET}\n0123456789abcdef\n")),
        Some("/run/secrets/empty") => Ok("\n".into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[test]
fn secrets_come_from_files() {
    let mut source = integration("")
        .with_var("SNAPBRIDGE_STORE__URL_FILE", "/run/secrets/redis")
        .with_var(
            "SNAPBRIDGE_INTEGRATIONS__ACME_CRM__PATH_SECRET_FILE",
            "/run/secrets/path",
        )
        .with_var(
            "SNAPBRIDGE_INTEGRATIONS__ACME_CRM__CONNECTION__TOKEN_FILE",
            "/run/secrets/path",
        )
        .with_var("SNAPBRIDGE_KEYS__FILE", "/etc/snapbridge/keys");
    source.read_file = secrets;
    let settings = load(&source);
    let Some(StoreUrl::Redis(url)) = &settings.store.url else {
        panic!("{:?}", settings.store.url)
    };
    assert_eq!(url.expose(), "redis://:canary@redis:6379/0");
    assert_eq!(settings.keys.file.as_deref(), Some(Path::new("/etc/snapbridge/keys")));
    let acme = &settings.integrations["acme-crm"];
    assert!(acme.path_secret.admit(PATH_SECRET));
    assert_eq!(acme.connection["token"].expose_secret(), PATH_SECRET);
}

#[test]
fn secret_files_that_are_missing_empty_or_doubled_are_problems() {
    for (value, expected) in [
        ("/run/secrets/none", "cannot read the file it names"),
        ("/run/secrets/empty", "the file it names is empty"),
    ] {
        let mut source = Source::text("").with_var("SNAPBRIDGE_STORE__URL_FILE", value);
        source.read_file = secrets;
        assert!(problem(&source).starts_with(&format!("SNAPBRIDGE_STORE__URL_FILE: {expected}")));
    }
    let mut source = Source::text("")
        .with_var("SNAPBRIDGE_STORE__URL", "sqlite:data")
        .with_var("SNAPBRIDGE_STORE__URL_FILE", "/run/secrets/redis");
    source.read_file = secrets;
    assert!(problem(&source).contains("sets the same as SNAPBRIDGE_STORE__URL"));
}

#[test]
fn masked_settings_hide_every_secret_and_can_be_loaded_again() {
    let settings = load(
        &integration(&format!(
            "path_secret = \"{PATH_SECRET}\"\n[integrations.acme-crm.connection]\nkey = \"canary\"\n\
             [integrations.acme-crm.app]\nsecret = \"canary\"\n"
        ))
        .with_var(
            "SNAPBRIDGE_STORE__URL",
            "rediss://user:canary@redis.example:6380/1?token=canary",
        )
        .with_var("SNAPBRIDGE_QUEUE__URL", "amqp://bridge:canary@rabbit.example/%2f"),
    );
    let masked = settings.masked();
    let debug = format!("{settings:?}");
    assert!(
        !masked.contains("canary") && !debug.contains("canary"),
        "{masked}\n{debug}"
    );
    assert!(
        masked.contains("url = \"rediss://user:***@redis.example:6380/1?***\""),
        "{masked}"
    );
    assert!(
        masked.contains("url = \"amqp://bridge:***@rabbit.example/%2f\""),
        "{masked}"
    );
    assert!(
        masked.contains("[integrations.acme-crm.connection]\nkey = \"***\""),
        "{masked}"
    );
    assert!(
        masked.contains("body_limit = \"256KiB\"") && masked.contains("poll = \"10m\""),
        "{masked}"
    );
    // All but the path secret, whose mask is too short to be one.
    let without = masked.replace("path_secret = \"***\"\n", "# path_secret is not set\n");
    assert_eq!(load(&Source::text(&without)).masked(), without);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let source =
        Source::text("[worker]\nslots = \"canary\"\n[cold]\nanswer = \"canary\"\n[http]\npublic_url = \"canary\"")
            .with_var("SNAPBRIDGE_STORE__URL", "canary");
    let problems = problems(&source);
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(!problems.concat().contains("canary"), "{problems:#?}");
}

#[test]
fn the_reference_says_the_defaults_commented_or_not() {
    let reference = Settings::reference();
    let defaults = Settings::default().masked();
    assert_eq!(load(&Source::text(&reference)).masked(), defaults);
    assert!(reference.contains("\n# Time between two polls of an account.\n# From 1ms to 30days.\n#poll = \"10m\"\n"));
    let sections = reference.split("#[integrations.name]").next().unwrap();
    let uncommented: Vec<&str> = sections
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' ') && !rest.ends_with('…'))
                .unwrap_or(line)
        })
        .collect();
    assert!(uncommented.contains(&"poll = \"10m\""));
    assert_eq!(load(&Source::text(uncommented.join("\n"))).masked(), defaults);
}

#[test]
fn a_source_is_gathered_from_the_named_file_and_our_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, "[worker]\nslots = 7\n").unwrap();
    let vars = |name: &str, value: &Path| vec![(name.into(), value.into()), ("PATH".into(), "/bin".into())];
    let by_variable = Source::gather(None, vars("SNAPBRIDGE_CONFIG", &path)).map_err(|problems| problems.len());
    assert_eq!(
        load(&by_variable.unwrap_or_else(|_| panic!("unreadable"))).worker.slots,
        7
    );
    let missing = folder.path().join("none.toml");
    let Err(problems) = Source::gather(Some(missing.clone()), vars("SNAPBRIDGE_CONFIG", &path)) else {
        panic!("a file that was named must be there")
    };
    assert!(
        problems[0].to_string().contains("cannot read the settings file"),
        "{}",
        problems[0]
    );
}

#[test]
fn what_the_documents_for_talkdesk_need_is_read_and_shown() {
    let text = "[integrations.crm]\nconnector = \"odoo\"\ndisplay_name = \"Odoo\"\ncti = true\nproduction_test = false\n\
                client_contacts = [\"Ada <ada@crm.example>; runs it\"]\nlogo_url = \"https://cdn.example/logo.svg\"\n";
    let settings = load(&Source::text(text));
    let crm = &settings.integrations["crm"];
    assert!(crm.cti && crm.production_test == Some(false));
    assert_eq!(crm.client_contacts, ["Ada <ada@crm.example>; runs it"]);
    assert_eq!(load(&Source::text(settings.masked())).masked(), settings.masked());
    let from_variable = Source::text(text).with_var("SNAPBRIDGE_INTEGRATIONS__CRM__CTI", "false");
    assert!(!load(&from_variable).integrations["crm"].cti);
    let plain = load(&Source::text("[integrations.crm]\nconnector = \"odoo\"\n"));
    assert!(!plain.integrations["crm"].cti && plain.integrations["crm"].production_test.is_none());
    for (line, why) in [
        ("cti = 1", "expected true or false"),
        ("cti = \"true\"", "expected true or false"),
        ("production_test = \"yes\"", "expected true or false"),
        ("logo_url = \"logo.png\"", "expected an absolute URL"),
        ("client_contacts = \"Ada\"", "expected a list of texts"),
    ] {
        let found = problem(&Source::text(format!(
            "[integrations.crm]\nconnector = \"odoo\"\n{line}\n"
        )));
        assert!(found.contains(why), "{line}: {found}");
    }
}
