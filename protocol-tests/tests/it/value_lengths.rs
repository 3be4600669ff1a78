//! Values of lengths that their types do not have [MS-TDS 2.2.5.4.2, 2.2.5.5]: refused in every row token, in RETURNVALUE and in
//! bulk load, at the same place however the stream is cut, and by the naive decoder as well.

use std::ops::RangeInclusive;

use fastrand::Rng;
use weir_protocol_tests::naive_decoder::{NaiveError, decode, decode_bulk};
use weir_protocol_tests::trace::{count, trace};
use weir_protocol_tests::vectors::{self, Vector};
use weir_tds::error::{WireError, WireErrorKind};
use weir_tds::request::bulk_load::{BulkKind, BulkWalker};
use weir_tds::token::TokenKind;
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Walker, WalkerOptions};

const OPTIONS: WalkerOptions = WalkerOptions::new(TdsVersion::V7_4);
const ROW: u8 = 0xD1;
const NBC_ROW: u8 = 0xD2;
const ALT_ROW: u8 = 0xD3;
const DONE: [u8; 13] = [0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// TYPE_INFO and the lengths of its values beside NULL. The first is the usual one.
const TYPES: [(&[u8], &[u8]); 22] = [
    (&[0x26, 1], &[1, 2, 4, 8]),
    (&[0x26, 8], &[8, 1, 2, 4]),
    (&[0x68, 1], &[1]),
    (&[0x6D, 4], &[4, 8]),
    (&[0x6D, 8], &[8, 4]),
    (&[0x6E, 8], &[8, 4]),
    (&[0x6F, 4], &[4, 8]),
    (&[0x6F, 8], &[8, 4]),
    (&[0x24, 16], &[16]),
    (&[0x37, 5, 9, 0], &[5, 9, 13, 17]),
    (&[0x3F, 9, 18, 2], &[9, 5, 13, 17]),
    (&[0x6A, 13, 28, 0], &[13, 5, 9, 17]),
    (&[0x6C, 17, 38, 38], &[17, 5, 9, 13]),
    (&[0x28], &[3]),
    (&[0x29, 0], &[3]),
    (&[0x29, 3], &[4]),
    (&[0x29, 7], &[5]),
    (&[0x2A, 2], &[6]),
    (&[0x2A, 4], &[7]),
    (&[0x2A, 5], &[8]),
    (&[0x2B, 1], &[8]),
    (&[0x2B, 7], &[10]),
];

/// A column without a name.
fn column(type_info: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 9, 0][..], type_info, &[0]].concat()
}

/// COLMETADATA of a column of this type and a tinyint behind it.
fn metadata(type_info: &[u8]) -> Vec<u8> {
    [&[0x81, 2, 0][..], &column(type_info), &column(&[0x30])].concat()
}

fn value(len: u8) -> Vec<u8> {
    [&[len][..], &vec![0xD1; usize::from(len)]].concat()
}

/// A row's head and its values: one of `len` bytes, and a tinyint.
fn row(head: &[u8], len: u8) -> Vec<u8> {
    [head, &value(len), &[7]].concat()
}

/// Lengths to try: each that some type has, their neighbours, and long ones.
fn lengths() -> impl Iterator<Item = u8> {
    (0..=19).chain([30, 31, 32, 63, 64, 255])
}

/// Whole, in two at every byte, and byte by byte: the walker refuses the value at `len_at` or takes all of the stream.
fn check(what: &str, stream: &[u8], len_at: usize, len: u8, allowed: bool, kind: TokenKind) {
    let expected = if allowed {
        Ok(())
    } else {
        // Behind the length, as where other lengths cannot be.
        let offset = len_at as u64 + 1;
        Err(WireError::at(offset, WireErrorKind::ValueLength(len)))
    };
    let (_, naive) = decode(stream, OPTIONS);
    assert_eq!(
        matches!(naive, Some(NaiveError::Broken(_))),
        !allowed,
        "{what}: {naive:?}"
    );
    let whole = trace(stream, &[], OPTIONS);
    assert_eq!(whole.end, expected, "{what}");
    let bytewise: Vec<usize> = (0..stream.len()).collect();
    let cuts = (0..stream.len()).map(|cut| vec![cut]).chain([vec![], bytewise]);
    for cuts in cuts {
        assert_eq!(trace(stream, &cuts, OPTIONS), whole, "{what} cut at {cuts:?}");
        let counted = count(stream, &cuts, OPTIONS);
        let told = expected.clone().map(|()| whole.counts);
        assert_eq!(counted, told, "{what} counted, cut at {cuts:?}");
    }
    if !allowed {
        let mut walker = Walker::new(OPTIONS);
        let mut at = 0;
        while let Ok(walk) = walker.walk(&stream[at..], &mut { Budget::UNLIMITED }) {
            at += walk.consumed;
        }
        assert_eq!(walker.token_at_fault(), Some(kind), "{what}");
    }
}

/// Behind a row that passes at once, so that the layout knows its columns.
#[test]
fn rows_are_refused_with_their_token_and_offset() {
    for (type_info, lens) in TYPES {
        for len in lengths() {
            let allowed = len == 0 || lens.contains(&len);
            for (head, kind) in [(&[ROW][..], TokenKind::Row), (&[NBC_ROW, 0], TokenKind::NbcRow)] {
                let mut stream = metadata(type_info);
                stream.extend(row(head, lens[0]));
                let len_at = stream.len() + head.len();
                stream.extend(row(head, len));
                stream.extend(DONE);
                let what = format!("{type_info:02x?}, {} with {len} bytes", kind.name());
                check(&what, &stream, len_at, len, allowed, kind);
            }
        }
    }
}

/// A column with many NULLs is read without its usual length: there as well.
#[test]
fn a_column_that_lost_its_usual_length_is_still_held_to_its_lengths() {
    for (type_info, lens) in TYPES {
        for len in [1, 3, 6, 11, 31, 255] {
            let mut stream = metadata(type_info);
            (0..60).for_each(|_| stream.extend(row(&[ROW], 0)));
            let before = stream.len();
            stream.extend(row(&[ROW], len));
            stream.extend(DONE);
            let refused = !lens.contains(&len);
            let mut walker = Walker::new(OPTIONS);
            let mut at = 0;
            let end = loop {
                match walker.walk(&stream[at..], &mut { Budget::UNLIMITED }) {
                    Ok(walk) => at += walk.consumed,
                    Err(error) => break Err(error),
                }
                if at == stream.len() {
                    break Ok(());
                }
            };
            let expected = if refused {
                let offset = before as u64 + 2;
                Err(WireError::at(offset, WireErrorKind::ValueLength(len)))
            } else {
                Ok(())
            };
            assert_eq!(end, expected, "{type_info:02x?} with {len} bytes");
            assert_eq!(walker.rows(), if refused { 60 } else { 61 });
        }
    }
}

/// NULLs of NBCROW have no length that could be wrong: what stands there is the next value.
#[test]
fn what_an_nbcrow_leaves_out_is_not_looked_at() {
    for (type_info, _) in TYPES {
        let mut stream = metadata(type_info);
        (0..3).for_each(|_| stream.extend([NBC_ROW, 1, 11]));
        stream.extend(DONE);
        assert_eq!(trace(&stream, &[], OPTIONS).end, Ok(()), "{type_info:02x?}");
        assert_eq!(count(&stream, &[], OPTIONS).map(|(rows, _, _)| rows), Ok(3));
        assert_eq!(decode(&stream, OPTIONS).1, None);
    }
}

#[test]
fn rows_of_compute_and_returned_values_are_refused_alike() {
    for (type_info, lens) in TYPES {
        for len in lengths() {
            let allowed = len == 0 || lens.contains(&len);
            // ALTMETADATA: one column, id 7, no BY columns, SUM of the first.
            let mut stream = metadata(&[0x30]);
            stream.extend([0x88, 1, 0, 7, 0, 0, 0x4D, 1, 0]);
            stream.extend(column(type_info));
            stream.extend([ALT_ROW, 7, 0]);
            let len_at = stream.len();
            stream.extend(value(len));
            stream.extend(DONE);
            let what = format!("{type_info:02x?}, ALTROW with {len} bytes");
            check(&what, &stream, len_at, len, allowed, TokenKind::AltRow);

            let mut stream = [&[0xAC, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], type_info].concat();
            let len_at = stream.len();
            stream.extend(value(len));
            stream.extend(DONE);
            let end = trace(&stream, &[], OPTIONS).end;
            let expected = if allowed {
                Ok(())
            } else {
                // A token that is kept whole: at the length itself.
                Err(WireError::at(len_at as u64, WireErrorKind::ValueLength(len)))
            };
            let what = format!("{type_info:02x?}, RETURNVALUE with {len} bytes");
            assert_eq!(end, expected, "{what}");
            for cut in 0..stream.len() {
                assert_eq!(
                    trace(&stream, &[cut], OPTIONS).end,
                    expected,
                    "{what} cut at {cut}"
                );
            }
            let (_, naive) = decode(&stream, OPTIONS);
            assert_eq!(naive.is_none(), allowed, "{what}: {naive:?}");
        }
    }
}

/// The lengths that a type may state; of the time types, the scales.
#[test]
fn a_type_that_states_a_length_or_scale_it_does_not_have_is_refused() {
    const STATED: [(u8, &[u8], &[u8]); 14] = [
        (0x26, &[1, 2, 4, 8], &[]),
        (0x68, &[1], &[]),
        (0x6D, &[4, 8], &[]),
        (0x6E, &[4, 8], &[]),
        (0x6F, &[4, 8], &[]),
        (0x24, &[16], &[]),
        (0x37, &[5, 9, 13, 17], &[9, 2]),
        (0x3F, &[5, 9, 13, 17], &[9, 2]),
        (0x6A, &[5, 9, 13, 17], &[9, 2]),
        (0x6C, &[5, 9, 13, 17], &[9, 2]),
        (0x29, &[0, 1, 2, 3, 4, 5, 6, 7], &[]),
        (0x2A, &[0, 1, 2, 3, 4, 5, 6, 7], &[]),
        (0x2B, &[0, 1, 2, 3, 4, 5, 6, 7], &[]),
        // Any: varbinary of TDS 7.0.
        (0x25, &[0, 1, 9, 255], &[]),
    ];
    for (data_type, lens, behind) in STATED {
        for stated in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 31, 32, 255] {
            let allowed = data_type == 0x25 || lens.contains(&stated);
            let stream = [&metadata(&[&[data_type, stated][..], behind].concat())[..], &DONE].concat();
            let expected = if allowed {
                Ok(())
            } else {
                let kind = WireErrorKind::TypeLength { data_type, stated };
                // Behind the token byte, the count, and what stands before the type's length.
                Err(WireError::at(3 + 6 + 1, kind))
            };
            let what = format!("{data_type:02x} stating {stated}");
            for cut in 0..stream.len() {
                assert_eq!(
                    trace(&stream, &[cut], OPTIONS).end,
                    expected,
                    "{what} cut at {cut}"
                );
            }
            assert_eq!(decode(&stream, OPTIONS).1.is_none(), allowed, "{what}");
        }
    }
}

/// A client's rows are held to the same, but that a decimal may be as short as it is: FreeTDS uploads them so.
#[test]
fn bulk_loads_are_refused_alike() {
    let decimals: RangeInclusive<u8> = 2..=17;
    let mut rng = Rng::with_seed(31);
    for (type_info, lens) in TYPES {
        let is_decimal = [0x37, 0x3F, 0x6A, 0x6C].contains(&type_info[0]);
        for len in lengths() {
            let allowed = len == 0 || lens.contains(&len) || is_decimal && decimals.contains(&len);
            let mut stream = metadata(type_info);
            stream.extend(row(&[ROW], lens[0]));
            let len_at = stream.len() as u64 + 1;
            stream.extend(row(&[ROW], len));
            stream.extend(DONE);
            let expected = if allowed {
                Ok(())
            } else {
                Err(WireError::at(len_at + 1, WireErrorKind::ValueLength(len)))
            };
            for _split in 0..20 {
                let cut = rng.usize(..=stream.len());
                let mut walker = BulkWalker::new(OPTIONS, BulkKind::Rows);
                let end = [&stream[..cut], &stream[cut..]]
                    .into_iter()
                    .try_for_each(|piece| walker.walk(piece))
                    .and_then(|()| walker.end_message());
                assert_eq!(end, expected, "{type_info:02x?} with {len} bytes cut at {cut}");
            }
            let (_, naive) = decode_bulk(&stream, OPTIONS);
            assert_eq!(naive.is_none(), allowed, "{type_info:02x?} with {len} bytes");
        }
    }
    // What is stated for a decimal is not looked at (mssql-tds writes the type's byte there), and opens no way for a value.
    for stated in [0, 1, 9, 17, 18, 0x6C, 255] {
        for len in [9, stated] {
            let mut stream = metadata(&[0x6C, stated, 9, 2]);
            stream.extend(row(&[ROW], len));
            stream.extend(DONE);
            let taken = BulkWalker::new(OPTIONS, BulkKind::Rows).walk(&stream).is_ok();
            let what = format!("numeric stating {stated}, a value of {len} bytes");
            assert_eq!(taken, len == 0 || decimals.contains(&len), "{what}");
            assert_eq!(decode_bulk(&stream, OPTIONS).1.is_none(), taken, "{what}");
        }
    }
}

/// Heads of a sql_variant, and the bytes behind them that are right: base type, bytes of properties, properties.
const VARIANTS: [(&[u8], RangeInclusive<usize>); 20] = [
    (&[0x30, 0], 1..=1),
    (&[0x32, 0], 1..=1),
    (&[0x34, 0], 2..=2),
    (&[0x38, 0], 4..=4),
    (&[0x3A, 0], 4..=4),
    (&[0x3B, 0], 4..=4),
    (&[0x7A, 0], 4..=4),
    (&[0x3C, 0], 8..=8),
    (&[0x3D, 0], 8..=8),
    (&[0x3E, 0], 8..=8),
    (&[0x7F, 0], 8..=8),
    (&[0x24, 0], 16..=16),
    (&[0x28, 0], 3..=3),
    (&[0x29, 1, 2], 3..=3),
    (&[0x2A, 1, 7], 8..=8),
    (&[0x2B, 1, 4], 9..=9),
    (&[0x6C, 2, 19, 3], 9..=9),
    (&[0xA5, 2, 40, 0], 0..=40),
    (&[0xA7, 7, 9, 4, 0xD0, 0, 0x34, 40, 0], 0..=40),
    (&[0xE7, 7, 9, 4, 0xD0, 0, 0x34, 40, 0], 0..=40),
];

/// A sql_variant says its length and its type, which fixes the length but for texts and bytes [MS-TDS 2.2.5.5.4].
#[test]
fn a_variant_that_is_not_as_long_as_the_type_in_it_is_refused() {
    for (head, right) in VARIANTS {
        for data in [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 13, 16, 17, 25, 40] {
            // The lengths that any decimal has.
            let allowed = right.contains(&data) || head[0] == 0x6C && [5, 13, 17].contains(&data);
            let len = u32::try_from(head.len() + data).expect("few");
            let value = [&len.to_le_bytes()[..], head, &vec![0xD1; data]].concat();
            for row in [&[ROW][..], &[NBC_ROW, 0]] {
                let start = metadata(&[0x62, 0x49, 0x1F, 0, 0]);
                // NULL, then the value; a tinyint behind each.
                let stream = [&start[..], row, &[0; 4], &[7], row, &value, &[7], &DONE].concat();
                let value_at = start.len() + row.len() + 5 + row.len();
                variant_check(&stream, value_at, len, allowed);
            }
            let returned = [&[0xAC, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x62, 0x49, 0x1F, 0, 0][..]].concat();
            let stream = [&returned[..], &value, &DONE].concat();
            variant_check(&stream, returned.len(), len, allowed);
        }
    }
    // A type that cannot be in it, and properties that its type does not have.
    for value in [
        &[0x62, 0, 1, 2, 3][..],
        &[0x26, 0, 1],
        &[0x38, 1, 0, 1, 2, 3, 4],
        &[0x38, 0xFF, 1],
    ] {
        let start = metadata(&[0x62, 0x49, 0x1F, 0, 0]);
        let len = u32::try_from(value.len()).expect("few");
        let stream = [&start[..], &[ROW], &len.to_le_bytes(), value, &[7], &DONE].concat();
        variant_check(&stream, start.len() + 1, len, false);
    }
}

/// Refused behind the head of the value at `value_at`, or behind its length where it has no head; or taken.
fn variant_check(stream: &[u8], value_at: usize, len: u32, allowed: bool) {
    let head = if len < 3 { 0 } else { 3 };
    let expected = if allowed {
        Ok(())
    } else {
        let why = "a sql_variant of a length that the type in it does not have";
        let offset = value_at as u64 + 4 + head;
        Err(WireError::at(offset, WireErrorKind::Invalid(why)))
    };
    for cut in 0..=stream.len() {
        let end = trace(stream, &[cut], OPTIONS).end;
        assert_eq!(end, expected, "{stream:02x?} cut at {cut}");
        let end = count(stream, &[cut], OPTIONS).map(|_counts| ());
        assert_eq!(end, expected, "{stream:02x?} counted, cut at {cut}");
    }
    let (_, naive) = decode(stream, OPTIONS);
    assert_eq!(naive.is_none(), allowed, "{naive:?}: {stream:02x?}");
}

/// Vectors with a value that is to be refused.
pub(crate) fn refused() -> Vec<Vector> {
    let all = vectors::load();
    all.into_iter()
        .filter(|vector| !vector.expected["error"]["value_bytes"].is_null())
        .collect()
}

#[test]
fn the_vectors_are_refused_where_they_say() {
    let vectors = refused();
    assert_eq!(vectors.len(), 2, "a ROW and an NBCROW");
    for vector in vectors {
        let error = &vector.expected["error"];
        let offset = error["offset"].as_u64().expect("an offset");
        let len = u8::try_from(error["value_bytes"].as_u64().expect("bytes")).expect("a byte");
        let kind = match error["token"].as_str() {
            Some("ROW") => TokenKind::Row,
            Some("NBCROW") => TokenKind::NbcRow,
            other => panic!("{}: {other:?}", vector.name),
        };
        let len_at = usize::try_from(offset).expect("small") - 1;
        check(&vector.name, &vector.bytes, len_at, len, false, kind);
    }
}
