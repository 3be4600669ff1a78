//! A password as LOGIN7 carries it: wiped when dropped, never printed [MS-TDS 2.2.6.4].

use zeroize::Zeroizing;

/// A clear password, kept as UTF-16LE so that it goes on exactly as it came. Wiped on drop; `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// From text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        // Sized ahead: a vector that grows leaves copies behind that nobody wipes.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() * 2));
        for unit in text.encode_utf16() {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
        Self(bytes)
    }

    /// From the obfuscated bytes on the wire: XOR 0xA5, then swap the nibbles of each byte.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Self {
        let mut clear = Zeroizing::new(Vec::with_capacity(bytes.len()));
        clear.extend(bytes.iter().map(|b| (b ^ 0xA5).rotate_left(4)));
        Self(clear)
    }

    /// The obfuscated bytes on the wire. Obfuscation is not encryption: as secret as the password itself.
    pub fn to_wire(&self) -> impl ExactSizeIterator<Item = u8> + '_ {
        self.0.iter().map(|b| b.rotate_left(4) ^ 0xA5)
    }

    /// As text; a lone surrogate becomes U+FFFD.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(crate::utf16::decode(&self.0))
    }

    /// Bytes on the wire: two per UTF-16 unit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without a password.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_that_of_the_specification_and_debug_hides_it() {
        // 'a' = 0x61: nibbles swapped 0x16, xor 0xa5 = 0xb3; 0x00 becomes 0xa5.
        let password = Password::from_text("a");
        assert_eq!(password.to_wire().collect::<Vec<_>>(), [0xb3, 0xa5]);
        assert_eq!(Password::from_wire(&[0xb3, 0xa5]), password);
        assert_eq!(*password.to_text(), "a");
        assert_eq!(format!("{password:?}"), "Password(hidden)");
    }
}
