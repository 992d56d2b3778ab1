//! A document as Markdown with pipe tables (GitHub's dialect).

use super::document::{Block, Document};

pub fn render(document: &Document) -> String {
    let mut out = String::new();
    let mut before: Option<&Block> = None;
    for block in &document.blocks {
        let listed = |block: &Block| matches!(block, Block::Item(_) | Block::Field { .. });
        if let Some(before) = before
            && !(listed(before) && listed(block))
        {
            out.push('\n');
        }
        push(&mut out, block);
        before = Some(block);
    }
    out
}

fn push(out: &mut String, block: &Block) {
    match block {
        Block::Heading { level, text } => {
            let marks = "#".repeat(usize::from(*level));
            *out += &format!("{marks} {}\n", escaped(text));
        }
        Block::Text(text) => {
            *out += &escaped(text);
            out.push('\n');
        }
        Block::Item(text) => *out += &format!("- {}\n", escaped(text)),
        Block::Field { label, value } => *out += &format!("- **{}** {}\n", escaped(label), escaped(value)),
        Block::Table { head, rows } => {
            let line = |cells: &[String]| {
                let cells: Vec<String> = cells.iter().map(|cell| escaped(cell).replace('\n', "<br>")).collect();
                format!("| {} |\n", cells.join(" | "))
            };
            *out += &line(head);
            *out += &format!("|{}\n", " --- |".repeat(head.len()));
            rows.iter().for_each(|row| *out += &line(row));
        }
        Block::Code { caption, text } => {
            let fence = "`".repeat(longest_run(text, '`').max(2) + 1);
            *out += &format!("{}\n\n{fence}\n{}\n{fence}\n", escaped(caption), text.trim_end());
        }
    }
}

/// Text whose every sign stands for itself.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = letters.next() {
        // An underscore within a word is none of Markdown's business, and names are full of them.
        let within = before.is_alphanumeric() && letters.peek().is_some_and(|next| next.is_alphanumeric());
        if matches!(c, '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|') || (c == '_' && !within) {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    // At the beginning of a line they would make a heading, a list or a quotation.
    match out.chars().next() {
        Some('#' | '+' | '-') => format!("\\{out}"),
        _ => out,
    }
}

fn longest_run(text: &str, of: char) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == of { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
