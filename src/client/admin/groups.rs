//! Consumer groups from outside: listed, described, their offsets read, set and deleted.
//!
//! Each request goes to the group's own coordinator, which is looked up again when it has moved.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::consumer_group_describe_response::Assignment;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::Request;

use super::{Admin, text};
use crate::client::membership::decode_assignment;
use crate::client::{ClientError, Cluster, TopicPartition};

const GROUP_ID_NOT_FOUND: i16 = 69;
const UNSUPPORTED_VERSION: i16 = 35;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// OffsetFetch 8 asks for groups; before it, for one.
const OFFSET_FETCH_OF_GROUPS: i16 = 8;
/// Up to here topics have names, not ids.
const NAMES_CEILING: i16 = 9;

/// A group of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub id: String,
    /// `consumer`, `connect` and others; empty for a group that only has offsets.
    pub protocol_type: String,
    /// Stable, Empty and others.
    pub state: String,
    /// `classic`, `consumer` and others; Kafka calls what it is not told classic.
    pub kind: String,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub id: String,
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// Stable, Empty, Dead and others.
    pub state: String,
    /// Node id of the coordinator.
    pub coordinator: i32,
    /// `host:port` of the coordinator.
    pub coordinator_address: String,
    /// The assignor that the group has agreed on.
    pub assignor: String,
    /// Epochs of the group and of the target assignment; of consumer groups only.
    pub epochs: Option<(i32, i32)>,
    /// The members, by member id.
    pub members: Vec<GroupMemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMemberDescription {
    /// The id that the coordinator gave it.
    pub id: String,
    /// `group.instance.id`, if it is a static member.
    pub instance_id: Option<String>,
    /// `client.id`
    pub client_id: String,
    /// From where it is connected.
    pub host: String,
    /// Epoch; of members of consumer groups only.
    pub epoch: Option<i32>,
    /// What it reads, sorted.
    pub assignment: Vec<TopicPartition>,
    /// What it is to read once it has given up the rest, sorted; of members of consumer groups only.
    pub target: Vec<TopicPartition>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to be read.
    pub offset: i64,
    /// Epoch of the leader that the record before it came from, if the committer said.
    pub leader_epoch: Option<i32>,
    /// What the committer added.
    pub metadata: String,
}

impl Admin {
    /// Every group of the cluster, by id; of these states and types, unless they are empty.
    pub fn list_groups(
        &mut self,
        states: &[String],
        kinds: &[String],
    ) -> Result<Vec<GroupListing>, ClientError> {
        let mut found = Vec::new();
        for node in self.cluster.node_ids()? {
            let connection = self.cluster.node(node)?;
            let version = connection.version::<ListGroupsRequest>(i16::MAX)?;
            // Before these versions there is no filter: what comes is filtered here.
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request = request.with_states_filter(states.iter().map(|one| text(one)).collect());
            }
            if version >= 5 {
                request = request.with_types_filter(kinds.iter().map(|one| text(one)).collect());
            }
            let ticket = connection.send(&request, version)?;
            let response = connection.receive(ticket)?;
            ClientError::check("the list of groups", response.error_code, None)?;
            found.extend(response.groups.into_iter().map(|group| GroupListing {
                id: group.group_id.0.as_str().to_owned(),
                protocol_type: group.protocol_type.as_str().to_owned(),
                state: group.group_state.as_str().to_owned(),
                kind: match group.group_type.as_str() {
                    "" => "classic".to_owned(),
                    kind => kind.to_owned(),
                },
            }));
        }
        let wanted = |all: &[String], one: &str| {
            all.is_empty() || one.is_empty() || all.iter().any(|wanted| wanted.eq_ignore_ascii_case(one))
        };
        found.retain(|group| wanted(states, &group.state) && wanted(kinds, &group.kind));
        found.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        found.dedup_by(|left, right| left.id == right.id);
        Ok(found)
    }

    /// A group with its members; `None` where there is no such group.
    pub fn describe_group(&mut self, id: &str) -> Result<Option<GroupDescription>, ClientError> {
        match self.describe_consumer_group(id) {
            Ok(found) => Ok(Some(found)),
            Err(ClientError::NoVersion { .. }) => self.describe_classic_group(id),
            Err(error) if matches!(error.code(), Some(GROUP_ID_NOT_FOUND | UNSUPPORTED_VERSION)) => {
                self.describe_classic_group(id)
            }
            Err(error) => Err(error),
        }
    }

    fn describe_consumer_group(&mut self, id: &str) -> Result<GroupDescription, ClientError> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(id)]);
        let (coordinator, mut response) = self.ask_coordinator(id, &request, i16::MAX, |response| {
            response.groups.first().map_or(0, |group| group.error_code)
        })?;
        let Some(group) = response.groups.pop() else { return Err(super::unanswered(id)) };
        ClientError::check(id, group.error_code, group.error_message.as_deref())?;
        let mut members: Vec<GroupMemberDescription> = group
            .members
            .into_iter()
            .map(|member| GroupMemberDescription {
                id: member.member_id.as_str().to_owned(),
                instance_id: member.instance_id.map(|one| one.as_str().to_owned()),
                client_id: member.client_id.as_str().to_owned(),
                host: member.client_host.as_str().to_owned(),
                epoch: Some(member.member_epoch),
                assignment: assigned(&member.assignment),
                target: assigned(&member.target_assignment),
            })
            .collect();
        members.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        Ok(GroupDescription {
            id: id.to_owned(),
            kind: "consumer",
            state: group.group_state.as_str().to_owned(),
            coordinator,
            coordinator_address: self.cluster.address(coordinator),
            assignor: group.assignor_name.as_str().to_owned(),
            epochs: Some((group.group_epoch, group.assignment_epoch)),
            members,
        })
    }

    fn describe_classic_group(&mut self, id: &str) -> Result<Option<GroupDescription>, ClientError> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(id)]);
        let (coordinator, mut response) = self.ask_coordinator(id, &request, i16::MAX, |response| {
            response.groups.first().map_or(0, |group| group.error_code)
        })?;
        let Some(group) = response.groups.pop() else { return Err(super::unanswered(id)) };
        if group.error_code == GROUP_ID_NOT_FOUND {
            return Ok(None);
        }
        ClientError::check(id, group.error_code, group.error_message.as_deref())?;
        // Before DescribeGroups 6 a group that is not there is described as a dead one.
        if group.group_state.as_str() == "Dead" {
            return Ok(None);
        }
        let coordinator_address = self.cluster.address(coordinator);
        classic(id, group, coordinator, coordinator_address).map(Some)
    }

    /// The committed offsets of a group, for every partition that has one.
    pub fn committed_offsets(
        &mut self,
        id: &str,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        committed_offsets(&mut self.cluster, id, self.timeout)
    }

    /// Sets offsets of a group that has no members.
    pub fn set_offsets(
        &mut self,
        id: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, offset) in offsets {
            topics.entry(&partition.topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.partition)
                    .with_committed_offset(*offset)
                    .with_committed_metadata(Some(text(""))),
            );
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(id))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let (_, response) = self.ask_coordinator(id, &request, NAMES_CEILING, |response| {
            response
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|one| one.error_code)
                .max()
                .unwrap_or(0)
        })?;
        for topic in &response.topics {
            for one in &topic.partitions {
                let subject = format!("{}-{}", topic.name.0.as_str(), one.partition_index);
                ClientError::check(&subject, one.error_code, None)?;
            }
        }
        Ok(())
    }

    /// Deletes a group's offsets of these partitions: what became of each.
    pub fn delete_offsets(
        &mut self,
        id: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<(), ClientError>>, ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for one in partitions {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(one.partition);
            topics.entry(&one.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetDeleteRequestTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
        });
        let request =
            OffsetDeleteRequest::default().with_group_id(group_id(id)).with_topics(topics.collect());
        let (_, response) = self.ask_coordinator(id, &request, i16::MAX, |response| response.error_code)?;
        ClientError::check(id, response.error_code, None)?;
        let mut results = BTreeMap::new();
        for topic in &response.topics {
            for one in &topic.partitions {
                let key = TopicPartition::new(topic.name.0.as_str(), one.partition_index);
                let result = ClientError::check(&key.to_string(), one.error_code, None);
                results.insert(key, result);
            }
        }
        Ok(results)
    }

    /// Deletes a group without members, and its offsets.
    pub fn delete_group(&mut self, id: &str) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(id)]);
        let (_, response) = self.ask_coordinator(id, &request, i16::MAX, |response| {
            response.results.first().map_or(0, |result| result.error_code)
        })?;
        let found = response.results.iter().find(|result| result.group_id.0.as_str() == id);
        let Some(found) = found else { return Err(super::unanswered(id)) };
        ClientError::check(id, found.error_code, None)
    }

    fn ask_coordinator<R: Request>(
        &mut self,
        id: &str,
        request: &R,
        ceiling: i16,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<(i32, R::Response), ClientError> {
        ask_coordinator(&mut self.cluster, self.timeout, id, request, ceiling, code)
    }
}

/// The committed offsets of a group, for every partition that has one.
pub(in crate::client) fn committed_offsets(
    cluster: &mut Cluster,
    id: &str,
    patience: Duration,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
    let node = cluster.find_coordinator(id, patience)?;
    let connection = cluster.node(node)?;
    let version = connection.version::<OffsetFetchRequest>(NAMES_CEILING)?;
    let request = if version >= OFFSET_FETCH_OF_GROUPS {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(id))
            .with_member_epoch(-1)
            .with_topics(None);
        OffsetFetchRequest::default().with_groups(vec![group])
    } else {
        OffsetFetchRequest::default().with_group_id(group_id(id)).with_topics(None)
    };
    let (_, response) = ask_coordinator(cluster, patience, id, &request, version, |response| {
        response.groups.first().map_or(response.error_code, |group| group.error_code)
    })?;
    let mut found = BTreeMap::new();
    let mut take =
        |topic: &TopicName, partition: i32, offset: i64, epoch: i32, code: i16, metadata: Option<&str>| {
            ClientError::check(&format!("{}-{partition}", topic.0.as_str()), code, None)?;
            if offset >= 0 {
                let key = TopicPartition::new(topic.0.as_str(), partition);
                let leader_epoch = (epoch >= 0).then_some(epoch);
                let metadata = metadata.unwrap_or_default().to_owned();
                found.insert(key, CommittedOffset { offset, leader_epoch, metadata });
            }
            Ok::<(), ClientError>(())
        };
    ClientError::check(id, response.error_code, None)?;
    for topic in &response.topics {
        for one in &topic.partitions {
            take(
                &topic.name,
                one.partition_index,
                one.committed_offset,
                one.committed_leader_epoch,
                one.error_code,
                one.metadata.as_deref(),
            )?;
        }
    }
    for group in &response.groups {
        ClientError::check(id, group.error_code, None)?;
        for topic in &group.topics {
            for one in &topic.partitions {
                take(
                    &topic.name,
                    one.partition_index,
                    one.committed_offset,
                    one.committed_leader_epoch,
                    one.error_code,
                    one.metadata.as_deref(),
                )?;
            }
        }
    }
    Ok(found)
}

/// Asks the group's coordinator until it is loaded and in its place, as long as `patience`.
fn ask_coordinator<R: Request>(
    cluster: &mut Cluster,
    patience: Duration,
    id: &str,
    request: &R,
    ceiling: i16,
    code: impl Fn(&R::Response) -> i16,
) -> Result<(i32, R::Response), ClientError> {
    let deadline = Instant::now() + patience;
    loop {
        let node = cluster.find_coordinator(id, patience)?;
        let response = cluster.node(node)?.call(request, ceiling)?;
        let error = ClientError::check(id, code(&response), None);
        let elsewhere = error.is_err_and(|error| error.is_about_the_coordinator());
        if !elsewhere || Instant::now() >= deadline {
            return Ok((node, response));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

fn group_id(id: &str) -> GroupId {
    GroupId(text(id))
}

fn assigned(assignment: &Assignment) -> Vec<TopicPartition> {
    let topics = assignment.topic_partitions.iter();
    let mut all: Vec<TopicPartition> = topics
        .flat_map(|topic| {
            let name = topic.topic_name.0.as_str();
            topic.partitions.iter().map(move |partition| TopicPartition::new(name, *partition))
        })
        .collect();
    all.sort_unstable();
    all
}

fn classic(
    id: &str,
    group: DescribedGroup,
    coordinator: i32,
    coordinator_address: String,
) -> Result<GroupDescription, ClientError> {
    // What members of other kinds of groups were given is theirs alone.
    let is_consumer = matches!(group.protocol_type.as_str(), "consumer" | "");
    let mut members = Vec::with_capacity(group.members.len());
    for member in group.members {
        let assignment = if is_consumer { decode_assignment(&member.member_assignment)? } else { Vec::new() };
        members.push(GroupMemberDescription {
            id: member.member_id.as_str().to_owned(),
            instance_id: member.group_instance_id.map(|one| one.as_str().to_owned()),
            client_id: member.client_id.as_str().to_owned(),
            host: member.client_host.as_str().to_owned(),
            epoch: None,
            assignment,
            target: Vec::new(),
        });
    }
    members.sort_unstable_by(|left, right| left.id.cmp(&right.id));
    Ok(GroupDescription {
        id: id.to_owned(),
        kind: "classic",
        state: group.group_state.as_str().to_owned(),
        coordinator,
        coordinator_address,
        assignor: group.protocol_data.as_str().to_owned(),
        epochs: None,
        members,
    })
}
