//! Which vendor a CRM plays.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vendors::{self, Vendor};

/// Which API an account of the CRM has, limits, webhooks and traps included. The contacts are the same in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The fake's own API, below `/api/{account}`.
    #[default]
    House,
    /// HubSpot CRM.
    #[value(name = "hubspot")]
    HubSpot,
    /// Pipedrive.
    Pipedrive,
    /// EspoCRM 9.
    #[value(name = "espocrm")]
    EspoCrm,
    /// Zendesk Support.
    Zendesk,
    /// Zoho CRM.
    Zoho,
    /// Salesforce.
    Salesforce,
    /// Freshdesk.
    Freshdesk,
    /// Intercom.
    Intercom,
    /// Microsoft Dynamics 365 (Dataverse).
    Dataverse,
    /// Odoo, JSON-RPC and JSON-2.
    Odoo,
    /// Twenty.
    Twenty,
    /// Web1on1 (ChipChat).
    Web1on1,
}

impl Profile {
    pub const ALL: &[Profile] = &[
        Profile::House,
        Profile::HubSpot,
        Profile::Pipedrive,
        Profile::EspoCrm,
        Profile::Zendesk,
        Profile::Zoho,
        Profile::Salesforce,
        Profile::Freshdesk,
        Profile::Intercom,
        Profile::Dataverse,
        Profile::Odoo,
        Profile::Twenty,
        Profile::Web1on1,
    ];

    /// As on the command line: `hubspot`.
    pub fn name(self) -> &'static str {
        match self {
            Profile::House => "house",
            Profile::HubSpot => "hubspot",
            Profile::Pipedrive => "pipedrive",
            Profile::EspoCrm => "espocrm",
            Profile::Zendesk => "zendesk",
            Profile::Zoho => "zoho",
            Profile::Salesforce => "salesforce",
            Profile::Freshdesk => "freshdesk",
            Profile::Intercom => "intercom",
            Profile::Dataverse => "dataverse",
            Profile::Odoo => "odoo",
            Profile::Twenty => "twenty",
            Profile::Web1on1 => "web1on1",
        }
    }

    /// How this vendor writes the id of a contact that the operator's side calls `id`: `1` is `0035e0000000001AAA` to
    /// one and `1` to another.
    ///
    /// # Panics
    /// For what is no number.
    #[track_caller]
    pub fn contact_id(self, id: &str) -> String {
        self.vendor()
            .contact_id(id.parse().expect("a contact's id is a number"))
    }

    /// How this vendor writes the id of a user: `u-1` to the operator.
    ///
    /// # Panics
    /// For what is no user id.
    #[track_caller]
    pub fn user_id(self, id: &str) -> String {
        let ordinal = id.strip_prefix("u-").and_then(|number| number.parse().ok());
        self.vendor()
            .user_id(ordinal.expect("a user's id is `u-` and a number"))
    }

    /// The vendor's id of the conversation with the contact that the operator calls `id`.
    pub fn conversation_id(self, id: &str) -> Option<String> {
        self.vendor().conversation_id(id.parse().ok()?)
    }

    /// The vendor's id of the organisation whose account has this name.
    pub fn organization_id(self, account: &str) -> String {
        self.vendor().organization_id(account)
    }

    pub(crate) fn vendor(self) -> &'static dyn Vendor {
        match self {
            Profile::House => &vendors::house::House,
            Profile::HubSpot => &vendors::hubspot::HubSpot,
            Profile::Pipedrive => &vendors::pipedrive::Pipedrive,
            Profile::EspoCrm => &vendors::espocrm::EspoCrm,
            Profile::Zendesk => &vendors::zendesk::Zendesk,
            Profile::Zoho => &vendors::zoho::Zoho,
            Profile::Salesforce => &vendors::salesforce::Salesforce,
            Profile::Freshdesk => &vendors::freshdesk::Freshdesk,
            Profile::Intercom => &vendors::intercom::Intercom,
            Profile::Dataverse => &vendors::dataverse::Dataverse,
            Profile::Odoo => &vendors::odoo::Odoo,
            Profile::Twenty => &vendors::twenty::Twenty,
            Profile::Web1on1 => &vendors::web1on1::Web1on1,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
