//! What the larger tokens of a script are made of.

use serde::{Deserialize, Serialize};

/// A column of a script: name and type.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// As in a declaration: `int`, `nvarchar(max)`; or a type of the wire alone: `sql_variant`, `json`, `vector(3)`,
    /// `udt(name)`, `geometry`, `xml(db.schema.collection)`, `numeric(10,2)`, `utf8(20)`, `legacy_char(10)` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// Told as not nullable, with a fixed type where there is one.
    #[serde(default)]
    pub not_null: bool,
    /// Flags in place of the usual ones [MS-TDS 2.2.7.4].
    #[serde(default)]
    pub flags: Option<u16>,
    /// UserType.
    #[serde(default)]
    pub user_type: Option<u32>,
    /// Name of the table in parts, for TEXT, NTEXT and IMAGE.
    #[serde(default)]
    pub table: Vec<String>,
    /// What an encrypted column really holds; its own type is then a `varbinary`.
    #[serde(default)]
    pub encrypted: Option<Encrypted>,
}

/// Cipher metadata of an encrypted column [MS-TDS 2.2.7.4].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encrypted {
    /// Type of the clear value.
    #[serde(rename = "type")]
    pub kind: String,
    /// Index into the keys.
    #[serde(default)]
    pub key: u16,
    /// 1 deterministic, 2 randomized.
    pub encryption: u8,
}

/// A column encryption key, encrypted [MS-TDS 2.2.5.7].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// Its number.
    pub id: u32,
    /// The encrypted key, as hex.
    pub key: String,
    /// Key store.
    pub store: String,
    /// Path in it.
    pub path: String,
}

/// A computed column of ALTMETADATA [MS-TDS 2.2.7.1].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AltColumnSpec {
    /// Aggregate: 0x4D sum, 0x4B count, ….
    pub op: u8,
    /// Column it is computed of, from 1.
    pub operand: u16,
    /// Its name and type.
    pub column: ColumnSpec,
}

/// A column of COLINFO [MS-TDS 2.2.7.3].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnInfoSpec {
    /// Column, from 1.
    pub column: u8,
    /// Table in TABNAME, from 1; 0 is an expression.
    #[serde(default)]
    pub table: u8,
    /// 4 expression, 8 key, 16 hidden.
    #[serde(default)]
    pub status: u8,
    /// The base column's name where it differs.
    #[serde(default)]
    pub name: Option<String>,
}

/// DATACLASSIFICATION [MS-TDS 2.2.7.5]: names and ids, and for each column its properties as `[label, type, rank]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassificationSpec {
    /// 1 or 2, as acknowledged.
    pub version: u8,
    /// Labels: name and id.
    pub labels: Vec<(String, String)>,
    /// Information types: name and id.
    pub types: Vec<(String, String)>,
    /// Rank of the query.
    pub rank: i32,
    /// Properties per column.
    pub columns: Vec<Vec<(u16, u16, i32)>>,
}

/// An id and bytes as hex: a state of SESSIONSTATE, a feature of FEATUREEXTACK.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureAck {
    /// Id.
    pub id: u8,
    /// Data, as hex.
    #[serde(default)]
    pub data: String,
}

/// What a meter must find in the answer to a rule's request: known by the script's author, not counted by the player.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Known {
    /// ROW, NBCROW and ALTROW tokens.
    pub rows: u64,
    /// COLMETADATA tokens that begin a result set.
    pub result_sets: u64,
    /// ERROR tokens.
    pub errors: u64,
}

/// One turn of a login that takes several: what the server sends, and what it then waits for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round<S> {
    /// Steps that make tokens.
    pub send: Vec<S>,
    /// The client's message.
    pub expect: Expected,
}

/// A client's message inside the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Type 0x11: a token of the security package.
    Sspi,
    /// Type 0x08: a federated authentication token.
    FedAuthToken,
}
