//! A client and a server that speak MARS to the session core, in virtual time; their SMP is `weir_tds::smp`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

use weir_proxy::{
    ports::billing::Mode,
    session::{MarsOffer, Settings},
};
use weir_tds::{
    packet::{PacketHeader, PacketStatus, PacketType},
    smp::{End, Received, SMP_HEADER_LEN, Sessions, SmpFlag, SmpHeader},
};

use super::bench::{Bench, message, settings, take_message};

/// One peer: its end of every session, and what its application has.
pub(crate) struct Peer {
    pub(crate) sessions: Sessions,
    /// TDS bytes of each session that came and that no test has taken.
    pub(crate) got: BTreeMap<u16, Vec<u8>>,
    /// TDS packets that wait for the window.
    pub(crate) to_send: BTreeMap<u16, VecDeque<Vec<u8>>>,
    /// Sessions that are not read: their window stays shut.
    pub(crate) unread: BTreeSet<u16>,
    waiting: BTreeMap<u16, usize>,
    /// Sessions that the other side closed.
    pub(crate) fins: Vec<u16>,
}

impl Peer {
    pub(crate) fn new(end: End) -> Self {
        Self {
            sessions: Sessions::new(end, 4096),
            got: BTreeMap::new(),
            to_send: BTreeMap::new(),
            unread: BTreeSet::new(),
            waiting: BTreeMap::new(),
            fins: Vec::new(),
        }
    }

    /// Reads what the gate sent; answers what this side says to it.
    pub(crate) fn read(&mut self, from: &mut Vec<u8>) -> Vec<u8> {
        while let Some(header) = self.sessions.peek(from).expect("the gate speaks SMP") {
            if from.len() < header.length as usize {
                break;
            }
            let packet: Vec<u8> = from.drain(..header.length as usize).collect();
            match self.sessions.receive(&header).expect("the gate keeps the rules") {
                Received::Data(sid, len) => {
                    let data = &packet[SMP_HEADER_LEN..];
                    let tds = PacketHeader::parse(data).unwrap().unwrap();
                    assert_eq!(usize::from(tds.length), len, "one TDS packet in each DATA");
                    self.got.entry(sid).or_default().extend_from_slice(data);
                    *self.waiting.entry(sid).or_default() += len;
                }
                Received::Finished(sid) => self.fins.push(sid),
                Received::Opened(_) | Received::Ignored(..) | Received::Acknowledged(_) => {}
            }
        }
        self.take_and_send()
    }

    fn take_and_send(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        for (&sid, waiting) in &mut self.waiting {
            let Some(window) = self.sessions.window(sid) else {
                continue;
            };
            if !self.unread.contains(&sid) {
                *waiting = 0;
            }
            window.taken(*waiting);
            wire.extend(window.acknowledge().iter().flat_map(SmpHeader::encode));
        }
        for (&sid, packets) in &mut self.to_send {
            while let Some(packet) = packets.front() {
                let header = self.sessions.window(sid).and_then(|w| w.data(packet.len()));
                let Some(header) = header else {
                    break;
                };
                wire.extend_from_slice(&header.encode());
                wire.extend_from_slice(packet);
                packets.pop_front();
            }
        }
        wire
    }

    /// Puts a message behind what waits to be sent.
    pub(crate) fn say(&mut self, sid: u16, message: &[u8]) {
        let mut rest = message;
        while let Some(header) = PacketHeader::parse(rest).unwrap() {
            let (packet, later) = rest.split_at(usize::from(header.length));
            self.to_send.entry(sid).or_default().push_back(packet.to_vec());
            rest = later;
        }
    }

    pub(crate) fn message(&mut self, sid: u16) -> Option<(PacketType, Vec<u8>)> {
        take_message(self.got.get_mut(&sid)?)
    }
}

/// A session core with MARS on both sides.
pub(crate) struct Mars {
    pub(crate) bench: Bench,
    pub(crate) client: Peer,
    pub(crate) server: Peer,
}

impl Mars {
    /// Logged in, with this much credit, and these sessions open.
    pub(crate) fn ready(credit_nanos: i64, sids: &[u16]) -> Self {
        Self::with(settings(), credit_nanos, sids)
    }

    pub(crate) fn with(settings: Settings, credit_nanos: i64, sids: &[u16]) -> Self {
        let settings = Settings {
            mars: MarsOffer::new(true),
            ..settings
        };
        let mut bench = Bench::with(settings, credit_nanos);
        bench.mars = true;
        bench.log_in(Mode::Enforce);
        assert!(bench.end.is_none());
        let mut mars = Self {
            bench,
            client: Peer::new(End::Client),
            server: Peer::new(End::Server),
        };
        for &sid in sids {
            mars.open(sid);
        }
        mars
    }

    pub(crate) fn open(&mut self, sid: u16) {
        let syn = self.client.sessions.open(sid).unwrap();
        self.client_sends(&syn.encode());
    }

    /// Bytes as they are, past the client's own end.
    pub(crate) fn client_sends(&mut self, wire: &[u8]) {
        self.bench.feed_client(wire);
        self.pump();
    }

    pub(crate) fn server_sends(&mut self, wire: &[u8]) {
        self.bench.feed_server(wire);
        self.pump();
    }

    /// Lets all three get on until nothing moves.
    pub(crate) fn pump(&mut self) {
        loop {
            let up = self.client.read(&mut self.bench.to_client);
            let down = self.server.read(&mut self.bench.to_server);
            if up.is_empty() && down.is_empty() {
                return;
            }
            if !up.is_empty() {
                self.bench.feed_client(&up);
            }
            if !down.is_empty() {
                self.bench.feed_server(&down);
            }
        }
    }

    pub(crate) fn client_says(&mut self, sid: u16, kind: PacketType, body: &[u8]) {
        self.client.say(sid, &message(kind, PacketStatus::NORMAL, body));
        self.pump();
    }

    pub(crate) fn ask(&mut self, sid: u16, text: &str) {
        self.client_says(sid, PacketType::SqlBatch, &super::bench::batch(text));
        assert_eq!(
            self.server.message(sid),
            Some((PacketType::SqlBatch, super::bench::batch(text))),
            "session {sid}"
        );
    }

    pub(crate) fn server_says(&mut self, sid: u16, tokens: &[u8]) {
        let answer = message(PacketType::TabularResult, PacketStatus::NORMAL, tokens);
        self.server_packets(sid, &answer);
    }

    /// Packets of an answer as they are; the last may be no end of the message.
    pub(crate) fn server_packets(&mut self, sid: u16, packets: &[u8]) {
        self.server.say(sid, packets);
        self.pump();
    }

    /// The next whole message of a session that the client has.
    pub(crate) fn answer(&mut self, sid: u16) -> Vec<u8> {
        self.client
            .message(sid)
            .unwrap_or_else(|| panic!("session {sid} waits for its answer"))
            .1
    }

    /// The next whole message of a session that the server has, if there is one.
    pub(crate) fn asked(&mut self, sid: u16) -> Option<(PacketType, Vec<u8>)> {
        self.server.message(sid)
    }

    pub(crate) fn client_closes(&mut self, sid: u16) {
        let fin = self.client.sessions.fin(sid).unwrap();
        self.client_sends(&fin.encode());
    }

    pub(crate) fn server_closes(&mut self, sid: u16) {
        self.server.to_send.remove(&sid);
        let fin = self.server.sessions.fin(sid).unwrap();
        self.server_sends(&fin.encode());
    }

    /// Reads what the server was sent, as far as it is; each session's TDS bytes.
    pub(crate) fn server_got(&mut self) -> BTreeMap<u16, Vec<u8>> {
        let _acks = self.server.read(&mut self.bench.to_server);
        self.server.got.clone()
    }

    /// What a server answers that closes every session that the client closes.
    pub(crate) fn server_answers(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while let Some(header) = self.server.sessions.peek(&self.bench.to_server).unwrap() {
            self.bench.to_server.drain(..header.length as usize);
            if let Received::Finished(sid) = self.server.sessions.receive(&header).unwrap() {
                wire.extend(self.server.sessions.fin(sid).iter().flat_map(SmpHeader::encode));
            }
        }
        wire
    }

    /// A peer that did not read a session reads it again.
    pub(crate) fn client_reads_again(&mut self) {
        self.client.unread.clear();
        let acks = self.client.take_and_send();
        self.client_sends(&acks);
    }

    pub(crate) fn server_reads_again(&mut self) {
        self.server.unread.clear();
        let acks = self.server.take_and_send();
        self.server_sends(&acks);
    }

    pub(crate) fn credit(&self) -> i64 {
        self.bench.purse.nanos.load(Ordering::SeqCst)
    }
}

/// A control packet.
pub(crate) fn control(flag: SmpFlag, sid: u16, seqnum: u32, window: u32) -> Vec<u8> {
    SmpHeader::control(flag, sid, seqnum, window).encode().to_vec()
}

/// A DATA packet.
pub(crate) fn data(sid: u16, seqnum: u32, window: u32, bytes: &[u8]) -> Vec<u8> {
    let header = SmpHeader {
        flag: SmpFlag::Data,
        sid,
        length: u32::try_from(SMP_HEADER_LEN + bytes.len()).unwrap(),
        seqnum,
        window,
    };
    let mut packet = header.encode().to_vec();
    packet.extend_from_slice(bytes);
    packet
}
