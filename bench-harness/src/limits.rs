//! What this machine can do at all, measured in the same run as the brokers: bytes over the loopback, into the page
//! cache and out of it, checksums, and the way of a small message there and back.
//!
//! How: each takes about a fifth of a second. The side that a broker would have runs where brokers run in this layout,
//! the other side where the load runs. The CPU is that of the broker's side.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::sendfile::sendfile64;
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::broker::{Place, Scratch};

/// How long each limit is measured.
const TIME: Duration = Duration::from_millis(200);
/// What is written into the page cache at most.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The size of one write or read.
const BLOCK_BYTES: usize = 64 << 10;
/// The size of one `sendfile`.
const SPAN_BYTES: u64 = 256 << 10;
/// The size of a small message.
const MESSAGE_BYTES: usize = 100;
/// Bytes under one checksum.
const CHECKED_BYTES: usize = 1 << 20;

/// One limit of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// `loopback`, `page-cache-write`, `sendfile`, `crc32c` or `round-trip`.
    pub name: String,
    /// What was done, in words.
    pub title: String,
    /// How much of it.
    pub value: f64,
    /// The value's unit.
    pub unit: String,
    /// Seconds of CPU for 10⁹ bytes on the broker's side, where bytes are what is counted.
    pub cpu_s_per_gb: Option<f64>,
}

/// What one side did.
struct Done {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
}

/// The clocks of a side when it begins.
struct Clocks {
    at: Instant,
    cpu: Duration,
}

fn thread_cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_THREAD).ok();
    let micros =
        used.map_or(0, |used| used.user_time().num_microseconds() + used.system_time().num_microseconds());
    Duration::from_micros(micros.unsigned_abs())
}

impl Clocks {
    fn start() -> Clocks {
        Clocks { at: Instant::now(), cpu: thread_cpu() }
    }

    fn running(&self) -> bool {
        self.at.elapsed() < TIME
    }

    fn stop(&self, bytes: u64) -> Done {
        Done { bytes, elapsed: self.at.elapsed(), cpu: thread_cpu().saturating_sub(self.cpu) }
    }
}

impl Done {
    fn limit(&self, name: &str, title: &str) -> Limit {
        let bytes = self.bytes.max(1) as f64;
        Limit {
            name: name.to_owned(),
            title: title.to_owned(),
            value: bytes / self.elapsed.as_secs_f64() / 1e6,
            unit: "MB/s".to_owned(),
            cpu_s_per_gb: Some(self.cpu.as_secs_f64() * 1e9 / bytes),
        }
    }
}

/// Measures all limits where `place` puts broker, load and data.
pub fn measure(place: &Place) -> Result<Vec<Limit>> {
    let scratch = Scratch::new(&place.data, "limits")?;
    let file = scratch.path().join("file");
    let written = on_broker_side(place, || write_file(&file))?;
    let (sent, _) = both(place, |socket| send_file(&file, socket), drain)?;
    let (received, _) = both(place, drain, pour)?;
    let (_, trips) = both(place, echo, ask)?;
    let checked = on_broker_side(place, checksums)?;
    let round_trip = Limit {
        name: "round-trip".to_owned(),
        title: format!("{MESSAGE_BYTES} B over the loopback and back, both sides asleep in between, p50"),
        value: trips.as_secs_f64() * 1e6,
        unit: "µs".to_owned(),
        cpu_s_per_gb: None,
    };
    Ok(vec![
        received.limit("loopback", "loopback TCP, reads of 64 KiB; CPU of the receiver"),
        written.limit("page-cache-write", "new pages into the page cache, writes of 64 KiB"),
        sent.limit("sendfile", "page cache to loopback TCP by sendfile, 256 KiB each"),
        checked.limit("crc32c", "CRC-32C of 1 MiB in the processor's cache"),
        round_trip,
    ])
}

fn on_broker_side<T: Send>(place: &Place, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || {
        place.enter_broker()?;
        work()
    };
    thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow!("a thread gave up"))?
}

/// Runs both sides of a connection.
fn both<A: Send, B: Send>(
    place: &Place,
    broker: impl FnOnce(TcpStream) -> Result<A> + Send,
    load: impl FnOnce(TcpStream) -> Result<B> + Send,
) -> Result<(A, B)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let there = TcpStream::connect(listener.local_addr()?)?;
    let (here, _) = listener.accept()?;
    there.set_nodelay(true)?;
    here.set_nodelay(true)?;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            place.enter_load()?;
            load(there)
        });
        let ours = on_broker_side(place, || broker(here));
        let theirs = other.join().map_err(|_| anyhow!("a thread gave up"))?;
        Ok((ours?, theirs?))
    })
}

fn write_file(path: &Path) -> Result<Done> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let block = vec![7; BLOCK_BYTES];
    let (clocks, mut bytes) = (Clocks::start(), 0);
    while clocks.running() && bytes < FILE_BYTES_MAX {
        file.write_all_at(&block, bytes).context("writing into the page cache")?;
        bytes += BLOCK_BYTES as u64;
    }
    Ok(clocks.stop(bytes))
}

fn send_file(path: &Path, socket: TcpStream) -> Result<Done> {
    let file = File::open(path)?;
    let length = i64::try_from(file.metadata()?.len())?;
    ensure!(length > 0, "there is nothing to send");
    let (clocks, mut bytes, mut position) = (Clocks::start(), 0, 0i64);
    while clocks.running() {
        bytes += sendfile64(&socket, &file, Some(&mut position), SPAN_BYTES as usize)? as u64;
        if position >= length {
            position = 0;
        }
    }
    Ok(clocks.stop(bytes))
}

fn pour(mut socket: TcpStream) -> Result<()> {
    let (block, clocks) = (vec![7; BLOCK_BYTES], Clocks::start());
    while clocks.running() {
        socket.write_all(&block)?;
    }
    Ok(())
}

/// Reads until the other side has closed.
fn drain(mut socket: TcpStream) -> Result<Done> {
    let (mut block, clocks, mut bytes) = (vec![0; BLOCK_BYTES], Clocks::start(), 0);
    loop {
        match socket.read(&mut block) {
            Ok(0) => return Ok(clocks.stop(bytes)),
            Ok(count) => bytes += count as u64,
            // The side that sent may have closed with bytes still on their way to it.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(clocks.stop(bytes)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn echo(mut socket: TcpStream) -> Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        match socket.read_exact(&mut message) {
            Ok(()) => socket.write_all(&message)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The median of the ways there and back.
fn ask(mut socket: TcpStream) -> Result<Duration> {
    let (mut message, clocks, mut trips) = ([0; MESSAGE_BYTES], Clocks::start(), Vec::new());
    while clocks.running() {
        let sent = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        trips.push(sent.elapsed());
    }
    trips.sort();
    trips.get(trips.len() / 2).copied().context("not one message came back")
}

fn checksums() -> Result<Done> {
    let block: Vec<u8> = (0..CHECKED_BYTES).map(|at| at as u8).collect();
    let (clocks, mut bytes) = (Clocks::start(), 0);
    while clocks.running() {
        std::hint::black_box(crc32c::crc32c(std::hint::black_box(&block)));
        bytes += block.len() as u64;
    }
    Ok(clocks.stop(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::host::{self, Layout};

    #[test]
    fn every_limit_is_measured_and_nothing_is_left_behind() {
        let data = std::env::temp_dir().join(format!("bench-limits-test-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        let place = Place::new(Layout::Shared, &host::cpus(), data.clone(), Duration::ZERO);
        let limits = measure(&place).unwrap();
        let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
        assert_eq!(names, ["loopback", "page-cache-write", "sendfile", "crc32c", "round-trip"]);
        for limit in &limits {
            assert!(limit.value > 0.0, "{limit:?}");
            assert_eq!(limit.cpu_s_per_gb.is_some(), limit.unit == "MB/s", "{limit:?}");
        }
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        std::fs::remove_dir_all(data).unwrap();
    }
}
