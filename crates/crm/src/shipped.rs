//! The connectors that come with the program.

use crate::connector::Connector;

/// (id, file, text)
const SHIPPED: &[(&str, &str, &str)] = &[
    (
        "dataverse",
        "connectors/dataverse/connector.toml",
        include_str!("../../../connectors/dataverse/connector.toml"),
    ),
    (
        "demo",
        "connectors/demo/connector.toml",
        include_str!("../../../connectors/demo/connector.toml"),
    ),
    (
        "espocrm",
        "connectors/espocrm/connector.toml",
        include_str!("../../../connectors/espocrm/connector.toml"),
    ),
    (
        "freshdesk",
        "connectors/freshdesk/connector.toml",
        include_str!("../../../connectors/freshdesk/connector.toml"),
    ),
    (
        "hubspot",
        "connectors/hubspot/connector.toml",
        include_str!("../../../connectors/hubspot/connector.toml"),
    ),
    (
        "intercom",
        "connectors/intercom/connector.toml",
        include_str!("../../../connectors/intercom/connector.toml"),
    ),
    (
        "odoo",
        "connectors/odoo/connector.toml",
        include_str!("../../../connectors/odoo/connector.toml"),
    ),
    (
        "odoo-json2",
        "connectors/odoo-json2/connector.toml",
        include_str!("../../../connectors/odoo-json2/connector.toml"),
    ),
    (
        "pipedrive",
        "connectors/pipedrive/connector.toml",
        include_str!("../../../connectors/pipedrive/connector.toml"),
    ),
    (
        "salesforce",
        "connectors/salesforce/connector.toml",
        include_str!("../../../connectors/salesforce/connector.toml"),
    ),
    (
        "twenty",
        "connectors/twenty/connector.toml",
        include_str!("../../../connectors/twenty/connector.toml"),
    ),
    (
        "web1on1",
        "connectors/web1on1/connector.toml",
        include_str!("../../../connectors/web1on1/connector.toml"),
    ),
    (
        "zendesk",
        "connectors/zendesk/connector.toml",
        include_str!("../../../connectors/zendesk/connector.toml"),
    ),
    (
        "zoho",
        "connectors/zoho/connector.toml",
        include_str!("../../../connectors/zoho/connector.toml"),
    ),
];

impl Connector {
    /// The text of a shipped connector.
    pub fn shipped(id: &str) -> Option<&'static str> {
        SHIPPED
            .iter()
            .find(|(known, ..)| *known == id)
            .map(|(_, _, text)| *text)
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
        for (id, file, text) in SHIPPED {
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
