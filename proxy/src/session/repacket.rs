//! Messages cut anew where the packet sizes of the two legs differ; where they agree, packets pass as they came.
//!
//! Type kept, length derived, EOM on the last piece only, reset bits on the first only [MS-TDS 2.2.3.1.2]. Towards the
//! server every packet but the last is exactly as large as agreed: from 7.3 on a shorter one ends the connection
//! [MS-TDS 2.2.3].
//! Towards the client packets may be shorter, so nothing is held back there. A stream either way: at most a packet waits.

use bytes::{Bytes, BytesMut};
use weir_tds::{
    message::{FIRST_PACKET_ID, PacketWriter},
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
};

use super::{
    engine::SessionEnd,
    relay::{Context, Relay},
};

fn ours(error: impl ToString) -> SessionEnd {
    SessionEnd::Gate(error.to_string())
}

impl Relay {
    /// Sends a packet of the client's request to the server, as it came or cut anew.
    pub(super) fn send_up(&mut self, packet: Bytes, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let Some(header) = PacketHeader::parse(&packet).map_err(ours)? else {
            return Ok(());
        };
        let (last, size) = (header.status.is_eom(), cx.server.packet_size);
        let fits = header.length == size || last && header.length < size;
        if fits && self.recut.is_none() {
            return Ok(cx.server.send(packet)?);
        }
        let writer = self.recut.get_or_insert_with(|| {
            let mut writer = Box::new(PacketWriter::new(size, header.spid));
            writer.begin(header.kind, header.status);
            writer
        });
        writer.push(packet.get(HEADER_LEN..).unwrap_or_default());
        if last && header.status.contains(PacketStatus::IGNORE) {
            writer.finish_ignored();
        } else if last {
            writer.finish();
        }
        let mut ready = writer.take_ready();
        if last {
            self.recut = None;
        }
        // One by one: each packet is one TLS record where the leg is encrypted. Servers close on a packet that is cut
        // over records (tedious' issue 932, SqlClient's 2141, go-mssqldb's 166).
        while let Some(header) = PacketHeader::parse(&ready).map_err(ours)? {
            let packet = ready.split_to(usize::from(header.length).min(ready.len()));
            cx.server.send(packet.freeze())?;
        }
        Ok(())
    }

    /// Sends the server's front packet to the client, as it came or in pieces.
    pub(super) fn send_down(
        &mut self,
        header: &PacketHeader,
        cx: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let as_it_came = self.passes_as_it_came(header, cx);
        let packet = cx.server.take_packet(header);
        if as_it_came {
            self.note_sent(header);
            return Ok(cx.client.send(packet)?);
        }
        let eom = header.status.is_eom();
        self.send_pieces(packet.get(HEADER_LEN..).unwrap_or_default(), eom, cx)
    }

    /// True if the server's front packet may go to the client unchanged: it is not too long, and its id follows.
    pub(super) fn passes_as_it_came(&self, header: &PacketHeader, cx: &Context<'_>) -> bool {
        let in_order = !self.mid_message || header.packet_id == self.next_packet_id;
        header.length <= cx.client.packet_size && in_order
    }

    /// A packet of the server goes to the client unchanged.
    pub(super) fn note_sent(&mut self, header: &PacketHeader) {
        self.next_packet_id = header.packet_id.wrapping_add(1);
        self.mid_message = !header.status.is_eom();
    }

    /// Sends body bytes of the client's message in packets of the client's size, their ids going on from the last.
    pub(super) fn send_pieces(
        &mut self,
        body: &[u8],
        eom: bool,
        cx: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let room = usize::from(cx.client.packet_size)
            .saturating_sub(HEADER_LEN)
            .max(1);
        let mut packets = BytesMut::with_capacity(body.len() + (body.len() / room + 1) * HEADER_LEN);
        let mut rest = body;
        loop {
            let (piece, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            let last = eom && later.is_empty();
            let header = PacketHeader {
                kind: PacketType::TabularResult,
                status: if last {
                    PacketStatus::EOM
                } else {
                    PacketStatus::NORMAL
                },
                length: u16::try_from(piece.len() + HEADER_LEN).map_err(ours)?,
                spid: self.spid,
                packet_id: if self.mid_message {
                    self.next_packet_id
                } else {
                    FIRST_PACKET_ID
                },
            };
            packets.extend_from_slice(&header.encode());
            packets.extend_from_slice(piece);
            self.next_packet_id = header.packet_id.wrapping_add(1);
            self.mid_message = !last;
            cx.client.send(packets.split().freeze())?;
            if later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
    }
}
