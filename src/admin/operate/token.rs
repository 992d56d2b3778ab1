//! A checkpoint or an offset explained: what Talkdesk carries for us, and what it would get for it now. No contact data is in a
//! token, nor in the answer.

use contacts::accounts::{self, Account};
use contacts::ids::Position;
use contacts::ports::Slice;
use contacts::reading::{self, Narrowing};
use contacts::token::{Checkpoint, CheckpointText, End, Offset, Token, TokenError, key_of};
use contacts::{AccountId, Generation, Micros, Stream};
use serde::{Deserialize, Serialize};

use super::{Operate, Refusal, allow};
use crate::admin::access::{Grant, Operator};
use crate::admin::view::{When, when};
use crate::sampling::account_ids;

/// Accounts that are tried for a token whose account is not named.
const TRIED: usize = 200_000;
/// Records that are counted, and those of one read.
const COUNTED: usize = 50_000;
const AT_ONCE: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub token: String,
    /// Whom it is of; all are tried if it is not said.
    pub account: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct TokenView {
    /// `checkpoint`, `offset`, `date` (of a predecessor bridge) or `agents_offset`.
    pub kind: &'static str,
    /// What it means for Talkdesk's next call, in one sentence.
    pub sentence: String,
    pub account: Option<String>,
    pub integration: Option<String>,
    pub stream: Option<&'static str>,
    /// The id of the key that sealed it.
    pub key: Option<String>,
    /// Of the snapshot it is of, and whether that is still the one.
    pub generation: Option<String>,
    pub generation_is_current: Option<bool>,
    /// Everything up to here has been delivered.
    pub position: Option<When>,
    /// Every version with a CRM time up to this has been delivered.
    pub watermark: Option<When>,
    /// Where its run ends: `open` while the first build goes on.
    pub end: Option<String>,
    /// Only contacts with a later CRM time are delivered.
    pub newer_than: Option<When>,
    pub issued: Option<When>,
    pub expires: Option<When>,
    pub expired: bool,
    /// It was made under the mapping that is in use now.
    pub mapping_is_current: Option<bool>,
    /// `full`, `changes` or `resend`.
    pub mode: Option<&'static str>,
    /// Contacts it would bring now, over all pages.
    pub delivers: Option<usize>,
    /// There are more than were counted.
    pub delivers_more: bool,
}

impl Operate {
    /// Says what a token holds and would bring. It concerns no person, so those who may look may ask.
    pub async fn explain_token(&self, who: &Operator, question: &Question) -> Result<TokenView, Refusal> {
        allow(who, Grant::Read)?;
        let text = question.token.trim();
        if text.is_empty() || text.len() > 1_024 {
            return Err(Refusal::BadRequest(
                "give a checkpoint or an offset as Talkdesk holds it".into(),
            ));
        }
        let named = match &question.account {
            Some(id) => Some(self.known_account(id).await?),
            None => None,
        };
        // Of agents: the position of the last one delivered, a bare number.
        if let Ok(position) = text.parse::<u64>() {
            return self.explain_number(Position(position), named).await;
        }
        if let Some(date) = Micros::parse(text) {
            return self.explain_date(date, named).await;
        }
        let (account, stream, token) = self.opened(text, named).await?;
        self.explain_sealed(&account, stream, token, key_of(text)).await
    }

    async fn opened(&self, text: &str, named: Option<Account>) -> Result<(Account, Stream, Token), Refusal> {
        let keys = &self.worker.keys;
        let bad = |why: String| Err(Refusal::BadRequest(why));
        let foreign = "this is no checkpoint or offset of this bridge";
        let Some(key) = key_of(text) else {
            return bad(foreign.into());
        };
        let kids = keys.kids();
        if !kids.iter().any(|kid| kid == key) {
            let kids = kids.join(", ");
            return bad(format!(
                "it says that key `{key}` sealed it, and the key file has: {kids}"
            ));
        }
        let ids = match &named {
            Some(account) => vec![account.id.clone()],
            None => account_ids(&*self.store, TRIED).await?,
        };
        for (tried, id) in ids.iter().enumerate() {
            for stream in [Stream::Contacts, Stream::Agents] {
                match Token::read(text, keys, id, stream) {
                    Ok(token) => {
                        // Forgotten since it was listed: then nobody is left to explain it for.
                        let Some(account) = accounts::get(&*self.store, id).await? else {
                            continue;
                        };
                        return Ok((account, stream, token));
                    }
                    Err(TokenError::Foreign) => return bad(foreign.into()),
                    Err(TokenError::Forged | TokenError::UnknownKey | TokenError::Expired) => {}
                }
            }
            if tried % 1_000 == 999 {
                tokio::task::yield_now().await;
            }
        }
        match named {
            Some(account) => bad(format!(
                "it is not of account {}, or was changed on the way",
                account.id
            )),
            None => bad(format!(
                "it opens for none of the {} accounts that are known: its account was forgotten, or it was changed on the way",
                ids.len()
            )),
        }
    }

    async fn explain_sealed(
        &self,
        account: &Account,
        stream: Stream,
        token: Token,
        key: Option<&str>,
    ) -> Result<TokenView, Refusal> {
        let now = self.clock.now();
        let (checkpoint, offset) = match token {
            Token::Checkpoint(checkpoint) => (Some(CheckpointText::Ours(checkpoint)), None),
            Token::Offset(offset) => (None, Some(offset)),
            Token::Date(date) => (Some(CheckpointText::Date(date)), None),
        };
        let mut view = self.planned(account, stream, checkpoint, offset).await?;
        view.key = key.map(str::to_owned);
        match token {
            Token::Checkpoint(checkpoint) => view.of_checkpoint(&checkpoint, now),
            Token::Offset(offset) => view.of_offset(&offset, now),
            Token::Date(_) => {}
        }
        view.sentence = view.told();
        Ok(view)
    }

    async fn explain_date(&self, date: Micros, named: Option<Account>) -> Result<TokenView, Refusal> {
        let mut view = match &named {
            Some(account) => {
                self.planned(account, Stream::Contacts, Some(CheckpointText::Date(date)), None)
                    .await?
            }
            None => TokenView::empty("date"),
        };
        view.kind = "date";
        view.newer_than = view
            .newer_than
            .or(Some(when(date.minus(reading::PREDECESSOR_MARGIN), self.clock.now())));
        view.sentence = view.told();
        Ok(view)
    }

    async fn explain_number(&self, position: Position, named: Option<Account>) -> Result<TokenView, Refusal> {
        let mut view = TokenView::empty("agents_offset");
        view.stream = Some(Stream::Agents.as_str());
        view.position = Some(when(Micros(position.0), self.clock.now()));
        if let Some(account) = named {
            let slice = Slice {
                after: position,
                until: None,
                rows: AT_ONCE,
                bytes: usize::MAX,
                newer_than: None,
            };
            let (count, more) = self.count(&account.id, Stream::Agents, slice).await?;
            (view.delivers, view.delivers_more) = (Some(count), more);
            view.account = Some(account.id.to_string());
            view.integration = Some(account.integration);
        }
        view.sentence = view.told();
        Ok(view)
    }

    /// What the front would make of it.
    async fn planned(
        &self,
        account: &Account,
        stream: Stream,
        checkpoint: Option<CheckpointText>,
        offset: Option<Offset>,
    ) -> Result<TokenView, Refusal> {
        let mut view = TokenView::empty("checkpoint");
        view.account = Some(account.id.to_string());
        view.integration = Some(account.integration.clone());
        view.stream = Some(stream.as_str());
        let integration = self.integrations.get(&account.integration);
        let mapping = integration.as_ref().map(|integration| integration.mapping_version());
        let narrowing = integration.map_or(Narrowing::Never, |integration| integration.narrowing());
        let (of_generation, of_mapping) = match (checkpoint, &offset) {
            (_, Some(offset)) => (Some(offset.generation), Some(offset.mapping)),
            (Some(CheckpointText::Ours(checkpoint)), _) => (Some(checkpoint.generation), Some(checkpoint.mapping)),
            _ => (None, None),
        };
        view.generation = of_generation.map(|Generation(id)| format!("{id:016x}"));
        view.mapping_is_current = mapping.and_then(|mapping| Some(of_mapping? == mapping));
        let Some(head) = self.store.head(&account.id, stream).await? else {
            view.generation_is_current = of_generation.map(|_| false);
            return Ok(view);
        };
        view.generation_is_current = of_generation.map(|id| id == head.generation);
        let plan = reading::plan(checkpoint, offset, &head, mapping.unwrap_or_default(), narrowing);
        let (count, more) = self.count(&account.id, stream, plan.slice(AT_ONCE, usize::MAX)).await?;
        (view.delivers, view.delivers_more) = (Some(count), more);
        view.mode = Some(plan.mode.as_str());
        view.newer_than = plan.newer_than.map(|at| when(at, self.clock.now()));
        Ok(view)
    }

    /// Records of a slice, and whether there are more than are counted.
    async fn count(&self, account: &AccountId, stream: Stream, mut slice: Slice) -> Result<(usize, bool), Refusal> {
        let (mut count, mut looked) = (0, 0);
        loop {
            let page = match self.store.page(account, stream, &slice).await {
                Ok(page) => page,
                Err(error) if error.kind == contacts::ports::StoreErrorKind::NoSnapshot => return Ok((count, false)),
                Err(error) => return Err(error.into()),
            };
            count += page.bodies.len();
            looked += AT_ONCE;
            if !page.more || looked >= COUNTED {
                return Ok((count, page.more));
            }
            slice.after = page.last.unwrap_or(slice.after);
        }
    }
}

impl TokenView {
    fn empty(kind: &'static str) -> TokenView {
        TokenView {
            kind,
            sentence: String::new(),
            account: None,
            integration: None,
            stream: None,
            key: None,
            generation: None,
            generation_is_current: None,
            position: None,
            watermark: None,
            end: None,
            newer_than: None,
            issued: None,
            expires: None,
            expired: false,
            mapping_is_current: None,
            mode: None,
            delivers: None,
            delivers_more: false,
        }
    }

    fn of_checkpoint(&mut self, checkpoint: &Checkpoint, now: Micros) {
        self.kind = "checkpoint";
        self.position = Some(when(Micros(checkpoint.position.0), now));
        self.watermark = known(checkpoint.watermark, now);
    }

    fn of_offset(&mut self, offset: &Offset, now: Micros) {
        self.kind = "offset";
        self.position = Some(when(Micros(offset.position.0), now));
        self.watermark = known(offset.watermark, now);
        self.end = Some(match offset.end {
            End::Open => "open".to_owned(),
            End::Frozen { position, .. } => Micros(position.0).to_string(),
        });
        self.issued = Some(when(offset.issued, now));
        self.expires = Some(when(offset.expires(), now));
        self.expired = now > offset.expires();
    }

    fn told(&self) -> String {
        let count = match (self.delivers, self.delivers_more) {
            (None, _) => "what it brings is not known without a snapshot of its account".to_owned(),
            (Some(1), false) => "it brings 1 record now".to_owned(),
            (Some(count), false) => format!("it brings {count} records now"),
            (Some(count), true) => format!("it brings more than {count} records now"),
        };
        if self.expired {
            return "It has expired: the bridge answers 400, and Talkdesk begins a new run from its checkpoint"
                .to_owned();
        }
        let what = match (self.kind, self.generation_is_current) {
            ("date", _) => {
                "A date of a predecessor bridge; what changed from a day before it on is sent again".to_owned()
            }
            ("agents_offset", _) => "The offset of an agent sync: the position of the last agent delivered".to_owned(),
            (kind, Some(false)) => format!(
                "A {kind} of a snapshot that is gone (the store was lost or the account forgotten): {}",
                match self.mode {
                    Some("resend") => "what changed in the CRM after its watermark is sent again",
                    Some(_) => "everything is sent again",
                    None => "there is no snapshot yet",
                }
            ),
            (kind, _) => format!("A {kind} of the snapshot as it is: what came after its position is sent"),
        };
        format!("{what}; {count}")
    }
}

fn known(at: Micros, now: Micros) -> Option<When> {
    (at > Micros::ZERO).then(|| when(at, now))
}
