//! The side-by-side program at its smallest: every answer whole, every row charged, its array of the promised shape. No time is judged.

mod instructions;

use std::process::{Command, Output};

use serde_json::Value;

fn side_by_side(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_side-by-side"))
        .args(arguments)
        .output();
    output.expect("side-by-side starts")
}

#[test]
fn a_tiny_run_counts_every_row_and_judges_nothing() {
    let output = side_by_side(&["--tiny", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let figures: Value = serde_json::from_slice(&output.stdout).expect("an array");
    let figures = figures.as_array().expect("an array");
    // Three of the walker and one of the chunk beside those of the rules.
    let expected = weir_benches::figures::RULES.len() + 4;
    assert_eq!(figures.len(), expected, "{figures:#?}");
    for figure in figures {
        let mut keys: Vec<_> = figure.as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(keys, ["aim", "figure", "floor", "ok", "peer", "ratio", "weir"]);
        assert!(figure["figure"].is_string() && figure["ok"] == true, "{figure}");
        assert!(figure["floor"].is_null() && figure["aim"].is_null(), "{figure}");
        assert!(
            figure["weir"].is_number() && figure["peer"].is_number(),
            "{figure}"
        );
    }
}

#[test]
fn a_name_that_is_none_is_said() {
    let output = side_by_side(&["--tiny", "--only", "nothing-of-the-kind"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && errors.contains("stream-1/plain"),
        "{errors}"
    );
}
