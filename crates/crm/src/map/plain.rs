//! Plain text of what may be HTML: CRMs keep descriptions as their editors made them, Talkdesk shows them as they come.

use super::{Tally, clipped};

/// Longer markup is not looked at beyond this many bytes: a preview needs its beginning.
const LONGEST_MARKUP: usize = 64 * 1024;

/// The text of `text` without markup, in one line, at most `most` characters.
pub(crate) fn plain(text: Option<String>, most: usize, tally: &mut Tally) -> Option<String> {
    let text = text?;
    let mut end = text.len().min(LONGEST_MARKUP);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    let shown = if looks_like_html(text) {
        unescaped(&without_tags(text))
    } else {
        text.to_owned()
    };
    let words: Vec<&str> = shown.split_whitespace().collect();
    clipped(Some(words.join(" ")), most, tally)
}

/// A tag that is closed, or an entity: `a < b` is text.
fn looks_like_html(text: &str) -> bool {
    let tag = text.match_indices('<').any(|(at, _)| {
        let rest = &text[at + 1..];
        rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!') && rest.contains('>')
    });
    tag || ENTITIES.iter().any(|(entity, _)| text.contains(entity))
}

/// A tag becomes a blank; scripts and styles go with what is in them.
fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        let tag = &rest[at..];
        let named = tag[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        let Some(end) = tag.find('>').filter(|_| named) else {
            out.push('<');
            rest = &tag[1..];
            continue;
        };
        out.push(' ');
        rest = &tag[end + 1..];
        for name in ["script", "style"] {
            let opens = tag[1..]
                .get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name));
            if opens {
                let lower = rest.to_ascii_lowercase();
                rest = lower.find(&format!("</{name}")).map_or("", |close| &rest[close..]);
            }
        }
    }
    out.push_str(rest);
    out
}

const ENTITIES: [(&str, &str); 7] = [
    ("&nbsp;", " "),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#39;", "'"),
    ("&apos;", "'"),
    // Last: what it makes is not read again.
    ("&amp;", "&"),
];

fn unescaped(text: &str) -> String {
    ENTITIES.iter().fold(text.to_owned(), |text, (entity, character)| {
        text.replace(entity, character)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        plain(Some(text.to_owned()), 500, &mut Tally::default()).unwrap_or_default()
    }

    #[test]
    fn markup_goes_and_text_stays() {
        for (html, text) in [
            ("<p>Parcel <b>arrived</b><br/>damaged</p>", "Parcel arrived damaged"),
            ("Fish &amp; chips &lt;3 &amp;lt;", "Fish & chips <3 &lt;"),
            ("a < b and c > d", "a < b and c > d"),
            ("1<2", "1<2"),
            ("<script>alert('x')</script>Hi<STYLE>p{}</style>!", "Hi !"),
            ("<!-- note -->x", "x"),
            ("<p unfinished", "<p unfinished"),
            ("line one\nline two", "line one line two"),
        ] {
            assert_eq!(shown(html), text, "{html}");
        }
        assert_eq!(plain(Some("<p> </p>".into()), 500, &mut Tally::default()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_short(text in any::<String>(), html in "[<>/a-z&;! é]{0,200}") {
            for text in [text, html] {
                prop_assert!(shown(&text).chars().count() <= 500);
            }
        }
    }
}
