//! Configurations that are altered while the broker runs: they count at once, and after a restart.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use tidemill::client::Connection;
use tidemill::log::codec::Codec;

use crate::process::{Broker, Home, until};
use crate::wire::{append, batch, connect, create, fetch, produce, read_all};

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
const GROUP: i8 = 32;

/// Error code of a `key=value` change, or of taking the value away without one.
pub fn alter(connection: &mut Connection, kind: i8, name: &str, pairs: &[(&str, Option<&str>)]) -> i16 {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = pairs.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(i8::from(value.is_none()))
            .with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    connection.call(&request, i16::MAX).unwrap().responses[0].error_code
}

/// The error code of a produce of these records.
fn put(connection: &mut Connection, topic: &str, partition: i32, values: &[&[u8]]) -> i16 {
    produce(connection, topic, partition, -1, batch(values)).error_code
}

pub fn set(connection: &mut Connection, kind: i8, name: &str, key: &str, value: &str) {
    assert_eq!(alter(connection, kind, name, &[(key, Some(value))]), 0, "{key}={value}");
}

/// Value and source of one key.
fn described(connection: &mut Connection, kind: i8, name: &str, key: &str) -> (String, i8) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = connection.call(&request, i16::MAX).unwrap();
    let config = &response.results[0].configs[0];
    (config.value.as_ref().unwrap().to_string(), config.config_source)
}

pub fn segments(home: &Home, partition: &str) -> usize {
    let listed = std::fs::read_dir(home.data().join(partition)).unwrap();
    listed.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ext| ext == "log")).count()
}

/// How many bytes a batch of `value` takes.
fn length(value: &[u8]) -> usize {
    batch(&[value]).len()
}

#[test]
fn the_largest_batch_changes_for_a_topic_for_this_broker_and_for_all() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    for topic in ["own", "inherits"] {
        create(&mut connection, topic, 3, &[]);
    }
    let (small, large) = ([0_u8; 100], vec![0_u8; 5_000]);
    let limit = (length(&large) - 1).to_string();
    let takes_large = |connection: &mut Connection, topic: &str| {
        let codes: Vec<i16> = (0..3).map(|partition| put(connection, topic, partition, &[&large])).collect();
        assert!(
            codes.iter().all(|code| *code == codes[0]),
            "every partition of every shard alike: {codes:?}"
        );
        assert_eq!(put(connection, topic, 0, &[&small]), 0);
        match codes[0] {
            0 => true,
            10 => false,
            other => panic!("error {other}"),
        }
    };
    assert!(takes_large(&mut connection, "own"));
    set(&mut connection, TOPIC, "own", "max.message.bytes", &limit);
    assert!(!takes_large(&mut connection, "own") && takes_large(&mut connection, "inherits"));
    set(&mut connection, BROKER, "", "message.max.bytes", &limit);
    assert!(!takes_large(&mut connection, "inherits"));
    set(&mut connection, BROKER, "1", "message.max.bytes", "1048588");
    assert!(takes_large(&mut connection, "inherits") && !takes_large(&mut connection, "own"));
    assert_eq!(described(&mut connection, TOPIC, "inherits", "max.message.bytes"), ("1048588".into(), 2));
    assert_eq!(alter(&mut connection, BROKER, "1", &[("message.max.bytes", None)]), 0);
    assert!(!takes_large(&mut connection, "inherits"));
    // A new topic has it from its first record on.
    create(&mut connection, "new", 3, &[]);
    assert!(!takes_large(&mut connection, "new"));
    assert_eq!(alter(&mut connection, BROKER, "", &[("message.max.bytes", None)]), 0);
    assert_eq!(alter(&mut connection, TOPIC, "own", &[("max.message.bytes", None)]), 0);
    assert!(["own", "inherits", "new"].iter().all(|topic| takes_large(&mut connection, topic)));
}

#[test]
fn altered_values_survive_a_kill_and_a_clean_stop() {
    let home = Home::new(&["log.segment.bytes=2097152"]);
    let mut broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    set(&mut connection, TOPIC, "t", "max.message.bytes", "500");
    set(&mut connection, BROKER, "", "log.segment.bytes", "1048576");
    set(&mut connection, BROKER, "1", "log.retention.ms", "86400000");
    set(&mut connection, GROUP, "g", "consumer.session.timeout.ms", "50000");
    for round in 0..2 {
        if round == 0 {
            broker.kill();
        } else {
            assert_eq!(broker.stop(), Some(0));
        }
        broker = home.start();
        connection = connect(&broker);
        assert_eq!(put(&mut connection, "t", 0, &[b"x"]), 0);
        assert_eq!(put(&mut connection, "t", 0, &[&[0; 600]]), 10);
        assert_eq!(described(&mut connection, TOPIC, "t", "segment.bytes"), ("1048576".into(), 3));
        assert_eq!(described(&mut connection, TOPIC, "t", "max.message.bytes"), ("500".into(), 1));
        assert_eq!(described(&mut connection, BROKER, "1", "log.retention.ms"), ("86400000".into(), 2));
        assert_eq!(
            described(&mut connection, GROUP, "g", "consumer.session.timeout.ms"),
            ("50000".into(), 8)
        );
    }
}

#[test]
fn segments_get_their_new_size_without_a_restart() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    let value = vec![7_u8; 100_000];
    let fill = |connection: &mut Connection| {
        for _ in 0..30 {
            append(connection, "t", 0, &[&value]);
        }
    };
    fill(&mut connection);
    assert_eq!(segments(&home, "t-0"), 1);
    set(&mut connection, TOPIC, "t", "segment.bytes", "1048576");
    fill(&mut connection);
    let rolled = segments(&home, "t-0");
    assert!(rolled >= 3, "{rolled} segments");
    assert_eq!(alter(&mut connection, TOPIC, "t", &[("segment.bytes", None)]), 0);
    fill(&mut connection);
    assert_eq!(segments(&home, "t-0"), rolled);
    set(&mut connection, BROKER, "1", "log.segment.bytes", "1048576");
    fill(&mut connection);
    assert!(segments(&home, "t-0") >= rolled + 2);
    assert_eq!(read_all(&mut connection, "t", 0).len(), 120);
}

#[test]
fn timestamps_and_codecs_follow_the_topics_new_type() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    create(&mut connection, "t", 1, &[]);
    let told = |connection: &mut Connection| {
        let response = produce(connection, "t", 0, -1, batch(&[b"x"]));
        assert_eq!(response.error_code, 0);
        response.log_append_time_ms
    };
    assert_eq!(told(&mut connection), -1);
    set(&mut connection, TOPIC, "t", "message.timestamp.type", "LogAppendTime");
    assert!(told(&mut connection) > 1_600_000_000_000);
    set(&mut connection, TOPIC, "t", "message.timestamp.type", "CreateTime");
    set(&mut connection, BROKER, "", "log.message.timestamp.type", "LogAppendTime");
    assert_eq!(told(&mut connection), -1, "the topic's own value stands over the brokers'");
    assert_eq!(alter(&mut connection, TOPIC, "t", &[("message.timestamp.type", None)]), 0);
    assert!(told(&mut connection) > 1_600_000_000_000);

    let codec = |connection: &mut Connection, offset: i64| {
        let records = fetch(connection, "t", 0, offset).records.unwrap();
        let attributes = i16::from_be_bytes(records[21..23].try_into().unwrap());
        Codec::from_id(attributes & 7).unwrap()
    };
    set(&mut connection, TOPIC, "t", "compression.type", "zstd");
    let at = produce(&mut connection, "t", 0, -1, batch(&[&[5; 1_000]])).base_offset;
    assert_eq!(codec(&mut connection, at), Codec::Zstd);
    set(&mut connection, TOPIC, "t", "compression.type", "gzip");
    let at = produce(&mut connection, "t", 0, -1, batch(&[&[5; 1_000]])).base_offset;
    assert_eq!(codec(&mut connection, at), Codec::Gzip);
}

#[test]
fn limits_of_connections_change_without_a_restart() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut first = connect(&broker);
    let second = connect(&broker);
    set(&mut first, BROKER, "1", "max.connections.per.ip", "2");
    let refused = |broker: &Broker| {
        use std::io::Read;
        let mut socket = std::net::TcpStream::connect(&broker.address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        // A connection too many is closed at once; one that may stay says nothing until it is asked.
        let closed = socket.read(&mut [0; 1]);
        matches!(closed, Ok(0)) || closed.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    };
    assert!(refused(&broker));
    assert_eq!(alter(&mut first, BROKER, "1", &[("max.connections.per.ip", None)]), 0);
    let mut third = connect(&broker);
    set(&mut third, BROKER, "", "max.connections.per.ip.overrides", "127.0.0.1:3");
    assert!(refused(&broker));
    assert_eq!(alter(&mut third, BROKER, "", &[("max.connections.per.ip", Some("0"))]), 0);
    drop((first, second));
    until("one of the three is free", || {
        let config = tidemill::client::ConnectionConfig::default();
        let mut connection = Connection::open(&broker.address, &config).map_err(|e| e.to_string())?;
        let request = IncrementalAlterConfigsRequest::default();
        connection.call(&request, i16::MAX).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn what_has_no_effect_is_kept_and_said() {
    let home = Home::new(&[]);
    let broker = home.start();
    let mut connection = connect(&broker);
    set(&mut connection, BROKER, "", "num.io.threads", "9");
    set(&mut connection, BROKER, "1", "no.such.key", "1");
    assert_eq!(alter(&mut connection, BROKER, "1", &[("node.id", Some("2"))]), 42);
    assert_eq!(alter(&mut connection, BROKER, "1", &[("listeners", Some("PLAINTEXT://:1"))]), 42);
    assert_eq!(described(&mut connection, BROKER, "1", "num.io.threads"), ("9".into(), 3));
    let (code, lines) = broker.stop_and_tell();
    let said = lines.join("\n");
    assert_eq!(code, Some(0));
    assert!(said.contains("num.io.threads: has no effect"), "{said}");
    assert!(said.contains("no.such.key: is not a known key"), "{said}");
}
