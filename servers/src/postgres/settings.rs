//! What the server must be set to, so that what was committed stays committed.

use super::{Pool, PostgresError};

/// The oldest server that this is tested for, as `server_version_num` counts.
const VERSION_MIN: i32 = 130_000;

/// A setting, what it must be, and how it is mended.
struct Rule {
    name: &'static str,
    holds: fn(&str) -> bool,
    wanted: &'static str,
    remedy: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        name: "fsync",
        holds: |v| v == "on",
        wanted: "on",
        remedy: "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
    },
    Rule {
        name: "full_page_writes",
        holds: |v| v == "on",
        wanted: "on",
        remedy: "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
    },
    Rule {
        name: "synchronous_commit",
        holds: |v| v != "off",
        wanted: "on, local, remote_write or remote_apply",
        remedy: "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); or ALTER ROLE … RESET synchronous_commit; if it is set for the role",
    },
    Rule {
        name: "data_sync_retry",
        holds: |v| v == "off",
        wanted: "off",
        remedy: "ALTER SYSTEM SET data_sync_retry = off; and restart the server",
    },
    Rule {
        name: "zero_damaged_pages",
        holds: |v| v == "off",
        wanted: "off",
        remedy: "ALTER SYSTEM SET zero_damaged_pages = off; SELECT pg_reload_conf();",
    },
    Rule {
        name: "default_transaction_read_only",
        holds: |v| v == "off",
        wanted: "off",
        remedy: "ALTER SYSTEM SET default_transaction_read_only = off; SELECT pg_reload_conf(); or ALTER ROLE … RESET default_transaction_read_only;",
    },
    Rule {
        name: "server_encoding",
        holds: |v| v == "UTF8",
        wanted: "UTF8",
        remedy: "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0; and name it in the database URL",
    },
];

impl Pool {
    /// Checks the server's settings that durability needs, as they are for new sessions of this role.
    ///
    /// # Errors
    /// `Settings` naming setting, value and remedy, all of those that are wrong.
    pub async fn check_settings(&self) -> Result<(), PostgresError> {
        let mut client = self.get().await?;
        let server = client
            .query_one(
                "SELECT current_setting('server_version_num')::integer, current_setting('server_version'), pg_is_in_recovery(),
                 rolsuper, current_user::text FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await?;
        let (version, shown): (i32, String) = (server.try_get(0)?, server.try_get(1)?);
        let mut wrong = Vec::new();
        if version < VERSION_MIN {
            wrong.push(format!(
                "server_version is {shown}, needed is {} or later: upgrade PostgreSQL",
                VERSION_MIN / 10_000
            ));
        }
        if server.try_get(2)? {
            wrong.push(
                "the server is a read replica (pg_is_in_recovery): name the primary in the database URL, or all hosts, comma-separated"
                    .to_owned(),
            );
        }
        let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        // `reset_val`: what the session began with, before the pool pinned it.
        let rows = client
            .query(
                "SELECT name, reset_val FROM pg_settings WHERE name = ANY($1)",
                &[&names],
            )
            .await?;
        for row in rows {
            wrong.extend(fault(row.try_get(0)?, row.try_get(1)?));
        }
        if !wrong.is_empty() {
            return Err(PostgresError::Settings(format!(
                "PostgreSQL's settings would lose what was committed: {}",
                wrong.join(" | ")
            )));
        }
        if server.try_get(3)? {
            let role: String = server.try_get(4)?;
            tracing::warn!(
                role,
                "the database role is a superuser: give the service a role of its own (CREATE ROLE … LOGIN; CREATE SCHEMA … AUTHORIZATION …)"
            );
        }
        Ok(())
    }
}

/// What is wrong with a setting's value, and how it is mended.
fn fault(name: &str, value: &str) -> Option<String> {
    let rule = RULES.iter().find(|rule| rule.name == name)?;
    (!(rule.holds)(value)).then(|| format!("{name} is {value}, needed is {}: {}", rule.wanted, rule.remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_loses_commits_is_named_with_value_and_remedy() {
        for (name, bad, good) in [
            ("fsync", "off", "on"),
            ("full_page_writes", "off", "on"),
            ("synchronous_commit", "off", "local"),
            ("data_sync_retry", "on", "off"),
            ("zero_damaged_pages", "on", "off"),
            ("default_transaction_read_only", "on", "off"),
            ("server_encoding", "SQL_ASCII", "UTF8"),
        ] {
            assert_eq!(fault(name, good), None);
            let told = fault(name, bad).unwrap();
            assert!(told.starts_with(&format!(
                "{name} is {bad}, needed is {}",
                if name == "synchronous_commit" { "on" } else { good }
            )));
            assert!(
                told.contains(": ALTER SYSTEM SET ") || told.contains(": CREATE DATABASE "),
                "{told}"
            );
        }
        assert_eq!(fault("work_mem", "64kB"), None);
    }
}
