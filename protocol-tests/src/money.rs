//! Money as the tests count it: nano-units in an i64, read from and written as decimal strings, no code of ours under test.

/// Nano-units of one unit.
pub const UNIT: i64 = 1_000_000_000;

/// The demo tariff: nano-units per row.
pub const DEMO_ROW: i64 = 10_000;

/// Nano-units of a decimal string with at most nine places.
///
/// # Panics
/// When the text is not such a number.
#[must_use]
pub fn nanos(text: &str) -> i64 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(places.len() <= 9, "more than nine places: {text}");
    let whole: i64 = whole.parse().unwrap_or_else(|_| panic!("no amount: {text}"));
    let places: i64 = format!("{places:0<9}")
        .parse()
        .unwrap_or_else(|_| panic!("no amount: {text}"));
    sign * (whole * UNIT + places)
}

/// The decimal string of nano-units, with all nine places.
#[must_use]
pub fn decimal(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let unit = UNIT.unsigned_abs();
    format!("{sign}{}.{:09}", size / unit, size % unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_to_the_last_place() {
        for (text, count) in [
            ("5.00", 5 * UNIT),
            ("0.000010", 10_000),
            ("-1.5", -UNIT - UNIT / 2),
            ("7", 7 * UNIT),
        ] {
            assert_eq!(nanos(text), count);
            assert_eq!(nanos(&decimal(count)), count);
        }
        assert_eq!(decimal(-1), "-0.000000001");
    }
}
