//! Keeps a lease alive while a slice runs, also during a CRM call that takes longer than the lease.

use contacts::work::{self, Renewed};
use contacts::{AccountId, Fence};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::deps::Deps;

pub struct Keeper {
    state: watch::Receiver<Renewed>,
    task: AbortHandle,
}

impl Keeper {
    pub fn start(deps: &Deps, account: &AccountId, fence: Fence) -> Keeper {
        let (sender, state) = watch::channel(Renewed::Kept);
        let (deps, account) = (deps.clone(), account.clone());
        let every = deps.policy.times.lease / 3;
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let now = deps.clock.now();
                let times = &deps.policy.times;
                let renewed = work::update(&*deps.store, &account, times, |work| work.renew(fence, now, times)).await;
                match renewed {
                    Ok(Renewed::Kept) => {}
                    Ok(ended) => {
                        sender.send_replace(ended);
                        if ended == Renewed::Lost {
                            return;
                        }
                    }
                    // The fence protects the snapshot if the lease runs out meanwhile.
                    Err(error) => tracing::warn!(%account, %error, "a lease could not be renewed"),
                }
            }
        });
        Keeper {
            state,
            task: task.abort_handle(),
        }
    }

    pub fn state(&self) -> Renewed {
        *self.state.borrow()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
