//! The ready-made scripts: every rule's answer holds what its author says, counted token by token.

use std::path::{Path, PathBuf};

use weir_sandbox::scenario::{Scenario, Step};
use weir_sandbox::{Backend, Config, Running};
use weir_tds::login7::Feature;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::prelogin::Prelogin;
use weir_tds::token::TokenKind;
use weir_tds::version::TdsVersion;

use crate::client::{Client, Wish};
use crate::reading::{Event, Response};

fn protocol_tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-tests")
}

fn script(name: &str) -> Scenario {
    Scenario::load(&protocol_tests().join("scenarios").join(name)).unwrap()
}

async fn play(scenario: Scenario) -> Running {
    let config = Config {
        backend: Backend::Scenario(scenario),
        ..Config::default()
    };
    weir_sandbox::start(config).await.unwrap()
}

fn wish(scenario: &Scenario) -> Wish {
    Wish {
        version: match scenario.login.version.as_deref() {
            Some("7.0") => TdsVersion::V7_0,
            Some("7.1") => TdsVersion::V7_1,
            Some("7.2") => TdsVersion::V7_2,
            _ => TdsVersion::V7_4,
        },
        features: scenario
            .login
            .feature_acks
            .iter()
            .map(|ack| Feature {
                id: ack.id,
                data: vec![1],
            })
            .collect(),
        ..Wish::default()
    }
}

/// What the walker finds: rows, result sets, errors.
fn found(response: &Response) -> (u64, u64, u64) {
    let count = |f: fn(&Event) -> bool| response.events.iter().filter(|e| f(e)).count() as u64;
    (
        response.rows,
        count(|e| matches!(e, Event::Columns(n) if *n != 0xFFFF)),
        response.errors().len() as u64,
    )
}

/// Plays every rule with a text; returns how many.
async fn compare(name: &str, scenario: Scenario) -> usize {
    let (wish, rules) = (wish(&scenario), scenario.rules.clone());
    let acks = |id: u8| scenario.login.feature_acks.iter().find(|ack| ack.id == id);
    let (encrypted, classified) = (acks(4).is_some(), acks(9).map(|ack| ack.data.starts_with("02")));
    let running = play(scenario.clone()).await;
    let mut client = Client::login(running.addr, wish).await;
    client.walker.column_encryption = encrypted;
    client.walker.data_classification = classified.map_or(0, |second| 1 + u8::from(second));
    let mut played = 0;
    for rule in &rules {
        let (Some(text), Some(known)) = (&rule.when.text_is, rule.known) else {
            continue;
        };
        let response = client.batch(text).await;
        assert_eq!(
            found(&response),
            (known.rows, known.result_sets, known.errors),
            "{name}: {text}: {:?}",
            response.events
        );
        played += 1;
    }
    running.stop().await;
    played
}

#[tokio::test]
async fn each_script_answers_what_its_author_knows() {
    for (name, least) in [
        ("types.json", 125),
        ("tokens.json", 25),
        ("encrypted.json", 2),
        ("classified-1.json", 1),
        ("classified-2.json", 1),
        ("tds70.json", 4),
        ("tds71.json", 5),
        ("tds72.json", 1),
        ("captured.toml", 3),
    ] {
        let played = compare(name, script(name)).await;
        assert!(played >= least, "{name}: only {played} rules");
    }
}

#[tokio::test]
async fn every_whole_vector_is_played_under_its_name() {
    for (version, least) in [("7.4", 60), ("7.2", 1)] {
        let mut scenario = Scenario::from_vectors(&protocol_tests().join("vectors"), version).unwrap();
        // Their layout depends on what other logins acknowledged, or is one that no reader of ours takes.
        scenario.rules.retain(|rule| {
            let name = rule.when.text_is.as_deref().unwrap_or_default();
            !name.contains("cektable")
                && !name.contains("dataclassification")
                && !name.contains("legacy-char")
                && !name.contains("legacy-varchar")
        });
        // Some samples are tokens from the middle of a response: the DONE at their end promises more.
        for rule in &mut scenario.rules {
            rule.steps.push(Step::done(0, 0xFD, 0));
        }
        let running = play(scenario.clone()).await;
        let mut client = Client::login(running.addr, wish(&scenario)).await;
        client.lenient = true;
        let mut played = 0;
        for rule in &scenario.rules {
            let (Some(text), Some(known)) = (&rule.when.text_is, rule.known) else {
                continue;
            };
            let response = client.batch(text).await;
            assert_eq!(
                found(&response),
                (known.rows, known.result_sets, known.errors),
                "{text}: {:?}",
                response.events
            );
            played += 1;
        }
        assert!(played >= least, "{version}: only {played} vectors");
        running.stop().await;
    }
}

#[tokio::test]
async fn every_script_of_the_directory_can_be_read() {
    let mut read = 0;
    for entry in std::fs::read_dir(protocol_tests().join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json" || e == "toml") {
            Scenario::load(&path).unwrap_or_else(|e| panic!("{e}"));
            read += 1;
        }
    }
    assert!(read >= 12, "{read} scripts");
    let missing = protocol_tests().join("scenarios/none.toml");
    assert!(Scenario::load(&missing).is_err());
}

#[tokio::test]
async fn logins_of_several_turns() {
    for (name, kind, turns, token) in [
        ("login-sspi.toml", PacketType::Sspi, 2, TokenKind::Sspi),
        (
            "login-fedauth.toml",
            PacketType::FedAuthToken,
            1,
            TokenKind::FedAuthInfo,
        ),
    ] {
        let running = play(script(name)).await;
        let mut client = Client::begin(running.addr, Wish::default()).await;
        for _ in 0..turns {
            let (_, body) = client.packet().await.unwrap();
            assert_eq!(TokenKind::from_byte(body[0]), Some(token), "{name}");
            client.send(kind, PacketStatus::NORMAL, &[1, 2, 3]).await;
        }
        let login = client.response().await;
        assert_eq!(login.version(), Some(TdsVersion::V7_4), "{name}");
        assert_eq!(client.batch("who").await.rows, 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn federated_authentication_is_told_in_prelogin() {
    let running = play(script("login-fedauth.toml")).await;
    let asked = Prelogin {
        version: [11, 0, 0, 0, 0, 0],
        fed_auth_required: Some(1),
        ..Prelogin::default()
    };
    let answer = Client::prelogin(running.addr, &asked).await;
    assert_eq!(answer.fed_auth_required, Some(1));
    running.stop().await;
}

#[tokio::test]
async fn logins_that_lead_away_tell_where_to() {
    for (name, change) in [("login-routing.toml", 20), ("login-enhanced-routing.toml", 21)] {
        let running = play(script(name)).await;
        let client = Client::connect(running.addr).await;
        assert!(client.login.envs().contains(&change), "{name}");
        assert!(client.login.envs().contains(&13), "{name}");
        running.stop().await;
    }
}

#[tokio::test]
async fn broken_answers_break_off_where_the_script_says() {
    for (text, rows) in [
        ("closed in mid-row", 3),
        ("closed between rows", 3),
        ("closed in mid-value", 0),
        ("fatal error", 1),
    ] {
        let running = play(script("broken.json")).await;
        let mut client = Client::connect(running.addr).await;
        client.send_batch(text).await;
        let reading = client.until_close().await;
        assert!(
            reading.walker.rows() >= rows,
            "{text}: {} rows",
            reading.walker.rows()
        );
        let ended = reading.walker.end_message().is_ok() && !reading.response.dones().is_empty();
        assert!(!ended, "{text}: it looks whole");
        running.stop().await;
    }
}
