//! Logging in: order of the answer, versions, packet sizes, features, refusals, bounds.

use weir_sandbox::Config;
use weir_tds::login7::Feature;
use weir_tds::version::TdsVersion;

use crate::client::{Client, Wish};
use crate::reading::Event;
use crate::sandbox;

#[tokio::test]
async fn the_login_answer_has_sql_servers_order() {
    let running = sandbox().await;
    let features = vec![
        Feature {
            id: 0x0A,
            data: vec![1],
        },
        Feature {
            id: 0x09,
            data: vec![1],
        },
    ];
    let client = Client::login(
        running.addr,
        Wish {
            features,
            ..Wish::default()
        },
    )
    .await;
    let shape: Vec<String> = client
        .login
        .events
        .iter()
        .map(|e| match e {
            Event::Env(n) => format!("env{n}"),
            Event::Info(n, _) => format!("info{n}"),
            Event::LoginAck(_) => "ack".into(),
            Event::Other(kind) => format!("{kind:?}"),
            Event::Done { status, .. } => format!("done{status}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        shape,
        [
            "env1",
            "info5701",
            "env7",
            "env2",
            "info5703",
            "ack",
            "env4",
            "FeatureExtAck",
            "done0"
        ]
    );
    running.stop().await;
}

#[tokio::test]
async fn a_feature_that_was_not_asked_for_is_not_acknowledged() {
    let running = sandbox().await;
    let client = Client::connect(running.addr).await;
    assert!(
        !client.login.events.iter().any(|e| matches!(e, Event::Other(_))),
        "{:?}",
        client.login.events
    );
    running.stop().await;
}

#[tokio::test]
async fn every_version_gets_its_own_token_forms() {
    let running = sandbox().await;
    use TdsVersion as V;
    for version in [V::V7_1, V::V7_1Rev1, V::V7_2, V::V7_3A, V::V7_3B, V::V7_4] {
        let mut client = Client::login(
            running.addr,
            Wish {
                version,
                ..Wish::default()
            },
        )
        .await;
        assert!(
            client.login.events.contains(&Event::LoginAck(version)),
            "{version:?}"
        );
        let response = client
            .batch("SELECT TOP 50 * FROM events; SELECT TOP 7 * FROM orders; SELECT nope")
            .await;
        assert_eq!(response.rows, 57, "{version:?}");
        assert_eq!(response.errors(), [207], "{version:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn packet_size_zero_is_the_default_and_others_are_clamped() {
    let running = sandbox().await;
    for (asked, given) in [(0, 4096), (100, 512), (512, 512), (8000, 8000), (40_000, 32_767)] {
        let mut client = Client::login(
            running.addr,
            Wish {
                packet_size: asked,
                ..Wish::default()
            },
        )
        .await;
        assert_eq!(client.packet_size, given, "asked for {asked}");
        let response = client.batch("SELECT TOP 200 * FROM events").await;
        assert_eq!(response.rows, 200);
        assert!(response.packets >= response.bytes / u64::from(given));
    }
    running.stop().await;
}

#[tokio::test]
async fn wrong_passwords_and_unknown_databases_are_refused_and_closed() {
    let running = sandbox().await;
    let mut client = Client::login(
        running.addr,
        Wish {
            password: "no",
            ..Wish::default()
        },
    )
    .await;
    assert_eq!(client.login.errors(), [18456]);
    assert!(matches!(
        client.login.events.first(),
        Some(Event::Error(_, 14, _))
    ));
    assert_eq!(client.login.last_status(), 2);
    assert!(client.packet().await.is_none(), "closed after the refusal");
    let mut client = Client::login(
        running.addr,
        Wish {
            database: "nowhere",
            ..Wish::default()
        },
    )
    .await;
    assert_eq!(client.login.errors(), [4060, 18456]);
    assert!(client.packet().await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn each_connection_has_a_process_id_of_its_own_in_every_header() {
    let running = sandbox().await;
    let (mut a, mut b) = (
        Client::connect(running.addr).await,
        Client::connect(running.addr).await,
    );
    let spid = |r: &crate::reading::Response| {
        assert!(r.spids.iter().all(|s| *s == r.spids[0] && *s != 0));
        r.spids[0]
    };
    let of_a = spid(&a.login);
    assert_eq!(spid(&a.batch("SELECT 1").await), of_a);
    assert_ne!(spid(&b.batch("SELECT 1").await), of_a);
    running.stop().await;
}

#[tokio::test]
async fn garbage_and_silence_before_the_login_do_no_harm() {
    let running = sandbox().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x12, 1, 0, 9, 0, 0, 1, 0, 0xFF],
        &[0x12, 1, 0, 4, 0, 0, 0, 0],
        &[2; 64],
    ] {
        let mut stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes)
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    }
    let mut client = Client::connect(running.addr).await;
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn connections_above_the_bound_are_closed_at_once() {
    let config = Config {
        connections_max: 1,
        ..Config::default()
    };
    let running = weir_sandbox::start(config).await.unwrap();
    let _first = Client::connect(running.addr).await;
    let mut second = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(
        tokio::io::AsyncReadExt::read_to_end(&mut second, &mut rest)
            .await
            .unwrap_or(0),
        0
    );
    assert_eq!(running.connections(), 2);
    running.stop().await;
}
