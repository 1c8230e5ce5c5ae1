//! Raft messages to the other controllers: a link to each, and what waits to go on it.
//!
//! Messages go in order, several in one frame where they waited together; raft makes up for those that are lost, so
//! nothing is sent twice, and what waits when a link is lost is dropped. Each frame is answered, so silence has a
//! deadline and a peer that is slow is not buried.
//!
//! A node that nobody can dial asks every voter for its mail on the same links: it has one frame there at a time,
//! with what it has to say or with nothing ([`super::mailbox`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::followers::{Address, LinkIds};
use super::link::{Answered, Link, LinkId, LinkLoss, LinkRules, Loss};
use super::mailbox::{MailDelivery, Mailboxes, Waiting};
use crate::broker::Output;
use crate::controller::{Input, RaftPeer};
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::wire::ErrorCode;
use crate::wire::outbound::{self, OutboundRequest, RAFT_MESSAGES, RAFT_MESSAGES_VERSION, RaftMessages};

/// Frames that wait for their answers.
const IN_FLIGHT_MAX: usize = 16;
/// How long an answer may take, in milliseconds. An election is decided long before.
const ANSWER_MS: u64 = 2_000;
/// How long a node that was refused its mail waits before it asks again, in milliseconds.
const REFUSED_MS: u64 = 500;
/// How long a node that has got mail waits for its own answer to it before it asks for more, in milliseconds. One that
/// is no member yet, or no more, is answered at once.
const SETTLE_MS: u64 = 20;

/// A controller that raft messages go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftAddress {
    /// Its raft id: with a new disk it is somebody else.
    pub raft_id: u64,
    /// Its node id.
    pub node_id: i32,
    /// Where its controller listens.
    pub address: Address,
}

/// What raft is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostEvent {
    /// Messages to this raft id are lost.
    Unreachable(u64),
    /// The process of this raft id is gone.
    Gone(u64),
    /// Mail of this member.
    Message(RaftPeer, Bytes),
    /// The leader with this raft id does not know this node.
    NotMember(u64),
    /// Nobody is this raft id any more: its node has another one.
    Renewed(u64),
}

impl PostEvent {
    /// As the controller is told.
    pub fn into_input(self) -> Input {
        match self {
            Self::Unreachable(to) => Input::PeerUnreachable { to },
            Self::Gone(raft_id) => Input::MemberGone { raft_id },
            Self::Message(from, bytes) => Input::Message { from, bytes },
            Self::NotMember(by) | Self::Renewed(by) => Input::Disowned { by },
        }
    }
}

#[derive(Debug)]
struct Peer {
    node_id: i32,
    link: Link<()>,
    waiting: Waiting,
    /// This node asks for its mail then.
    asks_at_ms: u64,
}

/// Whose messages go to whom.
#[derive(Debug)]
pub struct RaftPost {
    cluster_id: Arc<str>,
    node_id: i32,
    raft_id: u64,
    seed: u64,
    /// Nobody can dial this node.
    asks: bool,
    peers: BTreeMap<u64, Peer>,
    links: BTreeMap<LinkId, u64>,
    mailboxes: Mailboxes,
    deliveries: Vec<MailDelivery>,
}

impl RaftPost {
    /// The post of one controller, to nobody yet. `asks`: nobody can dial this node.
    pub fn new(cluster_id: Arc<str>, node_id: i32, raft_id: u64, asks: bool, seed: u64) -> Self {
        Self {
            cluster_id,
            node_id,
            raft_id,
            seed,
            asks,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            mailboxes: Mailboxes::default(),
            deliveries: Vec::new(),
        }
    }

    /// Which members ask for their mail, by raft id.
    pub fn set_askers(&mut self, askers: &[u64]) {
        self.mailboxes.set_members(askers, &mut self.deliveries);
    }

    /// A member is about to be heard: what is said to it because of that has to reach it.
    pub fn expect(&mut self, from: u64) {
        if !self.peers.contains_key(&from) {
            self.mailboxes.expect(from, &mut self.deliveries);
        }
    }

    /// A member has sent a frame: it is answered at once, or with its mail where it asks for that or cannot be dialled.
    pub fn called(&mut self, now: Now, from: u64, to: ReplyTo) {
        self.mailboxes.call(now, from, to, &mut self.deliveries);
    }

    /// This node has another raft id from now on: what waits is said by somebody who is no more.
    pub fn set_raft_id(&mut self, raft_id: u64) {
        self.raft_id = raft_id;
        self.peers.values_mut().for_each(|peer| peer.waiting.clear());
    }

    /// Takes the answers to frames of other members.
    pub fn take_deliveries(&mut self) -> Vec<MailDelivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// Whether a link is one of these.
    pub fn owns(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Who there is besides this node. Links to others are closed, and new ones are kept up from now on: a voter
    /// learns by its link that a leader's process is gone.
    pub fn set_peers(&mut self, peers: &[RaftAddress], ids: &mut LinkIds, outputs: &mut Vec<Output>) {
        let links = &mut self.links;
        self.peers.retain(|raft_id, peer| {
            let stays = peers.iter().any(|known| known.raft_id == *raft_id);
            if !stays {
                peer.link.close(outputs);
                links.remove(&peer.link.id());
            }
            stays
        });
        for RaftAddress { raft_id, node_id, address: (host, port) } in peers {
            if *raft_id == self.raft_id {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(raft_id) {
                peer.link.retarget(host, *port, outputs);
                continue;
            }
            let rules = LinkRules::new(IN_FLIGHT_MAX);
            let link = Link::new(ids.take(), Arc::clone(host), *port, rules, self.seed);
            self.links.insert(link.id(), *raft_id);
            let (node_id, waiting) = (*node_id, Waiting::default());
            self.mailboxes.part_with(*raft_id, &mut self.deliveries);
            self.peers.insert(*raft_id, Peer { node_id, link, waiting, asks_at_ms: 0 });
        }
    }

    /// A message for a peer. One that nobody can take is lost.
    pub fn send(&mut self, to: u64, message: Bytes, events: &mut Vec<PostEvent>) {
        let taken = self.mailboxes.send(to, &message);
        let taken = taken.or_else(|| self.peers.get_mut(&to).map(|peer| peer.waiting.push(message)));
        if taken != Some(true) {
            events.push(PostEvent::Unreachable(to));
        }
    }

    /// Dials who is to be dialled and sends what waits.
    pub fn go_on(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for (to, peer) in &mut self.peers {
            peer.link.want(now, outputs);
            while peer.may_send(now, self.asks) {
                let mail = RaftMessages {
                    cluster_id: self.cluster_id.to_string(),
                    node_id: self.node_id,
                    from: self.raft_id,
                    to: *to,
                    messages: peer.waiting.take_frame(),
                };
                let frame = |correlation_id| {
                    let bytes = mail.messages.iter().map(Bytes::len).sum::<usize>();
                    let (key, version) = (RAFT_MESSAGES, RAFT_MESSAGES_VERSION);
                    let mut frame = OutboundRequest::begin(key, version, correlation_id, bytes + 64);
                    mail.write(frame.body());
                    frame.finish()
                };
                peer.link.send(now, (), ANSWER_MS, frame, outputs);
            }
        }
        self.mailboxes.go_on(&mut self.deliveries);
    }

    fn peer_of(&mut self, link: LinkId) -> Option<(u64, &mut Peer)> {
        let raft_id = *self.links.get(&link)?;
        Some((raft_id, self.peers.get_mut(&raft_id)?))
    }

    /// A dial has succeeded.
    pub fn up(&mut self, id: LinkId) {
        if let Some((_, peer)) = self.peer_of(id) {
            peer.link.up();
        }
    }

    /// A connection or a dial has ended.
    pub fn down(&mut self, now: Now, id: LinkId, loss: LinkLoss, events: &mut Vec<PostEvent>) {
        let Some((raft_id, peer)) = self.peer_of(id) else { return };
        let loss = peer.link.down(now, loss);
        peer.lost(raft_id, &loss, events);
    }

    /// An answer.
    pub fn frame(
        &mut self,
        now: Now,
        id: LinkId,
        frame: &Bytes,
        events: &mut Vec<PostEvent>,
        outputs: &mut Vec<Output>,
    ) {
        let Some((raft_id, peer)) = self.peer_of(id) else { return };
        if !peer.link.is_up() {
            return;
        }
        match peer.link.frame(now, frame, outputs) {
            Answered::Body((), body) => match outbound::parse_raft_answer(&body) {
                Ok((0, mail)) => {
                    peer.asks_at_ms = now.mono_ms + SETTLE_MS;
                    let from = RaftPeer { node_id: peer.node_id, raft_id };
                    events.extend(mail.into_iter().map(|bytes| PostEvent::Message(from, bytes)));
                }
                // Somebody else is there now, or it is another cluster's, or this node is nobody there.
                Ok((code, _)) => {
                    peer.asks_at_ms = now.mono_ms + REFUSED_MS;
                    events.push(PostEvent::Unreachable(raft_id));
                    if code == ErrorCode::VoterNotFound.code() {
                        events.push(PostEvent::NotMember(raft_id));
                    } else if code == ErrorCode::InvalidVoterKey.code() {
                        events.push(PostEvent::Renewed(raft_id));
                    }
                }
                Err(_) => {
                    let loss = peer.link.distrust(now, outputs);
                    peer.lost(raft_id, &loss, events);
                }
            },
            Answered::Lost(loss) => peer.lost(raft_id, &loss, events),
        }
    }

    /// When [`RaftPost::wake`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let links = self.peers.values().filter_map(|peer| peer.link.next_wake_ms());
        let asks =
            self.peers.values().filter(|peer| self.asks && peer.link.is_up() && peer.link.in_flight() == 0);
        links.chain(asks.map(|peer| peer.asks_at_ms)).chain(self.mailboxes.next_wake_ms()).min()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Now, events: &mut Vec<PostEvent>, outputs: &mut Vec<Output>) {
        for (raft_id, peer) in &mut self.peers {
            if let Some(loss) = peer.link.wake(now, outputs) {
                peer.lost(*raft_id, &loss, events);
            }
        }
        self.mailboxes.wake(now, &mut self.deliveries);
    }
}

impl Peer {
    /// Whether a frame goes now. A node that asks for its mail has one on its way at a time.
    fn may_send(&self, now: Now, asks: bool) -> bool {
        let has_something = !self.waiting.is_empty();
        if asks {
            let is_due = has_something || self.asks_at_ms <= now.mono_ms;
            return self.link.is_up() && self.link.in_flight() == 0 && is_due;
        }
        self.link.may_send() && has_something
    }

    fn lost(&mut self, raft_id: u64, loss: &Loss<()>, events: &mut Vec<PostEvent>) {
        self.waiting.clear();
        events.push(PostEvent::Unreachable(raft_id));
        events.extend(loss.is_gone.then_some(PostEvent::Gone(raft_id)));
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn post(ids: &mut LinkIds, outputs: &mut Vec<Output>) -> RaftPost {
        let mut post = RaftPost::new(Arc::from("cluster"), 1, 100, false, 7);
        let peer = |raft_id, node_id| RaftAddress { raft_id, node_id, address: (Arc::from("host"), 9093) };
        post.set_peers(&[peer(100, 1), peer(200, 2)], ids, outputs);
        post
    }

    fn sent(output: &Output) -> (i32, RaftMessages) {
        let Output::LinkSend { bytes, .. } = output else { panic!("{output:?}") };
        let correlation_id = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
        let client_id = i16::from_be_bytes(bytes[12..14].try_into().unwrap()) as usize;
        (correlation_id, RaftMessages::parse(&bytes.slice(15 + client_id..)).unwrap())
    }

    fn answer(correlation_id: i32, error: i16) -> Bytes {
        let mut frame = BytesMut::from(&correlation_id.to_be_bytes()[..]);
        frame.extend_from_slice(&[0]);
        outbound::write_raft_answer(&mut frame, error, &[]);
        frame.freeze()
    }

    #[test]
    fn messages_go_in_order_and_together_where_they_waited() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = post(&mut ids, &mut outputs);
        post.send(200, Bytes::from_static(b"one"), &mut events);
        post.send(200, Bytes::from_static(b"two"), &mut events);
        post.send(300, Bytes::from_static(b"lost"), &mut events);
        assert_eq!(std::mem::take(&mut events), [PostEvent::Unreachable(300)]);
        post.go_on(at(0), &mut outputs);
        let [Output::Dial { link, .. }] = outputs[..] else { panic!("{outputs:?}") };
        outputs.clear();
        assert!(post.owns(link));
        post.up(link);
        post.go_on(at(0), &mut outputs);
        let (correlation_id, mail) = sent(&outputs[0]);
        assert_eq!((mail.node_id, mail.from, mail.to, mail.messages.len()), (1, 100, 200, 2));
        post.frame(at(1), link, &answer(correlation_id, 0), &mut events, &mut outputs);
        assert!(events.is_empty() && outputs.len() == 1);
        for _ in 0..5 {
            post.send(200, Bytes::from(vec![0; 400 << 10]), &mut events);
        }
        outputs.clear();
        post.go_on(at(2), &mut outputs);
        assert_eq!(outputs.iter().map(|o| sent(o).1.messages.len()).collect::<Vec<_>>(), [2, 2, 1]);
        post.frame(at(3), link, &answer(1, 104), &mut events, &mut outputs);
        assert_eq!(std::mem::take(&mut events), [PostEvent::Unreachable(200)]);
        post.frame(at(3), link, &answer(2, 127), &mut events, &mut outputs);
        let unknown = PostEvent::NotMember(200);
        assert_eq!(std::mem::take(&mut events), [PostEvent::Unreachable(200), unknown]);
        post.frame(at(3), link, &answer(3, 125), &mut events, &mut outputs);
        assert_eq!(events, [PostEvent::Unreachable(200), PostEvent::Renewed(200)], "it has a new disk");
    }

    #[test]
    fn what_waits_is_bounded_and_a_lost_link_drops_it() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = post(&mut ids, &mut outputs);
        let mut taken = 0;
        while events.is_empty() {
            post.send(200, Bytes::from(vec![0; 1 << 20]), &mut events);
            taken += 1;
        }
        assert_eq!(taken, 9);
        post.go_on(at(0), &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        events.clear();
        post.down(at(1), link, LinkLoss::Refused, &mut events);
        assert_eq!(events, [PostEvent::Unreachable(200)]);
        post.wake(at(1), &mut events, &mut outputs);
        post.up(link);
        outputs.clear();
        post.go_on(at(2), &mut outputs);
        assert!(outputs.is_empty(), "raft makes up for what is lost");
    }

    #[test]
    fn a_process_that_is_gone_is_told_and_one_that_is_silent_is_not_gone() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = post(&mut ids, &mut outputs);
        post.go_on(at(0), &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        post.up(link);
        post.send(200, Bytes::from_static(b"one"), &mut events);
        post.go_on(at(0), &mut outputs);
        post.frame(at(1), link, &answer(0, 0), &mut events, &mut outputs);
        post.down(at(2), link, LinkLoss::Closed, &mut events);
        post.wake(at(2), &mut events, &mut outputs);
        post.down(at(3), link, LinkLoss::Refused, &mut events);
        let lost = PostEvent::Unreachable(200);
        assert_eq!(std::mem::take(&mut events), [lost.clone(), lost.clone(), PostEvent::Gone(200)]);
        post.wake(at(500), &mut events, &mut outputs);
        post.up(link);
        post.send(200, Bytes::from_static(b"one"), &mut events);
        post.go_on(at(500), &mut outputs);
        post.wake(at(2_500), &mut events, &mut outputs);
        assert_eq!(events, [lost]);
    }

    #[test]
    fn a_node_that_nobody_can_dial_asks_for_its_mail_with_one_frame_at_a_time() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = RaftPost::new(Arc::from("cluster"), 1, 100, true, 7);
        let address = (Arc::from("host"), 9093);
        post.set_peers(&[RaftAddress { raft_id: 200, node_id: 2, address }], &mut ids, &mut outputs);
        post.go_on(at(0), &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        post.up(link);
        post.go_on(at(0), &mut outputs);
        let (correlation_id, mail) = sent(&outputs.pop().unwrap());
        assert!(mail.messages.is_empty());
        post.send(200, Bytes::from_static(b"more"), &mut events);
        post.go_on(at(1), &mut outputs);
        assert!(outputs.is_empty(), "the first one is on its way");
        let mut frame = BytesMut::from(&correlation_id.to_be_bytes()[..]);
        frame.extend_from_slice(&[0]);
        outbound::write_raft_answer(&mut frame, 0, &[Bytes::from_static(b"mail")]);
        post.frame(at(5), link, &frame.freeze(), &mut events, &mut outputs);
        let from = RaftPeer { node_id: 2, raft_id: 200 };
        assert_eq!(std::mem::take(&mut events), [PostEvent::Message(from, Bytes::from_static(b"mail"))]);
        post.go_on(at(5), &mut outputs);
        let (correlation_id, mail) = sent(&outputs.pop().unwrap());
        assert_eq!(mail.messages, ["more"]);
        post.frame(at(6), link, &answer(correlation_id, 0), &mut events, &mut outputs);
        post.go_on(at(25), &mut outputs);
        assert!(outputs.is_empty(), "whoever is no member is answered at once");
        assert_eq!(post.next_wake_ms(), Some(26));
        post.go_on(at(26), &mut outputs);
        assert_eq!(outputs.len(), 1);
    }

    #[test]
    fn a_member_that_asks_is_answered_with_its_mail() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = post(&mut ids, &mut outputs);
        let to = ReplyTo { shard: 1, connection: 2, generation: 3, request: 4, part: 0 };
        post.called(at(0), 200, to);
        assert_eq!(post.take_deliveries(), [MailDelivery { to, messages: Vec::new() }], "it is dialled");
        post.expect(200);
        post.send(200, Bytes::from_static(b"one"), &mut events);
        post.go_on(at(0), &mut outputs);
        assert!(post.take_deliveries().is_empty() && !outputs.is_empty(), "as before");
        post.set_askers(&[300]);
        post.called(at(0), 300, to);
        assert!(post.take_deliveries().is_empty());
        post.send(300, Bytes::from_static(b"one"), &mut events);
        post.go_on(at(1), &mut outputs);
        assert_eq!(post.take_deliveries(), [MailDelivery { to, messages: vec![Bytes::from_static(b"one")] }]);
        assert!(events.is_empty());
    }

    #[test]
    fn a_leader_that_this_node_does_not_know_as_a_member_hears_its_answers() {
        let (mut ids, mut outputs, mut events) = (LinkIds::default(), Vec::new(), Vec::new());
        let mut post = post(&mut ids, &mut outputs);
        let to = ReplyTo { shard: 1, connection: 2, generation: 3, request: 4, part: 0 };
        post.expect(300);
        post.send(300, Bytes::from_static(b"heard"), &mut events);
        post.called(at(0), 300, to);
        post.go_on(at(0), &mut outputs);
        let heard = vec![Bytes::from_static(b"heard")];
        assert_eq!((post.take_deliveries(), events.len()), (vec![MailDelivery { to, messages: heard }], 0));
        // It has told of itself: from now on it is dialled.
        let (raft_id, address) = (300, (Arc::from("host"), 9093));
        outputs.clear();
        post.set_peers(&[RaftAddress { raft_id, node_id: 3, address }], &mut ids, &mut outputs);
        post.expect(300);
        post.send(300, Bytes::from_static(b"more"), &mut events);
        post.called(at(1), 300, to);
        post.go_on(at(1), &mut outputs);
        assert_eq!(post.take_deliveries(), [MailDelivery { to, messages: Vec::new() }]);
    }
}
