//! The two backends behind one face.

use bytes::BytesMut;
use weir_tds::packet::PacketType;
use weir_tds::version::TdsVersion;

use crate::config::Config;
use crate::conn::reply::{Reply, Stopped};
use crate::conn::{LoginInfo, Request};
use crate::scenario::Scenario;
use crate::sql;

/// Answers the requests of one connection, in order, on a thread of its own.
pub(crate) trait Serve: Send {
    /// Answers one request.
    ///
    /// # Errors
    /// The connection has gone; an ATTENTION is not an error here, it ends the answer in its own way.
    fn serve(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Stopped>;
}

/// What a backend says to a login.
#[derive(Debug)]
pub(crate) enum LoginAnswer {
    /// Check the password, answer as a server does, with these tokens behind LOGINACK.
    ///
    /// Before it the rounds: tokens sent, and the message that is then waited for.
    Usual {
        extra: BytesMut,
        rounds: Vec<(BytesMut, PacketType)>,
        any_password: bool,
    },
    /// These tokens, then go on or close.
    Tokens { tokens: BytesMut, close: bool },
    /// Nothing, ever.
    Never,
}

/// The configured backend, shared by every connection.
#[derive(Debug)]
pub(crate) enum Backends {
    Sqlite(sql::Store),
    Scenario(std::sync::Arc<Scenario>),
}

/// What the sessions of one MARS connection share.
pub(crate) enum Group {
    Sqlite(sql::Group),
    Nothing,
}

impl Backends {
    pub(crate) fn group(&self, info: &LoginInfo, config: &Config) -> Group {
        match self {
            Self::Sqlite(store) => Group::Sqlite(sql::Group::new(store.clone(), info, config)),
            Self::Scenario(_) => Group::Nothing,
        }
    }

    /// One session of a MARS connection; true if it waits for the others of its group.
    pub(crate) fn member(&self, group: &Group, info: &LoginInfo, config: &Config) -> (Box<dyn Serve>, bool) {
        match group {
            Group::Sqlite(group) => (Box::new(group.member()), true),
            Group::Nothing => (self.connection(info, config), false),
        }
    }

    pub(crate) fn connection(&self, info: &LoginInfo, config: &Config) -> Box<dyn Serve> {
        match self {
            Self::Sqlite(store) => Box::new(sql::Connection::new(store.clone(), info, config)),
            Self::Scenario(scenario) => scenario.connection(info, config),
        }
    }

    pub(crate) fn acknowledges_attention(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Scenario(scenario) => scenario.acknowledges_attention(),
        }
    }

    pub(crate) fn login_answer(&self, info: &LoginInfo, server: &str) -> LoginAnswer {
        match self {
            Self::Sqlite(_) => LoginAnswer::Usual {
                extra: BytesMut::new(),
                rounds: Vec::new(),
                any_password: false,
            },
            Self::Scenario(scenario) => scenario.login_answer(info, server),
        }
    }

    /// The newest version that is spoken, if not all are.
    pub(crate) fn version(&self) -> Option<TdsVersion> {
        match self {
            Self::Sqlite(_) => None,
            Self::Scenario(scenario) => scenario.version(),
        }
    }

    /// FEDAUTHREQUIRED and NONCEOPT of PRELOGIN, for clients that send them.
    pub(crate) fn fed_auth(&self) -> (Option<u8>, Option<[u8; 32]>) {
        match self {
            Self::Sqlite(_) => (Some(0), None),
            Self::Scenario(scenario) => scenario.fed_auth(),
        }
    }

    /// Features acknowledged beside UTF-8, if the client asked for them.
    pub(crate) fn feature_acks(&self) -> Vec<(u8, Vec<u8>)> {
        match self {
            Self::Sqlite(_) => Vec::new(),
            Self::Scenario(scenario) => scenario.feature_acks(),
        }
    }
}
