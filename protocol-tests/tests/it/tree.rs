//! What the tree looks like to the tidiness tests: its files, its packages, its root.

use std::path::{Path, PathBuf};

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("protocol-tests has a parent")
        .to_path_buf()
}

#[test]
fn the_root_is_the_workspace() {
    assert!(root().join("Cargo.lock").is_file());
}
