//! A session whose two sides say what a test tells them, cut as it says: one row costs one price, and there is credit.

use weir_contracts::entry::UsageRecord;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use super::rig::{CLIENT, Rig, SERVER, packet, prelogin};
use super::script::{Opening, Script};

/// Prices of rows and of bytes both ways, in the bits of a [`Script`].
const PRICES: u8 = 2 | 4 | 8 | 16;
/// More than any sample costs.
const CREDIT_NANOS: i64 = 1 << 40;
/// The session of SMP that everything is said in, under MARS.
const SID: u16 = 0;

/// A session of the proxy between a client and a server.
pub struct Conversation {
    rig: Rig,
}

impl Conversation {
    /// Nobody has said anything.
    #[must_use]
    pub fn new() -> Self {
        Self::of(TdsVersion::V7_4, false)
    }

    /// Logged in, with the features that `options` come of; under MARS all goes through one session of SMP.
    ///
    /// # Panics
    /// When the login fails.
    #[must_use]
    pub fn logged_in(options: WalkerOptions, mars: bool) -> Self {
        let mut conversation = Self::of(options.version, mars);
        conversation.rig.log_in(options, mars);
        conversation
    }

    fn of(version: TdsVersion, mars: bool) -> Self {
        let script = Script {
            opening: Opening::FromInput,
            version,
            policy: 0,
            prices: PRICES,
            credit_nanos: CREDIT_NANOS,
            small_chunks: false,
            mars,
            steps: Vec::new(),
        };
        let rig = Rig::new(&script);
        Self { rig }
    }

    /// The PRELOGIN of a peer without encryption.
    pub fn server_greets(&mut self) {
        let hello = prelogin(false).encode();
        let hello = packet(PacketType::TabularResult, PacketStatus::EOM.0, &hello);
        self.server(&hello, &[]);
    }

    /// TDS packets of the client, cut at these places (ascending) of what goes over the wire.
    pub fn client(&mut self, packets: &[u8], cuts: &[usize]) {
        self.client_in(&[(SID, packets.to_vec())], cuts);
    }

    /// The same of the server.
    pub fn server(&mut self, packets: &[u8], cuts: &[usize]) {
        self.server_in(&[(SID, packets.to_vec())], cuts);
    }

    /// TDS packets of the client in the sessions of SMP that are named; those that are not open are opened.
    pub fn client_in(&mut self, packets: &[(u16, Vec<u8>)], cuts: &[usize]) {
        for piece in pieces(&self.wire(CLIENT, packets), cuts) {
            self.rig.client(piece);
        }
        self.rig.answer_smp();
    }

    /// The same of the server, in sessions that the client has opened.
    pub fn server_in(&mut self, packets: &[(u16, Vec<u8>)], cuts: &[usize]) {
        for piece in pieces(&self.wire(SERVER, packets), cuts) {
            self.rig.server(piece);
        }
        self.rig.answer_smp();
    }

    fn wire(&mut self, side: usize, packets: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (sid, packets) in packets {
            wire.extend(self.rig.in_session(side, *sid, packets));
        }
        wire
    }

    /// The client closes.
    ///
    /// # Panics
    /// When money was lost or made, or a record costs something else than its counts come to.
    pub fn leave(&mut self) {
        self.rig.leave();
        self.rig.money_adds_up();
    }

    /// True once the login was granted.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.rig.begun
    }

    /// Why it has ended, once it has.
    #[must_use]
    pub fn ended(&self) -> Option<&str> {
        self.rig.ended.as_deref()
    }

    /// Bodies of the messages that the client was sent, since the login where that was not its own.
    #[must_use]
    pub fn to_client(&self) -> Vec<Vec<u8>> {
        self.rig.messages_to(CLIENT)
    }

    /// The same of the server.
    #[must_use]
    pub fn to_server(&self) -> Vec<Vec<u8>> {
        self.rig.messages_to(SERVER)
    }

    /// The usage records that were closed.
    #[must_use]
    pub fn records(&self) -> &[UsageRecord] {
        self.rig.records()
    }
}

impl Default for Conversation {
    fn default() -> Self {
        Self::new()
    }
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut from = 0;
    let ends = cuts.iter().copied().chain([bytes.len()]).collect::<Vec<_>>();
    ends.into_iter().map(move |to| {
        let to = to.clamp(from, bytes.len());
        let piece = &bytes[from..to];
        from = to;
        piece
    })
}
