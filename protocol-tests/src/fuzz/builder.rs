//! Answer builder: what `build` and `answer` make is walked again, by the walker and by the naive decoder, with the tokens and
//! rows that were asked for.

use weir_tds::answer::{
    Refusal, RequestKind, ResultSet, Stage, acknowledge_attention, acknowledge_ignored, deny_login, refuse,
    result_set, succeed,
};
use weir_tds::build::{
    AltColumn, AltMetadata, BuildError, Classification, ClassifiedProperty, ColumnDef, ColumnInfo,
    ColumnType, DoneKind, Returned, ServerText, TokenBuf, Value,
};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use super::oracle;
use super::source::Source;
use super::{values, walker};
use crate::naive_decoder::decode;
use crate::trace::trace;

/// Tokens of one input at most: a short input must not make a long stream.
const STEPS_MAX: usize = 14;
/// Columns of a result set at most.
const COLUMNS_MAX: usize = 6;
/// Bytes of the input that make one value of a row.
const VALUE_BYTES: usize = 9;

/// A response of TDS 7.4 that `input` builds.
#[must_use]
pub fn built_response(input: &[u8]) -> Vec<u8> {
    let options = WalkerOptions::new(TdsVersion::V7_4);
    Maker::make(&mut Source::new(input), options).out.take().to_vec()
}

/// First two bytes: options; then one byte for each token, with what it needs behind.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let options = source.options();
    let mut maker = Maker::make(&mut source, options);
    let stream = maker.out.take();
    let whole = trace(&stream, &[], options);
    assert_eq!(whole.end, Ok(()), "the walker refuses what was built");
    let found: Vec<u8> = whole.found.iter().map(|found| found.kind.byte()).collect();
    assert_eq!(found, maker.expected);
    let (tokens, error) = decode(&stream, options);
    assert_eq!(error, None, "the naive decoder refuses what was built");
    walker::compare(&whole, &tokens, None);
    let rows = maker
        .expected
        .iter()
        .filter(|t| (0xD1..=0xD3).contains(*t))
        .count() as u64;
    assert_eq!(whole.counts.0, rows);
    // The walker's own target cuts everything; here one stream in four is enough.
    if oracle::fingerprint(input) & 0x300 == 0 {
        let cuts = oracle::cuts(&stream);
        assert_eq!(trace(&stream, &cuts, options), whole, "cut at {cuts:?}");
    }
}

struct Maker {
    out: TokenBuf,
    options: WalkerOptions,
    columns: Vec<ColumnDef>,
    alt: Option<AltMetadata>,
    /// Token bytes that must be found.
    expected: Vec<u8>,
}

impl Maker {
    fn make(source: &mut Source<'_>, options: WalkerOptions) -> Self {
        let mut maker = Self {
            out: TokenBuf::new(options.version),
            options,
            columns: Vec::new(),
            alt: None,
            expected: Vec::new(),
        };
        for _step in 0..STEPS_MAX {
            if source.is_empty() {
                break;
            }
            maker.step(source);
        }
        maker
    }

    fn step(&mut self, source: &mut Source<'_>) {
        match source.byte() % 32 {
            0..=3 => self.metadata(source),
            4..=9 => self.row(source, false),
            10..=12 => self.row(source, true),
            13 => self.alt_metadata(source),
            14 => self.alt_row(source),
            15..=16 => self.done(source),
            17 => self.text(source),
            18 => self.return_value(source),
            19 => self.small(source),
            20 => self.env(source),
            21 => self.features(source),
            22 => self.classification(source),
            23 => self.tables(source),
            24..=27 => self.answer(source),
            28 => self.row_in_pieces(source),
            _ => self.one(0x79, |out| {
                out.return_status(7);
            }),
        }
    }

    /// Builds one token that cannot fail.
    fn one(&mut self, token: u8, build: impl FnOnce(&mut TokenBuf)) {
        build(&mut self.out);
        self.expected.push(token);
    }

    /// Builds one token that may be refused, and then leaves nothing behind.
    fn may_fail(&mut self, token: u8, build: impl FnOnce(&mut TokenBuf) -> Result<(), BuildError>) {
        let before = self.out.len();
        match build(&mut self.out) {
            Ok(()) => self.expected.push(token),
            Err(_) => assert_eq!(self.out.len(), before, "a refused token left bytes"),
        }
    }

    fn metadata(&mut self, source: &mut Source<'_>) {
        let count = 1 + source.below(COLUMNS_MAX);
        let version = self.options.version;
        let columns: Vec<ColumnDef> = (0..count).map(|_| values::column(source, version)).collect();
        let encrypted = self.options.column_encryption;
        let before = self.expected.len();
        self.may_fail(0x81, |out| {
            if encrypted {
                out.col_metadata_encrypted(&columns, &[]).map(drop)
            } else {
                out.col_metadata(&columns).map(drop)
            }
        });
        if self.expected.len() > before {
            self.columns = columns;
            self.alt = None;
        }
    }

    fn row(&mut self, source: &mut Source<'_>, nbc: bool) {
        if self.columns.is_empty() {
            return;
        }
        let nbc = nbc && self.options.version >= TdsVersion::V7_3B;
        let columns = std::mem::take(&mut self.columns);
        let before = self.out.len();
        let pieces: Vec<&[u8]> = columns.iter().map(|_| source.take(VALUE_BYTES)).collect();
        let built = put_row(&pieces, &columns, &[], &mut |values| {
            if nbc {
                self.out.nbc_row(&columns, values).map(drop)
            } else {
                self.out.row(&columns, values).map(drop)
            }
        });
        match built {
            Ok(()) => self.expected.push(if nbc { 0xD2 } else { 0xD1 }),
            Err(_) => assert_eq!(self.out.len(), before, "a refused row left bytes"),
        }
        self.columns = columns;
    }

    /// A row of integers, value by value.
    fn row_in_pieces(&mut self, source: &mut Source<'_>) {
        let columns = [
            ColumnDef::new("n", ColumnType::IntN(4)),
            ColumnDef::new("b", ColumnType::VarBinaryMax),
        ];
        if !self.options.version.has_wide_counts() || self.options.column_encryption {
            return;
        }
        self.may_fail(0x81, |out| out.col_metadata(&columns).map(drop));
        let number = i64::from(source.short());
        self.out.begin_row();
        let fits = self.out.value(&columns[0].ty, &Value::Int(number)).is_ok();
        assert!(fits, "{number} is an int");
        let total = (source.byte() & 1 == 0).then_some(9);
        self.out
            .begin_plp(total)
            .plp_chunk(&[1; 4])
            .plp_chunk(&[])
            .plp_chunk(&[2; 5])
            .end_plp();
        self.expected.push(0xD1);
        self.forget_metadata();
    }

    /// Other columns than ours stand before what follows.
    fn forget_metadata(&mut self) {
        self.columns.clear();
        self.alt = None;
    }

    fn alt_metadata(&mut self, source: &mut Source<'_>) {
        let by = (0..u16::from(source.byte() % 4)).collect();
        let types = [
            ColumnType::Int,
            ColumnType::MoneyN(8),
            ColumnType::FloatN(8),
            ColumnType::BigInt,
        ];
        let columns = (0..1 + source.below(3))
            .map(|i| AltColumn {
                op: 0x4B,
                operand: 1,
                column: ColumnDef::new(values::text(source), types[i % types.len()].clone()),
            })
            .collect();
        let metadata = AltMetadata {
            id: source.short(),
            by,
            columns,
        };
        let before = self.expected.len();
        self.may_fail(0x88, |out| out.alt_metadata(&metadata).map(drop));
        if self.expected.len() > before {
            self.alt = Some(metadata);
        }
    }

    fn alt_row(&mut self, source: &mut Source<'_>) {
        let Some(metadata) = self.alt.clone() else {
            return;
        };
        let n = i64::from(source.short());
        let values: Vec<Value<'_>> = metadata
            .columns
            .iter()
            .map(|alt| match alt.column.ty {
                ColumnType::MoneyN(_) => Value::Money(n),
                ColumnType::FloatN(_) => Value::Null,
                _ => Value::Int(n),
            })
            .collect();
        self.may_fail(0xD3, |out| out.alt_row(&metadata, &values).map(drop));
    }

    fn done(&mut self, source: &mut Source<'_>) {
        let kind = [DoneKind::Done, DoneKind::Proc, DoneKind::InProc][source.below(3)];
        let (status, command, rows) = (source.short(), source.short(), source.long());
        self.one(kind.byte(), |out| {
            out.done_of(kind, status, command, rows);
        });
    }

    fn text(&mut self, source: &mut Source<'_>) {
        let (text, server) = (values::text(source), values::text(source));
        let said = ServerText {
            number: i32::from(source.short()),
            state: source.byte(),
            class: source.byte(),
            text: &text.repeat(1 + source.below(12)),
            server: &server,
            procedure: &text,
            line: u32::from(source.short()),
        };
        if source.byte() & 1 == 0 {
            self.one(0xAA, |out| {
                out.error(&said);
            });
        } else {
            self.one(0xAB, |out| {
                out.info(&said);
            });
        }
    }

    fn return_value(&mut self, source: &mut Source<'_>) {
        let column = values::column(source, self.options.version);
        let name = values::text(source);
        let ordinal = source.short();
        let before = self.out.len();
        let built = values::with_value(source, &column.ty, |value| {
            self.out
                .return_value(&Returned::output(ordinal, &name, &column.ty), &value)
                .map(drop)
        });
        match built {
            Ok(()) => self.expected.push(0xAC),
            Err(_) => assert_eq!(self.out.len(), before, "a refused RETURNVALUE left bytes"),
        }
    }

    fn small(&mut self, source: &mut Source<'_>) {
        let bytes = source.take(9);
        match source.byte() % 5 {
            0 => self.may_fail(0xA9, |out| {
                let order: Vec<u16> = bytes.iter().map(|b| u16::from(*b)).collect();
                out.order(&order).map(drop)
            }),
            1 => self.may_fail(0xED, |out| out.sspi(bytes).map(drop)),
            2 => self.one(0xE4, |out| {
                out.session_state(3, true, &[(1, bytes), (2, &[7; 300])]);
            }),
            3 => self.one(0xEE, |out| {
                out.fed_auth_info(&[(1, "https://sts"), (2, "spn")]);
            }),
            _ if self.options.version < TdsVersion::V7_2 => self.one(0x78, |out| {
                out.offset(1, 2);
            }),
            _ => self.one(0x81, |out| {
                out.no_metadata();
            }),
        }
    }

    fn env(&mut self, source: &mut Source<'_>) {
        let (text, old) = (values::text(source), values::text(source));
        let bytes = source.take(8);
        let which = source.byte() % 12;
        self.one(0xE3, |out| {
            match which {
                0 => out.env_database(&text, &old),
                1 => out.env_language(&text, &old),
                2 => out.env_packet_size(4096, 512),
                3 => out.env_promote(bytes),
                4 => out.env_manager_address(bytes),
                5 => out.env_reset_ack(),
                6 => out.env_user_instance(&text),
                7 => out.env_routing(1433, &text),
                8 => out.env_enhanced_routing(1433, &text, &old),
                9 => out.env_bytes(8, bytes, &[]),
                10 => out.env_mirror_partner(&text),
                _ => out.env_text(1, &text, &old),
            };
        });
    }

    fn features(&mut self, source: &mut Source<'_>) {
        if source.byte() & 1 == 0 {
            let program = values::text(source);
            return self.one(0xAD, |out| {
                out.login_ack(&program, [16, 0, 0, 0]);
            });
        }
        let features: Vec<(u8, &[u8])> = (0..source.below(5))
            .map(|_| (source.byte() & 0x7F, source.take(3)))
            .collect();
        self.one(0xAE, |out| {
            out.feature_ext_ack(&features);
        });
    }

    fn classification(&mut self, source: &mut Source<'_>) {
        let version = self.options.data_classification;
        if version == 0 {
            return;
        }
        let pairs = |source: &mut Source<'_>| {
            (0..source.below(3))
                .map(|_| (values::text(source), values::text(source)))
                .collect()
        };
        let what = Classification {
            labels: pairs(source),
            information_types: pairs(source),
            rank: i32::from(source.byte()),
            columns: (0..source.below(4))
                .map(|_| {
                    vec![
                        ClassifiedProperty {
                            label: 0,
                            information_type: 1,
                            rank: 2
                        };
                        source.below(3)
                    ]
                })
                .collect(),
        };
        self.may_fail(0xA3, |out| out.data_classification(version, &what).map(drop));
    }

    fn tables(&mut self, source: &mut Source<'_>) {
        let name = values::text(source);
        if source.byte() & 1 == 0 {
            return self.may_fail(0xA4, |out| out.tab_name(&[&["dbo", &name], &[&name]]).map(drop));
        }
        let columns = [ColumnInfo {
            column: 1,
            table: 0,
            status: 4,
            base_name: Some(&name),
        }];
        self.may_fail(0xA5, |out| out.col_info(&columns).map(drop));
    }

    /// What the gate itself says.
    fn answer(&mut self, source: &mut Source<'_>) {
        let kinds = [
            RequestKind::Batch,
            RequestKind::Rpc,
            RequestKind::Bulk,
            RequestKind::Transaction,
        ];
        let kind = kinds[source.below(4)];
        let end = if kind == RequestKind::Rpc { 0xFE } else { 0xFD };
        let text = values::text(source);
        let refusal = Refusal {
            number: 50_402,
            state: 1,
            class: 16,
            message: &text,
            server_name: "weir",
        };
        match source.byte() % 6 {
            0 => {
                let stage = if source.byte() & 1 == 0 {
                    Stage::NotStarted
                } else {
                    Stage::Cut
                };
                refuse(&mut self.out, &refusal, kind, stage);
                self.expected.extend([0xAA, end]);
            }
            1 => {
                deny_login(&mut self.out, &refusal);
                self.expected.extend([0xAA, 0xFD]);
            }
            2 => self.one(0xFD, acknowledge_attention),
            3 => self.one(0xFD, acknowledge_ignored),
            4 => {
                succeed(&mut self.out, kind);
                if kind == RequestKind::Rpc {
                    self.expected.push(0x79);
                }
                self.expected.push(end);
            }
            _ => self.result_set(source, kind, text),
        }
    }

    fn result_set(&mut self, source: &mut Source<'_>, kind: RequestKind, text: String) {
        // The gate's own answers go to clients without column encryption only: it is never acknowledged to others.
        if self.options.column_encryption {
            return;
        }
        let rows = source.below(4);
        let set = ResultSet {
            columns: &["account", "balance"],
            rows: vec![vec![Some(text), None]; rows],
        };
        result_set(&mut self.out, &set, kind).expect("as many cells as columns");
        self.expected.push(0x81);
        self.expected.extend(std::iter::repeat_n(0xD1, rows));
        self.expected.extend(if kind == RequestKind::Rpc {
            &[0xFF, 0x79, 0xFE][..]
        } else {
            &[0xFD]
        });
        self.forget_metadata();
    }
}

/// Collects a value for every column, each alive in the frame of its own call, then builds the row.
fn put_row(
    pieces: &[&[u8]],
    columns: &[ColumnDef],
    values: &[Value<'_>],
    build: &mut dyn FnMut(&[Value<'_>]) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let (Some(column), Some(piece)) = (columns.get(values.len()), pieces.get(values.len())) else {
        return build(values);
    };
    values::with_value(&mut Source::new(piece), &column.ty, |value| {
        // Copied down the frames: a row has few columns, and a value is a few words.
        let all: Vec<Value<'_>> = values.iter().copied().chain([value]).collect();
        put_row(pieces, columns, &all, build)
    })
}
