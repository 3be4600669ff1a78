//! The generated tables `orders` and `events`: no byte of them is stored, every value follows from its row's id.

mod plan;
mod stream;
mod tables;
mod vtab;

pub(crate) use plan::{Plan, plan};
pub(crate) use vtab::register;

/// True if a name is one of the generated tables'.
pub(crate) fn is_table(name: &str) -> bool {
    tables::find(name).is_some()
}
