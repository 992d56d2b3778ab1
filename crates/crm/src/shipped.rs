//! The connectors that come with the program.

use crate::connector::Connector;

/// (id, file, text, a delivery of its webhook)
type Shipped = (&'static str, &'static str, &'static str, &'static str);

macro_rules! shipped {
    ($($id:literal),+ $(,)?) => {
        const SHIPPED: &[Shipped] = &[$((
            $id,
            concat!("connectors/", $id, "/connector.toml"),
            include_str!(concat!("../../../connectors/", $id, "/connector.toml")),
            include_str!(concat!("../../../connectors/", $id, "/fixtures/webhook.json")),
        )),+];
    };
}

shipped!(
    "dataverse",
    "demo",
    "espocrm",
    "freshdesk",
    "hubspot",
    "intercom",
    "odoo",
    "odoo-json2",
    "pipedrive",
    "salesforce",
    "twenty",
    "web1on1",
    "zendesk",
    "zoho",
);

impl Connector {
    /// The text of a shipped connector.
    pub fn shipped(id: &str) -> Option<&'static str> {
        SHIPPED
            .iter()
            .find(|(known, ..)| *known == id)
            .map(|(_, _, text, _)| *text)
    }

    /// The body of a delivery as the CRM of a shipped connector sends it.
    pub fn shipped_delivery(id: &str) -> Option<String> {
        let (.., fixture) = SHIPPED.iter().find(|(known, ..)| *known == id)?;
        let fixture: serde_json::Value = serde_json::from_str(fixture).ok()?;
        Some(fixture["delivery"]["body"].as_str()?.to_owned())
    }

    pub fn shipped_ids() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(id, ..)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_connector_loads_under_its_own_id() {
        for (id, file, text, _) in SHIPPED {
            match Connector::load(text, file) {
                Ok(connector) => assert_eq!(connector.id(), *id),
                Err(problems) => {
                    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    panic!("{}", list.join("\n"));
                }
            }
        }
    }
}
