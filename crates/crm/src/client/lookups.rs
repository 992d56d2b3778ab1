//! What stands in other records of the CRM: a company's name by its id, joined by key and remembered for a while.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contacts::{ErrorKind, Micros};
use minijinja::Value;
use parking_lot::Mutex;

use super::{Call, Client};
use crate::error::{CrmError, CrmResult};
use crate::expr::{Expr, value_of};
use crate::reply::Tests;
use crate::spec::Lookup;

/// Values of one account; beyond this many the older half goes.
const MOST: usize = 20_000;

/// Values that were looked up, by (place of the lookup, key). `None`: the CRM has no such record.
#[derive(Default)]
pub(super) struct LookedUp(Mutex<HashMap<(usize, String), Known>>);

struct Known {
    value: Option<String>,
    at: Micros,
}

impl Client {
    /// `lookup` for each row: an object of what was found for it.
    pub(super) async fn look_up(&self, items: &[Value]) -> CrmResult<Vec<Value>> {
        let lookups = &self.spec().contacts.lookups;
        if lookups.is_empty() {
            return Ok(vec![Value::UNDEFINED; items.len()]);
        }
        let mut found: Vec<BTreeMap<&str, String>> = vec![BTreeMap::new(); items.len()];
        for (place, lookup) in lookups.iter().enumerate() {
            let key = |item| lookup.of.text_of(&self.item_scope(item)).map_err(CrmError::expression);
            let keys: Vec<Option<String>> = items.iter().map(key).collect::<CrmResult<_>>()?;
            let values = self.values(place, lookup, keys.iter().flatten()).await?;
            for (row, key) in found.iter_mut().zip(&keys) {
                let value = key.as_ref().and_then(|key| values.get(key).cloned().flatten());
                row.extend(value.map(|value| (lookup.name.as_str(), value)));
            }
        }
        Ok(found.iter().map(value_of).collect())
    }

    /// The values of these keys: those that are still believed, and the others from the CRM.
    async fn values<'k>(
        &self,
        place: usize,
        lookup: &Lookup,
        keys: impl Iterator<Item = &'k String>,
    ) -> CrmResult<HashMap<String, Option<String>>> {
        let wanted: BTreeSet<&String> = keys.collect();
        let oldest = self.clock.now().minus(lookup.keep);
        let mut values = HashMap::with_capacity(wanted.len());
        let mut missing = Vec::new();
        {
            let known = self.looked_up.0.lock();
            for key in wanted {
                match known.get(&(place, key.clone())).filter(|known| known.at >= oldest) {
                    Some(known) => {
                        values.insert(key.clone(), known.value.clone());
                    }
                    None => missing.push(key.clone()),
                }
            }
        }
        for some in missing.chunks(lookup.max) {
            let (mut found, at) = self.fetched(lookup, some).await?;
            let mut known = self.looked_up.0.lock();
            make_room(&mut known);
            for key in some {
                let value = found.remove(key);
                values.insert(key.clone(), value.clone());
                known.insert((place, key.clone()), Known { value, at });
            }
        }
        Ok(values)
    }

    async fn fetched(&self, lookup: &Lookup, keys: &[String]) -> CrmResult<(HashMap<String, String>, Micros)> {
        let call = Call {
            operation: "contacts.lookups",
            request: &lookup.request,
            tests: Tests::default(),
            names: &[("keys", value_of(&keys))],
            url: None,
        };
        let answer = match self.call(call).await {
            // None of them is there (any more).
            Err(error) if error.kind == ErrorKind::Missing => return Ok((HashMap::new(), self.clock.now())),
            answer => answer?,
        };
        let mut found = HashMap::new();
        for item in self.items(&lookup.items, &answer)? {
            let names = self.item_scope(&item);
            let text = |expr: &Expr| expr.text_of(&names).map_err(CrmError::expression);
            found.extend(text(&lookup.key)?.zip(text(&lookup.value)?));
        }
        Ok((found, answer.asked_at))
    }
}

fn make_room(known: &mut HashMap<(usize, String), Known>) {
    if known.len() < MOST {
        return;
    }
    let mut times: Vec<Micros> = known.values().map(|known| known.at).collect();
    let (_, middle, _) = times.select_nth_unstable(MOST / 2);
    let middle = *middle;
    known.retain(|_, known| known.at > middle);
}
