//! A document as PDF: A4, embedded fonts, bookmarks, working links, page numbers. No browser and no typesetter is needed.

mod fonts;
mod pages;

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::document::{Block, Document};
pub use fonts::FontError;
use fonts::{Fonts, Style};
use pages::Typesetter;

/// Why there is no PDF.
#[derive(Debug, thiserror::Error)]
pub enum PdfError {
    #[error(transparent)]
    Font(#[from] FontError),
    /// Printing a box instead of a letter of somebody's name would be worse than no document.
    #[error("no font has {}: name one that has with --font FILE.ttf", listed(.0))]
    Letters(Vec<char>),
    /// Scripts that run from right to left or join their letters, which takes more than placing one after the other.
    #[error("the PDF cannot set {}: write it in Latin letters", listed(.0))]
    Script(Vec<char>),
}

/// Renders. `extra` are TrueType fonts for letters outside Latin, Greek and Cyrillic; `date` is the day that the file says
/// it was made.
pub fn render(document: &Document, extra: Vec<Vec<u8>>, date: jiff::civil::Date) -> Result<Vec<u8>, PdfError> {
    let fonts = Fonts::load(extra)?;
    let letters: BTreeSet<char> = document
        .blocks
        .iter()
        .flat_map(Block::prose)
        .chain([document.title.as_str()])
        .flat_map(str::chars)
        .filter(|c| !c.is_control())
        .collect();
    let scripts: Vec<char> = letters.iter().copied().filter(|c| fonts::is_shaped(*c)).collect();
    if !scripts.is_empty() {
        return Err(PdfError::Script(scripts));
    }
    let missing: Vec<char> = letters
        .into_iter()
        // Headings are bold: a letter has to be in both.
        .filter(|c| !fonts.has(Style::Regular, *c) || !fonts.has(Style::Bold, *c))
        .collect();
    if !missing.is_empty() {
        return Err(PdfError::Letters(missing));
    }
    let mut typesetter = Typesetter::new(fonts, &document.title);
    document.blocks.iter().for_each(|block| typesetter.block(block));
    Ok(typesetter.finish(date)?)
}

fn listed(letters: &[char]) -> String {
    let named = |c: &char| format!("{c} (U+{:04X})", u32::from(*c));
    letters.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn compressed(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(data);
    encoder.finish().unwrap_or_default()
}
