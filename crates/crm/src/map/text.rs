//! Texts, e-mail addresses, links and user names.

use url::Url;

use super::{LONGEST_LIST, Tally};
use crate::reply::clip;

/// Trimmed, without control characters, and not longer than `most` characters.
pub(crate) fn clipped(text: Option<String>, most: usize, tally: &mut Tally) -> Option<String> {
    let text: String = text?
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    let text = text.trim();
    let short = clip(text, most);
    if short.len() < text.len() {
        tally.repaired("clipped");
    }
    (!short.is_empty()).then(|| short.to_owned())
}

/// Trimmed, with an `@`, each once whatever its case, in their order: the first is the primary one.
pub(super) fn emails(texts: Vec<String>, tally: &mut Tally) -> Vec<String> {
    let mut emails: Vec<String> = Vec::new();
    for text in texts {
        let email = text.trim();
        let good = email.len() <= 254
            && !email.chars().any(|c| c.is_whitespace() || c.is_control())
            && email
                .split_once('@')
                .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        if !good {
            tally.dropped("email_invalid");
        } else if emails.iter().any(|known| known.to_lowercase() == email.to_lowercase()) {
            tally.dropped("email_repeated");
        } else if emails.len() >= LONGEST_LIST {
            tally.dropped("too_many_emails");
        } else {
            emails.push(email.to_owned());
        }
    }
    emails
}

/// An absolute http(s) URL; `bare` takes `www.acme.example` too. Anything else (`javascript:`, paths) is dropped.
pub(crate) fn url(text: Option<String>, bare: bool, tally: &mut Tally) -> Option<String> {
    let text = text?.trim().to_owned();
    let looks_bare = bare && !text.contains(':') && text.contains('.') && !text.contains(char::is_whitespace);
    let candidate = if looks_bare { format!("https://{text}") } else { text };
    let parsed = Url::parse(&candidate)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match parsed {
        Some(_) if candidate.len() > 2_048 || candidate.chars().any(char::is_control) => {
            tally.dropped("url_invalid");
            None
        }
        Some(_) => {
            if looks_bare {
                tally.repaired("website_scheme");
            }
            Some(candidate)
        }
        None => {
            tally.dropped("url_invalid");
            None
        }
    }
}

pub(super) fn websites(texts: Vec<String>, tally: &mut Tally) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts.into_iter().take(LONGEST_LIST) {
        found.extend(url(Some(text), true, tally).filter(|url| !found.contains(url)));
    }
    found
}

/// The user name without `@`; a link to a profile is understood.
pub(super) fn twitter(text: Option<String>, tally: &mut Tally) -> Option<String> {
    let text = text?;
    let text = text.trim();
    let name = text
        .rsplit_once(".com/")
        .map_or(text, |(_, path)| path.split(['/', '?', '#']).next().unwrap_or_default());
    let name = name.trim_start_matches('@');
    let good = (1..=50).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        tally.dropped("twitter_invalid");
        return None;
    }
    if name != text {
        tally.repaired("twitter_shortened");
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_cut_between_characters() {
        let mut tally = Tally::default();
        assert_eq!(
            clipped(Some("  Bo\tLund ".into()), 255, &mut tally).as_deref(),
            Some("Bo Lund")
        );
        assert_eq!(clipped(Some(" \u{0} ".into()), 255, &mut tally), None);
        assert!(tally.repairs.is_empty());
        assert_eq!(clipped(Some("ééé".into()), 2, &mut tally).as_deref(), Some("éé"));
        assert_eq!(tally.repairs["clipped"], 1);
    }

    #[test]
    fn emails_keep_their_order_and_lose_twins() {
        let mut tally = Tally::default();
        let texts = ["B@x.test ", "a@x.test", "b@X.TEST", "no", "@x", "a b@x.test"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(emails(texts, &mut tally), ["B@x.test", "a@x.test"]);
        assert_eq!(
            (tally.dropped["email_invalid"], tally.dropped["email_repeated"]),
            (3, 1)
        );
    }

    #[test]
    fn only_absolute_http_urls_pass() {
        let mut tally = Tally::default();
        let mut keep = |text: &str, bare| url(Some(text.to_owned()), bare, &mut tally);
        assert_eq!(keep("https://a.test/x", false).as_deref(), Some("https://a.test/x"));
        assert_eq!(keep("www.acme.test", true).as_deref(), Some("https://www.acme.test"));
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "/photo.png",
            "//a.test/x",
            "ftp://a.test",
            "a.test",
            "http://",
        ] {
            assert_eq!(keep(bad, false), None, "{bad}");
        }
        assert_eq!(keep("javascript:alert(1).x", true), None);
    }

    #[test]
    fn twitter_is_a_bare_user_name() {
        let mut tally = Tally::default();
        for text in [
            "jane_doe",
            "@jane_doe",
            "https://twitter.com/jane_doe",
            "https://x.com/jane_doe?s=1",
        ] {
            assert_eq!(
                twitter(Some(text.to_owned()), &mut tally).as_deref(),
                Some("jane_doe"),
                "{text}"
            );
        }
        assert_eq!(twitter(Some("jane doe".into()), &mut tally), None);
    }
}
