//! The fonts of the PDF: which letters they have, how wide they are, and their embedding. Each letter that is used gets a
//! code of its own, even where two share a glyph, so that copied and extracted text is exactly what was written.

use std::borrow::Cow;
use std::collections::HashMap;

use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Filter, Finish, Name, Pdf, Rect, Ref, Str};
use subsetter::GlyphRemapper;

use super::compressed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Regular,
    Bold,
    /// For code.
    Mono,
}

/// Latin, Greek and Cyrillic of Noto Sans 2.004 and Noto Sans Mono 2.006 (fonts/OFL.txt), cut by fontTools.
const OWN: [&[u8]; 3] = [
    include_bytes!("fonts/NotoSans-Regular.ttf"),
    include_bytes!("fonts/NotoSans-Bold.ttf"),
    include_bytes!("fonts/NotoSansMono-Regular.ttf"),
];

/// What a PDF counts glyphs in, whatever the font does.
const UNITS: f32 = 1000.0;

const SYSTEM: SystemInfo<'static> = SystemInfo {
    registry: Str(b"Adobe"),
    ordering: Str(b"Identity"),
    supplement: 0,
};

/// Why a font cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FontError {
    #[error("the font cannot be read: {0}")]
    Unreadable(String),
    #[error("the font has no TrueType outlines: give a .ttf file")]
    NoTrueType,
    #[error("the font cannot be cut to the letters that are used: {0}")]
    Subset(String),
}

pub struct Fonts {
    /// Regular, bold, mono, then those that stand in for letters which these have not.
    faces: Vec<Face>,
}

/// A stretch of text in one face.
pub struct Run {
    pub face: usize,
    /// Codes, two bytes each.
    pub codes: Vec<u8>,
    /// In thousandths of the size.
    pub width: f32,
}

struct Face {
    data: Cow<'static, [u8]>,
    glyphs: HashMap<char, Glyph>,
    name: String,
    metrics: Metrics,
    used: Vec<(char, Glyph)>,
    codes: HashMap<char, u16>,
}

#[derive(Clone, Copy)]
struct Glyph {
    id: u16,
    advance: f32,
}

struct Metrics {
    ascent: f32,
    descent: f32,
    cap_height: f32,
    bbox: Rect,
    mono: bool,
}

impl Fonts {
    /// Our own fonts, and `extra` ones (TrueType) for letters that they have not.
    ///
    /// # Errors
    /// An extra font that cannot be used.
    pub fn load(extra: Vec<Vec<u8>>) -> Result<Fonts, FontError> {
        let own = OWN.iter().map(|data| Face::load(Cow::Borrowed(*data)));
        let extra = extra.into_iter().map(|data| Face::load(Cow::Owned(data)));
        Ok(Fonts {
            faces: own.chain(extra).collect::<Result<_, _>>()?,
        })
    }

    fn find(&self, style: Style, c: char) -> Option<usize> {
        if is_shaped(c) {
            return None;
        }
        let own = style as usize;
        let extra = OWN.len()..self.faces.len();
        std::iter::once(own)
            .chain(extra)
            .find(|face| self.faces[*face].glyphs.contains_key(&c))
    }

    pub fn has(&self, style: Style, c: char) -> bool {
        self.find(style, c).is_some()
    }

    /// In thousandths of the size. A letter that no font has counts as the replacement character.
    pub fn width(&self, style: Style, text: &str) -> f32 {
        text.chars().map(|c| self.placed(style, c).1.advance).sum()
    }

    fn placed(&self, style: Style, c: char) -> (usize, Glyph, char) {
        let missing = Glyph { id: 0, advance: 0.0 };
        let (face, c) = match self.find(style, c) {
            Some(face) => (face, c),
            None => (style as usize, char::REPLACEMENT_CHARACTER),
        };
        (face, self.faces[face].glyphs.get(&c).copied().unwrap_or(missing), c)
    }

    /// The codes of a text, and a note of the letters it uses.
    pub fn encode(&mut self, style: Style, text: &str) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for c in text.chars() {
            let (face, glyph, c) = self.placed(style, c);
            let code = self.faces[face].code(c, glyph);
            if runs.last().is_none_or(|run| run.face != face) {
                let (codes, width) = (Vec::new(), 0.0);
                runs.push(Run { face, codes, width });
            }
            if let Some(run) = runs.last_mut() {
                run.codes.extend(code.to_be_bytes());
                run.width += glyph.advance;
            }
        }
        runs
    }

    /// The faces that were used, by number.
    pub fn used(&self) -> impl Iterator<Item = usize> {
        (0..self.faces.len()).filter(|face| !self.faces[*face].used.is_empty())
    }

    /// Embeds one face, cut to what was used of it.
    pub fn embed(
        &self,
        face: usize,
        pdf: &mut Pdf,
        font: Ref,
        next: &mut impl FnMut() -> Ref,
    ) -> Result<(), FontError> {
        self.faces[face].embed(pdf, font, next)
    }
}

/// Whether a letter belongs to a script that is written from right to left, or whose letters change with their neighbours:
/// Hebrew to Arabic, those of India and around it, Myanmar, Khmer, and the marks that turn the direction.
pub fn is_shaped(c: char) -> bool {
    matches!(u32::from(c),
        0x0590..=0x0DFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x200E..=0x200F | 0x202A..=0x202E | 0x2066..=0x2069
        | 0xFB1D..=0xFDFF | 0xFE70..=0xFEFE | 0x1_0800..=0x1_11FF | 0x1_E800..=0x1_EFFF)
}

/// The name of a face within the pages.
pub fn resource(face: usize) -> String {
    format!("F{face}")
}

impl Face {
    fn load(data: Cow<'static, [u8]>) -> Result<Face, FontError> {
        let parsed = ttf_parser::Face::parse(&data, 0).map_err(|error| FontError::Unreadable(error.to_string()))?;
        if parsed.tables().glyf.is_none() {
            return Err(FontError::NoTrueType);
        }
        let scale = UNITS / f32::from(parsed.units_per_em());
        let mut glyphs = HashMap::new();
        for table in parsed.tables().cmap.iter().flat_map(|cmap| cmap.subtables) {
            if !table.is_unicode() {
                continue;
            }
            table.codepoints(|code| {
                let found = char::from_u32(code).and_then(|c| Some((c, table.glyph_index(code)?)));
                if let Some((c, id)) = found {
                    let advance = f32::from(parsed.glyph_hor_advance(id).unwrap_or(0)) * scale;
                    glyphs.insert(c, Glyph { id: id.0, advance });
                }
            });
        }
        let family = parsed
            .names()
            .into_iter()
            .find(|name| name.name_id == ttf_parser::name_id::POST_SCRIPT_NAME)
            .and_then(|name| name.to_string());
        let name: String = family
            .unwrap_or_else(|| "Font".to_owned())
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let bbox = parsed.global_bounding_box();
        let [left, bottom, right, top] =
            [bbox.x_min, bbox.y_min, bbox.x_max, bbox.y_max].map(|edge| f32::from(edge) * scale);
        let metrics = Metrics {
            ascent: f32::from(parsed.ascender()) * scale,
            descent: f32::from(parsed.descender()) * scale,
            cap_height: f32::from(parsed.capital_height().unwrap_or_else(|| parsed.ascender())) * scale,
            bbox: Rect::new(left, bottom, right, top),
            mono: parsed.is_monospaced(),
        };
        Ok(Face {
            glyphs,
            name,
            metrics,
            data,
            used: Vec::new(),
            codes: HashMap::new(),
        })
    }

    /// Code 0 is the missing glyph's.
    fn code(&mut self, c: char, glyph: Glyph) -> u16 {
        if let Some(code) = self.codes.get(&c) {
            return *code;
        }
        self.used.push((c, glyph));
        let code = u16::try_from(self.used.len()).unwrap_or(0);
        self.codes.insert(c, code);
        code
    }

    fn embed(&self, pdf: &mut Pdf, font: Ref, next: &mut impl FnMut() -> Ref) -> Result<(), FontError> {
        let mut remapper = GlyphRemapper::new();
        let gids: Vec<u16> = self.used.iter().map(|(_, glyph)| remapper.remap(glyph.id)).collect();
        let subset =
            subsetter::subset(&self.data, 0, &remapper).map_err(|error| FontError::Subset(error.to_string()))?;
        let (cid_font, descriptor, file, map, unicode) = (next(), next(), next(), next(), next());
        let base = format!("{}+{}", self.tag(), self.name);
        pdf.type0_font(font)
            .base_font(Name(base.as_bytes()))
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(cid_font)
            .to_unicode(unicode);
        let mut cid = pdf.cid_font(cid_font);
        cid.subtype(CidFontType::Type2)
            .base_font(Name(base.as_bytes()))
            .system_info(SYSTEM)
            .font_descriptor(descriptor)
            .default_width(0.0)
            .cid_to_gid_map_stream(map);
        let widths = self.used.iter().map(|(_, glyph)| glyph.advance);
        cid.widths().consecutive(1, widths);
        cid.finish();
        let shape = if self.metrics.mono {
            FontFlags::FIXED_PITCH
        } else {
            FontFlags::empty()
        };
        pdf.font_descriptor(descriptor)
            .name(Name(base.as_bytes()))
            .flags(FontFlags::NON_SYMBOLIC | shape)
            .bbox(self.metrics.bbox)
            .italic_angle(0.0)
            .ascent(self.metrics.ascent)
            .descent(self.metrics.descent)
            .cap_height(self.metrics.cap_height)
            .stem_v(80.0)
            .font_file2(file);
        let length = i32::try_from(subset.len()).unwrap_or(i32::MAX);
        let packed = compressed(&subset);
        let mut stream = pdf.stream(file, &packed);
        stream.filter(Filter::FlateDecode).pair(Name(b"Length1"), length);
        stream.finish();
        let table: Vec<u8> = std::iter::once(0).chain(gids).flat_map(u16::to_be_bytes).collect();
        pdf.stream(map, &compressed(&table)).filter(Filter::FlateDecode);
        let mut cmap = UnicodeCmap::<u16>::new(Name(b"Letters"), SYSTEM);
        for (c, _) in &self.used {
            cmap.pair(self.codes[c], *c);
        }
        pdf.cmap(unicode, &compressed(&cmap.finish()))
            .filter(Filter::FlateDecode);
        Ok(())
    }

    /// Six capitals that differ by what is kept (PDF, font subsets).
    fn tag(&self) -> String {
        let mut sum = self.used.iter().fold(17_u64, |sum, (c, _)| {
            sum.wrapping_mul(31).wrapping_add(u64::from(u32::from(*c)))
        });
        let mut letters = String::new();
        for _ in 0..6 {
            letters.push(char::from(b'A' + (sum % 26) as u8));
            sum /= 26;
        }
        letters
    }
}
