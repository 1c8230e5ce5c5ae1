//! One connection of the load: a lane, its socket, and when each of its requests was meant to be sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Flow, Tally};
use crate::lane::{Lane, Worth};
use crate::meter::{Answer, Meter};

/// What a socket may take of requests without answers before the others are served.
const SILENT_ROUNDS: usize = 16;

/// The least that a connection has room for of answers; with ten thousand connections it counts.
const INPUT_BYTES_MIN: usize = 4 << 10;

/// One connection.
pub struct Connection {
    pub(super) stream: TcpStream,
    pub(super) lane: Lane,
    /// Whether its requests are those that are counted and whose latency is told.
    drives: bool,
    /// The time between two requests in the open loop.
    interval: Option<Duration>,
    /// Frames made ready, and answered.
    pub(super) queued: u64,
    pub(super) answered: u64,
    /// Frames that may be made ready: all there ever are, or as many as had their turn.
    pub(super) allowed: u64,
    /// The rota that it takes its turns in.
    pub(super) rota: Option<usize>,
    /// Bytes of the endless row of frames that the socket took.
    written: u64,
    /// When each unanswered request was meant to be sent.
    intended: Vec<Instant>,
    /// When the open loop's next request is due.
    pub(super) due: Instant,
    /// Whether the load wakes this connection at `due`.
    pub(super) armed: bool,
    input: Vec<u8>,
    filled: usize,
    meter: Arc<Meter>,
    /// What of its lag the meter knows.
    lag_records: i64,
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
    pub(super) fn new(
        stream: TcpStream,
        lane: Lane,
        drives: bool,
        interval: Option<Duration>,
        due: Instant,
        meter: Arc<Meter>,
    ) -> Result<Connection> {
        stream.set_nonblocking(true)?;
        let intended = vec![due; lane.in_flight()];
        if lane.lag_records().is_some() {
            // From here on there is a lag, and it is none.
            meter.lag_changed(0);
        }
        let input = vec![0; (lane.answer_bytes_max() * lane.in_flight().min(8)).max(INPUT_BYTES_MIN)];
        Ok(Connection {
            stream,
            lane,
            drives,
            interval,
            queued: 0,
            answered: 0,
            allowed: u64::MAX,
            rota: None,
            written: 0,
            intended,
            due,
            armed: false,
            input,
            filled: 0,
            meter,
            lag_records: 0,
        })
    }

    /// Whether another request may go before an answer comes.
    pub(super) fn has_room(&self) -> bool {
        self.queued - self.answered < self.lane.in_flight() as u64
    }

    /// Sends every request that may go now, of no more than `count` in all. Returns when to come again, where that is
    /// not when an answer comes or the socket has room.
    pub(super) fn serve(&mut self, now: Instant, count: u64, tally: &mut Tally) -> Result<Option<Instant>> {
        for _ in 0..SILENT_ROUNDS {
            let before = self.answered;
            while self.has_room() && self.queued < count {
                let meant = match self.interval {
                    None => now,
                    Some(_) if self.due > now => break,
                    Some(interval) => {
                        let meant = self.due;
                        self.due += interval;
                        meant
                    }
                };
                self.queue(meant);
            }
            self.flush(tally)?;
            // Only requests without answers are done with already.
            if self.answered == before {
                break;
            }
        }
        let more = self.has_room() && self.queued < count;
        Ok(more.then_some(self.due).filter(|_| self.interval.is_some() || self.lane.is_silent()))
    }

    fn queue(&mut self, meant: Instant) {
        self.lane.prepare(self.queued, meant);
        let slot = (self.queued % self.lane.in_flight() as u64) as usize;
        if let Some(intended) = self.intended.get_mut(slot) {
            *intended = meant;
        }
        self.queued += 1;
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self, tally: &mut Tally) -> Result<()> {
        let end = self.lane.position(self.queued);
        while self.written < end {
            match self.stream.write(self.lane.outgoing(self.written, end)) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => self.written += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        while self.lane.is_silent()
            && self.answered < self.queued
            && self.lane.position(self.answered + 1) <= self.written
        {
            let worth = self.lane.assume(self.answered);
            self.count(worth, Instant::now(), tally);
        }
        Ok(())
    }

    /// Reads until the socket is empty and counts every whole answer.
    pub(super) fn receive(&mut self, tally: &mut Tally) -> Result<()> {
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
            let (end_to_end, meter) = (&mut tally.end_to_end, &self.meter);
            let worth = self.lane.check(self.answered, answer, now, |took| {
                end_to_end.saturating_record(took.as_nanos() as u64);
                meter.reached(took);
            })?;
            self.count(worth, now, tally);
            at += 4 + length;
        }
        if at > 0 {
            self.input.copy_within(at..self.filled, 0);
            self.filled -= at;
        }
        Ok(())
    }

    /// Counts the oldest unanswered request as answered.
    fn count(&mut self, worth: Worth, now: Instant, tally: &mut Tally) {
        let slot = (self.answered % self.lane.in_flight() as u64) as usize;
        let meant = self.intended.get(slot).copied().unwrap_or(now);
        let flow = Flow { requests: 1, records: worth.records, bytes: worth.bytes };
        let after = now.saturating_duration_since(meant);
        if self.drives {
            tally.latency.saturating_record(after.as_nanos() as u64);
            tally.add(flow);
        } else {
            tally.read.add(flow);
        }
        self.meter.count(Answer {
            after: self.drives.then_some(after),
            consumed: self.lane.consumes(),
            records: worth.records,
            bytes: worth.bytes,
            refused: worth.error != 0,
        });
        if let Some(lag) = self.lane.lag_records() {
            self.meter.lag_changed(lag - self.lag_records);
            self.lag_records = lag;
        }
        if worth.error != 0 {
            *tally.errors.entry(worth.error).or_default() += 1;
        }
        self.answered += 1;
    }
}
