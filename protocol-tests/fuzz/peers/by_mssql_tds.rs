//! mssql-tds, which connects to sockets only: over the loopback, client and server in one runtime of this thread.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use mssql_tds::connection::client_context::ClientContext;
use mssql_tds::connection::tds_client::{
    BatchErrorMode, ExecuteOptions, ResultSet, StatementResult, TdsClient,
};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{EncryptionOptions, EncryptionSetting, TdsResult};
use mssql_tds::error::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use weir_protocol_tests::naive_decoder::NaiveToken;

use super::{Seen, server_side};

/// Longest connect, and longest wait for the server, which answers at once and then closes: nothing comes near it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Statement results and rows of one response at most, each of them a token.
const STEPS_MAX: u32 = 1 << 16;
/// Bytes of a packet header, and where its status and length are [MS-TDS 2.2.3].
const HEADER_LEN: usize = 8;
const EOM: u8 = 1;
const ERROR: u8 = 0xAA;

struct World {
    runtime: Runtime,
    listener: TcpListener,
    source: String,
}

thread_local! {
    static WORLD: World = world().expect("a loopback");
}

fn world() -> io::Result<World> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let source = format!("tcp:127.0.0.1,{}", listener.local_addr()?.port());
    Ok(World {
        runtime,
        listener,
        source,
    })
}

/// What it takes for something else although the specification allows it.
pub(super) fn excuse(tokens: &[NaiveToken], _stream: &[u8]) -> Option<&'static str> {
    let mut behind = tokens.iter().map(|t| t.token).skip_while(|token| *token != ERROR);
    behind
        .any(|token| (0xD1..=0xD3).contains(&token))
        .then_some("mssql-tds shows no rows behind an ERROR in the same statement")
}

pub(super) fn read(response: &[u8]) -> Seen {
    let said = server_side(response);
    WORLD.with(|world| {
        let mut seen = 0;
        let read = async {
            let client = async {
                let mut client = connect(&world.source).await?;
                let read = rows(&mut client, &mut seen).await;
                drop(client);
                read
            };
            let (read, served) = tokio::join!(
                tokio::time::timeout(PATIENCE, client),
                tokio::time::timeout(PATIENCE, serve(&world.listener, &said))
            );
            served.is_ok() && matches!(read, Ok(Ok(())))
        };
        if world.runtime.block_on(read) {
            Seen::Whole(seen)
        } else {
            Seen::Part(seen)
        }
    })
}

async fn connect(source: &str) -> TdsResult<TdsClient> {
    let mut context = ClientContext::with_data_source(source);
    context.user_name = "u".to_owned();
    context.password = "p".to_owned();
    context.connect_timeout = 10;
    context.connect_retry_count = 0;
    let mut encryption = EncryptionOptions::new();
    encryption.mode = EncryptionSetting::PreferOff;
    encryption.trust_server_certificate = true;
    context.encryption_options = encryption;
    TdsConnectionProvider::new()
        .create_client(context, source, None)
        .await
}

/// Reads everything; a statement that failed at the server does not end it.
async fn rows(client: &mut TdsClient, seen: &mut u64) -> TdsResult<()> {
    let mut options = ExecuteOptions::new().timeout_secs(10);
    options.on_error = BatchErrorMode::Continue;
    let mut at = client.execute("q".to_owned(), options).await;
    for _step in 0..STEPS_MAX {
        match at {
            Ok(StatementResult::Rows) => loop {
                match client.next_row().await {
                    Ok(Some(_)) => *seen += 1,
                    Ok(None) | Err(Error::SqlServerError { .. }) => break,
                    Err(error) => return Err(error),
                }
            },
            Ok(StatementResult::NoRows { .. }) | Err(Error::SqlServerError { .. }) => {}
            Ok(StatementResult::End) => return Ok(()),
            Err(error) => return Err(error),
        }
        at = client.advance().await;
    }
    Err(Error::ProtocolError("it does not end".to_owned()))
}

/// Answers each message of one client with the next of `said`, and then has nothing more to say.
async fn serve(listener: &TcpListener, said: &[BytesMut]) -> io::Result<()> {
    let (mut socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    for answer in said {
        loop {
            let mut header = [0; HEADER_LEN];
            socket.read_exact(&mut header).await?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let mut body = vec![0; length.saturating_sub(HEADER_LEN)];
            socket.read_exact(&mut body).await?;
            if header[1] & EOM != 0 {
                break;
            }
        }
        socket.write_all(answer).await?;
    }
    socket.shutdown().await?;
    // The client goes first, so that no port of its own waits.
    while socket.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}
