//! The golden vectors of `vectors/`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

/// One sample of wire bytes, and what is in it.
#[derive(Debug, Clone)]
pub struct Vector {
    /// File name without `.json`.
    pub name: String,
    /// `client_to_server`, `server_to_client`, `either`.
    pub direction: String,
    /// What the bytes begin with, e.g. `token-stream`.
    pub layer: String,
    /// Where it comes from, and what is said about it.
    pub about: String,
    /// The version to read it with; 7.4 where the sample names none.
    pub version: TdsVersion,
    /// The sample.
    pub bytes: Vec<u8>,
    /// What a correct reader finds.
    pub expected: Value,
    /// Columns given to the parser beside the sample, as the driver's test has them.
    pub columns_given: Option<Value>,
}

impl Vector {
    /// True for what a server sends.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.direction == "server_to_client"
    }

    /// What a walker must know of the sample's connection.
    #[must_use]
    pub fn options(&self) -> WalkerOptions {
        let data_classification = match () {
            () if self.name.contains("dataclassification-v1") => 1,
            () if self.name.contains("dataclassification-v2") => 2,
            () => 0,
        };
        WalkerOptions {
            version: self.version,
            column_encryption: self.expected.to_string().contains("\"cek_table\""),
            data_classification,
        }
    }
}

/// Every vector, by name.
///
/// # Panics
/// When a file cannot be read: the tests are worth nothing then.
#[must_use]
pub fn load() -> Vec<Vector> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut vectors: Vec<Vector> = fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .map(|path| read(&path))
        .collect();
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    vectors
}

fn read(path: &Path) -> Vector {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let field = |name: &str| {
        json[name]
            .as_str()
            .unwrap_or_else(|| panic!("{}: no {name}", path.display()))
            .to_owned()
    };
    let version = match json["tds_version"].as_str() {
        Some("0x70") => TdsVersion::V7_0,
        Some("0x71") => TdsVersion::V7_1,
        Some("0x72") => TdsVersion::V7_2,
        Some("0x74") | None => TdsVersion::V7_4,
        Some(other) => panic!("{}: version {other}", path.display()),
    };
    Vector {
        name: field("name"),
        direction: field("direction"),
        layer: field("layer"),
        about: format!("{} {}", field("source"), json["notes"]),
        version,
        bytes: unhex(&field("bytes_hex")),
        expected: json["expected"].clone(),
        columns_given: json.get("column_metadata_given").cloned(),
    }
}

/// The bytes of a hex string.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .unwrap_or_else(|| panic!("not hex: {text}"))
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high) * 16 + digit(*low)).unwrap_or(0),
            _ => panic!("odd hex: {text}"),
        })
        .collect()
}
