use std::path::Path;

use jiff::civil::{Date, date};
use mail_parser::{MessageParser, MimeHeaders};
use process::settings::{Settings, Source};
use serde_json::{Value, json};

use super::configuration::{Described, crm_name, describe};
use super::document::{Block, Document};
use super::examples::{Example, Examples, Shown};
use super::letter::{self, Attachment};
use super::manifest::{Contact, Customer, Manifest};
use super::{live, markdown, mask, pdf};

const DAY: Date = date(2026, 11, 25);

fn settings(text: &str) -> Settings {
    let text = format!("[http]\npublic_url = \"https://bridge.example\"\n{text}");
    Settings::load(&Source::text(text)).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn described(name: &str, text: &str) -> Described {
    describe(name, &settings(text), Path::new(""), None).unwrap()
}

const DEMO: &str =
    "[integrations.demo]\nconnector = \"demo\"\n[integrations.demo.connection]\nsite = \"http://127.0.0.1:9\"\n";
const ODOO: &str = "[integrations.odoo]\nconnector = \"odoo\"\npath_secret = \"canary-path-secret-0123456789\"\n";

/// The demo's connector with these actions and none of its own, in a folder of its own.
fn with_actions(actions: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let shipped = crm::Connector::shipped("demo").unwrap();
    let (before, webhook) = shipped.split_once("\n[webhook]").unwrap();
    let (before, _) = before.split_once("\n[[actions]]").unwrap_or((before, ""));
    std::fs::write(
        folder.path().join("crm.toml"),
        format!("{before}\n{actions}\n[webhook]{webhook}"),
    )
    .unwrap();
    let settings = DEMO.replace("connector = \"demo\"", "connector = \"crm.toml\"");
    (folder, settings)
}

const ACTIONS: &str = r#"
[[actions]]
name = "open_case"
display = "open a case"
description = "open a case in Demo CRM"
request = { method = "POST", path = "/api/${conn.account}/cases", json = '{ "subject": "${input.subject}", "urgency": "${input.urgency}", "due": "${input.due}" }' }
[actions.inputs]
subject = { type = "text", mandatory = true, title = "Subject", default = "call from {{contact.first_name}}" }
urgency = { type = "select", options = ["low", "high"] }
due     = { type = "datetime", title = "Due" }
e_mail  = {}
[[actions]]
name = "say_hello"
request = { method = "POST", path = "/api/${conn.account}/hello" }
[actions.inputs]
"#;

fn actions() -> Described {
    let (folder, text) = with_actions(ACTIONS);
    describe("demo", &settings(&text), folder.path(), None).unwrap()
}

#[test]
fn the_demo_is_described() {
    let demo = described("demo", DEMO);
    insta::assert_snapshot!("demo", demo.json());
    insta::assert_snapshot!("demo-md", markdown::render(&demo.document()));
}

#[test]
fn odoo_is_described_with_its_secret_masked() {
    let odoo = described("odoo", ODOO);
    insta::assert_snapshot!("odoo", odoo.json());
    let text = markdown::render(&odoo.document());
    assert!(!text.contains("canary"));
    insta::assert_snapshot!("odoo-md", text);
    let shown = describe(
        "odoo",
        &settings(ODOO),
        Path::new(""),
        Some("canary-path-secret-0123456789"),
    )
    .unwrap();
    let url = shown
        .configuration
        .integration
        .contact_synchronization_endpoint
        .unwrap();
    assert_eq!(
        url,
        "https://bridge.example/odoo/k/canary-path-secret-0123456789/contact_sync"
    );
}

#[test]
fn the_bridges_own_secrets_are_asked_for_and_never_guessed() {
    let wrong = describe("odoo", &settings(ODOO), Path::new(""), Some("another-path-secret")).unwrap_err();
    assert_eq!(wrong, ["the given secret is none of integrations.odoo.path_secret"]);
    let none = describe("demo", &settings(DEMO), Path::new(""), Some("another-path-secret")).unwrap_err();
    assert_eq!(
        none,
        ["a secret was given, but integrations.demo.path_secret is not set"]
    );
    let keyed = described("odoo", &format!("{ODOO}bridge_key = \"canary-bridge-key-0123\"\n"));
    let fields = &keyed.configuration.integration.authentication_configuration;
    let last = fields.last().unwrap();
    assert!(last.field_name == "bridge_key" && last.mandatory && last.store);
    assert!(!keyed.json().contains("canary"));
}

#[test]
fn pictures_are_named_by_their_format() {
    let folder = tempfile::tempdir().unwrap();
    let svg = r#"<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="10" height="10"/></svg>"#;
    std::fs::write(folder.path().join("logo.svg"), svg).unwrap();
    let text = DEMO.replace(
        "connector =",
        "logo = \"logo.svg\"\nicon_url = \"https://cdn.example/i.png\"\nconnector =",
    );
    let it = describe("demo", &settings(&text), folder.path(), None)
        .unwrap()
        .configuration
        .integration;
    assert_eq!(it.logo_url, "https://bridge.example/demo/logo.svg");
    assert_eq!(it.icon_url, "https://cdn.example/i.png");
    let problems = describe(
        "demo",
        &settings(&text.replace("logo.svg", "gone.svg")),
        folder.path(),
        None,
    )
    .unwrap_err();
    assert!(
        problems[0].starts_with("integrations.demo.logo: ") && problems.len() == 1,
        "{problems:#?}"
    );
}

#[test]
fn actions_are_described_in_the_order_of_the_file() {
    let actions = actions();
    insta::assert_snapshot!("actions", actions.json());
}

#[test]
fn every_problem_comes_at_once_with_where_to_mend_it() {
    let broken = ACTIONS
        .replace("open a case\"", "Open a case\"")
        .replace("first_name", "birthday");
    let (folder, text) = with_actions(&broken);
    let text = text.replace(
        "connector =",
        "description = \" \"\nlogo_url = \"http://logos.example/l.png\"\nauth_type = \"none\"\npath_secret = \"0123456789abcdef\"\nconnector =",
    );
    let settings = Settings::load(&Source::text(text)).unwrap();
    let problems = describe("demo", &settings, folder.path(), None).unwrap_err();
    let file = folder.path().join("crm.toml").display().to_string();
    let expected = [
        "http.public_url is not set: the endpoints need the URL under which Talkdesk reaches the bridge".to_owned(),
        "integration.description: is missing (set integrations.demo.description)".to_owned(),
        "integration.logo_url: must be https: Talkdesk calls nothing else (set integrations.demo.logo_url)".to_owned(),
        format!("actions[0].display: must be lower case: it stands within a sentence (in {file})"),
    ];
    assert_eq!(problems[..4], expected);
    assert!(
        problems[4].starts_with("actions[0].inputs[0].format: {{contact.birthday}} is not in the contact collection")
    );
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn an_unknown_integration_names_the_known_ones() {
    let problems = describe("dmo", &settings(DEMO), Path::new(""), None).unwrap_err();
    assert_eq!(problems, ["no integration is called \"dmo\": there are demo"]);
}

#[test]
fn each_grant_asks_for_its_own_fields_and_for_those_that_talkdesk_needs() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = crm::Connector::shipped("demo").unwrap();
    let (before, after) = shipped
        .split_once("kind  = \"bearer\"\ntoken = \"${conn.token}\"\n")
        .unwrap();
    let fields = "[connection.fields]\naccess_token = { type = \"secret\" }\nclient_id = { type = \"string\", role = \"principal\" }\n\
                  client_secret = { type = \"secret\" }\nusername = { type = \"string\", role = \"principal\" }\n\
                  password = { type = \"secret\" }\n";
    let before = before.replace("[connection.fields]\n", fields);
    let auth = "kind = \"oauth2\"\ngrants = [\"code\", \"password\"]\ntoken_fields = [\"access_token\"]\n\
                token_url = \"${conn.base_url}/token\"\n";
    std::fs::write(folder.path().join("crm.toml"), format!("{before}{auth}{after}")).unwrap();
    let names = |kind: &str| -> Vec<String> {
        let text = DEMO.replace(
            "connector = \"demo\"",
            &format!("auth_type = \"{kind}\"\nconnector = \"crm.toml\""),
        );
        let described = describe("demo", &settings(&text), folder.path(), None);
        let it = described
            .unwrap_or_else(|problems| panic!("{problems:#?}"))
            .configuration
            .integration;
        let fields = it.authentication_configuration.iter();
        fields
            .map(|field| format!("{} {}", field.field_name, field.kind.as_str()))
            .collect()
    };
    assert_eq!(
        names("oauth2"),
        [
            "access_token oauth",
            "client_id input",
            "client_secret input",
            "account input",
            "token input",
            "site input",
            "authorization_url input",
            "access_token_url input"
        ]
    );
    assert!(names("oauth2_password").contains(&"username input".to_owned()));
}

#[test]
fn what_the_bridge_returns_is_configured_too() {
    let it = described(
        "demo",
        &DEMO.replace("connector =", "return_fields = [\"region\"]\nconnector ="),
    )
    .configuration
    .integration;
    let last = it.authentication_configuration.last().unwrap();
    assert!(last.field_name == "region" && !last.mandatory && last.store);
}

#[test]
fn titles_lose_their_versions() {
    assert_eq!(crm_name("Odoo 14 to 18 (JSON-RPC)"), "Odoo");
    assert_eq!(crm_name("1CRM"), "1CRM");
    assert_eq!(crm_name("HubSpot"), "HubSpot");
}

fn customer() -> Customer {
    Customer {
        name: "Łukasz & Ωmega".to_owned(),
        contacts: [
            "Łukasz Żółć <lukasz@omega.example>; decides on fields",
            "Ωmega Παπαδοπούλου <omega@omega.example>",
            "Дмитрий Ёлкин <d@omega.example>; network | proxies",
        ]
        .map(|text| text.parse().unwrap())
        .into(),
        keybase_user: "omega".to_owned(),
        production_test: true,
        talkdesk_domain: "omega.mytalkdesk.com".to_owned(),
        use_case: None,
        api_docs: vec!["https://crm.example/docs/api".to_owned()],
    }
}

fn examples() -> Examples {
    let mut examples = Examples::new("Its examples were written for this test.");
    let example = |title: &str, response: Value| Example {
        title: title.to_owned(),
        request: json!({"auth": {"account": "acme", "token": "canary-token"}, "meta": {}}),
        status: 200,
        response,
    };
    examples.add("auth_validation", example("Valid credentials", json!({})));
    let contact = json!({"id": "1", "name": "Ines Łukasiewicz 王", "emails": ["ines@nordlys.example"], "url": format!("https://crm.example/{}", "long/".repeat(40))});
    let page = json!({"contacts": vec![contact; 30], "synchronization_checkpoint": "v1.c"});
    examples.add("contact_sync", example("Initial synchronization", page));
    examples.add("agent_sync", example("First page", json!({"agents": []})));
    examples.lacks(
        "interaction_update",
        "No example: the bridge answered 404 (There is nothing at this path).",
    );
    examples.add("actions/open_case", example("A call", json!({"message": "opened"})));
    let secrets = ["canary-token".to_owned()];
    examples.each_body(|body| mask::secrets(body, &secrets));
    examples.cut();
    examples
}

/// Does something with a finished manifest of the demo with actions.
fn manifest<T>(use_it: impl FnOnce(&Manifest<'_>) -> T) -> T {
    let described = actions();
    let (customer, examples) = (customer(), examples());
    use_it(&Manifest {
        configuration: &described.configuration,
        crm: &described.crm,
        masked: described.masked,
        customer: &customer,
        examples: &examples,
        date: DAY,
    })
}

/// What the manifest's template has: headings, and the labels of what is filled in.
const TEMPLATE: [&str; 47] = [
    "Demo CRM API Manifest - Łukasz & Ωmega",
    "Talkdesk CRM Integration",
    "Date",
    "2026-11-25",
    "Instructions:",
    "Łukasz & Ωmega Technical Contact",
    "Name & Email",
    "Notes",
    "Use Case Description",
    "Components Description",
    "Talkdesk Integration",
    "Action Executor",
    "Agent Retriever",
    "Authorization Validation",
    "Contact Retriever",
    "Interaction Retriever",
    "1: Configuring a Talkdesk Integration",
    "Talkdesk Weblink:",
    "Demo CRM Weblink:",
    "Authentication Type:",
    "Keybase User Name:",
    "Should it be tested in the production environment?",
    "Example Configuration Input:",
    "TD Field Name:",
    "Your Inputs:",
    "display_name",
    "logo_url",
    "icon_url",
    "authentication_type",
    "authentication_configuration",
    "auth_validation_endpoint",
    "contact_synchronization_endpoint",
    "interaction_retrieval_endpoint",
    "agent_synchronization_endpoint",
    "interaction_types",
    "2: Implementing an Action Executor",
    "Your Actions",
    "provider",
    "inputs",
    "3: Implementing an Agent Retriever",
    "4: Implementing an Authorization Validator",
    "5: Implementing a Contact Retriever",
    "6: Implementing an Interaction Retriever",
    "Completed Document Instructions",
    "Subject:",
    "Body:",
    "Attachments:",
];

/// `{IntegrationName}`, and what else a template would have left.
fn placeholders(text: &str) -> Vec<&str> {
    let word = |inside: &&str| !inside.is_empty() && inside.chars().all(|c| c.is_ascii_alphabetic());
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(inside, _)| inside))
        .filter(word)
        .collect()
}

#[test]
fn the_manifest_fills_every_heading_and_row() {
    let document = manifest(|manifest| manifest.document());
    let text = markdown::render(&document);
    let plain = text.replace('\\', "");
    for heading in TEMPLATE {
        assert!(plain.contains(heading), "{heading} is missing");
    }
    assert_eq!(placeholders(&plain), Vec::<&str>::new());
    assert!(!text.contains("canary"));
    for block in &document.blocks {
        if let Block::Table { rows, .. } = block {
            assert!(rows.iter().flatten().all(|cell| !cell.trim().is_empty()), "{rows:?}");
        }
        if let Block::Field { label, value } = block {
            assert!(!value.trim().is_empty(), "{label}");
        }
    }
    insta::assert_snapshot!("manifest", text);
}

#[test]
fn what_an_integration_has_not_is_marked() {
    let described = described("demo", DEMO);
    let mut configuration = described.configuration;
    configuration.integration.agent_synchronization_endpoint = None;
    configuration.integration.interaction_retrieval_endpoint = None;
    configuration.integration.interaction_types.clear();
    configuration.actions.clear();
    let (customer, examples) = (customer(), Examples::new("It has no example calls."));
    let manifest = Manifest {
        configuration: &configuration,
        crm: "Demo CRM",
        masked: false,
        customer: &customer,
        examples: &examples,
        date: DAY,
    };
    let text = markdown::render(&manifest.document());
    for marked in [
        "Not applicable: this integration has no actions.",
        "Not applicable: this integration has no agents.",
        "Not applicable: this integration has no interactions.",
        "| agent_synchronization_endpoint | not applicable: this integration has no agents |",
        "| interaction_types | not applicable |",
        "| inputs | not applicable |",
    ] {
        assert!(text.contains(marked), "{marked}\n{text}");
    }
}

/// The text of a PDF as an independent reader finds it. Without one the test is skipped, loudly; with
/// `REQUIRE_SERVICES=1` it fails.
fn extracted(pdf: &[u8]) -> Option<String> {
    read_by("-raw", pdf)
}

/// The right ends of the words of a PDF, in points.
fn ends(pdf: &[u8]) -> Option<Vec<f32>> {
    let words = read_by("-bbox", pdf)?;
    let ends = words.split("xMax=\"").skip(1);
    Some(
        ends.map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect(),
    )
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn read_by(form: &str, pdf: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.pdf");
    std::fs::write(&file, pdf).unwrap();
    let run = std::process::Command::new("pdftotext")
        .args([form, "-enc", "UTF-8"])
        .arg(&file)
        .arg("-")
        .output();
    match run {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && said.is_empty(),
                "pdftotext finds fault with the file: {said}"
            );
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            let required = std::env::var("REQUIRE_SERVICES").as_deref() == Ok("1");
            assert!(!required, "pdftotext (poppler-utils) is required and missing: {error}");
            eprintln!("SKIPPED: pdftotext (poppler-utils) is missing: {error}");
            None
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_pdf_says_what_the_markdown_says() {
    let document = manifest(|manifest| manifest.document());
    let file = pdf::render(&document, Vec::new(), DAY).unwrap();
    assert_eq!(
        file,
        pdf::render(&document, Vec::new(), DAY).unwrap(),
        "the same document gives the same file"
    );
    let Some(text) = extracted(&file) else { return };
    let text = one_line(&text);
    for heading in TEMPLATE {
        assert!(text.contains(&one_line(heading)), "{heading} is missing");
    }
    for block in &document.blocks {
        if let Block::Heading { text: heading, .. } = block {
            assert!(text.contains(&one_line(heading)), "{heading} is missing");
        }
    }
    for name in [
        "Łukasz Żółć",
        "Ωmega Παπαδοπούλου",
        "Дмитрий Ёлкин",
        "omega.mytalkdesk.com",
        "{{contact.first_name}}",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
    assert_eq!(placeholders(&text), Vec::<&str>::new());
    // A letter of an example that no font has is written as JSON's escape.
    assert!(text.contains("Ines Łukasiewicz \\u738b"), "{text}");
    assert!(!text.contains("canary") && !text.contains('\u{fffd}'));
}

#[test]
fn letters_that_share_a_glyph_come_out_as_written() {
    // Ohm sign and Omega, two hyphens, and the space that does not break.
    let tricky = "10 kΩ \u{2126} a-b\u{2010}c\u{2011}d x\u{a0}y";
    let document = Document::new("Letters", vec![Block::text(tricky)]);
    let file = pdf::render(&document, Vec::new(), DAY).unwrap();
    let Some(text) = extracted(&file) else { return };
    // Extraction may write the space that does not break as a space.
    assert!(
        text.replace('\u{a0}', " ").contains(&tricky.replace('\u{a0}', " ")),
        "{text}"
    );
}

#[test]
fn a_name_that_no_font_has_is_refused_by_its_letters() {
    let document = Document::new("Letters", vec![Block::heading(1, "王小明"), Block::text("😀")]);
    let error = pdf::render(&document, Vec::new(), DAY).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no font has 小 (U+5C0F), 明 (U+660E), 王 (U+738B), 😀 (U+1F600): name one that has with --font FILE.ttf"
    );
    let turned = Document::new("Letters", vec![Block::text("Ltd ש")]);
    let error = pdf::render(&turned, Vec::new(), DAY).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the PDF cannot set ש (U+05E9): write it in Latin letters"
    );
    let error = pdf::render(&document, vec![b"no font".to_vec()], DAY).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn long_words_tables_and_code_stay_within_the_page() {
    let cell = "word ".repeat(900) + &"x".repeat(400);
    // Tokens have few signs to break after.
    let code = format!(
        "{{\n    \"key\": \"{}\",\n    \"token\": \"{}\"\n}}",
        "value/".repeat(400),
        "x".repeat(700)
    );
    let blocks = vec![
        Block::table(
            ["A", "B"],
            vec![["a".repeat(300), cell.clone()], ["last row".to_owned(), "b".to_owned()]],
        ),
        Block::code("Code", code.clone()),
    ];
    let file = pdf::render(&Document::new("Long", blocks), Vec::new(), DAY).unwrap();
    let Some(text) = extracted(&file) else { return };
    let without_space = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    assert_eq!(text.matches("word").count(), 900);
    assert!(text.contains("last row"));
    assert_eq!(without_space(&text).matches("value/").count(), 400);
    // An A4 page is 595.28 points wide, of which 56 are its margin; the number of the page ends right there.
    let ends = ends(&file).unwrap();
    assert!(ends.len() > 900 && ends.iter().all(|end| *end < 539.5), "{ends:?}");
}

#[test]
fn the_letter_is_read_back_with_its_attachments() {
    let from: Contact = "Łukasz Żółć <lukasz@omega.example>".parse().unwrap();
    let attached = vec![
        Attachment {
            name: "demo-manifest.pdf".to_owned(),
            data: vec![0, 1, 2, 255, 13, 10],
        },
        Attachment {
            name: "Übersicht.txt".to_owned(),
            data: b"https://crm.example/docs/api\r\n".to_vec(),
        },
    ];
    let message = manifest(|manifest| letter::write(manifest, &from, attached, 1_795_000_000).unwrap());
    assert!(message.is_ascii() && message.split(|b| *b == b'\n').all(|line| line.len() <= 999));
    let parsed = MessageParser::default().parse(&message).unwrap();
    assert_eq!(parsed.subject(), Some("New Talkdesk CRM Integration"));
    let address = |list: Option<&mail_parser::Address<'_>>| -> Vec<(Option<String>, Option<String>)> {
        let found = list.into_iter().flat_map(mail_parser::Address::iter);
        found
            .map(|one| (one.name().map(str::to_owned), one.address().map(str::to_owned)))
            .collect()
    };
    let named = |name: &str, email: &str| (Some(name.to_owned()), Some(email.to_owned()));
    assert_eq!(address(parsed.from()), [named("Łukasz Żółć", "lukasz@omega.example")]);
    assert_eq!(
        address(parsed.to()),
        [(None, Some("developers@talkdesk.com".to_owned()))]
    );
    assert_eq!(
        address(parsed.cc()),
        [
            named("Ωmega Παπαδοπούλου", "omega@omega.example"),
            named("Дмитрий Ёлкин", "d@omega.example")
        ]
    );
    assert_eq!(parsed.header_raw("X-Unsent").map(str::trim), Some("1"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), 1_795_000_000);
    insta::assert_snapshot!("letter", parsed.body_text(0).unwrap().replace("\r\n", "\n"));
    let attachments: Vec<(Option<&str>, &[u8])> = parsed
        .attachments()
        .map(|part| (part.attachment_name(), part.contents()))
        .collect();
    assert_eq!(
        attachments,
        [
            (Some("demo-manifest.pdf"), &[0, 1, 2, 255, 13, 10][..]),
            (Some("Übersicht.txt"), &b"https://crm.example/docs/api\r\n"[..])
        ]
    );
}

#[test]
fn contacts_are_read_and_bad_ones_refused() {
    let contact: Contact = " Ada Lovelace < ada@crm.example > ;  runs it ".parse().unwrap();
    let expected = ("Ada Lovelace", "ada@crm.example", "runs it");
    assert_eq!(
        (contact.name.as_str(), contact.email.as_str(), contact.note.as_str()),
        expected
    );
    for bad in [
        "",
        "Ada",
        "Ada <ada>",
        "<ada@crm.example>",
        "Ada <@crm.example>",
        "Ada <a b@crm.example>",
        "Ada <a@b.c> note",
        "Ada\r\nBcc: x <a@b.c>",
    ] {
        assert!(bad.parse::<Contact>().is_err(), "{bad}");
    }
}

#[test]
fn secrets_are_masked_wherever_they_turn_up() {
    let mut body = json!({
        "auth": {"account": "acme", "token": "canary-token", "number": 7},
        "echo": ["Bearer canary-token", {"deep": "canary-token"}],
        "kept": "acme"
    });
    mask::secrets(&mut body, &["canary-token".to_owned(), "a".to_owned()]);
    assert_eq!(
        body,
        json!({"auth": {"account": "***", "token": "***", "number": "***"}, "echo": ["Bearer ***", {"deep": "***"}], "kept": "acme"})
    );
}

#[test]
fn people_become_shapes_and_the_contract_stays() {
    let mut body = json!({"contacts": [{
        "id": "c-1", "name": "Ines Łukasz", "phones": ["+4722334455"], "emails": ["ines@nordlys.example"],
        "url": "https://crm.example/c/1002", "synced_at": "2026", "company": null, "title": "王"
    }], "next_offset": "v1.abc", "context": {"run": "r1"}});
    mask::people(&mut body);
    assert_eq!(
        body,
        json!({"contacts": [{
            "id": "c-1", "name": "Ixxx Łxxxxx", "phones": ["+4700000000"], "emails": ["ixxx@nxxxxxx.exxxxxx"],
            "url": "https://cxx.exxxxxx/c/1000", "synced_at": "2026", "company": null, "title": "x"
        }], "next_offset": "v1.abc", "context": {"run": "r1"}})
    );
}

#[test]
fn examples_are_kept_read_back_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples();
    examples.write(folder.path()).unwrap();
    let paths = ["auth_validation", "contact_sync", "actions/open_case"].map(str::to_owned);
    let read = Examples::read(folder.path(), &paths).unwrap();
    for path in &paths {
        assert_eq!(read.of(path), examples.of(path));
    }
    match read.of("contact_sync") {
        Shown::Examples(found) => {
            assert_eq!(found[0].title, "Initial synchronization (28 more records left out)");
            assert_eq!(found[0].response["contacts"].as_array().unwrap().len(), 2);
        }
        Shown::None(why) => panic!("{why}"),
    }
    std::fs::write(folder.path().join("contact_sync.json"), "{\"title\": 1}").unwrap();
    let missing = ["contact_sync".to_owned(), "agent_sync".to_owned(), "nowhere".to_owned()];
    let problems = Examples::read(folder.path(), &missing).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(
        problems[0].contains("title, request, status and response")
            && problems[1].contains("nowhere.json: cannot be read")
    );
}

#[test]
fn actions_are_called_with_their_defaults_and_the_contact_in_them() {
    let described = actions();
    let contact = json!({"name": "Ines Maria Marchetti", "emails": ["ines@nordlys.example"]});
    assert_eq!(
        live::data_of(&described.configuration.actions[0], &contact, DAY),
        json!({"subject": "call from Ines Maria", "urgency": "low", "due": "2026-11-25T09:00:00Z", "e_mail": "somebody@example.com"})
    );
}

#[test]
fn markdown_shows_every_sign_as_itself() {
    let document = Document::new(
        "Signs",
        vec![
            Block::text("# no heading, *no* emphasis_here and _there_ <b> [x](y) `z`"),
            Block::table(["A"], vec![["a|b\nc".to_owned()]]),
            Block::code("Code", "a ``` b"),
        ],
    );
    insta::assert_snapshot!("signs", markdown::render(&document));
}
