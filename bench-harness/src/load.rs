//! The load: one thread, one epoll, many connections. A request is timed from the moment it was *meant* to be sent, so
//! that under a given rate a stalled broker is charged for the requests that had to wait (no coordinated omission).
//!
//! The closed loop keeps every slot of every lane busy, or a fixed number of requests out on lanes that take turns; the
//! open loop sends at a rate whatever the answers do. Latencies go into one HDR histogram for each thread of load;
//! histograms are added, never averaged.

mod connection;
mod whereabouts;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::host;
use crate::lane::Lane;
use crate::meter::Meter;
use connection::{Connection, connect};
use whereabouts::Whereabouts;

/// How long answers may stay out after the last request.
const DRAIN: Duration = Duration::from_secs(20);
/// The longest wait for an answer before the bounds of a phase are looked at again.
const TICK: Duration = Duration::from_millis(100);
/// A run with this many refused requests is not worth finishing.
const ERRORS_MAX: u64 = 1000;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as a slot is free: finds the peak.
    Closed,
    /// At this many requests a second over all connections, at even distances: finds the latency.
    Open {
        /// Requests a second.
        rate: f64,
    },
}

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Load before the clock runs.
    pub warmup: Duration,
    /// The measured phase.
    pub measure: Duration,
    /// The measured phase also ends after this many bytes of batches.
    pub bytes_max: u64,
}

/// Lanes that do the same.
pub struct Crew {
    /// One for each connection.
    pub lanes: Vec<Lane>,
    /// Where each of them connects; empty where all connect to the same node.
    pub addresses: Vec<SocketAddr>,
    /// The broker's shard that has to serve each of them; empty where any may.
    pub shards: Vec<usize>,
    /// When they send.
    pub pace: Pace,
    /// In the closed loop: how many requests they have out together, taking turns; none is as many as each may have.
    pub at_once: Option<usize>,
    /// Whether theirs are the requests that are counted, timed and bounded; those of others are counted beside them.
    pub drives: bool,
}

/// Requests and what was in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Answers.
    pub requests: u64,
    /// Records.
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
}

impl Flow {
    fn add(&mut self, other: Flow) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What a phase came to.
pub struct Tally {
    /// Answers to the crews that drive.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of whole batches in them.
    pub bytes: u64,
    /// What readers beside them got.
    pub read: Flow,
    /// Answers by error code, to anybody.
    pub errors: BTreeMap<i16, u64>,
    /// Nanoseconds from the intended sending to the answer, of the crews that drive.
    pub latency: Histogram<u64>,
    /// Nanoseconds from the intended sending of a batch until a reader at the log's end had it.
    pub end_to_end: Histogram<u64>,
    /// How long the phase took.
    pub elapsed: Duration,
}

impl Tally {
    fn new() -> Result<Tally> {
        // 1 ns to 60 s, three digits: about 0.2 MB.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).context("histogram bounds");
        Ok(Tally {
            requests: 0,
            records: 0,
            bytes: 0,
            read: Flow::default(),
            errors: BTreeMap::new(),
            latency: histogram()?,
            end_to_end: histogram()?,
            elapsed: Duration::ZERO,
        })
    }

    fn add(&mut self, flow: Flow) {
        self.requests += flow.requests;
        self.records += flow.records;
        self.bytes += flow.bytes;
    }

    /// Errors of all codes.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the clock runs.
    WarmUp,
    /// Counted.
    Measure,
}

/// Is told where the measured phase begins and ends, on the thread of the load. What happens in between is read from
/// the load's meter.
pub trait Observer {
    /// The measured phase begins.
    fn begin(&mut self);
    /// The measured phase ends.
    fn end(&mut self);
}

/// The load of one thread.
pub struct Load {
    connections: Vec<Connection>,
    epoll: Epoll,
    /// When to serve which connection whatever its socket says.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    rotas: Vec<Rota>,
    tally: Tally,
    meter: Arc<Meter>,
}

/// Connections that take turns: an answer to one of them allows a request to the next.
struct Rota {
    /// The connections, by number.
    members: Range<usize>,
    /// Whose turn it is.
    next: usize,
}

impl Rota {
    fn take_turn(&mut self) -> usize {
        let turn = self.next;
        self.next = if turn + 1 < self.members.end { turn + 1 } else { self.members.start };
        turn
    }
}

/// Which requests may still be sent.
#[derive(Clone, Copy, PartialEq)]
enum Sending {
    /// All that the pace allows.
    All,
    /// So many on each connection.
    Only(u64),
    /// Only those of timed readers that have not seen all that was sent.
    Remains,
}

impl Load {
    /// Opens a connection for each lane. The connections of an open loop are spread over one interval.
    pub fn connect(address: SocketAddr, crews: Vec<Crew>) -> Result<Load> {
        raise_file_limit(crews.iter().map(|crew| crew.lanes.len() as u64).sum())?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (mut connections, mut rotas, meter) = (Vec::<Connection>::new(), Vec::new(), Meter::new());
        let mut whereabouts = Whereabouts::new(address);
        for crew in crews {
            let count = crew.lanes.len().max(1) as u32;
            let interval = match crew.pace {
                Pace::Closed => None,
                Pace::Open { rate } => {
                    ensure!(rate > 0.0 && rate.is_finite(), "a rate is above zero");
                    Some(Duration::from_secs_f64(f64::from(count) / rate))
                }
            };
            let (now, step, first) =
                (Instant::now(), interval.unwrap_or_default() / count, connections.len());
            let at_once = crew.at_once.filter(|_| interval.is_none());
            let rota = at_once.map(|_| rotas.len());
            for (index, lane) in crew.lanes.into_iter().enumerate() {
                let due = now + step * index as u32;
                let stream = match crew.shards.get(index) {
                    Some(shard) => whereabouts.connect(*shard)?,
                    None => {
                        let address = crew.addresses.get(index).copied().unwrap_or(address);
                        connect(address, Duration::from_secs(5))?
                    }
                };
                let mut connection =
                    Connection::new(stream, lane, crew.drives, interval, due, Arc::clone(&meter))?;
                connection.rota = rota;
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                epoll.add(&connection.stream, EpollEvent::new(flags, connections.len() as u64))?;
                connections.push(connection);
            }
            if let Some(at_once) = at_once {
                let mut rota = Rota { members: first..connections.len(), next: first };
                connections.iter_mut().skip(first).for_each(|one| one.allowed = 0);
                for _ in 0..at_once {
                    let turn = rota.take_turn();
                    connections.get_mut(turn).into_iter().for_each(|one| one.allowed += 1);
                }
                rotas.push(rota);
            }
        }
        // However long connecting took, nothing is late when the load begins.
        let start = Instant::now();
        connections.iter_mut().for_each(|one| one.due = one.due.max(start));
        Ok(Load { connections, epoll, timers: BinaryHeap::new(), rotas, tally: Tally::new()?, meter })
    }

    /// What is counted while the load runs, for another thread to read.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Warms up, measures, waits for the last answers, and hands back the measured tally. The connections stay.
    pub fn run(&mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<Tally> {
        let warmup = Plan { measure: plan.warmup, bytes_max: plan.bytes_max / 4, ..*plan };
        self.serve_all(Sending::All)?;
        self.phase(Phase::WarmUp, &warmup)?;
        self.tally = Tally::new()?;
        observer.begin();
        self.phase(Phase::Measure, plan)?;
        observer.end();
        let measured = std::mem::replace(&mut self.tally, Tally::new()?);
        self.drain()?;
        let late = self.tally.error_count();
        ensure!(late == 0, "{late} of the last requests were refused: {:?}", self.tally.errors);
        Ok(measured)
    }

    /// Drives the load until the time or the bytes of the plan are over and the last answer is here, without a warm-up.
    /// What it came to has every answer in it. Can be called again and again.
    pub fn slice(&mut self, plan: &Plan) -> Result<Tally> {
        self.tally = Tally::new()?;
        self.serve_all(Sending::All)?;
        self.phase(Phase::Measure, plan)?;
        self.drain()?;
        Ok(std::mem::replace(&mut self.tally, Tally::new()?))
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Ends the connections.
    pub fn into_lanes(self) -> Vec<Lane> {
        self.connections.into_iter().map(|connection| connection.lane).collect()
    }

    /// Sends exactly `count` requests on each lane as fast as answers come, untimed.
    pub fn send(mut self, count: u64) -> Result<Vec<Lane>> {
        let deadline = Instant::now() + Duration::from_secs(120);
        self.serve_all(Sending::Only(count))?;
        while self.connections.iter().any(|one| one.answered < count) {
            ensure!(Instant::now() < deadline, "writing the data to fetch took too long");
            ensure!(!host::interrupted(), "interrupted");
            self.wait(TICK, Sending::Only(count))?;
        }
        ensure!(self.tally.error_count() == 0, "writing was refused: {:?}", self.tally.errors);
        Ok(self.into_lanes())
    }

    fn phase(&mut self, phase: Phase, plan: &Plan) -> Result<()> {
        let start = Instant::now();
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            self.tally.elapsed = elapsed;
            // A phase without one answer would say nothing: it lasts until there is one, and the result says how long.
            let over = elapsed >= plan.measure
                && match phase {
                    Phase::WarmUp => elapsed >= plan.measure + DRAIN || self.has_gone_round(),
                    Phase::Measure => self.has_seen_all_kinds(),
                };
            if over || self.tally.bytes >= plan.bytes_max {
                return Ok(());
            }
            let patient = phase == Phase::WarmUp || elapsed < plan.measure + DRAIN;
            ensure!(patient, "not one request was answered");
            ensure!(!host::interrupted(), "interrupted");
            let errors = self.tally.error_count();
            ensure!(errors < ERRORS_MAX, "too many requests were refused: {:?}", self.tally.errors);
            while let Some(Reverse((due, index))) = self.timers.peek().copied()
                && due <= now
            {
                self.timers.pop();
                self.disarm(index);
                self.serve(index, Sending::All)?;
            }
            let next =
                self.timers.peek().map_or(TICK, |Reverse((due, _))| due.saturating_duration_since(now));
            self.wait((plan.measure.saturating_sub(elapsed)).min(TICK).min(next), Sending::All)?;
        }
    }

    /// Whether every request that differs was answered once: the first write to a partition costs more than others.
    fn has_gone_round(&self) -> bool {
        self.connections.iter().all(|connection| connection.answered >= connection.lane.slot_count() as u64)
    }

    /// Whether a request was answered, and where readers are timed, a batch was read.
    fn has_seen_all_kinds(&self) -> bool {
        let timed = self.connections.iter().any(|connection| connection.lane.is_timed());
        self.tally.requests > 0 && (!timed || !self.tally.end_to_end.is_empty())
    }

    fn disarm(&mut self, index: usize) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.armed = false;
        }
    }

    fn serve_all(&mut self, sending: Sending) -> Result<()> {
        (0..self.connections.len()).try_for_each(|index| self.serve(index, sending))
    }

    /// Sends what a connection may send, and arms its timer where no event will come.
    fn serve(&mut self, index: usize, sending: Sending) -> Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        let count = match sending {
            Sending::All => u64::MAX,
            Sending::Only(count) => count,
            Sending::Remains if connection.lane.is_behind() => u64::MAX,
            Sending::Remains => connection.queued,
        };
        let again = connection.serve(Instant::now(), count.min(connection.allowed), &mut self.tally)?;
        if let Some(due) = again.filter(|_| !connection.armed) {
            connection.armed = true;
            self.timers.push(Reverse((due, index)));
        }
        Ok(())
    }

    /// Waits for sockets, and serves them.
    fn wait(&mut self, sleep: Duration, sending: Sending) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        // Below a millisecond the loop spins: a later send would be the meter's own delay.
        let timeout = EpollTimeout::try_from(sleep.as_millis().min(1000) as i32)?;
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            let index = event.data() as usize;
            let flags = event.events();
            let (mut answers, mut rota) = (0, None);
            if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
                && let Some(connection) = self.connections.get_mut(index)
            {
                let before = connection.answered;
                connection.receive(&mut self.tally)?;
                (answers, rota) = (connection.answered - before, connection.rota);
            }
            self.serve(index, sending)?;
            for _ in 0..answers {
                self.next_turn(rota, sending)?;
            }
        }
        Ok(())
    }

    /// Allows a request to the connection whose turn it is.
    fn next_turn(&mut self, rota: Option<usize>, sending: Sending) -> Result<()> {
        let Some(rota) = rota.and_then(|rota| self.rotas.get_mut(rota)) else { return Ok(()) };
        let turn = rota.take_turn();
        if let Some(connection) = self.connections.get_mut(turn) {
            connection.allowed += 1;
        }
        self.serve(turn, sending)
    }

    /// Takes the answers that are still out, and lets timed readers see all that was sent.
    fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        loop {
            let missing: u64 = self.connections.iter().map(|one| one.queued - one.answered).sum();
            let behind = self.connections.iter().filter(|one| one.lane.is_behind()).count();
            if missing == 0 && behind == 0 {
                return Ok(());
            }
            let waiting = Instant::now() < deadline;
            ensure!(waiting, "{missing} requests were never answered; {behind} readers have not seen all");
            self.serve_all(Sending::Remains)?;
            self.wait(TICK, Sending::Remains)?;
        }
    }
}

/// Each connection needs a descriptor; the usual limit of 1,024 is a soft one.
fn raise_file_limit(connections: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = connections + 256;
    if soft < wanted {
        ensure!(wanted <= hard, "{connections} connections need more descriptors than the {hard} allowed");
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raising the limit of open files")?;
    }
    Ok(())
}
