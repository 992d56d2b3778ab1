//! Runs held against each other. Pure.

use std::collections::{HashMap, HashSet};

use super::shape::quoted;
use super::sync::{Page, Row, Walk};

pub(super) fn owned(ids: Vec<&str>) -> Vec<String> {
    ids.into_iter().map(str::to_owned).collect()
}

/// Those of `wanted` that are not in `got`, in whatever version.
pub(super) fn missing<'a>(
    wanted: impl Iterator<Item = &'a Row>,
    got: impl IntoIterator<Item = &'a Row>,
) -> Vec<&'a str> {
    let got: HashSet<&str> = got.into_iter().map(|row| row.id.as_str()).collect();
    wanted
        .map(|row| row.id.as_str())
        .filter(|id| !got.contains(id))
        .collect()
}

/// `3 contacts ("a", "b" and others)`; nothing where there are none.
pub(super) fn listed<T: AsRef<str>>(ids: &[T]) -> Option<String> {
    let quoted: Vec<String> = ids.iter().take(2).map(|id| quoted(id.as_ref())).collect();
    match ids.len() {
        0 => None,
        1 => Some(format!("contact {}", quoted[0])),
        2 => Some(format!("2 contacts ({})", quoted.join(" and "))),
        count => Some(format!("{count} contacts ({} and others)", quoted.join(", "))),
    }
}

/// `limit` numbers of 1 to `count`, the first and the last among them.
pub(super) fn spread(count: usize, limit: usize) -> Vec<usize> {
    let limit = limit.min(count);
    match limit {
        0 => Vec::new(),
        1 => vec![count],
        _ => (0..limit).map(|step| 1 + step * (count - 1) / (limit - 1)).collect(),
    }
}

/// Contacts of pages after the first `number`, unless those held them as they are, that a run from there lacks.
pub(super) fn lost<'a>(reference: &'a Walk, number: usize, run: &'a Walk) -> Vec<&'a str> {
    let (earlier, later) = reference.pages.split_at(number);
    let earlier: HashSet<(&str, u64)> = versions(earlier).collect();
    let later = later
        .iter()
        .flat_map(|page| &page.rows)
        .filter(|row| !earlier.contains(&(row.id.as_str(), row.hash)));
    missing(later, run.rows())
}

/// What a run from page `number`'s checkpoint repeats of the pages up to it, if that cannot be ties or an overlap.
///
/// Contacts are delivered in the order of the checkpoint's field (step 6), so those that share the checkpoint's moment,
/// or lie within an overlap before it, are the last ones delivered. Others are behind it. All of them, from the last
/// page's checkpoint, means that every run will repeat them. What has `moved` does not count.
pub(super) fn again(reference: &Walk, number: usize, run: &Walk, ties: usize, moved: &HashSet<&str>) -> Option<String> {
    let (earlier, later) = reference.pages.split_at(number);
    let later_ids: HashSet<&str> = versions(later).map(|(id, _)| id).collect();
    // The last version of each, in the order of delivery.
    let mut order: Vec<(&str, u64)> = Vec::new();
    let mut known: HashSet<&str> = HashSet::new();
    let all: Vec<(&str, u64)> = versions(earlier).collect();
    for (id, hash) in all.into_iter().rev() {
        if known.insert(id) && !later_ids.contains(id) && !moved.contains(id) {
            order.push((id, hash));
        }
    }
    let got: HashMap<&str, u64> = run.rows().map(|row| (row.id.as_str(), row.hash)).collect();
    let repeated = |entry: &&(&str, u64)| got.get(entry.0) == Some(&entry.1);
    let all_repeats: Vec<&str> = order.iter().filter(repeated).map(|(id, _)| *id).collect();
    let at_the_end = order.iter().take_while(repeated).count();
    let ids = listed(&all_repeats)?;
    if at_the_end < all_repeats.len() {
        return Some(format!("brings {ids} again, unchanged, and not others that came after"));
    }
    if all_repeats.len() > ties {
        return Some(format!("brings {ids} again, unchanged: more than {ties} (--ties)"));
    }
    let everything = all_repeats.len() == order.len() && order.len() > 1;
    (everything && later.is_empty()).then(|| {
        format!("brings {ids} again, unchanged: that is all of them, as every run will, even if they share one moment")
    })
}

/// Contacts that in `fresh` come after one that came after them in `reference`, or that it lacks.
pub(super) fn moved<'a>(reference: &'a Walk, fresh: &Walk) -> HashSet<&'a str> {
    let last_place = |walk: &Walk| -> HashMap<String, usize> {
        let ids = walk.rows().map(|row| row.id.clone());
        ids.zip(0..).collect()
    };
    let (before, after) = (last_place(reference), last_place(fresh));
    let mut order: Vec<&str> = reference.rows().map(|row| row.id.as_str()).collect();
    order.sort_by_key(|id| before[*id]);
    order.dedup();
    let mut moved = HashSet::new();
    let mut earliest = usize::MAX;
    for id in order.into_iter().rev() {
        match after.get(id) {
            Some(&place) if place < earliest => earliest = place,
            _ => drop(moved.insert(id)),
        }
    }
    moved
}

fn versions(pages: &[Page]) -> impl Iterator<Item = (&str, u64)> {
    pages
        .iter()
        .flat_map(|page| &page.rows)
        .map(|row| (row.id.as_str(), row.hash))
}

/// Pages with contacts whose checkpoint is that of the page before, and how many have a page before.
pub(super) fn standing(walk: &Walk) -> (usize, usize) {
    let pages: Vec<_> = walk.pages.iter().filter(|page| !page.rows.is_empty()).collect();
    let same = |pair: &&[&Page]| pair[0].checkpoint.is_some() && pair[0].checkpoint == pair[1].checkpoint;
    (pages.windows(2).filter(same).count(), pages.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sync::Meta;
    use super::*;

    /// Pages of ids; an upper-case id is the same contact in another version.
    fn walk(pages: &[&str]) -> Walk {
        let row = |id: char| Row {
            id: id.to_lowercase().to_string(),
            hash: u64::from(id),
        };
        let page = |ids: &&str| Page {
            meta: Meta::default(),
            rows: ids.chars().map(row).collect(),
            checkpoint: None,
            next: None,
            context: None,
        };
        Walk {
            pages: pages.iter().map(page).collect(),
            ended: true,
            refused: None,
        }
    }

    #[test]
    fn what_later_pages_held_must_come_in_whatever_version() {
        let reference = walk(&["abc", "def", "gAh"]);
        assert_eq!(lost(&reference, 1, &walk(&["DefghA"])), Vec::<&str>::new());
        assert_eq!(lost(&reference, 1, &walk(&["dfgh"])), ["e", "a"]);
        assert_eq!(lost(&reference, 3, &walk(&[""])), Vec::<&str>::new());
        // Held by the first page as it is, and by the second again: nobody misses it.
        assert_eq!(lost(&walk(&["abc", "cd"]), 1, &walk(&["d"])), Vec::<&str>::new());
    }

    #[test]
    fn only_the_last_ones_may_come_again() {
        let reference = walk(&["abc", "def"]);
        let none = HashSet::new();
        let again = |number, run: &str| again(&reference, number, &walk(&[run]), 3, &none);
        assert_eq!(again(1, "def"), None);
        assert_eq!(again(1, "cdef"), None, "a tie");
        assert_eq!(again(1, "abcdef"), None, "a page of one moment");
        assert_eq!(again(1, "Adef"), None, "changed");
        assert!(again(1, "bdef").unwrap().contains("not others"));
        assert_eq!(again(2, "def"), None);
        assert!(again(2, "cdef").unwrap().contains("--ties"));
        assert!(again(2, "abcdef").is_some());
        let small = walk(&["ab"]);
        assert!(
            super::again(&small, 1, &walk(&["ab"]), 3, &none)
                .unwrap()
                .contains("all of them")
        );
        assert_eq!(
            super::again(&walk(&["a"]), 1, &walk(&["a"]), 3, &none),
            None,
            "the newest one, alone"
        );
    }

    #[test]
    fn what_was_touched_has_moved() {
        let reference = walk(&["abc", "def"]);
        let touched = walk(&["acd", "efb"]);
        assert_eq!(moved(&reference, &touched), ["b"].into());
        assert_eq!(moved(&reference, &walk(&["abc", "def"])), HashSet::new());
        assert_eq!(moved(&reference, &walk(&["abc", "df"])), ["e"].into());
        assert_eq!(
            moved(&walk(&["abc", "bde"]), &walk(&["ac", "bde"])),
            HashSet::new(),
            "the last place counts"
        );
        let run = walk(&["defb"]);
        assert!(super::again(&reference, 1, &run, 3, &HashSet::new()).is_some());
        assert_eq!(super::again(&reference, 1, &run, 3, &moved(&reference, &touched)), None);
    }

    #[test]
    fn starts_are_spread() {
        assert_eq!(spread(5, 10), [1, 2, 3, 4, 5]);
        assert_eq!(spread(100, 4), [1, 34, 67, 100]);
        assert_eq!(spread(3, 1), [3]);
        assert!(spread(0, 4).is_empty() && spread(4, 0).is_empty());
    }

    /// What a bridge delivers whose checkpoint is a time: `page` to a page, and all that is not before the checkpoint.
    fn by_time(times: &[u8], page: usize, number: usize) -> (Walk, Vec<Row>) {
        let mut times: Vec<u8> = times.to_vec();
        times.sort_unstable();
        let row = |index: usize| Row {
            id: index.to_string(),
            hash: 0,
        };
        let chunks = (0..times.len()).collect::<Vec<_>>();
        let mut reference = walk(&[]);
        for chunk in chunks.chunks(page) {
            let mut page = walk(&[""]).pages.remove(0);
            page.rows = chunk.iter().copied().map(row).collect();
            reference.pages.push(page);
        }
        let last = (number * page).min(times.len()) - 1;
        let run = (0..times.len()).filter(|index| times[*index] >= times[last]).map(row);
        (reference, run.collect())
    }

    fn run_of(rows: Vec<Row>) -> Walk {
        let mut run = walk(&[""]);
        run.pages[0].rows = rows;
        run
    }

    proptest! {
        #[test]
        fn ties_are_allowed_and_every_loss_is_seen(
            times in prop::collection::vec(0..9_u8, 2..40),
            page in 1..9_usize,
            pick in any::<prop::sample::Index>(),
            dropped in any::<prop::sample::Index>(),
        ) {
            let number = 1 + pick.index(times.len().div_ceil(page));
            let (reference, rows) = by_time(&times, page, number);
            let whole = run_of(rows.clone());
            let none = HashSet::new();
            prop_assert_eq!(lost(&reference, number, &whole), Vec::<&str>::new());
            let everything = number == reference.pages.len() && rows.len() == times.len();
            prop_assert_eq!(again(&reference, number, &whole, 40, &none).is_some(), everything);

            let mut rest = rows;
            let gone = rest.remove(dropped.index(rest.len()));
            let was_later = reference.pages[number..].iter().any(|page| page.rows.contains(&gone));
            let run = run_of(rest.clone());
            let lost: Vec<&str> = lost(&reference, number, &run);
            prop_assert_eq!(lost, if was_later { vec![gone.id.as_str()] } else { Vec::new() });

            // The very first contact, before one that is not repeated.
            let early = reference.pages[0].rows[0].clone();
            let between = reference.pages[..number].iter().flat_map(|page| &page.rows).any(|row| !rest.contains(row) && *row != early);
            if !rest.contains(&early) && between {
                rest.push(early);
                prop_assert!(again(&reference, number, &run_of(rest), 40, &none).is_some());
            }
        }
    }
}
