//! What a run came to: the figures of one workload on one broker.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::host::{Layout, Usage};
use crate::load::Flow;
use crate::samples::Series;
use crate::workload::Figure;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// From the intended sending to the answer; none where a foreign client does not tell.
    pub latency_us: Option<Latency>,
    /// From the intended sending of a batch until a reader at the log's end had it.
    #[serde(default)]
    pub end_to_end_us: Option<Latency>,
    /// What readers beside the writers got.
    #[serde(default)]
    pub read: Flow,
    /// Records that retention deleted meanwhile.
    #[serde(default)]
    pub records_deleted: u64,
    /// The broker's CPU, where its process is known.
    pub broker: Option<Share>,
    /// Batches read back and found equal to what was sent.
    pub batches_checked: u64,
    /// What the broker took while nobody asked anything of it, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
    /// The run from moment to moment; empty where a foreign client was the load.
    #[serde(default)]
    pub series: Series,
    /// Every latency to the answer: pairs of the upper end of a bucket in microseconds, and its count.
    #[serde(default)]
    pub histogram: Vec<(f64, u64)>,
    /// Every latency end to end, in the same form.
    #[serde(default)]
    pub end_to_end_histogram: Vec<(f64, u64)>,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are below.
    pub p50: f64,
    /// 90 %; a foreign client may not tell.
    pub p90: Option<f64>,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What the broker's process used in the measured phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel.
    pub system_s: f64,
    /// Microseconds of CPU for one request; 0 where nobody counted requests.
    pub us_per_request: f64,
    /// Microseconds of CPU for one record.
    #[serde(default)]
    pub us_per_record: f64,
    /// Seconds of CPU for 10⁹ bytes of batches.
    pub s_per_gb: f64,
    /// Resident bytes at the end.
    pub resident_bytes: u64,
    /// The most that were ever resident.
    pub resident_peak_bytes: u64,
}

/// The broker at rest: with the run's topics and connections there, before the load and after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rest {
    /// The length of each look, in seconds.
    pub seconds: f64,
    /// Connections of the load.
    pub connections: usize,
    /// Partitions of the run's topics.
    pub partitions: usize,
    /// From the first request for a topic until every partition served, in seconds.
    pub created_s: f64,
    /// Resident bytes before there were topics.
    pub resident_before_bytes: u64,
    /// Resident bytes with the topics.
    pub resident_topics_bytes: u64,
    /// Resident bytes with the topics and the connections, none of which has asked anything yet.
    pub resident_connected_bytes: u64,
    /// Resident bytes after the load and as long a rest.
    pub resident_after_bytes: u64,
    /// CPU as a number of cores, before the load.
    pub cores_before: f64,
    /// CPU as a number of cores, after the load.
    pub cores_after: f64,
    /// What it took to come back, where that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// How long the broker took to come back with the run's topics, in seconds from the start of its process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// How long the clean stop took before.
    pub stop_s: f64,
    /// Until it answered, after a clean stop.
    pub clean_answer_s: f64,
    /// Until every partition served.
    pub clean_served_s: f64,
    /// Until it answered, after it was killed.
    pub killed_answer_s: f64,
    /// Until every partition served.
    pub killed_served_s: f64,
}

impl Rest {
    /// Resident bytes of a connection that has not asked anything yet.
    pub fn bytes_a_new_connection(&self) -> f64 {
        self.resident_connected_bytes.saturating_sub(self.resident_topics_bytes) as f64
            / self.connections.max(1) as f64
    }

    /// Resident bytes of a partition that was not written to.
    pub fn bytes_a_partition(&self) -> f64 {
        self.resident_topics_bytes.saturating_sub(self.resident_before_bytes) as f64
            / self.partitions.max(1) as f64
    }
}

impl Measurement {
    /// The figure by which the workload is judged, if it was measured.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let share = self.broker.as_ref();
        match figure {
            Figure::CpuPerRequest => share.map(|share| share.us_per_request),
            Figure::CpuPerRecord => share.map(|share| share.us_per_record),
            Figure::CpuPerGb => share.map(|share| share.s_per_gb),
            Figure::MedianLatency => self.latency_us.as_ref().map(|latency| latency.p50),
            Figure::EndToEnd => self.end_to_end_us.as_ref().map(|latency| latency.p99),
        }
    }

    /// The latency that a reader of this result cares for: end to end where somebody consumes.
    pub fn latency(&self) -> Option<&Latency> {
        self.end_to_end_us.as_ref().or(self.latency_us.as_ref())
    }

    /// The rate that stands beside that figure, in its [`Figure::rate_unit`].
    pub fn rate(&self, figure: Figure) -> f64 {
        match figure {
            Figure::CpuPerGb => self.megabytes_a_second(),
            Figure::CpuPerRecord => self.record_rate(),
            Figure::CpuPerRequest | Figure::MedianLatency | Figure::EndToEnd => self.request_rate(),
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

impl Latency {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50: micros(0.5),
            p90: Some(micros(0.9)),
            p99: micros(0.99),
            p999: micros(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

impl Share {
    /// What was used between two readings, for so many requests, records and bytes.
    pub fn between(began: &Usage, ended: &Usage, (requests, records, bytes): (u64, u64, u64)) -> Share {
        let cpu = ended.cpu().saturating_sub(began.cpu()).as_secs_f64();
        let each = |count: u64| if count == 0 { 0.0 } else { cpu * 1e6 / count as f64 };
        Share {
            user_s: ended.user.saturating_sub(began.user).as_secs_f64(),
            system_s: ended.system.saturating_sub(began.system).as_secs_f64(),
            us_per_request: each(requests),
            us_per_record: each(records),
            s_per_gb: cpu * 1e9 / bytes.max(1) as f64,
            resident_bytes: ended.resident_bytes,
            resident_peak_bytes: ended.resident_peak_bytes,
        }
    }
}
