//! The task of one connection: logs in, then reads requests and ATTENTIONs while answers are written, both ways at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_tds::message::{FIRST_PACKET_ID, MessageBuf, write_message};
use weir_tds::packet::{PacketStatus, PacketType};

use super::cancel::Cancel;
use super::login::{self, LoginInfo};
use super::reply::{CHUNKS_WAITING, Out, Reply};
use super::tls::TlsSetup;
use super::transport::Transport;
use super::{ConnError, Request};
use crate::backend::{Backends, Serve};
use crate::config::{Config, EncryptionPolicy};
use crate::tokens;

/// From accept to LOGINACK.
const LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// From the decision to close to the last byte written.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of one request, ALL_HEADERS included.
const REQUEST_MAX: usize = 64 * 1024 * 1024;
/// Requests and ATTENTIONs that may wait behind the running one; past it the socket is not read.
const QUEUE_MAX: usize = 64;
/// Undecoded bytes past which the socket is not read.
const INPUT_MAX: usize = 256 * 1024;
/// Stack of a connection's thread: the T-SQL reader recurses to a bound.
const STACK: usize = 4 * 1024 * 1024;

/// What every connection uses.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Option<TlsSetup>,
    pub(crate) backends: Backends,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// The policy in force: without a certificate there is no TLS.
    pub(crate) fn encryption(&self) -> EncryptionPolicy {
        match self.tls {
            Some(_) => self.config.encryption,
            None => EncryptionPolicy::None,
        }
    }
}

/// Runs a connection to its end.
pub(crate) async fn serve(stream: TcpStream, spid: u16, shared: Arc<Shared>) -> Result<(), ConnError> {
    stream.set_nodelay(true)?;
    let mut transport = Transport::new(stream);
    let login = tokio::time::timeout(LOGIN_DEADLINE, login::login(&mut transport, spid, &shared));
    let info = login.await.map_err(|_| ConnError::LoginDeadline)??;
    transport.set_max_packet(info.packet_size);
    let stop = shared.stop.clone();
    let mut session = Session::start(transport, Arc::new(info), &shared);
    let ended = tokio::select! {
        ended = session.run() => ended,
        () = stop.cancelled() => Ok(End::Close),
    };
    session.cancel.cancel();
    match ended {
        Ok(End::Reset) => session.transport.reset(),
        Ok(End::Close) => {
            // A client that does not read must not hold the stop up.
            let _ = tokio::time::timeout(CLOSE_DEADLINE, session.transport.shutdown()).await;
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

enum End {
    Close,
    Reset,
}

enum Item {
    Request(Request),
    Attention,
}

struct Session {
    transport: Transport,
    info: Arc<LoginInfo>,
    message: MessageBuf,
    queue: VecDeque<Item>,
    running: bool,
    closing: bool,
    acknowledges: bool,
    requests: mpsc::Sender<Request>,
    out: mpsc::Receiver<Out>,
    cancel: Arc<Cancel>,
}

impl Session {
    fn start(transport: Transport, info: Arc<LoginInfo>, shared: &Arc<Shared>) -> Self {
        let cancel = Arc::new(Cancel::default());
        let (out_tx, out) = mpsc::channel(CHUNKS_WAITING);
        let (requests, request_rx) = mpsc::channel(1);
        let reply = Reply::new(info.packet_size, info.spid, out_tx, Arc::clone(&cancel));
        let acknowledges = shared.backends.acknowledges_attention();
        let server = shared.backends.connection(&info, &shared.config);
        let thread = std::thread::Builder::new()
            .name(format!("weir-sandbox-{}", info.spid))
            .stack_size(STACK);
        if let Err(error) = thread.spawn(move || serve_requests(server, request_rx, reply)) {
            // The dropped receiver ends the session at its first request.
            tracing::warn!(%error, "no thread for a connection");
        }
        let message = MessageBuf::new("request", REQUEST_MAX);
        Self {
            transport,
            info,
            message,
            queue: VecDeque::new(),
            running: false,
            closing: false,
            acknowledges,
            requests,
            out,
            cancel,
        }
    }

    async fn run(&mut self) -> Result<End, ConnError> {
        loop {
            self.take_packets()?;
            self.start_next()?;
            if self.closing && !self.transport.has_output() {
                return Ok(End::Close);
            }
            let may_read =
                self.queue.len() < QUEUE_MAX && self.transport.buffered() < INPUT_MAX && !self.closing;
            let has_output = self.transport.has_output();
            tokio::select! {
                ready = self.transport.stream().readable(), if may_read => {
                    ready?;
                    self.transport.try_read()?;
                }
                ready = self.transport.stream().writable(), if has_output => {
                    ready?;
                    self.transport.try_write()?;
                }
                out = self.out.recv(), if self.running && !has_output => match out {
                    Some(Out::Packets(packets)) => {
                        self.transport.queue(packets)?;
                        self.transport.try_write()?;
                    }
                    Some(Out::Done) => self.running = false,
                    Some(Out::Close) => self.closing = true,
                    Some(Out::Reset) => return Ok(End::Reset),
                    None => return Ok(End::Close),
                },
            }
        }
    }

    fn take_packets(&mut self) -> Result<(), ConnError> {
        while self.queue.len() < QUEUE_MAX {
            let Some((header, body)) = self.transport.next_packet()? else {
                return Ok(());
            };
            if header.kind == PacketType::Attention {
                self.queue.push_back(Item::Attention);
                if self.running {
                    self.cancel.cancel();
                }
                continue;
            }
            if self.message.push(&header, &body)? {
                let (kind, status) = (header.kind, self.message.first_status());
                let ignored = self.message.is_ignored();
                self.queue.push_back(Item::Request(Request {
                    kind,
                    status,
                    ignored,
                    body: self.message.take(),
                }));
            }
        }
        Ok(())
    }

    /// Hands over the next request, or answers ATTENTIONs whose turn has come.
    fn start_next(&mut self) -> Result<(), ConnError> {
        while !self.running && !self.closing {
            match self.queue.pop_front() {
                None => return Ok(()),
                Some(Item::Attention) if self.acknowledges => {
                    let body = tokens::attention_ack(self.info.version);
                    let mut out = BytesMut::new();
                    let (kind, status) = (PacketType::TabularResult, PacketStatus::NORMAL);
                    write_message(
                        &mut out,
                        kind,
                        status,
                        self.info.packet_size,
                        self.info.spid,
                        FIRST_PACKET_ID,
                        &body,
                    );
                    self.transport.queue(out.freeze())?;
                }
                Some(Item::Attention) => {}
                Some(Item::Request(request)) => {
                    // An ATTENTION that already waits behind this request is for it.
                    if self.queue.iter().any(|item| matches!(item, Item::Attention)) {
                        self.cancel.cancel();
                    } else {
                        self.cancel.clear();
                    }
                    self.requests.try_send(request).map_err(|_| ConnError::Closed)?;
                    self.running = true;
                }
            }
        }
        Ok(())
    }
}

/// The connection's thread: one request after the other.
fn serve_requests(mut server: Box<dyn Serve>, mut requests: mpsc::Receiver<Request>, mut reply: Reply) {
    while let Some(request) = requests.blocking_recv() {
        if server.serve(&request, &mut reply).is_err() || reply.send(Out::Done).is_err() {
            return;
        }
    }
}
