//! What a broker tells of itself, its topics and its configuration, in every version of each API.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeTopicPartitionsRequest, MetadataRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tidemill::client::Connection;
use tidemill::wire::api::{ApiKey, TABLE};
use uuid::Uuid;

use crate::process::Home;
use crate::wire::{Raw, connect, create, delete, describe, name, request};

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

#[test]
fn a_topic_is_found_by_its_id_until_it_is_deleted() {
    let home = Home::new(&["broker.rack=r1"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "known", 3, &[]);
    let id = describe(&mut connection, &["known"]).topics[0].topic_id;
    let ask = |connection: &mut Connection, version| {
        let of = |id| MetadataRequestTopic::default().with_name(None).with_topic_id(id);
        let topics = Some(vec![of(id), of(Uuid::from_u128(5))]);
        connection.call(&MetadataRequest::default().with_topics(topics), version).unwrap()
    };
    for version in [12, 13] {
        let told = ask(&mut connection, version);
        let topics: Vec<_> = told.topics.iter().map(|t| (t.error_code, t.name.clone())).collect();
        assert_eq!(topics, [(0, Some(name("known"))), (100, None)]);
        assert_eq!(told.topics[0].partitions.len(), 3);
        assert_eq!(told.brokers[0].rack.as_deref(), Some("r1"));
    }
    delete(&mut connection, "known");
    assert_eq!(ask(&mut connection, 13).topics[0].error_code, 100);
}

#[test]
fn the_cluster_is_described_in_every_version() {
    let home = Home::new(&["broker.rack=r1", "node.id=7"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    let cluster_id = describe(&mut connection, &[]).cluster_id.unwrap();
    for version in 0..=2 {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let told = connection.call(&request, version).unwrap();
        assert_eq!((told.error_code, told.throttle_time_ms, told.controller_id.0), (0, 0, 7));
        assert_eq!((&told.cluster_id, told.cluster_authorized_operations), (&cluster_id, 8096));
        let node = &told.brokers[0];
        assert_eq!((node.broker_id.0, node.rack.as_deref()), (7, Some("r1")));
        assert_eq!(format!("{}:{}", node.host, node.port), broker.address);
    }
}

#[test]
fn pages_of_partitions_follow_each_other_over_every_topic() {
    let home = Home::new(&["max.request.partition.size.limit=4"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    for (topic, partitions) in [("b", 3), ("a", 6), ("c", 1)] {
        create(&mut connection, topic, partitions, &[]);
    }
    let mut cursor = None;
    let mut told = Vec::new();
    loop {
        let request = DescribeTopicPartitionsRequest::default()
            .with_response_partition_limit(2_000)
            .with_cursor(cursor.take());
        let page = connection.call(&request, 0).unwrap();
        let partitions = page.topics.iter().flat_map(|topic| {
            let name = topic.name.as_ref().unwrap().0.to_string();
            topic
                .partitions
                .iter()
                .map(move |p| (name.clone(), p.partition_index, p.leader_id.0, p.error_code))
        });
        let before = told.len();
        told.extend(partitions);
        assert!(told.len() - before <= 4);
        let Some(next) = page.next_cursor else { break };
        let next =
            Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index);
        cursor = Some(next);
    }
    let expected = [("a", 6), ("b", 3), ("c", 1)];
    let expected = expected.iter().flat_map(|(t, count)| (0..*count).map(|i| (t.to_string(), i, 1, 0)));
    assert_eq!(told, expected.collect::<Vec<_>>());
    let missing = TopicRequest::default().with_name(name("missing"));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![missing]);
    assert_eq!(connection.call(&request, 0).unwrap().topics[0].error_code, 3);
}

fn configs(
    connection: &mut Connection,
    version: i16,
    resource_type: i8,
    resource: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    connection.call(&request, version).unwrap().results.remove(0)
}

#[test]
fn configurations_are_told_with_their_sources_in_every_version() {
    let home = Home::new(&["log.segment.bytes=2097152", "ssl.key.password=secret"]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "own", 1, &[("retention.ms", "5000"), ("cleanup.policy", "compact,delete")]);
    for version in 1..=4 {
        let topic = configs(&mut connection, version, 2, "own", None);
        let told = |key: &str| {
            let config = topic.configs.iter().find(|config| config.name.as_str() == key).unwrap();
            (config.value.as_ref().map(ToString::to_string).unwrap(), config.config_source)
        };
        assert_eq!(told("retention.ms"), ("5000".to_owned(), 1));
        assert_eq!(told("cleanup.policy"), ("compact,delete".to_owned(), 1));
        assert_eq!(told("segment.bytes"), ("2097152".to_owned(), 4));
        assert_eq!(told("max.message.bytes"), ("1048588".to_owned(), 5));
        let keys = Some(&["log.segment.bytes", "ssl.key.password", "no.such.key"][..]);
        let node = configs(&mut connection, version, 4, "1", keys);
        let told: Vec<_> =
            node.configs.iter().map(|c| (c.name.as_str(), c.value.as_deref(), c.is_sensitive)).collect();
        assert_eq!(told, [("log.segment.bytes", Some("2097152"), false), ("ssl.key.password", None, true)]);
        assert_eq!(node.configs[0].synonyms.len(), 2);
        if version >= 3 {
            assert!(node.configs[0].documentation.is_some());
            assert_eq!(node.configs[1].config_type, 9);
        }
        assert!(configs(&mut connection, version, 4, "1", None).configs.len() > 300);
        assert_eq!(configs(&mut connection, version, 4, "", None).configs, []);
        assert_eq!(configs(&mut connection, version, 4, "9", None).error_code, 42);
        assert_eq!(configs(&mut connection, version, 2, "missing", None).error_code, 3);
        assert_eq!(configs(&mut connection, version, 3, "1", None).error_code, 42);
    }
}

#[test]
fn versions_are_told_to_anyone_who_asks_in_any_version() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut raw = Raw::open(&broker);
    for version in [0, 1, 2, 3, 4, 5, 99, i16::MAX, -1] {
        let served = (0..=4).contains(&version);
        let mut body = bytes::BytesMut::new();
        if served {
            let asking = ApiVersionsRequest::default();
            let asking = if version >= 3 {
                asking.with_client_software_name(text("t")).with_client_software_version(text("1"))
            } else {
                asking
            };
            asking.encode(&mut body, version).unwrap();
        }
        let flexible = version >= 3;
        let tags = if flexible { &[0][..] } else { &[] };
        raw.send_frame(&request(18, version, 7, &[tags, &body].concat()));
        let frame = raw.frame();
        assert_eq!(frame[..4], 7_i32.to_be_bytes());
        let mut rest = bytes::Bytes::from(frame).slice(4..);
        let told = ApiVersionsResponse::decode(&mut rest, if served { version } else { 0 }).unwrap();
        assert!(rest.is_empty());
        assert_eq!(told.error_code, if served { 0 } else { 35 }, "v{version}");
        assert_eq!(told.api_keys.len(), TABLE.iter().filter(|api| api.listeners.client).count());
        let produce = told.api_keys.iter().find(|row| row.api_key == ApiKey::Produce as i16).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        let epoch_told = served && version >= 3;
        assert_eq!(told.finalized_features_epoch > 0, epoch_told);
    }
}
