//! The boundary between the service and a database driver that may hang or panic on what a server sends. The driver lives on a
//! thread of its own, which owns the one connection and takes commands from a bounded channel; each command has a deadline. On a
//! time-out or an error the connection is dropped and made anew with a bounded backoff. A thread that panics or spins is left
//! behind and another one is started: the service sees an error within the deadline, never the panic or the hang.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

/// Commands that wait for the thread; a caller beyond them waits to enter, within its deadline.
const COMMANDS_MAX: usize = 256;
/// From a call to its answer, the wait for other commands and for a connection included. Two below the settler's patience.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(8);
/// How much later than its deadline a command may be answered before its thread counts as stuck.
const GRACE: Duration = Duration::from_millis(500);
/// A connection that was idle for this long is closed rather than trusted: firewalls forget it without a word.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The first pause after a failure; each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a server that is there again is used this much later at most.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Threads at once, stuck ones included. Past it nothing is asked until one of them ends.
const THREADS_MAX: usize = 4;

/// Why a command brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// No connection, no answer in time, or a driver that broke. What was asked may have been done.
    #[error("{0}")]
    Away(String),
    /// The server's answer is an error; nothing was done.
    #[error("error {number}: {message}")]
    Server {
        /// Its number.
        number: u32,
        /// Its text.
        message: String,
    },
    /// The server's certificate is not trusted.
    #[error("{0}")]
    Certificate(String),
}

/// A driver: connects, and runs commands on its connection. Called on the link's thread only; may hang and may panic.
pub(super) trait Driver: Clone + Send + 'static {
    type Connection;
    type Command: Send + 'static;
    type Answer: Send + 'static;
    async fn connect(&self) -> Result<Self::Connection, LinkError>;
    async fn run(
        connection: &mut Self::Connection,
        command: Self::Command,
    ) -> Result<Self::Answer, LinkError>;
}

enum Job<D: Driver> {
    Run {
        command: D::Command,
        by: Instant,
        answer: oneshot::Sender<Result<D::Answer, LinkError>>,
    },
    /// Drops the connection.
    Lose,
}

/// The service's side.
pub(super) struct Link<D: Driver> {
    driver: D,
    deadline: Duration,
    thread: Mutex<Place<D>>,
    /// Threads that have not ended, stuck ones included.
    alive: Arc<AtomicUsize>,
}

struct Place<D: Driver> {
    jobs: Option<mpsc::Sender<Job<D>>>,
    /// Which thread it is: a caller that saw an earlier one break must not end this one.
    number: u64,
    pause: Pause,
}

impl<D: Driver> Link<D> {
    pub(super) fn new(driver: D, deadline: Duration) -> Self {
        Self {
            driver,
            deadline,
            thread: Mutex::new(Place {
                jobs: None,
                number: 0,
                pause: Pause::default(),
            }),
            alive: Arc::default(),
        }
    }

    /// Runs a command within the deadline.
    pub(super) async fn run(&self, command: D::Command) -> Result<D::Answer, LinkError> {
        let by = Instant::now() + self.deadline;
        let late = || LinkError::Away(format!("no answer within {:?}", self.deadline));
        let (number, jobs) = self.jobs()?;
        let (answer, answered) = oneshot::channel();
        let sent = timeout_at(by, jobs.send(Job::Run { command, by, answer })).await;
        if let Ok(Err(_ended)) = sent {
            self.leave(number);
            return Err(broken());
        }
        sent.map_err(|_| late())?.map_err(|_| broken())?;
        match timeout_at(by + GRACE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => {
                self.leave(number);
                Err(broken())
            }
            Err(_) => {
                tracing::error!("the SQL Server driver hangs; its thread is left behind");
                self.leave(number);
                Err(late())
            }
        }
    }

    /// Drops the connection, as a network would.
    pub(super) async fn lose(&self) -> Result<(), LinkError> {
        let (_, jobs) = self.jobs()?;
        let by = Instant::now() + self.deadline;
        let sent = timeout_at(by, jobs.send(Job::Lose)).await;
        sent.map_err(|_| LinkError::Away("the queue is full".to_owned()))?
            .map_err(|_| broken())
    }

    /// The thread's channel; starts a thread if there is none.
    fn jobs(&self) -> Result<(u64, mpsc::Sender<Job<D>>), LinkError> {
        let mut place = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = &place.jobs {
            return Ok((place.number, jobs.clone()));
        }
        place.pause.over()?;
        if self.alive.load(Ordering::SeqCst) >= THREADS_MAX {
            let text =
                format!("{THREADS_MAX} driver threads hang: restart the service once the server behaves");
            return Err(LinkError::Away(text));
        }
        let (jobs, queue) = mpsc::channel(COMMANDS_MAX);
        let (driver, alive) = (self.driver.clone(), Alive::new(&self.alive));
        std::thread::Builder::new()
            .name("sql-server".to_owned())
            .spawn(move || {
                let _alive = alive;
                work(driver, queue);
            })
            .map_err(|e| LinkError::Away(format!("no thread: {e}")))?;
        place.number += 1;
        place.jobs = Some(jobs.clone());
        Ok((place.number, jobs))
    }

    /// The thread of this number panicked or hangs: the next call starts another one, after a pause.
    fn leave(&self, number: u64) {
        let mut place = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if place.number == number && place.jobs.take().is_some() {
            place.pause.failed(broken());
        }
    }
}

fn broken() -> LinkError {
    LinkError::Away("the SQL Server driver broke and is started again".to_owned())
}

/// Counts a thread for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long to let a server alone that failed: meanwhile callers are told at once.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<(Instant, LinkError)>,
}

impl Pause {
    fn failed(&mut self, cause: LinkError) {
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.failures.min(10))
            .min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some((Instant::now() + pause, cause));
    }

    /// An error with the cause as long as the pause lasts.
    fn over(&self) -> Result<(), LinkError> {
        match &self.until {
            Some((until, cause)) if Instant::now() < *until => Err(cause.clone()),
            _ => Ok(()),
        }
    }
}

/// The thread: a runtime of its own, so that a driver that spins keeps no other task from running.
fn work<D: Driver>(driver: D, queue: mpsc::Receiver<Job<D>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!("no runtime for SQL Server: {e}");
            return;
        }
    };
    runtime.block_on(serve(driver, queue));
    // A name look-up that hangs must not keep the thread.
    runtime.shutdown_background();
}

async fn serve<D: Driver>(driver: D, mut queue: mpsc::Receiver<Job<D>>) {
    let mut connection: Option<D::Connection> = None;
    let mut pause = Pause::default();
    loop {
        let job = match timeout(IDLE_MAX, queue.recv()).await {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(_) => {
                connection = None;
                continue;
            }
        };
        let Job::Run { command, by, answer } = job else {
            connection = None;
            continue;
        };
        // A caller that has gone needs no answer, and its command must not begin now.
        if answer.is_closed() || Instant::now() >= by {
            continue;
        }
        let result = one(&driver, &mut connection, &mut pause, command, by).await;
        if result.is_err() {
            connection = None;
        }
        let _ = answer.send(result);
    }
}

/// One command on the connection, which is made if there is none.
async fn one<D: Driver>(
    driver: &D,
    connection: &mut Option<D::Connection>,
    pause: &mut Pause,
    command: D::Command,
    by: Instant,
) -> Result<D::Answer, LinkError> {
    if connection.is_none() {
        pause.over()?;
        let late = || LinkError::Away("no connection within the deadline".to_owned());
        let made = timeout_at(by, driver.connect()).await.map_err(|_| late());
        match made.and_then(|made| made) {
            Ok(made) => {
                *pause = Pause::default();
                *connection = Some(made);
            }
            Err(e) => {
                pause.failed(e.clone());
                return Err(e);
            }
        }
    }
    let Some(connection) = connection else {
        return Err(broken());
    };
    let late = || LinkError::Away("no answer within the deadline".to_owned());
    timeout_at(by, D::run(connection, command))
        .await
        .map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use super::*;

    /// Does what the command says.
    #[derive(Clone, Default)]
    struct Scripted {
        connects: Arc<AtomicU32>,
        refuses: Arc<AtomicBool>,
        released: Arc<AtomicBool>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Told {
        Answer,
        Fail,
        Hang,
        Panic,
        Spin,
    }

    impl Driver for Scripted {
        type Connection = Self;
        type Command = Told;
        type Answer = u32;

        async fn connect(&self) -> Result<Self, LinkError> {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(LinkError::Away("refused".to_owned()));
            }
            self.connects.fetch_add(1, Ordering::SeqCst);
            Ok(self.clone())
        }

        async fn run(connection: &mut Self, command: Told) -> Result<u32, LinkError> {
            match command {
                Told::Answer => Ok(connection.connects.load(Ordering::SeqCst)),
                Told::Fail => Err(LinkError::Away("reset".to_owned())),
                Told::Hang => std::future::pending().await,
                Told::Panic => panic!("scripted: the driver panics"),
                Told::Spin => {
                    while !connection.released.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    Ok(0)
                }
            }
        }
    }

    const SHORT: Duration = Duration::from_millis(60);

    /// Asks until the pause after a failure is over.
    async fn answered(link: &Link<Scripted>) -> u32 {
        let by = Instant::now() + Duration::from_secs(20);
        loop {
            match link.run(Told::Answer).await {
                Ok(n) => return n,
                Err(e) => assert!(Instant::now() < by, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn one_connection_serves_until_an_error_or_a_hang_drops_it() {
        let link = Link::new(Scripted::default(), SHORT);
        assert_eq!(link.run(Told::Answer).await, Ok(1));
        assert_eq!(link.run(Told::Answer).await, Ok(1));
        assert!(link.run(Told::Fail).await.is_err());
        assert_eq!(link.run(Told::Answer).await, Ok(2));
        assert!(link.run(Told::Hang).await.is_err());
        assert_eq!(link.run(Told::Answer).await, Ok(3));
        link.lose().await.unwrap();
        assert_eq!(link.run(Told::Answer).await, Ok(4));
        assert_eq!(link.alive.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_call_is_answered() {
        let link = Link::new(Scripted::default(), Duration::from_secs(5));
        for _ in 0..3 {
            assert_eq!(answered_after(&link, Told::Panic).await, Err(broken()));
        }
        answered(&link).await;
    }

    async fn answered_after(link: &Link<Scripted>, told: Told) -> Result<u32, LinkError> {
        answered(link).await;
        link.run(told).await
    }

    #[tokio::test]
    async fn a_driver_that_spins_is_left_behind_and_their_number_is_bounded() {
        let driver = Scripted::default();
        let link = Link::new(driver.clone(), SHORT);
        for _ in 0..THREADS_MAX {
            assert!(answered_after(&link, Told::Spin).await.is_err());
        }
        // The pause is over at some time, and then there is still no thread to be had.
        let by = Instant::now() + Duration::from_secs(20);
        loop {
            let error = link.run(Told::Answer).await.unwrap_err().to_string();
            if error.contains("threads hang") {
                break;
            }
            assert!(Instant::now() < by, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        driver.released.store(true, Ordering::SeqCst);
        answered(&link).await;
    }

    #[tokio::test]
    async fn a_server_that_refuses_is_let_alone_between_attempts() {
        let driver = Scripted::default();
        driver.refuses.store(true, Ordering::SeqCst);
        let link = Link::new(driver.clone(), Duration::from_secs(5));
        for _ in 0..50 {
            let refused = link.run(Told::Answer).await;
            assert_eq!(refused, Err(LinkError::Away("refused".to_owned())));
        }
        driver.refuses.store(false, Ordering::SeqCst);
        assert_eq!(answered(&link).await, 1);
    }
}
