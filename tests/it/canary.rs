//! Looks for canaries in whatever was emitted: values that must show up nowhere, in any spelling that they could leak in.

use aho_corasick::AhoCorasick;

/// Finds canaries as they are, as hex, as base64 of either alphabet at any offset in a longer text, percent-encoded, and as
/// JSON or a debug output escapes them.
pub struct Detector {
    names: Vec<String>,
    spellings: AhoCorasick,
}

impl Detector {
    /// `canaries`: (what it is, the value). Values are of 12 characters at least, so that nothing else looks like one.
    pub fn of<'a>(canaries: impl IntoIterator<Item = (&'a str, String)>) -> Detector {
        let (mut names, mut all) = (Vec::new(), Vec::new());
        for (name, canary) in canaries {
            assert!(canary.len() >= 12, "{name} is too short a canary");
            for spelling in spellings(&canary) {
                names.push(name.to_owned());
                all.push(spelling);
            }
        }
        let spellings = AhoCorasick::builder().ascii_case_insensitive(true).build(all);
        Detector {
            names,
            spellings: spellings.expect("an automaton"),
        }
    }

    /// What is found, each with what stands around it.
    pub fn found(&self, bytes: &[u8]) -> Vec<String> {
        let around = |start: usize, end: usize| {
            let part = &bytes[start.saturating_sub(160)..bytes.len().min(end + 40)];
            String::from_utf8_lossy(part).into_owned()
        };
        let matches = self.spellings.find_iter(bytes);
        let told = matches.map(|found| {
            let name = &self.names[found.pattern().as_usize()];
            format!("{name}: …{}…", around(found.start(), found.end()))
        });
        told.take(5).collect()
    }

    pub fn assert_clean(&self, what: &str, bytes: &[u8]) {
        let found = self.found(bytes);
        assert!(found.is_empty(), "invariant 12: {what} shows\n{}", found.join("\n"));
    }
}

fn spellings(canary: &str) -> Vec<String> {
    let mut all = vec![canary.to_owned(), data_encoding::HEXLOWER.encode(canary.as_bytes())];
    for offset in 0..3 {
        // Inside a longer text the encoding depends on the offset; what the neighbours have no part in is looked for.
        let padded = format!("{}{canary}", " ".repeat(offset));
        for alphabet in [data_encoding::BASE64_NOPAD, data_encoding::BASE64URL_NOPAD] {
            let encoded = alphabet.encode(padded.as_bytes());
            let from = if offset == 0 { 0 } else { 4 };
            all.push(encoded[from..encoded.len() - 2].to_owned());
        }
    }
    all.push(url::form_urlencoded::byte_serialize(canary.as_bytes()).collect());
    let mut path = url::Url::parse("http://x/").expect("a URL");
    path.path_segments_mut().expect("segments").push(canary);
    all.push(path.path()[1..].to_owned());
    all.push(format!("{canary:?}").trim_matches('"').to_owned());
    // A debug output of bytes.
    let numbers: Vec<String> = canary.bytes().map(|byte| byte.to_string()).collect();
    all.push(numbers.join(", "));
    all.sort();
    all.dedup();
    all
}

#[test]
fn the_detector_finds_a_planted_leak_in_every_spelling_and_nothing_else() {
    let canary = "canary/5b0f+7c1e=é";
    let detector = Detector::of([
        ("planted", canary.to_owned()),
        ("another", "another-canary-1".to_owned()),
    ]);
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for leak in [
        format!("INFO token={canary} more"),
        format!("INFO token={:?} more", Some(canary)),
        json_line(canary),
        format!("body: {:?}", canary.as_bytes()),
        format!("Authorization: Basic {}", base64(&format!("user:{canary}"))),
        base64(canary),
        base64(&format!("{{\"t\":\"{canary}\"}}")),
        data_encoding::BASE64URL.encode(format!("ab{canary}cd").as_bytes()),
        data_encoding::HEXUPPER.encode(format!("x{canary}").as_bytes()),
        format!("GET /x?token={}", encoded(canary)),
        format!("GET /x/{}", "canary%2F5b0f+7c1e=%C3%A9"),
    ] {
        let found = detector.found(leak.as_bytes());
        assert!(found.len() == 1 && found[0].starts_with("planted"), "{leak}: {found:?}");
    }
    let clean = format!("canary/5b0f+ {} another canary 1 {}", base64("canary"), encoded("a/b"));
    assert!(detector.found(clean.as_bytes()).is_empty());
}

fn json_line(text: &str) -> String {
    serde_json::json!({"message": format!("refused: {text}")}).to_string()
}
