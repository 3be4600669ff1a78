//! A connection in use, and a transaction on it: every call has a deadline, and what may still have an answer pending is thrown away.

use std::{future::Future, time::Duration};

use deadpool_postgres::Object;
use tokio_postgres::{Row, types::ToSql};

use super::PostgresError;

/// How far a transaction is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see one moment; nothing may be written.
    OneMoment,
    /// As if the transactions ran one after another; any may end as `Serialization`.
    Serializable,
}

/// A connection taken from the pool. It goes back when dropped, unless a call on it failed, was given up, or left a transaction open.
/// Statements are prepared once per connection, so their text must be constant.
pub struct Client {
    /// Gone only while this is being dropped.
    connection: Option<Object>,
    /// A call on it is pending, failed or was given up, or a transaction was left open.
    in_doubt: bool,
    deadline: Duration,
}

impl Client {
    pub(super) const fn new(connection: Object, deadline: Duration) -> Self {
        Self {
            connection: Some(connection),
            in_doubt: false,
            deadline,
        }
    }

    /// Another deadline for each further call.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let deadline = self.deadline;
        let connection = self.start()?;
        let outcome = within(deadline, async {
            let statement = connection.prepare_cached(sql).await?;
            connection.query(&statement, params).await
        })
        .await;
        self.end(outcome)
    }

    /// The only row of a query.
    ///
    /// # Errors
    /// See [`PostgresError`]; none or several rows are `Damaged`.
    pub async fn query_one(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, PostgresError> {
        let row = self.query_opt(sql, params).await?;
        row.ok_or_else(|| PostgresError::Damaged("a row that must be there is missing".to_owned()))
    }

    /// The only row of a query, if there is one.
    ///
    /// # Errors
    /// See [`PostgresError`]; several rows are `Damaged`.
    pub async fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        let mut rows = self.query(sql, params).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            n => Err(PostgresError::Damaged(format!("{n} rows where one may be"))),
        }
    }

    /// Runs a statement; returns how many rows it touched.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn execute(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PostgresError> {
        let deadline = self.deadline;
        let connection = self.start()?;
        let outcome = within(deadline, async {
            let statement = connection.prepare_cached(sql).await?;
            connection.execute(&statement, params).await
        })
        .await;
        self.end(outcome)
    }

    /// Runs statements without parameters and without preparing them.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn batch(&mut self, sql: &str) -> Result<(), PostgresError> {
        let deadline = self.deadline;
        let connection = self.start()?;
        let outcome = within(deadline, connection.batch_execute(sql)).await;
        self.end(outcome)
    }

    /// Begins a transaction. Dropped without [`Transaction::commit`], it is rolled back and its connection thrown away.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn begin(&mut self, isolation: Isolation) -> Result<Transaction<'_>, PostgresError> {
        self.batch(match isolation {
            Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Isolation::OneMoment => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        })
        .await?;
        Ok(Transaction {
            client: self,
            failed: None,
            ended: false,
        })
    }

    /// In doubt from here on: a call may be given up while it waits.
    fn start(&mut self) -> Result<&Object, PostgresError> {
        match &self.connection {
            Some(connection) if !self.in_doubt => {
                self.in_doubt = true;
                Ok(connection)
            }
            _ => Err(PostgresError::Unavailable(
                "the connection was given up by an earlier call".to_owned(),
            )),
        }
    }

    fn end<T>(&mut self, outcome: Result<T, PostgresError>) -> Result<T, PostgresError> {
        self.in_doubt = !outcome
            .as_ref()
            .map_or_else(PostgresError::leaves_connection_whole, |_| true);
        outcome
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.in_doubt
            && let Some(connection) = self.connection.take()
        {
            // Closed, instead of returned to the pool.
            drop(Object::take(connection));
        }
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => outcome.map_err(PostgresError::from),
        Err(_) => Err(PostgresError::Unavailable(format!(
            "no answer within {deadline:?}"
        ))),
    }
}

/// A transaction.
pub struct Transaction<'a> {
    client: &'a mut Client,
    /// The first error in it: PostgreSQL would answer COMMIT by rolling back, and call that a success.
    failed: Option<PostgresError>,
    ended: bool,
}

impl Transaction<'_> {
    /// As [`Client::query`].
    ///
    /// # Errors
    /// See [`PostgresError`]; after one, nothing of the transaction will be written.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let outcome = self.client.query(sql, params).await;
        self.noted(outcome)
    }

    /// As [`Client::query_one`].
    ///
    /// # Errors
    /// See [`PostgresError`]; after one, nothing of the transaction will be written.
    pub async fn query_one(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, PostgresError> {
        let outcome = self.client.query_one(sql, params).await;
        self.noted(outcome)
    }

    /// As [`Client::query_opt`].
    ///
    /// # Errors
    /// See [`PostgresError`]; after one, nothing of the transaction will be written.
    pub async fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        let outcome = self.client.query_opt(sql, params).await;
        self.noted(outcome)
    }

    /// As [`Client::execute`].
    ///
    /// # Errors
    /// See [`PostgresError`]; after one, nothing of the transaction will be written.
    pub async fn execute(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PostgresError> {
        let outcome = self.client.execute(sql, params).await;
        self.noted(outcome)
    }

    /// As [`Client::batch`].
    ///
    /// # Errors
    /// See [`PostgresError`]; after one, nothing of the transaction will be written.
    pub async fn batch(&mut self, sql: &str) -> Result<(), PostgresError> {
        let outcome = self.client.batch(sql).await;
        self.noted(outcome)
    }

    /// Writes it all.
    ///
    /// # Errors
    /// The first error in the transaction: then it is rolled back. `Unavailable`: it may be found written later.
    pub async fn commit(mut self) -> Result<(), PostgresError> {
        if let Some(error) = self.failed.take() {
            self.end("ROLLBACK").await?;
            return Err(error);
        }
        self.end("COMMIT").await
    }

    /// Undoes it all and keeps the connection.
    ///
    /// # Errors
    /// The connection is lost; the server undoes it then.
    pub async fn rollback(mut self) -> Result<(), PostgresError> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, how: &str) -> Result<(), PostgresError> {
        let outcome = self.client.batch(how).await;
        // Settled either way: a connection that is in doubt is gone by now.
        self.ended = true;
        outcome
    }

    fn noted<T>(&mut self, outcome: Result<T, PostgresError>) -> Result<T, PostgresError> {
        if let (Err(error), None) = (&outcome, &self.failed) {
            self.failed = Some(error.clone());
        }
        outcome
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.client.in_doubt = true;
        }
    }
}
