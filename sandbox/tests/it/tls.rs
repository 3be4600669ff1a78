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
        Client::login(
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

#[tokio::test]
async fn login_only_all_and_strict() {
    let server = encrypted(EncryptionPolicy::Off).await;
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

#[tokio::test]
async fn clear_logins_are_taken_where_nothing_is_forced() {
    let server = encrypted(EncryptionPolicy::NotSupported).await;
    let mut client = Client::connect(server.running.addr).await;
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    server.running.stop().await;
}
