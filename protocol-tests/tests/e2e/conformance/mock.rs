//! Microsoft's own mock server as an upstream: every driver directly at it and through the gate, without encryption.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mssql_mock_tds::{ColumnDefinition, ColumnValue, QueryResponse, Row, SqlDataType, TerminalError};
use serde_json::json;
use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::drivers::Target;
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::world::World;

use super::encryption::Encryption;
use super::programs::Program;
use super::run::{Order, Told};
use super::scenarios::{self, Scenario};
use super::servers::Certificate;
use super::verdict::Verdict;
use crate::mock;

/// Drivers that cannot talk to the mock itself: two do not take its login's answer, jTDS reads no TDS 7.4.
const STRANGERS: [&str; 3] = ["mssql-python", "mssql-jdbc", "jtds"];

/// Batches that the test has taught it.
const TEXT: &str = "SELECT text";
const WRONG: &str = "SELECT wrong";

/// The mock, and the gate before it.
struct Mock<'a> {
    address: SocketAddr,
    gate: Gate,
    certificate: &'a Certificate,
    scenario: Scenario,
    list: PathBuf,
    logs: &'a Path,
}

/// What the mock can answer: it knows texts of batches, and transactions.
fn scenario() -> Scenario {
    let steps = json!([
        {"do": "batch", "sql": "SELECT 1", "expect": {"rows": [1], "first": ["i:1"], "errors": []}},
        {"do": "batch", "sql": "SELECT CAST(1 AS BIGINT), 2, 3", "expect": {"rows": [1], "first": ["i:1", "i:2", "i:3"]}},
        {"do": "batch", "sql": TEXT, "expect": {"rows": [2], "first": ["s:grün"]}},
        {"do": "batch", "sql": WRONG, "expect": {"errors": [50001]}},
        {"do": "begin"},
        {"do": "batch", "sql": TEXT, "expect": {"rows": [2]}},
        {"do": "commit"},
        {"do": "batch", "sql": "SELECT 1", "expect": {"rows": [1], "errors": []}},
    ]);
    Scenario {
        name: "mock".to_owned(),
        upstreams: vec!["mock".to_owned()],
        steps: steps.as_array().cloned().unwrap_or_default(),
    }
}

impl<'a> Mock<'a> {
    /// With the answers that its scenario asks for.
    fn start(demo: &Demo, certificate: &'a Certificate, logs: &'a Path) -> Self {
        let text = vec![ColumnDefinition::new("v", SqlDataType::NVarChar)];
        let texts = ["grün", "漢字 😀"].map(|text| Row::new(vec![ColumnValue::NVarChar(text.to_owned())]));
        let wrong = TerminalError::new(50001, 16, "wrong ä");
        let address = mock::start_with(vec![
            (TEXT.to_owned(), QueryResponse::new(text, texts.into())),
            (WRONG.to_owned(), QueryResponse::error_only(wrong)),
        ]);
        let list = logs.join("mock.json");
        let scenario = scenarios::write(&list, vec![scenario()]).remove(0);
        Self {
            address,
            gate: Gate::start(demo, address),
            certificate,
            scenario,
            list,
            logs,
        }
    }

    /// Runs a driver at both, in the weakest encryption that it has: the mock has no certificate.
    fn compare(&self, program: &Program) -> (Encryption, Verdict) {
        let encryptions = [Encryption::None, Encryption::LoginOnly];
        let mut compared = encryptions.into_iter().map(|client| {
            let [direct, through] =
                [("direct", self.address), ("gate", self.gate.address())].map(|(place, at)| {
                    let log = format!("{}-mock-{place}-{}", program.driver, client.name());
                    self.run(program, at, client, &self.logs.join(log))
                });
            (client, Verdict::of(&self.scenario, &direct, &through))
        });
        let first = compared.next().expect("two encryptions");
        match first.1 {
            Verdict::Unsupported(_) => compared.next().expect("two encryptions"),
            _ => first,
        }
    }

    fn run(&self, program: &Program, at: SocketAddr, client: Encryption, log: &Path) -> Told {
        let order = Order {
            program,
            to: &Target::demo(at),
            encryption: client,
            certificate: &self.certificate.certificate,
            scenarios: std::slice::from_ref(&self.scenario.name),
            list: &self.list,
            log,
        };
        let told = order.run(&mut |word| panic!("{} waits for {word}", program.driver));
        told.into_iter().next().expect("one answer for one scenario")
    }
}

#[test]
fn every_driver_tells_of_the_mock_through_weir_what_it_tells_directly() {
    let place = Place::new();
    let demo = place.start(super::RICH);
    let certificate = Certificate::make(place.directory().parent().expect("a place"));
    let logs = tempfile::tempdir().expect("a directory for logs");
    let mock = Mock::start(&demo, &certificate, logs.path());
    let mut wrong = Vec::new();
    for program in super::chosen() {
        let (client, verdict) = mock.compare(program);
        if (verdict == Verdict::Same) == STRANGERS.contains(&program.driver) {
            wrong.push(format!("{} {}: {verdict:?}", program.driver, client.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let _ = demo.settled_balance();
    let _ = demo.reconcile();
}
