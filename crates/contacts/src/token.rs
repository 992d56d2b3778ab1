//! Checkpoints and offsets: what Talkdesk carries for us between requests, sealed so that only its own account can read
//! it back (design: checkpoint, offset).
//!
//! Checkpoint: `v1.<position as UTC time, for people>.<key id>.<base64url>`; offset: `v1.<key id>.<base64url>`. At most
//! 255 ASCII characters. The associated data is account, kind and stream, so a token of another account, of the other
//! kind or of the other stream does not open.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD as BASE64URL;

use crate::ids::{AccountId, Generation, Position, Stream};
use crate::keys::{Keys, Purpose};
use crate::time::Micros;

/// How long an offset can be used. Checkpoints live for ever: Talkdesk may keep one for months.
pub const OFFSET_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the next run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub generation: Generation,
    /// Everything up to here has been delivered.
    pub position: Position,
    /// Every version with a CRM time ≤ this has been delivered; used when the generation is gone. 0: none.
    pub watermark: Micros,
    /// The version of the mapping that made what was delivered.
    pub mapping: u32,
}

/// Where a run stands between two pages. Decides alone what comes next: the checkpoint beside it is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    pub generation: Generation,
    /// Everything of this run up to here has been delivered.
    pub position: Position,
    pub end: End,
    /// The watermark the run started with: what its checkpoints carry until it is complete.
    pub watermark: Micros,
    pub mapping: u32,
    /// Only contacts with a CRM time later than this are delivered. `None`: all.
    pub newer_than: Option<Micros>,
    pub issued: Micros,
}

/// Where a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first build goes on: the end freezes on the first page read at or after *ready*.
    Open,
    /// `watermark`: the snapshot's, when the end was frozen; the checkpoint of the last page carries it.
    Frozen { position: Position, watermark: Micros },
}

/// Why a token could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a token of this bridge")]
    Foreign,
    #[error("sealed with a key that is no longer listed")]
    UnknownKey,
    #[error("made for another account, or changed on the way")]
    Forged,
    #[error("older than {} days", OFFSET_LIFE.as_secs() / 86_400)]
    Expired,
}

/// Any text that Talkdesk carries for us, for people who ask what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Checkpoint(Checkpoint),
    /// Also one that has expired.
    Offset(Offset),
    /// The bare date of a predecessor bridge.
    Date(Micros),
}

impl Token {
    pub fn read(text: &str, keys: &Keys, account: &AccountId, stream: Stream) -> Result<Token, TokenError> {
        if is_offset(text) {
            return Offset::read(text, keys, account, stream).map(Token::Offset);
        }
        Checkpoint::open(text, keys, account, stream).map(|checkpoint| match checkpoint {
            CheckpointText::Ours(checkpoint) => Token::Checkpoint(checkpoint),
            CheckpointText::Date(date) => Token::Date(date),
        })
    }
}

/// Neither key ids nor base64url hold a dot, and a time for people does.
fn is_offset(text: &str) -> bool {
    text.strip_prefix("v1.")
        .is_some_and(|rest| rest.matches('.').count() == 1)
}

/// The id of the key that a token says it is sealed with.
pub fn key_of(text: &str) -> Option<&str> {
    let (rest, _) = text.strip_prefix("v1.")?.rsplit_once('.')?;
    Some(rest.rsplit_once('.').map_or(rest, |(_, kid)| kid))
}

/// What a checkpoint text turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointText {
    Ours(Checkpoint),
    /// The bare date of a predecessor bridge.
    Date(Micros),
}

impl Checkpoint {
    pub fn seal(&self, keys: &Keys, account: &AccountId, stream: Stream) -> String {
        let mut plain = vec![1u8];
        plain.extend_from_slice(&self.generation.0.to_be_bytes());
        plain.extend_from_slice(&self.position.0.to_be_bytes());
        plain.extend_from_slice(&self.watermark.0.to_be_bytes());
        plain.extend_from_slice(&self.mapping.to_be_bytes());
        let (kid, sealed) = keys.seal(Purpose::Tokens, &owner(account, "checkpoint", stream), &plain);
        format!("v1.{}.{kid}.{}", Micros(self.position.0), BASE64URL.encode(&sealed))
    }

    /// Reads a checkpoint of ours or a predecessor's bare date.
    pub fn open(text: &str, keys: &Keys, account: &AccountId, stream: Stream) -> Result<CheckpointText, TokenError> {
        let Some(rest) = text.strip_prefix("v1.") else {
            return Micros::parse(text).map(CheckpointText::Date).ok_or(TokenError::Foreign);
        };
        let (rest, sealed) = rest.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (people, kid) = rest.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let plain = open(keys, &owner(account, "checkpoint", stream), kid, sealed)?;
        let mut fields = Fields(&plain);
        let checkpoint = (|| {
            fields.byte().filter(|version| *version == 1)?;
            Some(Checkpoint {
                generation: Generation(fields.number()?),
                position: Position(fields.number()?),
                watermark: Micros(fields.number()?),
                mapping: fields.short()?,
            })
        })()
        .filter(|_| fields.0.is_empty())
        .ok_or(TokenError::Foreign)?;
        // The part for people is no decoration that may lie.
        if people != Micros(checkpoint.position.0).to_string() {
            return Err(TokenError::Forged);
        }
        Ok(CheckpointText::Ours(checkpoint))
    }
}

impl Offset {
    pub fn seal(&self, keys: &Keys, account: &AccountId, stream: Stream) -> String {
        let (end, end_watermark) = match self.end {
            End::Open => (u64::MAX, Micros::ZERO),
            End::Frozen { position, watermark } => (position.0, watermark),
        };
        let mut plain = vec![1u8];
        for number in [
            self.generation.0,
            self.position.0,
            end,
            end_watermark.0,
            self.watermark.0,
            self.newer_than.map_or(u64::MAX, |time| time.0),
            self.issued.0,
        ] {
            plain.extend_from_slice(&number.to_be_bytes());
        }
        plain.extend_from_slice(&self.mapping.to_be_bytes());
        let (kid, sealed) = keys.seal(Purpose::Tokens, &owner(account, "offset", stream), &plain);
        format!("v1.{kid}.{}", BASE64URL.encode(&sealed))
    }

    pub fn open(
        text: &str,
        keys: &Keys,
        account: &AccountId,
        stream: Stream,
        now: Micros,
    ) -> Result<Offset, TokenError> {
        let offset = Offset::read(text, keys, account, stream)?;
        if now > offset.expires() {
            return Err(TokenError::Expired);
        }
        Ok(offset)
    }

    /// The last moment at which it can be used.
    pub fn expires(&self) -> Micros {
        self.issued.plus(OFFSET_LIFE)
    }

    fn read(text: &str, keys: &Keys, account: &AccountId, stream: Stream) -> Result<Offset, TokenError> {
        let rest = text.strip_prefix("v1.").ok_or(TokenError::Foreign)?;
        let (kid, sealed) = rest.split_once('.').ok_or(TokenError::Foreign)?;
        let plain = open(keys, &owner(account, "offset", stream), kid, sealed)?;
        let mut fields = Fields(&plain);
        (|| {
            fields.byte().filter(|version| *version == 1)?;
            let generation = Generation(fields.number()?);
            let position = Position(fields.number()?);
            let (end, end_watermark) = (fields.number()?, Micros(fields.number()?));
            Some(Offset {
                generation,
                position,
                end: match end {
                    u64::MAX => End::Open,
                    position => End::Frozen {
                        position: Position(position),
                        watermark: end_watermark,
                    },
                },
                watermark: Micros(fields.number()?),
                newer_than: Some(fields.number()?).filter(|time| *time != u64::MAX).map(Micros),
                issued: Micros(fields.number()?),
                mapping: fields.short()?,
            })
        })()
        .filter(|_| fields.0.is_empty())
        .ok_or(TokenError::Foreign)
    }
}

fn owner(account: &AccountId, kind: &str, stream: Stream) -> String {
    format!("{account}|{kind}|{}", stream.as_str())
}

fn open(keys: &Keys, owner: &str, kid: &str, sealed: &str) -> Result<Vec<u8>, TokenError> {
    use crate::keys::SealError;
    let sealed = BASE64URL.decode(sealed.as_bytes()).map_err(|_| TokenError::Foreign)?;
    keys.open(Purpose::Tokens, owner, kid, &sealed)
        .map_err(|error| match error {
            SealError::UnknownKey => TokenError::UnknownKey,
            SealError::Forged => TokenError::Forged,
        })
}

/// Takes big-endian numbers off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    fn short(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{Identity, test_keys};

    fn account(keys: &Keys, org: &str) -> AccountId {
        keys.account_id(&Identity {
            integration: "demo",
            site: "",
            org,
            principal: "",
        })
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            generation: Generation(7),
            position: Position(1_700_000_000_000_000),
            watermark: Micros(1_600_000_000_000_000),
            mapping: 9,
        }
    }

    fn offset() -> Offset {
        Offset {
            generation: Generation(7),
            position: Position(1_700_000_000_000_000),
            end: End::Frozen {
                position: Position(1_800_000_000_000_000),
                watermark: Micros(3),
            },
            watermark: Micros(5),
            mapping: 9,
            newer_than: Some(Micros(4)),
            issued: Micros(1_900_000_000_000_000),
        }
    }

    proptest! {
        #[test]
        fn tokens_read_back_as_written_and_fit(
            generation in 1..u64::MAX, position in 0..4_000_000_000_000_000u64, watermark: u64, mapping: u32,
            end in prop::option::of(0..u64::MAX - 1), newer in prop::option::of(0..u64::MAX - 1),
        ) {
            let keys = test_keys(1);
            let account = account(&keys, "a");
            let checkpoint = Checkpoint {
                generation: Generation(generation), position: Position(position), watermark: Micros(watermark), mapping,
            };
            let text = checkpoint.seal(&keys, &account, Stream::Contacts);
            prop_assert!(text.len() <= 255 && text.is_ascii());
            prop_assert_eq!(
                Checkpoint::open(&text, &keys, &account, Stream::Contacts), Ok(CheckpointText::Ours(checkpoint)),
            );
            let end = end.map_or(End::Open, |end| End::Frozen { position: Position(end), watermark: Micros(watermark) });
            let offset = Offset {
                generation: Generation(generation), position: Position(position), end, watermark: Micros(watermark),
                mapping, newer_than: newer.map(Micros), issued: Micros(10),
            };
            let text = offset.seal(&keys, &account, Stream::Contacts);
            prop_assert!(text.len() <= 255 && text.is_ascii());
            prop_assert_eq!(Offset::open(&text, &keys, &account, Stream::Contacts, Micros(11)), Ok(offset));
            for (text, token) in [
                (checkpoint.seal(&keys, &account, Stream::Contacts), Token::Checkpoint(checkpoint)),
                (text, Token::Offset(offset)),
            ] {
                prop_assert_eq!(Token::read(&text, &keys, &account, Stream::Contacts), Ok(token));
                let kids = keys.kids();
                prop_assert_eq!(key_of(&text), kids.first().map(String::as_str));
            }
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,120}") {
            let keys = test_keys(1);
            let account = account(&keys, "a");
            for text in [text.clone(), format!("v1.{text}"), format!("v1.new.{text}")] {
                let _ = Checkpoint::open(&text, &keys, &account, Stream::Contacts);
                let _ = (Token::read(&text, &keys, &account, Stream::Contacts), key_of(&text));
                prop_assert!(Offset::open(&text, &keys, &account, Stream::Contacts, Micros(0)).is_err());
            }
        }
    }

    #[test]
    fn invariant_11_tokens_of_others_do_not_open_nor_does_any_changed_byte() {
        let keys = test_keys(1);
        let (mine, yours) = (account(&keys, "a"), account(&keys, "b"));
        let checkpoint = checkpoint().seal(&keys, &mine, Stream::Contacts);
        let offset = offset();
        let now = offset.issued;
        let text = offset.seal(&keys, &mine, Stream::Contacts);

        assert_eq!(
            Checkpoint::open(&checkpoint, &keys, &yours, Stream::Contacts),
            Err(TokenError::Forged)
        );
        assert_eq!(
            Checkpoint::open(&checkpoint, &keys, &mine, Stream::Agents),
            Err(TokenError::Forged)
        );
        assert_eq!(
            Offset::open(&text, &keys, &yours, Stream::Contacts, now),
            Err(TokenError::Forged)
        );
        assert_eq!(
            Offset::open(&checkpoint, &keys, &mine, Stream::Contacts, now),
            Err(TokenError::Foreign)
        );
        assert!(Checkpoint::open(&checkpoint, &test_keys(40), &mine, Stream::Contacts).is_err());

        for i in 0..checkpoint.len() {
            let mut other = checkpoint.clone().into_bytes();
            other[i] = if other[i] == b'7' { b'8' } else { b'7' };
            let other = String::from_utf8(other).unwrap();
            assert!(
                Checkpoint::open(&other, &keys, &mine, Stream::Contacts).is_err(),
                "byte {i}"
            );
        }
        for i in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[i] = if other[i] == b'7' { b'8' } else { b'7' };
            let other = String::from_utf8(other).unwrap();
            assert!(
                Offset::open(&other, &keys, &mine, Stream::Contacts, now).is_err(),
                "byte {i}"
            );
            assert!(
                Offset::open(&text[..i], &keys, &mine, Stream::Contacts, now).is_err(),
                "cut at {i}"
            );
        }
    }

    #[test]
    fn offsets_expire_and_checkpoints_do_not() {
        let keys = test_keys(1);
        let account = account(&keys, "a");
        let offset = offset();
        let text = offset.seal(&keys, &account, Stream::Contacts);
        let last = offset.issued.plus(OFFSET_LIFE);
        assert!(Offset::open(&text, &keys, &account, Stream::Contacts, last).is_ok());
        let late = Micros(last.0 + 1);
        assert_eq!(
            Offset::open(&text, &keys, &account, Stream::Contacts, late),
            Err(TokenError::Expired)
        );
        assert_eq!(
            Token::read(&text, &keys, &account, Stream::Contacts),
            Ok(Token::Offset(offset)),
            "people may still read it"
        );
    }

    #[test]
    fn a_predecessors_date_is_understood() {
        let keys = test_keys(1);
        let account = account(&keys, "a");
        let open = |text: &str| Checkpoint::open(text, &keys, &account, Stream::Contacts);
        let date = CheckpointText::Date(Micros::from_secs(1_353_452_460));
        assert_eq!(open("2012-11-20 23:01:00 UTC"), Ok(date));
        assert_eq!(open("2012-11-20T23:01:00Z"), Ok(date));
        assert_eq!(open("page-7"), Err(TokenError::Foreign));
    }
}
