//! LOGIN7 [MS-TDS 2.2.6.4]: every field in and out, the two-hop feature list, and the short form of 7.0 and 7.1.
//!
//! Parsing copies through bounds checks (fields of hostile input overlap); encoding writes a fresh offset table.

use bytes::BufMut;
use zeroize::{Zeroize, Zeroizing};

use crate::body::Body;
use crate::error::{WireError, WireErrorKind};
use crate::password::Password;
use crate::utf16;
use crate::version::TdsVersion;

/// Most bytes of a LOGIN7 message: 128 KiB - 1 [MS-TDS 2.2.6.4].
pub const LOGIN7_MAX: usize = 128 * 1024 - 1;
/// Most UTF-16 units of a name in LOGIN7, AtchDBFile excepted [MS-TDS 2.2.6.4].
pub const NAME_UNITS_MAX: usize = 128;
/// Most UTF-16 units of AtchDBFile.
pub const FILE_UNITS_MAX: usize = 260;
/// Most features of a FeatureExt list; MS-TDS defines about a dozen.
pub const FEATURES_MAX: usize = 64;

/// Bytes of the fixed part from 7.2 on.
const FIXED: usize = 94;
/// Bytes of the fixed part of 7.0 and 7.1: no ChangePassword, no cbSSPILong.
const FIXED_OLD: usize = 86;
/// OptionFlags3 bit: a FeatureExt list is there.
const F_EXTENSION: u8 = 0x10;

/// Feature ids of FeatureExt and FEATUREEXTACK [MS-TDS 2.2.6.4].
pub mod feature {
    /// Session recovery.
    pub const SESSION_RECOVERY: u8 = 0x01;
    /// Federated authentication.
    pub const FED_AUTH: u8 = 0x02;
    /// Always Encrypted.
    pub const COLUMN_ENCRYPTION: u8 = 0x04;
    /// Global transactions (Azure).
    pub const GLOBAL_TRANSACTIONS: u8 = 0x05;
    /// Azure SQL support.
    pub const AZURE_SQL_SUPPORT: u8 = 0x08;
    /// Data classification.
    pub const DATA_CLASSIFICATION: u8 = 0x09;
    /// UTF-8 columns.
    pub const UTF8_SUPPORT: u8 = 0x0A;
    /// Address caching; makes a client remember where the server is.
    pub const AZURE_SQL_DNS_CACHING: u8 = 0x0B;
    /// JSON type.
    pub const JSON_SUPPORT: u8 = 0x0D;
    /// Vector type.
    pub const VECTOR_SUPPORT: u8 = 0x0E;
    /// Routing with a database name.
    pub const ENHANCED_ROUTING: u8 = 0x0F;
    /// Driver's name and version.
    pub const USER_AGENT: u8 = 0x10;
    /// Ends the list.
    pub const TERMINATOR: u8 = 0xFF;
}

/// One entry of FeatureExt. `Debug` hides the data, and it is wiped when dropped: FEDAUTH carries tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Feature {
    /// Which feature, see [`feature`].
    pub id: u8,
    /// Its request data.
    pub data: Vec<u8>,
}

impl Drop for Feature {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

impl std::fmt::Debug for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feature(0x{:02x}, {} bytes)", self.id, self.data.len())
    }
}

/// A LOGIN7 message.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Login7 {
    /// TDSVersion as it stands, little-endian; see [`Login7::version`].
    pub tds_version: u32,
    /// Packet size asked for; 0 = the server's default.
    pub packet_size: u32,
    /// Version of the client library.
    pub client_prog_ver: u32,
    /// Process id of the client.
    pub client_pid: u32,
    /// Id of the primary for an "Always Up" backup; normally 0.
    pub connection_id: u32,
    /// OptionFlags1.
    pub option_flags1: u8,
    /// OptionFlags2.
    pub option_flags2: u8,
    /// TypeFlags.
    pub type_flags: u8,
    /// OptionFlags3; fExtension (0x10) is set by [`Login7::encode`] when there are features.
    pub option_flags3: u8,
    /// Minutes from UTC; unused by servers.
    pub client_time_zone: i32,
    /// Locale; ignored by servers.
    pub client_lcid: u32,
    /// The client machine's name.
    pub host_name: String,
    /// Login name.
    pub user_name: String,
    /// Password, clear in memory.
    pub password: Password,
    /// Application name.
    pub app_name: String,
    /// Name that the client dialled.
    pub server_name: String,
    /// Name of the client library.
    pub library_name: String,
    /// Language asked for.
    pub language: String,
    /// Database asked for.
    pub database: String,
    /// The client's MAC address, or what it says it is.
    pub client_id: [u8; 6],
    /// SSPI token; empty for SQL logins.
    pub sspi: Vec<u8>,
    /// Database file to attach; a gate refuses it.
    pub attach_db_file: String,
    /// New password; a gate refuses or clears it.
    pub change_password: Password,
    /// FeatureExt, in order.
    pub features: Vec<Feature>,
}

impl std::fmt::Debug for Login7 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login7")
            .field("tds_version", &format_args!("{:#010x}", self.tds_version))
            .field("packet_size", &self.packet_size)
            .field("host_name", &self.host_name)
            .field("user_name", &self.user_name)
            .field("app_name", &self.app_name)
            .field("server_name", &self.server_name)
            .field("database", &self.database)
            .field("sspi_bytes", &self.sspi.len())
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl Login7 {
    /// The protocol version asked for; `None` if it is below 7.0 or unknown.
    #[must_use]
    pub const fn version(&self) -> Option<TdsVersion> {
        TdsVersion::from_login7(self.tds_version)
    }

    /// True if Windows authentication is asked for (fIntSecurity).
    #[must_use]
    pub const fn is_integrated(&self) -> bool {
        self.option_flags2 & 0x80 != 0
    }

    /// True if the client wants its password changed (fChangePassword).
    #[must_use]
    pub const fn wants_password_change(&self) -> bool {
        self.option_flags3 & 0x01 != 0
    }

    /// True if the client wants a user instance (fUserInstance).
    #[must_use]
    pub const fn wants_user_instance(&self) -> bool {
        self.option_flags3 & 0x04 != 0
    }

    /// True if the client only means to read (fReadOnlyIntent): decides routing.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.type_flags & 0x20 != 0
    }

    /// fUserType: 0 normal, 1 server, 2 distributed query, 3 replication.
    #[must_use]
    pub const fn user_type(&self) -> u8 {
        (self.option_flags2 & 0x70) >> 4
    }

    /// A feature's request data, if it was asked for.
    #[must_use]
    pub fn feature(&self, id: u8) -> Option<&[u8]> {
        self.features
            .iter()
            .find(|f| f.id == id)
            .map(|f| f.data.as_slice())
    }

    /// Reads a LOGIN7 body.
    ///
    /// # Errors
    /// The client's fault: Length is not the body's length, a field outside the body, a name above its limit, a feature
    /// list without end. A field of length 0 may have any offset.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        if body.len() > LOGIN7_MAX {
            let kind = WireErrorKind::TooLarge {
                what: "LOGIN7",
                limit: LOGIN7_MAX as u64,
            };
            return Err(WireError::at(0, kind));
        }
        let mut fixed = Body::new(body, "LOGIN7");
        if fixed.u32()? as usize != body.len() {
            return Err(WireError::at(
                0,
                WireErrorKind::Invalid("LOGIN7 Length is not the length of the message"),
            ));
        }
        let mut login = Self {
            tds_version: fixed.u32()?,
            packet_size: fixed.u32()?,
            ..Self::default()
        };
        login.client_prog_ver = fixed.u32()?;
        login.client_pid = fixed.u32()?;
        login.connection_id = fixed.u32()?;
        [
            login.option_flags1,
            login.option_flags2,
            login.type_flags,
            login.option_flags3,
        ] = fixed.array()?;
        login.client_time_zone = fixed.i32()?;
        login.client_lcid = fixed.u32()?;
        let is_long = login.has_long_fixed_part(body);
        let mut fields = Fields::new(body, fixed, if is_long { FIXED } else { FIXED_OLD });
        login.host_name = fields.name()?;
        login.user_name = fields.name()?;
        login.password = Password::from_wire(fields.next(2, NAME_UNITS_MAX)?);
        login.app_name = fields.name()?;
        login.server_name = fields.name()?;
        let extension = fields.next(1, usize::from(u8::MAX))?;
        login.library_name = fields.name()?;
        login.language = fields.name()?;
        login.database = fields.name()?;
        login.client_id = fields.table.array()?;
        let (sspi_at, sspi_len) = (fields.table.u16()?, fields.table.u16()?);
        login.attach_db_file = utf16::decode(fields.next(2, FILE_UNITS_MAX)?);
        let mut sspi_len = u32::from(sspi_len);
        if is_long {
            login.change_password = Password::from_wire(fields.next(2, NAME_UNITS_MAX)?);
            let long = fields.table.u32()?;
            if sspi_len == u32::from(u16::MAX) && long > 0 {
                sspi_len = long;
            }
        }
        login.sspi = fields.claim(usize::from(sspi_at), sspi_len as usize)?.to_vec();
        if login.option_flags3 & F_EXTENSION != 0 {
            login.features = features(&mut fields, extension)?;
        }
        Ok(login)
    }

    /// The host name's offset is the start of the variable part and so tells which form this is; a client that leaves
    /// it 0 is judged by its version.
    fn has_long_fixed_part(&self, body: &[u8]) -> bool {
        let offset = body
            .get(36..38)
            .and_then(|b| b.first_chunk::<2>())
            .map_or(0, |b| u16::from_le_bytes(*b));
        match usize::from(offset) {
            0 => self.version().is_some_and(TdsVersion::has_wide_counts) && body.len() >= FIXED,
            n => n >= FIXED && body.len() >= FIXED,
        }
    }

    /// The body on the wire, wiped when dropped: it holds the password.
    ///
    /// 7.0 and 7.1 logins get the short fixed part unless they carry features or a new password.
    ///
    /// # Errors
    /// Ours or the configuration's fault: a name above its limit, or all of it above [`LOGIN7_MAX`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let is_long = self.version().is_none_or(TdsVersion::has_wide_counts)
            || !self.features.is_empty()
            || !self.change_password.is_empty();
        let fixed = if is_long { FIXED } else { FIXED_OLD };
        let has_extension = !self.features.is_empty() || self.option_flags3 & F_EXTENSION != 0;
        let length = fixed + self.variable_len(has_extension);
        if length > LOGIN7_MAX {
            let kind = WireErrorKind::TooLarge {
                what: "LOGIN7",
                limit: LOGIN7_MAX as u64,
            };
            return Err(WireError::at(0, kind));
        }
        let mut data = Data::new(fixed, length);
        let host = data.name(&self.host_name)?;
        let user = data.name(&self.user_name)?;
        let password = data.password(&self.password)?;
        let app = data.name(&self.app_name)?;
        let server = data.name(&self.server_name)?;
        let extension = data.extension(has_extension)?;
        let library = data.name(&self.library_name)?;
        let language = data.name(&self.language)?;
        let database = data.name(&self.database)?;
        let file = data.text(&self.attach_db_file, FILE_UNITS_MAX)?;
        let change = data.password(&self.change_password)?;
        // Behind everything with a u16 offset: a token may be longer than such an offset can say.
        let sspi = data.sspi(&self.sspi)?;
        if has_extension {
            data.features(&self.features, extension);
        }
        // Exact capacity, here as in `Data`: a vector that grows leaves a copy of the password behind.
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        self.put_numbers(&mut out, length, has_extension);
        for entry in [
            host, user, password, app, server, extension, library, language, database,
        ] {
            entry.put(&mut out);
        }
        out.put_slice(&self.client_id);
        sspi.put(&mut out);
        file.put(&mut out);
        if is_long {
            change.put(&mut out);
            let long = if self.sspi.len() >= usize::from(u16::MAX) {
                self.sspi.len()
            } else {
                0
            };
            out.put_u32_le(u32::try_from(long).unwrap_or(0));
        }
        out.extend_from_slice(&data.bytes);
        Ok(out)
    }

    fn variable_len(&self, has_extension: bool) -> usize {
        let names = [
            &self.host_name,
            &self.user_name,
            &self.app_name,
            &self.server_name,
            &self.library_name,
            &self.language,
            &self.database,
            &self.attach_db_file,
        ];
        let text: usize = names.iter().map(|n| utf16::units(n) * 2).sum();
        let features: usize = self.features.iter().map(|f| f.data.len() + 5).sum();
        let extension = if has_extension { 4 + features + 1 } else { 0 };
        text + self.password.len() + self.change_password.len() + self.sspi.len() + extension
    }

    fn put_numbers(&self, table: &mut Vec<u8>, length: usize, has_extension: bool) {
        table.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        table.put_u32_le(self.tds_version);
        table.put_u32_le(self.packet_size);
        table.put_u32_le(self.client_prog_ver);
        table.put_u32_le(self.client_pid);
        table.put_u32_le(self.connection_id);
        table.put_u8(self.option_flags1);
        table.put_u8(self.option_flags2);
        table.put_u8(self.type_flags);
        let extension = if has_extension { F_EXTENSION } else { 0 };
        table.put_u8((self.option_flags3 & !F_EXTENSION) | extension);
        table.put_i32_le(self.client_time_zone);
        table.put_u32_le(self.client_lcid);
    }
}

/// One place of the offset table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u16,
    count: u16,
}

impl Entry {
    fn put(self, out: &mut Vec<u8>) {
        out.put_u16_le(self.offset);
        out.put_u16_le(self.count);
    }
}

/// The variable part under construction.
struct Data {
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes of the fixed part that will stand before it.
    fixed: usize,
}

impl Data {
    fn new(fixed: usize, length: usize) -> Self {
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(length.saturating_sub(fixed))),
            fixed,
        }
    }

    /// An entry of `count` units at the current end.
    fn entry(&self, count: usize) -> Result<Entry, WireError> {
        let at = self.fixed + self.bytes.len();
        let what = "the offset of a LOGIN7 field";
        let too_far = WireErrorKind::TooLarge {
            what,
            limit: u64::from(u16::MAX),
        };
        let offset = u16::try_from(at).map_err(|_| WireError::at(at as u64, too_far))?;
        Ok(Entry {
            offset,
            count: u16::try_from(count).unwrap_or(u16::MAX),
        })
    }

    fn text(&mut self, text: &str, most: usize) -> Result<Entry, WireError> {
        let units = utf16::units(text);
        limit_units(units, most)?;
        let entry = self.entry(units)?;
        for unit in text.encode_utf16() {
            self.bytes.put_u16_le(unit);
        }
        Ok(entry)
    }

    fn name(&mut self, text: &str) -> Result<Entry, WireError> {
        self.text(text, NAME_UNITS_MAX)
    }

    fn password(&mut self, password: &Password) -> Result<Entry, WireError> {
        limit_units(password.len() / 2, NAME_UNITS_MAX)?;
        let entry = self.entry(password.len() / 2)?;
        self.bytes.extend(password.to_wire());
        Ok(entry)
    }

    fn sspi(&mut self, token: &[u8]) -> Result<Entry, WireError> {
        let entry = self.entry(token.len())?;
        self.bytes.put_slice(token);
        Ok(entry)
    }

    /// The block of 4 bytes that points to the feature list.
    fn extension(&mut self, has_extension: bool) -> Result<Entry, WireError> {
        let entry = self.entry(if has_extension { 4 } else { 0 })?;
        if has_extension {
            self.bytes.put_u32_le(0);
        }
        Ok(entry)
    }

    fn features(&mut self, features: &[Feature], pointer: Entry) {
        let list = u32::try_from(self.fixed + self.bytes.len()).unwrap_or(0);
        let at = usize::from(pointer.offset).saturating_sub(self.fixed);
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&list.to_le_bytes());
        }
        for feature in features {
            self.bytes.put_u8(feature.id);
            self.bytes
                .put_u32_le(u32::try_from(feature.data.len()).unwrap_or(0));
            self.bytes.put_slice(&feature.data);
        }
        self.bytes.put_u8(feature::TERMINATOR);
    }
}

fn limit_units(units: usize, most: usize) -> Result<(), WireError> {
    if units > most {
        let kind = WireErrorKind::TooLarge {
            what: "a name in LOGIN7",
            limit: most as u64,
        };
        return Err(WireError::at(0, kind));
    }
    Ok(())
}

/// Fields that a body has: twelve of the offset table, and the feature list.
const FIELDS: usize = 13;

/// The offset table and what it points to. No driver lets two fields share bytes, or one lie in the fixed part: such a table
/// was made to be read in two ways.
struct Fields<'a> {
    body: &'a [u8],
    table: Body<'a>,
    /// Bytes of the fixed part.
    fixed: usize,
    /// Where the fields lie that were followed so far.
    taken: [(usize, usize); FIELDS],
    count: usize,
}

impl<'a> Fields<'a> {
    const fn new(body: &'a [u8], table: Body<'a>, fixed: usize) -> Self {
        Self {
            body,
            table,
            fixed,
            taken: [(0, 0); FIELDS],
            count: 0,
        }
    }

    /// Follows the next entry of the table: `unit` bytes per counted unit, at most `most` units.
    fn next(&mut self, unit: usize, most: usize) -> Result<&'a [u8], WireError> {
        let (at, count) = (self.table.u16()?, usize::from(self.table.u16()?));
        limit_units(count, most)?;
        self.claim(usize::from(at), count * unit)
    }

    fn name(&mut self) -> Result<String, WireError> {
        self.next(2, NAME_UNITS_MAX).map(utf16::decode)
    }

    /// A field's bytes. One of length 0 may have any offset [MS-TDS 2.2.6.4].
    fn claim(&mut self, at: usize, len: usize) -> Result<&'a [u8], WireError> {
        if len == 0 {
            return Ok(&[]);
        }
        let end = at.checked_add(len);
        let bytes = end.and_then(|end| self.body.get(at..end)).ok_or(WireError::at(
            at as u64,
            WireErrorKind::Truncated("a field of LOGIN7"),
        ))?;
        let end = at + len;
        let shared = self.taken.iter().any(|(from, to)| at < *to && *from < end);
        if at < self.fixed || shared {
            let kind = WireErrorKind::Invalid("fields of LOGIN7 that share bytes");
            return Err(WireError::at(at as u64, kind));
        }
        if let Some(place) = self.taken.get_mut(self.count) {
            *place = (at, end);
            self.count += 1;
        }
        Ok(bytes)
    }
}

/// Two hops: the extension block's first four bytes point to the list [MS-TDS 2.2.6.4]; 0 = there is none.
fn features(fields: &mut Fields<'_>, extension: &[u8]) -> Result<Vec<Feature>, WireError> {
    let Some(pointer) = extension.first_chunk::<4>() else {
        return Ok(Vec::new());
    };
    let at = u32::from_le_bytes(*pointer) as usize;
    if at == 0 {
        return Ok(Vec::new());
    }
    let truncated = WireError::at(at as u64, WireErrorKind::Truncated("FeatureExt"));
    let mut list = Body::new(fields.body.get(at..).ok_or(truncated)?, "FeatureExt");
    let mut features: Vec<Feature> = Vec::new();
    loop {
        let id = list.u8()?;
        if id == feature::TERMINATOR {
            break;
        }
        if features.len() >= FEATURES_MAX {
            return Err(list.fail(WireErrorKind::TooLarge {
                what: "FeatureExt",
                limit: FEATURES_MAX as u64,
            }));
        }
        let len = list.u32()? as usize;
        features.push(Feature {
            id,
            data: list.take(len)?.to_vec(),
        });
    }
    let length = features.iter().map(|f| f.data.len() + 5).sum::<usize>() + 1;
    fields.claim(at, length)?;
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login7 {
        Login7 {
            tds_version: TdsVersion::V7_4.to_login7(),
            packet_size: 8000,
            client_pid: 4711,
            option_flags1: 0xE0,
            option_flags2: 0x03,
            client_time_zone: -60,
            host_name: "büro".into(),
            user_name: "demo".into(),
            password: Password::from_text("p🦀ss"),
            app_name: "app".into(),
            server_name: "db.example".into(),
            library_name: "lib".into(),
            language: "us_english".into(),
            database: "demo".into(),
            client_id: [1, 2, 3, 4, 5, 6],
            ..Login7::default()
        }
    }

    #[test]
    fn every_field_survives_the_way_there_and_back() {
        let mut full = login();
        full.option_flags3 = F_EXTENSION;
        full.change_password = Password::from_text("new");
        full.attach_db_file = "x".repeat(FILE_UNITS_MAX);
        full.features = vec![
            Feature {
                id: feature::UTF8_SUPPORT,
                data: vec![1],
            },
            Feature {
                id: feature::SESSION_RECOVERY,
                data: vec![],
            },
        ];
        for sspi in [0, 1, 65_534, 65_535, 65_536, 100_000] {
            full.sspi = vec![0x60; sspi];
            let body = full.encode().unwrap();
            assert_eq!(body.capacity(), body.len(), "grew, and left a password behind");
            assert_eq!(Login7::parse(&body).as_ref(), Ok(&full), "sspi {sspi}");
        }
    }

    #[test]
    fn an_old_client_has_a_fixed_part_of_86_bytes() {
        let mut old = login();
        old.tds_version = TdsVersion::V7_1.to_login7();
        let body = old.encode().unwrap();
        assert_eq!(body.get(36..38).unwrap(), [86, 0]);
        assert_eq!(Login7::parse(&body), Ok(old));
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut login = login();
        login.password = Password::from_text("hush");
        login.features = vec![Feature {
            id: feature::FED_AUTH,
            data: b"token".to_vec(),
        }];
        let text = format!("{login:?}");
        assert!(!text.contains("hush") && !text.contains("116"), "{text}");
    }

    /// Where each entry of the offset table stands, and the bytes of its field.
    const ENTRIES: [usize; 11] = [36, 40, 44, 48, 52, 60, 64, 68, 78, 82, 86];

    #[test]
    fn fields_that_share_bytes_or_lie_in_the_fixed_part_are_refused() {
        let mut full = login();
        full.option_flags3 = F_EXTENSION;
        full.sspi = vec![1; 8];
        full.attach_db_file = "file".into();
        full.change_password = Password::from_text("new");
        full.features = vec![Feature {
            id: feature::UTF8_SUPPORT,
            data: vec![1],
        }];
        let good = full.encode().unwrap().to_vec();
        let offset = |body: &[u8], entry: usize| {
            let bytes = body.get(entry..).and_then(|b| b.first_chunk::<2>());
            u16::from_le_bytes(*bytes.unwrap())
        };
        let put = |body: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            body.get_mut(at..at + bytes.len()).unwrap().copy_from_slice(bytes);
        };
        for entry in ENTRIES {
            for other in ENTRIES {
                if entry == other {
                    continue;
                }
                let mut body = good.clone();
                put(&mut body, entry, &offset(&good, other).to_le_bytes());
                assert!(Login7::parse(&body).is_err(), "{entry} at the place of {other}");
            }
            for fixed in [0u16, 4, 36, 93] {
                let mut body = good.clone();
                put(&mut body, entry, &fixed.to_le_bytes());
                assert!(
                    Login7::parse(&body).is_err() || entry == 36,
                    "{entry} in the fixed part"
                );
            }
        }
        let extension = usize::from(offset(&good, 56));
        for at in [
            4u32,
            u32::from(offset(&good, 40)),
            u32::from(offset(&good, 44)) + 2,
        ] {
            let mut body = good.clone();
            put(&mut body, extension, &at.to_le_bytes());
            assert!(Login7::parse(&body).is_err(), "the feature list at {at}");
        }
    }

    #[test]
    fn names_above_the_limit_and_wrong_lengths_are_refused() {
        let mut long = login();
        long.user_name = "x".repeat(NAME_UNITS_MAX + 1);
        assert!(long.encode().is_err());
        let mut body = login().encode().unwrap().to_vec();
        body.push(0);
        assert!(Login7::parse(&body).is_err(), "Length no longer tells the truth");
        let mut big = login();
        big.sspi = vec![0; LOGIN7_MAX];
        assert!(big.encode().is_err());
    }
}
