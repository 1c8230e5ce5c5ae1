//! Populated bodies of administrative requests, for the tests of the guard.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;

use super::StrBytes;
use super::api::ApiKey as Key;
use super::outbound::{JoinQuorum, RaftMessages};

fn encoded<T: Encodable>(request: &T, version: i16) -> Bytes {
    let mut buffer = BytesMut::new();
    request.encode(&mut buffer, version).unwrap();
    buffer.freeze()
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A populated body of an administrative request.
pub(super) fn sample(key: Key, version: i16) -> Bytes {
    let topic = || TopicName(text("orders"));
    match key {
        Key::AlterConfigs => {
            let config = AlterableConfig::default().with_name(text("flush.ms")).with_value(Some(text("9")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config.clone(), config]);
            encoded(&AlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
        Key::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text("flush.ms")).with_value(Some(text("9")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config.clone(), config]);
            encoded(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
        Key::ListConfigResources => {
            let types = if version == 0 { Vec::new() } else { vec![2, 32] };
            encoded(&ListConfigResourcesRequest::default().with_resource_types(types), version)
        }
        Key::ElectLeaders => {
            let partitions = TopicPartitions::default().with_topic(topic()).with_partitions(vec![0, 1]);
            encoded(&ElectLeadersRequest::default().with_topic_partitions(Some(vec![partitions])), version)
        }
        Key::AlterPartitionReassignments => {
            let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
            let topic = ReassignableTopic::default().with_name(topic()).with_partitions(vec![partition]);
            encoded(&AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]), version)
        }
        Key::ListPartitionReassignments => {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(topic())
                .with_partition_indexes(vec![0, 1]);
            encoded(&ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])), version)
        }
        Key::UpdateFeatures => {
            let update = FeatureUpdateKey::default().with_feature(text("group.version"));
            encoded(&UpdateFeaturesRequest::default().with_feature_updates(vec![update]), version)
        }
        Key::DescribeQuorum => {
            let partition = PartitionData::default();
            let topic = TopicData::default().with_topic_name(topic()).with_partitions(vec![partition]);
            encoded(&DescribeQuorumRequest::default().with_topics(vec![topic]), version)
        }
        Key::UnregisterBroker => encoded(&UnregisterBrokerRequest::default(), version),
        _ => cluster_sample(key, version).unwrap_or_else(|| security_sample(key, version)),
    }
}

/// A populated body of a request among nodes, or about the metadata quorum.
fn cluster_sample(key: Key, version: i16) -> Option<Bytes> {
    Some(match key {
        Key::AlterPartition => {
            use alter_partition_request::{BrokerState, PartitionData, TopicData};
            let replica = BrokerState::default().with_broker_id(BrokerId(2)).with_broker_epoch(7);
            let partition = PartitionData::default().with_leader_epoch(3).with_partition_epoch(4);
            let partition = match version {
                2 => partition.with_new_isr(vec![BrokerId(1), BrokerId(2)]),
                _ => partition.with_new_isr_with_epochs(vec![replica.clone(), replica]),
            };
            let topic = TopicData::default().with_partitions(vec![partition.clone(), partition]);
            encoded(&AlterPartitionRequest::default().with_topics(vec![topic]), version)
        }
        Key::Envelope => {
            let request = EnvelopeRequest::default()
                .with_request_data(Bytes::from_static(&[0, 43, 0, 0, 0, 0, 0, 7]))
                .with_request_principal(Some(Bytes::from_static(b"User:a")));
            encoded(&request.with_client_host_address(Bytes::from_static(&[127, 0, 0, 1])), version)
        }
        Key::BrokerRegistration => {
            use broker_registration_request::{Feature, Listener};
            let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text("host"));
            let feature = Feature::default().with_name(text("group.version"));
            let request = BrokerRegistrationRequest::default()
                .with_cluster_id(text("AAAAAAAAAAAAAAAAAAAAAA"))
                .with_listeners(vec![listener.clone(), listener])
                .with_features(vec![feature.clone(), feature])
                .with_rack(Some(text("rack")));
            let dirs = if version >= 2 { vec![uuid::Uuid::from_u128(7); 2] } else { Vec::new() };
            encoded(&request.with_log_dirs(dirs), version)
        }
        Key::BrokerHeartbeat => {
            let dirs = if version >= 1 { vec![uuid::Uuid::from_u128(7)] } else { Vec::new() };
            encoded(&BrokerHeartbeatRequest::default().with_offline_log_dirs(dirs), version)
        }
        Key::AssignReplicasToDirs => assign_sample(version),
        Key::AllocateProducerIds => encoded(&AllocateProducerIdsRequest::default(), version),
        Key::AddRaftVoter => {
            let listener = add_raft_voter_request::Listener::default().with_name(text("CONTROLLER"));
            let request = AddRaftVoterRequest::default().with_cluster_id(Some(text("cluster")));
            encoded(&request.with_listeners(vec![listener.clone(), listener]), version)
        }
        Key::RemoveRaftVoter => {
            encoded(&RemoveRaftVoterRequest::default().with_cluster_id(Some(text("cluster"))), version)
        }
        Key::UpdateRaftVoter => {
            let listener = update_raft_voter_request::Listener::default().with_name(text("CONTROLLER"));
            let request = UpdateRaftVoterRequest::default().with_cluster_id(Some(text("cluster")));
            encoded(&request.with_listeners(vec![listener.clone(), listener]), version)
        }
        Key::RaftMessages => {
            let messages = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
            let mail =
                RaftMessages { cluster_id: "cluster".to_owned(), node_id: 1, from: 2, to: 3, messages };
            let mut buffer = BytesMut::new();
            mail.write(&mut buffer);
            buffer.freeze()
        }
        Key::JoinQuorum => {
            let (cluster_id, host) = ("cluster".to_owned(), "host".to_owned());
            let mut buffer = BytesMut::new();
            JoinQuorum { cluster_id, node_id: 1, raft_id: 2, host, port: 9093 }.write(&mut buffer);
            buffer.freeze()
        }
        _ => return None,
    })
}

fn assign_sample(version: i16) -> Bytes {
    use assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
    let partitions = vec![PartitionData::default(), PartitionData::default().with_partition_index(1)];
    let topic = TopicData::default().with_topic_id(uuid::Uuid::from_u128(5)).with_partitions(partitions);
    let directory = DirectoryData::default().with_id(uuid::Uuid::from_u128(700));
    let directory = directory.with_topics(vec![topic.clone(), topic]);
    let request = AssignReplicasToDirsRequest::default().with_broker_id(BrokerId(1));
    encoded(&request.with_directories(vec![directory.clone(), directory]), version)
}

fn security_sample(key: Key, version: i16) -> Bytes {
    match key {
        Key::DescribeAcls => {
            let request = DescribeAclsRequest::default().with_pattern_type_filter(3);
            encoded(&request.with_principal_filter(Some(text("User:a"))), version)
        }
        Key::CreateAcls => {
            let acl = AclCreation::default().with_resource_pattern_type(3).with_principal(text("User:a"));
            encoded(&CreateAclsRequest::default().with_creations(vec![acl.clone(), acl]), version)
        }
        Key::DeleteAcls => {
            let filter = DeleteAclsFilter::default().with_pattern_type_filter(3);
            encoded(&DeleteAclsRequest::default().with_filters(vec![filter.clone(), filter]), version)
        }
        Key::DescribeClientQuotas => {
            let component =
                ComponentData::default().with_entity_type(text("user")).with_match(Some(text("a")));
            encoded(&DescribeClientQuotasRequest::default().with_components(vec![component]), version)
        }
        Key::AlterClientQuotas => {
            let part = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("a")));
            let op = OpData::default().with_key(text("consumer_byte_rate"));
            let entry = EntryData::default().with_entity(vec![part]).with_ops(vec![op.clone(), op]);
            encoded(&AlterClientQuotasRequest::default().with_entries(vec![entry]), version)
        }
        Key::DescribeUserScramCredentials => {
            let user = UserName::default().with_name(text("a"));
            let request = DescribeUserScramCredentialsRequest::default();
            encoded(&request.with_users(Some(vec![user.clone(), user])), version)
        }
        _ => panic!("{key:?} has no sample: add it"),
    }
}
