//! Where a run's cells are: servers of every encryption, servers that play scripts, and a gate before each.

use std::net::SocketAddr;
use std::path::Path;

use weir_protocol_tests::demo::Demo;
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;

use super::cells::{Cell, MAIN, Place, Upstream};
use super::encryption::Encryption;
use super::programs::Program;
use super::run::{Order, Told};
use super::scenarios::Script;
use super::servers::{self, Certificate, Sandbox};

/// Servers, and the gates before them.
pub(super) struct Site<'a> {
    sandboxes: Vec<(Encryption, Sandbox)>,
    gates: Vec<(Upstream, Gate)>,
    stages: Vec<(Script, Sandbox, Gate)>,
    certificate: &'a Certificate,
    list: &'a Path,
    logs: &'a Path,
}

impl<'a> Site<'a> {
    /// Starts all; the gates have the billing of `demo`.
    pub(super) fn start(demo: &Demo, certificate: &'a Certificate, list: &'a Path, logs: &'a Path) -> Self {
        let sandboxes: Vec<(Encryption, Sandbox)> = Encryption::ALL
            .iter()
            .map(|encryption| (*encryption, Sandbox::start(*encryption, certificate)))
            .collect();
        let gates = sandboxes.iter().map(|(encryption, sandbox)| {
            let gate = servers::gate(demo, sandbox.address, *encryption, certificate);
            (Upstream::Sqlite(*encryption), gate)
        });
        let stages = Script::ALL.iter().map(|script| {
            let stage = Sandbox::play(&script.path(), certificate);
            let gate = servers::gate(demo, stage.address, MAIN, certificate);
            (*script, stage, gate)
        });
        Self {
            gates: gates.collect(),
            stages: stages.collect(),
            sandboxes,
            certificate,
            list,
            logs,
        }
    }

    /// The servers by their encryption.
    pub(super) fn upstreams(&self) -> Vec<(Encryption, SocketAddr)> {
        let addresses = self.sandboxes.iter();
        addresses
            .map(|(encryption, sandbox)| (*encryption, sandbox.address))
            .collect()
    }

    fn target(&self, place: Place) -> Target {
        let stage = |script: Script| self.stages.iter().find(move |(of, _, _)| *of == script);
        let address = match place {
            // Directly, a client meets the server that leaves the encryption to it.
            Place::Direct => {
                let leaves_it = |(of, _): &&(Encryption, SocketAddr)| *of == Encryption::LoginOnly;
                self.upstreams()
                    .iter()
                    .find(leaves_it)
                    .map(|(_, address)| *address)
            }
            Place::Gate(upstream) => {
                let gate = self.gates.iter().find(|(of, _)| *of == upstream);
                gate.map(|(_, gate)| gate.address())
            }
            Place::Stage(script) => stage(script).map(|(_, sandbox, _)| sandbox.address),
            Place::BeforeStage(script) => stage(script).map(|(_, _, gate)| gate.address()),
        };
        Target::demo(address.expect("a place of this run"))
    }

    /// Runs one cell.
    pub(super) fn run(&self, program: &Program, cell: &Cell) -> Vec<Told> {
        let log = format!("{}-{:?}-{}", program.driver, cell.place, cell.client.name());
        let order = Order {
            program,
            to: &self.target(cell.place),
            encryption: cell.client,
            certificate: &self.certificate.certificate,
            scenarios: &cell.scenarios,
            list: self.list,
            log: &self.logs.join(log),
        };
        order.run(&mut |word| panic!("{} waits for {word}", program.driver))
    }
}
