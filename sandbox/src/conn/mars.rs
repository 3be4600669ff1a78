//! MARS, the server's end: SMP sessions [MC-SMP 3.2], each with a lane of its own, over one login.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use weir_tds::framer::{Frame, Framer};
use weir_tds::packet::HEADER_LEN;
use weir_tds::smp::{End, Received, SMP_HEADER_LEN, Sessions};

use super::ConnError;
use super::lane::{Ended, Lane};
use super::login::LoginInfo;
use super::reply::{CHUNK, CHUNKS_WAITING, CHUNKS_WAITING_SHARED, Out};
use super::session::Shared;
use super::transport::Transport;
use crate::backend::Group;

/// One SMP session.
struct Member {
    lane: Lane,
    framer: Framer,
    /// Bytes of the session that are no whole packet yet, or that its lane has no room for.
    input: BytesMut,
}

/// The sessions of one connection.
pub(super) struct Mars {
    info: Arc<LoginInfo>,
    shared: Arc<Shared>,
    group: Group,
    smp: Sessions,
    members: BTreeMap<u16, Member>,
    /// The session that was served last: the next turn begins behind it.
    turn: u16,
}

impl Mars {
    pub(super) fn new(info: Arc<LoginInfo>, shared: Arc<Shared>) -> Self {
        let group = shared.backends.group(&info, &shared.config);
        Self {
            smp: Sessions::new(End::Server, info.packet_size),
            info,
            shared,
            group,
            members: BTreeMap::new(),
            turn: 0,
        }
    }

    pub(super) fn lanes(&mut self) -> impl Iterator<Item = (u16, &mut Lane)> {
        self.members.iter_mut().map(|(sid, m)| (*sid, &mut m.lane))
    }

    /// Deals what has come out to the sessions, and tells the windows that rose.
    pub(super) fn take_packets(&mut self, transport: &mut Transport) -> Result<(), ConnError> {
        transport.decrypt()?;
        while let Some(header) = self.smp.peek(transport.input())? {
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            if transport.input().len() < length {
                break;
            }
            let mut packet = transport.input().split_to(length);
            packet.advance(SMP_HEADER_LEN);
            match self.smp.receive(&header)? {
                Received::Opened(sid) => self.open(sid),
                Received::Data(sid, _) => {
                    if let Some(member) = self.members.get_mut(&sid) {
                        member.input.unsplit(packet);
                    }
                }
                Received::Ignored(..) | Received::Acknowledged(_) => {}
                Received::Finished(sid) => {
                    // Its request, if one runs, is cancelled with the lane.
                    self.members.remove(&sid);
                    if let Some(fin) = self.smp.fin(sid) {
                        transport.queue(BytesMut::from(&fin.encode()[..]).freeze())?;
                    }
                }
            }
        }
        for (sid, member) in &mut self.members {
            member.take_packets()?;
            let Some(window) = self.smp.window(*sid) else {
                continue;
            };
            window.taken(if member.lane.has_room() {
                0
            } else {
                member.input.len()
            });
            if let Some(ack) = window.acknowledge() {
                transport.queue(BytesMut::from(&ack.encode()[..]).freeze())?;
            }
        }
        Ok(())
    }

    fn open(&mut self, sid: u16) {
        let (server, chunks) = self
            .shared
            .backends
            .member(&self.group, &self.info, &self.shared.config);
        let acknowledges = self.shared.backends.acknowledges_attention();
        let chunks = if chunks {
            CHUNKS_WAITING_SHARED
        } else {
            CHUNKS_WAITING
        };
        let member = Member {
            lane: Lane::start(&self.info, server, chunks, acknowledges),
            framer: Framer::new(self.info.packet_size),
            input: BytesMut::new(),
        };
        self.members.insert(sid, member);
    }

    pub(super) fn start_next(&mut self) -> Result<(), ConnError> {
        self.members
            .values_mut()
            .try_for_each(|member| member.lane.start_next())
    }

    /// Queues one packet of each session in turn, as far as their windows allow.
    pub(super) fn send(&mut self, transport: &mut Transport) -> Result<(), ConnError> {
        let mut sent = true;
        while sent && transport.output_len() < CHUNK {
            sent = false;
            let behind = self.turn.checked_add(1);
            let order: Vec<u16> = behind
                .into_iter()
                .flat_map(|from| self.members.range(from..))
                .chain(self.members.range(..=self.turn))
                .map(|(sid, _)| *sid)
                .collect();
            for sid in order {
                let (Some(member), Some(window)) = (self.members.get_mut(&sid), self.smp.window(sid)) else {
                    continue;
                };
                let Some(header) = member.lane.next_packet_len().and_then(|len| window.data(len)) else {
                    continue;
                };
                let Some(packet) = member.lane.next_packet() else {
                    continue;
                };
                // One DATA is one TLS record, as SQL Server sends it.
                let mut data = BytesMut::with_capacity(SMP_HEADER_LEN + packet.len());
                data.extend_from_slice(&header.encode());
                data.extend_from_slice(&packet);
                transport.queue(data.freeze())?;
                self.turn = sid;
                sent = true;
            }
        }
        Ok(())
    }

    pub(super) fn took(&mut self, sid: u16, out: Out) -> Option<Ended> {
        self.members.get_mut(&sid)?.lane.took(out)
    }
}

impl Member {
    fn take_packets(&mut self) -> Result<(), ConnError> {
        while self.lane.has_room() {
            let Frame::Packet(header) = self.framer.next(&self.input)? else {
                return Ok(());
            };
            let packet = self.input.split_to(usize::from(header.length));
            self.lane
                .take(&header, packet.get(HEADER_LEN..).unwrap_or_default())?;
        }
        Ok(())
    }
}
