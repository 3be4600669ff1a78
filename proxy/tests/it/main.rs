//! The proxy's parts under crashes, contention and a failing neighbour.

mod journal;
