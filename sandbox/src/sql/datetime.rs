//! Dates and times as numbers: days since 0001-01-01 and ticks of 100 ns since midnight, to and from their text forms.

use std::fmt::Write as _;

/// Ticks of one second.
pub(crate) const SECOND: i64 = 10_000_000;
/// Ticks of one day.
pub(crate) const DAY: i64 = 86_400 * SECOND;
/// 1900-01-01, day 0 of `datetime`.
pub(crate) const DAY_1900: i64 = 693_595;
/// 1970-01-01.
const DAY_1970: i64 = 719_162;
/// 9999-12-31.
const DAY_MAX: i64 = 3_652_058;

/// A date, a time, or both, perhaps with an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Days since 0001-01-01, local.
    pub(crate) day: i64,
    /// 100 ns since midnight, local.
    pub(crate) ticks: i64,
    /// Minutes east of UTC.
    pub(crate) offset: i16,
}

/// Days since 0001-01-01 of a proleptic Gregorian date; months and days outside their range carry over.
pub(crate) fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_index = (month + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 306
}

/// Year, month, day of a day number.
pub(crate) fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 306;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_index + 2) / 5 + 1)
}

/// Days of a month.
pub(crate) fn month_days(year: i64, month: i64) -> i64 {
    day_of(year, month + 1, 1) - day_of(year, month, 1)
}

impl Moment {
    /// Of its parts.
    pub(crate) const fn at(day: i64, ticks: i64, offset: i16) -> Self {
        Self { day, ticks, offset }
    }

    /// From seconds and nanoseconds since 1970.
    pub(crate) fn from_unix(seconds: i64, nanos: u32) -> Self {
        let day = DAY_1970 + seconds.div_euclid(86_400);
        Self {
            day,
            ticks: seconds.rem_euclid(86_400) * SECOND + i64::from(nanos / 100),
            offset: 0,
        }
    }

    /// Reads `2024-05-06`, `20240506`, `2024-05-06[T ]12:34[:56[.789]]`, `12:34:56`, each perhaps with `Z` or `+02:00`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (date, rest) = match text.find(['T', ' ']) {
            Some(at) => (text.get(..at)?, text.get(at + 1..)?.trim()),
            None if text.contains(':') && !text.contains('-') => ("1900-01-01", text),
            None => (text, ""),
        };
        let day = parse_date(date)?;
        let (time, offset) = split_offset(rest)?;
        let moment = Self {
            day,
            ticks: parse_time(time)?,
            offset,
        };
        (0..=DAY_MAX).contains(&day).then_some(moment)
    }

    /// All ticks since 0001-01-01, local.
    pub(crate) fn total(self) -> i64 {
        self.day * DAY + self.ticks
    }

    /// From all ticks.
    pub(crate) fn from_total(total: i64, offset: i16) -> Self {
        Self {
            day: total.div_euclid(DAY),
            ticks: total.rem_euclid(DAY),
            offset,
        }
    }

    /// `2024-05-06`.
    pub(crate) fn date_text(self) -> String {
        let (year, month, day) = civil(self.day);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `12:34:56.1234567` with `scale` digits.
    pub(crate) fn time_text(self, scale: u8) -> String {
        let seconds = self.ticks / SECOND;
        let mut text = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        if scale > 0 {
            let fraction = (self.ticks % SECOND) / 10_i64.pow(u32::from(7 - scale.min(7)));
            let _ = write!(text, ".{fraction:0width$}", width = usize::from(scale.min(7)));
        }
        text
    }

    /// Date and time with `scale` digits.
    pub(crate) fn text(self, scale: u8) -> String {
        format!("{} {}", self.date_text(), self.time_text(scale))
    }

    /// Date, time and offset.
    pub(crate) fn offset_text(self, scale: u8) -> String {
        let (sign, minutes) = if self.offset < 0 {
            ('-', -self.offset)
        } else {
            ('+', self.offset)
        };
        format!(
            "{} {sign}{:02}:{:02}",
            self.text(scale),
            minutes / 60,
            minutes % 60
        )
    }
}

fn parse_date(text: &str) -> Option<i64> {
    let digits = |s: &str| s.parse::<i64>().ok().filter(|n| *n >= 0);
    let (year, month, day) = if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        (
            digits(text.get(..4)?)?,
            digits(text.get(4..6)?)?,
            digits(text.get(6..)?)?,
        )
    } else {
        let mut parts = text.splitn(3, ['-', '/', '.']);
        let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
        // Year first, or month/day/year as us_english has it.
        if a.len() == 4 {
            (digits(a)?, digits(b)?, digits(c)?)
        } else {
            (digits(c)?, digits(a)?, digits(b)?)
        }
    };
    let valid =
        (1..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1 && day <= month_days(year, month);
    valid.then(|| day_of(year, month, day))
}

fn split_offset(text: &str) -> Option<(&str, i16)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let (hours, minutes) = text.get(at + 1..)?.split_once(':')?;
    let minutes = hours
        .parse::<i16>()
        .ok()?
        .checked_mul(60)?
        .checked_add(minutes.parse().ok()?)?;
    let minutes = if text.as_bytes().get(at) == Some(&b'-') {
        -minutes
    } else {
        minutes
    };
    (-840..=840)
        .contains(&minutes)
        .then(|| (text.get(..at).unwrap_or("").trim_end(), minutes))
}

fn parse_time(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.splitn(3, ':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds: i64 = parts.next().map_or(Some(0), |s| s.parse().ok())?;
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0..60).contains(&seconds) {
        return None;
    }
    let mut ticks = 0;
    for at in 0..7 {
        let digit = match fraction.as_bytes().get(at) {
            Some(b @ b'0'..=b'9') => i64::from(b - b'0'),
            Some(_) => return None,
            None => 0,
        };
        ticks = ticks * 10 + digit;
    }
    Some((hours * 3600 + minutes * 60 + seconds) * SECOND + ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        assert_eq!(day_of(1, 1, 1), 0);
        assert_eq!(day_of(1900, 1, 1), DAY_1900);
        assert_eq!(day_of(1970, 1, 1), DAY_1970);
        assert_eq!(day_of(9999, 12, 31), DAY_MAX);
        for day in (0..=DAY_MAX).step_by(97) {
            let (y, m, d) = civil(day);
            assert_eq!(day_of(y, m, d), day);
        }
    }

    #[test]
    fn text_forms() {
        let m = Moment::parse("2024-02-29T12:34:56.1234567+02:00").unwrap();
        assert_eq!(m.offset_text(7), "2024-02-29 12:34:56.1234567 +02:00");
        assert_eq!(
            Moment::parse("20240229").unwrap().text(3),
            "2024-02-29 00:00:00.000"
        );
        assert_eq!(Moment::parse("12:34").unwrap().time_text(0), "12:34:00");
        assert_eq!(Moment::parse("02/29/2024").unwrap().date_text(), "2024-02-29");
        assert!(Moment::parse("2023-02-29").is_none());
        assert!(Moment::parse("25:00").is_none());
    }
}
