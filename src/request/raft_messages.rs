//! RaftMessages: what the controllers of other nodes say to this node's. The connection may be any shard's; the
//! messages go to the controller's shard.
//!
//! The answer says that they have arrived there, not what raft made of them; to a node that nobody can dial it brings
//! the mail that waits for it, or waits for some. Until then the frame counts against its
//! shard's memory, and the next one of the connection waits: a peer that sends faster than the controller reads is
//! held up by the socket, and messages stay in the order in which they were sent.

use bytes::Bytes;

use super::connection::BODY_SHARED_BYTES;
use super::refused::Refusal;
use super::{CloseReason, Outbox, Scene, Work};
use crate::controller::RaftPeer;
use crate::partition::ReplyTo;
use crate::wire::header::{self, RequestHeader};
use crate::wire::outbound::{self, RaftMessages};
use crate::wire::{ErrorCode, error_number};

/// What the requests of a shard ask of the controller's shard about the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumAsk {
    /// Messages of another member for the controller.
    Mail(RaftMail),
    /// Who leads the quorum.
    Leader,
}

/// Messages of another member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMail {
    /// Who says it, as it says.
    pub from: RaftPeer,
    /// The raft id that is meant: with another disk this node is somebody else.
    pub to: u64,
    /// The messages, oldest first.
    pub messages: Vec<Bytes>,
}

/// What the controller's shard tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumTold {
    /// Messages were taken, and these are for the sender; or they were for somebody else.
    Taken(Result<Vec<Bytes>, ErrorCode>),
    /// Node id of the leader, as far as this node knows one.
    Leader(Option<i32>),
}

/// Raft messages between their arrival and the answer.
#[derive(Debug)]
pub struct Delivered {
    from: RaftPeer,
    taken: Option<Result<Vec<Bytes>, ErrorCode>>,
}

pub(super) fn deliver(body: &Bytes, to: ReplyTo, scene: &mut Scene) -> Result<Work, CloseReason> {
    let RaftMessages { cluster_id, node_id, from, to: raft_id, messages } = RaftMessages::parse(body)?;
    let from = RaftPeer { node_id, raft_id: from };
    let mut delivered = Delivered { from, taken: None };
    if cluster_id == scene.node.cluster_id {
        let messages = messages.iter().map(own).collect();
        let ask = QuorumAsk::Mail(RaftMail { from, to: raft_id, messages });
        scene.desk.quorum.push((to, ask));
    } else {
        delivered.answer(QuorumTold::Taken(Err(ErrorCode::InconsistentClusterId)), scene);
    }
    Ok(Work::RaftMessages(delivered))
}

/// Raft keeps entries for long; a short one must not keep the block that it was received into.
fn own(message: &Bytes) -> Bytes {
    if message.len() < BODY_SHARED_BYTES { Bytes::copy_from_slice(message) } else { message.clone() }
}

impl Delivered {
    pub(super) fn answer(&mut self, told: QuorumTold, scene: &mut Scene) {
        let QuorumTold::Taken(taken) = told else { return };
        if let Err(code) = &taken {
            scene.refused(Refusal::RaftMessages, self.from.node_id, *code);
        }
        self.taken = Some(taken);
    }

    pub(super) fn is_done(&self) -> bool {
        self.taken.is_some()
    }

    pub(super) fn encode(self, header: &RequestHeader, outbox: &mut Outbox) {
        let buffer = outbox.buffer();
        let start = header::begin_response(buffer, header.api, header.version, header.correlation_id);
        let (error, mail) = match self.taken {
            Some(Ok(mail)) => (None, mail),
            Some(Err(code)) => (Some(code), Vec::new()),
            None => (Some(ErrorCode::UnknownServerError), Vec::new()),
        };
        outbound::write_raft_answer(buffer, error_number(error), &mail);
        header::end_response(buffer, start, 0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::stage::{Stage, TO};
    use super::super::{Answered, Connection};
    use super::*;
    use crate::wire::api::{ApiKey, Listener};

    const OWN_CLUSTER: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn body(cluster_id: &str, messages: Vec<Bytes>) -> BytesMut {
        let mail = RaftMessages { cluster_id: cluster_id.to_owned(), node_id: 2, from: 20, to: 10, messages };
        let mut body = BytesMut::new();
        mail.write(&mut body);
        body
    }

    #[test]
    fn messages_go_to_the_controllers_shard_in_order_and_are_answered_when_they_are_there() {
        let mail = || vec![Bytes::from_static(b"for you")];
        for (taken, answer) in [
            (Ok(Vec::new()), (0, Vec::new())),
            (Ok(mail()), (0, mail())),
            (Err(ErrorCode::InvalidVoterKey), (125, Vec::new())),
        ] {
            let mut stage = Stage::new(&[]);
            let large = Bytes::from(vec![7; BODY_SHARED_BYTES]);
            let sent = vec![Bytes::from_static(b"one"), large, Bytes::from_static(b"two")];
            let body = body(OWN_CLUSTER, sent.clone());
            let (header, mut work) = stage.start_bytes(ApiKey::RaftMessages, 0, &body);
            let (to, ask) = stage.desk.quorum.pop().expect("the controller's shard is asked");
            let from = RaftPeer { node_id: 2, raft_id: 20 };
            assert_eq!((to, ask), (TO, QuorumAsk::Mail(RaftMail { from, to: 10, messages: sent })));
            assert!(!work.is_done() && stage.desk.quorum.is_empty());
            work.answer(&header, TO, Answered::Quorum(QuorumTold::Leader(None)), &mut stage.scene());
            assert!(!work.is_done(), "that was no answer to it");
            work.answer(&header, TO, Answered::Quorum(QuorumTold::Taken(taken)), &mut stage.scene());
            assert_eq!(stage.desk.refusals.take().len(), usize::from(answer.0 != 0));
            assert_eq!(stage.finish_raft(&header, work), answer);
        }
    }

    #[test]
    fn short_messages_do_not_keep_what_they_were_received_with() {
        let whole = Bytes::from(vec![7; 2 * BODY_SHARED_BYTES]);
        let (short, long) = (whole.slice(..100), whole.slice(..BODY_SHARED_BYTES));
        assert_ne!(own(&short).as_ptr(), short.as_ptr());
        assert_eq!((own(&long).as_ptr(), own(&short)), (long.as_ptr(), short));
    }

    #[test]
    fn another_clusters_messages_reach_nobody_and_the_operator_learns_who_sends_them() {
        let mut stage = Stage::new(&[]);
        let body = body("another", vec![Bytes::from_static(b"one")]);
        let (header, work) = stage.start_bytes(ApiKey::RaftMessages, 0, &body);
        assert!(stage.desk.quorum.is_empty());
        assert_eq!(stage.finish_raft(&header, work).0, 104);
        let said = stage.desk.refusals.take();
        assert!(said[0].contains("node 2") && said[0].contains("InconsistentClusterId"), "{said:?}");
    }

    #[test]
    fn on_other_listeners_it_is_an_unknown_api_and_a_broken_body_closes() {
        let mut stage = Stage::new(&[]);
        let frame = |body: &[u8]| -> Bytes {
            let head = [0x03, 0xe8, 0, 0, 0, 0, 0, 77, 0xff, 0xff, 0];
            [&head[..], body].concat().into()
        };
        let body = body(OWN_CLUSTER, Vec::new());
        let context = stage.context;
        let mut accept = |door| Connection::new(context).accept(frame(&body), door, &mut stage.desk.refusals);
        for door in [Listener::Client, Listener::Broker] {
            assert_eq!(accept(door).unwrap_err(), CloseReason::UnknownApi);
        }
        assert!(accept(Listener::Controller).is_ok());
        let said = stage.desk.refusals.take();
        let expected =
            "refused an unknown API of a client at 127.0.0.1: InvalidRequest for API 1000, RaftMessages";
        assert!(said[1].starts_with(expected) && said.len() == 2, "{said:?}");
        let (header, broken) = header::parse(&frame(&body[..body.len() - 1])).unwrap();
        let refused = Work::start(&header, broken, TO, &mut stage.scene()).map(|_| ());
        assert_eq!(refused.unwrap_err(), CloseReason::Malformed);
    }
}
