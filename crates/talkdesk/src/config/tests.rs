use serde_json::{Value, json};

use super::*;

/// A document without a problem, with everything in it.
fn good() -> Value {
    json!({
        "integration": {
            "name": "mycrm",
            "display_name": "My CRM",
            "description": "Customer records and tickets",
            "logo_url": "https://bridge.example/mycrm/logo.png",
            "icon_url": "http://127.0.0.1:8080/mycrm/icon.png",
            "authentication_type": "custom",
            "authentication_configuration": [
                {"field_name": "account", "display": "Account", "mandatory": true, "type": "input", "store": true,
                 "help": "Settings > Account", "format": "https://{{account}}.crm.example"},
                {"field_name": "token", "display": "API token", "mandatory": true, "type": "input", "store": true}
            ],
            "auth_validation_endpoint": "https://bridge.example/mycrm/auth_validation",
            "contact_synchronization_endpoint": "https://bridge.example/mycrm/contact_sync",
            "interaction_retrieval_endpoint": "https://bridge.example/mycrm/interaction_update",
            "agent_synchronization_endpoint": "https://bridge.example/mycrm/agent_sync",
            "interaction_types": ["ticket", "case"]
        },
        "actions": [
            {"provider": "mycrm", "name": "create_ticket", "display": "create a ticket",
             "description": "create a new ticket in My CRM", "endpoint": "https://bridge.example/mycrm/actions/create_ticket",
             "inputs": [
                {"key": "subject", "name": "Subject", "mandatory": true, "type": "text", "format": "call from {{contact.first_name}} {{ contact.last_name }}"},
                {"key": "urgency", "name": "Urgency", "mandatory": false, "type": "select", "format": "low,high"},
                {"key": "due", "name": "Due", "mandatory": false, "type": "datetime", "format": "2026-01-31T10:00:00Z"},
                {"key": "hours", "name": "Hours", "mandatory": false, "type": "number", "format": "3"},
                {"key": "note", "name": "Note", "mandatory": false, "type": "textarea"}
             ]},
            {"provider": "mycrm", "name": "add_note", "display": "add a note", "description": "add a note",
             "endpoint": "https://bridge.example/mycrm/actions/add_note", "inputs": []}
        ]
    })
}

fn problems(document: Value, wants: Wants) -> Vec<String> {
    let document: Configuration = serde_json::from_value(document).unwrap();
    document.problems(wants).iter().map(ToString::to_string).collect()
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    *document.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
}

#[test]
fn a_good_document_has_no_problem_and_survives_its_own_form() {
    assert_eq!(problems(good(), Wants { cti: true }), Vec::<String>::new());
    let document: Configuration = serde_json::from_value(good()).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), good());
}

/// One broken thing per rule: where, the value, and the one problem that must come of it.
#[test]
fn each_rule_finds_its_breach_and_nothing_else() {
    let field = |more: Value| {
        let mut field =
            json!({"field_name": "code", "display": "Code", "mandatory": true, "type": "input", "store": false});
        field.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        field
    };
    let auth = "/integration/authentication_configuration";
    let cases: Vec<(&str, Value, &str)> = vec![
        (
            "/integration/display_name",
            json!(""),
            "integration.display_name: is missing",
        ),
        (
            "/integration/display_name",
            json!(" My CRM"),
            "integration.display_name: begins or ends with white space",
        ),
        (
            "/integration/description",
            json!(" "),
            "integration.description: is missing",
        ),
        ("/integration/logo_url", json!(""), "integration.logo_url: is missing"),
        (
            "/integration/logo_url",
            json!("/logo.png"),
            "integration.logo_url: is not a URL",
        ),
        (
            "/integration/logo_url",
            json!("ftp://a.example/l"),
            "integration.logo_url: must be an absolute http or https URL",
        ),
        (
            "/integration/icon_url",
            json!("http://bridge.example/i"),
            "integration.icon_url: must be https: Talkdesk calls nothing else",
        ),
        (
            "/integration/icon_url",
            json!("https://u:p@bridge.example/i"),
            "integration.icon_url: must not hold a user or password",
        ),
        (
            "/integration/agent_synchronization_endpoint",
            json!("https://b.example/a#x"),
            "integration.agent_synchronization_endpoint: must not have a fragment",
        ),
        (
            "/integration/contact_synchronization_endpoint",
            json!("http://10.0.0.1/c"),
            "integration.contact_synchronization_endpoint: must be https: Talkdesk calls nothing else",
        ),
        (
            "/integration/auth_validation_endpoint",
            json!("bridge"),
            "integration.auth_validation_endpoint: is not a URL",
        ),
        (
            "/integration/interaction_retrieval_endpoint",
            json!(null),
            "integration.interaction_types: names types, but there is no interaction_retrieval_endpoint",
        ),
        (
            "/integration/interaction_types",
            json!([]),
            "integration.interaction_types: is empty: the retrieval endpoint would never be asked for anything",
        ),
        (
            "/integration/interaction_types/1",
            json!("Ticket"),
            "integration.interaction_types[1]: \"Ticket\" is there twice",
        ),
        (
            "/integration/interaction_types/1",
            json!(""),
            "integration.interaction_types[1]: is missing",
        ),
        (
            auth,
            json!([]),
            "integration.authentication_configuration: is empty, but custom needs fields",
        ),
        (
            "/integration/authentication_type",
            json!("none"),
            "integration.authentication_configuration: has fields, but authentication_type none asks for nothing",
        ),
        (
            "/integration/authentication_configuration/0/display",
            json!(""),
            "integration.authentication_configuration[0].display: is missing",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"field_name": ""})),
            "integration.authentication_configuration[1].field_name: is missing",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"field_name": "account"})),
            "integration.authentication_configuration[1].field_name: \"account\" is there twice",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"type": "oauth"})),
            "integration.authentication_configuration[1].type: must be input: with custom there is no OAuth authority",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"format": "https://x.example"})),
            "integration.authentication_configuration[1].format: must hold {{code}}, the field itself",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"format": "{{code}}.{{site}}"})),
            "integration.authentication_configuration[1].format: {{site}} is no field of this configuration",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"format": "{{code"})),
            "integration.authentication_configuration[1].format: opens braces that it never closes",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"format": "{{code}}}}"})),
            "integration.authentication_configuration[1].format: closes braces that it never opened",
        ),
        (
            "/integration/authentication_configuration/1",
            field(json!({"format": "{{}}{{code}}"})),
            "integration.authentication_configuration[1].format: has braces without a name in them",
        ),
        (
            "/actions/0/provider",
            json!("other"),
            "actions[0].provider: is \"other\", but must be the integration's name, \"mycrm\"",
        ),
        (
            "/actions/1/name",
            json!("create_ticket"),
            "actions[1].name: \"create_ticket\" is there twice",
        ),
        ("/actions/1/name", json!(""), "actions[1].name: is missing"),
        (
            "/actions/0/display",
            json!("Create a ticket"),
            "actions[0].display: must be lower case: it stands within a sentence",
        ),
        ("/actions/0/display", json!(""), "actions[0].display: is missing"),
        (
            "/actions/0/display",
            json!("create a ticket and tell everybody about it"),
            "actions[0].display: is longer than 40 characters: it stands in a combo box",
        ),
        (
            "/actions/0/description",
            json!("Create a ticket"),
            "actions[0].description: must be lower case, the name \"My CRM\" apart: it stands within a sentence",
        ),
        (
            "/actions/0/description",
            json!("My CRM gets a ticket"),
            "actions[0].description: must be lower case, the name \"My CRM\" apart: it stands within a sentence",
        ),
        (
            "/actions/0/description",
            json!("create a Ticket in My CRM"),
            "actions[0].description: must be lower case, the name \"My CRM\" apart: it stands within a sentence",
        ),
        (
            "/actions/0/description",
            json!(""),
            "actions[0].description: is missing",
        ),
        ("/actions/0/endpoint", json!(""), "actions[0].endpoint: is missing"),
        (
            "/actions/0/endpoint",
            json!("http://bridge.example/a"),
            "actions[0].endpoint: must be https: Talkdesk calls nothing else",
        ),
        (
            "/actions/0/inputs/1/key",
            json!("subject"),
            "actions[0].inputs[1].key: \"subject\" is there twice",
        ),
        (
            "/actions/0/inputs/1/key",
            json!(""),
            "actions[0].inputs[1].key: is missing",
        ),
        (
            "/actions/0/inputs/1/name",
            json!(""),
            "actions[0].inputs[1].name: is missing",
        ),
        (
            "/actions/0/inputs/1/format",
            json!(""),
            "actions[0].inputs[1].format: is missing: a select needs its values, separated by commas",
        ),
        (
            "/actions/0/inputs/1/format",
            json!(null),
            "actions[0].inputs[1].format: is missing: a select needs its values, separated by commas",
        ),
        (
            "/actions/0/inputs/1/format",
            json!("low,,high"),
            "actions[0].inputs[1].format: holds an empty value",
        ),
        (
            "/actions/0/inputs/1/format",
            json!("low,high, low"),
            "actions[0].inputs[1].format: holds \"low\" twice",
        ),
        (
            "/actions/0/inputs/1/format",
            json!("low,{{contact.title}}"),
            "actions[0].inputs[1].format: holds a template, but the values of a select are fixed",
        ),
        (
            "/actions/0/inputs/0/format",
            json!("{{contact.birthday}}"),
            "actions[0].inputs[0].format: {{contact.birthday}} is not in the contact collection (first_name, last_name, email, phone, address, title, company, twitter, linkedin, facebook, skype, googleplus, website, industry, location, updated_at)",
        ),
        (
            "/actions/0/inputs/0/format",
            json!("{{agent.name}}"),
            "actions[0].inputs[0].format: {{agent.name}} is unknown: write {{contact.…}}",
        ),
        (
            "/actions/0/inputs/0/format",
            json!("{{contact.email"),
            "actions[0].inputs[0].format: opens braces that it never closes",
        ),
        (
            "/actions/0/inputs/2/format",
            json!("2026-02-30"),
            "actions[0].inputs[2].format: \"2026-02-30\" is no default for the type datetime",
        ),
        (
            "/actions/0/inputs/2/format",
            json!("2026-01-31T10:00"),
            "actions[0].inputs[2].format: \"2026-01-31T10:00\" is no default for the type datetime",
        ),
        (
            "/actions/0/inputs/3/format",
            json!("3.5"),
            "actions[0].inputs[3].format: \"3.5\" is no default for the type number",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut document = good();
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && document.pointer(pointer).is_none()
        {
            document.pointer_mut(parent).unwrap()[key] = json!(null);
        }
        set(&mut document, pointer, value.clone());
        assert_eq!(
            problems(document, Wants { cti: false }),
            [expected],
            "{pointer} = {value}"
        );
    }
    let mut named = good();
    set(&mut named, "/integration/name", json!(""));
    set(&mut named, "/actions", json!([]));
    assert_eq!(problems(named, Wants::default()), ["integration.name: is missing"]);
}

#[test]
fn cti_needs_the_agents_endpoint() {
    let mut document = good();
    set(
        &mut document,
        "/integration/agent_synchronization_endpoint",
        json!(null),
    );
    assert_eq!(problems(document.clone(), Wants { cti: false }), Vec::<String>::new());
    let expected =
        "integration.agent_synchronization_endpoint: is missing: CTI is wanted, and rests on agent synchronization";
    assert_eq!(problems(document, Wants { cti: true }), [expected]);
}

#[test]
fn each_grant_needs_its_fields_and_needs_them_filled() {
    for (kind, needed) in [
        (
            "oauth2",
            vec![
                "site",
                "client_id",
                "client_secret",
                "authorization_url",
                "access_token_url",
            ],
        ),
        (
            "oauth2_password",
            vec![
                "site",
                "client_id",
                "client_secret",
                "username",
                "password",
                "access_token_url",
            ],
        ),
        (
            "oauth2_client_credentials",
            vec!["site", "client_id", "client_secret", "access_token_url"],
        ),
    ] {
        let fields = |without: Option<&str>| -> Vec<Value> {
            let kept = needed.iter().filter(|name| Some(**name) != without);
            kept.map(
                |name| json!({"field_name": name, "display": name, "mandatory": true, "type": "input", "store": true}),
            )
            .collect()
        };
        let with = |fields: Vec<Value>| {
            let mut document = good();
            set(&mut document, "/integration/authentication_type", json!(kind));
            set(
                &mut document,
                "/integration/authentication_configuration",
                json!(fields),
            );
            problems(document, Wants::default())
        };
        let mut code =
            json!({"field_name": "code", "display": "Code", "mandatory": false, "type": "oauth", "store": false});
        code["help"] = json!("from the authority");
        let mut all = fields(None);
        all.push(code);
        assert_eq!(with(all), Vec::<String>::new(), "{kind}");
        for name in &needed {
            let expected = format!("integration.authentication_configuration: {kind} needs the field `{name}`");
            assert_eq!(with(fields(Some(name))), [expected]);
        }
        let mut optional = fields(None);
        optional[1]["mandatory"] = json!(false);
        let expected = format!(
            "integration.authentication_configuration[1].mandatory: must be true: {kind} needs the field `client_id`"
        );
        assert_eq!(with(optional), [expected]);
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_document() {
    let mut document = good();
    set(&mut document, "/integration/description", json!(""));
    set(&mut document, "/integration/icon_url", json!("x"));
    set(&mut document, "/actions/0/display", json!("Create"));
    set(&mut document, "/actions/1/provider", json!(""));
    let found = problems(document, Wants::default());
    let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(':').next()).collect();
    assert_eq!(
        places,
        [
            "integration.description",
            "integration.icon_url",
            "actions[0].display",
            "actions[1].provider"
        ]
    );
}

#[test]
fn words_of_types_are_read_and_written_alike() {
    for word in ["text", "textarea", "number", "tel", "url", "datetime", "select"] {
        let kind = InputType::of(word).unwrap();
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(word));
    }
    assert_eq!(InputType::of("Text"), None);
    for kind in [
        AuthType::None,
        AuthType::Custom,
        AuthType::OAuth2,
        AuthType::OAuth2Password,
        AuthType::OAuth2ClientCredentials,
    ] {
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
    }
}
