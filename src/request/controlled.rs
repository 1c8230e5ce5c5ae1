//! Requests whose every answer comes from the controller, in one piece.

use super::alter_configs::Alter;
use super::{Work, brokers, elections, features, isr, quorum, reassignments, unregister};
use crate::controller::ControllerAnswer;
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
    RegisterBroker,
    Heartbeat,
    ProducerIds,
    AlterPartition(isr::Alter),
}

impl Controlled {
    pub(super) fn waiting(asked: Asked) -> Work {
        Work::Controlled(Box::new(Self { asked, answer: None }))
    }

    /// The client's time is up.
    pub(super) fn timeout(&mut self) {
        self.answer.get_or_insert(ControllerAnswer::Refused(ErrorCode::RequestTimedOut));
    }

    pub(super) fn answer(&mut self, answer: ControllerAnswer) {
        self.answer = Some(answer);
    }

    pub(super) fn is_done(&self) -> bool {
        self.answer.is_some()
    }

    /// The whole response.
    pub(super) fn encode(self, header: &RequestHeader) -> Work {
        match self.asked {
            Asked::AlterConfigs(alter) => alter.encode(header, true, self.answer),
            Asked::IncrementalAlterConfigs(alter) => alter.encode(header, false, self.answer),
            Asked::UpdateFeatures(update) => update.encode(header, self.answer),
            Asked::DescribeQuorum(describe) => describe.encode(header, self.answer),
            Asked::ElectLeaders(elect) => elect.encode(header, self.answer),
            Asked::AlterReassignments(alter) => alter.encode(header, self.answer),
            Asked::ListReassignments => reassignments::encode_list(header, self.answer),
            Asked::UnregisterBroker => unregister::encode(header, self.answer),
            Asked::RegisterBroker => brokers::encode_registered(header, self.answer),
            Asked::Heartbeat => brokers::encode_heartbeat(header, self.answer),
            Asked::ProducerIds => brokers::encode_producer_ids(header, self.answer),
            Asked::AlterPartition(alter) => alter.encode(header, self.answer),
        }
    }
}
