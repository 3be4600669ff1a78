//! What CI judges of speed: instructions, which no neighbour changes.

use std::process::Command;

#[test]
fn every_kernel_stays_within_its_limit() {
    if cfg!(debug_assertions) {
        println!("instructions are counted in the release profile");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_kernels")).arg("check").output();
    let output = output.expect("kernels starts");
    let table = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{table}");
    assert!(
        output.status.success(),
        "{}: {errors}\n{table}\nWhere that is meant, `target/release/kernels update` writes the new limits.",
        output.status
    );
}
