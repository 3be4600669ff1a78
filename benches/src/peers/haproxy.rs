//! HAProxy in TCP mode: found or fetched, configured here.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ends::encryption::{CertificateFiles, Encryption};
use crate::failure::{Failure, Trying};
use crate::process::{Process, free_address, on_core};

/// Connections that it takes; above every workload.
const CONNECTIONS_MAX: usize = 4000;
/// Bytes of a pipe when it splices: the most that Linux gives everybody.
const PIPE: usize = 1024 * 1024;

/// A program and where its libraries are.
#[derive(Debug, Clone)]
pub struct Haproxy {
    program: PathBuf,
    libraries: Option<PathBuf>,
    /// What it calls itself.
    pub version: String,
}

impl Haproxy {
    /// That of PATH, or the one that `scripts/haproxy` unpacks below `.weir`.
    ///
    /// # Errors
    /// It is not there and cannot be had.
    pub fn find() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new("bash")
            .arg("scripts/haproxy")
            .current_dir(&root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .trying("scripts/haproxy")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let program = lines.next().filter(|_| output.status.success());
        let program =
            PathBuf::from(program.trying("scripts/haproxy found no HAProxy and could not unpack it")?);
        let libraries = lines.next().filter(|line| !line.is_empty()).map(PathBuf::from);
        let mut found = Self {
            program,
            libraries,
            version: String::new(),
        };
        found.version = found.ask_version()?;
        Ok(found)
    }

    fn ask_version(&self) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command.arg("-v");
        self.with_libraries(&mut command);
        let output = command.output().trying(self.program.display())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn with_libraries(&self, command: &mut Command) {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    /// Starts one before `origin`, and waits until it listens.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(
        &self,
        core: usize,
        splice: bool,
        encryption: Encryption,
        certificate: &CertificateFiles,
        origin: SocketAddr,
        directory: &Path,
    ) -> Result<(Process, SocketAddr), Failure> {
        let address = free_address()?;
        let name = format!(
            "haproxy-{}{}",
            address.port(),
            if splice { "-splice" } else { "" }
        );
        let file = directory.join(format!("{name}.cfg"));
        let text = configuration(splice, encryption, certificate, origin, address);
        std::fs::write(&file, text).trying(file.display())?;
        let mut command = on_core(core, &self.program);
        command.arg("-db").arg("-f").arg(&file);
        self.with_libraries(&mut command);
        let mut process = Process::start(&name, command, directory)?;
        process.listens(address)?;
        Ok((process, address))
    }
}

/// With TLS it ends the clients' and makes one to the origin; login-only TLS is inside TDS and passes as it is.
fn configuration(
    splice: bool,
    encryption: Encryption,
    certificate: &CertificateFiles,
    origin: SocketAddr,
    listen: SocketAddr,
) -> String {
    let (front, back) = match encryption {
        Encryption::Strict => (
            format!(" ssl crt {} alpn tds/8.0", certificate.both().display()),
            " ssl verify none alpn tds/8.0",
        ),
        _ => (String::new(), ""),
    };
    let mut text = format!("global\n  nbthread 1\n  maxconn {CONNECTIONS_MAX}\n");
    if splice {
        let _ = writeln!(text, "  tune.pipesize {PIPE}");
    }
    let _ = write!(
        text,
        "defaults\n  mode tcp\n  maxconn {CONNECTIONS_MAX}\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n\
         listen tds\n  bind {listen}{front}\n  server origin {origin}{back}\n"
    );
    if splice {
        text.push_str("  option splice-request\n  option splice-response\n");
    }
    text
}
