//! Conformance: every real driver hands to its user through Weir what it hands over directly.

mod cells;
mod cut;
mod encryption;
mod mock;
mod programs;
mod run;
mod scenarios;
mod servers;
mod site;
mod table;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Mutex;

use weir_protocol_tests::demo::Place as Directory;
use weir_protocol_tests::world::World;

use cells::{Cell, Place};
use cut::Poor;
use encryption::Encryption;
use programs::Program;
use run::Told;
use scenarios::{Scenario, Script};
use servers::Certificate;
use site::Site;
use table::Shown;
use verdict::{Verdict, expectations, known, unexpected};

/// Credit that no run can spend.
const RICH: &str = "100000.00";

/// Credit of the tenant that is cut off, before the first top-up.
const POOR: &str = "0.00001";

/// Processes at once, beside the servers and gates: one for each of CI's two cores.
const LANES: usize = 2;

/// What was told in each cell of a driver.
type Found = BTreeMap<(&'static str, Place, Encryption), Vec<Told>>;

/// What each driver showed.
type All = BTreeMap<&'static str, Shown>;

#[test]
fn every_driver_tells_through_weir_what_it_tells_directly() {
    let (rich, poor) = (Directory::new(), Directory::new());
    let (demo, poor_demo) = (rich.start(RICH), poor.start(POOR));
    let logs = tempfile::tempdir().expect("a directory for logs");
    let certificate = Certificate::make(logs.path());
    let list = logs.path().join("scenarios.json");
    let scenarios = scenarios::write(&list, everything());
    let site = Site::start(&demo, &certificate, &list, logs.path());
    let gates = Poor::start(&poor_demo, &site.upstreams(), &certificate, &list);
    let programs = chosen();
    let jobs = Mutex::new(jobs(&programs, &scenarios));
    let (found, cuts) = std::thread::scope(|scope| {
        // There is one poor tenant, so one driver at a time is cut off.
        let cutting = scope.spawn(|| cut_off(&programs, &scenarios, &gates, logs.path()));
        let mut lanes: Vec<_> = (1..LANES)
            .map(|_| scope.spawn(|| run_all(&site, &jobs)))
            .collect();
        let cuts = cutting.join().expect("the lane of the cuts");
        lanes.push(scope.spawn(|| run_all(&site, &jobs)));
        let found = lanes.into_iter().flat_map(|lane| lane.join().expect("a lane"));
        (found.collect::<Found>(), cuts)
    });
    let mut shown = cuts;
    compare(&found, &scenarios, &mut shown);
    for demo in [&demo, &poor_demo] {
        let _ = demo.settled_balance();
        let _ = demo.reconcile();
    }
    // Before the verdicts: their logs would bury them.
    drop((site, gates));
    demo.stop();
    poor_demo.stop();
    judge(&programs, &scenarios, &shown);
}

/// The scenarios of the file, and one for every answer of every script.
fn everything() -> Vec<Scenario> {
    let scripted = Script::ALL.iter().flat_map(|script| script.scenarios());
    scenarios::all().into_iter().chain(scripted).collect()
}

/// The programs that run: all, or those that `WEIR_TEST_DRIVERS` names.
fn chosen() -> Vec<&'static Program> {
    let wanted = std::env::var("WEIR_TEST_DRIVERS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let all = programs::ALL.iter();
    all.filter(|program| wanted.is_empty() || wanted.contains(&program.driver))
        .collect()
}

/// Every cell of every driver, without the answers that a driver never finds the end of.
fn jobs(programs: &[&'static Program], scenarios: &[Scenario]) -> Vec<(&'static Program, Cell)> {
    let lines = expectations();
    let mut cells = cells::of_sqlite(scenarios);
    cells.extend(cells::of_scripts(scenarios));
    let of_driver = |program: &'static Program| {
        let asked = |name: &String| !lines.iter().any(|line| line.hangs(program.driver, name));
        let cells = cells.iter().cloned().map(move |mut cell| {
            cell.scenarios.retain(asked);
            (program, cell)
        });
        cells.collect::<Vec<_>>()
    };
    programs.iter().copied().flat_map(of_driver).collect()
}

/// One lane: takes cells until none is left.
fn run_all(site: &Site<'_>, jobs: &Mutex<Vec<(&'static Program, Cell)>>) -> Found {
    let next = || jobs.lock().expect("no lane panics with it").pop();
    std::iter::from_fn(next)
        .map(|(program, cell)| {
            let told = site.run(program, &cell);
            ((program.driver, cell.place, cell.client), told)
        })
        .collect()
}

fn cut_off(
    programs: &[&'static Program],
    scenarios: &[Scenario],
    gates: &Poor<'_>,
    logs: &std::path::Path,
) -> All {
    let scenario = scenarios.iter().find(|scenario| scenario.upstreams == ["gate"]);
    let scenario = scenario.expect("a scenario of the gate's own");
    let mut shown = All::new();
    for (turn, program) in programs.iter().enumerate() {
        let log = logs.join(format!("{}-cut", program.driver));
        let of_driver = shown.entry(program.driver).or_default();
        for (client, verdict) in gates.cut(turn, program, scenario, &log) {
            of_driver
                .entry((scenario.name.clone(), client))
                .or_default()
                .push(verdict);
        }
    }
    shown
}

/// Sets each cell behind the gate beside the direct one of the same driver and encryption.
fn compare(found: &Found, scenarios: &[Scenario], shown: &mut All) {
    for ((driver, place, client), told) in found {
        let Some(beside) = place.beside() else {
            continue;
        };
        let direct = &found[&(*driver, beside, *client)];
        for through in told {
            let name = &through.scenario;
            let scenario = scenarios.iter().find(|scenario| scenario.name == *name);
            let beside = direct.iter().find(|told| told.scenario == *name);
            let (Some(scenario), Some(beside)) = (scenario, beside) else {
                panic!("{driver} told of {name}, which nobody asked for");
            };
            let verdict = match place {
                Place::BeforeStage(_) => Verdict::alike(beside, through),
                _ => Verdict::of(scenario, beside, through),
            };
            let of_driver = shown.entry(driver).or_default();
            of_driver
                .entry((name.clone(), *client))
                .or_default()
                .push(verdict);
        }
    }
}

/// Compares every verdict with what is expected, and the table with the committed one.
fn judge(programs: &[&'static Program], scenarios: &[Scenario], shown: &All) {
    let lines = expectations();
    let (mut wrong, mut sections) = (Vec::new(), String::new());
    for program in programs {
        let of_driver = &shown[program.driver];
        for ((scenario, client), verdicts) in of_driver {
            let line = known(&lines, program.driver, scenario, *client);
            for verdict in verdicts {
                if let Some(what) = unexpected(verdict, line) {
                    wrong.push(format!("{} {scenario} {}: {what}", program.driver, client.name()));
                }
            }
        }
        sections.push_str(&table::section(program, scenarios, of_driver, &lines));
    }
    let whole = programs.len() == programs::ALL.len();
    if whole {
        table::write(&sections);
    }
    assert!(
        wrong.is_empty(),
        "{} cells are not as expected:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    if whole {
        table::check(&sections);
    }
}
