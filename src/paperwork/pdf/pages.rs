//! Lines onto pages: wrapping, tables that go on over pages, links, bookmarks.

use jiff::civil::Date;
use pdf_writer::types::{ActionType, AnnotationType, OutlineItemFlags};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use super::compressed;
use super::fonts::{FontError, Fonts, Style, resource};
use crate::paperwork::document::Block;

/// A4 in points.
const PAGE: (f32, f32) = (595.28, 841.89);
const MARGIN: f32 = 56.0;
const BOTTOM: f32 = 64.0;
const WIDTH: f32 = PAGE.0 - 2.0 * MARGIN;
const BODY: f32 = 9.5;
const CODE: f32 = 7.5;
/// Height of a line by its size.
const LEADING: f32 = 1.42;
const PADDING: f32 = 5.0;

type Colour = [f32; 3];
const INK: Colour = [0.13, 0.14, 0.16];
const ACCENT: Colour = [0.13, 0.24, 0.42];
const LINK: Colour = [0.10, 0.33, 0.65];
const FAINT: Colour = [0.45, 0.47, 0.50];
const RULE: Colour = [0.80, 0.82, 0.85];
const SHADE: Colour = [0.94, 0.95, 0.97];

struct Page {
    content: Content,
    links: Vec<(Rect, String)>,
}

struct Bookmark {
    text: String,
    page: usize,
    top: f32,
}

/// How a line looks.
#[derive(Clone, Copy)]
struct Look {
    style: Style,
    size: f32,
    colour: Colour,
}

const PLAIN: Look = Look {
    style: Style::Regular,
    size: BODY,
    colour: INK,
};
const STRONG: Look = Look {
    style: Style::Bold,
    ..PLAIN
};

impl Look {
    fn height(self) -> f32 {
        self.size * LEADING
    }
}

pub struct Typesetter {
    fonts: Fonts,
    title: String,
    pages: Vec<Page>,
    /// The upper edge of what comes next.
    y: f32,
    bookmarks: Vec<Bookmark>,
}

impl Typesetter {
    pub fn new(fonts: Fonts, title: &str) -> Typesetter {
        let mut typesetter = Typesetter {
            fonts,
            title: title.to_owned(),
            pages: Vec::new(),
            y: 0.0,
            bookmarks: Vec::new(),
        };
        typesetter.turn();
        typesetter
    }

    /// A new page.
    fn turn(&mut self) {
        self.pages.push(Page {
            content: Content::new(),
            links: Vec::new(),
        });
        self.y = PAGE.1 - MARGIN;
    }

    fn left(&self) -> f32 {
        self.y - BOTTOM
    }

    /// Turns the page if less than this is left of it.
    fn need(&mut self, height: f32) {
        if self.left() < height {
            self.turn();
        }
    }

    fn space(&mut self, height: f32) {
        // At the top of a page it would be a hole.
        if self.y < PAGE.1 - MARGIN {
            self.y -= height;
        }
    }

    fn page(&mut self) -> &mut Page {
        let last = self.pages.len() - 1;
        &mut self.pages[last]
    }

    pub fn block(&mut self, block: &Block) {
        match block {
            Block::Heading { level, text } => self.heading(*level, text),
            Block::Text(text) => {
                self.space(4.0);
                self.lines(&[(text, PLAIN)], 0.0);
            }
            Block::Item(text) => self.item(&[(text, PLAIN)]),
            Block::Field { label, value } => self.item(&[(label, STRONG), (value, PLAIN)]),
            Block::Table { head, rows } => self.table(head, rows),
            Block::Code { caption, text } => self.code(caption, text),
        }
    }

    fn heading(&mut self, level: u8, text: &str) {
        let (size, above, below) = match level {
            1 => (20.0, 0.0, 6.0),
            2 => (14.0, 20.0, 5.0),
            _ => (11.0, 13.0, 3.0),
        };
        let look = Look {
            style: Style::Bold,
            size,
            colour: ACCENT,
        };
        self.space(above);
        let lines = self.wrap(text, look, WIDTH);
        // A heading alone at the foot of a page helps nobody.
        self.need(look.height() * lines.len() as f32 + below + 4.0 * PLAIN.height());
        if level <= 2 {
            let (page, top) = (self.pages.len() - 1, self.y + 4.0);
            let text = text.to_owned();
            self.bookmarks.push(Bookmark { text, page, top });
        }
        for line in lines {
            self.line(MARGIN, &line, look, None);
            self.y -= look.height();
        }
        if level == 1 {
            self.y -= 2.0;
            self.rule(MARGIN, self.y, WIDTH, ACCENT);
        }
        self.y -= below;
    }

    /// Pieces of one paragraph, one after the other.
    fn lines(&mut self, pieces: &[(&str, Look)], indent: f32) {
        let width = WIDTH - indent;
        let (mut x, mut first) = (0.0, true);
        for (text, look) in pieces {
            for paragraph in text.split('\n') {
                if !first && x == 0.0 {
                    self.y -= look.height();
                }
                first = false;
                let lines = self.wrap_from(paragraph, *look, width, x);
                for (index, line) in lines.iter().enumerate() {
                    if index > 0 {
                        self.y -= look.height();
                        x = 0.0;
                    }
                    if self.left() < look.height() {
                        self.turn();
                    }
                    self.line(MARGIN + indent + x, line, *look, None);
                    x += self.measure(line, *look);
                }
                if text.contains('\n') {
                    x = 0.0;
                }
            }
            if x > 0.0 {
                x += self.measure(" ", *look);
            }
        }
        self.y -= PLAIN.height();
    }

    fn item(&mut self, pieces: &[(&str, Look)]) {
        self.need(PLAIN.height());
        self.line(MARGIN + 4.0, "•", PLAIN, None);
        self.lines(pieces, 16.0);
    }

    fn table(&mut self, head: &[String], rows: &[Vec<String>]) {
        let shares: &[f32] = match head.len() {
            2 => &[0.37, 0.63],
            3 => &[0.26, 0.40, 0.34],
            _ => &[1.0],
        };
        let widths: Vec<f32> = shares.iter().map(|share| share * WIDTH).collect();
        self.space(5.0);
        self.need(2.0 * (STRONG.height() + 2.0 * PADDING));
        self.row(head, &widths, true);
        for row in rows {
            self.split_row(head, row, &widths);
        }
        self.y -= 6.0;
    }

    /// A row; one that is too long for what is left of the page goes on on the next, under the head again.
    fn split_row(&mut self, head: &[String], row: &[String], widths: &[f32]) {
        let height = PLAIN.height();
        let mut cells: Vec<Vec<String>> = self.cells(row, widths, PLAIN);
        loop {
            let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
            let whole = lines as f32 * height + 2.0 * PADDING;
            let page = PAGE.1 - MARGIN - BOTTOM;
            if whole > self.left() && (whole < page / 3.0 || self.left() < 5.0 * height) {
                self.turn();
                self.row(head, widths, true);
            }
            let fit = ((self.left() - 2.0 * PADDING) / height).max(1.0) as usize;
            let rest: Vec<Vec<String>> = cells
                .iter_mut()
                .map(|cell| cell.split_off(fit.min(cell.len())))
                .collect();
            self.draw_row(&cells, row, widths, PLAIN);
            if rest.iter().all(Vec::is_empty) {
                return;
            }
            cells = rest;
        }
    }

    fn cells(&self, row: &[String], widths: &[f32], look: Look) -> Vec<Vec<String>> {
        row.iter()
            .zip(widths)
            .map(|(cell, width)| self.wrap(cell, look, width - 2.0 * PADDING))
            .collect()
    }

    fn row(&mut self, row: &[String], widths: &[f32], shaded: bool) {
        let cells = self.cells(row, widths, STRONG);
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        let height = lines as f32 * STRONG.height() + 2.0 * PADDING;
        if shaded {
            let y = self.y - height;
            self.fill(MARGIN, y, WIDTH, height, SHADE);
        }
        self.draw_row(&cells, row, widths, STRONG);
    }

    fn draw_row(&mut self, cells: &[Vec<String>], texts: &[String], widths: &[f32], look: Look) {
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        let (top, height) = (self.y, lines as f32 * look.height() + 2.0 * PADDING);
        let mut x = MARGIN;
        for ((cell, text), width) in cells.iter().zip(texts).zip(widths) {
            self.y = top - PADDING;
            let link = is_link(text).then_some(text.as_str());
            for line in cell {
                self.line(x + PADDING, line, look, link);
                self.y -= look.height();
            }
            self.frame(x, top - height, *width, height);
            x += width;
        }
        self.y = top - height;
    }

    fn code(&mut self, caption: &str, text: &str) {
        let look = Look {
            style: Style::Mono,
            size: CODE,
            colour: INK,
        };
        self.space(7.0);
        self.need(STRONG.height() + 5.0 * look.height());
        let small = Look { size: 8.5, ..STRONG };
        for line in self.wrap(caption, small, WIDTH) {
            self.line(MARGIN, &line, small, None);
            self.y -= small.height();
        }
        self.y -= 2.0;
        let inside = WIDTH - 2.0 * PADDING;
        for line in text.lines() {
            let line = self.speakable(&line.replace('\t', "    "));
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            let hang = format!("{indent}    ");
            // Lines that go on are indented further than the first, which is that much longer.
            let (first, further) = (self.measure(&indent, look), self.measure(&hang, look));
            let room = (inside - further).max(inside / 3.0);
            for (index, piece) in self
                .wrap_from(line.trim_start(), look, room, first - further)
                .iter()
                .enumerate()
            {
                self.need(look.height());
                let (y, height) = (self.y - look.height(), look.height());
                self.fill(MARGIN, y, WIDTH, height, SHADE);
                let start = if index == 0 { &indent } else { &hang };
                let x = MARGIN + PADDING + self.measure(start, look);
                self.line(x, piece, look, None);
                self.y -= look.height();
            }
        }
        self.y -= 4.0;
    }

    /// JSON may write any letter as an escape, so letters that no font has are written so.
    fn speakable(&self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        for c in line.chars() {
            if self.fonts.has(Style::Mono, c) {
                out.push(c);
            } else {
                let mut units = [0; 2];
                let escapes = c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"));
                out.extend(escapes);
            }
        }
        out
    }

    fn measure(&self, text: &str, look: Look) -> f32 {
        self.fonts.width(look.style, text) * look.size / 1000.0
    }

    fn wrap(&self, text: &str, look: Look, width: f32) -> Vec<String> {
        text.split('\n')
            .flat_map(|paragraph| self.wrap_from(paragraph, look, width, 0.0))
            .collect()
    }

    /// Lines of at most this width, the first one shorter by what stands before it. Words that are longer than a line are
    /// broken, after a sign if there is one.
    fn wrap_from(&self, text: &str, look: Look, width: f32, before: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        let mut room = width - before;
        for word in text.split(' ') {
            let joined = if line.is_empty() {
                word.to_owned()
            } else {
                format!("{line} {word}")
            };
            if self.measure(&joined, look) <= room {
                line = joined;
                continue;
            }
            if !line.is_empty() || before > 0.0 && lines.is_empty() {
                lines.push(std::mem::take(&mut line));
                room = width;
            }
            let mut word = word;
            while self.measure(word, look) > room {
                let at = self.break_at(word, look, room);
                lines.push(word[..at].to_owned());
                word = &word[at..];
                room = width;
            }
            line = word.to_owned();
        }
        lines.push(line);
        lines
    }

    fn break_at(&self, word: &str, look: Look, room: f32) -> usize {
        let mut width = 0.0;
        let (mut end, mut sign) = (0, 0);
        for (at, c) in word.char_indices() {
            let mut buffer = [0; 4];
            width += self.measure(c.encode_utf8(&mut buffer), look);
            if width > room && at > 0 {
                break;
            }
            end = at + c.len_utf8();
            if matches!(c, '/' | '-' | '_' | '.' | ',' | '&' | '?' | ':') {
                sign = end;
            }
        }
        // A break after an early sign would leave a short line.
        if sign * 2 > end { sign } else { end }
    }

    /// One line of text with its upper edge at `y`.
    fn line(&mut self, x: f32, text: &str, look: Look, link: Option<&str>) {
        if text.is_empty() {
            return;
        }
        let baseline = self.y - look.size * 1.08;
        let linked: Vec<(f32, f32, String)> = match link {
            Some(url) => vec![(x, self.measure(text, look), url.to_owned())],
            None => self.links_in(x, text, look),
        };
        let whole = link.is_some();
        let runs = self.fonts.encode(look.style, text);
        let page = self.page();
        let colour = if whole { LINK } else { look.colour };
        let content = &mut page.content;
        content.set_fill_rgb(colour[0], colour[1], colour[2]);
        let mut at = x;
        for run in runs {
            content
                .begin_text()
                .set_font(Name(resource(run.face).as_bytes()), look.size)
                .next_line(at, baseline)
                .show(Str(&run.codes))
                .end_text();
            at += run.width * look.size / 1000.0;
        }
        for (x, width, url) in linked {
            let rect = Rect::new(x, baseline - 2.0, x + width, baseline + look.size);
            // A PDF's links are ASCII.
            page.links.push((rect, url::Url::parse(&url).map_or(url, String::from)));
        }
    }

    /// Addresses among the words of a line.
    fn links_in(&self, x: f32, text: &str, look: Look) -> Vec<(f32, f32, String)> {
        let mut found = Vec::new();
        let mut from = 0;
        for word in text.split(' ') {
            let url = word.trim_end_matches(['.', ',', ';', ')']);
            if is_link(url) {
                let start = x + self.measure(&text[..from], look);
                found.push((start, self.measure(url, look), url.to_owned()));
            }
            from += word.len() + 1;
        }
        found
    }

    fn fill(&mut self, x: f32, y: f32, width: f32, height: f32, colour: Colour) {
        let content = &mut self.page().content;
        content.set_fill_rgb(colour[0], colour[1], colour[2]);
        content.rect(x, y, width, height).fill_nonzero();
    }

    fn frame(&mut self, x: f32, y: f32, width: f32, height: f32) {
        let content = &mut self.page().content;
        content.set_stroke_rgb(RULE[0], RULE[1], RULE[2]).set_line_width(0.6);
        content.rect(x, y, width, height).stroke();
    }

    fn rule(&mut self, x: f32, y: f32, width: f32, colour: Colour) {
        let content = &mut self.page().content;
        content
            .set_stroke_rgb(colour[0], colour[1], colour[2])
            .set_line_width(1.0);
        content.move_to(x, y).line_to(x + width, y).stroke();
    }

    fn footers(&mut self) {
        let look = Look {
            size: 7.5,
            colour: FAINT,
            ..PLAIN
        };
        let count = self.pages.len();
        let title = self.title.clone();
        for index in 0..count {
            let number = format!("{} / {count}", index + 1);
            let x = PAGE.0 - MARGIN - self.measure(&number, look);
            self.y = 40.0;
            // `line` writes on the last page; this is each in turn.
            self.pages.swap(index, count - 1);
            self.line(MARGIN, &title, look, None);
            self.line(x, &number, look, None);
            self.pages.swap(index, count - 1);
        }
    }

    pub fn finish(mut self, date: Date) -> Result<Vec<u8>, FontError> {
        self.footers();
        let mut pdf = Pdf::new();
        let mut last = 0;
        let mut next = || {
            last += 1;
            Ref::new(last)
        };
        let (catalog, tree, info, outline) = (next(), next(), next(), next());
        let fonts: Vec<(usize, Ref)> = self.fonts.used().map(|face| (face, next())).collect();
        let pages: Vec<Ref> = self.pages.iter().map(|_| next()).collect();
        let items: Vec<Ref> = self.bookmarks.iter().map(|_| next()).collect();
        let mut root = pdf.catalog(catalog);
        root.pages(tree).outlines(outline).lang(TextStr("en"));
        root.viewer_preferences().display_doc_title(true);
        root.finish();
        let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
        pdf.pages(tree).kids(pages.iter().copied()).count(count);
        for (page, id) in self.pages.into_iter().zip(&pages) {
            write_page(&mut pdf, page, *id, tree, &fonts, &mut next);
        }
        write_outline(&mut pdf, outline, &items, &self.bookmarks, &pages);
        for (face, id) in &fonts {
            self.fonts.embed(*face, &mut pdf, *id, &mut next)?;
        }
        let made = pdf_writer::Date::new(u16::try_from(date.year()).unwrap_or(0))
            .month(u8::try_from(date.month()).unwrap_or(1))
            .day(u8::try_from(date.day()).unwrap_or(1));
        pdf.document_info(info)
            .title(TextStr(&self.title))
            .creator(TextStr("snapbridge"))
            .creation_date(made);
        Ok(pdf.finish())
    }
}

fn write_page(pdf: &mut Pdf, page: Page, id: Ref, tree: Ref, fonts: &[(usize, Ref)], next: &mut impl FnMut() -> Ref) {
    let content = next();
    let links: Vec<Ref> = page.links.iter().map(|_| next()).collect();
    let mut writer = pdf.page(id);
    writer
        .media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1))
        .parent(tree)
        .contents(content)
        .annotations(links.iter().copied());
    let mut resources = writer.resources();
    let mut named = resources.fonts();
    for (face, font) in fonts {
        named.pair(Name(resource(*face).as_bytes()), *font);
    }
    named.finish();
    resources.finish();
    writer.finish();
    for ((rect, url), link) in page.links.iter().zip(links) {
        let mut annotation = pdf.annotation(link);
        annotation
            .subtype(AnnotationType::Link)
            .rect(*rect)
            .border(0.0, 0.0, 0.0, None);
        annotation
            .action()
            .action_type(ActionType::Uri)
            .uri(Str(url.as_bytes()));
    }
    let data = page.content.finish();
    pdf.stream(content, &compressed(&data)).filter(Filter::FlateDecode);
}

fn write_outline(pdf: &mut Pdf, outline: Ref, items: &[Ref], bookmarks: &[Bookmark], pages: &[Ref]) {
    let mut root = pdf.outline(outline);
    if let (Some(first), Some(last)) = (items.first(), items.last()) {
        root.first(*first)
            .last(*last)
            .count(i32::try_from(items.len()).unwrap_or(0));
    }
    root.finish();
    for (index, (id, bookmark)) in items.iter().zip(bookmarks).enumerate() {
        let mut item = pdf.outline_item(*id);
        item.title(TextStr(&bookmark.text))
            .parent(outline)
            .flags(OutlineItemFlags::empty());
        if let Some(before) = index.checked_sub(1) {
            item.prev(items[before]);
        }
        if let Some(after) = items.get(index + 1) {
            item.next(*after);
        }
        item.dest().page(pages[bookmark.page]).xyz(MARGIN, bookmark.top, None);
    }
}

fn is_link(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://")) && !text.contains(char::is_whitespace)
}
