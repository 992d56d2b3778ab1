//! Two records, from either side: found, judged, and written.

use std::collections::BTreeMap;

use contacts::linking::records::{self, Record, Side, Trouble};
use contacts::linking::{
    Applied, Event, Field, Flow, Link, Matched, Merged, Needle, Own, Owner, Update, Verdict, flow, insist, matched,
    merge, needles, needles_of, resolve, rivals, without,
};
use contacts::{ErrorKind, Micros};
use crm::{CrmError, CrmResult, LinkTo, Linked, e164};
use serde_json::{Value, json};

use super::{Answer, GRACE, LOOK, Look, Pairing, Step, may_come, of, store_down};
use crate::crash;

/// Addresses of ours that are remembered of a record.
const SHOWN: usize = 4;

/// What is written into the fields of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values {
    name: Option<String>,
    email: Option<String>,
    phone: Option<String>,
}

impl Pairing {
    /// The DMS told of a record, or (`told` is false) it is looked at again.
    pub(super) async fn update(&self, update: &Update, came: Micros, told: bool) -> CrmResult<Step> {
        let known = self.known(Side::Dms, &update.id).await?;
        let dms = match update.deleted && known.with.is_none() {
            true => None,
            false => self.read(Side::Dms, &update.id).await?,
        };
        let dms = match dms {
            Some(dms) if !update.deleted => dms,
            None if !update.deleted && known.with.is_none() && self.is_young(came) => {
                return Ok(Step::Later(self.clock.now().plus(LOOK)));
            }
            still_there => {
                self.wake(Side::Dms, &update.id).await?;
                if let (Some(contact), None) = (&known.with, still_there) {
                    self.set_free(Side::Web1on1, contact).await?;
                }
                self.part(&update.id).await?;
                if update.deleted {
                    return Ok(Step::Done(Answer::Removed));
                }
                self.note(Side::Dms, &update.id, Trouble::Gone).await?;
                return Ok(Step::Done(Answer::Gone));
            }
        };
        let linked = self.partner(Side::Dms, &known).await?;
        if told && linked.is_some() && !known.waited_for_by.is_empty() {
            self.wake(Side::Dms, &update.id).await?;
        }
        let mut wanted = needles(
            update,
            update.phone.as_deref().and_then(|text| self.e164(text)).as_deref(),
        );
        for needle in self.needles(&dms) {
            if !wanted.contains(&needle) {
                wanted.push(needle);
            }
        }
        // Who is linked and still bears what is said stays, without a search.
        if let Some(web1on1) = &linked
            && wanted.iter().any(|needle| self.bears(web1on1, needle))
        {
            return self.pair(&dms, web1on1).await.map(Step::Done);
        }
        let answer = match self.choose(Side::Dms, &dms, &known, linked, &wanted).await? {
            Ok(web1on1) => self.pair(&dms, &web1on1).await?,
            Err(trouble) => said(&trouble),
        };
        Ok(Step::Done(answer))
    }

    /// Web1on1 told of a contact.
    pub(super) async fn event(&self, event: &Event, came: Micros) -> CrmResult<Step> {
        let known = self.known(Side::Web1on1, &event.contact).await?;
        let (verdict, applied) = event.judge(known.applied.as_ref(), |relevant| self.hash(relevant));
        if verdict != Verdict::Apply {
            if known.applied.as_ref() != Some(&applied) {
                self.applied(&event.contact, applied).await?;
            }
            return Ok(Step::Known);
        }
        let there = match may_come(event) {
            true => self.read(Side::Web1on1, &event.contact).await?,
            false => None,
        };
        let Some(web1on1) = there else {
            if may_come(event) && self.is_young(came) {
                return Ok(Step::Later(self.clock.now().plus(LOOK)));
            }
            self.contact_is_gone(&event.contact, &known).await?;
            self.applied(&event.contact, applied).await?;
            return Ok(Step::Done(Answer::Removed));
        };
        let answer = self.meet(&web1on1, &known, true).await?;
        self.applied(&event.contact, applied).await?;
        Ok(Step::Done(answer))
    }

    /// A contact is linked with whom it is linked with, or with whom it means.
    pub(super) async fn meet(&self, web1on1: &Linked, known: &Record, told: bool) -> CrmResult<Answer> {
        let linked = self.partner(Side::Web1on1, known).await?;
        if told && linked.is_some() && !known.waited_for_by.is_empty() {
            self.wake(Side::Web1on1, &web1on1.id).await?;
        }
        let wanted = self.needles(web1on1);
        let chosen = match linked {
            Some(dms) if wanted.iter().any(|needle| self.bears(&dms, needle)) => Ok(dms),
            linked => self.choose(Side::Web1on1, web1on1, known, linked, &wanted).await?,
        };
        match chosen {
            Ok(dms) => self.pair(&dms, web1on1).await,
            Err(trouble) => Ok(said(&trouble)),
        }
    }

    /// A linked record that the DMS no longer has loses its links.
    pub(super) async fn part_if_gone(&self, record: &str) -> CrmResult<()> {
        let known = self.known(Side::Dms, record).await?;
        let Some(contact) = &known.with else { return Ok(()) };
        if self.read(Side::Dms, record).await?.is_none() {
            self.wake(Side::Dms, record).await?;
            self.set_free(Side::Web1on1, contact).await?;
            self.part(record).await?;
        }
        Ok(())
    }

    /// Takes the links of a record of the DMS and of its contact away, and forgets that they were linked.
    pub(super) async fn part(&self, record: &str) -> CrmResult<()> {
        let known = self.known(Side::Dms, record).await?;
        if let Some(contact) = &known.with {
            if let Some(web1on1) = self.read(Side::Web1on1, contact).await? {
                self.show(Side::Web1on1, &web1on1, None, Values::default()).await?;
            }
            self.unjoin(Side::Web1on1, contact, record).await?;
        }
        if let Some(dms) = self.read(Side::Dms, record).await? {
            self.show(Side::Dms, &dms, None, Values::default()).await?;
        }
        self.change(Side::Dms, record, Record::stands_alone).await
    }

    /// The record of the other system that `own` means, or why there is none, which is noted.
    async fn choose(
        &self,
        side: Side,
        own: &Linked,
        known: &Record,
        linked: Option<Linked>,
        wanted: &[Needle],
    ) -> CrmResult<Result<Linked, Trouble>> {
        let other = side.other();
        let mut found = self.search(other, wanted).await?;
        let matched = matched(found.keys().map(String::as_str));
        let trouble = match resolve(linked.as_ref().map(|linked| linked.id.as_str()), matched) {
            Matched::Nobody => Trouble::Unmatched,
            Matched::Many(ids) => Trouble::Ambiguous { ids },
            Matched::One(id) if known.with.as_ref() == Some(&id) => {
                let stays = found.remove(&id).or(linked);
                return stays.map(Ok).ok_or_else(|| lost(other));
            }
            Matched::One(id) => {
                let one = found.remove(&id).ok_or_else(|| lost(other))?;
                match self.objection(side, own, &one).await? {
                    Some(trouble) => trouble,
                    None => {
                        if !known.waited_for_by.is_empty() {
                            self.wake(side, &own.id).await?;
                        }
                        self.wake(other, &one.id).await?;
                        self.leave(side, own, known, linked.as_ref()).await?;
                        return Ok(Ok(one));
                    }
                }
            }
        };
        // Whom it was linked with is gone: the link leads nowhere.
        if known.with.is_some() && linked.is_none() {
            self.leave(side, own, known, None).await?;
            self.show(side, own, None, Values::default()).await?;
        }
        for (of, id) in trouble.awaits(side, &own.id) {
            self.change(of, &id, |known| known.is_waited_for(side, &own.id)).await?;
        }
        let sought_by = format!("{}|{:?}", self.account, self.needles(own));
        let sought_by = Some(self.keys.fingerprint("needles", sought_by.as_bytes()));
        // Only then: two of one address would wake each other for ever.
        if known.trouble.as_ref() != Some(&trouble) || known.sought_by != sought_by {
            self.wake(side, &own.id).await?;
        }
        self.change(side, &own.id, |known| {
            known.trouble = Some(trouble.clone());
            known.sought_by.clone_from(&sought_by);
        })
        .await?;
        Ok(Err(trouble))
    }

    /// What speaks against linking `own` with `one` of the other system: another record's link, or another record that is
    /// meant as well.
    async fn objection(&self, side: Side, own: &Linked, one: &Linked) -> CrmResult<Option<Trouble>> {
        let theirs = self.needles(one);
        let holder = self.known(side.other(), &one.id).await?.with;
        let holder = holder.filter(|holder| *holder != own.id);
        let held_by = match &holder {
            Some(holder) => self.read(side, holder).await?,
            None => None,
        };
        if let Some(held_by) = &held_by
            && theirs.iter().any(|needle| self.bears(held_by, needle))
        {
            return Ok(Some(Trouble::Taken { by: held_by.id.clone() }));
        }
        let back = self.search(side, &theirs).await?;
        let back = matched(back.keys().map(String::as_str));
        if let Some(ids) = rivals(&own.id, back) {
            return Ok(Some(Trouble::Ambiguous { ids }));
        }
        if let Some(held_by) = &held_by {
            // Nothing but its link speaks for that one any more.
            self.set_free(side, &held_by.id).await?;
            self.show(side, held_by, None, Values::default()).await?;
        }
        if let Some(holder) = &holder {
            self.unjoin(side, holder, &one.id).await?;
            self.unjoin(side.other(), &one.id, holder).await?;
        }
        Ok(None)
    }

    /// `own` is no longer linked with whom it was: the link there goes.
    async fn leave(&self, side: Side, own: &Linked, known: &Record, was: Option<&Linked>) -> CrmResult<()> {
        let Some(with) = &known.with else { return Ok(()) };
        if let Some(was) = was {
            self.set_free(side.other(), with).await?;
            self.show(side.other(), was, None, Values::default()).await?;
        }
        self.unjoin(side.other(), with, &own.id).await?;
        self.unjoin(side, &own.id, with).await
    }

    /// Each of the two shows the link to the other, and the fields that flow are written.
    async fn pair(&self, dms: &Linked, web1on1: &Linked) -> CrmResult<Answer> {
        let (to_dms, to_web1on1) = self.values(dms, web1on1);
        let to = |look: &Look, id: &str| Link {
            label: look.label.clone(),
            url: look.url.render(id),
            icon: look.icon.clone(),
        };
        // First, so that a link that was written is known of, whoever dies before the other is.
        let now = self.clock.now();
        let joined = records::join(&*self.store, &self.account, (&dms.id, &web1on1.id), now).await;
        joined.map_err(store_down)?;
        let rules = &self.rules;
        let at_web1on1 = to(&rules.to_dms, &dms.id);
        let mut written = self.show(Side::Web1on1, web1on1, Some(&at_web1on1), to_web1on1).await?;
        crash::point("between_links");
        let at_dms = web1on1.conversation.as_deref().map(|conversation| {
            let link = to(&rules.to_web1on1, conversation);
            (link, conversation.to_owned())
        });
        let shown = at_dms.as_ref().map(|(link, _)| link);
        written |= self
            .write(Side::Dms, dms, shown, web1on1.conversation.clone(), to_dms)
            .await?;
        crash::point("after_links");
        let (contact, conversation) = (web1on1.id.clone(), web1on1.conversation.clone());
        Ok(match written {
            true => Answer::Updated { contact, conversation },
            false => Answer::Unchanged { contact, conversation },
        })
    }

    /// What flows into the DMS, and into Web1on1.
    fn values(&self, dms: &Linked, web1on1: &Linked) -> (Values, Values) {
        let (mut to_dms, mut to_web1on1) = (Values::default(), Values::default());
        for (field, owner) in &self.rules.owners {
            if *owner == Owner::Nobody {
                continue;
            }
            let of = |record: &Linked| match field {
                Field::Name => record.name.clone(),
                Field::Email => record.emails.first().cloned(),
                Field::Phone => record.phones.first().cloned(),
            };
            let same = |a: &str, b: &str| match field {
                Field::Name => words(a) == words(b),
                Field::Email => a.to_lowercase() == b.to_lowercase(),
                Field::Phone => match (self.e164(a), self.e164(b)) {
                    (None, None) => digits(a) == digits(b),
                    (a, b) => a == b,
                },
            };
            let (values, value) = match flow(*owner, of(dms).as_deref(), of(web1on1).as_deref(), same) {
                Flow::Nothing => continue,
                Flow::ToDms(value) => (&mut to_dms, value),
                Flow::ToWeb1on1(value) => (&mut to_web1on1, value),
            };
            match field {
                Field::Name => values.name = Some(value),
                Field::Email => values.email = Some(value),
                Field::Phone => values.phone = Some(value),
            }
        }
        (to_dms, to_web1on1)
    }

    async fn show(&self, side: Side, record: &Linked, link: Option<&Link>, values: Values) -> CrmResult<bool> {
        self.write(side, record, link, None, values).await
    }

    /// Brings a record to show `link` (`None`: to show none of ours) and `values`. `false`: it did already.
    async fn write(
        &self,
        side: Side,
        record: &Linked,
        link: Option<&Link>,
        conversation: Option<String>,
        values: Values,
    ) -> CrmResult<bool> {
        let known = self.known(side, &record.id).await?;
        let own = self.own(side, &known);
        let stands = match &record.links {
            None => record.url.clone(),
            Some(links) => own.find(links).and_then(|ours| ours["url"].as_str()).map(str::to_owned),
        };
        let stands = stands.unwrap_or_default();
        let mut links: Option<Vec<Value>> = match &record.links {
            None => (stands != link.map_or("", |link| link.url.as_str())).then(Vec::new),
            Some(links) => match link.map_or_else(|| without(links, &own), |link| merge(links, &own, link)) {
                Merged::Same => None,
                Merged::Write(links) => Some(links),
            },
        };
        // What the system made something else of, again and again, is not written once more.
        let mut wrote = known.wrote.clone();
        let mut again = |name: &str, value: &str, present: &str| {
            let (value, present) = (self.hash(value.as_bytes()), self.hash(present.as_bytes()));
            let (write, remembered) = insist(wrote.get(name), &value, &present);
            wrote.insert(name.to_owned(), remembered);
            write
        };
        if let (Some(written), Some(link)) = (&links, link)
            && !again(
                "link",
                &json!([link, written.len()]).to_string(),
                &json!([stands, record.links]).to_string(),
            )
        {
            links = None;
        }
        let mut values = values;
        for (name, value, present) in [
            ("name", &mut values.name, record.name.as_deref()),
            ("email", &mut values.email, record.emails.first().map(String::as_str)),
            ("phone", &mut values.phone, record.phones.first().map(String::as_str)),
        ] {
            if value
                .as_deref()
                .is_some_and(|value| !again(name, value, present.unwrap_or_default()))
            {
                *value = None;
            }
        }
        if links.is_none() && values == Values::default() {
            return Ok(false);
        }
        if link.is_none() {
            wrote.remove("link");
        }
        // Before it is written: who dies in between must know it for ours.
        let url = link.map(|link| link.url.clone()).filter(|_| links.is_some());
        if let Some(url) = url.filter(|url| !known.shown.contains(url)) {
            self.change(side, &record.id, |known| {
                known.shown.push(url.clone());
                let old = known.shown.len().saturating_sub(SHOWN);
                known.shown.drain(..old);
            })
            .await?;
        }
        let to = LinkTo {
            id: record.id.clone(),
            organization: Some(self.rules.organization.clone()),
            conversation,
            url: link.map(|link| link.url.clone()),
            label: link.map(|link| link.label.clone()),
            icon: link.map(|link| link.icon.clone()).filter(|icon| !icon.is_empty()),
            links: links.or_else(|| record.links.clone()).unwrap_or_default(),
            name: values.name,
            email: values.email,
            phone: values.phone,
            record: record.record.clone(),
        };
        let written = self.system(side).write(&to).await;
        written.map_err(|error| match error.kind {
            // It was there a moment ago; the next attempt sees what became of it.
            ErrorKind::Missing => CrmError::because(ErrorKind::BadReply, side.name(), error),
            _ => of(side, error),
        })?;
        metrics::counter!("snapbridge_link_writes_total", "side" => side_word(side)).increment(1);
        // Only what was written: a system that was away made nothing of it.
        if wrote != known.wrote {
            self.change(side, &record.id, |known| known.wrote = wrote.clone())
                .await?;
        }
        Ok(true)
    }

    /// By what our links at a side are known again.
    fn own(&self, side: Side, known: &Record) -> Own {
        let look = match side {
            Side::Web1on1 => &self.rules.to_dms,
            Side::Dms => &self.rules.to_web1on1,
        };
        Own {
            template: Some(look.url.clone()),
            shown: known.shown.clone(),
        }
    }

    /// Keyed, for what is remembered of values.
    fn hash(&self, value: &[u8]) -> String {
        let mut hash = self
            .keys
            .fingerprint("link-value", &[self.account.as_str().as_bytes(), b"|", value].concat())
            .0;
        hash.truncate(32);
        hash
    }

    /// The link of the one that is gone goes from its record in the DMS, which may mean somebody else now.
    pub(super) async fn contact_is_gone(&self, contact: &str, known: &Record) -> CrmResult<()> {
        self.wake(Side::Web1on1, contact).await?;
        if let Some(record) = &known.with {
            if let Some(dms) = self.read(Side::Dms, record).await? {
                self.show(Side::Dms, &dms, None, Values::default()).await?;
                self.set_free(Side::Dms, record).await?;
            }
            self.unjoin(Side::Dms, record, contact).await?;
        }
        self.change(Side::Web1on1, contact, Record::stands_alone).await
    }

    /// Whom a record is linked with, if that one is still there.
    async fn partner(&self, side: Side, known: &Record) -> CrmResult<Option<Linked>> {
        match &known.with {
            Some(id) => self.read(side.other(), id).await,
            None => Ok(None),
        }
    }

    async fn search(&self, side: Side, needles: &[Needle]) -> CrmResult<BTreeMap<String, Linked>> {
        let mut found = BTreeMap::new();
        for needle in needles {
            let borne = self.system(side).find(needle, self.organization(side)).await;
            for linked in borne.map_err(|error| of(side, error))? {
                found.insert(linked.id.clone(), linked);
            }
        }
        Ok(found)
    }

    /// `None`: it is not there, or not the dealer's.
    pub(super) async fn read(&self, side: Side, id: &str) -> CrmResult<Option<Linked>> {
        match self.system(side).read(id, self.organization(side)).await {
            Ok(linked) => {
                let wanted = self.organization(side);
                let foreign = linked.organization.as_deref().zip(wanted).is_some_and(|(a, b)| a != b);
                Ok((!foreign).then_some(linked))
            }
            Err(error) if error.kind == ErrorKind::Missing => Ok(None),
            Err(error) => Err(of(side, error)),
        }
    }

    fn system(&self, side: Side) -> &dyn super::System {
        match side {
            Side::Dms => &*self.dms,
            Side::Web1on1 => &*self.web1on1,
        }
    }

    /// A DMS is the dealer's own; Web1on1 has many of them.
    fn organization(&self, side: Side) -> Option<&str> {
        match side {
            Side::Dms => None,
            Side::Web1on1 => Some(&self.rules.organization),
        }
    }

    fn needles(&self, record: &Linked) -> Vec<Needle> {
        needles_of(&record.emails, &record.phones, |text| self.e164(text))
    }

    fn bears(&self, record: &Linked, needle: &Needle) -> bool {
        needle.is_borne_by(&record.emails, &record.phones, |text| self.e164(text))
    }

    fn e164(&self, text: &str) -> Option<String> {
        e164(text, self.rules.region)
    }

    fn is_young(&self, came: Micros) -> bool {
        self.clock.now().since(came) < GRACE
    }

    pub(super) async fn known(&self, side: Side, id: &str) -> CrmResult<Record> {
        let known = records::load(&*self.store, &self.account, side, id).await;
        Ok(known.map_err(store_down)?.unwrap_or_default())
    }

    pub(super) async fn change(&self, side: Side, id: &str, change: impl FnMut(&mut Record)) -> CrmResult<()> {
        let now = self.clock.now();
        records::change(&*self.store, &self.account, (side, id), now, change)
            .await
            .map_err(store_down)
    }

    pub(super) async fn note(&self, side: Side, id: &str, trouble: Trouble) -> CrmResult<()> {
        self.change(side, id, |known| known.trouble = Some(trouble.clone()))
            .await
    }

    async fn applied(&self, contact: &str, applied: Applied) -> CrmResult<()> {
        self.change(Side::Web1on1, contact, |known| known.applied = Some(applied.clone()))
            .await
    }

    /// A record is no longer linked with `with`, if it was.
    async fn unjoin(&self, side: Side, id: &str, with: &str) -> CrmResult<()> {
        self.change(side, id, |known| {
            if known.with.as_deref() == Some(with) {
                known.with = None;
            }
        })
        .await
    }
}

fn said(trouble: &Trouble) -> Answer {
    match trouble {
        Trouble::Unmatched => Answer::Unmatched,
        Trouble::Ambiguous { ids } => Answer::Ambiguous { matches: ids.len() },
        Trouble::Taken { .. } => Answer::Taken,
        Trouble::Gone => Answer::Gone,
    }
}

fn lost(side: Side) -> CrmError {
    let message = format!("{} found a record and then did not have it", side.name());
    CrmError::new(ErrorKind::BadReply, message)
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::Dms => "dms",
        Side::Web1on1 => "web1on1",
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}
