//! Every order in which a client, a server, billing and the gate can act on one request, tried [MS-TDS 2.2.1.7, 3.3.5.9].
//!
//! The client sends requests, ATTENTIONs and the rest of an upload; the server is a model of SQL Server: one answer to each
//! whole message, an answer that is broken off ends in DONE with ERROR, and each ATTENTION has an acknowledgement of its
//! own. Between any two steps of one party any other may act. What must hold at the end of each run is in [`World::settle`].

use std::{collections::VecDeque, sync::atomic::Ordering};

use weir_contracts::tariff::Tariff;
use weir_tds::{
    build::TokenBuf,
    packet::{PacketHeader, PacketStatus, PacketType},
    token::{Done, DoneStatus},
};

use super::{
    bench::{Bench, ROW, V, batch, message, take_message, tariff},
    cut::rows_in,
    login::tokens_of,
    relay::result,
};

/// What the client does, in this order; anything else may happen in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A whole request.
    Request,
    /// All of a request but its last packet, and that one.
    Head,
    Tail,
    /// The last packet, with IGNORE.
    Ignore,
    Attention,
}

/// Who acts next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    /// The server reads what has come for it.
    ServerReads,
    /// The server sends the next piece of an answer or an acknowledgement.
    ServerSends,
    BillingDenies,
}

/// Rows of each answer of the model's server.
const ROWS: u32 = 6;
/// Paths that one script may have: more is a script that is too long for a test.
const PATHS_MAX: usize = 60_000;

struct World {
    bench: Bench,
    script: VecDeque<Act>,
    /// What the client should get, in order.
    expected: Vec<Message>,
    /// What the server was sent and has not read.
    unread: Vec<u8>,
    /// Requests that it has read whole and not begun to answer; true for one that the client threw away.
    queue: VecDeque<bool>,
    /// What of the answer in hand it has not sent.
    answering: VecDeque<Vec<u8>>,
    /// The first half of an answer was sent: it stands inside a row.
    halfway: bool,
    /// Acknowledgements that it owes once the answer in hand has ended.
    acks: u32,
    path: Vec<Who>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Answer,
    Acknowledgement,
}

fn packet(body: &[u8], eom: bool) -> Vec<u8> {
    let mut bytes = message(PacketType::TabularResult, PacketStatus::NORMAL, body);
    bytes[1] = u8::from(eom);
    bytes
}

fn ack() -> Vec<u8> {
    TokenBuf::new(V).done(0x20, 0xFD, 0).as_bytes().to_vec()
}

fn broken_off() -> Vec<u8> {
    TokenBuf::new(V).done(0x02, 0xFD, 0).as_bytes().to_vec()
}

/// A request that is too long to be held, and where its last packet begins.
fn long() -> (Vec<u8>, usize) {
    let bytes = message(
        PacketType::SqlBatch,
        PacketStatus::NORMAL,
        &batch(&"x".repeat(35_000)),
    );
    let (mut at, mut last) = (0, 0);
    while let Some(header) = PacketHeader::parse(&bytes[at..]).unwrap() {
        last = at;
        at += usize::from(header.length);
    }
    (bytes, last)
}

impl World {
    fn new(script: &[Act], bench: Bench) -> Self {
        let expected = script.iter().filter_map(|act| match act {
            Act::Request | Act::Head => Some(Message::Answer),
            Act::Attention => Some(Message::Acknowledgement),
            Act::Tail | Act::Ignore => None,
        });
        Self {
            bench,
            expected: expected.collect(),
            script: script.iter().copied().collect(),
            unread: Vec::new(),
            queue: VecDeque::new(),
            answering: VecDeque::new(),
            halfway: false,
            acks: 0,
            path: Vec::new(),
        }
    }

    /// Who could act now.
    fn choices(&mut self) -> Vec<Who> {
        self.unread.append(&mut self.bench.to_server);
        let mut who = Vec::new();
        if !self.script.is_empty() {
            who.push(Who::Client);
        }
        if self.next_message().is_some() {
            who.push(Who::ServerReads);
        }
        if !self.answering.is_empty() || !self.queue.is_empty() || self.acks > 0 {
            who.push(Who::ServerSends);
        }
        if !self.bench.actions.is_empty() {
            who.push(Who::BillingDenies);
        }
        who
    }

    /// The first whole message that the server has not read: its type, its last status, its length.
    fn next_message(&self) -> Option<(PacketType, PacketStatus, usize)> {
        let mut at = 0;
        loop {
            let header = PacketHeader::parse(self.unread.get(at..)?).unwrap()?;
            at += usize::from(header.length);
            if at > self.unread.len() {
                return None;
            }
            if header.status.is_eom() {
                return Some((header.kind, header.status, at));
            }
        }
    }

    fn act(&mut self, who: Who) {
        self.path.push(who);
        match who {
            Who::Client => self.client_acts(),
            Who::ServerReads => self.server_reads(),
            Who::ServerSends => self.server_sends(),
            Who::BillingDenies => self.bench.deny(),
        }
        assert!(
            self.bench.end.is_none(),
            "{:?} after {:?}",
            self.bench.end,
            self.path
        );
    }

    fn client_acts(&mut self) {
        let (long, last) = long();
        let (head, tail) = long.split_at(last);
        match self.script.pop_front().unwrap() {
            Act::Request => {
                self.bench
                    .client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 1"));
            }
            Act::Head => self.bench.feed_client(head),
            Act::Tail => self.bench.feed_client(tail),
            Act::Ignore => {
                let mut tail = tail.to_vec();
                tail[1] |= 2;
                self.bench.feed_client(&tail);
            }
            Act::Attention => {
                self.bench
                    .client_says(PacketType::Attention, PacketStatus::NORMAL, &[]);
            }
        }
    }

    fn server_reads(&mut self) {
        let (kind, status, length) = self.next_message().unwrap();
        self.unread.drain(..length);
        if kind != PacketType::Attention {
            self.queue.push_back(status.contains(PacketStatus::IGNORE));
            return;
        }
        self.acks += 1;
        // It cancels the answer in hand, whose row is finished, or the request that waits for one.
        if self.halfway {
            let (_, rest) = halves();
            let mut rest = rest[..rest.len() - broken_off().len()].to_vec();
            rest.extend(broken_off());
            self.answering = [packet(&rest, true)].into();
        } else if !self.answering.is_empty() || self.queue.pop_front().is_some() {
            self.answering = [packet(&broken_off(), true)].into();
        }
    }

    fn server_sends(&mut self) {
        if self.answering.is_empty() && self.acks > 0 {
            self.acks -= 1;
            return self.bench.feed_server(&packet(&ack(), true));
        }
        if self.answering.is_empty() {
            let ignored = self.queue.pop_front().unwrap();
            let (first, second) = halves();
            self.answering = if ignored {
                [packet(&broken_off(), true)].into()
            } else {
                [packet(&first, false), packet(&second, true)].into()
            };
        }
        let piece = self.answering.pop_front().unwrap();
        self.halfway = piece[1] == 0;
        self.bench.feed_server(&piece);
    }

    /// Nobody has anything left to do: what must be true, whatever the order was.
    fn settle(mut self, prices: &Tariff, credit: i64) {
        let path = std::mem::take(&mut self.path);
        assert!(self.unread.is_empty(), "half a request at the server: {path:?}");
        assert!(
            self.bench.core.deadline().is_none(),
            "something is waited for: {path:?}"
        );
        let mut got = Vec::new();
        let mut rows = 0;
        while let Some((_, body)) = take_message(&mut self.bench.to_client) {
            if body == ack() {
                got.push(Message::Acknowledgement);
                continue;
            }
            got.push(Message::Answer);
            rows += answer_of(&body, &path);
        }
        assert!(self.bench.to_client.is_empty(), "half a message: {path:?}");
        assert_eq!(got, self.expected, "{path:?}");
        let records = &self.bench.records;
        assert_eq!(records.iter().map(|r| r.rows).sum::<u64>(), rows, "{path:?}");
        let cost: i64 = records.iter().map(|r| r.cost_nanos).sum();
        assert!(cost <= credit, "{cost} of {credit}: {path:?}");
        for record in records {
            assert_eq!(
                record.cost_nanos,
                prices.cost_nanos(&record.quantity()),
                "{path:?}"
            );
        }
        // The connection is usable.
        self.bench.purse.nanos.store(1 << 40, Ordering::SeqCst);
        self.bench
            .client_says(PacketType::SqlBatch, PacketStatus::NORMAL, &batch("select 2"));
        assert_eq!(self.bench.server_message(), batch("select 2"), "{path:?}");
        self.bench.server_says(&result(ROWS));
        assert_eq!(self.bench.client_message(), result(ROWS), "{path:?}");
    }
}

/// An answer in two packets, the first of which ends inside a row.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let whole = result(ROWS);
    let at = whole.len() - 13 - 40;
    (whole[..at].to_vec(), whole[at..].to_vec())
}

/// Rows of an answer that ends with its only final DONE and has no acknowledgement in it.
fn answer_of(body: &[u8], path: &[Who]) -> u64 {
    let tokens = tokens_of(body);
    let last = tokens.len() - 1;
    for (at, (kind, bytes)) in tokens.iter().enumerate() {
        if kind.is_done() {
            let done = Done::parse(bytes, V).unwrap();
            assert!(!done.status.contains(DoneStatus::ATTN), "{path:?}");
            assert_eq!(done.is_final(), at == last, "{path:?}");
        }
    }
    assert!(tokens[last].0.is_done(), "{path:?}");
    rows_in(body)
}

/// Runs every order of a script; answers how many there are.
fn explore(script: &[Act], prices: &Tariff, credit: i64) -> usize {
    let mut paths = 0;
    let mut choices: Vec<usize> = Vec::new();
    loop {
        let mut world = World::new(script, Bench::priced(credit, prices.clone()));
        let mut widths = Vec::new();
        loop {
            let who = world.choices();
            let Some(first) = who.first() else {
                break;
            };
            let chosen = choices.get(widths.len()).copied().unwrap_or(0);
            if widths.len() == choices.len() {
                choices.push(0);
            }
            widths.push(who.len());
            world.act(*who.get(chosen).unwrap_or(first));
        }
        world.settle(prices, credit);
        paths += 1;
        assert!(paths < PATHS_MAX, "{script:?} has too many orders");
        // The next order: the last choice that has another way.
        while let (Some(choice), Some(width)) = (choices.last(), widths.last()) {
            if choice + 1 < *width {
                break;
            }
            choices.pop();
            widths.pop();
        }
        let Some(choice) = choices.last_mut() else {
            return paths;
        };
        *choice += 1;
    }
}

fn explore_all(scripts: &[&[Act]], prices: &Tariff, credits: &[i64]) {
    for script in scripts {
        for credit in credits {
            let paths = explore(script, prices, *credit);
            println!("{script:?} on {credit}: {paths} orders");
        }
    }
}

#[test]
fn every_cancellation_has_one_acknowledgement_behind_the_answer_that_it_is_for() {
    use Act::{Attention, Request};
    explore_all(
        &[
            &[Attention],
            &[Attention, Attention],
            &[Request, Attention],
            &[Attention, Request],
            &[Request, Attention, Attention],
            &[Request, Attention, Request],
            &[Request, Request, Attention],
        ],
        &tariff(),
        &[0, 3 * ROW, 100 * ROW],
    );
}

#[test]
fn an_upload_may_be_cancelled_thrown_away_or_stopped_at_any_time() {
    use Act::{Attention, Head, Ignore, Request, Tail};
    let by_request_bytes = Tariff {
        per_kib_in_nanos: 1024,
        ..Tariff::clone(&tariff())
    };
    let scripts: [&[Act]; 5] = [
        &[Head, Tail, Attention],
        &[Head, Attention, Request],
        &[Head, Attention, Attention],
        &[Head, Ignore, Request],
        &[Request, Head, Tail],
    ];
    explore_all(&scripts, &tariff(), &[0, 3 * ROW, 100 * ROW]);
    explore_all(&scripts, &by_request_bytes, &[78_000, 82_000, 100_000]);
}
