//! One connection to Redis, shared by all calls: every call has a deadline, and a connection that failed once is never used again, so
//! that a late answer cannot be taken for another one's.

use std::{fmt, time::Duration};

use redis::{AsyncConnectionConfig, Client, ErrorKind, ServerErrorKind, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::Instant};

use super::{RedisError, SCHEMES};
use crate::ServerUrl;

/// One call takes at most this, connecting and waiting for another's connecting included. A healthy server answers within
/// milliseconds; a stopped one must not hold its caller for longer.
pub const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Connecting alone, so that a black hole leaves time for another try within a call.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause after a failed connect; calls meanwhile wait for its end.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Server {
    client: Client,
    shown: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a failure ends the one it was seen on and no later one.
    number: u64,
    failures: u32,
    not_before: Option<Instant>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the address; connects with the first call.
    pub(super) fn new(url: &ServerUrl) -> Result<Self, RedisError> {
        let url = url.clone().resolve(SCHEMES)?;
        let client = Client::open(url.reveal())
            .map_err(|e| RedisError::Address(format!("{url} is no address of a Redis server: {e}")))?;
        Ok(Self {
            client,
            shown: url.shown(),
            state: Mutex::new(State::default()),
        })
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes one call, within [`CALL_LIMIT`].
    pub(super) async fn call<T, F>(
        &self,
        work: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisError>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let mut used = None;
        let done = tokio::time::timeout(CALL_LIMIT, async {
            let (number, connection) = self.connection().await?;
            used = Some(number);
            work(connection).await
        })
        .await;
        let (error, reusable) = match done {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let reusable = is_reusable(&error);
                (self.classify(&error), reusable)
            }
            Err(_) => (
                self.unavailable(format!("no answer within {CALL_LIMIT:?}")),
                false,
            ),
        };
        if let Some(number) = used.filter(|_| !reusable) {
            self.discard(number).await;
        }
        Err(error)
    }

    pub(super) fn unavailable(&self, cause: String) -> RedisError {
        RedisError::Unavailable {
            server: self.shown.clone(),
            cause,
        }
    }

    pub(super) fn refused(&self, cause: String) -> RedisError {
        RedisError::Refused {
            server: self.shown.clone(),
            cause,
        }
    }

    /// The connection in use, or a new one. Held while connecting: others wait for the same outcome.
    async fn connection(&self) -> redis::RedisResult<(u64, MultiplexedConnection)> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.number, connection.clone()));
        }
        if let Some(at) = state.not_before {
            tokio::time::sleep_until(at).await;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(CALL_LIMIT));
        // Set before, for a caller that is cancelled while it connects.
        let pause = PAUSE_MIN
            .saturating_mul(1 << state.failures.min(6))
            .min(PAUSE_MAX);
        state.not_before = Some(Instant::now() + pause);
        state.failures = state.failures.saturating_add(1);
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        (state.failures, state.not_before) = (0, None);
        state.number += 1;
        state.connection = Some(connection.clone());
        tracing::debug!(server = self.shown, "connected to Redis");
        Ok((state.number, connection))
    }

    async fn discard(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.connection = None;
        }
    }

    fn classify(&self, error: &redis::RedisError) -> RedisError {
        let cause = error.to_string();
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                self.refused(format!("{cause}; check the user and password in the address"))
            }
            ErrorKind::InvalidClientConfig => RedisError::Address(format!("{}: {cause}", self.shown)),
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse | ErrorKind::RESP3NotSupported => {
                self.refused(format!("{cause}; is this a Redis server?"))
            }
            _ if may_not(error) => RedisError::NotAllowed {
                server: self.shown.clone(),
                cause,
            },
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => {
                    self.refused(format!("{cause}; check the user and password in the address"))
                }
                Some("WRONGTYPE") => self.refused(format!(
                    "{cause}; another program uses keys of this name: choose another prefix"
                )),
                _ => self.unavailable(cause),
            },
        }
    }
}

/// An answer of the server leaves the connection usable, unless it says that this is not the server to be at: one that is loading or
/// was demoted may have been replaced at its address.
fn is_reusable(error: &redis::RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading,
        ) => false,
        ErrorKind::Server(_) => true,
        ErrorKind::Extension => error.code() != Some("UNBLOCKED"),
        _ => false,
    }
}

/// Not allowed to this user, or taken away from all of them by a managed server.
fn may_not(error: &redis::RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error
            .detail()
            .is_some_and(|detail| detail.starts_with("unknown command"))
}
