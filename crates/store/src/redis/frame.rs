//! Where a reply ends in the bytes that came, and where the strings lie in it. The client's own parser makes a value of
//! each of a page's thousand members; here they stay where they are. Everything that is no list of strings (errors,
//! numbers, nil) is left to the client's parser.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use redis::{RedisError, Value};

/// A length has at most 10 digits, and numbers at most 20 with their sign. Texts of errors are longer, but not like this.
const LINE: usize = 64 << 10;
/// Longest reply. Redis bounds one string of it by 512 MiB.
const REPLY: usize = 1 << 30;

/// One reply (RESP2).
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// A list of strings, none of them nil: slices of the buffer that was read into.
    Strings(Vec<Bytes>),
    Other(Value),
}

/// These bytes are no reply, so nothing that follows on the connection can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes that came are no reply of redis")]
pub(super) struct Garbled;

/// Finds the end of one reply while its bytes come in.
#[derive(Debug)]
pub(super) struct Frame {
    /// Bytes understood.
    at: usize,
    /// Values that must still come.
    open: usize,
    /// Values so far, lists themselves included.
    seen: usize,
    /// So far it is a list of strings.
    flat: bool,
    strings: Vec<Range<usize>>,
}

impl Frame {
    pub fn new() -> Frame {
        Frame {
            at: 0,
            open: 1,
            seen: 0,
            flat: true,
            strings: Vec::new(),
        }
    }

    /// Reads on in all bytes since the reply's first. `None`: it is complete; otherwise how many more are expected at
    /// least, a guess from the strings so far.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Garbled> {
        while self.open > 0 {
            let Some((kind, line)) = line(bytes, self.at)? else {
                return Ok(Some(self.rest(bytes.len())));
            };
            let after = line.end + 2;
            let first = self.seen == 0;
            match kind {
                b'$' => match length(&bytes[line])? {
                    Some(length) => {
                        let end = after + length;
                        let Some(tail) = bytes.get(end..end + 2) else {
                            let missing = end + 2 - bytes.len();
                            return Ok(Some(missing.max(self.rest(bytes.len()))));
                        };
                        if tail != b"\r\n" {
                            return Err(Garbled);
                        }
                        self.flat &= !first;
                        self.strings.push(after..end);
                        self.at = end + 2;
                    }
                    None => (self.flat, self.at) = (false, after),
                },
                b'*' => {
                    let length = length(&bytes[line])?;
                    self.flat &= first && length.is_some();
                    self.open = self.open.saturating_add(length.unwrap_or(0));
                    self.at = after;
                }
                b'+' | b'-' | b':' => (self.flat, self.at) = (false, after),
                _ => return Err(Garbled),
            }
            if self.at > REPLY || self.open > REPLY {
                return Err(Garbled);
            }
            self.seen += 1;
            self.open -= 1;
        }
        Ok(None)
    }

    /// What the values that are still to come may take if they are like those before.
    fn rest(&self, have: usize) -> usize {
        let expected = (self.at / self.seen.max(1)).saturating_mul(self.open).min(REPLY);
        (self.at + expected).saturating_sub(have).max(1)
    }

    /// Cuts the complete reply off the front of the bytes.
    pub fn take(self, bytes: &mut BytesMut) -> Result<Reply, RedisError> {
        let whole = bytes.split_to(self.at).freeze();
        if self.flat {
            return Ok(Reply::Strings(
                self.strings.into_iter().map(|range| whole.slice(range)).collect(),
            ));
        }
        redis::parse_redis_value(&whole).map(Reply::Other)
    }
}

/// The kind of value that begins at `at`, and the rest of its first line without the end of the line.
fn line(bytes: &[u8], at: usize) -> Result<Option<(u8, Range<usize>)>, Garbled> {
    let Some(kind) = bytes.get(at) else { return Ok(None) };
    let rest = &bytes[at + 1..];
    match rest.iter().take(LINE).position(|byte| *byte == b'\r') {
        Some(length) => match rest.get(length + 1) {
            Some(b'\n') => Ok(Some((*kind, at + 1..at + 1 + length))),
            Some(_) => Err(Garbled),
            None => Ok(None),
        },
        None if rest.len() >= LINE => Err(Garbled),
        None => Ok(None),
    }
}

/// `None`: nil.
fn length(digits: &[u8]) -> Result<Option<usize>, Garbled> {
    if digits == b"-1" {
        return Ok(None);
    }
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Garbled);
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    if number > REPLY { Err(Garbled) } else { Ok(Some(number)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds a reply in pieces, as a socket does, with the beginning of the next one behind it.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Option<Reply>, Garbled> {
        let mut frame = Frame::new();
        let mut buffer = BytesMut::new();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            buffer.extend_from_slice(&bytes[buffer.len()..end]);
            if frame.advance(&buffer)?.is_none() {
                buffer.extend_from_slice(&bytes[buffer.len()..]);
                let rest = buffer.len() - frame.at;
                let reply = frame.take(&mut buffer).map_err(|_| Garbled);
                assert_eq!(buffer.len(), rest);
                return reply.map(Some);
            }
        }
        Ok(None)
    }

    fn encode(value: &Value) -> Vec<u8> {
        match value {
            Value::Nil => b"$-1\r\n".to_vec(),
            Value::Int(number) => format!(":{number}\r\n").into_bytes(),
            Value::BulkString(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
            Value::SimpleString(text) => format!("+{text}\r\n").into_bytes(),
            Value::Array(values) => {
                let head = format!("*{}\r\n", values.len()).into_bytes();
                [vec![head], values.iter().map(encode).collect()].concat().concat()
            }
            other => panic!("not of RESP2: {other:?}"),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let string = prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::BulkString);
        let strings = prop::collection::vec(string.clone(), 0..20).prop_map(Value::Array);
        let leaf = prop_oneof![
            4 => string,
            1 => Just(Value::Nil),
            1 => any::<i64>().prop_map(Value::Int),
            1 => "[a-zA-Z ]{1,20}x".prop_map(Value::SimpleString),
        ];
        let tree = leaf.prop_recursive(3, 20, 5, |inner| {
            prop::collection::vec(inner, 0..6).prop_map(Value::Array)
        });
        prop_oneof![strings, tree]
    }

    /// Of strings alone.
    fn strings(value: &Value) -> Option<Vec<Bytes>> {
        let Value::Array(values) = value else { return None };
        let one = |value: &Value| match value {
            Value::BulkString(bytes) => Some(Bytes::copy_from_slice(bytes)),
            _ => None,
        };
        values.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn a_reply_is_read_as_the_client_reads_it(
            value in values(), next in values(), cuts in prop::collection::vec(any::<usize>(), 0..6)
        ) {
            let bytes = encode(&value);
            prop_assert_eq!(redis::parse_redis_value(&bytes).unwrap(), value.clone());
            let expected = strings(&value).map_or(Reply::Other(value), Reply::Strings);
            let both = [bytes.clone(), encode(&next)].concat();
            prop_assert_eq!(read(&both, &cuts), Ok(Some(expected)));
            // Cut short it is never complete.
            prop_assert_eq!(read(&bytes[..bytes.len() - 1], &cuts), Ok(None));
        }

        #[test]
        fn any_bytes_are_a_reply_or_refused(
            bytes in prop::collection::vec(prop::sample::select(b"*$+-:0123\r\nx".to_vec()), 0..60),
            cuts in prop::collection::vec(any::<usize>(), 0..4)
        ) {
            // However they come in, they are taken for the same.
            prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[]));
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_and_an_error_is_the_clients() {
        for garbled in [
            "x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$3\r\nabcde",
            "*99999999999\r\n",
            "$2000000000\r\n",
            "$\r\n",
            ":1\rx",
        ] {
            assert_eq!(read(garbled.as_bytes(), &[]), Err(Garbled), "{garbled}");
        }
        assert_eq!(read(&[b"-".as_slice(), &[b'x'; LINE]].concat(), &[]), Err(Garbled));
        let Ok(Some(Reply::Other(Value::ServerError(error)))) = read(b"-OOM too much\r\n", &[1]) else {
            panic!("not an error");
        };
        assert_eq!(error.code(), "OOM");
    }

    #[test]
    fn the_room_asked_for_is_about_what_comes() {
        let value = Value::Array(vec![Value::BulkString(vec![b'x'; 500]); 1000]);
        let bytes = encode(&value);
        let guess = Frame::new().advance(&bytes[..20_000]).unwrap().unwrap() + 20_000;
        assert!(
            (bytes.len() * 9 / 10..bytes.len() * 11 / 10).contains(&guess),
            "{guess}"
        );
        // A single string says how long it is.
        let bytes = encode(&Value::BulkString(vec![b'x'; 5000]));
        assert_eq!(Frame::new().advance(&bytes[..100]), Ok(Some(bytes.len() - 100)));
    }
}
