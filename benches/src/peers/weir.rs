//! Weir as it is installed: the `weir-proxy` program with a journal of its own, and the house behind it.

use std::net::SocketAddr;
use std::path::Path;

use super::house::{House, program};
use crate::ends::encryption::{CertificateFiles, Encryption};
use crate::failure::Failure;
use crate::process::{Process, free_address, on_core};

/// Starts one before `origin`, and waits until it listens.
///
/// # Errors
/// It does not come up.
pub fn start(
    core: usize,
    encryption: Encryption,
    certificate: &CertificateFiles,
    origin: SocketAddr,
    house: &House,
    directory: &Path,
) -> Result<(Process, SocketAddr), Failure> {
    let address = free_address()?;
    let name = format!("weir-{}", address.port());
    let (clients, upstream) = match encryption {
        Encryption::Plain => ("none", "none"),
        Encryption::LoginOnly => ("offered", "login-only"),
        Encryption::Strict => ("strict", "strict"),
    };
    let mut command = on_core(core, &program("weir-proxy")?);
    command
        .arg("run")
        .args([
            "--listen",
            &address.to_string(),
            "--upstream",
            &origin.to_string(),
        ])
        .args(["--client-encryption", clients, "--upstream-encryption", upstream])
        .args(house.flags())
        .arg("--data-dir")
        .arg(directory.join(&name));
    if encryption != Encryption::Plain {
        command
            .arg("--tls-cert")
            .arg(certificate.certificate())
            .arg("--tls-key")
            .arg(certificate.key())
            // HAProxy is told `verify none`.
            .args(["--upstream-trust", "true"]);
    }
    let mut process = Process::start(&name, command, directory)?;
    process.listens(address)?;
    Ok((process, address))
}
