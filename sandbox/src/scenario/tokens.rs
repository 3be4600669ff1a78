//! The steps of a script that make tokens, made.

use weir_tds::build::{
    AltColumn, AltMetadata, BuildError, CekEntry, CekValue, Classification, ClassifiedProperty, ColumnDef,
    ColumnFlags, ColumnInfo, CryptoMetadata, DoneKind, Returned, Value,
};
use weir_tds::version::TdsVersion;

use super::kinds::Kind;
use super::parts::{AltColumnSpec, ClassificationSpec, ColumnInfoSpec, ColumnSpec, KeySpec};
use super::stage::{Stage, unhex};
use super::{DoneToken, FeatureAck, Step};
use crate::tokens::Message;

const NBCROW: u8 = 0xD2;
const ALTROW: u8 = 0xD3;
/// Algorithm of encrypted columns: AEAD_AES_256_CBC_HMAC_SHA256.
const AEAD: u8 = 2;

impl Stage<'_> {
    /// A step that only makes tokens.
    pub(super) fn token(&mut self, step: &Step) {
        if let Err(error) = self.try_token(step) {
            tracing::warn!(%error, ?step, "a script's step cannot be sent");
        }
    }

    fn try_token(&mut self, step: &Step) -> Result<(), BuildError> {
        match step {
            Step::Columns(columns) => self.columns(columns, None)?,
            Step::EncryptedColumns { keys, columns } => self.columns(columns, Some(keys))?,
            Step::NoMetadata => {
                self.tokens.no_metadata();
            }
            Step::Rows { values, .. } | Step::NbcRows { values, .. } => {
                let row = self.row(values, matches!(step, Step::NbcRows { .. }));
                self.tokens.raw(&row);
            }
            Step::RowStart => {
                self.tokens.begin_row();
            }
            Step::Cell { column, value } => self.cell(*column, value)?,
            Step::Hex(hex) => {
                self.tokens.raw(&unhex(hex));
            }
            Step::Made(made) => (made.0)(&mut self.tokens),
            Step::AltMetadata { id, by, columns } => self.alt_metadata(*id, by, columns)?,
            Step::AltRow { id, values } => self.alt_row(*id, values)?,
            Step::Order(columns) => {
                self.tokens.order(columns)?;
            }
            Step::TabName(tables) => {
                let tables: Vec<Vec<&str>> = tables
                    .iter()
                    .map(|parts| parts.iter().map(String::as_str).collect())
                    .collect();
                let tables: Vec<&[&str]> = tables.iter().map(Vec::as_slice).collect();
                self.tokens.tab_name(&tables)?;
            }
            Step::ColInfo(columns) => self.col_info(columns)?,
            Step::Offset { id, offset } => {
                self.tokens.offset(*id, *offset);
            }
            Step::DataClassification(what) => self.data_classification(what)?,
            other => self.outcome(other)?,
        }
        Ok(())
    }

    /// Tokens that say how a request went.
    fn outcome(&mut self, step: &Step) -> Result<(), BuildError> {
        match step {
            Step::Error {
                number,
                class,
                state,
                text,
            } => Message::new(*number, *class, *state, text.as_str()).put(&mut self.tokens, self.server),
            Step::Done {
                kind,
                status,
                command,
                rows,
            } => {
                let kind = match kind {
                    DoneToken::Done => DoneKind::Done,
                    DoneToken::Proc => DoneKind::Proc,
                    DoneToken::InProc => DoneKind::InProc,
                };
                self.tokens.done_of(kind, *status, *command, *rows);
            }
            Step::ReturnStatus(status) => {
                self.tokens.return_status(*status);
            }
            Step::ReturnValue {
                ordinal,
                name,
                kind,
                value,
            } => {
                let Some(kind) = Kind::parse(kind, true, self.tokens.version()) else {
                    return Ok(());
                };
                let head = Returned::output(*ordinal, name, &kind.ty);
                let tokens = &mut self.tokens;
                kind.with_value(value, &mut |value| tokens.return_value(&head, value).map(|_| ()))?;
            }
            other => self.environment(other)?,
        }
        Ok(())
    }

    /// ENVCHANGE, and the tokens of a login.
    fn environment(&mut self, step: &Step) -> Result<(), BuildError> {
        match step {
            Step::Routing { server, port } => {
                self.tokens.env_routing(*port, server);
            }
            Step::EnhancedRouting {
                server,
                port,
                database,
            } => {
                self.tokens.env_enhanced_routing(*port, server, database);
            }
            Step::EnvText { kind, new, old } => {
                self.tokens.env_text(*kind, new, old);
            }
            Step::EnvBytes { kind, new, old } => {
                self.tokens.env_bytes(*kind, &unhex(new), &unhex(old));
            }
            Step::EnvPromote(token) => {
                self.tokens.env_promote(&unhex(token));
            }
            Step::LoginAck(program) => {
                self.tokens.login_ack(program, [16, 0, 0, 0]);
            }
            Step::FeatureExtAck(features) => {
                self.tokens.feature_ext_ack(&with_data(features));
            }
            Step::Sspi(token) => {
                self.tokens.sspi(&unhex(token))?;
            }
            Step::FedAuthInfo { sts_url, spn } => {
                self.tokens
                    .fed_auth_info(&[(1, sts_url.as_str()), (2, spn.as_str())]);
            }
            Step::SessionState {
                sequence,
                recoverable,
                states,
            } => {
                self.tokens
                    .session_state(*sequence, *recoverable, &with_data(states));
            }
            _ => {}
        }
        Ok(())
    }

    fn columns(&mut self, columns: &[ColumnSpec], keys: Option<&[KeySpec]>) -> Result<(), BuildError> {
        let version = self.tokens.version();
        self.kinds = columns.iter().map(|c| kind_of(c, version)).collect();
        let defs: Vec<ColumnDef> = columns
            .iter()
            .zip(&self.kinds)
            .map(|(column, kind)| def_of(column, kind, version))
            .collect();
        match keys {
            None => self.tokens.col_metadata(&defs)?,
            Some(keys) => {
                let keys: Vec<CekEntry> = keys.iter().map(key).collect();
                self.tokens.col_metadata_encrypted(&defs, &keys)?
            }
        };
        Ok(())
    }

    fn cell(&mut self, column: usize, value: &serde_json::Value) -> Result<(), BuildError> {
        let Some(kind) = self.kinds.get(column) else {
            return Ok(());
        };
        let tokens = &mut self.tokens;
        kind.with_value(value, &mut |value| tokens.value(&kind.ty, value).map(|_| ()))
    }

    /// A whole row, encoded once; with a bitmap of its nulls, or without.
    pub(super) fn row(&self, values: &[serde_json::Value], bitmap: bool) -> bytes::BytesMut {
        let mut inner = Stage::new(self.tokens.version(), self.server);
        inner.kinds.clone_from(&self.kinds);
        if bitmap {
            let mut nulls = vec![0_u8; self.kinds.len().div_ceil(8)];
            for (at, value) in values.iter().enumerate() {
                if let (true, Some(byte)) = (value.is_null(), nulls.get_mut(at / 8)) {
                    *byte |= 1 << (at % 8);
                }
            }
            inner.tokens.raw(&[NBCROW]).raw(&nulls);
        } else {
            inner.tokens.begin_row();
        }
        for (column, value) in values.iter().enumerate() {
            if bitmap && value.is_null() {
                continue;
            }
            if let Err(error) = inner.cell(column, value) {
                tracing::warn!(%error, column, "a script's value cannot be sent");
            }
        }
        inner.tokens.take()
    }

    fn alt_metadata(&mut self, id: u16, by: &[u16], columns: &[AltColumnSpec]) -> Result<(), BuildError> {
        let version = self.tokens.version();
        let kinds: Vec<Kind> = columns.iter().map(|c| kind_of(&c.column, version)).collect();
        let columns = columns
            .iter()
            .zip(&kinds)
            .map(|(alt, kind)| AltColumn {
                op: alt.op,
                operand: alt.operand,
                column: def_of(&alt.column, kind, version),
            })
            .collect();
        let metadata = AltMetadata {
            id,
            by: by.to_vec(),
            columns,
        };
        self.tokens.alt_metadata(&metadata)?;
        self.alternates.insert(id, kinds);
        Ok(())
    }

    fn alt_row(&mut self, id: u16, values: &[serde_json::Value]) -> Result<(), BuildError> {
        self.tokens.raw(&[ALTROW]).raw(&id.to_le_bytes());
        let Some(kinds) = self.alternates.get(&id) else {
            return Ok(());
        };
        let tokens = &mut self.tokens;
        for (kind, value) in kinds.iter().zip(values) {
            kind.with_value(value, &mut |value: &Value<'_>| {
                tokens.value(&kind.ty, value).map(|_| ())
            })?;
        }
        Ok(())
    }

    fn col_info(&mut self, columns: &[ColumnInfoSpec]) -> Result<(), BuildError> {
        let columns: Vec<ColumnInfo<'_>> = columns
            .iter()
            .map(|c| ColumnInfo {
                column: c.column,
                table: c.table,
                status: c.status,
                base_name: c.name.as_deref(),
            })
            .collect();
        self.tokens.col_info(&columns).map(|_| ())
    }

    fn data_classification(&mut self, what: &ClassificationSpec) -> Result<(), BuildError> {
        let property = |&(label, information_type, rank): &(u16, u16, i32)| ClassifiedProperty {
            label,
            information_type,
            rank,
        };
        let classification = Classification {
            labels: what.labels.clone(),
            information_types: what.types.clone(),
            rank: what.rank,
            columns: what
                .columns
                .iter()
                .map(|properties| properties.iter().map(property).collect())
                .collect(),
        };
        self.tokens
            .data_classification(what.version.max(1), &classification)
            .map(|_| ())
    }
}

fn kind_of(column: &ColumnSpec, version: TdsVersion) -> Kind {
    Kind::parse(&column.kind, !column.not_null, version).unwrap_or_else(|| {
        tracing::warn!(kind = %column.kind, "a script names a type that is not known");
        Kind::unknown()
    })
}

fn def_of(column: &ColumnSpec, kind: &Kind, version: TdsVersion) -> ColumnDef {
    let mut def = ColumnDef::new(column.name.as_str(), kind.ty.clone());
    def.user_type = column.user_type.unwrap_or(kind.user_type);
    if column.not_null {
        def = def.with_flags(ColumnFlags::UPDATABLE_UNKNOWN);
    }
    if let Some(encrypted) = &column.encrypted {
        def.flags = def.flags.with(ColumnFlags::ENCRYPTED);
        let base = Kind::parse(&encrypted.kind, true, version).unwrap_or_else(Kind::unknown);
        def.crypto = Some(CryptoMetadata {
            ordinal: encrypted.key,
            user_type: 0,
            base: base.ty,
            algorithm: AEAD,
            algorithm_name: String::new(),
            encryption: encrypted.encryption,
            normalization: 1,
        });
    }
    if let Some(flags) = column.flags {
        def.flags = ColumnFlags(flags);
    }
    if kind.ty.is_text() {
        let parts: Vec<&str> = column.table.iter().map(String::as_str).collect();
        def = def.with_table(if parts.is_empty() { &["t"] } else { &parts });
    }
    def
}

fn key(spec: &KeySpec) -> CekEntry {
    CekEntry {
        database_id: 1,
        cek_id: spec.id,
        cek_version: 1,
        metadata_version: [0; 8],
        values: vec![CekValue {
            encrypted_key: unhex(&spec.key),
            store: spec.store.clone(),
            path: spec.path.clone(),
            algorithm: "RSA_OAEP".to_owned(),
        }],
    }
}

fn with_data(list: &[FeatureAck]) -> Vec<(u8, Vec<u8>)> {
    list.iter().map(|item| (item.id, unhex(&item.data))).collect()
}
