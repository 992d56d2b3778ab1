//! Numbers and known ids as Redis holds them.

use contacts::record::{Known, Row};
use contacts::{Micros, Position};

use super::error::unreadable;
use contacts::StoreError;

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// A commit has hundreds of these: none makes a text of its own.
pub(super) fn put_hex(to: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    to.extend((0..16).rev().map(|at| DIGITS[(number >> (4 * at)) as usize & 15]));
}

/// A page has two thousand of these: no digit decides a jump.
pub(super) fn from_hex(text: &[u8]) -> Result<u64, StoreError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => u8::MAX,
    };
    let add = |(number, all): (u64, u8), byte: &u8| {
        let digit = digit(*byte);
        (number << 4 | u64::from(digit & 15), all | digit)
    };
    let text: &[u8; 16] = text.try_into().map_err(|_| unreadable("a stored number"))?;
    match text.iter().fold((0, 0), add) {
        (number, 0..=15) => Ok(number),
        _ => Err(unreadable("a stored number")),
    }
}

/// Position, CRM time, observed, content hash, then the lookup keys; 8 bytes each, high byte first.
pub(super) fn known(packed: &[u8]) -> Result<Known, StoreError> {
    let (numbers, []) = packed.as_chunks::<8>() else {
        return Err(unreadable("what is known of an id"));
    };
    let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_be_bytes(*number)).collect();
    let [position, updated, observed, hash, keys @ ..] = numbers.as_slice() else {
        return Err(unreadable("what is known of an id"));
    };
    Ok(Known {
        position: Position(*position),
        updated: Micros(*updated),
        observed: Micros(*observed),
        hash: *hash,
        keys: keys.to_vec(),
    })
}

/// Appends what [`known`] reads back.
pub(super) fn put_known(to: &mut Vec<u8>, known: &Known) {
    let numbers = [known.position.0, known.updated.0, known.observed.0, known.hash];
    for number in numbers.iter().chain(&known.keys) {
        to.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends a record's member of the bodies.
pub(super) fn put_member(to: &mut Vec<u8>, position: Position, row: &Row) {
    put_hex(to, position.0);
    put_hex(to, row.updated.0);
    to.extend_from_slice(&row.body);
}

/// Appends a member of the tombstones.
pub(super) fn put_pair(to: &mut Vec<u8>, number: u64, id: &str) {
    put_hex(to, number);
    to.extend_from_slice(id.as_bytes());
}

/// The bounds of a position's member, and of no other: `g` follows every hex digit.
pub(super) fn range(position: Position) -> [String; 2] {
    let position = position.hex();
    [format!("[{position}"), format!("({position}g")]
}

/// Where the JSON begins in a member of the bodies: after position and CRM time.
pub(super) const JSON_AT: usize = 32;

/// Position and CRM time of a member of the bodies.
pub(super) fn member(member: &[u8]) -> Result<(Position, Micros), StoreError> {
    let (Some(position), Some(updated)) = (member.get(..16), member.get(16..JSON_AT)) else {
        return Err(unreadable("a stored record"));
    };
    Ok((Position(from_hex(position)?), Micros(from_hex(updated)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_reads_back_and_damage_is_an_error() {
        let expected = Known {
            position: Position(1),
            updated: Micros(u64::MAX),
            observed: Micros(3),
            hash: 0x8000_0000_0000_0000,
            keys: vec![7, 8],
        };
        let mut packed = Vec::new();
        put_known(&mut packed, &expected);
        assert_eq!(known(&packed).unwrap(), expected);
        assert!(known(&packed[..31]).is_err() && known(&packed[..24]).is_err() && known(&packed[..33]).is_err());
        let mut record = hex(5).into_bytes();
        put_hex(&mut record, u64::MAX);
        record.extend_from_slice(b"{}");
        assert_eq!(member(&record).unwrap(), (Position(5), Micros(u64::MAX)));
        assert!(member(b"0123").is_err() && member(&[b'x'; 40]).is_err());
    }
}
