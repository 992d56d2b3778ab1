//! What was found, for people and for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::rules::{Rule, Severity};

/// Examples that a finding keeps; further ones are counted.
const EXAMPLES: usize = 3;
/// Characters of one example.
const EXAMPLE_CHARS: usize = 300;

/// The result of a check. Holds no value of `auth` and no path of a URL.
#[derive(Debug, Default, Serialize)]
#[must_use]
pub struct Report {
    /// Host and port of the contact sync URL.
    pub bridge: String,
    pub errors: usize,
    pub warnings: usize,
    /// Errors first, then in the order of the rules' table.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why.
    pub not_checked: Vec<NotChecked>,
    /// Why the check ended before its end, or could not begin.
    pub could_not_run: Option<String>,
    /// Contacts, pages of the first whole run.
    pub contacts: u64,
    pub pages: u64,
    /// Requests sent.
    pub calls: u64,
    /// Time of the whole check, in milliseconds.
    pub total_ms: u64,
}

/// A rule that is broken.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    pub source: &'static str,
    pub description: &'static str,
    /// Up to three examples of what was seen.
    pub seen: Vec<String>,
    /// How often it was seen.
    pub times: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct NotChecked {
    pub what: &'static str,
    pub why: String,
}

/// How a check ended: 0, 1 or 2 as exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    CouldNotRun,
}

impl Report {
    /// `strict`: warnings fail too.
    pub fn verdict(&self, strict: bool) -> Verdict {
        if self.errors > 0 || (strict && self.warnings > 0) {
            Verdict::Failed
        } else if self.could_not_run.is_some() {
            Verdict::CouldNotRun
        } else {
            Verdict::Passed
        }
    }

    /// The ids of the rules that are broken.
    pub fn broken(&self) -> BTreeSet<&'static str> {
        self.findings.iter().map(|finding| finding.rule).collect()
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let _ = writeln!(out, "{severity:<8} {} ({})", finding.rule, finding.source);
            let _ = writeln!(out, "         {}", finding.description);
            for seen in &finding.seen {
                let _ = writeln!(out, "         - {seen}");
            }
            let more = finding.times.saturating_sub(finding.seen.len() as u64);
            if more > 0 {
                let _ = writeln!(out, "         - and {more} more");
            }
        }
        for skipped in &self.not_checked {
            let _ = writeln!(out, "not checked: {}: {}", skipped.what, skipped.why);
        }
        if let Some(why) = &self.could_not_run {
            let _ = writeln!(out, "the check did not come to its end: {why}");
        }
        let so_far = if self.could_not_run.is_some() { " so far" } else { "" };
        let _ = writeln!(
            out,
            "{}: {}, {}{so_far}; {} contacts on {} pages, {} calls in {:.1} s",
            self.bridge,
            count(self.errors, "error"),
            count(self.warnings, "warning"),
            self.contacts,
            self.pages,
            self.calls,
            std::time::Duration::from_millis(self.total_ms).as_secs_f64(),
        );
        out
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Collects findings while the check runs.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<(&'static Rule, Vec<String>, u64)>,
    pub(super) not_checked: Vec<NotChecked>,
    ignored: BTreeSet<&'static str>,
    secrets: Vec<String>,
}

impl Findings {
    /// `secrets` never show up in what was seen.
    pub(super) fn new(ignored: BTreeSet<&'static str>, secrets: Vec<String>) -> Self {
        Self {
            ignored,
            secrets,
            ..Self::default()
        }
    }

    pub(super) fn keep_secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    pub(super) fn add(&mut self, rule: &'static Rule, seen: impl AsRef<str>) {
        let seen = self.plain(seen.as_ref());
        match self.found.iter_mut().find(|(known, ..)| *known == rule) {
            Some((_, examples, times)) => {
                *times += 1;
                if examples.len() < EXAMPLES && !examples.contains(&seen) {
                    examples.push(seen);
                }
            }
            None => self.found.push((rule, vec![seen], 1)),
        }
    }

    /// Ignored rules included: what depends on one is not looked at either.
    pub(super) fn has(&self, rule: &'static Rule) -> bool {
        self.found.iter().any(|(known, ..)| *known == rule)
    }

    pub(super) fn skip(&mut self, what: &'static str, why: impl AsRef<str>) {
        let why = self.plain(why.as_ref());
        let skipped = NotChecked { what, why };
        if !self.not_checked.contains(&skipped) {
            self.not_checked.push(skipped);
        }
    }

    /// One short line without secrets and without control characters, which could play tricks on a terminal.
    pub(super) fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        let mut short: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(EXAMPLE_CHARS)
            .collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    pub(super) fn into_report(self) -> Report {
        let place = |rule: &Rule| super::RULES.iter().position(|known| *known == rule);
        let (mut found, ignored) = (self.found, self.ignored);
        found.retain(|(rule, ..)| !ignored.contains(rule.id));
        found.sort_by_key(|(rule, ..)| (rule.severity, place(rule)));
        let of = |severity| found.iter().filter(|(rule, ..)| rule.severity == severity).count();
        Report {
            errors: of(Severity::Error),
            warnings: of(Severity::Warning),
            not_checked: self.not_checked,
            findings: found
                .into_iter()
                .map(|(rule, seen, times)| Finding {
                    rule: rule.id,
                    severity: rule.severity,
                    source: rule.source,
                    description: rule.description,
                    seen,
                    times,
                })
                .collect(),
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{CONTACT_NAME, PAGE_LAST};
    use super::*;

    fn report() -> Report {
        let mut findings = Findings::new(BTreeSet::new(), vec!["canary".into()]);
        findings.add(&PAGE_LAST, "page 1: null");
        for contact in 1..=5 {
            findings.add(&CONTACT_NAME, format!("contact {contact}: can\u{1b}ary, canary"));
        }
        findings.skip("the next page", "there is one page");
        findings.skip("the next page", "there is one page");
        Report {
            bridge: "127.0.0.1:80".into(),
            contacts: 5,
            pages: 1,
            calls: 9,
            total_ms: 1500,
            ..findings.into_report()
        }
    }

    #[test]
    fn it_reads_well_and_tells_no_secret() {
        assert_eq!(
            report().text(),
            "error    contact.name (Talkdesk contact sync, response, contacts)\n         \
             `name` is mandatory, a string, and not empty.\n         \
             - contact 1: can ary, ***\n         - contact 2: can ary, ***\n         - contact 3: can ary, ***\n         \
             - and 2 more\n\
             warning  page.last (Talkdesk contact sync, response)\n         \
             The last page leaves `next_offset` out, rather than sending null or an empty string.\n         \
             - page 1: null\n\
             not checked: the next page: there is one page\n\
             127.0.0.1:80: 1 error, 1 warning; 5 contacts on 1 pages, 9 calls in 1.5 s\n"
        );
    }

    #[test]
    fn errors_outweigh_an_early_end_and_warnings_count_only_if_strict() {
        let mut report = report();
        report.could_not_run = Some("too slow".into());
        assert_eq!(report.verdict(false), Verdict::Failed);
        report.errors = 0;
        assert_eq!(report.verdict(false), Verdict::CouldNotRun);
        assert_eq!(report.verdict(true), Verdict::Failed);
        (report.warnings, report.could_not_run) = (0, None);
        assert_eq!(report.verdict(true), Verdict::Passed);
    }

    #[test]
    fn what_is_ignored_is_no_finding() {
        let mut findings = Findings::new([PAGE_LAST.id].into(), Vec::new());
        findings.add(&PAGE_LAST, "page 1");
        assert!(findings.has(&PAGE_LAST) && findings.into_report().broken().is_empty());
    }
}
