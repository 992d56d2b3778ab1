//! Integrations of the kind `linking`: the connectors of Web1on1 and of a DMS, and the dealers that have both.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use contacts::accounts::{Account, Sealed};
use contacts::keys::Identity;
use contacts::ledger::{Class, Left};
use contacts::linking::records::{self, Checked, Side};
use contacts::linking::{BadTemplate, Field, Owner, UrlTemplate};
use contacts::{AccountId, ErrorKind, Micros, Store, StoreError};
use crm::{Client, CrmError, CrmResult, Region};
use parking_lot::Mutex;
use process::settings::{self, AuthType, FieldOwner, Settings, UpdateAuth};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use worker::linking::{Look, Pairing, Rules};

use super::auth_type::check_names;
use super::{Deps, Integration, Problems, exposed, with_learned};

/// One integration of the kind `linking`.
pub struct Linking {
    pub name: String,
    pub auth: UpdateAuth,
    /// Payloads of a dealer that may wait.
    pub inbox: usize,
    /// Web1on1's side; its webhook is the integration's.
    pub web1on1: Integration,
    dms: Integration,
    dealers: Vec<Dealer>,
    by_organization: BTreeMap<String, usize>,
    /// Their clients, once both systems have taken the credentials.
    pairings: Mutex<HashMap<AccountId, Arc<Pairing>>>,
    store: Arc<dyn Store>,
    deps: Deps,
}

/// One dealer of it.
pub struct Dealer {
    /// For people.
    pub name: String,
    /// Web1on1's id of it.
    pub organization: String,
    pub account: AccountId,
    /// All its records are to be linked.
    pub seed: bool,
    /// With which its DMS proves itself.
    pub secrets: Vec<SecretString>,
    at_dms: BTreeMap<String, String>,
    at_web1on1: BTreeMap<String, String>,
    /// Two-letter code.
    region: Option<String>,
    rules: Rules,
}

impl Linking {
    pub(super) fn load(
        name: &str,
        settings: &settings::Integration,
        all: &Settings,
        folder: &Path,
        store: Arc<dyn Store>,
        deps: &Deps,
    ) -> Result<Linking, Problems> {
        let mut problems = Vec::new();
        let mut side = |key: &str, connector: String, settings: settings::Integration| {
            let loaded = Integration::load(name, &settings, all, folder, deps);
            let integration = loaded.map_err(|found| {
                problems.extend(found.into_iter().map(|problem| match key {
                    "dms" => format!("dms: {problem}"),
                    _ => problem,
                }));
            });
            let integration = integration.ok()?;
            if !integration.connector.can_link() {
                problems.push(format!(
                    "{key}: the connector {connector} has no [link] section, so nobody can be found or shown a link through it"
                ));
            }
            Some(integration)
        };
        // Credentials are judged below: each dealer may have its own.
        let plain = settings::Integration {
            auth_type: AuthType::Custom,
            credentials: Default::default(),
            ..settings.clone()
        };
        let web1on1 = side("connector", settings.connector.clone(), plain.clone());
        let dms = settings.dms.clone().unwrap_or_default();
        let dms = side(
            "dms",
            dms.clone(),
            settings::Integration {
                connector: dms,
                allow_hosts: settings.dms_hosts.clone(),
                connection: settings.dms_connection.clone(),
                app: Default::default(),
                map: Default::default(),
                props: Vec::new(),
                filter: None,
                ..plain
            },
        );
        if let Some(web1on1) = &web1on1 {
            if !web1on1.connector.has_link_news() {
                problems.push(
                    "connector: it has no [webhook] with [link.events], so Web1on1 could tell of nothing".to_owned(),
                );
            } else if web1on1.app_secrets().is_empty() && settings.auth != UpdateAuth::None {
                problems.push("app.webhook_secret is missing: the secret of the bot's webhook in Web1on1".to_owned());
            }
        }
        let to_web1on1 = template("web1on1_url", &settings.web1on1_url, "conversation", &mut problems);
        let mut dealers = Vec::new();
        for (dealer_name, dealer) in all.dealers.iter().filter(|(_, dealer)| dealer.integration == name) {
            let mut found = Vec::new();
            let url = dealer.dms_url.as_ref().or(settings.dms_url.as_ref());
            let to_dms = template("dms_url", url.map_or("", String::as_str), "id", &mut found);
            let code = dealer.region.as_ref().or(settings.region.as_ref());
            let region = code.and_then(|code| match Region::from_code(code) {
                Ok(region) => Some(region),
                Err(_) => {
                    found.push(format!("region: {code:?} is the code of no region"));
                    None
                }
            });
            let mut at_web1on1 = exposed(&settings.credentials);
            at_web1on1.extend(exposed(&dealer.web1on1));
            let at_dms = exposed(&dealer.dms);
            if let Some(web1on1) = &web1on1 {
                check_credentials("web1on1", web1on1, &at_web1on1, &mut found);
            }
            if let Some(dms) = &dms {
                check_credentials("dms", dms, &at_dms, &mut found);
            }
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| format!("dealers.{dealer_name}: {problem}")),
            );
            let (Some(to_dms), Some(to_web1on1)) = (to_dms, to_web1on1.clone()) else {
                continue;
            };
            let owner = |owner| match owner {
                FieldOwner::Nobody => Owner::Nobody,
                FieldOwner::Dms => Owner::Dms,
                FieldOwner::Web1on1 => Owner::Web1on1,
            };
            let identity = Identity {
                integration: name,
                site: "",
                org: &dealer.organization,
                principal: "",
            };
            dealers.push(Dealer {
                name: dealer_name.clone(),
                organization: dealer.organization.clone(),
                account: deps.keys.account_id(&identity),
                seed: dealer.seed,
                secrets: dealer.secrets.values().cloned().collect(),
                at_dms,
                at_web1on1,
                region: code.cloned(),
                rules: Rules {
                    organization: dealer.organization.clone(),
                    to_dms: Look {
                        label: settings.dms_label.clone(),
                        icon: settings.dms_icon.as_ref().map(ToString::to_string).unwrap_or_default(),
                        url: to_dms,
                    },
                    to_web1on1: Look {
                        label: settings.web1on1_label.clone(),
                        icon: String::new(),
                        url: to_web1on1,
                    },
                    owners: BTreeMap::from([
                        (Field::Name, owner(settings.owner_name)),
                        (Field::Email, owner(settings.owner_email)),
                        (Field::Phone, owner(settings.owner_phone)),
                    ]),
                    region,
                    inbox: settings.inbox,
                    seed_ahead: settings.seed_ahead,
                },
            });
        }
        let (Some(web1on1), Some(dms), true) = (web1on1, dms, problems.is_empty()) else {
            return Err(problems);
        };
        let by_organization = dealers.iter().enumerate();
        let by_organization = by_organization
            .map(|(at, dealer)| (dealer.organization.clone(), at))
            .collect();
        Ok(Linking {
            name: name.to_owned(),
            auth: settings.auth,
            inbox: settings.inbox,
            web1on1,
            dms,
            dealers,
            by_organization,
            pairings: Mutex::default(),
            store,
            deps: deps.clone(),
        })
    }

    pub fn dealers(&self) -> &[Dealer] {
        &self.dealers
    }

    /// The dealer that Web1on1 calls so.
    pub fn dealer(&self, organization: &str) -> Option<&Dealer> {
        self.dealers.get(*self.by_organization.get(organization)?)
    }

    pub fn dealer_of(&self, account: &AccountId) -> Option<&Dealer> {
        self.dealers.iter().find(|dealer| dealer.account == *account)
    }

    /// The account under which a dealer's work is kept. Its credentials are the settings' and nowhere else.
    pub fn account(&self, dealer: &Dealer, now: Micros) -> Account {
        let keys = &self.deps.keys;
        let mut digest = Sha256::new();
        for (name, value) in dealer.at_web1on1.iter().chain(&dealer.at_dms) {
            for text in [name, value] {
                digest.update((text.len() as u64).to_be_bytes());
                digest.update(text.as_bytes());
            }
        }
        let connector = self.web1on1.connector.id();
        Account {
            id: dealer.account.clone(),
            integration: self.name.clone(),
            connector: connector.to_owned(),
            budget: keys.budget_scope(connector, &dealer.organization),
            user_budget: None,
            dealer: Some(dealer.name.clone()),
            tokens: Default::default(),
            created: now,
            credentials: Sealed::seal(keys, &dealer.account, &BTreeMap::new()),
            fingerprint: keys.fingerprint(&format!("dealer|{}", self.name), &digest.finalize()),
            learned: BTreeMap::new(),
            route: None,
            called: now,
            verified: now,
        }
    }

    /// Both systems of a dealer; each is asked once whether it takes the credentials, and what it tells of itself is kept.
    pub(super) async fn pairing(&self, account: &Account) -> CrmResult<Arc<Pairing>> {
        if let Some(pairing) = self.pairings.lock().get(&account.id) {
            return Ok(pairing.clone());
        }
        let dealer = self.dealer_of(&account.id).ok_or_else(|| {
            let message = format!("no dealer of this account is configured in {} any more", self.name);
            CrmError::new(ErrorKind::Missing, message)
        })?;
        let web1on1 = self.connect(Side::Web1on1, &dealer.at_web1on1, dealer).await?;
        let dms = self.connect(Side::Dms, &dealer.at_dms, dealer).await?;
        let pairing = Arc::new(Pairing {
            account: dealer.account.clone(),
            store: self.store.clone(),
            keys: self.deps.keys.clone(),
            clock: self.deps.clock.clone(),
            dms: Arc::new(dms),
            web1on1: Arc::new(web1on1),
            rules: dealer.rules.clone(),
        });
        self.pairings.lock().insert(account.id.clone(), pairing.clone());
        Ok(pairing)
    }

    async fn connect(&self, side: Side, auth: &BTreeMap<String, String>, dealer: &Dealer) -> CrmResult<Client> {
        let integration = self.side(side);
        let auth = integration.auth(auth);
        let learned = integration
            .check(&auth, Class::Bulk)
            .await
            .map_err(|error| CrmError::new(error.kind, format!("{}: {}", side.name(), error.message)))?;
        let checked = Checked {
            account_budget: learned.budgets.account.clone(),
            user_budget: learned.budgets.user.clone(),
            learned: learned.values.clone(),
        };
        records::note_checked(&*self.store, &dealer.account, side, &checked)
            .await
            .map_err(|error| CrmError::because(ErrorKind::StoreDown, "what the check told cannot be kept", error))?;
        let fields = with_learned(auth, &learned.values);
        let who = dealer.account.as_str();
        integration.client_in(dealer.region.clone(), fields, learned.budgets, Class::Bulk, who)
    }

    fn side(&self, side: Side) -> &Integration {
        match side {
            Side::Dms => &self.dms,
            Side::Web1on1 => &self.web1on1,
        }
    }

    /// What is left of the limits of both systems for one dealer, by their connectors.
    pub async fn budgets_left(&self, account: &AccountId) -> Result<Vec<(String, Vec<Left>)>, StoreError> {
        let mut sides = Vec::new();
        for side in [Side::Dms, Side::Web1on1] {
            let checked = records::checked(&*self.store, account, side).await?;
            let integration = self.side(side);
            sides.push((
                integration.connector.id().to_owned(),
                integration.left_as_checked(checked).await,
            ));
        }
        Ok(sides)
    }

    /// Another connection is made with the next payload.
    pub(super) fn forget(&self, account: &AccountId) {
        self.pairings.lock().remove(account);
    }
}

impl Dealer {
    /// Stands for how its links are written: another one means that they are to be written anew.
    pub fn looks(&self) -> String {
        let Rules { to_dms, to_web1on1, .. } = &self.rules;
        let digest = Sha256::digest(format!("{to_dms:?}{to_web1on1:?}").as_bytes());
        data_encoding::HEXLOWER.encode(&digest)
    }
}

fn template(key: &str, text: &str, name: &'static str, problems: &mut Problems) -> Option<UrlTemplate> {
    UrlTemplate::parse(text, name)
        .map_err(|error: BadTemplate| problems.push(format!("{key}: {text:?} {error}")))
        .ok()
}

fn check_credentials(key: &str, side: &Integration, given: &BTreeMap<String, String>, problems: &mut Problems) {
    check_names(key, &side.connector, given, problems);
    if let Some(missing) = side.connector.missing_field(given) {
        problems.push(format!("{key}.{missing} is missing; the connector needs it"));
    }
}
