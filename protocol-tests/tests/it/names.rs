//! Names that say nothing are not used for files, directories or modules.

use crate::tree;

const SAY_NOTHING: [&str; 12] = [
    "utils", "util", "common", "manager", "helper", "helpers", "handler", "handlers", "misc", "shared",
    "core", "stuff",
];

#[test]
fn files_have_names_that_say_something() {
    for source in tree::sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            assert!(
                !SAY_NOTHING.contains(&part),
                "{}: {part} says nothing",
                source.path
            );
        }
    }
}

#[test]
fn types_have_names_that_say_something() {
    for source in tree::sources() {
        for (index, line) in source.text.lines().enumerate() {
            let mut words = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .skip_while(|word| !declares(word));
            let Some(name) = words.nth(1) else { continue };
            let vague = ["Manager", "Helper", "Util", "Utils"]
                .iter()
                .any(|end| name.ends_with(end));
            assert!(
                !vague || line.trim_start().starts_with("//"),
                "{}:{}: {name}",
                source.path,
                index + 1
            );
        }
    }
}

fn declares(word: &str) -> bool {
    ["struct", "enum", "trait", "mod"].contains(&word)
}
