//! A server that says what it is told: it keeps what came and answers each message with the next turn of its script.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::BytesMut;
use weir_tds::message::write_message;
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType};
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};
use weir_tds::smp::{SMP_HEADER_LEN, SmpFlag, SmpHeader};

/// Longest wait for bytes, and for a script's end.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The session id in its packets.
const SPID: u16 = 57;

/// Packets that each SMP session may have under way, as SQL Server and SqlClient say.
const WINDOW: u32 = 4;

/// What the server answers on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    /// MARS in the answer to PRELOGIN; SMP behind the login.
    pub(super) mars: bool,
    /// Bodies of the messages that answer those of the login, one for one: LOGIN7, then SSPI or FedAuth.
    pub(super) login: Vec<Vec<u8>>,
    /// From the end of the login on.
    pub(super) packet_size: u16,
    /// For each of the client's messages, the bodies of the messages that answer it.
    pub(super) turns: Vec<Vec<Vec<u8>>>,
}

/// A message that came: the first packet's status, the body put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: PacketType,
    pub(super) first: PacketStatus,
    pub(super) body: Vec<u8>,
}

/// What came on one connection.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The messages of the login.
    pub(super) login: Vec<Message>,
    /// Those behind it, without SMP.
    pub(super) messages: Vec<Message>,
    /// The sessions that SMP opened, and the ones that had data.
    pub(super) opened: Vec<u16>,
    pub(super) spoken: Vec<u16>,
}

/// A listening server; connections are answered one after the other, each by the next script.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    scripts: Sender<Script>,
    heard: Receiver<io::Result<Heard>>,
    arrivals: Receiver<()>,
}

impl Scripted {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (scripts, next) = channel::<Script>();
        let (tell, heard) = channel();
        let (arrive, arrivals) = channel();
        std::thread::spawn(move || {
            // Ends with the test: its sender of scripts is gone then.
            while let Ok(script) = next.recv() {
                let played = listener
                    .accept()
                    .and_then(|(socket, _)| play(socket, &script, &arrive));
                if tell.send(played).is_err() {
                    return;
                }
            }
        });
        Self {
            address,
            scripts,
            heard,
            arrivals,
        }
    }

    /// Waits until one more message has come behind a login.
    pub(super) fn arrived(&self) {
        self.arrivals.recv_timeout(DEADLINE).expect("a message in time");
    }

    /// Answers the next connection by this.
    pub(super) fn expect(&self, script: Script) {
        self.scripts.send(script).expect("the server runs");
    }

    /// What came on the connection that ended next.
    pub(super) fn heard(&self) -> Heard {
        let heard = self
            .heard
            .recv_timeout(DEADLINE)
            .expect("a connection that ends in time");
        heard.expect("a connection without fault")
    }
}

fn play(mut socket: TcpStream, script: &Script, arrive: &Sender<()>) -> io::Result<Heard> {
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    let mut heard = Heard::default();
    let asked = next_message(&mut socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let asked = Prelogin::parse(&asked.body).map_err(|error| io::Error::other(error.to_string()))?;
    let answer = Prelogin {
        version: [17, 0, 3, 0xE8, 0, 0],
        encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
        instance: Some(vec![0]),
        mars: asked.mars.map(|wanted| wanted && script.mars),
        // As SQL Server does: said only to a client that said it.
        fed_auth_required: asked.fed_auth_required,
        ..Prelogin::default()
    };
    // The size of the login is that of every server before one is agreed [MS-TDS 2.2.3].
    send(&mut socket, &answer.encode(), 4096)?;
    for body in &script.login {
        heard
            .login
            .push(next_message(&mut socket)?.ok_or(io::ErrorKind::UnexpectedEof)?);
        send(&mut socket, body, 4096)?;
    }
    if script.mars {
        multiplexed(&mut socket, script, &mut heard)?;
        return Ok(heard);
    }
    let mut turns = script.turns.iter();
    while let Some(message) = next_message(&mut socket)? {
        heard.messages.push(message);
        let _ = arrive.send(());
        for body in turns.next().into_iter().flatten() {
            send(&mut socket, body, script.packet_size)?;
        }
    }
    Ok(heard)
}

fn send(socket: &mut TcpStream, body: &[u8], packet_size: u16) -> io::Result<()> {
    let mut out = BytesMut::new();
    write_message(
        &mut out,
        PacketType::TabularResult,
        PacketStatus::EOM,
        packet_size,
        SPID,
        1,
        body,
    );
    socket.write_all(&out)
}

/// The next message; none at the end of the connection.
pub(super) fn next_message(from: &mut impl Read) -> io::Result<Option<Message>> {
    let mut message: Option<Message> = None;
    loop {
        let mut head = [0; HEADER_LEN];
        match from.read_exact(&mut head) {
            Err(error) if message.is_none() && ended(&error) => return Ok(None),
            read => read?,
        }
        let header = PacketHeader::parse(&head).map_err(|error| io::Error::other(error.to_string()))?;
        let header = header.ok_or(io::ErrorKind::InvalidData)?;
        let message = message.get_or_insert_with(|| Message {
            kind: header.kind,
            first: header.status,
            body: Vec::new(),
        });
        let start = message.body.len();
        message.body.resize(start + header.body_len(), 0);
        from.read_exact(&mut message.body[start..])?;
        if header.status.is_eom() {
            return Ok(Some(message.clone()));
        }
    }
}

fn ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    )
}

/// The next SMP packet; none at the end of the connection.
pub(super) fn next_smp(from: &mut impl Read) -> io::Result<Option<(SmpHeader, Vec<u8>)>> {
    let mut head = [0; SMP_HEADER_LEN];
    match from.read_exact(&mut head) {
        Err(error) if ended(&error) => return Ok(None),
        read => read?,
    }
    let header = SmpHeader::parse(&head).map_err(|error| io::Error::other(error.to_string()))?;
    let header = header.ok_or(io::ErrorKind::InvalidData)?;
    let mut data = vec![0; header.data_len()];
    from.read_exact(&mut data)?;
    Ok(Some((header, data)))
}

/// Answers over SMP [MC-SMP 3.1]: each session's DATA are numbered from 1 on, both ways.
fn multiplexed(socket: &mut TcpStream, script: &Script, heard: &mut Heard) -> io::Result<()> {
    let mut turns = script.turns.iter();
    let mut came: Vec<u8> = Vec::new();
    while let Some((header, data)) = next_smp(socket)? {
        match header.flag {
            SmpFlag::Syn => heard.opened.push(header.sid),
            SmpFlag::Fin => {
                let fin = SmpHeader::control(SmpFlag::Fin, header.sid, 1, header.seqnum + WINDOW);
                socket.write_all(&fin.encode())?;
            }
            SmpFlag::Ack => {}
            SmpFlag::Data => {
                came.extend_from_slice(&data);
                let Some(message) = next_message(&mut came.as_slice())? else {
                    continue;
                };
                came.clear();
                heard.messages.push(message);
                heard.spoken.push(header.sid);
                for (number, body) in (1..).zip(turns.next().into_iter().flatten()) {
                    let mut out = BytesMut::new();
                    write_message(
                        &mut out,
                        PacketType::TabularResult,
                        PacketStatus::EOM,
                        4096,
                        SPID,
                        1,
                        body,
                    );
                    let mut head =
                        SmpHeader::control(SmpFlag::Data, header.sid, number, header.seqnum + WINDOW);
                    head.length += u32::try_from(out.len()).expect("one packet");
                    socket.write_all(&head.encode())?;
                    socket.write_all(&out)?;
                }
            }
        }
    }
    Ok(())
}
