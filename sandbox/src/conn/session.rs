//! The task of one connection: logs in, then reads requests and ATTENTIONs while answers are written, both ways at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::ConnError;
use super::lane::{Ended, Lane};
use super::login;
use super::mars::Mars;
use super::reply::{CHUNKS_WAITING, Out};
use super::tls::TlsSetup;
use super::transport::Transport;
use crate::backend::Backends;
use crate::config::{Config, EncryptionPolicy};

/// From accept to LOGINACK.
const LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// From the decision to close to the last byte written.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Undecoded bytes past which the socket is not read.
const INPUT_MAX: usize = 256 * 1024;

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

/// Bytes that the system may hold for a client that does not read; it doubles them for its bookkeeping. By itself it would go
/// up to `tcp_wmem`, 4 MiB, and a thousand such clients would fill what TCP has of memory.
const SEND_BUFFER: usize = 256 * 1024;

/// Runs a connection to its end.
pub(crate) async fn serve(stream: TcpStream, spid: u16, shared: Arc<Shared>) -> Result<(), ConnError> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
    let mut transport = Transport::new(stream);
    let login = tokio::time::timeout(LOGIN_DEADLINE, login::login(&mut transport, spid, &shared));
    let info = login.await.map_err(|_| ConnError::LoginDeadline)??;
    transport.set_max_packet(info.packet_size);
    let stop = shared.stop.clone();
    let info = Arc::new(info);
    let sessions = if info.mars {
        Sessions::Many(Mars::new(info, Arc::clone(&shared)))
    } else {
        let server = shared.backends.connection(&info, &shared.config);
        let acknowledges = shared.backends.acknowledges_attention();
        Sessions::One(Box::new(Lane::start(&info, server, CHUNKS_WAITING, acknowledges)))
    };
    let mut session = Session {
        transport,
        sessions,
        closing: false,
    };
    let ended = tokio::select! {
        ended = session.run() => ended,
        () = stop.cancelled() => Ok(Ended::Close),
    };
    let Session {
        mut transport,
        sessions,
        ..
    } = session;
    // The threads are told to stop before the socket's last bytes are waited for.
    drop(sessions);
    match ended {
        Ok(Ended::Reset) => transport.reset(),
        Ok(Ended::Close) => {
            // A client that does not read must not hold the stop up.
            let _ = tokio::time::timeout(CLOSE_DEADLINE, transport.shutdown()).await;
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

/// One stream of requests, or those of SMP.
enum Sessions {
    One(Box<Lane>),
    Many(Mars),
}

struct Session {
    transport: Transport,
    sessions: Sessions,
    closing: bool,
}

impl Session {
    async fn run(&mut self) -> Result<Ended, ConnError> {
        loop {
            self.take_packets()?;
            if !self.closing {
                self.start_next()?;
            }
            self.send()?;
            if self.closing && !self.transport.has_output() {
                return Ok(Ended::Close);
            }
            let may_read = self.has_room() && self.transport.buffered() < INPUT_MAX && !self.closing;
            let has_output = self.transport.has_output();
            let Self {
                transport, sessions, ..
            } = self;
            tokio::select! {
                ready = transport.stream().readable(), if may_read => {
                    ready?;
                    transport.try_read()?;
                }
                ready = transport.stream().writable(), if has_output => {
                    ready?;
                    transport.try_write()?;
                }
                out = next_out(sessions), if !has_output => {
                    let Some((sid, out)) = out else {
                        return Ok(Ended::Close);
                    };
                    match self.took(sid, out) {
                        Some(Ended::Close) => self.closing = true,
                        Some(Ended::Reset) => return Ok(Ended::Reset),
                        None => {}
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        match &self.sessions {
            Sessions::One(lane) => lane.has_room(),
            // The windows bound what each session sends.
            Sessions::Many(_) => true,
        }
    }

    fn take_packets(&mut self) -> Result<(), ConnError> {
        match &mut self.sessions {
            Sessions::One(lane) => {
                while lane.has_room() {
                    let Some((header, body)) = self.transport.next_packet()? else {
                        return Ok(());
                    };
                    lane.take(&header, &body)?;
                }
                Ok(())
            }
            Sessions::Many(mars) => mars.take_packets(&mut self.transport),
        }
    }

    fn start_next(&mut self) -> Result<(), ConnError> {
        match &mut self.sessions {
            Sessions::One(lane) => lane.start_next(),
            Sessions::Many(mars) => mars.start_next(),
        }
    }

    /// Queues what waits and writes what the socket takes.
    fn send(&mut self) -> Result<(), ConnError> {
        match &mut self.sessions {
            Sessions::One(lane) => {
                while let Some(packets) = lane.next_chunk() {
                    self.transport.queue(packets)?;
                }
            }
            Sessions::Many(mars) => mars.send(&mut self.transport)?,
        }
        if self.transport.has_output() {
            self.transport.try_write()?;
        }
        Ok(())
    }

    fn took(&mut self, sid: u16, out: Out) -> Option<Ended> {
        match &mut self.sessions {
            Sessions::One(lane) => lane.took(out),
            Sessions::Many(mars) => mars.took(sid, out),
        }
    }
}

/// What the first of the running requests gives; `None` if its thread has ended.
async fn next_out(sessions: &mut Sessions) -> Option<(u16, Out)> {
    poll_fn(|context| match sessions {
        Sessions::One(lane) => lane.poll_out(context).map(|out| Some((0, out?))),
        Sessions::Many(mars) => {
            for (sid, lane) in mars.lanes() {
                if let Poll::Ready(out) = lane.poll_out(context) {
                    return Poll::Ready(out.map(|out| (sid, out)));
                }
            }
            Poll::Pending
        }
    })
    .await
}
