//! The documents that a newcomer reads first name things that exist.

use crate::tree;

const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

#[test]
fn links_of_the_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let text =
            std::fs::read_to_string(tree::root().join(document)).unwrap_or_else(|_| panic!("no {document}"));
        for target in link_targets(&text) {
            if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let path = target.split('#').next().unwrap_or_default();
            assert!(
                tree::root().join(path).exists(),
                "{document} links to {path}, which is not there"
            );
        }
    }
}

#[test]
fn paths_named_in_the_architecture_exist() {
    let text = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/')
            && !word.contains([' ', ':', '{', '*', '<', '$', '…'])
            && !word.starts_with(['/', '-']);
        let first = word.split('/').next().unwrap_or_default();
        if is_path && tree::root().join(first).is_dir() {
            named += 1;
            assert!(
                tree::root().join(word).exists(),
                "ARCHITECTURE.md names {word}, which is not there"
            );
        }
    }
    assert!(named > 10, "ARCHITECTURE.md names only {named} paths");
}

#[test]
fn every_package_is_in_the_architecture() {
    let text = std::fs::read_to_string(tree::root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for member in tree::members() {
        let directory = member
            .directory
            .strip_prefix(tree::root())
            .expect("below the root")
            .display()
            .to_string();
        assert!(
            text.contains(&format!("{directory}/")),
            "ARCHITECTURE.md does not name {directory}/"
        );
    }
}

fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The list of hostile input is the list of its tests: `module::name` in backticks, each once.
#[test]
fn hostile_input_is_listed_as_it_is_tested() {
    let text = std::fs::read_to_string(tree::root().join("docs/hostile-input.md")).expect("the list");
    let mut listed: Vec<String> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains("::"))
        .map(ToOwned::to_owned)
        .collect();
    let mut tested = Vec::new();
    for source in tree::sources() {
        let Some(module) = source
            .path
            .strip_prefix("protocol-tests/tests/e2e/hostile/")
            .and_then(|file| file.strip_suffix(".rs"))
        else {
            continue;
        };
        let behind_marks = source.text.split("#[test]").skip(1);
        let names = behind_marks.filter_map(|text| text.split_once("fn ")?.1.split('(').next());
        tested.extend(names.map(|name| format!("{module}::{name}")));
    }
    listed.sort();
    tested.sort();
    assert!(tested.len() >= 20, "only {} classes", tested.len());
    assert_eq!(listed, tested);
}
