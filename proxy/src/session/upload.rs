//! Client → server: requests are held until it is known what they are and whether they may pass, then passed on.

use bytes::{Bytes, BytesMut};
use weir_contracts::{
    entry::{Outcome, RequestKind},
    money::Amount,
};
use weir_tds::{
    packet::{PacketHeader, PacketStatus, PacketType},
    request::bulk_load::BulkKind,
};

use super::{
    charge::Reading,
    engine::{Action, SessionEnd},
    leg::Message,
    meter::{Brought, Meter, Till},
    relay::{Context, Cut, Held, OnCredit, Open, Refusal, Relay, Stage, Upload},
    tokens,
};
use crate::gate::{
    Cause, Command,
    request::{self, Verdict},
};

/// Bytes of a request that are held to see what it is. A longer one is not exempt and not a command.
pub(super) const INSPECT_MAX: usize = 64 * 1024;

/// Both reset bits.
const RESETS: PacketStatus = PacketStatus(PacketStatus::RESET.0 | PacketStatus::RESET_SKIP_TRAN.0);

fn client_fault(error: impl ToString) -> SessionEnd {
    SessionEnd::Client(error.to_string())
}

pub(super) fn request_kind(kind: PacketType) -> Option<RequestKind> {
    Some(match kind {
        PacketType::SqlBatch => RequestKind::Batch,
        PacketType::Rpc => RequestKind::Rpc,
        PacketType::BulkLoad => RequestKind::BulkLoad,
        PacketType::TransactionManager => RequestKind::TransactionManager,
        _ => return None,
    })
}

const fn kind_name(kind: PacketType) -> &'static str {
    match kind {
        PacketType::SqlBatch => "SQL batch",
        PacketType::Rpc => "RPC",
        PacketType::BulkLoad => "bulk load",
        PacketType::TransactionManager => "transaction manager",
        _ => "unknown",
    }
}

impl Relay {
    pub(super) fn pump_client(
        &mut self,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<(), SessionEnd> {
        while cx.server.out.held() < cx.server_out_max {
            let Some(header) = cx.client.peek_packet().map_err(client_fault)? else {
                return Ok(());
            };
            if !self.takes(&header, cx.client.out.held(), cx.chunk_bytes) {
                return Ok(());
            }
            if header.kind == PacketType::Attention {
                let _eight_bytes = cx.client.take_packet(&header);
                self.on_attention(cx)?;
                continue;
            }
            if matches!(self.upload, Upload::Idle) {
                self.begin_request(&header)?;
            }
            if !self.client_packet(&header, cx, till)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin_request(&mut self, header: &PacketHeader) -> Result<(), SessionEnd> {
        if request_kind(header.kind).is_none() {
            return Err(client_fault(format!(
                "packet type 0x{:02x} after login",
                header.kind.byte()
            )));
        }
        // Terms change by reload; between two requests a session takes over what its account has now.
        if let Some(terms) = self.purse.state().terms {
            self.payer.terms = terms;
        }
        self.begin_reading(header.kind);
        self.upload = Upload::Inspect(Held {
            kind: header.kind,
            first_status: header.status,
            packets: Vec::new(),
            brought: Brought::default(),
            unreadable: None,
            complete: false,
            ignored: false,
        });
        Ok(())
    }

    /// Works off the front packet. False if it stays where it is until there is credit.
    fn client_packet(
        &mut self,
        header: &PacketHeader,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        let kind = match &self.upload {
            Upload::Inspect(held) => held.kind,
            Upload::Forward(kind) | Upload::Drop { kind, .. } | Upload::Skip(kind) => *kind,
            Upload::Idle | Upload::AwaitCredit(_) => return Ok(true),
        };
        if kind != header.kind {
            return Err(client_fault("another request began inside a request"));
        }
        let last = header.status.is_eom();
        if matches!(self.upload, Upload::Forward(_)) {
            return self.forward_packet(header, cx, till);
        }
        match std::mem::replace(&mut self.upload, Upload::Idle) {
            Upload::Inspect(mut held) => {
                match self.read_packet(header, cx) {
                    Ok(brought) => held.brought.add(&brought),
                    Err(error) => {
                        held.brought.bytes_in += header.body_len() as u64;
                        held.unreadable.get_or_insert(error.to_string());
                    }
                }
                let packet = cx.client.take_packet(header);
                self.inspect(held, header, packet, cx, till)?;
            }
            Upload::Drop { kind, answer } => {
                let _dropped = cx.client.take_packet(header);
                if !last {
                    self.upload = Upload::Drop { kind, answer };
                } else if header.status.contains(PacketStatus::IGNORE) {
                    // The client itself threw it away: it waits for one DONE without an ERROR [MS-TDS 2.2.1.7].
                    let tokens = tokens::cancelled(self.options.version);
                    self.answer(Refusal { tokens, ..answer }, cx)?;
                } else {
                    self.answer(answer, cx)?;
                }
            }
            Upload::Skip(kind) => {
                let _skipped = cx.client.take_packet(header);
                if last {
                    self.finish_cut_if_drained(cx)?;
                } else {
                    self.upload = Upload::Skip(kind);
                }
            }
            Upload::Idle | Upload::AwaitCredit(_) | Upload::Forward(_) => {}
        }
        if last {
            self.reading = Reading::Bytes;
        }
        Ok(true)
    }

    fn inspect(
        &mut self,
        mut held: Held,
        header: &PacketHeader,
        packet: Bytes,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<(), SessionEnd> {
        held.packets.push(packet);
        held.complete = header.status.is_eom();
        held.ignored = header.status.contains(PacketStatus::IGNORE);
        // Headers count: packets without a body would otherwise be held without end.
        let held_bytes = held.packets.iter().map(Bytes::len).sum::<usize>();
        let decided = held.complete || held_bytes >= INSPECT_MAX || held.kind == PacketType::BulkLoad;
        if !decided && held.unreadable.is_none() {
            self.upload = Upload::Inspect(held);
            return Ok(());
        }
        if held.kind != PacketType::BulkLoad {
            self.next_bulk = BulkKind::Rows;
        }
        let verdict = if held.ignored {
            Verdict::Exempt
        } else if held.complete {
            let judged = request::judge(held.kind, &held.body(), self.options.version);
            self.next_bulk = judged.next_bulk;
            judged.verdict
        } else {
            Verdict::Normal
        };
        let verdict = match held.unreadable.take() {
            Some(why) if !held.ignored => Verdict::Malformed(why),
            _ => verdict,
        };
        match verdict {
            Verdict::Command(command) => {
                let tokens = self.command_tokens(&command, held.kind, &cx.settings.gate_name);
                self.refuse_with(held, tokens, cx)
            }
            Verdict::Exempt => self.forward(held, true, cx, till),
            Verdict::Normal => self.admit(held, cx, till),
            Verdict::Malformed(why) => {
                cx.settings.tally.unreadable_request();
                if self.enforces() {
                    let why = format!("the {} request {why}", kind_name(held.kind));
                    return self.refuse(held, &Cause::Unmeterable(why), cx);
                }
                held.unreadable = Some(why);
                self.forward(held, false, cx, till)
            }
        }
    }

    fn admit(&mut self, held: Held, cx: &mut Context<'_>, till: &mut Till<'_>) -> Result<(), SessionEnd> {
        if !self.enforces() {
            return self.forward(held, false, cx, till);
        }
        if self.purse.state().frozen {
            return self.refuse(held, &Cause::Frozen, cx);
        }
        if !(cx.settings.journal_ready)() {
            return self.refuse(held, &Cause::Limit("the usage journal cannot take more"), cx);
        }
        let price = self.admission_price(held.kind, &held.brought);
        if till.refill(price, price) {
            return self.forward(held, false, cx, till);
        }
        self.upload = Upload::AwaitCredit(held);
        cx.actions.push_back(Action::MoreCredit(price));
        Ok(())
    }

    pub(super) fn admission_answered(
        &mut self,
        cause: Option<Cause>,
        cx: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let Upload::AwaitCredit(held) = std::mem::replace(&mut self.upload, Upload::Idle) else {
            return Ok(());
        };
        match cause {
            None => {
                let purse = std::sync::Arc::clone(&self.purse);
                self.admit(held, cx, &mut Till::new(&*purse))
            }
            Some(cause) => self.refuse(held, &cause, cx),
        }
    }

    fn forward(
        &mut self,
        held: Held,
        exempt: bool,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<(), SessionEnd> {
        let Some(kind) = request_kind(held.kind) else {
            return Err(client_fault("not a request"));
        };
        self.requests = self.requests.wrapping_add(1);
        let tariff = std::sync::Arc::clone(&self.payer.terms.tariff);
        let mut meter = Meter::new(kind, self.requests, tariff, cx.unix_nanos);
        meter.unparsed = held.unreadable.is_some();
        let mut open = Open::new(Some(meter), kind, Stage::Respond);
        open.exempt = exempt;
        open.uploaded = held.complete;
        open.uploaded_at = held.complete.then_some(cx.now);
        self.open = Some(open);
        self.walker.begin_message();
        self.upload = if held.complete {
            Upload::Idle
        } else {
            Upload::Forward(held.kind)
        };
        self.pay_upload(held.brought, true, cx, till)?;
        for packet in held.packets {
            self.send_up(packet, cx)?;
        }
        Ok(())
    }

    fn forward_packet(
        &mut self,
        header: &PacketHeader,
        cx: &mut Context<'_>,
        till: &mut Till<'_>,
    ) -> Result<bool, SessionEnd> {
        let brought = match self.brought.take() {
            Some(brought) => brought,
            None => match self.read_packet(header, cx) {
                Ok(brought) => brought,
                Err(error) if self.unreadable_upload(&error, cx)? => Brought {
                    bytes_in: header.body_len() as u64,
                    ..Brought::default()
                },
                Err(_) => return Ok(true),
            },
        };
        if !self.pay_upload(brought, false, cx, till)? {
            return Ok(false);
        }
        let last = header.status.is_eom();
        let packet = cx.client.take_packet(header);
        self.send_up(packet, cx)?;
        if !last {
            return Ok(true);
        }
        self.upload = Upload::Idle;
        self.reading = Reading::Bytes;
        if let Some(open) = &mut self.open {
            open.uploaded = true;
            open.uploaded_at = Some(cx.now);
            if let Stage::Answered(outcome) = open.stage {
                self.finish(outcome);
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, held: Held, cause: &Cause, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let Some(kind) = request_kind(held.kind) else {
            return Err(client_fault("not a request"));
        };
        let refused = cause.refusal(Some(&self.payer.terms.account));
        self.session_totals.last_refusal = Some(refused.message.clone());
        let tokens = tokens::refusal(self.options.version, kind, &refused, &cx.settings.gate_name);
        self.refuse_with(held, tokens, cx)
    }

    /// The answer to `EXEC weir.…`.
    fn command_tokens(&self, command: &Command, kind: PacketType, gate_name: &str) -> Bytes {
        let version = self.options.version;
        let kind = request_kind(kind).unwrap_or(RequestKind::Batch);
        let text = |t: String| Some(t).filter(|t| !t.is_empty());
        match command {
            Command::Balance => {
                let state = self.purse.state();
                let terms = &self.payer.terms;
                let spendable = Amount::from(
                    state
                        .leftover_nanos
                        .saturating_add(state.outstanding_nanos)
                        .max(0),
                );
                let row = vec![
                    text(terms.account.to_string()),
                    state.balance,
                    text(terms.currency.to_string()),
                    state.available,
                    text(spendable.to_string()),
                ];
                let columns = ["account", "balance", "currency", "available", "leased"];
                tokens::table(version, kind, &columns, vec![row])
            }
            Command::Usage => {
                let columns = ["requests", "rows", "bytes", "cost"];
                tokens::table(version, kind, &columns, vec![self.session_totals.cells()])
            }
            Command::Why => {
                let why = self.session_totals.last_refusal.clone();
                tokens::table(version, kind, &["refusal"], vec![vec![why]])
            }
            Command::Unknown(name) => {
                let cause = Cause::UnknownCommand(name.clone());
                tokens::refusal(version, kind, &cause.refusal(None), gate_name)
            }
        }
    }

    /// Answers the held request with `tokens` instead of passing it on.
    fn refuse_with(&mut self, held: Held, tokens: Bytes, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let answer = Refusal {
            tokens,
            reset: self.reset_of(&held),
            owed_acks: 0,
        };
        if held.complete {
            return self.answer(answer, cx);
        }
        self.upload = Upload::Drop {
            kind: held.kind,
            answer,
        };
        Ok(())
    }

    /// The reset that a request carries which is not passed on.
    fn reset_of(&self, held: &Held) -> Option<(PacketStatus, Bytes)> {
        // On a bulk load the bits mean nothing [MS-TDS 2.2.3.1.2].
        let resets = held.first_status.intersects(RESETS) && held.kind != PacketType::BulkLoad;
        resets.then(|| {
            let status = PacketStatus(held.first_status.0 & RESETS.0);
            (status, request::empty_batch(&held.body(), self.options.version))
        })
    }

    /// Gives the gate's own answer. A reset bit of the refused request goes upstream in an empty batch first, and what
    /// the server says to it (ENVCHANGE 18 and what it restored) stands before the answer [MS-TDS 2.2.7.9].
    fn answer(&mut self, answer: Refusal, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.upload = Upload::Idle;
        let Some((status, batch)) = answer.reset else {
            self.send_tokens(cx, &answer.tokens)?;
            return self.send_acks(answer.owed_acks, cx);
        };
        let message = Message {
            kind: PacketType::SqlBatch,
            first_status: status,
            spid: 0,
            first_packet_id: weir_tds::message::FIRST_PACKET_ID,
            body: &batch,
        };
        cx.server.send_message(&message)?;
        *cx.deadline = Some((cx.now + cx.settings.cut_deadline, "connection reset"));
        self.walker.begin_message();
        let cut = Cut {
            tokens: answer.tokens,
            kept: BytesMut::new(),
            messages_left: 1,
            owed_acks: answer.owed_acks,
            blind: false,
            outcome: Outcome::Completed,
            closes: false,
        };
        self.open = Some(Open::new(None, RequestKind::Batch, Stage::Cut(Box::new(cut))));
        Ok(())
    }

    fn on_attention(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        match std::mem::replace(&mut self.upload, Upload::Idle) {
            Upload::Idle => {}
            Upload::AwaitCredit(held) => return self.cancel_held(&held, cx),
            uploading => return self.cancel_upload(uploading, cx),
        }
        let can_cut = self.can_cut(cx);
        let spent = self.credit_spent();
        if let Some(open) = &mut self.open {
            open.cancelled = true;
        }
        let Some(open) = &mut self.open else {
            let mut open = Open::new(None, RequestKind::Batch, Stage::Acks);
            open.attentions = 1;
            self.open = Some(open);
            self.walker.begin_message();
            return self.send_attention(cx);
        };
        match &mut open.stage {
            Stage::Cut(cut) => {
                cut.owed_acks += 1;
                return Ok(());
            }
            Stage::Respond | Stage::Acks => open.attentions += 1,
            // Its message is whole only when its upload is, which is over here.
            Stage::Answered(_) => return Err(client_fault("ATTENTION inside a request")),
            Stage::WaitCredit if can_cut => {
                open.attentions += 1;
                self.drop_rest(cx)?;
            }
            // Nothing may stand inside a row or behind the final DONE: what is in hand is finished on credit.
            Stage::WaitCredit => {
                open.attentions += 1;
                open.stage = Stage::Respond;
                open.on_credit = OnCredit::Row {
                    cause: spent,
                    bytes: 0,
                };
                self.stale_credit += 1;
            }
        }
        self.send_attention(cx)
    }

    /// Not by the book [MS-TDS 2.2.1.7], but SqlClient cancels a bulk copy so: its message ends here, without EOM. The
    /// server gets the end that the book has, IGNORE; the client gets the two messages that it waits for.
    fn cancel_upload(&mut self, upload: Upload, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        match upload {
            Upload::Idle => return Ok(()),
            Upload::Inspect(held) | Upload::AwaitCredit(held) => {
                let answer = self.cancelled(self.reset_of(&held));
                return self.answer(answer, cx);
            }
            Upload::Drop { answer, .. } => {
                let answer = self.cancelled(answer.reset);
                return self.answer(answer, cx);
            }
            Upload::Forward(_) if !self.can_cut(cx) || self.open.is_none() => {
                return Err(client_fault("ATTENTION inside a request that is being answered"));
            }
            Upload::Forward(kind) => {
                self.upload = Upload::Forward(kind);
                self.drop_rest(cx)?;
                self.upload = Upload::Idle;
            }
            Upload::Skip(_) => {}
        }
        match &mut self.open {
            Some(Open {
                stage: Stage::Cut(cut),
                ..
            }) => {
                cut.owed_acks += 1;
                self.finish_cut_if_drained(cx)
            }
            _ => self.send_acks(1, cx),
        }
    }

    fn cancelled(&self, reset: Option<(PacketStatus, Bytes)>) -> Refusal {
        Refusal {
            tokens: tokens::cancelled(self.options.version),
            reset,
            owed_acks: 1,
        }
    }

    /// The request was cancelled before it was passed on: both messages are the gate's.
    fn cancel_held(&mut self, held: &Held, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.stale_credit += 1;
        let answer = self.cancelled(self.reset_of(held));
        self.answer(answer, cx)
    }

    pub(super) fn send_acks(&mut self, owed: u32, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        for _ in 0..owed {
            let ack = tokens::attention_ack(self.options.version);
            self.send_tokens(cx, &ack)?;
        }
        Ok(())
    }

    pub(super) fn send_attention(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let header = PacketHeader {
            kind: PacketType::Attention,
            status: PacketStatus::EOM,
            length: 8,
            spid: 0,
            packet_id: weir_tds::message::FIRST_PACKET_ID,
        };
        Ok(cx.server.send(Bytes::copy_from_slice(&header.encode()))?)
    }
}
