//! What Weir's processes agree on: ids, money, tariff, journal entries and usage records, events, and the gRPC services.
//!
//! Rule: fields are added, never changed; a new meaning is a new version. `golden/` holds one sample per version.
//! Deliberately absent: I/O, clocks, chance.

pub mod entry;
pub mod event;
pub mod ids;
pub mod login;
pub mod money;
pub mod tariff;

/// The gRPC services, generated from `proto/` at build time.
pub mod proto {
    /// Proxy → billing.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::too_many_lines,
        unreachable_pub,
        reason = "generated code"
    )]
    pub mod billing {
        tonic::include_proto!("weir.billing.v1");
    }
    /// Billing → wallet.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::too_many_lines,
        unreachable_pub,
        reason = "generated code"
    )]
    pub mod wallet {
        tonic::include_proto!("weir.wallet.v1");
    }
}
