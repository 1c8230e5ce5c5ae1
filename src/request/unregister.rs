//! UnregisterBroker: a broker that is not there cannot be forgotten, and the one that answers is there.

use bytes::Bytes;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{CloseReason, Scene, StrBytes, Work, encoded};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard};

pub(super) fn unregister(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: UnregisterBrokerRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let id = request.broker_id.0;
    let (code, words) = match scene.view.image.broker(id) {
        None => (ErrorCode::BrokerIdNotRegistered, format!("Broker ID {id} is not currently registered")),
        Some(_) => (
            ErrorCode::InvalidRequest,
            format!("Broker {id} is running and holds the cluster's partitions; it cannot be unregistered."),
        ),
    };
    let response = UnregisterBrokerResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(words)));
    Ok(encoded(header, &response))
}
