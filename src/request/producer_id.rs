//! InitProducerId: an id for an idempotent producer, out of the shard's block. The controller
//! gives out blocks, so no id is given twice in the life of a cluster.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{CloseReason, Scene, Work};
use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::partition::ReplyTo;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// The block of producer ids that a shard gives out.
#[derive(Debug, Default)]
pub struct ProducerIds {
    next: i64,
    end: i64,
}

impl ProducerIds {
    fn take(&mut self) -> Option<i64> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// A request that waits for a block.
#[derive(Debug)]
pub struct InitProducerId;

pub(super) fn start(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: InitProducerIdRequest = guard::decode(body, header.version, guard::Limits::default())?;
    if let Some(id) = request.transactional_id {
        // Transactions do not exist yet; the error is one that clients treat as fatal.
        let error = if id.is_empty() { ErrorCode::InvalidRequest } else { ErrorCode::UnsupportedVersion };
        return Ok(Work::Encoded(encode(header, Err(error))));
    }
    if let Some(id) = scene.desk.producer_ids.take() {
        return Ok(Work::Encoded(encode(header, Ok(id))));
    }
    scene.desk.controls.push((to, ControllerRequest::AllocateProducerIds));
    Ok(Work::ProducerId(InitProducerId))
}

/// The block has come, or why it has not.
pub(super) fn finish(header: &RequestHeader, answer: ControllerAnswer, scene: &mut Scene) -> BytesMut {
    let id = match answer {
        ControllerAnswer::ProducerIds { first, count } => {
            // Several requests may have asked for a block at once; the rest of an earlier block
            // then stays unused.
            scene.desk.producer_ids = ProducerIds { next: first, end: first + i64::from(count) };
            scene.desk.producer_ids.take().ok_or(ErrorCode::UnknownServerError)
        }
        ControllerAnswer::Refused(_) => Err(ErrorCode::CoordinatorNotAvailable),
        _ => Err(ErrorCode::UnknownServerError),
    };
    encode(header, id)
}

fn encode(header: &RequestHeader, id: Result<i64, ErrorCode>) -> BytesMut {
    let answer = match id {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    };
    let mut buffer = BytesMut::new();
    response::encode(&mut buffer, ApiKey::InitProducerId, header.version, header.correlation_id, &answer)
        .expect("every field set exists in every version served");
    buffer
}
