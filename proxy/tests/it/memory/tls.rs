//! Sessions with TLS on both legs: a thousand idle, and as many whose response streams to a client that hardly reads.

use std::sync::Arc;

use weir_tds::prelogin::Encryption;

use super::{
    ALONE, IDLE_TLS_MAX, Legs, Proxy, SESSIONS, STREAMING_MAX,
    sandbox::{self, ONE_ROW, ROWS},
};
use crate::{
    encryption::Files,
    tls_client::{Connected, Driver},
};

/// Largest packet under TLS: no record holds more (`session/packet_size.rs`).
const PACKET: u64 = 16 * 1024;
/// Bytes that a slow client takes and then no more.
const TAKEN: usize = 512 * 1024;
/// Clients that log in at the same time.
const AT_ONCE: usize = 8;

/// Does `work` for each of `all` on threads, and gives back what it is done with.
async fn on_threads<T, R>(all: Vec<T>, work: impl Fn(T) -> R + Send + Sync + 'static) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let work = Arc::new(work);
    let mut parts: Vec<Vec<T>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    for (at, one) in all.into_iter().enumerate() {
        parts[at % AT_ONCE].push(one);
    }
    let running: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let work = Arc::clone(&work);
            tokio::task::spawn_blocking(move || part.into_iter().map(|one| work(one)).collect::<Vec<R>>())
        })
        .collect();
    let mut done = Vec::new();
    for part in running {
        done.extend(part.await.unwrap());
    }
    done
}

fn idle(driver: &Driver) -> Connected {
    let (mut connected, _) = driver.log_in().unwrap();
    connected.batch("select 1").unwrap();
    connected
}

async fn sessions(driver: &Driver, count: u64) -> Vec<Connected> {
    let drivers = (0..count).map(|_| driver.clone()).collect();
    on_threads(drivers, |driver| idle(&driver)).await
}

async fn ask(sessions: Vec<Connected>, text: &'static str) -> Vec<Connected> {
    on_threads(sessions, move |mut session| {
        session.ask(text).unwrap();
        session
    })
    .await
}

async fn hold_little(legs: Legs, encryption: Encryption) {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let certificate = Files::write(dir.path(), "localhost", false);
    let server = sandbox::start(Some(dir.path())).await;
    let upstream = format!("localhost:{}", server.addr.port());
    let proxy = Proxy::start(&upstream, legs, dir, Arc::default()).await;
    let driver = Driver {
        gate: proxy.address,
        encryption,
        trusts: certificate,
    };
    let warm = sessions(&driver, 20).await;
    let before = proxy.settled().await;
    let idle = sessions(&driver, SESSIONS).await;
    let mut held = proxy.settled().await;
    let each = (held - before) / SESSIONS;
    println!("{legs:?}: an idle session holds {each} bytes");
    assert!(
        each <= IDLE_TLS_MAX,
        "{legs:?}: an idle session holds {each} bytes"
    );
    // All at once, a second time: what they held while they worked is given back.
    let idle = on_threads(ask(idle, "select 1").await, |mut session| {
        session.message().unwrap();
        session
    })
    .await;
    let each = proxy.each(before, SESSIONS).await;
    println!("{legs:?}: after all worked at once it holds {each} bytes");
    assert!(
        each <= IDLE_TLS_MAX,
        "{legs:?}: an idle session holds {each} bytes"
    );
    let (mut rest, mut stalled) = (idle, Vec::new());
    for text in [ROWS, ONE_ROW] {
        let streaming = rest.split_off(rest.len() / 2);
        let count = streaming.len() as u64;
        let streaming = ask(streaming, text).await;
        let each = proxy.each(held, count).await;
        println!("{legs:?}: a session that streams {text} to nobody holds {each} bytes");
        let most = STREAMING_MAX + 2 * PACKET;
        assert!(each <= most, "{legs:?}, {text}: {each} bytes of {most}");
        let streaming = on_threads(streaming, |mut session| {
            session.read(TAKEN).unwrap();
            session
        })
        .await;
        let each = proxy.each(held, count).await;
        println!("{legs:?}: the same to a client that took {TAKEN} bytes: {each} bytes");
        assert!(each <= most, "{legs:?}, {text}: {each} bytes of {most}");
        // They stay: what they would give back would hide what the next ones take.
        held = proxy.settled().await;
        stalled.push(streaming);
    }
    drop((warm, rest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_wrapped_in_prelogin_packets_holds_little() {
    hold_little(Legs::Wrapped, Encryption::On).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tds_8_holds_little() {
    hold_little(Legs::Strict, Encryption::Strict).await;
}
