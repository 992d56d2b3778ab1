//! The `Link` header (RFC 8288), as far as paging needs it: the target of `rel="next"`. The crates for it split at commas or
//! semicolons that may stand inside of a URL.

use http::HeaderMap;

/// The target of the first link with the relation `next`, as it stands there (it may be relative). Headers may be repeated, and
/// one may hold several links.
pub(crate) fn next_target(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(http::header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_in)
}

fn next_in(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        let start = rest.find('<')? + 1;
        let end = start + rest[start..].find('>')?;
        let target = &rest[start..end];
        let (rel, after) = parameters(&rest[end + 1..]);
        if rel.is_some_and(|rel| {
            rel.split_ascii_whitespace()
                .any(|word| word.eq_ignore_ascii_case("next"))
        }) {
            return Some(target.to_owned());
        }
        rest = after;
    }
}

/// The first `rel` among the parameters of a link (RFC 8288, 3.3: later ones are ignored), and what follows the link.
fn parameters(text: &str) -> (Option<String>, &str) {
    let mut rel = None;
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        match rest.strip_prefix(';') {
            Some(parameter) => rest = parameter.trim_start(),
            None => return (rel, rest.strip_prefix(',').unwrap_or(rest)),
        }
        let name_end = rest.find(['=', ';', ',']).unwrap_or(rest.len());
        let name = rest[..name_end].trim();
        rest = &rest[name_end..];
        let Some(value) = rest.strip_prefix('=') else { continue };
        let (value, after) = value_in(value.trim_start());
        rest = after;
        if rel.is_none() && name.eq_ignore_ascii_case("rel") {
            rel = Some(value);
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value_in(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn next(headers: &[&str]) -> Option<String> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(
                http::header::LINK,
                HeaderValue::from_str(header).expect("a header value"),
            );
        }
        next_target(&map)
    }

    #[test]
    fn the_next_page_is_found_in_every_form_the_standard_allows() {
        for (headers, expected) in [
            (
                &["<https://a.example/x?page=2>; rel=\"next\""][..],
                Some("https://a.example/x?page=2"),
            ),
            (
                &["<https://a.example/1>; rel=\"prev\", <https://a.example/3>; rel=\"next\""],
                Some("https://a.example/3"),
            ),
            (&["</x?page=2>;rel=next"], Some("/x?page=2")),
            (
                &["<https://a.example/x?ids=1,2;y>; title=\"a, b; c\"; rel=\"last next\""],
                Some("https://a.example/x?ids=1,2;y"),
            ),
            (&["<https://a.example/2> ; REL = \"NEXT\""], Some("https://a.example/2")),
            (
                &[
                    "<https://a.example/1>; rel=\"first\"",
                    "<https://a.example/2>; rel=\"next\"",
                ],
                Some("https://a.example/2"),
            ),
            (&["<https://a.example/2>; rel=\"prev\"; rel=\"next\""], None),
            (&["<https://a.example/2>; title=\"rel=next\""], None),
            (&["<https://a.example/2>; rel=\"ne\\xt\""], Some("https://a.example/2")),
            (&["<>; rel=\"next\""], Some("")),
            (&["nonsense", "<unclosed; rel=\"next\"", "<x>; rel=\"next"], Some("x")),
            (&[], None),
        ] {
            assert_eq!(next(headers).as_deref(), expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic_or_an_endless_loop(text in "[ -~]{0,60}") {
            let _ = next_in(&text);
        }

        #[test]
        fn what_is_written_is_read(target in "[a-z0-9/?=&,;.]{0,30}", before in "[a-z]{1,5}", title in "[a-z ,;<]{0,10}") {
            prop_assume!(before != "next");
            let text = format!("<p>; rel=\"{before}\"; title=\"{title}\", <{target}>; title=\"{title}\"; rel=\"next\"");
            prop_assert_eq!(next(&[text.as_str()]), Some(target));
        }
    }
}
