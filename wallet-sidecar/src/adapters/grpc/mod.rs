//! The gRPC face of the wallets (`contracts/proto/wallet.proto`).

pub mod auth;
