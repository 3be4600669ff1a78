//! The scripted backend: a request is matched, its steps are played.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::backend::{LoginAnswer, Serve};
use crate::config::Config;
use crate::conn::reply::{Reply, Stopped};
use crate::conn::{LoginInfo, Request};

/// A script.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scenario {}

struct Player;

impl Serve for Player {
    fn serve(&mut self, _request: &Request, reply: &mut Reply) -> Result<(), Stopped> {
        reply.begin();
        reply.finish()
    }
}

impl Scenario {
    pub(crate) fn connection(&self, _info: &LoginInfo, _config: &Config) -> Box<dyn Serve> {
        Box::new(Player)
    }
    pub(crate) fn acknowledges_attention(&self) -> bool {
        true
    }
    pub(crate) fn login_answer(&self, _info: &LoginInfo) -> LoginAnswer {
        let _ = BytesMut::new();
        LoginAnswer::Usual
    }
    pub(crate) fn feature_acks(&self) -> Vec<(u8, Vec<u8>)> {
        Vec::new()
    }
}
