//! Requests that another node's controller decides: sent on as they came (KIP-590), answered as that answers.

use core::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::{CloseReason, Scene, Work};
use crate::partition::ReplyTo;
use crate::security::Principal;
use crate::wire::api::Route;
use crate::wire::header::RequestHeader;
use crate::wire::primitive::Writer;

/// A client's request on its way to the active controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The request as the client sent it, header and body, without a frame's prefix.
    pub request: Bytes,
    /// Who asks.
    pub principal: Principal,
    /// Where the client is.
    pub peer: IpAddr,
}

impl Forwarded {
    /// The request that a header and a body were split from.
    pub fn new(header: &RequestHeader, body: &Bytes, principal: Principal, peer: IpAddr) -> Self {
        let mut request = BytesMut::with_capacity(32 + body.len());
        let mut writer = Writer::new(&mut request, false);
        writer.i16(header.api.key as i16);
        writer.i16(header.version);
        writer.i32(header.correlation_id);
        writer.string_nullable(header.client_id.as_deref());
        Writer::new(&mut request, header.api.is_flexible(header.version)).tags(0);
        request.extend_from_slice(body);
        Self { request: request.freeze(), principal, peer }
    }
}

/// A request on its way to the active controller.
#[derive(Debug)]
pub struct Forward {
    /// Kept for the case that it is to be served here after all.
    body: Bytes,
    outcome: Option<Result<Work, CloseReason>>,
}

impl Forward {
    /// Sends a request on, if its API is the controller's and that is another node's.
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene<'_>,
    ) -> Option<Work> {
        if !scene.desk.forwards_changes || header.api.route != Route::Controller {
            return None;
        }
        let forwarded = Forwarded::new(header, body, scene.context.principal, scene.context.peer);
        scene.desk.forwards.push((to, forwarded));
        Some(Work::Forward(Box::new(Self { body: body.clone(), outcome: None })))
    }

    /// The response, header and body; `None` where nobody could be asked: then it is served here, and the controller
    /// of this node refuses it in the words of its API, or leads by now.
    pub(super) fn answer(
        &mut self,
        header: &RequestHeader,
        to: ReplyTo,
        response: Option<Bytes>,
        scene: &mut Scene<'_>,
    ) {
        let body = std::mem::take(&mut self.body);
        self.outcome = Some(match response {
            Some(response) => Ok(Work::Encoded(framed(&response))),
            None => Work::start_here(header, body, to, scene),
        });
    }

    /// The request itself, where it is served here.
    pub(super) fn served_here(&mut self) -> Option<&mut Work> {
        self.outcome.as_mut()?.as_mut().ok()
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.outcome {
            None => false,
            Some(Ok(work)) => work.is_done(),
            Some(Err(_)) => true,
        }
    }

    /// The response, or why its connection is closed.
    pub(super) fn into_work(self) -> Result<Work, CloseReason> {
        self.outcome.unwrap_or(Err(CloseReason::Malformed))
    }
}

/// A response with its prefix.
fn framed(response: &Bytes) -> BytesMut {
    let mut frame = BytesMut::with_capacity(4 + response.len());
    // What came in a frame fits one.
    let length = u32::try_from(response.len()).unwrap_or(u32::MAX);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(response);
    frame
}
