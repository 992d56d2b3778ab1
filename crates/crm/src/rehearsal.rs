//! A page mapped as it stands, without a CRM and without calls.

use std::collections::BTreeMap;

use contacts::ErrorKind;
use minijinja::Value;

use crate::client::Page;
use crate::connector::Connector;
use crate::error::{CrmError, CrmResult};
use crate::expr::{scope, value_of};
use crate::map::{Mapper, Region, Tally};

impl Connector {
    /// Maps the rows in the body of a reply to the full pass. `fields` are those of an account, `region` is two letters. What
    /// other records would say of a row (look-ups) is missing.
    ///
    /// # Errors
    /// The body is no JSON, has no rows where the connector looks for them, or the region is none.
    pub fn map_body(&self, body: &[u8], fields: &BTreeMap<String, String>, region: Option<&str>) -> CrmResult<Page> {
        let bad = |why: String| CrmError::new(ErrorKind::BadReply, why);
        let body = serde_json::from_slice::<Value>(body);
        let body = body.map_err(|error| bad(format!("the body is no JSON: {error}")))?;
        let region = region.map(Region::from_code).transpose();
        let region = region.map_err(|_| CrmError::new(ErrorKind::Rejected, "there is no such region"))?;
        let mut fields = fields.clone();
        for (name, field) in self.fields() {
            if let Some(default) = &field.default {
                fields.entry(name.clone()).or_insert_with(|| default.clone());
            }
        }
        let conn = value_of(&fields);
        let response = scope([("status", Value::from(200)), ("body", body)]);
        let names = scope([("response", response), ("conn", conn.clone())]);
        let full = &self.spec().contacts.full;
        let rows = full.items.eval(&names).map_err(CrmError::expression)?;
        let rows = rows.try_iter().map_err(|_| bad("its rows are no list".to_owned()))?;
        let mapper = Mapper::new(self.spec(), conn, region, None);
        let mut tally = Tally::default();
        let rows = rows
            .filter_map(|row| mapper.map(&row, Value::UNDEFINED, &mut tally))
            .collect();
        Ok(Page {
            rows,
            repairs: tally.repairs,
            dropped: tally.dropped,
            ..Page::default()
        })
    }
}
