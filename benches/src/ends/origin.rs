//! A server that speaks just enough TDS: a login, and answers that were built before they are asked for.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketType};

use super::encryption::{CertificateFiles, Encryption};
use super::login::admit;
use super::wire::Wire;
use crate::answer::{Answer, Ask};
use crate::failure::{Failure, Trying};

/// Bytes of a write.
const WRITE: usize = 256 * 1024;
/// Bytes of a read: requests are short.
const READ: usize = 8 * 1024;
/// ALL_HEADERS with a transaction descriptor [MS-TDS 2.2.5.3].
const ALL_HEADERS: usize = 22;
/// Where an RPC by number has that number: behind 0xFFFF.
const PROC_ID: usize = ALL_HEADERS + 2;
/// Where an INTN parameter without a name has its value: flags, name length, status, type, size and length stand before.
const FIRST_INT: usize = PROC_ID + 2 + 2 + 1 + 1 + 1 + 1 + 1;
/// sp_execute.
const EXECUTE: u8 = 12;
/// Answer to ATTENTION: DONE with DONE_ATTN [MS-TDS 2.2.7.6].
const ATTENTION_ACK: [u8; HEADER_LEN + 13] = [
    4, 1, 0, 21, 0, 0, 1, 0, 0xFD, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Answers that were built, by what was asked for and the packet size; shared by all connections.
#[derive(Default)]
struct Built(Mutex<BTreeMap<(String, u16), Arc<Answer>>>);

impl Built {
    fn get(&self, ask: Ask, packet_size: u16) -> Arc<Answer> {
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = built.entry((ask.text(), packet_size));
        Arc::clone(answer.or_insert_with(|| Arc::new(Answer::new(ask, packet_size))))
    }
}

/// Serves until standard input ends. Prints the address of each encryption's listener, in their order, in one line.
///
/// # Errors
/// What keeps it from listening.
pub async fn serve(certificate: CertificateFiles) -> Result<(), Failure> {
    let built = Arc::new(Built::default());
    let mut line = Vec::new();
    for encryption in Encryption::ALL {
        let tls = match encryption {
            Encryption::Plain => None,
            _ => Some(certificate.server(encryption)?),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .trying("origin")?;
        line.push(listener.local_addr()?.to_string());
        tokio::spawn(accept(listener, encryption, tls, Arc::clone(&built)));
    }
    println!("{}", line.join(" "));
    io::stdout().flush()?;
    // Whoever started it holds the other end, and ends with it.
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    ended.await.trying("origin")?.trying("standard input")?;
    Ok(())
}

/// The line of [`serve`], read.
///
/// # Errors
/// It is another line.
pub fn addresses(line: &str) -> Result<Vec<(Encryption, SocketAddr)>, Failure> {
    let addresses: Result<Vec<SocketAddr>, _> = line.split_whitespace().map(str::parse).collect();
    let addresses = addresses.trying("the origin's addresses")?;
    if addresses.len() != Encryption::ALL.len() {
        return Err(Failure(format!("the origin said '{line}'")));
    }
    Ok(Encryption::ALL.into_iter().zip(addresses).collect())
}

async fn accept(
    listener: TcpListener,
    encryption: Encryption,
    tls: Option<Arc<ServerConfig>>,
    built: Arc<Built>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, built) = (tls.clone(), Arc::clone(&built));
        // A client that goes, goes: what it counted is checked at its own end.
        tokio::spawn(async move { session(socket, encryption, tls, &built).await });
    }
}

async fn session(
    socket: TcpStream,
    encryption: Encryption,
    tls: Option<Arc<ServerConfig>>,
    built: &Built,
) -> io::Result<()> {
    let mut wire = Wire::new(socket)?;
    let packet_size = admit(&mut wire, encryption, tls.as_ref()).await?;
    let of = |ask| built.get(ask, packet_size);
    let one = of(Ask::One);
    let prepared = Ask::PREPARED.map(of);
    let mut scratch = vec![0; READ];
    let mut input = Vec::new();
    loop {
        wire.receive(&mut scratch, |bytes| input.extend_from_slice(bytes))
            .await?;
        while let Some(header) = PacketHeader::parse(&input).map_err(io::Error::other)? {
            let Some(body) = input.get(HEADER_LEN..usize::from(header.length)) else {
                break;
            };
            let answer = match header.kind {
                PacketType::Attention => {
                    wire.send(&ATTENTION_ACK).await?;
                    None
                }
                _ if !header.status.is_eom() => None,
                PacketType::Rpc => prepared.get(handle(body)).cloned(),
                _ => match batch(body) {
                    Ask::One => Some(Arc::clone(&one)),
                    ask => Some(of(ask)),
                },
            };
            input.drain(..usize::from(header.length));
            if let Some(answer) = answer {
                write(&mut wire, &answer).await?;
            }
        }
    }
}

/// What sp_execute runs; a statement that is being prepared is run with it, as the point select.
fn handle(body: &[u8]) -> usize {
    match (body.get(PROC_ID), body.get(FIRST_INT)) {
        (Some(&EXECUTE), Some(handle)) => usize::from(*handle).saturating_sub(1) % Ask::PREPARED.len(),
        _ => 0,
    }
}

fn batch(body: &[u8]) -> Ask {
    let units = body.get(ALL_HEADERS..).unwrap_or_default().chunks_exact(2);
    let ascii: String = units
        .map(|unit| char::from(unit.first().copied().unwrap_or(0)))
        .collect();
    Ask::of_text(&ascii)
}

async fn write(wire: &mut Wire, answer: &Answer) -> io::Result<()> {
    if !answer.head.is_empty() {
        wire.send(&answer.head).await?;
    }
    for _ in 0..answer.repeats {
        for piece in answer.block.chunks(WRITE) {
            wire.send(piece).await?;
        }
    }
    for piece in answer.tail.chunks(WRITE) {
        wire.send(piece).await?;
    }
    Ok(())
}
