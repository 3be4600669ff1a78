//! Migrations: a schema brought to the newest version, one numbered script per transaction, one migrating process at a time.

use std::time::Duration;

use super::{Isolation, Pool, PostgresError};

/// Longest wait for one script, the waiting for another process's included.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(600);
/// Longest wait of a script for a lock on a table: others wait behind it meanwhile, so it must be short.
const TABLE_LOCK_WAIT: &str = "5s";

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (
    version integer PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    application text NOT NULL DEFAULT current_setting('application_name')
)";
const NEWEST: &str = "SELECT coalesce(max(version), 0) FROM schema_versions";

impl Pool {
    /// Makes the pool's schema when it is missing, and brings its tables to the newest version: script n makes version n, in one
    /// transaction with its number. Scripts are never changed once released, only added.
    ///
    /// # Errors
    /// `Settings` with the SQL that an administrator runs, when the role may not; `Damaged` when a newer program wrote the schema.
    pub async fn migrate(&self, scripts: &[&str]) -> Result<(), PostgresError> {
        self.make_schema().await?;
        while self.one_script(scripts).await? {}
        Ok(())
    }

    async fn make_schema(&self) -> Result<(), PostgresError> {
        let schema = &self.options().schema;
        let mut client = self.get().await?.with_deadline(SCRIPT_DEADLINE);
        let mut making = client.begin(Isolation::ReadCommitted).await?;
        making.batch(&alone(schema)).await?;
        let found = making
            .query_one(
                "SELECT to_regnamespace($1::text) IS NOT NULL, has_database_privilege(current_database(), 'CREATE'),
                 current_user::text, current_database()::text",
                &[schema],
            )
            .await?;
        let (exists, may_create): (bool, bool) = (found.try_get(0)?, found.try_get(1)?);
        let (role, database): (String, String) = (found.try_get(2)?, found.try_get(3)?);
        if !exists && !may_create {
            return Err(PostgresError::Settings(format!(
                "the schema {schema} is missing and the role {role} may not make it: have an administrator run \
                 CREATE SCHEMA {schema} AUTHORIZATION \"{role}\"; in the database {database}"
            )));
        }
        if !exists {
            making.batch(&format!("CREATE SCHEMA {schema}")).await?;
        }
        let rights = making
            .query_one(
                "SELECT has_schema_privilege($1::text, 'CREATE') AND has_schema_privilege($1::text, 'USAGE')",
                &[schema],
            )
            .await?;
        if !rights.try_get::<_, bool>(0)? {
            return Err(PostgresError::Settings(format!(
                "the role {role} may not use the schema {schema}: have an administrator run \
                 GRANT ALL ON SCHEMA {schema} TO \"{role}\"; in the database {database}"
            )));
        }
        making.batch(VERSIONS).await?;
        making.commit().await
    }

    /// Runs the next script; false when there is none.
    async fn one_script(&self, scripts: &[&str]) -> Result<bool, PostgresError> {
        let schema = &self.options().schema;
        let mut client = self.get().await?.with_deadline(SCRIPT_DEADLINE);
        let mut step = client.begin(Isolation::ReadCommitted).await?;
        step.batch(&alone(schema)).await?;
        let version: i32 = step.query_one(NEWEST, &[]).await?.try_get(0)?;
        let known = i32::try_from(scripts.len()).unwrap_or(i32::MAX);
        if version > known {
            step.rollback().await?;
            return Err(PostgresError::Damaged(format!(
                "the schema {schema} was written by a newer program (version {version}, known here is {known}): run that one"
            )));
        }
        let Some(script) = usize::try_from(version).ok().and_then(|n| scripts.get(n)) else {
            step.rollback().await?;
            return Ok(false);
        };
        step.batch(script).await?;
        step.execute(
            "INSERT INTO schema_versions (version) VALUES ($1)",
            &[&(version + 1)],
        )
        .await?;
        step.commit().await?;
        tracing::info!(
            schema,
            version = version + 1,
            "the database schema was brought forward"
        );
        Ok(true)
    }
}

/// Waits until no other process migrates this schema; then only table locks have to be waited for.
fn alone(schema: &str) -> String {
    let (all, ms) = (SCRIPT_DEADLINE.as_millis(), "SET LOCAL statement_timeout =");
    format!(
        "{ms} {all}; SET LOCAL lock_timeout = {all};
         SELECT pg_advisory_xact_lock(hashtextextended('weir migrates {schema}', 0));
         SET LOCAL lock_timeout = '{TABLE_LOCK_WAIT}'"
    )
}
