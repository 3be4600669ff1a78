//! One SMP session at one end: sequence numbers, windows in both directions, FIN [MC-SMP 3.1].

use super::{SmpError, SmpFlag, SmpHeader};

/// DATA packets that either side may have on their way at first [MC-SMP 3.1.3.1]; this end never allows more, so that
/// what waits of a session is bounded.
pub const WINDOW: u32 = 4;
/// A window that rose by so much without being told is told by an ACK of its own: half a window, so that a peer that
/// only sends is never stopped while its packets are taken.
pub const ACKNOWLEDGE_AFTER: u32 = 2;

/// One session at one end. 40 bytes.
#[derive(Debug, Clone)]
pub struct Window {
    sid: u16,
    fin_sent: bool,
    fin_received: bool,
    /// Number of the last DATA sent, and the last that the peer takes.
    sent: u32,
    peer_takes: u32,
    /// Number of the last DATA received, the last that the peer was told, and the last that it may be told.
    received: u32,
    told: u32,
    grants: u32,
    /// Lengths of the DATA that wait to be taken, oldest first. The window keeps them to [`WINDOW`].
    waiting: [u32; WINDOW as usize],
    waits: usize,
}

/// True if `number` lies behind `of` on the ring of 2^32 numbers.
const fn is_behind(number: u32, of: u32) -> bool {
    number.wrapping_sub(of) > u32::MAX / 2
}

impl Window {
    pub(super) const fn new(sid: u16, peer_takes: u32) -> Self {
        Self {
            sid,
            fin_sent: false,
            fin_received: false,
            sent: 0,
            peer_takes,
            received: 0,
            told: WINDOW,
            grants: WINDOW,
            waiting: [0; WINDOW as usize],
            waits: 0,
        }
    }

    /// The session's number.
    #[must_use]
    pub const fn sid(&self) -> u16 {
        self.sid
    }

    /// True if the peer takes one more DATA now.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        !self.fin_sent && !self.fin_received && self.sent != self.peer_takes
    }

    /// True once this end has said FIN.
    #[must_use]
    pub const fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    /// True once the peer has said FIN.
    #[must_use]
    pub const fn fin_received(&self) -> bool {
        self.fin_received
    }

    /// The header of the next DATA with `len` bytes; `None` while the peer takes no more. Tells the window as well.
    pub fn data(&mut self, len: usize) -> Option<SmpHeader> {
        if !self.can_send() {
            return None;
        }
        let length = u32::try_from(len.checked_add(super::SMP_HEADER_LEN)?).ok()?;
        self.sent = self.sent.wrapping_add(1);
        self.told = self.grants;
        Some(SmpHeader {
            flag: SmpFlag::Data,
            sid: self.sid,
            length,
            seqnum: self.sent,
            window: self.grants,
        })
    }

    /// Of the session's bytes, `left` are still waiting to be taken: the window rises by the DATA that are gone.
    ///
    /// Bytes of a TDS packet that is not whole count as taken, or a packet spread over more DATA than the window allows
    /// would never become whole.
    pub fn taken(&mut self, left: usize) {
        let mut waiting: usize = self
            .waiting
            .iter()
            .take(self.waits)
            .map(|&len| len as usize)
            .sum();
        while self.waits > 0 {
            let rest = waiting.saturating_sub(self.waiting.first().map_or(0, |&len| len as usize));
            if rest < left {
                return;
            }
            waiting = rest;
            self.waiting.rotate_left(1);
            self.waits -= 1;
            self.grants = self.grants.wrapping_add(1);
        }
    }

    /// The ACK that is due, if one is: the window rose and no DATA told it.
    pub fn acknowledge(&mut self) -> Option<SmpHeader> {
        let untold = self.grants.wrapping_sub(self.told);
        if untold < ACKNOWLEDGE_AFTER || self.fin_sent || self.fin_received {
            return None;
        }
        self.told = self.grants;
        Some(SmpHeader::control(SmpFlag::Ack, self.sid, self.sent, self.grants))
    }

    /// This end's FIN; `None` if it was sent before.
    pub(super) fn fin(&mut self) -> Option<SmpHeader> {
        if std::mem::replace(&mut self.fin_sent, true) {
            return None;
        }
        Some(SmpHeader::control(SmpFlag::Fin, self.sid, self.sent, self.grants))
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.fin_sent && self.fin_received
    }

    /// DATA came. True if its bytes count; after this end's FIN they are thrown away [MC-SMP 3.1.5.1].
    pub(super) fn on_data(&mut self, header: &SmpHeader) -> Result<bool, SmpError> {
        self.not_behind_fin()?;
        let (sid, seqnum, expected) = (self.sid, header.seqnum, self.received.wrapping_add(1));
        if seqnum != expected {
            return Err(SmpError::Sequence {
                sid,
                seqnum,
                expected,
            });
        }
        let window = self.told;
        if is_behind(window, seqnum) {
            return Err(SmpError::BeyondWindow { sid, seqnum, window });
        }
        self.raise(header.window)?;
        self.received = seqnum;
        if self.fin_sent {
            return Ok(false);
        }
        if let Some(slot) = self.waiting.get_mut(self.waits) {
            *slot = header.length.saturating_sub(16);
            self.waits += 1;
        }
        Ok(true)
    }

    /// ACK came: it repeats the number of the last DATA.
    pub(super) fn on_ack(&mut self, header: &SmpHeader) -> Result<(), SmpError> {
        self.not_behind_fin()?;
        let (sid, seqnum, expected) = (self.sid, header.seqnum, self.received);
        if seqnum != expected {
            return Err(SmpError::Sequence {
                sid,
                seqnum,
                expected,
            });
        }
        self.raise(header.window)
    }

    /// FIN came. Nothing depends on its numbers any more, so they are not looked at.
    pub(super) fn on_fin(&mut self) -> Result<(), SmpError> {
        self.not_behind_fin()?;
        self.fin_received = true;
        Ok(())
    }

    const fn not_behind_fin(&self) -> Result<(), SmpError> {
        if self.fin_received {
            return Err(SmpError::AfterFin(self.sid));
        }
        Ok(())
    }

    fn raise(&mut self, to: u32) -> Result<(), SmpError> {
        let from = self.peer_takes;
        if is_behind(to, from) {
            return Err(SmpError::WindowBack {
                sid: self.sid,
                from,
                to,
            });
        }
        self.peer_takes = to;
        Ok(())
    }
}
