//! ENVCHANGE tokens that lead a client elsewhere: known by their first bytes, so that none of the address leaves the gate.

use weir_tds::token::env;

/// First byte of ENVCHANGE; its type stands behind a u16 length [MS-TDS 2.2.7.9].
const ENV_CHANGE: u8 = 0xE3;

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
