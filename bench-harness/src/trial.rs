//! One run of one workload against one broker: prepare, load, check, clean up. Roles become lanes here; nothing in this
//! file knows a workload by its name.

mod measurement;
mod rest;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::client;
use crate::host::Layout;
use crate::lane::timeline::{self, Timeline};
use crate::lane::{Lane, reader, writer};
use crate::live::Live;
use crate::load::{Crew, Load, Pace, Plan, Tally};
use crate::meter::Latencies;
use crate::process::Process;
use crate::report::Settings;
use crate::wire::Producer;
use crate::workload::{Drive, Reach, ReadFrom, Role, Work, Workload, Writing};

pub use measurement::{Latency, Measurement, Rest, Restart, Share};
use rest::Opened;

/// What lies in a topic beforehand: batches of 16 × 1000 B, just below 16 KiB with their framing.
const STORED: Writing = Writing::of(16, 1000);
/// The numbers of the connections that write it; no role has as many.
const STORED_CONNECTION_FIRST: usize = 1 << 20;
/// A run that wrote reads back this much from each of two places of the first partitions.
const CHECK_BYTES: usize = 4 << 20;
/// A run reads back from this many partitions; the log ends of all are compared.
const CHECK_PARTITIONS: usize = 8;
/// How long records without acknowledgement may be on their way into the log.
const SETTLE: Duration = Duration::from_secs(20);

/// Makes topic names unlike any of an earlier run, also on a broker that was there before.
static TOPICS: AtomicU64 = AtomicU64::new(0);

/// How runs are made.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Named in the result.
    pub layout: Layout,
    /// Requests a second instead of the workload's own pace.
    pub rate: Option<f64>,
    /// The bounds.
    pub plan: Plan,
    /// What runs foreign clients.
    pub clients: client::Home,
    /// How long the broker is looked at while nobody asks anything of it, before and after the load, if at all.
    pub rest: Option<Duration>,
    /// Whether it is started again with the run's topics, after a clean stop and after it was killed.
    pub restart: bool,
}

impl Conditions {
    /// As a result says it.
    pub fn settings(&self, turns: usize, warmup_turns: usize) -> Settings {
        Settings {
            layout: self.layout,
            seconds: self.plan.measure.as_secs_f64(),
            warmup_seconds: self.plan.warmup.as_secs_f64(),
            bytes_max: self.plan.bytes_max,
            rate: self.rate,
            turns,
            warmup_turns,
        }
    }
}

/// Runs a workload once. Any error code, gap, or byte that differs fails the run.
pub fn run(broker: &mut Broker, workload: &Workload, conditions: &Conditions) -> Result<Measurement> {
    let measured = attempt(broker, workload, conditions);
    match measured {
        Ok(measurement) => Ok(measurement),
        // That the process has ended explains more than the broken connection.
        Err(error) => Err(broker.check_alive().err().unwrap_or(error))
            .with_context(|| format!("workload {} on {}", workload.name, broker.name)),
    }
}

/// The topic of a run, and what the run knows of it.
pub struct Stage {
    /// Where the broker listens.
    pub address: SocketAddr,
    /// Its name.
    pub contender: &'static str,
    /// Its processes, as far as they are known.
    pub pids: Vec<u32>,
    /// A connection to it.
    pub admin: Admin,
    /// The workload.
    pub workload: Workload,
    /// The topic's name.
    pub topic: String,
    /// All topics, each with the same share of the partitions, in their order.
    topics: Vec<String>,
    has_topics: bool,
    timestamp_ms: i64,
    stored: Vec<Lane>,
    opened: Opened,
    /// The broker's resident bytes with the topics, before the load connects.
    resident_topics_bytes: u64,
}

/// What the check after a run found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    /// Batches read back and found equal.
    pub batches: u64,
    /// Records that retention deleted.
    pub records_deleted: u64,
}

fn attempt(broker: &mut Broker, workload: &Workload, conditions: &Conditions) -> Result<Measurement> {
    let (began, resident_before_bytes) = (Instant::now(), broker.resident_bytes());
    let mut stage = Stage::open(broker, workload)?;
    stage.opened = Opened { took: began.elapsed(), resident_before_bytes };
    stage.resident_topics_bytes = broker.resident_bytes();
    match workload.drive {
        Drive::Wire(_) => stage.drive(broker, conditions),
        Drive::Client(client) => {
            let measured = client::run(&mut stage, client, conditions)?;
            stage.close()?;
            Ok(measured)
        }
    }
}

impl Stage {
    /// Creates the topic, and writes what the workload finds in it.
    pub fn open(broker: &Broker, workload: &Workload) -> Result<Stage> {
        workload.check()?;
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{}-{number}", workload.name, std::process::id());
        let topics: Vec<String> = match workload.topics {
            1 => vec![name],
            count => (0..count).map(|topic| format!("{name}-{topic}")).collect(),
        };
        let mut stage = Stage {
            address: broker.address()?,
            contender: broker.name,
            pids: broker.pids(),
            admin: Admin::connect(broker.address()?)?,
            workload: workload.clone(),
            topic: topics.first().cloned().unwrap_or_default(),
            topics,
            has_topics: broker.has_topics,
            timestamp_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64,
            stored: Vec::new(),
            opened: Opened::default(),
            resident_topics_bytes: 0,
        };
        if stage.has_topics {
            let each = workload.partitions_each_topic();
            for topic in &stage.topics {
                stage.admin.create_topic(topic, each, broker.replicas(), &workload.topic_settings)?;
            }
        }
        stage.store()?;
        Ok(stage)
    }

    fn close(mut self) -> Result<()> {
        if self.has_topics {
            self.topics.iter().try_for_each(|topic| self.admin.delete_topic(topic))?;
        }
        Ok(())
    }

    /// Compares what the broker holds with what went in, and deletes the topic.
    pub fn finish(mut self, lanes: &[Lane]) -> Result<Checked> {
        let checked = self.check(lanes)?;
        self.close()?;
        Ok(checked)
    }

    fn store(&mut self) -> Result<()> {
        if self.workload.stored_bytes == 0 {
            return Ok(());
        }
        let lanes: Vec<Lane> = (0..self.workload.partitions)
            .map(|partition| {
                Lane::produce(writer::Recipe {
                    topic: &self.topic,
                    writing: &STORED,
                    connection: STORED_CONNECTION_FIRST + partition,
                    partitions: vec![(partition, 0)],
                    partitions_each_topic: self.workload.partitions_each_topic(),
                    alone: true,
                    producer: Producer::NONE,
                    timestamp_ms: self.timestamp_ms,
                    timelines: Vec::new(),
                })
            })
            .collect();
        let frame_bytes = lanes.first().map_or(1, |lane| lane.position(1)).max(1);
        let addresses = self.addresses(0..self.workload.partitions);
        let crew =
            Crew { lanes, addresses, shards: Vec::new(), pace: Pace::Closed, at_once: None, drives: true };
        let count = self.workload.stored_bytes / frame_bytes;
        self.stored = Load::connect(self.address, vec![crew])?.send(count)?;
        Ok(())
    }

    /// Records that lie in the topic beforehand.
    pub fn stored_records(&self) -> u64 {
        self.stored
            .iter()
            .filter_map(Lane::writer)
            .flat_map(|writer| writer.acknowledged())
            .map(|(_, count)| count)
            .sum()
    }

    /// The topic of a partition, and its number there.
    fn place(&self, partition: usize) -> (&str, usize) {
        let each = self.workload.partitions_each_topic().max(1);
        let topic = self.topics.get(partition / each).unwrap_or(&self.topic);
        (topic, partition % each)
    }

    /// The node that leads each of these partitions; nothing where there is one node.
    fn addresses(&self, partitions: impl Iterator<Item = usize>) -> Vec<SocketAddr> {
        let places = partitions.map(|partition| self.place(partition));
        places.filter_map(|(topic, number)| self.admin.leader(topic, number)).collect()
    }

    /// The same for the connections of a role, each of which can only speak to one node.
    fn addresses_for(&self, role: &Role) -> Result<Vec<SocketAddr>> {
        let count = self.workload.partitions;
        let mut addresses = Vec::new();
        for connection in 0..role.connections {
            let mut of_one = self.addresses(role.partitions_of(connection, count).into_iter());
            of_one.dedup();
            ensure!(of_one.len() <= 1, "on several nodes a connection can have the partitions of one only");
            addresses.extend(of_one);
        }
        Ok(addresses)
    }

    /// Connects the harness's own load, at that rate instead of the workload's own pace.
    pub fn load(&mut self, rate: Option<f64>) -> Result<Load> {
        let crews = self.crews(rate)?;
        Load::connect(self.address, crews)
    }

    fn drive(mut self, broker: &mut Broker, conditions: &Conditions) -> Result<Measurement> {
        let mut load = self.load(conditions.rate)?;
        let mut rest = self.rest_before(broker, conditions, load.connection_count())?;
        let label = format!("{:<22} {:<8}", self.workload.name, self.contender);
        let mut live = Live::new(label, self.pids.clone(), load.meter(), conditions.plan.measure);
        let tally = load.run(&conditions.plan, &mut live)?;
        live.finish();
        ensure!(tally.error_count() == 0, "requests were refused, by error code: {:?}", tally.errors);
        if let Some(rest) = &mut rest {
            rest.after(broker)?;
        }
        let lanes = load.into_lanes();
        let checked = self.check(&lanes)?;
        let mut measured = self.measurement(conditions, &tally, &live, checked);
        if conditions.restart {
            let restart = self.restart(broker)?;
            rest.get_or_insert_default().restart = Some(restart);
            self.check(&lanes)?;
        }
        measured.rest = rest;
        self.close()?;
        Ok(measured)
    }

    fn crews(&mut self, rate: Option<f64>) -> Result<Vec<Crew>> {
        let (workload, alone) = (self.workload.clone(), self.workload.writers_are_apart());
        let roles = workload.roles();
        let mut ends = vec![0; workload.partitions];
        for (partition, count) in
            self.stored.iter().filter_map(Lane::writer).flat_map(|writer| writer.acknowledged())
        {
            ends.get_mut(partition).into_iter().for_each(|end| *end = count as i64);
        }
        let writing = roles.iter().find_map(|role| match &role.work {
            Work::Write(writing) => Some(writing),
            Work::Read { .. } => None,
        });
        let timelines: Vec<timeline::Shared> = match writing.filter(|_| workload.has_tail()) {
            Some(writing) => {
                let new = |end: &i64| timeline::Shared::new(Timeline::new(*end, writing.records).into());
                ends.iter().map(new).collect()
            }
            None => Vec::new(),
        };
        let mut sent: HashSet<u64> = fingerprints(&self.stored).collect();
        let mut crews = Vec::new();
        // Writers come first: a reader has to know what they send.
        let (writers, readers): (Vec<&Role>, Vec<&Role>) = roles.iter().partition(|role| role.writes());
        for role in writers.into_iter().chain(readers) {
            let known = Rc::new(sent.clone());
            let mut lanes = Vec::with_capacity(role.connections);
            for connection in 0..role.connections {
                let numbers = role.partitions_of(connection, workload.partitions);
                let at = |ends: &[i64], number: usize| (number, ends.get(number).copied().unwrap_or(0));
                let from_ends = numbers.iter().map(|number| at(&ends, *number)).collect();
                let lines = || numbers.iter().filter_map(|number| timelines.get(*number).cloned()).collect();
                let idempotent = matches!(&role.work, Work::Write(writing) if writing.idempotent);
                let producer = if idempotent { self.admin.producer()? } else { Producer::NONE };
                lanes.push(match &role.work {
                    Work::Write(writing) => Lane::produce(writer::Recipe {
                        topic: self.place(numbers.first().copied().unwrap_or(0)).0,
                        writing,
                        connection,
                        partitions: from_ends,
                        partitions_each_topic: workload.partitions_each_topic(),
                        alone,
                        producer,
                        timestamp_ms: self.timestamp_ms,
                        timelines: lines(),
                    }),
                    Work::Read { max_bytes, from } => Lane::fetch(reader::Recipe {
                        topic: &self.topic,
                        max_bytes: *max_bytes,
                        batch_bytes_max: batch_bytes_max(writing),
                        partitions: match from {
                            ReadFrom::Start => numbers.iter().map(|number| (*number, 0)).collect(),
                            ReadFrom::End => from_ends,
                        },
                        timelines: if *from == ReadFrom::End { lines() } else { Vec::new() },
                        sent: Rc::clone(&known),
                    }),
                });
            }
            sent.extend(fingerprints(&lanes));
            let drives = workload.drives(role);
            let rate = rate.filter(|_| drives).or(role.rate);
            let pace = rate.map_or(Pace::Closed, |rate| Pace::Open { rate });
            let (shards, addresses) = (self.shards_for(role)?, self.addresses_for(role)?);
            crews.push(Crew { lanes, addresses, shards, pace, at_once: role.at_once, drives });
        }
        Ok(crews)
    }

    /// The shard that has to serve each connection of a role; empty where any may. Tidemill deals the partitions of a
    /// new topic out to its shards in turn, from shard 0 on where it has no other topic.
    fn shards_for(&self, role: &Role) -> Result<Vec<usize>> {
        let beyond = match role.reach {
            Reach::Any => return Ok(Vec::new()),
            Reach::Home => 0,
            Reach::Away => 1,
        };
        let count = Process::new(&self.pids).shards().len();
        ensure!(
            (1..8).contains(&count),
            "home and away are known of one process with one to seven shards, not with {count}"
        );
        let partition = |index| role.partitions_of(index, self.workload.partitions).first().copied();
        Ok((0..role.connections).filter_map(partition).map(|at| (at + beyond) % count).collect())
    }

    /// Compares the log end of every partition with what was acknowledged, and reads some of it back.
    fn check(&mut self, lanes: &[Lane]) -> Result<Checked> {
        let wrote = lanes.iter().any(|lane| lane.writer().is_some());
        let silent = lanes.iter().any(Lane::is_silent);
        let mut ends = vec![0; self.workload.partitions];
        let writers = self.stored.iter().chain(lanes).filter_map(Lane::writer);
        for (partition, count) in writers.flat_map(|writer| writer.acknowledged()) {
            ends.get_mut(partition).into_iter().for_each(|end| *end += count as i64);
        }
        let sent: HashSet<u64> = fingerprints(&self.stored).chain(fingerprints(lanes)).collect();
        let bytes_max = if wrote { CHECK_BYTES } else { usize::MAX };
        self.check_ends(&ends, silent, bytes_max, Some(&sent))
    }

    /// Compares log ends, and reads back from the start and the middle of the first partitions.
    pub fn check_ends(
        &mut self,
        ends: &[i64],
        settles: bool,
        bytes_max: usize,
        sent: Option<&HashSet<u64>>,
    ) -> Result<Checked> {
        let (mut checked, deadline) = (Checked::default(), Instant::now() + SETTLE);
        let (each, mut listed) = (self.workload.partitions_each_topic(), Vec::with_capacity(ends.len()));
        for topic in &self.topics {
            listed.extend(self.admin.log_ends(topic, each)?);
        }
        for (partition, end) in ends.iter().enumerate() {
            let (topic, number) = self.place(partition);
            let topic = topic.to_owned();
            let mut found = listed.get(partition).copied().unwrap_or(-1);
            while settles && found < *end && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                found = self.admin.log_end(&topic, number)?;
            }
            ensure!(found == *end, "{topic}-{number}: the log ends at {found}, acknowledged to {end}");
            if self.workload.has_retention() {
                checked.records_deleted += self.admin.log_start(&topic, number)? as u64;
            }
            if partition < CHECK_PARTITIONS {
                checked.batches += self.check_part(partition, (0.0, *end), bytes_max, sent)?;
                if bytes_max < usize::MAX {
                    checked.batches += self.check_part(partition, (0.5, *end), bytes_max, sent)?;
                }
            }
        }
        Ok(checked)
    }

    /// Reads back from that share of a partition; from further on where retention was faster.
    fn check_part(
        &mut self,
        partition: usize,
        (share, end): (f64, i64),
        bytes_max: usize,
        sent: Option<&HashSet<u64>>,
    ) -> Result<u64> {
        let (topic, partition) = self.place(partition);
        let topic = topic.to_owned();
        if !self.workload.has_retention() {
            let from = (end as f64 * share) as i64;
            return self.admin.check(&topic, partition, (from, end), bytes_max, sent);
        }
        loop {
            let start = self.admin.log_start(&topic, partition)?;
            let from = start + ((end - start) as f64 * share) as i64;
            let read = self.admin.check(&topic, partition, (from, end), bytes_max, sent);
            if read.is_ok() || self.admin.log_start(&topic, partition)? == start {
                return read;
            }
        }
    }

    fn measurement(
        &self,
        conditions: &Conditions,
        tally: &Tally,
        live: &Live,
        checked: Checked,
    ) -> Measurement {
        let driving = self.workload.roles().iter().find(|role| self.workload.drives(role));
        Measurement {
            workload: self.workload.name.to_owned(),
            contender: self.contender.to_owned(),
            layout: conditions.layout,
            rate_asked: conditions.rate.or_else(|| driving.and_then(|role| role.rate)),
            seconds: tally.elapsed.as_secs_f64().max(Duration::from_millis(1).as_secs_f64()),
            requests: tally.requests,
            records: tally.records,
            bytes: tally.bytes,
            errors: tally.error_count(),
            latency_us: Some(Latency::of(&tally.latency)),
            end_to_end_us: self.workload.has_tail().then(|| Latency::of(&tally.end_to_end)),
            read: tally.read,
            records_deleted: checked.records_deleted,
            broker: live.began.zip(live.ended).map(|(began, ended)| {
                Share::between(&began, &ended, (tally.requests, tally.records, tally.bytes))
            }),
            batches_checked: checked.batches,
            rest: None,
            series: live.series.clone(),
            histogram: Latencies::of(&tally.latency).pairs(),
            end_to_end_histogram: Latencies::of(&tally.end_to_end).pairs(),
        }
    }
}

fn fingerprints(lanes: &[Lane]) -> impl Iterator<Item = u64> {
    lanes.iter().filter_map(Lane::writer).flat_map(|writer| writer.sent().iter().copied())
}

/// No batch in the topic has more bytes: values, what each record has besides, and the header.
fn batch_bytes_max(writing: Option<&Writing>) -> usize {
    let bytes = |writing: &Writing| writing.records * (writing.record_bytes + 32) + 128;
    bytes(&STORED).max(writing.map_or(0, bytes))
}
