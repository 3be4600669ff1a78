//! The one form in which logins are compared, by proxy and billing alike.
//!
//! A SQL Server compares logins by its collation; with the default one `DEMO`, `demo ` and `ｄｅｍｏ` are one login. What is
//! two logins here and one there is refused at the gate (no account has it), so a fold that is missing costs a login, never
//! money; what is one login here and two there cannot have two accounts.

/// Longest login, characters: SQL Server's `sysname`.
pub const LOGIN_CHARS_MAX: usize = 128;

/// Why a login can mean nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Nothing but spaces.
    #[error("the login is empty")]
    Empty,
    /// U+0000: two programs would read two different logins.
    #[error("the login contains a NUL character")]
    Nul,
    /// Longer than SQL Server allows.
    #[error("the login is longer than 128 characters")]
    TooLong,
}

/// A login, database, application or server name as it is compared: trailing spaces dropped, case folded, full-width and
/// half-width forms (U+FF00–U+FFEF, U+3000) as their ordinary ones, hiragana as katakana.
///
/// # Errors
/// It is empty, too long, or has a NUL.
pub fn canonical_login(login: &str) -> Result<String, LoginError> {
    if login.contains('\0') {
        return Err(LoginError::Nul);
    }
    let mut text = String::with_capacity(login.len());
    for c in login.chars() {
        match (text.chars().next_back(), width_folded(c)) {
            (Some(last), mark @ (VOICED | SEMI_VOICED)) if composed(last, mark).is_some() => {
                text.pop();
                text.extend(composed(last, mark));
            }
            (_, c) => text.extend(c.to_lowercase()),
        }
    }
    let text = text.trim_end_matches(' ');
    if text.is_empty() {
        return Err(LoginError::Empty);
    }
    if text.chars().count() > LOGIN_CHARS_MAX {
        return Err(LoginError::TooLong);
    }
    Ok(text.to_owned())
}

/// The sound marks that half-width katakana carry behind them.
const VOICED: char = '\u{3099}';
const SEMI_VOICED: char = '\u{309A}';

/// Ordinary forms of U+FF61 to U+FF9F, in their order.
const KATAKANA: &str = "。「」、・ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン\u{3099}\u{309A}";

/// Ordinary forms of U+FFE0 to U+FFE6, in their order.
const SIGNS: &str = "¢£¬¯¦¥₩";

fn width_folded(c: char) -> char {
    let nth = |table: &str, first: char| {
        let n = u32::from(c).checked_sub(u32::from(first));
        n.and_then(|n| table.chars().nth(n as usize)).unwrap_or(c)
    };
    match c {
        '\u{3000}' => ' ',
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        '\u{FF61}'..='\u{FF9F}' => nth(KATAKANA, '\u{FF61}'),
        '\u{FFE0}'..='\u{FFE6}' => nth(SIGNS, '\u{FFE0}'),
        // Hiragana stand 0x60 below katakana.
        '\u{3041}'..='\u{3096}' => char::from_u32(u32::from(c) + 0x60).unwrap_or(c),
        other => other,
    }
}

/// A katakana with its sound mark as the one character that means the same.
fn composed(base: char, mark: char) -> Option<char> {
    let step = match (base, mark) {
        ('ウ', VOICED) => return Some('ヴ'),
        ('カ'..='ト' | 'ハ'..='ホ', VOICED) if BASES.contains(base) => 1,
        ('ハ'..='ホ', SEMI_VOICED) if BASES.contains(base) => 2,
        _ => return None,
    };
    char::from_u32(u32::from(base) + step)
}

/// Katakana that a sound mark may follow.
const BASES: &str = "カキクケコサシスセソタチツテトハヒフヘホ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_the_server_takes_for_one_are_one() {
        for login in ["demo", "DEMO", "Demo  ", "ｄｅｍｏ", "ＤＥＭＯ\u{3000}"] {
            assert_eq!(canonical_login(login).unwrap(), "demo", "{login}");
        }
        for login in ["ガパヴー", "ｶﾞﾊﾟｳﾞｰ", "がぱゔー"] {
            assert_eq!(canonical_login(login).unwrap(), "ガパヴー", "{login}");
        }
        assert_eq!(canonical_login("￡１").unwrap(), "£1");
        assert_eq!(canonical_login("ﾝﾞ").unwrap(), "ン\u{3099}");
        assert_eq!(canonical_login(" demo").unwrap(), " demo");
        assert_eq!(canonical_login("demo\0admin"), Err(LoginError::Nul));
        assert_eq!(canonical_login("  "), Err(LoginError::Empty));
        assert_eq!(canonical_login(&"x".repeat(129)), Err(LoginError::TooLong));
    }

    #[test]
    fn the_canonical_form_of_a_canonical_form_is_itself() {
        for code in (0u32..=0xFFFF).chain([0x1_F980]) {
            let Some(c) = char::from_u32(code) else { continue };
            let Ok(once) = canonical_login(&format!("a{c}b")) else {
                continue;
            };
            assert_eq!(
                canonical_login(&once).as_deref(),
                Ok(once.as_str()),
                "U+{code:04X}"
            );
        }
    }

    #[test]
    fn every_half_width_form_has_an_ordinary_one() {
        assert_eq!(KATAKANA.chars().count(), 0xFF9F - 0xFF61 + 1);
        assert_eq!(SIGNS.chars().count(), 7);
    }
}
