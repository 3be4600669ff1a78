//! Every server-to-client vector through the walker: the tokens and rows that it names, under every split.

use fastrand::Rng;
use serde_json::Value;
use weir_protocol_tests::naive_decoder::{self, NaiveToken};
use weir_protocol_tests::trace::{Found, count, trace};
use weir_protocol_tests::vectors::{self, Vector};
use weir_tds::error::WireErrorKind;
use weir_tds::packet::{HEADER_LEN, PacketHeader};
use weir_tds::token::TokenKind;
use weir_tds::walker::WalkerOptions;

use crate::token_fields;

/// Random divisions of each stream beside every division into two.
const RANDOM_SPLITS: usize = 50;

/// A token stream, and the `tokens` that a vector expects of it.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) options: WalkerOptions,
    pub(crate) stream: Vec<u8>,
    pub(crate) tokens: Vec<Value>,
}

/// Vectors whose types are those of TDS 7.0 on a newer stream, which cannot be metered.
pub(crate) fn is_legacy_character(vector: &Vector) -> bool {
    ["type-legacy-varchar-0x27", "type-legacy-char-0x2f"].contains(&vector.name.as_str())
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for vector in vectors::load() {
        if !vector.is_response() || is_legacy_character(&vector) {
            continue;
        }
        let sample = |stream: Vec<u8>, tokens: &Value| Sample {
            name: vector.name.clone(),
            options: vector.options(),
            stream,
            tokens: tokens.as_array().cloned().unwrap_or_default(),
        };
        match vector.layer.as_str() {
            "token-stream" if !vector.expected["tokens"].is_null() => {
                samples.push(sample(vector.bytes.clone(), &vector.expected["tokens"]));
            }
            "tds-packets" if vector.expected["decode_error"].is_null() => {
                let messages = vector.expected["messages"].as_array().expect("messages").clone();
                let bodies = bodies(&vector.bytes);
                assert_eq!(bodies.len(), messages.len(), "{}", vector.name);
                for (body, message) in bodies.into_iter().zip(&messages) {
                    if !message["body"]["tokens"].is_null() {
                        samples.push(sample(body, &message["body"]["tokens"]));
                    }
                }
            }
            _ => {}
        }
    }
    assert!(samples.len() > 230, "only {} samples", samples.len());
    samples
}

/// The bodies of the messages that lie in `bytes`, one after the other.
fn bodies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = vec![Vec::new()];
    while let Ok(Some(header)) = PacketHeader::parse(bytes) {
        let (packet, rest) = bytes.split_at(usize::from(header.length).min(bytes.len()));
        bodies
            .last_mut()
            .expect("one")
            .extend_from_slice(&packet[HEADER_LEN..]);
        if header.status.is_eom() {
            bodies.push(Vec::new());
        }
        bytes = rest;
    }
    bodies.pop();
    bodies
}

fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.usize(..=len.min(40)))
        .map(|_| rng.usize(..=len))
        .collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn tokens_and_rows_are_those_expected() {
    for sample in samples() {
        let walked = trace(&sample.stream, &[], sample.options);
        assert_eq!(walked.end, Ok(()), "{}", sample.name);
        let names: Vec<_> = walked.found.iter().map(|f| (f.kind.name(), f.offset)).collect();
        let expected: Vec<_> = sample
            .tokens
            .iter()
            .map(|t| {
                (
                    t["token"].as_str().expect("name"),
                    t["offset"].as_u64().expect("offset"),
                )
            })
            .collect();
        assert_eq!(names, expected, "{}", sample.name);
        for (found, token) in walked.found.iter().zip(&sample.tokens) {
            token_fields::check(&sample.name, found, token, &sample.options);
        }
    }
}

#[test]
fn the_naive_decoder_agrees_with_the_vectors() {
    for sample in samples() {
        let (tokens, error) = naive_decoder::decode(&sample.stream, sample.options);
        assert_eq!(error, None, "{}", sample.name);
        assert_eq!(tokens.len(), sample.tokens.len(), "{}", sample.name);
        for (token, expected) in tokens.iter().zip(&sample.tokens) {
            same_place_and_nulls(&sample.name, token, expected);
        }
    }
}

fn same_place_and_nulls(name: &str, token: &NaiveToken, expected: &Value) {
    let at = |field: &str| expected[field].as_u64().and_then(|n| usize::try_from(n).ok());
    assert_eq!(Some(token.offset), at("offset"), "{name}");
    if let Some(end) = at("end") {
        assert_eq!(token.end, end, "{name}");
    }
    if let Some(values) = expected["values"].as_array() {
        let nulls: Vec<bool> = values.iter().map(|v| v["value"].is_null()).collect();
        let found: Vec<bool> = token.values.iter().map(Option::is_none).collect();
        assert_eq!(found, nulls, "{name} at {}", token.offset);
    }
}

#[test]
fn every_split_gives_the_same() {
    let mut rng = Rng::with_seed(7);
    for sample in samples() {
        let whole = trace(&sample.stream, &[], sample.options);
        for cut in 0..=sample.stream.len() {
            assert_eq!(
                trace(&sample.stream, &[cut], sample.options),
                whole,
                "{} cut at {cut}",
                sample.name
            );
        }
        for _split in 0..RANDOM_SPLITS {
            let cuts = cuts(&mut rng, sample.stream.len());
            assert_eq!(
                trace(&sample.stream, &cuts, sample.options),
                whole,
                "{} cut at {cuts:?}",
                sample.name
            );
        }
        let bytewise: Vec<usize> = (0..sample.stream.len()).collect();
        assert_eq!(
            trace(&sample.stream, &bytewise, sample.options),
            whole,
            "{} byte by byte",
            sample.name
        );
        assert_eq!(
            count(&sample.stream, &bytewise, sample.options),
            Ok(whole.counts),
            "{}",
            sample.name
        );
        assert_eq!(
            count(&sample.stream, &[], sample.options),
            Ok(whole.counts),
            "{}",
            sample.name
        );
    }
}

#[test]
fn a_stream_that_ends_too_early_is_an_error() {
    for sample in samples() {
        let whole = trace(&sample.stream, &[], sample.options);
        let starts: Vec<usize> = whole
            .found
            .iter()
            .map(|f| usize::try_from(f.offset).expect("small"))
            .collect();
        for end in 0..sample.stream.len() {
            let walked = trace(&sample.stream[..end], &[], sample.options);
            if end == 0 || starts.contains(&end) {
                assert_eq!(walked.end, Ok(()), "{} ended at {end}", sample.name);
            } else {
                let error = walked.end.expect_err(&sample.name);
                assert!(
                    matches!(error.kind, WireErrorKind::Truncated(_)),
                    "{}: {error}",
                    sample.name
                );
            }
        }
    }
}

#[test]
fn rows_with_columns_from_elsewhere() {
    let mut seen = 0;
    for vector in vectors::load().iter().filter(|v| v.columns_given.is_some()) {
        seen += 1;
        let columns = vector
            .columns_given
            .as_ref()
            .and_then(Value::as_array)
            .expect("columns");
        let mut stream = metadata(columns);
        let row_at = stream.len() as u64;
        stream.extend(&vector.bytes);
        for cut in 0..=stream.len() {
            let walked = trace(&stream, &[cut], vector.options());
            if vector
                .name
                .ends_with("should-error-on-varcharmaxknownlength-mismatch")
            {
                assert!(walked.end.is_err(), "{}", vector.name);
                continue;
            }
            assert_eq!(walked.end, Ok(()), "{}", vector.name);
            let row = Found {
                kind: TokenKind::Row,
                offset: row_at,
                bytes: Vec::new(),
            };
            assert_eq!(walked.found.get(1..), Some(&[row][..]), "{}", vector.name);
        }
    }
    assert!(seen >= 29, "only {seen}");
}

/// COLMETADATA (7.2) of columns named as tedious names them.
fn metadata(columns: &[Value]) -> Vec<u8> {
    let mut out = vec![0x81];
    out.extend(u16::try_from(columns.len()).expect("few").to_le_bytes());
    for column in columns {
        out.extend([0, 0, 0, 0, 9, 0]);
        let max = u16::try_from(column["dataLength"].as_u64().unwrap_or(100))
            .expect("u16")
            .to_le_bytes();
        let digit = |name: &str| u8::try_from(column[name].as_u64().unwrap_or(0)).expect("small");
        let collation = [9, 4, 0xD0, 0, 0x34];
        match column["type"].as_str().expect("type") {
            "Int" => out.push(0x38),
            "BigInt" => out.push(0x7F),
            "DateTime" => out.push(0x3D),
            "Float" => out.push(0x3E),
            "Real" => out.push(0x3B),
            "Money" => out.push(0x3C),
            "SmallMoney" => out.push(0x7A),
            "UniqueIdentifier" => out.extend([0x24, 16]),
            "IntN" => out.extend([0x26, 8]),
            "FloatN" => out.extend([0x6D, 8]),
            "MoneyN" => out.extend([0x6E, 8]),
            "DateTimeN" => out.extend([0x6F, 8]),
            "NumericN" => out.extend([0x6C, 17, digit("precision"), digit("scale")]),
            "Binary" => out.extend([&[0xAD][..], &max].concat()),
            "VarBinary" => out.extend([&[0xA5][..], &max].concat()),
            "VarChar" => out.extend([&[0xA7][..], &max, &collation].concat()),
            "NVarChar" => out.extend([&[0xE7][..], &max, &collation].concat()),
            other => panic!("a column of type {other}"),
        }
        out.push(0);
    }
    out
}

#[test]
fn character_types_of_7_0_cannot_be_metered_later() {
    let mut seen = 0;
    for vector in vectors::load().iter().filter(|v| is_legacy_character(v)) {
        seen += 1;
        let error = trace(&vector.bytes, &[], vector.options())
            .end
            .expect_err(&vector.name);
        let byte = vector.bytes[9];
        assert_eq!(error.kind, WireErrorKind::LegacyDataType(byte), "{}", vector.name);
        assert_eq!(error.offset, 9, "{}", vector.name);
    }
    assert_eq!(seen, 2);
}
