//! The program from outside: checking and printing its configuration.

use std::process::{Command, Output};

fn billing(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-billing"));
    command.env_clear().args(args).output().unwrap()
}

#[test]
fn a_wrong_configuration_is_told_with_exit_code_2() {
    let none = billing(&["check"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("token"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("billing.toml");
    std::fs::write(&file, "token = \"t\"\nwalet_url = \"http://h:1\"\n").unwrap();
    let typo = billing(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(typo.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&typo.stderr).contains("walet_url"));
}

#[test]
fn flags_win_over_the_file_and_the_token_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("billing.toml"), dir.path().join("token"));
    std::fs::write(
        &file,
        "rest_listen = \"127.0.0.1:1\"\nwallet_url = \"http://file:1\"\n",
    )
    .unwrap();
    std::fs::write(&token, "very-secret\n").unwrap();
    let (file, token) = (file.to_str().unwrap(), token.to_str().unwrap());
    let args = [
        "print-config",
        "--config",
        file,
        "--token-file",
        token,
        "--wallet-url",
        "http://flag:2",
    ];
    let printed = billing(&args);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed.status.code(), Some(0), "{text}");
    assert!(
        text.contains("http://flag:2") && text.contains("127.0.0.1:1"),
        "{text}"
    );
    assert!(!text.contains("very-secret"), "{text}");
}

#[test]
fn servers_are_given_by_flag_variable_or_file_and_shown_without_their_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("items-url");
    std::fs::write(
        &kept,
        "mssql://weir:very-secret@sql:1433/books?encrypt=required\n",
    )
    .unwrap();
    let kept = format!("file:{}", kept.display());
    let flags = [
        "--token=t",
        "--redis-url=redis://:very-secret@redis:6379",
        "--redis-prefix=weir_two",
        "--amqp-url=amqp://weir:very-secret@rabbit:5672/weir",
        "--database-url=postgres://weir:very-secret@pg/weir",
        "--database-schema=billing_two",
        "--start-wait-ms=1500",
        &format!("--items-url={kept}"),
    ];
    let printed = billing(&[&["print-config"], &flags[..]].concat());
    let text = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed.status.code(), Some(0), "{text}");
    for shown in [
        r#"redis_url = "redis://:***@redis:6379""#,
        r#"amqp_url = "amqp://weir:***@rabbit:5672/weir""#,
        r#"database_url = "postgres://weir:***@pg/weir""#,
        r#"items_url = "mssql://weir:***@sql:1433/books?…""#,
        r#"redis_prefix = "weir_two""#,
        r#"database_schema = "billing_two""#,
        "start_wait_ms = 1500",
    ] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    assert!(!text.contains("very-secret"), "{text}");
    let checked = billing(&[&["check"], &flags[..]].concat());
    assert_eq!(
        checked.status.code(),
        Some(0),
        "no server is asked by check alone"
    );
}

#[test]
fn a_server_address_of_the_wrong_kind_is_told_by_its_key() {
    for (flag, named) in [
        ("--redis-url=http://:very-secret@h", "redis_url"),
        ("--amqp-url=redis://h", "amqp_url"),
        ("--database-url=", "database_url"),
        ("--items-url=file:/nowhere/at/all", "/nowhere/at/all"),
        ("--database-schema=Billing; DROP", "database_schema"),
        ("--start-wait-ms=3600001", "start_wait_ms"),
    ] {
        let told = billing(&["check", "--token=t", flag]);
        let text = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(2), "{flag}: {text}");
        assert!(
            text.contains(named) && !text.contains("very-secret"),
            "{flag}: {text}"
        );
    }
}

#[tokio::test]
async fn a_server_that_stays_away_is_a_failure_and_a_wrong_setting_one_of_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().display());
    let server = weir_sandbox::start(weir_sandbox::Config::default())
        .await
        .unwrap();
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let at = server.addr;
    for (url, code, named) in [
        (format!("--redis-url=redis://:very-secret@{free}"), 1, "redis_url"),
        (format!("--amqp-url=amqp://u:very-secret@{free}/v"), 1, "amqp_url"),
        (
            format!("--database-url=postgres://u:very-secret@{free}/d"),
            1,
            "database_url",
        ),
        (
            format!("--items-url=mssql://u:very-secret@{free}/d"),
            1,
            "items_url",
        ),
        (
            format!("--items-url=mssql://demo:very-secret@{at}/demo?encrypt=off"),
            2,
            "items_url",
        ),
    ] {
        for command in [["run", "--start-wait-ms=50"].as_slice(), &["check", "--connect"]] {
            let args = [command, &["--token=t", &data, &url]].concat();
            let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
            let told = tokio::task::spawn_blocking(move || {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                billing(&args)
            });
            let told = told.await.unwrap();
            let text = String::from_utf8_lossy(&told.stderr).into_owned();
            assert_eq!(told.status.code(), Some(code), "{command:?} {url}: {text}");
            assert!(
                text.contains(named) && !text.contains("very-secret"),
                "{url}: {text}"
            );
        }
    }
    server.stop().await;
}

#[test]
fn the_sql_of_the_items_is_printed_for_review() {
    let printed = billing(&["items-sql"]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed.status.code(), Some(0));
    assert!(text.contains("CREATE TABLE dbo.weir_financial_items"), "{text}");
    assert_eq!(text.matches("\nGO\n").count(), 9);
}
