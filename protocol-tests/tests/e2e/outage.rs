//! What a client may be told while something is down, and what may have been charged for what it did not receive.

use std::time::Instant;

use serde_json::Value;
use weir_protocol_tests::money::DEMO_ROW;

use crate::load::{DEADLINE, Event, Seen};

/// Bytes of one chunk (`meter.chunk`): what may be paid for and not yet written.
const CHUNK: u64 = 240 * 1024;

/// A time in which a part of a client's own path was dead: the proxy, or the server behind it.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    /// Before the signal.
    pub(crate) from: Instant,
    /// When it was ready again.
    pub(crate) to: Instant,
}

/// Nobody waited beyond the deadline; nobody was told an error but of an outage of the own path since the connection was last good.
pub(crate) fn assert_served(seen: &Seen, outages: &[Outage]) {
    for event in &seen.events {
        let waited = event.ended - event.began;
        assert!(
            waited <= DEADLINE,
            "client {} waited {waited:?}: {event:?}",
            event.client
        );
        let excused = outages
            .iter()
            .any(|outage| event.good <= outage.to && outage.from <= event.ended);
        assert!(
            event.error.is_none() || excused,
            "an error while its own path is up: {event:?}, outages {outages:?}"
        );
    }
}

/// Every statement that ended well was charged once with exactly its rows; of the others at least what was received was charged, and at
/// most one chunk more. The rows charged in all.
pub(crate) fn assert_charged(seen: &Seen, usage: &[Value]) -> u64 {
    let mut charged: Vec<u64> = usage
        .iter()
        .map(|request| request["rows"].as_u64().expect("rows"))
        .filter(|rows| *rows > 0)
        .collect();
    let all = charged.iter().sum();
    charged.sort_unstable();
    for event in seen.events.iter().filter(|event| event.asked > 0) {
        if event.is_broken() {
            continue;
        }
        let at = charged.binary_search(&event.received);
        let at = at.unwrap_or_else(|_| panic!("not charged: {event:?}"));
        charged.remove(at);
    }
    let broken: Vec<&Event> = seen.events.iter().filter(|event| event.is_broken()).collect();
    let chunk = CHUNK / seen.shortest_row + 1;
    let fits = |rows: u64, event: &Event| {
        let most = event.received + event.uncounted + chunk;
        (event.received..=most.min(event.asked)).contains(&rows)
    };
    let unexplained = unmatched(&charged, &broken, |rows, event| fits(*rows, event));
    assert!(
        unexplained.is_empty(),
        "charged, and nobody received it: {:?} of {charged:?}; broken: {broken:#?}",
        unexplained.iter().map(|at| charged[*at]).collect::<Vec<_>>()
    );
    let received: Vec<&Event> = broken
        .iter()
        .filter(|event| event.received > 0)
        .copied()
        .collect();
    let free = unmatched(&received, &charged, |event, rows| fits(*rows, event));
    assert!(
        free.is_empty(),
        "received, and not charged: {:?}; charged: {charged:?}",
        free.iter().map(|at| received[*at]).collect::<Vec<_>>()
    );
    println!(
        "{} statements, {} of them broken, {all} rows charged, chunk {chunk} rows",
        seen.events.iter().filter(|event| event.asked > 0).count(),
        broken.len(),
    );
    all
}

/// What so many rows cost, nano-units.
pub(crate) fn cost_of(rows: u64) -> i64 {
    i64::try_from(rows).expect("few rows") * DEMO_ROW
}

/// The places of those on the left that get no partner of their own on the right (augmenting paths; a few dozen of each).
fn unmatched<L, R>(left: &[L], right: &[R], fits: impl Fn(&L, &R) -> bool) -> Vec<usize> {
    fn augment<L, R>(
        at: usize,
        left: &[L],
        right: &[R],
        fits: &impl Fn(&L, &R) -> bool,
        partner: &mut [Option<usize>],
        tried: &mut [bool],
    ) -> bool {
        for (place, other) in right.iter().enumerate() {
            if tried[place] || !fits(&left[at], other) {
                continue;
            }
            tried[place] = true;
            let free = match partner[place] {
                None => true,
                Some(taken) => augment(taken, left, right, fits, partner, tried),
            };
            if free {
                partner[place] = Some(at);
                return true;
            }
        }
        false
    }
    let mut partner = vec![None; right.len()];
    (0..left.len())
        .filter(|at| {
            let mut tried = vec![false; right.len()];
            !augment(*at, left, right, &fits, &mut partner, &mut tried)
        })
        .collect()
}

#[test]
fn partners_are_found_where_there_are_any() {
    let fits = |point: &u64, range: &(u64, u64)| (range.0..=range.1).contains(point);
    assert!(unmatched(&[5, 3], &[(1, 9), (4, 6)], fits).is_empty());
    assert_eq!(unmatched(&[5, 5, 3], &[(1, 9), (4, 6)], fits), [2]);
    assert_eq!(unmatched(&[7, 2], &[(4, 8)], fits), [1]);
}
