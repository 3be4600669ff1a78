//! Which scenarios run in which cell: all in one, three in every one, the others so that every pair meets once.

use super::encryption::Encryption;
use super::scenarios::{Scenario, Script};

/// The encryption, of both legs, with which all scenarios run.
pub(super) const MAIN: Encryption = Encryption::On;

/// Scenarios that run with every encryption of the one leg and every encryption of the other.
const EVERYWHERE: [&str; 3] = ["connect", "types", "big"];

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Upstream {
    /// The sandbox's `sqlite` backend with this encryption.
    Sqlite(Encryption),
}

/// Where a program connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// At the `sqlite` backend itself, which leaves the encryption to the client.
    Direct,
    /// At the gate before this upstream.
    Gate(Upstream),
    /// At a server that plays a script.
    Stage(Script),
    /// At the gate before it.
    BeforeStage(Script),
}

impl Place {
    /// Where the same is told without Weir; none for a place that has no Weir.
    pub(super) fn beside(self) -> Option<Self> {
        match self {
            Self::Gate(_) => Some(Self::Direct),
            Self::BeforeStage(script) => Some(Self::Stage(script)),
            Self::Direct | Self::Stage(_) => None,
        }
    }
}

/// One process: where, how the client's leg is encrypted, and what it runs.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) place: Place,
    pub(super) client: Encryption,
    pub(super) scenarios: Vec<String>,
}

/// The cells of one driver. Each that runs through the gate has its equal among the direct ones.
pub(super) fn of_sqlite(scenarios: &[Scenario]) -> Vec<Cell> {
    let names: Vec<&str> = scenarios
        .iter()
        .filter(|scenario| scenario.upstreams.iter().any(|upstream| upstream == "sqlite"))
        .map(|scenario| scenario.name.as_str())
        .collect();
    let mut cells = Vec::new();
    for client in Encryption::ALL {
        let rows: Vec<Cell> = Encryption::ALL
            .iter()
            .map(|server| Cell {
                place: Place::Gate(Upstream::Sqlite(*server)),
                client,
                scenarios: chosen(&names, client, *server),
            })
            .collect();
        // Directly, whatever runs in any cell of this client's encryption.
        let any = |name: &&&str| {
            rows.iter()
                .any(|cell| cell.scenarios.iter().any(|own| own == **name))
        };
        let scenarios = names.iter().filter(any).map(|name| (*name).to_owned()).collect();
        cells.push(Cell {
            place: Place::Direct,
            client,
            scenarios,
        });
        cells.extend(rows);
    }
    cells
}

/// Every answer of every script, once in the main encryption.
pub(super) fn of_scripts(scenarios: &[Scenario]) -> Vec<Cell> {
    let scripts = Script::ALL.iter().flat_map(|script| {
        let own = scenarios
            .iter()
            .filter(|scenario| scenario.upstreams == [script.upstream()]);
        let scenarios: Vec<String> = own.map(|scenario| scenario.name.clone()).collect();
        [Place::Stage(*script), Place::BeforeStage(*script)].map(|place| Cell {
            place,
            client: MAIN,
            scenarios: scenarios.clone(),
        })
    });
    scripts.collect()
}

/// A Latin square: over the 25 cells each of the other scenarios meets every encryption of either leg once.
fn chosen(names: &[&str], client: Encryption, server: Encryption) -> Vec<String> {
    let diagonal = (client.at() + server.at()) % Encryption::ALL.len();
    let runs = |at: usize, name: &str| {
        EVERYWHERE.contains(&name)
            || (client == MAIN && server == MAIN)
            || at % Encryption::ALL.len() == diagonal
    };
    names
        .iter()
        .enumerate()
        .filter(|(at, name)| runs(*at, name))
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

#[test]
fn every_scenario_meets_every_encryption_of_either_leg() {
    let scenarios = super::scenarios::all();
    let cells = of_sqlite(&scenarios);
    for scenario in scenarios
        .iter()
        .filter(|scenario| scenario.upstreams == ["sqlite"])
    {
        for encryption in Encryption::ALL {
            let met = |wanted: &dyn Fn(&Cell) -> bool| {
                cells
                    .iter()
                    .any(|cell| wanted(cell) && cell.scenarios.contains(&scenario.name))
            };
            let behind = Place::Gate(Upstream::Sqlite(encryption));
            assert!(
                met(&|cell| cell.place == behind),
                "{} {encryption:?}",
                scenario.name
            );
            assert!(
                met(&|cell| cell.client == encryption && cell.place != Place::Direct),
                "{} {encryption:?}",
                scenario.name
            );
        }
    }
}
