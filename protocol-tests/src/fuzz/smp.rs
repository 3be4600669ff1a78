//! SMP: a stream of packets at either end, whole and in pieces; and two ends of ours, which always understand each other.

use std::collections::VecDeque;

use weir_tds::smp::{
    End, Received, SESSIONS_MAX, SMP_HEADER_LEN, Sessions, SmpError, SmpFlag, SmpHeader, WINDOW,
};

use super::oracle;
use super::source::Source;

/// Most bytes of a DATA in these runs.
const DATA_MAX: u16 = 512;
/// Steps of two ends in one input.
const STEPS_MAX: usize = 200;

/// First byte: bit 0 = two ends, bit 1 = the client's end; the rest: packets, or what the two ends do.
pub(super) fn target(input: &[u8]) {
    let mut source = Source::new(input);
    let mode = source.byte();
    if mode & 1 == 1 {
        return two_ends(source);
    }
    let end = if mode & 2 == 2 { End::Client } else { End::Server };
    let stream = source.rest();
    let mut whole = Connection::new(end);
    oracle::before_login(stream.len(), || whole.take(stream));
    let (mut pieced, mut have) = (Connection::new(end), 0);
    for piece in oracle::pieces(stream) {
        have += piece.len();
        pieced.take(&stream[..have]);
    }
    assert_eq!(
        (pieced.at, pieced.fold, &pieced.end),
        (whole.at, whole.fold, &whole.end),
        "cut at {:?}",
        oracle::cuts(stream)
    );
}

/// One end that takes everything at once and answers with what is due.
struct Connection {
    sessions: Sessions,
    at: usize,
    fold: u64,
    end: Option<SmpError>,
}

impl Connection {
    fn new(end: End) -> Self {
        let mut sessions = Sessions::new(end, DATA_MAX);
        if end == End::Client {
            for sid in 0..3 {
                sessions.open(sid).expect("three sessions are few");
            }
        }
        Self {
            sessions,
            at: 0,
            fold: 0,
            end: None,
        }
    }

    fn take(&mut self, stream: &[u8]) {
        while self.end.is_none() {
            let rest = &stream[self.at..];
            match self.packet(rest) {
                Ok(Some(length)) => self.at += length,
                Ok(None) => return,
                Err(error) => self.end = Some(error),
            }
            assert!(self.sessions.len() <= SESSIONS_MAX);
        }
    }

    /// The packet at the head of `rest`: its length once it is whole.
    fn packet(&mut self, rest: &[u8]) -> Result<Option<usize>, SmpError> {
        let Some(header) = self.sessions.peek(rest)? else {
            return Ok(None);
        };
        assert!(header.data_len() <= usize::from(DATA_MAX));
        assert_eq!(
            header.encode()[..],
            rest[..SMP_HEADER_LEN],
            "written as it was read"
        );
        let length = SMP_HEADER_LEN + header.data_len();
        if rest.len() < length {
            return Ok(None);
        }
        let received = self.sessions.receive(&header)?;
        self.fold = self.fold.wrapping_mul(31) ^ u64::from(header.sid) ^ u64::from(header.flag.byte()) << 16;
        if let Received::Data(sid, len) = received
            && let Some(window) = self.sessions.window(sid)
        {
            assert_eq!(len, header.data_len());
            window.taken(0);
            if let Some(ack) = window.acknowledge() {
                assert_eq!((ack.flag, ack.sid), (SmpFlag::Ack, sid));
                self.fold = self.fold.wrapping_mul(31) ^ u64::from(ack.window);
            }
        }
        Ok(Some(length))
    }
}

/// A client's and a server's end do what the input says, and what they send arrives late: neither ever refuses the other,
/// and no session has more than its window on the way.
fn two_ends(mut source: Source<'_>) {
    let mut ends = [
        Sessions::new(End::Client, DATA_MAX),
        Sessions::new(End::Server, DATA_MAX),
    ];
    let mut wires: [VecDeque<SmpHeader>; 2] = [VecDeque::new(), VecDeque::new()];
    let mut waiting = [[0usize; 8]; 2];
    for _step in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        let (what, sid) = (source.byte(), source.byte() % 8);
        let me = usize::from(what & 1);
        let slot = usize::from(sid);
        let sid = u16::from(sid);
        match (what >> 1) % 8 {
            0 if me == 0 => {
                if let Ok(syn) = ends[0].open(sid) {
                    waiting[0][slot] = 0;
                    wires[0].push_back(syn);
                }
            }
            1 | 2 => {
                let sent = ends[me].window(sid).and_then(|w| w.data(slot + 1));
                wires[me].extend(sent);
                // Behind the last SYN: a session of the same number may have been closed before.
                let on_the_way = wires[me]
                    .iter()
                    .rev()
                    .filter(|h| h.sid == sid)
                    .take_while(|h| h.flag != SmpFlag::Syn)
                    .filter(|h| h.flag == SmpFlag::Data)
                    .count();
                assert!(
                    on_the_way <= WINDOW as usize,
                    "session {sid} has {on_the_way} DATA on the way"
                );
            }
            3 => wires[me].extend(ends[me].fin(sid)),
            4 => {
                let left = usize::from(what) % (waiting[me][slot] + 1);
                waiting[me][slot] = left;
                if let Some(window) = ends[me].window(sid) {
                    window.taken(left);
                    wires[me].extend(window.acknowledge());
                }
            }
            _ => {
                let Some(header) = wires[1 - me].pop_front() else {
                    continue;
                };
                let slot = usize::from(header.sid);
                match ends[me].receive(&header) {
                    Ok(Received::Opened(_)) => waiting[me][slot] = 0,
                    Ok(Received::Data(_, len)) => waiting[me][slot] += len,
                    Ok(_) => {}
                    Err(error) => panic!("an end of ours refused the other: {error} ({header:?})"),
                }
            }
        }
    }
}
