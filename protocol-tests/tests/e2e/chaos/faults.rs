//! Every process is stopped for ten seconds once, and killed and started ten seconds later once, while eight clients go on.

use std::time::{Duration, Instant};

use weir_protocol_tests::deadline::pause;
use weir_protocol_tests::money::UNIT;
use weir_protocol_tests::stack::{PROCESSES, Stack};
use weir_protocol_tests::world::World;

use crate::fleet;
use crate::load::under_load;
use crate::mixed::{assert_books, assert_ids_are_unique};
use crate::outage::{Outage, assert_charged, assert_served, cost_of};

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(10);

/// Before the first fault: the leases have grown to what the load needs for half a minute.
const RAMP: Duration = Duration::from_secs(20);

/// Statements of each client between two faults.
const CALM: u64 = 5;

/// More than the load can spend.
const CREDIT: i64 = 2_000 * UNIT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGSTOP, and SIGCONT later.
    Stop,
    /// SIGKILL, and a start later.
    Kill,
}

/// What happens at once. The proxy and the server behind it are never hit together with others: whose fault an error is must be plain.
type Step = (Kind, &'static [&'static str]);

const STEPS: [Step; 10] = [
    (Kind::Stop, &["billing", "redis"]),
    (Kind::Stop, &["wallet", "rabbitmq"]),
    (Kind::Stop, &["postgres", "ferretdb", "items"]),
    (Kind::Stop, &["proxy"]),
    (Kind::Stop, &["sandbox"]),
    (Kind::Kill, &["redis", "wallet"]),
    (Kind::Kill, &["rabbitmq", "billing"]),
    (Kind::Kill, &["postgres", "ferretdb", "items"]),
    (Kind::Kill, &["sandbox"]),
    (Kind::Kill, &["proxy"]),
];

#[test]
fn every_process_is_stopped_and_killed_under_load_and_the_books_are_equal() {
    let stack = Stack::up();
    let before = stack.settled_balance();
    stack.top_up(CREDIT);
    let (outages, seen) = under_load(&stack.tenant(), 4, |load| {
        pause(RAMP);
        let mut outages = Vec::new();
        let began = Instant::now();
        for (kind, names) in steps() {
            load.served(CALM);
            println!("{:>5.0?} {kind:?} {names:?}", began.elapsed());
            outages.extend(break_for_a_time(&stack, kind, &names));
            println!("{:>5.0?} over", began.elapsed());
        }
        load.served(CALM);
        println!("{:>5.0?} calm", began.elapsed());
        outages
    });
    assert_served(&seen, &outages);
    let balance = stack.settled_balance();
    let usage = stack.usage();
    assert_ids_are_unique(&usage);
    let cost = cost_of(assert_charged(&seen, &usage));
    assert_eq!(balance, before + CREDIT - cost);
    assert_books(&stack, cost);
}

#[test]
fn each_process_has_its_turn_in_both_ways() {
    for kind in [Kind::Stop, Kind::Kill] {
        let mut names: Vec<&str> = STEPS
            .iter()
            .filter(|step| step.0 == kind)
            .flat_map(|step| step.1)
            .copied()
            .collect();
        let mut all = PROCESSES.to_vec();
        names.sort_unstable();
        all.sort_unstable();
        assert_eq!(names, all);
    }
}

/// In the long run each process by itself.
fn steps() -> Vec<(Kind, Vec<&'static str>)> {
    let whole = STEPS.iter().map(|(kind, names)| (*kind, names.to_vec()));
    if !fleet::long() {
        return whole.collect();
    }
    whole
        .flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, vec![name])))
        .collect()
}

/// Breaks these, waits, mends them; the outages that clients on their own path had.
fn break_for_a_time(stack: &Stack, kind: Kind, names: &[&str]) -> Option<Outage> {
    let from = Instant::now();
    for name in names {
        match kind {
            Kind::Stop => stack.pause(name),
            Kind::Kill => stack.kill(name),
        }
    }
    pause(FAULT);
    for name in names {
        match kind {
            Kind::Stop => stack.resume(name),
            Kind::Kill => stack.start(name),
        }
    }
    // Who is only stopped is waited for: that is no reason for an error.
    let on_the_path = kind == Kind::Kill && names.iter().any(|name| ["proxy", "sandbox"].contains(name));
    on_the_path.then(|| Outage {
        from,
        to: Instant::now(),
    })
}
