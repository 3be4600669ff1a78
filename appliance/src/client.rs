//! Billing's REST API over blocking HTTP: a command does one thing and ends, so no runtime. Every call has a deadline.

use std::{fmt, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest call that answers from what billing has at hand.
const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Longest call that waits for what is under way (an account to settle, the books to be closed): billing's own 20 s, and room.
const WAITING_DEADLINE: Duration = Duration::from_secs(40);
/// Largest answer that is read: a page of usage or a statement is far below.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody there, or not within the deadline.
    #[error("{url} does not answer: {cause}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the socket said.
        cause: String,
    },
    /// The service says no, and why.
    #[error("{message} ({code}{fault})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Machine-readable cause.
        code: String,
        /// For people.
        message: String,
        /// Whose fault it is, when the service tells, after a comma.
        fault: String,
    },
    /// The token is not the server's.
    #[error("{0} does not accept the token: check --token-file, --data-dir or WEIR_TOKEN_FILE")]
    Token(String),
    /// The answer is not what this version understands.
    #[error("{url} answered what this weir cannot read (HTTP {status}): {cause}")]
    Answer {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What is wrong.
        cause: String,
    },
}

impl ClientError {
    /// True when what was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Speaks to one server with one token.
pub(crate) struct Client {
    agent: ureq::Agent,
    server: String,
    /// `Bearer …`; never printed.
    authorization: String,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.server)
    }
}

impl Client {
    /// For a base address such as `http://127.0.0.1:3005`; a missing scheme is taken as http.
    pub(crate) fn new(server: &str, token: &str) -> Self {
        let scheme = if server.contains("://") { "" } else { "http://" };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(CALL_DEADLINE));
        Self {
            agent: config.build().into(),
            server: format!("{scheme}{}", server.trim_end_matches('/')),
            authorization: format!("Bearer {token}"),
        }
    }

    /// GET of what is at hand.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_within(path, CALL_DEADLINE)
    }

    /// GET that waits for what is under way.
    pub(crate) fn get_waiting<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_within(path, WAITING_DEADLINE)
    }

    /// POST of a JSON body.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        let url = self.url(path);
        let request = self.agent.post(&url).header("authorization", &self.authorization);
        self.read(&url, request.send_json(body))
    }

    /// POST that waits for work that takes its time.
    pub(crate) fn post_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ClientError> {
        let url = self.url(path);
        let request = self.agent.post(&url).header("authorization", &self.authorization);
        let request = request.config().timeout_global(Some(WAITING_DEADLINE)).build();
        self.read(&url, request.send_json(body))
    }

    /// PUT of a JSON body.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, ClientError> {
        let url = self.url(path);
        let request = self.agent.put(&url).header("authorization", &self.authorization);
        self.read(&url, request.send_json(body))
    }

    fn get_within<T: DeserializeOwned>(&self, path: &str, deadline: Duration) -> Result<T, ClientError> {
        let url = self.url(path);
        let request = self.agent.get(&url).header("authorization", &self.authorization);
        let request = request.config().timeout_global(Some(deadline)).build();
        self.read(&url, request.call())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn read<T: DeserializeOwned>(
        &self,
        url: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let unreachable = |cause: ureq::Error| ClientError::Unreachable {
            url: url.to_owned(),
            cause: cause.to_string(),
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(unreachable)?;
        if status.as_u16() == 401 {
            return Err(ClientError::Token(self.server.clone()));
        }
        let odd = |cause: String| ClientError::Answer {
            url: url.to_owned(),
            status: status.as_u16(),
            cause,
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| odd(e.to_string()));
        }
        Err(refusal(status.as_u16(), &body).unwrap_or_else(|| odd("no error object in the body".to_owned())))
    }
}

/// Billing's error object: `{"error":{"code","message","fault"}}`.
fn refusal(status: u16, body: &[u8]) -> Option<ClientError> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(ClientError::Refused {
        status,
        code: text("code")?,
        message: text("message")?,
        fault: text("fault")
            .map(|fault| format!(", fault: {fault}"))
            .unwrap_or_default(),
    })
}
