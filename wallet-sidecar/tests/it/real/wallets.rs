//! The wallets over PostgreSQL: crashes, several instances at once, and the program killed under load.

use std::sync::{Arc, Mutex};

use weir_wallet::ports::event_store::EventStore;

use super::database::Database;
use crate::{crash, desk, kill, race};

/// Makes an empty store each time; the databases live as long as this.
#[derive(Default)]
struct Fresh(Mutex<Vec<Database>>);

impl Fresh {
    fn store(&self) -> Arc<dyn EventStore> {
        let database = Database::new();
        let store = database.open();
        self.0.lock().unwrap().push(database);
        store
    }
}

#[test]
fn a_command_repeated_after_a_crash_is_done_once() {
    let fresh = Fresh::default();
    crash::repeated_after_a_crash(&|| fresh.store());
}

#[test]
fn a_writer_that_another_one_overtook_decides_anew() {
    let database = Database::new();
    crash::overtaken(&|| database.open());
}

#[test]
fn desks_that_race_lose_nothing() {
    let database = Database::new();
    race::desks_that_race(&|| database.open());
}

#[test]
fn random_groups_leave_postings_that_agree() {
    let database = Database::new();
    desk::random_groups(0, &|| database.open());
}

#[test]
fn the_program_killed_under_load_keeps_what_it_answered() {
    let database = Database::new();
    let settings = [
        ("WEIR_DATABASE_URL", super::address("DATABASE_URL")),
        ("WEIR_DATABASE_SCHEMA", database.schema.clone()),
    ];
    database.runtime.block_on(kill::killed_under_load(&settings));
    assert!(database.open().head().unwrap() > 100, "it was this store");
}
