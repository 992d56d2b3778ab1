//! How calls prove who they are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Request, Vocabulary, named_exprs, named_templates};
use crate::expr::{Expr, Template};
use crate::load::Table;

/// `[auth]`
#[derive(Debug)]
pub enum AuthSpec {
    None,
    Bearer {
        token: Template,
    },
    Basic {
        user: Template,
        password: Template,
    },
    /// Any headers with any prefix (`Zoho-oauthtoken …`, `Token token=…`).
    Header {
        headers: BTreeMap<String, Template>,
    },
    Oauth2(Oauth2),
    RequestHmac(HmacAuth),
    Session(Box<Session>),
}

/// `kind = "oauth2"`: tokens that the bridge mints itself.
#[derive(Debug)]
pub struct Oauth2 {
    pub grant: Grant,
    pub token_url: Template,
    pub client_auth: ClientAuth,
    pub scope: Option<String>,
    /// For replies that give none.
    pub lifetime: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Code,
    ClientCredentials,
    Password,
    JwtBearer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Body,
    Basic,
}

/// `kind = "request_hmac"`: a signature over each request (EspoCRM).
#[derive(Debug)]
pub struct HmacAuth {
    pub key_id: Template,
    pub secret: Template,
    pub header: String,
}

/// `kind = "session"`: a login call whose result goes into later calls.
#[derive(Debug)]
pub struct Session {
    pub request: Request,
    pub ok: Option<Expr>,
    pub denied: Option<Expr>,
    /// `session.NAME`, from the reply.
    pub learn: BTreeMap<String, Expr>,
    /// Sent with every later call.
    pub headers: BTreeMap<String, Template>,
    pub lifetime: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Word {
    None,
    Bearer,
    Basic,
    Header,
    Oauth2,
    RequestHmac,
    Session,
}

/// The names a session gives, read ahead of everything that may use them.
pub(super) fn session_names(table: &Table<'_, '_>) -> Vec<String> {
    let Some(learn) = table.table("learn") else {
        return Vec::new();
    };
    learn.named_texts().into_iter().map(|(name, _, _)| name).collect()
}

impl AuthSpec {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Option<AuthSpec> {
        let names = vocabulary.call();
        let word = table.need_choice(
            "kind",
            &[
                ("none", Word::None),
                ("bearer", Word::Bearer),
                ("basic", Word::Basic),
                ("header", Word::Header),
                ("oauth2", Word::Oauth2),
                ("request_hmac", Word::RequestHmac),
                ("session", Word::Session),
            ],
        );
        let auth = word.and_then(|word| match word {
            Word::None => Some(AuthSpec::None),
            Word::Bearer => Some(AuthSpec::Bearer {
                token: table.need_template("token", &names)?,
            }),
            Word::Basic => {
                let (user, password) = (
                    table.need_template("user", &names),
                    table.need_template("password", &names),
                );
                Some(AuthSpec::Basic {
                    user: user?,
                    password: password?,
                })
            }
            Word::Header => {
                let headers = named_templates(table.need_table("headers")?, &names);
                super::request::check_header_names(&table, headers.keys());
                Some(AuthSpec::Header { headers })
            }
            Word::Oauth2 => {
                table.not_run_yet("kind", "auth kind `oauth2`");
                read_oauth2(&table, vocabulary).map(AuthSpec::Oauth2)
            }
            Word::RequestHmac => {
                table.not_run_yet("kind", "auth kind `request_hmac`");
                let (key_id, secret) = (
                    table.need_template("key_id", &names),
                    table.need_template("secret", &names),
                );
                let header = table.need_text("header");
                Some(AuthSpec::RequestHmac(HmacAuth {
                    key_id: key_id?,
                    secret: secret?,
                    header: header?,
                }))
            }
            Word::Session => read_session(&table, vocabulary).map(|session| AuthSpec::Session(Box::new(session))),
        });
        table.finish();
        auth
    }
}

fn read_oauth2(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Oauth2> {
    let grant = table.need_choice(
        "grant",
        &[
            ("code", Grant::Code),
            ("client_credentials", Grant::ClientCredentials),
            ("password", Grant::Password),
            ("jwt_bearer", Grant::JwtBearer),
        ],
    );
    let client_auth = table.choice(
        "client_auth",
        &[("body", ClientAuth::Body), ("basic", ClientAuth::Basic)],
    );
    let token_url = table.need_template("token_url", &vocabulary.call());
    let (scope, lifetime) = (table.text("scope"), table.duration("lifetime"));
    Some(Oauth2 {
        grant: grant?,
        token_url: token_url?,
        client_auth: client_auth.unwrap_or(ClientAuth::Body),
        scope,
        lifetime,
    })
}

fn read_session(table: &Table<'_, '_>, vocabulary: &Vocabulary) -> Option<Session> {
    // The login itself has no session yet.
    let before = Vocabulary {
        session: Default::default(),
        ..clone(vocabulary)
    };
    let request = table
        .need_table("request")
        .and_then(|request| Request::read(request, &before.call()));
    let (ok, denied) = (table.expr("ok", &before.reply()), table.expr("denied", &before.reply()));
    let learn = table
        .need_table("learn")
        .map(|learn| named_exprs(learn, &before.reply()));
    let headers = table
        .table("headers")
        .map_or_else(BTreeMap::new, |headers| named_templates(headers, &vocabulary.call()));
    super::request::check_header_names(table, headers.keys());
    let lifetime = table.duration("lifetime");
    Some(Session {
        request: request?,
        ok,
        denied,
        learn: learn?,
        headers,
        lifetime,
    })
}

fn clone(vocabulary: &Vocabulary) -> Vocabulary {
    Vocabulary {
        fields: vocabulary.fields.clone(),
        secrets: vocabulary.secrets.clone(),
        learned: vocabulary.learned.clone(),
        session: vocabulary.session.clone(),
    }
}
