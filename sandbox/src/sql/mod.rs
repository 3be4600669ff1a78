//! The `sqlite` backend: T-SQL run on SQLite, one database file for all connections, real transactions and real locks.

mod answer;
mod batch;
mod bulk;
mod cast;
mod cell;
mod change;
mod columns;
mod connection;
mod cursors;
mod date_functions;
mod datetime;
mod ddl;
mod expressions;
mod facts;
mod fault;
mod functions;
mod group;
mod infer;
mod insert_exec;
mod name_functions;
mod parameters;
mod procedures;
mod query;
mod rpc;
mod session;
mod store;
mod system;
mod system_procedures;
mod table_types;
mod transactions;
mod translate;
mod types;

pub(crate) use answer::Answer;
pub(crate) use cast::cast;
pub(crate) use cell::{Scratch, print_guid, to_wire};
pub(crate) use connection::Connection;
pub(crate) use datetime::{DAY_1900, Moment};
pub(crate) use facts::Variables;
pub(crate) use fault::Fault;
pub(crate) use group::Group;
pub(crate) use infer::function_name;
pub(crate) use store::{Store, StoreError};
pub(crate) use translate::table_name;
pub(crate) use types::{Column, SqlType};

/// The databases that a login may name. They share one set of tables: only the name changes.
pub(crate) const DATABASES: [&str; 5] = ["master", "tempdb", "model", "msdb", "demo"];

/// The database under the spelling it was made with, if it is there.
pub(crate) fn database_name(name: &str) -> Option<String> {
    DATABASES
        .iter()
        .find(|d| d.eq_ignore_ascii_case(name))
        .map(|d| (*d).to_owned())
}
