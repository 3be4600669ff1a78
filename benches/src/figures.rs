//! The figures that are judged: what is compared with whom, the floor, the aim.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ends::encryption::Encryption::{self, Plain, Strict};
use crate::peers::Peer;
use crate::rounds::{Cell, Samples, median};
use crate::stage::Sample;
use crate::workload::Size;

/// Share of its core that a proxy must use for its throughput to be its own, and not that of the ends.
const BUSY: f64 = 0.9;
/// Added latency that counts as none, µs.
const UNHEARD_MICROS: f64 = 5.0;

/// What is read from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// CPU seconds of the proxy per 10^9 bytes.
    CpuPerGb,
    /// CPU microseconds of the proxy per statement.
    CpuPerStatement,
    /// 10^9 bytes per second.
    Throughput,
    /// Statements per second.
    Statements,
    /// Median latency more than direct, µs.
    AddedP50,
    /// 99 % latency more than direct, µs.
    AddedP99,
    /// Resident memory per session, KiB.
    Resident,
}

impl Metric {
    /// True if it is a difference to direct.
    #[must_use]
    pub const fn is_added(self) -> bool {
        matches!(self, Self::AddedP50 | Self::AddedP99)
    }

    /// True if more is better.
    #[must_use]
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::Statements)
    }

    /// With its unit.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::CpuPerGb => "proxy CPU, s/GB",
            Self::CpuPerStatement => "proxy CPU, µs per statement",
            Self::Throughput => "throughput, GB/s",
            Self::Statements => "statements/s",
            Self::AddedP50 => "latency added over direct, p50, µs",
            Self::AddedP99 => "latency added over direct, p99, µs",
            Self::Resident => "resident per session, KiB",
        }
    }

    fn of(self, sample: &Sample, direct: Option<&Sample>) -> f64 {
        let outcome = &sample.outcome;
        let (gb, seconds) = (outcome.bytes as f64 / 1e9, outcome.nanos as f64 / 1e9);
        let added = |of: fn(&Sample) -> u64| {
            direct.map_or(f64::NAN, |direct| (of(sample) as f64 - of(direct) as f64) / 1e3)
        };
        match self {
            Self::CpuPerGb => sample.cpu / gb,
            Self::CpuPerStatement => sample.cpu * 1e6 / outcome.statements as f64,
            Self::Throughput => gb / seconds,
            Self::Statements => outcome.statements as f64 / seconds,
            Self::AddedP50 => added(|sample| sample.outcome.p50),
            Self::AddedP99 => added(|sample| sample.outcome.p99),
            Self::Resident => sample.resident / 1024.0,
        }
    }

    /// Of each round.
    #[must_use]
    pub fn values(self, samples: &Samples, peer: Peer) -> Vec<f64> {
        let of = |peer| samples.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let direct = of(Peer::Direct);
        // Only sessions that come first find no room that others left.
        let counted = if self == Self::Resident { 1 } else { usize::MAX };
        let rounds = of(peer).iter().enumerate().take(counted);
        rounds
            .map(|(round, sample)| self.of(sample, direct.get(round)))
            .collect()
    }
}

/// What is judged, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Workload and encryption.
    pub cell: Cell,
    /// What Weir enforcing is compared with.
    pub peer: Peer,
    /// In what.
    pub metric: Metric,
    /// Must hold.
    pub floor: f64,
    /// Should hold.
    pub aim: f64,
}

const fn rule(
    workload: &'static str,
    encryption: Encryption,
    peer: Peer,
    metric: Metric,
    floor: f64,
    aim: f64,
) -> Rule {
    Rule {
        cell: (workload, encryption),
        peer,
        metric,
        floor,
        aim,
    }
}

/// Ratios of Weir enforcing to its peer; of resident memory, KiB.
pub const RULES: &[Rule] = &[
    rule("stream-1", Plain, Peer::Haproxy, Metric::CpuPerGb, 1.3, 1.0),
    rule("stream-4", Plain, Peer::Haproxy, Metric::CpuPerGb, 1.3, 1.0),
    rule("stream-1", Plain, Peer::HaproxySplice, Metric::CpuPerGb, 2.2, 1.6),
    rule("stream-4", Plain, Peer::HaproxySplice, Metric::CpuPerGb, 2.2, 1.6),
    rule("stream-1", Plain, Peer::Haproxy, Metric::Throughput, 0.8, 1.0),
    rule("stream-4", Plain, Peer::Haproxy, Metric::Throughput, 0.8, 1.0),
    rule(
        "statements-16",
        Plain,
        Peer::Haproxy,
        Metric::CpuPerStatement,
        1.6,
        1.15,
    ),
    rule(
        "statements-128",
        Plain,
        Peer::Haproxy,
        Metric::CpuPerStatement,
        1.6,
        1.15,
    ),
    rule(
        "statements-16",
        Plain,
        Peer::Haproxy,
        Metric::Statements,
        0.8,
        0.95,
    ),
    rule(
        "statements-128",
        Plain,
        Peer::Haproxy,
        Metric::Statements,
        0.8,
        0.95,
    ),
    rule("latency", Plain, Peer::Haproxy, Metric::AddedP50, 1.6, 1.2),
    rule("latency", Plain, Peer::Haproxy, Metric::AddedP99, 2.0, 1.3),
    rule("stream-1", Strict, Peer::Haproxy, Metric::CpuPerGb, 0.9, 0.6),
    rule("churn", Plain, Peer::Haproxy, Metric::CpuPerStatement, 2.0, 1.4),
    rule("churn", Strict, Peer::Haproxy, Metric::CpuPerStatement, 0.8, 0.5),
    rule("idle", Plain, Peer::Haproxy, Metric::Resident, 16.0, 8.0),
    rule("idle", Strict, Peer::Haproxy, Metric::Resident, 64.0, 42.0),
];

/// A judged figure, as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub figure: String,
    /// Weir's value, the median of the rounds.
    pub weir: f64,
    /// The peer's.
    pub peer: f64,
    /// The median of the rounds' ratios.
    pub ratio: f64,
    /// Must hold; nothing where nothing is judged.
    pub floor: Option<f64>,
    /// Should hold.
    pub aim: Option<f64>,
    /// Whether the floor holds.
    pub ok: bool,
    /// Whether the aim does.
    #[serde(skip)]
    pub aimed: bool,
}

/// Judges what was measured: all of it in a full run, all but the 99 % latencies in a quick one, nothing of a tiny one.
#[must_use]
pub fn judge(results: &BTreeMap<Cell, Samples>, size: Size) -> Vec<Figure> {
    let measured = RULES
        .iter()
        .filter_map(|rule| Some((rule, results.get(&rule.cell)?)));
    let figures = measured.map(|(rule, samples)| rule.judge(samples, size));
    figures.flatten().collect()
}

impl Rule {
    fn judge(&self, samples: &Samples, size: Size) -> Option<Figure> {
        let ours = self.metric.values(samples, Peer::Enforcing);
        let theirs = self.metric.values(samples, self.peer);
        if ours.is_empty() || theirs.is_empty() {
            return None;
        }
        let mut judged = Judged {
            figure: format!(
                "{} {}, {}: Weir enforcing, against {}",
                self.cell.0,
                self.cell.1.name(),
                self.metric.text(),
                self.peer.name()
            ),
            floor: self.floor,
            aim: self.aim,
            more_is_better: self.metric.more_is_better(),
            absolute: self.metric == Metric::Resident,
            judged: match size {
                Size::Full => true,
                Size::Quick => self.metric != Metric::AddedP99,
                Size::Tiny => false,
            },
        };
        if self.metric.more_is_better() {
            let busy = samples.get(&Peer::Enforcing).into_iter().flatten();
            let busy = median(busy.map(|sample| sample.busy));
            if busy < BUSY {
                judged.judged = false;
                judged.figure.push_str(&format!(
                    " (the ends are the limit: the proxy's core is {:.0} % busy)",
                    busy * 100.0
                ));
            }
        }
        let mut figure = judged.figure(&ours, &theirs);
        if self.metric.is_added() && figure.weir < UNHEARD_MICROS {
            (figure.ok, figure.aimed) = (true, true);
        }
        Some(figure)
    }
}

/// A figure before its values are known.
#[derive(Debug, Clone)]
pub struct Judged {
    /// What it is.
    pub figure: String,
    /// Must hold.
    pub floor: f64,
    /// Should hold.
    pub aim: f64,
    /// The limits are least values.
    pub more_is_better: bool,
    /// The limits are about Weir's own value; otherwise about the ratio to the peer.
    pub absolute: bool,
    /// The limits count.
    pub judged: bool,
}

impl Judged {
    /// With the values of the rounds, which stand in pairs.
    #[must_use]
    pub fn figure(self, ours: &[f64], theirs: &[f64]) -> Figure {
        let ratio = median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
        let weir = median(ours.iter().copied());
        let value = if self.absolute { weir } else { ratio };
        let holds = |limit: f64| match self.more_is_better {
            true => value >= limit,
            false => value <= limit,
        };
        Figure {
            weir,
            peer: median(theirs.iter().copied()),
            ratio,
            floor: self.judged.then_some(self.floor),
            aim: self.judged.then_some(self.aim),
            ok: !self.judged || holds(self.floor),
            aimed: !self.judged || holds(self.aim),
            figure: self.figure,
        }
    }
}
