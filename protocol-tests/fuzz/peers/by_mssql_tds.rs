//! mssql-tds, which connects to sockets only: over the loopback, client and server in one runtime of this thread.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use mssql_tds::connection::client_context::ClientContext;
use mssql_tds::connection::tds_client::{
    BatchErrorMode, ExecuteOptions, ResultSet, StatementResult, TdsClient,
};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{EncryptionOptions, EncryptionSetting, TdsResult};
use mssql_tds::error::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use weir_protocol_tests::naive_decoder::NaiveToken;

use super::{Login, Seen, TEXT_RETURNED, message, returns_text, welcome};

/// Longest connect, and longest wait for a response that is there: nothing comes near it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client that is not done by then waits for more than there is, so the connection is ended. All it takes is in the kernel of
/// this machine by then; where it is not (this process was stopped), the client reads on to the end, and logs in again.
const SAID_ALL: Duration = Duration::from_millis(2);
/// Statement results and rows of one response at most, each of them a token.
const STEPS_MAX: u32 = 1 << 16;
/// Bytes of a packet header, and where its status and length are [MS-TDS 2.2.3].
const HEADER_LEN: usize = 8;
const EOM: u8 = 1;
const ERROR: u8 = 0xAA;

/// A client that is logged in, and the server's end of its connection.
struct LoggedIn {
    client: TdsClient,
    server: TcpStream,
}

struct World {
    kept: RefCell<Option<LoggedIn>>,
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
        kept: RefCell::new(None),
        runtime,
        listener,
        source,
    })
}

/// What it takes for something else although the specification allows it.
pub(super) fn excuse(tokens: &[NaiveToken], stream: &[u8]) -> Option<&'static str> {
    if returns_text(tokens, stream) {
        return Some(TEXT_RETURNED);
    }
    let mut behind = tokens.iter().map(|t| t.token).skip_while(|token| *token != ERROR);
    behind
        .any(|token| (0xD1..=0xD3).contains(&token))
        .then_some("mssql-tds shows no rows behind an ERROR in the same statement")
}

pub(super) fn read(response: &[u8], login: Login) -> Seen {
    WORLD.with(|world| {
        let mut seen = 0;
        let kept = world.kept.take();
        let told = world.runtime.block_on(async {
            let mut logged_in = match kept {
                Some(logged_in) if login.before => logged_in,
                other => {
                    if let Some(logged_in) = other {
                        leave(logged_in).await;
                    }
                    log_in(world).await?
                }
            };
            let read = ask(&mut logged_in, &message(response), &mut seen).await;
            if read == Some(Connection::Open) && login.stays {
                world.kept.replace(Some(logged_in));
            } else {
                leave(logged_in).await;
            }
            read
        });
        match told {
            Some(_) => Seen::Whole(seen),
            None => Seen::Part(seen),
        }
    })
}

async fn log_in(world: &World) -> Option<LoggedIn> {
    let server = async {
        let (mut server, _) = world.listener.accept().await?;
        server.set_nodelay(true)?;
        for answer in welcome() {
            request(&mut server).await?;
            server.write_all(answer).await?;
        }
        io::Result::Ok(server)
    };
    let both = async { tokio::join!(connect(&world.source), server) };
    match tokio::time::timeout(PATIENCE, both).await {
        Ok((Ok(client), Ok(server))) => Some(LoggedIn { client, server }),
        _ => None,
    }
}

/// What is left behind a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Open,
    Ended,
}

/// The response as the answer to a request; `None` if it was not read to its end.
async fn ask(logged_in: &mut LoggedIn, said: &[u8], seen: &mut u64) -> Option<Connection> {
    let server = &mut logged_in.server;
    let mut client = pin!(rows(&mut logged_in.client, seen));
    let serve = async {
        request(server).await?;
        server.write_all(said).await?;
        tokio::time::sleep(SAID_ALL).await;
        server.shutdown().await
    };
    let read = async {
        tokio::select! {
            biased;
            read = &mut client => read.map(|()| Connection::Open),
            served = serve => {
                served?;
                client.await.map(|()| Connection::Ended)
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.ok()?.ok()
}

/// The server goes first, so that no port of the client waits.
async fn leave(mut logged_in: LoggedIn) {
    let ended = logged_in.server.shutdown().await;
    drop(logged_in.client);
    let rest =
        async { while ended.is_ok() && matches!(logged_in.server.read(&mut [0; 64]).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(PATIENCE, rest).await;
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

/// Reads one message of the client.
async fn request(server: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER_LEN];
        server.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let mut body = vec![0; length.saturating_sub(HEADER_LEN)];
        server.read_exact(&mut body).await?;
        if header[1] & EOM != 0 {
            return Ok(());
        }
    }
}
