//! One run of one workload against one broker: prepare, load, check, clean up.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::host::{Layout, Usage};
use crate::lane::{Lane, Shape};
use crate::live::Live;
use crate::load::{Load, Pace, Plan, Tally};
use crate::workload::{Figure, Kind, Workload};

/// What a fetch workload finds in each partition: batches of 16 × 1000 B, just below 16 KiB with their framing.
const STORED: Shape = Shape { records: 16, record_bytes: 1000, partition_first: 0 };
/// How much each partition of a fetch workload holds.
const STORED_BYTES: u64 = 64 << 20;
/// A produce run reads back this much from each of two places of the first partitions.
const CHECK_BYTES: usize = 4 << 20;
/// A produce run reads back from this many partitions; the log ends of all are compared.
const CHECK_PARTITIONS: usize = 8;

/// Makes topic names unlike any of an earlier run, also on a broker that was there before.
static TOPICS: AtomicU64 = AtomicU64::new(0);

/// How runs are made.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Named in the result.
    pub layout: Layout,
    /// The pace and the bounds.
    pub plan: Plan,
}

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The workload's name.
    pub workload: String,
    /// Who was measured.
    pub contender: String,
    /// Where broker and load ran.
    pub layout: Layout,
    /// The rate asked for, or none for the closed loop.
    pub rate_asked: Option<f64>,
    /// Length of the measured phase.
    pub seconds: f64,
    /// Requests answered.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of whole batches in them.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// From the intended sending to the answer.
    pub latency_us: Latency,
    /// The broker's CPU, where its process is known.
    pub broker: Option<Share>,
    /// Batches read back and found equal to what was sent.
    pub batches_checked: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half are below.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What the broker's process used in the measured phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Share {
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel.
    pub system_s: f64,
    /// Microseconds of CPU for one request.
    pub us_per_request: f64,
    /// Seconds of CPU for 10⁹ bytes of batches.
    pub s_per_gb: f64,
    /// Resident bytes at the end.
    pub resident_bytes: u64,
    /// The most that were ever resident.
    pub resident_peak_bytes: u64,
}

impl Measurement {
    /// The figure by which the workload is judged, if it was measured.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::CpuPerRequest => self.broker.as_ref().map(|share| share.us_per_request),
            Figure::CpuPerGb => self.broker.as_ref().map(|share| share.s_per_gb),
            Figure::MedianLatency => Some(self.latency_us.p50),
        }
    }

    /// Requests a second.
    pub fn request_rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Records a second.
    pub fn record_rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// 10⁶ bytes of batches a second.
    pub fn megabytes_a_second(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
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

fn attempt(broker: &mut Broker, workload: &Workload, conditions: &Conditions) -> Result<Measurement> {
    let Opened { course, load } = Opened::new(broker, workload, conditions.plan.pace, STORED_BYTES)?;
    let mut live = Live::new(format!("{:<22} {:<8}", workload.name, broker.name), broker.pid);
    let (tally, lanes) = load.run(&conditions.plan, &mut live)?;
    ensure!(tally.error_count() == 0, "requests were refused, by error code: {:?}", tally.errors);
    ensure!(tally.requests > 0, "not one request was answered");
    let batches_checked = course.finish(&lanes)?;
    Ok(measurement(broker.name, workload, conditions, &tally, &live, batches_checked))
}

/// A workload under way against a broker: its topic is there, what it fetches is stored, its load is connected.
pub struct Opened {
    /// What remains to be done.
    pub course: Course,
    /// The load.
    pub load: Load,
}

/// What has to be checked and taken away when the load is over.
pub struct Course {
    admin: Admin,
    topic: String,
    has_topics: bool,
    stored: Vec<Lane>,
}

impl Opened {
    /// Prepares a workload; each partition of a fetch workload gets `stored_bytes`.
    pub fn new(broker: &Broker, workload: &Workload, pace: Pace, stored_bytes: u64) -> Result<Opened> {
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let topic = format!("bench-{}-{}-{number}", workload.name, std::process::id());
        let mut admin = Admin::connect(broker.address)?;
        if broker.has_topics {
            admin.create_topic(&topic, workload.partitions())?;
        }
        let timestamp_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let stored = match workload.kind {
            Kind::Produce { .. } => Vec::new(),
            Kind::Fetch { .. } => store(broker, workload, &topic, timestamp_ms, stored_bytes)?,
        };
        let log_ends: Vec<i64> = stored.iter().flat_map(Lane::expected_ends).map(|(_, end)| end).collect();
        let lanes = (0..workload.connections)
            .map(|index| {
                let log_end = log_ends.get(index).copied().unwrap_or(0);
                Lane::new(workload, &topic, index, timestamp_ms, log_end)
            })
            .collect();
        let load = Load::connect(broker.address, lanes, pace)?;
        Ok(Opened { course: Course { admin, topic, has_topics: broker.has_topics, stored }, load })
    }
}

impl Course {
    /// Compares what the broker holds with what went in, deletes the topic, and says how many batches were compared.
    pub fn finish(mut self, lanes: &[Lane]) -> Result<u64> {
        let batches_checked = if self.stored.is_empty() {
            check(&mut self.admin, &self.topic, lanes, CHECK_BYTES)?
        } else {
            check(&mut self.admin, &self.topic, &self.stored, usize::MAX)?
        };
        if self.has_topics {
            self.admin.delete_topic(&self.topic)?;
        }
        Ok(batches_checked)
    }
}

/// Writes what a fetch workload reads.
fn store(
    broker: &Broker,
    workload: &Workload,
    topic: &str,
    timestamp_ms: i64,
    stored_bytes: u64,
) -> Result<Vec<Lane>> {
    let lanes: Vec<Lane> = (0..workload.connections)
        .map(|partition_first| Lane::produce(topic, Shape { partition_first, ..STORED }, 1, 5, timestamp_ms))
        .collect();
    let frame_bytes = lanes.first().map_or(1, Lane::frame_bytes) as u64;
    Load::connect(broker.address, lanes, Pace::Closed)?.send(stored_bytes / frame_bytes)
}

fn check(admin: &mut Admin, topic: &str, lanes: &[Lane], bytes_max: usize) -> Result<u64> {
    let sent: HashSet<u64> = lanes.iter().flat_map(|lane| lane.sent().iter().copied()).collect();
    let (mut batches, mut partitions) = (0, 0);
    for (partition, end) in lanes.iter().flat_map(Lane::expected_ends) {
        let found = admin.log_end(topic, partition)?;
        ensure!(found == end, "{topic}-{partition}: the log ends at {found}, acknowledged to {end}");
        if partitions < CHECK_PARTITIONS {
            partitions += 1;
            batches += admin.check(topic, partition, (0, end), bytes_max, &sent)?;
            if bytes_max < usize::MAX {
                batches += check_middle(admin, topic, partition, end, bytes_max, &sent)?;
            }
        }
    }
    Ok(batches)
}

/// Reads back from the middle of a partition. Every batch of a run has as many records as its first: offsets that are a
/// multiple of that begin a batch, and 1000, the largest, is a multiple of all others in use.
fn check_middle(
    admin: &mut Admin,
    topic: &str,
    partition: usize,
    end: i64,
    bytes_max: usize,
    sent: &HashSet<u64>,
) -> Result<u64> {
    let middle = end / 2 / 1000 * 1000;
    admin.check(topic, partition, (middle, end), bytes_max, sent)
}

fn measurement(
    contender: &str,
    workload: &Workload,
    conditions: &Conditions,
    tally: &Tally,
    live: &Live,
    batches_checked: u64,
) -> Measurement {
    let micros = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
    Measurement {
        workload: workload.name.to_owned(),
        contender: contender.to_owned(),
        layout: conditions.layout,
        rate_asked: match conditions.plan.pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some(rate),
        },
        seconds: tally.elapsed.as_secs_f64().max(Duration::from_millis(1).as_secs_f64()),
        requests: tally.requests,
        records: tally.records,
        bytes: tally.bytes,
        errors: tally.error_count(),
        latency_us: Latency {
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p999: micros(0.999),
            max: tally.latency.max() as f64 / 1e3,
        },
        broker: live.began.zip(live.ended).map(|(began, ended)| share(&began, &ended, tally)),
        batches_checked,
    }
}

fn share(began: &Usage, ended: &Usage, tally: &Tally) -> Share {
    let cpu = ended.cpu().saturating_sub(began.cpu()).as_secs_f64();
    Share {
        user_s: ended.user.saturating_sub(began.user).as_secs_f64(),
        system_s: ended.system.saturating_sub(began.system).as_secs_f64(),
        us_per_request: cpu * 1e6 / tally.requests.max(1) as f64,
        s_per_gb: cpu * 1e9 / tally.bytes.max(1) as f64,
        resident_bytes: ended.resident_bytes,
        resident_peak_bytes: ended.resident_peak_bytes,
    }
}
