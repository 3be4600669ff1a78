//! The walker against clients that decode the same stream: what counting rows costs beside making values of them.
//!
//! Each client logs in to canned answers and drains one result set. tiberius reads from memory. mssql-tds connects to sockets
//! only: its server is another thread, and what counts is what its own thread spends outside the kernel.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use mssql_tds::connection::client_context::ClientContext;
use mssql_tds::connection::tds_client::{ExecuteOptions, ResultSet, StatementResult};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{EncryptionOptions, EncryptionSetting, TdsResult};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, QueryItem};
use tokio_util::compat::TokioAsyncWriteCompatExt;
use weir_tds::build::{Collation, TokenBuf};
use weir_tds::message::write_message;
use weir_tds::packet::{DEFAULT_PACKET_SIZE, HEADER_LEN, PacketHeader, PacketStatus, PacketType};
use weir_tds::prelogin::{Encryption, EncryptionOption, Prelogin};
use weir_tds::version::TdsVersion;

use crate::failure::{Failure, Trying};
use crate::figures::{Figure, Judged};
use crate::kernel::walk;
use crate::process::{CpuMark, TICK};
use crate::shapes::{Response, Shape};
use crate::workload::Size;

/// Bytes of the stream.
const STREAM: usize = 16 * 1000 * 1000;
/// How often it is read in a round: the faster the reader, the more often, as the system's clocks are coarse.
const WALKS: u32 = 40;
const BY_MSSQL_TDS: u32 = 16;
const BY_TIBERIUS: u32 = 1;
/// Longest query and longest connect of mssql-tds, s.
const PATIENCE: u32 = 120;
/// Product version of the server: SQL Server 2022.
const PRODUCT: [u8; 4] = [16, 0, 0x0F, 0xA6];
/// SQL_Latin1_General_CP1_CI_AS: without one mssql-tds does not take a login for done.
const COLLATION: Collation = Collation([0x09, 0x04, 0xD0, 0x00, 0x34]);

/// Measures and judges: against tiberius, against mssql-tds.
///
/// # Errors
/// Somebody sees other rows than there are.
pub fn figures(rounds: usize, size: Size) -> Result<[Figure; 2], Failure> {
    let (bytes, times) = match size {
        Size::Tiny => (STREAM / 16, [1; 3]),
        _ => (STREAM, [WALKS, BY_TIBERIUS, BY_MSSQL_TDS]),
    };
    let response = Shape::Mixed.response(bytes);
    let said = server_side(&response.bytes);
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let spent = [
            walked(&response, times[0])?,
            by_tiberius(&said, response.rows, times[1])?,
            by_mssql_tds(&said, response.rows, times[2])?,
        ];
        for ((rates, spent), times) in rates.iter_mut().zip(spent).zip(times) {
            let gb = f64::from(times) * response.bytes.len() as f64 / 1e9;
            // A tiny stream may be over before any clock has moved.
            rates.push(gb / spent.max(Duration::from_micros(1)).as_secs_f64());
        }
    }
    let [ours, tiberius, mssql_tds] = rates;
    let judged = |peer: &str, floor, aim| Judged {
        figure: format!("walker, mixed rows: GB/s per core, against {peer} decoding the same stream"),
        floor,
        aim,
        more_is_better: true,
        absolute: false,
        judged: size != Size::Tiny,
    };
    Ok([
        judged("tiberius", 60.0, 130.0).figure(&ours, &tiberius),
        judged("mssql-tds", 8.0, 15.0).figure(&ours, &mssql_tds),
    ])
}

/// The messages of a server without TLS, in packets: the answers to PRELOGIN and LOGIN7, and to every batch.
fn server_side(response: &[u8]) -> [BytesMut; 3] {
    let hello = Prelogin {
        version: [PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], 0, 0],
        encryption: Some(EncryptionOption::plain(Encryption::NotSup)),
        ..Prelogin::default()
    };
    let mut login = TokenBuf::new(TdsVersion::V7_4);
    login
        .env_database("master", "")
        .env_collation(COLLATION, None)
        .env_language("us_english", "")
        .login_ack("Microsoft SQL Server", PRODUCT)
        .env_packet_size(DEFAULT_PACKET_SIZE, DEFAULT_PACKET_SIZE)
        .done(0, 0, 0);
    [&hello.encode(), login.as_bytes(), response].map(|body| {
        let mut out = BytesMut::new();
        let (kind, status) = (PacketType::TabularResult, PacketStatus::NORMAL);
        write_message(&mut out, kind, status, DEFAULT_PACKET_SIZE, 51, 1, body);
        out
    })
}

fn walked(response: &Response, times: u32) -> Result<Duration, Failure> {
    let began = CpuMark::of(std::process::id());
    for _ in 0..times {
        walk(response)?;
    }
    Ok(began.elapsed())
}

fn by_tiberius(said: &[BytesMut], rows: u64, times: u32) -> Result<Duration, Failure> {
    let said = said.concat();
    let mut config = Config::new();
    config.authentication(AuthMethod::sql_server("bench", "bench"));
    config.encryption(EncryptionLevel::NotSupported);
    let began = CpuMark::of(std::process::id());
    for _ in 0..times {
        let read = async {
            let stream = tokio::io::join(&said[..], tokio::io::sink());
            let mut client = Client::connect(config.clone(), stream.compat_write()).await?;
            let mut items = client.simple_query("select * from mixed").await?;
            let mut seen = 0;
            while let Some(item) = items.try_next().await? {
                seen += u64::from(matches!(item, QueryItem::Row(_)));
            }
            Ok::<_, tiberius::error::Error>(seen)
        };
        // All there is to read is in memory, so it never waits.
        match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(seen) => same("tiberius", seen.trying("tiberius")?, rows)?,
            Poll::Pending => return Err(Failure::new("tiberius waits for more than there is")),
        }
    }
    Ok(began.elapsed())
}

fn by_mssql_tds(said: &[BytesMut; 3], rows: u64, times: u32) -> Result<Duration, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).trying("loopback")?;
    let source = format!("tcp:127.0.0.1,{}", listener.local_addr()?.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.trying("runtime")?;
    let (seen, spent) = std::thread::scope(|scope| {
        // It ends with its client: a client that fails has closed its socket.
        scope.spawn(|| serve(&listener, said));
        runtime.block_on(drain(&source, times)).trying("mssql-tds")
    })?;
    same("mssql-tds", seen, rows * u64::from(times))?;
    Ok(spent)
}

/// Rows seen, and what this thread spent on them outside the kernel.
async fn drain(source: &str, times: u32) -> TdsResult<(u64, Duration)> {
    let mut context = ClientContext::with_data_source(source);
    context.user_name = "bench".to_owned();
    context.password = "bench".to_owned();
    context.connect_timeout = PATIENCE;
    context.connect_retry_count = 0;
    let mut encryption = EncryptionOptions::new();
    encryption.mode = EncryptionSetting::PreferOff;
    encryption.trust_server_certificate = true;
    context.encryption_options = encryption;
    let provider = TdsConnectionProvider::new();
    let mut client = provider.create_client(context, source, None).await?;
    let began = user_ticks();
    let mut seen = 0;
    for _ in 0..times {
        let options = ExecuteOptions::new().timeout_secs(PATIENCE);
        let mut at = client.execute("select * from mixed".to_owned(), options).await?;
        while !matches!(at, StatementResult::End) {
            if matches!(at, StatementResult::Rows) {
                while client.next_row().await?.is_some() {
                    seen += 1;
                }
            }
            at = client.advance().await?;
        }
    }
    let ticks = user_ticks().saturating_sub(began);
    Ok((seen, TICK * u32::try_from(ticks).unwrap_or(u32::MAX)))
}

/// User time of this thread: the 14th field, the twelfth behind the program's name.
fn user_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().nth(11);
    ticks.and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Answers each message of one client: PRELOGIN, LOGIN7, and from then on every one alike.
fn serve(listener: &TcpListener, said: &[BytesMut; 3]) -> std::io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let [hello, login, response] = said;
    for answer in [hello, login].into_iter().chain(std::iter::repeat(response)) {
        hear(&mut socket)?;
        socket.write_all(answer)?;
    }
    Ok(())
}

/// Reads one message.
fn hear(socket: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut header = [0; HEADER_LEN];
        socket.read_exact(&mut header)?;
        let header = PacketHeader::parse(&header).map_err(std::io::Error::other)?;
        let header = header.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        socket.read_exact(&mut vec![0; header.body_len()])?;
        if header.status.is_eom() {
            return Ok(());
        }
    }
}

fn same(who: &str, seen: u64, there: u64) -> Result<(), Failure> {
    (seen == there)
        .then_some(())
        .trying(format!("{who} saw {seen} rows of {there}"))
}
