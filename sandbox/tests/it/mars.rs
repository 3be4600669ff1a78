//! MARS: sessions over SMP that answer apart, each within its window, over one login.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::BytesMut;
use weir_sandbox::scenario::{Rule, Scenario, Step};
use weir_sandbox::{Backend, Config};
use weir_tds::framer::{Frame, Framer};
use weir_tds::message::{FIRST_PACKET_ID, write_message};
use weir_tds::packet::{HEADER_LEN, PacketStatus, PacketType};
use weir_tds::request::sql_batch;
use weir_tds::smp::{End, Received, SMP_HEADER_LEN, Sessions, WINDOW};

use crate::client::{Client, Wish};
use crate::reading::{Reading, Response};
use crate::{NONE, sandbox};

/// A client with sessions.
struct Mars {
    client: Client,
    smp: Sessions,
    streams: BTreeMap<u16, BytesMut>,
    /// DATA packets that came, per session.
    came: BTreeMap<u16, u32>,
    finished: Vec<u16>,
}

impl Mars {
    async fn connect(addr: SocketAddr) -> Self {
        let wish = Wish {
            mars: true,
            ..Wish::default()
        };
        let client = Client::login(addr, wish).await;
        assert_eq!(client.mars, Some(true));
        Self {
            smp: Sessions::new(End::Client, client.packet_size),
            client,
            streams: BTreeMap::new(),
            came: BTreeMap::new(),
            finished: Vec::new(),
        }
    }

    async fn open(&mut self, sid: u16) {
        let syn = self.smp.open(sid).unwrap();
        self.client.send_raw(&syn.encode()).await;
        self.streams.insert(sid, BytesMut::new());
    }

    async fn close(&mut self, sid: u16) {
        let fin = self.smp.fin(sid).unwrap();
        self.client.send_raw(&fin.encode()).await;
        while !self.finished.contains(&sid) {
            self.pump().await;
        }
    }

    async fn send(&mut self, sid: u16, kind: PacketType, body: &[u8]) {
        let mut packet = BytesMut::new();
        let (status, size) = (PacketStatus::NORMAL, self.client.packet_size);
        write_message(&mut packet, kind, status, size, 0, FIRST_PACKET_ID, body);
        let header = self.smp.window(sid).unwrap().data(packet.len()).unwrap();
        self.client.send_raw(&header.encode()).await;
        self.client.send_raw(&packet).await;
    }

    async fn send_batch(&mut self, sid: u16, text: &str) {
        let body = sql_batch::encode(text, 0, self.client.options());
        self.send(sid, PacketType::SqlBatch, &body).await;
    }

    /// Takes one SMP packet; its bytes wait in the session's stream, and count as not taken.
    async fn pump(&mut self) {
        loop {
            let header = self.smp.peek(&self.client.input).unwrap();
            if let Some(header) = header.filter(|h| self.client.input.len() >= h.length as usize) {
                let packet = self.client.input.split_to(header.length as usize);
                match self.smp.receive(&header).unwrap() {
                    Received::Data(sid, _) => {
                        *self.came.entry(sid).or_default() += 1;
                        let stream = self.streams.get_mut(&sid).unwrap();
                        stream.extend_from_slice(&packet[SMP_HEADER_LEN..]);
                    }
                    Received::Finished(sid) => self.finished.push(sid),
                    _ => {}
                }
                return;
            }
            assert!(self.client.fill().await, "the server closed");
        }
    }

    /// A whole response of a session, whose window is raised as it is read.
    async fn response(&mut self, sid: u16) -> Response {
        let framer = Framer::new(self.client.packet_size);
        let mut reading = Reading::new(self.client.version);
        loop {
            let stream = self.streams.get_mut(&sid).unwrap();
            let Frame::Packet(header) = framer.next(stream).unwrap() else {
                self.pump().await;
                continue;
            };
            let packet = stream.split_to(usize::from(header.length));
            let left = stream.len();
            let window = self.smp.window(sid).unwrap();
            window.taken(left);
            if let Some(ack) = window.acknowledge() {
                self.client.send_raw(&ack.encode()).await;
            }
            reading.take(&header, &packet[HEADER_LEN..]);
            if header.status.is_eom() {
                return reading.end();
            }
        }
    }

    async fn batch(&mut self, sid: u16, text: &str) -> Response {
        self.send_batch(sid, text).await;
        self.response(sid).await
    }
}

#[tokio::test]
async fn a_session_answers_while_another_is_not_read() {
    let running = sandbox().await;
    let mut mars = Mars::connect(running.addr).await;
    mars.open(0).await;
    mars.open(1).await;
    mars.send_batch(0, "SELECT * FROM events").await;
    while mars.came.get(&0) != Some(&WINDOW) {
        mars.pump().await;
    }
    for _ in 0..3 {
        assert_eq!(mars.batch(1, "SELECT TOP 500 * FROM orders").await.rows, 500);
        assert_eq!(mars.batch(1, "SELECT COUNT(*) FROM sys.tables").await.rows, 1);
    }
    assert_eq!(mars.came.get(&0), Some(&WINDOW), "a window was overrun");
    mars.send(0, PacketType::Attention, &[]).await;
    let cut = mars.response(0).await;
    assert!(cut.rows < 1_000_000);
    assert_eq!(mars.response(0).await.last_status(), 0x20, "one acknowledgement");
    assert_eq!(mars.batch(0, "SELECT 1").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn sessions_share_one_transaction_and_one_set_of_options() {
    let running = sandbox().await;
    let mut mars = Mars::connect(running.addr).await;
    mars.open(0).await;
    mars.open(7).await;
    assert_eq!(mars.batch(0, "CREATE TABLE t (id int)").await.errors(), NONE);
    assert!(mars.batch(0, "BEGIN TRAN").await.envs().contains(&8));
    assert_eq!(mars.batch(7, "INSERT INTO t VALUES (1)").await.errors(), NONE);
    assert_eq!(mars.batch(0, "SELECT id FROM t").await.rows, 1);
    assert!(mars.batch(7, "ROLLBACK").await.envs().contains(&10));
    assert_eq!(mars.batch(0, "SELECT id FROM t").await.rows, 0);
    running.stop().await;
}

#[tokio::test]
async fn an_attention_concerns_its_session_only() {
    let running = sandbox().await;
    let mut mars = Mars::connect(running.addr).await;
    for sid in [0, 1, 2] {
        mars.open(sid).await;
    }
    mars.send_batch(0, "WAITFOR DELAY '00:01:00'").await;
    mars.send_batch(1, "SELECT 1 FROM sys.tables").await;
    mars.send(0, PacketType::Attention, &[]).await;
    assert_eq!(mars.response(0).await.last_status(), 2);
    assert_eq!(mars.response(0).await.last_status(), 0x20);
    assert!(mars.response(1).await.rows > 0, "it only waited its turn");
    mars.send(2, PacketType::Attention, &[]).await;
    assert_eq!(mars.response(2).await.last_status(), 0x20, "idle");
    running.stop().await;
}

#[tokio::test]
async fn a_closed_session_gives_its_number_back() {
    let running = sandbox().await;
    let mut mars = Mars::connect(running.addr).await;
    mars.open(3).await;
    assert_eq!(mars.batch(3, "SELECT 1").await.rows, 1);
    mars.close(3).await;
    mars.finished.clear();
    mars.open(3).await;
    mars.send_batch(3, "WAITFOR DELAY '00:01:00'").await;
    mars.close(3).await;
    mars.finished.clear();
    mars.open(3).await;
    assert_eq!(
        mars.batch(3, "SELECT 1").await.rows,
        1,
        "the closed one holds nothing"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_script_is_played_in_each_session_by_itself() {
    let config = Config {
        backend: Backend::Scenario(
            Scenario::new()
                .rule(Rule::text_is("hang").steps([Step::Never]))
                .otherwise([
                    Step::columns(&[("n", "int")]),
                    Step::rows(1, [serde_json::json!(1)]),
                    Step::done(0x10, 0xC1, 1),
                ]),
        ),
        ..Config::default()
    };
    let running = weir_sandbox::start(config).await.unwrap();
    let mut mars = Mars::connect(running.addr).await;
    mars.open(0).await;
    mars.open(1).await;
    mars.send_batch(0, "hang").await;
    assert_eq!(mars.batch(1, "go").await.rows, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_breach_of_smp_ends_the_connection() {
    let running = sandbox().await;
    let mut mars = Mars::connect(running.addr).await;
    mars.open(0).await;
    mars.client
        .send_raw(&[0x54, 8, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0])
        .await;
    assert!(!mars.client.fill().await, "it was not closed");
    running.stop().await;
}

#[tokio::test]
async fn mars_is_refused_where_it_is_switched_off() {
    let config = Config {
        mars: false,
        ..Config::default()
    };
    let running = weir_sandbox::start(config).await.unwrap();
    let wish = Wish {
        mars: true,
        ..Wish::default()
    };
    let mut client = Client::login(running.addr, wish).await;
    assert_eq!(client.mars, Some(false));
    assert_eq!(client.batch("SELECT 1").await.rows, 1);
    running.stop().await;
}
