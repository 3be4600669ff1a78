//! A client or a server that speaks SMP to the gate: wraps what a script says, and takes what the gate answers apart.

use std::collections::BTreeMap;

use weir_tds::packet::PACKET_SIZE_MAX;
use weir_tds::smp::{End, Received, SMP_HEADER_LEN, Sessions};

/// One side of a connection with MARS.
pub(super) struct Peer {
    end: End,
    sessions: Sessions,
    /// Bytes of what the gate wrote that were taken apart.
    parsed: usize,
    /// The script sent bytes past this peer: what the gate answers is not looked at any more.
    bypassed: bool,
    data: BTreeMap<u16, Vec<u8>>,
}

impl Peer {
    pub(super) fn new(end: End) -> Self {
        Self {
            end,
            sessions: Sessions::new(end, PACKET_SIZE_MAX),
            parsed: 0,
            bypassed: false,
            data: BTreeMap::new(),
        }
    }

    pub(super) const fn bypass(&mut self) {
        self.bypassed = true;
    }

    /// True if the script sent bytes past this peer: then it has not taken everything apart.
    pub(super) const fn is_bypassed(&self) -> bool {
        self.bypassed
    }

    /// The bytes that carry `packet` in session `sid`; a client opens it first. Nothing where the session is not open or the
    /// gate takes no more of it.
    pub(super) fn wrap(&mut self, sid: u16, packet: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.end == End::Client
            && self.sessions.window(sid).is_none()
            && let Ok(syn) = self.sessions.open(sid)
        {
            out.extend(syn.encode());
        }
        if let Some(header) = self
            .sessions
            .window(sid)
            .and_then(|window| window.data(packet.len()))
        {
            out.extend(header.encode());
            out.extend_from_slice(packet);
        }
        out
    }

    /// This side's FIN.
    pub(super) fn fin(&mut self, sid: u16) -> Vec<u8> {
        self.sessions
            .fin(sid)
            .map_or_else(Vec::new, |fin| fin.encode().to_vec())
    }

    /// Takes apart what the gate wrote since; answers what this side has to say to it.
    ///
    /// # Panics
    /// When the gate does not speak SMP as it must.
    pub(super) fn absorb(&mut self, stream: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !self.bypassed {
            let rest = &stream[self.parsed..];
            let header = self
                .sessions
                .peek(rest)
                .unwrap_or_else(|e| panic!("the gate wrote to the {:?}: {e}", self.end));
            let Some(header) = header.filter(|h| rest.len() >= SMP_HEADER_LEN + h.data_len()) else {
                break;
            };
            let data = &rest[SMP_HEADER_LEN..SMP_HEADER_LEN + header.data_len()];
            self.parsed += SMP_HEADER_LEN + data.len();
            match self.sessions.receive(&header) {
                Ok(Received::Data(sid, _)) => {
                    self.data.entry(sid).or_default().extend_from_slice(data);
                    if let Some(window) = self.sessions.window(sid) {
                        window.taken(0);
                        out.extend(window.acknowledge().map(|ack| ack.encode()).into_iter().flatten());
                    }
                }
                Ok(Received::Finished(sid)) => out.extend(self.fin(sid)),
                Ok(_) => {}
                Err(error) => panic!("the gate wrote to the {:?}: {error}, {header:?}", self.end),
            }
        }
        out
    }

    /// What the gate sent in each session.
    pub(super) const fn data(&self) -> &BTreeMap<u16, Vec<u8>> {
        &self.data
    }
}
