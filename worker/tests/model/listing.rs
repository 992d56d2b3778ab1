//! What the model CRM answers: pages in the orders that real CRMs offer, fetches by id, lists of deletions and of ids.

use contacts::{Contact, Micros};
use crm::{Deleted, Observed, Window};
use serde_json::{Value, json};

use crate::model_crm::{Crm, Deletions, Order, Record, State, Version};

/// Rows and the cursor of the next page.
pub type Paged<T> = (Vec<T>, Option<Value>);

impl Crm {
    pub fn full_page(&self, cursor: Option<&Value>, now: Micros) -> Paged<Observed> {
        let indexed = self.manners.full_indexed;
        // Where there are change passes, they tell of what is archived, and the listing leaves it out.
        let flagged = !self.manners.changes;
        let closes = cursor
            .and_then(|cursor| cursor["closes"].as_u64())
            .map_or(self.clock(now), Micros);
        let everything = Window {
            since: Micros::ZERO,
            until: Micros(u64::MAX),
        };
        let window = match self.manners.full_order {
            Order::ClosedWindow | Order::Updated => Window {
                until: closes,
                ..everything
            },
            Order::Id | Order::Moving => everything,
        };
        let (rows, next) = self.list(self.manners.full_order, window, cursor, now, indexed);
        let rows = rows.into_iter().filter(|row| flagged || !row.removed).collect();
        let next = next.map(|mut next| {
            next["closes"] = json!(closes.0);
            next
        });
        (rows, next)
    }

    pub fn changes_page(&self, window: Window, cursor: Option<&Value>, now: Micros) -> Paged<Observed> {
        self.list(
            self.manners.changes_order,
            window,
            cursor,
            now,
            self.manners.changes_indexed,
        )
    }

    fn list(
        &self,
        order: Order,
        window: Window,
        cursor: Option<&Value>,
        now: Micros,
        indexed: bool,
    ) -> Paged<Observed> {
        let within = |version: &Version| window.since <= version.stamp && version.stamp < window.until;
        let shown = self
            .records
            .iter()
            .filter_map(|(id, record)| Some((id, record.seen(now, indexed)?)));
        let page = self.manners.page;
        let after = |name: &str| cursor.map(|cursor| cursor[name].clone()).unwrap_or_default();
        match order {
            // The filter comes after the paging, so pages may be empty and not the last.
            Order::Id => {
                let start = after("id").as_str().unwrap_or_default().to_owned();
                let mut rest = shown.filter(|(id, _)| **id > start);
                let taken: Vec<_> = rest.by_ref().take(page).collect();
                let next = rest.next().and(taken.last()).map(|(id, _)| json!({ "id": id }));
                let rows = taken
                    .into_iter()
                    .filter(|(_, version)| within(version))
                    .filter_map(|it| self.row(it));
                (rows.collect(), next)
            }
            Order::ClosedWindow => {
                let start = after("id").as_str().unwrap_or_default().to_owned();
                let mut rest = shown.filter(|(id, version)| **id > start && within(version));
                let taken: Vec<_> = rest.by_ref().take(page).collect();
                let next = rest.next().and(taken.last()).map(|(id, _)| json!({ "id": id }));
                (taken.into_iter().filter_map(|it| self.row(it)).collect(), next)
            }
            Order::Updated => {
                let start = (
                    after("stamp").as_u64().unwrap_or(0),
                    after("id").as_str().unwrap_or_default().to_owned(),
                );
                let mut rest: Vec<_> = shown
                    .filter(|(id, version)| (version.stamp.0, *id) > (start.0, &start.1) && within(version))
                    .collect();
                rest.sort_by_key(|(id, version)| (version.stamp, *id));
                let more = rest.len() > page;
                rest.truncate(page);
                let last = rest.last().filter(|_| more);
                let next = last.map(|(id, version)| json!({ "stamp": version.stamp.0, "id": id }));
                (rest.into_iter().filter_map(|it| self.row(it)).collect(), next)
            }
            Order::Moving => {
                let number = usize::try_from(after("page").as_u64().unwrap_or(0)).unwrap_or(0);
                let mut all: Vec<_> = shown.filter(|(_, version)| within(version)).collect();
                all.sort_by_key(|(_, version)| version.committed);
                let rows = all
                    .iter()
                    .skip(number * page)
                    .take(page)
                    .filter_map(|it| self.row(*it))
                    .collect();
                let next = (all.len() > (number + 1) * page).then(|| json!({ "page": number + 1 }));
                (rows, next)
            }
        }
    }

    /// Rows of what is there, and the ids of what is not. Always the truth of the moment.
    pub fn get_many(&self, ids: &[String], now: Micros) -> (Vec<Observed>, Vec<String>) {
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            let seen = self.records.get(id).and_then(|record| record.seen(now, false));
            match seen.and_then(|version| self.row((id, version))) {
                Some(row) => rows.push(row),
                None => missing.push(id.clone()),
            }
        }
        (rows, missing)
    }

    /// What was ever deleted since, also what has been restored after that.
    pub fn deleted_page(&self, since: Micros, cursor: Option<&Value>, now: Micros) -> Paged<Deleted> {
        let gone = self
            .records
            .iter()
            .flat_map(|(id, record)| deletions(id, record, since, now));
        let start = cursor
            .and_then(Value::as_u64)
            .map_or(0, |start| usize::try_from(start).unwrap_or(0));
        let mut rest = gone.skip(start);
        let taken: Vec<_> = rest.by_ref().take(self.manners.page).collect();
        let next = rest.next().map(|_| json!(start + taken.len()));
        (taken, next)
    }

    /// Keyset by id, always the truth of the moment.
    pub fn ids_page(&self, cursor: Option<&Value>, now: Micros) -> Paged<String> {
        let start = cursor.and_then(Value::as_str).unwrap_or_default();
        let living = |record: &Record| {
            record
                .seen(now, false)
                .is_some_and(|version| version.state == State::Living)
        };
        let mut rest = self
            .records
            .iter()
            .filter(|(id, record)| id.as_str() > start && living(record));
        let taken: Vec<String> = rest
            .by_ref()
            .take(self.manners.page)
            .map(|(id, _)| id.clone())
            .collect();
        let next = rest.next().and(taken.last()).map(|id| json!(id));
        (taken, next)
    }

    fn row(&self, (id, version): (&String, &Version)) -> Option<Observed> {
        let removed = match version.state {
            State::Living => false,
            State::Deleted if self.manners.deletions == Deletions::Flag => true,
            State::Deleted | State::Merged(_) => return None,
        };
        let name = format!("{id} v{}", version.content);
        let phones = vec![format!(
            "+4690{}",
            id.bytes()
                .filter(u8::is_ascii_digit)
                .map(char::from)
                .collect::<String>()
        )];
        let contact = Contact {
            id: id.clone(),
            name,
            phones,
            ..Contact::default()
        };
        Some(Observed {
            unwanted: !removed && self.unwanted.contains(id),
            contact,
            updated: version.stamp,
            removed,
            aliases: version.aliases.clone(),
        })
    }
}

fn deletions(id: &str, record: &Record, since: Micros, now: Micros) -> Vec<Deleted> {
    let gone = record
        .versions
        .iter()
        .filter(|version| version.committed <= now && version.stamp >= since);
    gone.filter_map(|version| match &version.state {
        State::Living => None,
        State::Deleted => Some((version, None)),
        State::Merged(into) => Some((version, Some(into.clone()))),
    })
    .map(|(version, merged_into)| Deleted {
        id: id.to_owned(),
        at: version.stamp,
        merged_into,
    })
    .collect()
}
