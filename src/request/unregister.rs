//! UnregisterBroker: the cluster forgets a broker that is gone for good. A node that answers is not gone.

use bytes::Bytes;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::controlled::{Asked, Controlled};
use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

pub(super) fn unregister(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: UnregisterBrokerRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let node_id = request.broker_id.0;
    if node_id == scene.node.config.node_id && scene.view.image.broker(node_id).is_some() {
        let words = format!(
            "Broker {node_id} is running and holds the cluster's partitions; it cannot be unregistered."
        );
        return Ok(encoded(header, &refused(ErrorCode::InvalidRequest, Some(words))));
    }
    scene.desk.controls.push((to, ControllerRequest::UnregisterBroker { node_id }));
    Ok(Controlled::waiting(Asked::UnregisterBroker))
}

fn refused(code: ErrorCode, words: Option<String>) -> UnregisterBrokerResponse {
    UnregisterBrokerResponse::default()
        .with_error_code(code.code())
        .with_error_message(words.map(StrBytes::from_string))
}

/// The response.
pub(super) fn encode(header: &RequestHeader, answer: Option<ControllerAnswer>) -> Work {
    let response = match answer {
        Some(ControllerAnswer::Unregistered(Ok(()))) => {
            UnregisterBrokerResponse::default().with_error_message(None)
        }
        Some(ControllerAnswer::Unregistered(Err(error))) => refused(error.code, Some(error.message)),
        Some(ControllerAnswer::Refused(code)) => refused(code, None),
        _ => refused(ErrorCode::UnknownServerError, None),
    };
    encoded(header, &response)
}
