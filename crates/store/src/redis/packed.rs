//! Numbers and known ids as Redis holds them.

use contacts::record::{Known, Removal, Row};
use contacts::{Micros, Position};

use super::error::unreadable;
use contacts::StoreError;

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
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

fn pack(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_be_bytes).collect()
}

/// The arguments of a row in `commit.lua`.
pub(super) fn row(row: &Row) -> [Vec<u8>; 5] {
    let mut content = hex(row.updated.0).into_bytes();
    content.extend_from_slice(&row.body);
    let indexed = if row.indexed { b"1" } else { b"0" };
    [
        row.id.clone().into_bytes(),
        pack([row.updated.0, row.observed.0, row.hash]),
        indexed.to_vec(),
        content,
        pack(row.keys.iter().copied()),
    ]
}

/// The arguments of a removal in `commit.lua`.
pub(super) fn removal(removal: &Removal) -> [Vec<u8>; 2] {
    [
        removal.id.clone().into_bytes(),
        pack([removal.updated.0, removal.observed.0]),
    ]
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
        let packed = pack([1, u64::MAX, 3, 0x8000_0000_0000_0000, 7, 8]);
        let expected = Known {
            position: Position(1),
            updated: Micros(u64::MAX),
            observed: Micros(3),
            hash: 0x8000_0000_0000_0000,
            keys: vec![7, 8],
        };
        assert_eq!(known(&packed).unwrap(), expected);
        assert!(known(&packed[..31]).is_err() && known(&packed[..24]).is_err() && known(&packed[..33]).is_err());
        let record = format!("{}{}{{}}", hex(5), hex(u64::MAX));
        assert_eq!(member(record.as_bytes()).unwrap(), (Position(5), Micros(u64::MAX)));
        assert!(member(b"0123").is_err() && member(&[b'x'; 40]).is_err());
    }
}
