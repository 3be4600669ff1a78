//! `running.json`: what a running demo says about itself, and how the commands find it.
//!
//! A demo writes it into its directory and removes it on a clean stop. Because a demo's directory may be anywhere, it also leaves a
//! pointer in the default data home. Both may be stale after a SIGKILL: who reads them asks the console's port whether it still listens.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Longest wait for a demo's console to accept a connection, loopback.
const ALIVE_DEADLINE: Duration = Duration::from_millis(500);
/// Most pointers that are looked at; more than that are left-overs.
const POINTERS_MAX: usize = 64;

/// Addresses of a running demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Process id of the demo.
    pub(crate) pid: u32,
    /// Its directory.
    pub(crate) data_dir: PathBuf,
    /// Where drivers connect.
    pub(crate) listen: SocketAddr,
    /// Console and billing REST.
    pub(crate) console: SocketAddr,
    /// Wallet REST.
    pub(crate) wallet: SocketAddr,
    /// Billing gRPC.
    pub(crate) billing_grpc: SocketAddr,
    /// Wallet gRPC.
    pub(crate) wallet_grpc: SocketAddr,
    /// The sandbox server behind the proxy.
    pub(crate) sandbox: SocketAddr,
}

impl Running {
    /// The record in a directory; `None` when there is none or it cannot be read.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        let text = fs::read(path_in(dir)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the record and the pointer to it. A pointer that cannot be written only costs the finding by itself.
    pub(crate) fn write(&self) -> io::Result<()> {
        write_whole(&path_in(&self.data_dir), self)?;
        if let Some(pointer) = self.pointer() {
            if let Some(folder) = pointer.parent() {
                let _ = fs::create_dir_all(folder);
            }
            let _ = write_whole(&pointer, self);
        }
        Ok(())
    }

    /// Removes record and pointer (clean stop).
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(path_in(&self.data_dir));
        if let Some(pointer) = self.pointer() {
            let _ = fs::remove_file(pointer);
        }
    }

    /// Whether its console still accepts connections.
    pub(crate) fn is_alive(&self) -> bool {
        TcpStream::connect_timeout(&self.console, ALIVE_DEADLINE).is_ok()
    }

    /// Base address of billing REST.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.console)
    }

    fn pointer(&self) -> Option<PathBuf> {
        Some(pointers()?.join(format!("{}.json", self.pid)))
    }
}

/// `running.json` of a data directory.
pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join("running.json")
}

/// Every demo that is running for this user, wherever its directory is. Pointers to demos that are gone are removed.
pub(crate) fn alive() -> Vec<Running> {
    let Some(entries) = pointers().and_then(|dir| fs::read_dir(dir).ok()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten().take(POINTERS_MAX) {
        let Some(running) = fs::read(entry.path())
            .ok()
            .and_then(|text| serde_json::from_slice::<Running>(&text).ok())
        else {
            continue;
        };
        if running.is_alive() {
            found.push(running);
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
    found
}

/// Where a demo's directory is when none is named: `$XDG_DATA_HOME/weir/demo`, else `~/.local/share/weir/demo`.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    Some(data_home()?.join("weir").join("demo"))
}

fn pointers() -> Option<PathBuf> {
    Some(data_home()?.join("weir").join("running"))
}

fn data_home() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local").join("share")))
}

/// Written beside and renamed, so that a reader never sees half a file.
fn write_whole(path: &Path, running: &Running) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    fs::write(
        &beside,
        serde_json::to_vec_pretty(running).map_err(io::Error::other)?,
    )?;
    fs::rename(beside, path)
}
