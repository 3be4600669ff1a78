//! The specification's sections: what the code cites, a vector or a test must name.

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol_tests::vectors;

use crate::tree;

/// Where rules of the wire are implemented.
const CITING: [&str; 4] = ["tds/src/", "proxy/src/", "sandbox/src/", "appliance/src/"];

/// The specifications, as citations name them.
const DOCUMENTS: [&str; 3] = ["MS-TDS", "MC-SMP", "MC-SQLR"];

/// The sections named in `[MS-TDS 2.2.6.4, 3.2.5.3]` and the like, as `MS-TDS 2.2.6.4`. `2.2.7.6-8` names three.
fn sections(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for document in DOCUMENTS {
        for (at, opening) in text.match_indices(&format!("[{document} ")) {
            let rest = &text[at + opening.len()..];
            // A citation may be broken over two comment lines.
            let Some(inside) = rest.split_once(']').map(|(inside, _)| inside) else {
                continue;
            };
            for part in inside.split(',') {
                let part = part.trim_matches(|c: char| c.is_whitespace() || c == '/' || c == '!');
                found.extend(
                    expand(part)
                        .into_iter()
                        .map(|section| format!("{document} {section}")),
                );
            }
        }
    }
    found
}

/// `2.2.7.6-8` as its three sections; nothing for what is no section.
fn expand(part: &str) -> Vec<String> {
    let is_section = |text: &str| {
        let note = text.strip_prefix("A<").and_then(|rest| rest.strip_suffix('>'));
        let digits = note.unwrap_or(text);
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    match part.split_once('-') {
        Some((first, last)) if is_section(first) => {
            let (stem, from) = first.rsplit_once('.').unwrap_or(("", first));
            let ends = (from.parse::<u32>(), last.parse::<u32>());
            let (Ok(from), Ok(to)) = ends else {
                return vec![first.to_owned()];
            };
            (from..=to).map(|n| format!("{stem}.{n}")).collect()
        }
        _ if is_section(part) => vec![part.to_owned()],
        _ => Vec::new(),
    }
}

/// A source's code, and its tests.
fn apart(text: &str) -> (&str, &str) {
    text.find("#[cfg(test)]")
        .map_or((text, ""), |at| text.split_at(at))
}

/// Sections that a vector says it stands for: `section 2.2.6.9` in its source or notes, or a citation in brackets.
fn named_by_vectors() -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for vector in vectors::load() {
        named.extend(sections(&vector.about));
        for (at, word) in vector.about.match_indices("section ") {
            let rest = &vector.about[at + word.len()..];
            let end = rest
                .find(|c: char| !(c.is_ascii_digit() || c == '.'))
                .unwrap_or(rest.len());
            let section = rest[..end].trim_end_matches('.');
            if !section.is_empty() {
                named.insert(format!("MS-TDS {section}"));
            }
        }
    }
    named
}

#[test]
fn every_cited_section_is_named_by_a_vector_or_a_test() {
    let mut cited: BTreeMap<String, String> = BTreeMap::new();
    let mut named = named_by_vectors();
    for source in tree::sources() {
        let (code, tests) = apart(&source.text);
        if CITING.iter().any(|place| source.path.starts_with(place)) {
            for section in sections(code) {
                cited.entry(section).or_insert_with(|| source.path.clone());
            }
            named.extend(sections(tests));
        } else if source.path.contains("/tests/") {
            named.extend(sections(&source.text));
        }
    }
    assert!(cited.len() > 50, "only {} sections are cited", cited.len());
    // A chapter is covered by a test of one of its sections.
    let covered = |section: &str| {
        let below = format!("{section}.");
        named
            .iter()
            .any(|name| name == section || name.starts_with(&below))
    };
    let missing: Vec<String> = cited
        .iter()
        .filter(|(section, _)| !covered(section))
        .map(|(section, path)| format!("{section} ({path})"))
        .collect();
    println!("cited sections that no vector or test names: {missing:#?}");
    assert!(
        missing.is_empty(),
        "{} sections are named by no test: {missing:#?}",
        missing.len()
    );
}

#[test]
fn citations_are_read_as_they_are_written() {
    let text = "//! as it stands [MS-TDS 2.2.7.6-8, A<47>] and [MC-SMP 3.1.5], not [fEncrypted]";
    let expected = [
        "MC-SMP 3.1.5",
        "MS-TDS 2.2.7.6",
        "MS-TDS 2.2.7.7",
        "MS-TDS 2.2.7.8",
        "MS-TDS A<47>",
    ];
    assert_eq!(sections(text).into_iter().collect::<Vec<_>>(), expected);
}
