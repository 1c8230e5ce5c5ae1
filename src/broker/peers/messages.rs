//! What this node says to the active controller in Kafka's own messages, and what comes back.
//!
//! Bodies are read through [`outbound::decode`]: a controller is believed no more than a client. An answer that makes
//! no sense is an error here; its link is closed.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_partition_request::{
    BrokerState, PartitionData as AskedPartition, TopicData as AskedTopic,
};
use kafka_protocol::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData as PlacedPartition, TopicData as PlacedTopic,
};
use kafka_protocol::messages::broker_registration_request::{Feature, Listener};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerId, BrokerRegistrationRequest, BrokerRegistrationResponse,
    CreateTopicsRequest, CreateTopicsResponse, EnvelopeRequest, EnvelopeResponse, TopicName,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse,
};
use uuid::Uuid;

use super::fetcher::ReplicaKey;
use super::heart::Beat;
use super::isr::Altered;
use super::joining::Joining;
use crate::controller::directories::Assigned;
use crate::controller::features::KRAFT_VERSION;
use crate::controller::request::{CreatedTopic, NewTopic, TopicAnswer};
use crate::controller::{ApiError, ControllerAnswer, Endpoint, HeartbeatAnswer, Members};
use crate::partition::{IsrChange, IsrState, LeaderRecovery};
use crate::request::Forwarded;
use crate::security::Principal;
use crate::wire::outbound::{self, JOIN_QUORUM, JOIN_QUORUM_VERSION, JoinQuorum, OutboundRequest};
use crate::wire::primitive::Writer;
use crate::wire::{ErrorCode, StrBytes, WireError};

const REGISTRATION_VERSION: i16 = 4;
const HEARTBEAT_VERSION: i16 = 1;
const ALTER_PARTITION_VERSION: i16 = 3;
const ASSIGN_VERSION: i16 = 0;
const ENVELOPE_VERSION: i16 = 0;
const ALLOCATE_VERSION: i16 = 0;
const CREATE_TOPICS_VERSION: i16 = 7;
const UPDATE_VOTER_VERSION: i16 = 0;
/// Key of Envelope.
const ENVELOPE: i16 = 58;

/// Who this broker is, as it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its node id.
    pub node_id: i32,
    /// The cluster that it belongs to.
    pub cluster_id: Arc<str>,
    /// New with every start of its process.
    pub incarnation: Uuid,
    /// Where it is reached.
    pub listeners: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<Arc<str>>,
    /// Ids of its log directories.
    pub directories: Vec<Uuid>,
    /// Features and the levels of them that it knows, lowest and highest.
    pub features: Vec<(String, i16, i16)>,
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn checked(number: i16) -> Result<(), ErrorCode> {
    ErrorCode::try_from_code(number).map_or(Ok(()), Err)
}

/// JoinQuorum as a frame.
pub fn join(who: &Registration, joining: &Joining, correlation_id: i32) -> Bytes {
    let endpoint = joining.endpoint();
    let request = JoinQuorum {
        cluster_id: who.cluster_id.to_string(),
        node_id: who.node_id,
        raft_id: joining.raft_id(),
        host: endpoint.host.to_string(),
        port: endpoint.port,
    };
    let mut frame = OutboundRequest::begin(JOIN_QUORUM, JOIN_QUORUM_VERSION, correlation_id, 64);
    request.write(frame.body());
    frame.finish()
}

/// Whether the node is a member of the quorum now, and who is; who does not lead may tell of the members, too.
pub fn joined(body: &Bytes) -> Result<(Result<(), ErrorCode>, Option<Members>), WireError> {
    let (error, told) = outbound::parse_raft_answer(body)?;
    let members = told.first().and_then(|bytes| Members::from_bytes(bytes));
    let is_whole = |()| members.is_some().then_some(()).ok_or(ErrorCode::UnknownServerError);
    Ok((checked(error).and_then(is_whole), members))
}

/// UpdateRaftVoter as a frame.
pub fn update_voter(
    who: &Registration,
    joining: &Joining,
    leader_epoch: i32,
    correlation_id: i32,
) -> Result<Bytes, WireError> {
    use kafka_protocol::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
    let endpoint = joining.endpoint();
    let listener = Listener::default()
        .with_name(text(&endpoint.name))
        .with_host(text(&endpoint.host))
        .with_port(endpoint.port);
    let kraft = who.features.iter().find(|(name, ..)| name == KRAFT_VERSION);
    let (least, most) = kraft.map_or((0, 0), |(_, least, most)| (*least, *most));
    let request = UpdateRaftVoterRequest::default()
        .with_cluster_id(Some(text(&who.cluster_id)))
        .with_current_leader_epoch(leader_epoch)
        .with_voter_id(who.node_id)
        // The half of a directory's id that the quorum knows a voter by.
        .with_voter_directory_id(Uuid::from_u64_pair(0, joining.raft_id()))
        .with_listeners(vec![listener])
        .with_k_raft_version_feature(
            KRaftVersionFeature::default().with_min_supported_version(least).with_max_supported_version(most),
        );
    outbound::encode(&request, UPDATE_VOTER_VERSION, correlation_id)
}

/// Whether the leader knows where the voter is.
pub fn voter_updated(body: &Bytes) -> Result<Result<(), ErrorCode>, WireError> {
    let answer: UpdateRaftVoterResponse = outbound::decode(body, UPDATE_VOTER_VERSION)?;
    Ok(checked(answer.error_code))
}

/// What the heart has to say, as a frame; `offline` are the log directories that have failed.
pub fn beat(
    who: &Registration,
    offline: &[Uuid],
    beat: Beat,
    correlation_id: i32,
) -> Result<Bytes, WireError> {
    match beat {
        Beat::Register { previous_epoch } => register(who, previous_epoch, correlation_id),
        Beat::Heartbeat { epoch, applied_version, wants_fence, wants_shutdown } => {
            let (known, wants) = ((epoch, applied_version), (wants_fence, wants_shutdown));
            heartbeat(who.node_id, offline, known, wants, correlation_id)
        }
    }
}

/// BrokerRegistration as a frame.
pub fn register(who: &Registration, previous_epoch: i64, correlation_id: i32) -> Result<Bytes, WireError> {
    let listener = |endpoint: &Endpoint| {
        let listener = Listener::default().with_name(text(&endpoint.name)).with_host(text(&endpoint.host));
        listener.with_port(endpoint.port).with_security_protocol(endpoint.security_protocol)
    };
    let feature = |(name, least, most): &(String, i16, i16)| {
        let feature = Feature::default().with_name(text(name));
        feature.with_min_supported_version(*least).with_max_supported_version(*most)
    };
    let request = BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(who.node_id))
        .with_cluster_id(text(&who.cluster_id))
        .with_incarnation_id(who.incarnation)
        .with_listeners(who.listeners.iter().map(listener).collect())
        .with_features(who.features.iter().map(feature).collect())
        .with_rack(who.rack.as_deref().map(text))
        .with_log_dirs(who.directories.clone())
        .with_previous_broker_epoch(previous_epoch);
    outbound::encode(&request, REGISTRATION_VERSION, correlation_id)
}

/// The broker epoch that the controller gave.
pub fn registered(body: &Bytes) -> Result<Result<i64, ErrorCode>, WireError> {
    let answer: BrokerRegistrationResponse = outbound::decode(body, REGISTRATION_VERSION)?;
    Ok(checked(answer.error_code).map(|()| answer.broker_epoch))
}

/// BrokerHeartbeat as a frame; `offline` as in [`beat`].
pub fn heartbeat(
    node_id: i32,
    offline: &[Uuid],
    (epoch, applied_version): (i64, u64),
    (wants_fence, wants_shutdown): (bool, bool),
    correlation_id: i32,
) -> Result<Bytes, WireError> {
    let request = BrokerHeartbeatRequest::default()
        .with_broker_id(BrokerId(node_id))
        .with_broker_epoch(epoch)
        .with_current_metadata_offset(i64::try_from(applied_version).unwrap_or(i64::MAX))
        .with_want_fence(wants_fence)
        .with_want_shut_down(wants_shutdown)
        .with_offline_log_dirs(offline.to_vec());
    outbound::encode(&request, HEARTBEAT_VERSION, correlation_id)
}

/// What the controller said to a heartbeat.
pub fn beaten(body: &Bytes) -> Result<Result<HeartbeatAnswer, ErrorCode>, WireError> {
    let answer: BrokerHeartbeatResponse = outbound::decode(body, HEARTBEAT_VERSION)?;
    Ok(checked(answer.error_code).map(|()| HeartbeatAnswer {
        is_caught_up: answer.is_caught_up,
        is_fenced: answer.is_fenced,
        should_shut_down: answer.should_shut_down,
    }))
}

/// AlterPartition as a frame.
pub fn alter_partition(
    node_id: i32,
    epoch: i64,
    changes: &BTreeMap<ReplicaKey, IsrChange>,
    correlation_id: i32,
) -> Result<Bytes, WireError> {
    let mut topics: Vec<AskedTopic> = Vec::new();
    for ((topic_id, index), change) in changes {
        let state = |(id, epoch): &(i32, i64)| {
            BrokerState::default().with_broker_id(BrokerId(*id)).with_broker_epoch(*epoch)
        };
        let partition = AskedPartition::default()
            .with_partition_index(*index)
            .with_leader_epoch(change.leader_epoch)
            .with_new_isr_with_epochs(change.isr.iter().map(state).collect())
            .with_leader_recovery_state(i8::from(change.recovery == LeaderRecovery::Recovering))
            .with_partition_epoch(change.partition_epoch);
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                let topic = AskedTopic::default().with_topic_id(*topic_id);
                topics.push(topic.with_partitions(vec![partition]));
            }
        }
    }
    let request = AlterPartitionRequest::default()
        .with_broker_id(BrokerId(node_id))
        .with_broker_epoch(epoch)
        .with_topics(topics);
    outbound::encode(&request, ALTER_PARTITION_VERSION, correlation_id)
}

/// What became of each change.
pub fn altered(body: &Bytes) -> Result<Result<Vec<Altered>, ErrorCode>, WireError> {
    let answer: AlterPartitionResponse = outbound::decode(body, ALTER_PARTITION_VERSION)?;
    if let Err(error) = checked(answer.error_code) {
        return Ok(Err(error));
    }
    let mut altered = Vec::new();
    for topic in answer.topics {
        for partition in topic.partitions {
            let is_recovering = partition.leader_recovery_state == 1;
            let state = || IsrState {
                leader: partition.leader_id.0,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                isr: partition.isr.iter().map(|id| id.0).collect(),
                recovery: if is_recovering { LeaderRecovery::Recovering } else { LeaderRecovery::Recovered },
            };
            let result = checked(partition.error_code).map(|()| state());
            altered.push(((topic.topic_id, partition.partition_index), result));
        }
    }
    Ok(Ok(altered))
}

/// AssignReplicasToDirs as a frame.
pub fn assign_replicas(
    node_id: i32,
    epoch: i64,
    replicas: &BTreeMap<ReplicaKey, Uuid>,
    correlation_id: i32,
) -> Result<Bytes, WireError> {
    let mut by_directory: BTreeMap<Uuid, Vec<PlacedTopic>> = BTreeMap::new();
    for ((topic_id, index), directory) in replicas {
        let partition = PlacedPartition::default().with_partition_index(*index);
        let topics = by_directory.entry(*directory).or_default();
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                let topic = PlacedTopic::default().with_topic_id(*topic_id);
                topics.push(topic.with_partitions(vec![partition]));
            }
        }
    }
    let directory = |(id, topics)| DirectoryData::default().with_id(id).with_topics(topics);
    let request = AssignReplicasToDirsRequest::default()
        .with_broker_id(BrokerId(node_id))
        .with_broker_epoch(epoch)
        .with_directories(by_directory.into_iter().map(directory).collect());
    outbound::encode(&request, ASSIGN_VERSION, correlation_id)
}

/// What became of each replica.
pub fn assigned(body: &Bytes) -> Result<Result<Vec<Assigned>, ErrorCode>, WireError> {
    let answer: AssignReplicasToDirsResponse = outbound::decode(body, ASSIGN_VERSION)?;
    if let Err(error) = checked(answer.error_code) {
        return Ok(Err(error));
    }
    let topics = answer.directories.into_iter().flat_map(|directory| directory.topics);
    let each = topics.flat_map(|topic| {
        let told = topic.partitions.into_iter();
        told.map(move |one| (topic.topic_id, one.partition_index, checked(one.error_code)))
    });
    Ok(Ok(each.collect()))
}

/// Kafka's DefaultPrincipalData v0: type and name (compact strings), whether a token authenticated it, tags.
fn principal_bytes(principal: Principal) -> Bytes {
    let Principal::Anonymous = principal;
    let mut bytes = BytesMut::new();
    let mut writer = Writer::new(&mut bytes, true);
    writer.i16(0);
    writer.string("User");
    writer.string("ANONYMOUS");
    writer.raw(&[0]);
    writer.tags(0);
    bytes.freeze()
}

/// Envelope as a frame.
pub fn envelope(forwarded: &Forwarded, correlation_id: i32) -> Result<Bytes, WireError> {
    use kafka_protocol::protocol::Encodable;
    let address = match forwarded.peer {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    };
    let request = EnvelopeRequest::default()
        .with_request_data(forwarded.request.clone())
        .with_request_principal(Some(principal_bytes(forwarded.principal)))
        .with_client_host_address(address);
    let mut frame =
        OutboundRequest::begin(ENVELOPE, ENVELOPE_VERSION, correlation_id, forwarded.request.len() + 64);
    let unencodable = |_| WireError::Unencodable { key: ENVELOPE, version: ENVELOPE_VERSION };
    request.encode(frame.body(), ENVELOPE_VERSION).map_err(unencodable)?;
    Ok(frame.finish())
}

/// The response in an envelope, header and body, as the client is to get it behind a prefix.
pub fn unwrapped(body: &Bytes) -> Result<Result<Bytes, ErrorCode>, WireError> {
    let answer: EnvelopeResponse = outbound::decode(body, ENVELOPE_VERSION)?;
    if let Err(error) = checked(answer.error_code) {
        return Ok(Err(error));
    }
    answer.response_data.map(Ok).ok_or(WireError::Null)
}

/// AllocateProducerIds as a frame.
pub fn allocate(node_id: i32, epoch: i64, correlation_id: i32) -> Result<Bytes, WireError> {
    let request =
        AllocateProducerIdsRequest::default().with_broker_id(BrokerId(node_id)).with_broker_epoch(epoch);
    outbound::encode(&request, ALLOCATE_VERSION, correlation_id)
}

/// A block of producer ids.
pub fn allocated(body: &Bytes) -> Result<ControllerAnswer, WireError> {
    let answer: AllocateProducerIdsResponse = outbound::decode(body, ALLOCATE_VERSION)?;
    Ok(match checked(answer.error_code) {
        Ok(()) => {
            ControllerAnswer::ProducerIds { first: answer.producer_id_start.0, count: answer.producer_id_len }
        }
        Err(error) => ControllerAnswer::Refused(error),
    })
}

/// CreateTopics, for topics that somebody wants to use, as a frame.
pub fn create_topics(topics: &[NewTopic], timeout_ms: i32, correlation_id: i32) -> Result<Bytes, WireError> {
    let topic = |topic: &NewTopic| {
        let config = |(key, value): &(String, Option<String>)| {
            use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
            CreatableTopicConfig::default().with_name(text(key)).with_value(value.as_deref().map(text))
        };
        CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(topic.configs.iter().map(config).collect())
    };
    let request = CreateTopicsRequest::default()
        .with_topics(topics.iter().map(topic).collect())
        .with_timeout_ms(timeout_ms);
    outbound::encode(&request, CREATE_TOPICS_VERSION, correlation_id)
}

/// What became of each topic. One that is there already is as good as made.
pub fn created_topics(body: &Bytes) -> Result<ControllerAnswer, WireError> {
    let answer: CreateTopicsResponse = outbound::decode(body, CREATE_TOPICS_VERSION)?;
    // One that does not lead says so of every topic.
    let not_controller = ErrorCode::NotController;
    if answer.topics.iter().any(|topic| topic.error_code == not_controller.code()) {
        return Ok(ControllerAnswer::Refused(not_controller));
    }
    let topics = answer.topics.into_iter().map(|topic| {
        let created = CreatedTopic {
            id: topic.topic_id,
            partitions: topic.num_partitions,
            replication_factor: topic.replication_factor,
        };
        let message = topic.error_message.as_deref().unwrap_or_default().to_owned();
        let result = match checked(topic.error_code) {
            Ok(()) | Err(ErrorCode::TopicAlreadyExists) => Ok(created),
            Err(code) => Err(ApiError { code, message }),
        };
        TopicAnswer { name: topic.name.to_string(), result }
    });
    Ok(ControllerAnswer::Topics(topics.collect()))
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
