//! UTF-16LE in and out of `String`, tolerant of what clients really send: lone surrogates and a cut last unit.

use bytes::BytesMut;

/// Text of UTF-16LE bytes. Lone surrogates, and a last odd byte, become U+FFFD. Allocates at most 1.5 × `bytes` + 3.
#[must_use]
pub fn decode(bytes: &[u8]) -> String {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len() / 2 * 3 + odd.len() * 3);
    let units = pairs.iter().map(|p| u16::from_le_bytes(*p));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    if !odd.is_empty() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

/// UTF-16 code units of a text.
#[must_use]
pub fn units(text: &str) -> usize {
    // One unit per character of up to three UTF-8 bytes, two per character of four.
    text.chars().map(char::len_utf16).sum()
}

/// Appends a text as UTF-16LE.
pub fn put(out: &mut BytesMut, text: &str) {
    // A text has at most as many units as bytes. Filling zeroed room by pairs is several times faster than appending.
    let start = out.len();
    out.resize(start + text.len() * 2, 0);
    let (room, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>();
    if text.is_ascii() {
        for ([low, _], byte) in room.iter_mut().zip(text.bytes()) {
            *low = byte;
        }
        return;
    }
    let mut written = 0;
    for (pair, unit) in room.iter_mut().zip(text.encode_utf16()) {
        *pair = unit.to_le_bytes();
        written += 2;
    }
    out.truncate(start + written);
}

/// The longest head of a text with at most `most` code units: a B_VARCHAR can say 255, a name 128.
#[must_use]
pub fn clip(text: &str, most: usize) -> &str {
    let mut left = most;
    for (at, c) in text.char_indices() {
        match left.checked_sub(c.len_utf16()) {
            Some(rest) => left = rest,
            None => return text.get(..at).unwrap_or_default(),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_and_an_odd_byte_do_not_end_the_text() {
        assert_eq!(
            decode(&[0x41, 0, 0x00, 0xD8, 0x42, 0, 0x43]),
            "A\u{FFFD}B\u{FFFD}"
        );
    }

    #[test]
    fn text_survives_the_way_there_and_back() {
        let text = "weir ü 漢 🦀";
        let mut out = BytesMut::new();
        put(&mut out, text);
        assert_eq!(out.len(), units(text) * 2);
        assert_eq!(decode(&out), text);
    }

    #[test]
    fn clipping_never_halves_a_character() {
        assert_eq!(clip("a🦀b", 2), "a");
        assert_eq!(clip("a🦀b", 3), "a🦀");
        assert_eq!(clip("abc", 9), "abc");
    }
}
