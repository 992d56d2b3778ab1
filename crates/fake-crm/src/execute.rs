//! Carries out controls: the writing side of the CRM.

use std::sync::Arc;

use crate::account::{Account, State, UserRecord};
use crate::clock;
use crate::control::{Action, Change, Create, Done, Merge, Refusal, Users};
use crate::state::{More, Record};
use crate::webhooks::{EventKind, News};

pub(crate) fn execute(account: &Arc<Account>, action: Action) -> Result<Done, Refusal> {
    let done = {
        let mut state = account.lock();
        let mark = state.contacts.history.mark();
        let mut done = run(&mut state, action)?;
        done.edits = state.contacts.history.since(mark);
        done
    };
    account.changed();
    Ok(done)
}

fn run(state: &mut State, action: Action) -> Result<Done, Refusal> {
    let mut done = Done::default();
    match action {
        Action::Set(knobs) => {
            state.knobs.set(&knobs).map_err(Refusal::bad)?;
            done.knobs = Some(Box::new(state.knobs.clone()));
        }
        Action::Create(create) => create_contacts(state, &create),
        Action::Edit(change) => {
            let fields = change.fields.clone();
            update(state, change, EventKind::Updated, false, move |record| match &fields {
                None => record.revision += 1,
                Some(fields) => {
                    record.more.get_or_insert_default().fields.lay_over(fields);
                    if fields.job_title.is_some() {
                        record.revision = 0;
                    }
                }
            })?;
        }
        Action::Touch(change) => update(state, without_fields(change)?, EventKind::Updated, true, |_| {})?,
        Action::Archive(change) => {
            update(state, without_fields(change)?, EventKind::Archived, false, |record| {
                record.archived = true
            })?;
        }
        Action::Unarchive(change) => unarchive(state, without_fields(change)?)?,
        Action::Delete(change) => {
            let change = without_fields(change)?;
            let ids = chosen(state, &change, false)?;
            let transaction = state.begin(change.hold, change.stamp_ms, false);
            let mut news = Vec::new();
            for id in ids {
                let at = state.moment(&transaction);
                state.contacts.delete(id, at, None, &mut news);
            }
            state.publish(news);
        }
        Action::Merge(merge) => merge_contacts(state, &merge)?,
        Action::Commit {} => {
            let now = clock::now_ms();
            done.committed = state.contacts.commit(now);
            let news = state.contacts.settle(now);
            state.publish(news);
        }
        Action::Tokens(tokens) => {
            state.tokens = tokens;
            state.sessions.clear();
        }
        Action::Webhook(webhook) => {
            if let Some(webhook) = &webhook {
                webhook.check().map_err(Refusal::bad)?;
            }
            state.outbox.subscribe(webhook, state.profile.vendor().greets());
        }
        Action::UpdateContact(update) => {
            crate::updates::subscribe(state, update.as_ref()).map_err(Refusal::bad)?;
        }
        Action::Users(users) => change_users(state, &users)?,
        Action::Reset {} => {
            state.meter.reset();
            state.limiter.reset();
            state.at_address.lock().limiter.reset();
            state.outbox.reset();
        }
    }
    Ok(done)
}

fn create_contacts(state: &mut State, create: &Create) {
    let transaction = state.begin(create.hold, create.stamp_ms, false);
    let mut news = Vec::new();
    for _ in 0..create.count {
        let at = state.moment(&transaction);
        state.contacts.create(create.fields.as_ref(), at, &mut news);
    }
    state.publish(news);
}

fn update(
    state: &mut State,
    change: Change,
    kind: EventKind,
    one_stamp: bool,
    edit: impl Fn(&mut Record),
) -> Result<(), Refusal> {
    let ids = chosen(state, &change, false)?;
    write(state, &change, ids, kind, one_stamp, edit);
    Ok(())
}

fn unarchive(state: &mut State, change: Change) -> Result<(), Refusal> {
    let ids = chosen(state, &change, true)?;
    write(state, &change, ids, EventKind::Updated, false, |record| {
        record.archived = false
    });
    Ok(())
}

fn write(
    state: &mut State,
    change: &Change,
    ids: Vec<u64>,
    kind: EventKind,
    one_stamp: bool,
    edit: impl Fn(&mut Record),
) {
    let transaction = state.begin(change.hold, change.stamp_ms, one_stamp);
    let mut news = Vec::new();
    for id in ids {
        let at = state.moment(&transaction);
        state.contacts.update(id, at, kind, &mut news, &edit);
    }
    state.publish(news);
}

fn merge_contacts(state: &mut State, merge: &Merge) -> Result<(), Refusal> {
    let (from, into) = (existing(state, &merge.from)?, existing(state, &merge.into)?);
    if from == into {
        return Err(Refusal::bad("a contact cannot be merged into itself"));
    }
    let mut taken = vec![from];
    taken.extend(
        state
            .contacts
            .newest(from)
            .and_then(|record| record.more.as_ref())
            .iter()
            .flat_map(|more| &more.merged),
    );
    let transaction = state.begin(merge.hold, None, true);
    let mut news = Vec::new();
    let at = state.moment(&transaction);
    state.contacts.delete(from, at, Some(into), &mut news);
    let at = state.moment(&transaction);
    state
        .contacts
        .update(into, at, EventKind::Updated, &mut news, |record| {
            let more: &mut More = record.more.get_or_insert_default();
            more.merged.extend(taken);
        });
    state.publish(news);
    Ok(())
}

fn change_users(state: &mut State, users: &Users) -> Result<(), Refusal> {
    let mut changed = state.users.clone();
    for (id, fields) in &users.set {
        existing_user(&mut changed, id)?.fields.lay_over(fields);
    }
    let mut change = |ids: &[String], edit: fn(&mut UserRecord)| {
        for id in ids {
            edit(existing_user(&mut changed, id)?);
        }
        Ok(())
    };
    change(&users.edit, |user| user.revision += 1)?;
    change(&users.deactivate, |user| user.active = false)?;
    change(&users.activate, |user| user.active = true)?;
    change(&users.delete, |user| user.deleted = true)?;
    changed.resize(changed.len() + users.add, UserRecord::new());
    let before = std::mem::replace(&mut state.users, changed);
    if state.profile.vendor().tells_of_users() {
        let news = users_news(state, &before);
        state.publish(news);
    }
    Ok(())
}

/// What is to be told of users: who is new and who is another. A deletion is told of nowhere.
fn users_news(state: &State, before: &[UserRecord]) -> Vec<News> {
    let at = state.crm_now();
    let now = (1..).zip(&state.users).filter(|(_, user)| !user.deleted);
    let told = now.filter_map(|(ordinal, user)| {
        let kind = match before.get(ordinal - 1) {
            None => EventKind::Created,
            Some(before) if before != user => EventKind::Updated,
            Some(_) => return None,
        };
        Some(News {
            kind,
            id: ordinal as u64,
            merged_into: None,
            at,
            by_api: false,
            user: true,
            record: None,
        })
    });
    told.collect()
}

fn existing_user<'a>(users: &'a mut [UserRecord], id: &str) -> Result<&'a mut UserRecord, Refusal> {
    let ordinal = id.strip_prefix("u-").and_then(|number| number.parse::<usize>().ok());
    let record = ordinal.and_then(|ordinal| users.get_mut(ordinal.checked_sub(1)?));
    record
        .filter(|user| !user.deleted)
        .ok_or_else(|| Refusal::missing(format!("no user has the id `{id}`")))
}

fn without_fields(change: Change) -> Result<Change, Refusal> {
    if change.fields.is_some() {
        Err(Refusal::bad("only `edit` and `create` take `fields`"))
    } else {
        Ok(change)
    }
}

fn chosen(state: &mut State, change: &Change, archived: bool) -> Result<Vec<u64>, Refusal> {
    match (change.count, change.ids.as_slice()) {
        (None, []) | (Some(_), [_, ..]) => Err(Refusal::bad("give either `ids` or `count`")),
        (None, ids) => ids.iter().map(|id| existing(state, id)).collect(),
        (Some(count), []) => {
            let picked = state.contacts.pick(count, archived);
            if picked.len() < count {
                return Err(Refusal::bad(format!(
                    "there are only {} such contacts, not {count}",
                    picked.len()
                )));
            }
            Ok(picked)
        }
    }
}

fn existing(state: &State, id: &str) -> Result<u64, Refusal> {
    let known = id.parse().ok().filter(|&id| state.contacts.newest(id).is_some());
    known.ok_or_else(|| Refusal::missing(format!("no contact has the id `{id}`")))
}
