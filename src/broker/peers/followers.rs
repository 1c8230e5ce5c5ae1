//! Everything that one shard follows: a fetcher and a link for each broker that leads a partition whose follower is
//! here. Pure: positions, frames and time go in; dials, frames and parts for replicas come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::fetcher::{FetchRules, Fetcher, Part, ReplicaKey};
use super::link::{Answered, Link, LinkId, LinkLoss, LinkRules};
use crate::broker::Output;
use crate::effect::Now;
use crate::partition::FetchPosition;
use crate::wire::fetch_round::FETCH_ROUND_VERSION;
use crate::wire::outbound::OutboundRequest;

/// Key of Fetch.
const FETCH: i16 = 1;

/// What was asked of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Round,
    /// Nothing, but that the round before it is held back no longer.
    Nudge,
}

/// Where a node listens for brokers.
pub type Address = (Arc<str>, u16);

/// Gives out the ids of a shard's links.
#[derive(Debug, Default)]
pub struct LinkIds {
    next: u32,
}

impl LinkIds {
    /// The next one.
    pub fn take(&mut self) -> LinkId {
        let id = LinkId(self.next);
        self.next = self.next.checked_add(1).expect("four billion links are not made in one run");
        id
    }
}

/// One leader that is followed.
#[derive(Debug)]
struct Leader {
    fetcher: Fetcher,
    /// None while nobody knows where it listens.
    link: Option<Link<Asked>>,
    /// How many replicas follow it.
    followers: usize,
}

/// What one shard follows.
#[derive(Debug)]
pub struct Followers {
    node_id: i32,
    rules: FetchRules,
    seed: u64,
    broker_epoch: i64,
    leaders: BTreeMap<i32, Leader>,
    /// Whom each replica follows.
    of: BTreeMap<ReplicaKey, i32>,
    /// The leader at the other end of each link.
    links: BTreeMap<LinkId, i32>,
}

impl Followers {
    /// Nobody follows anybody yet.
    pub fn new(node_id: i32, rules: FetchRules, seed: u64) -> Self {
        Self {
            node_id,
            rules,
            seed,
            broker_epoch: -1,
            leaders: BTreeMap::new(),
            of: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// Whether nobody is followed.
    pub fn is_empty(&self) -> bool {
        self.leaders.is_empty()
    }

    /// Whether a link is one of these.
    pub fn owns(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// The broker epoch that rounds carry from now on.
    pub fn set_broker_epoch(&mut self, broker_epoch: i64) {
        self.broker_epoch = broker_epoch;
        self.leaders.values_mut().for_each(|leader| leader.fetcher.set_broker_epoch(broker_epoch));
    }

    /// What a replica wants next; nothing for now where it is `None`.
    pub fn follow(&mut self, key: ReplicaKey, position: Option<FetchPosition>) {
        let before = self.of.get(&key).copied();
        let Some(position) = position else {
            if let Some(leader) = before.and_then(|id| self.leaders.get_mut(&id)) {
                leader.fetcher.want(key, None);
            }
            return;
        };
        if before != Some(position.leader) {
            self.leave(key);
            self.of.insert(key, position.leader);
        }
        let (node_id, rules, broker_epoch) = (self.node_id, self.rules, self.broker_epoch);
        let leader = self.leaders.entry(position.leader).or_insert_with(|| {
            let mut fetcher = Fetcher::new(node_id, rules);
            fetcher.set_broker_epoch(broker_epoch);
            Leader { fetcher, link: None, followers: 0 }
        });
        leader.followers += usize::from(before != Some(position.leader));
        leader.fetcher.want(key, Some(position));
    }

    /// A replica follows nobody any more: it leads, or is gone.
    pub fn leave(&mut self, key: ReplicaKey) {
        let Some(leader) = self.of.remove(&key).and_then(|id| self.leaders.get_mut(&id)) else { return };
        leader.followers -= 1;
        leader.fetcher.leave(key);
    }

    /// What is said of a topic's partitions has changed: those leave that do not follow any more.
    pub fn review(&mut self, topic_id: Uuid, follows: impl Fn(ReplicaKey) -> bool) {
        let of_topic = self.of.range((topic_id, i32::MIN)..=(topic_id, i32::MAX));
        let gone: Vec<ReplicaKey> = of_topic.map(|(key, _)| *key).filter(|key| !follows(*key)).collect();
        gone.into_iter().for_each(|key| self.leave(key));
    }

    /// Nothing is fetched for a replica before a time: its share of a limited rate is used up.
    pub fn hold(&mut self, key: ReplicaKey, until_ms: u64) {
        if let Some(leader) = self.of.get(&key).and_then(|id| self.leaders.get_mut(id)) {
            leader.fetcher.hold(key, until_ms);
        }
    }

    /// Begins what can begin: links to leaders that are followed and listen somewhere, and rounds that are due; ends
    /// links that nobody needs. To be called at the end of a turn, when replicas have written what they were given.
    pub fn go_on(
        &mut self,
        now: Now,
        ids: &mut LinkIds,
        address_of: impl Fn(i32) -> Option<Address>,
        outputs: &mut Vec<Output>,
    ) {
        // A round without a broker epoch could stand for a later process of this broker (KIP-903).
        if self.broker_epoch < 0 {
            return;
        }
        let (seed, links) = (self.seed, &mut self.links);
        self.leaders.retain(|node_id, leader| {
            if leader.followers == 0 {
                if let Some(mut link) = leader.link.take() {
                    link.close(outputs);
                    links.remove(&link.id());
                }
                return false;
            }
            if leader.link.is_none()
                && let Some((host, port)) = address_of(*node_id)
            {
                let link = Link::new(ids.take(), host, port, LinkRules::new(2), seed);
                links.insert(link.id(), *node_id);
                leader.link = Some(link);
            }
            if let Some(link) = &mut leader.link {
                link.want(now, outputs);
                fetch(now, link, &mut leader.fetcher, outputs);
            }
            true
        });
    }

    /// Brokers may listen somewhere else now.
    pub fn relocate(&mut self, address_of: impl Fn(i32) -> Option<Address>, outputs: &mut Vec<Output>) {
        for (node_id, leader) in &mut self.leaders {
            let Some((host, port)) = address_of(*node_id) else { continue };
            let moved = leader.link.as_mut().and_then(|link| link.retarget(&host, port, outputs));
            if moved.is_some() {
                leader.fetcher.lost();
            }
        }
    }

    fn leader_of(&mut self, link: LinkId) -> Option<&mut Leader> {
        self.leaders.get_mut(self.links.get(&link)?)
    }

    /// A dial has succeeded.
    pub fn up(&mut self, id: LinkId) {
        if let Some(link) = self.leader_of(id).and_then(|leader| leader.link.as_mut()) {
            link.up();
        }
    }

    /// A connection or a dial has ended.
    pub fn down(&mut self, now: Now, id: LinkId, loss: LinkLoss) {
        let Some(leader) = self.leader_of(id) else { return };
        leader.fetcher.lost();
        if let Some(link) = &mut leader.link {
            link.down(now, loss);
        }
    }

    /// The answer to a round. Its parts go to `parts`; each replica then says what it wants next.
    pub fn frame(
        &mut self,
        now: Now,
        id: LinkId,
        frame: &Bytes,
        parts: &mut Vec<Part>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(leader) = self.leader_of(id) else { return };
        let Some(link) = leader.link.as_mut().filter(|link| link.is_up()) else { return };
        let understood = match link.frame(now, frame, outputs) {
            Answered::Body(Asked::Round, body) => leader.fetcher.answered(now, body, parts).is_ok(),
            Answered::Body(Asked::Nudge, _) => true,
            Answered::Lost(_) => return leader.fetcher.lost(),
        };
        if !understood {
            link.distrust(now, outputs);
            leader.fetcher.lost();
        }
    }

    /// When [`Followers::wake`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let of_leader = |leader: &Leader| {
            let link = leader.link.as_ref();
            let may_send = link.is_some_and(Link::may_send);
            [link.and_then(Link::next_wake_ms), leader.fetcher.next_wake_ms(may_send)]
                .into_iter()
                .flatten()
                .min()
        };
        self.leaders.values().filter_map(of_leader).min()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Now, outputs: &mut Vec<Output>) {
        for leader in self.leaders.values_mut() {
            leader.fetcher.wake(now);
            if leader.link.as_mut().is_some_and(|link| link.wake(now, outputs).is_some()) {
                leader.fetcher.lost();
            }
        }
    }

    /// The shard stops: nobody is followed any more.
    pub fn close(&mut self, outputs: &mut Vec<Output>) {
        self.of.clear();
        self.links.clear();
        for mut leader in std::mem::take(&mut self.leaders).into_values() {
            if let Some(link) = &mut leader.link {
                link.close(outputs);
            }
        }
    }
}

/// Sends the next round, if one is due and the link takes it, or has the one in flight come for it.
fn fetch(now: Now, link: &mut Link<Asked>, fetcher: &mut Fetcher, outputs: &mut Vec<Output>) {
    if !link.may_send() {
        return;
    }
    let round = fetcher.next_round(now).map(|body| (Asked::Round, body));
    let Some((asked, body)) = round.or_else(|| Some((Asked::Nudge, fetcher.take_nudge(now)?))) else {
        return;
    };
    let frame = |correlation_id| {
        let mut frame = OutboundRequest::begin(FETCH, FETCH_ROUND_VERSION, correlation_id, body.len());
        frame.body().extend_from_slice(&body);
        frame.finish()
    };
    link.send(now, asked, fetcher.timeout_ms(), frame, outputs);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::fetch::FetchRequest;
    use crate::wire::fetch_response::{FetchPartitionResponse, FetchResponseHead, FetchResponseWriter};
    use crate::wire::{ErrorCode, TopicRef, header};

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    fn key(index: i32) -> ReplicaKey {
        (Uuid::from_u128(1), index)
    }

    fn position(leader: i32, fetch_offset: i64) -> Option<FetchPosition> {
        let (leader_epoch, last_fetched_epoch, log_start_offset) = (5, 4, 0);
        Some(FetchPosition { leader, leader_epoch, fetch_offset, last_fetched_epoch, log_start_offset })
    }

    fn everywhere(node_id: i32) -> Option<Address> {
        Some((Arc::from("host"), 9_000 + node_id as u16))
    }

    /// The offsets that a sent frame asks for, by partition index.
    fn asked(output: &Output) -> (LinkId, Vec<(i32, i64)>) {
        let Output::LinkSend { link, bytes } = output else { panic!("{output:?}") };
        let (header, body) = header::parse(&bytes.slice(4..)).unwrap();
        assert_eq!(header.version, FETCH_ROUND_VERSION);
        let request = FetchRequest::parse(body, header.version).unwrap();
        let offsets = request.topics().flat_map(|topic| topic.partitions.map(|p| (p.index, p.fetch_offset)));
        (*link, offsets.collect())
    }

    fn answer(correlation_id: i32, index: i32, records: &[u8]) -> Bytes {
        let mut buffer = BytesMut::new();
        let head = FetchResponseHead { session_id: 3, ..FetchResponseHead::default() };
        let version = FETCH_ROUND_VERSION;
        let mut writer = FetchResponseWriter::new(&mut buffer, version, correlation_id, head, 1);
        writer.topic(TopicRef::Id(key(index).0), 1);
        let empty = FetchPartitionResponse::error(index, ErrorCode::UnknownServerError);
        writer.partition_inline(&FetchPartitionResponse { error: None, ..empty }, records);
        writer.finish(&[]);
        buffer.freeze().slice(4..)
    }

    #[test]
    fn each_leader_has_one_link_and_one_round_in_flight() {
        let (mut followers, mut ids) = (Followers::new(1, FetchRules::default(), 7), LinkIds::default());
        let mut outputs = Vec::new();
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        assert!(outputs.is_empty() && followers.next_wake_ms().is_none(), "nobody follows: nothing happens");
        followers.follow(key(0), position(2, 10));
        followers.follow(key(1), position(3, 20));
        followers.follow(key(2), position(2, 30));
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        assert!(outputs.is_empty(), "it is not registered yet");
        followers.set_broker_epoch(7);
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        let [Output::Dial { link: two, port: 9_002, .. }, Output::Dial { link: three, port: 9_003, .. }] =
            outputs[..]
        else {
            panic!("{outputs:?}")
        };
        outputs.clear();
        [two, three].into_iter().for_each(|link| followers.up(link));
        followers.go_on(at(1), &mut ids, everywhere, &mut outputs);
        assert_eq!(
            outputs.iter().map(asked).collect::<Vec<_>>(),
            [(two, vec![(0, 10), (2, 30)]), (three, vec![(1, 20)])]
        );
        outputs.clear();
        let mut parts = Vec::new();
        followers.frame(at(2), two, &answer(0, 2, b"abc"), &mut parts, &mut outputs);
        assert_eq!((parts[0].0, &parts[0].2.records[..]), (key(2), &b"abc"[..]));
        followers.follow(key(2), None);
        followers.go_on(at(2), &mut ids, everywhere, &mut outputs);
        assert!(outputs.is_empty(), "it is being written");
        followers.follow(key(2), position(2, 33));
        followers.go_on(at(2), &mut ids, everywhere, &mut outputs);
        assert_eq!(asked(&outputs[0]), (two, vec![(2, 33)]));
    }

    #[test]
    fn a_new_follower_does_not_wait_for_the_round_of_the_others() {
        let (mut followers, mut ids) = (Followers::new(1, FetchRules::default(), 7), LinkIds::default());
        followers.set_broker_epoch(7);
        let mut outputs = Vec::new();
        followers.follow(key(0), position(2, 10));
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        followers.up(link);
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        outputs.clear();
        followers.follow(key(1), position(2, 20));
        followers.go_on(at(9), &mut ids, everywhere, &mut outputs);
        assert!(outputs.is_empty() && followers.next_wake_ms() == Some(10));
        followers.go_on(at(10), &mut ids, everywhere, &mut outputs);
        followers.go_on(at(11), &mut ids, everywhere, &mut outputs);
        assert_eq!(outputs.iter().map(asked).collect::<Vec<_>>(), [(link, vec![])], "a nudge");
        outputs.clear();
        let mut parts = Vec::new();
        followers.frame(at(12), link, &answer(0, 0, b""), &mut parts, &mut outputs);
        followers.go_on(at(12), &mut ids, everywhere, &mut outputs);
        assert_eq!(outputs.iter().map(asked).collect::<Vec<_>>(), [(link, vec![(1, 20)])]);
        parts.clear();
        followers.frame(at(12), link, &answer(1, 0, b""), &mut parts, &mut outputs);
        followers.go_on(at(12), &mut ids, everywhere, &mut outputs);
        assert!(parts.is_empty() && outputs.len() == 1, "the nudge's answer says nothing");
    }

    #[test]
    fn a_replica_goes_with_its_leader_and_the_last_one_closes_the_link() {
        let (mut followers, mut ids) = (Followers::new(1, FetchRules::default(), 7), LinkIds::default());
        followers.set_broker_epoch(7);
        let mut outputs = Vec::new();
        followers.follow(key(0), position(2, 10));
        let nowhere = |_| None;
        followers.go_on(at(0), &mut ids, nowhere, &mut outputs);
        assert!(outputs.is_empty(), "nobody knows where it listens");
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        followers.up(link);
        followers.follow(key(0), position(3, 10));
        followers.go_on(at(1), &mut ids, everywhere, &mut outputs);
        let [Output::LinkClose { link: closed }, Output::Dial { link: other, port: 9_003, .. }] = outputs[..]
        else {
            panic!("{outputs:?}")
        };
        assert!(closed == link && !followers.owns(link) && followers.owns(other));
        outputs.clear();
        followers.up(other);
        followers.go_on(at(1), &mut ids, everywhere, &mut outputs);
        followers.relocate(|_| Some((Arc::from("elsewhere"), 1)), &mut outputs);
        followers.go_on(at(2), &mut ids, everywhere, &mut outputs);
        let [Output::LinkSend { .. }, Output::LinkClose { .. }, Output::Dial { port: 1, .. }] = outputs[..]
        else {
            panic!("{outputs:?}")
        };
        outputs.clear();
        followers.leave(key(0));
        followers.go_on(at(3), &mut ids, everywhere, &mut outputs);
        assert!(matches!(outputs[..], [Output::LinkClose { .. }]) && followers.next_wake_ms().is_none());
    }

    #[test]
    fn a_lost_link_is_dialled_again_and_its_round_asked_again() {
        let (mut followers, mut ids) = (Followers::new(1, FetchRules::default(), 7), LinkIds::default());
        followers.set_broker_epoch(7);
        let mut outputs = Vec::new();
        followers.follow(key(0), position(2, 10));
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        let Some(Output::Dial { link, .. }) = outputs.pop() else { panic!("{outputs:?}") };
        followers.up(link);
        followers.go_on(at(0), &mut ids, everywhere, &mut outputs);
        outputs.clear();
        for (now_ms, how) in [(100, "closed"), (200, "nonsense"), (300, "another")] {
            match how {
                "closed" => followers.down(at(now_ms), link, LinkLoss::Closed),
                "nonsense" => {
                    let frame = Bytes::from_static(&[0, 0, 0, 0, 0, 9, 9]);
                    followers.frame(at(now_ms), link, &frame, &mut Vec::new(), &mut outputs);
                }
                _ => followers.frame(at(now_ms), link, &answer(77, 0, b""), &mut Vec::new(), &mut outputs),
            }
            let wake_ms = followers.next_wake_ms().unwrap();
            followers.wake(at(wake_ms), &mut outputs);
            assert!(matches!(outputs.last(), Some(Output::Dial { .. })), "{how}");
            outputs.clear();
            followers.up(link);
            followers.go_on(at(wake_ms), &mut ids, everywhere, &mut outputs);
            assert_eq!(asked(&outputs[0]), (link, vec![(0, 10)]), "{how}");
            outputs.clear();
        }
        followers.wake(at(100_000), &mut outputs);
        assert!(matches!(outputs[..], [Output::LinkClose { .. }]), "an answer that never comes");
    }
}
