//! Which names an expression may use. An unknown one would silently be "nothing" when the connector runs, so it is an
//! error when the connector is loaded.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::ExprError;
use crate::load::suggest;

/// What may follow a name.
#[derive(Clone, Debug)]
pub enum Attributes {
    /// Data from outside: anything.
    Any,
    /// The value itself, nothing below it.
    Plain,
    /// Exactly one of these.
    Only(BTreeSet<String>),
}

impl Attributes {
    pub fn only<I: IntoIterator<Item = S>, S: Into<String>>(names: I) -> Attributes {
        Attributes::Only(names.into_iter().map(Into::into).collect())
    }
}

/// The names in reach of an expression.
#[derive(Clone, Debug, Default)]
pub struct Names {
    known: BTreeMap<String, Attributes>,
    /// `conn` attributes that exist but must not be read here: secrets, in anything that ends up in data.
    withheld: BTreeSet<String>,
}

impl Names {
    pub fn with(mut self, name: impl Into<String>, attributes: Attributes) -> Names {
        self.known.insert(name.into(), attributes);
        self
    }

    pub fn withholding<I: IntoIterator<Item = String>>(mut self, secrets: I) -> Names {
        self.withheld.extend(secrets);
        self
    }

    pub(super) fn check(&self, text: &str, used: HashSet<String>) -> Result<(), ExprError> {
        let mut used: Vec<String> = used.into_iter().collect();
        used.sort();
        for path in used {
            let mut parts = path.split('.');
            let root = parts.next().unwrap_or_default();
            let attribute = parts.next();
            let Some(attributes) = self.known.get(root) else {
                let names: Vec<&str> = self.known.keys().map(String::as_str).collect();
                let hint = suggest(root, &names).unwrap_or_else(|| format!("known here: {}", names.join(", ")));
                return Err(ExprError::new(format!("`{root}` is not known in `{text}`")).hint(hint));
            };
            self.check_attribute(text, root, attribute, attributes)?;
        }
        Ok(())
    }

    fn check_attribute(
        &self,
        text: &str,
        root: &str,
        attribute: Option<&str>,
        attributes: &Attributes,
    ) -> Result<(), ExprError> {
        let Attributes::Only(names) = attributes else {
            return Ok(());
        };
        let Some(attribute) = attribute else {
            return Err(ExprError::new(format!("`{root}` alone cannot be used in `{text}`"))
                .hint(format!("write `{root}.NAME`")));
        };
        if root == "conn" && self.withheld.contains(attribute) {
            return Err(
                ExprError::new(format!("the secret `conn.{attribute}` must not be used in `{text}`"))
                    .hint("secrets belong into requests and verification only"),
            );
        }
        if names.contains(attribute) {
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = suggest(attribute, &names).unwrap_or_else(|| format!("there are {}", names.join(", ")));
        Err(ExprError::new(format!("`{root}.{attribute}` is not known in `{text}`")).hint(hint))
    }
}
