//! A TCP proxy that fails on command, for tests of the adapters: it stands in front of a real server and refuses, cuts before, in
//! or after a request, holds everything back, or leads to another server. Only on loopback, only in tests.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// After a cut the server is read for at most this long, so that it works off what it was sent (a reset would drop that).
const DRAIN: Duration = Duration::from_secs(2);
/// After a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running proxy; dropping it cuts all connections and frees the port. Clients that connect while it refuses or the
/// server is away are accepted and closed at once.
#[derive(Debug)]
pub struct ChaosProxy {
    /// Where clients connect.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    trap: Mutex<Option<Trap>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    upstream: SocketAddr,
    refuses: bool,
    frozen: bool,
    /// Each cut ends the connections that began before it.
    cuts: u64,
    /// Traps set so far, which are also their numbers.
    armed: u64,
    sprung: u64,
    accepted: u64,
}

/// What ends a connection when it happens; one at a time, on whichever connection it happens first.
#[derive(Debug, Clone, Copy)]
enum Trap {
    /// So many more answers begin; the last of them is withheld.
    Answer(u32),
    /// So many more bytes of requests pass.
    RequestBytes(usize),
    /// So many more bytes of answers pass.
    AnswerBytes(usize),
}

impl ChaosProxy {
    /// Listens on a free port of 127.0.0.1; must be called in a runtime.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(upstream: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let state = State {
            upstream,
            refuses: false,
            frozen: false,
            cuts: 0,
            armed: 0,
            sprung: 0,
            accepted: 0,
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            trap: Mutex::new(None),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            addr,
            shared,
            accepting,
        })
    }

    /// Ends all connections of this moment; new ones are served.
    pub fn cut_now(&self) {
        self.shared.state.send_modify(|s| s.cuts += 1);
    }

    /// While true, new connections are closed at once. Those that stand, stand: see [`ChaosProxy::cut_now`].
    pub fn refuse(&self, refuses: bool) {
        self.shared.state.send_modify(|s| s.refuses = refuses);
    }

    /// While true, clients are accepted and nothing is forwarded, in neither direction; false forwards what was held.
    pub fn freeze(&self, frozen: bool) {
        self.shared.state.send_modify(|s| s.frozen = frozen);
    }

    /// New connections lead there. Those that stand, stand: see [`ChaosProxy::cut_now`].
    pub fn retarget(&self, upstream: SocketAddr) {
        self.shared.state.send_modify(|s| s.upstream = upstream);
    }

    /// The next request is lost: cut before any byte of it is forwarded.
    pub fn cut_before_request(&self) {
        self.cut_in_request(0);
    }

    /// The next request is cut after so many of its bytes were forwarded.
    pub fn cut_in_request(&self, bytes: usize) {
        self.arm(Trap::RequestBytes(bytes));
    }

    /// The `n`-th request from now (from 1) reaches the server and is answered; the answer is lost and the connection cut. A
    /// request is whatever the client sends before the server says something.
    pub fn cut_after_request(&self, n: u32) {
        self.arm(Trap::Answer(n));
    }

    /// The connection is cut after so many more bytes of answers.
    pub fn cut_in_answer(&self, bytes: usize) {
        self.arm(Trap::AnswerBytes(bytes));
    }

    /// Returns when the cut that was set last has happened. Wait with a deadline.
    pub async fn sprung(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender lives as long as self.
        let _ = state.wait_for(|s| s.sprung == s.armed).await;
    }

    /// Connections accepted so far, refused ones too.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.state.borrow().accepted
    }

    fn arm(&self, trap: Trap) {
        let mut armed = self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some(trap);
        self.shared.state.send_modify(|s| s.armed += 1);
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_now();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        shared.state.send_modify(|s| s.accepted += 1);
        let State { refuses, cuts, .. } = *shared.state.borrow();
        if !refuses {
            tokio::spawn(serve(client, cuts, Arc::clone(&shared)));
        }
    }
}

/// One connection. What ends it drops the client's socket first.
async fn serve(client: TcpStream, began: u64, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let forward = async {
        thawed(&shared).await;
        let upstream = shared.state.borrow().upstream;
        let Ok(server) = TcpStream::connect(upstream).await else {
            return None;
        };
        // Neither direction is delayed.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let asked = AtomicU64::new(0);
        let requests = requests(&shared, &asked, &mut from_client, &mut to_server);
        let answers = answers(&shared, &asked, &mut from_server, &mut to_client);
        // Each direction ends alone; a cut in one ends both.
        let _ = tokio::try_join!(requests, answers);
        Some((from_server, to_server))
    };
    let server = tokio::select! {
        server = forward => server,
        _ = state.wait_for(|s| s.cuts != began) => None,
    };
    if let Some((mut from_server, mut to_server)) = server {
        let _ = to_server.shutdown().await;
        let mut rest = vec![0; CHUNK];
        let drain = async { while matches!(from_server.read(&mut rest).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(DRAIN, drain).await;
    }
}

/// A direction's end: `Err` cuts the other one too.
type End = Result<(), ()>;

async fn requests(
    shared: &Shared,
    asked: &AtomicU64,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> End {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await.map_err(drop)?;
        thawed(shared).await;
        if n == 0 {
            return to.shutdown().await.map_err(drop);
        }
        let (pass, cut) = shared.request(n);
        if pass > 0 {
            asked.store(shared.state.borrow().armed, Ordering::SeqCst);
        }
        to.write_all(&chunk[..pass]).await.map_err(drop)?;
        if cut.is_break() {
            return Err(());
        }
    }
}

async fn answers(
    shared: &Shared,
    asked: &AtomicU64,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> End {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await.map_err(drop)?;
        thawed(shared).await;
        if n == 0 {
            return to.shutdown().await.map_err(drop);
        }
        // Only an answer to what was asked since the trap was set counts.
        let answers = asked.swap(0, Ordering::SeqCst) == shared.state.borrow().armed;
        let (pass, cut) = shared.answer(n, answers);
        to.write_all(&chunk[..pass]).await.map_err(drop)?;
        if cut.is_break() {
            return Err(());
        }
    }
}

async fn thawed(shared: &Shared) {
    let mut state = shared.state.subscribe();
    // The sender is in `shared`.
    let _ = state.wait_for(|s| !s.frozen).await;
}

impl Shared {
    /// Of `n` request bytes: how many pass, and whether that was all for this connection.
    fn request(&self, n: usize) -> (usize, ControlFlow<()>) {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        match *trap {
            Some(Trap::RequestBytes(left)) if left < n => {
                self.spring(&mut trap);
                (left, ControlFlow::Break(()))
            }
            Some(Trap::RequestBytes(left)) => {
                *trap = Some(Trap::RequestBytes(left - n));
                (n, ControlFlow::Continue(()))
            }
            _ => (n, ControlFlow::Continue(())),
        }
    }

    fn answer(&self, n: usize, begins: bool) -> (usize, ControlFlow<()>) {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        match *trap {
            Some(Trap::Answer(0 | 1)) if begins => {
                self.spring(&mut trap);
                (0, ControlFlow::Break(()))
            }
            Some(Trap::Answer(left)) if begins => {
                *trap = Some(Trap::Answer(left - 1));
                (n, ControlFlow::Continue(()))
            }
            Some(Trap::AnswerBytes(left)) if left < n => {
                self.spring(&mut trap);
                (left, ControlFlow::Break(()))
            }
            Some(Trap::AnswerBytes(left)) => {
                *trap = Some(Trap::AnswerBytes(left - n));
                (n, ControlFlow::Continue(()))
            }
            _ => (n, ControlFlow::Continue(())),
        }
    }

    fn spring(&self, trap: &mut Option<Trap>) {
        *trap = None;
        self.state.send_modify(|s| s.sprung = s.armed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Answers each line with `name:line`; says what it was sent.
    struct Lines {
        addr: SocketAddr,
        seen: watch::Receiver<Vec<u8>>,
    }

    fn lines(name: &'static str) -> Lines {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen_tx, seen) = watch::channel(Vec::new());
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let seen = seen_tx.clone();
                tokio::spawn(async move {
                    let mut chunk = [0; 1024];
                    while let Ok(n @ 1..) = client.read(&mut chunk).await {
                        seen.send_modify(|all| all.extend(&chunk[..n]));
                        if chunk[..n].ends_with(b"\n") {
                            let _ = client
                                .write_all(&[name.as_bytes(), b":", &chunk[..n]].concat())
                                .await;
                        }
                    }
                });
            }
        });
        Lines { addr, seen }
    }

    /// What comes back for a line; what came before the connection ended, when it did.
    async fn ask(client: &mut TcpStream, line: &str) -> Result<String, String> {
        let mut got = Vec::new();
        let _ = client.write_all(line.as_bytes()).await;
        let mut chunk = [0; 1024];
        let read = async {
            while !got.ends_with(b"\n") {
                match client.read(&mut chunk).await {
                    Ok(n @ 1..) => got.extend(&chunk[..n]),
                    _ => return false,
                }
            }
            true
        };
        let whole = tokio::time::timeout(SOON, read)
            .await
            .expect("an answer or an end");
        let text = String::from_utf8(got).unwrap();
        if whole { Ok(text) } else { Err(text) }
    }

    async fn connect(proxy: &ChaosProxy) -> TcpStream {
        TcpStream::connect(proxy.addr).await.unwrap()
    }

    async fn saw(server: &mut Lines, what: &str) {
        let seen = server.seen.wait_for(|s| s == what.as_bytes());
        tokio::time::timeout(SOON, seen).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_is_lost_before_in_or_after_it_as_told() {
        let mut server = lines("a");
        let proxy = ChaosProxy::start(server.addr).unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "1\n").await, Ok("a:1\n".into()));
        proxy.cut_before_request();
        assert_eq!(ask(&mut client, "2\n").await, Err(String::new()));
        let mut client = connect(&proxy).await;
        proxy.cut_in_request(3);
        assert_eq!(ask(&mut client, "3456\n").await, Err(String::new()));
        saw(&mut server, "1\n345").await;
        let mut client = connect(&proxy).await;
        proxy.cut_after_request(2);
        assert_eq!(ask(&mut client, "7\n").await, Ok("a:7\n".into()));
        assert_eq!(ask(&mut client, "8\n").await, Err(String::new()));
        tokio::time::timeout(SOON, proxy.sprung()).await.unwrap();
        saw(&mut server, "1\n3457\n8\n").await;
        let mut client = connect(&proxy).await;
        proxy.cut_in_answer(2);
        assert_eq!(ask(&mut client, "9\n").await, Err("a:".into()));
        assert_eq!(proxy.accepted(), 4);
    }

    #[tokio::test]
    async fn what_was_held_goes_on_and_new_connections_lead_elsewhere() {
        let (mut a, b) = (lines("a"), lines("b"));
        let proxy = ChaosProxy::start(a.addr).unwrap();
        let mut old = connect(&proxy).await;
        assert_eq!(ask(&mut old, "1\n").await, Ok("a:1\n".into()));
        proxy.freeze(true);
        let mut held = connect(&proxy).await;
        for client in [&mut old, &mut held] {
            client.write_all(b"2\n").await.unwrap();
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(50), client.read(&mut byte));
            assert!(read.await.is_err(), "something was answered");
        }
        saw(&mut a, "1\n").await;
        proxy.freeze(false);
        for client in [&mut old, &mut held] {
            assert_eq!(ask(client, "").await, Ok("a:2\n".into()));
        }
        proxy.retarget(b.addr);
        assert_eq!(ask(&mut old, "3\n").await, Ok("a:3\n".into()));
        assert_eq!(ask(&mut connect(&proxy).await, "4\n").await, Ok("b:4\n".into()));
        proxy.cut_now();
        assert_eq!(ask(&mut old, "5\n").await, Err(String::new()));
        proxy.refuse(true);
        assert_eq!(ask(&mut connect(&proxy).await, "6\n").await, Err(String::new()));
        proxy.refuse(false);
        assert_eq!(ask(&mut connect(&proxy).await, "7\n").await, Ok("b:7\n".into()));
    }
}
