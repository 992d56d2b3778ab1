//! What a connector's author is told: everything at once, with its place and a hint.

use crm::Connector;
use proptest::prelude::*;

use crate::support::{SMALL, listed, small_with};

fn problems(source: &str) -> String {
    match Connector::load(source, "small.toml") {
        Ok(_) => String::new(),
        Err(problems) => listed(&problems),
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let source = small_with(&[
        ("title = \"Small\"", "titel = \"Small\""),
        ("kind = \"bearer\"", "kind = \"barer\""),
        ("org = \"response.body.org\"", "org = \"respose.body.org\""),
        ("kind = \"token\"", "kind = \"offset\", sise = 100"),
        (
            "name = \"item.name\"",
            "name = \"item.name|capitalise\"\nphone = \"item.phone\"",
        ),
    ]);
    insta::assert_snapshot!(problems(&source), @r#"
    small.toml:1:1: `title` is missing
    small.toml:3:1: unknown key `titel` (did you mean `title`?)
    small.toml:13:9: `auth.kind` does not know `barer` (did you mean `bearer`?)
    small.toml:18:8: `respose` is not known in `respose.body.org` (did you mean `response`?)
    small.toml:25:1: `contacts.full.page.size` is missing (the rows of a full page)
    small.toml:25:27: unknown key `contacts.full.page.sise` (did you mean `size`?)
    small.toml:25:39: unknown key `contacts.full.page.next` (there are at_cap, cap, kind, max_pages, more, size, stop, total)
    small.toml:29:9: unknown filter `capitalise` (there are compact, digits, first, flatten, int, join, label, last, lower, map, odata, put, replace, soql, split, string, trim, unique, upper, wrap)
    small.toml:30:1: unknown key `contacts.map.phone` (did you mean `phones`?)
    "#);
}

#[test]
fn text_that_is_no_toml_is_told_with_its_place() {
    insta::assert_snapshot!(problems("format = 1\nid = \"x\ntitle = 7 7\n"), @r#"
    small.toml:2:8: invalid basic string, expected `"`
    small.toml:3:9: string values must be quoted, expected literal string
    "#);
}

#[test]
fn an_empty_file_says_what_is_needed() {
    insta::assert_snapshot!(problems(""), @r"
    small.toml:1:1: `format` is missing (begin the file with `format = 1`)
    small.toml:1:1: `id` is missing
    small.toml:1:1: `title` is missing
    small.toml:1:1: `connection` is missing
    small.toml:1:1: `auth` is missing
    small.toml:1:1: `check` is missing
    small.toml:1:1: `contacts` is missing
    ");
}

#[test]
fn secrets_stay_out_of_data_and_urls() {
    let url = problems(&small_with(&[(
        "\"${conn.site}\"",
        "\"https://${conn.token}.example\"",
    )]));
    assert!(url.contains("the secret `token` must not be part of a URL"), "{url}");
    let data = problems(&small_with(&[("name = \"item.name\"", "name = \"conn.token\"")]));
    assert!(data.contains("the secret `conn.token` must not be used"), "{data}");
    let learned = problems(&small_with(&[(
        "plan = \"response.body.plan\"",
        "plan = \"conn.token\"",
    )]));
    assert!(
        learned.contains("the secret `conn.token` must not be used"),
        "{learned}"
    );
    let whole = problems(&small_with(&[("name = \"item.name\"", "name = \"conn['token']\"")]));
    assert!(whole.contains("`conn` alone cannot be used"), "{whole}");
}

#[test]
fn query_languages_need_their_quotes() {
    let with = |filter: &str| {
        small_with(&[(
            "after = \"${page.token}\"",
            &format!("q = \"SELECT Id WHERE X > ${{page.token{filter}}}\""),
        )])
    };
    assert!(problems(&with("")).contains("stands unquoted in `q`"));
    assert!(problems(&with("|odata")).contains("stands unquoted in `q`"));
    assert_eq!(problems(&with("|soql")), "");
    assert_eq!(problems(&with("|int")), "");
}

#[test]
fn an_expression_that_fails_on_an_empty_row_is_told_before_it_loses_contacts() {
    let text = problems(&small_with(&[(
        "name = \"item.name\"",
        "name = \"item.first + ' ' + item.last\"",
    )]));
    assert!(text.contains("guard what may be missing"), "{text}");
}

#[test]
fn a_reply_without_a_body_never_says_that_credentials_are_refused() {
    let denied = |expression: &str| {
        problems(&small_with(&[(
            "[check]",
            &format!("[check]\ndenied = \"{expression}\""),
        )]))
    };
    assert!(denied("not response.body.org").contains("when a reply has no body"));
    assert!(denied("response.status in [401, 500]").contains("when a reply has no body"));
    assert_eq!(denied("response.body.ok == false or response.status == 401"), "");
}

#[test]
fn a_window_needs_an_overlap_of_its_precision() {
    let changes = |since: &str| {
        format!(
            "{SMALL}updated = \"item.m\"\n[contacts.changes]\nitems = \"response.body.results\"\nsince = {{ {since} }}\n\
             page = {{ kind = \"keyset\", size = 2, keys = [\"item.id\"] }}\nrequest = {{ path = \"/c\" }}\n"
        )
    };
    assert_eq!(
        problems(&changes("wire = \"epoch_s\", precision = \"1s\", overlap = \"10s\"")),
        ""
    );
    assert!(problems(&changes("wire = \"epoch_s\"")).contains("`contacts.changes.since.overlap` is missing"));
    assert!(problems(&changes("wire = \"epoch_s\", precision = \"1d\", overlap = \"10s\"")).contains("at least one"));
    assert!(problems(&changes("wire = \"%Q %!\", overlap = \"10s\"")).contains("is not a form of time"));
}

#[test]
fn a_limit_of_an_address_is_of_one_host() {
    let limit = "[[limits]]\nname = \"address\"\nkind = \"window\"\nwindow = \"1s\"\nmax = 20\nscope = \"ip\"\n";
    let found = problems(&format!("{SMALL}\n{limit}"));
    assert!(
        found.contains("the limit `address` is of all calls to one host, but `site`"),
        "{found}"
    );
    assert!(found.contains("from = \"integration\""), "{found}");
    let settled = SMALL.replace("${conn.site}", "https://crm.example");
    assert_ne!(settled, SMALL);
    assert_eq!(problems(&format!("{settled}\n{limit}")), "");
    let of_settings = SMALL.replace("role = \"locator\"", "from = \"integration\"");
    assert_eq!(problems(&format!("{of_settings}\n{limit}")), "");
    let origin = |text: &str, site: &str| {
        let fixed = [("site".to_owned(), site.to_owned())].into();
        Connector::load(text, "x.toml").expect("it loads").shared_origin(&fixed)
    };
    // However the settings write it.
    for site in ["CRM.example", "https://crm.example/", "https://crm.example:443"] {
        assert_eq!(
            origin(&of_settings, site).as_deref(),
            Some("https://crm.example"),
            "{site}"
        );
    }
    assert_ne!(
        origin(&of_settings, "other.example"),
        origin(&of_settings, "crm.example")
    );
    assert_eq!(origin(&of_settings, "no host"), None);
    assert_eq!(origin(SMALL, "crm.example"), None, "it is another for each account");
}

#[test]
fn a_signature_that_proves_nothing_is_refused() {
    let hmac = |rest: &str| {
        format!(
            "{SMALL}\n[webhook]\nscope = \"connection\"\n[webhook.events]\neach = \"[body]\"\nids = \"[ev.id]\"\n\
             [webhook.verify]\nkind = \"hmac\"\nhash = \"sha256\"\nheader = \"x-s\"\nencoding = \"hex\"\n{rest}"
        )
    };
    let stamp = "timestamp = { header = \"x-t\", unit = \"s\", tolerance = \"5m\" }";
    assert_eq!(problems(&hmac("signed = [\"body\"]")), "");
    assert!(problems(&hmac("signed = [\"url\"]")).contains("does not cover the body"));
    assert!(problems(&hmac("signed = [\"timestamp\", \"body\"]")).contains("nothing says where it stands"));
    assert!(problems(&hmac(&format!("signed = [\"body\"]\n{stamp}"))).contains("not signed proves nothing"));
    assert!(problems(&hmac("signed = [\"bdoy\"]")).contains("`bdoy` is no part of signed bytes"));
    let endless = stamp.replace("5m", "900d");
    assert!(problems(&hmac(&format!("signed = [\"timestamp\", \"body\"]\n{endless}"))).contains("up to 24h"));
}

#[test]
fn drafts_with_older_names_are_told_the_new_ones() {
    let text = problems(&format!("{SMALL}archived = \"item.gone\"\n[users]\nitems = \"x\"\n"));
    assert!(text.contains("mode = \"flag\""), "{text}");
    assert!(text.contains("`[agents]`"), "{text}");
}

proptest! {
    /// Half-written files are what an author saves all day.
    #[test]
    fn a_damaged_file_is_explained_and_never_panics(from in 0usize..1_000, length in 1usize..200, put in "[\\[\\]{}\"'=$.|a-z\n]{0,6}") {
        let from = from.min(SMALL.len());
        let to = (from + length).min(SMALL.len());
        let damaged = format!("{}{put}{}", &SMALL[..from], &SMALL[to..]);
        if let Err(problems) = Connector::load(&damaged, "small.toml") {
            prop_assert!(!problems.is_empty());
            let lines = damaged.lines().count() + 1;
            prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line) && problem.column >= 1));
        }
    }
}
