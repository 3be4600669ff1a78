//! The credit ends in mid-response: the rows that were paid for, the error, and after a top-up the next statement.

use std::path::Path;

use weir_protocol_tests::demo::Demo;
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::money::DEMO_ROW;
use weir_protocol_tests::world::World;

use super::encryption::Encryption;
use super::programs::Program;
use super::run::Order;
use super::scenarios::Scenario;
use super::servers::{self, Certificate};
use super::verdict::Verdict;

/// Rows that the first credit pays for: several chunks of the table's 256 bytes and more a row.
const BOUGHT: u64 = 1000;

/// Rows that the second one pays for, as the scenario asks for them.
const RECOVERED: u64 = 7;

/// A tenant without credit, and a gate for every encryption behind it.
pub(super) struct Poor<'a> {
    demo: &'a Demo,
    gates: Vec<Gate>,
    certificate: &'a Certificate,
    list: &'a Path,
}

impl<'a> Poor<'a> {
    /// Gates with the billing of `demo` before these servers, one of each encryption.
    pub(super) fn start(
        demo: &'a Demo,
        upstreams: &[(Encryption, std::net::SocketAddr)],
        certificate: &'a Certificate,
        list: &'a Path,
    ) -> Self {
        let gates = upstreams
            .iter()
            .map(|(encryption, address)| servers::gate(demo, *address, *encryption, certificate))
            .collect();
        Self {
            demo,
            gates,
            certificate,
            list,
        }
    }

    /// Cuts one driver off and lets it recover, once for each encryption of its own leg.
    pub(super) fn cut(
        &self,
        turn: usize,
        program: &Program,
        scenario: &Scenario,
        log: &Path,
    ) -> Vec<(Encryption, Verdict)> {
        let clients = Encryption::ALL.iter();
        clients
            .map(|client| {
                // Another leg behind the gate each time, and another order for each driver.
                let gate = &self.gates[(client.at() + turn) % self.gates.len()];
                if program.login_rows > 0 {
                    self.top_up_to(program.login_rows);
                }
                let order = Order {
                    program,
                    to: &Target::demo(gate.address()),
                    encryption: *client,
                    certificate: &self.certificate.certificate,
                    scenarios: std::slice::from_ref(&scenario.name),
                    list: self.list,
                    log,
                };
                let told = order.run(&mut |word| self.pay(word));
                let verdict = told.first().map(|told| Verdict::alone(scenario, told, BOUGHT));
                (*client, verdict.expect("one answer for one scenario"))
            })
            .collect()
    }

    fn pay(&self, word: &str) {
        self.top_up_to(if word == "credit" { BOUGHT } else { RECOVERED });
    }

    /// Leaves the tenant with the price of exactly so many rows.
    fn top_up_to(&self, rows: u64) {
        let wanted = i64::try_from(rows).expect("few") * DEMO_ROW;
        let left = self.demo.settled_balance();
        assert!(left <= wanted, "{left} nano-units were left over");
        if left < wanted {
            self.demo.top_up(wanted - left);
        }
    }
}
