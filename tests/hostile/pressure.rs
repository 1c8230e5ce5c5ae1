//! How much of its throughput a client keeps while eight others do their worst.
//!
//! What is compared is the broker's treatment: the hostile clients send what was made beforehand, wait before
//! they send more, and sleep in between, so that the cost of their frames is the broker's and hardly theirs; and
//! their threads have the lowest priority.
//! Phases without and with them follow each other; the verdict is the median of their ratios.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::body::{FETCH, PRODUCE};
use crate::idle::{answer, call, frame, produce};
use crate::process::{Home, PATIENCE};
use crate::storm::{Over, world};
use crate::*;

const PHASE: Duration = Duration::from_millis(1_500);
const PAIRS: usize = 7;
/// Of the throughput alone, in percent.
const KEPT_PERCENT_MIN: f64 = 80.0;
/// Between two blows of one hostile client.
const BREATH: Duration = Duration::from_millis(20);
/// One record of the good client.
const VALUE_BYTES: usize = 1_000;
const RECORDS: usize = 20;

/// Ways to be a burden; each of the eight hostile clients has one.
#[derive(Clone, Copy, Debug)]
enum Worst {
    /// Batches that decompress beyond the limit, several at once.
    Bombs(usize),
    /// A frame byte by byte.
    Slow,
    /// The first half of a frame, and gone.
    Half,
    /// A Fetch of thousands of partitions.
    Lists,
    /// Connections that are opened and closed.
    Storm,
    /// Fetches whose answers are never read.
    Deaf,
}

const EIGHT: [Worst; 8] = [
    Worst::Bombs(0),
    Worst::Bombs(3),
    Worst::Slow,
    Worst::Half,
    Worst::Lists,
    Worst::Storm,
    Worst::Deaf,
    Worst::Bombs(2),
];

/// Those of the eight that `PRESSURE_WHO` names, a bit mask.
fn chosen() -> impl Iterator<Item = Worst> {
    let who = setting("PRESSURE_WHO", 0xff);
    EIGHT.into_iter().enumerate().filter(move |(at, _)| who >> at & 1 == 1).map(|(_, worst)| worst)
}

#[test]
#[ignore = "a measurement: it needs the machine for itself; docs/TESTING.md has the figures"]
fn a_good_client_keeps_its_throughput_beside_eight_that_do_their_worst() {
    let _turn = turn();
    let home = Home::new(&[]);
    let broker = home.start();
    let world = world(&broker);
    let mut good = Good::new(&broker.address);
    good.run_for(PHASE);
    let hostile = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let mut ratios = Vec::new();
    std::thread::scope(|scope| {
        for worst in chosen() {
            let (hostile, over, world, address) = (&hostile, &over, &world, &broker.address);
            scope.spawn(move || Burden::new(address, world, worst).last(hostile, over));
        }
        let _over = Over(&over);
        for _ in 0..PAIRS {
            hostile.store(false, Ordering::Relaxed);
            good.run_for(PHASE / 3);
            let alone = good.run_for(PHASE);
            hostile.store(true, Ordering::Relaxed);
            good.run_for(PHASE / 3);
            let beside = good.run_for(PHASE);
            eprintln!("{alone:.0} rounds a second alone, {beside:.0} beside the eight");
            ratios.push(100.0 * beside / alone);
        }
    });
    ratios.sort_by(f64::total_cmp);
    let kept = ratios[PAIRS / 2];
    eprintln!("kept {kept:.0} % of the throughput; closed: {:?}", closes::reasons(&broker));
    assert!(kept >= KEPT_PERCENT_MIN, "kept {kept:.0} %, of all {ratios:?}");
    assert_eq!(broker.stop(), Some(0));
}

#[test]
#[ignore = "a measurement"]
fn what_each_burden_costs_the_broker() {
    let _turn = turn();
    let home = Home::new(&[]);
    let broker = home.start();
    let world = world(&broker);
    let mut good = Good::new(&broker.address);
    let before_us = broker.cpu_us();
    let rounds = good.run_for(PHASE) * PHASE.as_secs_f64();
    eprintln!("{:.0} us of the broker for a round", (broker.cpu_us() - before_us) as f64 / rounds);
    for worst in chosen() {
        let mut burden = Burden::new(&broker.address, &world, worst);
        let mut blows = 0;
        let (started, before_us) = (Instant::now(), broker.cpu_us());
        while started.elapsed() < PHASE {
            std::thread::park_timeout(BREATH);
            let _ = burden.blow();
            blows += 1;
        }
        let spent_us = (broker.cpu_us() - before_us) as f64;
        let share = spent_us / started.elapsed().as_micros() as f64 * 100.0;
        eprintln!(
            "{worst:?}: {blows} blows, {:.0} us each, {share:.1} % of a core",
            spent_us / f64::from(blows)
        );
    }
}

/// Writes a batch and reads it back, one after the other.
struct Good {
    stream: TcpStream,
    batch: Vec<u8>,
    offset: i64,
}

impl Good {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut builder = tidemill::log::batch::BatchBuilder::new();
        for number in 0..RECORDS {
            builder.push(1_000, None, Some(&[number as u8; VALUE_BYTES]), &[]);
        }
        let batch = produce(witness::TOPIC, 1, &builder.build());
        Self { stream, batch, offset: 0 }
    }

    /// Rounds a second.
    fn run_for(&mut self, time: Duration) -> f64 {
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed() < time {
            self.round();
            rounds += 1;
        }
        f64::from(rounds) / started.elapsed().as_secs_f64()
    }

    fn round(&mut self) {
        let written = call(&self.stream, &frame(PRODUCE, 3, &self.batch));
        // Behind the topic's name and the partition's number come the error and the base offset.
        let at = 4 + 4 + 2 + witness::TOPIC.len() + 4 + 4;
        assert_eq!(written[at..at + 2], [0, 0], "the good client's batch is taken");
        assert_eq!(written[at + 2..at + 10], self.offset.to_be_bytes());
        let read = call(&self.stream, &frame(FETCH, 4, &fetch(witness::TOPIC, &[(1, self.offset)], 1 << 20)));
        assert!(read.len() > RECORDS * VALUE_BYTES, "the good client reads what it wrote");
        self.offset += RECORDS as i64;
    }
}

/// The body of a Fetch request of version 4.
fn fetch(topic: &str, partitions: &[(i32, i64)], bytes: i32) -> Vec<u8> {
    let mut body = vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1];
    body.extend_from_slice(&bytes.to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 0, 1]);
    body.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&(partitions.len() as i32).to_be_bytes());
    for (partition, offset) in partitions {
        body.extend_from_slice(&partition.to_be_bytes());
        body.extend_from_slice(&offset.to_be_bytes());
        body.extend_from_slice(&bytes.to_be_bytes());
    }
    body
}

/// One hostile client, with what it sends made beforehand.
struct Burden<'a> {
    address: &'a str,
    worst: Worst,
    frame: Vec<u8>,
    /// Connections that stay open.
    kept: Vec<TcpStream>,
}

impl<'a> Burden<'a> {
    fn new(address: &'a str, world: &World, worst: Worst) -> Self {
        let target = &world.targets[0].name;
        let frame = match worst {
            Worst::Bombs(codec) => frame(PRODUCE, 7, &produce(target, 0, &world.arsenal.bombs[codec])),
            Worst::Slow => frame(18, 0, &[]),
            Worst::Half => [1_000_000_i32.to_be_bytes(), [0, 0, 0, 7], [0, 0, 0, 1]].concat(),
            Worst::Lists => {
                let partitions: Vec<(i32, i64)> = (0..20_000).map(|number| (number, 0)).collect();
                frame(FETCH, 4, &fetch(target, &partitions, 1))
            }
            Worst::Storm => Vec::new(),
            Worst::Deaf => frame(FETCH, 4, &fetch(witness::TOPIC, &[(1, 0)], 50 << 20)),
        };
        Self { address, worst, frame, kept: Vec::new() }
    }

    /// Is one while it is told to be, until all is over.
    fn last(mut self, hostile: &AtomicBool, over: &AtomicBool) {
        step_back();
        while !over.load(Ordering::Relaxed) {
            std::thread::park_timeout(BREATH);
            if hostile.load(Ordering::Relaxed) {
                // Whatever the broker does to it: it comes again.
                let _ = self.blow();
            } else {
                self.kept.clear();
            }
        }
    }

    fn open(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        Ok(stream)
    }

    fn blow(&mut self) -> std::io::Result<()> {
        match self.worst {
            Worst::Bombs(_) => {
                let stream = self.kept.pop().map_or_else(|| self.open(), Ok)?;
                bombs(&stream, &self.frame)?;
                self.kept.push(stream);
            }
            Worst::Slow => {
                let mut stream = self.open()?;
                stream.set_nodelay(true)?;
                for byte in &self.frame {
                    stream.write_all(&[*byte])?;
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                answer(&stream)?;
            }
            Worst::Half => {
                for _ in 0..20 {
                    let mut stream = self.open()?;
                    stream.write_all(&self.frame)?;
                    self.kept.push(stream);
                }
                if self.kept.len() > 200 {
                    self.kept.drain(..100);
                }
            }
            Worst::Lists => {
                let mut stream = self.open()?;
                stream.write_all(&self.frame)?;
                answer(&stream)?;
            }
            Worst::Storm => {
                for _ in 0..50 {
                    self.open()?.shutdown(Shutdown::Both)?;
                }
            }
            Worst::Deaf => {
                let mut stream = self.open()?;
                for _ in 0..20 {
                    stream.write_all(&self.frame)?;
                }
                stream.read_exact(&mut [0; 10])?;
                self.kept.push(stream);
                if self.kept.len() > 20 {
                    self.kept.clear();
                }
            }
        }
        Ok(())
    }
}

/// Leaves the processor to the broker and the good client: hostile clients have machines of their own, and only
/// what they cost the broker is measured.
fn step_back() {
    let thread = nix::unistd::gettid().to_string();
    let done = std::process::Command::new("renice").args(["-n", "19", "-p", &thread]).output().unwrap();
    assert!(done.status.success(), "renice: {}", String::from_utf8_lossy(&done.stderr));
}

/// As many at once as the others together send in a breath.
fn bombs(mut stream: &TcpStream, bomb: &[u8]) -> std::io::Result<()> {
    for _ in 0..4 {
        stream.write_all(bomb)?;
    }
    for _ in 0..4 {
        answer(stream)?;
    }
    Ok(())
}
