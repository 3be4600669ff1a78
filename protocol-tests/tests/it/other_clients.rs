//! The short run of the fuzz target `peers`: tiberius and mssql-tds see the rows that Weir counts.

#[path = "../../fuzz/peers/mod.rs"]
mod peers;

use crate::fuzz;

/// Of so many of the other targets' mutations one is run here: a login for each client costs more than they do.
const MUTATIONS_PART: u32 = 4;
/// Responses offered that each client accepts at least, in per cent: else this shows nothing.
const ACCEPTED_PERCENT_MIN: u64 = 20;

#[test]
fn other_clients_see_the_rows_that_are_counted() {
    let mutations = fuzz::mutations() / MUTATIONS_PART;
    fuzz::run_all(&peers::TARGET, mutations, peers::TARGET.run);
    let (offered, accepted) = peers::accepted();
    println!("of {offered} responses accepted: {accepted:?}");
    for (name, accepted) in accepted {
        assert!(
            accepted * 100 >= offered * ACCEPTED_PERCENT_MIN,
            "{name} accepts {accepted} of {offered}"
        );
    }
}
