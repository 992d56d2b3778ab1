//! A change of one record may end what stood against linking another one, of which nobody tells once more: it is looked at again.

use contacts::Micros;
use contacts::inbox::Urgency;
use contacts::linking::records::{Side, Trouble};
use contacts::linking::{Look, Payload, Update};
use crm::CrmResult;

use super::{Answer, Pairing, Step, put, store_down};

impl Pairing {
    /// What stood against linking a record may be gone. One that has no trouble stays as it is: it is linked, or
    /// somebody took its links away.
    pub(super) async fn look(&self, again: Look) -> CrmResult<Step> {
        let Look { side, id } = again;
        let known = self.known(side, &id).await?;
        if known.trouble.is_none() {
            return Ok(Step::Known);
        }
        if side == Side::Dms {
            let update = Update {
                id,
                organization: self.rules.organization.clone(),
                email: None,
                phone: None,
                deleted: false,
            };
            return self.update(&update, Micros::ZERO, false).await;
        }
        match self.read(Side::Web1on1, &id).await? {
            Some(web1on1) => self.meet(&web1on1, &known, false).await.map(Step::Done),
            None => {
                self.contact_is_gone(&id, &known).await?;
                Ok(Step::Done(Answer::Removed))
            }
        }
    }

    /// Those that wait for a record are looked at again, each by itself. Called before what is known of it changes, so that who
    /// dies in between does both again.
    pub(super) async fn wake(&self, side: Side, id: &str) -> CrmResult<()> {
        let known = self.known(side, id).await?;
        for (side, id) in &known.waited_for_by {
            self.look_later(*side, id).await?;
        }
        if known.waited_for_by.is_empty() {
            return Ok(());
        }
        self.change(side, id, |known| known.waited_for_by.clear()).await
    }

    /// Whom a record was linked with may mean, or be meant by, somebody else now.
    pub(super) async fn set_free(&self, side: Side, id: &str) -> CrmResult<()> {
        self.look_later(side, id).await?;
        self.note(side, id, Trouble::Unmatched).await
    }

    /// However full the inbox is, as nobody would tell of it once more; and as news, which have brought it about.
    async fn look_later(&self, side: Side, id: &str) -> CrmResult<()> {
        let payload = Payload::Look(Look {
            side,
            id: id.to_owned(),
        });
        let now = self.clock.now();
        let put = put(
            &*self.store,
            &self.keys,
            &self.account,
            (&payload, Urgency::News),
            usize::MAX,
            now,
        )
        .await;
        put.map(drop).map_err(store_down)
    }
}
