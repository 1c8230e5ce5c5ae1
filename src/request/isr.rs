//! AlterPartition: a leader tells the controller the in-sync set that it wants (KIP-497), from version 3 on with the
//! epoch of each broker in it (KIP-903).

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_request::PartitionData as Wanted;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse, BrokerId};
use uuid::Uuid;

use super::controlled::{Asked, Controlled};
use super::refused::Refusal;
use super::{CloseReason, Scene, Work, encoded};
use crate::controller::record::LeaderRecovery;
use crate::controller::request::{IsrChange, IsrState};
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// The epoch of a broker that the asker does not tell.
const EPOCH_UNKNOWN: i64 = -1;

type AlteredTopic = (Uuid, Vec<(i32, Option<ErrorCode>)>);

/// Who asks, and the topics and partitions of a request, in order; with the error of those that nobody has to be asked
/// about.
#[derive(Debug)]
pub(super) struct Alter {
    node_id: i32,
    topics: Vec<AlteredTopic>,
}

pub(super) fn alter(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AlterPartitionRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let (mut asked, mut changes) = (Vec::new(), Vec::new());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let index = wanted.partition_index;
            let change = change_of(wanted);
            if change.is_none() {
                let (node_id, code) = (request.broker_id.0, ErrorCode::InvalidRequest);
                scene.refused_partition(Refusal::IsrOfPartition, node_id, (topic.topic_id, index), code);
            }
            partitions.push((index, change.is_none().then_some(ErrorCode::InvalidRequest)));
            changes.extend(change.map(|change| (topic.topic_id, index, change)));
        }
        asked.push((topic.topic_id, partitions));
    }
    let (node_id, epoch) = (request.broker_id.0, request.broker_epoch);
    scene.desk.controls.push((to, ControllerRequest::AlterPartition { node_id, epoch, changes }));
    Ok(Controlled::waiting(Asked::AlterPartition(Alter { node_id, topics: asked })))
}

/// Nothing for a state of the leader's recovery that Kafka does not have.
fn change_of(wanted: Wanted) -> Option<IsrChange> {
    let with_epochs = wanted.new_isr_with_epochs.iter().map(|one| (one.broker_id.0, one.broker_epoch));
    let without = wanted.new_isr.iter().map(|id| (id.0, EPOCH_UNKNOWN));
    Some(IsrChange {
        leader_epoch: wanted.leader_epoch,
        partition_epoch: wanted.partition_epoch,
        isr: without.chain(with_epochs).collect(),
        recovery: LeaderRecovery::from_code(wanted.leader_recovery_state)?,
    })
}

impl Alter {
    pub(super) fn node_id(&self) -> i32 {
        self.node_id
    }

    pub(super) fn encode(self, header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
        let response = AlterPartitionResponse::default();
        let results = match answer {
            Some(ControllerAnswer::Isr(Ok(results))) => results,
            Some(ControllerAnswer::Isr(Err(code)) | ControllerAnswer::Refused(code)) => {
                return encoded(header, &response.with_error_code(code.code()));
            }
            _ => return encoded(header, &response.with_error_code(ErrorCode::UnknownServerError.code())),
        };
        // The answers are in the order of the changes that were asked for.
        let mut results = results.into_iter();
        let mut answered = |(index, refused): (i32, Option<ErrorCode>)| match refused {
            Some(code) => partition(index, Err(code)),
            None => {
                let result =
                    results.next().map_or(Err(ErrorCode::UnknownServerError), |(_, _, result)| result);
                partition(index, result)
            }
        };
        let mut topics = Vec::with_capacity(self.topics.len());
        for (topic_id, partitions) in self.topics {
            let partitions = partitions.into_iter().map(&mut answered).collect();
            topics.push(TopicData::default().with_topic_id(topic_id).with_partitions(partitions));
        }
        encoded(header, &response.with_topics(topics))
    }
}

fn partition(index: i32, result: Result<IsrState, ErrorCode>) -> PartitionData {
    let told = PartitionData::default().with_partition_index(index);
    match result {
        Err(code) => told.with_error_code(code.code()),
        Ok(state) => told
            .with_leader_id(BrokerId(state.leader))
            .with_leader_epoch(state.leader_epoch)
            .with_isr(state.isr.iter().map(|id| BrokerId(*id)).collect())
            .with_leader_recovery_state(state.recovery as i8)
            .with_partition_epoch(state.partition_epoch),
    }
}
