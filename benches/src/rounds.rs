//! Interleaved rounds: in each, every peer does every workload's part once, so that what a machine does beside touches all alike.

use std::collections::BTreeMap;

use crate::ends::client::{Outcome, Until};
use crate::ends::encryption::Encryption;
use crate::failure::Failure;
use crate::figures::{Metric, RULES};
use crate::peers::Peer;
use crate::stage::{Sample, Stage};
use crate::syscalls::Calls;
use crate::workload::{Size, Workload};

/// Milliseconds of the warm-up, which is not counted.
const WARM_UP_MILLIS: u64 = 100;

/// Statements of a connection in a warm-up that goes by count.
const WARM_UP_COUNT: u64 = 1;

/// Workload and encryption.
pub type Cell = (&'static str, Encryption);

/// Samples of each peer, by round.
pub type Samples = BTreeMap<Peer, Vec<Sample>>;

/// Where system calls are counted.
const TRACED: [Cell; 3] = [
    ("stream-1", Encryption::Plain),
    ("stream-1", Encryption::Strict),
    ("statements-16", Encryption::Plain),
];

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Results {
    /// Samples of every cell.
    pub cells: BTreeMap<Cell, Samples>,
    /// System calls, where they could be counted.
    pub calls: Vec<(Cell, Peer, Outcome, Calls)>,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How much.
    pub size: Size,
    /// Rounds.
    pub rounds: usize,
    /// Only what has this in its name, `WORKLOAD/ENCRYPTION`.
    pub only: Option<String>,
}

impl Plan {
    /// What is run, and through which peers.
    #[must_use]
    pub fn cells(&self) -> Vec<(Workload, Encryption, Vec<Peer>)> {
        let mut cells = Vec::new();
        for workload in Workload::all(self.size) {
            for encryption in Encryption::ALL {
                let name = cell_name((workload.name, encryption));
                if self
                    .only
                    .as_ref()
                    .is_some_and(|only| !name.contains(only.as_str()))
                {
                    continue;
                }
                let peers = self.peers(&workload, encryption);
                if peers.contains(&Peer::Enforcing) {
                    cells.push((workload.clone(), encryption, peers));
                }
            }
        }
        cells
    }

    /// All of them in a full run; otherwise those that a rule needs.
    fn peers(&self, workload: &Workload, encryption: Encryption) -> Vec<Peer> {
        // Splice does not go through TLS.
        let splices = |peer: &Peer| *peer != Peer::HaproxySplice || encryption != Encryption::Strict;
        let mut peers: Vec<Peer> = Peer::ALL.into_iter().filter(splices).collect();
        if self.size == Size::Quick {
            let rules = RULES
                .iter()
                .filter(|rule| rule.cell == (workload.name, encryption));
            let needed: Vec<Peer> = rules
                .flat_map(|rule| {
                    let direct = rule.metric.is_added().then_some(Peer::Direct);
                    [Some(rule.peer), direct, Some(Peer::Enforcing)]
                        .into_iter()
                        .flatten()
                })
                .collect();
            peers.retain(|peer| needed.contains(peer));
        }
        peers
    }
}

/// As `--only` takes it.
#[must_use]
pub fn cell_name((workload, encryption): Cell) -> String {
    let encryption = match encryption {
        Encryption::Plain => "plain",
        Encryption::LoginOnly => "login-only",
        Encryption::Strict => "tls",
    };
    format!("{workload}/{encryption}")
}

/// Runs the plan on a stage; says on standard error what it is at.
///
/// # Errors
/// A measurement that failed.
pub fn run(plan: &Plan, stage: &mut Stage) -> Result<Results, Failure> {
    let mut results = Results::default();
    let cells = plan.cells();
    for (at, (workload, encryption, peers)) in cells.iter().enumerate() {
        let cell = (workload.name, *encryption);
        eprintln!("[{}/{}] {}", at + 1, cells.len(), cell_name(cell));
        if workload.idle > 0 {
            // What earlier sessions have left behind would be room for these.
            stage.clear()?;
        }
        if workload.idle == 0 && plan.size != Size::Tiny {
            for peer in peers {
                stage.measure(*peer, *encryption, &warm_up(workload))?;
            }
        }
        let mut samples = Samples::new();
        for round in 0..plan.rounds {
            for turn in 0..peers.len() {
                // Each begins a round once, so that none is always behind the same one.
                let Some(peer) = peers.get((round + turn) % peers.len()) else {
                    continue;
                };
                let sample = stage.measure(*peer, *encryption, workload)?;
                samples.entry(*peer).or_default().push(sample);
            }
        }
        results.cells.insert(cell, samples);
        if TRACED.contains(&cell) && plan.size != Size::Tiny {
            for peer in [Peer::Haproxy, Peer::Enforcing] {
                let traced = stage.trace(peer, *encryption, &warm_up(workload))?;
                results
                    .calls
                    .extend(traced.map(|(outcome, calls)| (cell, peer, outcome, calls)));
            }
        }
    }
    Ok(results)
}

fn warm_up(workload: &Workload) -> Workload {
    let until = match workload.until {
        Until::Millis(millis) => Until::Millis(millis.min(WARM_UP_MILLIS)),
        Until::Count(count) => Until::Count(count.min(WARM_UP_COUNT)),
    };
    Workload {
        until,
        ..workload.clone()
    }
}

/// The middle one of some values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

/// The median of a metric over the rounds.
#[must_use]
pub fn median_of(samples: &Samples, peer: Peer, metric: Metric) -> f64 {
    median(metric.values(samples, peer))
}
