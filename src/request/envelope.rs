//! Envelope: a broker passes on the request of a client that only the controller can answer (KIP-590). What is inside
//! is started, answered and encoded as if it had come by itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use kafka_protocol::messages::{EnvelopeRequest, EnvelopeResponse};

use super::{Answered, CloseReason, Outbox, Scene, Work, encoded};
use crate::controller::ControllerAnswer;
use crate::partition::ReplyTo;
use crate::wire::header::{self, RequestHeader};
use crate::wire::{ErrorCode, WireError, guard};

/// Bytes before a response: its length.
const PREFIX_BYTES: usize = 4;

/// A request within a request, between its start and its response.
#[derive(Debug)]
pub struct Envelope {
    header: RequestHeader,
    work: Work,
    /// Where the client is.
    client: IpAddr,
    /// The controller that was asked is none any more: the asker asks the next one.
    has_moved: bool,
}

pub(super) fn open(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: EnvelopeRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let refused =
        |code: ErrorCode| Ok(encoded(header, &EnvelopeResponse::default().with_error_code(code.code())));
    let Some(client) = address(&request.client_host_address) else {
        return refused(ErrorCode::InvalidRequest);
    };
    let (inner, inner_body) = match header::parse(&request.request_data) {
        Ok(parsed) => parsed,
        Err(WireError::VersionUnsupported { .. }) => return refused(ErrorCode::UnsupportedVersion),
        Err(_) => return refused(ErrorCode::InvalidRequest),
    };
    if !inner.api.is_forwardable() {
        return refused(ErrorCode::InvalidRequest);
    }
    match Work::start(&inner, inner_body, to, scene) {
        Ok(work) => Ok(Work::Envelope(Box::new(Envelope { header: inner, work, client, has_moved: false }))),
        // The bytes are the client's; the connection is the broker's and serves others too.
        Err(_) => refused(ErrorCode::InvalidRequest),
    }
}

/// The address of the client, as 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

impl Envelope {
    pub(super) fn answer(&mut self, to: ReplyTo, answered: Answered, scene: &mut Scene) {
        self.has_moved |= matches!(
            &answered,
            Answered::Controller(answer) if **answer == ControllerAnswer::Refused(ErrorCode::NotController)
        );
        let passed_on_by = std::mem::replace(&mut scene.context.peer, self.client);
        self.work.answer(&self.header, to, answered, scene);
        scene.context.peer = passed_on_by;
    }

    pub(super) fn timeout(&mut self, to: ReplyTo, scene: &mut Scene) {
        self.work.timeout(to, scene);
    }

    pub(super) fn is_done(&self) -> bool {
        self.work.is_done()
    }

    /// The whole response.
    pub(super) fn encode(self, header: &RequestHeader, scene: &mut Scene) -> Result<Work, CloseReason> {
        let response = EnvelopeResponse::default();
        if self.has_moved {
            return Ok(encoded(header, &response.with_error_code(ErrorCode::NotController.code())));
        }
        let mut inner = Outbox::default();
        self.work.encode(&self.header, &mut inner, scene)?;
        let mut bytes = std::mem::take(inner.buffer()).freeze();
        let data = bytes.split_off(PREFIX_BYTES.min(bytes.len()));
        Ok(encoded(header, &response.with_response_data(Some(data))))
    }
}
