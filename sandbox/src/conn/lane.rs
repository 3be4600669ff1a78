//! One stream of requests and answers: a whole connection, or one SMP session of a MARS connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;
use weir_tds::message::{FIRST_PACKET_ID, MessageBuf, write_message};
use weir_tds::packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType};

use super::cancel::Cancel;
use super::login::LoginInfo;
use super::reply::{Out, Reply};
use super::{ConnError, Request};
use crate::backend::Serve;
use crate::tokens;

/// Bytes of one request, ALL_HEADERS included.
const REQUEST_MAX: usize = 64 * 1024 * 1024;
/// Requests and ATTENTIONs that may wait behind the running one; past it nothing more is read.
const QUEUE_MAX: usize = 64;
/// Stack of a lane's thread: the T-SQL reader recurses to a bound.
const STACK: usize = 4 * 1024 * 1024;

enum Item {
    Request(Request),
    Attention,
}

/// Requests in, answers out, in order; the thread that runs them.
pub(super) struct Lane {
    info: Arc<LoginInfo>,
    message: MessageBuf,
    queue: VecDeque<Item>,
    running: bool,
    acknowledges: bool,
    requests: mpsc::Sender<Request>,
    out: mpsc::Receiver<Out>,
    cancel: Arc<Cancel>,
    /// Whole packets that wait for their way out.
    waiting: VecDeque<Bytes>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Lane {
    /// `chunks`: how many chunks of an answer may wait between its thread and the connection's task.
    pub(super) fn start(
        info: &Arc<LoginInfo>,
        server: Box<dyn Serve>,
        chunks: usize,
        acknowledges: bool,
    ) -> Self {
        let cancel = Arc::new(Cancel::default());
        let (out_tx, out) = mpsc::channel(chunks);
        let (requests, request_rx) = mpsc::channel(1);
        let reply = Reply::new(info.packet_size, info.spid, out_tx, Arc::clone(&cancel));
        let thread = std::thread::Builder::new()
            .name(format!("weir-sandbox-{}", info.spid))
            .stack_size(STACK);
        if let Err(error) = thread.spawn(move || serve_requests(server, request_rx, reply)) {
            // The dropped receiver ends the connection at the first request.
            tracing::warn!(%error, "no thread for a connection");
        }
        Self {
            info: Arc::clone(info),
            message: MessageBuf::new("request", REQUEST_MAX),
            queue: VecDeque::new(),
            running: false,
            acknowledges,
            requests,
            out,
            cancel,
            waiting: VecDeque::new(),
        }
    }

    /// True while one more packet may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_MAX
    }

    /// Takes a whole packet.
    pub(super) fn take(&mut self, header: &PacketHeader, body: &[u8]) -> Result<(), ConnError> {
        if header.kind == PacketType::Attention {
            self.queue.push_back(Item::Attention);
            if self.running {
                self.cancel.cancel();
            }
            return Ok(());
        }
        if self.message.push(header, body)? {
            let (kind, status) = (header.kind, self.message.first_status());
            let ignored = self.message.is_ignored();
            self.queue.push_back(Item::Request(Request {
                kind,
                status,
                ignored,
                body: self.message.take(),
            }));
        }
        Ok(())
    }

    /// Hands over the next request, or answers ATTENTIONs whose turn has come.
    pub(super) fn start_next(&mut self) -> Result<(), ConnError> {
        while !self.running {
            match self.queue.pop_front() {
                None => return Ok(()),
                Some(Item::Attention) if self.acknowledges => self.acknowledge(),
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

    fn acknowledge(&mut self) {
        let body = tokens::attention_ack(self.info.version);
        let mut out = BytesMut::new();
        write_message(
            &mut out,
            PacketType::TabularResult,
            PacketStatus::NORMAL,
            self.info.packet_size,
            self.info.spid,
            FIRST_PACKET_ID,
            &body,
        );
        self.waiting.push_back(out.freeze());
    }

    /// What the running request gives next; asks for nothing while what it gave still waits.
    pub(super) fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<Option<Out>> {
        if !self.running || !self.waiting.is_empty() {
            return Poll::Pending;
        }
        self.out.poll_recv(context)
    }

    /// Takes in what `poll_out` gave; a close is the connection's to do.
    pub(super) fn took(&mut self, out: Out) -> Option<Ended> {
        match out {
            Out::Packets(packets) => self.waiting.push_back(packets),
            Out::Done => self.running = false,
            Out::Close => return Some(Ended::Close),
            Out::Reset => return Some(Ended::Reset),
        }
        None
    }

    /// All packets that wait, one chunk at a time.
    pub(super) fn next_chunk(&mut self) -> Option<Bytes> {
        self.waiting.pop_front()
    }

    /// Length of the first packet that waits.
    pub(super) fn next_packet_len(&self) -> Option<usize> {
        let chunk = self.waiting.front()?;
        let stated = match **chunk {
            [_, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
            // A script's raw bytes need not be a packet.
            _ => chunk.len(),
        };
        Some(stated.clamp(HEADER_LEN.min(chunk.len()), chunk.len()))
    }

    /// The first packet that waits.
    pub(super) fn next_packet(&mut self) -> Option<Bytes> {
        let length = self.next_packet_len()?;
        let chunk = self.waiting.front_mut()?;
        let packet = chunk.split_to(length);
        if !chunk.has_remaining() {
            self.waiting.pop_front();
        }
        Some(packet)
    }
}

/// How a script ended a connection.
pub(super) enum Ended {
    Close,
    Reset,
}

/// The lane's thread: one request after the other.
fn serve_requests(mut server: Box<dyn Serve>, mut requests: mpsc::Receiver<Request>, mut reply: Reply) {
    while let Some(request) = requests.blocking_recv() {
        if server.serve(&request, &mut reply).is_err() || reply.send(Out::Done).is_err() {
            return;
        }
    }
}
