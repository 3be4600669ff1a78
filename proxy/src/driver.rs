//! The one file that reads and writes a session's sockets. Both legs of a session run on one task.
//!
//! Order of each turn: the core runs; records that ended go to the journal; the slot of what waits for the client is
//! written; only then are the sockets written. So delivered ≤ journaled ≤ delivered + one chunk, whenever we die.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::{
    io::poll_read_buf,
    sync::{CancellationToken, WaitForCancellationFuture},
};
use weir_contracts::ids::AccountId;

use crate::session::{
    Blocks,
    engine::{Action, Chunk, Closing, Event, LaneId, Session, SessionEnd, Settings},
    leg::Leg,
    out::{Out, PIECES_PER_WRITE},
};
use crate::{
    auth::Target,
    credit::{AccountCredit, Credit, Tenant},
    gate::Cause,
    journal::{Journal, JournalError, SessionRecord, Slot, SlotHead},
    ports::billing::{Login, Terms},
    ports::clock::Clock,
    verifier::Verifier,
};

/// How long what is queued for a client may take to leave once its session has ended.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// What sessions need of the outside; one per proxy.
pub(crate) struct World {
    /// Shared by all sessions.
    pub(crate) settings: Arc<Settings>,
    /// Tenants and their credit.
    pub(crate) credit: Credit,
    /// Checks passwords at the gate.
    pub(crate) verifier: Verifier,
    /// Where usage goes first.
    pub(crate) journal: Journal,
    /// How long connecting to it may take.
    pub(crate) connect_deadline: Duration,
    /// Wall clock, for records.
    pub(crate) clock: Arc<dyn Clock>,
    /// Called for every server socket before use: no-delay and the like.
    pub(crate) tune: fn(&TcpStream) -> io::Result<()>,
}

/// Answer of a job, with what the driver keeps of it.
enum Done {
    Event(Event),
    Admitted(Arc<AccountCredit>, Terms),
    Connected(TcpStream),
    Begun(OpenSession),
}

/// A session's number in the journal. The journal forgets its record when this goes, also where a client leaves
/// meanwhile: or every such client would leave a record in memory and in each new segment.
struct OpenSession {
    journal: Journal,
    number: u32,
}

impl OpenSession {
    /// On a task of its own: a caller that is dropped meanwhile leaves no session behind.
    async fn begin(journal: Journal, record: SessionRecord) -> Result<Self, String> {
        let begun = tokio::spawn(async move {
            let number = journal.begin_session(record).await?;
            Ok::<Self, JournalError>(Self { journal, number })
        });
        match begun.await {
            Ok(begun) => begun.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.journal.end_session(self.number);
    }
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Runs one client's session to its end.
pub(crate) async fn run(client: TcpStream, world: Arc<World>, stop: CancellationToken) -> SessionEnd {
    let now = Instant::now();
    let mut driver = Driver {
        core: Session::new(Arc::clone(&world.settings), now)
            .with_client(client.peer_addr().ok().map(|peer| peer.ip())),
        client,
        server: None,
        world,
        job: None,
        tenant: None,
        slots: Slots::default(),
        session: None,
        stopping: false,
    };
    let end = driver.turn_until_ended(&stop).await;
    driver.settle().await;
    driver.flush().await;
    end
}

struct Driver {
    /// First, so that it is dropped first: by a panic, too, its record must come before the core's hold on the lease goes.
    slots: Slots,
    core: Session,
    client: TcpStream,
    server: Option<TcpStream>,
    world: Arc<World>,
    job: Option<Job>,
    tenant: Option<(Arc<AccountCredit>, AccountId)>,
    stopping: bool,
    /// Last, so that it is dropped when no slot names it any more.
    session: Option<OpenSession>,
}

/// The journal slots of the responses that are open: one, or with MARS one for each session that has one open.
#[derive(Default)]
struct Slots {
    plain: Option<Slot>,
    /// At most as many as sessions on the connection.
    mars: Vec<(LaneId, Slot)>,
}

impl Slots {
    fn take(&mut self, lane: LaneId) -> Option<Slot> {
        if lane == LaneId::PLAIN {
            return self.plain.take();
        }
        let at = self.mars.iter().position(|(of, _)| *of == lane)?;
        Some(self.mars.swap_remove(at).1)
    }

    fn put(&mut self, lane: LaneId, slot: Slot) {
        if lane == LaneId::PLAIN {
            self.plain = Some(slot);
        } else {
            self.mars.push((lane, slot));
        }
    }
}

/// What a turn waited for.
enum Woken {
    Client(io::Result<usize>),
    Server(io::Result<usize>),
    Written,
    Job(Done),
    Deadline,
    Stop,
}

impl Driver {
    async fn turn_until_ended(&mut self, stop: &CancellationToken) -> SessionEnd {
        let mut stop = pin!(stop.cancelled());
        loop {
            let now = Instant::now();
            self.core.run(now, self.world.clock.unix_nanos());
            // Looked at in every turn: a peer that never pauses would keep the timer behind its bytes.
            if self.core.deadline().is_some_and(|at| at <= now) {
                self.core.on_deadline(now);
            }
            self.start_job();
            if let Err(error) = self.journal_then_write().await {
                self.core.journal_failed(&error.to_string(), now);
            }
            if let Some(end) = self.core.take_end() {
                return end;
            }
            if self.core.is_runnable(now) {
                // Other sessions have their turn when this one has had its share.
                tokio::task::coop::consume_budget().await;
                continue;
            }
            let woken = self.wait(stop.as_mut()).await;
            self.on_woken(woken);
        }
    }

    fn on_woken(&mut self, woken: Woken) {
        let now = Instant::now();
        match woken {
            Woken::Client(Ok(0)) => self.core.client_closed(now),
            Woken::Client(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => self.core.client_closed(now),
            Woken::Server(Ok(0)) => self.core.server_closed(now),
            Woken::Server(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => self.core.server_closed(now),
            Woken::Client(_) | Woken::Server(_) | Woken::Written | Woken::Deadline => {}
            Woken::Job(done) => self.on_done(done, now),
            Woken::Stop => {
                self.stopping = true;
                self.core.stop(now);
            }
        }
    }

    fn on_done(&mut self, done: Done, now: Instant) {
        self.job = None;
        let event = match done {
            Done::Event(event) => event,
            Done::Admitted(credit, terms) => {
                self.tenant = Some((Arc::clone(&credit), terms.account.clone()));
                Event::Admitted {
                    purse: Arc::new(credit),
                    terms,
                }
            }
            Done::Connected(socket) => {
                self.server = Some(socket);
                Event::Connected
            }
            Done::Begun(session) => Event::Begun {
                session: self.session.insert(session).number,
            },
        };
        self.core.on_event(event, now);
    }

    /// Starts the next piece of outside work, if none is under way.
    fn start_job(&mut self) {
        if self.job.is_some() {
            return;
        }
        let world = Arc::clone(&self.world);
        self.job = match self.core.next_action() {
            None => None,
            Some(Action::Verify {
                login,
                mapped,
                password,
            }) => Some(Box::pin(async move {
                let verified = world.verifier.verify(&login, mapped, password).await;
                Done::Event(verified.map_or_else(Event::Refused, |()| Event::Verified))
            })),
            Some(Action::Admit(login)) => Some(Box::pin(admit(world, login))),
            Some(Action::Connect(target)) => {
                // What a server that routed the login says or does after that is nobody's concern.
                self.server = None;
                Some(Box::pin(connect(world, target)))
            }
            Some(Action::Begin {
                principal,
                tariff,
                upstream,
            }) => {
                let account = self.tenant.as_ref().map(|(_, account)| account.clone());
                account.map(|account| {
                    let record = SessionRecord {
                        account,
                        principal,
                        tariff,
                        upstream: upstream.to_string(),
                    };
                    Box::pin(begin(world, record)) as Job
                })
            }
            Some(Action::MoreCredit(need)) => {
                let credit = self.tenant.as_ref().map(|(credit, _)| Arc::clone(credit));
                credit.map(|credit| {
                    Box::pin(async move { Done::Event(Event::Credit(credit.more(need).await)) }) as Job
                })
            }
        };
    }

    /// Journals what ended and what is about to be delivered, then writes what the sockets take at once.
    async fn journal_then_write(&mut self) -> io::Result<()> {
        self.append_closings().await?;
        while let Some(Chunk { lane, head, state }) = self.core.take_chunk() {
            let mut slot = match self.slots.take(lane) {
                Some(slot) => slot,
                None => self.open_slot(head)?,
            };
            let written = slot.write(&state);
            self.slots.put(lane, slot);
            written?;
        }
        self.write().await;
        Ok(())
    }

    /// Writes what the sockets take at once.
    async fn write(&mut self) {
        let Self {
            core, client, server, ..
        } = self;
        let (to_client, to_server) = core.legs();
        let (client_failed, server_failed) = poll_fn(|cx| {
            let mut failed = |socket: &mut TcpStream, out: &mut Out, side| {
                let Poll::Ready(Err(error)) = poll_write(socket, out, cx) else {
                    return false;
                };
                tracing::debug!(%error, "{side} socket");
                true
            };
            let client = failed(client, &mut to_client.out, "client");
            let server = server
                .as_mut()
                .is_some_and(|server| failed(server, &mut to_server.out, "server"));
            Poll::Ready((client, server))
        })
        .await;
        if client_failed {
            self.core.client_closed(Instant::now());
        }
        if server_failed {
            self.core.server_closed(Instant::now());
        }
    }

    async fn append_closings(&mut self) -> io::Result<()> {
        for closing in self.core.take_closings() {
            let Closing {
                lane,
                head,
                record,
                guard,
            } = closing;
            let slot = match self.slots.take(lane) {
                Some(slot) => slot,
                None => self.open_slot(head)?,
            };
            self.world
                .journal
                .close(slot, record)
                .await
                .map_err(io::Error::other)?;
            drop(guard);
        }
        Ok(())
    }

    fn open_slot(&self, head: SlotHead) -> io::Result<Slot> {
        self.world.journal.open_slot(head).map_err(io::Error::other)
    }

    async fn wait(&mut self, mut stop: Pin<&mut WaitForCancellationFuture<'_>>) -> Woken {
        self.core.release_idle();
        let Self {
            core,
            client,
            server,
            job,
            stopping,
            world,
            ..
        } = self;
        let blocks = &world.settings.blocks;
        let deadline = core.deadline();
        let (reads_client, reads_server) = (core.wants_client(), core.wants_server());
        let (client_leg, server_leg) = core.legs();
        let sockets = poll_fn(|cx| {
            if let Some(job) = job
                && let Poll::Ready(done) = job.as_mut().poll(cx)
            {
                return Poll::Ready(Woken::Job(done));
            }
            if !*stopping && stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Stop);
            }
            // A failed socket shows itself at the write that follows.
            if !client_leg.out.is_sent() && poll_write(client, &mut client_leg.out, cx).is_ready() {
                return Poll::Ready(Woken::Written);
            }
            if let Some(server) = server {
                if !server_leg.out.is_sent() && poll_write(server, &mut server_leg.out, cx).is_ready() {
                    return Poll::Ready(Woken::Written);
                }
                if reads_server && let Poll::Ready(read) = poll_read(server, server_leg, blocks, cx) {
                    return Poll::Ready(Woken::Server(read));
                }
            }
            if reads_client && let Poll::Ready(read) = poll_read(client, client_leg, blocks, cx) {
                return Poll::Ready(Woken::Client(read));
            }
            Poll::Pending
        });
        match deadline {
            None => sockets.await,
            Some(at) => tokio::time::timeout_at(at.into(), sockets)
                .await
                .unwrap_or(Woken::Deadline),
        }
    }

    /// The session has ended: its open records are in the journal before the driver goes.
    async fn settle(&mut self) {
        if let Err(error) = self.append_closings().await {
            // The slot stays on disk: the next start makes an `interrupted` record of it.
            tracing::error!(%error, "a usage record could not be appended to the journal");
        }
        self.slots = Slots::default();
        self.session = None;
        self.server = None;
    }

    /// What was queued for the client before the end still goes out, within a deadline.
    async fn flush(&mut self) {
        let Self { core, client, .. } = self;
        let sent = async {
            poll_fn(|cx| poll_write(client, &mut core.client().out, cx)).await?;
            tokio::io::AsyncWriteExt::shutdown(client).await
        };
        match tokio::time::timeout(FLUSH_DEADLINE, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "client went before the end was told"),
            Err(_) => tracing::debug!("client did not take the end of its stream in time"),
        }
    }
}

async fn admit(world: Arc<World>, login: Login) -> Done {
    match world.credit.resolve(&login).await {
        Ok(Tenant::Known { terms, credit }) => Done::Admitted(credit, terms),
        Ok(Tenant::Unknown(_)) => Done::Event(Event::Refused(Cause::UnknownTenant)),
        Err(error) => Done::Event(Event::Refused(Cause::BalanceUnknown(error.to_string()))),
    }
}

async fn connect(world: Arc<World>, target: Target) -> Done {
    let address = (target.host.as_str(), target.port);
    let connecting = tokio::time::timeout(world.connect_deadline, TcpStream::connect(address));
    let refused = match connecting.await {
        Ok(Ok(socket)) => match (world.tune)(&socket) {
            Ok(()) => return Done::Connected(socket),
            Err(error) => error.kind().to_string(),
        },
        Ok(Err(error)) => error.kind().to_string(),
        Err(_) => "no answer within the deadline".to_owned(),
    };
    Done::Event(Event::Refused(Cause::Upstream(refused)))
}

async fn begin(world: Arc<World>, record: SessionRecord) -> Done {
    match OpenSession::begin(world.journal.clone(), record).await {
        Ok(session) => Done::Begun(session),
        Err(error) => {
            tracing::error!(%error, "journal");
            Done::Event(Event::Refused(Cause::Limit("the usage journal cannot take more")))
        }
    }
}

/// Reads what has come. A read that does not fill its block leaves the socket to be waited for: no call finds it empty.
fn poll_read(
    socket: &mut TcpStream,
    leg: &mut Leg,
    blocks: &Blocks,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // Who waits holds no block.
    if socket.poll_read_ready(cx)?.is_pending() {
        return Poll::Pending;
    }
    leg.lend_block(blocks);
    let buf = leg.read_buf();
    let room = buf.capacity() - buf.len();
    let read = poll_read_buf(Pin::new(socket), cx, buf);
    if let Poll::Ready(Ok(bytes)) = read {
        leg.note_read(bytes, room);
    }
    read
}

/// Writes until all is written, or until the socket takes no more now.
fn poll_write(socket: &mut TcpStream, out: &mut Out, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !out.is_sent() {
        let socket = Pin::new(&mut *socket);
        let written = if let Some(piece) = out.only_piece() {
            socket.poll_write(cx, piece)
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let used = out.slices(&mut slices);
            socket.poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
        };
        match written {
            Poll::Ready(written) => out.advance(written?),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::JournalOptions;

    fn record(principal: &str) -> SessionRecord {
        SessionRecord {
            account: "acme".parse().unwrap(),
            principal: principal.to_owned(),
            tariff: "test@1".to_owned(),
            upstream: "db:1433".to_owned(),
        }
    }

    /// Live sessions stand at the head of each new segment: one that was left behind would show there.
    #[tokio::test]
    async fn a_session_whose_client_leaves_while_it_begins_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            segment_bytes: 4 << 10,
            ..JournalOptions::default()
        };
        let journal = Journal::open(dir.path(), options).unwrap();
        for _ in 0..20 {
            tokio::select! {
                biased;
                begun = OpenSession::begin(journal.clone(), record("left-early")) => drop(begun),
                () = tokio::task::yield_now() => {}
            }
        }
        for _ in 0..200 {
            drop(
                OpenSession::begin(journal.clone(), record("stays"))
                    .await
                    .unwrap(),
            );
        }
        journal.flush().await.unwrap();
        let mut newest = segments(dir.path());
        newest.sort();
        let bytes = std::fs::read(newest.last().unwrap()).unwrap();
        assert!(newest.len() > 2 && !bytes.windows(10).any(|w| w == b"left-early"));
    }

    fn segments(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(segments(&path));
            } else if path.extension().is_some_and(|e| e == "seg") {
                found.push(path);
            }
        }
        found
    }
}
