//! Which records a request about topics makes, and what it is answered: names, counts and assignments are checked
//! as Kafka's ReplicationControlManager checks them, with its codes and words.
//!
//! Every decision is taken on the state that includes all earlier requests, committed or not; the records of one
//! request are one raft entry, so a topic is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::image::{Image, ImageBuilder};
use super::liveness::Liveness;
use super::placement::BrokerPlacer;
use super::record::{NodeIds, PartitionRecord, Record, ResourceType};
use super::request::{ApiError, CreatedTopic, DeletedTopic, MorePartitions, NewTopic, TopicAnswer, TopicRef};
use super::{ENTRY_BYTES_MAX, configs};
use crate::config::NodeConfig;
use crate::wire::ErrorCode;

/// Longest topic name; the directory `name-partition` must fit a file name.
const TOPIC_NAME_MAX: usize = 249;
/// New partitions in one request, as in Kafka (`MAX_PARTITIONS_PER_BATCH`).
const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;
/// The name of Kafka's own metadata log.
const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// What decisions depend on besides the state.
pub(super) struct Rules<'a> {
    pub(super) node: &'a NodeConfig,
    pub(super) rng: &'a mut fastrand::Rng,
    /// Monotonic milliseconds.
    pub(super) now_ms: u64,
    /// Raft index of the entry that a decision makes.
    pub(super) index_next: u64,
    pub(super) liveness: &'a mut Liveness,
}

impl Rules<'_> {
    /// Raft index of the entry that the last of a decision's records so far is in.
    pub(super) fn index_last(&self, records: &[Record]) -> u64 {
        self.index_next + entries(records).len() as u64 - 1
    }
}

/// The entries that records make: as few as hold them, at least one.
pub(super) fn entries(records: &[Record]) -> Vec<&[Record]> {
    let (mut entries, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, record) in records.iter().enumerate() {
        let more = record.bytes_estimate();
        if bytes + more > ENTRY_BYTES_MAX && at > begin {
            entries.extend(records.get(begin..at));
            (begin, bytes) = (at, 0);
        }
        bytes += more;
    }
    entries.extend(records.get(begin..));
    entries
}

pub(super) type Checked<T> = Result<T, ApiError>;

/// Applies records that were made for exactly this state.
pub(super) fn apply_all(state: &mut ImageBuilder, made: &[Record], records: &mut Vec<Record>) {
    for record in made {
        state.apply(record).expect("records apply to the state they were made for");
    }
    records.extend_from_slice(made);
}

pub(super) fn create_topics(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    topics: &[NewTopic],
    existing_is_fine: bool,
    records: &mut Vec<Record>,
) -> Vec<TopicAnswer> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
    let excessive = wanted_partitions(rules, topics) > PARTITIONS_PER_REQUEST_MAX;
    let mut answered = BTreeSet::new();
    let mut answers = Vec::new();
    for topic in topics {
        if !answered.insert(topic.name.as_str()) {
            continue;
        }
        let repeated = times.get(topic.name.as_str()).is_some_and(|times| *times > 1);
        let result = if repeated && !existing_is_fine {
            refuse(ErrorCode::InvalidRequest, "Duplicate topic name.")
        } else if excessive {
            refuse(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.")
        } else {
            create_topic(rules, state, topic, existing_is_fine, records)
        };
        answers.push(TopicAnswer { name: topic.name.clone(), result });
    }
    answers
}

fn wanted_partitions(rules: &Rules<'_>, topics: &[NewTopic]) -> i64 {
    let wanted = topics.iter().map(|topic| match (topic.assignments.len(), topic.partitions) {
        (0, -1) => i64::from(rules.node.num_partitions),
        (0, partitions) => i64::from(partitions.max(0)),
        (assigned, _) => assigned as i64,
    });
    wanted.fold(0, i64::saturating_add)
}

fn create_topic(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    topic: &NewTopic,
    existing_is_fine: bool,
    records: &mut Vec<Record>,
) -> Checked<CreatedTopic> {
    if topic.name == CLUSTER_METADATA_TOPIC {
        let words = format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
        return refuse(ErrorCode::InvalidRequest, words);
    }
    check_topic_name(&topic.name)?;
    if let Some(existing) = state.image().topic(&topic.name) {
        if !existing_is_fine {
            return refuse(ErrorCode::TopicAlreadyExists, format!("Topic '{}' already exists.", topic.name));
        }
        return Ok(CreatedTopic {
            id: existing.id,
            partitions: existing.partitions.len() as i32,
            replication_factor: existing
                .partitions
                .first()
                .map_or(0, |first| first.replication_factor() as i16),
        });
    }
    if let Some(other) = state.image().colliding_topic(&topic.name) {
        let words = format!("Topic '{}' collides with existing topic: {other}", topic.name);
        return refuse(ErrorCode::InvalidTopicException, words);
    }
    let configs = check_new_configs(rules, state.image(), topic)?;
    let assignments = if topic.assignments.is_empty() {
        place_new_topic(rules, state.image(), topic)?
    } else {
        check_manual_assignments(state.image(), topic)?
    };
    let id = new_topic_id(rules.rng, state.image());
    let name: Arc<str> = Arc::from(topic.name.as_str());
    let mut made = vec![Record::Topic { name: name.clone(), topic_id: id }];
    for (index, replicas) in (0..).zip(&assignments) {
        let record =
            new_partition(state.image(), id, index, replicas).ok_or_else(|| all_fenced(topic, index))?;
        made.push(record);
    }
    made.extend(configs.into_iter().map(|(key, value)| Record::Config {
        resource_type: ResourceType::Topic,
        resource: name.clone(),
        key: Arc::from(key),
        value: Some(Arc::from(value)),
    }));
    apply_all(state, &made, records);
    Ok(CreatedTopic {
        id,
        partitions: assignments.len() as i32,
        replication_factor: assignments.first().map_or(0, |replicas| replicas.len() as i16),
    })
}

/// Kafka's rules for names (`Topic.validate`).
pub fn check_topic_name(name: &str) -> Result<(), ApiError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_string()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > TOPIC_NAME_MAX {
        format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    refuse(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {why}"))
}

fn check_new_configs<'a>(
    rules: &Rules<'_>,
    image: &Image,
    topic: &'a NewTopic,
) -> Checked<BTreeMap<&'a str, &'a str>> {
    let mut configs = BTreeMap::new();
    for (key, value) in &topic.configs {
        let Some(value) = value else {
            return refuse(
                ErrorCode::InvalidConfig,
                format!("Null value not supported for topic configs: {key}"),
            );
        };
        configs.insert(key.as_str(), value.as_str());
    }
    configs::check_topic(rules, image, &configs)?;
    Ok(configs)
}

fn place_new_topic(rules: &mut Rules<'_>, image: &Image, topic: &NewTopic) -> Checked<Vec<NodeIds>> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        return refuse(
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        );
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        return refuse(
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        );
    }
    let partitions = if topic.partitions == -1 { rules.node.num_partitions } else { topic.partitions };
    let factor = if topic.replication_factor == -1 {
        rules.node.default_replication_factor
    } else {
        topic.replication_factor
    };
    let mut placer = BrokerPlacer::new(image, rules.rng);
    let placed: Result<_, String> =
        (0..partitions).map(|_| placer.place(usize::from(factor.unsigned_abs()))).collect();
    placed.map_err(|why| {
        let words = format!("Unable to replicate the partition {factor} time(s): {why}");
        ApiError::new(ErrorCode::InvalidReplicationFactor, words)
    })
}

fn check_manual_assignments(image: &Image, topic: &NewTopic) -> Checked<Vec<NodeIds>> {
    if topic.replication_factor != -1 {
        return refuse(
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        );
    }
    if topic.partitions != -1 {
        return refuse(
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        );
    }
    let mut by_index = BTreeMap::new();
    let mut factor = None;
    for (index, brokers) in &topic.assignments {
        if by_index.contains_key(index) {
            let words = format!("Found multiple manual partition assignments for partition {index}");
            return refuse(ErrorCode::InvalidReplicaAssignment, words);
        }
        check_manual_assignment(image, brokers, factor)?;
        factor = Some(brokers.len());
        by_index.insert(*index, NodeIds::from_slice(brokers));
    }
    if !by_index.keys().copied().eq(0..by_index.len() as i32) {
        return refuse(
            ErrorCode::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        );
    }
    Ok(by_index.into_values().collect())
}

/// Whether a partition may have these replicas; `factor` is how many it must have.
pub fn check_manual_assignment(image: &Image, brokers: &[i32], factor: Option<usize>) -> Checked<()> {
    let invalid = |words: String| refuse(ErrorCode::InvalidReplicaAssignment, words);
    if brokers.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".into());
    }
    let mut sorted = brokers.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for broker in sorted {
        if image.broker(broker).is_none() {
            return invalid(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
        if before == Some(broker) {
            return invalid(format!(
                "The manual partition assignment includes the broker {broker} more than once."
            ));
        }
        before = Some(broker);
    }
    match factor {
        Some(factor) if factor != brokers.len() => invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
             with previous partitions, which have {factor} replica(s).",
            brokers.len()
        )),
        _ => Ok(()),
    }
}

/// A partition whose in-sync set is its active replicas; `None` if there are none.
fn new_partition(image: &Image, topic_id: Uuid, index: i32, replicas: &NodeIds) -> Option<Record> {
    let isr: NodeIds = replicas.iter().copied().filter(|node| image.is_active(*node)).collect();
    let leader = *isr.first()?;
    Some(Record::Partition(PartitionRecord {
        topic_id,
        index,
        replicas: replicas.clone(),
        isr,
        leader,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|node| image.default_directory(*node)).collect(),
        ..PartitionRecord::default()
    }))
}

fn all_fenced(topic: &NewTopic, index: i32) -> ApiError {
    if topic.assignments.is_empty() {
        let words =
            "Unable to replicate the partition: All brokers are currently fenced or in controlled shutdown.";
        return ApiError::new(ErrorCode::InvalidReplicationFactor, words);
    }
    let words = format!(
        "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
         controlled shutdown."
    );
    ApiError::new(ErrorCode::InvalidReplicaAssignment, words)
}

/// A random id that is free, and whose text does not begin with a dash (command lines would take it for an option).
fn new_topic_id(rng: &mut fastrand::Rng, image: &Image) -> Uuid {
    loop {
        let id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
        let dash = id.as_bytes().first().is_some_and(|byte| byte >> 2 == 62);
        if !dash && image.topic_by_id(id).is_none() {
            return id;
        }
    }
}

pub(super) fn delete_topics(
    state: &mut ImageBuilder,
    topics: &[TopicRef],
    records: &mut Vec<Record>,
) -> Vec<DeletedTopic> {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ids: BTreeMap<Uuid, usize> = BTreeMap::new();
    for topic in topics {
        topic.name.iter().for_each(|name| *names.entry(name).or_default() += 1);
        *ids.entry(topic.id).or_default() += 1;
    }
    let mut answers: Vec<DeletedTopic> = Vec::new();
    for topic in topics {
        let repeated_name = topic.name.as_deref().is_some_and(|name| names.get(name).is_some_and(|n| *n > 1));
        let repeated_id = !topic.id.is_nil() && ids.get(&topic.id).is_some_and(|n| *n > 1);
        let mut answer = DeletedTopic { name: topic.name.clone(), id: topic.id, result: Ok(()) };
        answer.result = match (&topic.name, topic.id.is_nil()) {
            (None, true) => refuse(ErrorCode::InvalidRequest, "Neither topic name nor id were specified."),
            (Some(_), false) => {
                refuse(ErrorCode::InvalidRequest, "You may not specify both topic name and topic id.")
            }
            _ if repeated_name => refuse(ErrorCode::InvalidRequest, "Duplicate topic name."),
            _ if repeated_id => refuse(ErrorCode::InvalidRequest, "Duplicate topic id."),
            (Some(name), true) => match state.image().topic(name).map(|found| found.id) {
                Some(id) => {
                    answer.id = id;
                    Ok(())
                }
                None => refuse(
                    ErrorCode::UnknownTopicOrPartition,
                    "This server does not host this topic-partition.",
                ),
            },
            (None, false) => match state.image().topic_by_id(topic.id) {
                Some(found) => {
                    answer.name = Some(found.name.to_string());
                    Ok(())
                }
                None => refuse(ErrorCode::UnknownTopicId, "This server does not host this topic ID."),
            },
        };
        if answers.contains(&answer) && answer.result.is_err() {
            continue;
        }
        // The same topic once by name and once by id: the second finds it gone.
        if answer.result.is_ok() {
            apply_all(state, &[Record::RemoveTopic { topic_id: answer.id }], records);
        }
        answers.push(answer);
    }
    answers
}

pub(super) fn create_partitions(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    topics: &[MorePartitions],
    records: &mut Vec<Record>,
) -> Vec<(String, Checked<()>)> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
    let mut answered = BTreeSet::new();
    let once = topics.iter().filter(|topic| answered.insert(topic.name.as_str()));
    let answer = |topic: &MorePartitions| {
        let repeated = times.get(topic.name.as_str()).is_some_and(|times| *times > 1);
        let result = if repeated {
            refuse(ErrorCode::InvalidRequest, "Duplicate topic name.")
        } else {
            add_partitions(rules, state, topic, records)
        };
        (topic.name.clone(), result)
    };
    once.map(answer).collect()
}

fn add_partitions(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    topic: &MorePartitions,
    records: &mut Vec<Record>,
) -> Checked<()> {
    let Some(found) = state.image().topic(&topic.name).cloned() else {
        return refuse(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.");
    };
    let invalid = |words: String| refuse(ErrorCode::InvalidPartitions, words);
    let has = found.partitions.len() as i32;
    if topic.count == has {
        return invalid(format!("Topic already has {has} partition(s)."));
    }
    if topic.count < has {
        return invalid(format!(
            "The topic {} currently has {has} partition(s); {} would not be an increase.",
            topic.name, topic.count
        ));
    }
    let additional = topic.count - has;
    if let Some(assignments) = topic.assignments.as_ref().filter(|given| given.len() != additional as usize) {
        let words = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return refuse(ErrorCode::InvalidReplicaAssignment, words);
    }
    if i64::from(additional) + records.len() as i64 > PARTITIONS_PER_REQUEST_MAX {
        return refuse(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.");
    }
    let factor = found.partitions.first().map_or(1, |first| first.replication_factor());
    let assignments = match &topic.assignments {
        Some(assignments) => {
            for brokers in assignments {
                check_manual_assignment(state.image(), brokers, Some(factor))?;
            }
            assignments.iter().map(|brokers| NodeIds::from_slice(brokers)).collect()
        }
        None => {
            let mut placer = BrokerPlacer::new(state.image(), rules.rng);
            let placed: Result<Vec<_>, _> = (0..additional).map(|_| placer.place(factor)).collect();
            placed.map_err(|words| ApiError::new(ErrorCode::InvalidReplicationFactor, words))?
        }
    };
    let mut made = Vec::new();
    for (index, replicas) in (has..).zip(&assignments) {
        // The placer gives a broker that is not fenced; only who chooses may have chosen none.
        let words = format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
             controlled shutdown."
        );
        made.push(
            new_partition(state.image(), found.id, index, replicas)
                .ok_or_else(|| ApiError::new(ErrorCode::InvalidReplicaAssignment, words))?,
        );
    }
    apply_all(state, &made, records);
    Ok(())
}

pub(super) fn refuse<T>(code: ErrorCode, words: impl Into<String>) -> Checked<T> {
    Err(ApiError::new(code, words))
}
