//! The connectors that come with the program.

use crate::connector::Connector;

/// (id, file, text)
const SHIPPED: &[(&str, &str, &str)] = &[
    (
        "demo",
        "connectors/demo/connector.toml",
        include_str!("../../../connectors/demo/connector.toml"),
    ),
    (
        "odoo",
        "connectors/odoo/connector.toml",
        include_str!("../../../connectors/odoo/connector.toml"),
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
