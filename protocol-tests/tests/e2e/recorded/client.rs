//! The client's end of a replay: logs in, sends recorded bytes as they are, reads whole messages.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::BytesMut;
use weir_tds::login7::{Feature, Login7};
use weir_tds::message::write_message;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};
use weir_tds::smp::SmpHeader;

use super::server::{DEADLINE, Message, next_message, next_smp};

/// What a login says of itself.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) tds_version: u32,
    pub(super) packet_size: u16,
    pub(super) features: Vec<(u8, Vec<u8>)>,
}

/// A connection.
pub(super) struct Client {
    socket: TcpStream,
}

impl Client {
    pub(super) fn connect(gate: SocketAddr, mars: bool) -> io::Result<Self> {
        let socket = TcpStream::connect(gate)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        let mut client = Self { socket };
        let hello = Prelogin {
            version: [6, 0, 0, 0, 0, 0],
            encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
            mars: Some(mars),
            ..Prelogin::default()
        };
        client.send_message(PacketType::Prelogin, &hello.encode())?;
        let answer = client.message()?;
        let answer = Prelogin::parse(&answer.body).map_err(|error| io::Error::other(error.to_string()))?;
        assert_eq!(answer.mars, Some(mars), "{answer:?}");
        Ok(client)
    }

    /// Logs the demo's tenant in; the body of the answer.
    pub(super) fn login(&mut self, hello: &Hello) -> io::Result<Vec<u8>> {
        let features = hello.features.iter();
        let login = Login7 {
            tds_version: hello.tds_version,
            packet_size: u32::from(hello.packet_size),
            user_name: "demo".to_owned(),
            password: Password::from_text("demo"),
            database: "demo".to_owned(),
            app_name: ".Net SqlClient Data Provider".to_owned(),
            features: features
                .map(|(id, data)| Feature {
                    id: *id,
                    data: data.clone(),
                })
                .collect(),
            ..Login7::default()
        };
        let body = login
            .encode()
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.send_message(PacketType::Login7, &body)?;
        Ok(self.message()?.body)
    }

    pub(super) fn send_message(&mut self, kind: PacketType, body: &[u8]) -> io::Result<()> {
        self.send(&packets(kind, body))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub(super) fn message(&mut self) -> io::Result<Message> {
        next_message(&mut self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(super) fn smp(&mut self) -> io::Result<(SmpHeader, Vec<u8>)> {
        next_smp(&mut self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A message in packets of 4096 bytes.
pub(super) fn packets(kind: PacketType, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_message(&mut out, kind, PacketStatus::EOM, 4096, 0, 1, body);
    out.to_vec()
}
