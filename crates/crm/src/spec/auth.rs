//! How calls prove who they are.

use std::collections::BTreeMap;
use std::time::Duration;

mod oauth2;

use super::{FieldSource, Request, Role, Spec, Vocabulary, mentions, named_exprs, named_templates};
use crate::expr::{Expr, Template};
use crate::load::{Reader, Table};

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

/// `kind = "oauth2"`: an access token that Talkdesk brings in `auth`, or one that the bridge mints itself. Refresh tokens
/// are never used: they are Talkdesk's, and a second user of one that rotates would void it.
#[derive(Debug)]
pub struct Oauth2 {
    /// What the CRM offers; which of them an integration uses, its `auth_type` says.
    pub grants: Vec<Grant>,
    /// Fields of `auth` that may carry Talkdesk's access token; the first that does counts.
    pub token_fields: Vec<String>,
    /// Where tokens are minted. The field `access_token_url` if the file names nothing else.
    pub token_url: Option<Template>,
    pub client_auth: ClientAuth,
    pub scope: Option<String>,
    /// What is signed in the grant `jwt_bearer`; there if the grant is.
    pub assertion: Option<Assertion>,
    /// What else the token endpoint wants (`audience`, `resource`).
    pub params: BTreeMap<String, Template>,
    /// How a token is sent; `session.access_token` is in reach. Empty: `Authorization: Bearer`.
    pub headers: BTreeMap<String, Template>,
    /// How long tokens live where no reply says so: those that Talkdesk brings, and some CRMs' minted ones.
    pub lifetime: Option<Duration>,
}

impl Oauth2 {
    /// Whether the token endpoint is made of this field.
    pub(crate) fn uses(&self, field: &str) -> bool {
        mentions(self.token_url.iter(), field)
    }
}

/// `assertion = { audience, lifetime }`: of what the bridge signs with `private_key` (RFC 7523, section 3). The issuer is
/// `client_id` and the subject `username`.
#[derive(Debug)]
pub struct Assertion {
    /// The authorization server, as it names itself.
    pub audience: Template,
    /// How long one is good. Salesforce refuses those that end more than three minutes ahead.
    pub lifetime: Duration,
}

/// How an access token comes about (RFC 6749, section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Talkdesk does the dance and brings the token.
    Code,
    ClientCredentials,
    Password,
    JwtBearer,
}

impl Grant {
    /// As connector files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Grant::Code => "code",
            Grant::ClientCredentials => "client_credentials",
            Grant::Password => "password",
            Grant::JwtBearer => "jwt_bearer",
        }
    }

    /// As token endpoints know it (RFC 6749, section 4; RFC 7523, section 2.1).
    pub fn wire(self) -> &'static str {
        match self {
            Grant::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            other => other.as_str(),
        }
    }

    /// Whether the bridge mints tokens by it.
    pub fn mints(self) -> bool {
        matches!(self, Grant::ClientCredentials | Grant::Password | Grant::JwtBearer)
    }

    /// The fields it is asked with, by the names that Talkdesk's configuration has for them (authentication
    /// configuration, mandatory fields); a private key is none of Talkdesk's, so its name is ours.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Grant::ClientCredentials => &["client_id", "client_secret"],
            Grant::Password => &["client_id", "client_secret", "username", "password"],
            Grant::JwtBearer => &["client_id", "username", "private_key"],
            Grant::Code => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    Body,
    Basic,
}

/// `kind = "request_hmac"`: a signature over each request, base64(key id, ":", HMAC-SHA256(secret, method, " ", path)); the path
/// is the one below the base URL, without the query (EspoCRM, API overview, HMAC authentication).
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
            Word::Oauth2 => oauth2::read(&table, vocabulary).map(AuthSpec::Oauth2),
            Word::RequestHmac => {
                let (key_id, secret) = (
                    table.need_template("key_id", &names),
                    table.need_template("secret", &names),
                );
                let header = table.need_text("header").filter(|name| {
                    super::request::check_header_names(&table, std::iter::once(name));
                    true
                });
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

/// A client secret of the settings goes to no address that a caller names.
pub(super) fn check_sources(reader: &Reader<'_>, at: usize, spec: &Spec) {
    let AuthSpec::Oauth2(oauth) = &spec.auth else { return };
    // What is ignored is not part of a fingerprint: two users with one password would be taken for one.
    let fields = oauth.grants.iter().flat_map(|grant| grant.fields());
    let ignored = |name: &&&str| {
        spec.connection
            .fields
            .get(**name)
            .is_some_and(|field| field.role == Some(Role::Ignored))
    };
    for name in fields.filter(ignored) {
        let what = format!("the field `{name}` proves who is calling, so its role must not be `ignored`");
        reader.problem(at, what, Some("give it the role principal or secret".to_owned()));
    }
    let from = |name: &str| spec.connection.fields.get(name).map(|field| field.source);
    let ours = from("client_secret") == Some(FieldSource::Integration);
    if ours && from("access_token_url") == Some(FieldSource::Auth) && oauth.uses("access_token_url") {
        let what = "the client secret of the settings would go to the `access_token_url` that a caller gives";
        let hint = "name the token endpoint in `auth.token_url`, or take the field from the settings, too".to_owned();
        reader.problem(at, what, Some(hint));
    }
    if oauth.grants.contains(&Grant::JwtBearer) && from("private_key") == Some(FieldSource::Integration) {
        check_assertion(reader, at, spec, oauth);
    }
}

/// With a key of the settings a user's name alone opens the account, and a signed assertion is good wherever its audience
/// is: neither may come from a caller.
fn check_assertion(reader: &Reader<'_>, at: usize, spec: &Spec, oauth: &Oauth2) {
    let fields = || spec.connection.fields.iter();
    let callers = |name: &str| fields().any(|(known, field)| known == name && field.source == FieldSource::Auth);
    let hint = || Some("take it from the settings, too: from = \"integration\"".to_owned());
    for name in ["client_id", "username"].into_iter().filter(|name| callers(name)) {
        let what = format!("`private_key` is the settings', so `{name}` must not be the caller's to choose");
        reader.problem(at, what, hint());
    }
    let places = || {
        oauth
            .token_url
            .iter()
            .chain(oauth.assertion.iter().map(|assertion| &assertion.audience))
    };
    for (name, _) in fields().filter(|(name, field)| field.source == FieldSource::Auth && mentions(places(), name)) {
        let what = format!("what `private_key` of the settings signs would go where the caller's `{name}` says");
        reader.problem(at, what, hint());
    }
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
