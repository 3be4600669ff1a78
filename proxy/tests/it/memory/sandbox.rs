//! The server of encrypted and of multiplexed sessions: the sandbox with a script of answers that do not end.

use std::path::Path;

use weir_sandbox::{
    Backend, Config, EncryptionPolicy, Running, TlsFiles,
    scenario::{LoginScript, Rule, Scenario, Step},
};

/// A batch that is answered by rows of 3 KB without end.
pub(super) const ROWS: &str = "rows";
/// A batch that is answered by one row that does not end.
pub(super) const ONE_ROW: &str = "one row";
/// Characters of a row.
const ROW_CHARS: usize = 1500;

/// Listens; with the certificate of `encrypted` it leaves the encryption to the gate.
pub(super) async fn start(encrypted: Option<&Path>) -> Running {
    let login = LoginScript {
        any_password: true,
        ..LoginScript::default()
    };
    let endless = Scenario {
        login,
        ..Scenario::default()
    }
    .rule(Rule::text_is(ROWS).steps([
        Step::columns(&[("text", "nvarchar(4000)")]),
        Step::rows(u64::MAX, ["r".repeat(ROW_CHARS).into()]),
    ]))
    .rule(Rule::text_is(ONE_ROW).steps([
        Step::columns(&[("value", "varbinary(max)")]),
        Step::RowStart,
        Step::Plp {
            length: 1 << 40,
            known: true,
            chunk: 65_536,
            fill: 0x41,
        },
    ]));
    let config = Config {
        backend: Backend::Scenario(endless),
        tls: encrypted.map(|dir| TlsFiles {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        }),
        encryption: match encrypted {
            Some(_) => EncryptionPolicy::LoginOnly,
            None => EncryptionPolicy::None,
        },
        ..Config::default()
    };
    weir_sandbox::start(config).await.unwrap()
}
