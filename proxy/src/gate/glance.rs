//! A glance at a statement's first word: most begin with one that no exemption and no command begins with, and need not be
//! read any further. Every request passes here, so it costs tens of instructions, where reading it whole costs thousands.

/// Longest word of [`CONCERNS`].
const WORD_MAX: usize = 10;

/// First words of what the gate looks at: exempt statements, its own commands, and what tells a bulk load's kind. A lexer
/// reads all of a text that begins so.
const CONCERNS: &[&[u8]] = &[
    b"SET",
    b"USE",
    b"BEGIN",
    b"COMMIT",
    b"ROLLBACK",
    b"SAVE",
    b"IF",
    b"EXEC",
    b"EXECUTE",
    b"WRITETEXT",
    b"UPDATETEXT",
];

/// True unless the text of these UTF-16 units surely begins with a word that concerns nobody here. What is not a plain
/// word, a comment say, may hide one that does.
pub(super) fn may_concern_gate(units: impl Iterator<Item = u16>) -> bool {
    let mut units = units.skip_while(|unit| matches!(unit, 0x20 | 0x09 | 0x0A | 0x0D));
    let mut word = [0_u8; WORD_MAX];
    let mut len = 0;
    loop {
        match units.next().map(u8::try_from) {
            Some(Ok(letter)) if letter.is_ascii_alphabetic() => {
                let Some(place) = word.get_mut(len) else {
                    return false;
                };
                *place = letter.to_ascii_uppercase();
                len += 1;
            }
            // The word goes on: not one of these, whatever it is. But what is not ASCII is left to the lexer.
            Some(Ok(b'_' | b'@' | b'#' | b'$' | b'0'..=b'9')) if len > 0 => return false,
            Some(Ok(other)) if other.is_ascii() && len > 0 => break,
            None if len > 0 => break,
            _ => return true,
        }
    }
    word.get(..len).is_some_and(|word| CONCERNS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::may_concern_gate;
    use crate::gate::{command::Command, exempt::all_exempt, lexer::lex};

    fn concerns(text: &str) -> bool {
        may_concern_gate(text.encode_utf16())
    }

    #[test]
    fn what_begins_otherwise_is_passed_over() {
        for text in [
            "SELECT 1",
            "\r\n\tinsert t values (1)",
            "WITH x AS (SELECT 1) SELECT *",
            "SETS",
            "SET_ 1",
            "IF2",
            "x",
        ] {
            assert!(!concerns(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_surely_another_word_is_read() {
        for text in [
            "",
            " ",
            ";SET",
            "-- x",
            "/* */ SET",
            "[SET]",
            "1",
            "\u{feff}SET NOCOUNT ON",
            "SET",
            "exec(",
            "É",
            "SETÉ",
            "\0SET",
        ] {
            assert!(concerns(text), "{text}");
        }
    }

    /// The glance never decides otherwise than the lexer would.
    #[test]
    fn no_exempt_text_and_no_command_is_passed_over() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces = [
            "SET",
            "USE",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SAVE",
            "IF",
            "EXEC",
            "EXECUTE",
            "SELECT",
            "TRAN",
            "ON",
            "NOCOUNT",
            "weir",
            ".",
            "balance",
            "x",
            "1",
            " ",
            " ",
            " ",
            ";",
            "\n",
            "--",
            "/*",
            "*/",
            "'",
            "N'",
            "@@TRANCOUNT",
            ">",
            "É",
            "\0",
        ];
        for _ in 0..200_000 {
            let count = random.usize(1..8);
            let text: String = (0..count).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let concerned = lex(&text).is_some_and(|l| all_exempt(&l) || Command::of_batch(&l).is_some());
            assert!(!concerned || concerns(&text), "{text:?}");
        }
    }
}
