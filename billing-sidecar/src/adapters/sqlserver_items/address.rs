//! Where the SQL Server is: `mssql://user:password@host:port/database?encrypt=required|login|off&trust=true&ca=PATH`.

use tiberius::{AuthMethod, Config, EncryptionLevel};
use weir_servers::ServerUrl;

/// SQL Server's own port.
const PORT: u16 = 1433;
/// What the server's sessions show of us.
const PROGRAM: &str = "weir-billing";

/// What is wrong with an address; never holds any part of it that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`items_url`: {0}; write mssql://user:password@host:1433/database?encrypt=required|login|off&trust=true&ca=PATH"
)]
pub(super) struct AddressError(&'static str);

/// A server, a login and how the connection is protected.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    database: String,
    user: String,
    password: String,
    encryption: EncryptionLevel,
    trust: bool,
    ca: Option<String>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Address {
    /// Reads a URL; user and password may be percent-encoded.
    pub(super) fn parse(url: &ServerUrl) -> Result<Self, AddressError> {
        let rest = url.reveal().strip_prefix("mssql://");
        let rest = rest.ok_or(AddressError("it must begin with mssql://"))?;
        let (login, rest) = rest
            .rsplit_once('@')
            .ok_or(AddressError("it has no user and password before an @"))?;
        let (user, password) = login.split_once(':').ok_or(AddressError("it has no password"))?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = place
            .split_once('/')
            .ok_or(AddressError("it names no database"))?;
        let (host, port) = host_and_port(server)?;
        let mut address = Self {
            host,
            port,
            database: decoded(database)?,
            user: decoded(user)?,
            password: decoded(password)?,
            encryption: EncryptionLevel::Required,
            trust: false,
            ca: None,
        };
        if address.database.is_empty() || address.user.is_empty() {
            return Err(AddressError("user and database must not be empty"));
        }
        for option in options.split('&').filter(|o| !o.is_empty()) {
            address.option(option)?;
        }
        if address.trust && address.ca.is_some() {
            return Err(AddressError("`trust=true` and `ca` exclude each other"));
        }
        Ok(address)
    }

    fn option(&mut self, option: &str) -> Result<(), AddressError> {
        match option.split_once('=') {
            Some(("encrypt", "required")) => self.encryption = EncryptionLevel::Required,
            Some(("encrypt", "login")) => self.encryption = EncryptionLevel::Off,
            Some(("encrypt", "off")) => self.encryption = EncryptionLevel::NotSupported,
            Some(("encrypt", _)) => return Err(AddressError("`encrypt` is required, login or off")),
            Some(("trust", "true")) => self.trust = true,
            Some(("trust", "false")) => self.trust = false,
            Some(("trust", _)) => return Err(AddressError("`trust` is true or false")),
            Some(("ca", path)) => self.ca = Some(decoded(path)?),
            _ => return Err(AddressError("after the ? there may be encrypt, trust and ca")),
        }
        Ok(())
    }

    /// For the driver, with the host that is connected to (another one after a redirection).
    pub(super) fn config(&self, host: &str, port: u16) -> Config {
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.database(&self.database);
        config.application_name(PROGRAM);
        config.authentication(AuthMethod::sql_server(&self.user, &self.password));
        config.encryption(self.encryption);
        // Deadlines are the link's: one for each command, the connecting that it may need included.
        config.handshake_timeout(None);
        config.command_timeout(None);
        if self.trust {
            config.trust_cert();
        } else if let Some(path) = &self.ca {
            config.trust_cert_ca(path);
        }
        config
    }
}

fn host_and_port(server: &str) -> Result<(String, u16), AddressError> {
    // [::1]:1433 has colons inside.
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(AddressError("a [ has no ]"))?;
            (host, after.strip_prefix(':'))
        }
        None => server
            .rsplit_once(':')
            .map_or((server, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(AddressError("it names no host"));
    }
    let port = port.map_or(Ok(PORT), str::parse);
    let port = port.map_err(|_| AddressError("the port is no number up to 65535"))?;
    Ok((host.to_owned(), port))
}

/// Percent-decoding; a `%` that is none is an error, since a password must not be guessed at.
fn decoded(text: &str) -> Result<String, AddressError> {
    const WRONG: AddressError = AddressError("a % must be written %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(WRONG)?;
        let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, AddressError> {
        Address::parse(&ServerUrl::from(url))
    }

    #[test]
    fn an_address_is_read_whole() {
        let address =
            parse("mssql://weir:p%40ss%25:w@sql.example:11433/books?encrypt=login&ca=/etc/ca%20one.pem")
                .unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, address.database.as_str()),
            ("sql.example", 11433, "books")
        );
        assert_eq!(
            (address.user.as_str(), address.password.as_str()),
            ("weir", "p@ss%:w")
        );
        assert_eq!(address.encryption, EncryptionLevel::Off);
        assert_eq!(address.ca.as_deref(), Some("/etc/ca one.pem"));
        assert_eq!(format!("{address:?}"), "weir@sql.example:11433/books");
        let plain = parse("mssql://u:a@b@[::1]/d").unwrap();
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.password.as_str()),
            ("::1", 1433, "a@b")
        );
        assert_eq!(plain.encryption, EncryptionLevel::Required);
    }

    #[test]
    fn a_wrong_address_is_told_without_its_password() {
        for url in [
            "mssql://host/db",
            "mssql://user@host/db",
            "mssql://u:secret@host",
            "mssql://u:secret@host/",
            "mssql://u:secret@:1433/db",
            "mssql://u:secret@host:99999/db",
            "mssql://u:secret%@host/db",
            "mssql://u:secret@host/db?encrypt=maybe",
            "mssql://u:secret@host/db?trust=true&ca=/x",
            "mssql://u:secret@host/db?pasword=secret",
        ] {
            let text = parse(url).unwrap_err().to_string();
            assert!(
                text.contains("items_url") && !text.contains("secret"),
                "{url}: {text}"
            );
        }
    }
}
