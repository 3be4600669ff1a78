//! A response read token by token, with every message's form checked.

use weir_tds::packet::PacketHeader;
use weir_tds::token::{Done, EnvChange, LoginAck, ReturnStatus, ReturnValue, ServerMessage, TokenKind};
use weir_tds::version::TdsVersion;
use weir_tds::walker::{Budget, Step, Walker, WalkerOptions};

/// A token, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Columns(usize),
    Rows(u64),
    Done { kind: TokenKind, status: u16, rows: u64 },
    Error(i32, u8, String),
    Info(i32, String),
    Env(u8),
    Status(i32),
    Value(String, Option<Vec<u8>>),
    LoginAck(TdsVersion),
    Other(TokenKind),
}

/// One response message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    pub(crate) events: Vec<Event>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) spids: Vec<u16>,
    pub(crate) packets: u64,
}

impl Response {
    pub(crate) fn errors(&self) -> Vec<i32> {
        self.events
            .iter()
            .filter_map(|e| {
                if let Event::Error(n, ..) = e {
                    Some(*n)
                } else {
                    None
                }
            })
            .collect()
    }
    pub(crate) fn envs(&self) -> Vec<u8> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Env(n) = e { Some(*n) } else { None })
            .collect()
    }
    pub(crate) fn dones(&self) -> Vec<(TokenKind, u16, u64)> {
        let one = |e: &Event| {
            if let Event::Done { kind, status, rows } = e {
                Some((*kind, *status, *rows))
            } else {
                None
            }
        };
        self.events.iter().filter_map(one).collect()
    }
    /// The version that LOGINACK tells.
    pub(crate) fn version(&self) -> Option<TdsVersion> {
        self.events.iter().find_map(|e| match e {
            Event::LoginAck(version) => Some(*version),
            _ => None,
        })
    }
    pub(crate) fn last_status(&self) -> u16 {
        self.dones().last().map_or(0xFFFF, |d| d.1)
    }
}

/// A response in the making.
pub(crate) struct Reading {
    pub(crate) walker: Walker,
    options: WalkerOptions,
    version: TdsVersion,
    pub(crate) lenient: bool,
    pub(crate) response: Response,
    pub(crate) sizes: Vec<u16>,
}

impl Reading {
    pub(crate) fn new(version: TdsVersion) -> Self {
        Self::with(WalkerOptions::new(version))
    }

    pub(crate) fn with(options: WalkerOptions) -> Self {
        Self {
            walker: Walker::new(options),
            options,
            version: options.version,
            lenient: false,
            response: Response::default(),
            sizes: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, header: &PacketHeader, mut body: &[u8]) {
        self.response.packets += 1;
        self.response.bytes += body.len() as u64;
        self.response.spids.push(header.spid);
        loop {
            let mut unlimited = Budget::UNLIMITED;
            let walk = self.walker.walk(body, &mut unlimited).unwrap();
            body = &body[walk.consumed..];
            let Step::Token(token) = walk.step else {
                return;
            };
            let (kind, bytes) = (token.kind, token.bytes.to_vec());
            self.token(kind, &bytes);
        }
    }

    fn token(&mut self, kind: TokenKind, bytes: &[u8]) {
        let version = self.version;
        let new_rows = self.walker.rows() - self.response.rows;
        if new_rows > 0 {
            self.response.rows += new_rows;
            self.response.events.push(Event::Rows(new_rows));
        }
        let event = match kind {
            TokenKind::ColMetadata => Event::Columns(usize::from(u16::from_le_bytes([bytes[1], bytes[2]]))),
            TokenKind::Done | TokenKind::DoneProc | TokenKind::DoneInProc => {
                let done = Done::parse(bytes, version).unwrap();
                Event::Done {
                    kind,
                    status: done.status.0,
                    rows: done.row_count,
                }
            }
            TokenKind::Error => {
                let m = ServerMessage::parse(bytes, version).unwrap();
                assert!(m.class > 10);
                Event::Error(m.number, m.class, m.message)
            }
            TokenKind::Info => {
                let m = ServerMessage::parse(bytes, version).unwrap();
                assert!(m.class <= 10);
                Event::Info(m.number, m.message)
            }
            TokenKind::EnvChange => {
                let change = EnvChange::parse(bytes).unwrap();
                self.sizes.extend(change.packet_size());
                Event::Env(bytes[3])
            }
            TokenKind::ReturnStatus => Event::Status(ReturnStatus::parse(bytes).unwrap().0),
            TokenKind::ReturnValue => {
                let value = ReturnValue::parse(bytes, &self.options).unwrap();
                Event::Value(
                    value.name,
                    value.value.filter(|v| !v.null).map(|v| v.data.to_vec()),
                )
            }
            TokenKind::LoginAck => {
                let ack = LoginAck::parse(bytes).unwrap();
                Event::LoginAck(ack.version.expect("a version that TDS knows"))
            }
            other => Event::Other(other),
        };
        self.response.events.push(event);
    }

    pub(crate) fn end(&mut self) -> Response {
        self.walker.end_message().unwrap();
        if self.lenient {
            return self.response.clone();
        }
        let dones = self.response.dones();
        let (last, before) = dones.split_last().expect("a message without any DONE");
        assert_eq!(
            last.1 & 1,
            0,
            "the last DONE says MORE: {:?}",
            self.response.events
        );
        for done in before {
            assert_eq!(
                done.1 & 1,
                1,
                "a DONE in the middle says that it is the last: {:?}",
                self.response.events
            );
        }
        self.response.clone()
    }
}
