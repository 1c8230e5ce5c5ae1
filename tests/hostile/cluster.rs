//! Bodies of requests that nodes of a cluster send each other, and of those about the metadata quorum: valid, and from
//! brokers that the controller does not know, so that none has an effect.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::add_raft_voter_request as voters;
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::assign_replicas_to_dirs_request as assigned;
use kafka_protocol::messages::broker_registration_request::{Feature, Listener};
use kafka_protocol::messages::update_raft_voter_request as moves;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AllocateProducerIdsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest,
    BrokerHeartbeatRequest, BrokerId, BrokerRegistrationRequest, EnvelopeRequest, RemoveRaftVoterRequest,
    UpdateRaftVoterRequest,
};
use tidemill::controller::quorum::codec::{self, Body};
use tidemill::wire::outbound::{JOIN_QUORUM, JoinQuorum, RAFT_MESSAGES, RaftMessages};
use uuid::Uuid;

use crate::body::{Bodies, encoded, text};

/// Far from every epoch that a broker has had, by many bits.
const EPOCHS: [i64; 5] = [-1, i64::MIN, i64::MAX, 0x5555_5555_5555_5555, -0x5555_5555_5555_5555];

impl Bodies<'_> {
    /// The body of a request among nodes.
    pub fn cluster(&mut self, key: i16, version: i16) -> Bytes {
        match key {
            56 => self.alter_partition(version),
            58 => self.envelope(version),
            62 => self.register_broker(version),
            63 => {
                let request = BrokerHeartbeatRequest::default()
                    .with_broker_id(self.node())
                    .with_broker_epoch(self.broker_epoch())
                    .with_current_metadata_offset(self.rng.i64(-1..1_000))
                    .with_want_fence(self.rng.bool())
                    .with_want_shut_down(self.rng.bool());
                let dirs = if version >= 1 { vec![Uuid::from_u128(self.rng.u128(..))] } else { Vec::new() };
                encoded(&request.with_offline_log_dirs(dirs), version)
            }
            67 => {
                let request = AllocateProducerIdsRequest::default().with_broker_id(self.node());
                encoded(&request.with_broker_epoch(self.broker_epoch()), version)
            }
            73 => self.assign_replicas(version),
            80 => {
                let listener = voters::Listener::default()
                    .with_name(text(["CONTROLLER", "", "OTHER"][self.rng.usize(..3)]))
                    .with_host(text("nowhere.invalid"))
                    .with_port(self.rng.u16(..));
                let request = AddRaftVoterRequest::default()
                    .with_cluster_id(Some(text("another-cluster")))
                    .with_timeout_ms([0, -1, 1_000][self.rng.usize(..3)])
                    .with_voter_id([-1, 1, 99][self.rng.usize(..3)])
                    .with_voter_directory_id(Uuid::from_u128(u128::from(self.rng.u8(..2))))
                    .with_listeners(vec![listener; self.rng.usize(0..3)]);
                encoded(&request, version)
            }
            81 => {
                let request = RemoveRaftVoterRequest::default()
                    .with_cluster_id(Some(text("another-cluster")))
                    .with_voter_id([-1, 1, 99][self.rng.usize(..3)])
                    .with_voter_directory_id(Uuid::from_u128(u128::from(self.rng.u8(..2))));
                encoded(&request, version)
            }
            82 => {
                let listener = moves::Listener::default()
                    .with_name(text(["CONTROLLER", "", "OTHER"][self.rng.usize(..3)]))
                    .with_host(text("nowhere.invalid"))
                    .with_port(self.rng.u16(..));
                let request = UpdateRaftVoterRequest::default()
                    .with_cluster_id(Some(text("another-cluster")))
                    .with_current_leader_epoch(self.rng.i32(-1..5))
                    .with_voter_id([-1, 1, 99][self.rng.usize(..3)])
                    .with_voter_directory_id(Uuid::from_u128(u128::from(self.rng.u8(..2))))
                    .with_listeners(vec![listener; self.rng.usize(0..3)]);
                encoded(&request, version)
            }
            RAFT_MESSAGES => self.raft_messages(),
            JOIN_QUORUM => {
                let cluster_id = ["", "another-cluster"][self.rng.usize(..2)].to_owned();
                let (node_id, raft_id) = (self.node().0, self.rng.u64(..));
                let host = "nowhere.invalid".to_owned();
                let mut body = BytesMut::new();
                JoinQuorum { cluster_id, node_id, raft_id, host, port: self.rng.u16(..) }.write(&mut body);
                body.freeze()
            }
            _ => panic!("tests/hostile has no body for API {key}: add one"),
        }
    }

    /// Of a registration that is not there.
    fn assign_replicas(&mut self, version: i16) -> Bytes {
        let partition = assigned::PartitionData::default().with_partition_index(self.rng.i32(-1..3));
        let topic = assigned::TopicData::default()
            .with_topic_id(Uuid::from_u128(self.rng.u128(..)))
            .with_partitions(vec![partition; self.rng.usize(0..4)]);
        let directory = assigned::DirectoryData::default()
            .with_id(Uuid::from_u128(u128::from(self.rng.u8(..))))
            .with_topics(vec![topic; self.rng.usize(0..3)]);
        let request = AssignReplicasToDirsRequest::default()
            .with_broker_id(self.node())
            .with_broker_epoch(self.broker_epoch())
            .with_directories(vec![directory; self.rng.usize(0..3)]);
        encoded(&request, version)
    }

    /// Of another cluster, or for another disk than this node's; some of what they say raft would look at.
    fn raft_messages(&mut self) -> Bytes {
        let (from, to) = (self.rng.u64(1..), self.rng.u64(1..));
        let messages = (0..self.rng.usize(0..4)).map(|_| {
            let body = Body::Vote {
                pre: self.rng.bool(),
                index: self.rng.u64(..100),
                log_term: self.rng.u64(..100),
                commit: 0,
                commit_term: 0,
                transfer: self.rng.bool(),
            };
            let noise = (0..self.rng.usize(0..60)).map(|_| self.rng.u8(..)).collect();
            let said = codec::encode(&codec::Message { from, to, term: self.rng.u64(1..1_000), body });
            said.filter(|_| self.rng.bool()).unwrap_or(noise)
        });
        let messages = messages.collect();
        let cluster_id = ["", "another-cluster"][self.rng.usize(..2)].to_owned();
        let mut body = BytesMut::new();
        RaftMessages { cluster_id, node_id: self.node().0, from, to, messages }.write(&mut body);
        body.freeze()
    }

    fn node(&mut self) -> BrokerId {
        BrokerId([1, 1, 9, -1, i32::MAX][self.rng.usize(..5)])
    }

    fn broker_epoch(&mut self) -> i64 {
        EPOCHS[self.rng.usize(..EPOCHS.len())]
    }

    fn alter_partition(&mut self, version: i16) -> Bytes {
        let (_, id, count) = self.topic();
        let partition = PartitionData::default()
            .with_partition_index(self.partition(count))
            .with_leader_epoch(self.rng.i32(-1..3))
            .with_leader_recovery_state(self.rng.i8(-1..3))
            .with_partition_epoch(self.rng.i32(-1..3));
        let wanted = self.rng.usize(0..3);
        let partition = match version {
            2 => partition.with_new_isr(vec![self.node(); wanted]),
            _ => {
                let replica =
                    BrokerState::default().with_broker_id(self.node()).with_broker_epoch(self.broker_epoch());
                partition.with_new_isr_with_epochs(vec![replica; wanted])
            }
        };
        let topic =
            TopicData::default().with_topic_id(id).with_partitions(vec![partition; self.rng.usize(0..3)]);
        let request = AlterPartitionRequest::default()
            .with_broker_id(self.node())
            .with_broker_epoch(self.broker_epoch())
            .with_topics(vec![topic; self.rng.usize(0..3)]);
        encoded(&request, version)
    }

    /// With what a broker may pass on, what it may not, and what is no request.
    fn envelope(&mut self, version: i16) -> Bytes {
        let mut inner = Vec::new();
        let (key, inner_version, body) = match self.rng.u8(..6) {
            0 => (18, 0, Bytes::new()),
            1 => (58, 0, Bytes::from_static(&[1, 0, 1, 0])),
            2 => (99, 0, Bytes::new()),
            3 => (55, 1, self.administration(55, 1)),
            4 => (46, 0, self.administration(46, 0)),
            _ => (43, 1, self.administration(43, 1)),
        };
        inner.extend_from_slice(&i16::to_be_bytes(key));
        inner.extend_from_slice(&i16::to_be_bytes(inner_version));
        inner.extend_from_slice(&self.rng.i32(..).to_be_bytes());
        inner.extend_from_slice(&[0xff, 0xff]);
        if tidemill::wire::api::find(key).is_some_and(|api| api.is_flexible(inner_version) && key != 18) {
            inner.push(0);
        }
        inner.extend_from_slice(&body);
        let addresses: [&[u8]; 4] = [&[127, 0, 0, 1], &[0; 16], &[], &[1, 2, 3]];
        let request = EnvelopeRequest::default()
            .with_request_data(inner.into())
            .with_request_principal(if self.rng.bool() { Some(Bytes::from_static(b"User:a")) } else { None })
            .with_client_host_address(Bytes::from_static(addresses[self.rng.usize(..4)]));
        encoded(&request, version)
    }

    fn register_broker(&mut self, version: i16) -> Bytes {
        let listener = Listener::default()
            .with_name(text(["PLAINTEXT", ""][self.rng.usize(..2)]))
            .with_host(text("nowhere.invalid"))
            .with_port(self.rng.u16(..))
            .with_security_protocol(self.rng.i16(-1..5));
        let feature = Feature::default()
            .with_name(text(["metadata.version", "nonsense"][self.rng.usize(..2)]))
            .with_min_supported_version(self.rng.i16(..))
            .with_max_supported_version(self.rng.i16(..));
        let request = BrokerRegistrationRequest::default()
            .with_broker_id(self.node())
            .with_cluster_id(text(["", "another-cluster"][self.rng.usize(..2)]))
            .with_incarnation_id(Uuid::from_u128(self.rng.u128(..)))
            .with_listeners(vec![listener; self.rng.usize(0..3)])
            .with_features(vec![feature; self.rng.usize(0..3)]);
        let request =
            if version >= 1 { request.with_is_migrating_zk_broker(self.rng.bool()) } else { request };
        let request = if version >= 2 {
            request.with_log_dirs(vec![Uuid::from_u128(u128::from(self.rng.u8(..))); self.rng.usize(0..3)])
        } else {
            request
        };
        let request =
            if version >= 3 { request.with_previous_broker_epoch(self.broker_epoch()) } else { request };
        encoded(&request, version)
    }
}
