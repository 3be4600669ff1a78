//! tiberius over a stream in memory.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::TryStreamExt;
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, QueryItem};
use tokio_util::compat::TokioAsyncWriteCompatExt;
use weir_protocol_tests::naive_decoder::NaiveToken;

use super::{Seen, server_side};

/// What it takes for something else although the specification allows it.
pub(super) fn excuse(tokens: &[NaiveToken], _stream: &[u8]) -> Option<&'static str> {
    let empty = |t: &NaiveToken| t.token == 0x81 && t.end - t.offset == 3;
    tokens.iter().any(empty).then_some(
        "metadata of no column leaves in force what was; tiberius begins a result set of no column",
    )
}

pub(super) fn read(response: &[u8]) -> Seen {
    let said = server_side(response).concat();
    let seen = Cell::new(0);
    let read = async {
        let mut config = Config::new();
        config.authentication(AuthMethod::sql_server("u", "p"));
        config.encryption(EncryptionLevel::NotSupported);
        let stream = tokio::io::join(&said[..], tokio::io::sink());
        let mut client = Client::connect(config, stream.compat_write()).await?;
        let mut items = client.simple_query("q").await?;
        while let Some(item) = items.try_next().await? {
            seen.set(seen.get() + u64::from(matches!(item, QueryItem::Row(_))));
        }
        Ok(())
    };
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        // It tells of a server's error behind the last token.
        Poll::Ready(Ok(()) | Err(Error::Server(_))) => Seen::Whole(seen.get()),
        // Or it waits for more than there is.
        Poll::Ready(Err(_)) | Poll::Pending => Seen::Part(seen.get()),
    }
}
