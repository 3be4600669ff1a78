//! Inputs to begin with: the vectors in each target's own framing, and a few made streams and scripts.

use weir_tds::browser::Request;
use weir_tds::build::{ColumnDef, ColumnType, RpcBuf, TokenBuf, Value};
use weir_tds::login7::Login7;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::ProcId;
use weir_tds::request::sql_batch;
use weir_tds::smp::{SmpFlag, SmpHeader};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use super::request;
use super::session::{MARS, Script, Step};
use super::source::options_bytes;
use crate::stream_maker;
use crate::trace::trace;
use crate::vectors::{Vector, load};

/// Longest seed: what is longer teaches a fuzzer slowly.
const SEED_MAX: usize = 1500;

fn vectors(keep: impl Fn(&Vector) -> bool) -> Vec<Vector> {
    load()
        .into_iter()
        .filter(|v| v.bytes.len() <= SEED_MAX && keep(v))
        .collect()
}

fn behind(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [head, bytes].concat()
}

/// A message: its vector, the type of its packets, its body.
struct Message {
    vector: Vector,
    kind: PacketType,
    body: Vec<u8>,
}

/// Messages of the vectors, both directions: bodies of packets put together, and bare bodies.
fn messages() -> Vec<Message> {
    let mut all = Vec::new();
    for vector in vectors(|_| true) {
        let bare = match vector.layer.as_str() {
            "prelogin-body" => Some(PacketType::Prelogin),
            "login7-body" => Some(PacketType::Login7),
            "rpc-body" => Some(PacketType::Rpc),
            "sqlbatch-body" => Some(PacketType::SqlBatch),
            "token-stream" => Some(PacketType::TabularResult),
            "tds-packets" => None,
            _ => continue,
        };
        if let Some(kind) = bare {
            let body = vector.bytes.clone();
            all.push(Message { vector, kind, body });
            continue;
        }
        let (mut at, mut body) = (0, Vec::new());
        while let Ok(Some(header)) = PacketHeader::parse(&vector.bytes[at..]) {
            let end = (at + usize::from(header.length)).min(vector.bytes.len());
            body.extend_from_slice(&vector.bytes[(at + HEADER_LEN).min(end)..end]);
            at = end;
            if header.status.is_eom() {
                let body = std::mem::take(&mut body);
                all.push(Message {
                    vector: vector.clone(),
                    kind: header.kind,
                    body,
                });
            }
        }
    }
    all
}

fn bodies(kind: PacketType) -> Vec<(Vector, Vec<u8>)> {
    messages()
        .into_iter()
        .filter(|m| m.kind == kind)
        .map(|m| (m.vector, m.body))
        .collect()
}

fn packets() -> Vec<Vector> {
    vectors(|v| v.layer == "tds-packets")
}

pub(super) fn framer() -> Vec<Vec<u8>> {
    let limits = [512u16, 4096, 32767, 65535];
    packets()
        .iter()
        .enumerate()
        .map(|(i, v)| behind(&limits[i % 4].to_le_bytes(), &v.bytes))
        .collect()
}

pub(super) fn message() -> Vec<Vec<u8>> {
    packets().iter().map(|v| behind(&[3, 0, 2], &v.bytes)).collect()
}

/// Response streams with their options: every vector of tokens, and made ones of every version.
fn responses() -> Vec<(WalkerOptions, Vec<u8>)> {
    let mut all: Vec<(WalkerOptions, Vec<u8>)> = bodies(PacketType::TabularResult)
        .into_iter()
        .map(|(vector, body)| (vector.options(), body))
        .collect();
    let mut rng = fastrand::Rng::with_seed(21);
    for round in 0..64u8 {
        let version = super::source::VERSIONS[usize::from(round % 8)];
        let newest = version >= TdsVersion::V7_4;
        let options = WalkerOptions {
            version,
            column_encryption: newest && round & 8 != 0,
            data_classification: if newest { round % 3 } else { 0 },
        };
        let stream = stream_maker::response(&mut rng, options, 1, 3);
        if stream.len() <= SEED_MAX {
            all.push((options, stream));
        }
    }
    all
}

pub(super) fn walker() -> Vec<Vec<u8>> {
    responses()
        .iter()
        .map(|(options, stream)| behind(&options_bytes(*options), stream))
        .collect()
}

pub(super) fn tokens() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (options, stream) in responses() {
        for found in trace(&stream, &[], options).found {
            if !found.bytes.is_empty() && found.bytes.len() < 400 {
                let [version, features] = options_bytes(options);
                all.push(behind(&[version, features, 0], &found.bytes));
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

pub(super) fn prelogin() -> Vec<Vec<u8>> {
    bodies(PacketType::Prelogin)
        .into_iter()
        .map(|(_, body)| body)
        .collect()
}

pub(super) fn login7() -> Vec<Vec<u8>> {
    bodies(PacketType::Login7)
        .into_iter()
        .map(|(_, body)| behind(&[1], &body))
        .collect()
}

pub(super) fn request() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for Message { vector, kind, body } in messages() {
        let which = match kind {
            PacketType::SqlBatch => request::BATCH,
            PacketType::Rpc => request::RPC,
            PacketType::TransactionManager => request::TRANSACTION,
            PacketType::BulkLoad => request::BULK,
            PacketType::FedAuthToken => request::FED_AUTH,
            _ => continue,
        };
        let [version, features] = options_bytes(WalkerOptions::new(vector.version));
        all.push(behind(&[version, features, which], &body));
    }
    all.push(vec![6, 0, request::BULK_TEXT, 3, 0, 0, 0, 1, 2, 3]);
    all.push([&[6, 0x80, request::RPC][..], &rpc()].concat());
    all
}

fn rpc() -> Vec<u8> {
    let mut rpc = RpcBuf::new(RequestOptions::new(TdsVersion::V7_4), 0);
    rpc.call(ProcId::ExecuteSql, 0);
    let text = ColumnType::nvarchar(4000);
    rpc.parameter("", 0, &text, &Value::Str("select @a"))
        .expect("text fits");
    let columns = [ColumnDef::new("a", ColumnType::IntN(4))];
    let rows: [&[Value<'_>]; 2] = [&[Value::Int(1)], &[Value::Null]];
    rpc.table("@t", ("dbo", "tt"), Some((&columns, &rows)))
        .expect("ints fit");
    rpc.finish().to_vec()
}

pub(super) fn smp() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vectors(|v| v.layer.contains("smp"))
        .iter()
        .map(|v| behind(&[if v.is_response() { 2 } else { 0 }], &v.bytes))
        .collect();
    let mut stream = vec![0];
    for (flag, sid, length, seqnum, window) in [
        (SmpFlag::Syn, 0, 16, 0, 4),
        (SmpFlag::Data, 0, 20, 1, 4),
        (SmpFlag::Syn, 9, 16, 0, 4),
        (SmpFlag::Data, 9, 18, 1, 4),
        (SmpFlag::Ack, 0, 16, 1, 6),
        (SmpFlag::Fin, 0, 16, 1, 6),
    ] {
        let header = SmpHeader {
            flag,
            sid,
            length,
            seqnum,
            window,
        };
        stream.extend(header.encode());
        stream.resize(stream.len() + header.data_len(), 7);
    }
    all.push(stream);
    // Open, send, deliver, take, close: what two ends do most.
    all.push(
        [
            &[1][..],
            &[
                0, 1, 2, 1, 2, 1, 11, 0, 11, 0, 11, 0, 9, 1, 4, 1, 10, 0, 6, 1, 7, 1, 13, 0, 12, 0,
            ]
            .repeat(3),
        ]
        .concat(),
    );
    all
}

pub(super) fn browser() -> Vec<Vec<u8>> {
    let named = [Request::Instance("PROD".into()), Request::Dac("PROD".into())];
    [Request::Broadcast, Request::All]
        .iter()
        .chain(&named)
        .map(Request::encode)
        .collect()
}

pub(super) fn builder() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(22);
    let mut all: Vec<Vec<u8>> = (0..32u8)
        .map(|step| {
            let mut input = vec![6, step % 8, 0, 3, 4, step];
            input.extend((0..60).map(|_| rng.u8(..)));
            input
        })
        .collect();
    all.extend((0..64).map(|i| {
        let mut input = vec![i % 8, i / 8];
        input.extend((0..200).map(|_| rng.u8(..)));
        input
    }));
    all
}

/// First byte of a script that begins logged in to 7.4.
const LOGGED_IN: u8 = 6 << 1;

/// What the scripts say.
struct Words {
    batch: Vec<u8>,
    rpc: Vec<u8>,
    result: Vec<u8>,
}

/// Acknowledges a cancellation.
const ACKNOWLEDGED: Step<'_> = Step::ServerPacket(1, &[0xFD, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

impl Words {
    fn new() -> Self {
        Self {
            batch: sql_batch::encode("select * from t", 0, RequestOptions::new(TdsVersion::V7_4)),
            rpc: rpc(),
            result: result(5),
        }
    }

    /// Asks in one session; 0 without MARS.
    fn ask(&self, sid: u8) -> Step<'_> {
        Step::ClientPacket(1, 1 | sid << 6, &self.batch)
    }

    fn answer(&self, sid: u8) -> Step<'_> {
        Step::ServerPacket(1 | sid << 6, &self.result)
    }
}

/// Scripts: a login of the input's own, each kind of request with its answer, cuts, cancellations, ends.
pub(super) fn session() -> Vec<Vec<u8>> {
    let words = Words::new();
    let mut all = plain(&words);
    all.push(own_login(&words));
    all.extend(of_vectors(&words));
    all.extend(mars(&words));
    all
}

fn plain(words: &Words) -> Vec<Vec<u8>> {
    let (ask, answer) = (words.ask(0), words.answer(0));
    let (head, tail) = words.result.split_at(20);
    let cancel = Step::ClientPacket(6, 1, &[]);
    let rpc = Step::ClientPacket(3, 1, &words.rpc);
    let write =
        |policy, prices, credit, steps: &[Step<'_>]| Script::write(LOGGED_IN, policy, prices, credit, steps);
    vec![
        write(0, 2, 60_000, &[ask, answer, ask, answer]),
        write(0, 2, 3, &[ask, answer, Step::Deny, ACKNOWLEDGED, ask]),
        write(
            0,
            63,
            40,
            &[ask, Step::Grant(9), answer, Step::Deny, ACKNOWLEDGED],
        ),
        write(1, 63, 0, &[ask, answer, rpc, answer]),
        write(
            2,
            7,
            900,
            &[ask, Step::ClientReads(false), answer, Step::ClientReads(true)],
        ),
        write(0, 1, 900, &[ask, cancel, answer, ACKNOWLEDGED]),
        write(
            0,
            1,
            900,
            &[
                Step::ClientPacket(1, 3, &words.batch),
                Step::ClientPacket(1, 9, &words.batch),
                answer,
            ],
        ),
        write(4, 2, 2, &[ask, answer, Step::Deadline, Step::ServerCloses]),
        write(
            0,
            0,
            2,
            &[
                ask,
                Step::ServerPacket(0, head),
                Step::Stop,
                Step::ServerPacket(1, tail),
            ],
        ),
    ]
}

fn own_login(words: &Words) -> Vec<u8> {
    let (hello, login, answer) = (prelogin_body(), login_body(), login_answer());
    let steps = [
        Step::ClientPacket(PacketType::Prelogin.byte(), 1, &hello),
        Step::ClientPacket(PacketType::Login7.byte(), 1, &login),
        Step::ServerPacket(1, &hello),
        Step::ServerPacket(1, &answer),
        words.ask(0),
        words.answer(0),
        Step::ClientCloses,
    ];
    Script::write(LOGGED_IN | 1, 0, 2, 900, &steps)
}

/// Each request and each response of the vectors in a session of its own.
fn of_vectors(words: &Words) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for Message { vector, kind, body } in messages() {
        let request = match kind {
            PacketType::TabularResult => {
                let steps = [words.ask(0), Step::ServerPacket(1, &body)];
                all.push(Script::write(LOGGED_IN, 0, 2, 60_000, &steps));
                continue;
            }
            PacketType::SqlBatch
            | PacketType::Rpc
            | PacketType::TransactionManager
            | PacketType::BulkLoad => Step::ClientPacket(kind.byte(), 1, &body),
            _ => continue,
        };
        let version = super::source::VERSIONS.iter().position(|v| *v == vector.version);
        let first = version
            .and_then(|v| u8::try_from(v << 1).ok())
            .unwrap_or(LOGGED_IN);
        let steps = [request, words.answer(0), words.ask(0), words.answer(0)];
        all.push(Script::write(first, 0, 2, 60_000, &steps));
    }
    all
}

/// With MARS: two sessions at once, one cut or cancelled while the other goes on.
fn mars(words: &Words) -> Vec<Vec<u8>> {
    let (ask, answer) = (|sid| words.ask(sid), |sid| words.answer(sid));
    let cancel = |sid: u8| Step::ClientPacket(6, 1 | sid << 6, &[]);
    let write = |policy, prices, credit, steps: &[Step<'_>]| {
        Script::write(LOGGED_IN | MARS, policy, prices, credit, steps)
    };
    vec![
        write(0, 2, 60_000, &[ask(0), answer(0), Step::Fin(0)]),
        write(
            0,
            2,
            60_000,
            &[
                ask(0),
                ask(1),
                answer(1),
                answer(0),
                ask(1),
                answer(1),
                Step::Fin(1),
            ],
        ),
        write(
            0,
            2,
            3,
            &[
                ask(0),
                ask(1),
                answer(0),
                Step::Deny,
                ACKNOWLEDGED,
                answer(1),
                Step::Deny,
            ],
        ),
        write(0, 1, 900, &[ask(2), cancel(2), ask(0), answer(2), answer(0)]),
        write(
            2,
            7,
            900,
            &[
                ask(0),
                Step::ClientReads(false),
                answer(0),
                ask(1),
                Step::ClientReads(true),
                Step::Stop,
            ],
        ),
        write(
            1,
            63,
            0,
            &[ask(0), ask(1), ask(2), ask(3), answer(3), Step::ServerCloses],
        ),
    ]
}

/// An answer of one column and so many rows.
fn result(rows: i64) -> Vec<u8> {
    let columns = [
        ColumnDef::new("n", ColumnType::IntN(8)),
        ColumnDef::new("t", ColumnType::nvarchar(20)),
    ];
    let mut out = TokenBuf::new(TdsVersion::V7_4);
    out.col_metadata(&columns).expect("two columns");
    for n in 0..rows {
        out.row(&columns, &[Value::Int(n), Value::Str("row")])
            .expect("a row of two");
    }
    out.done(0x10, 0xC1, u64::try_from(rows).unwrap_or(0));
    out.take().to_vec()
}

fn prelogin_body() -> Vec<u8> {
    Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
        mars: Some(true),
        ..Prelogin::default()
    }
    .encode()
}

fn login_body() -> Vec<u8> {
    let login = Login7 {
        tds_version: TdsVersion::V7_4.to_login7(),
        packet_size: 8000,
        user_name: "acme".into(),
        password: Password::from_text("secret"),
        server_name: "gate".into(),
        database: "shop".into(),
        ..Login7::default()
    };
    login.encode().expect("a short login").to_vec()
}

fn login_answer() -> Vec<u8> {
    let mut tokens = TokenBuf::new(TdsVersion::V7_4);
    tokens
        .env_database("shop", "master")
        .login_ack("Microsoft SQL Server", [16, 0, 3, 232])
        .env_packet_size(8000, 4096)
        .feature_ext_ack(&[(0x0A, &[1][..])])
        .done(0, 0, 0);
    tokens.take().to_vec()
}
