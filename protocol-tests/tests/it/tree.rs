//! What the tree looks like to the tidiness tests: its root, its Rust files, its packages, what cargo says of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Directories that hold nothing of ours.
const FOREIGN: [&str; 5] = ["target", "node_modules", ".git", ".weir", ".issues"];

/// A Rust file of the workspace.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A package of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    /// Packages of the workspace that it depends on, build dependencies included, development ones not.
    pub(crate) uses: Vec<String>,
}

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("protocol-tests has a parent")
        .to_path_buf()
}

/// Every Rust file, sorted by path.
pub(crate) fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                if !FOREIGN.contains(&name) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
                let path = path
                    .strip_prefix(&root)
                    .expect("below the root")
                    .to_string_lossy()
                    .into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 20, "the walk found {} files", found.len());
    found
}

/// What `cargo ARGUMENTS` prints, from the lock file as it is.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// `cargo metadata` for this platform only: the packages of others need not be on the machine.
pub(crate) fn metadata() -> Value {
    let host = std::env::consts::ARCH.to_owned() + "-unknown-linux-gnu";
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", &host]);
    serde_json::from_str(&text).expect("cargo metadata is JSON")
}

/// The packages of the workspace.
pub(crate) fn members() -> Vec<Member> {
    let metadata = metadata();
    let ids: Vec<&Value> = array(&metadata, "workspace_members").iter().collect();
    let packages: Vec<&Value> = array(&metadata, "packages")
        .iter()
        .filter(|package| ids.contains(&&package["id"]))
        .collect();
    let names: Vec<&str> = packages.iter().map(|package| text(package, "name")).collect();
    packages
        .iter()
        .map(|package| Member {
            name: text(package, "name").to_owned(),
            directory: Path::new(text(package, "manifest_path"))
                .parent()
                .expect("in a directory")
                .to_path_buf(),
            uses: array(package, "dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev" && names.contains(&text(dependency, "name")))
                .map(|dependency| text(dependency, "name").to_owned())
                .collect(),
        })
        .collect()
}

/// The array under `key`.
pub(crate) fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no array {key}"))
}

/// The string under `key`.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no string {key}"))
}
