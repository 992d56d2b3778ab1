//! The OpenAPI document of the public listener, generated from the wire types. Served at `/openapi.json`; `docs/openapi.json`
//! is the same, and a test compares them.

use talkdesk::wire::schema::{
    ActionBody, AgentBody, AgentPage, AuthBody, AuthFields, InteractionBody, SyncBody, SyncPage,
};
use talkdesk::wire::{ActionReply, ErrorBody, Interaction};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

/// What any Talkdesk endpoint may answer beside its own.
const COMMON: [(u16, &str); 12] = [
    (400, "The request cannot be read, or its offset cannot be used"),
    (401, "The CRM does not take the credentials"),
    (403, "The bridge's own secret is wrong or missing, or HTTPS is required"),
    (404, "There is no such integration, or it does not have this"),
    (405, "POST only"),
    (408, "The body did not arrive in time"),
    (413, "The body is too large"),
    (
        429,
        "The CRM, its quota, or the bridge's own limit asks for patience; see Retry-After",
    ),
    (500, "The bridge failed on this request"),
    (502, "The CRM cannot be reached, or its answer cannot be used"),
    (503, "The bridge cannot do it now; see Retry-After"),
    (504, "It did not come to an end in time"),
];

const WEBHOOK: [(u16, &str); 9] = [
    (400, "The body is none that the connector knows"),
    (401, "The delivery does not prove its sender"),
    (403, "HTTPS is required"),
    (404, "There is no webhook at this path"),
    (405, "GET and POST only"),
    (408, "The body did not arrive in time"),
    (413, "The body is too large"),
    (503, "It could not be taken; send it again"),
    (504, "It did not come to an end in time"),
];

const UPDATE: [(u16, &str); 10] = [
    (400, "The contact cannot be read, or its dealer is not known"),
    (401, "The request does not prove a DMS of the dealer"),
    (403, "HTTPS is required"),
    (404, "There is no integration of the kind linking at this path"),
    (405, "POST only"),
    (408, "The body did not arrive in time"),
    (413, "The body is too large"),
    (429, "The dealer's inbox is full; see Retry-After"),
    (503, "The bridge cannot do it now; see Retry-After"),
    (504, "It did not come to an end in time"),
];

/// An endpoint of Talkdesk's contract.
struct Endpoint {
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    request: RefOr<Schema>,
    /// Status, words, body.
    good: Vec<(u16, &'static str, Option<RefOr<Schema>>)>,
}

/// The document, for the version of this build.
pub fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    for endpoint in endpoints() {
        for (prefix, id, has_secret) in [
            ("/{integration}", endpoint.id.to_owned(), false),
            (
                "/{integration}/k/{secret}",
                format!("{}_with_secret", endpoint.id),
                true,
            ),
        ] {
            let operation = talkdesk_operation(&endpoint, &id, has_secret);
            paths = paths.path(
                format!("{prefix}/{}", endpoint.path),
                PathItem::new(HttpMethod::Post, operation),
            );
        }
    }
    for (path, id) in [
        ("/{integration}/webhooks", "webhooks"),
        ("/{integration}/webhooks/{hook}", "webhooks_of_account"),
    ] {
        let mut item = PathItem::new(HttpMethod::Post, delivery(path, id));
        item.merge_operations(PathItem::new(HttpMethod::Get, handshake(path, id)));
        paths = paths.path(path, item);
    }
    for (prefix, suffix) in [("/{integration}", ""), ("", "_at_root")] {
        let path = format!("{prefix}/updatecontact");
        let item = PathItem::new(HttpMethod::Post, told(&path, &format!("updatecontact{suffix}")));
        paths = paths.path(path, item);
        let (path, id) = (format!("{prefix}/webhook"), format!("webhook{suffix}"));
        let mut item = PathItem::new(HttpMethod::Post, linking_delivery(&path, &id));
        item.merge_operations(PathItem::new(HttpMethod::Get, handshake(&path, &id)));
        paths = paths.path(path, item);
    }
    let info = InfoBuilder::new()
        .title("snapbridge")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What Talkdesk and the CRMs call. Requests are read leniently: unknown keys are ignored, and what is null or \
             missing is absent.",
        ));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components()))
        .build()
}

fn endpoints() -> Vec<Endpoint> {
    let post = |path, id, summary, request, good| Endpoint {
        path,
        id,
        summary,
        request,
        good,
    };
    vec![
        post(
            "auth_validation",
            "auth_validation",
            "A user activates the integration (Talkdesk authorization validation)",
            of::<AuthBody>(),
            vec![
                (
                    200,
                    "The credentials are good; fields for Talkdesk to store",
                    Some(<AuthFields as PartialSchema>::schema()),
                ),
                (204, "The same, where the setting asks for it", None),
            ],
        ),
        post(
            "contact_sync",
            "contact_sync",
            "A page of contacts (Talkdesk contact synchronization)",
            of::<SyncBody>(),
            vec![(200, "A page", Some(of::<SyncPage>()))],
        ),
        post(
            "const_sync",
            "const_sync",
            "The same as contact_sync, in the spelling of Talkdesk's sample",
            of::<SyncBody>(),
            vec![(200, "A page", Some(of::<SyncPage>()))],
        ),
        post(
            "agent_sync",
            "agent_sync",
            "A page of agents (Talkdesk agent synchronization)",
            of::<AgentBody>(),
            vec![(200, "A page", Some(of::<AgentPage>()))],
        ),
        post(
            "interaction_update",
            "interaction_update",
            "A contact's interactions, newest first (Talkdesk interaction retriever)",
            of::<InteractionBody>(),
            vec![(
                200,
                "A bare list",
                Some(ArrayBuilder::new().items(of::<Interaction>()).into()),
            )],
        ),
        post(
            "actions/{name}",
            "action",
            "Executes an action (Talkdesk action executor)",
            of::<ActionBody>(),
            vec![
                (200, "Done, where the setting asks for it", Some(of::<ActionReply>())),
                (201, "Done", Some(of::<ActionReply>())),
            ],
        ),
    ]
}

fn talkdesk_operation(endpoint: &Endpoint, id: &str, has_secret: bool) -> Operation {
    let mut parameters = vec![parameter("integration", "Name of the integration")];
    if has_secret {
        parameters.push(parameter("secret", "One of the integration's path secrets"));
    }
    if endpoint.path.contains("{name}") {
        parameters.push(parameter("name", "Name of the action"));
    }
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", Content::new(Some(endpoint.request.clone())));
    let mut operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(endpoint.summary))
        .tag("Talkdesk")
        .parameters(Some(parameters))
        .request_body(Some(body.build()));
    for (status, words, schema) in endpoint.good.clone() {
        operation = operation.response(status.to_string(), answer(words, schema));
    }
    errors(operation, &COMMON).build()
}

fn delivery(path: &str, id: &str) -> Operation {
    let body = RequestBodyBuilder::new()
        .description(Some("Whatever the CRM sends; its signature is over these very bytes"))
        .content("*/*", Content::default());
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some("A CRM tells of changes"))
        .tag("CRM")
        .parameters(Some(hook_parameters(path)))
        .request_body(Some(body.build()))
        .response(
            "202",
            answer("The work is stored and its job confirmed", Some(object())),
        );
    errors(operation, &WEBHOOK).build()
}

/// A DMS tells of a record (Web1on1 recipe "Contact Synchronization").
fn told(path: &str, id: &str) -> Operation {
    let text = |words: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(words.to_owned()))
    };
    let contact = ObjectBuilder::new()
        .property("id", text("The DMS's id of the contact"))
        .property("organization", text("Web1on1's id of the dealer"))
        .property("email", text("Needed, unless there is a telephone"))
        .property(
            "telephone",
            text("Needed, unless there is an email; `phone` is taken, too"),
        )
        .property(
            "deleted",
            ObjectBuilder::new()
                .schema_type(Type::Boolean)
                .description(Some("The DMS no longer has it: its links are taken away")),
        )
        .required("id")
        .required("organization");
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", Content::new(Some(contact)));
    let status = || {
        let status = ObjectBuilder::new().property("status", ObjectBuilder::new().schema_type(Type::String));
        Some(RefOr::from(Schema::from(status.required("status").build())))
    };
    let wait = ParameterBuilder::new()
        .name("wait")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("`true`: the answer tells what came of it, in the recipe's shapes"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::Boolean)));
    let mut parameters = linking_parameters(path);
    parameters.push(wait.build());
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some("A DMS tells of a contact that was made, changed or deleted"))
        .tag("Linking")
        .parameters(Some(parameters))
        .request_body(Some(body.build()))
        .response("200", answer("With `wait`: nothing was written, and why", status()))
        .response("201", answer("With `wait`: links were written", status()))
        .response("202", answer("It is stored and will be worked on", status()));
    errors(operation, &UPDATE).build()
}

fn linking_delivery(path: &str, id: &str) -> Operation {
    let body = RequestBodyBuilder::new()
        .description(Some("An event; its signature is over these very bytes"))
        .content("*/*", Content::default());
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some("Web1on1 tells of a contact or a user"))
        .tag("Linking")
        .parameters(Some(linking_parameters(path)))
        .request_body(Some(body.build()))
        .response("200", answer("It is stored; the body is empty", None));
    errors(operation, &WEBHOOK).build()
}

fn linking_parameters(path: &str) -> Vec<Parameter> {
    match path.starts_with("/{integration}") {
        true => vec![parameter("integration", "Name of the integration")],
        // Answered only where an integration's `auth` is `none`.
        false => Vec::new(),
    }
}

fn handshake(path: &str, id: &str) -> Operation {
    let text = Content::new(Some(ObjectBuilder::new().schema_type(Type::String)));
    let echo = ResponseBuilder::new()
        .description("The challenge")
        .content("text/plain", text);
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("{id}_handshake")))
        .summary(Some("A CRM sets its webhook up"))
        .tag("CRM")
        .parameters(Some(hook_parameters(path)))
        .response("200", echo.build());
    errors(operation, &WEBHOOK).build()
}

fn hook_parameters(path: &str) -> Vec<Parameter> {
    let mut parameters = linking_parameters(path);
    if path.contains("{hook}") {
        parameters.push(parameter("hook", "The account's own, unguessable name"));
    }
    parameters
}

fn parameter(name: &str, words: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(words))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn errors(mut operation: OperationBuilder, statuses: &[(u16, &str)]) -> OperationBuilder {
    for (status, words) in statuses {
        operation = operation.response(status.to_string(), answer(words, Some(of::<ErrorBody>())));
    }
    operation
}

fn answer(words: &str, schema: Option<RefOr<Schema>>) -> Response {
    let answer = ResponseBuilder::new().description(words);
    match schema {
        Some(schema) => answer.content("application/json", Content::new(Some(schema))).build(),
        None => answer.build(),
    }
}

fn object() -> RefOr<Schema> {
    ObjectBuilder::new().into()
}

/// A reference to a type's schema.
fn of<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// The types by name, with all that they are made of.
fn components() -> Components {
    let mut schemas = Vec::new();
    add::<AuthBody>(&mut schemas);
    add::<SyncBody>(&mut schemas);
    add::<SyncPage>(&mut schemas);
    add::<AgentBody>(&mut schemas);
    add::<AgentPage>(&mut schemas);
    add::<InteractionBody>(&mut schemas);
    add::<Interaction>(&mut schemas);
    add::<ActionBody>(&mut schemas);
    add::<ActionReply>(&mut schemas);
    add::<ErrorBody>(&mut schemas);
    ComponentsBuilder::new().schemas_from_iter(schemas).build()
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn json() -> serde_json::Value {
        serde_json::to_value(document()).expect("a document")
    }

    /// `UPDATE_OPENAPI=1 cargo test -p snapbridge --lib openapi` writes it.
    #[test]
    fn the_committed_document_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let now = format!("{:#}\n", json());
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &now).expect("docs/openapi.json");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == now,
            "docs/openapi.json is out of date; UPDATE_OPENAPI=1 writes it"
        );
    }

    #[test]
    fn a_contact_has_the_keys_that_are_written_and_no_others() {
        let contact = contacts::contact::Contact {
            id: "1".into(),
            name: "n".into(),
            company: Some("c".into()),
            title: Some("t".into()),
            emails: vec![],
            phones: vec![],
            photo_url: Some("p".into()),
            address: Some("a".into()),
            websites: vec!["w".into()],
            twitter: Some("t".into()),
            url: Some("u".into()),
        };
        let written: serde_json::Value = serde_json::from_slice(&contact.to_json()).expect("JSON");
        let keys = |value: &serde_json::Value| -> BTreeSet<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        let document = json();
        let shown = &document["components"]["schemas"]["Contact"]["properties"];
        assert_eq!(keys(&written), keys(shown));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = json();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
