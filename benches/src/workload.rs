//! The workloads of a side-by-side run.

use crate::answer::Ask;
use crate::ends::client::Until;

/// Rows of the long stream.
const STREAM_ROWS: u64 = 1_000_000;
/// Bytes of the long value.
const BLOB_BYTES: u64 = 1 << 30;
/// Connections at rest beside the busy ones.
const IDLE: usize = 1_000;
/// New connections at a time.
const CHURNING: usize = 8;

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// What figures are published from.
    Full,
    /// What fits into five minutes.
    Quick,
    /// What shows that all counts are right, and nothing about time.
    Tiny,
}

impl Size {
    fn pick(self, full: u64, quick: u64, tiny: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Tiny => tiny,
        }
    }
}

/// What clients do in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// For `--only` and reports.
    pub name: &'static str,
    /// Connections that work.
    pub connections: usize,
    /// Connections at rest.
    pub idle: usize,
    /// What is asked, in turn.
    pub asks: Vec<Ask>,
    /// For how long.
    pub until: Until,
    /// Each statement on a connection of its own.
    pub churn: bool,
    /// Client, proxy and origin on one core: what is measured is latency.
    pub one_core: bool,
    /// Packet size that is asked for.
    pub packet_size: u16,
}

impl Workload {
    /// All of them.
    #[must_use]
    pub fn all(size: Size) -> Vec<Self> {
        let short = Until::Millis(size.pick(1_000, 700, 50));
        let one = |name, connections: u64| Self {
            name,
            connections: connections as usize,
            idle: 0,
            asks: vec![Ask::One],
            until: short,
            churn: false,
            one_core: false,
            packet_size: 4096,
        };
        let rows = size.pick(STREAM_ROWS, STREAM_ROWS, 20_000);
        let stream = |name, connections: u64, each: u64| Self {
            asks: vec![Ask::Events(rows)],
            until: Until::Count(each),
            ..one(name, connections)
        };
        let blob = size.pick(BLOB_BYTES, BLOB_BYTES, 1 << 22);
        // Of ten executions seven select a row, two a range, one updates.
        let mix = [&[Ask::Point; 7][..], &[Ask::Range; 2], &[Ask::Update]].concat();
        vec![
            Self {
                one_core: true,
                ..one("latency", 1)
            },
            one("statements-16", 16),
            one("statements-128", size.pick(128, 128, 24)),
            Self {
                asks: mix,
                ..one("oltp", 16)
            },
            stream("stream-1", 1, size.pick(3, 2, 1)),
            stream("stream-4", 4, 1),
            Self {
                packet_size: 8000,
                ..stream("stream-8000", 1, size.pick(3, 2, 1))
            },
            Self {
                packet_size: 32767,
                ..stream("stream-32767", 1, size.pick(3, 2, 1))
            },
            Self {
                asks: vec![Ask::Blob(blob)],
                until: Until::Count(1),
                ..one("blob", 1)
            },
            Self {
                churn: true,
                until: Until::Count(size.pick(200, 100, 5)),
                ..one("churn", CHURNING as u64)
            },
            Self {
                idle: size.pick(IDLE as u64, IDLE as u64, 40) as usize,
                ..one("idle", 16)
            },
        ]
    }
}
