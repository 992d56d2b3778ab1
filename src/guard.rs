//! The bridge's own secrets of an integration. Talkdesk's contract has no proof of who calls, but two places that a secret
//! fits into: the URLs, and one more authentication field, which Talkdesk passes on as it is.

use std::collections::BTreeMap;

use process::Secrets;
use process::settings;

/// What a Talkdesk call must show; nothing where nothing is set.
pub struct Guard {
    path: Secrets,
    key: Secrets,
    field: String,
}

impl Guard {
    pub fn of(settings: &settings::Integration) -> Guard {
        Guard {
            path: settings.path_secret.clone(),
            key: settings.bridge_key.clone(),
            field: settings.bridge_key_field.clone(),
        }
    }

    /// Whether the URLs have a secret segment.
    pub fn has_path_secret(&self) -> bool {
        !self.path.is_empty()
    }

    /// Whether a URL with (or without) this secret segment may be used.
    pub fn admits(&self, secret: Option<&str>) -> bool {
        match secret {
            None => self.path.is_empty(),
            Some(given) => self.path.admit(given),
        }
    }

    /// The field of `auth` that must hold the bridge key; `None` where none is set.
    pub fn field(&self) -> Option<&str> {
        (!self.key.is_empty()).then_some(self.field.as_str())
    }

    /// Whether `auth` holds a bridge key, if one is set.
    pub fn admits_auth(&self, auth: &BTreeMap<String, String>) -> bool {
        let given = |field| auth.get(field).is_some_and(|given| self.key.admit(given));
        self.field().is_none_or(given)
    }
}
