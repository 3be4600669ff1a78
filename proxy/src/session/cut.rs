//! Ending a response at a row boundary, with the connection usable afterwards [MS-TDS 2.2.1.7].
//!
//! Stop at the row; cancel at the server; read both of its messages, keeping what the client's state depends on; only
//! then send that, ERROR and the final DONE, with EOM on the packet that ends in DONE.

use bytes::{Bytes, BytesMut};
use weir_contracts::entry::Outcome;
use weir_tds::{
    packet::{PacketHeader, PacketStatus},
    token::{Done, DoneStatus, EnvChange, TokenKind, env},
    walker::{Budget, Step},
};

use super::{
    download::{closes_on_cut, server_fault},
    engine::SessionEnd,
    relay::{Context, Cut, Open, Relay, Stage, Upload},
    tokens,
};
use crate::gate::Cause;

/// Most bytes of ENVCHANGE and SESSIONSTATE that are kept of a discarded part; real servers send below 200.
const KEPT_MAX: usize = 64 * 1024;

/// Changes that the client must learn of even if their response is thrown away (DESIGN 5).
const KEPT_CHANGES: &[u8] = &[
    env::DATABASE,
    env::LANGUAGE,
    env::COLLATION,
    env::BEGIN_TRANSACTION,
    env::COMMIT_TRANSACTION,
    env::ROLLBACK_TRANSACTION,
    env::ENLIST_DTC,
    env::DEFECT_TRANSACTION,
    env::PROMOTE_TRANSACTION,
    env::TRANSACTION_ENDED,
    env::RESET_ACK,
];

impl Relay {
    /// Ends the response where the walker stands: before a row, or between two tokens.
    pub(super) fn begin_cut(&mut self, cause: &Cause, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.cut(Some(cause), false, cx)
    }

    /// The same, for a stream that cannot be walked any more.
    pub(super) fn begin_blind_cut(&mut self, cause: &Cause, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.cut(Some(cause), true, cx)
    }

    /// The client cancelled while the response waited for credit: the rest is thrown away, its own ATTENTION follows.
    pub(super) fn drop_rest(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.cut(None, false, cx)
    }

    fn cut(&mut self, cause: Option<&Cause>, blind: bool, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        self.count_bytes(self.walked);
        self.forward_walked(cx)?;
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        if let Some(meter) = &mut open.meter {
            self.settle(meter);
        }
        // The answer about credit is still to come if it was not the reason.
        let waits = matches!(open.stage, Stage::WaitCredit) || std::mem::take(&mut self.upload_waits);
        self.stale_credit += u32::from(waits);
        self.brought = None;
        let open = self.open.insert(open);
        let version = self.options.version;
        let tokens = match cause {
            Some(cause) => {
                let refused = cause.refusal(Some(&self.payer.terms.account));
                self.session_totals.last_refusal = Some(refused.message.clone());
                tokens::cut(version, open.kind, &refused, &cx.settings.gate_name)
            }
            None => tokens::cancelled(version),
        };
        let (uploaded, attentions) = (open.uploaded, open.attentions);
        let messages_left = self.stop_server(cause.is_some(), uploaded, attentions, cx)?;
        let cut = Cut {
            tokens,
            kept: BytesMut::new(),
            messages_left,
            owed_acks: 0,
            blind,
            outcome: if cause.is_some() {
                Outcome::CutOff
            } else {
                Outcome::Cancelled
            },
            closes: cause.is_some() && closes_on_cut(self.payer.terms.cut),
        };
        *cx.deadline = Some((cx.now + cx.settings.cut_deadline, "cancellation at the server"));
        if let Some(open) = &mut self.open {
            open.stage = Stage::Cut(Box::new(cut));
        }
        Ok(())
    }

    /// Cancels at the server; answers how many messages it owes before the client can be told.
    fn stop_server(
        &mut self,
        ours: bool,
        uploaded: bool,
        attentions: u32,
        cx: &mut Context<'_>,
    ) -> Result<u8, SessionEnd> {
        if !uploaded {
            // ATTENTION is legal only behind a whole request: the rest of it is ignored instead [MS-TDS 2.2.1.7].
            if let Upload::Forward(kind) = self.upload {
                self.upload = Upload::Skip(kind);
                self.recut = None;
                let header = PacketHeader {
                    kind,
                    status: PacketStatus::EOM.with(PacketStatus::IGNORE),
                    length: 8,
                    spid: 0,
                    packet_id: 0,
                };
                cx.server.send(Bytes::copy_from_slice(&header.encode()))?;
            }
            return Ok(1);
        }
        if ours && attentions == 0 {
            self.send_attention(cx)?;
            return Ok(2);
        }
        // The client's own ATTENTION cancels; its acknowledgement is passed on afterwards.
        Ok(1)
    }

    /// Sends what was walked of the front packet as a packet of its own; the client's message stays open.
    fn forward_walked(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let Some(header) = cx.server.peek_packet().map_err(server_fault)? else {
            return Ok(());
        };
        let walked = cx.server.body(&header).get(..self.walked).unwrap_or_default();
        if walked.is_empty() {
            return Ok(());
        }
        let walked = Bytes::copy_from_slice(walked);
        self.spid = header.spid;
        self.send_pieces(&walked, false, cx)
    }

    /// Drains one packet of what the server still sends; keeps what the client must know.
    pub(super) fn discard(
        &mut self,
        cx: &mut Context<'_>,
        header: &PacketHeader,
    ) -> Result<bool, SessionEnd> {
        let Some(Open {
            stage: Stage::Cut(cut),
            attentions: open_attentions,
            ..
        }) = &mut self.open
        else {
            return Ok(false);
        };
        while !cut.blind {
            let input = cx.server.body(header).get(self.walked..).unwrap_or_default();
            let Ok(walk) = self.walker.walk(input, &mut Budget { ..Budget::UNLIMITED }) else {
                cut.blind = true;
                break;
            };
            self.walked += walk.consumed;
            match walk.step {
                Step::NeedMore => break,
                Step::BudgetSpent => {}
                Step::Token(token) => {
                    let acknowledges = token.kind.is_done()
                        && Done::parse(token.bytes, self.options.version)
                            .is_ok_and(|done| done.status.contains(DoneStatus::ATTN));
                    if acknowledges && *open_attentions > 0 {
                        // The client's own, put into the answer that is thrown away: it gets one from us.
                        *open_attentions -= 1;
                        cut.owed_acks += 1;
                    } else if acknowledges {
                        cut.messages_left = 1;
                    }
                    let keep = match token.kind {
                        TokenKind::EnvChange => {
                            EnvChange::parse(token.bytes).is_ok_and(|e| KEPT_CHANGES.contains(&e.kind))
                        }
                        TokenKind::SessionState => true,
                        _ => false,
                    };
                    if keep && cut.kept.len() + token.bytes.len() <= KEPT_MAX {
                        cut.kept.extend_from_slice(token.bytes);
                    }
                }
            }
        }
        let _thrown_away = cx.server.take_packet(header);
        (self.walked, self.counted) = (0, 0);
        self.spid = header.spid;
        if header.status.is_eom() {
            self.walker.begin_message();
            cut.blind = false;
            cut.messages_left = cut.messages_left.saturating_sub(1);
            self.finish_cut_if_drained(cx)?;
        }
        Ok(true)
    }

    /// Ends the cut when the server is done and the client has sent its request to the end: an answer before that would
    /// reach a driver that is still writing. The client has the time it wants for that.
    pub(super) fn finish_cut_if_drained(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let Some(Open {
            stage: Stage::Cut(cut),
            ..
        }) = &self.open
        else {
            return Ok(());
        };
        if cut.messages_left > 0 {
            return Ok(());
        }
        *cx.deadline = None;
        if matches!(self.upload, Upload::Skip(_)) {
            return Ok(());
        }
        self.finish_cut(cx)
    }

    /// The server is done: the client gets what was kept, the refusal, and the acknowledgements that are owed.
    fn finish_cut(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let attentions = open.attentions;
        let Stage::Cut(cut) = std::mem::replace(&mut open.stage, Stage::Acks) else {
            return Ok(());
        };
        let mut rest = cut.kept;
        rest.extend_from_slice(&cut.tokens);
        self.send_tokens(cx, &rest)?;
        self.send_acks(cut.owed_acks, cx)?;
        self.ending |= cut.closes;
        if attentions == 0 {
            self.finish(cut.outcome);
        }
        Ok(())
    }
}
