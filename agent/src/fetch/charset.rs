//! From bytes to text.
//!
//! In the order of the HTML Standard (13.2.3.2): byte order mark, `Content-Type`, `<meta>` within the first kilobyte,
//! then a guess from the bytes.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Bytes searched for `<meta charset>`.
const PRESCAN_BYTES: usize = 1024;

/// Media type in lower case, and charset, of a `Content-Type` value.
pub(super) fn media_type(value: &str) -> (String, Option<String>) {
    let mut parts = value.split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']).to_string())
    });
    (media, charset)
}

/// Decodes a body; what its encoding does not have becomes U+FFFD.
pub(super) fn decode(body: &[u8], charset: Option<&str>, html: bool) -> String {
    if let Some((encoding, mark)) = Encoding::for_bom(body) {
        return encoding.decode_without_bom_handling(body.get(mark..).unwrap_or_default()).0.into_owned();
    }
    let declared = charset
        .and_then(|label| Encoding::for_label(label.as_bytes()))
        .or_else(|| if html { meta_charset(body) } else { None });
    let encoding = declared.unwrap_or_else(|| guess(body));
    encoding.decode_without_bom_handling(body).0.into_owned()
}

fn guess(body: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(body, true);
    detector.guess(None, Utf8Detection::Allow)
}

fn meta_charset(body: &[u8]) -> Option<&'static Encoding> {
    let head = body.get(..body.len().min(PRESCAN_BYTES))?.to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let found = head.split("<meta").skip(1).find_map(|rest| {
        let tag = rest.split('>').next()?;
        let value = tag.split_once("charset")?.1.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let label = value.split(|c: char| c.is_whitespace() || "\"';/>".contains(c)).next()?;
        Encoding::for_label(label.as_bytes())
    })?;
    // Had it been UTF-16, the tag could not have been read as ASCII.
    Some(if found == UTF_16LE || found == UTF_16BE { UTF_8 } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_taken_apart() {
        assert_eq!(media_type("Text/HTML; Charset=\"ISO-8859-1\""), ("text/html".into(), Some("ISO-8859-1".into())));
        assert_eq!(media_type("text/html"), ("text/html".into(), None));
        assert_eq!(media_type(""), (String::new(), None));
    }

    #[test]
    fn the_mark_beats_the_header_beats_the_meta_beats_the_guess() {
        assert_eq!(decode(b"\xef\xbb\xbf\xc3\xa9", Some("windows-1252"), true), "é");
        assert_eq!(decode(b"\xff\xfeA\x00", Some("utf-8"), true), "A");
        assert_eq!(decode(b"<meta charset=windows-1252>\xc3\xa9", Some("utf-8"), true), "<meta charset=windows-1252>é");
        assert_eq!(
            decode(b"<META http-equiv=x content='text/html; charset=windows-1252'>\xe9", None, true).chars().last(),
            Some('é')
        );
        assert_eq!(decode(b"<meta charset=utf-16>\xc3\xa9", None, true).chars().last(), Some('é'));
        assert_eq!(decode(b"<meta charset=windows-1252>\xc3\xa9", None, false).chars().last(), Some('é'));
        assert_eq!(decode("日本語のページです".as_bytes(), Some("no-such-charset"), true), "日本語のページです");
        assert_eq!(decode(b"\xff\xff", Some("utf-8"), true), "\u{fffd}\u{fffd}");
    }
}
