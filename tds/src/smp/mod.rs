//! SMP [MC-SMP], the layer that carries MARS: its 16-byte header, and the sessions that share one connection.
//!
//! Pure and usable by either end: `header.rs` is the codec, `window.rs` one session's numbers at one end, `sessions.rs`
//! all sessions of one connection at one end. Bytes stay with the caller.
//!
//! What comes in: look at the buffer with [`Sessions::peek`]; once the whole packet is there ([`SmpHeader::length`]
//! bytes), tell it to [`Sessions::receive`], which says what it was. Tell [`Window::taken`] how much of a session's
//! bytes is still waiting, and send what [`Window::acknowledge`] gives. What goes out: [`Window::data`] gives the header
//! of the next DATA while the peer's window allows one. SMP begins with the first byte behind the login response.

mod header;
mod sessions;
mod window;

pub use header::{SMID, SMP_HEADER_LEN, SmpFlag, SmpHeader};
pub use sessions::{End, Received, SESSIONS_MAX, Sessions};
pub use window::{ACKNOWLEDGE_AFTER, WINDOW, Window};

/// What a peer did wrong. Each ends the connection, with all of its sessions [MC-SMP 3.1.5.1].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SmpError {
    /// The first byte of a packet is not 0x53 [MC-SMP 2.2.1.1].
    #[error("SMP: a packet begins with 0x{0:02x} instead of 0x53")]
    Smid(u8),
    /// FLAGS is none of the four, or several of them [MC-SMP 2.2.1.1].
    #[error("SMP: flags 0x{0:02x} are not exactly one of SYN, ACK, FIN, DATA")]
    Flags(u8),
    /// LENGTH is below 16, above it for a packet without data, or above what this end takes.
    #[error("SMP: length {length} is outside {least}..={most}")]
    Length {
        /// As stated by the header.
        length: u32,
        /// Least allowed here.
        least: u32,
        /// Most allowed here.
        most: u32,
    },
    /// SYN came to the end that opens sessions itself [MC-SMP 3.3.2.2].
    #[error("SMP: session {0} was opened by the end that may not")]
    SynFromServer(u16),
    /// SYN on a session that is open, or that was closed by one side only.
    #[error("SMP: session {0} was opened twice")]
    AlreadyOpen(u16),
    /// SYN with a SEQNUM.
    #[error("SMP: session {sid} was opened with sequence number {seqnum}")]
    SynNumbered {
        /// The session.
        sid: u16,
        /// As stated.
        seqnum: u32,
    },
    /// More sessions than [`SESSIONS_MAX`], or than the caller allows.
    #[error("SMP: more than {limit} sessions on one connection")]
    TooManySessions {
        /// The limit.
        limit: usize,
    },
    /// A packet for a session that nobody opened.
    #[error("SMP: session {0} is not open")]
    UnknownSession(u16),
    /// A packet of a peer that had said FIN already.
    #[error("SMP: session {0} went on behind its FIN")]
    AfterFin(u16),
    /// SEQNUM is not the next one (DATA), or not the last one (ACK).
    #[error("SMP: session {sid} sent sequence number {seqnum} instead of {expected}")]
    Sequence {
        /// The session.
        sid: u16,
        /// As stated.
        seqnum: u32,
        /// What it had to be.
        expected: u32,
    },
    /// More DATA than was allowed.
    #[error("SMP: session {sid} sent sequence number {seqnum} beyond its window {window}")]
    BeyondWindow {
        /// The session.
        sid: u16,
        /// As stated.
        seqnum: u32,
        /// The last that was allowed.
        window: u32,
    },
    /// A window was taken back.
    #[error("SMP: session {sid} took its window back from {from} to {to}")]
    WindowBack {
        /// The session.
        sid: u16,
        /// As allowed before.
        from: u32,
        /// As stated.
        to: u32,
    },
}
