//! Brokers come, are heard, stop and go: as Kafka's ClusterControlManager and BrokerHeartbeatManager decide it.
//!
//! A broker registers fenced and is unfenced when it has applied its own registration. Whatever makes it inactive
//! takes its leaderships away in the same entry: the changes of its partitions come before the record about the
//! broker, so also an entry that had to be cut in two leaves no partition with a leader that may not lead.

use std::sync::Arc;

use uuid::Uuid;

use super::image::ImageBuilder;
use super::record::{BrokerRegistration, Endpoint, METADATA_VERSION_CLUSTER, Record};
use super::request::HeartbeatAnswer;
use super::topics::{Checked, Rules, apply_all, refuse};
use super::{directories, elections};
use crate::wire::ErrorCode;

/// What a broker says of itself when it starts.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) node_id: i32,
    pub(super) incarnation: Uuid,
    pub(super) listeners: Vec<Endpoint>,
    pub(super) rack: Option<Arc<str>>,
    pub(super) directories: Vec<Uuid>,
    pub(super) previous_epoch: i64,
    pub(super) cluster_id: Option<Arc<str>>,
}

/// What a broker says while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    pub(super) node_id: i32,
    pub(super) epoch: i64,
    pub(super) applied_version: u64,
    pub(super) wants_fence: bool,
    pub(super) wants_shutdown: bool,
}

/// A broker registers; gives its epoch.
pub(super) fn register(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    asked: Registration,
    records: &mut Vec<Record>,
) -> Result<i64, ErrorCode> {
    let image = state.image();
    if asked.cluster_id.is_some() && asked.cluster_id.as_ref() != image.cluster_id() {
        return Err(ErrorCode::InconsistentClusterId);
    }
    let node_id = asked.node_id;
    let is_clustered = image.metadata_version() >= METADATA_VERSION_CLUSTER;
    let is_alone = image.brokers().all(|broker| broker.node_id == node_id);
    if !is_clustered && !is_alone {
        return Err(ErrorCode::UnsupportedVersion);
    }
    // The broker of the controller's own process names no cluster, and sends no heartbeats: nobody would unfence it,
    // whoever else has registered.
    let is_inside = asked.cluster_id.is_none() && rules.liveness.is_own(node_id);
    if image.is_directory_of_another(node_id, &asked.directories) {
        return Err(ErrorCode::InvalidRegistration);
    }
    let known = image.broker(node_id).cloned();
    let mut broker = BrokerRegistration {
        node_id,
        incarnation: asked.incarnation,
        epoch: rules.index_next as i64,
        listeners: asked.listeners,
        rack: asked.rack,
        fenced: false,
        in_controlled_shutdown: false,
        directories: if is_clustered { asked.directories } else { Vec::new() },
    };
    if let Some(known) = &known {
        if known.incarnation == broker.incarnation {
            // Asked again, perhaps because the answer was lost.
            broker.epoch = known.epoch;
            (broker.fenced, broker.in_controlled_shutdown) = (known.fenced, known.in_controlled_shutdown);
            if **known != broker {
                directories::replace(rules, state, broker, records);
            }
            rules.liveness.registered(node_id, known.epoch, rules.index_next - 1, rules.now_ms);
            return Ok(known.epoch);
        }
        if rules.liveness.has_session(node_id, known.epoch, rules.now_ms) && !known.in_controlled_shutdown {
            return Err(ErrorCode::DuplicateBrokerRegistration);
        }
    }
    let epoch = broker.epoch;
    if is_inside || (is_alone && rules.liveness.is_own(node_id)) {
        // The only controller of a cluster is in the same process: there is nobody to wait for.
        directories::replace(rules, state, broker, records);
        elections::after_gain(rules.node, state, node_id, records);
    } else {
        broker.fenced = true;
        // Without the epoch that it had at last it did not stop in order, or is another disk.
        let lost_log = known.as_ref().is_none_or(|known| known.epoch != asked.previous_epoch);
        if lost_log || known.is_some_and(|known| known.is_active()) {
            deactivate(rules, state, Record::RegisterBroker(broker), lost_log, records);
        } else {
            // It had given up everything before.
            apply_all(state, &[Record::RegisterBroker(broker)], records);
        }
    }
    let index = rules.index_last(records);
    rules.liveness.registered(node_id, epoch, index, rules.now_ms);
    Ok(epoch)
}

/// A heartbeat; what it changes are the broker's directories (`offline` have failed), its fence, its shutdown, and the
/// leaders that follow from these.
pub(super) fn heartbeat(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    heard: Heartbeat,
    offline: &[Uuid],
    records: &mut Vec<Record>,
) -> Result<HeartbeatAnswer, ErrorCode> {
    let unknown = ErrorCode::BrokerIdNotRegistered;
    if state.image().broker(heard.node_id).ok_or(unknown)?.epoch != heard.epoch {
        return Err(ErrorCode::StaleBrokerEpoch);
    }
    rules.liveness.heard(heard, rules.index_next - 1, rules.now_ms);
    let wants_fence = directories::lose(rules, state, heard.node_id, offline, records) || heard.wants_fence;
    let known = state.image().broker(heard.node_id).cloned().ok_or(unknown)?;
    let is_caught_up = rules.liveness.has_caught_up(heard);
    let answer =
        |is_fenced, should_shut_down| Ok(HeartbeatAnswer { is_caught_up, is_fenced, should_shut_down });
    if known.fenced {
        if heard.wants_shutdown {
            return answer(true, true);
        }
        if wants_fence || !is_caught_up {
            return answer(true, false);
        }
        unfence(rules, state, &known, records);
        return answer(false, false);
    }
    let stops = heard.wants_shutdown || known.in_controlled_shutdown;
    if wants_fence && !known.in_controlled_shutdown {
        fence(rules, state, heard.node_id, records);
        return answer(true, heard.wants_shutdown);
    }
    // What is gated by a later metadata version cannot be taken away; a broker of that time is alone.
    let is_clustered = state.image().metadata_version() >= METADATA_VERSION_CLUSTER;
    if !stops || !is_clustered {
        return answer(false, stops);
    }
    if !known.in_controlled_shutdown {
        let stopping = BrokerRegistration { in_controlled_shutdown: true, ..(*known).clone() };
        deactivate(rules, state, Record::RegisterBroker(stopping), false, records);
        let index = rules.index_last(records);
        rules.liveness.stops(heard.node_id, index);
    }
    let leads = state.image().partitions().any(|(_, _, one)| one.leader == heard.node_id);
    let index_last = rules.index_next - 1;
    if leads || !rules.liveness.may_stop(heard.node_id, state.image(), index_last) {
        return answer(false, false);
    }
    fence(rules, state, heard.node_id, records);
    answer(true, true)
}

/// A broker may lead nothing any more: it is silent, gone or wants it so. Does nothing if it is fenced already.
pub(super) fn fence(rules: &Rules<'_>, state: &mut ImageBuilder, node_id: i32, records: &mut Vec<Record>) {
    let Some(known) = state.image().broker(node_id).filter(|broker| !broker.fenced) else { return };
    let fenced = BrokerRegistration { fenced: true, in_controlled_shutdown: false, ..(**known).clone() };
    deactivate(rules, state, Record::RegisterBroker(fenced), false, records);
}

fn unfence(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    known: &BrokerRegistration,
    records: &mut Vec<Record>,
) {
    let unfenced = BrokerRegistration { fenced: false, in_controlled_shutdown: false, ..known.clone() };
    apply_all(state, &[Record::RegisterBroker(unfenced)], records);
    elections::after_gain(rules.node, state, known.node_id, records);
}

/// A broker is gone for good.
pub(super) fn unregister(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    node_id: i32,
    records: &mut Vec<Record>,
) -> Checked<()> {
    let Some(epoch) = state.image().broker(node_id).map(|broker| broker.epoch) else {
        let words = format!("Broker ID {node_id} is not currently registered");
        return refuse(ErrorCode::BrokerIdNotRegistered, words);
    };
    if state.image().metadata_version() < METADATA_VERSION_CLUSTER {
        let words = "The cluster's metadata.version is too old for this; upgrade it with kafka-features.";
        return refuse(ErrorCode::UnsupportedVersion, words);
    }
    deactivate(rules, state, Record::UnregisterBroker { node_id, epoch }, false, records);
    rules.liveness.forget(node_id);
    Ok(())
}

/// Applies a record that makes a broker inactive, and what follows from it; the record comes last.
fn deactivate(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    record: Record,
    lost_log: bool,
    records: &mut Vec<Record>,
) {
    let (Record::RegisterBroker(BrokerRegistration { node_id, .. })
    | Record::UnregisterBroker { node_id, .. }) = record
    else {
        return;
    };
    let mut last = Vec::new();
    apply_all(state, &[record], &mut last);
    elections::after_loss(rules.node, state, node_id, lost_log, records);
    records.append(&mut last);
}
