//! What Weir is built from: how much, from where, under which licences, and nothing that needs more than a Rust
//! toolchain and a C compiler.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree;

/// Packages that the `weir` binary is built from, build dependencies included. Raise it only knowingly.
const WEIR_PACKAGES_MAX: usize = 225;

/// Names that the `weir` binary is built from in more than one version. Each costs build time and size.
const WEIR_DUPLICATES_MAX: usize = 8;

/// Licences whose terms an Apache-2.0 binary can meet.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// What would need more than a Rust toolchain and a C compiler, or bring a second TLS library.
const TOO_MUCH: [&str; 7] = [
    "openssl-sys",
    "native-tls",
    "aws-lc-sys",
    "cmake",
    "protobuf-src",
    "pkg-config-native",
    "bindgen",
];

#[test]
fn weir_stays_small() {
    let packages = packages_of_weir();
    println!(
        "weir is built from {} packages of {WEIR_PACKAGES_MAX}",
        packages.len()
    );
    assert!(
        packages.len() <= WEIR_PACKAGES_MAX,
        "{} packages: {packages:#?}",
        packages.len()
    );
}

#[test]
fn weir_needs_only_rust_and_a_c_compiler() {
    for (name, version) in packages_of_weir() {
        assert!(
            !TOO_MUCH.contains(&name.as_str()),
            "weir is built from {name} {version}"
        );
    }
}

#[test]
fn duplicate_versions_are_few_and_listed() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version) in packages_of_weir() {
        versions.entry(name).or_default().push(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    println!("in several versions: {versions:?}");
    assert!(
        versions.len() <= WEIR_DUPLICATES_MAX,
        "in several versions: {versions:#?}"
    );
}

#[test]
fn every_package_comes_from_crates_io() {
    for package in tree::array(&tree::metadata(), "packages") {
        let source = package["source"].as_str().unwrap_or("of the workspace");
        let allowed = [
            "of the workspace",
            "registry+https://github.com/rust-lang/crates.io-index",
        ];
        assert!(
            allowed.contains(&source),
            "{} comes from {source}",
            package["name"]
        );
    }
}

#[test]
fn every_licence_is_allowed() {
    for package in tree::array(&tree::metadata(), "packages") {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(allowed(licence), "{} is under {licence}", package["name"]);
    }
}

#[test]
fn licence_expressions_are_read_right() {
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-2.0) AND ISC",
        "Apache-2.0 / MIT",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "none",
        "(GPL-2.0 OR AGPL-3.0) AND MIT",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
}

/// Whether an SPDX expression can be met: AND binds its parts, OR (once also written `/`) leaves a choice.
fn allowed(expression: &str) -> bool {
    let normal = expression.replace('/', " OR ");
    split_outside_brackets(&normal, " AND ").into_iter().all(|part| {
        let part = part.trim();
        match part.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => allowed(inner),
            None => part
                .split(" OR ")
                .any(|licence| LICENCES.contains(&licence.trim())),
        }
    })
}

fn split_outside_brackets<'a>(text: &'a str, by: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(by) {
        if text[start..at].matches('(').count() == text[start..at].matches(')').count() {
            parts.push(&text[start..at]);
            start = at + by.len();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Name and version of all that the `weir` binary is built from, itself and our own packages included.
fn packages_of_weir() -> BTreeSet<(String, String)> {
    let tree = tree::cargo(&[
        "tree",
        "-p",
        "weir",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--no-dedupe",
        "-f",
        "{p}",
    ]);
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((
                words.next()?.to_owned(),
                words.next()?.trim_start_matches('v').to_owned(),
            ))
        })
        .collect()
}
