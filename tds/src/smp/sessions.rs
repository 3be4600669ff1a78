//! All SMP sessions of one connection at one end: opening, finding and closing them [MC-SMP 3.2, 3.3].

use super::{SMP_HEADER_LEN, SmpError, SmpFlag, SmpHeader, WINDOW, Window};

/// Most sessions on one connection that an end of ours takes. Drivers open one per command that runs at the same time.
pub const SESSIONS_MAX: usize = 64;

/// Which end this is. Only the client opens sessions [MC-SMP 3.3.2.2].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Opens sessions.
    Client,
    /// Has sessions opened to it.
    Server,
}

/// What a packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// SYN: the session is open; nothing is answered.
    Opened(u16),
    /// DATA: this many bytes behind the header are the session's.
    Data(u16, usize),
    /// DATA behind this end's FIN: this many bytes behind the header are nobody's.
    Ignored(u16, usize),
    /// ACK: the session may perhaps send more.
    Acknowledged(u16),
    /// FIN: nothing more comes; the session is closed once this end says FIN too.
    Finished(u16),
}

/// The sessions of one connection.
#[derive(Debug)]
pub struct Sessions {
    end: End,
    sessions_max: usize,
    length_max: u32,
    /// In the order of their numbers; both searches and the limit keep this cheap.
    open: Vec<Window>,
}

impl Sessions {
    /// No session yet. DATA may carry at most `data_max` bytes: the agreed packet size, since SQL Server and its
    /// drivers send one TDS packet in each.
    #[must_use]
    pub fn new(end: End, data_max: u16) -> Self {
        Self {
            end,
            sessions_max: SESSIONS_MAX,
            length_max: u32::from(data_max) + 16,
            open: Vec::new(),
        }
    }

    /// The same with another limit of sessions.
    #[must_use]
    pub fn with_limit(mut self, sessions_max: usize) -> Self {
        self.sessions_max = sessions_max;
        self
    }

    /// The header at the head of `buf`; `None` while it is not whole. The packet itself may be not whole yet.
    ///
    /// # Errors
    /// A broken header, or DATA longer than this end takes: known before anything is buffered for it.
    pub fn peek(&self, buf: &[u8]) -> Result<Option<SmpHeader>, SmpError> {
        let header = SmpHeader::parse(buf)?;
        match header {
            Some(SmpHeader { length, .. }) if length > self.length_max => Err(SmpError::Length {
                length,
                least: 16,
                most: self.length_max,
            }),
            header => Ok(header),
        }
    }

    /// Takes note of a packet that is there as a whole.
    ///
    /// # Errors
    /// When the peer breaks the rules: the connection cannot go on.
    pub fn receive(&mut self, header: &SmpHeader) -> Result<Received, SmpError> {
        let sid = header.sid;
        if header.flag == SmpFlag::Syn {
            return self.opened(header);
        }
        let at = self.find(sid).map_err(|_| SmpError::UnknownSession(sid))?;
        let Some(window) = self.open.get_mut(at) else {
            return Err(SmpError::UnknownSession(sid));
        };
        Ok(match header.flag {
            SmpFlag::Data => {
                let len = usize::try_from(header.length)
                    .unwrap_or(usize::MAX)
                    .saturating_sub(SMP_HEADER_LEN);
                if window.on_data(header)? {
                    Received::Data(sid, len)
                } else {
                    Received::Ignored(sid, len)
                }
            }
            SmpFlag::Ack => {
                window.on_ack(header)?;
                Received::Acknowledged(sid)
            }
            SmpFlag::Fin | SmpFlag::Syn => {
                window.on_fin()?;
                self.forget_if_closed(at);
                Received::Finished(sid)
            }
        })
    }

    fn opened(&mut self, header: &SmpHeader) -> Result<Received, SmpError> {
        let SmpHeader {
            sid, seqnum, window, ..
        } = *header;
        if self.end == End::Client {
            return Err(SmpError::SynFromServer(sid));
        }
        if seqnum != 0 {
            return Err(SmpError::SynNumbered { sid, seqnum });
        }
        self.insert(sid, window)?;
        Ok(Received::Opened(sid))
    }

    /// Opens a session from the client's end: answers the SYN to send.
    ///
    /// # Errors
    /// When the session is open, or there are too many.
    pub fn open(&mut self, sid: u16) -> Result<SmpHeader, SmpError> {
        self.insert(sid, WINDOW)?;
        Ok(SmpHeader::control(SmpFlag::Syn, sid, 0, WINDOW))
    }

    fn insert(&mut self, sid: u16, peer_takes: u32) -> Result<(), SmpError> {
        let Err(at) = self.find(sid) else {
            return Err(SmpError::AlreadyOpen(sid));
        };
        if self.open.len() >= self.sessions_max {
            let limit = self.sessions_max;
            return Err(SmpError::TooManySessions { limit });
        }
        self.open.insert(at, Window::new(sid, peer_takes));
        Ok(())
    }

    /// This end's FIN for a session, to be sent; `None` if it is closed or was sent before.
    pub fn fin(&mut self, sid: u16) -> Option<SmpHeader> {
        let at = self.find(sid).ok()?;
        let fin = self.open.get_mut(at)?.fin();
        self.forget_if_closed(at);
        fin
    }

    /// A session's windows; `None` once it is closed.
    pub fn window(&mut self, sid: u16) -> Option<&mut Window> {
        let at = self.find(sid).ok()?;
        self.open.get_mut(at)
    }

    /// Sessions that are not closed by both sides.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn find(&self, sid: u16) -> Result<usize, usize> {
        self.open.binary_search_by_key(&sid, Window::sid)
    }

    fn forget_if_closed(&mut self, at: usize) {
        if self.open.get(at).is_some_and(Window::is_closed) {
            self.open.remove(at);
        }
    }
}
