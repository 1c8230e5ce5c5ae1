//! `tidemill topics`: topics made, listed, described, extended and deleted. Flags and lines are those of Kafka's
//! `kafka-topics`.

use std::collections::BTreeSet;

use serde_json::json;
use uuid::Uuid;

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json};
use super::topic_filter::TopicFilter;
use crate::client::{
    Admin, ClientError, ConfigEntry, ConfigResourceType, NewTopic, PartitionDescription, TopicDescription,
};

const TOPIC_ALREADY_EXISTS: i16 = 36;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill topics --bootstrap-server 127.0.0.1:9092 --create --topic orders --partitions 12 --config retention.ms=86400000
  tidemill topics --bootstrap-server 127.0.0.1:9092 --list
  tidemill topics --bootstrap-server 127.0.0.1:9092 --describe --topic 'orders.*' --output json
  tidemill topics --bootstrap-server 127.0.0.1:9092 --alter --topic orders --partitions 24
  tidemill topics --bootstrap-server 127.0.0.1:9092 --delete --topic orders --if-exists

To change a topic's configuration, use tidemill configs.")]
#[command(group(clap::ArgGroup::new("action").required(true).args(["create", "list", "describe", "alter", "delete"])))]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// Make a topic.
    #[arg(long, requires = "topic")]
    create: bool,
    /// List topics by name.
    #[arg(long)]
    list: bool,
    /// Show topics and the state of their partitions.
    #[arg(long)]
    describe: bool,
    /// Give topics more partitions.
    #[arg(long, requires = "topic")]
    alter: bool,
    /// Delete topics.
    #[arg(long, requires = "topic")]
    delete: bool,
    /// The topic; a regular expression except with --create.
    #[arg(long)]
    topic: Option<String>,
    /// The topic's id, with --describe.
    #[arg(long, value_name = "ID", requires = "describe", conflicts_with = "topic")]
    topic_id: Option<String>,
    /// How many partitions in all; the cluster's default with --create.
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, conflicts_with_all = ["list", "describe", "delete"])]
    partitions: Option<i32>,
    /// How many replicas; the cluster's default unless given.
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, requires = "create")]
    replication_factor: Option<i16>,
    /// Brokers of each partition's replicas: 1:2,2:3 is two partitions of two replicas.
    #[arg(long, value_name = "NODE:NODE,…", conflicts_with_all = ["list", "describe", "delete", "replication_factor"])]
    replica_assignment: Option<String>,
    /// A value of the topic's own.
    #[arg(long, value_name = "KEY=VALUE", requires = "create")]
    config: Vec<String>,
    /// A topic that is there already is no failure.
    #[arg(long, requires = "create")]
    if_not_exists: bool,
    /// No topic of this name is no failure.
    #[arg(long, conflicts_with_all = ["create", "list"])]
    if_exists: bool,
    /// Leave Kafka's own topics out.
    #[arg(long)]
    exclude_internal: bool,
    /// Only topics that have a value of their own.
    #[arg(long, requires = "describe")]
    topics_with_overrides: bool,
    /// Only partitions with fewer in-sync replicas than replicas.
    #[arg(long, requires = "describe", conflicts_with = "topics_with_overrides")]
    under_replicated_partitions: bool,
    /// Only partitions without a leader.
    #[arg(long, requires = "describe", conflicts_with = "topics_with_overrides")]
    unavailable_partitions: bool,
    /// Only partitions with fewer in-sync replicas than min.insync.replicas.
    #[arg(long, requires = "describe", conflicts_with = "topics_with_overrides")]
    under_min_isr_partitions: bool,
    /// Only partitions with exactly min.insync.replicas.
    #[arg(long, requires = "describe", conflicts_with = "topics_with_overrides")]
    at_min_isr_partitions: bool,
    /// Partitions in one response at most.
    #[arg(long, value_name = "COUNT", requires = "describe", default_value_t = 2000)]
    partition_size_limit_per_response: i32,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let mut admin = options.admin.admin()?;
    let result = if options.create {
        create(options, &mut admin)
    } else if options.list {
        list(options, &mut admin)
    } else if options.describe {
        describe(options, &mut admin)
    } else if options.alter {
        alter(options, &mut admin)
    } else {
        delete(options, &mut admin)
    };
    result.map_err(|error| {
        ClientError::Usage(format!("Error while executing topic command : {}", error.told()))
    })
}

fn create(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let name = options.topic.clone().unwrap_or_default();
    let assignment =
        options.replica_assignment.as_deref().map(parse_assignment).transpose()?.unwrap_or_default();
    if options.partitions.is_some_and(|count| count < 1) && assignment.is_empty() {
        return Err(ClientError::Usage("The partitions must be greater than 0".to_owned()));
    }
    if name.contains(['.', '_']) {
        eprintln!(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. To avoid issues it is best to use either, but not both."
        );
    }
    let given = assignment.is_empty();
    let topic = NewTopic {
        configs: options.config.iter().map(|pair| parse_config(pair)).collect::<Result<_, _>>()?,
        partitions: options.partitions.filter(|_| given).unwrap_or(-1),
        replication_factor: options.replication_factor.unwrap_or(-1),
        assignment,
        name,
    };
    match admin.create_topic(&topic) {
        Ok(()) => print(&format!("Created topic {}.\n", topic.name)),
        Err(error) if error.code() == Some(TOPIC_ALREADY_EXISTS) && options.if_not_exists => Ok(()),
        Err(error) => Err(error),
    }
}

fn list(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let names = chosen(options, admin)?;
    if options.output.is_json() {
        return print_json(&json!(names));
    }
    print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

fn alter(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let Some(count) = options.partitions else {
        return Err(ClientError::Usage("--alter needs --partitions".to_owned()));
    };
    let assignment = options.replica_assignment.as_deref().map(parse_assignment).transpose()?;
    let names = existing(options, admin)?;
    let described = match assignment {
        Some(_) => admin.describe_topics(&names, options.partition_size_limit_per_response)?,
        None => Vec::new(),
    };
    for name in &names {
        // The assignment names every partition, those that are there already too.
        let there =
            described.iter().find(|topic| topic.name == *name).map_or(0, |topic| topic.partitions.len());
        let more = assignment.as_ref().map(|all| all.get(there..).unwrap_or_default());
        admin.create_partitions(name, count, more)?;
    }
    Ok(())
}

fn delete(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    for name in existing(options, admin)? {
        admin.delete_topic(&name)?;
    }
    Ok(())
}

/// Names of the topics that the pattern takes, sorted.
fn chosen(options: &Options, admin: &mut Admin) -> Result<Vec<String>, ClientError> {
    let filter = TopicFilter::parse_optional(options.topic.as_deref())?;
    let id = options.topic_id.as_deref().map(parse_id).transpose()?;
    let topics = admin.list_topics()?.into_iter();
    let wanted = topics.filter(|topic| filter.takes(&topic.name, options.exclude_internal));
    Ok(wanted.filter(|topic| id.is_none_or(|id| topic.id == id)).map(|topic| topic.name).collect())
}

/// As `chosen`; none of a given name is an error unless told otherwise.
fn existing(options: &Options, admin: &mut Admin) -> Result<Vec<String>, ClientError> {
    let names = chosen(options, admin)?;
    if !names.is_empty() || options.if_exists {
        return Ok(names);
    }
    match (&options.topic, &options.topic_id) {
        (Some(topic), _) => Err(ClientError::Usage(format!("Topic '{topic}' does not exist as expected"))),
        (None, Some(id)) => Err(ClientError::Usage(format!("TopicId '{id}' does not exist as expected"))),
        (None, None) => Ok(names),
    }
}

fn describe(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let names = existing(options, admin)?;
    let topics = admin.describe_topics(&names, options.partition_size_limit_per_response)?;
    let live: BTreeSet<i32> = admin.cluster().node_ids()?.into_iter().collect();
    let mut documents = Vec::new();
    for topic in &topics {
        let configs = admin.describe_configs(ConfigResourceType::Topic, &topic.name)?;
        let shown: Vec<&PartitionDescription> =
            topic.partitions.iter().filter(|one| is_shown(options, one, &configs, &live)).collect();
        if options.output.is_json() {
            documents.push(document(topic, &configs, &shown));
            continue;
        }
        let mut text = String::new();
        let own = configs.iter().any(|entry| !entry.source.is_default());
        if !only_some_partitions(options) && (!options.topics_with_overrides || own) {
            text.push_str(&topic_line(topic, &configs));
        }
        if !options.topics_with_overrides {
            text.extend(shown.iter().map(|partition| partition_line(&topic.name, partition)));
        }
        print(&text)?;
    }
    if options.output.is_json() { print_json(&json!(documents)) } else { Ok(()) }
}

fn only_some_partitions(options: &Options) -> bool {
    options.under_replicated_partitions
        || options.unavailable_partitions
        || options.under_min_isr_partitions
        || options.at_min_isr_partitions
}

fn is_shown(
    options: &Options,
    partition: &PartitionDescription,
    configs: &[ConfigEntry],
    live: &BTreeSet<i32>,
) -> bool {
    let least = configs.iter().find(|entry| entry.name == "min.insync.replicas");
    let least: usize = least.and_then(|entry| entry.value.as_deref()?.parse().ok()).unwrap_or(1);
    let isr = partition.isr.len();
    !only_some_partitions(options)
        || options.under_replicated_partitions && isr < partition.replicas.len()
        || options.unavailable_partitions && partition.leader.is_none_or(|leader| !live.contains(&leader))
        || options.under_min_isr_partitions && (partition.leader.is_none() || isr < least)
        || options.at_min_isr_partitions && isr == least
}

fn topic_line(topic: &TopicDescription, configs: &[ConfigEntry]) -> String {
    let own = configs.iter().filter(|entry| !entry.source.is_default());
    let own: Vec<String> =
        own.map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or("null"))).collect();
    let id = if topic.id.is_nil() { String::new() } else { format!("\tTopicId: {}", shown_id(topic.id)) };
    format!(
        "Topic: {}{id}\tPartitionCount: {}\tReplicationFactor: {}\tConfigs: {}\n",
        topic.name,
        topic.partitions.len(),
        topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
        own.join(",")
    )
}

fn partition_line(topic: &str, partition: &PartitionDescription) -> String {
    let (elr, last_known) = match &partition.elr {
        Some((elr, last_known)) => (joined(elr), joined(last_known)),
        None => ("N/A".to_owned(), "N/A".to_owned()),
    };
    format!(
        "\tTopic: {topic}\tPartition: {}\tLeader: {}\tReplicas: {}\tIsr: {}\tElr: {elr}\tLastKnownElr: {last_known}\n",
        partition.index,
        partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
        joined(&partition.replicas),
        joined(&partition.isr),
    )
}

fn document(
    topic: &TopicDescription,
    configs: &[ConfigEntry],
    partitions: &[&PartitionDescription],
) -> serde_json::Value {
    let own = configs.iter().filter(|entry| !entry.source.is_default());
    let own: serde_json::Map<String, serde_json::Value> =
        own.map(|entry| (entry.name.clone(), json!(entry.value))).collect();
    let partitions: Vec<serde_json::Value> =
        partitions.iter().map(|partition| partition_document(partition)).collect();
    json!({
        "topic": topic.name,
        "topicId": shown_id(topic.id),
        "isInternal": topic.is_internal,
        "partitionCount": topic.partitions.len(),
        "replicationFactor": topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
        "configs": own,
        "partitions": partitions,
    })
}

/// A partition as JSON.
pub(super) fn partition_document(partition: &PartitionDescription) -> serde_json::Value {
    let (elr, last_known) = partition.elr.clone().unwrap_or_default();
    json!({
        "partition": partition.index,
        "leader": partition.leader,
        "leaderEpoch": partition.leader_epoch,
        "replicas": partition.replicas,
        "isr": partition.isr,
        "offlineReplicas": partition.offline,
        "elr": elr,
        "lastKnownElr": last_known,
    })
}

fn joined(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// `1:2,2:3` as the replicas of each partition.
fn parse_assignment(text: &str) -> Result<Vec<Vec<i32>>, ClientError> {
    let mut all: Vec<Vec<i32>> = Vec::new();
    for (index, one) in text.split(',').enumerate() {
        let replicas: Result<Vec<i32>, _> = one.split(':').map(|node| node.trim().parse()).collect();
        let replicas =
            replicas.map_err(|_| ClientError::Usage(format!("'{one}' is not a list of broker ids")))?;
        let distinct: BTreeSet<&i32> = replicas.iter().collect();
        if distinct.len() != replicas.len() {
            return Err(ClientError::Usage(format!(
                "Partition replica lists may not contain duplicate entries: {one}"
            )));
        }
        if all.first().is_some_and(|first| first.len() != replicas.len()) {
            return Err(ClientError::Usage(format!(
                "Partition {index} has different replication factor: {replicas:?}"
            )));
        }
        all.push(replicas);
    }
    Ok(all)
}

fn parse_config(pair: &str) -> Result<(String, String), ClientError> {
    let (key, value) = pair.split_once('=').ok_or_else(|| {
        ClientError::Usage("requirement failed: Invalid topic config: all configs to be added must be in the format \"key=val\".".to_owned())
    })?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An id as Kafka writes it: base64 for addresses, without padding.
pub(super) fn shown_id(id: Uuid) -> String {
    let number = id.as_u128();
    // 22 digits of 6 bits are 132 bits: the last digit has four bits of nothing.
    let digit = |index: u32| {
        let bits = if index == 21 { number << 4 } else { number >> (122 - 6 * index) };
        BASE64.get((bits & 63) as usize).map_or('-', |byte| char::from(*byte))
    };
    (0..22).map(digit).collect()
}

fn parse_id(text: &str) -> Result<Uuid, ClientError> {
    let wrong = || ClientError::Usage(format!("'{text}' is not a topic id"));
    if text.len() != 22 {
        return Err(wrong());
    }
    let mut number: u128 = 0;
    for (index, byte) in text.bytes().enumerate() {
        let digit = BASE64.iter().position(|one| *one == byte).ok_or_else(wrong)? as u128;
        number = if index == 21 { number << 2 | digit >> 4 } else { number << 6 | digit };
    }
    Ok(Uuid::from_u128(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ConfigSource;

    fn topic() -> TopicDescription {
        let partition = PartitionDescription {
            index: 0,
            leader: Some(1),
            leader_epoch: 4,
            replicas: vec![1, 2],
            isr: vec![1],
            offline: vec![],
            elr: Some((vec![], vec![2])),
        };
        let headless = PartitionDescription { index: 1, leader: None, elr: None, ..partition.clone() };
        TopicDescription {
            name: "t".to_owned(),
            id: Uuid::from_u128(1),
            is_internal: false,
            partitions: vec![partition, headless],
        }
    }

    #[test]
    fn lines_are_those_of_kafka_topics() {
        let entry = |name: &str, source| ConfigEntry {
            name: name.to_owned(),
            value: Some("1".to_owned()),
            source: ConfigSource(source),
            is_sensitive: false,
            synonyms: vec![],
        };
        let topic = topic();
        assert_eq!(
            topic_line(&topic, &[entry("a", 1), entry("b", 5), entry("c", 4)]),
            "Topic: t\tTopicId: AAAAAAAAAAAAAAAAAAAAAQ\tPartitionCount: 2\tReplicationFactor: 2\tConfigs: a=1,c=1\n"
        );
        assert_eq!(
            partition_line("t", &topic.partitions[0]),
            "\tTopic: t\tPartition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1\tElr: \tLastKnownElr: 2\n"
        );
        assert_eq!(
            partition_line("t", &topic.partitions[1]),
            "\tTopic: t\tPartition: 1\tLeader: none\tReplicas: 1,2\tIsr: 1\tElr: N/A\tLastKnownElr: N/A\n"
        );
    }

    #[test]
    fn ids_are_written_as_kafka_writes_them_and_read_back() {
        let id = Uuid::from_u128(0x7c12_002c_4b1e_8290_a5cc_7af3_f79e_4ec8);
        assert_eq!(shown_id(id), "fBIALEsegpClzHrz955OyA");
        assert_eq!(parse_id(&shown_id(id)).unwrap(), id);
        assert!(parse_id("short").is_err() && parse_id("!!!!!!!!!!!!!!!!!!!!!!").is_err());
    }

    #[test]
    fn an_assignment_lists_the_replicas_of_each_partition() {
        assert_eq!(parse_assignment("1:2, 2:3").unwrap(), [[1, 2], [2, 3]]);
        for wrong in ["1:1", "1:2,3", "x", "", "1:"] {
            assert!(parse_assignment(wrong).is_err(), "{wrong}");
        }
    }
}
