//! A broker that takes no messages because of an alarm: it says `connection.blocked` and stops reading. An alarm on the shared broker
//! would stop everybody else's tests, so a proxy in front of it says and does the same.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;

/// `connection.blocked`, with its reason, as a frame of channel 0.
const BLOCKED: &[u8] = b"\x01\x00\x00\x00\x00\x00\x0f\x00\x0a\x00\x3c\x0alow memory\xce";
/// `connection.unblocked`.
const UNBLOCKED: &[u8] = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x3d\xce";

/// While the alarm is on, connections that publish are told so and not read from.
struct Alarm {
    addr: SocketAddr,
    on: watch::Sender<bool>,
}

impl Alarm {
    async fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (on, alarm) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(broker).await.unwrap();
                tokio::spawn(forward(client, server, alarm.clone()));
            }
        });
        Self { addr, on }
    }
}

/// `basic.publish` in a chunk that a client wrote at once.
fn publishes(chunk: &[u8]) -> bool {
    chunk.windows(4).any(|w| w == [0, 60, 0, 40])
}

async fn forward(client: TcpStream, server: TcpStream, alarm: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let blocked = watch::Sender::new(false);
    let (mut up, mut down) = (alarm.clone(), alarm);
    let requests = async {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut chunk).await {
            if *up.borrow() && publishes(&chunk[..n]) {
                blocked.send_replace(true);
                up.wait_for(|on| !on).await.unwrap();
                blocked.send_replace(false);
            }
            to_server.write_all(&chunk[..n]).await.unwrap();
        }
    };
    let answers = async {
        let mut told = blocked.subscribe();
        let mut chunk = vec![0; 64 << 10];
        loop {
            tokio::select! {
                read = from_server.read(&mut chunk) => match read {
                    Ok(n @ 1..) => to_client.write_all(&chunk[..n]).await.unwrap(),
                    _ => return,
                },
                changed = told.changed() => {
                    changed.unwrap();
                    let now = *told.borrow_and_update();
                    to_client.write_all(if now { BLOCKED } else { UNBLOCKED }).await.unwrap();
                }
            }
        }
    };
    let _ = down.borrow_and_update();
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

#[tokio::test]
async fn a_blocked_broker_is_told_at_once_and_used_again_when_it_is_not() {
    let place = Place::new();
    let alarm = Alarm::start(broker(&place.url)).await;
    let queue = Queue::connect(&via(&place.url, alarm.addr), &place.name)
        .await
        .unwrap();
    queue.bind(Q, TOPIC).await.unwrap();
    publish(&queue, 0..2).await;
    alarm.on.send_replace(true);
    for n in 2..5 {
        let from = Instant::now();
        let told = queue.publish(TOPIC, &n.to_string(), body(n)).await.unwrap_err();
        assert!(
            told.is_unavailable() && told.to_string().contains("low memory"),
            "{told}"
        );
        assert!(from.elapsed() < PUBLISH_DEADLINE, "{:?}", from.elapsed());
    }
    // Consuming goes on: it has a connection of its own.
    assert_eq!(ids(&work_off(&queue, 1).await), ["0"]);
    let came = queue.claim(Q, 1).await.unwrap();
    assert_eq!(ids(&came), ["1"]);
    let told = queue.dead_letter(Q, came[0].tag, "no").await.unwrap_err();
    assert!(told.is_unavailable(), "{told}");
    ack(&queue, &came).await;
    alarm.on.send_replace(false);
    for n in 2..5 {
        insist(&queue, n).await;
    }
    // The one that was on its way when the alarm came may be there twice.
    let mut seen = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    while seen.len() < 3 {
        assert!(Instant::now() < until, "{seen:?}");
        let claimed = queue.claim(Q, 10).await.unwrap();
        ack(&queue, &claimed).await;
        seen.extend(ids(&claimed));
    }
    assert_eq!(seen, ["2", "3", "4"].map(str::to_owned).into());
    place.end().await;
}
