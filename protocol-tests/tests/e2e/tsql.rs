//! The T-SQL of the financial items before a parser that is not ours (sqlglot, dialect tsql): no SQL Server runs here, and our own
//! sandbox would take what its own reader takes.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_protocol_tests::demo::binary;
use weir_protocol_tests::drivers::{directory, interpreter};

/// What `weir-billing items-sql` ends a batch with.
const END: &str = "\nGO\n";

/// What the parser says of each batch: its name, and what is wrong with it.
fn parsed(text: &str) -> Vec<(String, Option<String>)> {
    let mut child = Command::new(interpreter())
        .arg(directory().join("python/parse_tsql.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut input = child.stdin.take().expect("piped");
    // Below a pipe's buffer, and Python reads it whole before it writes.
    input.write_all(text.as_bytes()).expect("Python reads");
    drop(input);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "parse_tsql.py: {}", output.status);
    let verdict = |line: &str| {
        let said: Value = serde_json::from_str(line).expect("a JSON line");
        let name = said["name"].as_str().unwrap_or_default().to_owned();
        let understood = said["statements"].as_array().is_some_and(|s| !s.is_empty());
        let error = said["error"].as_str().map(str::to_owned);
        let error = error.or_else(|| (!understood).then(|| "no statement".to_owned()));
        (name, error)
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(verdict)
        .collect()
}

fn sent() -> String {
    let output = Command::new(binary("weir-billing"))
        .arg("items-sql")
        .output()
        .expect("weir-billing runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn all_that_is_sent_to_sql_server_is_t_sql() {
    let text = sent();
    let verdicts = parsed(&text);
    assert_eq!(verdicts.len(), text.matches(END).count());
    for name in ["Session", "Create", "Insert", "Read", "Page"] {
        assert!(
            verdicts.iter().any(|(found, _)| found == name),
            "{name} is missing: {verdicts:?}"
        );
    }
    for (name, error) in verdicts {
        assert_eq!(error, None, "{name}");
    }
}

#[test]
fn the_parser_refuses_what_is_broken() {
    let broken = [
        "SELECT FROM WHERE id = 1",
        "INSERT INTO t (a, b SELECT 1, 2",
        "SELECT id FROM t WITH (UPDLOCK, HOLDLOCK WHERE id = 1",
        "IF OBJECT_ID(N't') IS NULL CREATE TABEL t (id int)",
        "ALTER DATABASE x SET READ_ONLY",
        "",
    ];
    let text: String = broken
        .iter()
        .map(|text| format!("-- broken\n{text}{END}"))
        .collect();
    let verdicts = parsed(&text);
    assert_eq!(verdicts.len(), broken.len());
    for ((_, error), text) in verdicts.iter().zip(broken) {
        assert!(error.is_some(), "{text} is taken for T-SQL");
    }
    // And of our own texts: each without its last word or without its last parenthesis.
    for batch in sent().split(END).filter(|batch| !batch.trim().is_empty()) {
        let batch = batch.trim_end_matches([';', '\n']);
        let (without_word, _) = batch.rsplit_once(char::is_whitespace).expect("words");
        let without_parenthesis: String = match batch.rsplit_once(')') {
            Some((before, after)) => format!("{before}{after}"),
            None => without_word.to_owned(),
        };
        let verdicts = parsed(&format!("{without_word}{END}{without_parenthesis}{END}"));
        assert!(
            verdicts.iter().any(|(_, error)| error.is_some()),
            "taken for T-SQL without its end:\n{batch}"
        );
    }
}
