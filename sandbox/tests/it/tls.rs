//! Every encryption mode: none, login only, all, and TLS first.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use weir_sandbox::{Config, EncryptionPolicy, Running, TlsFiles};
use weir_tds::prelogin::Encryption;
use weir_tds::version::TdsVersion;

use crate::client::{Client, TlsWish, Wish};

/// A server with a certificate of its own, and a client's trust in it.
struct Encrypted {
    running: Running,
    config: Arc<rustls::ClientConfig>,
    _files: tempfile::TempDir,
}

async fn encrypted(encryption: EncryptionPolicy) -> Encrypted {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let tls = TlsFiles {
        cert: files.path().join("cert.pem"),
        key: files.path().join("key.pem"),
    };
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let config = Config {
        tls: Some(tls),
        encryption,
        ..Config::default()
    };
    let running = weir_sandbox::start(config).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let config = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"tds/8.0".to_vec()];
    Encrypted {
        running,
        config: Arc::new(config),
        _files: files,
    }
}

impl Encrypted {
    async fn login(&self, encryption: Encryption, strict: bool) -> Client {
        self.try_login(encryption, strict).await.expect("agreed")
    }

    /// A server without TLS closes at the first byte of a ClientHello, without a word.
    async fn closes_at_client_hello(&self) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.running.addr).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 0, 0]).await.unwrap();
        stream.read_u8().await.is_err()
    }

    async fn try_login(&self, encryption: Encryption, strict: bool) -> Option<Client> {
        let tls = Some(TlsWish {
            encryption,
            strict,
            config: Arc::clone(&self.config),
        });
        let version = if strict {
            TdsVersion::V8_0
        } else {
            TdsVersion::V7_4
        };
        Client::try_login(
            self.running.addr,
            Wish {
                tls,
                version,
                packet_size: 32_767,
                ..Wish::default()
            },
        )
        .await
    }
}

/// TDS 8.0 by its first byte, with ALPN [MS-TDS 1.7, 1.9].
#[tokio::test]
async fn login_only_all_and_strict() {
    let server = encrypted(EncryptionPolicy::LoginOnly).await;
    for (asked, strict, answer, packet) in [
        (Encryption::Off, false, Encryption::Off, 32_767),
        (Encryption::On, false, Encryption::On, 16_383),
        (Encryption::Req, false, Encryption::On, 16_383),
        (Encryption::NotSup, true, Encryption::NotSup, 16_383),
    ] {
        let mut client = server.login(asked, strict).await;
        assert_eq!(client.answered, Some(answer), "{asked:?}");
        assert_eq!(client.packet_size, packet, "{asked:?}: a packet fits one record");
        assert_eq!(
            client.batch("SELECT TOP 5000 * FROM events").await.rows,
            5000,
            "{asked:?}"
        );
        assert_eq!(client.batch("SELECT 1").await.rows, 1, "{asked:?}");
    }
    server.running.stop().await;
}

#[tokio::test]
async fn a_server_that_forces_encryption_answers_req_to_off() {
    let server = encrypted(EncryptionPolicy::On).await;
    let mut client = server.login(Encryption::Off, false).await;
    assert_eq!(client.answered, Some(Encryption::Req));
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    server.running.stop().await;
}

/// What becomes of a login: the ENCRYPTION answered, or a close.
type Cell = Option<Encryption>;

#[tokio::test]
async fn every_client_mode_meets_every_server_mode() {
    use Encryption::{NotSup, Off, On, Req};
    use EncryptionPolicy as P;
    // Answers to a client that is none, login-only, on, required, strict [MS-TDS 2.2.6.5].
    let table: [(P, [Cell; 5]); 5] = [
        (P::None, [Some(NotSup), Some(NotSup), None, None, None]),
        (
            P::LoginOnly,
            [Some(NotSup), Some(Off), Some(On), Some(On), Some(NotSup)],
        ),
        (P::On, [None, Some(Req), Some(On), Some(On), Some(NotSup)]),
        (P::Required, [None, Some(Req), Some(Req), Some(Req), Some(NotSup)]),
        (P::Strict, [None, None, None, None, Some(NotSup)]),
    ];
    let clients = [
        (NotSup, false),
        (Off, false),
        (On, false),
        (Req, false),
        (NotSup, true),
    ];
    for (policy, row) in table {
        let server = encrypted(policy).await;
        for ((asked, strict), want) in clients.into_iter().zip(row) {
            if (policy, strict) == (P::None, true) {
                assert!(server.closes_at_client_hello().await);
                continue;
            }
            let mut client = server.try_login(asked, strict).await;
            let got = client.as_ref().and_then(|c| c.answered);
            assert_eq!(got, want, "client {asked:?} strict {strict}, server {policy:?}");
            if let Some(client) = &mut client {
                assert_eq!(client.batch("SELECT 1").await.rows, 1);
            }
        }
        server.running.stop().await;
    }
}

#[tokio::test]
async fn encryption_cannot_be_forced_without_a_certificate() {
    for encryption in [
        EncryptionPolicy::On,
        EncryptionPolicy::Required,
        EncryptionPolicy::Strict,
    ] {
        let config = Config {
            encryption,
            ..Config::default()
        };
        assert!(weir_sandbox::start(config).await.is_err(), "{encryption:?}");
    }
}

#[tokio::test]
async fn tds_8_tells_its_version_and_7_4_is_spoken_without_tls_first() {
    let server = encrypted(EncryptionPolicy::LoginOnly).await;
    let strict = server.login(Encryption::NotSup, true).await;
    assert_eq!(strict.login.version(), Some(TdsVersion::V8_0));
    let wish = Wish {
        version: TdsVersion::V8_0,
        ..Wish::default()
    };
    let clear = Client::login(server.running.addr, wish).await;
    assert_eq!(clear.login.version(), Some(TdsVersion::V7_4));
    server.running.stop().await;
}
