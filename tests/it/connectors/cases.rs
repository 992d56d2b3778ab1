//! The connectors and the profiles of the fake CRM that play their vendors.

use fake_crm::{AccountOptions, FakeCrm, Knobs, Options, Profile, RateLimit, Webhook};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::*;

/// One connector and what an account of it looks like.
pub struct Case {
    pub connector: &'static str,
    pub profile: Profile,
    /// What Talkdesk sends as `auth`; `SITE` stands for where the fake listens.
    pub auth: &'static [(&'static str, &'static str)],
    /// What the operator fixes.
    pub connection: &'static [(&'static str, &'static str)],
    /// How the vendor's webhook comes in the scene of pushed edits.
    pub hook: Hook,
    /// Actions of the connector that the fake does not play.
    pub not_played: &'static [&'static str],
    /// Whether the fake plays the first type of interactions.
    pub interactions: bool,
    /// How a poll is told of deletions.
    pub told: Told,
    /// Whether the vendor's webhook, set up as the connector says, is of deletions, too.
    pub hook_of_deletions: bool,
}

/// How a poll is told of deletions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// By a list of them, or by rows among the changes.
    Yes,
    /// Not at all: only a full pass finds that a contact is gone.
    No,
}

/// How the secret reaches the vendor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// The bridge asks for it, and the vendor makes the secret.
    Asked,
    /// One URL for all accounts, and the app's secret.
    App,
    /// The account's URL and its secret, which signs.
    Secret,
    /// As the password of Basic.
    Basic,
    /// In the parameter `key` of the URL.
    Key,
    /// In a header of one's own.
    Header,
}

const CASE: Case = Case {
    connector: "",
    profile: Profile::House,
    auth: &[],
    connection: &[],
    hook: Hook::Asked,
    not_played: &[],
    interactions: true,
    told: Told::No,
    hook_of_deletions: true,
};

/// Limits that a test is not slowed by stand on both sides: in the connector's settings and in the fake's knobs.
pub const CASES: &[Case] = &[
    Case {
        connector: "hubspot",
        profile: Profile::HubSpot,
        auth: &[("access_token", TOKEN)],
        hook: Hook::App,
        told: Told::Yes,
        ..CASE
    },
    Case {
        connector: "pipedrive",
        profile: Profile::Pipedrive,
        auth: &[("api_token", TOKEN)],
        hook: Hook::Basic,
        ..CASE
    },
    Case {
        connector: "espocrm",
        profile: Profile::EspoCrm,
        auth: &[("site", "SITE"), ("api_key", TOKEN)],
        ..CASE
    },
    Case {
        connector: "zendesk",
        profile: Profile::Zendesk,
        auth: &[("site", "SITE"), ("email", "eve@example.com"), ("api_token", TOKEN)],
        connection: &[("exports", "600")],
        hook: Hook::Secret,
        told: Told::Yes,
        ..CASE
    },
    Case {
        connector: "zoho",
        profile: Profile::Zoho,
        auth: &[("access_token", TOKEN)],
        hook: Hook::Secret,
        told: Told::Yes,
        ..CASE
    },
    Case {
        connector: "salesforce",
        profile: Profile::Salesforce,
        auth: &[("site", "SITE"), ("access_token", TOKEN)],
        hook: Hook::Key,
        told: Told::Yes,
        hook_of_deletions: false,
        ..CASE
    },
    Case {
        connector: "freshdesk",
        profile: Profile::Freshdesk,
        auth: &[("site", "SITE"), ("api_key", TOKEN)],
        connection: &[("per_minute", "2000")],
        hook: Hook::Header,
        told: Told::Yes,
        hook_of_deletions: false,
        ..CASE
    },
    Case {
        connector: "intercom",
        profile: Profile::Intercom,
        auth: &[("access_token", TOKEN)],
        hook: Hook::App,
        ..CASE
    },
    Case {
        connector: "dataverse",
        profile: Profile::Dataverse,
        auth: &[("site", "SITE"), ("tenant", "t"), ("access_token", TOKEN)],
        hook: Hook::Header,
        interactions: false,
        told: Told::Yes,
        ..CASE
    },
    Case {
        connector: "odoo",
        profile: Profile::Odoo,
        auth: &[("site", "SITE"), ("db", "demo"), ("login", "eve"), ("api_key", TOKEN)],
        connection: &[("per_second", "1000")],
        hook: Hook::Key,
        hook_of_deletions: false,
        ..CASE
    },
    Case {
        connector: "odoo-json2",
        profile: Profile::Odoo,
        auth: &[("site", "SITE"), ("db", "demo"), ("api_key", TOKEN)],
        connection: &[("per_second", "1000")],
        hook: Hook::Key,
        hook_of_deletions: false,
        ..CASE
    },
    Case {
        connector: "twenty",
        profile: Profile::Twenty,
        auth: &[("workspace", "https://nordlys.twenty.com"), ("api_key", TOKEN)],
        connection: &[("per_minute", "2000")],
        hook: Hook::Secret,
        ..CASE
    },
    Case {
        connector: "web1on1",
        profile: Profile::Web1on1,
        auth: &[("bot_token", TOKEN)],
        hook: Hook::Secret,
        hook_of_deletions: false,
        ..CASE
    },
];

pub fn case(connector: &str) -> &'static Case {
    let found = CASES.iter().find(|case| case.connector == connector);
    found.unwrap_or_else(|| panic!("no case for {connector}"))
}

/// The secret of the apps that have one URL for all accounts.
pub const APP_SECRET: &str = "the-secret-of-the-app";

impl Case {
    pub async fn crm(&self, contacts: usize) -> Crm {
        let account = AccountOptions {
            name: "demo".into(),
            profile: self.profile,
            token: TOKEN.into(),
            contacts,
            limit: NO_LIMIT,
            ..AccountOptions::default()
        };
        let crm = FakeCrm::new(Options {
            seed: 7,
            accounts: vec![account],
        });
        crm.knobs("demo", |knobs| self.knobs(knobs));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        tokio::spawn(crm.clone().serve(listener, stop.clone()));
        Crm::of(crm, url, stop)
    }

    /// The same limits as the settings have.
    fn knobs(&self, knobs: &mut Knobs) {
        let minute = |max| {
            Some(RateLimit {
                max,
                window: std::time::Duration::from_secs(60),
            })
        };
        knobs.hold_back_ms = 0;
        let (name, limit) = match self.connector {
            "zendesk" => ("export", minute(600)),
            "freshdesk" => ("minute", minute(2_000)),
            "twenty" => ("minute", minute(2_000)),
            _ => return,
        };
        knobs.limits.insert(name.to_owned(), limit);
    }

    pub fn auth(&self, crm: &Crm) -> Value {
        let pairs = self.auth.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), json!(value.replace("SITE", &crm.url))))
            .collect()
    }

    /// Settings of the integration `crm`, which speaks to the fake by this connector.
    pub fn settings(&self, crm: &Crm, poll: &str) -> String {
        self.paced(crm, poll, poll)
    }

    /// The same, with full passes more rarely than polls.
    pub fn paced(&self, crm: &Crm, poll: &str, reconcile: &str) -> String {
        let mut text = format!(
            "refresh.sweep = \"100ms\"\nretry.first = \"200ms\"\n[integrations.crm]\nconnector = \"{}\"\nallow_hosts = [\"{}\"]\n\
             region = \"PT\"\npoll = \"{poll}\"\nreconcile = \"{reconcile}\"\n[integrations.crm.connection]\n",
            self.connector, crm.url
        );
        let mut put = |name: &str, value: &str| text.push_str(&format!("{name} = \"{value}\"\n"));
        if !self.auth.iter().any(|(name, _)| *name == "site") {
            put("site", &crm.url);
        }
        for (name, value) in self.connection {
            put(name, value);
        }
        if self.hook == Hook::App {
            text.push_str(&format!("[integrations.crm.app]\nwebhook_secret = \"{APP_SECRET}\"\n"));
        }
        text
    }

    /// The vendor's subscription to this bridge, where a person makes it.
    pub async fn webhook(&self, bridge: &Bridge) -> Option<Webhook> {
        let account = bridge.account().await;
        let secret = bridge.keys.hook_secret(&account);
        let own = format!("{}/crm/webhooks/{}", bridge.url, bridge.keys.hook_id(&account));
        Some(match self.hook {
            Hook::Asked => return None,
            Hook::App => Webhook::new(format!("{}/crm/webhooks", bridge.url), APP_SECRET),
            Hook::Secret => Webhook::new(own, secret),
            Hook::Basic => Webhook::new(own, format!("snapbridge:{secret}")),
            Hook::Key => Webhook::new(format!("{own}?key={secret}"), secret),
            Hook::Header => Webhook {
                header: Some("x-bridge-key".to_owned()),
                ..Webhook::new(own, secret)
            },
        })
    }
}
