//! Whose login it is, as whom it goes on, and what stands in the LOGIN7 that the server gets.

use std::{collections::HashMap, sync::Arc};

use weir_proxy::{
    auth::{AuthSettings, Credentials, Mapped, PasswordHash, TellClient, TenantRules, tenants::TenantRule},
    gate::Cause,
    ports::billing::Mode,
    session::{Action, Event, Session, Settings},
};
use weir_tds::{
    login7::{Feature, Login7},
    packet::{PacketStatus, PacketType},
    password::Password,
    prelogin::Encryption,
};

use super::{
    bench::{Bench, login7, message, prelogin, refused},
    login::error_in,
    opening::with_auth,
};

fn said(settings: Settings, login: &Login7) -> Bench {
    let mut bench = Bench::with(settings, 0);
    bench.client_opens(login);
    bench
}

fn mapping(password: &str) -> AuthSettings {
    let mapped = Mapped {
        hash: PasswordHash::of(password).unwrap(),
        server_login: "weir_acme".into(),
        server_password: Password::from_text("server-word"),
    };
    AuthSettings {
        credentials: Credentials(HashMap::from([("acme".to_owned(), Arc::new(mapped))])),
        ..AuthSettings::default()
    }
}

#[test]
fn the_first_rule_that_matches_says_who_pays_and_the_server_sees_the_clients_own_login() {
    let rules = TenantRules(vec![
        TenantRule {
            application: Some("blocked*".into()),
            ..TenantRule::default()
        },
        TenantRule {
            login: Some("shared".into()),
            database: Some("crm".into()),
            principal: Some("payer".into()),
            ..TenantRule::default()
        },
    ]);
    let settings = || {
        with_auth(AuthSettings {
            tenants: rules.clone(),
            ..AuthSettings::default()
        })
    };
    let login = |application: &str, database: &str| Login7 {
        app_name: application.into(),
        database: database.into(),
        ..login7("SHARED")
    };
    let mut bench = said(settings(), &login("app", "CRM"));
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(facts)) if facts.login == "payer"));
    bench.admit(Mode::Enforce);
    assert_eq!(bench.server_reads_login().user_name, "SHARED");
    let mut bench = said(settings(), &login("app", "other"));
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(facts)) if facts.login == "shared"));
    let mut bench = said(settings(), &login("Blocked app", "CRM"));
    assert!(bench.actions.is_empty() && bench.to_server.is_empty());
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
}

#[test]
fn a_login_is_resolved_in_one_form_and_one_with_a_nul_is_nobodys() {
    for user in ["acme", "ACME", "ａｃｍｅ", "Acme  "] {
        let mut bench = said(with_auth(AuthSettings::default()), &login7(user));
        assert!(
            matches!(bench.actions.pop_front(), Some(Action::Admit(f)) if f.login == "acme"),
            "{user}"
        );
    }
    for user in ["acme\0", "\0", "", "  "] {
        let mut bench = said(with_auth(AuthSettings::default()), &login7(user));
        assert!(bench.actions.is_empty(), "{user:?}");
        assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
    }
}

#[test]
fn a_mapped_login_is_another_one_at_the_server() {
    let login = Login7 {
        password: Password::from_text("gate-word"),
        ..login7("ACME")
    };
    let mut bench = said(with_auth(mapping("gate-word")), &login);
    let Some(Action::Verify {
        login,
        mapped,
        password,
    }) = bench.actions.pop_front()
    else {
        panic!("the password is checked here first");
    };
    assert_eq!(login, "acme");
    assert!(mapped.hash.verify(&password));
    assert!(bench.to_server.is_empty() && bench.actions.is_empty());
    bench.event(Event::Verified);
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(f)) if f.login == "acme"));
    bench.admit(Mode::Enforce);
    let sent = bench.server_reads_login();
    assert_eq!(
        (sent.user_name.as_str(), sent.password.to_text().as_str()),
        ("weir_acme", "server-word")
    );
    let shown = format!("{:?}", bench.actions);
    assert!(!shown.contains("word"), "{shown}");
}

#[test]
fn a_wrong_password_at_the_gate_is_18456_and_nothing_reaches_the_server() {
    let mut bench = said(with_auth(mapping("gate-word")), &login7("acme"));
    assert!(matches!(bench.actions.pop_front(), Some(Action::Verify { .. })));
    bench.event(refused(Cause::LoginFailed));
    assert_eq!(error_in(&bench.client_message()), Some((18456, 14)));
    assert!(bench.end.is_some() && bench.to_server.is_empty());
}

#[test]
fn a_password_is_changed_only_where_the_operator_allows_it_and_never_a_mapped_one() {
    let change = Login7 {
        option_flags3: 0x01,
        change_password: Password::from_text("new"),
        ..login7("acme")
    };
    let allowing = AuthSettings {
        password_change: true,
        ..AuthSettings::default()
    };
    let mut bench = said(with_auth(AuthSettings::default()), &change);
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
    let mut bench = said(with_auth(allowing), &change);
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(_))));
    bench.admit(Mode::Enforce);
    let sent = bench.server_reads_login();
    assert!(sent.wants_password_change() && sent.change_password.to_text().as_str() == "new");
    let mapped = AuthSettings {
        password_change: true,
        ..mapping("gate-word")
    };
    let mut bench = said(with_auth(mapped), &change);
    assert!(bench.actions.is_empty());
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
}

#[test]
fn the_server_is_told_the_clients_address_where_the_operator_says() {
    for tell in [
        TellClient::None,
        TellClient::HostName,
        TellClient::ApplicationName,
    ] {
        let settings = with_auth(AuthSettings {
            tell_client: tell,
            ..AuthSettings::default()
        });
        let mut bench = Bench::with(settings, 0);
        bench.with_core(|core: Session| core.with_client("10.1.2.3".parse().ok()));
        let login = Login7 {
            host_name: "büro".into(),
            app_name: "x".repeat(128),
            option_flags2: 0x30,
            ..login7("acme")
        };
        bench.client_opens(&login);
        bench.actions.clear();
        bench.admit(Mode::Enforce);
        let sent = bench.server_reads_login();
        let (host, app) = match tell {
            TellClient::None => ("büro".to_owned(), "x".repeat(128)),
            TellClient::HostName => ("büro [10.1.2.3]".to_owned(), "x".repeat(128)),
            TellClient::ApplicationName => ("büro".to_owned(), format!("{} [10.1.2.3]", "x".repeat(117))),
        };
        assert_eq!((sent.host_name, sent.app_name), (host, app));
        assert_eq!(sent.option_flags2 & 0x70, 0, "fUserType is nobody's business");
    }
}

#[test]
fn nothing_reaches_the_server_before_a_valid_login() {
    let login = login7("acme").encode().unwrap().to_vec();
    let whole = message(PacketType::Login7, PacketStatus::NORMAL, &login);
    let hello = message(
        PacketType::Prelogin,
        PacketStatus::NORMAL,
        &prelogin(Encryption::NotSup).encode(),
    );
    for at in 0..whole.len() {
        let mut bench = Bench::new(0);
        bench.feed_client(&hello);
        bench.feed_client(&whole[..at]);
        assert!(
            bench.actions.is_empty() && bench.to_server.is_empty(),
            "half a login at {at}"
        );
    }
    // Every byte of the fixed part broken: refused, or read as another login; never a connection before the tenant is known.
    for at in 0..94 {
        for value in [0x00, 0x7F, 0xFF] {
            let mut broken = login.clone();
            broken[at] = value;
            let mut bench = Bench::new(0);
            bench.feed_client(&hello);
            bench.client_says(PacketType::Login7, PacketStatus::NORMAL, &broken);
            assert!(bench.to_server.is_empty());
            assert!(
                !bench.actions.iter().any(|a| matches!(a, Action::Connect(_))),
                "byte {at}"
            );
        }
    }
}

#[test]
fn a_login_in_many_packets_is_the_same_login_however_it_is_cut() {
    let login = Login7 {
        option_flags3: 0x10,
        features: vec![Feature {
            id: 0x10,
            data: vec![7; 9_000],
        }],
        ..login7("acme")
    };
    let body = login.encode().unwrap();
    for size in [13, 512, 4_088, 4_096] {
        let mut bench = Bench::new(0);
        bench.client_says(
            PacketType::Prelogin,
            PacketStatus::NORMAL,
            &prelogin(Encryption::NotSup).encode(),
        );
        bench.client_message();
        let mut packets = Vec::new();
        for chunk in body.chunks(size - 8) {
            let mut packet = message(PacketType::Login7, PacketStatus::NORMAL, chunk);
            packet[1] = 0;
            packets.push(packet);
        }
        packets.last_mut().unwrap()[1] = 1;
        bench.feed_client(&packets.concat());
        assert!(
            matches!(bench.actions.pop_front(), Some(Action::Admit(_))),
            "packets of {size}"
        );
        bench.admit(Mode::Enforce);
        let sent = bench.server_reads_login();
        assert_eq!(sent.features, login.features, "packets of {size}");
    }
}

#[test]
fn a_login_without_prelogin_is_taken_where_clear_logins_are() {
    let mut bench = Bench::new(0);
    bench.client_says(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    assert!(matches!(bench.actions.pop_front(), Some(Action::Admit(_))));
    let demanding = Settings {
        client_policy: weir_tds::prelogin::EncryptionPolicy::On,
        ..with_auth(AuthSettings::default())
    };
    let mut bench = Bench::with(demanding, 0);
    bench.client_says(
        PacketType::Login7,
        PacketStatus::NORMAL,
        &login7("acme").encode().unwrap(),
    );
    assert!(bench.actions.is_empty());
    assert_eq!(error_in(&bench.client_message()), Some((50403, 16)));
}
