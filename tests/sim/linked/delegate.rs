//! An operator who changes who votes in the metadata quorum: other nodes' disks come in, others go, and those that are
//! lost go first.

use bytes::Bytes;
use kafka_protocol::messages::add_raft_voter_request::Listener;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::ReplicaState;
use kafka_protocol::messages::{
    AddRaftVoterRequest, DescribeQuorumRequest, DescribeQuorumResponse, RemoveRaftVoterRequest,
};
use kafka_protocol::protocol::StrBytes;
use tidemill::controller::quorum::raft_id_of;
use uuid::Uuid;

use super::PASSING;
use crate::client::{Action, Client, Link, Response, Stage, topic_name};
use crate::faults::Fault;
use crate::links::CONTROLLER_PORT;
use crate::plan::Plan;

/// It votes already, it does not vote, or it is the only one that does.
const NOTHING_TO_DO: [i16; 3] = [42, 126, 127];
/// Voters that are left where disks may be lost, and where none are.
const VOTERS_LEAST: (usize, usize) = (3, 2);

#[derive(Debug)]
enum Ask {
    Look,
    Change(Fault),
}

/// The operator.
#[derive(Debug)]
pub struct Delegate {
    link: Link<Ask>,
    hosts: Vec<String>,
    voters_least: usize,
    every_ms: u64,
    not_before_us: u64,
}

impl Delegate {
    /// One that changes something about so often.
    pub fn new(plan: &Plan) -> Self {
        Self {
            link: Link::new("delegate".into()),
            hosts: (0..plan.machines).map(|machine| plan.host_of(machine)).collect(),
            voters_least: if plan.lost_disks > 0.0 { VOTERS_LEAST.0 } else { VOTERS_LEAST.1 },
            every_ms: plan.cluster.voters_every_ms,
            not_before_us: 0,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = self.link.in_flight() > 0 || stage.now_us < self.not_before_us;
        if stage.calm || !self.link.is_up(stage) || waits {
            return;
        }
        self.not_before_us = stage.now_us + stage.random.u64(0..=2 * self.every_ms * 1000);
        let topic = TopicData::default()
            .with_topic_name(topic_name("__cluster_metadata"))
            .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        self.link.send(&request, 2, Some(Ask::Look), stage);
    }

    /// Who votes and who could, as an answer says: changes something about it.
    fn looked(&mut self, answer: &DescribeQuorumResponse, stage: &mut Stage) {
        let Some(found) = answer.topics.first().and_then(|topic| topic.partitions.first()) else { return };
        if answer.error_code != 0 || found.error_code != 0 {
            return;
        }
        let has = |one: &ReplicaState| {
            let disk = stage.disks.get(one.replica_id.0 as usize - 1);
            disk.is_some_and(|disk| raft_id_of(*disk) == raft_id_of(one.replica_directory_id))
        };
        let lost = found.current_voters.iter().find(|voter| !has(voter));
        let others: Vec<i32> =
            found.observers.iter().filter(|one| has(one)).map(|one| one.replica_id.0).collect();
        let voters = &found.current_voters;
        if let Some(lost) = lost {
            return self.remove(lost.replica_id.0, lost.replica_directory_id, stage);
        }
        let adds = voters.len() < self.voters_least || stage.random.bool();
        if adds {
            if let Some(node_id) = stage.random.choice(&others).copied() {
                self.add(node_id, stage);
            }
        } else if voters.len() > self.voters_least
            && let Some(voter) = stage.random.choice(voters)
        {
            self.remove(voter.replica_id.0, voter.replica_directory_id, stage);
        }
    }

    fn add(&mut self, node_id: i32, stage: &mut Stage) {
        let machine = node_id as usize - 1;
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_string(self.hosts[machine].clone()))
            .with_port(CONTROLLER_PORT);
        let request = AddRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_timeout_ms(2_000)
            .with_voter_id(node_id)
            .with_voter_directory_id(stage.disks[machine])
            .with_listeners(vec![listener]);
        self.link.send(&request, 0, Some(Ask::Change(Fault::VoterAdded)), stage);
    }

    fn remove(&mut self, node_id: i32, disk: Uuid, stage: &mut Stage) {
        let request = RemoveRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(node_id)
            .with_voter_directory_id(disk);
        self.link.send(&request, 0, Some(Ask::Change(Fault::VoterRemoved)), stage);
    }

    fn answered(&mut self, response: &Response<Ask>, stage: &mut Stage) {
        let (fault, error) = match response.ask {
            Ask::Look => return self.looked(&response.decode::<DescribeQuorumRequest>(), stage),
            Ask::Change(fault @ Fault::VoterAdded) => {
                (fault, response.decode::<AddRaftVoterRequest>().error_code)
            }
            Ask::Change(fault) => (fault, response.decode::<RemoveRaftVoterRequest>().error_code),
        };
        let known = error == 0 || PASSING.contains(&error) || NOTHING_TO_DO.contains(&error);
        assert!(known, "{fault:?}: error {error}");
        if error == 0 {
            stage.actions.push(Action::Hit(fault));
        }
        if stage.random.u8(0..4) == 0 {
            drop(self.link.close(stage));
        }
    }
}

impl Client for Delegate {
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
