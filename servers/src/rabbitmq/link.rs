//! One connection to RabbitMQ, of which nothing can hang: every call has a deadline, and a peer that does not answer is cut off.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    tcp::{AMQPUriTcpExt, TLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{sync::watch, time::timeout};

use super::error::RabbitError;

/// Until a connection stands, TLS and login included.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// One call on a connection that stands: opening a channel, declaring, acknowledging, getting.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// A peer that is silent for twice this time is given up; RabbitMQ gives us up alike. In seconds, as AMQP has it.
const HEARTBEAT_SECONDS: u16 = 5;
/// How long a connection that is let go may take for saying good-bye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The socket under a connection, so that it can be ended whatever its peer does.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<OnceLock<TcpStream>>);

impl Socket {
    fn cut(&self) {
        if let Some(socket) = self.0.get() {
            // It fails only when it is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A connection. Dropped, it says good-bye; see also [`Link::cut`].
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
    blocked: watch::Receiver<Option<String>>,
}

impl Link {
    /// Connects and logs in, within [`CONNECT_DEADLINE`]. `purpose` is what the server's operator sees as its name.
    pub(super) async fn open(uri: &AMQPUri, purpose: &str) -> Result<Arc<Self>, RabbitError> {
        let mut uri = uri.clone();
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let properties = ConnectionProperties::default().with_connection_name(purpose.into());
        let runtime =
            lapin::runtime::default_runtime().map_err(|e| RabbitError::from_lapin("connecting", &e))?;
        let socket = Socket::default();
        let under = socket.clone();
        let connecting = Connection::connector(
            uri,
            runtime,
            async move |uri: AMQPUri, runtime| {
                let plain = AMQPUri {
                    scheme: AMQPScheme::AMQP,
                    ..uri.clone()
                };
                // In a thread of lapin's, which would wait for as long as the kernel does.
                let dialled = timeout(
                    CONNECT_DEADLINE,
                    AMQPUriTcpExt::connect_with_config_async(&plain, TLSConfig::default(), &runtime),
                );
                let stream = dialled.await.map_err(std::io::Error::from)??;
                if let AsyncTcpStream::Plain(tcp) = &stream {
                    let handle = tcp.get_ref().as_fd().try_clone_to_owned()?;
                    let _ = under.0.set(TcpStream::from(handle));
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => {
                        Ok(stream.into_tls(&uri.authority.host, TLSConfig::default()).await?)
                    }
                }
            },
            properties,
        );
        let connection = match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) => return Err(RabbitError::from_lapin("connecting", &e)),
            Err(_) => {
                socket.cut();
                return Err(RabbitError::deadline("connecting", CONNECT_DEADLINE));
            }
        };
        let blocked = watch_blocking(&connection);
        Ok(Arc::new(Self {
            connection,
            socket,
            blocked,
        }))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.connection.status().connected()
    }

    /// Why the broker takes no messages on this connection now; none when it does.
    pub(super) fn blocked(&self) -> Option<RabbitError> {
        self.blocked.borrow().as_deref().map(blocked)
    }

    /// Returns when the broker stops taking messages.
    pub(super) async fn becomes_blocked(&self) -> RabbitError {
        let mut changes = self.blocked.clone();
        let reason = match changes.wait_for(Option::is_some).await {
            Ok(reason) => reason.as_deref().map(blocked),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            // The connection has ended, which its calls tell.
            None => std::future::pending().await,
        }
    }

    pub(super) async fn channel(&self) -> Result<Channel, RabbitError> {
        call("opening a channel", self.connection.create_channel()).await
    }

    /// Ends the connection now, without a word. What it held goes back to its queues as soon as the broker notices.
    pub(super) fn cut(&self) {
        self.socket.cut();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let socket = self.socket.clone();
        // lapin's connection is dropped after this and says good-bye; a peer that does not answer must not keep its thread.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(GOODBYE).await;
                    socket.cut();
                });
            }
            Err(_) => socket.cut(),
        }
    }
}

fn blocked(reason: &str) -> RabbitError {
    RabbitError::Unavailable(format!(
        "it takes no messages while an alarm is on ({reason}): free disk space or memory on its host"
    ))
}

/// Follows the broker's word on whether it takes messages; ends with the connection.
fn watch_blocking(connection: &Connection) -> watch::Receiver<Option<String>> {
    let (said, blocked) = watch::channel(None);
    let events = connection.events_listener();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(reason, "RabbitMQ takes no messages for now");
                    said.send_replace(Some(reason));
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("RabbitMQ takes messages again");
                    said.send_replace(None);
                }
                _ => {}
            }
        }
    });
    blocked
}

/// A call with its deadline.
pub(super) async fn call<T>(
    what: &str,
    doing: impl Future<Output = lapin::Result<T>>,
) -> Result<T, RabbitError> {
    match timeout(CALL_DEADLINE, doing).await {
        Ok(done) => done.map_err(|e| RabbitError::from_lapin(what, &e)),
        Err(_) => Err(RabbitError::deadline(what, CALL_DEADLINE)),
    }
}
