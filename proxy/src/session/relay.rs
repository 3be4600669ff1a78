//! A logged-in session: which request is open, how far its answer is, and what both sides are owed.
//!
//! One request is open at a time; a pipelined one waits in the client's buffer, which keeps answers in order. ATTENTION
//! is never held back.

use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use weir_contracts::entry::{Outcome, RequestKind};
use weir_tds::{
    message::PacketWriter,
    packet::{HEADER_LEN, PacketHeader, PacketStatus, PacketType},
    request::bulk_load::BulkKind,
    walker::{Walker, WalkerOptions},
};

use super::{
    charge::Reading,
    elsewhere::Lookout,
    engine::{Action, Closing, Event, LaneId, Phase, SERVER_OUT_MAX, Session, SessionEnd, Settings},
    leg::{Leg, Message},
    meter::{Brought, Meter, Till},
    purse::{Payer, Purse},
    tokens,
};
use crate::{
    credit::More,
    gate::{Cause, command::Facts},
    journal::{SlotHead, SlotState},
    ports::billing::{Cut as CutPolicy, Denial, DenialReason, Mode},
};

/// Most ATTENTIONs of a client that wait for their acknowledgement: drivers send one, some two. Those beyond wait in the
/// client's buffer, so a flood of them stops the client, not the memory.
const ATTENTIONS_MAX: u32 = 64;

/// What the relay touches of its session.
pub(super) struct Context<'a> {
    pub(super) client: &'a mut Leg,
    pub(super) server: &'a mut Leg,
    pub(super) settings: &'a Settings,
    pub(super) actions: &'a mut VecDeque<Action>,
    pub(super) deadline: &'a mut Option<(Instant, &'static str)>,
    pub(super) chunk: &'a mut Option<(SlotHead, SlotState)>,
    pub(super) closings: &'a mut Vec<Closing>,
    pub(super) now: Instant,
    pub(super) unix_nanos: u64,
    /// Whose journal slot the records are for.
    pub(super) lane: LaneId,
    /// Bytes that may wait for the server before no more is taken from the client.
    pub(super) server_out_max: usize,
    /// Bytes that are paid and journaled together.
    pub(super) chunk_bytes: usize,
}

/// A logged-in session.
pub(super) struct Relay {
    pub(super) purse: Arc<dyn Purse>,
    pub(super) payer: Payer,
    pub(super) walker: Walker,
    pub(super) options: WalkerOptions,
    pub(super) requests: u32,
    pub(super) upload: Upload,
    /// Cuts the request in hand anew; none while its packets pass as they came.
    pub(super) recut: Option<Box<PacketWriter>>,
    /// Reads the request in hand.
    pub(super) reading: Reading,
    /// What the next bulk message belongs to.
    pub(super) next_bulk: BulkKind,
    /// What the client's front packet brings in and is not paid yet; the packet was read already.
    pub(super) brought: Option<Brought>,
    /// The front packet waits for credit.
    pub(super) upload_waits: bool,
    /// Something was paid for an upload: the journal must know before the server gets it.
    pub(super) upload_paid: bool,
    pub(super) open: Option<Open>,
    /// Answered to the end, but not all of it is in the client's socket yet.
    pub(super) finished: Option<(Meter, Outcome)>,
    /// Bytes of the front server packet's body that were walked, and those that are in the meter.
    pub(super) walked: usize,
    pub(super) counted: usize,
    /// What the packets of the run in hand cost together; paid when it is sent.
    pub(super) run_due: i64,
    /// The message to the client has begun: packets of it were sent.
    pub(super) mid_message: bool,
    /// Observe mode: the rest of this message is forwarded without being walked, but for what leads the client elsewhere.
    pub(super) lost: Option<Lookout>,
    pub(super) spid: u16,
    pub(super) next_packet_id: u8,
    /// Close once the client has everything.
    pub(super) ending: bool,
    pub(super) session_totals: Facts,
    /// Answers to come about credit that nobody waits for any more; they come in the order in which they were asked for.
    pub(super) stale_credit: u32,
}

/// The client's message in hand.
pub(super) enum Upload {
    Idle,
    /// Held until it is known what it is.
    Inspect(Held),
    /// Held until there is credit.
    AwaitCredit(Held),
    /// Passed on packet by packet.
    Forward(PacketType),
    /// Refused: thrown away to its end, then answered.
    Drop {
        kind: PacketType,
        answer: Refusal,
    },
    /// Thrown away to its end; the answer comes by another way.
    Skip(PacketType),
}

/// A request that has not been passed on.
pub(super) struct Held {
    pub(super) kind: PacketType,
    pub(super) first_status: PacketStatus,
    pub(super) packets: Vec<Bytes>,
    pub(super) brought: Brought,
    /// Why it cannot be read.
    pub(super) unreadable: Option<String>,
    pub(super) complete: bool,
    pub(super) ignored: bool,
}

impl Held {
    /// The body so far; a request of one packet is not copied.
    pub(super) fn body(&self) -> Cow<'_, [u8]> {
        let bodies = self
            .packets
            .iter()
            .map(|p| p.get(HEADER_LEN..).unwrap_or_default());
        match self.packets.as_slice() {
            [only] => Cow::Borrowed(only.get(HEADER_LEN..).unwrap_or_default()),
            _ => Cow::Owned(bodies.collect::<Vec<_>>().concat()),
        }
    }
}

/// An answer that the gate gives itself.
pub(super) struct Refusal {
    pub(super) tokens: Bytes,
    /// Message to send upstream first, because the refused request carried a reset bit.
    pub(super) reset: Option<(PacketStatus, Bytes)>,
    /// Acknowledgements of the client's ATTENTIONs that follow the answer.
    pub(super) owed_acks: u32,
}

/// A request that the server is answering.
pub(super) struct Open {
    /// None for an ATTENTION that came while nothing was open, and for a reset on behalf of a refused request.
    pub(super) meter: Option<Meter>,
    pub(super) kind: RequestKind,
    pub(super) exempt: bool,
    pub(super) stage: Stage,
    pub(super) uploaded: bool,
    pub(super) uploaded_at: Option<Instant>,
    pub(super) answered: bool,
    /// ATTENTIONs of the client that were passed on and not acknowledged yet.
    pub(super) attentions: u32,
    /// The client cancelled it.
    pub(super) cancelled: bool,
    pub(super) saw_error: bool,
    /// The message in hand acknowledges an ATTENTION.
    pub(super) saw_ack: bool,
    /// Rows at the last COLMETADATA, if one came since the last DONE.
    pub(super) set_began_at: Option<u64>,
    /// Delivered beyond what could be paid.
    pub(super) on_credit: OnCredit,
}

/// Whether the response goes on beyond its credit.
pub(super) enum OnCredit {
    No,
    /// The row in hand is finished, then the response is cut for this cause.
    Row {
        cause: Cause,
        bytes: u64,
    },
    /// The result set in hand is finished, then the response is cut for this cause.
    Result {
        cause: Cause,
        bytes: u64,
    },
    /// An exempt request.
    Exempt {
        bytes: u64,
    },
}

/// How far the answer is.
pub(super) enum Stage {
    Respond,
    WaitCredit,
    Cut(Box<Cut>),
    /// The response has ended; acknowledgements are still to come.
    Acks,
    /// The response has ended before its request did.
    Answered(Outcome),
}

/// A response that was cut: what is drained from the server, and what the client gets instead.
pub(super) struct Cut {
    /// Goes to the client behind what was kept.
    pub(super) tokens: Bytes,
    pub(super) kept: BytesMut,
    pub(super) messages_left: u8,
    /// Acknowledgements that the gate owes for ATTENTIONs that it did not pass on.
    pub(super) owed_acks: u32,
    /// The stream cannot be walked any more: drained packet by packet.
    pub(super) blind: bool,
    pub(super) outcome: Outcome,
    /// Ends the connection afterwards.
    pub(super) closes: bool,
}

impl Open {
    pub(super) fn new(meter: Option<Meter>, kind: RequestKind, stage: Stage) -> Self {
        Self {
            meter,
            kind,
            exempt: false,
            stage,
            uploaded: true,
            uploaded_at: None,
            answered: false,
            attentions: 0,
            cancelled: false,
            saw_error: false,
            saw_ack: false,
            set_began_at: None,
            on_credit: OnCredit::No,
        }
    }
}

impl Relay {
    pub(super) fn new(purse: Arc<dyn Purse>, payer: Payer, options: WalkerOptions, spid: u16) -> Self {
        Self {
            purse,
            payer,
            walker: Walker::new(options),
            options,
            requests: 0,
            upload: Upload::Idle,
            recut: None,
            reading: Reading::Bytes,
            next_bulk: BulkKind::Rows,
            brought: None,
            upload_waits: false,
            upload_paid: false,
            open: None,
            finished: None,
            walked: 0,
            counted: 0,
            run_due: 0,
            mid_message: false,
            lost: None,
            spid,
            next_packet_id: weir_tds::message::FIRST_PACKET_ID,
            ending: false,
            session_totals: Facts::default(),
            stale_credit: 0,
        }
    }

    /// True while the rest of a request is to come.
    pub(super) fn is_uploading(&self) -> bool {
        match &self.upload {
            Upload::Idle | Upload::AwaitCredit(_) => false,
            Upload::Inspect(held) => !held.complete,
            // What waits for credit is not the client's to hurry.
            Upload::Forward(_) => !self.upload_waits,
            Upload::Drop { .. } | Upload::Skip(_) => true,
        }
    }

    /// True while a request is open, held or not delivered to its end.
    pub(super) fn is_busy(&self) -> bool {
        self.open.is_some() || self.finished.is_some() || !matches!(self.upload, Upload::Idle)
    }

    pub(super) fn is_runnable(
        &self,
        client: &Leg,
        server: &Leg,
        chunk_bytes: usize,
        server_out_max: usize,
    ) -> bool {
        let drained = client.out.is_empty();
        if drained && (self.finished.is_some() || self.ending && !self.is_busy()) {
            return true;
        }
        // A server's socket that took everything at once wakes nobody: what is buffered beyond must not wait for more.
        if server.out.held() < server_out_max
            && let Ok(Some(header)) = client.peek_packet()
            && self.takes(&header, client.out.held(), chunk_bytes)
        {
            return true;
        }
        self.open.as_ref().is_some_and(|open| {
            !matches!(open.stage, Stage::WaitCredit)
                && (client.out.held() < chunk_bytes || self.is_cutting())
                && matches!(server.peek_packet(), Ok(Some(_)))
        })
    }

    /// True if this packet of the client can be taken now, with `waiting` bytes on their way to it.
    pub(super) fn takes(&self, header: &PacketHeader, waiting: usize, chunk_bytes: usize) -> bool {
        match &self.upload {
            _ if header.kind == PacketType::Attention => self.owed_acks() < ATTENTIONS_MAX,
            // Answers that the gate gives itself are bounded like the server's: a client that reads none gets no more.
            Upload::Idle => {
                self.open.is_none() && self.finished.is_none() && !self.ending && waiting < chunk_bytes
            }
            Upload::AwaitCredit(_) => false,
            Upload::Forward(_) => !self.upload_waits,
            Upload::Inspect(_) | Upload::Drop { .. } | Upload::Skip(_) => true,
        }
    }

    /// Acknowledgements that the client still has to get.
    fn owed_acks(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| {
            let ours = match &open.stage {
                Stage::Cut(cut) => cut.owed_acks,
                _ => 0,
            };
            open.attentions.saturating_add(ours)
        })
    }

    /// What the server sends is thrown away: it needs no room towards the client.
    pub(super) fn is_cutting(&self) -> bool {
        matches!(
            &self.open,
            Some(Open {
                stage: Stage::Cut(_),
                ..
            })
        )
    }

    pub(super) fn enforces(&self) -> bool {
        self.payer.terms.mode == Mode::Enforce && !self.payer.terms.tariff.is_free()
    }

    pub(super) fn run(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        if cx.client.out.is_empty() {
            self.drained(cx)?;
        }
        let purse = Arc::clone(&self.purse);
        let mut till = Till::new(&*purse);
        self.leave_closing_lease(cx);
        self.pump_client(cx, &mut till)?;
        self.pump_server(cx, &mut till)
    }

    /// The client's socket took everything: what was answered is delivered.
    fn drained(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        if let Some((meter, outcome)) = self.finished.take() {
            self.close_record(cx, meter, outcome);
        }
        if self.ending && !self.is_busy() {
            return Err(SessionEnd::Closed);
        }
        Ok(())
    }

    pub(super) fn close_record(&mut self, cx: &mut Context<'_>, mut meter: Meter, outcome: Outcome) {
        self.settle(&mut meter);
        let record = meter.record(&self.payer, outcome, cx.unix_nanos);
        self.session_totals.add(&record);
        cx.closings.push(Closing {
            lane: cx.lane,
            head: meter.slot_head(self.payer.session),
            record,
            guard: meter.take_guard(),
        });
    }

    /// Pays what was used and not paid yet, beyond the credit if it must be: a record costs what its counts come to, or
    /// rating would disagree. That is at most a request, the time it took, and one packet without rows.
    pub(super) fn settle(&self, meter: &mut Meter) {
        let due = meter.due_nanos(0);
        if due <= 0 {
            return;
        }
        let mut till = Till::new(&*self.purse);
        if meter.lease_number() == 0
            && self.enforces()
            && till.refill(due, due)
            && let Some(lease) = till.lease().cloned()
        {
            if meter.accepts(&lease) {
                let guard = self.purse.attach(lease.number);
                meter.bind(lease, guard);
            } else {
                // Part of it was priced without a lease: a slice that no record names would be money lost.
                till = Till::new(&*self.purse);
            }
        }
        let (lease, short) = (meter.lease_number(), till.spend(meter.pay()));
        if short > 0 && lease > 0 {
            self.purse.overdraw(lease, short);
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(Open {
            meter: Some(meter), ..
        }) = self.open.take()
        {
            self.finished = Some((meter, outcome));
        }
    }

    pub(super) fn on_credit(&mut self, more: More, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        if self.stale_credit > 0 {
            self.stale_credit -= 1;
            return Ok(());
        }
        let cause = self.cause_of(&more);
        if matches!(self.upload, Upload::AwaitCredit(_)) {
            return self.admission_answered(cause, cx);
        }
        let upload_waited = std::mem::take(&mut self.upload_waits);
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let response_waited = matches!(open.stage, Stage::WaitCredit);
        if response_waited {
            open.stage = Stage::Respond;
        }
        match cause {
            Some(cause) if upload_waited => self.stop_upload(&cause, cx),
            Some(cause) if response_waited => self.go_on_without_credit(cause, cx),
            _ => Ok(()),
        }
    }

    /// There is no credit for the next row or for what is due: cuts, or finishes what is in hand on credit first.
    fn go_on_without_credit(&mut self, cause: Cause, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let can_cut = self.can_cut(cx);
        let rows = self.walker.rows();
        let finishes_set = self.payer.terms.cut == CutPolicy::AtResult && cause != Cause::Frozen;
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        // A set of which no row was delivered is not in hand.
        let in_set = open.set_began_at.is_some_and(|began| rows > began);
        open.on_credit = match cause {
            _ if open.exempt => OnCredit::Exempt { bytes: 0 },
            cause if finishes_set && in_set => OnCredit::Result { cause, bytes: 0 },
            cause if can_cut => return self.begin_cut(&cause, cx),
            cause => OnCredit::Row { cause, bytes: 0 },
        };
        Ok(())
    }

    /// True if the gate's own end can stand where the walker is: not inside a row, and not behind the final DONE, which
    /// SqlClient, go-mssqldb, FreeTDS and tiberius take for the end of the response [MS-TDS 2.2.7.6].
    pub(super) fn can_cut(&self, cx: &Context<'_>) -> bool {
        let ended = matches!(cx.server.peek_packet(), Ok(Some(header))
            if header.status.is_eom() && self.walked >= header.body_len());
        self.walker.at_boundary() && !ended
    }

    fn cause_of(&self, more: &More) -> Option<Cause> {
        match more {
            More::Enough => None,
            More::Unavailable(why) => Some(Cause::BalanceUnknown(why.clone())),
            More::Denied(denial) => Some(self.cause_of_denial(denial)),
        }
    }

    fn cause_of_denial(&self, denial: &Denial) -> Cause {
        match denial.reason {
            DenialReason::Frozen => Cause::Frozen,
            DenialReason::UnknownAccount => Cause::UnknownTenant,
            DenialReason::CreditSpent | DenialReason::LeaseClosed => self.credit_spent(),
        }
    }

    /// The refusal for spent credit, with the sums behind it.
    pub(super) fn credit_spent(&self) -> Cause {
        let state = self.purse.state();
        let left = weir_contracts::money::Amount::from(state.leftover_nanos.max(0));
        let tariff = &self.payer.terms.tariff;
        Cause::CreditSpent {
            available: left.to_string(),
            price: weir_contracts::money::Amount::from(tariff.admission_nanos()).to_string(),
            currency: self.payer.terms.currency.to_string(),
        }
    }

    /// Sends tokens as the rest of the message that the client is reading, or as a message of its own.
    pub(super) fn send_tokens(&mut self, cx: &mut Context<'_>, tokens: &[u8]) -> Result<(), SessionEnd> {
        let message = Message {
            kind: PacketType::TabularResult,
            first_status: PacketStatus::NORMAL,
            spid: self.spid,
            first_packet_id: if self.mid_message {
                self.next_packet_id
            } else {
                weir_tds::message::FIRST_PACKET_ID
            },
            body: tokens,
        };
        self.next_packet_id = cx.client.send_message(&message)?;
        self.mid_message = false;
        Ok(())
    }

    /// Whatever is open ends here: its record is closed as it stands.
    pub(super) fn abandon(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        if let Some((meter, _)) = self.finished.take() {
            let outcome = if cx.client.out.is_empty() {
                Outcome::Completed
            } else {
                outcome
            };
            self.close_record(cx, meter, outcome);
        }
        if let Some(open) = self.open.take()
            && let Some(meter) = open.meter
        {
            let outcome = if let Stage::Cut(cut) = open.stage {
                cut.outcome
            } else {
                outcome
            };
            self.close_record(cx, meter, outcome);
        }
    }

    /// Tells the client, where its stream allows it, that the connection cannot go on.
    pub(super) fn fail_fatally(&mut self, cause: &Cause, cx: &mut Context<'_>) {
        let Some(open) = &self.open else {
            return;
        };
        let cutting = matches!(open.stage, Stage::Cut(_));
        let between_tokens = self.walked == 0 && self.walker.at_boundary();
        if !cutting && !between_tokens {
            return;
        }
        let refused = cause.refusal(Some(&self.payer.terms.account));
        let tokens = tokens::fatal(self.options.version, open.kind, &refused, &cx.settings.gate_name);
        // The close that follows says the rest if this cannot be sent.
        let _sent = self.send_tokens(cx, &tokens);
    }
}

impl Session {
    /// The session as a relay sees it, with what it relays.
    pub(super) fn phase_and_context(&mut self, now: Instant) -> (&mut Phase, Context<'_>) {
        let chunk_bytes = self.chunk_bytes();
        let Self {
            settings,
            client,
            server,
            phase,
            actions,
            deadline,
            unix_nanos,
            chunk,
            closings,
            ..
        } = self;
        let unix_nanos = *unix_nanos;
        let context = Context {
            client,
            server,
            settings,
            actions,
            deadline,
            chunk,
            closings,
            now,
            unix_nanos,
            lane: LaneId::PLAIN,
            server_out_max: SERVER_OUT_MAX,
            chunk_bytes,
        };
        (phase, context)
    }

    /// Calls `each` for the relay of every session on the connection.
    fn each_relay(&mut self, now: Instant, each: &mut dyn FnMut(&mut Relay, &mut Context<'_>)) {
        match self.phase_and_context(now) {
            (Phase::Ready(relay), mut cx) => each(relay, &mut cx),
            (Phase::Mars(mux), mut cx) => mux.each_relay(&mut cx, each),
            (Phase::Login(_) | Phase::Closing(_), _) => {}
        }
    }

    pub(super) fn run_relay(&mut self, now: Instant) -> Result<(), SessionEnd> {
        match self.phase_and_context(now) {
            (Phase::Ready(relay), mut cx) => relay.run(&mut cx),
            (Phase::Mars(mux), mut cx) => mux.run(&mut cx),
            (Phase::Login(_) | Phase::Closing(_), _) => Ok(()),
        }
    }

    pub(super) fn on_relay_event(&mut self, event: Event, now: Instant) -> Result<(), SessionEnd> {
        match (event, self.phase_and_context(now)) {
            (Event::Credit(more), (Phase::Ready(relay), mut cx)) => relay.on_credit(more, &mut cx),
            (Event::Credit(more), (Phase::Mars(mux), mut cx)) => mux.on_credit(more, &mut cx),
            _ => Ok(()),
        }
    }

    /// Whatever is open ends here: its record is closed as it stands.
    pub(super) fn abandon(&mut self, outcome: Outcome, now: Instant) {
        self.each_relay(now, &mut |relay, cx| relay.abandon(outcome, cx));
    }

    /// Tells the client, where its stream allows it, that the connection cannot go on.
    pub(super) fn fail_fatally(&mut self, cause: &Cause, now: Instant) {
        self.each_relay(now, &mut |relay, cx| relay.fail_fatally(cause, cx));
    }

    /// The server's connection is gone in the middle of an answer.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        self.fail_fatally(
            &Cause::Upstream("it closed the connection during the answer".to_owned()),
            now,
        );
    }
}
