//! SQLite's errors under SQL Server's numbers, so that drivers and programs react as they would to the real one.

use rusqlite::{Error, ErrorCode};

use super::functions::MARK;
use crate::conn::reply::Stopped;
use crate::tokens::Message;

/// Why a statement did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Told to the client.
    Message(Box<Message>),
    /// SQLite is locked by another connection; worth another try until the lock timeout.
    Busy,
    /// Another connection committed since this transaction began to read; trying again cannot help.
    Conflict,
    /// ATTENTION, or the connection has gone.
    Stopped(Stopped),
}

impl From<Message> for Fault {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

impl From<Stopped> for Fault {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<weir_tds::build::BuildError> for Fault {
    fn from(error: weir_tds::build::BuildError) -> Self {
        Message::error(50000, format!("The sandbox cannot send this value: {error}.")).into()
    }
}

/// Extended code of SQLITE_BUSY_SNAPSHOT.
const BUSY_SNAPSHOT: i32 = 517;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::SqliteFailure(code, _) = &error {
            match code.code {
                ErrorCode::OperationInterrupted => return Self::Stopped(Stopped::Cancelled),
                ErrorCode::DatabaseBusy if code.extended_code == BUSY_SNAPSHOT => return Self::Conflict,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => return Self::Busy,
                _ => {}
            }
        }
        let text = match &error {
            Error::SqliteFailure(_, Some(text)) => text.clone(),
            Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        message(&text).into()
    }
}

/// The message for SQLite's text. SQLite has one code for all of these; the text is all there is to tell them apart.
fn message(text: &str) -> Message {
    if let Some(marked) = text.strip_prefix(MARK).and_then(|t| t.strip_prefix(':')) {
        let mut parts = marked.splitn(4, ':');
        if let (Some(Ok(number)), Some(Ok(class)), Some(Ok(state)), Some(text)) = (
            parts.next().map(str::parse),
            parts.next().map(str::parse),
            parts.next().map(str::parse),
            parts.next(),
        ) {
            return Message::new(number, class, state, text);
        }
    }
    let after = |start: &str| rest(text, start);
    if let Some(name) = after("no such table: ") {
        let name = name.trim_start_matches("main.").trim_start_matches("temp.");
        return Message::error(208, format!("Invalid object name '{name}'."));
    }
    if let Some(name) = after("no such column: ").or_else(|| after("has no column named ")) {
        return Message::error(207, format!("Invalid column name '{}'.", last(name)));
    }
    if let Some(name) = after("ambiguous column name: ") {
        return Message::error(209, format!("Ambiguous column name '{}'.", last(name)));
    }
    if let Some(name) = after("no such function: ") {
        return Message::new(
            195,
            15,
            10,
            format!("'{name}' is not a recognized built-in function name."),
        );
    }
    if let Some(near) = after("near \"") {
        let near = near.split('"').next().unwrap_or_default();
        return Message::new(102, 15, 1, format!("Incorrect syntax near '{near}'."));
    }
    constraint(text).unwrap_or_else(|| Message::error(50000, format!("SQLite: {text}")))
}

/// What comes after `start` in SQLite's text, without the statement that rusqlite may append.
fn rest<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.split_once(start)
        .map(|(_, rest)| rest.split(" in \"").next().unwrap_or(rest).trim())
}

/// The last part of a dotted name.
fn last(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

/// The message for a change that the table does not allow.
fn constraint(text: &str) -> Option<Message> {
    let table = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    if let Some(names) = rest(text, "UNIQUE constraint failed: ") {
        let text = format!(
            "Violation of PRIMARY KEY constraint. Cannot insert duplicate key in object 'dbo.{}'.",
            table(names)
        );
        return Some(Message::new(2627, 14, 1, text));
    }
    if let Some(name) = rest(text, "NOT NULL constraint failed: ") {
        let (column, table) = (last(name), table(name));
        let text = format!(
            "Cannot insert the value NULL into column '{column}', table 'demo.dbo.{table}'; column does not allow nulls. INSERT fails."
        );
        return Some(Message::new(515, 16, 2, text));
    }
    if text.contains("FOREIGN KEY constraint failed") || text.contains("CHECK constraint failed") {
        return Some(Message::new(
            547,
            16,
            0,
            format!("The statement conflicted with a constraint: {text}."),
        ));
    }
    if let Some((head, _)) = text.split_once(" already exists") {
        let name = head
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .trim_matches(['"', '[', ']']);
        return Some(Message::new(
            2714,
            16,
            6,
            format!("There is already an object named '{name}' in the database."),
        ));
    }
    if let Some((head, _)) = text.split_once(" may not be modified") {
        let name = head.rsplit(' ').next().unwrap_or_default();
        return Some(Message::error(
            3906,
            format!("The table '{name}' is generated by the sandbox and cannot be changed."),
        ));
    }
    if text.contains("values were supplied") || text.contains("values for") {
        let text = "Column name or number of supplied values does not match table definition.";
        return Some(Message::error(213, text));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_programs_look_for() {
        for (text, number) in [
            ("no such table: main.nope", 208),
            ("no such column: x.y", 207),
            ("near \"FRM\": syntax error", 102),
            ("UNIQUE constraint failed: t.id", 2627),
            ("NOT NULL constraint failed: t.a", 515),
            ("table t already exists", 2714),
            ("table orders may not be modified", 3906),
            ("tsql:8134:16:1:Divide by zero error encountered.", 8134),
            ("something else", 50000),
        ] {
            assert_eq!(message(text).number, number, "{text}");
        }
        assert_eq!(
            message("no such table: main.nope").text,
            "Invalid object name 'nope'."
        );
        assert_eq!(
            message("table t already exists in \"CREATE\"").text,
            "There is already an object named 't' in the database."
        );
    }
}
