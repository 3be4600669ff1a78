//! Windows-1252, the code page of the collation that the sandbox and the gate use for (var)char text.

use bytes::{BufMut, BytesMut};

/// Characters of the bytes 0x80..=0x9F; U+0000 where the page has none.
const HIGH: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“',
    '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];

/// Appends a text in Windows-1252; what the page lacks becomes `?`, as SQL Server does it.
pub(super) fn put(out: &mut BytesMut, text: &str) {
    if text.is_ascii() {
        out.put_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        let byte = match u32::from(c) {
            code @ (0..=0x7F | 0xA0..=0xFF) => u8::try_from(code).unwrap_or(b'?'),
            _ => HIGH
                .iter()
                .zip(0x80u8..)
                .find(|(h, _)| **h == c)
                .map_or(b'?', |(_, byte)| byte),
        };
        out.put_u8(byte);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    #[test]
    fn the_euro_has_a_byte_and_a_crab_has_not() {
        let mut out = BytesMut::new();
        super::put(&mut out, "aé€Ÿ🦀");
        assert_eq!(&out[..], [0x61, 0xE9, 0x80, 0x9F, b'?']);
    }
}
