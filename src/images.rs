//! Logos and icons, which Talkdesk wants as URLs (integration configuration, `logo_url` and `icon_url`, both mandatory).

use std::path::Path;

use axum::http::HeaderValue;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Wider or higher is no logo.
const PIXELS: std::ops::RangeInclusive<u32> = 1..=4096;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Served where an integration has no picture of its own.
const LOGO: &[u8] = include_bytes!("images/logo.png");
const ICON: &[u8] = include_bytes!("images/icon.png");

/// A picture as it is served.
#[derive(Clone, Debug)]
pub struct Image {
    pub format: Format,
    pub bytes: Bytes,
    /// Hangs on the bytes alone, so that any front answers alike.
    pub etag: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Png,
    Svg,
}

impl Format {
    /// End of its file name in URLs.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Svg => "svg",
        }
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Png => "image/png",
            Format::Svg => "image/svg+xml",
        })
    }
}

/// What Talkdesk asks a picture for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Logo,
    Icon,
}

impl Image {
    /// The file of the settings, at most `limit` bytes of it, or the neutral picture. Errors are for `config check`.
    pub fn load(purpose: Purpose, file: Option<&Path>, folder: &Path, limit: usize) -> Result<Image, String> {
        let (name, neutral) = match purpose {
            Purpose::Logo => ("logo", LOGO),
            Purpose::Icon => ("icon", ICON),
        };
        let Some(file) = file else {
            return Image::read(Bytes::from_static(neutral)).map_err(str::to_owned);
        };
        let file = folder.join(file);
        let shown = file.display();
        // Looked at first: a mistaken name may be that of a huge file, or of a device.
        let size = std::fs::metadata(&file).map_err(|error| format!("{name}: {shown} cannot be read: {error}"))?;
        if !size.is_file() {
            return Err(format!("{name}: {shown} is not a file"));
        }
        if size.len() > limit as u64 {
            return Err(format!(
                "{name}: {shown} has {} bytes, more than http.image_limit allows ({limit})",
                size.len()
            ));
        }
        let bytes = std::fs::read(&file).map_err(|error| format!("{name}: {shown} cannot be read: {error}"))?;
        Image::read(bytes.into()).map_err(|why| format!("{name}: {shown} {why}"))
    }

    /// The bytes decide what it is, not the name of the file.
    fn read(bytes: Bytes) -> Result<Image, &'static str> {
        let format = if bytes.starts_with(PNG) {
            check_png(&bytes)?;
            Format::Png
        } else {
            check_svg(&bytes)?;
            Format::Svg
        };
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Image {
            format,
            etag: HeaderValue::try_from(format!("\"{digest}\"")).map_err(|_| "has no digest")?,
            bytes,
        })
    }
}

/// Signature, a header of sane size, and the end mark (PNG specification, 5.2 and 11.2): a file that was cut off has none.
fn check_png(bytes: &[u8]) -> Result<(), &'static str> {
    let number = |at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let header = number(8) == Some(13) && bytes.get(12..16) == Some(b"IHDR");
    let (Some(width), Some(height), true) = (number(16), number(20), header) else {
        return Err("begins like a PNG and is none");
    };
    if !PIXELS.contains(&width) || !PIXELS.contains(&height) {
        return Err("must be 1 to 4096 pixels wide and high");
    }
    if !bytes.ends_with(PNG_END) {
        return Err("is a PNG without its end");
    }
    Ok(())
}

/// Text with `svg` of SVG's namespace as its root, without which browsers draw nothing.
fn check_svg(bytes: &[u8]) -> Result<(), &'static str> {
    const NEITHER: &str = "is neither a PNG nor an SVG";
    let text = std::str::from_utf8(bytes).map_err(|_| NEITHER)?;
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        // Declaration, comments and document type stand before the root.
        let end = match rest {
            _ if rest.starts_with("<?") => "?>",
            _ if rest.starts_with("<!--") => "-->",
            _ if rest.starts_with("<!DOCTYPE") && !rest[..rest.find('>').unwrap_or(0)].contains('[') => ">",
            _ => break,
        };
        let at = rest.find(end).ok_or(NEITHER)?;
        rest = rest[at + end.len()..].trim_start();
    }
    let root = rest.strip_prefix("<svg").and_then(|root| root.split_once('>'));
    let Some((attributes, _)) =
        root.filter(|(root, _)| root.is_empty() || root.starts_with([' ', '\n', '\r', '\t', '/']))
    else {
        return Err(NEITHER);
    };
    if !attributes.contains("http://www.w3.org/2000/svg") {
        return Err("is an SVG without xmlns=\"http://www.w3.org/2000/svg\"");
    }
    let text = text.trim_end();
    if !text.ends_with("</svg>") && !attributes.ends_with('/') {
        return Err("is an SVG without its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\">";

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = [PNG, b"\0\0\0\x0dIHDR"].concat();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend(b"\x08\x06\0\0\0\0\0\0\0");
        bytes.extend(PNG_END);
        bytes
    }

    fn why(bytes: impl Into<Vec<u8>>) -> &'static str {
        Image::read(bytes.into().into()).unwrap_err()
    }

    #[test]
    fn the_bytes_decide_what_a_picture_is() {
        let svg =
            |before: &str| Image::read(format!("{before}{ROOT}</svg>\n").into_bytes().into()).map(|image| image.format);
        for before in [
            "",
            "\u{feff}",
            "<?xml version=\"1.0\"?>\n<!-- a > b -->\n",
            "<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"svg11.dtd\">\n",
        ] {
            assert_eq!(svg(before), Ok(Format::Svg), "{before}");
        }
        let image = Image::read(png(1, 4096).into()).unwrap();
        assert_eq!(image.format, Format::Png);
        assert_eq!(image.etag, Image::read(png(1, 4096).into()).unwrap().etag);
        assert_ne!(image.etag, Image::read(png(2, 4096).into()).unwrap().etag);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for text in ["", "GIF89a", "<html></html>", "<svgx>", "<!-- endless", "\u{1}"] {
            assert_eq!(why(text), "is neither a PNG nor an SVG", "{text}");
        }
        assert_eq!(why([0xff, 0xd8, 0xff]), "is neither a PNG nor an SVG", "a JPEG");
        // Entities of a document type of one's own can be huge.
        assert!(why(format!("<!DOCTYPE svg [<!ENTITY a \"b\">]>{ROOT}</svg>")).contains("neither"));
        assert!(why("<svg></svg>").contains("xmlns"));
        assert!(why(ROOT).contains("without its end"));
        assert!(why(PNG).contains("is none"));
        assert!(why(png(0, 1)).contains("pixels") && why(png(1, 4097)).contains("pixels"));
        assert!(why(&png(1, 1)[..40]).contains("without its end"));
    }

    #[test]
    fn files_are_found_from_the_settings_folder_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bin"), png(8, 8)).unwrap();
        let load = |file: Option<&str>, limit| Image::load(Purpose::Icon, file.map(Path::new), folder.path(), limit);
        assert_eq!(load(Some("a.bin"), 1024).unwrap().format, Format::Png);
        for (file, limit, expected) in [
            ("a.bin", 16, "more than http.image_limit allows (16)"),
            ("b.bin", 16, "cannot be read"),
            (".", 16, "is not a file"),
        ] {
            let error = load(Some(file), limit).unwrap_err();
            assert!(error.starts_with("icon: ") && error.contains(expected), "{error}");
        }
        for purpose in [Purpose::Logo, Purpose::Icon] {
            let neutral = Image::load(purpose, None, folder.path(), 1).unwrap();
            assert_eq!(neutral.format, Format::Png, "compiled in");
        }
    }
}
