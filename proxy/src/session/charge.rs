//! What an upload brings in, paid for packet by packet before a packet goes on to the server (RFD 18).
//!
//! Prices of bulk rows, request bytes and further calls of a message are due while it uploads, or a tenant could bring
//! in a table on the credit of one row. A packet that is not covered stays with the client until there is credit; if
//! there will be none, the request ends with IGNORE, the server loads nothing, and what went through was paid.

use weir_contracts::{
    entry::{Outcome, RequestKind},
    tariff::{Quantity, Tariff},
};
use weir_tds::{
    error::WireError,
    packet::{PacketHeader, PacketStatus, PacketType},
    request::{
        RequestOptions,
        bulk_load::{BulkKind, BulkWalker},
        rpc_walk::RpcWalker,
    },
};

use super::{
    engine::{Action, SessionEnd},
    meter::{Brought, Till},
    relay::{Context, Open, Relay, Stage},
};
use crate::gate::Cause;

/// Reads the client's message as it passes.
pub(super) enum Reading {
    /// A batch or a transaction manager request: only its bytes count.
    Bytes,
    Calls(Box<RpcWalker>),
    Bulk(Box<BulkWalker>),
    /// It cannot be read: from here on only its bytes count.
    Lost,
}

impl Relay {
    /// Begins to read a message of this type.
    pub(super) fn begin_reading(&mut self, kind: PacketType) {
        self.reading = match kind {
            PacketType::Rpc => Reading::Calls(Box::new(RpcWalker::new(RequestOptions::new(
                self.options.version,
            )))),
            PacketType::BulkLoad => {
                let kind = std::mem::replace(&mut self.next_bulk, BulkKind::Rows);
                Reading::Bulk(Box::new(BulkWalker::new(self.options, kind)))
            }
            _ => Reading::Bytes,
        };
    }

    /// Reads the client's front packet once: what it brings in, or why it cannot be read. Clears fNoMetaData on the way,
    /// in place: without COLMETADATA the rows of a call could not be walked, and a client that has the metadata already
    /// reads it again without harm: it takes what it kept only where the count is 0xFFFF [MS-TDS 2.2.7.4].
    pub(super) fn read_packet(
        &mut self,
        header: &PacketHeader,
        cx: &mut Context<'_>,
    ) -> Result<Brought, WireError> {
        let body = cx.client.body_mut(header);
        let mut brought = Brought {
            bytes_in: body.len() as u64,
            ..Brought::default()
        };
        let whole = header.status.is_eom() && !header.status.contains(PacketStatus::IGNORE);
        let read = match &mut self.reading {
            Reading::Bytes | Reading::Lost => Ok(()),
            Reading::Calls(calls) => {
                let before = calls.calls();
                let walked = calls.walk(body);
                brought.calls = u64::from(calls.calls() - before);
                walked.and_then(|()| if whole { calls.end_message() } else { Ok(()) })
            }
            Reading::Bulk(bulk) => {
                let before = bulk.rows();
                let walked = bulk.walk(body);
                brought.bulk_rows = bulk.rows() - before;
                brought.bulk_bytes = body.len() as u64;
                walked.and_then(|()| if whole { bulk.end_message() } else { Ok(()) })
            }
        };
        if read.is_err() {
            self.reading = Reading::Lost;
        }
        read.map(|()| brought)
    }

    /// The least that a held request costs: what has come of it, and the first row that it may return.
    pub(super) fn admission_price(&self, kind: PacketType, brought: &Brought) -> i64 {
        let tariff = &self.payer.terms.tariff;
        let mut least = Quantity {
            requests: brought.calls.max(1),
            bytes_in: brought.bytes_in,
            bulk_rows: brought.bulk_rows,
            ..Quantity::default()
        };
        if kind != PacketType::BulkLoad {
            least.rows = 1;
            least.bytes_out = u64::from(tariff.per_row_nanos == 0);
        }
        tariff.cost_nanos(&least).max(tariff.admission_nanos())
    }

    /// Pays for a packet of the open request and adds it to the record. False if it must wait for credit or was stopped.
    /// A request that was held has its price already, and is never stopped here.
    pub(super) fn pay_upload(
        &mut self,
        mut left: Brought,
        held: bool,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        loop {
            let enforces = self.enforces();
            let Some(Open {
                meter: Some(meter),
                exempt,
                ..
            }) = &mut self.open
            else {
                return Ok(true);
            };
            // The rest of very many calls goes into a further part of the record.
            let mut rest = left;
            let share = rest.split_off(meter.room());
            let charges = enforces && !*exempt && is_priced(&self.payer.terms.tariff, meter.kind());
            let due = if charges { meter.due_with(&share) } else { 0 };
            if due > 0 && due > till.nanos() && !till.refill(due, due) && !held {
                self.brought = Some(left);
                return self.wait_to_upload(due, cx);
            }
            if due > 0 {
                self.bind(cx, till);
            }
            if let Some(Open {
                meter: Some(meter), ..
            }) = &mut self.open
            {
                meter.bring_in(&share);
            }
            if due > 0 {
                self.pay(till, 0)?;
                self.upload_paid = true;
            }
            if rest == Brought::default() {
                return Ok(true);
            }
            left = rest;
            self.begin_part(cx);
        }
    }

    fn begin_part(&mut self, cx: &mut Context<'_>) {
        if let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        {
            let part = meter.next_part();
            let whole = std::mem::replace(meter, part);
            self.close_record(cx, whole, Outcome::Continued);
        }
    }

    fn wait_to_upload(&mut self, need: i64, cx: &mut Context<'_>) -> Result<bool, SessionEnd> {
        if self.purse.state().frozen {
            self.stop_upload(&Cause::Frozen, cx)?;
            return Ok(false);
        }
        self.upload_waits = true;
        // One question at a time: the answer to the response's is for the upload as well.
        let asked = matches!(
            &self.open,
            Some(Open {
                stage: Stage::WaitCredit,
                ..
            })
        );
        if !asked {
            cx.actions.push_back(Action::MoreCredit(need));
        }
        Ok(false)
    }

    /// Ends the open request while it uploads.
    pub(super) fn stop_upload(&mut self, cause: &Cause, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.upload_waits = false;
        self.brought = None;
        if self.can_cut(cx) {
            return self.begin_cut(cause, cx);
        }
        // The server answers what it has not read whole, and its answer cannot be broken off here.
        Err(SessionEnd::Gate(
            "an upload had to stop inside the answer to it".to_owned(),
        ))
    }

    /// A message that cannot be read cannot be metered: in enforce mode it ends, in observe mode its record says so.
    /// True if it goes on.
    pub(super) fn unreadable_upload(
        &mut self,
        error: &WireError,
        cx: &mut Context<'_>,
    ) -> Result<bool, SessionEnd> {
        cx.settings.tally.unreadable_request();
        if self.enforces() {
            self.stop_upload(&Cause::Unmeterable(format!("the request {error}")), cx)?;
            return Ok(false);
        }
        if let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        {
            meter.unparsed = true;
        }
        Ok(true)
    }
}

/// True if what a request of this kind uploads has a price of its own.
fn is_priced(tariff: &Tariff, kind: RequestKind) -> bool {
    tariff.per_kib_in_nanos > 0
        || match kind {
            RequestKind::BulkLoad => tariff.per_bulk_row_nanos > 0,
            RequestKind::Rpc => tariff.per_request_nanos > 0,
            RequestKind::Batch | RequestKind::TransactionManager => false,
        }
}
