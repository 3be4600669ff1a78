//! Journal entries: usage records and lease closings, as they travel from the proxy's journal through the outbox to billing.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AccountId, EntryId, LeaseId},
    tariff::Quantity,
};

/// One entry of a proxy's journal. Its id is its place; the same id with other content is an error, never a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub id: EntryId,
    /// What happened.
    pub body: EntryBody,
}

/// What a journal entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EntryBody {
    /// A request, or a part of a long one, was measured.
    Usage(UsageRecord),
    /// A lease has no more records: what was not spent can be released.
    LeaseClosed(LeaseClosed),
}

/// How a request ended, as far as the client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An interim part: the request went on in a later record.
    Continued,
    /// All of the response was delivered, without an error.
    Completed,
    /// The response was delivered and told of an error.
    Error,
    /// The client cancelled it (ATTENTION).
    Cancelled,
    /// The gate cut it off.
    CutOff,
    /// A connection or a process ended in the middle.
    Interrupted,
}

/// The kind of request that caused the usage [MS-TDS 2.2.3.1.1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// SQL batch (0x01).
    Batch,
    /// RPC (0x03).
    Rpc,
    /// Bulk load (0x07).
    BulkLoad,
    /// Transaction manager request (0x0E).
    TransactionManager,
}

/// What one request, or one part of it, used. All counts are deltas of this record alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Who pays.
    pub account: AccountId,
    /// The login that was used at the gate.
    pub principal: String,
    /// Session number within (proxy, epoch).
    pub session: u64,
    /// Request number within the session; parts of one request share it.
    pub request: u64,
    /// Kind of the request.
    pub kind: RequestKind,
    /// Requests that begin in this part: 1 in the first (an RPC message counts each of its calls), 0 in a later one without
    /// further calls; the request price follows it.
    pub requests: u64,
    /// ROW and NBCROW tokens delivered.
    pub rows: u64,
    /// Sum of DONE counts of statements that return no rows.
    pub rows_affected: u64,
    /// Result sets begun (COLMETADATA).
    pub result_sets: u64,
    /// Token-stream bytes delivered: packet headers, TLS and SMP excluded.
    pub bytes_out: u64,
    /// Request message bytes, headers excluded.
    pub bytes_in: u64,
    /// ROW tokens uploaded by a bulk load.
    pub bulk_rows: u64,
    /// Bytes uploaded by a bulk load (also part of `bytes_in`).
    pub bulk_bytes: u64,
    /// From the request's last byte forwarded to the response's first byte seen.
    pub server_nanos: u64,
    /// When the request began, Unix nanoseconds of the proxy's clock (for people; nothing is decided by it).
    pub started_unix_nanos: u64,
    /// When this record was closed.
    pub ended_unix_nanos: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// DONE counts disagreed with the rows seen.
    pub drift: bool,
    /// The walker could not read the stream; rows are a lower bound (observe mode only).
    pub unparsed: bool,
    /// Tariff version that priced it.
    pub tariff: String,
    /// Lease that paid for it; none in observe mode or when nothing was to pay.
    pub lease: Option<LeaseId>,
    /// What the proxy took from the lease, in nano-units: rating must reach the same number.
    pub cost_nanos: i64,
}

impl UsageRecord {
    /// The quantities that the tariff prices.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        Quantity {
            requests: self.requests,
            rows: self.rows,
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            bulk_rows: self.bulk_rows,
            server_nanos: self.server_nanos,
        }
    }
}

/// The end of a lease: follows its usage down the same stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseClosed {
    /// Which lease.
    pub lease: LeaseId,
    /// Whose.
    pub account: AccountId,
    /// Usage records that named it.
    pub records: u64,
    /// Sum of their costs.
    pub cost_nanos: i64,
    /// Sequence of the last of them; 0 if none.
    pub last_sequence: u64,
}
