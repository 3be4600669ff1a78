//! Encryption on real sockets: the 25 bridges between a driver and the sandbox, certificates that are renewed or refused.

use std::{net::SocketAddr, path::Path};

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use weir_proxy::{
    Config, Running,
    config::{ClientEncryption, UpstreamEncryption},
};
use weir_sandbox::{EncryptionPolicy, TlsFiles};
use weir_tds::{prelogin::Encryption, token::ServerMessage, token::TokenKind, version::TdsVersion};

use crate::{
    generous_billing,
    session::tokens_of,
    tls_client::{Connected, Driver},
};

/// A directory with a certificate for some host.
pub(crate) struct Files {
    pub(crate) dir: TempDir,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Files {
    pub(crate) fn new(host: &str, authority: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificate = Self::write(dir.path(), host, authority);
        Self { dir, certificate }
    }

    pub(crate) fn write(dir: &Path, host: &str, authority: bool) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut asked = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        if authority {
            asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let made = asked.self_signed(&key).unwrap();
        std::fs::write(dir.join("cert.pem"), made.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        made.der().clone()
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn sandbox(&self, encryption: EncryptionPolicy) -> weir_sandbox::Running {
        let config = weir_sandbox::Config {
            tls: Some(TlsFiles {
                cert: self.path("cert.pem"),
                key: self.path("key.pem"),
            }),
            encryption,
            data_dir: Some(self.path("data")),
            ..weir_sandbox::Config::default()
        };
        weir_sandbox::start(config).await.unwrap()
    }

    /// A gate with this certificate, in front of `upstream`.
    async fn gate(&self, upstream: SocketAddr, change: impl FnOnce(Config) -> Config) -> (Running, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            upstream: format!("localhost:{}", upstream.port()),
            data_dir: dir.path().join("journal"),
            outbox_path: dir.path().join("outbox.db"),
            billing_url: format!("http://{}", generous_billing::serve().await),
            token: "t".to_owned().into(),
            client_encryption: ClientEncryption::Offered,
            tls_cert: Some(self.path("cert.pem")),
            tls_key: Some(self.path("key.pem")),
            ..Config::default()
        };
        (weir_proxy::start(change(config)).await.unwrap(), dir)
    }

    fn driver(&self, gate: &Running, encryption: Encryption) -> Driver {
        self.driver_at(gate.addr, encryption)
    }

    pub(crate) fn driver_at(&self, gate: SocketAddr, encryption: Encryption) -> Driver {
        Driver {
            gate,
            encryption,
            trusts: self.certificate.clone(),
        }
    }
}

/// The driver's calls block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The ERROR of a login response: number, state, text.
fn error_of(tokens: &[u8]) -> Option<(i32, u8, String)> {
    let error = tokens_of(tokens)
        .into_iter()
        .find(|(kind, _)| *kind == TokenKind::Error)?;
    let error = ServerMessage::parse(&error.1, TdsVersion::V7_4).unwrap();
    Some((error.number, error.state, error.message))
}

pub(crate) async fn log_in(driver: Driver) -> Connected {
    let (connected, answer) = blocking(move || driver.log_in()).await.unwrap();
    assert_eq!(error_of(&answer), None);
    connected
}

async fn refused(driver: Driver) -> (i32, u8, String) {
    let (_, answer) = blocking(move || driver.log_in()).await.unwrap();
    error_of(&answer).expect("an ERROR")
}

/// Rows and all: more than one packet on either leg.
pub(crate) async fn use_it(mut connected: Connected) -> Connected {
    blocking(move || {
        let text = format!("SELECT TOP 3000 * FROM events -- {}", "x".repeat(20_000));
        let tokens = connected.batch(&text).unwrap();
        assert_eq!(error_of(&tokens), None);
        assert!(tokens.len() > 64 * 1024, "{} bytes", tokens.len());
        connected
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_25_bridges_carries_rows_over_sockets() {
    use EncryptionPolicy as P;
    use UpstreamEncryption as U;
    let files = Files::new("localhost", false);
    let servers = [
        (P::None, U::None),
        (P::LoginOnly, U::LoginOnly),
        (P::On, U::Full),
        (P::Required, U::LoginOnly),
        (P::Strict, U::Strict),
    ];
    let clients = [
        Encryption::NotSup,
        Encryption::Off,
        Encryption::On,
        Encryption::Req,
        Encryption::Strict,
    ];
    for (policy, upstream_encryption) in servers {
        let server = files.sandbox(policy).await;
        let upstream_ca = Some(files.path("cert.pem"));
        let change = |config| Config {
            upstream_encryption,
            upstream_ca,
            ..config
        };
        let (gate, _dir) = files.gate(server.addr, change).await;
        for encryption in clients {
            use_it(log_in(files.driver(&gate, encryption)).await).await;
        }
        gate.stop().await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_gate_and_server_disagree_the_driver_is_told_in_its_own_encryption() {
    use EncryptionPolicy as P;
    use UpstreamEncryption as U;
    let files = Files::new("localhost", false);
    for (policy, upstream_encryption) in [
        (P::None, U::Full),
        (P::Required, U::None),
        (P::Strict, U::Full),
        (P::None, U::Strict),
    ] {
        let server = files.sandbox(policy).await;
        let upstream_ca = Some(files.path("cert.pem"));
        let change = |config| Config {
            upstream_encryption,
            upstream_ca,
            ..config
        };
        let (gate, _dir) = files.gate(server.addr, change).await;
        for encryption in [
            Encryption::NotSup,
            Encryption::Off,
            Encryption::On,
            Encryption::Strict,
        ] {
            let (number, state, text) = refused(files.driver(&gate, encryption)).await;
            assert_eq!((number, state), (50504, 2), "{policy:?}: {text}");
            assert!(text.contains("upstream_encryption"), "{text}");
        }
        gate.stop().await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_certificate_is_verified_pinned_renamed_or_trusted() {
    // As a server's own: an authority by mistake, and for a name that nobody dials.
    let own = Files::new("sql-self-signed", true);
    let server = own.sandbox(EncryptionPolicy::Strict).await;
    let gate_files = Files::new("localhost", false);
    let another = Some(gate_files.path("cert.pem"));
    let pinned = Some(own.path("cert.pem"));
    let strict = |config| Config {
        upstream_encryption: UpstreamEncryption::Strict,
        ..config
    };
    let (gate, _dir) = gate_files
        .gate(server.addr, |c| Config {
            upstream_ca: another.clone(),
            ..strict(c)
        })
        .await;
    let (number, state, text) = refused(gate_files.driver(&gate, Encryption::On)).await;
    assert_eq!((number, state), (50504, 2));
    assert!(text.contains("upstream_ca"), "{text}");
    gate.stop().await;
    for trust in [false, true] {
        let change = |c| Config {
            upstream_ca: pinned.clone().filter(|_| !trust),
            upstream_trust: trust,
            ..strict(c)
        };
        let (gate, _dir) = gate_files.gate(server.addr, change).await;
        use_it(log_in(gate_files.driver(&gate, Encryption::On)).await).await;
        gate.stop().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_may_be_given_for_the_one_that_is_dialled() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut asked = rcgen::CertificateParams::new(Vec::new()).unwrap();
    asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = asked.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&asked, &authority_key);
    let files = Files::new("localhost", false);
    let server_files = Files::new("unused", false);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(server_files.path("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(server_files.path("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    let server = server_files.sandbox(EncryptionPolicy::On).await;
    for name in [None, Some("db.example".to_owned())] {
        let named = name.is_some();
        let change = |c| Config {
            upstream_encryption: UpstreamEncryption::Full,
            upstream_ca: Some(files.path("ca.pem")),
            upstream_host_name: name,
            ..c
        };
        let (gate, _dir) = files.gate(server.addr, change).await;
        if named {
            use_it(log_in(files.driver(&gate, Encryption::Off)).await).await;
        } else {
            let (number, state, text) = refused(files.driver(&gate, Encryption::Off)).await;
            assert_eq!((number, state), (50504, 2));
            assert!(text.contains("upstream_host_name"), "{text}");
        }
        gate.stop().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_new_sessions_while_old_ones_go_on() {
    let mut files = Files::new("localhost", false);
    let server = files.sandbox(EncryptionPolicy::None).await;
    let change = |config| Config {
        upstream_encryption: UpstreamEncryption::None,
        ..config
    };
    let (gate, _dir) = files.gate(server.addr, change).await;
    let mut renewals = gate.renewals();
    let old = files.driver(&gate, Encryption::Strict);
    let open = log_in(old.clone()).await;
    // Seen by itself; a look between the two files may fail first.
    files.certificate = Files::write(files.dir.path(), "localhost", false);
    renewals.wait_for(|counts| counts.done == 1).await.unwrap();
    let open = use_it(open).await;
    assert!(
        blocking(move || old.log_in().is_err()).await,
        "the old certificate is still shown"
    );
    let new = files.driver(&gate, Encryption::On);
    use_it(log_in(new.clone()).await).await;
    // A broken file keeps what is there.
    let failed = renewals.borrow_and_update().failed;
    std::fs::write(files.path("cert.pem"), "no certificate").unwrap();
    renewals.wait_for(|counts| counts.failed > failed).await.unwrap();
    use_it(log_in(new).await).await;
    use_it(open).await;
    // As SIGHUP asks for it.
    let done = renewals.borrow().done;
    files.certificate = Files::write(files.dir.path(), "localhost", false);
    gate.renew_tls().await;
    assert!(renewals.borrow().done > done);
    use_it(log_in(files.driver(&gate, Encryption::Off)).await).await;
    gate.stop().await;
    server.stop().await;
}
