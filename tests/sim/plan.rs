//! What one seed is made of: a random subset of shards, faults, sizes and clients (swarm testing), so that seeds differ
//! in kind and not only in order.

use std::collections::BTreeSet;

use tidemill::request::MoveRule;

use crate::disk::Cut;

/// A producer is forgotten when it was silent for so long.
pub const EXPIRATION_MS: u64 = 3_000;

/// The parameters of one run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The seed that everything follows from.
    pub seed: u64,
    /// Shards of the broker.
    pub shards: u16,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes between index entries.
    pub index_interval_bytes: u64,
    /// Topics that are never deleted: their partitions, and whether `flush.messages` is 1.
    pub topics: Vec<(i32, bool)>,
    /// Topics that are deleted and created again.
    pub churn_topics: usize,
    /// Idempotent producers with acks=all.
    pub idempotent: usize,
    /// Producers with acks=1.
    pub leader_acks: usize,
    /// Producers with acks=0.
    pub no_acks: usize,
    /// Consumers.
    pub consumers: usize,
    /// Records that each producer sends.
    pub records: u64,
    /// Virtual milliseconds with faults.
    pub faulty_ms: u64,
    /// Mean time between crashes, 0 for none.
    pub crash_every_ms: u64,
    /// Share of crashes that cut the power.
    pub power_cuts: f64,
    /// What a power cut takes.
    pub cut: Cut,
    /// Share of crashes that come as a clean stop first.
    pub clean_stops: f64,
    /// Chance that an append is written only in part.
    pub short_appends: f64,
    /// Chance of a file operation to fail with EIO.
    pub io_errors: f64,
    /// Mean time between moments in which the device is full, 0 for none.
    pub full_every_ms: u64,
    /// Appends and cached writes complete inside the turn that asks for them, as in the real shell.
    pub inline: bool,
    /// Mean microseconds of a file operation.
    pub disk_us: u64,
    /// Mean microseconds between an input and the turn that takes it.
    pub turn_us: u64,
    /// Mean microseconds of a frame on its way.
    pub network_us: u64,
    /// Mean time between connections that a client drops, 0 for none.
    pub drop_every_ms: u64,
    /// The wall clock jumps.
    pub clock_jumps: bool,
    /// `log.message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `log.flush.interval.ms`.
    pub flush_ms: i64,
    /// Segments are preallocated.
    pub preallocate: bool,
    /// A deleted topic is made again at once, mostly.
    pub quick_churn: bool,
    /// Time between checkpoints.
    pub checkpoint_ms: u64,
    /// One in so many chances makes a batch: how long producers have something to send.
    pub pace: u8,
    /// Idempotent producers also send to topics that are deleted and made again.
    pub idempotent_churn: bool,
    /// Log directories, each on a device of its own.
    pub directories: usize,
    /// The only device that fails with EIO, if not each of them may.
    pub io_errors_in: Option<usize>,
    /// `segment.ms` and `segment.jitter.ms`: segments roll by time.
    pub segment_ms: (i64, i64),
    /// `segment.index.bytes`: segments roll when an index is full.
    pub segment_index_bytes: u64,
    /// Fetch sessions of the whole node.
    pub session_slots: u32,
    /// Requests of a connection after which it is read no further.
    pub in_flight_max: usize,
    /// Bytes of requests on a shard after which it reads no further.
    pub budget_bytes: usize,
    /// Chance that a client does not read when there is something to read.
    pub slow_readers: f64,
    /// Clients that send garbage.
    pub hostile: usize,
    /// Topics that are never deleted get more partitions, so many each.
    pub more_partitions: i32,
    /// Members of groups, and how many groups they are in.
    pub members: (usize, usize),
    /// Members of groups by the consumer protocol, and how many groups they are in.
    pub consumer_members: (usize, usize),
    /// `offsets.topic.num.partitions`
    pub offsets_partitions: i32,
    /// `offsets.topic.compression.codec`
    pub offsets_codec: i16,
    /// A client alters configurations.
    pub tunes: bool,
    /// `producer.id.expiration.ms`, short; producers give up long before.
    pub expiration_ms: Option<u64>,
    /// What makes logs shorter.
    pub shortens: Shortens,
    /// When connections go to other shards; none is a node's own rule, by which nothing happens in so short a run.
    pub moves: Option<MoveRule>,
    /// Machines, each with a broker.
    pub machines: usize,
    /// The brokers are one cluster; otherwise each is a cluster of its own, with clients of its own.
    pub linked: bool,
    /// Processes dial each other whatever the brokers do.
    pub probes: bool,
    /// Mean time between cuts of the network, 0 for none.
    pub cut_every_ms: u64,
    /// How long a cut lasts, or a machine is far away, at most.
    pub cut_ms: u64,
    /// Mean time between moments in which a machine is far away, 0 for none.
    pub slow_every_ms: u64,
    /// Mean time between pauses of a process, 0 for none.
    pub pause_every_ms: u64,
    /// How long a pause lasts at most.
    pub pause_ms: u64,
    /// Mean time between resets of a link, 0 for none.
    pub reset_every_ms: u64,
    /// How far clocks run too fast or too slow at most, in millionths.
    pub drift_ppm: i64,
    /// Share of power cuts after which a machine comes back with empty disks; for machines of one cluster that lose
    /// what they had one at a time.
    pub lost_disks: f64,
    /// What makes the brokers one cluster.
    pub cluster: ClusterPlan,
    /// Faults that are left out, by their number in the run.
    pub skipped: BTreeSet<u64>,
}

/// The parameters of machines that are one cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterPlan {
    /// The first so many machines vote in the metadata quorum, beside being brokers.
    pub voters: usize,
    /// Replicas and `min.insync.replicas` of each topic, those that are made again last.
    pub replication: Vec<(i16, i32)>,
    /// `broker.heartbeat.interval.ms`
    pub heartbeat_ms: u64,
    /// `broker.session.timeout.ms`
    pub session_ms: u64,
    /// `replica.lag.time.max.ms`
    pub lag_ms: u64,
    /// How long a machine is away after a crash at most.
    pub away_ms: u64,
    /// Mean time between elections that are asked for and replicas that are moved, 0 for none.
    pub moves_every_ms: u64,
    /// Voters are known by their disks, so that others may take their places; every machine has a controller.
    pub has_moving_voters: bool,
    /// Mean time between voters that come or go, 0 for none.
    pub voters_every_ms: u64,
    /// Mean time between changes of a configuration, 0 for none.
    pub alters_every_ms: u64,
    /// `min.insync.replicas` of the offsets topic.
    pub offsets_in_sync: i32,
    /// Nothing is synced before it is acknowledged. One machine at a time loses what is not on its disk, or all of it:
    /// the next one may when every replica is in sync again.
    pub loses_one_at_a_time: bool,
    /// Racks, one machine after the other; none where there are none. Consumers are sent to replicas in theirs.
    pub racks: usize,
    /// The rate of replication is limited now and then.
    pub throttles: bool,
    /// A leader that somebody else takes the place of hears nothing of him, who dies soon.
    pub overthrows: bool,
    /// Brokers are unregistered now and then, whether they run or not.
    pub unregisters: bool,
    /// The last topic that is not made again elects leaders uncleanly.
    pub has_unclean_topic: bool,
}

impl ClusterPlan {
    /// Draws one for so many machines and topics.
    fn draw(machines: usize, topics: usize, r: &mut fastrand::Rng) -> Self {
        let plan = Self::draw_still(machines, topics, r);
        let has_moving_voters = plan.voters > 1 && r.bool();
        let voters_every_ms = *r.choice(&[0, 500, 2_000]).expect("some");
        Self {
            has_moving_voters,
            voters_every_ms: if has_moving_voters { voters_every_ms } else { 0 },
            alters_every_ms: *r.choice(&[0, 30, 300]).expect("some"),
            offsets_in_sync: r.i32(1..=2),
            ..plan
        }
    }

    /// The same for machines that lose what is not synced one at a time: what is acknowledged is on two of three.
    fn losing_one_at_a_time(self) -> Self {
        let replication = self.replication.iter().map(|_| (3, 2)).collect();
        // Mostly all is well, so that there is something to lose.
        let moves_every_ms = if self.moves_every_ms > 0 { 1_500 } else { 0 };
        Self {
            loses_one_at_a_time: true,
            voters: 3,
            replication,
            offsets_in_sync: 2,
            away_ms: 300,
            moves_every_ms,
            ..self
        }
    }

    /// Draws topics that are deleted and made again, in every second seed; how many.
    fn churn(&mut self, seed: u64, machines: usize) -> usize {
        let mut random = fastrand::Rng::with_seed(seed ^ 0xc4_5e_d1);
        let count = *random.choice(&[0, 0, 1, 2]).expect("some");
        self.replication.extend((0..count).map(|_| Self::replication(machines, &mut random)));
        count
    }

    /// Replicas and `min.insync.replicas` of a topic.
    fn replication(machines: usize, r: &mut fastrand::Rng) -> (i16, i32) {
        let replicas = *r.choice(&[1, 2, 3, 3, 3]).expect("some");
        let replicas = machines.min(replicas);
        (replicas as i16, r.i32(1..=replicas as i32))
    }

    fn draw_still(machines: usize, topics: usize, r: &mut fastrand::Rng) -> Self {
        let heartbeat_ms = *r.choice(&[100, 300, 600]).expect("some");
        Self {
            voters: if r.u8(0..4) > 0 { 3.min(machines) } else { 1 },
            replication: (0..topics).map(|_| Self::replication(machines, r)).collect(),
            heartbeat_ms,
            session_ms: heartbeat_ms * r.u64(3..=6),
            lag_ms: *r.choice(&[600, 1_500, 4_000]).expect("some"),
            away_ms: *r.choice(&[300, 3_000, 8_000]).expect("some"),
            moves_every_ms: *r.choice(&[0, 0, 300, 1_500]).expect("some"),
            ..Self::default()
        }
    }
}

/// Who gives up old records in a run: nobody in every second one.
#[derive(Clone, Debug, Default)]
pub struct Shortens {
    /// A client deletes records.
    pub by_request: bool,
    /// `retention.ms` is altered, to small values too.
    pub by_age: bool,
    /// `retention.bytes` is altered, to small values too.
    pub by_size: bool,
    /// `log.retention.check.interval.ms`
    pub check_ms: u64,
}

impl Shortens {
    /// Retention has something to do.
    pub fn retains(&self) -> bool {
        self.by_age || self.by_size
    }

    /// Nothing but `retention.bytes` makes logs shorter.
    pub fn only_by_size(&self) -> bool {
        self.by_size && !self.by_age && !self.by_request
    }

    fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x4e7a1);
        let (by_request, by_age, by_size) = *random
            .choice(&[
                (false, false, false),
                (false, false, false),
                (false, false, false),
                (true, false, false),
                (false, true, false),
                (false, false, true),
                (true, true, true),
            ])
            .expect("some");
        Self { by_request, by_age, by_size, check_ms: *random.choice(&[5, 60, 600]).expect("some") }
    }
}

impl Plan {
    /// The parameters of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x7001_5eed);
        let r = &mut random;
        let often = |r: &mut fastrand::Rng, chance: f64, values: std::ops::RangeInclusive<u64>| {
            let value = r.u64(values);
            if r.f64() < chance { value } else { 0 }
        };
        let topics = r.usize(1..=3);
        let directories = directories_of(seed);
        let clock_jumps = r.f64() < 0.3;
        Self {
            seed,
            shards: r.u16(1..=4),
            segment_bytes: 1 << r.u32(12..=16),
            index_interval_bytes: *r.choice(&[0, 100, 1000, 4096]).expect("some"),
            topics: (0..topics).map(|_| (r.i32(1..=4), r.bool())).collect(),
            churn_topics: if r.f64() < 0.5 { r.usize(1..=2) } else { 0 },
            idempotent: r.usize(1..=3),
            leader_acks: r.usize(0..=2),
            no_acks: r.usize(0..=1),
            consumers: r.usize(1..=4),
            records: r.u64(30..=600),
            faulty_ms: r.u64(3_000..=12_000),
            crash_every_ms: often(r, 0.8, 300..=4_000),
            power_cuts: *r.choice(&[0.0, 0.5, 1.0]).expect("some"),
            cut: Cut {
                sector_bytes: if r.bool() { 512 } else { 4096 },
                kept: *r.choice(&[0.0, 0.5, 0.9, 1.0]).expect("some"),
                metadata_kept: *r.choice(&[0.0, 0.5, 1.0]).expect("some"),
            },
            clean_stops: *r.choice(&[0.0, 0.3]).expect("some"),
            short_appends: if r.f64() < 0.4 { 0.03 } else { 0.0 },
            io_errors: if r.f64() < 0.3 { 0.001 } else { 0.0 },
            full_every_ms: often(r, 0.3, 300..=3_000),
            inline: r.bool(),
            disk_us: *r.choice(&[50, 500, 5_000]).expect("some"),
            turn_us: *r.choice(&[20, 200]).expect("some"),
            network_us: *r.choice(&[50, 1_000, 10_000]).expect("some"),
            drop_every_ms: often(r, 0.5, 300..=3_000),
            clock_jumps,
            log_append_time: r.f64() < 0.2,
            flush_ms: *r.choice(&[i64::MAX, i64::MAX, 400]).expect("some"),
            preallocate: r.f64() < 0.2,
            quick_churn: r.bool(),
            checkpoint_ms: *r.choice(&[100, 700, 3_000]).expect("some"),
            pace: *r.choice(&[3, 15, 50]).expect("some"),
            idempotent_churn: r.bool(),
            directories,
            segment_ms: segment_ms(r),
            segment_index_bytes: *r.choice(&[10 << 20, 10 << 20, 200, 40]).expect("some"),
            session_slots: *r.choice(&[1_000, 1_000, 1, 4]).expect("some"),
            in_flight_max: *r.choice(&[100, 100, 5, 1]).expect("some"),
            budget_bytes: *r.choice(&[usize::MAX, usize::MAX, 4_000, 100]).expect("some"),
            slow_readers: *r.choice(&[0.0, 0.0, 0.05, 0.4]).expect("some"),
            hostile: *r.choice(&[0, 0, 1, 2]).expect("some"),
            more_partitions: *r.choice(&[0, 0, 1, 3]).expect("some"),
            tunes: tunes(seed),
            shortens: Shortens::of(seed),
            moves: moves(seed),
            expiration_ms: (r.u8(0..8) == 0 && !clock_jumps).then_some(EXPIRATION_MS),
            io_errors_in: (directories > 1 && r.u8(0..3) > 0).then(|| r.usize(0..directories)),
            members: *r.choice(&[(0, 1), (1, 1), (3, 1), (3, 2), (5, 2)]).expect("some"),
            consumer_members: consumer_members(seed),
            offsets_partitions: r.i32(1..=4),
            offsets_codec: *r.choice(&[0, 0, 0, 1, 2, 3, 4]).expect("some"),
            machines: 1,
            ..Self::default()
        }
    }

    /// The same on several machines, with what can go wrong between them. Their brokers do not know each other yet, so
    /// each has a share of the records.
    pub fn on_machines(self, machines: usize) -> Self {
        if machines <= 1 {
            return self;
        }
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0xc1_05_7e_2d);
        let r = &mut random;
        let mut often = |values: std::ops::RangeInclusive<u64>| {
            let value = r.u64(values);
            if r.u8(0..3) > 0 { value } else { 0 }
        };
        Self {
            machines,
            probes: true,
            cut_every_ms: often(300..=3_000),
            slow_every_ms: often(300..=4_000),
            pause_every_ms: often(300..=4_000),
            reset_every_ms: often(100..=2_000),
            cut_ms: *r.choice(&[200, 2_000, 6_000]).expect("some"),
            pause_ms: *r.choice(&[50, 1_000, 5_000]).expect("some"),
            drift_ppm: *r.choice(&[0, 200, 20_000]).expect("some"),
            records: self.records / machines as u64 + 10,
            ..self
        }
    }

    /// The same on machines that are one cluster.
    pub fn linked_on(self, machines: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0x11_4e_d0_05);
        let r = &mut random;
        let mut cluster = ClusterPlan::draw(machines, self.topics.len(), r);
        let churn_topics = cluster.churn(self.seed, machines);
        let cuts_power = self.power_cuts > 0.0;
        if cuts_power && r.bool() && machines >= 3 {
            cluster = cluster.losing_one_at_a_time();
        }
        cluster.overthrows = cluster.moves_every_ms > 0 && overthrows(self.seed);
        (cluster.unregisters, cluster.has_unclean_topic) = unregisters_and_unclean(self.seed);
        (cluster.racks, cluster.throttles) = racks_and_throttles(self.seed);
        let one_at_a_time = cluster.loses_one_at_a_time;
        let lost_disks = if one_at_a_time { *r.choice(&[0.0, 0.5, 0.5]).expect("some") } else { 0.0 };
        if lost_disks > 0.0 && cluster.has_moving_voters {
            // Somebody has to bring new disks in.
            cluster.voters_every_ms = cluster.voters_every_ms.max(500);
        }
        let has_groups = r.bool();
        // A power cut takes what is not synced: everything is, or only one machine loses anything.
        let flushed = |own: bool| if one_at_a_time { false } else { cuts_power || own };
        let topics = self.topics.iter().map(|(partitions, own)| (*partitions, flushed(*own))).collect();
        Self {
            linked: true,
            probes: false,
            cluster,
            topics,
            lost_disks,
            power_cuts: if one_at_a_time { 1.0 } else { self.power_cuts },
            crash_every_ms: if one_at_a_time { self.crash_every_ms.max(1_500) } else { self.crash_every_ms },
            churn_topics,
            consumers: self.consumers + 2,
            hostile: 0,
            more_partitions: more_partitions(self.seed),
            members: if has_groups { self.members } else { (0, 1) },
            consumer_members: if has_groups { self.consumer_members } else { (0, 1) },
            tunes: false,
            shortens: if takes_away(self.seed) {
                self.shortens.clone()
            } else {
                Shortens { check_ms: self.shortens.check_ms, ..Shortens::default() }
            },
            expiration_ms: None,
            // What was read is what was sent, whichever machine stamped it.
            log_append_time: false,
            session_slots: 1_000,
            // What waits for other nodes holds its share for long.
            budget_bytes: self.budget_bytes.max(4_000),
            // A device that fails takes its process down, and nobody may go down beside one that has lost something.
            io_errors: if one_at_a_time { 0.0 } else { self.io_errors },
            full_every_ms: if one_at_a_time { 0 } else { self.full_every_ms },
            ..self.on_machines(machines.max(2))
        }
    }

    /// The topic of a cluster that elects leaders uncleanly: not the one that groups read.
    pub fn unclean_topic(&self) -> Option<usize> {
        let last = self.topics.len() - 1;
        (self.linked && self.cluster.has_unclean_topic && last > 0).then_some(last)
    }

    /// Whether a controller runs on a machine.
    pub fn has_controller(&self, machine: usize) -> bool {
        !self.linked || machine < self.cluster.voters || self.cluster.has_moving_voters
    }

    /// Everything is synced before it is acknowledged, the offsets of groups too.
    pub fn syncs_all(&self) -> bool {
        self.linked && self.power_cuts > 0.0 && !self.cluster.loses_one_at_a_time
    }

    /// The machine of a broker.
    pub fn machine_of(&self, node_id: i32) -> usize {
        if self.linked { node_id as usize - 1 } else { 0 }
    }

    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        if self.linked { 1 } else { self.machines }
    }

    /// The broker's id on a machine.
    pub fn node_id_of(&self, machine: usize) -> i32 {
        if self.linked { machine as i32 + 1 } else { 1 }
    }

    /// The name under which a machine is reached.
    pub fn host_of(&self, machine: usize) -> String {
        if self.machines == 1 { "localhost".into() } else { format!("machine-{machine}") }
    }
}

/// How many log directories a seed has: half of them one.
fn directories_of(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed ^ 0xd1c);
    if random.bool() { 1 } else { random.usize(2..=3) }
}

/// Members of the consumer protocol, in half of the seeds.
fn consumer_members(seed: u64) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x848);
    *random.choice(&[(0, 1), (0, 1), (1, 1), (3, 1), (4, 2)]).expect("some")
}

/// Segments roll by time in every third seed.
fn segment_ms(random: &mut fastrand::Rng) -> (i64, i64) {
    if random.u8(0..3) > 0 {
        return (i64::MAX, 0);
    }
    (random.i64(200..3_000), *random.choice(&[0, 500, 5_000]).expect("some"))
}

/// When connections go to other shards: often, in two of three seeds.
fn moves(seed: u64) -> Option<MoveRule> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x60_1e_d0);
    let rule = MoveRule {
        window_ms: *random.choice(&[1, 10, 100]).expect("some"),
        parts_min: *random.choice(&[1, 3]).expect("some"),
        rest_ms: *random.choice(&[0, 50, 1_000]).expect("some"),
    };
    (random.u8(0..3) > 0).then_some(rule)
}

/// Whether leaders are overthrown in a seed where others are elected: in two of three.
fn overthrows(seed: u64) -> bool {
    fastrand::Rng::with_seed(seed ^ 0x0fe1).u8(0..3) > 0
}

/// Whether records are deleted or grow too old in a seed of machines that are one cluster: in every second one that
/// has somebody who does so.
fn takes_away(seed: u64) -> bool {
    fastrand::Rng::with_seed(seed ^ 0xde1e7e).bool()
}

/// Whether brokers are unregistered in a seed where somebody moves things, and whether a topic elects uncleanly where
/// there are several.
fn unregisters_and_unclean(seed: u64) -> (bool, bool) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x0b5_0e1e);
    (random.u8(0..3) == 0, random.bool())
}

/// How many partitions topics of one cluster get beside those at first.
fn more_partitions(seed: u64) -> i32 {
    *fastrand::Rng::with_seed(seed ^ 0x9a_87_17).choice(&[0, 0, 1, 2]).expect("some")
}

/// How many racks machines of one cluster are in, and whether replication is throttled in a seed.
fn racks_and_throttles(seed: u64) -> (usize, bool) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x4acc5);
    (*random.choice(&[0, 0, 2, 3]).expect("some"), random.u8(0..3) == 0)
}

/// Whether configurations are altered in a seed: in every second one.
fn tunes(seed: u64) -> bool {
    fastrand::Rng::with_seed(seed ^ 0x703e).bool()
}
