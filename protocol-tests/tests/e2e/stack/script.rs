//! `scripts/stack` as a person uses it.

use std::time::Instant;

use weir_protocol_tests::process;
use weir_protocol_tests::stack::{DOWN_WITHIN, PROCESSES, Script, Stack, UP_WITHIN, key_values, said};
use weir_protocol_tests::world::World;

/// What `up` promises to print.
const KEYS: [&str; 7] = [
    "WEIR_TDS",
    "WEIR_SERVER",
    "WEIR_TOKEN_FILE",
    "REDIS_URL",
    "AMQP_URL",
    "DATABASE_URL",
    "MONGODB_URL",
];

#[test]
fn up_prints_the_addresses_leaves_no_pipe_open_and_is_up_only_once_and_down_leaves_nothing() {
    let stack = Stack::up();
    for key in KEYS {
        assert!(!stack.line(key).is_empty(), "{key}");
    }
    let before: Vec<u32> = PROCESSES.iter().map(|name| stack.pid(name)).collect();
    let began = Instant::now();
    let again = stack.script().run(&["up"], UP_WITHIN);
    println!("up again: {:?}", began.elapsed());
    if again.status.success() {
        let lines = key_values(&again);
        for key in KEYS {
            assert_eq!(lines.get(key).map(String::as_str), Some(stack.line(key)), "{key}");
        }
    } else {
        assert!(said(&again).contains("up"), "{}", said(&again));
    }
    let after: Vec<u32> = PROCESSES.iter().map(|name| stack.pid(name)).collect();
    assert_eq!(before, after, "up again is no second start");
    let account = stack.json(&["account", "show", "demo"]);
    assert_eq!(account["account"], "demo");
    let items = stack.json(&["selftest", "--items"]);
    assert_eq!(items["ok"], true, "{items}");

    let directory = stack.script().directory();
    let mark = format!("WEIR_STACK={}", directory.display());
    assert!(process::with_variable(&mark).len() >= PROCESSES.len() - 1);
    let down = stack.script().run(&["down"], DOWN_WITHIN);
    assert!(down.status.success(), "{}", said(&down));
    assert!(!directory.exists(), "the directory is left");
    let left: Vec<u32> = before
        .into_iter()
        .filter(|pid| process::is_alive(*pid))
        .chain(process::with_variable(&mark))
        .collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
}

#[test]
fn down_where_nothing_is_up_says_so_and_touches_nothing() {
    let script = Script::new(&[]);
    let down = script.run(&["down"], DOWN_WITHIN);
    assert!(said(&down).contains("no stack"), "{}", said(&down));
    std::fs::create_dir(script.directory()).expect("a directory");
    std::fs::write(script.directory().join("mine"), "kept").expect("a file");
    let _ = script.run(&["down"], DOWN_WITHIN);
    let up = script.run(&["up"], UP_WITHIN);
    assert!(!up.status.success(), "{}", said(&up));
    assert!(script.directory().join("mine").exists());
}
