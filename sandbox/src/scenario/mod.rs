//! The scripted backend: a request is matched by rules, the steps of the first that fits are played.
//!
//! A script is built in Rust or read from TOML or JSON (the same types). It makes what SQLite never could: broken
//! streams, values of any length, silence, resets in mid-token, servers that never acknowledge.
//!
//! ```
//! use weir_sandbox::scenario::{Rule, Scenario, Step};
//! let scenario = Scenario::new()
//!     .rule(Rule::text_is("SELECT big").steps([
//!         Step::columns(&[("v", "varbinary(max)")]),
//!         Step::RowStart,
//!         Step::Plp { length: 1 << 30, known: true, chunk: 65_536, fill: 0x41 },
//!         Step::done(0x10, 0xC1, 1),
//!     ]))
//!     .rule(Rule::procedure("hang").steps([Step::Never]));
//! let text = r#"
//!     [[rules]]
//!     when = { text_contains = "slow" }
//!     steps = [{ delay_ms = 200 }, { error = { number = 50000, class = 16, text = "late" } }, { done = { status = 2 } }]
//! "#;
//! let read: Scenario = toml::from_str(text).unwrap();
//! # assert_eq!(read.rules.len(), 1);
//! ```

mod builder;
mod kinds;
mod load;
mod parts;
mod play;
mod stage;
mod tokens;

pub use load::LoadError;
pub use parts::{
    AltColumnSpec, ClassificationSpec, ColumnInfoSpec, ColumnSpec, Encrypted, Expected, FeatureAck, KeySpec,
    Known, Round,
};

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_tds::build::TokenBuf;

/// A script.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What happens at LOGIN7.
    pub login: LoginScript,
    /// Tried in order; the first that fits and is not used up is played.
    pub rules: Vec<Rule>,
    /// Played when no rule fits; if empty, one DONE.
    pub otherwise: Vec<Step>,
    /// Never acknowledge an ATTENTION.
    pub ignore_attention: bool,
}

/// What happens at LOGIN7.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginScript {
    /// In place of the usual answer, whatever the password; only steps that make tokens count.
    pub answer: Option<Vec<Step>>,
    /// Close after `answer`.
    pub close: bool,
    /// Stands in the usual answer behind LOGINACK: routing, SESSIONSTATE and the like.
    pub extra: Vec<Step>,
    /// Features acknowledged when asked for, with their data as hex.
    pub feature_acks: Vec<FeatureAck>,
    /// Never answer.
    pub never: bool,
    /// Turns before the answer: SSPI and federated authentication. With any, no password is looked at.
    pub rounds: Vec<Round<Step>>,
    /// Every login is let in, integrated ones too.
    pub any_password: bool,
    /// The newest version that is spoken: `7.0`, `7.1`, `7.1r1`, `7.2`, `7.3a`, `7.3b`, `7.4`.
    pub version: Option<String>,
    /// FEDAUTHREQUIRED of PRELOGIN, told to clients that send it.
    pub fed_auth_required: Option<u8>,
    /// NONCEOPT of PRELOGIN, 32 bytes as hex, told to clients that send one.
    pub nonce: Option<String>,
}

/// Steps for the requests that fit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    pub when: When,
    /// How often per connection; `None` is always.
    pub times: Option<u64>,
    /// What is played. The message ends behind the last step unless a step closed or hung the connection.
    pub steps: Vec<Step>,
    /// What a meter must find in the answer.
    pub known: Option<Known>,
}

/// Conditions; all that are given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// Kind of request.
    pub kind: Option<RequestKind>,
    /// The batch's text, or the text parameter of an RPC, is this.
    pub text_is: Option<String>,
    /// It contains this.
    pub text_contains: Option<String>,
    /// The RPC's procedure, without case; numbered ones by their `sp_` name.
    pub procedure: Option<String>,
    /// The nth request of its connection, from 1.
    pub nth: Option<u64>,
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// SQL batch.
    Batch,
    /// RPC.
    Rpc,
    /// Transaction manager request.
    Transaction,
    /// Bulk load.
    BulkLoad,
}

/// Tokens made by a closure for the version in use.
#[derive(Clone)]
pub struct Made(Arc<dyn Fn(&mut TokenBuf) + Send + Sync>);

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Made(..)")
    }
}

/// One step of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// COLMETADATA; the columns also give the types of `rows`.
    Columns(Vec<ColumnSpec>),
    /// A row, `times` over; values as JSON, dates and decimals as strings, binary as `0x…`.
    Rows {
        /// One per column.
        values: Vec<serde_json::Value>,
        /// How often.
        #[serde(default = "once")]
        times: u64,
    },
    /// The same with a bitmap of the nulls: NBCROW.
    NbcRows {
        /// One per column.
        values: Vec<serde_json::Value>,
        /// How often.
        #[serde(default = "once")]
        times: u64,
    },
    /// COLMETADATA of a connection where column encryption was acknowledged.
    EncryptedColumns {
        /// The CekTable; may be empty.
        keys: Vec<KeySpec>,
        /// Columns.
        columns: Vec<ColumnSpec>,
    },
    /// COLMETADATA of count 0xFFFF: the columns of before hold.
    NoMetadata,
    /// ALTMETADATA.
    AltMetadata {
        /// Ties rows to it.
        id: u16,
        /// Columns of the BY clause.
        #[serde(default)]
        by: Vec<u16>,
        /// Computed columns.
        columns: Vec<AltColumnSpec>,
    },
    /// ALTROW.
    AltRow {
        /// Its ALTMETADATA.
        id: u16,
        /// One per computed column.
        values: Vec<serde_json::Value>,
    },
    /// ORDER: columns, from 1.
    Order(Vec<u16>),
    /// TABNAME: names in parts.
    TabName(Vec<Vec<String>>),
    /// COLINFO.
    ColInfo(Vec<ColumnInfoSpec>),
    /// OFFSET, before 7.2.
    Offset {
        /// Which keyword.
        id: u16,
        /// Where.
        offset: u16,
    },
    /// DATACLASSIFICATION.
    DataClassification(ClassificationSpec),
    /// The token byte of a ROW; its cells follow.
    RowStart,
    /// One cell of a row begun by `RowStart`, of the type of the column at this index.
    Cell {
        /// Index of the column, from 0.
        column: usize,
        /// As in `Rows`.
        value: serde_json::Value,
    },
    /// A PLP value of any length, made as it is sent.
    Plp {
        /// Bytes.
        length: u64,
        /// State the length in front.
        #[serde(default)]
        known: bool,
        /// Bytes of a chunk.
        #[serde(default = "plp_chunk")]
        chunk: u32,
        /// The byte that it is full of.
        #[serde(default)]
        fill: u8,
    },
    /// Bytes of the token stream, as hex.
    Hex(String),
    /// A captured reply: a vector's file beside the script. Only [`Scenario::load`] knows where that is.
    Captured(String),
    /// Tokens made in Rust.
    #[serde(skip)]
    Made(Made),
    /// ERROR (or INFO, by its class).
    Error {
        /// Number.
        number: i32,
        /// Class: 11 and above is an error.
        class: u8,
        /// State.
        #[serde(default)]
        state: u8,
        /// Text.
        text: String,
    },
    /// A token of the DONE family, status as given.
    Done {
        /// `done`, `proc` or `in_proc`.
        #[serde(default)]
        kind: DoneToken,
        /// Status bits.
        #[serde(default)]
        status: u16,
        /// CurCmd.
        #[serde(default)]
        command: u16,
        /// Row count.
        #[serde(default)]
        rows: u64,
    },
    /// RETURNSTATUS.
    ReturnStatus(i32),
    /// RETURNVALUE.
    ReturnValue {
        /// Ordinal of the parameter.
        #[serde(default)]
        ordinal: u16,
        /// Name with its `@`.
        #[serde(default)]
        name: String,
        /// Type, as of a column.
        #[serde(rename = "type")]
        kind: String,
        /// As in `Rows`.
        value: serde_json::Value,
    },
    /// ENVCHANGE 21.
    EnhancedRouting {
        /// Server name.
        server: String,
        /// Port.
        port: u16,
        /// Database.
        database: String,
    },
    /// ENVCHANGE 15, as hex: the one type whose value has a length of four bytes.
    EnvPromote(String),
    /// LOGINACK with this program name.
    LoginAck(String),
    /// FEATUREEXTACK.
    FeatureExtAck(Vec<FeatureAck>),
    /// SSPI, as hex.
    Sspi(String),
    /// FEDAUTHINFO.
    FedAuthInfo {
        /// The token service.
        sts_url: String,
        /// The server's principal.
        spn: String,
    },
    /// SESSIONSTATE.
    SessionState {
        /// Sequence number.
        sequence: u32,
        /// Recoverable.
        #[serde(default)]
        recoverable: bool,
        /// States.
        #[serde(default)]
        states: Vec<FeatureAck>,
    },
    /// ENVCHANGE 20.
    Routing {
        /// Server name.
        server: String,
        /// Port.
        port: u16,
    },
    /// ENVCHANGE with texts.
    EnvText {
        /// Type.
        kind: u8,
        /// New value.
        new: String,
        /// Old value.
        #[serde(default)]
        old: String,
    },
    /// ENVCHANGE with bytes, as hex.
    EnvBytes {
        /// Type.
        kind: u8,
        /// New value.
        #[serde(default)]
        new: String,
        /// Old value.
        #[serde(default)]
        old: String,
    },
    /// These steps, over and over.
    Repeat {
        /// How often.
        times: u64,
        /// What.
        steps: Vec<Step>,
    },
    /// Waits; an ATTENTION ends the wait.
    DelayMs(u64),
    /// Sends what there is as a short packet.
    Flush,
    /// From here on packets have these body sizes, in turn; empty returns to full packets.
    Split(Vec<usize>),
    /// Ends the message; a further one begins.
    EndMessage,
    /// Bytes outside every message, packet headers included, as hex.
    RawPackets(String),
    /// Waits for an ATTENTION; later steps are then played to their end.
    AwaitAttention,
    /// Never answers; ends with the connection.
    Never,
    /// Sends what there is and closes; with bytes in hand, in mid-token.
    Close,
    /// The same with a TCP reset.
    Reset,
}

/// Which token of the DONE family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneToken {
    /// DONE.
    #[default]
    Done,
    /// DONEPROC.
    Proc,
    /// DONEINPROC.
    InProc,
}

fn once() -> u64 {
    1
}

fn plp_chunk() -> u32 {
    8000
}
