//! A document as blocks, which the renderers turn into Markdown and PDF alike.

/// A document: its title for the reader's window, and its blocks in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub title: String,
    pub blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Level 1 is the title of the document.
    Heading {
        level: u8,
        text: String,
    },
    Text(String),
    /// One item of a list.
    Item(String),
    /// A labelled value, an item of a list.
    Field {
        label: String,
        value: String,
    },
    /// Cells may have several lines.
    Table {
        head: Vec<String>,
        rows: Vec<Vec<String>>,
    },
    /// Preformatted text under a caption.
    Code {
        caption: String,
        text: String,
    },
}

impl Document {
    pub fn new(title: impl Into<String>, blocks: Vec<Block>) -> Document {
        Document {
            title: title.into(),
            blocks,
        }
    }
}

impl Block {
    pub fn heading(level: u8, text: impl Into<String>) -> Block {
        Block::Heading {
            level,
            text: text.into(),
        }
    }

    pub fn text(text: impl Into<String>) -> Block {
        Block::Text(text.into())
    }

    pub fn item(text: impl Into<String>) -> Block {
        Block::Item(text.into())
    }

    pub fn field(label: impl Into<String>, value: impl Into<String>) -> Block {
        Block::Field {
            label: label.into(),
            value: value.into(),
        }
    }

    pub fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> Block {
        Block::Table {
            head: head.iter().map(ToString::to_string).collect(),
            rows: rows.into_iter().map(Vec::from).collect(),
        }
    }

    pub fn code(caption: impl Into<String>, text: impl Into<String>) -> Block {
        Block::Code {
            caption: caption.into(),
            text: text.into(),
        }
    }

    /// All text of the block, for whoever has to know which letters it takes. Code apart: it is JSON, where any letter
    /// can be written as an escape.
    pub fn prose(&self) -> Vec<&str> {
        match self {
            Block::Heading { text, .. } | Block::Text(text) | Block::Item(text) => vec![text],
            Block::Field { label, value } => vec![label, value],
            Block::Table { head, rows } => head.iter().chain(rows.iter().flatten()).map(String::as_str).collect(),
            Block::Code { caption, .. } => vec![caption],
        }
    }
}
