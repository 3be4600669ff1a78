//! Reading requests: bodies, keys, ids, dates. Texts become checked values here.

use std::{fmt::Display, str::FromStr};

use axum::{body::Bytes, extract::rejection::BytesRejection, http::HeaderMap};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::writer::Key;

pub(super) type Body = Result<Bytes, BytesRejection>;

pub(super) fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    serde_json::from_slice(&body?).map_err(|e| ApiError::invalid("body", e))
}

pub(super) fn parsed<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|e| ApiError::invalid(field, e))
}

pub(super) fn bounded(field: &str, text: Option<String>, bytes_max: usize) -> Result<String, ApiError> {
    let text = text.unwrap_or_default();
    if text.len() > bytes_max {
        return Err(ApiError::invalid(field, format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// The `Idempotency-Key` header, with or without the quotes of a structured-field string.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<Key>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|e| ApiError::invalid("Idempotency-Key", e))?
        .trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .unwrap_or(text);
    Key::of_person(bare)
        .map(Some)
        .map_err(|e| ApiError::invalid("Idempotency-Key", e))
}

/// The start of a day or an instant, in Unix microseconds.
pub(super) fn from_date(field: &str, text: &str) -> Result<i64, ApiError> {
    match text.parse::<Date>() {
        Ok(date) if !text.contains('T') => start_of(field, date),
        _ => parsed::<Timestamp>(field, text).map(Timestamp::as_microsecond),
    }
}

/// Just after a day (which belongs to the range) or after an instant, in Unix microseconds.
pub(super) fn until_date(field: &str, text: &str) -> Result<i64, ApiError> {
    match text.parse::<Date>() {
        Ok(date) if !text.contains('T') => {
            let next = date
                .checked_add(1.day())
                .map_err(|e| ApiError::invalid(field, e))?;
            start_of(field, next)
        }
        _ => parsed::<Timestamp>(field, text).map(|t| t.as_microsecond().saturating_add(1)),
    }
}

fn start_of(field: &str, date: Date) -> Result<i64, ApiError> {
    date.to_zoned(TimeZone::UTC)
        .map(|zoned| zoned.timestamp().as_microsecond())
        .map_err(|e| ApiError::invalid(field, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins_and_an_instant_is_in_its_range() {
        let day = 86_400_000_000;
        assert_eq!(from_date("d", "1970-01-02").unwrap(), day);
        assert_eq!(until_date("d", "1970-01-02").unwrap(), 2 * day);
        assert_eq!(from_date("d", "1970-01-02T00:00:00Z").unwrap(), day);
        assert_eq!(until_date("d", "1970-01-02T00:00:00Z").unwrap(), day + 1);
        assert!(from_date("d", "yesterday").is_err());
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            key(&headers)
        };
        assert_eq!(with("\"k-1\"").unwrap(), with("k-1").unwrap());
        assert!(with("a b").is_err());
        assert!(with("\"\"").is_err());
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }
}
