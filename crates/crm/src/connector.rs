//! A loaded connector.

use std::collections::BTreeMap;
use std::time::Duration;

use contacts::ledger::{Charge, EVERYTHING, Limit, LimitKind as Kind, LimitScope};
use contacts::{ErrorKind, Micros};
use minijinja::Value;

use crate::client::prepare::base_url;
use crate::error::{CrmError, CrmResult};
use crate::expr::{scope, value_of};
use crate::identity::{self, Canonical};
use crate::load::{Problem, Reader};
use crate::reply::Hold;
use crate::sample;
use crate::spec::{
    self, Action, Adjustments, AuthSpec, Deletion, Field, FieldSource, Grant, LimitKind, LimitSpec, Maximum, Reset,
    Spec, mentions,
};
use crate::webhook::Hooks;

/// A connector file with everything compiled and checked.
#[derive(Debug)]
pub struct Connector {
    spec: Spec,
    minting: Option<Grant>,
}

/// How a CRM tells that a contact is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deletions {
    /// Rows of listings say so.
    pub flag: bool,
    /// There is a list of deletions.
    pub list: bool,
    /// There is a list of all ids to compare with.
    pub ids: bool,
    /// How often to compare, if the connector says.
    pub every: Option<Duration>,
}

/// How a CRM tells of changes by a token that it gives out itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// How long it knows a token.
    pub lifetime: Option<Duration>,
    /// Without a token, a pass can begin with a time.
    pub begins_with_time: bool,
}

impl Connector {
    /// Loads a connector file. All problems come at once, in the order of the file.
    pub fn load(source: &str, file_name: &str) -> Result<Connector, Vec<Problem>> {
        let reader = Reader::new(file_name, source);
        let spec = spec::parse(&reader).filter(|spec| {
            sample::check(&reader, spec);
            !reader.has_problems()
        });
        match spec {
            Some(spec) => {
                let minting = match &spec.auth {
                    AuthSpec::Oauth2(oauth) => oauth.grants.iter().copied().find(|grant| grant.mints()),
                    _ => None,
                };
                Ok(Connector { spec, minting })
            }
            None => Err(reader.into_problems()),
        }
    }

    /// Changes what an integration wants otherwise.
    ///
    /// # Errors
    /// One sentence per problem; then the connector stays as it was.
    pub fn adjust(&mut self, adjustments: &Adjustments) -> Result<(), Vec<String>> {
        spec::adjust(&mut self.spec, adjustments, &sample::evaluates)
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn id(&self) -> &str {
        &self.spec.id
    }

    pub fn title(&self) -> &str {
        &self.spec.title
    }

    /// What accounts and integrations have to supply, by name.
    pub fn fields(&self) -> &BTreeMap<String, Field> {
        &self.spec.connection.fields
    }

    /// The grants that the CRM offers; `None`: the connector has nothing to do with OAuth 2.
    pub fn grants(&self) -> Option<&[Grant]> {
        match &self.spec.auth {
            AuthSpec::Oauth2(oauth) => Some(&oauth.grants),
            _ => None,
        }
    }

    /// The grant by which tokens are minted for accounts that bring none. At first the first of the file that mints.
    pub fn minting(&self) -> Option<Grant> {
        self.minting
    }

    /// Which grant an integration uses; `None`: tokens are never minted.
    pub fn set_minting(&mut self, grant: Option<Grant>) {
        self.minting = grant;
    }

    /// The access token that these fields bring, if they bring one.
    pub fn brought_token<'a>(&self, fields: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let AuthSpec::Oauth2(oauth) = &self.spec.auth else {
            return None;
        };
        let tokens = oauth.token_fields.iter().filter_map(|field| fields.get(field));
        tokens.map(String::as_str).find(|token| !token.is_empty())
    }

    /// How long tokens live where no reply says so.
    pub fn token_lifetime(&self) -> Option<Duration> {
        match &self.spec.auth {
            AuthSpec::Oauth2(oauth) => oauth.lifetime,
            _ => None,
        }
    }

    /// The first field that `auth` must have and has not. An access token makes the fields needless that one is minted
    /// with, and they it.
    pub fn missing_field<'a>(&'a self, auth: &BTreeMap<String, String>) -> Option<&'a str> {
        let wanted = |(name, field): &(&'a String, &Field)| {
            field.source == FieldSource::Auth && field.default.is_none() && !auth.contains_key(name.as_str())
        };
        let mut missing = self.fields().iter().filter(wanted).map(|(name, _)| name.as_str());
        let AuthSpec::Oauth2(oauth) = &self.spec.auth else {
            return missing.next();
        };
        let brought = self.brought_token(auth).is_some();
        let mint_fields = self.minting.map_or(&[][..], Grant::fields);
        // What Talkdesk's configuration has for the dance and for minting, whether this integration needs it or not.
        const OAUTH: [&str; 7] = [
            "client_id",
            "client_secret",
            "username",
            "password",
            "private_key",
            "access_token_url",
            "authorization_url",
        ];
        let is_needed = |name: &&str| {
            if oauth.token_fields.iter().any(|field| field == name) {
                return !brought && self.minting.is_none();
            }
            if *name == "access_token_url" {
                return !brought && self.minting.is_some() && oauth.uses("access_token_url");
            }
            !OAUTH.contains(name) || (!brought && mint_fields.contains(name))
        };
        missing.find(is_needed)
    }

    /// What `[check]` learns beside who it is.
    pub fn learned_names(&self) -> impl Iterator<Item = &str> {
        self.spec.check.learn.keys().map(String::as_str)
    }

    /// Whether the check tells where the CRM is. Then `auth` says where one logs in, a place that accounts may share.
    pub fn learns_its_address(&self) -> bool {
        let base = || std::iter::once(&self.spec.connection.base_url);
        self.learned_names().any(|name| mentions(base(), name))
    }

    /// Whether calls of all accounts to one host count together.
    pub fn counts_by_address(&self) -> bool {
        self.spec.limits.iter().any(|limit| limit.scope == LimitScope::Ip)
    }

    /// The origin of the CRM, where all accounts of an integration have the same; `fixed` are the fields of its settings.
    pub fn shared_origin(&self, fixed: &BTreeMap<String, String>) -> Option<String> {
        let connection = &self.spec.connection;
        if connection.base_differs_by(self.spec.check.learn.keys()).is_some() {
            return None;
        }
        let settled = connection.fields.iter().filter_map(|(name, field)| {
            let value = fixed.get(name).or(field.default.as_ref())?;
            Some((name.clone(), field.normal(value)?))
        });
        let base = base_url(&self.spec, &settled.collect()).ok()?;
        Some(base.origin().ascii_serialization())
    }

    /// The canonical form of an `auth`.
    pub fn canonical(&self, auth: &BTreeMap<String, String>) -> Canonical {
        identity::canonical(&self.spec, auth)
    }

    /// How a CRM tells that a contact is gone.
    pub fn deletions(&self) -> Deletions {
        let mut deletions = Deletions::default();
        for deletion in &self.spec.contacts.deleted {
            match deletion {
                Deletion::Flag { .. } => deletions.flag = true,
                Deletion::List(_) => deletions.list = true,
                Deletion::Reconcile(list) => (deletions.ids, deletions.every) = (true, list.every),
                Deletion::Delta { .. } => deletions.flag = true,
                Deletion::Event => {}
            }
        }
        deletions
    }

    fn since(&self) -> Option<&spec::Since> {
        self.spec.contacts.changes.as_ref()?.since.as_ref()
    }

    pub fn has_changes(&self) -> bool {
        self.spec.contacts.changes.is_some()
    }

    /// How far before the CRM's clock a poll window ends. Zero without change passes.
    pub fn lag(&self) -> Duration {
        self.since().map_or(Duration::ZERO, |since| since.lag)
    }

    /// How far a poll window reaches back into the one before.
    pub fn overlap(&self) -> Duration {
        self.since().map_or(Duration::ZERO, |since| since.overlap)
    }

    /// What the CRM rounds its times to.
    pub fn precision(&self) -> Duration {
        self.since().map_or(Duration::from_secs(1), |since| since.precision)
    }

    /// Whether rows of change passes come from an index that may lag behind deletions.
    pub fn changes_are_indexed(&self) -> bool {
        self.spec
            .contacts
            .changes
            .as_ref()
            .is_some_and(|changes| changes.indexed)
    }

    /// Whether rows of full passes do.
    pub fn full_is_indexed(&self) -> bool {
        self.spec.contacts.full.indexed
    }

    /// Whether the modified time covers everything that is mapped, so that an unchanged time means unchanged content.
    pub fn updated_covers_all(&self) -> bool {
        self.spec.contacts.map.updated_covers_all
    }

    /// The change pass goes by a token of the CRM instead of a time.
    pub fn delta(&self) -> Option<Delta> {
        let contacts = &self.spec.contacts;
        let delta = contacts.changes.as_ref()?.cursor.delta()?;
        Some(Delta {
            lifetime: delta.lifetime,
            begins_with_time: self.since().is_some(),
        })
    }

    pub fn has_get_many(&self) -> bool {
        self.spec.contacts.get_many.is_some()
    }

    /// Ids that one fetch takes.
    pub fn get_many_max(&self) -> usize {
        self.spec
            .contacts
            .get_many
            .as_ref()
            .map_or(0, |get_many| usize::try_from(get_many.max).unwrap_or(usize::MAX))
    }

    pub fn has_agents(&self) -> bool {
        self.spec.agents.is_some()
    }

    /// Whether its records can show where the same person is in another system.
    pub fn can_link(&self) -> bool {
        self.spec.link.is_some()
    }

    /// The fields of `auth` that may carry an access token which Talkdesk brings.
    pub fn token_fields(&self) -> &[String] {
        match &self.spec.auth {
            AuthSpec::Oauth2(oauth) => &oauth.token_fields,
            _ => &[],
        }
    }

    /// The types of interactions that can be asked for, in the connector's spelling.
    pub fn interaction_types(&self) -> impl Iterator<Item = &str> {
        self.spec
            .interactions
            .iter()
            .map(|interaction| interaction.kind.as_str())
    }

    /// The names of the actions.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.spec.actions.iter().map(|action| action.name.as_str())
    }

    /// An action, by its name in the URL.
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.spec.actions.iter().find(|action| action.name == name)
    }

    /// Whether a user can slip from one page of the list to another while it is read: pages are counted, or named by URLs
    /// of which nobody knows what they count. Then one list is no proof that a user is gone.
    pub fn agents_may_slip(&self) -> bool {
        use spec::PagingKind::{LinkHeader, NextUrl, Offset, Page};
        self.spec.agents.as_ref().is_some_and(|agents| {
            matches!(
                agents.page.kind,
                Page { .. } | Offset { .. } | NextUrl { .. } | LinkHeader
            )
        })
    }

    pub fn webhook(&self) -> Option<Hooks<'_>> {
        self.spec.webhook.as_ref().map(|spec| Hooks { spec })
    }

    /// The limits as the ledger takes them. `fields` are those of an account, for limits that depend on its plan or its time
    /// zone.
    pub fn limits(&self, fields: &BTreeMap<String, String>, now: Micros) -> CrmResult<Vec<Limit>> {
        let conn = value_of(fields);
        self.spec
            .limits
            .iter()
            .map(|limit| limit_of(limit, &conn, now))
            .collect()
    }

    /// What a call of `operation` is charged to.
    pub(crate) fn charges(&self, operation: &str, conn: &Value, now: Micros) -> CrmResult<Vec<Charge>> {
        let counted = self.spec.limits.iter().filter(|limit| limit.cost_of(operation) > 0);
        counted
            .map(|limit| {
                Ok(Charge {
                    limit: limit_of(limit, conn, now)?,
                    cost: limit.cost_of(operation),
                })
            })
            .collect()
    }

    /// What a throttled reply stops: everything, or the quotas that the operation is charged to.
    pub(crate) fn hold_for(&self, kind: ErrorKind, operation: &str) -> Vec<Hold> {
        match kind {
            ErrorKind::Throttled { until } => vec![Hold {
                limit: EVERYTHING.to_owned(),
                scope: LimitScope::Account,
                until,
                quota: false,
            }],
            ErrorKind::Quota { until } => {
                let is_quota = |limit: &&LimitSpec| matches!(limit.kind, LimitKind::Quota { .. });
                let quotas = self
                    .spec
                    .limits
                    .iter()
                    .filter(is_quota)
                    .filter(|limit| limit.cost_of(operation) > 0);
                let mut holds: Vec<Hold> = quotas
                    .map(|limit| Hold {
                        limit: limit.name.clone(),
                        scope: limit.scope,
                        until,
                        quota: true,
                    })
                    .collect();
                if holds.is_empty() {
                    holds.push(Hold {
                        limit: EVERYTHING.to_owned(),
                        scope: LimitScope::Account,
                        until,
                        quota: true,
                    });
                }
                holds
            }
            _ => Vec::new(),
        }
    }
}

fn limit_of(limit: &LimitSpec, conn: &Value, now: Micros) -> CrmResult<Limit> {
    let names = scope([("conn", conn.clone())]);
    let max = match &limit.max {
        Maximum::Fixed(max) => *max,
        Maximum::Computed(template) => {
            let text = template.render(&names).map_err(CrmError::request)?;
            text.trim().parse().map_err(|error| {
                CrmError::because(
                    ErrorKind::Rejected,
                    format!("the limit `{}` is no number", limit.name),
                    error,
                )
            })?
        }
    };
    let max = ((max as f64 * limit.share) as u64).max(1);
    let small = u32::try_from(max).unwrap_or(u32::MAX);
    let kind = match limit.kind {
        LimitKind::Window { length } => Kind::Window { length, max: small },
        LimitKind::Concurrency => Kind::Concurrency { max: small },
        LimitKind::Quota {
            period,
            reset: Reset::Rolling,
        } => Kind::Rolling { period, max },
        LimitKind::Quota { period, .. } => Kind::Quota {
            period,
            offset: limit.offset(&names, now)?,
            max,
        },
    };
    Ok(Limit {
        name: limit.name.clone(),
        kind,
        scope: limit.scope,
    })
}
