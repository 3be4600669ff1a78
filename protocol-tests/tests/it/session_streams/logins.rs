//! The messages before a session: the first of a connection cut at every byte, LOGIN7, and what servers answer to both.

use fastrand::Rng;
use weir_protocol_tests::fuzz::Conversation;
use weir_protocol_tests::vectors::{self, Vector};
use weir_tds::login7::{Login7, feature};
use weir_tds::packet::{HEADER_LEN, PacketStatus, PacketType};
use weir_tds::password::Password;
use weir_tds::prelogin::{self, Encryption, EncryptionOption, Prelogin};
use weir_tds::version::TdsVersion;

use super::{answer, divisions, full_packets, packets};
use crate::messages::client_messages;
use crate::walker_vectors::samples;

fn client_vectors(kind: PacketType) -> Vec<(Vector, Vec<u8>)> {
    client_messages()
        .into_iter()
        .filter(|(vector, message)| message.kind == kind && !vector.is_response())
        .map(|(vector, message)| (vector, message.body))
        .collect()
}

fn hello(encryption: Encryption) -> Vec<u8> {
    let hello = Prelogin {
        version: [16, 0, 0, 0, 0, 0],
        encryption: Some(EncryptionOption::plain(encryption)),
        ..Prelogin::default()
    };
    packets(PacketType::Prelogin, PacketStatus::NORMAL, &hello.encode(), &[])
}

fn login(version: TdsVersion) -> Vec<u8> {
    let login = Login7 {
        tds_version: version.to_login7(),
        packet_size: 4096,
        user_name: "acme".into(),
        password: Password::from_text("secret"),
        ..Login7::default()
    };
    packets(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login.encode().unwrap(),
        &[],
    )
}

#[test]
fn a_prelogin_is_answered_alike_at_every_split() {
    let mut rng = Rng::with_seed(14);
    let mut seen = 0;
    for (vector, body) in client_vectors(PacketType::Prelogin) {
        seen += 1;
        let is_prelogin = Prelogin::parse(&body).is_ok();
        let wire = packets(PacketType::Prelogin, PacketStatus::NORMAL, &body, &[]);
        for cuts in divisions(wire.len(), &mut rng) {
            let what = format!("{} cut at {cuts:?}", vector.name);
            let mut session = Conversation::new();
            session.client(&wire, &cuts);
            assert!(session.to_server().is_empty(), "{what}");
            if !is_prelogin {
                assert!(
                    session.ended().is_some() && session.to_client().is_empty(),
                    "{what}"
                );
                continue;
            }
            let told = session.to_client();
            let [answer] = told.as_slice() else {
                panic!("{what}: {told:?}");
            };
            let answer = Prelogin::parse(answer).unwrap_or_else(|e| panic!("{what}: {e}"));
            let mode = answer.encryption.map(|option| option.mode);
            assert_eq!(
                mode,
                Some(Encryption::NotSup),
                "{what}: this gate has no certificate"
            );
        }
    }
    assert!(seen > 5, "only {seen}");
}

/// What a gate without rules for other logins lets through: names and passwords, of TDS 7.1 on.
fn is_plain(login: &Login7) -> bool {
    login.version().is_some_and(|version| version >= TdsVersion::V7_1)
        && login.sspi.is_empty()
        && !login.is_integrated()
        && !login.wants_password_change()
        && login.feature(feature::FED_AUTH).is_none()
        // A session to be continued: the gate offers none [MS-TDS 2.2.6.4].
        && login.feature(feature::SESSION_RECOVERY).is_none_or(<[u8]>::is_empty)
        && !login.user_name.is_empty()
}

/// LOGIN7 as the first message, as jTDS sends it: names arrive at the server as the vector has them, or nothing does.
#[test]
fn a_login_comes_to_the_same_at_every_split() {
    let mut rng = Rng::with_seed(15);
    let (mut plain, mut refused) = (0, 0);
    for (vector, body) in client_vectors(PacketType::Login7) {
        let sent = Login7::parse(&body).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        let expected = crate::client_vectors::expected(&vector);
        let wire = packets(
            PacketType::Login7,
            PacketStatus::NORMAL,
            &body,
            &full_packets(&body),
        );
        for cuts in divisions(wire.len(), &mut rng) {
            let what = format!("{} cut at {cuts:?}", vector.name);
            let mut session = Conversation::new();
            session.client(&wire, &cuts);
            session.server_greets();
            let told = session.to_server();
            if !is_plain(&sent) {
                refused += 1;
                assert!(told.is_empty(), "{what}: nothing reaches the server");
                assert_eq!(
                    session.to_client().concat().first(),
                    Some(&0xAA),
                    "{what}: an ERROR"
                );
                continue;
            }
            plain += 1;
            let [_, login] = told.as_slice() else {
                panic!("{what}: {told:?}, {:?}", session.to_client());
            };
            let login = Login7::parse(login).unwrap_or_else(|e| panic!("{what}: {e}"));
            for (found, key) in [
                (&login.user_name, "user_name"),
                (&login.app_name, "app_name"),
                (&login.database, "database"),
                (&login.host_name, "host_name"),
                (&*login.password.to_text(), "password"),
            ] {
                assert_eq!(Some(found.as_str()), expected[key].as_str(), "{what}: {key}");
            }
        }
    }
    assert!(
        plain > 1000 && refused > 1000,
        "{plain} logins, {refused} refused"
    );
}

/// Answers with LOGINACK, to a login that asked for the newest version and for no feature.
#[test]
fn a_login_response_comes_to_the_same_at_every_split() {
    let mut rng = Rng::with_seed(16);
    let mut granted = 0;
    for sample in samples() {
        let has = |name: &str| sample.tokens.iter().any(|token| token["token"] == name);
        if !has("LOGINACK") {
            continue;
        }
        let wire = answer(&sample.stream, &full_packets(&sample.stream));
        let mut whole = None;
        for cuts in divisions(wire.len(), &mut rng) {
            let what = format!("{} cut at {cuts:?}", sample.name);
            let mut session = Conversation::new();
            session.client(&hello(Encryption::NotSup), &[]);
            session.client(&login(TdsVersion::V7_4), &[]);
            session.server_greets();
            session.server(&wire, &cuts);
            let (told, ended) = (session.to_client(), session.ended().map(str::to_owned));
            assert_eq!(session.is_logged_in(), ended.is_none(), "{what}");
            let response = told.get(1).cloned().unwrap_or_default();
            // ERROR alone, or what the server said with the LOGINACK in it [MS-TDS 2.2.7.14].
            assert_eq!(response.first() == Some(&0xAA), ended.is_some(), "{what}");
            granted += u64::from(session.is_logged_in());
            let told = (told, session.to_server(), ended);
            assert_eq!(whole.get_or_insert_with(|| told.clone()), &told, "{what}");
        }
    }
    assert!(granted > 1000, "{granted} logins were granted");
}

/// What servers answered to PRELOGIN: a gate that asks for no encryption goes on, or says why not.
#[test]
fn a_servers_prelogin_comes_to_the_same_at_every_split() {
    let mut rng = Rng::with_seed(17);
    let mut seen = 0;
    for vector in vectors::load().iter().filter(|vector| vector.is_response()) {
        let body = match vector.layer.as_str() {
            "prelogin-body" => vector.bytes.clone(),
            "tds-packets" if !vector.expected["messages"][0]["body"]["prelogin"].is_null() => {
                vector.bytes[HEADER_LEN..].to_vec()
            }
            _ => continue,
        };
        seen += 1;
        let parsed = Prelogin::parse(&body).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
        let goes_on = prelogin::accept(Encryption::NotSup, parsed.encryption).is_some();
        let wire = answer(&body, &[]);
        for cuts in divisions(wire.len(), &mut rng) {
            let what = format!("{} cut at {cuts:?}", vector.name);
            let mut session = Conversation::new();
            session.client(&hello(Encryption::NotSup), &[]);
            session.client(&login(TdsVersion::V7_4), &[]);
            session.server(&wire, &cuts);
            assert_eq!(session.to_server().len(), if goes_on { 2 } else { 1 }, "{what}");
            assert_eq!(session.ended().is_none(), goes_on, "{what}");
        }
    }
    assert!(seen > 2, "only {seen}");
}
