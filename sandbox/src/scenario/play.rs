//! Plays a script: matches requests, makes the bytes as they are sent, keeps to the order of the steps.

use std::sync::Arc;

use bytes::BytesMut;
use weir_tds::packet::PacketType;
use weir_tds::request::RequestOptions;
use weir_tds::request::rpc::RpcReader;
use weir_tds::request::sql_batch::SqlBatch;
use weir_tds::version::TdsVersion;

use super::stage::{End, Stage, unhex};
use super::{Expected, RequestKind, Scenario, Step, When};
use crate::backend::{LoginAnswer, Serve};
use crate::config::Config;
use crate::conn::reply::{Reply, Stopped};
use crate::conn::{LoginInfo, Request};
use crate::tokens::{command, status};

impl Scenario {
    pub(crate) fn connection(self: &Arc<Self>, info: &LoginInfo, config: &Config) -> Box<dyn Serve> {
        Box::new(Player {
            scenario: Arc::clone(self),
            version: info.version,
            server: config.server_name.clone(),
            requests: 0,
            played: vec![0; self.rules.len()],
        })
    }

    pub(crate) fn acknowledges_attention(&self) -> bool {
        !self.ignore_attention
    }

    pub(crate) fn login_answer(&self, info: &LoginInfo, server: &str) -> LoginAnswer {
        if self.login.never {
            return LoginAnswer::Never;
        }
        match &self.login.answer {
            None => LoginAnswer::Usual {
                extra: encode(&self.login.extra, info.version, server),
                rounds: self
                    .login
                    .rounds
                    .iter()
                    .map(|round| {
                        let kind = match round.expect {
                            Expected::Sspi => PacketType::Sspi,
                            Expected::FedAuthToken => PacketType::FedAuthToken,
                        };
                        (encode(&round.send, info.version, server), kind)
                    })
                    .collect(),
                any_password: self.login.any_password || !self.login.rounds.is_empty(),
            },
            Some(steps) => LoginAnswer::Tokens {
                tokens: encode(steps, info.version, server),
                close: self.login.close,
            },
        }
    }

    /// The newest version that is spoken, if the script says.
    pub(crate) fn version(&self) -> Option<TdsVersion> {
        Some(match self.login.version.as_deref()? {
            "7.0" => TdsVersion::V7_0,
            "7.1" => TdsVersion::V7_1,
            "7.1r1" => TdsVersion::V7_1Rev1,
            "7.2" => TdsVersion::V7_2,
            "7.3a" => TdsVersion::V7_3A,
            "7.3b" => TdsVersion::V7_3B,
            _ => TdsVersion::V7_4,
        })
    }

    /// FEDAUTHREQUIRED and NONCEOPT of PRELOGIN.
    pub(crate) fn fed_auth(&self) -> (Option<u8>, Option<[u8; 32]>) {
        let nonce = self.login.nonce.as_deref().map(unhex);
        let nonce = nonce.and_then(|bytes| bytes.try_into().ok());
        (self.login.fed_auth_required, nonce)
    }

    pub(crate) fn feature_acks(&self) -> Vec<(u8, Vec<u8>)> {
        self.login
            .feature_acks
            .iter()
            .map(|ack| (ack.id, unhex(&ack.data)))
            .collect()
    }
}

/// The steps that make tokens, as bytes.
fn encode(steps: &[Step], version: TdsVersion, server: &str) -> BytesMut {
    let mut stage = Stage::new(version, server);
    for step in steps {
        stage.token(step);
    }
    stage.tokens.take()
}

struct Player {
    scenario: Arc<Scenario>,
    version: TdsVersion,
    server: String,
    requests: u64,
    played: Vec<u64>,
}

/// What of a request rules look at.
struct Asked {
    kind: Option<RequestKind>,
    text: String,
    procedure: String,
    nth: u64,
}

impl Player {
    fn asked(&self, request: &Request) -> Asked {
        let options = RequestOptions::new(self.version);
        let mut asked = Asked {
            kind: None,
            text: String::new(),
            procedure: String::new(),
            nth: self.requests,
        };
        match request.kind {
            PacketType::SqlBatch => {
                asked.kind = Some(RequestKind::Batch);
                asked.text = SqlBatch::parse(&request.body, options)
                    .map(|b| b.text())
                    .unwrap_or_default();
            }
            PacketType::Rpc => {
                asked.kind = Some(RequestKind::Rpc);
                if let Ok(mut reader) = RpcReader::new(&request.body, options)
                    && let Ok(Some(call)) = reader.next_call()
                {
                    asked.procedure = call.procedure.name();
                    let wanted = call.procedure.id().and_then(|id| id.text_parameter());
                    let mut at = 0;
                    while let Ok(Some(parameter)) = reader.next_parameter() {
                        if wanted == Some(at) {
                            asked.text = parameter.text().unwrap_or_default();
                        }
                        at += 1;
                    }
                }
            }
            PacketType::TransactionManager => asked.kind = Some(RequestKind::Transaction),
            PacketType::BulkLoad => asked.kind = Some(RequestKind::BulkLoad),
            _ => {}
        }
        asked
    }
}

impl When {
    fn fits(&self, asked: &Asked) -> bool {
        self.kind.is_none_or(|kind| asked.kind == Some(kind))
            && self.text_is.as_ref().is_none_or(|text| asked.text == *text)
            && self
                .text_contains
                .as_ref()
                .is_none_or(|text| asked.text.contains(text.as_str()))
            && self
                .procedure
                .as_ref()
                .is_none_or(|name| asked.procedure.eq_ignore_ascii_case(name))
            && self.nth.is_none_or(|nth| asked.nth == nth)
    }
}

impl Serve for Player {
    fn serve(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        self.requests += 1;
        let mut stage = Stage::new(self.version, &self.server);
        reply.begin();
        if request.ignored {
            stage.tokens.done(status::ERROR, command::NONE, 0);
            return stage.finish(reply);
        }
        let asked = self.asked(request);
        let scenario = Arc::clone(&self.scenario);
        let found = scenario
            .rules
            .iter()
            .zip(&mut self.played)
            .find(|(rule, played)| rule.when.fits(&asked) && rule.times.is_none_or(|times| **played < times));
        let steps = match found {
            Some((rule, played)) => {
                *played += 1;
                rule.steps.as_slice()
            }
            None => scenario.otherwise.as_slice(),
        };
        if steps.is_empty() {
            stage.tokens.done(status::FINAL, command::NONE, 0);
            return stage.finish(reply);
        }
        match stage.play(steps, reply, 0) {
            Ok(End::Message) => stage.finish(reply),
            Ok(End::Nothing) => Ok(()),
            Err(Stopped::Cancelled) => {
                stage.tokens.done(status::ERROR, command::NONE, 0);
                stage.finish(reply)
            }
            Err(Stopped::Gone) => Err(Stopped::Gone),
        }
    }
}
