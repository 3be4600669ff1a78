//! tiberius over a stream in memory.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use futures_util::TryStreamExt;
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, QueryItem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use weir_protocol_tests::naive_decoder::NaiveToken;

use super::{Login, Seen, TEXT_RETURNED, message, returns_text, welcome};

/// What it takes for something else although the specification allows it.
pub(super) fn excuse(tokens: &[NaiveToken], stream: &[u8]) -> Option<&'static str> {
    if returns_text(tokens, stream) {
        return Some(TEXT_RETURNED);
    }
    let empty = |t: &NaiveToken| t.token == 0x81 && t.end - t.offset == 3;
    tokens.iter().any(empty).then_some(
        "metadata of no column leaves in force what was; tiberius begins a result set of no column",
    )
}

/// What the server says and the client has not read; behind it the stream ends.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<BytesMut>>);

impl Said {
    fn with<T>(&self, run: impl FnOnce(&mut BytesMut) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncRead for Said {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|said| {
            let most = buf.remaining().min(said.len());
            buf.put_slice(&said[..most]);
            said.advance(most);
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client that is logged in, and what it is told.
struct LoggedIn {
    client: Client<Compat<Said>>,
    said: Said,
}

thread_local! {
    static KEPT: RefCell<Option<LoggedIn>> = const { RefCell::new(None) };
}

pub(super) fn read(response: &[u8], login: Login) -> Seen {
    let seen = Cell::new(0);
    let kept = KEPT.take().filter(|_| login.before);
    let read = async {
        let mut logged_in = match kept {
            Some(logged_in) => logged_in,
            None => log_in().await?,
        };
        logged_in
            .said
            .with(|said| said.extend_from_slice(&message(response)));
        let mut items = logged_in.client.simple_query("q").await?;
        while let Some(item) = items.try_next().await? {
            seen.set(seen.get() + u64::from(matches!(item, QueryItem::Row(_))));
        }
        drop(items);
        Ok(logged_in)
    };
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(logged_in)) => {
            if login.stays && logged_in.said.with(|said| said.is_empty()) {
                KEPT.set(Some(logged_in));
            }
            Seen::Whole(seen.get())
        }
        // It tells of a server's error behind the last token.
        Poll::Ready(Err(Error::Server(_))) => Seen::Whole(seen.get()),
        // Or it waits for more than there is.
        Poll::Ready(Err(_)) | Poll::Pending => Seen::Part(seen.get()),
    }
}

async fn log_in() -> Result<LoggedIn, Error> {
    let said = Said::default();
    said.with(|said| welcome().iter().for_each(|answer| said.extend_from_slice(answer)));
    let mut config = Config::new();
    config.authentication(AuthMethod::sql_server("u", "p"));
    config.encryption(EncryptionLevel::NotSupported);
    let client = Client::connect(config, said.clone().compat_write()).await?;
    Ok(LoggedIn { client, said })
}
