//! Requests whose every answer comes from the controller, in one piece.

use super::alter_configs::Alter;
use super::refused::Refusal;
use super::{
    Scene, Work, assignments, brokers, elections, features, isr, join_quorum, quorum, reassignments,
    unregister, voters,
};
use crate::controller::{ApiError, ControllerAnswer};
use crate::wire::ErrorCode;
use crate::wire::header::RequestHeader;

/// A request that waits for the controller.
#[derive(Debug)]
pub struct Controlled {
    asked: Asked,
    answer: Option<ControllerAnswer>,
}

/// What was asked, as far as the response repeats it.
#[derive(Debug)]
pub(super) enum Asked {
    AlterConfigs(Alter),
    IncrementalAlterConfigs(Alter),
    UpdateFeatures(features::Update),
    DescribeQuorum(quorum::Describe),
    ElectLeaders(elections::Elect),
    AlterReassignments(reassignments::Alter),
    ListReassignments,
    UnregisterBroker,
    AddVoter,
    RemoveVoter,
    UpdateVoter,
    /// Of this node, as the next three.
    JoinQuorum(i32),
    RegisterBroker(i32),
    Heartbeat(i32),
    ProducerIds(i32),
    AlterPartition(isr::Alter),
    AssignReplicas(assignments::Assign),
}

impl Asked {
    /// What only a node asks, and which one did.
    fn of_node(&self) -> Option<(Refusal, i32)> {
        Some(match self {
            Self::JoinQuorum(node_id) => (Refusal::Join, *node_id),
            Self::RegisterBroker(node_id) => (Refusal::Registration, *node_id),
            Self::Heartbeat(node_id) => (Refusal::Heartbeat, *node_id),
            Self::ProducerIds(node_id) => (Refusal::ProducerIds, *node_id),
            Self::AlterPartition(alter) => (Refusal::IsrChange, alter.node_id()),
            Self::AssignReplicas(assign) => (Refusal::Directories, assign.node_id()),
            _ => return None,
        })
    }
}

impl Controlled {
    pub(super) fn waiting(asked: Asked) -> Work {
        Work::Controlled(Box::new(Self { asked, answer: None }))
    }

    /// The client's time is up.
    pub(super) fn timeout(&mut self) {
        self.answer.get_or_insert(ControllerAnswer::Refused(ErrorCode::RequestTimedOut));
    }

    pub(super) fn answer(&mut self, answer: ControllerAnswer, scene: &mut Scene) {
        match (&answer, &self.asked) {
            (
                ControllerAnswer::Refused(code)
                | ControllerAnswer::Heartbeat(Err(code))
                | ControllerAnswer::QuorumChanged(Err(ApiError { code, .. }))
                | ControllerAnswer::Isr(Err(code))
                | ControllerAnswer::Assigned(Err(code)),
                asked,
            ) => {
                if let Some((what, node_id)) = asked.of_node() {
                    scene.refused(what, node_id, *code);
                }
            }
            (ControllerAnswer::Isr(Ok(results)), Asked::AlterPartition(alter)) => {
                let refused = results
                    .iter()
                    .filter_map(|(id, index, result)| Some((*id, *index, *result.as_ref().err()?)));
                for (topic_id, index, code) in refused {
                    scene.refused_partition(
                        Refusal::IsrOfPartition,
                        alter.node_id(),
                        (topic_id, index),
                        code,
                    );
                }
            }
            _ => {}
        }
        self.answer = Some(answer);
    }

    pub(super) fn is_done(&self) -> bool {
        self.answer.is_some()
    }

    /// The whole response.
    pub(super) fn encode(self, header: &RequestHeader, scene: &Scene) -> Work {
        match self.asked {
            Asked::JoinQuorum(_) => join_quorum::encode(header, self.answer, scene),
            Asked::AlterConfigs(alter) => alter.encode(header, true, self.answer),
            Asked::IncrementalAlterConfigs(alter) => alter.encode(header, false, self.answer),
            Asked::UpdateFeatures(update) => update.encode(header, self.answer),
            Asked::DescribeQuorum(describe) => describe.encode(header, self.answer),
            Asked::ElectLeaders(elect) => elect.encode(header, self.answer),
            Asked::AlterReassignments(alter) => alter.encode(header, self.answer),
            Asked::ListReassignments => reassignments::encode_list(header, self.answer),
            Asked::UnregisterBroker => unregister::encode(header, self.answer),
            Asked::AddVoter => voters::encode_added(header, self.answer),
            Asked::RemoveVoter => voters::encode_removed(header, self.answer),
            Asked::UpdateVoter => voters::encode_updated(header, self.answer),
            Asked::RegisterBroker(_) => brokers::encode_registered(header, self.answer),
            Asked::Heartbeat(_) => brokers::encode_heartbeat(header, self.answer),
            Asked::ProducerIds(_) => brokers::encode_producer_ids(header, self.answer),
            Asked::AlterPartition(alter) => alter.encode(header, self.answer),
            Asked::AssignReplicas(assign) => assign.encode(header, self.answer),
        }
    }
}
