//! Conformance: every real driver hands to its user through Weir what it hands over directly.

mod cells;
mod cut;
mod encryption;
mod programs;
mod run;
mod scenarios;
mod servers;
mod table;
mod verdict;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use weir_protocol_tests::demo::{Demo, Place as Directory};
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::world::World;

use cells::{Cell, Place, Upstream};
use cut::Poor;
use encryption::Encryption;
use programs::Program;
use run::{Order, Told};
use scenarios::Scenario;
use servers::{Certificate, Sandbox};
use table::Shown;
use verdict::{Verdict, expectations, known, unexpected};

/// Credit that no run can spend.
const RICH: &str = "100000.00";

/// Credit of the tenant that is cut off, before the first top-up.
const POOR: &str = "0.00001";

/// Processes at once, beside the servers and gates: one for each of CI's two cores.
const LANES: usize = 2;

/// What was told in a cell.
type Found = Mutex<BTreeMap<(&'static str, Place, Encryption), Vec<Told>>>;

/// Servers, and the gates before them.
struct Site<'a> {
    sandboxes: Vec<(Encryption, Sandbox)>,
    gates: Vec<(Upstream, Gate)>,
    certificate: &'a Certificate,
    logs: &'a Path,
}

impl<'a> Site<'a> {
    fn start(demo: &Demo, certificate: &'a Certificate, logs: &'a Path) -> Self {
        let sandboxes: Vec<(Encryption, Sandbox)> = Encryption::ALL
            .iter()
            .map(|encryption| (*encryption, Sandbox::start(*encryption, certificate)))
            .collect();
        let gates = sandboxes
            .iter()
            .map(|(encryption, sandbox)| {
                let gate = servers::gate(demo, sandbox.address, *encryption, certificate);
                (Upstream::Sqlite(*encryption), gate)
            })
            .collect();
        Self {
            sandboxes,
            gates,
            certificate,
            logs,
        }
    }

    /// The servers by their encryption.
    fn upstreams(&self) -> Vec<(Encryption, SocketAddr)> {
        let addresses = self.sandboxes.iter();
        addresses
            .map(|(encryption, sandbox)| (*encryption, sandbox.address))
            .collect()
    }

    /// Directly, a client meets the server that leaves the encryption to it.
    fn target(&self, place: Place) -> Target {
        let address = match place {
            Place::Direct => {
                let leaves_it =
                    |(encryption, _): &&(Encryption, Sandbox)| *encryption == Encryption::LoginOnly;
                self.sandboxes
                    .iter()
                    .find(leaves_it)
                    .map(|(_, sandbox)| sandbox.address)
            }
            Place::Gate(upstream) => {
                let before = |(of, _): &&(Upstream, Gate)| *of == upstream;
                self.gates.iter().find(before).map(|(_, gate)| gate.address())
            }
        };
        Target::demo(address.expect("a place of this run"))
    }

    fn run(&self, program: &Program, cell: &Cell) -> Vec<Told> {
        let log = format!("{}-{:?}-{}", program.driver, cell.place, cell.client.name());
        let order = Order {
            program,
            to: &self.target(cell.place),
            encryption: cell.client,
            certificate: &self.certificate.certificate,
            scenarios: &cell.scenarios,
            log: &self.logs.join(log),
        };
        order.run(&mut |word| panic!("{} waits for {word}", program.driver))
    }
}

#[test]
fn every_driver_tells_through_weir_what_it_tells_directly() {
    let (rich, poor) = (Directory::new(), Directory::new());
    let (demo, poor_demo) = (rich.start(RICH), poor.start(POOR));
    let certificate = Certificate::make(rich.directory().parent().expect("a place"));
    let logs = tempfile::tempdir().expect("a directory for logs");
    let site = Site::start(&demo, &certificate, logs.path());
    let scenarios = scenarios::all();
    let cut = scenarios.iter().find(|scenario| scenario.upstreams == ["gate"]);
    let cut = cut.expect("a scenario of the gate's own");
    let programs = chosen();
    let found = Found::default();
    let shown: Mutex<BTreeMap<&str, Shown>> = Mutex::default();
    let jobs: Mutex<Vec<(&Program, Cell)>> = Mutex::new(jobs(&programs, &scenarios));
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (site, found, jobs, shown) = (&site, &found, &jobs, &shown);
            let (programs, poor_demo, certificate, logs) = (&programs, &poor_demo, &certificate, &logs);
            scope.spawn(move || {
                // One credit, so one driver at a time is cut off.
                if lane == 0 {
                    let poor = Poor::start(poor_demo, &site.upstreams(), certificate);
                    for (turn, program) in programs.iter().enumerate() {
                        let log = logs.path().join(format!("{}-cut", program.driver));
                        for (client, verdict) in poor.cut(turn, program, cut, &log) {
                            note(shown, program, (cut.name.clone(), client), verdict);
                        }
                    }
                }
                while let Some((program, cell)) = next(jobs) {
                    let told = site.run(program, &cell);
                    let key = (program.driver, cell.place, cell.client);
                    found.lock().expect("no lane panics").insert(key, told);
                }
            });
        }
    });
    let mut shown = shown.into_inner().expect("no lane panics");
    compare(
        &found.into_inner().expect("no lane panics"),
        &scenarios,
        &mut shown,
    );
    for demo in [&demo, &poor_demo] {
        let _ = demo.settled_balance();
        let _ = demo.reconcile();
    }
    // Without their logs: what is wrong is in the verdicts.
    drop((site, demo, poor_demo));
    judge(&programs, &scenarios, &shown);
}

/// The programs that run: all, or those that `WEIR_TEST_DRIVERS` names.
fn chosen() -> Vec<&'static Program> {
    let wanted = std::env::var("WEIR_TEST_DRIVERS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let all = programs::ALL.iter();
    all.filter(|program| wanted.is_empty() || wanted.contains(&program.driver))
        .collect()
}

fn jobs<'a>(programs: &[&'a Program], scenarios: &[Scenario]) -> Vec<(&'a Program, Cell)> {
    let cells = cells::of_sqlite(scenarios);
    let all = programs
        .iter()
        .flat_map(|program| cells.iter().map(|cell| (*program, cell.clone())));
    all.collect()
}

fn next<T>(jobs: &Mutex<Vec<T>>) -> Option<T> {
    jobs.lock().expect("no lane panics").pop()
}

fn note(
    shown: &Mutex<BTreeMap<&'static str, Shown>>,
    program: &'static Program,
    key: (String, Encryption),
    verdict: Verdict,
) {
    let mut shown = shown.lock().expect("no lane panics");
    let of_driver = shown.entry(program.driver).or_default();
    of_driver.entry(key).or_default().push(verdict);
}

/// Sets each cell behind the gate beside the direct one of the same driver and encryption.
fn compare(
    found: &BTreeMap<(&'static str, Place, Encryption), Vec<Told>>,
    scenarios: &[Scenario],
    shown: &mut BTreeMap<&'static str, Shown>,
) {
    for ((driver, place, client), told) in found {
        if *place == Place::Direct {
            continue;
        }
        let direct = &found[&(*driver, Place::Direct, *client)];
        for through in told {
            let name = &through.scenario;
            let scenario = scenarios.iter().find(|scenario| scenario.name == *name);
            let beside = direct.iter().find(|told| told.scenario == *name);
            let (Some(scenario), Some(beside)) = (scenario, beside) else {
                panic!("{driver} told of {name}, which nobody asked for");
            };
            let key = (name.clone(), *client);
            let verdicts = shown.entry(driver).or_default().entry(key).or_default();
            verdicts.push(Verdict::of(scenario, beside, through));
        }
    }
}

/// Compares every verdict with what is expected, and the table with the committed one.
fn judge(programs: &[&'static Program], scenarios: &[Scenario], shown: &BTreeMap<&'static str, Shown>) {
    let lines = expectations();
    let names: Vec<String> = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
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
        sections.push_str(&table::section(program, &names, of_driver, &lines));
    }
    assert!(
        wrong.is_empty(),
        "{} cells are not as expected:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    if programs.len() == programs::ALL.len() {
        table::check(&sections);
    }
}
