//! What Talkdesk has to be told before it calls a bridge: the configuration of an integration and of its actions
//! (Talkdesk, configuring an integration), and every rule that these documents have to keep.

mod check;
mod template;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use check::{DISPLAY_LONGEST, Problem, Wants};

/// Both configurations, as they are handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub integration: Integration,
    pub actions: Vec<Action>,
}

/// The integration itself. An endpoint that is null turns its feature off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integration {
    /// The system name, unique in Talkdesk.
    pub name: String,
    pub display_name: String,
    pub description: String,
    pub logo_url: String,
    /// Shown beside interactions.
    pub icon_url: String,
    pub authentication_type: AuthType,
    #[serde(default)]
    pub authentication_configuration: Vec<AuthField>,
    pub auth_validation_endpoint: Option<String>,
    pub contact_synchronization_endpoint: Option<String>,
    pub interaction_retrieval_endpoint: Option<String>,
    /// Mandatory where CTI is wanted.
    pub agent_synchronization_endpoint: Option<String>,
    #[serde(default)]
    pub interaction_types: Vec<String>,
}

/// How Talkdesk asks a customer for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    None,
    Custom,
    /// The authorization code grant.
    #[serde(rename = "oauth2")]
    OAuth2,
    #[serde(rename = "oauth2_password")]
    OAuth2Password,
    #[serde(rename = "oauth2_client_credentials")]
    OAuth2ClientCredentials,
}

/// One field that a customer fills in, or that the OAuth authority supplies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthField {
    /// Its name in `auth` of every call.
    pub field_name: String,
    pub display: String,
    pub mandatory: bool,
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether Talkdesk keeps it.
    pub store: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// `https://{{account}}.crm.example`: how the field is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// The documentation lists Text, Password and OAuth, while its own text and sample say `input` and `oauth`; these two are
/// what is written ([`EDITIONS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    Input,
    OAuth,
}

/// One action that automations and agents can have executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The integration's name.
    pub provider: String,
    pub name: String,
    /// Lower case and short: it stands in a sentence and in a combo box.
    pub display: String,
    /// Begins in lower case: it stands in a sentence.
    pub description: String,
    pub endpoint: String,
    pub inputs: Vec<Input>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name in `data` of the call.
    pub key: String,
    /// Its name for people.
    pub name: String,
    pub mandatory: bool,
    #[serde(rename = "type")]
    pub kind: InputType,
    /// The values of a select, separated by commas; of all others the default, in which `{{contact.email}}` stands for
    /// the contact's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    Text,
    Textarea,
    /// A whole number.
    Number,
    Tel,
    Url,
    /// `YYYY-MM-DD`, `YYYY-MM-DDTHH:mm:ss` or `YYYY-MM-DDTHH:mm:ssZ`.
    Datetime,
    Select,
}

/// What `{{contact.…}}` can stand for in the default of an input (Talkdesk, value providers).
pub const CONTACT_COLLECTION: [&str; 16] = [
    "first_name",
    "last_name",
    "email",
    "phone",
    "address",
    "title",
    "company",
    "twitter",
    "linkedin",
    "facebook",
    "skype",
    "googleplus",
    "website",
    "industry",
    "location",
    "updated_at",
];

/// Where editions of the contract differ, and what is written here; one sentence each.
pub const EDITIONS: [&str; 3] = [
    "The list of field types names Text, Password and OAuth, while the text and the sample say input and oauth: input and \
     oauth are written, and the help text of a field says that it is a secret.",
    "Older editions wrap each authentication field in an object under its name and add a source; the flat form with \
     field_name is written.",
    "Types of action inputs are written in lower case, as older editions have them.",
];

impl AuthType {
    pub fn as_str(self) -> &'static str {
        match self {
            AuthType::None => "none",
            AuthType::Custom => "custom",
            AuthType::OAuth2 => "oauth2",
            AuthType::OAuth2Password => "oauth2_password",
            AuthType::OAuth2ClientCredentials => "oauth2_client_credentials",
        }
    }

    /// The fields that Talkdesk needs to get tokens by itself (Talkdesk, mandatory authentication_configuration fields).
    pub fn mandatory_fields(self) -> &'static [&'static str] {
        match self {
            AuthType::None | AuthType::Custom => &[],
            AuthType::OAuth2 => &[
                "site",
                "client_id",
                "client_secret",
                "authorization_url",
                "access_token_url",
            ],
            AuthType::OAuth2Password => &[
                "site",
                "client_id",
                "client_secret",
                "username",
                "password",
                "access_token_url",
            ],
            AuthType::OAuth2ClientCredentials => &["site", "client_id", "client_secret", "access_token_url"],
        }
    }

    fn is_oauth(self) -> bool {
        !matches!(self, AuthType::None | AuthType::Custom)
    }
}

impl FieldType {
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::Input => "input",
            FieldType::OAuth => "oauth",
        }
    }
}

impl InputType {
    pub fn as_str(self) -> &'static str {
        match self {
            InputType::Text => "text",
            InputType::Textarea => "textarea",
            InputType::Number => "number",
            InputType::Tel => "tel",
            InputType::Url => "url",
            InputType::Datetime => "datetime",
            InputType::Select => "select",
        }
    }

    /// The type of a word of [`InputType::as_str`].
    pub fn of(word: &str) -> Option<InputType> {
        let all = [
            InputType::Text,
            InputType::Textarea,
            InputType::Number,
            InputType::Tel,
            InputType::Url,
            InputType::Datetime,
            InputType::Select,
        ];
        all.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl Input {
    /// The values of a select.
    pub fn options(&self) -> Vec<&str> {
        self.format
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .collect()
    }
}
