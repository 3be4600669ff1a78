//! One client connection and its server connection as a sans-IO core; `driver.rs` beside this room gives it sockets.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | the session: phases, actions out, events in |
//! | `login.rs`, `login_tls.rs`, `login_response.rs` | PRELOGIN, TLS, LOGIN7 on both legs, the login response |
//! | `login7_policy.rs`, `security.rs`, `routing.rs` | what LOGIN7 may ask for and becomes; tokens relayed; where a login goes |
//! | `relay.rs` | a logged-in session: the open request and what both sides are owed |
//! | `upload.rs` | client → server: requests, admission, ATTENTION |
//! | `download.rs` | server → client: walk, pay, forward |
//! | `packet_size.rs`, `repacket.rs` | the size of packets on each leg; cutting messages anew where they differ |
//! | `cut.rs`, `tokens.rs` | ending a response at a row boundary; the gate's own answers |
//! | `leg.rs`, `out.rs`, `blocks.rs` | buffers and framing of one side; what is lent to it for reading |
//! | `channel.rs`, `encryption.rs` | its TLS; the configurations that sessions share (RFD 16) |
//! | `mux.rs`, `mux_lane.rs`, `mux_offer.rs` | MARS: several sessions on the two connections, each with a relay of its own |
//! | `charge.rs` | what an upload brings in, paid as it comes |
//! | `tally.rs` | what could not be read, counted |
//! | `pause.rs` | how long a client may rest inside a request |
//! | `meter.rs`, `purse.rs` | the running usage record, and credit as the core sees it |

mod blocks;
mod channel;
mod charge;
mod cut;
mod download;
mod elsewhere;
pub mod encryption;
pub mod engine;
pub mod leg;
mod login;
mod login7_policy;
mod login_response;
mod login_tls;
pub mod meter;
mod mux;
mod mux_lane;
pub mod mux_offer;
pub mod out;
mod packet_size;
mod pause;
pub mod purse;
mod relay;
mod repacket;
pub mod routing;
mod security;
pub mod tally;
mod tokens;
mod upload;

pub use blocks::Blocks;
pub use engine::{Action, Event, Session, Settings};
pub use mux_offer::MarsOffer;
