//! The way back: token bytes from the thread that runs a request, cut into packets, over a bounded channel.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use weir_tds::build::TokenBuf;
use weir_tds::message::PacketWriter;
use weir_tds::packet::{PacketStatus, PacketType};

use super::cancel::Cancel;

/// Packet bytes gathered before they are handed to the connection's task.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for the socket: with [`CHUNK`] the bound of what a result holds in memory.
pub(crate) const CHUNKS_WAITING: usize = 4;

/// The same where the sessions of a connection share one backend: a result whose client does not read must not keep the
/// others waiting, so up to 64 MiB of it are held.
pub(crate) const CHUNKS_WAITING_SHARED: usize = 1024;

/// What the running side tells the connection's task.
#[derive(Debug)]
pub(crate) enum Out {
    /// Whole packets.
    Packets(Bytes),
    /// The request is done; its message has ended (or, by a script, never will).
    Done,
    /// Close the connection when what was sent is written.
    Close,
    /// Reset the connection now.
    Reset,
}

/// The request is to stop, or nobody is there to read its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// An ATTENTION came.
    Cancelled,
    /// The connection has gone.
    Gone,
}

/// Where a response is written. Made on the runtime, used on a thread of its own.
#[derive(Debug)]
pub(crate) struct Reply {
    writer: PacketWriter,
    out: mpsc::Sender<Out>,
    cancel: Arc<Cancel>,
    runtime: Handle,
}

impl Reply {
    pub(crate) fn new(packet_size: u16, spid: u16, out: mpsc::Sender<Out>, cancel: Arc<Cancel>) -> Self {
        Self {
            writer: PacketWriter::new(packet_size, spid),
            out,
            cancel,
            runtime: Handle::current(),
        }
    }

    /// Starts the response message.
    pub(crate) fn begin(&mut self) {
        self.writer.begin(PacketType::TabularResult, PacketStatus::NORMAL);
    }

    pub(crate) fn cancel(&self) -> &Arc<Cancel> {
        &self.cancel
    }

    /// Takes token bytes (emptying `tokens`) and hands on what is a chunk. Blocks while the client does not read.
    pub(crate) fn push(&mut self, tokens: &mut TokenBuf) -> Result<(), Stopped> {
        self.writer.push(tokens.as_bytes());
        tokens.clear();
        if self.writer.ready_len() >= CHUNK {
            self.hand_on()
        } else {
            Ok(())
        }
    }

    /// As [`push`](Self::push), and stops if the request was cancelled: for streams.
    pub(crate) fn stream(&mut self, tokens: &mut TokenBuf) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            tokens.clear();
            return Err(Stopped::Cancelled);
        }
        self.push(tokens)
    }

    /// Sends what is there as a short packet.
    pub(crate) fn flush(&mut self) -> Result<(), Stopped> {
        self.writer.flush();
        self.hand_on()
    }

    /// Ends the message.
    pub(crate) fn finish(&mut self) -> Result<(), Stopped> {
        self.writer.finish();
        self.hand_on()
    }

    /// Sends bytes as they are, outside every message.
    pub(crate) fn raw(&mut self, bytes: Bytes) -> Result<(), Stopped> {
        self.send(Out::Packets(bytes))
    }

    /// Waits until nobody is there to read: for servers that never answer.
    pub(crate) fn wait_gone(&mut self) {
        self.runtime.block_on(self.out.closed());
    }

    pub(crate) fn send(&mut self, out: Out) -> Result<(), Stopped> {
        self.out.blocking_send(out).map_err(|_| Stopped::Gone)
    }

    fn hand_on(&mut self) -> Result<(), Stopped> {
        let ready = self.writer.take_ready();
        if ready.is_empty() {
            Ok(())
        } else {
            self.send(Out::Packets(ready.freeze()))
        }
    }
}
