//! How one page leads to the next.

use super::Vocabulary;
use crate::expr::{Expr, Names};
use crate::load::Table;

/// `page = { kind = …, … }`
#[derive(Debug)]
pub struct Paging {
    pub kind: PagingKind,
    /// `${page.size}` in the request.
    pub size: Option<u64>,
    /// How many rows one query can give at most (HubSpot's search: 10,000).
    pub cap: Option<u64>,
    pub at_cap: Option<AtCap>,
    /// More pages than this in one walk mean that the cursor does not move.
    pub max_pages: u64,
}

#[derive(Debug)]
pub enum PagingKind {
    /// One page holds all.
    None,
    /// `${page.number}` counts from `first`.
    Page { first: u64, more: Option<Expr>, stop: Stop },
    /// `${page.offset}` counts rows.
    Offset {
        total: Option<Expr>,
        more: Option<Expr>,
        stop: Stop,
    },
    /// A token of the reply goes into the next request.
    Token { next: Expr, more: Option<Expr> },
    /// The reply names the URL of the next page.
    NextUrl { next: Expr },
    /// The `Link` header does.
    LinkHeader,
    /// The last row's keys go into the next request.
    Keyset { keys: Vec<Expr>, stop: Stop },
}

/// When a walk is over that nothing in the reply ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A page with fewer rows than asked for.
    ShortPage,
    /// A page without rows: for CRMs that leave rows out of pages.
    EmptyPage,
}

/// What happens once a query has given `cap` rows.
#[derive(Debug)]
pub enum AtCap {
    /// Go on with a token of the reply, and without the page's number (Zoho, after 2,000 rows).
    Token(Expr),
    /// Begin a new query behind the last row, whose keys go into its requests.
    Keyset(Vec<Expr>),
}

const MOST_PAGES: u64 = 1_000_000;

#[derive(Clone, Copy)]
enum Word {
    None,
    Page,
    Offset,
    Token,
    NextUrl,
    LinkHeader,
    Keyset,
}

impl Paging {
    /// For an operation without `page`.
    pub(super) fn single() -> Paging {
        Paging {
            kind: PagingKind::None,
            size: None,
            cap: None,
            at_cap: None,
            max_pages: 1,
        }
    }

    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary, item: &Names) -> Option<Paging> {
        let reply = vocabulary.reply();
        let word = table.need_choice(
            "kind",
            &[
                ("none", Word::None),
                ("page", Word::Page),
                ("offset", Word::Offset),
                ("token", Word::Token),
                ("next_url", Word::NextUrl),
                ("link_header", Word::LinkHeader),
                ("keyset", Word::Keyset),
            ],
        );
        let size = table.number("size", 1..=10_000);
        let kind = word.and_then(|word| read_kind(&table, word, &reply, item));
        let sized = matches!(word, Some(Word::Keyset | Word::Page | Word::Offset));
        if sized && !table.has("size") {
            table.problem(
                "size",
                format!("`{}.size` is missing", table.path),
                Some("the rows of a full page"),
            );
        }
        let cap = table.number("cap", 1..=10_000_000);
        let at_cap = word.and_then(|word| read_at_cap(&table, word, cap, &reply, item));
        if cap.is_some() && !table.has("at_cap") && !matches!(word, Some(Word::Keyset)) {
            table.problem(
                "cap",
                "a walk that can meet its cap would lose rows",
                Some("page by keyset, or say with `at_cap` how to go on"),
            );
        }
        let max_pages = table.number("max_pages", 1..=MOST_PAGES).unwrap_or(20_000);
        table.finish();
        Some(Paging {
            kind: kind?,
            size,
            cap,
            at_cap,
            max_pages,
        })
    }
}

fn read_kind(table: &Table<'_, '_>, word: Word, reply: &Names, item: &Names) -> Option<PagingKind> {
    match word {
        Word::None => Some(PagingKind::None),
        Word::Page => Some(PagingKind::Page {
            first: table.number("first", 0..=1).unwrap_or(1),
            more: table.expr("more", reply),
            stop: read_stop(table),
        }),
        Word::Offset => Some(PagingKind::Offset {
            total: table.expr("total", reply),
            more: table.expr("more", reply),
            stop: read_stop(table),
        }),
        Word::Token => {
            let (next, more) = (table.need_expr("next", reply), table.expr("more", reply));
            Some(PagingKind::Token { next: next?, more })
        }
        Word::NextUrl => Some(PagingKind::NextUrl {
            next: table.need_expr("next", reply)?,
        }),
        Word::LinkHeader => Some(PagingKind::LinkHeader),
        Word::Keyset => {
            let keys = read_keys(table, item);
            let stop = read_stop(table);
            Some(PagingKind::Keyset { keys: keys?, stop })
        }
    }
}

fn read_keys(table: &Table<'_, '_>, item: &Names) -> Option<Vec<Expr>> {
    let texts = table.texts("keys").unwrap_or_default();
    if texts.is_empty() {
        table.problem(
            "keys",
            format!("`{}.keys` is missing", table.path),
            Some("for example [\"item.id\"]"),
        );
    }
    let keys: Vec<Expr> = texts
        .iter()
        .filter_map(|(text, at)| table.compile(text, *at, item))
        .collect();
    (!keys.is_empty() && keys.len() == texts.len()).then_some(keys)
}

/// A CRM may give fewer rows than it was asked for although there are more, so the default costs a call and loses nobody.
fn read_stop(table: &Table<'_, '_>) -> Stop {
    let words = [("short_page", Stop::ShortPage), ("empty_page", Stop::EmptyPage)];
    table.choice("stop", &words).unwrap_or(Stop::EmptyPage)
}

fn read_at_cap(table: &Table<'_, '_>, kind: Word, cap: Option<u64>, reply: &Names, item: &Names) -> Option<AtCap> {
    #[derive(Clone, Copy)]
    enum Way {
        Token,
        Keyset,
    }
    let way = table.choice("at_cap", &[("token", Way::Token), ("keyset", Way::Keyset)])?;
    if cap.is_none() {
        table.problem("at_cap", format!("`{}.at_cap` needs the `cap`", table.path), None);
    }
    match (way, kind) {
        (Way::Token, Word::Page | Word::Offset) => table.need_expr("next", reply).map(AtCap::Token),
        (Way::Keyset, Word::Page | Word::Offset | Word::Token | Word::NextUrl | Word::LinkHeader) => {
            read_keys(table, item).map(AtCap::Keyset)
        }
        (Way::Token, _) => {
            let hint = "only pages that are counted, `page` or `offset`, can go over to a token";
            table.problem("at_cap", "there is nothing to go over from", Some(hint));
            None
        }
        (Way::Keyset, Word::None | Word::Keyset) => {
            table.problem("at_cap", "a walk by keys meets no cap", Some("leave `at_cap` out"));
            None
        }
    }
}
