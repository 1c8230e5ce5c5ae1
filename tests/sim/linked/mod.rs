//! Clients of machines that are one cluster. Each works on one partition and follows its leader from broker to
//! broker.
//!
//! | file | what it is |
//! |---|---|
//! | [`pilot`] | finds a partition's leader, and goes where it went |
//! | [`admin`] | creates the topics, adds partitions, and sees in the end that every replica is in sync |
//! | [`churner`] | deletes topics and makes them again |
//! | [`mover`] | elects preferred leaders, moves replicas, has brokers forgotten |
//! | [`clerk`] | alters a configuration, and sees in the end that what was acknowledged is so |
//! | [`eraser`] | deletes records of one partition |
//! | [`delegate`] | changes who votes in the metadata quorum |
//! | [`producer`], [`consumer`] | write and read one partition |
//! | [`auditor`] | reads one partition whole in the end |
//!
//! Members of groups are those of one broker; here they go to their coordinator.

pub mod admin;
pub mod auditor;
pub mod churner;
pub mod clerk;
pub mod consumer;
pub mod delegate;
pub mod eraser;
pub mod mover;
pub mod pilot;
pub mod producer;

use bytes::{Buf, Bytes};
use tidemill::log::batch::BatchInfo;

use self::admin::{LinkedAdmin, Wanted};
use self::auditor::LinkedAuditor;
use self::churner::Churner;
use self::clerk::Clerk;
use self::consumer::LinkedConsumer;
use self::delegate::Delegate;
use self::eraser::LinkedEraser;
use self::mover::Mover;
use self::producer::LinkedProducer;
use crate::group_auditor::GroupAuditor;
use crate::history::{Kind, Place};
use crate::membership;
use crate::plan::Plan;
use crate::seats::Topic;
use crate::tuner::{AGE_KEY, SIZE_KEY};
use crate::world::{World, topics_of};

/// Errors that mean nothing but that it is to be tried again, here or elsewhere: unknown topic, no leader, not the
/// leader, too late, no coordinator yet, too few in sync, storage, leader epochs, offsets not known yet, topic ids.
pub const PASSING: [i16; 16] = [3, 5, 6, 7, 14, 15, 16, 19, 20, 41, 56, 74, 75, 78, 100, 103];

/// A leader has no batches of a later epoch than its own: what it gives to somebody who counts on that one shows none.
pub fn check_epochs(place: Place, epoch: i32, bytes: &Bytes) {
    let mut rest = bytes.clone();
    while let Ok(info) = BatchInfo::parse(&rest) {
        assert!(
            epoch < 0 || info.leader_epoch <= epoch,
            "unfenced: {place:?} gave a batch of epoch {} to somebody who counts on {epoch}",
            info.leader_epoch
        );
        rest.advance((info.length_bytes as usize).clamp(1, rest.len()));
    }
}

/// What makes the topics' logs shorter, as keys and values of their configuration.
fn shortening(plan: &Plan) -> Vec<(&'static str, &'static str)> {
    let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x5407);
    let by_age = plan.shortens.by_age.then_some(AGE_KEY);
    let by_size = plan.shortens.by_size.then_some(SIZE_KEY);
    let keys = by_age.into_iter().chain(by_size);
    keys.map(|(key, values)| (key, *random.choice(values).expect("some"))).collect()
}

/// The topics as they shall be; those that are made again come last, and keep everything.
fn wanted(plan: &Plan) -> Vec<Wanted> {
    let configs = |at: usize| match plan.unclean_topic() {
        Some(unclean) if at == unclean => vec![("unclean.leader.election.enable", "true")],
        _ if at < plan.topics.len() => shortening(plan),
        _ => Vec::new(),
    };
    let wanted =
        |(at, ((partitions, flushed, churns), (replicas, least))): (usize, (Topic, &(i16, i32)))| Wanted {
            partitions,
            grown: if churns { partitions } else { partitions + plan.more_partitions },
            flushed,
            replicas: *replicas,
            in_sync_least: *least,
            configs: configs(at),
        };
    topics_of(plan).into_iter().zip(&plan.cluster.replication).enumerate().map(wanted).collect()
}

impl World {
    /// Everyone who works with the cluster until the end.
    pub fn seat_linked(&mut self) {
        let plan = self.plan.clone();
        let mut lasting = wanted(&plan);
        let churning = lasting.split_off(plan.topics.len());
        self.seat(0, Box::new(LinkedAdmin::new(lasting, plan.lost_disks > 0.0)));
        if !churning.is_empty() {
            let rest_ms = if plan.quick_churn { 60 } else { 400 };
            self.seat(0, Box::new(Churner::new((plan.topics.len()..).zip(churning).collect(), rest_ms)));
        }
        let all = self.linked_places();
        if plan.cluster.moves_every_ms > 0 {
            let replicas = |topic: usize| plan.cluster.replication[topic].0 as usize;
            let places = all.iter().map(|(topic, partition)| (*topic, *partition, replicas(*topic)));
            self.seat(0, Box::new(Mover::new(places.collect(), &plan.cluster)));
        }
        if plan.cluster.voters_every_ms > 0 {
            self.seat(0, Box::new(Delegate::new(&plan)));
        }
        if plan.cluster.alters_every_ms > 0 {
            let throttled = if plan.cluster.throttles { plan.machines } else { 0 };
            self.seat(0, Box::new(Clerk::new(plan.cluster.alters_every_ms, throttled)));
        }
        let clean: Vec<_> =
            all.iter().copied().filter(|place| Some(place.0) != plan.unclean_topic()).collect();
        let lasting = clean.iter().filter(|place| place.0 < plan.topics.len());
        for place in lasting.filter(|_| plan.shortens.by_request) {
            self.seat(0, Box::new(LinkedEraser::new(*place)));
        }
        self.seat_members(0);
        let kinds = [
            (Kind::Idempotent, 2 * plan.idempotent),
            (Kind::LeaderAcks, plan.leader_acks),
            (Kind::NoAcks, plan.no_acks),
        ];
        for (kind, count) in kinds {
            for _ in 0..count {
                let (topic, partition) = *self.random.clients.choice(&all).expect("some");
                // Nobody can promise anything where leaders are elected uncleanly.
                let is_unclean = plan.unclean_topic() == Some(topic) && kind == Kind::Idempotent;
                let kind = if is_unclean { Kind::LeaderAcks } else { kind };
                let (records, pace) = (plan.records, plan.pace);
                let producer = self.with_stage(0, |stage| {
                    LinkedProducer::new(kind, (topic, partition), (records, pace), stage)
                });
                self.seat(0, Box::new(producer));
            }
        }
        for number in 0..plan.consumers {
            let (topic, partition) = *self.random.clients.choice(&clean).expect("some");
            let rack = membership::rack_of(&plan, number);
            let consumer =
                self.with_stage(0, |stage| LinkedConsumer::new(number, (topic, partition), rack, stage));
            self.seat(0, Box::new(consumer));
        }
    }

    /// Everyone who reads everything in the end.
    pub fn seat_linked_auditors(&mut self) {
        self.seat(0, Box::new(GroupAuditor::new()));
        for (topic, partition) in self.linked_places() {
            let is_unclean = self.plan.unclean_topic() == Some(topic);
            self.seat(0, Box::new(LinkedAuditor::new((topic, partition), is_unclean)));
        }
    }

    /// Every partition of every topic, as it is in the end.
    fn linked_places(&self) -> Vec<(usize, i32)> {
        let topics = wanted(&self.plan).into_iter().enumerate();
        topics.flat_map(|(topic, wanted)| (0..wanted.grown).map(move |at| (topic, at))).collect()
    }
}
