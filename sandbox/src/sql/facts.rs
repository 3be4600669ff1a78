//! What a session knows about itself: `@@` globals and the functions that answer from the session, not from SQLite.

use std::collections::HashMap;

use rusqlite::types::Value as Held;

use super::types::{Length, SqlType};
use crate::tokens::Message;

/// What @@VERSION and SERVERPROPERTY say; drivers read the first words and the number.
pub(crate) const VERSION_TEXT: &str = "Microsoft SQL Server 2022 (Weir sandbox) - 16.0.4006.0 (X64)";

/// A variable of a batch, or a parameter of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variable {
    pub(crate) kind: SqlType,
    pub(crate) value: Held,
}

/// Variables by lower-case name with its `@`.
pub(crate) type Variables = HashMap<String, Variable>;

/// The session as expressions see it.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) spid: u16,
    pub(crate) server: String,
    pub(crate) database: String,
    pub(crate) login: String,
    pub(crate) host: String,
    pub(crate) application: String,
    pub(crate) transactions: u32,
    pub(crate) row_count: u64,
    pub(crate) error: i32,
    pub(crate) identity: Option<i64>,
    /// Inside a CATCH: what was caught.
    pub(crate) caught: Option<Message>,
    pub(crate) procedure_depth: u32,
    pub(crate) lock_timeout: i64,
    pub(crate) text_size: i64,
}

type Known = Option<(Held, SqlType)>;

fn text(value: &str) -> Known {
    Some((Held::Text(value.to_owned()), SqlType::NVarChar(Length::Of(128))))
}

/// What DATABASEPROPERTYEX says of each database here.
fn database_property(name: &str) -> Known {
    match name.to_ascii_lowercase().as_str() {
        "updateability" => text("READ_WRITE"),
        "status" => text("ONLINE"),
        "useraccess" => text("MULTI_USER"),
        "recovery" => text("FULL"),
        "collation" => text("SQL_Latin1_General_CP1_CI_AS"),
        _ => Some((Held::Null, SqlType::TEXT)),
    }
}

fn int(value: i64) -> Known {
    Some((Held::Integer(value), SqlType::Int))
}

impl Facts {
    /// `@@NAME`, lower case.
    pub(crate) fn global(&self, name: &str) -> Known {
        match name {
            "@@spid" => Some((Held::Integer(i64::from(self.spid)), SqlType::SmallInt)),
            "@@trancount" => int(i64::from(self.transactions)),
            "@@rowcount" => int(i64::try_from(self.row_count).unwrap_or(i64::MAX)),
            "@@error" => int(i64::from(self.error)),
            "@@identity" => Some(self.identity_value()),
            "@@version" => Some((
                Held::Text(VERSION_TEXT.to_owned()),
                SqlType::NVarChar(Length::Of(300)),
            )),
            "@@servername" | "@@servicename" => text(&self.server),
            "@@language" => text("us_english"),
            "@@langid" | "@@fetch_status" | "@@cursor_rows" => int(0),
            "@@datefirst" => Some((Held::Integer(7), SqlType::TinyInt)),
            "@@nestlevel" => int(i64::from(self.procedure_depth)),
            "@@max_connections" => int(32767),
            "@@max_precision" => Some((Held::Integer(38), SqlType::TinyInt)),
            "@@lock_timeout" => int(self.lock_timeout),
            "@@textsize" => int(self.text_size),
            "@@options" => int(5496),
            "@@microsoftversion" => int(0x1000_0FA6),
            "@@procid" | "@@dbts" => int(0),
            _ => None,
        }
    }

    fn identity_value(&self) -> (Held, SqlType) {
        (
            self.identity.map_or(Held::Null, Held::Integer),
            SqlType::Decimal {
                precision: 38,
                scale: 0,
            },
        )
    }

    /// A function of the session, lower case, with its arguments; `None` stands for one that is no literal.
    pub(crate) fn function(&self, name: &str, arguments: &[Option<&str>]) -> Known {
        let argument = arguments.first().copied().flatten();
        match name {
            "db_name" => match argument {
                None => text(&self.database),
                Some(id) => super::DATABASES
                    .iter()
                    .zip(1..)
                    .find(|(_, n)| id.parse() == Ok(*n))
                    .map_or(Some((Held::Null, SqlType::TEXT)), |(name, _)| text(name)),
            },
            "db_id" => {
                let name = argument.unwrap_or(&self.database);
                let found = super::DATABASES
                    .iter()
                    .zip(1..)
                    .find(|(n, _)| n.eq_ignore_ascii_case(name));
                Some((
                    found.map_or(Held::Null, |(_, n)| Held::Integer(n)),
                    SqlType::SmallInt,
                ))
            }
            "suser_sname" | "suser_name" | "original_login" | "system_user" | "session_user" => {
                text(&self.login)
            }
            "user_name" | "user" | "current_user" | "schema_name" => text("dbo"),
            "user_id" | "schema_id" | "database_principal_id" => int(1),
            "host_name" => text(&self.host),
            "app_name" | "program_name" => text(&self.application),
            "host_id" => text("1"),
            "scope_identity" => Some(self.identity_value()),
            "xact_state" => Some((Held::Integer(i64::from(self.transactions > 0)), SqlType::SmallInt)),
            "rowcount_big" => Some((
                Held::Integer(i64::try_from(self.row_count).unwrap_or(i64::MAX)),
                SqlType::BigInt,
            )),
            "serverproperty" => self.server_property(argument.unwrap_or_default()),
            "databasepropertyex" => {
                database_property(arguments.get(1).copied().flatten().unwrap_or_default())
            }
            "databaseproperty" | "connectionproperty" | "sessionproperty" => text("1"),
            "is_srvrolemember" | "is_member" | "is_rolemember" | "has_dbaccess" => int(1),
            "has_perms_by_name" => int(1),
            _ => self.caught(name),
        }
    }

    fn server_property(&self, name: &str) -> Known {
        match name.to_ascii_lowercase().as_str() {
            "edition" => text("Developer Edition (64-bit)"),
            "engineedition" => int(3),
            "editionid" => int(-2_117_995_310),
            "productversion" | "resourceversion" => text("16.0.4006.0"),
            "productmajorversion" => text("16"),
            "productminorversion" => text("0"),
            "productlevel" => text("RTM"),
            "servername" | "machinename" | "computernamephysicalnetbios" => text(&self.server),
            "collation" => text("SQL_Latin1_General_CP1_CI_AS"),
            "lcid" => int(1033),
            "isintegratedsecurityonly"
            | "isclustered"
            | "ishadrenabled"
            | "issingleuser"
            | "isfulltextinstalled" => int(0),
            _ => Some((Held::Null, SqlType::TEXT)),
        }
    }

    fn caught(&self, name: &str) -> Known {
        let caught = self.caught.as_ref();
        let number = |n: Option<i64>| Some((n.map_or(Held::Null, Held::Integer), SqlType::Int));
        match name {
            "error_number" => number(caught.map(|m| i64::from(m.number))),
            "error_severity" => number(caught.map(|m| i64::from(m.class))),
            "error_state" => number(caught.map(|m| i64::from(m.state))),
            "error_line" => number(caught.map(|m| i64::from(m.line))),
            "error_message" => Some((
                caught.map_or(Held::Null, |m| Held::Text(m.text.clone())),
                SqlType::NVarChar(Length::Of(4000)),
            )),
            "error_procedure" => Some((Held::Null, SqlType::NVarChar(Length::Of(128)))),
            _ => None,
        }
    }
}
