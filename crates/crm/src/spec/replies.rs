//! What a reply means. The status alone never suffices: some CRMs answer 200 with an error in it, some 403 when they
//! throttle.

use super::Vocabulary;
use crate::expr::Expr;
use crate::load::Table;

/// `[replies]`: applies to every operation.
#[derive(Debug, Default)]
pub struct Replies {
    /// Success beyond the status (`response.body.error` of JSON-RPC).
    pub ok: Option<Expr>,
    /// Success without rows (Zoho's 204 and 304).
    pub empty: Option<Expr>,
    /// The CRM's own words, for people. Cut short and scrubbed of secrets.
    pub message: Option<Expr>,
    /// Tried in order before the status is looked at.
    pub rules: Vec<Rule>,
}

/// `[[replies.rules]]`
#[derive(Debug)]
pub struct Rule {
    pub when: Expr,
    pub verdict: Verdict,
}

/// What a rule can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Empty,
    /// A passing failure of the CRM.
    Retry,
    Throttled,
    /// Nothing more until the quota turns.
    Quota,
    /// The credentials are not accepted.
    Denied,
    Missing,
    /// The page token or delta token is no longer known.
    GoneToken,
    /// The CRM understood and will not do it.
    Permanent,
}

impl Replies {
    pub(super) fn read(table: Table<'_, '_>, vocabulary: &Vocabulary) -> Replies {
        let names = vocabulary.reply();
        let mut rules = Vec::new();
        for rule in table.tables("rules") {
            let when = rule.need_expr("when", &names);
            let verdict = rule.need_choice(
                "as",
                &[
                    ("empty", Verdict::Empty),
                    ("retry", Verdict::Retry),
                    ("throttled", Verdict::Throttled),
                    ("quota", Verdict::Quota),
                    ("denied", Verdict::Denied),
                    ("missing", Verdict::Missing),
                    ("gone_token", Verdict::GoneToken),
                    ("permanent", Verdict::Permanent),
                ],
            );
            rule.finish();
            if let (Some(when), Some(verdict)) = (when, verdict) {
                rules.push(Rule { when, verdict });
            }
        }
        let replies = Replies {
            ok: table.expr("ok", &names),
            empty: table.expr("empty", &names),
            message: table.expr("message", &names),
            rules,
        };
        table.finish();
        replies
    }
}
