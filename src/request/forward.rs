//! Requests that another node's controller decides: sent on as they came (KIP-590), answered as that answers.

use core::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::{CloseReason, Scene, Work};
use crate::partition::ReplyTo;
use crate::security::Principal;
use crate::wire::api::Listener;
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
        // What came on a controllers' listener is meant for this one: it is refused where this one does not lead.
        let is_meant_here = scene.node.door(scene.context.listener) == Listener::Controller;
        if !scene.desk.forwards_changes || is_meant_here || !header.api.is_forwardable() {
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

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::create_topics_request::CreatableTopic;
    use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
    use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, TopicName};
    use kafka_protocol::protocol::Encodable;

    use super::super::Answered;
    use super::super::stage::{Stage, TO};
    use super::*;
    use crate::controller::{ControllerAnswer, ControllerRequest};
    use crate::wire::api::ApiKey;
    use crate::wire::{ErrorCode, StrBytes, header};

    fn orders() -> CreateTopicsRequest {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("orders")))
            .with_num_partitions(3)
            .with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000)
    }

    /// The only request that was sent on.
    fn forwarded(stage: &mut Stage) -> Forwarded {
        let (to, forwarded) = stage.desk.forwards.pop().expect("it was sent on");
        assert_eq!((to, stage.desk.forwards.len()), (TO, 0));
        forwarded
    }

    #[test]
    fn what_another_nodes_controller_decides_is_sent_on_and_answered_as_that_answers() {
        for version in [4, 7] {
            let mut stage = Stage::new(&[]);
            stage.desk.forwards_changes = true;
            let (header, mut work) = stage.start(ApiKey::CreateTopics, version, &orders());
            assert!(!work.is_done() && stage.desk.controls.is_empty());
            let (sent, _) = header::parse(&forwarded(&mut stage).request).unwrap();
            assert_eq!(
                (sent.api.key, sent.version, sent.correlation_id),
                (ApiKey::CreateTopics, version, 77)
            );
            let result =
                CreatableTopicResult::default().with_error_code(ErrorCode::TopicAlreadyExists.code());
            let answer = CreateTopicsResponse::default().with_topics(vec![result]);
            let mut response = BytesMut::from(&77_i32.to_be_bytes()[..]);
            if version == 7 {
                response.extend_from_slice(&[0]);
            }
            answer.encode(&mut response, version).unwrap();
            let answered = Answered::Forwarded(Some(response.freeze()));
            work.answer(&header, TO, answered, &mut stage.scene());
            assert_eq!(stage.finish::<CreateTopicsResponse>(&header, work), answer);
        }
    }

    #[test]
    fn what_nobody_could_be_asked_is_served_here() {
        let mut stage = Stage::new(&[]);
        stage.desk.forwards_changes = true;
        let (header, mut work) = stage.start(ApiKey::CreateTopics, 7, &orders());
        forwarded(&mut stage);
        work.answer(&header, TO, Answered::Forwarded(None), &mut stage.scene());
        let (_, asked) = stage.desk.controls.pop().expect("the controller of this node is asked");
        assert!(matches!(asked, ControllerRequest::CreateTopics { .. }) && !work.is_done());
        let refused = Box::new(ControllerAnswer::Refused(ErrorCode::NotController));
        work.answer(&header, TO, Answered::Controller(refused), &mut stage.scene());
        let response: CreateTopicsResponse = stage.finish(&header, work);
        assert_eq!(response.topics[0].error_code, ErrorCode::NotController.code());
    }

    #[test]
    fn what_this_node_knows_itself_is_not_sent_on() {
        let mut stage = Stage::new(&[]);
        stage.desk.forwards_changes = true;
        let (_, work) = stage.start(ApiKey::Metadata, 12, &MetadataRequest::default().with_topics(None));
        assert!(work.is_done() && stage.desk.forwards.is_empty());
        stage.desk.forwards_changes = false;
        stage.start(ApiKey::CreateTopics, 7, &orders());
        assert!(stage.desk.forwards.is_empty() && stage.desk.controls.len() == 1);
    }
}
