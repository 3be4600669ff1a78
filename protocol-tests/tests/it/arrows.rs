//! Which package may use which, and what a service's domain may not know. The picture is in ARCHITECTURE.md.

use std::collections::BTreeSet;

use crate::tree::{self, Source};

/// Every package of the workspace and all that it may use of ours. A package that is missing here fails the test.
const ARROWS: [(&str, &[&str]); 11] = [
    ("weir-tds", &[]),
    ("weir-contracts", &[]),
    ("weir-embedded", &[]),
    ("weir-servers", &[]),
    (
        "weir-proxy",
        &["weir-tds", "weir-contracts", "weir-embedded", "weir-servers"],
    ),
    (
        "weir-billing",
        &["weir-contracts", "weir-embedded", "weir-servers"],
    ),
    (
        "weir-wallet",
        &["weir-contracts", "weir-embedded", "weir-servers"],
    ),
    ("weir-sandbox", &["weir-tds"]),
    (
        "weir",
        &[
            "weir-contracts",
            "weir-proxy",
            "weir-billing",
            "weir-wallet",
            "weir-sandbox",
            "weir-tds",
        ],
    ),
    ("weir-protocol-tests", EVERYTHING),
    ("weir-benches", EVERYTHING),
];

const EVERYTHING: &[&str] = &[
    "weir-tds",
    "weir-contracts",
    "weir-embedded",
    "weir-servers",
    "weir-proxy",
    "weir-billing",
    "weir-wallet",
    "weir-sandbox",
];

/// Crates that are pure throughout, beside the domains of the services.
const PURE: [&str; 5] = [
    "tds/src/",
    "proxy/src/gate/",
    "proxy/src/session/",
    "wallet-sidecar/src/wallet/",
    "wallet-sidecar/src/ledger/",
];

/// What pure code does not know: a runtime, a clock, files, sockets, stores, other processes.
const IMPURE: [&str; 21] = [
    "tokio",
    "rusqlite",
    "tonic",
    "axum",
    "hyper",
    "ureq",
    "socket2",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "weir_embedded",
    "weir_servers",
    "tokio_postgres",
    "lapin",
    "redis",
    "mongodb",
    "tiberius",
    "fastrand",
];

#[test]
fn packages_use_only_what_their_arrows_allow() {
    let members = tree::members();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(
        known, there,
        "a new package needs its arrows in this test and in ARCHITECTURE.md"
    );
    for member in &members {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == member.name)
            .expect("known");
        for used in &member.uses {
            assert!(
                allowed.contains(&used.as_str()),
                "{} may not use {used}",
                member.name
            );
        }
    }
}

#[test]
fn services_name_no_other_service() {
    let services = [
        ("proxy/", "weir_proxy"),
        ("billing-sidecar/", "weir_billing"),
        ("wallet-sidecar/", "weir_wallet"),
    ];
    for source in tree::sources() {
        for (directory, own) in services {
            if !source.path.starts_with(directory) {
                continue;
            }
            for (_, other) in services {
                let named = code_lines(&source).any(|(_, line)| line.contains(&format!("{other}::")));
                assert!(other == own || !named, "{} names {other}", source.path);
            }
        }
    }
}

#[test]
fn domains_know_no_runtime_clock_or_store() {
    let mut wrong = Vec::new();
    let mut domains = 0;
    for source in tree::sources() {
        let pure = PURE.iter().any(|directory| source.path.starts_with(directory));
        let domain = source.path.contains("/src/domain/") || source.path.ends_with("/src/domain.rs");
        if !pure && !domain {
            continue;
        }
        domains += 1;
        for (number, line) in code_lines(&source) {
            for word in IMPURE {
                if mentions(line, word) {
                    wrong.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "pure code knows more than it should:\n{}",
        wrong.join("\n")
    );
    assert!(
        domains > 10,
        "only {domains} files of domains found: did they move?"
    );
}

#[test]
fn the_check_finds_what_it_looks_for() {
    for line in [
        "use tokio::net::TcpStream;",
        "    let now = std::time::SystemTime::now();",
        "use std::fs;",
    ] {
        assert!(IMPURE.iter().any(|word| mentions(line, word)), "{line}");
    }
    for line in ["let tokiota = 1;", "use std::fsx;", "let instant = now;"] {
        assert!(!IMPURE.iter().any(|word| mentions(line, word)), "{line}");
    }
}

/// The lines of a source that are code of the product: comments and what follows `#[cfg(test)]` are left out.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source
        .text
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Whether `word` stands in the line as a path of its own, not as a part of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_name) && !line[at + word.len()..].starts_with(part_of_name)
    })
}
