//! The workloads as data: every row of the design's table of figures, under the name that the command line,
//! the tables and the result files use.

use serde::{Deserialize, Serialize};

/// What one connection asks for, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Produce requests of one batch for each partition of the request.
    Produce {
        /// Records in each batch.
        records: usize,
        /// Bytes of each record's value.
        record_bytes: usize,
        /// Partitions, so batches, in one request.
        partitions_per_request: usize,
    },
    /// Fetch requests that walk a partition written beforehand, from its start and around again.
    Fetch {
        /// `partition_max_bytes` of each request.
        max_bytes: usize,
    },
}

/// One named workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// What it does, in the words of the table.
    pub title: &'static str,
    /// The requests.
    pub kind: Kind,
    /// Connections, each with partitions of its own.
    pub connections: usize,
    /// Unanswered requests that a connection may have.
    pub in_flight: usize,
    /// Whether a run without flags includes it.
    pub canonical: bool,
    /// Which figure of the row is compared.
    pub figure: Figure,
}

/// The figure by which a row is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// The broker's CPU for one request, in microseconds.
    CpuPerRequest,
    /// The broker's CPU for 10⁹ bytes of batches, in seconds.
    CpuPerGb,
    /// The median latency, in microseconds.
    MedianLatency,
}

impl Figure {
    /// The unit that follows a value in tables.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::CpuPerRequest => "µs CPU/request",
            Figure::CpuPerGb => "s CPU/GB",
            Figure::MedianLatency => "µs p50",
        }
    }
}

impl Workload {
    /// Partitions of the topic.
    pub fn partitions(&self) -> usize {
        self.connections * self.partitions_per_connection()
    }

    /// Partitions that one connection has to itself.
    pub fn partitions_per_connection(&self) -> usize {
        match self.kind {
            Kind::Produce { partitions_per_request, .. } => partitions_per_request,
            Kind::Fetch { .. } => 1,
        }
    }

    /// The workload of that name.
    pub fn named(name: &str) -> Option<Workload> {
        ALL.iter().find(|workload| workload.name == name).copied()
    }
}

const fn produce(records: usize, record_bytes: usize, partitions_per_request: usize) -> Kind {
    Kind::Produce { records, record_bytes, partitions_per_request }
}

/// Every workload, in the order of the design's table.
pub const ALL: [Workload; 8] = [
    Workload {
        name: "produce-small",
        title: "produce, 1 × 100 B a request, 5 in flight",
        kind: produce(1, 100, 1),
        connections: 4,
        in_flight: 5,
        canonical: true,
        figure: Figure::CpuPerRequest,
    },
    Workload {
        name: "produce-medium",
        title: "produce, 100 × 100 B, 5 in flight",
        kind: produce(100, 100, 1),
        connections: 4,
        in_flight: 5,
        canonical: true,
        figure: Figure::CpuPerRequest,
    },
    Workload {
        name: "produce-large",
        title: "produce, 1000 × 1 kB (1 MB), 2 in flight",
        // Kafka refuses a batch above 1,048,588 bytes; 1000 × 1000 B and their framing stay below.
        kind: produce(1000, 1000, 1),
        connections: 4,
        in_flight: 2,
        canonical: true,
        figure: Figure::CpuPerGb,
    },
    Workload {
        name: "produce-64-connections",
        title: "produce, 64 connections and partitions, 10 × 100 B, 1 in flight",
        kind: produce(10, 100, 1),
        connections: 64,
        in_flight: 1,
        canonical: false,
        figure: Figure::CpuPerRequest,
    },
    Workload {
        name: "produce-32-partitions",
        title: "produce, 32 partitions × (10 × 100 B) in one request",
        kind: produce(10, 100, 32),
        connections: 4,
        in_flight: 5,
        canonical: false,
        figure: Figure::CpuPerRequest,
    },
    Workload {
        name: "fetch-1mb",
        title: "fetch, 1 MB",
        kind: Kind::Fetch { max_bytes: 1 << 20 },
        connections: 4,
        in_flight: 1,
        canonical: true,
        figure: Figure::CpuPerGb,
    },
    Workload {
        name: "fetch-16kb",
        title: "fetch, 16 kB",
        kind: Kind::Fetch { max_bytes: 16 << 10 },
        connections: 4,
        in_flight: 1,
        canonical: true,
        figure: Figure::CpuPerRequest,
    },
    Workload {
        name: "one-at-a-time",
        title: "one request at a time (produce, 1 × 100 B), p50",
        kind: produce(1, 100, 1),
        connections: 1,
        in_flight: 1,
        canonical: true,
        figure: Figure::MedianLatency,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_name_of_its_own() {
        for workload in ALL {
            let same = ALL.iter().filter(|other| other.name == workload.name).count();
            assert_eq!(same, 1, "{}", workload.name);
            assert_eq!(Workload::named(workload.name), Some(workload));
        }
        assert_eq!(Workload::named("no-such"), None);
    }

    #[test]
    fn partitions_are_counted_for_all_connections() {
        assert_eq!(Workload::named("produce-32-partitions").map(|w| w.partitions()), Some(128));
        assert_eq!(Workload::named("produce-64-connections").map(|w| w.partitions()), Some(64));
    }
}
