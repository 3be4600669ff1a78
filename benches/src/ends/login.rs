//! The login conversation of both ends: PRELOGIN, TLS as agreed, LOGIN7, and just enough of an answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use weir_tds::build::TokenBuf;
use weir_tds::login7::Login7;
use weir_tds::packet::{DEFAULT_PACKET_SIZE, PACKET_SIZE_MAX, PACKET_SIZE_MIN, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{self, EncryptionOption, Prelogin};
use weir_tds::version::TdsVersion;

use super::encryption::Encryption;
use super::wire::Wire;

/// Product version of the origin: SQL Server 2022.
const PRODUCT: [u8; 4] = [16, 0, 0x0F, 0xA6];
/// LOGINACK's token byte.
const LOGIN_ACK: u8 = 0xAD;
/// The password of every login in a measurement.
pub const PASSWORD: &str = "bench";

/// Who logs in, where and how.
#[derive(Clone)]
pub struct Door {
    /// Where.
    pub to: SocketAddr,
    /// How.
    pub encryption: Encryption,
    /// For TLS, unless plain.
    pub tls: Option<Arc<ClientConfig>>,
    /// Who.
    pub login: String,
    /// Packet size to ask for.
    pub packet_size: u16,
}

impl Door {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Of the socket or of TLS; `PermissionDenied` when the login is refused or another packet size is agreed.
    pub async fn enter(&self) -> io::Result<Wire> {
        let mut wire = Wire::new(TcpStream::connect(self.to).await?)?;
        if self.encryption == Encryption::Strict {
            wire.handshake(self.tls_client()?).await?;
        }
        let asked = match self.encryption {
            Encryption::Plain => prelogin::Encryption::NotSup,
            Encryption::LoginOnly => prelogin::Encryption::Off,
            Encryption::Strict => prelogin::Encryption::Strict,
        };
        let hello = Prelogin {
            version: [16, 0, 0, 0, 0, 0],
            encryption: Some(EncryptionOption::plain(asked)),
            mars: Some(false),
            ..Prelogin::default()
        };
        wire.send_message(PacketType::Prelogin, &hello.encode()).await?;
        wire.message().await?;
        if self.encryption == Encryption::LoginOnly {
            wire.wrapped_handshake(self.tls_client()?).await?;
        }
        let login = Login7 {
            tds_version: match self.encryption {
                Encryption::Strict => 0x0800_0000,
                _ => 0x7400_0004,
            },
            packet_size: u32::from(self.packet_size),
            user_name: self.login.clone(),
            password: Password::from_text(PASSWORD),
            app_name: "side-by-side".to_owned(),
            ..Login7::default()
        };
        let body = login.encode().map_err(io::Error::other)?;
        wire.send_message(PacketType::Login7, &body).await?;
        if self.encryption == Encryption::LoginOnly {
            wire.leave_tls();
        }
        let (_, answer) = wire.message().await?;
        if answer.contains(&LOGIN_ACK) && answer.first() != Some(&0xAA) {
            return Ok(wire);
        }
        let said = String::from_utf8_lossy(&answer).replace('\0', "");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, said))
    }

    fn tls_client(&self) -> io::Result<Connection> {
        let config = self.tls.clone().ok_or(io::ErrorKind::InvalidInput)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let client = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(client.into())
    }
}

/// The origin's side; gives the packet size that was agreed.
///
/// # Errors
/// Of the socket or of TLS; `InvalidData` for what is no login.
pub async fn admit(
    wire: &mut Wire,
    encryption: Encryption,
    tls: Option<&Arc<ServerConfig>>,
) -> io::Result<u16> {
    let server = || -> io::Result<Connection> {
        let config = tls.cloned().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(ServerConnection::new(config).map_err(io::Error::other)?.into())
    };
    if encryption == Encryption::Strict {
        wire.handshake(server()?).await?;
    }
    let (_, hello) = wire.message().await?;
    Prelogin::parse(&hello).map_err(io::Error::other)?;
    let answer = match encryption {
        Encryption::LoginOnly => prelogin::Encryption::Off,
        Encryption::Plain | Encryption::Strict => prelogin::Encryption::NotSup,
    };
    let answer = Prelogin {
        version: [PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], 0, 0],
        encryption: Some(EncryptionOption::plain(answer)),
        mars: Some(false),
        ..Prelogin::default()
    };
    wire.send_message(PacketType::TabularResult, &answer.encode())
        .await?;
    if encryption == Encryption::LoginOnly {
        wire.wrapped_handshake(server()?).await?;
    }
    let (_, body) = wire.message().await?;
    if encryption == Encryption::LoginOnly {
        wire.leave_tls();
    }
    let login = Login7::parse(&body).map_err(io::Error::other)?;
    let asked = u16::try_from(login.packet_size).unwrap_or(PACKET_SIZE_MAX);
    let size = match asked {
        0 => DEFAULT_PACKET_SIZE,
        size => size.clamp(PACKET_SIZE_MIN, PACKET_SIZE_MAX),
    };
    let version = match encryption {
        Encryption::Strict => TdsVersion::V8_0,
        _ => TdsVersion::V7_4,
    };
    let mut tokens = TokenBuf::new(version);
    tokens.login_ack("Microsoft SQL Server", PRODUCT);
    tokens.env_packet_size(size, DEFAULT_PACKET_SIZE).done(0, 0, 0);
    wire.send_message(PacketType::TabularResult, tokens.as_bytes())
        .await?;
    Ok(size)
}
