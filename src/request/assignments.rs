//! AssignReplicasToDirs: a broker tells the controller in which of its log directories replicas are (KIP-858).

use bytes::Bytes;
use kafka_protocol::messages::assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
use kafka_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use uuid::Uuid;

use super::controlled::{Asked, Controlled};
use super::{CloseReason, Scene, Work, encoded};
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Partitions of one topic in one directory.
type AskedTopic = (Uuid, Vec<i32>);

/// Who asks, and what a request names, in order.
#[derive(Debug)]
pub(super) struct Assign {
    node_id: i32,
    directories: Vec<(Uuid, Vec<AskedTopic>)>,
}

pub(super) fn assign(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AssignReplicasToDirsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let (mut asked, mut assignments) = (Vec::new(), Vec::new());
    for directory in request.directories {
        let mut topics = Vec::with_capacity(directory.topics.len());
        for topic in directory.topics {
            let indexes: Vec<i32> = topic.partitions.iter().map(|one| one.partition_index).collect();
            assignments.extend(indexes.iter().map(|index| (topic.topic_id, *index, directory.id)));
            topics.push((topic.topic_id, indexes));
        }
        asked.push((directory.id, topics));
    }
    let (node_id, epoch) = (request.broker_id.0, request.broker_epoch);
    scene.desk.controls.push((to, ControllerRequest::AssignReplicas { node_id, epoch, assignments }));
    Ok(Controlled::waiting(Asked::AssignReplicas(Assign { node_id, directories: asked })))
}

impl Assign {
    pub(super) fn node_id(&self) -> i32 {
        self.node_id
    }

    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let response = AssignReplicasToDirsResponse::default();
        let results = match answer {
            Some(ControllerAnswer::Assigned(Ok(results))) => results,
            Some(ControllerAnswer::Assigned(Err(code)) | ControllerAnswer::Refused(code)) => {
                return encoded(header, &response.with_error_code(code.code()));
            }
            _ => return encoded(header, &response.with_error_code(ErrorCode::UnknownServerError.code())),
        };
        // The answers are in the order in which it was asked.
        let mut results = results.into_iter();
        let mut answered = |index: i32| {
            let result = results.next().map_or(Err(ErrorCode::UnknownServerError), |(_, _, result)| result);
            let code = result.err().map_or(0, |code| code.code());
            PartitionData::default().with_partition_index(index).with_error_code(code)
        };
        let mut directories = Vec::with_capacity(self.directories.len());
        for (id, asked) in self.directories {
            let mut topics = Vec::with_capacity(asked.len());
            for (topic_id, indexes) in asked {
                let partitions = indexes.into_iter().map(&mut answered).collect();
                topics.push(TopicData::default().with_topic_id(topic_id).with_partitions(partitions));
            }
            directories.push(DirectoryData::default().with_id(id).with_topics(topics));
        }
        encoded(header, &response.with_directories(directories))
    }
}
