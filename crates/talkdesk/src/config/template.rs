//! `{{name}}` in a text.

/// What stands between double braces, in order, trimmed.
///
/// # Errors
/// A brace pair that is not closed, not opened, or empty.
pub(crate) fn names(text: &str) -> Result<Vec<&str>, &'static str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        if rest[..open].contains("}}") {
            return Err("closes braces that it never opened");
        }
        let inside = &rest[open + 2..];
        let close = inside.find("}}").ok_or("opens braces that it never closes")?;
        let name = inside[..close].trim();
        if name.is_empty() || name.contains(['{', '}']) {
            return Err("has braces without a name in them");
        }
        found.push(name);
        rest = &inside[close + 2..];
    }
    if rest.contains("}}") {
        return Err("closes braces that it never opened");
    }
    Ok(found)
}
