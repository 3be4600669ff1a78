//! Transactions: SQLite's, counted as T-SQL counts them, told by ENVCHANGE.

use weir_tds::request::transaction::{Begin, TransactionRequest};

use super::answer::Answer;
use super::connection::Connection;
use super::fault::Fault;
use crate::tokens::{Message, command, status};

impl Connection {
    pub(super) fn transaction(
        &mut self,
        asked: &TransactionRequest<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<(), Fault> {
        match asked {
            TransactionRequest::Begin(_) => self.begin(answer)?,
            TransactionRequest::Commit { then, .. } => {
                self.commit(answer)?;
                self.begin_next(then.as_ref(), answer)?;
            }
            TransactionRequest::Rollback { name, then } => {
                if name.is_empty() {
                    self.rollback(None, answer)?;
                    self.begin_next(then.as_ref(), answer)?;
                } else {
                    self.rollback(Some(name), answer)?;
                }
            }
            TransactionRequest::Save(name) => self.save(name, answer)?,
            _ => return Err(Message::error(50000, "The sandbox has no distributed transactions.").into()),
        }
        answer.done(status::FINAL, command::NONE, 0);
        Ok(())
    }

    fn begin_next(&mut self, next: Option<&Begin>, answer: &mut Answer<'_>) -> Result<(), Fault> {
        if next.is_some() {
            self.begin(answer)
        } else {
            Ok(())
        }
    }

    /// An empty transaction holds no lock: SQLite takes none before the first statement.
    pub(super) fn begin(&mut self, answer: &mut Answer<'_>) -> Result<(), Fault> {
        if self.facts.transactions == 0 {
            self.db(answer)?.execute_batch("BEGIN")?;
            self.descriptor += 1;
            let descriptor = self.descriptor;
            if answer.version().has_wide_counts() {
                answer.tokens().env_begin_transaction(descriptor);
            }
        }
        self.facts.transactions += 1;
        Ok(())
    }

    pub(super) fn commit(&mut self, answer: &mut Answer<'_>) -> Result<(), Fault> {
        match self.facts.transactions {
            0 => {
                let text = "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.";
                Err(Message::new(3902, 16, 1, text).into())
            }
            1 => {
                self.locked(answer, |this, _| Ok(this.opened()?.execute_batch("COMMIT")?))?;
                self.facts.transactions = 0;
                self.savepoints.clear();
                if answer.version().has_wide_counts() {
                    answer.tokens().env_commit(self.descriptor);
                }
                Ok(())
            }
            _ => {
                self.facts.transactions -= 1;
                Ok(())
            }
        }
    }

    pub(super) fn rollback(&mut self, name: Option<&str>, answer: &mut Answer<'_>) -> Result<(), Fault> {
        if self.facts.transactions == 0 {
            let text = "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.";
            return Err(Message::new(3903, 16, 1, text).into());
        }
        match name {
            Some(name) if self.savepoints.iter().any(|s| s.eq_ignore_ascii_case(name)) => {
                let name = name.to_lowercase().replace('"', "\"\"");
                Ok(self.opened()?.execute_batch(&format!("ROLLBACK TO \"{name}\""))?)
            }
            _ => {
                self.rollback_all(answer);
                Ok(())
            }
        }
    }

    pub(super) fn rollback_all(&mut self, answer: &mut Answer<'_>) {
        self.end_in_sqlite("ROLLBACK");
        self.facts.transactions = 0;
        self.savepoints.clear();
        if answer.version().has_wide_counts() {
            answer.tokens().env_rollback(self.descriptor);
        }
    }

    pub(super) fn save(&mut self, name: &str, answer: &mut Answer<'_>) -> Result<(), Fault> {
        if self.facts.transactions == 0 {
            let text = "Cannot issue SAVE TRANSACTION when there is no active transaction.";
            return Err(Message::error(628, text).into());
        }
        let quoted = name.to_lowercase().replace('"', "\"\"");
        self.db(answer)?
            .execute_batch(&format!("SAVEPOINT \"{quoted}\""))?;
        self.savepoints.push(name.to_lowercase());
        Ok(())
    }

    /// Notices that SQLite ended the transaction by itself (an interrupted write, a full disk) and tells the client.
    pub(super) fn notice_lost_transaction(&mut self, answer: &mut Answer<'_>) {
        let lost =
            self.facts.transactions > 0 && self.opened().is_ok_and(rusqlite::Connection::is_autocommit);
        if lost {
            self.rollback_all(answer);
        }
    }
}
