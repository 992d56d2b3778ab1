//! Unsigned 64-bit numbers in SQLite's signed ones.

use contacts::Micros;

/// Times and positions keep their order. Beyond 292,000 years after 1970 they are all the same.
pub(super) fn time(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn from_time(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn micros(value: i64) -> Micros {
    Micros(from_time(value))
}

/// Hashes, keys, generations and fences keep all their bits, and not their order.
pub(super) fn bits(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn from_bits(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A limit that SQLite understands.
pub(super) fn limit(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
