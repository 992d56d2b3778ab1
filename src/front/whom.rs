//! Which contact of the CRM a request means. Read from the snapshot: by id, by the id it had before a merge, by phone or
//! e-mail address.

use contacts::Stream;
use contacts::accounts::Account;
use contacts::ports::StoreResult;
use futures::future;

use super::Front;
use crate::integrations::Integration;

/// What the snapshot knows of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// It is this contact now: itself, or the one that it was merged into.
    Living(String),
    /// It was deleted.
    Gone,
    /// Not seen yet: just made, or the snapshot is being built.
    Unknown(String),
}

/// No contact has a longer id: the mapping drops those.
const LONGEST_ID: usize = 255;
/// Phones and e-mail addresses of one request that are looked up.
const MOST_KEYS: usize = 20;

impl Front {
    pub(super) async fn whom(&self, account: &Account, id: &str) -> StoreResult<Whom> {
        // Dots alone would be a step in the CRM's paths.
        if id.chars().count() > LONGEST_ID || id.chars().any(char::is_control) || id.trim_matches('.').is_empty() {
            return Ok(Whom::Gone);
        }
        let ids = [id.to_owned()];
        let (id_of, stream) = (&account.id, Stream::Contacts);
        let known = self.store.known(id_of, stream, &ids).await?.pop().flatten();
        if known.as_ref().is_some_and(|known| !known.is_tombstone()) {
            return Ok(Whom::Living(id.to_owned()));
        }
        let alias = self.keys.lookup_key(id_of, &format!("alias:{id}"));
        if let Some(survivor) = self.store.find(id_of, stream, alias).await?.into_iter().next() {
            return Ok(Whom::Living(survivor));
        }
        Ok(match known {
            Some(_) => Whom::Gone,
            None => Whom::Unknown(id.to_owned()),
        })
    }

    /// The contacts that have one of these phones or e-mail addresses, whatever the notation; phones first.
    pub(super) async fn look_up(
        &self,
        integration: &Integration,
        account: &Account,
        phones: &[String],
        emails: &[String],
    ) -> StoreResult<Vec<String>> {
        let region = integration
            .region
            .as_deref()
            .and_then(|code| crm::Region::from_code(code).ok());
        let phones = phones
            .iter()
            .take(MOST_KEYS)
            .filter_map(|phone| crm::e164(phone, region));
        let emails = emails.iter().take(MOST_KEYS).map(|email| email.trim().to_lowercase());
        let keys = phones
            .map(|phone| format!("phone:{phone}"))
            .chain(emails.map(|email| format!("email:{email}")))
            .map(|key| self.keys.lookup_key(&account.id, &key));
        let finds = keys.map(|key| self.store.find(&account.id, Stream::Contacts, key));
        let mut ids: Vec<String> = Vec::new();
        for id in future::try_join_all(finds).await?.into_iter().flatten() {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}
