//! An operator who lets preferred leaders lead, moves replicas, and has brokers forgotten that are not gone at all, in
//! the middle of everything: who is forgotten while it runs registers again. In the end every partition has as many
//! replicas as at first, and all of them in sync ([`super::admin`] looks).

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, UnregisterBrokerRequest,
};

use super::PASSING;
use crate::client::{Action, Client, Link, Response, Stage, topic_name};
use crate::faults::Fault;
use crate::plan::ClusterPlan;

/// There is nothing to cancel, or nobody to elect: the preferred leader leads, or is not in sync.
const NOTHING_TO_DO: [i16; 4] = [80, 83, 84, 85];
/// Replicas on brokers that are not there.
const INVALID_ASSIGNMENT: i16 = 39;
/// It is the broker that was asked, or no broker that anybody knows.
const NOT_FORGOTTEN: [i16; 2] = [42, 102];

#[derive(Debug)]
enum Ask {
    Elect,
    Move,
    Unregister,
}

/// The operator.
#[derive(Debug)]
pub struct Mover {
    link: Link<Ask>,
    /// Every partition, with how many replicas it has.
    places: Vec<(usize, i32, usize)>,
    every_ms: u64,
    /// Elections of all preferred leaders are moments to overthrow one.
    overthrows: bool,
    unregisters: bool,
    not_before_us: u64,
}

impl Mover {
    /// One that does something to these about so often.
    pub fn new(places: Vec<(usize, i32, usize)>, cluster: &ClusterPlan) -> Self {
        Self {
            link: Link::new("mover".into()),
            places,
            every_ms: cluster.moves_every_ms,
            overthrows: cluster.overthrows,
            unregisters: cluster.unregisters,
            not_before_us: 0,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = self.link.in_flight() > 0 || stage.now_us < self.not_before_us;
        if stage.calm || !self.link.is_up(stage) || waits {
            return;
        }
        self.not_before_us = stage.now_us + stage.random.u64(0..=2 * self.every_ms * 1000);
        match stage.random.u8(0..8) {
            0 if self.unregisters => self.unregister(stage),
            0..=3 => self.elect(stage),
            _ => self.reassign(stage),
        }
    }

    fn unregister(&mut self, stage: &mut Stage) {
        let broker = stage.random.i32(1..=stage.brokers as i32);
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker));
        self.link.send(&request, 0, Some(Ask::Unregister), stage);
    }

    fn elect(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(0..=2);
        let all = stage.random.bool();
        let (topic, partition, _) = *stage.random.choice(&self.places).expect("some");
        let one = TopicPartitions::default()
            .with_topic(topic_name(&stage.names[topic]))
            .with_partitions(vec![partition]);
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(if all { None } else { Some(vec![one]) })
            .with_timeout_ms(3_000);
        self.link.send(&request, version, Some(Ask::Elect), stage);
        if all && self.overthrows {
            stage.actions.push(Action::Overthrow);
        }
    }

    /// Other replicas, or a cancelled move.
    fn reassign(&mut self, stage: &mut Stage) {
        let (topic, partition, count) = *stage.random.choice(&self.places).expect("some");
        let mut brokers: Vec<i32> = (1..=stage.brokers as i32).collect();
        stage.random.shuffle(&mut brokers);
        brokers.truncate(count);
        let cancels = stage.random.u8(0..4) == 0;
        let replicas = (!cancels).then(|| brokers.into_iter().map(BrokerId).collect());
        let moved = ReassignablePartition::default().with_partition_index(partition).with_replicas(replicas);
        let topic = ReassignableTopic::default()
            .with_name(topic_name(&stage.names[topic]))
            .with_partitions(vec![moved]);
        let request =
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(3_000);
        self.link.send(&request, 0, Some(Ask::Move), stage);
    }

    fn answered(&mut self, response: &Response<Ask>, stage: &mut Stage) {
        let (fault, errors) = match response.ask {
            Ask::Elect => {
                let answer = response.decode::<ElectLeadersRequest>();
                let results = answer.replica_election_results.iter();
                let errors = results.flat_map(|topic| &topic.partition_result).map(|part| part.error_code);
                (Fault::Election, std::iter::once(answer.error_code).chain(errors).collect::<Vec<_>>())
            }
            Ask::Move => {
                let answer = response.decode::<AlterPartitionReassignmentsRequest>();
                let results = answer.responses.iter();
                let errors = results.flat_map(|topic| &topic.partitions).map(|part| part.error_code);
                (Fault::Reassignment, std::iter::once(answer.error_code).chain(errors).collect())
            }
            Ask::Unregister => {
                let error = response.decode::<UnregisterBrokerRequest>().error_code;
                (Fault::Unregistration, vec![0, error])
            }
        };
        for error in &errors {
            let known = [0, INVALID_ASSIGNMENT].contains(error)
                || PASSING.contains(error)
                || NOTHING_TO_DO.contains(error)
                || NOT_FORGOTTEN.contains(error) && matches!(response.ask, Ask::Unregister);
            assert!(known, "{fault:?}: error {error}");
        }
        if errors.len() > 1 && errors.iter().skip(1).any(|error| *error == 0) {
            stage.actions.push(Action::Hit(fault));
        }
        if stage.random.u8(0..4) == 0 {
            drop(self.link.close(stage));
        }
    }
}

impl Client for Mover {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(&response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        true
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
