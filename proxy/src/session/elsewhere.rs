//! ENVCHANGE tokens that lead a client elsewhere: known by their first bytes, so that none of the address leaves the gate.

use weir_tds::token::env;

/// First byte of ENVCHANGE; its type stands behind a u16 length [MS-TDS 2.2.7.9].
const ENV_CHANGE: u8 = 0xE3;
/// Bytes up to the first of an address, at the most: of routing, the length of its name included.
const HEAD_MAX: usize = 11;

/// What this token, or the part of it that has come, leads to. Until the type has come no byte of an address has.
pub(super) fn leads_away(token: &[u8]) -> Option<&'static str> {
    let [ENV_CHANGE, _, _, kind, ..] = token else {
        return None;
    };
    match *kind {
        env::ROUTING => Some("routing"),
        env::ENHANCED_ROUTING => Some("enhanced routing"),
        env::MIRRORING_PARTNER => Some("mirroring partner"),
        _ => None,
    }
}

/// Watches a stream that the walker cannot read (observe mode passes it on): where tokens begin is not known there, so a
/// token that leads elsewhere is told by its lengths, which must agree with each other. Among random bytes they do less
/// than once in 2⁴⁰.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// The last bytes that passed, one fewer than a head has: the rest of a head may come in the next packet.
    tail: Vec<u8>,
}

impl Lookout {
    /// What these next bytes of the stream lead to. Asked before they are passed on, it lets no byte of a host's name
    /// pass, and of a mirroring partner's its first character at the most.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Option<&'static str> {
        self.tail.extend(bytes.iter().take(HEAD_MAX - 1));
        let found = find(&self.tail).or_else(|| find(bytes));
        if let Some(last) = bytes.last_chunk::<{ HEAD_MAX - 1 }>() {
            self.tail.clear();
            self.tail.extend_from_slice(last);
        } else {
            let passed = self.tail.len().saturating_sub(HEAD_MAX - 1);
            self.tail.drain(..passed);
        }
        found
    }
}

fn find(bytes: &[u8]) -> Option<&'static str> {
    let heads = bytes.iter().enumerate().filter(|(_, byte)| **byte == ENV_CHANGE);
    heads
        .filter_map(|(at, _)| bytes.get(at..))
        .find(|token| is_consistent(token))
        .and_then(leads_away)
}

/// True if these bytes begin a token that leads elsewhere, in which each length fits the others. The old value, which
/// has none, may be left out.
fn is_consistent(token: &[u8]) -> bool {
    let u16_at = |at: usize| {
        let bytes = token.get(at..)?.first_chunk()?;
        Some(usize::from(u16::from_le_bytes(*bytes)))
    };
    let byte_at = |at: usize| token.get(at).map(|byte| usize::from(*byte));
    let fits = || -> Option<bool> {
        let (length, kind) = (u16_at(1)?, *token.get(3)?);
        if kind == env::MIRRORING_PARTNER {
            let characters = byte_at(4)?;
            // Names of hosts are ASCII.
            let is_name = characters > 0 && (0x21..0x7F).contains(&u16_at(5)?);
            return Some(is_name && (2 + 2 * characters..=3 + 2 * characters).contains(&length));
        }
        // u16 length, u8 protocol (TCP), u16 port, host; enhanced: a database behind it.
        let (value, protocol, characters) = (u16_at(4)?, byte_at(6)?, u16_at(9)?);
        let routing = 5 + 2 * characters;
        let whole = match kind {
            env::ROUTING => value == routing,
            env::ENHANCED_ROUTING => value >= routing + 2 && (value - routing) % 2 == 0,
            _ => false,
        };
        Some(whole && protocol == 0 && characters > 0 && (3 + value..=5 + value).contains(&length))
    };
    fits().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_tds::{build::TokenBuf, version::TdsVersion};

    const HOST: &str = "other.example";

    /// Each kind, as servers write it [MS-TDS 2.2.7.9].
    fn leads() -> [(&'static str, Vec<u8>); 3] {
        let tokens = || TokenBuf::new(TdsVersion::V7_4);
        let (mut partner, mut routing, mut enhanced) = (tokens(), tokens(), tokens());
        partner.env_mirror_partner(HOST);
        routing.env_routing(1433, HOST);
        enhanced.env_enhanced_routing(1433, HOST, "db");
        [
            ("mirroring partner", partner.as_bytes().to_vec()),
            ("routing", routing.as_bytes().to_vec()),
            ("enhanced routing", enhanced.as_bytes().to_vec()),
        ]
    }

    #[test]
    fn a_lead_is_seen_wherever_it_begins_and_however_it_is_cut() {
        for (name, token) in leads() {
            for before in 0..30 {
                let stream = [&vec![ENV_CHANGE; before][..], &token, &[0xFD; 13]].concat();
                for size in 1..stream.len() {
                    let mut lookout = Lookout::default();
                    let mut passed = 0;
                    let found = stream.chunks(size).find_map(|piece| {
                        let found = lookout.look(piece);
                        passed += if found.is_none() { piece.len() } else { 0 };
                        found
                    });
                    assert_eq!(found, Some(name), "behind {before} bytes, in pieces of {size}");
                    assert!(passed < before + HEAD_MAX, "{passed} bytes left first");
                }
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_lead_passes() {
        for (name, token) in leads() {
            // A byte less or more in either length; another token of the same family.
            for (at, by) in [(1, 5), (1, 250), (4, 1), (3, 40)] {
                let mut other = token.clone();
                other[at] = other[at].wrapping_add(by);
                other.extend([0xFD; 13]);
                assert_eq!(Lookout::default().look(&other), None, "{name}, byte {at} by {by}");
            }
        }
        let mut others = TokenBuf::new(TdsVersion::V7_4);
        others.env_database(HOST, "master").env_packet_size(4096, 4096);
        assert_eq!(Lookout::default().look(others.as_bytes()), None);
    }
}
