//! The end of accounts: those that Talkdesk no longer calls for are suspended, and later dropped ([`contacts::life`]). A walk over all
//! accounts, some in each sweep, which also seals anew what an old key sealed ([`contacts::rotation`]). What it does is the same done
//! twice, so processes need no leader.

use contacts::accounts::{self, Account};
use contacts::inbox;
use contacts::life::{self, Step};
use contacts::ports::DocKind;
use contacts::rotation::{self, Resealed};
use contacts::{AccountId, Shard, StoreError, Stream, audit, work};

use crate::deps::Deps;
use crate::requests::RequestError;

/// Who did it, in the audit.
const NAME: &str = "the sweep";

/// How far the walk has come.
pub struct Walk {
    shards: Vec<Shard>,
    after: Option<String>,
    resealed: Resealed,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            shards: Shard::all().collect(),
            after: None,
            resealed: Resealed::default(),
        }
    }
}

impl Walk {
    /// Looks at the next accounts; begins anew when it has met all.
    pub async fn go_on(&mut self, deps: &Deps) -> Result<(), RequestError> {
        let mut left = deps.policy.walk;
        let to = reseals_to(deps).await?;
        while left > 0 {
            let Some(shard) = self.shards.last().copied() else {
                let mut resealed = std::mem::take(self).resealed;
                let Some(key) = to else { return Ok(()) };
                resealed.add(rotation::reseal_payloads(&*deps.store, &deps.keys, &key).await?);
                if resealed.count() > 0 {
                    tracing::info!(key, %resealed, "what was sealed with old keys is sealed with the new one");
                    note(deps, &key, "reseal", &resealed.to_string()).await?;
                }
                return Ok(());
            };
            let page = deps
                .store
                .list(DocKind::Account, shard, self.after.as_deref(), left)
                .await?;
            for id in page.iter().filter_map(|id| id.parse().ok()) {
                if let Err(error) = tend(deps, &id).await {
                    // The others have their turn, and it has its next.
                    tracing::warn!(account = %id, %error, "an account could not be suspended or dropped");
                }
                if let Some(key) = &to {
                    match rotation::reseal_account(&*deps.store, &deps.keys, key, &id).await {
                        Ok(resealed) => self.resealed.add(resealed),
                        Err(error) => tracing::warn!(account = %id, %error, "an account could not be sealed anew"),
                    }
                }
            }
            if page.len() < left {
                self.shards.pop();
                self.after = None;
            } else {
                self.after = page.last().cloned();
            }
            left -= page.len();
        }
        Ok(())
    }
}

/// The key to seal anew with: there are old ones, and all processes seal with the same. Else two would do it in turns.
async fn reseals_to(deps: &Deps) -> Result<Option<String>, StoreError> {
    let kids = deps.keys.kids();
    if kids.len() < 2 {
        return Ok(None);
    }
    let keyring = rotation::keyring(&*deps.store).await?;
    let sealing = keyring.sealing(deps.clock.now());
    let agreed = sealing.iter().all(|kid| *kid == kids[0]);
    Ok(kids.into_iter().next().filter(|_| agreed))
}

/// Does what is to be done about one account, step by step.
async fn tend(deps: &Deps, id: &AccountId) -> Result<(), RequestError> {
    loop {
        let Some(account) = accounts::get(&*deps.store, id).await? else {
            return Ok(());
        };
        if deps.sources.keeps(&account) {
            return Ok(());
        }
        let work = work::load(&*deps.store, id).await?;
        let now = deps.clock.now();
        match life::judge(&account, &work, &deps.policy.life, now) {
            Step::Rest => return Ok(()),
            Step::Suspend => {
                work::update(&*deps.store, id, &deps.policy.times, |work| work.suspend(now)).await?;
            }
            Step::Wipe => wipe(deps, &account).await?,
            Step::Revive => {
                deps.requests.unsuspend(id).await?;
            }
            Step::Drop => {
                let still = forget(deps, &account).await?;
                let said = format!("Talkdesk has not called since {}", life::last_call(&account));
                note(deps, id.as_str(), "drop", &with_rest(said, still)).await?;
                return Ok(());
            }
        }
    }
}

/// Ends what the CRM holds for a suspended account, then takes its credentials away; unless Talkdesk has called meanwhile.
async fn wipe(deps: &Deps, account: &Account) -> Result<(), RequestError> {
    let still = crate::subscriptions::end(deps, account).await?;
    let now = deps.clock.now();
    let ages = deps.policy.life;
    let idle = |known: &Account| now.since(life::last_call(known)) >= ages.suspend;
    if accounts::wipe(&*deps.store, account, idle).await? {
        deps.sources.forget(&account.id);
        tracing::info!(account = %account.id, integration = account.integration, "suspended: Talkdesk no longer calls for it");
        let said = format!("Talkdesk has not called since {}", life::last_call(account));
        note(deps, account.id.as_str(), "suspend", &with_rest(said, still)).await?;
    }
    Ok(())
}

fn with_rest(said: String, still: Option<String>) -> String {
    match still {
        Some(why) => format!("{said}; the CRM still delivers webhooks, to be removed there by hand: {why}"),
        None => said,
    }
}

async fn note(deps: &Deps, target: &str, action: &str, detail: &str) -> Result<(), StoreError> {
    let entry = audit::Entry {
        at: deps.clock.now(),
        by: NAME.to_owned(),
        role: "worker".to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        detail: detail.chars().take(300).collect(),
    };
    audit::note(&*deps.store, &entry, deps.policy.audit).await
}

/// Everything that is kept of an account goes, but for the hashes of erased contacts. The caller sees to it that no slice runs.
/// Returns why the CRM still delivers webhooks, if it does.
pub async fn forget(deps: &Deps, account: &Account) -> Result<Option<String>, StoreError> {
    let id = &account.id;
    let still = crate::subscriptions::end(deps, account).await?;
    accounts::forget(&*deps.store, id).await?;
    deps.sources.forget(id);
    for stream in [Stream::Contacts, Stream::Agents] {
        deps.store.drop_snapshot(id, stream).await?;
    }
    let dirty = deps.store.dirty(id, usize::MAX).await?;
    deps.store.clear(id, &dirty).await?;
    inbox::forget(&*deps.store, id).await?;
    contacts::linking::records::forget(&*deps.store, id).await?;
    work::forget(&*deps.store, id, &deps.policy.times).await?;
    Ok(still)
}
