//! LOGIN7: bounded memory whatever its offsets say; what parses is written and read again alike.

use weir_tds::login7::Login7;

use super::oracle;
use super::source::Source;

/// First byte: odd = Length is set right, because nothing is looked at where it is wrong. The rest: a LOGIN7 body.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let repair = source.byte() & 1 == 1;
    let mut body = source.rest().to_vec();
    if repair && let Some(length) = body.first_chunk_mut::<4>() {
        let bytes = u32::try_from(source.rest().len()).expect("inputs are short");
        *length = bytes.to_le_bytes();
    }
    let Ok(login) = oracle::before_login(body.len(), || Login7::parse(&body)) else {
        return;
    };
    // Names that lie over each other come apart when they are written, and text that is no UTF-16 grows.
    let Ok(encoded) = login.encode() else {
        return;
    };
    let again = Login7::parse(&encoded).expect("what we write we can read");
    let mut wanted = login.clone();
    if !wanted.features.is_empty() {
        wanted.option_flags3 |= 0x10;
    }
    assert_eq!(again, wanted, "written and read again");
    assert!(!format!("{login:?}").contains("password"), "a password in Debug");
}
