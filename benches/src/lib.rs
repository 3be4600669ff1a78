//! What Weir is measured with: streams of known content, ends that are faster than any proxy, its peers, and the judge.

pub mod answer;
pub mod decoders;
pub mod ends;
pub mod failure;
pub mod figures;
pub mod instructions;
pub mod kernel;
pub mod kernels;
pub mod peers;
pub mod permit;
pub mod process;
pub mod report;
pub mod rounds;
pub mod shapes;
pub mod stage;
pub mod syscalls;
pub mod workload;

pub use shapes::{Response, Shape};
