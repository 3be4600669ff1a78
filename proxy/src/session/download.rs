//! Server → client: each packet is walked, paid for, journaled by the driver, and only then forwarded as it came.
//!
//! Packets that pass as they came form a run: they are paid for together and leave as one piece of the buffer that they were
//! read into. A run ends with the pass, with its message, and before anything else that the client is sent.

use weir_contracts::entry::{Outcome, RequestKind};
use weir_tds::{
    error::WireError,
    packet::{PacketHeader, PacketType},
    token::{Done, DoneStatus, TokenKind},
    walker::{Budget, Step},
};

use super::{
    elsewhere::{self, Lookout},
    engine::{Action, SessionEnd},
    meter::{Meter, Till},
    relay::{Context, OnCredit, Open, Relay, Stage},
};
use crate::{
    gate::Cause,
    ports::billing::{Cut as CutPolicy, Mode},
};

pub(super) fn server_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Server(error.to_string())
}

/// What a walk came to, without its borrow of the packet.
enum Seen {
    All,
    RowNotCovered,
    ColMetadata,
    Done(Done),
    Error,
    Other,
}

impl Relay {
    pub(super) fn pump_server(
        &mut self,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<(), SessionEnd> {
        let pumped = self.pump_packets(cx, till);
        // What was walked before a fault is the client's.
        self.send_run(cx, till)?;
        pumped?;
        self.note_chunk(cx);
        Ok(())
    }

    fn pump_packets(&mut self, cx: &mut Context<'_>, till: &mut Till<'_>) -> Result<(), SessionEnd> {
        // A cut goes on behind a client that reads slowly: the server owes its acknowledgement within a deadline.
        while cx.client.out.held() + cx.server.passed() < cx.chunk_bytes || self.is_cutting() {
            let Some(header) = cx.server.peek_packet().map_err(server_fault)? else {
                break;
            };
            if header.kind != PacketType::TabularResult {
                return Err(server_fault(format!(
                    "packet type 0x{:02x} in an answer",
                    header.kind.byte()
                )));
            }
            let Some(open) = &self.open else {
                return Err(server_fault("an answer without a request"));
            };
            let went_on = match open.stage {
                Stage::Respond => self.respond(cx, &header, till)?,
                Stage::WaitCredit => false,
                Stage::Cut(_) => self.discard(cx, &header)?,
                Stage::Acks => self.pass_ack(cx, &header)?,
                Stage::Answered(_) => return Err(server_fault("a second answer to one request")),
            };
            if !went_on {
                break;
            }
        }
        Ok(())
    }

    /// Ends the run: pays for it and sends it.
    fn send_run(&mut self, cx: &mut Context<'_>, till: &mut Till<'_>) -> Result<(), SessionEnd> {
        if cx.server.passed() == 0 {
            return Ok(());
        }
        let due = std::mem::take(&mut self.run_due);
        if let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
            && due > 0
        {
            meter.pay_part(due);
            let (lease, short) = (meter.lease_number(), till.spend(due));
            if short > 0 && lease > 0 {
                self.purse.overdraw(lease, short);
            }
        }
        let run = cx.server.take_passed();
        Ok(cx.client.send_run(run)?)
    }

    /// Tells the driver what the journal slot must hold before anything of this pass is written to the client.
    fn note_chunk(&mut self, cx: &mut Context<'_>) {
        let paid = std::mem::take(&mut self.upload_paid);
        if cx.client.out.is_empty() && !paid {
            return;
        }
        let meter = match (&self.open, &self.finished) {
            (
                Some(Open {
                    meter: Some(meter), ..
                }),
                _,
            )
            | (_, Some((meter, _))) => meter,
            _ => return,
        };
        *cx.chunk = Some((meter.slot_head(self.payer.session), meter.slot_state()));
    }

    /// Walks the packet on; true if it was forwarded whole.
    fn respond(
        &mut self,
        cx: &mut Context<'_>,
        header: &PacketHeader,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        self.first_answer(cx);
        if self.lost.is_some() {
            return self.forward_unwalked(cx, header);
        }
        loop {
            let body = cx.server.body(header);
            let input = body.get(self.walked..).unwrap_or_default();
            let ahead = (body.len() - self.counted.min(body.len())) as u64;
            let mut budget = self.budget(till, ahead);
            let (rows_before, bytes_before) = (self.walker.rows(), self.walker.payload_bytes());
            let within_token = !self.walker.at_boundary();
            let walk = self.walker.walk(input, &mut budget);
            let seen = match walk {
                Ok(walk) => {
                    self.walked += walk.consumed;
                    if let Step::Token(token) = &walk.step {
                        stay_here(token.bytes)?;
                    }
                    Ok(see(&walk.step, self.options.version).map_err(server_fault)?)
                }
                Err(error) => Err(error),
            };
            let rows = self.walker.rows() - rows_before;
            let Some(Open {
                meter: Some(meter), ..
            }) = &mut self.open
            else {
                return Err(server_fault("an answer to a cancellation that was not asked for"));
            };
            meter.totals.rows += rows;
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    self.send_run(cx, till)?;
                    // Rows before the broken token were covered by the budget, and are delivered. What no lease was
                    // taken for yet is settled with the record, under the lease that it is then bound to.
                    if till.lease().is_some() || !self.enforces() {
                        self.pay(till, 0)?;
                    }
                    let whole = self.walker.payload_bytes() - bytes_before;
                    let clean = (whole > 0 || !within_token).then_some(whole);
                    return self.unreadable(&error, clean, cx, header);
                }
            };
            match seen {
                Seen::All => {
                    self.refuse_split_lead()?;
                    break;
                }
                Seen::RowNotCovered => {
                    if !self.fund_row(cx, header, till)? {
                        return Ok(false);
                    }
                }
                token => {
                    let set_ended = matches!(&token, Seen::Done(done) if !done.is_final());
                    self.note_token(token)?;
                    if set_ended && self.cut_if_set_is_finished(cx)? {
                        return Ok(false);
                    }
                }
            }
        }
        self.pay_packet(cx, header, till)
    }

    /// A packet's border may cut a token that leads elsewhere: its first part must not leave either.
    fn refuse_split_lead(&self) -> Result<(), SessionEnd> {
        stay_here(self.walker.unfinished())
    }

    /// The whole packet is walked: pays what is due and forwards it.
    fn pay_packet(
        &mut self,
        cx: &mut Context<'_>,
        header: &PacketHeader,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        self.count_bytes(cx.server.body(header).len());
        let enforces = self.enforces();
        let at_boundary = self.walker.at_boundary();
        let Some(Open {
            meter: Some(meter),
            on_credit,
            ..
        }) = &mut self.open
        else {
            return Ok(false);
        };
        let covered = matches!(on_credit, OnCredit::No);
        let mut due = meter.due_nanos(0);
        if enforces && due > till.nanos() && covered {
            due -= self.run_due;
            self.send_run(cx, till)?;
            if due > till.nanos() && !self.refill(cx, till, due, due) {
                self.wait_for_credit(cx, due);
                return Ok(false);
            }
        }
        if covered && self.passes_as_it_came(header, cx) {
            self.run_due = due;
            self.pass(header, cx);
            if header.status.is_eom() {
                self.send_run(cx, till)?;
                self.end_of_response()?;
            }
            return Ok(true);
        }
        self.send_run(cx, till)?;
        self.pay(till, header.body_len() as u64)?;
        self.forward_whole(cx, header)?;
        if header.status.is_eom() {
            self.end_of_response()?;
        } else if at_boundary {
            self.cut_if_row_is_finished(cx)?;
        }
        Ok(true)
    }

    /// Adds the front packet to the run.
    fn pass(&mut self, header: &PacketHeader, cx: &mut Context<'_>) {
        (self.walked, self.counted) = (0, 0);
        self.spid = header.spid;
        self.note_sent(header);
        cx.server.pass_packet(header);
    }

    fn forward_whole(&mut self, cx: &mut Context<'_>, header: &PacketHeader) -> Result<(), SessionEnd> {
        (self.walked, self.counted) = (0, 0);
        self.spid = header.spid;
        self.send_down(header, cx)
    }

    fn end_of_response(&mut self) -> Result<(), SessionEnd> {
        self.walker.end_message().map_err(server_fault)?;
        self.walker.begin_message();
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        // A server may put its acknowledgement into the answer that it broke off; the client has it then.
        open.attentions -= u32::from(std::mem::take(&mut open.saw_ack)).min(open.attentions);
        let outcome = match (open.saw_error, open.cancelled) {
            (_, true) => Outcome::Cancelled,
            (true, false) => Outcome::Error,
            (false, false) => Outcome::Completed,
        };
        if open.attentions > 0 {
            open.stage = Stage::Acks;
        } else if !open.uploaded {
            open.stage = Stage::Answered(outcome);
        } else {
            self.finish(outcome);
        }
        Ok(())
    }

    /// An acknowledgement message: forwarded; it has no rows.
    fn pass_ack(&mut self, cx: &mut Context<'_>, header: &PacketHeader) -> Result<bool, SessionEnd> {
        loop {
            let input = cx.server.body(header).get(self.walked..).unwrap_or_default();
            let walk = self
                .walker
                .walk(
                    input,
                    &mut Budget {
                        rows: 0,
                        bytes: u64::MAX,
                    },
                )
                .map_err(server_fault)?;
            self.walked += walk.consumed;
            match walk.step {
                Step::NeedMore => break,
                Step::BudgetSpent => {
                    return Err(server_fault("rows in the acknowledgement of a cancellation"));
                }
                Step::Token(token) => stay_here(token.bytes)?,
            }
        }
        self.refuse_split_lead()?;
        self.forward_whole(cx, header)?;
        if header.status.is_eom() {
            self.walker.begin_message();
            let Some(open) = &mut self.open else {
                return Ok(true);
            };
            open.attentions = open.attentions.saturating_sub(1);
            if open.attentions == 0 {
                self.finish(Outcome::Cancelled);
            }
        }
        Ok(true)
    }

    /// What may be walked with what is in hand.
    fn budget(&self, till: &Till<'_>, ahead: u64) -> Budget {
        let Some(Open {
            meter: Some(meter),
            on_credit,
            ..
        }) = &self.open
        else {
            return Budget {
                rows: 0,
                bytes: u64::MAX,
            };
        };
        match on_credit {
            _ if !self.enforces() => Budget::UNLIMITED,
            OnCredit::Exempt { .. } => Budget::UNLIMITED,
            OnCredit::Row { .. } => Budget {
                rows: 0,
                bytes: u64::MAX,
            },
            // Rows may begin in the first half of the row credit; the last of them is finished in the other.
            OnCredit::Result { bytes, .. } => Budget {
                rows: u64::MAX,
                bytes: (self.payer.terms.row_credit_bytes / 2)
                    .saturating_sub(*bytes)
                    .saturating_sub(self.walked as u64),
            },
            OnCredit::No => meter.budget(till.nanos(), ahead),
        }
    }

    /// The next row is not covered: pays for what was walked and gets more. False if it must wait or was cut.
    fn fund_row(
        &mut self,
        cx: &mut Context<'_>,
        header: &PacketHeader,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        if self.purse.state().frozen {
            self.count_bytes(self.walked);
            self.send_run(cx, till)?;
            self.pay(till, 0)?;
            self.begin_cut(&Cause::Frozen, cx)?;
            return Ok(false);
        }
        if let Some(Open {
            on_credit: OnCredit::Row { cause, .. } | OnCredit::Result { cause, .. },
            ..
        }) = &self.open
        {
            let cause = cause.clone();
            self.send_run(cx, till)?;
            self.begin_cut(&cause, cx)?;
            return Ok(false);
        }
        self.send_run(cx, till)?;
        let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        else {
            return Ok(false);
        };
        let walked_rows_due = meter.due_nanos(0).min(till.nanos());
        if walked_rows_due > 0 {
            self.pay(till, 0)?;
        }
        let Some(Open {
            meter: Some(meter), ..
        }) = &self.open
        else {
            return Ok(false);
        };
        let ahead = (cx.server.body(header).len() - self.counted) as u64;
        let (need, want) = (
            meter.next_row_nanos(ahead),
            meter.worst_nanos(cx.server.plain().len() as u64),
        );
        if self.refill(cx, till, need, want) {
            return Ok(true);
        }
        self.wait_for_credit(cx, need);
        Ok(false)
    }

    /// Takes credit afresh and binds the record to its lease; a record under another lease is closed as a part.
    fn refill(&mut self, cx: &mut Context<'_>, till: &mut Till<'_>, need: i64, want: i64) -> bool {
        till.refill(need, want) && self.bind(cx, till)
    }

    /// Binds the record to the lease of the credit in hand; false if there is none.
    pub(super) fn bind(&mut self, cx: &mut Context<'_>, till: &Till<'_>) -> bool {
        let Some(lease) = till.lease().cloned() else {
            return false;
        };
        let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        else {
            return false;
        };
        if !meter.accepts(&lease) {
            let part = meter.next_part();
            let whole = std::mem::replace(meter, part);
            self.close_record(cx, whole, Outcome::Continued);
        }
        let guard = self.purse.attach(lease.number);
        if let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
            && meter.lease_number() != lease.number
        {
            meter.bind(lease, guard);
        }
        true
    }

    /// A lease that is to be closed is left at once: the part ends, the next one takes from the next lease.
    pub(super) fn leave_closing_lease(&mut self, cx: &mut Context<'_>) {
        let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        else {
            return;
        };
        let number = meter.lease_number();
        if number == 0 || !self.purse.is_closing(number) || meter.due_nanos(0) > 0 {
            return;
        }
        let part = meter.next_part();
        let whole = std::mem::replace(meter, part);
        self.close_record(cx, whole, Outcome::Continued);
    }

    pub(super) fn pay(&mut self, till: &mut Till<'_>, bytes: u64) -> Result<(), SessionEnd> {
        let limit = self.payer.terms.row_credit_bytes;
        let Some(Open {
            meter: Some(meter),
            on_credit,
            ..
        }) = &mut self.open
        else {
            return Ok(());
        };
        let lease = meter.lease_number();
        let short = till.spend(meter.pay());
        if let OnCredit::Row { bytes: used, .. }
        | OnCredit::Result { bytes: used, .. }
        | OnCredit::Exempt { bytes: used } = on_credit
        {
            *used += bytes;
            if *used > limit {
                return Err(SessionEnd::Gate(
                    "the row in hand is larger than gate.row_credit".to_owned(),
                ));
            }
        }
        if short > 0 && lease > 0 {
            self.purse.overdraw(lease, short);
        }
        Ok(())
    }

    fn wait_for_credit(&mut self, cx: &mut Context<'_>, need: i64) {
        if let Some(open) = &mut self.open {
            open.stage = Stage::WaitCredit;
        }
        cx.actions.push_back(Action::MoreCredit(need));
    }

    /// Brings the front packet's bytes, up to `upto`, into the meter once.
    pub(super) fn count_bytes(&mut self, upto: usize) {
        let fresh = upto.saturating_sub(self.counted);
        self.counted += fresh;
        if let Some(Open {
            meter: Some(meter), ..
        }) = &mut self.open
        {
            meter.totals.bytes_out += fresh as u64;
        }
    }

    fn first_answer(&mut self, cx: &Context<'_>) {
        let Some(open) = &mut self.open else {
            return;
        };
        if !std::mem::replace(&mut open.answered, true)
            && let (Some(meter), Some(at)) = (&mut open.meter, open.uploaded_at)
        {
            meter.totals.server_nanos = u64::try_from((cx.now - at).as_nanos()).unwrap_or(u64::MAX);
        }
    }

    fn note_token(&mut self, seen: Seen) -> Result<(), SessionEnd> {
        let rows = self.walker.rows();
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let Some(meter) = &mut open.meter else {
            return Ok(());
        };
        match seen {
            Seen::ColMetadata => {
                meter.result_sets = meter.result_sets.saturating_add(1);
                open.set_began_at = Some(rows);
            }
            Seen::Error => open.saw_error = true,
            Seen::Done(done) => {
                open.saw_error |= done.status.contains(DoneStatus::ERROR);
                open.saw_ack |= done.status.contains(DoneStatus::ATTN);
                note_count(&done, open.set_began_at.take(), rows, meter);
            }
            Seen::All | Seen::RowNotCovered | Seen::Other => {}
        }
        Ok(())
    }

    /// True if the response was cut behind the result set that was finished on credit; more of it would follow.
    fn cut_if_set_is_finished(&mut self, cx: &mut Context<'_>) -> Result<bool, SessionEnd> {
        let Some(Open {
            on_credit: OnCredit::Result { cause, .. },
            ..
        }) = &self.open
        else {
            return Ok(false);
        };
        let cause = cause.clone();
        self.begin_cut(&cause, cx)?;
        Ok(true)
    }

    fn cut_if_row_is_finished(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        if let Some(Open {
            on_credit: OnCredit::Row { cause, .. },
            ..
        }) = &self.open
        {
            let cause = cause.clone();
            return self.begin_cut(&cause, cx);
        }
        Ok(())
    }

    /// The stream cannot be walked: in observe mode it is forwarded and flagged, else it ends before the broken token,
    /// `clean` bytes on. Of a token that began in an earlier packet the client has a part: no ERROR can be read there.
    fn unreadable(
        &mut self,
        error: &WireError,
        clean: Option<u64>,
        cx: &mut Context<'_>,
        header: &PacketHeader,
    ) -> Result<bool, SessionEnd> {
        cx.settings.tally.unreadable_response();
        if self.payer.terms.mode == Mode::Observe {
            if let Some(Open {
                meter: Some(meter), ..
            }) = &mut self.open
            {
                meter.unparsed = true;
            }
            self.lost = Some(Lookout::default());
            return self.forward_unwalked(cx, header);
        }
        let Some(clean) = clean else {
            return Err(server_fault(error));
        };
        let walked = self
            .walked
            .saturating_add(usize::try_from(clean).unwrap_or(usize::MAX));
        self.walked = walked.min(header.body_len());
        self.count_bytes(self.walked);
        let token = self.walker.token_at_fault().map_or("a token", TokenKind::name);
        let why = format!("{token} of the answer, {error}");
        self.begin_blind_cut(&Cause::Unmeterable(why), cx)?;
        Ok(false)
    }
}

impl Relay {
    /// Observe mode, after the walker lost the stream: bytes are counted, rows are not.
    fn forward_unwalked(&mut self, cx: &mut Context<'_>, header: &PacketHeader) -> Result<bool, SessionEnd> {
        let unread = cx.server.body(header).get(self.walked..).unwrap_or_default();
        if let Some(what) = self.lost.as_mut().and_then(|lookout| lookout.look(unread)) {
            return Err(led_away(what));
        }
        self.count_bytes(cx.server.body(header).len());
        self.forward_whole(cx, header)?;
        if header.status.is_eom() {
            self.lost = None;
            self.walker.begin_message();
            match &mut self.open {
                Some(open) if open.attentions > 0 => open.stage = Stage::Acks,
                Some(open) if !open.uploaded => open.stage = Stage::Answered(Outcome::Completed),
                _ => self.finish(Outcome::Completed),
            }
        }
        Ok(true)
    }
}

/// Ends the session of a server that leads its client elsewhere behind the login: no driver follows there, and none needs to.
fn stay_here(token: &[u8]) -> Result<(), SessionEnd> {
    elsewhere::leads_away(token).map_or(Ok(()), |what| Err(led_away(what)))
}

fn led_away(what: &str) -> SessionEnd {
    server_fault(format!("it tried to lead the client elsewhere ({what})"))
}

fn see(step: &Step<'_>, version: weir_tds::version::TdsVersion) -> Result<Seen, WireError> {
    let token = match step {
        Step::NeedMore => return Ok(Seen::All),
        Step::BudgetSpent => return Ok(Seen::RowNotCovered),
        Step::Token(token) => token,
    };
    Ok(match token.kind {
        TokenKind::ColMetadata | TokenKind::AltMetadata => Seen::ColMetadata,
        TokenKind::Error => Seen::Error,
        kind if kind.is_done() => Seen::Done(Done::parse(token.bytes, version)?),
        _ => Seen::Other,
    })
}

/// DONE counts are a cross-check, never the measure: they may be left out, and count rows changed as well as rows sent
/// [MS-TDS 2.2.7.6]. Rows are ROW and NBCROW tokens.
fn note_count(done: &Done, set_began_at: Option<u64>, rows: u64, meter: &mut Meter) {
    match (done.count(), set_began_at) {
        (Some(count), Some(began)) => meter.drift |= count != rows - began,
        (Some(count), None) if meter.kind() != RequestKind::BulkLoad => {
            meter.rows_affected = meter.rows_affected.saturating_add(count);
        }
        _ => {}
    }
}

/// Whether a cut also closes the connection.
pub(super) fn closes_on_cut(policy: CutPolicy) -> bool {
    policy == CutPolicy::Close
}
