//! What a workload is: a topic, what lies in it beforehand, and roles that write and read. All of it is data; one
//! engine (`trial`) runs every workload, and `workload::catalogue` names them.
//!
//! Invariant: the connections of a role take the topic's partitions in turn, `partitions_each` at a time and around
//! again. Where that gives no partition to two writers, offsets are known when a request is sent; readers at the log's
//! end need that, as it is how a batch that is fetched finds the moment at which it was meant to be sent.

mod catalogue;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tidemill::log::codec::Codec;

pub use catalogue::all;

/// One named workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// What it does, in the words of the table.
    pub title: &'static str,
    /// Who brings the load.
    pub drive: Drive,
    /// Partitions of the topic, or of all topics together.
    pub partitions: usize,
    /// Topics, each with as many of the partitions. Where there are several, a connection has one of its own.
    pub topics: usize,
    /// What lies in each partition beforehand.
    pub stored_bytes: u64,
    /// Settings of the topic, as `key=value` lines.
    pub topic_settings: Vec<String>,
    /// Settings of the broker without which the workload would not show what it is for.
    pub broker_settings: Vec<String>,
    /// Where it belongs.
    pub group: Group,
    /// Which figure of the row is compared.
    pub figure: Figure,
    /// The parameters that a sweep walks unless it is given others, as it takes them.
    pub walk: &'static [&'static str],
}

/// Who brings the load.
#[derive(Clone, Debug, PartialEq)]
pub enum Drive {
    /// The harness's own connections.
    Wire(Vec<Role>),
    /// A foreign client in a process of its own.
    Client(Client),
}

/// Which runs include a workload that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A run without flags, and a comparison.
    Canonical,
    /// A comparison: the further rows of the design's table.
    Table,
    /// None: it has to be named.
    Further,
    /// The comparison through real clients.
    Clients,
    /// The load on clusters.
    Cluster,
}

/// Connections that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// How many.
    pub connections: usize,
    /// Partitions that each of them writes or reads.
    pub partitions_each: usize,
    /// Requests a second over all of them; none is as many as are answered.
    pub rate: Option<f64>,
    /// Without a rate: how many requests they have out together, taking turns; none is as many as each may have.
    pub at_once: Option<usize>,
    /// Where their partitions are, seen from the broker's shard that serves the connection.
    pub reach: Reach,
    /// What they ask for.
    pub work: Work,
}

/// Which of the broker's shards own the partitions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whichever: as it comes.
    Any,
    /// The one that the connection was given to.
    Home,
    /// Another one; with a single shard there is none, and it is as at home.
    Away,
}

/// What one connection asks for, over and over.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Produce requests.
    Write(Writing),
    /// Fetch requests for all of the connection's partitions.
    Read {
        /// `partition_max_bytes` of each request.
        max_bytes: usize,
        /// Where it begins.
        from: ReadFrom,
    },
}

/// Produce requests: batches that were encoded before the clock ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Writing {
    /// Records in each batch.
    pub records: usize,
    /// Bytes of each record's value.
    pub record_bytes: usize,
    /// Partitions, so batches, in one request. A connection with more partitions takes them in turn.
    pub partitions_per_request: usize,
    /// Unanswered requests that a connection may have.
    pub in_flight: usize,
    /// Whether records have keys, of eight bytes.
    pub keyed: bool,
    /// How the records are compressed; compressed values are words, others have no pattern.
    pub codec: Codec,
    /// Whether each connection is a producer with an id and sequence numbers.
    pub idempotent: bool,
    /// -1, 0 or 1, as in the protocol.
    pub acks: i16,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the log start; from the log's end it goes back there.
    Start,
    /// At the log's end: it is timed from the intended sending of a batch until it was fetched.
    End,
}

/// A client that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whose.
    pub tool: Tool,
    /// Whether it reads; otherwise it writes.
    pub reads: bool,
    /// Bytes of each record's value.
    pub record_bytes: usize,
}

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Kafka's own `kafka-producer-perf-test` and `kafka-consumer-perf-test`.
    Java,
    /// librdkafka under confluent-kafka for Python.
    Librdkafka,
}

/// The figure by which a row is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// The broker's CPU for one request, in microseconds.
    CpuPerRequest,
    /// The broker's CPU for one record, in microseconds.
    CpuPerRecord,
    /// The broker's CPU for 10⁹ bytes of batches, in seconds.
    CpuPerGb,
    /// The median latency, in microseconds.
    MedianLatency,
    /// The 99th percentile from the intended sending to the moment when it was fetched, in microseconds.
    EndToEnd,
}

impl Figure {
    /// The unit that follows a value in tables.
    pub fn unit(self) -> &'static str {
        match self {
            Figure::CpuPerRequest => "µs CPU/request",
            Figure::CpuPerRecord => "µs CPU/record",
            Figure::CpuPerGb => "s CPU/GB",
            Figure::MedianLatency => "µs p50",
            Figure::EndToEnd => "µs p99 end to end",
        }
    }

    /// The unit of the rate that stands beside it.
    pub fn rate_unit(self) -> &'static str {
        match self {
            Figure::CpuPerGb => "MB/s",
            Figure::CpuPerRecord => "records/s",
            Figure::CpuPerRequest | Figure::MedianLatency | Figure::EndToEnd => "requests/s",
        }
    }
}

impl Writing {
    /// Batches of that many records with values of that many bytes, one in a request, acks=1.
    pub const fn of(records: usize, record_bytes: usize) -> Writing {
        Writing {
            records,
            record_bytes,
            partitions_per_request: 1,
            in_flight: 5,
            keyed: false,
            codec: Codec::None,
            idempotent: false,
            acks: 1,
        }
    }
}

impl Workload {
    /// The workload of that name.
    pub fn named(name: &str) -> Option<Workload> {
        all().into_iter().find(|workload| workload.name == name)
    }

    /// Partitions of one topic.
    pub fn partitions_each_topic(&self) -> usize {
        self.partitions / self.topics.max(1)
    }

    /// The roles; a client has none.
    pub fn roles(&self) -> &[Role] {
        match &self.drive {
            Drive::Wire(roles) => roles,
            Drive::Client(_) => &[],
        }
    }

    /// The roles, to be changed.
    pub fn roles_mut(&mut self) -> &mut [Role] {
        match &mut self.drive {
            Drive::Wire(roles) => roles,
            Drive::Client(_) => &mut [],
        }
    }

    /// Its writers' requests.
    pub fn writing_mut(&mut self) -> Option<&mut Writing> {
        self.roles_mut().iter_mut().find_map(|role| match &mut role.work {
            Work::Write(writing) => Some(writing),
            Work::Read { .. } => None,
        })
    }

    /// Whether requests of this role are the ones that are counted and paced: the writers', or else the readers'.
    pub fn drives(&self, role: &Role) -> bool {
        role.writes() || !self.roles().iter().any(Role::writes)
    }

    /// Whether somebody reads at the log's end.
    pub fn has_tail(&self) -> bool {
        self.roles().iter().any(|role| matches!(role.work, Work::Read { from: ReadFrom::End, .. }))
    }

    /// Whether records are deleted while it runs.
    pub fn has_retention(&self) -> bool {
        self.topic_settings.iter().any(|line| line.starts_with("retention."))
    }

    /// Whether no partition has two writers.
    pub fn writers_are_apart(&self) -> bool {
        let writers = self.roles().iter().filter(|role| role.writes());
        writers.map(|role| role.connections * role.partitions_each).sum::<usize>() <= self.partitions
    }

    /// Whether the floor can run it: it knows no topics, no producers, and one partition in a fetch.
    pub fn suits_the_floor(&self) -> bool {
        let plain = |role: &Role| match &role.work {
            Work::Write(writing) => !writing.idempotent,
            Work::Read { .. } => self.drives(role) || role.partitions_each == 1,
        };
        matches!(self.drive, Drive::Wire(_))
            && self.topic_settings.is_empty()
            && self.broker_settings.is_empty()
            && self.topics == 1
            && self.roles().iter().all(plain)
    }

    /// Refuses what the engine cannot run or could not check.
    pub fn check(&self) -> Result<()> {
        let name = self.name;
        ensure!(self.partitions > 0 && self.topics > 0, "{name}: a topic has partitions");
        ensure!(
            self.partitions.is_multiple_of(self.topics),
            "{name}: {} topics do not have the same share of {} partitions",
            self.topics,
            self.partitions
        );
        for role in self.roles() {
            let each = role.partitions_each;
            ensure!(role.connections > 0 && each > 0, "{name}: a role has connections and partitions");
            ensure!(
                each <= self.partitions,
                "{name}: a connection has {each} of {} partitions",
                self.partitions
            );
            ensure!(
                self.topics == 1 || (role.writes() && each == self.partitions_each_topic()),
                "{name}: with several topics, each connection writes all of one"
            );
            ensure!(role.at_once != Some(0), "{name}: somebody's turn it is");
            ensure!(
                role.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()),
                "{name}: a rate is above zero"
            );
            ensure!(
                role.reach == Reach::Any || each == 1,
                "{name}: only a connection with one partition has it at home or away"
            );
            let Work::Write(writing) = &role.work else { continue };
            ensure!(writing.records > 0 && writing.in_flight > 0, "{name}: a batch has records, and is sent");
            let together = writing.partitions_per_request;
            ensure!(
                (1..=each).contains(&together),
                "{name}: {together} partitions in a request out of {each}"
            );
            ensure!((-1..=1).contains(&writing.acks), "{name}: acks are -1, 0 or 1");
            let ordered = writing.in_flight <= 5 && writing.acks == -1;
            ensure!(
                !writing.idempotent || ordered,
                "{name}: idempotence needs acks=-1 and at most 5 in flight"
            );
        }
        let timed = !self.has_tail() || self.writers_are_apart();
        ensure!(timed, "{name}: readers at the log's end need a writer of its own for each partition");
        Ok(())
    }
}

impl Role {
    /// Whether it produces.
    pub fn writes(&self) -> bool {
        matches!(self.work, Work::Write(_))
    }

    /// The partitions of connection `index` on a topic with `count`.
    pub fn partitions_of(&self, index: usize, count: usize) -> Vec<usize> {
        let first = index * self.partitions_each;
        (first..first + self.partitions_each).map(|partition| partition % count).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_name_of_its_own_and_can_be_run() {
        for workload in all() {
            let same = all().iter().filter(|other| other.name == workload.name).count();
            assert_eq!(same, 1, "{}", workload.name);
            workload.check().unwrap();
            assert_eq!(Workload::named(workload.name), Some(workload));
        }
        assert_eq!(Workload::named("no-such"), None);
    }

    #[test]
    fn the_design_table_suits_the_floor_and_what_it_cannot_do_does_not() {
        for workload in all() {
            let of_table = matches!(workload.group, Group::Canonical | Group::Table);
            assert!(!of_table || workload.suits_the_floor(), "{}", workload.name);
        }
        for name in ["tail", "retention", "produce-idempotent", "java-producer", "produce-8mb"] {
            assert!(!Workload::named(name).unwrap().suits_the_floor(), "{name}");
        }
    }

    #[test]
    fn connections_take_the_partitions_in_turn_and_around_again() {
        let workload = Workload::named("produce-32-partitions").unwrap();
        let role = workload.roles().first().unwrap();
        assert_eq!(role.partitions_of(1, workload.partitions), (32..64).collect::<Vec<_>>());
        assert!(workload.writers_are_apart());
        let shared = Workload::named("produce-1000-connections").unwrap();
        assert_eq!(shared.roles().first().unwrap().partitions_of(65, shared.partitions), [1]);
        assert!(!shared.writers_are_apart());
    }

    #[test]
    fn what_could_not_be_checked_is_refused() {
        let mut tail = Workload::named("tail").unwrap();
        tail.partitions = 1;
        tail.roles_mut().iter_mut().for_each(|role| role.partitions_each = 1);
        assert!(tail.check().is_err(), "four writers on one partition");
        let mut idempotent = Workload::named("produce-idempotent").unwrap();
        idempotent.writing_mut().unwrap().in_flight = 6;
        assert!(idempotent.check().is_err());
    }
}
