//! Bodies of administrative requests: valid, often nonsense in what they ask, and never with a lasting effect but
//! on topics' configuration.

use bytes::Bytes;
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
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, BrokerId,
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest,
    DescribeQuorumRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, ListPartitionReassignmentsRequest,
    UnregisterBrokerRequest, UpdateFeaturesRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::body::{Bodies, encoded, text, topic_name};

const KEYS: [&str; 6] =
    ["flush.ms", "retention.ms", "cleanup.policy", "max.connections", "node.id", "nonsense"];
const VALUES: [&str; 6] = ["1000", "-1", "compact", "", "delete,delete", "9223372036854775807"];

impl Bodies<'_> {
    /// The body of an administrative request.
    pub fn administration(&mut self, key: i16, version: i16) -> Bytes {
        match key {
            29 => {
                // Numbers that mean nothing close the connection, as in Kafka.
                let request = DescribeAclsRequest::default()
                    .with_resource_type_filter(self.rng.i8(1..7))
                    .with_pattern_type_filter(self.rng.i8(1..5))
                    .with_operation(self.rng.i8(1..12))
                    .with_permission_type(self.rng.i8(1..4));
                encoded(&request, version)
            }
            30 => {
                let acl = AclCreation::default()
                    .with_resource_type(2)
                    .with_resource_pattern_type(3)
                    .with_operation(self.rng.i8(2..12))
                    .with_permission_type(3);
                encoded(&CreateAclsRequest::default().with_creations(self.some(acl)), version)
            }
            31 => {
                let filter = DeleteAclsFilter::default()
                    .with_resource_type_filter(2)
                    .with_pattern_type_filter(3)
                    .with_operation(1)
                    .with_permission_type(1);
                encoded(&DeleteAclsRequest::default().with_filters(self.some(filter)), version)
            }
            33 => self.alter_configs(version),
            43 => self.elect_leaders(version),
            44 => self.alter_incrementally(version),
            45 => self.alter_reassignments(version),
            46 => encoded(&ListPartitionReassignmentsRequest::default().with_topics(None), version),
            48 => {
                let component = ComponentData::default()
                    .with_entity_type(text(["user", "ip", "nonsense", ""][self.rng.usize(..4)]))
                    .with_match_type(self.rng.i8(0..4))
                    .with_match(if self.rng.bool() { Some(text("a")) } else { None });
                encoded(
                    &DescribeClientQuotasRequest::default().with_components(self.some(component)),
                    version,
                )
            }
            49 => self.alter_quotas(version),
            50 => {
                let users = self.some(UserName::default().with_name(text("somebody")));
                encoded(&DescribeUserScramCredentialsRequest::default().with_users(Some(users)), version)
            }
            55 => {
                let topic = TopicData::default()
                    .with_topic_name(topic_name("__cluster_metadata"))
                    .with_partitions(vec![PartitionData::default(); self.rng.usize(0..3)]);
                encoded(&DescribeQuorumRequest::default().with_topics(self.some(topic)), version)
            }
            57 => self.update_features(version),
            // Nobody is registered by these numbers.
            64 => encoded(
                &UnregisterBrokerRequest::default().with_broker_id(BrokerId([-1, 99][self.rng.usize(..2)])),
                version,
            ),
            74 => {
                let types = if version == 0 { Vec::new() } else { vec![[2, 4, 16, 99][self.rng.usize(..4)]] };
                encoded(&ListConfigResourcesRequest::default().with_resource_types(types), version)
            }
            _ => self.cluster(key, version),
        }
    }

    /// None, one or a few of them.
    fn some<T: Clone>(&mut self, one: T) -> Vec<T> {
        vec![one; self.rng.usize(0..3)]
    }

    /// Kind and name of a resource. Brokers' values are checked only: a limit of connections would lock us out.
    fn resource(&mut self) -> (i8, StrBytes, bool) {
        let kind = [2, 2, 2, 4, 8, 16, 32, 99][self.rng.usize(..8)];
        let name = match kind {
            2 => self.topic().0.0,
            4 => text(["1", "", "x"][self.rng.usize(..3)]),
            _ => text("somebody"),
        };
        (kind, name, kind != 2)
    }

    fn pair(&mut self) -> (StrBytes, Option<StrBytes>) {
        let value = VALUES.get(self.rng.usize(..=VALUES.len())).map(|value| text(value));
        (text(KEYS[self.rng.usize(..KEYS.len())]), value)
    }

    fn alter_configs(&mut self, version: i16) -> Bytes {
        let (kind, name, validate_only) = self.resource();
        let (key, value) = self.pair();
        let config = AlterableConfig::default().with_name(key).with_value(value);
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configs(self.some(config));
        let request = AlterConfigsRequest::default().with_resources(self.some(resource));
        encoded(&request.with_validate_only(validate_only), version)
    }

    fn alter_incrementally(&mut self, version: i16) -> Bytes {
        let (kind, name, validate_only) = self.resource();
        let (key, value) = self.pair();
        let config = incremental::AlterableConfig::default()
            .with_name(key)
            .with_config_operation(self.rng.i8(-1..6))
            .with_value(value);
        let resource = incremental::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name)
            .with_configs(self.some(config));
        let request = IncrementalAlterConfigsRequest::default().with_resources(self.some(resource));
        encoded(&request.with_validate_only(validate_only), version)
    }

    fn elect_leaders(&mut self, version: i16) -> Bytes {
        let (name, _, count) = self.topic();
        let partitions = vec![self.partition(count); self.rng.usize(0..3)];
        let topic = TopicPartitions::default().with_topic(name).with_partitions(partitions);
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(Some(self.some(topic)))
            .with_timeout_ms([0, 1_000][self.rng.usize(..2)]);
        let request = if version > 0 { request.with_election_type(self.rng.i8(0..3)) } else { request };
        encoded(&request, version)
    }

    fn alter_reassignments(&mut self, version: i16) -> Bytes {
        let (name, _, count) = self.topic();
        let replicas = vec![BrokerId([1, 9, -1][self.rng.usize(..3)]); self.rng.usize(0..3)];
        let partition = ReassignablePartition::default()
            .with_partition_index(self.partition(count))
            .with_replicas(if self.rng.bool() { Some(replicas) } else { None });
        let topic = ReassignableTopic::default().with_name(name).with_partitions(self.some(partition));
        encoded(&AlterPartitionReassignmentsRequest::default().with_topics(self.some(topic)), version)
    }

    fn alter_quotas(&mut self, version: i16) -> Bytes {
        let part = EntityData::default()
            .with_entity_type(text(["user", "client-id", "ip", "nonsense"][self.rng.usize(..4)]))
            .with_entity_name(if self.rng.bool() { Some(text("a")) } else { None });
        let op = OpData::default()
            .with_key(text(["consumer_byte_rate", "nonsense"][self.rng.usize(..2)]))
            .with_value([100.0, -1.0, f64::NAN, f64::INFINITY][self.rng.usize(..4)])
            .with_remove(self.rng.bool());
        let entry = EntryData::default().with_entity(self.some(part)).with_ops(self.some(op));
        encoded(&AlterClientQuotasRequest::default().with_entries(self.some(entry)), version)
    }

    fn update_features(&mut self, version: i16) -> Bytes {
        let names = ["metadata.version", "kraft.version", "group.version", "nonsense"];
        let update = FeatureUpdateKey::default()
            .with_feature(text(names[self.rng.usize(..4)]))
            .with_max_version_level([-1, 0, 1, 7, 30, i16::MAX][self.rng.usize(..6)]);
        let update = match version {
            0 => update.with_allow_downgrade(self.rng.bool()),
            _ => update.with_upgrade_type(self.rng.i8(0..5)),
        };
        let request = UpdateFeaturesRequest::default().with_feature_updates(self.some(update));
        let request = if version > 0 { request.with_validate_only(true) } else { request };
        encoded(&request.with_timeout_ms(1_000), version)
    }
}
