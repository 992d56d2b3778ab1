//! Which records make up a page. Every backend offers its records here, so the rule exists once.

use bytes::Bytes;
use contacts::ports::{Page, Slice};
use contacts::{Micros, Position};

/// What to do after a record was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// Offer the next one.
    Next,
    /// The page is full; the record offered is not on it.
    Full,
}

/// Takes records in ascending position until rows or bytes are used up.
pub(crate) struct Builder<'a> {
    slice: &'a Slice,
    page: Page,
    bytes: usize,
    scanned: usize,
}

impl<'a> Builder<'a> {
    pub fn new(slice: &'a Slice) -> Builder<'a> {
        Builder {
            slice,
            page: Page::default(),
            bytes: 0,
            scanned: 0,
        }
    }

    /// `body` is only called for a record that goes onto the page.
    pub fn offer(
        &mut self,
        position: Position,
        updated: Micros,
        length: usize,
        body: impl FnOnce() -> Bytes,
    ) -> Offered {
        let wanted = self.slice.newer_than.is_none_or(|time| updated > time);
        let fits = !wanted || self.page.bodies.is_empty() || self.bytes.saturating_add(length) <= self.slice.bytes;
        if self.scanned >= self.slice.rows || !fits {
            self.page.more = true;
            return Offered::Full;
        }
        self.scanned += 1;
        self.page.last = Some(position);
        if wanted {
            self.bytes += length;
            self.page.bodies.push(body());
        }
        Offered::Next
    }

    /// Where reading goes on.
    pub fn after(&self) -> Position {
        self.page.last.unwrap_or(self.slice.after)
    }

    /// Records worth fetching now: those that rows still allow and one more to learn whether any remain, but not many
    /// more than the bytes allow, judged by the bodies so far (1 KiB each before there are any).
    pub fn worth_fetching(&self) -> usize {
        let average = match self.page.bodies.len() {
            0 => 1024,
            taken => (self.bytes / taken).max(1),
        };
        let by_bytes = self.slice.bytes.saturating_sub(self.bytes) / average;
        let by_rows = self.slice.rows.saturating_sub(self.scanned).saturating_add(1);
        by_rows.min(by_bytes.max(64).saturating_add(2))
    }

    pub fn finish(self) -> Page {
        self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(slice: &Slice, records: &[(u64, u64, usize)]) -> Page {
        let mut builder = Builder::new(slice);
        for (position, updated, length) in records {
            let body = || Bytes::from(vec![b'x'; *length]);
            if builder.offer(Position(*position), Micros(*updated), *length, body) == Offered::Full {
                break;
            }
        }
        builder.finish()
    }

    const ALL: Slice = Slice {
        after: Position(0),
        until: None,
        rows: 9,
        bytes: 10,
        newer_than: None,
    };

    #[test]
    fn a_page_ends_by_bytes_by_rows_or_with_the_records() {
        let page = read(&ALL, &[(1, 0, 5), (2, 0, 5), (3, 0, 1)]);
        assert_eq!((page.bodies.len(), page.last, page.more), (2, Some(Position(2)), true));
        let page = read(&ALL, &[(1, 0, 50), (2, 0, 1)]);
        assert_eq!((page.bodies.len(), page.last, page.more), (1, Some(Position(1)), true));
        let page = read(&Slice { rows: 1, ..ALL }, &[(1, 0, 1), (2, 0, 1)]);
        assert_eq!((page.bodies.len(), page.last, page.more), (1, Some(Position(1)), true));
        let page = read(&ALL, &[(1, 0, 1)]);
        assert_eq!((page.bodies.len(), page.last, page.more), (1, Some(Position(1)), false));
        assert_eq!(read(&ALL, &[]), Page::default());
    }

    #[test]
    fn records_that_are_not_wanted_are_passed_over_but_count_as_scanned() {
        let slice = Slice {
            newer_than: Some(Micros(5)),
            rows: 3,
            ..ALL
        };
        let page = read(&slice, &[(1, 5, 1), (2, 6, 1), (3, 4, 90), (4, 9, 1)]);
        assert_eq!((page.bodies.len(), page.last, page.more), (1, Some(Position(3)), true));
    }

    #[test]
    fn fetching_asks_for_what_rows_and_bytes_allow() {
        let slice = Slice {
            rows: 1000,
            bytes: 1 << 20,
            ..ALL
        };
        assert_eq!(Builder::new(&slice).worth_fetching(), 1001);
        let slice = Slice { rows: 5000, ..slice };
        assert_eq!(Builder::new(&slice).worth_fetching(), 1026);
    }
}
