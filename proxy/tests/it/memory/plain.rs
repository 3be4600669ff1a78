//! Sessions in the clear: idle, streaming to clients that read nothing, and with many result sets.

use tokio::{io::AsyncWriteExt, net::TcpStream};
use weir_tds::{
    login7::Login7,
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, Prelogin},
};

use super::{ALONE, IDLE_MAX, Legs, Proxy, SESSIONS, STREAMING_MAX, server, server::read_message};
use crate::session::{
    bench::{batch, login7, message, prelogin},
    login::error_in,
};

const STREAMING_SESSIONS: u64 = 60;
/// Batches of ten thousand result sets that are measured.
const BATCHES: u64 = 50;

/// A proxy before the counting server.
async fn start() -> Proxy {
    let (upstream, written) = server::start().await;
    Proxy::start(
        &upstream.to_string(),
        Legs::Clear,
        tempfile::tempdir().unwrap(),
        written,
    )
    .await
}

impl Proxy {
    async fn log_in(&self, packet_size: u32) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let hello = hello();
        say(&mut socket, PacketType::Prelogin, &hello).await;
        read_message(&mut socket).await.unwrap();
        let login = Login7 {
            packet_size,
            ..login7("acme")
        };
        say(&mut socket, PacketType::Login7, &login.encode().unwrap()).await;
        let (_, answer) = read_message(&mut socket).await.unwrap();
        assert_eq!(
            error_in(&answer),
            None,
            "{}",
            String::from_utf8_lossy(&answer).replace('\0', "")
        );
        socket
    }

    async fn idle(&self) -> TcpStream {
        let mut socket = self.log_in(4096).await;
        say(&mut socket, PacketType::SqlBatch, &batch("select 1")).await;
        read_message(&mut socket).await.unwrap();
        socket
    }
}

/// PRELOGIN without encryption and without MARS.
pub(super) fn hello() -> Vec<u8> {
    let hello = Prelogin {
        mars: Some(false),
        ..prelogin(Encryption::NotSup)
    };
    hello.encode()
}

async fn say(socket: &mut TcpStream, kind: PacketType, body: &[u8]) {
    socket
        .write_all(&message(kind, PacketStatus::NORMAL, body))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sessions_hold_little() {
    let proxy = start().await;
    let mut warm = Vec::new();
    for _ in 0..20 {
        warm.push(proxy.idle().await);
    }
    let before = proxy.settled().await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(proxy.idle().await);
    }
    let each = (proxy.settled().await - before) / SESSIONS;
    println!("an idle session holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
    // All at once, a second time: what they held while they worked is given back.
    for socket in &mut sessions {
        say(socket, PacketType::SqlBatch, &batch("select 1")).await;
    }
    for socket in &mut sessions {
        read_message(socket).await.unwrap();
    }
    let each = (proxy.settled().await - before) / SESSIONS;
    println!("after all worked at once it holds {each} bytes");
    assert!(each <= IDLE_MAX, "an idle session holds {each} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_client_reads_nothing_holds_a_bounded_part_of_its_response() {
    let _alone = ALONE.lock().await;
    // The size of the server's packets, and of those that client and server agreed on.
    for (packet, agreed) in [(4096, 4096), (32_767, 32_767), (40, 4096), (512, 512)] {
        let proxy = start().await;
        let mut sessions = Vec::new();
        for _ in 0..STREAMING_SESSIONS {
            sessions.push(proxy.log_in(agreed).await);
        }
        let before = proxy.settled().await;
        for socket in &mut sessions {
            let packet = packet.min(usize::try_from(agreed).unwrap());
            say(socket, PacketType::SqlBatch, &batch(&format!("stream {packet}"))).await;
        }
        let each = (proxy.settled().await - before) / STREAMING_SESSIONS;
        println!("packets of {packet} in {agreed}: a streaming session holds {each} bytes");
        let most = STREAMING_MAX + 2 * u64::from(agreed);
        assert!(each <= most, "packets of {packet}: {each} bytes of {most}");
        drop(sessions);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_result_sets_in_one_batch_leave_nothing_behind() {
    let proxy = start().await;
    let mut socket = proxy.idle().await;
    // The first batches leave the allocator what one session ever needs; what is kept of each result set the others leave again.
    // The least that an allocator gives is 16 bytes: kept for each set, they would come to four times the limit.
    let mut before = 0;
    for batch_number in 0..2 + BATCHES {
        if batch_number == 2 {
            before = proxy.settled().await;
        }
        say(&mut socket, PacketType::SqlBatch, &batch("sets 10000")).await;
        let (_, body) = read_message(&mut socket).await.unwrap();
        assert!(body.len() > 500_000, "{} bytes", body.len());
    }
    let grown = proxy.settled().await.saturating_sub(before);
    println!("{BATCHES} times ten thousand result sets left {grown} bytes behind");
    assert!(grown <= 8 * STREAMING_MAX, "{grown} bytes");
}
