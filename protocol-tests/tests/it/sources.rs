//! How a source file looks: a first line that says what it is for, a bounded length, no loose ends.

use crate::tree;

/// Lines of the longest file.
const FILE_LINES_MAX: usize = 800;

/// Lines that nine files of ten stay under.
const FILE_LINES_P90: usize = 400;

/// Lines of the longest function, which clippy holds.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn every_file_says_what_it_is_for() {
    for source in tree::sources() {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! ") && first.len() > 20,
            "{}: the first line is {first:?}",
            source.path
        );
        assert!(!first.contains("Placeholder"), "{}: {first}", source.path);
    }
}

#[test]
fn files_are_short() {
    let mut lengths: Vec<(usize, String)> = tree::sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .collect();
    lengths.sort();
    let (longest, path) = lengths.last().expect("there are files");
    println!("longest: {path}, {longest} lines");
    assert!(*longest <= FILE_LINES_MAX, "{path} has {longest} lines");
    let (tenth, path) = &lengths[lengths.len() * 9 / 10];
    assert!(
        *tenth <= FILE_LINES_P90,
        "one file of ten is longer than {path} with {tenth} lines"
    );
}

#[test]
fn functions_are_held_short_by_clippy() {
    let config = std::fs::read_to_string(tree::root().join("clippy.toml")).expect("clippy.toml");
    assert!(config.contains(&format!("too-many-lines-threshold = {FUNCTION_LINES_MAX}")));
    let root = std::fs::read_to_string(tree::root().join("Cargo.toml")).expect("Cargo.toml");
    for lint in [
        "too_many_lines",
        "unwrap_used",
        "todo",
        "unimplemented",
        "dbg_macro",
        "disallowed_methods",
    ] {
        assert!(
            root.contains(&format!("{lint} = \"deny\"")),
            "{lint} is not denied"
        );
    }
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    for member in tree::members() {
        let manifest = std::fs::read_to_string(member.directory.join("Cargo.toml")).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            member.name
        );
    }
}

#[test]
fn no_lint_is_let_off_where_it_matters() {
    for source in tree::sources() {
        // The functions beside the tests of an integration test are not test code to clippy.
        let in_tests = source.path.contains("/tests/");
        for (index, line) in source.text.lines().enumerate() {
            let let_off = line.contains("[allow(") || line.contains("[expect(");
            let named = [
                "too_many_lines",
                "clippy::all",
                "clippy::todo",
                "dead_code",
                "unwrap_used",
            ]
            .into_iter()
            .find(|lint| line.contains(lint) && !(in_tests && *lint == "unwrap_used"));
            if let (true, Some(lint)) = (let_off, named) {
                panic!("{}:{}: lets off {lint}", source.path, index + 1);
            }
        }
    }
}

#[test]
fn no_test_is_left_out_and_nothing_is_left_to_do() {
    let loose = [
        concat!("#[ign", "ore"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    for source in tree::sources() {
        for word in loose {
            assert!(!source.text.contains(word), "{} has {word}", source.path);
        }
    }
}
