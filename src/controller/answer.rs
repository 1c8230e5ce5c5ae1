//! One request: what it makes and is answered, by the module that knows.

use super::brokers::{self, Heartbeat, Registration};
use super::image::ImageBuilder;
use super::record::Record;
use super::request::{ControllerAnswer, ControllerRequest, QuorumState};
use super::topics::{self, Rules};
use super::{configs, directories, elections, features, isr, reassign};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// Producer ids in one block, as in Kafka.
const PRODUCER_ID_BLOCK: i32 = 1000;

/// What a request makes and is answered, and whether its records are to be kept.
pub(super) fn answer(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    request: ControllerRequest,
    quorum: QuorumState,
    records: &mut Vec<Record>,
) -> (ControllerAnswer, bool) {
    match request {
        ControllerRequest::RegisterBroker { .. }
        | ControllerRequest::Heartbeat { .. }
        | ControllerRequest::AssignReplicas { .. }
        | ControllerRequest::UnregisterBroker { .. } => (of_broker(rules, state, request, records), true),
        ControllerRequest::AlterPartition { node_id, epoch, changes } => {
            let results = isr::alter(rules, state, (node_id, epoch), changes, records);
            (ControllerAnswer::Isr(results), true)
        }
        ControllerRequest::ElectLeaders { partitions, kind } => {
            let results = elections::elect_leaders(rules.node, state, partitions, kind, records);
            (ControllerAnswer::Elected(results), true)
        }
        ControllerRequest::AlterReassignments { changes, allow_replication_factor_change } => {
            let results = reassign::alter(rules, state, changes, allow_replication_factor_change, records);
            (ControllerAnswer::Reassigned(results), true)
        }
        ControllerRequest::ListReassignments { partitions } => {
            (ControllerAnswer::Reassignments(reassign::list(state.image(), partitions)), false)
        }
        ControllerRequest::CreateTopics { topics, validate_only } => {
            let answers = topics::create_topics(rules, state, &topics, false, records);
            (ControllerAnswer::Topics(answers), !validate_only)
        }
        ControllerRequest::AutoCreateTopics { topics } => {
            let answers = topics::create_topics(rules, state, &topics, true, records);
            (ControllerAnswer::Topics(answers), true)
        }
        ControllerRequest::DeleteTopics { topics } => {
            (ControllerAnswer::Deleted(topics::delete_topics(state, &topics, records)), true)
        }
        ControllerRequest::CreatePartitions { topics, validate_only } => {
            let answers = topics::create_partitions(rules, state, &topics, records);
            (ControllerAnswer::Partitions(answers), !validate_only)
        }
        ControllerRequest::AllocateProducerIds => {
            let first = state.image().producer_id_next();
            let producer_id_next = first.saturating_add(i64::from(PRODUCER_ID_BLOCK));
            if !is_planted(Bug::ProducerIdsTwice) {
                topics::apply_all(state, &[Record::ProducerIdBlock { producer_id_next }], records);
            }
            (ControllerAnswer::ProducerIds { first, count: PRODUCER_ID_BLOCK }, true)
        }
        ControllerRequest::AlterConfigs { resources, validate_only } => {
            let answers = configs::alter(rules, state, &resources, records);
            elections::after_configs(rules.node, state, &resources, records);
            (ControllerAnswer::Configs(answers), !validate_only)
        }
        ControllerRequest::UpdateFeatures { updates, validate_only } => {
            let result = features::update(rules.node, state, &updates, records);
            (ControllerAnswer::Features(result), !validate_only)
        }
        ControllerRequest::DescribeQuorum => (ControllerAnswer::Quorum(quorum), false),
        // Decided before, with what raft knows.
        ControllerRequest::JoinQuorum { .. }
        | ControllerRequest::AddVoter { .. }
        | ControllerRequest::RemoveVoter { .. }
        | ControllerRequest::UpdateVoter { .. }
        | ControllerRequest::LeaveQuorum { .. } => {
            (ControllerAnswer::Refused(ErrorCode::NotController), false)
        }
    }
}

/// What a broker says of itself, or somebody of it.
fn of_broker(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    request: ControllerRequest,
    records: &mut Vec<Record>,
) -> ControllerAnswer {
    match request {
        ControllerRequest::RegisterBroker {
            node_id,
            incarnation,
            listeners,
            rack,
            directories,
            previous_epoch,
            cluster_id,
        } => {
            let asked = Registration {
                node_id,
                incarnation,
                listeners,
                rack,
                directories,
                previous_epoch,
                cluster_id,
            };
            match brokers::register(rules, state, asked, records) {
                Ok(epoch) => ControllerAnswer::Registered { epoch },
                Err(code) => ControllerAnswer::Refused(code),
            }
        }
        ControllerRequest::Heartbeat {
            node_id,
            epoch,
            applied_version,
            wants_fence,
            wants_shutdown,
            offline_directories: offline,
        } => {
            let heard = Heartbeat { node_id, epoch, applied_version, wants_fence, wants_shutdown };
            ControllerAnswer::Heartbeat(brokers::heartbeat(rules, state, heard, &offline, records))
        }
        ControllerRequest::AssignReplicas { node_id, epoch, assignments } => {
            let results = directories::assign(rules, state, (node_id, epoch), assignments, records);
            ControllerAnswer::Assigned(results)
        }
        ControllerRequest::UnregisterBroker { node_id } => {
            ControllerAnswer::Unregistered(brokers::unregister(rules, state, node_id, records))
        }
        _ => ControllerAnswer::Refused(ErrorCode::InvalidRequest),
    }
}
