//! Whose budgets calls count against.

use std::collections::BTreeMap;

use contacts::ErrorKind;
use contacts::accounts::Account;
use contacts::ledger::{Left, Limit, Scopes};
use contacts::linking::records::Checked;
use crm::{CrmError, CrmResult};
use serde_json::Value as Json;

use super::{Integration, with_learned};

impl Integration {
    /// The budgets of the calls of one user of an account at the CRM, as far as they are known. The check of a CRM that
    /// tokens alone lead to tells it only with its answer.
    pub(super) fn budgets(&self, account: Option<&str>, user: Option<&str>) -> Scopes {
        let (keys, connector) = (&self.deps.keys, self.connector.id());
        let of_account = account.map(|account| keys.budget_scope(connector, account));
        let of_user = account.zip(user);
        let of_user = of_user.map(|(account, user)| keys.user_budget_scope(connector, account, user));
        Scopes {
            ip: self.ip_budget.clone(),
            app: Some(keys.app_budget_scope(connector, &self.name)),
            // Where nobody says who the user is, all share one.
            user: of_user.or_else(|| of_account.clone()),
            account: of_account,
        }
    }

    pub(super) fn budgets_of(&self, account: &Account) -> Scopes {
        Scopes {
            ip: self.ip_budget.clone(),
            app: Some(self.deps.keys.app_budget_scope(self.connector.id(), &self.name)),
            account: Some(account.budget.clone()),
            user: Some(account.user_budget.clone().unwrap_or_else(|| account.budget.clone())),
        }
    }

    /// Counts calls against the budgets that only their answers have told of.
    pub(super) async fn charge_later(
        &self,
        spent: &BTreeMap<String, u32>,
        (before, after): (&Scopes, &Scopes),
        (auth, learned): (&BTreeMap<String, String>, &BTreeMap<String, Json>),
    ) -> CrmResult<()> {
        let now = self.deps.clock.now();
        for limit in self.limits(auth.clone(), learned) {
            let (Some(units), Some(key)) = (spent.get(&limit.name), after.key(limit.scope)) else {
                continue;
            };
            if before.key(limit.scope) == Some(key) {
                continue;
            }
            let counted = self.deps.ledger.cost_more(key, &limit, *units, now).await;
            counted.map_err(|error| CrmError::because(ErrorKind::StoreDown, "a call could not be counted", error))?;
        }
        Ok(())
    }

    /// Limits and what is left of them for one account.
    pub async fn budget_left(&self, account: &Account) -> Vec<Left> {
        self.left_of(&self.budgets_of(account), &account.learned).await
    }

    /// The same for one side of a dealer.
    pub(super) async fn left_as_checked(&self, checked: Checked) -> Vec<Left> {
        let budgets = Scopes {
            user: checked.user_budget.or_else(|| checked.account_budget.clone()),
            account: checked.account_budget,
            ..self.budgets(None, None)
        };
        self.left_of(&budgets, &checked.learned).await
    }

    async fn left_of(&self, budgets: &Scopes, learned: &BTreeMap<String, Json>) -> Vec<Left> {
        let limits = self.limits(BTreeMap::new(), learned);
        let now = self.deps.clock.now();
        let left = self.deps.ledger.left(budgets, &limits, now).await;
        left.unwrap_or_default()
    }

    /// Limits may depend on the plan and the time zone of an account.
    fn limits(&self, auth: BTreeMap<String, String>, learned: &BTreeMap<String, Json>) -> Vec<Limit> {
        let mut fields = with_learned(self.with_fixed(auth), learned);
        for (name, field) in self.connector.fields() {
            if let (Some(default), false) = (&field.default, fields.contains_key(name)) {
                fields.insert(name.clone(), default.clone());
            }
        }
        let limits = self.connector.limits(&fields, self.deps.clock.now());
        limits.unwrap_or_else(|error| {
            tracing::warn!(integration = %self.name, error = process::chain(&error), "the limits of an account are not known");
            Vec::new()
        })
    }
}
