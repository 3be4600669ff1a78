//! A client with several sessions on one connection (MARS): asks in each, reads all, counts the rows of each.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use weir_tds::message::write_message;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::request::{RequestOptions, sql_batch};
use weir_tds::smp::{End, Received, SMP_HEADER_LEN, Sessions};
use weir_tds::version::TdsVersion;

use crate::drivers::Target;
use crate::raw::Raw;
use crate::rows::{Counted, Rows};

/// Packet size of the login.
const PACKET_SIZE: u16 = 4096;
/// Bytes of one read.
const READ: usize = 64 * 1024;

/// A connection that is logged in.
pub struct Multiplexed {
    raw: Raw,
    sessions: Sessions,
    rows: BTreeMap<u16, Rows>,
    /// Bytes that are no whole SMP packet yet.
    came: Vec<u8>,
}

impl Multiplexed {
    /// Connects and logs in without encryption.
    ///
    /// # Errors
    /// As [`Raw::login_multiplexed`].
    pub fn login(to: &Target) -> io::Result<Self> {
        Ok(Self {
            raw: Raw::login_multiplexed(to)?,
            sessions: Sessions::new(End::Client, PACKET_SIZE),
            rows: BTreeMap::new(),
            came: Vec::new(),
        })
    }

    /// Opens a session and sends a text in it, short enough for one packet.
    ///
    /// # Errors
    /// Of the socket.
    ///
    /// # Panics
    /// When the session is open.
    pub fn batch(&mut self, sid: u16, sql: &str) -> io::Result<()> {
        let body = sql_batch::encode(sql, 0, RequestOptions::new(TdsVersion::V7_4));
        let mut packet = BytesMut::new();
        let status = PacketStatus::NORMAL;
        write_message(
            &mut packet,
            PacketType::SqlBatch,
            status,
            PACKET_SIZE,
            0,
            1,
            &body,
        );
        let syn = self.sessions.open(sid).unwrap_or_else(|error| panic!("{error}"));
        let data = self
            .sessions
            .window(sid)
            .and_then(|window| window.data(packet.len()));
        let data = data.unwrap_or_else(|| panic!("a new session takes no packet"));
        self.rows.insert(sid, Rows::new());
        self.socket()
            .write_all(&[&syn.encode()[..], &data.encode(), &packet].concat())
    }

    /// Reads what is there, counts it and opens the windows again: how many bytes came. 0 at the end of the stream; then
    /// what of the last packet had come is counted as well.
    ///
    /// # Errors
    /// Of the socket.
    ///
    /// # Panics
    /// When it is no SMP.
    pub fn read(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; READ];
        let read = match self.socket().read(&mut buffer) {
            // A reset, because the other side was killed with input unread: what came before it was read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        self.came.extend_from_slice(&buffer[..read]);
        let mut says = Vec::new();
        while let Some((sid, data)) = self.packet() {
            self.count(sid, &data);
            if let Some(window) = self.sessions.window(sid) {
                window.taken(0);
                says.extend(window.acknowledge().iter().flat_map(|ack| ack.encode()));
            }
        }
        if read == 0 {
            let rest = std::mem::take(&mut self.came);
            if let Ok(Some(header)) = self.sessions.peek(&rest) {
                self.count(header.sid, &rest[SMP_HEADER_LEN..]);
            }
        } else {
            // If it is gone, the next read says so.
            let _told = self.socket().write_all(&says);
        }
        Ok(read)
    }

    /// What was counted in each session so far.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        self.rows.values().map(Rows::counted).collect()
    }

    fn socket(&self) -> &TcpStream {
        self.raw.socket()
    }

    fn count(&mut self, sid: u16, data: &[u8]) {
        if let Some(rows) = self.rows.get_mut(&sid) {
            rows.feed(data);
        }
    }

    /// The next whole packet with data, taken off.
    fn packet(&mut self) -> Option<(u16, Vec<u8>)> {
        loop {
            let header = self.sessions.peek(&self.came);
            let header = header.unwrap_or_else(|error| panic!("{error}"))?;
            let length = SMP_HEADER_LEN + header.data_len();
            if self.came.len() < length {
                return None;
            }
            let packet: Vec<u8> = self.came.drain(..length).collect();
            let received = self.sessions.receive(&header);
            if let Received::Data(sid, _) = received.unwrap_or_else(|error| panic!("{error}")) {
                return Some((sid, packet[SMP_HEADER_LEN..].to_vec()));
            }
        }
    }
}
