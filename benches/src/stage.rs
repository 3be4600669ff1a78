//! Everything that stands during a run: origin, peers, house; and one measurement on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::ends::client::{Order, Outcome};
use crate::ends::encryption::{CertificateFiles, Encryption};
use crate::ends::origin;
use crate::failure::{Failure, Trying};
use crate::peers::haproxy::Haproxy;
use crate::peers::house::House;
use crate::peers::{Peer, Standing, weir};
use crate::process::{CpuMark, Lines, Process, at_rest, on_core, resident};
use crate::syscalls::{Calls, Tracer};
use crate::workload::Workload;

/// The core of origin, client and house.
pub const ENDS_CORE: usize = 0;
/// The proxy's core, where there are two.
const PROXY_CORE: usize = 1;
/// With TLS a packet must fit one record.
const TLS_PACKET_MAX: u16 = 16383;
/// How long a proxy may work on behind the last answer: what it then does is part of the price.
const PROXY_REST: Duration = Duration::from_secs(20);
/// How long the house may: its work would be the next measurement's noise.
const HOUSE_REST: Duration = Duration::from_secs(60);

/// One measurement of one peer.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What the client saw.
    pub outcome: Outcome,
    /// CPU time of the proxy from `go` until it was at rest, seconds.
    pub cpu: f64,
    /// Share of its core that the proxy used while the client ran; 0 to 1.
    pub busy: f64,
    /// Resident memory of the proxy that came with the sessions, bytes per session.
    pub resident: f64,
}

/// The programs of proxies: both ways of Weir are one, told apart by who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Haproxy,
    HaproxySplice,
    Weir,
}

/// See the module.
pub struct Stage {
    directory: TempDir,
    certificate: CertificateFiles,
    /// Dropped before the origin's process: its standard input ends with it.
    _origin_lines: Lines,
    origin: Process,
    origins: Vec<(Encryption, SocketAddr)>,
    /// HAProxy, once it is asked for.
    haproxy: Option<Haproxy>,
    house: Option<House>,
    proxies: BTreeMap<(Program, Encryption), (Process, SocketAddr)>,
    /// Rows delivered through Weir, by login.
    delivered: BTreeMap<&'static str, u64>,
    /// Waits for rest before and behind each measurement, as figures need it and counts do not.
    patient: bool,
}

impl Stage {
    /// With an origin and nothing else yet.
    ///
    /// # Errors
    /// It does not come up.
    pub fn set(patient: bool) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("weir-bench-").tempdir();
        let directory = directory.trying("a temporary directory")?;
        let certificate = CertificateFiles::make(directory.path())?;
        let text = serde_json::to_string(&certificate).trying("certificate")?;
        let mut origin = end(ENDS_CORE, &["end-server", &text], directory.path())?;
        let mut lines = origin.lines()?;
        let origins = origin::addresses(&lines.hear()?)?;
        Ok(Self {
            directory,
            certificate,
            _origin_lines: lines,
            origin,
            origins,
            haproxy: None,
            house: None,
            proxies: BTreeMap::new(),
            delivered: BTreeMap::new(),
            patient,
        })
    }

    /// What HAProxy calls itself, if it was needed.
    #[must_use]
    pub fn haproxy_version(&self) -> &str {
        self.haproxy.as_ref().map_or("", |haproxy| &haproxy.version)
    }

    /// Stops the proxies: those that come next have seen no session.
    ///
    /// # Errors
    /// One does not end in order.
    pub fn clear(&mut self) -> Result<(), Failure> {
        for (_, (process, _)) in std::mem::take(&mut self.proxies) {
            process.stop()?;
        }
        Ok(())
    }

    /// Where clients of a peer connect; started when it is not there yet.
    ///
    /// # Errors
    /// It does not come up.
    pub fn peer(&mut self, peer: Peer, encryption: Encryption) -> Result<Standing, Failure> {
        let origin = self
            .origins
            .iter()
            .find(|(of, _)| *of == encryption)
            .map(|(_, at)| *at);
        let origin = origin.trying("no origin")?;
        let program = match peer {
            Peer::Direct => {
                return Ok(Standing {
                    address: origin,
                    process: None,
                });
            }
            Peer::Haproxy => Program::Haproxy,
            Peer::HaproxySplice => Program::HaproxySplice,
            Peer::Observing | Peer::Enforcing => Program::Weir,
        };
        if !self.proxies.contains_key(&(program, encryption)) {
            let started = self.start(program, encryption, origin)?;
            self.proxies.insert((program, encryption), started);
        }
        let started = self.proxies.get(&(program, encryption)).trying("no proxy")?;
        Ok(Standing {
            address: started.1,
            process: Some(started.0.id()),
        })
    }

    fn start(
        &mut self,
        program: Program,
        encryption: Encryption,
        origin: SocketAddr,
    ) -> Result<(Process, SocketAddr), Failure> {
        let directory = self.directory.path();
        if program == Program::Weir {
            let house = match self.house.take() {
                Some(house) => house,
                None => House::start(ENDS_CORE, directory)?,
            };
            let house = self.house.insert(house);
            return weir::start(
                proxy_core(),
                encryption,
                &self.certificate,
                origin,
                house,
                directory,
            );
        }
        let haproxy = match self.haproxy.take() {
            Some(haproxy) => haproxy,
            None => Haproxy::find()?,
        };
        let haproxy = self.haproxy.insert(haproxy);
        let splice = program == Program::HaproxySplice;
        haproxy.start(
            proxy_core(),
            splice,
            encryption,
            &self.certificate,
            origin,
            directory,
        )
    }

    /// Runs a workload through a peer once.
    ///
    /// # Errors
    /// A connection breaks, or an answer is not the right one.
    pub fn measure(
        &mut self,
        peer: Peer,
        encryption: Encryption,
        workload: &Workload,
    ) -> Result<Sample, Failure> {
        let (sample, _) = self.once(peer, encryption, workload, false)?;
        Ok(sample)
    }

    /// The same with its system calls counted, which takes its time; `None` where that cannot be done.
    ///
    /// # Errors
    /// As above.
    pub fn trace(
        &mut self,
        peer: Peer,
        encryption: Encryption,
        workload: &Workload,
    ) -> Result<Option<(Outcome, Calls)>, Failure> {
        let (sample, calls) = self.once(peer, encryption, workload, true)?;
        Ok(calls.map(|calls| (sample.outcome, calls)))
    }

    fn once(
        &mut self,
        peer: Peer,
        encryption: Encryption,
        workload: &Workload,
        traced: bool,
    ) -> Result<(Sample, Option<Calls>), Failure> {
        let standing = self.peer(peer, encryption)?;
        let core = if workload.one_core {
            proxy_core()
        } else {
            ENDS_CORE
        };
        self.origin.move_to(core)?;
        let order = Order {
            to: standing.address,
            encryption,
            certificate: self.certificate.clone(),
            login: peer.login().to_owned(),
            packet_size: match encryption {
                Encryption::Strict => workload.packet_size.min(TLS_PACKET_MAX),
                _ => workload.packet_size,
            },
            connections: workload.connections,
            idle: workload.idle,
            asks: workload.asks.clone(),
            until: workload.until,
            churn: workload.churn,
        };
        let ran = self.run(core, standing.process, &order, traced).trying(format!(
            "{} through {}, {}",
            workload.name,
            peer.name(),
            encryption.name()
        ))?;
        if peer.is_weir() {
            let outcome = &ran.0.outcome;
            *self.delivered.entry(peer.login()).or_default() += outcome.rows + outcome.before.1;
            self.rest()?;
        }
        Ok(ran)
    }

    fn run(
        &self,
        core: usize,
        proxy: Option<u32>,
        order: &Order,
        traced: bool,
    ) -> Result<(Sample, Option<Calls>), Failure> {
        let sessions = (order.idle + order.connections) as f64;
        let empty = proxy.map_or(0, resident);
        let text = serde_json::to_string(order).trying("order")?;
        let mut client = end(core, &["end-client", &text], self.directory.path())?;
        let mut lines = client.lines()?;
        let gone = |client: &Process| Failure(format!("the client failed: {}", client.last_words()));
        if lines.hear()? != "ready" {
            return Err(gone(&client));
        }
        self.proxy_rests(proxy)?;
        let full = proxy.map_or(0, resident);
        let tracer = match proxy.filter(|_| traced) {
            Some(proxy) => Tracer::attach(proxy, self.directory.path())?,
            None => None,
        };
        let began = proxy.map(CpuMark::of);
        lines.tell("go")?;
        let line = lines.hear()?;
        let busy = began.as_ref().map_or(Duration::ZERO, CpuMark::elapsed);
        let outcome: Outcome = serde_json::from_str(&line).map_err(|_| gone(&client))?;
        self.proxy_rests(proxy)?;
        let cpu = began.as_ref().map_or(Duration::ZERO, CpuMark::elapsed);
        let calls = tracer.map(Tracer::detach).transpose()?;
        lines.tell("end")?;
        drop(lines);
        client.wait()?;
        let sample = Sample {
            busy: busy.as_secs_f64() / (outcome.nanos.max(1) as f64 / 1e9),
            cpu: cpu.as_secs_f64(),
            resident: full.saturating_sub(empty) as f64 / sessions,
            outcome,
        };
        Ok((sample, calls))
    }

    fn proxy_rests(&self, proxy: Option<u32>) -> Result<(), Failure> {
        match proxy.filter(|_| self.patient) {
            Some(proxy) if !at_rest(&[proxy], PROXY_REST) => Err(Failure(format!(
                "the proxy is still at work {PROXY_REST:?} behind the last answer"
            ))),
            _ => Ok(()),
        }
    }

    /// Waits until the house has booked what it has.
    fn rest(&self) -> Result<(), Failure> {
        let Some(house) = self.house.as_ref().filter(|_| self.patient) else {
            return Ok(());
        };
        if at_rest(&house.processes(), HOUSE_REST) {
            return Ok(());
        }
        Err(Failure(format!(
            "wallet and billing are still at work {HOUSE_REST:?} behind a measurement"
        )))
    }

    /// Checks that every row that Weir delivered was charged, and none besides.
    ///
    /// # Errors
    /// One was not, or the books do not come to rest.
    pub fn audit(&self) -> Result<u64, Failure> {
        let mut all = 0;
        let Some(house) = &self.house else {
            return Ok(0);
        };
        for (login, delivered) in &self.delivered {
            let charged = house.charged_rows(login)?;
            if charged != *delivered {
                return Err(Failure(format!(
                    "{login}: {delivered} rows were delivered and {charged} charged"
                )));
            }
            all += delivered;
        }
        Ok(all)
    }
}

/// One core is enough for counts.
fn proxy_core() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    PROXY_CORE.min(cores - 1)
}

/// One of the ends, which is this program again.
fn end(core: usize, arguments: &[&str], directory: &Path) -> Result<Process, Failure> {
    let own = std::env::current_exe().trying("this program's path")?;
    let mut command = on_core(core, &own);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    Process::start(arguments.first().unwrap_or(&"end"), command, directory)
}
