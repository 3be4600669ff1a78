//! A lexer for T-SQL text: enough to tell statements that only set up or give back from everything else.
//!
//! It fails closed: what it does not know becomes a symbol that no exemption contains (RFD 5).

/// One lexical element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lexeme<'a> {
    /// A bare identifier or keyword, `@variables` and `@@functions` included.
    Word(&'a str),
    /// `[name]` or `"name"`, without its delimiters; escaped delimiters are left doubled.
    Quoted(&'a str),
    /// `'text'` or `N'text'`, without its delimiters; escaped quotes are left doubled.
    Text(&'a str),
    /// Digits, with a point or an exponent or a leading `0x`.
    Number(&'a str),
    /// Any other character.
    Symbol(char),
}

impl<'a> Lexeme<'a> {
    /// True for the bare word `word`, in any case.
    #[must_use]
    pub fn is(self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w.eq_ignore_ascii_case(word))
    }

    /// The name that a bare or quoted identifier spells.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

/// What some readers of a text take for the end of a line.
const OTHER_LINE_ENDS: &[char] = &['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// Cuts `text` into lexemes. Comments and white space are left out; an unterminated string, name or comment is `None`.
#[must_use]
pub fn lex(text: &str) -> Option<Vec<Lexeme<'_>>> {
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut lexemes = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() || first == '\0' {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\0');
        } else if rest.starts_with("--") {
            let comment = rest.find('\n').map_or(rest, |at| &rest[..at]);
            // Where others than a line feed end the comment, a statement could stand in it.
            if comment.trim_end_matches('\r').contains(OTHER_LINE_ENDS) {
                return None;
            }
            rest = &rest[comment.len()..];
        } else if let Some(body) = rest.strip_prefix("/*") {
            rest = skip_comment(body)?;
        } else {
            let (lexeme, after) = next(rest, first)?;
            lexemes.push(lexeme);
            rest = after;
        }
    }
    Some(lexemes)
}

fn next(rest: &str, first: char) -> Option<(Lexeme<'_>, &str)> {
    let after = &rest[first.len_utf8()..];
    match first {
        '[' => delimited(after, ']').map(|(name, after)| (Lexeme::Quoted(name), after)),
        '"' => delimited(after, '"').map(|(name, after)| (Lexeme::Quoted(name), after)),
        '\'' => delimited(after, '\'').map(|(text, after)| (Lexeme::Text(text), after)),
        'N' | 'n' if after.starts_with('\'') => {
            delimited(&after[1..], '\'').map(|(text, after)| (Lexeme::Text(text), after))
        }
        '0'..='9' => {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
                .unwrap_or(rest.len());
            let number = &rest[..end];
            // T-SQL reads `1SELECT` as two lexemes: what is no number to its end is no number here.
            if is_number(number) {
                Some((Lexeme::Number(number), &rest[end..]))
            } else {
                Some((Lexeme::Symbol(first), after))
            }
        }
        c if c.is_alphabetic() || matches!(c, '_' | '@' | '#') => {
            let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$');
            let end = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
            Some((Lexeme::Word(&rest[..end]), &rest[end..]))
        }
        other => Some((Lexeme::Symbol(other), after)),
    }
}

/// `12`, `1.5`, `1e3`, `1.5E3`, `0x1F`.
fn is_number(text: &str) -> bool {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    mantissa.chars().all(|c| c.is_ascii_digit() || c == '.') && digits(exponent)
}

/// Text up to the closing delimiter; a doubled one stands for itself.
fn delimited(text: &str, close: char) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(close)?;
        let after = &text[at + close.len_utf8()..];
        if !after.starts_with(close) {
            return Some((&text[..at], after));
        }
        from = at + 2 * close.len_utf8();
    }
}

/// T-SQL comments nest. Answers what follows the comment.
fn skip_comment(mut rest: &str) -> Option<&str> {
    let mut depth = 1_u32;
    while depth > 0 {
        let open = rest.find("/*");
        let close = rest.find("*/")?;
        match open {
            Some(open) if open < close => {
                depth += 1;
                rest = &rest[open + 2..];
            }
            _ => {
                depth -= 1;
                rest = &rest[close + 2..];
            }
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::{Lexeme::*, lex};

    #[test]
    fn names_strings_numbers_and_comments() {
        let text = "\u{feff}EXEC [we]]ir].balance @a=N'it''s', -- tail\n/* a /* b */ c */ 0x1F 1.5e3 \"q\"";
        let expected = vec![
            Word("EXEC"),
            Quoted("we]]ir"),
            Symbol('.'),
            Word("balance"),
            Word("@a"),
            Symbol('='),
            Text("it''s"),
            Symbol(','),
            Number("0x1F"),
            Number("1.5e3"),
            Quoted("q"),
        ];
        assert_eq!(lex(text), Some(expected));
    }

    #[test]
    fn what_does_not_end_is_not_lexed() {
        for text in ["'abc", "[abc", "\"abc", "/* abc", "/* a /* b */", "N'x"] {
            assert_eq!(lex(text), None, "{text}");
        }
    }
}
