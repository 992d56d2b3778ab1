//! A look at the tokens of an expression, for what the compiler lets through: unknown filters and tests are found by it
//! only when they run, and repetition (`*`) can ask for any amount of memory.

use super::ExprError;
use super::filters::{FILTERS, TESTS};

pub(super) fn check(text: &str) -> Result<(), ExprError> {
    let tokens = tokens(text);
    for (i, token) in tokens.iter().enumerate() {
        let previous = i.checked_sub(1).map(|i| tokens[i]);
        let next = tokens.get(i + 1).copied();
        match *token {
            "|" => known("filter", next, FILTERS)?,
            "is" if previous != Some(".") => {
                let test = if next == Some("not") {
                    tokens.get(i + 2).copied()
                } else {
                    next
                };
                known("test", test, TESTS)?;
            }
            "*" => return Err(ExprError::new("`*` is not part of the language")),
            "(" => {
                let called = previous.is_some_and(is_name) && !is_keyword(previous.unwrap_or_default());
                let filter_or_test = i >= 2 && matches!(tokens[i - 2], "|" | "is" | "not");
                if called && !filter_or_test {
                    let name = previous.unwrap_or_default();
                    return Err(
                        ExprError::new(format!("`{name}(…)`: there are no functions or methods")).hint(format!(
                            "filters are written `value|name`; there are {}",
                            FILTERS.join(", ")
                        )),
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn known(what: &str, name: Option<&str>, list: &[&str]) -> Result<(), ExprError> {
    let name = name.unwrap_or_default();
    if list.contains(&name) {
        return Ok(());
    }
    Err(ExprError::new(format!("unknown {what} `{name}`")).hint(format!("there are {}", list.join(", "))))
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn is_keyword(token: &str) -> bool {
    matches!(token, "and" | "or" | "not" | "in" | "is" | "if" | "else")
}

/// Names and single punctuation marks; strings and numbers become one token each.
fn tokens(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        match bytes[i] {
            quote @ (b'"' | b'\'') => {
                i += 1;
                while i < bytes.len() && bytes[i] != quote {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
                i = (i + 1).min(bytes.len());
                tokens.push("'");
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                while i < bytes.len() && (bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_') {
                    i += 1;
                }
                tokens.push(&text[start..i]);
            }
            byte if byte.is_ascii() => {
                i += 1;
                if !byte.is_ascii_whitespace() {
                    tokens.push(&text[start..i]);
                }
            }
            _ => i += 1,
        }
    }
    tokens
}
