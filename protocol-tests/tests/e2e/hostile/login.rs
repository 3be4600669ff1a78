//! LOGIN7 whose numbers lie.

use std::io::Write;

use weir_protocol_tests::rows::Rows;
use weir_tds::packet::PacketType;
use weir_tds::prelogin::Encryption;

use super::{AT_ONCE, LOGIN_ACK, Siege, flood, good_login, packet, socket_of, unfinished};

/// Offset of the first (offset, length) pair of LOGIN7.
const NAMES_AT: usize = 36;

/// Sends a LOGIN7 behind a PRELOGIN; what the gate says before it closes.
fn refused_login(siege: &Siege, body: &[u8], why: &str) -> Vec<u8> {
    let mut socket = siege.greeted(Encryption::NotSup);
    let _cut = socket.write_all(&packet(PacketType::Login7, body));
    siege.closes(&socket, AT_ONCE, why)
}

#[test]
fn a_login_whose_length_lies_is_closed() {
    let siege = Siege::lay();
    for length in [0_u32, 35, 0x7FFF_FFFF, u32::MAX] {
        let mut bad = good_login();
        bad[..4].copy_from_slice(&length.to_le_bytes());
        let said = refused_login(&siege, &bad, "LOGIN7 Length is not the length of the message");
        assert_eq!(said, b"", "{length}");
    }
    siege.stays_unshaken();
}

#[test]
fn a_login_whose_offsets_point_outside_or_backwards_is_closed() {
    let siege = Siege::lay();
    for field in 0..9 {
        for (offset, length) in [(0xFFFF_u16, 1_u16), (0, 4), (90, 0xFFFF), (4, 64)] {
            let mut bad = good_login();
            let at = NAMES_AT + 4 * field;
            bad[at..at + 2].copy_from_slice(&offset.to_le_bytes());
            bad[at + 2..at + 4].copy_from_slice(&length.to_le_bytes());
            let said = refused_login(&siege, &bad, "client: at byte");
            assert_eq!(said, b"", "field {field} at {offset}");
        }
    }
    siege.stays_unshaken();
}

#[test]
fn fields_of_a_login_that_overlap_are_closed() {
    let siege = Siege::lay();
    // Every name is the whole variable part.
    let mut bad = good_login();
    let (start, units) = (94_u16, u16::try_from((bad.len() - 94) / 2).expect("short"));
    for field in [0, 1, 3, 4, 6, 7, 8] {
        let at = NAMES_AT + 4 * field;
        bad[at..at + 2].copy_from_slice(&start.to_le_bytes());
        bad[at + 2..at + 4].copy_from_slice(&units.to_le_bytes());
    }
    assert_eq!(
        refused_login(&siege, &bad, "fields of LOGIN7 that share bytes"),
        b""
    );
    siege.stays_unshaken();
}

#[test]
fn a_login_longer_than_the_protocol_allows_is_closed() {
    let siege = Siege::lay();
    let socket = siege.greeted(Encryption::NotSup);
    flood(&socket, &unfinished(PacketType::Login7, &[0x41; 4088]), 10_000);
    let said = siege.closes(&socket, AT_ONCE, "a login message larger than");
    assert_eq!(said, b"");
    siege.stays_unshaken();
}

#[test]
fn a_feature_list_that_points_into_itself_is_closed() {
    let siege = Siege::lay();
    for target in [56_u32, 94, 0xFFFF_FFFF] {
        let mut bad = good_login();
        let end = u16::try_from(bad.len()).expect("short");
        bad[27] |= 0x10;
        bad[56..58].copy_from_slice(&end.to_le_bytes());
        bad[58..60].copy_from_slice(&4_u16.to_le_bytes());
        bad.extend_from_slice(&target.to_le_bytes());
        let length = u32::try_from(bad.len()).expect("short");
        bad[..4].copy_from_slice(&length.to_le_bytes());
        let said = refused_login(&siege, &bad, "client: at byte");
        assert_eq!(said, b"", "{target}");
    }
    siege.stays_unshaken();
}

/// 200 logins that nobody has: each is answered with an error, and the connection is closed.
#[test]
fn logins_of_nobody_are_answered_and_closed() {
    let siege = Siege::lay();
    for number in 0..200_u16 {
        let mut bad = good_login();
        // The login is another one in each: its second character.
        let name_at = usize::from(u16::from_le_bytes([bad[40], bad[41]]));
        bad[name_at + 2..name_at + 4].copy_from_slice(&(0x4E00 + number).to_le_bytes());
        let said = refused_login(&siege, &bad, "closed");
        let mut answer = Rows::new();
        answer.feed(&said);
        assert_eq!(answer.error(), Some(50403), "{number}");
    }
    siege.stays_unshaken();
}

#[test]
fn a_second_login_ends_the_session() {
    let siege = Siege::lay();
    let mut raw = siege.session();
    raw.send(PacketType::Login7, &good_login()).expect("a login");
    let said = siege.closes(&socket_of(&raw), AT_ONCE, "packet type 0x10 after login");
    assert!(!said.contains(&LOGIN_ACK), "a second login was let in");
    siege.stays_unshaken();
}
