//! What stands behind and before the drivers: sandbox servers of every encryption, and a gate in front of each.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use weir_protocol_tests::demo::{Demo, binary};
use weir_protocol_tests::gate::Gate;

use super::encryption::Encryption;

/// From the start of the sandbox until it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The certificate that servers and gates show, with its key; self-signed, so it is its own root.
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    /// Makes one in this directory. The common name is the host's, because not every driver reads the SAN.
    pub(super) fn make(directory: &Path) -> Self {
        let made = Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        };
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("names of a certificate");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "localhost");
        let pair = rcgen::KeyPair::generate().expect("a key");
        let signed = params.self_signed(&pair).expect("a certificate");
        std::fs::write(&made.certificate, signed.pem()).expect("the certificate is written");
        std::fs::write(&made.key, pair.serialize_pem()).expect("the key is written");
        made
    }
}

/// A running `weir-sandbox`. Dropped, it is killed.
pub(super) struct Sandbox {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Sandbox {
    /// With this encryption. `login-only` leaves the rest to the client.
    pub(super) fn start(encryption: Encryption, certificate: &Certificate) -> Self {
        let mut command = Command::new(binary("weir-sandbox"));
        command.args(["--listen", "127.0.0.1:0", "--encryption", encryption.name()]);
        if encryption != Encryption::None {
            command.arg("--tls-cert").arg(&certificate.certificate);
            command.arg("--tls-key").arg(&certificate.key);
        }
        Self::launch(&mut command)
    }

    /// One that plays a script and leaves the encryption to the client.
    pub(super) fn play(script: &Path, certificate: &Certificate) -> Self {
        let mut command = Command::new(binary("weir-sandbox"));
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--encryption",
            Encryption::LoginOnly.name(),
        ]);
        command.arg("--tls-cert").arg(&certificate.certificate);
        command.arg("--tls-key").arg(&certificate.key);
        Self::launch(command.args(["--backend", "scenario"]).arg(script))
    }

    fn launch(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        // From here on it is killed whatever becomes of the test.
        let mut sandbox = Self {
            child: spawned.unwrap_or_else(|error| panic!("weir-sandbox does not start: {error}")),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let output = sandbox.child.stdout.take().expect("its output is a pipe");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            let line = receiver.recv_timeout(READY_WITHIN);
            let line = line.expect("weir-sandbox is ready");
            if let Some(address) = line.strip_prefix("weir-sandbox ready on ") {
                sandbox.address = address.parse().expect("an address");
                return sandbox;
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gate that takes every encryption of clients and goes on to `upstream` with this one.
pub(super) fn gate(demo: &Demo, upstream: SocketAddr, encryption: Encryption, shown: &Certificate) -> Gate {
    let certificate = shown.certificate.display().to_string();
    let key = shown.key.display().to_string();
    let mut flags = vec![
        "--client-encryption",
        "offered",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--upstream-host-name",
        "localhost",
        "--upstream-encryption",
    ];
    flags.extend(match encryption {
        Encryption::None => vec!["none"],
        Encryption::LoginOnly => vec!["login-only", "--upstream-trust"],
        Encryption::On => vec!["full", "--upstream-trust"],
        Encryption::Required => vec!["full", "--upstream-ca", &certificate],
        Encryption::Strict => vec!["strict", "--upstream-ca", &certificate],
    });
    Gate::start_with(demo, upstream, &flags)
}
