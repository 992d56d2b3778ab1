//! Rows whose fields are more than one request takes: asked for in parts, and joined by id (Zoho takes 50).

use std::collections::HashMap;

use contacts::ErrorKind;
use minijinja::Value;
use serde_json::Value as Json;

use super::{Answer, Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, to_json, value_of};
use crate::map::Mapper;

impl Client {
    /// The rows of a call in whose request `props` stand: asked for in as many calls as the CRM needs for them.
    pub(super) async fn asked_rows(&self, call: Call<'_>, items: &Expr) -> CrmResult<(Vec<Value>, Answer)> {
        let contacts = &self.spec().contacts;
        let most = contacts.props_chunk.unwrap_or(usize::MAX).max(1);
        let (some, others) = contacts.props.split_at(most.min(contacts.props.len()));
        let asked = |props: &[String]| {
            let mut names = call.names.to_vec();
            names.push(("props", value_of(&props)));
            names
        };
        let names = asked(some);
        let answer = self.call(Call { names: &names, ..call }).await?;
        let mut rows = self.items(items, &answer)?;
        for more in others.chunks(most) {
            if rows.is_empty() {
                break;
            }
            let names = asked(more);
            let answer = self.call(Call { names: &names, ..call }).await?;
            let parts = self.items(items, &answer)?;
            rows = self.joined(rows, &parts)?;
        }
        Ok((rows, answer))
    }

    /// Each row with its other fields. Rows that moved in between are no reason to empty fields: the page is read again.
    fn joined(&self, rows: Vec<Value>, parts: &[Value]) -> CrmResult<Vec<Value>> {
        let mapper = Mapper::new(self.spec(), self.conn.clone(), self.region, None);
        let by_id: HashMap<String, &Value> = parts.iter().filter_map(|part| Some((mapper.id(part)?, part))).collect();
        let join = |row: Value| {
            let part = mapper.id(&row).and_then(|id| by_id.get(&id));
            let part = part.ok_or_else(|| {
                let message = "a row was gone before all of its fields were read";
                CrmError::new(ErrorKind::Unavailable, message)
            })?;
            let mut whole = to_json(&row);
            lay_over(&mut whole, to_json(part));
            Ok(value_of(&whole))
        };
        rows.into_iter().map(join).collect()
    }
}

/// Objects are joined field by field; anything else gives way.
fn lay_over(whole: &mut Json, part: Json) {
    match (whole, part) {
        (Json::Object(whole), Json::Object(part)) => {
            for (key, value) in part {
                lay_over(whole.entry(key).or_insert(Json::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}
