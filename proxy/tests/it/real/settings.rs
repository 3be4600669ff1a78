//! What the proxy says of a Redis that is set up wrong, is away, or does not let it in.

use std::{
    process::{Command, Output},
    time::Duration,
};

use weir_proxy::adapters::redis_outbox::ready;
use weir_servers::{
    ServerUrl,
    redis::{Log, RedisError},
    redis_process::RedisProcess,
};

const NO_WAIT: Duration = Duration::ZERO;

async fn verdict(url: &ServerUrl) -> Result<Vec<String>, RedisError> {
    ready(url, "weir", NO_WAIT).await.map(|(_, warnings)| warnings)
}

#[tokio::test]
async fn a_wrong_setting_is_named_until_it_is_mended() {
    let redis = RedisProcess::start(&[
        "--appendonly",
        "no",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    for (setting, remedy) in [
        (
            "maxmemory-policy",
            ["CONFIG", "SET", "maxmemory-policy", "noeviction"],
        ),
        ("appendonly", ["CONFIG", "SET", "appendonly", "yes"]),
    ] {
        let error = verdict(&redis.url()).await.unwrap_err();
        assert!(
            matches!(error, RedisError::Setting { setting: s, .. } if s == setting),
            "{error}"
        );
        assert!(error.to_string().contains(&remedy.join(" ")), "{error}");
        assert_eq!(redis.command(&remedy), "OK");
    }
    assert_eq!(verdict(&redis.url()).await, Ok(Vec::new()));
    let port = redis.addr.port().to_string();
    let replica = RedisProcess::start(&["--replicaof", "127.0.0.1", &port]);
    let error = verdict(&replica.url()).await.unwrap_err();
    assert!(error.to_string().contains("role is slave"), "{error}");
}

#[tokio::test]
async fn what_a_user_may_not_ask_is_a_warning_and_a_wrong_password_an_error() {
    let redis = RedisProcess::start(&[]);
    let acl = [
        "ACL",
        "SETUSER",
        "weir",
        "on",
        ">s3cret-w0rd",
        "~*",
        "+@all",
        "-info",
        "-config",
    ];
    assert_eq!(redis.command(&acl), "OK");
    let url = |password: &str| ServerUrl::from(format!("redis://weir:{password}@{}", redis.addr));
    let warnings = verdict(&url("s3cret-w0rd")).await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("may not call INFO"),
        "{warnings:?}"
    );
    let log = Log::connect(&url("s3cret-w0rd"), "weir").unwrap();
    assert_eq!(log.last("usage:x").await, Ok(None));
    let error = verdict(&url("n0t-this-one")).await.unwrap_err();
    assert!(matches!(error, RedisError::Refused { .. }), "{error}");
    assert!(!format!("{error} {error:?} {log:?}").contains("n0t-this-one"));
    assert!(!format!("{error} {error:?} {log:?}").contains("s3cret-w0rd"));
}

/// Another program's key under our name is not touched and is said so.
#[tokio::test]
async fn a_key_of_another_kind_is_refused() {
    let redis = RedisProcess::start(&[]);
    assert_eq!(redis.command(&["SET", "weir:usage:x", "1"]), "OK");
    let log = Log::connect(&redis.url(), "weir").unwrap();
    let error = log.last("usage:x").await.unwrap_err();
    assert!(
        matches!(&error, RedisError::Refused { cause, .. } if cause.contains("prefix")),
        "{error}"
    );
    assert_eq!(redis.command(&["GET", "weir:usage:x"]), "1");
}

fn proxy(arguments: &[&str], url: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
        .args(arguments)
        .args(["--upstream", "127.0.0.1:1", "--client-encryption", "none"])
        .env("WEIR_REDIS_URL", url)
        .output()
        .unwrap()
}

#[test]
fn the_program_checks_the_server_when_told_to_connect() {
    let mut redis = RedisProcess::start(&[]);
    let url = redis.url();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let right = proxy(&["check", "--connect"], url.reveal());
    assert_eq!(
        (right.status.code(), text(&right.stdout)),
        (Some(0), "redis_url: ok\n".to_owned())
    );
    assert_eq!(redis.command(&["CONFIG", "SET", "appendonly", "no"]), "OK");
    let wrong = proxy(&["check", "--connect"], url.reveal());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong.stderr).contains("CONFIG SET appendonly yes"),
        "{}",
        text(&wrong.stderr)
    );
    redis.kill();
    assert_eq!(
        proxy(&["check"], url.reveal()).status.code(),
        Some(0),
        "without connecting"
    );
    let away = proxy(&["check", "--connect"], url.reveal());
    assert_eq!(away.status.code(), Some(1));
    assert!(
        text(&away.stderr).contains("redis_url: "),
        "{}",
        text(&away.stderr)
    );
    let shown = proxy(&["print-config"], "redis://weir:s3cret-w0rd@127.0.0.1:1/0");
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("redis://weir:***@127.0.0.1:1/0") && !shown.contains("s3cret-w0rd"),
        "{shown}"
    );
}

#[test]
fn the_program_waits_for_a_server_at_the_start_and_then_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let run = [
        "run",
        "--data-dir",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--start-wait-ms",
        "300",
        "--upstream-trust",
    ];
    let away = proxy(&run, "redis://weir:s3cret-w0rd@127.0.0.1:1/0");
    let said = String::from_utf8_lossy(&away.stderr);
    assert_eq!(away.status.code(), Some(1), "{said}");
    assert!(
        said.contains("redis_url: Redis at redis://weir:***@127.0.0.1:1/0"),
        "{said}"
    );
}

#[test]
fn tls_is_taken_by_the_scheme_and_the_certificate_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.unwrap().port().to_string();
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let _redis = RedisProcess::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ]);
    let check = |roots: &str| {
        Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args([
                "check",
                "--connect",
                "--upstream",
                "127.0.0.1:1",
                "--client-encryption",
                "none",
            ])
            .env("WEIR_REDIS_URL", format!("rediss://127.0.0.1:{port}"))
            .env("SSL_CERT_FILE", roots)
            .output()
            .unwrap()
    };
    let trusted = check(&cert);
    assert_eq!(
        trusted.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&trusted.stderr)
    );
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let others = dir.path().join("other.pem");
    std::fs::write(&others, other.cert.pem()).unwrap();
    let foreign = check(&others.display().to_string());
    let said = String::from_utf8_lossy(&foreign.stderr);
    assert_eq!(foreign.status.code(), Some(1), "{said}");
    assert!(said.contains("certificate"), "{said}");
}
