//! Small files replaced as a whole, and names of the journal's files.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;
use weir_contracts::ids::ProxyId;

use super::types::JournalError;

/// Which journal directory this is and where it stands. A lost directory is a new proxy; a damaged identity is an error, never a new one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) proxy: ProxyId,
    pub(crate) epoch: u64,
    pub(crate) boot_nonce: Uuid,
    pub(crate) previous_boot_nonce: Option<Uuid>,
}

/// Names within a journal directory.
#[derive(Debug, Clone)]
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity.json")
    }

    pub(crate) fn cursor(&self) -> PathBuf {
        self.0.join("cursor.json")
    }

    pub(crate) fn slots(&self, epoch: u64) -> PathBuf {
        self.0.join(format!("slots-{epoch:08}"))
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }

    pub(crate) fn segment(&self, key: SegmentKey) -> PathBuf {
        self.0.join(key.file_name())
    }
}

/// A segment's name: epoch, then number within it, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentKey {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

impl SegmentKey {
    pub(crate) fn file_name(self) -> String {
        format!("{:08}-{:08}.seg", self.epoch, self.number)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (epoch, number) = name.strip_suffix(".seg")?.split_once('-')?;
        Some(Self {
            epoch: epoch.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// All segments of a directory, in order.
pub(crate) fn segments_in(dir: &Path) -> Result<Vec<SegmentKey>, JournalError> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir).map_err(JournalError::io(dir))? {
        let entry = entry.map_err(JournalError::io(dir))?;
        keys.extend(entry.file_name().to_str().and_then(SegmentKey::parse));
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Makes names of new, renamed and removed files durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(JournalError::io(dir))
}

/// Replaces a small file: either the old or the new content is there after any crash. A check sum guards against anything else.
pub(crate) fn replace<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let json = serde_json::to_string(value).map_err(|e| JournalError::damaged(path, 0, e.to_string()))?;
    let text = format!("{:08x}\n{json}\n", crc32fast::hash(json.as_bytes()));
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(JournalError::io(path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Reads what [`replace`] wrote; `None` when there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JournalError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(JournalError::io(path)(e)),
    };
    let damaged = |what: &str| JournalError::damaged(path, 0, what);
    let (sum, json) = text
        .trim_end()
        .split_once('\n')
        .ok_or_else(|| damaged("not a check sum and a text"))?;
    if sum != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
        return Err(damaged("its check sum does not match"));
    }
    serde_json::from_str(json)
        .map(Some)
        .map_err(|e| damaged(&e.to_string()))
}
