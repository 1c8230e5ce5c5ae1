//! FindCoordinator: there are no group or transaction coordinators yet, and every key is answered
//! so. For a group that is COORDINATOR_NOT_AVAILABLE: librdkafka asks also for consumers that only
//! read assigned partitions, and reports any other error to them. For a transactional id it is an
//! error that producers treat as fatal.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{CloseReason, Work};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// Kafka's number of the key type for groups.
const KEY_TYPE_GROUP: i8 = 0;
const MESSAGE: &str = "consumer groups and transactions are not there yet";

pub(super) fn find(header: &RequestHeader, body: &Bytes) -> Result<Work, CloseReason> {
    let request: FindCoordinatorRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let is_group = request.key_type == KEY_TYPE_GROUP;
    let error = if is_group { ErrorCode::CoordinatorNotAvailable } else { ErrorCode::UnsupportedVersion };
    let error = error.code();
    let message = Some(StrBytes::from_static_str(MESSAGE));
    let mut answer = FindCoordinatorResponse::default();
    if header.version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(error)
                .with_error_message(message.clone())
        });
        answer.coordinators = coordinators.collect();
    } else {
        answer = answer.with_error_code(error).with_node_id(BrokerId(-1)).with_port(-1);
        if header.version >= 1 {
            answer.error_message = message;
        }
    }
    let mut buffer = BytesMut::new();
    response::encode(&mut buffer, ApiKey::FindCoordinator, header.version, header.correlation_id, &answer)
        .expect("every field set exists in every version served");
    Ok(Work::Encoded(buffer))
}
