//! What brokers ask of the controller for themselves: BrokerRegistration when one starts, BrokerHeartbeat while it
//! runs, AllocateProducerIds for the producers that it will have.

use bytes::Bytes;
use kafka_protocol::messages::broker_registration_request::{Feature, Listener};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, ProducerId,
};

use super::controlled::{Asked, Controlled};
use super::refused::Refusal;
use super::{CloseReason, Scene, Work, encoded};
use crate::controller::{ControllerAnswer, ControllerRequest, Endpoint, features};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

/// Ids that Kafka keeps for itself, from 0 on.
const DIRECTORY_IDS_RESERVED: u128 = 100;

pub(super) fn register(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: BrokerRegistrationRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let node_id = request.broker_id.0;
    if let Err(code) = check(&request, scene) {
        scene.refused(Refusal::Registration, node_id, code);
        return Ok(registered(header, Err(code)));
    }
    let asked = ControllerRequest::RegisterBroker {
        node_id,
        incarnation: request.incarnation_id,
        listeners: request.listeners.iter().map(endpoint).collect(),
        rack: request.rack.as_deref().map(Into::into),
        directories: request.log_dirs,
        previous_epoch: request.previous_broker_epoch,
        cluster_id: Some((&*request.cluster_id).into()),
    };
    scene.desk.controls.push((to, asked));
    Ok(Controlled::waiting(Asked::RegisterBroker(node_id)))
}

/// The broker of this process speaks to its controller without a connection: who claims to be it is another, or one
/// that has asked itself for the controller and is to ask the next node.
fn is_own(broker_id: i32, scene: &Scene) -> bool {
    broker_id == scene.node.config.node_id
}

/// Refuses what is no registration of any broker, or none for this cluster.
fn check(request: &BrokerRegistrationRequest, scene: &Scene) -> Result<(), ErrorCode> {
    if is_own(request.broker_id.0, scene) {
        let own = scene.view.image.broker(request.broker_id.0);
        let is_another = own.is_some_and(|own| !own.fenced && own.incarnation != request.incarnation_id);
        return Err(if is_another {
            ErrorCode::DuplicateBrokerRegistration
        } else {
            ErrorCode::NotController
        });
    }
    if request.is_migrating_zk_broker {
        return Err(ErrorCode::BrokerIdNotRegistered);
    }
    if !serves_finalized(&request.features, scene) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    if request.broker_id.0 < 0 || request.incarnation_id.is_nil() {
        return Err(ErrorCode::InvalidRequest);
    }
    let mut directories = request.log_dirs.clone();
    directories.sort_unstable();
    directories.dedup();
    let is_reserved = directories.first().is_some_and(|id| id.as_u128() < DIRECTORY_IDS_RESERVED);
    if is_reserved || directories.len() < request.log_dirs.len() {
        return Err(ErrorCode::InvalidRegistration);
    }
    Ok(())
}

fn endpoint(listener: &Listener) -> Endpoint {
    Endpoint {
        name: (&*listener.name).into(),
        host: (&*listener.host).into(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    }
}

/// Whether a broker with these features can serve what the cluster has finalized. A feature that it does not name is
/// its own business: all nodes of a cluster are of this build.
fn serves_finalized(features: &[Feature], scene: &Scene) -> bool {
    let finalized = features::finalized(&scene.view.image);
    features.iter().all(|feature| {
        let level = finalized.iter().find(|(name, _)| name == feature.name.as_str()).map(|(_, level)| *level);
        let range = feature.min_supported_version..=feature.max_supported_version;
        level.is_none_or(|level| range.contains(&level))
    })
}

/// The answer to a registration: the broker's epoch.
pub(super) fn encode_registered(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let epoch = match answer {
        Some(ControllerAnswer::Registered { epoch }) => Ok(epoch),
        Some(ControllerAnswer::Refused(code)) => Err(code),
        _ => Err(ErrorCode::UnknownServerError),
    };
    registered(header, epoch)
}

fn registered(header: &RequestHeader, epoch: Result<i64, ErrorCode>) -> Work {
    let code = epoch.err().map_or(0, |code| code.code());
    let response = BrokerRegistrationResponse::default().with_error_code(code);
    encoded(header, &response.with_broker_epoch(epoch.unwrap_or(-1)))
}

pub(super) fn heartbeat(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: BrokerHeartbeatRequest = guard::decode(body, header.version, guard::Limits::default())?;
    if is_own(request.broker_id.0, scene) {
        let response = BrokerHeartbeatResponse::default().with_error_code(ErrorCode::NotController.code());
        return Ok(encoded(header, &response));
    }
    let node_id = request.broker_id.0;
    scene.desk.heard.push((to, node_id, request.broker_epoch));
    let asked = ControllerRequest::Heartbeat {
        node_id,
        epoch: request.broker_epoch,
        applied_version: u64::try_from(request.current_metadata_offset).unwrap_or(0),
        wants_fence: request.want_fence,
        wants_shutdown: request.want_shut_down,
        offline_directories: request.offline_log_dirs,
    };
    scene.desk.controls.push((to, asked));
    Ok(Controlled::waiting(Asked::Heartbeat(request.broker_id.0)))
}

/// The answer to a heartbeat.
pub(super) fn encode_heartbeat(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let response = BrokerHeartbeatResponse::default();
    let response = match answer {
        Some(ControllerAnswer::Heartbeat(Ok(answer))) => response
            .with_is_caught_up(answer.is_caught_up)
            .with_is_fenced(answer.is_fenced)
            .with_should_shut_down(answer.should_shut_down),
        Some(ControllerAnswer::Heartbeat(Err(code)) | ControllerAnswer::Refused(code)) => {
            response.with_error_code(code.code())
        }
        _ => response.with_error_code(ErrorCode::UnknownServerError.code()),
    };
    encoded(header, &response)
}

pub(super) fn allocate_producer_ids(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AllocateProducerIdsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let node_id = request.broker_id.0;
    let code = match scene.view.image.broker(node_id) {
        None => ErrorCode::BrokerIdNotRegistered,
        Some(broker) if broker.epoch != request.broker_epoch => ErrorCode::StaleBrokerEpoch,
        Some(_) => {
            scene.desk.controls.push((to, ControllerRequest::AllocateProducerIds));
            return Ok(Controlled::waiting(Asked::ProducerIds(node_id)));
        }
    };
    scene.refused(Refusal::ProducerIds, node_id, code);
    Ok(encoded(header, &AllocateProducerIdsResponse::default().with_error_code(code.code())))
}

/// The answer to AllocateProducerIds: a block of ids.
pub(super) fn encode_producer_ids(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let response = AllocateProducerIdsResponse::default();
    let response = match answer {
        Some(ControllerAnswer::ProducerIds { first, count }) => {
            response.with_producer_id_start(ProducerId(first)).with_producer_id_len(count)
        }
        Some(ControllerAnswer::Refused(code)) => response.with_error_code(code.code()),
        _ => response.with_error_code(ErrorCode::UnknownServerError.code()),
    };
    encoded(header, &response)
}
