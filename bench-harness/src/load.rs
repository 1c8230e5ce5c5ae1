//! The load: one thread, one epoll, many connections. A request is timed from the moment it was *meant* to be sent, so
//! that under a given rate a stalled broker is charged for the requests that had to wait (no coordinated omission).
//!
//! The closed loop keeps every slot of every lane busy; the open loop sends at a rate whatever the answers
//! do. Latencies go into one HDR histogram for each thread of load; histograms are added, never averaged.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::host;
use crate::lane::Lane;

/// How long answers may stay out after the last request.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the observer is told.
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
    /// When requests are sent.
    pub pace: Pace,
    /// Load before the clock runs.
    pub warmup: Duration,
    /// The measured phase.
    pub measure: Duration,
    /// The measured phase also ends after this many bytes of batches.
    pub bytes_max: u64,
}

/// What a phase came to.
pub struct Tally {
    /// Answers.
    pub requests: u64,
    /// Records.
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
    /// Answers by error code.
    pub errors: BTreeMap<i16, u64>,
    /// Nanoseconds from the intended sending to the answer.
    pub latency: Histogram<u64>,
    /// How long the phase took.
    pub elapsed: Duration,
}

impl Tally {
    fn new() -> Result<Tally> {
        // 1 ns to 60 s, three digits: about 0.2 MB.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).context("histogram bounds")?;
        let (requests, records, bytes) = (0, 0, 0);
        Ok(Tally { requests, records, bytes, errors: BTreeMap::new(), latency, elapsed: Duration::ZERO })
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

/// Is told how a run goes. Called on the thread of the load: it must be quick.
pub trait Observer {
    /// The measured phase begins.
    fn begin(&mut self);
    /// The measured phase ends.
    fn end(&mut self);
    /// Ten times a second.
    fn tick(&mut self, phase: Phase, so_far: &Tally, elapsed: Duration);
}

/// Nobody looks.
struct Unseen;

impl Observer for Unseen {
    fn begin(&mut self) {}
    fn end(&mut self) {}
    fn tick(&mut self, _: Phase, _: &Tally, _: Duration) {}
}

struct Connection {
    stream: TcpStream,
    lane: Lane,
    /// Frames made ready, and answered.
    queued: u64,
    answered: u64,
    /// Bytes of the endless row of frames that the socket took.
    written: u64,
    /// When each slot's request was meant to be sent.
    intended: Vec<Instant>,
    /// When the open loop's next request is due.
    due: Instant,
    input: Vec<u8>,
    filled: usize,
}

/// Connects and keeps trying until `patience` is over: a broker may still be starting.
pub fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context(format!("connecting to {address}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

impl Connection {
    fn new(address: SocketAddr, lane: Lane, now: Instant) -> Result<Connection> {
        let stream = connect(address, Duration::from_secs(5))?;
        stream.set_nonblocking(true)?;
        let intended = vec![now; lane.slots()];
        let input = vec![0; (lane.answer_bytes_max() * lane.slots().min(8)).max(64 << 10)];
        let (queued, answered, written, filled) = (0, 0, 0, 0);
        Ok(Connection { stream, lane, queued, answered, written, intended, due: now, input, filled })
    }

    /// Makes ready every request that may go now.
    fn fill(&mut self, now: Instant, interval: Option<Duration>) {
        while self.queued - self.answered < self.lane.slots() as u64 {
            let meant = match interval {
                None => now,
                Some(_) if self.due > now => return,
                Some(interval) => {
                    let meant = self.due;
                    self.due += interval;
                    meant
                }
            };
            self.lane.prepare(self.queued);
            let slot = (self.queued % self.lane.slots() as u64) as usize;
            if let Some(intended) = self.intended.get_mut(slot) {
                *intended = meant;
            }
            self.queued += 1;
        }
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> Result<()> {
        let end = self.queued * self.lane.frame_bytes() as u64;
        while self.written < end {
            match self.stream.write(self.lane.outgoing(self.written, end)) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => self.written += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Reads until the socket is empty and counts every whole answer.
    fn receive(&mut self, tally: &mut Tally) -> Result<()> {
        loop {
            let room = self.input.get_mut(self.filled..).unwrap_or(&mut []);
            ensure!(!room.is_empty(), "an answer is longer than any that was asked for");
            let wanted = room.len();
            match self.stream.read(room) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => {
                    self.filled += count;
                    self.answers(tally)?;
                    // A short read emptied the socket; the next bytes raise a new edge.
                    if count < wanted {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }

    fn answers(&mut self, tally: &mut Tally) -> Result<()> {
        let now = Instant::now();
        let mut at = 0;
        while let Some((prefix, rest)) =
            self.input.get(at..self.filled).and_then(|i| i.split_first_chunk::<4>())
        {
            let length = u32::from_be_bytes(*prefix) as usize;
            ensure!(length <= self.input.len() - 4, "an answer of {length} bytes was not asked for");
            let Some(answer) = rest.get(..length) else { break };
            ensure!(self.answered < self.queued, "an answer came without a request");
            let worth = self.lane.check(self.answered, answer)?;
            let slot = (self.answered % self.lane.slots() as u64) as usize;
            let meant = self.intended.get(slot).copied().unwrap_or(now);
            tally.latency.saturating_record(now.saturating_duration_since(meant).as_nanos() as u64);
            tally.requests += 1;
            tally.records += worth.records;
            tally.bytes += worth.bytes;
            if worth.error != 0 {
                *tally.errors.entry(worth.error).or_default() += 1;
            }
            self.answered += 1;
            at += 4 + length;
        }
        if at > 0 {
            self.input.copy_within(at..self.filled, 0);
            self.filled -= at;
        }
        Ok(())
    }
}

/// The load of one thread.
pub struct Load {
    connections: Vec<Connection>,
    epoll: Epoll,
    interval: Option<Duration>,
    tally: Tally,
}

impl Load {
    /// Opens a connection for each lane.
    pub fn connect(address: SocketAddr, lanes: Vec<Lane>, pace: Pace) -> Result<Load> {
        let now = Instant::now();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interval = match pace {
            Pace::Closed => None,
            Pace::Open { rate } => {
                ensure!(rate > 0.0 && rate.is_finite(), "a rate is above zero");
                Some(Duration::from_secs_f64(lanes.len() as f64 / rate))
            }
        };
        let mut connections = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let connection = Connection::new(address, lane, now)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            epoll.add(&connection.stream, EpollEvent::new(flags, connections.len() as u64))?;
            connections.push(connection);
        }
        Ok(Load { connections, epoll, interval, tally: Tally::new()? })
    }

    /// Warms up, measures, waits for the last answers, and hands back the measured tally and the lanes.
    pub fn run(mut self, plan: &Plan, observer: &mut dyn Observer) -> Result<(Tally, Vec<Lane>)> {
        self.stagger();
        let warmup = Plan { measure: plan.warmup, bytes_max: plan.bytes_max / 4, ..*plan };
        self.phase(Phase::WarmUp, &warmup, observer)?;
        self.tally = Tally::new()?;
        observer.begin();
        self.phase(Phase::Measure, plan, observer)?;
        observer.end();
        let measured = std::mem::replace(&mut self.tally, Tally::new()?);
        self.drain()?;
        let late = self.tally.error_count();
        ensure!(late == 0, "{late} of the last requests were refused: {:?}", self.tally.errors);
        Ok((measured, self.into_lanes()))
    }

    /// Drives the load until the time or the bytes of the plan are over and the last answer is here, without a warm-up.
    /// What it came to has every answer in it. Can be called again and again.
    pub fn slice(&mut self, plan: &Plan) -> Result<Tally> {
        self.tally = Tally::new()?;
        self.phase(Phase::Measure, plan, &mut Unseen)?;
        self.drain()?;
        Ok(std::mem::replace(&mut self.tally, Tally::new()?))
    }

    /// Ends the connections.
    pub fn into_lanes(self) -> Vec<Lane> {
        self.connections.into_iter().map(|connection| connection.lane).collect()
    }

    /// Sends exactly `count` requests on each lane as fast as answers come, untimed.
    pub fn send(mut self, count: u64) -> Result<Vec<Lane>> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.connections.iter().any(|one| one.answered < count) {
            ensure!(Instant::now() < deadline, "writing the data to fetch took too long");
            let now = Instant::now();
            for connection in &mut self.connections {
                while connection.queued < count
                    && connection.queued - connection.answered < connection.lane.slots() as u64
                {
                    connection.lane.prepare(connection.queued);
                    let slot = (connection.queued % connection.lane.slots() as u64) as usize;
                    if let Some(intended) = connection.intended.get_mut(slot) {
                        *intended = now;
                    }
                    connection.queued += 1;
                }
                connection.flush()?;
            }
            self.wait(Duration::from_millis(100), false)?;
        }
        ensure!(self.tally.error_count() == 0, "writing was refused: {:?}", self.tally.errors);
        Ok(self.into_lanes())
    }

    /// Spreads the open loop's connections over one interval.
    fn stagger(&mut self) {
        let (now, count) = (Instant::now(), self.connections.len() as u32);
        let step = self.interval.unwrap_or_default() / count.max(1);
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.due = now + step * index as u32;
        }
    }

    fn phase(&mut self, phase: Phase, plan: &Plan, observer: &mut dyn Observer) -> Result<()> {
        let start = Instant::now();
        let mut tick_due = start + TICK;
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            self.tally.elapsed = elapsed;
            if elapsed >= plan.measure || self.tally.bytes >= plan.bytes_max {
                return Ok(());
            }
            ensure!(!host::interrupted(), "interrupted");
            let errors = self.tally.error_count();
            ensure!(errors < ERRORS_MAX, "too many requests were refused: {:?}", self.tally.errors);
            if now >= tick_due {
                observer.tick(phase, &self.tally, elapsed);
                tick_due = now + TICK;
            }
            let mut sleep = (plan.measure - elapsed).min(TICK);
            if self.interval.is_some() || self.tally.requests == 0 {
                for connection in &mut self.connections {
                    connection.fill(now, self.interval);
                    connection.flush()?;
                    if connection.queued - connection.answered < connection.lane.slots() as u64 {
                        sleep = sleep.min(connection.due.saturating_duration_since(now));
                    }
                }
            }
            self.wait(sleep, true)?;
        }
    }

    /// Waits for sockets, and serves them; with `refill` an answer makes room for the next request.
    fn wait(&mut self, sleep: Duration, refill: bool) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        // Below a millisecond the loop spins: a later send would be the meter's own delay.
        let timeout = EpollTimeout::try_from(sleep.as_millis().min(1000) as i32)?;
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            let Some(connection) = self.connections.get_mut(event.data() as usize) else { continue };
            let flags = event.events();
            if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                connection.receive(&mut self.tally)?;
            }
            if refill {
                connection.fill(Instant::now(), self.interval);
            }
            connection.flush()?;
        }
        Ok(())
    }

    /// Takes the answers that are still out.
    fn drain(&mut self) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        loop {
            let missing: u64 = self.connections.iter().map(|one| one.queued - one.answered).sum();
            if missing == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{missing} requests were never answered");
            self.wait(Duration::from_millis(100), false)?;
        }
    }
}
