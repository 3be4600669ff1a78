//! The whole line on the real stores, as `scripts/stack` starts it.

mod books;
mod script;
mod stores;
