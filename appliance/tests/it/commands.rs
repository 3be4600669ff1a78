//! What the operator's commands ask for, print and exit with, against a scripted billing.

use std::{fs, path::Path, process::Output};

use serde_json::json;

use crate::{
    scripted::{Answer, Scripted},
    weir,
};

const OK: &str = "200 OK";
const TOKEN: &str = "a-token-of-the-test";

fn account() -> String {
    json!({"account": "demo", "login": "demo", "balance": "4.50", "held": "0.50", "available": "4.00", "currency": "USD",
        "status": "ACTIVE", "mode": "enforce", "tariff": "demo@1", "receivable": "0.00"})
    .to_string()
}

/// Runs a command against the script, the token in a file.
fn ask(script: &Scripted, home: &Path, args: &[&str]) -> Output {
    let file = home.join("secret");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    weir::command(home)
        .args(args)
        .args(["--server", &script.url(), "--token-file", file.to_str().unwrap()])
        .output()
        .unwrap()
}

fn answer(line: &'static str, body: impl ToString) -> Answer {
    Answer {
        line,
        status: OK,
        body: body.to_string(),
    }
}

#[test]
fn account_show_gives_the_contracts_shape_and_sends_the_token() {
    let home = tempfile::tempdir().unwrap();
    let script = Scripted::start(vec![
        answer("GET /api/accounts/demo", account()),
        answer("GET /api/accounts/demo?wait_settled=1", account()),
    ]);
    let output = ask(&script, home.path(), &["account", "show", "demo", "--json"]);
    let shown = weir::json(&output);
    for (field, value) in [
        ("account", "demo"),
        ("balance", "4.50"),
        ("held", "0.50"),
        ("available", "4.00"),
        ("currency", "USD"),
    ] {
        assert_eq!(shown[field], value);
    }
    let output = ask(
        &script,
        home.path(),
        &["account", "show", "demo", "--wait-settled"],
    );
    let text = weir::stdout(&output);
    assert!(text.contains("available  4.00  USD"), "{text}");
    let asked = script.asked();
    assert_eq!(asked[1].line, "GET /api/accounts/demo?wait_settled=1");
    assert!(asked.iter().all(|a| a.authorization == format!("Bearer {TOKEN}")));
}

#[test]
fn create_freeze_and_list_send_what_billing_expects() {
    let home = tempfile::tempdir().unwrap();
    let script = Scripted::start(vec![
        answer("POST /api/accounts", account()),
        answer("PUT /api/accounts/demo/status", account()),
        answer("GET /api/accounts", format!("[{}]", account())),
    ]);
    let create = [
        "account", "create", "demo", "--credit", "5", "--mode", "enforce", "--json",
    ];
    assert!(ask(&script, home.path(), &create).status.success());
    assert!(
        ask(&script, home.path(), &["account", "freeze", "demo"])
            .status
            .success()
    );
    assert!(
        ask(&script, home.path(), &["account", "unfreeze", "demo"])
            .status
            .success()
    );
    let listed = weir::stdout(&ask(&script, home.path(), &["account", "list"]));
    assert!(
        listed.lines().count() == 2 && listed.contains("demo@1"),
        "{listed}"
    );
    let bodies: Vec<serde_json::Value> = script.asked()[..3]
        .iter()
        .map(|a| serde_json::from_str(&a.body).unwrap())
        .collect();
    assert_eq!(
        bodies[0],
        json!({"account": "demo", "login": "demo", "currency": "USD", "initial_credit": "5.00", "tariff": "demo@1", "mode": "enforce"})
    );
    assert_eq!(bodies[1], json!({"status": "FROZEN"}));
    assert_eq!(bodies[2], json!({"status": "ACTIVE"}));
}

#[test]
fn a_top_up_that_got_no_answer_is_asked_again_under_the_same_key() {
    let home = tempfile::tempdir().unwrap();
    let line = "POST /api/accounts/demo/top-up";
    let script = Scripted::start(vec![
        Answer {
            line,
            status: "",
            body: String::new(),
        },
        answer(line, account()),
    ]);
    let output = ask(&script, home.path(), &["top-up", "demo", "1.00", "--json"]);
    assert!(output.status.success(), "{}", weir::stderr(&output));
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, asked[1].body);
    let body: serde_json::Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(body["amount"], "1.00");
}

#[test]
fn usage_reads_every_page() {
    let home = tempfile::tempdir().unwrap();
    let request = |id: &str| json!({"id": id, "rows": 10, "bytes": 2048, "cost": "0.0001", "outcome": "completed", "kind": "batch"});
    let script = Scripted::start(vec![
        answer(
            "GET /api/accounts/demo/usage?limit=1000",
            json!([request("p.1.1"), request("p.1.2")]),
        ),
        answer(
            "GET /api/accounts/demo/usage?limit=1000&after=p.1.2",
            json!([request("p.1.3")]),
        ),
        answer("GET /api/accounts/demo/usage?limit=1000&after=p.1.3", json!([])),
    ]);
    let all = weir::json(&ask(
        &script,
        home.path(),
        &["usage", "--account", "demo", "--json"],
    ));
    let ids: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["p.1.1", "p.1.2", "p.1.3"]);
    let text = weir::stdout(&ask(&script, home.path(), &["usage", "--account", "demo"]));
    assert!(text.contains("2.0 KiB") && text.lines().count() == 4, "{text}");
}

#[test]
fn pages_that_do_not_move_on_are_an_error_not_a_loop() {
    let home = tempfile::tempdir().unwrap();
    let page = json!([{"id": "a", "rows": 1}]);
    let script = Scripted::start(vec![
        answer("GET /api/accounts/demo/usage?limit=1000", &page),
        answer("GET /api/accounts/demo/usage?limit=1000&after=a", &page),
    ]);
    let output = ask(&script, home.path(), &["usage", "--account", "demo"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn reconcile_exits_1_when_the_books_differ() {
    let home = tempfile::tempdir().unwrap();
    for (ok, code) in [(true, 0), (false, 1)] {
        let difference = (!ok).then_some("account demo: charges 1.00, captures 0.99");
        let body = json!({"ok": ok, "first_difference": difference, "sums": {"usage": "1.00", "charges": "1.00", "postings": "0.00"}});
        let script = Scripted::start(vec![answer("GET /api/reconcile", body)]);
        let output = ask(&script, home.path(), &["reconcile", "--json"]);
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(weir::json(&output)["ok"], ok);
        let text = weir::stdout(&ask(&script, home.path(), &["reconcile"]));
        assert!(
            text.contains(if ok {
                "ok: every sum agrees"
            } else {
                "captures 0.99"
            }),
            "{text}"
        );
    }
}

#[test]
fn a_statement_shows_lines_and_usage() {
    let home = tempfile::tempdir().unwrap();
    let body = json!({"account": "demo", "currency": "USD", "opening": "0.00", "closing": "4.00",
        "lines": [{"at": "2026-11-21T10:00:00Z", "type": "TOP_UP", "amount": "5.00", "description": "credit", "reference": "r", "balance_after": "5.00"}],
        "usage": {"requests": 3, "rows": 100_000, "bytes": 25_600_000, "cost": "1.00"}});
    let script = Scripted::start(vec![answer("GET /api/accounts/demo/statement", body)]);
    let text = weir::stdout(&ask(&script, home.path(), &["statement", "demo"]));
    assert!(
        text.contains("3 requests, 100 000 rows, 24.4 MiB, 1.00 USD"),
        "{text}"
    );
}

#[test]
fn refusals_name_the_cause_and_exit_codes_tell_failure_from_usage() {
    let home = tempfile::tempdir().unwrap();
    let refused =
        json!({"error": {"code": "unknown_account", "message": "no account nobody", "fault": "caller"}})
            .to_string();
    let script = Scripted::start(vec![
        Answer {
            line: "GET /api/accounts/nobody",
            status: "404 Not Found",
            body: refused,
        },
        Answer {
            line: "GET /api/reconcile",
            status: "401 Unauthorized",
            body: String::new(),
        },
    ]);
    let output = ask(&script, home.path(), &["account", "show", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        weir::stderr(&output),
        "weir: no account nobody (unknown_account, fault: caller)\n"
    );
    let output = ask(&script, home.path(), &["reconcile"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(weir::stderr(&output).contains("does not accept the token"));
    assert!(!weir::stderr(&output).contains(TOKEN));
    for args in [
        &["account", "list"][..],
        &["nonsense"],
        &["top-up", "demo", "x"],
        &["account", "list", "--data-dir", "/nowhere"],
    ] {
        assert_eq!(weir::run(home.path(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_data_dir_gives_the_token_when_a_variable_gives_the_address() {
    let home = tempfile::tempdir().unwrap();
    let script = Scripted::start(vec![answer("GET /api/accounts", "[]")]);
    let dir = home.path().join("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("token"), "token-of-the-directory\n").unwrap();
    fs::write(home.path().join("other"), "another-token\n").unwrap();
    let output = weir::command(home.path())
        .args(["account", "list", "--json", "--data-dir", dir.to_str().unwrap()])
        .env("WEIR_SERVER", script.url())
        .env("WEIR_TOKEN_FILE", home.path().join("other"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", weir::stderr(&output));
    assert_eq!(script.asked()[0].authorization, "Bearer token-of-the-directory");
}

#[test]
fn a_demo_that_was_killed_is_named_as_gone() {
    let home = tempfile::tempdir().unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let record = json!({"pid": 1, "data_dir": home.path(), "listen": gone, "console": gone, "wallet": gone,
        "billing_grpc": gone, "wallet_grpc": gone, "sandbox": gone});
    fs::write(home.path().join("running.json"), record.to_string()).unwrap();
    fs::write(home.path().join("token"), "token-of-the-directory\n").unwrap();
    let output = weir::run(
        home.path(),
        &["account", "list", "--data-dir", home.path().to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        weir::stderr(&output).contains("no demo is running"),
        "{}",
        weir::stderr(&output)
    );
}

#[test]
fn selftest_shows_each_check_and_exits_with_1_when_one_fails() {
    let home = tempfile::tempdir().unwrap();
    let report = |ok: bool| {
        json!({"ok": ok, "place": "SQL Server weir@sql:1433/books", "checks": [
            {"check": "write", "ok": true, "detail": "an item is there"},
            {"check": "id order", "ok": ok, "detail": "expected a, found B"}]})
    };
    for (ok, code, verdict) in [
        (true, 0, "ok: 2 checks hold"),
        (false, 1, "NOT OK: 1 of 2 checks fail"),
    ] {
        let script = Scripted::start(vec![answer("POST /api/selftest/items", report(ok))]);
        let output = ask(&script, home.path(), &["selftest", "--items"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(
            text.contains(verdict) && text.contains("SQL Server weir@sql:1433/books"),
            "{text}"
        );
        assert_eq!(text.contains("FAILED"), !ok, "{text}");
        let output = ask(&script, home.path(), &["selftest", "--items", "--json"]);
        assert_eq!(output.status.code(), Some(code));
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown, report(ok));
    }
    let output = ask(&Scripted::start(vec![]), home.path(), &["selftest"]);
    assert_eq!(output.status.code(), Some(2), "what is tested must be named");
}
