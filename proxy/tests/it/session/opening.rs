//! How a session begins, as most tests of logins need it: the client's hello and login, the tenant, the server's hello.

use weir_proxy::{
    auth::AuthSettings,
    ports::billing::Mode,
    session::{Action, Settings},
};
use weir_tds::{
    build::TokenBuf,
    login7::Login7,
    packet::{PacketStatus, PacketType},
    prelogin::{Encryption, Prelogin},
};

use super::bench::{Bench, V, prelogin, settings};

pub(crate) fn with_auth(auth: AuthSettings) -> Settings {
    Settings {
        auth: AuthSettings {
            upstream: "db:1433".parse().unwrap(),
            ..auth
        },
        ..settings()
    }
}

/// A login response that sends the client to `host`; the mirroring partner stands in it too.
pub(crate) fn routed(host: &str, port: u16) -> Vec<u8> {
    let mut tokens = TokenBuf::new(V);
    tokens
        .env_mirror_partner("mirror.secret-domain.example")
        .login_ack("first-server", [16, 0, 0, 0])
        .env_routing(port, host)
        .done(0, 0, 0);
    tokens.as_bytes().to_vec()
}

impl Bench {
    /// PRELOGIN and LOGIN7 of a client in the clear; what it was answered in between.
    pub(crate) fn client_opens(&mut self, login: &Login7) -> Prelogin {
        self.client_says(
            PacketType::Prelogin,
            PacketStatus::NORMAL,
            &prelogin(Encryption::NotSup).encode(),
        );
        let answer = Prelogin::parse(&self.client_message()).unwrap();
        self.client_says(PacketType::Login7, PacketStatus::NORMAL, &login.encode().unwrap());
        answer
    }

    /// PRELOGIN and LOGIN7 of the client; the tenant is known and the first connection asked for.
    pub(crate) fn client_reaches_server(&mut self, login: &Login7) {
        self.client_opens(login);
        assert!(matches!(self.actions.pop_front(), Some(Action::Admit(_))));
        self.admit(Mode::Enforce);
    }

    /// The server's side of PRELOGIN; the LOGIN7 that it gets.
    pub(crate) fn server_reads_login(&mut self) -> Login7 {
        self.server_message();
        self.server_says(&prelogin(Encryption::NotSup).encode());
        Login7::parse(&self.server_message()).unwrap()
    }
}
