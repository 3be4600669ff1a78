//! The SQL Server Browser answer (UDP 1434): names Weir's own ports, so that `host\instance` finds the gate.
//!
//! UDP has no handshake, so a sender's address may be forged: answers are small, of known instances only, few per source and
//! few in all. What is not a request is not answered.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use weir_tds::browser::{Instance, REQUEST_MAX, Request, response};

/// Answers to one source per [`WINDOW`]; a driver asks once per connection to a named instance, or keeps the port.
const PER_SOURCE: u32 = 20;
/// Answers in all per [`WINDOW`]: at most 1 KiB each.
const IN_ALL: u32 = 1000;
/// How long answers are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Sources that are counted at a time; more get no answer until the window ends.
const SOURCES_MAX: usize = 4096;
/// Pause after a failed read: the error may last longer than a busy loop.
const PAUSE: Duration = Duration::from_millis(50);

/// Which datagrams are answered, and with what. Pure.
#[derive(Debug)]
pub struct Browser {
    instances: Vec<Instance>,
    began: Option<Instant>,
    answered: u32,
    sources: HashMap<IpAddr, u32>,
}

impl Browser {
    /// Names these instances.
    #[must_use]
    pub fn new(instances: Vec<Instance>) -> Self {
        Self {
            instances,
            began: None,
            answered: 0,
            sources: HashMap::new(),
        }
    }

    /// The answer to a datagram; `None`: none is sent.
    pub fn answer(&mut self, datagram: &[u8], source: IpAddr, now: Instant) -> Option<Vec<u8>> {
        let request = Request::parse(datagram).ok()?;
        if !self.may_answer(source, now) {
            return None;
        }
        match request {
            Request::Broadcast | Request::All => response(&self.instances),
            Request::Instance(name) => response(
                self.instances
                    .iter()
                    .filter(|i| i.name.eq_ignore_ascii_case(&name))
                    .take(1),
            ),
            // The gate has no administrator's connection, and the server's would lead around it.
            Request::Dac(_) => None,
        }
    }

    fn may_answer(&mut self, source: IpAddr, now: Instant) -> bool {
        if self
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= WINDOW)
        {
            self.began = Some(now);
            self.answered = 0;
            self.sources.clear();
        }
        if self.answered >= IN_ALL
            || (self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source))
        {
            return false;
        }
        let from_here = self.sources.entry(source).or_default();
        *from_here += 1;
        if *from_here > PER_SOURCE {
            return false;
        }
        self.answered += 1;
        true
    }
}

/// Answers until `stop`.
pub(crate) async fn serve(socket: UdpSocket, mut browser: Browser, stop: CancellationToken) {
    // One byte more than any request: a longer datagram is cut to what is no request.
    let mut datagram = [0; REQUEST_MAX + 2];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut datagram) => received,
            () = stop.cancelled() => return,
        };
        let (length, source): (usize, SocketAddr) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "browser socket");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let request = datagram.get(..length).unwrap_or_default();
        if let Some(answer) = browser.answer(request, source.ip(), Instant::now()) {
            // A full send buffer drops an answer, as any network may.
            let _sent = socket.try_send_to(&answer, source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser() -> Browser {
        let instance = |name: &str, port| Instance {
            server: "GATE".into(),
            name: name.into(),
            version: "16.0.1000.6".into(),
            port,
        };
        Browser::new(vec![instance("MSSQLSERVER", 1433), instance("ACME", 1444)])
    }

    fn text(answer: Option<Vec<u8>>) -> String {
        String::from_utf8(answer.unwrap().split_off(3)).unwrap()
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_instance_is_named_with_its_port() {
        let (mut browser, now) = (browser(), Instant::now());
        let one = text(browser.answer(b"\x04acme\0", CLIENT, now));
        assert_eq!(
            one,
            "ServerName;GATE;InstanceName;ACME;IsClustered;No;Version;16.0.1000.6;tcp;1444;;"
        );
        let all = text(browser.answer(&[3], CLIENT, now));
        assert!(all.contains("tcp;1433;;") && all.contains("tcp;1444;;"));
        assert_eq!(text(browser.answer(&[2], CLIENT, now)), all);
    }

    #[test]
    fn what_is_unknown_broken_or_the_administrators_is_not_answered() {
        let (mut browser, now) = (browser(), Instant::now());
        for datagram in [
            &b"\x04other\0"[..],
            b"\x0f\x01ACME\0",
            b"",
            b"\x04ACME",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(browser.answer(datagram, CLIENT, now), None, "{datagram:?}");
        }
    }

    #[test]
    fn a_source_gets_few_answers_and_all_sources_get_few_more() {
        let (mut browser, now) = (browser(), Instant::now());
        let answered = (0..1000)
            .filter(|_| browser.answer(&[3], CLIENT, now).is_some())
            .count();
        assert_eq!(answered, PER_SOURCE as usize);
        let mut in_all = answered;
        for n in 0..10_000u32 {
            let source = IpAddr::V4(std::net::Ipv4Addr::from(n));
            in_all += usize::from(browser.answer(&[3], source, now).is_some());
        }
        assert_eq!(in_all, IN_ALL as usize);
        assert!(browser.sources.len() <= SOURCES_MAX);
        assert!(
            browser.answer(&[3], CLIENT, now + WINDOW).is_some(),
            "the next window is a new one"
        );
    }
}
