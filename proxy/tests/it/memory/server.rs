//! The server of sessions in the clear: it says when it has written all that its socket takes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weir_tds::{
    build::{ColumnDef, ColumnType, TokenBuf, Value},
    login7::Login7,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
};

use super::plain::hello;
use crate::session::bench::{V, message};

/// Serves until the test ends, and counts the bytes of streams that it has written.
pub(super) async fn start() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&count)));
        }
    });
    (address, written)
}

/// A server that answers `stream N` by rows without end in packets of N bytes, `sets N` by N result sets, all else by DONE.
async fn serve(mut socket: TcpStream, written: Arc<AtomicU64>) -> std::io::Result<()> {
    loop {
        let (kind, body) = read_message(&mut socket).await?;
        let mut tokens = TokenBuf::new(V);
        match kind {
            PacketType::Prelogin => {
                let hello = hello();
                socket
                    .write_all(&message(PacketType::TabularResult, PacketStatus::NORMAL, &hello))
                    .await?;
                continue;
            }
            PacketType::Login7 => {
                let asked = Login7::parse(&body).unwrap().packet_size;
                let granted = u16::try_from(asked).unwrap();
                tokens
                    .login_ack("test", [16, 0, 3, 232])
                    .env_packet_size(granted, 4096)
                    .done(0, 0, 0);
            }
            _ => {
                let text = String::from_utf16_lossy(
                    &body[22..]
                        .chunks(2)
                        .map(|c| u16::from_le_bytes([c[0], c[1]]))
                        .collect::<Vec<_>>(),
                );
                let (word, number) = text.split_once(' ').unwrap_or((&text, "0"));
                let number: usize = number.parse().unwrap_or(0);
                match word {
                    "stream" => return stream(socket, number, &written).await,
                    "sets" => {
                        for left in (0..number).rev() {
                            tokens.col_metadata(&columns()).unwrap();
                            tokens.row(&columns(), &[Value::Str("one row")]).unwrap();
                            tokens.done(if left > 0 { 0x11 } else { 0x10 }, 0xC1, 1);
                        }
                    }
                    _ => {
                        tokens.done(0, 0xFD, 0);
                    }
                }
            }
        }
        let answer = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens.as_bytes());
        socket.write_all(&answer).await?;
    }
}

fn columns() -> [ColumnDef; 1] {
    [ColumnDef::new("text", ColumnType::nvarchar(4000))]
}

async fn stream(mut socket: TcpStream, size: usize, written: &AtomicU64) -> std::io::Result<()> {
    let mut tokens = TokenBuf::new(V);
    tokens.col_metadata(&columns()).unwrap();
    let row = "r".repeat(1500);
    for _ in 0..60 {
        tokens.row(&columns(), &[Value::Str(&row)]).unwrap();
    }
    let head = tokens.take();
    tokens.row(&columns(), &[Value::Str(&row)]).unwrap();
    let mut body = head.to_vec();
    loop {
        // Whole packets of the size that was asked for; small ones are a server that dribbles.
        let room = size - HEADER_LEN;
        let whole = body.len() / room * room;
        for piece in body[..whole].chunks(room) {
            let mut packet = message(PacketType::TabularResult, PacketStatus::NORMAL, &[]);
            packet[1] = 0;
            packet[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
            packet.extend_from_slice(piece);
            socket.write_all(&packet).await?;
            written.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        body.drain(..whole);
        body.extend_from_slice(tokens.as_bytes());
    }
}

pub(super) async fn read_message(socket: &mut TcpStream) -> std::io::Result<(PacketType, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; HEADER_LEN];
        socket.read_exact(&mut head).await?;
        let header = PacketHeader::parse(&head).unwrap().unwrap();
        let start = body.len();
        body.resize(start + header.body_len(), 0);
        socket.read_exact(&mut body[start..]).await?;
        if header.status.is_eom() {
            return Ok((header.kind, body));
        }
    }
}
