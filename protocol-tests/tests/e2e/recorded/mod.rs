//! Recorded traffic, byte for byte, through a running gate: clients that cannot run here, Microsoft.Data.SqlClient before all.
//!
//! A scripted server stands behind the gate. It must get the recorded messages unchanged, the client the server's answers,
//! and the account must pay for exactly the rows in them.

mod client;
mod recordings;
mod server;

use weir_protocol_tests::demo::{Demo, Place};
use weir_protocol_tests::gate::Gate;
use weir_protocol_tests::money::{DEMO_ROW, UNIT};
use weir_protocol_tests::naive_decoder;
use weir_protocol_tests::world::World;
use weir_tds::build::{Collation, TokenBuf};
use weir_tds::login7::Login7;
use weir_tds::packet::{PacketStatus, PacketType};
use weir_tds::smp::SmpFlag;
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

use client::{Client, Hello};
use recordings::Recording;
use server::{Message, Script, Scripted};

/// COLUMNENCRYPTION among the features of LOGIN7, and the version that the server acknowledges [MS-TDS 2.2.6.4].
const COLUMN_ENCRYPTION: (u8, [u8; 1]) = (4, [1]);

/// Bits of a packet's status that a gate must hand on.
const RESETS: PacketStatus = PacketStatus::RESET.with(PacketStatus::RESET_SKIP_TRAN);

/// Tokens of rows.
const ROW: u8 = 0xD1;
const NBC_ROW: u8 = 0xD2;
const LOGIN_ACK: u8 = 0xAD;

/// A demo's billing, a gate before a scripted server.
struct Site {
    demo: Demo,
    gate: Gate,
    server: Scripted,
    /// Rows that the account is to pay for.
    rows: u64,
    _place: Place,
}

impl Site {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With these lines in the gate's configuration file.
    fn start_with(config: &str) -> Self {
        let place = Place::new();
        let demo = place.start("1.00");
        let server = Scripted::start();
        let file = place.directory().join("gate.toml");
        std::fs::write(&file, config).expect("a configuration file");
        let file = file.display().to_string();
        let flags = [
            "--client-encryption",
            "none",
            "--upstream-encryption",
            "none",
            "--config",
            &file,
        ];
        let gate = Gate::start_with(&demo, server.address, &flags);
        Self {
            demo,
            gate,
            server,
            rows: 0,
            _place: place,
        }
    }

    /// Plays a recording and compares what came at either end.
    fn replay(&mut self, recording: &Recording, features: &[(u8, Vec<u8>)]) {
        let name = &recording.name;
        // Large enough that no packet of any recording is cut.
        let packet_size = 8000;
        self.server.expect(Script {
            login: vec![logged_in(recording.version, packet_size, features)],
            packet_size,
            turns: recording.answers.clone(),
            ..Script::default()
        });
        let mut client = Client::connect(self.gate.address(), false).expect("a connection");
        let hello = Hello {
            tds_version: login_version(recording.version),
            packet_size,
            features: features.to_vec(),
        };
        client
            .login(&hello)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for message in &recording.sent {
            client.send(message).expect("sent");
            if recording.one_by_one {
                self.server.arrived();
            }
        }
        for (at, answer) in recording.answers.iter().flatten().enumerate() {
            let came = client
                .message()
                .unwrap_or_else(|error| panic!("{name}: answer {at}: {error}"));
            assert_eq!(came.kind, PacketType::TabularResult, "{name}: answer {at}");
            assert_eq!(came.body, *answer, "{name}: answer {at}");
            self.rows += rows(answer, recording.version, !features.is_empty());
        }
        drop(client);
        let heard = self.server.heard();
        compare(name, &heard.messages, recording);
    }

    /// Asserts that exactly the rows were paid for.
    fn close(self) {
        let cost = i64::try_from(self.rows).expect("few") * DEMO_ROW;
        assert_eq!(self.demo.settled_balance(), UNIT - cost);
        let _ = self.demo.reconcile();
    }
}

fn compare(name: &str, heard: &[Message], recording: &Recording) {
    assert_eq!(heard.len(), recording.messages.len(), "{name}");
    for (at, (came, sent)) in heard.iter().zip(&recording.messages).enumerate() {
        let wanted = recordings::passed_on(sent, recording.version);
        assert_eq!(came.kind, wanted.kind, "{name}: message {at}");
        assert_eq!(came.body, wanted.body, "{name}: message {at}");
        let resets = |message: &Message| PacketStatus(message.first.0 & RESETS.0);
        assert_eq!(resets(came), resets(&wanted), "{name}: message {at}");
    }
}

fn login_version(version: TdsVersion) -> u32 {
    if version == TdsVersion::V7_1 {
        0x7100_0001
    } else {
        0x7400_0004
    }
}

/// A login's answer with the features acknowledged as they were asked for.
fn logged_in(version: TdsVersion, packet_size: u16, features: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut tokens = TokenBuf::new(version);
    tokens
        .env_database("demo", "master")
        .env_collation(Collation([9, 4, 0xD0, 0, 0x34]), None)
        .login_ack("Microsoft SQL Server", [17, 0, 3, 0xE8])
        .env_packet_size(packet_size, 4096);
    if !features.is_empty() {
        tokens.feature_ext_ack(features);
    }
    tokens.done(0, 0, 0);
    tokens.take().to_vec()
}

/// Rows in an answer, counted by the naive decoder.
fn rows(answer: &[u8], version: TdsVersion, column_encryption: bool) -> u64 {
    let options = WalkerOptions {
        column_encryption,
        ..WalkerOptions::new(version)
    };
    let (tokens, error) = naive_decoder::decode(answer, options);
    assert!(error.is_none(), "{error:?}");
    tokens
        .iter()
        .filter(|token| matches!(token.token, ROW | NBC_ROW))
        .count() as u64
}

/// Pooled clients that call procedures by name with the reset bit, and JDBC beside them: twelve connections of a capture.
#[test]
fn captured_clients_are_passed_on_as_they_are() {
    let mut site = Site::start();
    let all = recordings::captured("ndpi_mssql_tds.pcap");
    assert_eq!(all.len(), 12);
    for recording in &all {
        site.replay(recording, &[]);
    }
    site.close();
}

/// Always Encrypted: parameters of SqlClient with their cipher metadata.
#[test]
fn encrypted_parameters_are_passed_on_as_they_are() {
    let mut site = Site::start();
    let (id, data) = COLUMN_ENCRYPTION;
    for letter in ["b", "i", "s"] {
        let name = format!("real-sqlclient-encrypted-rpc-param-{letter}");
        site.replay(
            &recordings::request(&name, PacketType::Rpc, true),
            &[(id, data.to_vec())],
        );
    }
    site.close();
}

/// INSERT BULK and the rows behind it as SQL Server 2025 saw and answered them. SqlBulkCopy's own were never recorded; these
/// are tedious's, of the same message types.
#[test]
fn a_recorded_bulk_load_is_passed_on_as_it_is() {
    let mut site = Site::start();
    let begin: (&str, &[&str]) = (
        "real-sql2025-bulk-1-insert-bulk-batch",
        &["real-sql2025-bulk-2-insert-bulk-ack"],
    );
    for (rows, acknowledged) in [
        ("real-sql2025-bulk-3-multirow", "real-sql2025-bulk-4-ack-3rows"),
        ("real-sql2025-bulk-3-null-row", "real-sql2025-bulk-4-ack-1row"),
        (
            "real-sql2025-bulk-3-unicode-binary",
            "real-sql2025-bulk-4-ack-1row",
        ),
    ] {
        let recording = recordings::conversation(rows, &[begin, (rows, &[acknowledged])]);
        site.replay(&recording, &[]);
    }
    site.close();
}

/// A batch, and the ATTENTION once the server has it; the rolled back transaction and the acknowledgement come back.
#[test]
fn a_recorded_cancellation_is_passed_on_as_it_is() {
    let mut site = Site::start();
    let mut recording = recordings::conversation(
        "real-sql2025-attention-active",
        &[(
            "real-sql2025-attention-active-request",
            &["real-sql2025-attention-active-response"],
        )],
    );
    // The gate itself answers for what it has not sent on yet.
    recording.one_by_one = true;
    site.replay(&recording, &[]);
    site.close();
}

/// An integrated login of SqlClient with its features: relayed, but for what the gate never offers.
#[test]
fn a_recorded_login_is_passed_on_without_session_recovery() {
    const SESSION_RECOVERY: u8 = 1;
    let config = "integrated_login = \"relay\"\n[[tenants]]\nauthentication = \"integrated\"\n\
                  application = \".Net SqlClient Data Provider\"\nprincipal = \"demo\"\n";
    let mut site = Site::start_with(config);
    let recorded = recordings::vector("real-sqlclient-login7-sspi-featureext").bytes;
    let token = recordings::vector("spec-4.11-sspi-message").bytes;
    let recording = recordings::conversation("a batch", &[("real-batch-select-dbname", &[])]);
    let answer = recordings::made(&recording.messages[0], TdsVersion::V7_4, true);
    let mut challenge = TokenBuf::new(TdsVersion::V7_4);
    challenge.sspi(b"NTLMSSP\0\x02\0\0\0").expect("a short token");
    let challenge = challenge.take().to_vec();
    let acknowledged = [(4, vec![1]), (5, vec![1])];
    site.server.expect(Script {
        login: vec![
            challenge.clone(),
            logged_in(TdsVersion::V7_4, 8000, &acknowledged),
        ],
        packet_size: 8000,
        turns: vec![vec![answer.clone()]],
        ..Script::default()
    });
    let mut client = Client::connect(site.gate.address(), false).expect("a connection");
    client.send_message(PacketType::Login7, &recorded).expect("sent");
    assert_eq!(client.message().expect("a challenge").body, challenge);
    client.send(&token).expect("sent");
    assert!(client.message().expect("a login").body.contains(&LOGIN_ACK));
    client.send(&recording.sent.concat()).expect("sent");
    assert_eq!(client.message().expect("an answer").body, answer);
    site.rows += rows(&answer, TdsVersion::V7_4, true);
    drop(client);
    let heard = site.server.heard();
    let mut wanted = Login7::parse(&recorded).expect("a login");
    assert!(
        wanted
            .features
            .iter()
            .any(|feature| feature.id == SESSION_RECOVERY)
    );
    wanted.features.retain(|feature| feature.id != SESSION_RECOVERY);
    let came = Login7::parse(&heard.login[0].body).expect("a login");
    // Enclaves, which version 2 brings, put an unmarked package into every request.
    let column_encryption = wanted.features.iter_mut().find(|feature| feature.id == 4);
    column_encryption.expect("asked for").data = vec![1];
    // The name that the client dialled is the gate's.
    assert_ne!(came.server_name, wanted.server_name);
    wanted.server_name.clone_from(&came.server_name);
    assert_eq!(came, wanted);
    assert_eq!(heard.login[1], recordings::messages(&token).remove(0));
    compare("a batch", &heard.messages, &recording);
    site.close();
}

/// MARS: two sessions that SqlClient opened in one write, and a call on the second.
#[test]
fn recorded_mars_is_passed_on_session_by_session() {
    let mut site = Site::start();
    let recorded = recordings::vector("real-sqlclient-mars-smp").bytes;
    let call = call_in(&recorded);
    let answer = recordings::made(&call, TdsVersion::V7_4, false);
    site.server.expect(Script {
        mars: true,
        login: vec![logged_in(TdsVersion::V7_4, 4096, &[])],
        packet_size: 4096,
        turns: vec![vec![answer.clone()]],
    });
    let mut client = Client::connect(site.gate.address(), true).expect("a connection");
    let hello = Hello {
        tds_version: login_version(TdsVersion::V7_4),
        packet_size: 4096,
        features: Vec::new(),
    };
    client.login(&hello).expect("a login");
    client.send(&recorded).expect("sent");
    let mut body = Vec::new();
    while body.is_empty() {
        let (header, data) = client.smp().expect("a packet");
        if header.flag == SmpFlag::Data {
            assert_eq!((header.sid, header.seqnum), (1, 1));
            body = recordings::messages(&data).remove(0).body;
        }
    }
    assert_eq!(body, answer);
    site.rows += rows(&answer, TdsVersion::V7_4, false);
    drop(client);
    let heard = site.server.heard();
    assert_eq!(heard.messages, [recordings::passed_on(&call, TdsVersion::V7_4)]);
    assert_eq!(heard.spoken, [1]);
    assert!(heard.opened.contains(&1), "{:?}", heard.opened);
    site.close();
}

/// The message in the recording's last SMP packet.
fn call_in(recorded: &[u8]) -> Message {
    let mut left = recorded;
    let mut last = Vec::new();
    while let Some((_, data)) = server::next_smp(&mut left).expect("whole packets") {
        last = data;
    }
    recordings::messages(&last).remove(0)
}
