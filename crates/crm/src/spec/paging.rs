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
    /// How many results one query can give at most (HubSpot's search: 10,000).
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
    Page { first: u64, more: Option<Expr> },
    /// `${page.offset}` counts rows.
    Offset { total: Option<Expr> },
    /// A token of the reply goes into the next request.
    Token { next: Expr, more: Option<Expr> },
    /// The reply names the URL of the next page.
    NextUrl { next: Expr },
    /// The `Link` header does.
    LinkHeader,
    /// The last row's keys go into the next request.
    Keyset { keys: Vec<Expr>, stop: Stop },
}

/// When a keyset walk is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A page with fewer rows than asked for.
    ShortPage,
    /// A page without rows: for CRMs that leave rows out of pages.
    EmptyPage,
}

/// What happens at the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCap {
    /// Go on with a token (Zoho, after 2,000 rows).
    Token,
    /// Begin a new query behind the last row.
    Keyset,
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
        let at_cap = table.choice("at_cap", &[("token", AtCap::Token), ("keyset", AtCap::Keyset)]);
        if at_cap.is_some() {
            table.not_run_yet("at_cap", "`at_cap`");
        }
        if cap.is_some() && at_cap.is_none() && !matches!(word, Some(Word::Keyset)) {
            table.problem(
                "cap",
                "a walk that can meet its cap would lose rows",
                Some("page by keyset"),
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
        Word::Page => {
            table.not_run_yet("kind", "paging kind `page`");
            let first = table.number("first", 0..=1).unwrap_or(1);
            Some(PagingKind::Page {
                first,
                more: table.expr("more", reply),
            })
        }
        Word::Offset => {
            table.not_run_yet("kind", "paging kind `offset`");
            Some(PagingKind::Offset {
                total: table.expr("total", reply),
            })
        }
        Word::Token => {
            let (next, more) = (table.need_expr("next", reply), table.expr("more", reply));
            Some(PagingKind::Token { next: next?, more })
        }
        Word::NextUrl => Some(PagingKind::NextUrl {
            next: table.need_expr("next", reply)?,
        }),
        Word::LinkHeader => {
            table.not_run_yet("kind", "paging kind `link_header`");
            Some(PagingKind::LinkHeader)
        }
        Word::Keyset => {
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
            let stop = table
                .choice(
                    "stop",
                    &[("short_page", Stop::ShortPage), ("empty_page", Stop::EmptyPage)],
                )
                .unwrap_or(Stop::EmptyPage);
            (!keys.is_empty() && keys.len() == texts.len()).then_some(PagingKind::Keyset { keys, stop })
        }
    }
}
