//! Vectors cut into messages: at once, and byte by byte, with the same result.

use bytes::BytesMut;
use weir_protocol_tests::vectors::Vector;
use weir_tds::framer::{Frame, Framer};
use weir_tds::message::{MessageBuf, write_message};
use weir_tds::packet::{HEADER_LEN, PACKET_SIZE_MAX, PacketHeader, PacketStatus, PacketType};

/// The specification's own example of this name has a byte too many for its Length [MS-TDS 4.17].
pub(crate) const BROKEN_EXAMPLE: &str = "spec-4.17-featureextack-sessionrecovery";

/// A message of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: PacketType,
    pub(crate) first: PacketStatus,
    pub(crate) ignored: bool,
    pub(crate) body: Vec<u8>,
}

/// The messages of a stream of packets that comes in the given pieces.
pub(crate) fn messages<'a>(name: &str, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Message> {
    let framer = Framer::new(PACKET_SIZE_MAX);
    let mut buf = BytesMut::new();
    let mut message = MessageBuf::new("message", 1 << 20);
    let mut all = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Frame::Packet(header) = framer.next(&buf).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let packet = buf.split_to(usize::from(header.length));
            if message
                .push(&header, &packet[HEADER_LEN..])
                .unwrap_or_else(|e| panic!("{name}: {e}"))
            {
                let (kind, first) = (message.kind().unwrap(), message.first_status());
                let ignored = message.is_ignored();
                all.push(Message {
                    kind,
                    first,
                    ignored,
                    body: message.take().to_vec(),
                });
            }
        }
    }
    assert!(
        buf.is_empty() && message.packets() == 0,
        "{name}: ends inside a message"
    );
    all
}

/// Headers of every packet of a vector.
pub(crate) fn headers(bytes: &[u8]) -> Vec<PacketHeader> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Ok(Some(header)) = PacketHeader::parse(&bytes[at..]) {
        at += usize::from(header.length);
        all.push(header);
    }
    all
}

/// Client messages of every vector, with its name: whole packets, or bare bodies.
pub(crate) fn client_messages() -> Vec<(Vector, Message)> {
    let mut all = Vec::new();
    for vector in weir_protocol_tests::vectors::load() {
        let bare = match vector.layer.as_str() {
            "tds-packets" if !vector.is_response() => {
                let found = messages(&vector.name, std::iter::once(vector.bytes.as_slice()));
                all.extend(found.into_iter().map(|m| (vector.clone(), m)));
                continue;
            }
            "prelogin-body" => PacketType::Prelogin,
            "login7-body" => PacketType::Login7,
            "rpc-body" => PacketType::Rpc,
            "sqlbatch-body" => PacketType::SqlBatch,
            _ => continue,
        };
        let body = vector.bytes.clone();
        all.push((
            vector,
            Message {
                kind: bare,
                first: PacketStatus::EOM,
                ignored: false,
                body,
            },
        ));
    }
    all
}

/// Types, statuses and lengths of packets [MS-TDS 2.2.3.1.1, 2.2.3.1.2, 2.2.3.1.3].
#[test]
fn packets_split_at_every_byte_give_the_same_messages() {
    let mut seen = 0;
    for vector in weir_protocol_tests::vectors::load() {
        if vector.layer != "tds-packets" || vector.name == BROKEN_EXAMPLE {
            continue;
        }
        let whole = messages(&vector.name, std::iter::once(vector.bytes.as_slice()));
        let expected: Vec<u64> = vector.expected["packets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["type"].as_u64().unwrap())
            .collect();
        let found: Vec<u64> = headers(&vector.bytes)
            .iter()
            .map(|h| u64::from(h.kind.byte()))
            .collect();
        assert_eq!(found, expected, "{}", vector.name);
        assert_eq!(
            messages(&vector.name, vector.bytes.chunks(1)),
            whole,
            "{}",
            vector.name
        );
        for at in 1..vector.bytes.len().min(600) {
            let (a, b) = vector.bytes.split_at(at);
            assert_eq!(
                messages(&vector.name, [a, b].into_iter()),
                whole,
                "{} at {at}",
                vector.name
            );
        }
        seen += 1;
    }
    assert!(seen > 70, "only {seen} vectors of packets");
}

#[test]
fn messages_cut_anew_to_another_size_and_back_are_the_same() {
    for vector in weir_protocol_tests::vectors::load() {
        if vector.layer != "tds-packets" || vector.name == BROKEN_EXAMPLE {
            continue;
        }
        for message in messages(&vector.name, std::iter::once(vector.bytes.as_slice())) {
            for size in [512, 4096, 32767] {
                let status = if message.ignored {
                    message.first.with(PacketStatus::IGNORE)
                } else {
                    message.first
                };
                let mut out = BytesMut::new();
                write_message(&mut out, message.kind, status, size, 0, 1, &message.body);
                let again = messages(&vector.name, std::iter::once(&out[..]));
                let same = Message {
                    first: again[0].first,
                    ..message.clone()
                };
                assert_eq!(again, [same], "{} at {size}", vector.name);
                let reset = PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN).0;
                assert_eq!(
                    again[0].first.0 & reset,
                    message.first.0 & reset,
                    "{}",
                    vector.name
                );
            }
        }
    }
}
