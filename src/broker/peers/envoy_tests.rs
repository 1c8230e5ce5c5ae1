//! Beats, changes and requests against controllers that answer as a test says.

use core::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::{
    AllocateProducerIdsResponse, AlterPartitionResponse, BrokerHeartbeatResponse, BrokerRegistrationResponse,
    EnvelopeResponse,
};
use kafka_protocol::protocol::{Encodable, Message};
use smallvec::smallvec;
use uuid::Uuid;

use super::*;
use crate::broker::peers::heart::HeartRules;
use crate::controller::{Endpoint, HeartbeatAnswer, Member, VoterEndpoint};
use crate::partition::LeaderRecovery;
use crate::request::Forwarded;
use crate::security::Principal;

const NOT_CONTROLLER: i16 = 41;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: 0 }
}

fn to(request: u32) -> ReplyTo {
    ReplyTo { shard: 0, connection: 0, generation: 1, request, part: 0 }
}

fn forwarded() -> Ask {
    let request = Bytes::from_static(b"request");
    Ask::Forward(Forwarded { request, principal: Principal::Anonymous, peer: IpAddr::from([127, 0, 0, 1]) })
}

/// The heart's link, and the other two, in the order in which an envoy makes them.
const LIFE: LinkId = LinkId(0);
const REPLICAS: LinkId = LinkId(1);
const CLIENTS: LinkId = LinkId(2);

/// Node 1 as the members know it: a voter that is reached at that host.
fn known_at(host: &str) -> Member {
    let endpoint = Endpoint { name: "C".into(), host: host.into(), port: 1, security_protocol: 0 };
    Member { raft_id: 7, node_id: 1, is_voter: true, endpoint }
}

/// A link, and the port that it was dialled at.
type Dialled = (LinkId, u16);
/// A request on a link: its key and its correlation id.
type Sent = (LinkId, i16, i32);

/// An envoy of node 1 in a cluster whose voters are 11, 12 and 13, and everything that comes of it.
struct Stage {
    envoy: Envoy,
    ids: LinkIds,
    events: Vec<EnvoyEvent>,
    outputs: Vec<Output>,
    now_ms: u64,
}

impl Stage {
    fn new() -> Self {
        Self::of(&[11, 12, 13])
    }

    /// With these voters.
    fn of(voters: &[i32]) -> Self {
        let who = Registration {
            node_id: 1,
            cluster_id: "cluster".into(),
            incarnation: Uuid::from_u128(1),
            listeners: Vec::new(),
            rack: None,
            directories: Vec::new(),
            features: Vec::new(),
        };
        let voter = |node_id: i32| VoterAddress { node_id, host: Arc::from("host"), port: node_id as u16 };
        let rules = HeartRules { interval_ms: 2_000, registration_ms: 60_000, session_ms: 9_000 };
        let heart = Some(Heart::new(at(0), rules, -1));
        let rules = EnvoyRules { session_ms: 9_000, ask_ms: 30_000 };
        let endpoint = Endpoint { name: "C".into(), host: "h".into(), port: 1, security_protocol: 0 };
        let joining = Joining::new(7, endpoint);
        let voters = voters.iter().copied().map(voter).collect();
        let mut envoy = Envoy::new(who, voters, heart, joining, rules, 1);
        // But for the test of it, the node is a member already.
        envoy.joining().answered(at(0), Ok(()));
        envoy.joining().set_known(Some(&known_at("h")));
        Self { envoy, ids: LinkIds::default(), events: Vec::new(), outputs: Vec::new(), now_ms: 0 }
    }

    /// Lets it say what is due.
    fn go_on(&mut self) -> (Vec<Dialled>, Vec<Sent>) {
        self.envoy.go_on(at(self.now_ms), &mut self.ids, &mut self.events, &mut self.outputs);
        let (mut dialled, mut sent) = (Vec::new(), Vec::new());
        for output in self.outputs.drain(..) {
            match output {
                Output::Dial { link, port, .. } => dialled.push((link, port)),
                Output::LinkSend { link, bytes } => {
                    let key = i16::from_be_bytes([bytes[4], bytes[5]]);
                    sent.push((link, key, i32::from_be_bytes(bytes[8..12].try_into().unwrap())));
                }
                _ => {}
            }
        }
        (dialled, sent)
    }

    fn answer<T: Encodable + Message>(
        &mut self,
        link: LinkId,
        correlation_id: i32,
        version: i16,
        answer: &T,
    ) {
        let mut frame = BytesMut::from(&correlation_id.to_be_bytes()[..]);
        frame.extend_from_slice(&[0]);
        answer.encode(&mut frame, version).unwrap();
        self.frame(link, &frame.freeze());
    }

    fn frame(&mut self, link: LinkId, frame: &Bytes) {
        self.envoy.frame(at(self.now_ms), link, frame, &mut self.events, &mut self.outputs);
    }

    fn up(&mut self, links: &[LinkId]) {
        links.iter().for_each(|link| self.envoy.up(*link));
    }

    /// The heart's link has ended in that way.
    fn life_ends(&mut self, loss: LinkLoss) {
        self.envoy.down(at(self.now_ms), LIFE, loss, &mut self.outputs);
    }

    fn wake(&mut self) {
        self.now_ms = self.envoy.next_wake_ms().expect("something is to come");
        self.envoy.wake(at(self.now_ms), &mut self.events, &mut self.outputs);
    }

    /// Registered with epoch 7 and unfenced at voter 11.
    fn serving() -> Self {
        Self::new().served()
    }

    fn served(self) -> Self {
        let mut stage = self;
        assert_eq!(stage.go_on(), (vec![(LIFE, 11)], vec![]));
        stage.envoy.up(LIFE);
        assert_eq!(stage.go_on(), (vec![], vec![(LIFE, 62, 0)]));
        stage.answer(LIFE, 0, 4, &BrokerRegistrationResponse::default().with_broker_epoch(7));
        stage.envoy.heart().unwrap().ready(at(0));
        for correlation_id in [1, 2] {
            assert_eq!(stage.go_on().1, [(LIFE, 63, correlation_id)]);
            let serves = BrokerHeartbeatResponse::default().with_is_caught_up(true).with_is_fenced(false);
            stage.answer(LIFE, correlation_id, 1, &serves);
        }
        let told = [HeartEvent::Registered(7), HeartEvent::CaughtUp, HeartEvent::Unfenced];
        assert_eq!(std::mem::take(&mut stage.events), told.map(EnvoyEvent::Heart));
        stage
    }
}

fn change() -> IsrChange {
    let recovery = LeaderRecovery::Recovered;
    IsrChange { leader_epoch: 1, partition_epoch: 3, isr: smallvec![(1, 7)], recovery }
}

const KEY: ReplicaKey = (Uuid::from_u128(5), 0);

#[test]
fn each_kind_goes_on_its_own_link_and_comes_back_to_who_asked() {
    let mut stage = Stage::serving();
    stage.envoy.alter(KEY, change());
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.envoy.ask(at(0), to(2), Ask::ProducerIds, &mut stage.events);
    assert_eq!(
        stage.go_on(),
        (vec![(REPLICAS, 11), (CLIENTS, 11)], vec![]),
        "there was nothing to go before"
    );
    stage.up(&[REPLICAS, CLIENTS]);
    assert_eq!(stage.go_on(), (vec![], vec![(REPLICAS, 56, 0), (CLIENTS, 58, 0), (CLIENTS, 67, 1)]));
    let partition = PartitionData::default().with_partition_index(0).with_partition_epoch(4);
    let topic = TopicData::default().with_topic_id(KEY.0).with_partitions(vec![partition]);
    stage.answer(REPLICAS, 0, 3, &AlterPartitionResponse::default().with_topics(vec![topic]));
    let response = Bytes::from_static(b"response");
    stage.answer(CLIENTS, 0, 0, &EnvelopeResponse::default().with_response_data(Some(response.clone())));
    stage.answer(CLIENTS, 1, 0, &AllocateProducerIdsResponse::default().with_producer_id_len(1_000));
    let [EnvoyEvent::Altered(altered), forwarded, ids] = &stage.events[..] else {
        panic!("{:?}", stage.events)
    };
    assert!(
        matches!(&altered[..], [(KEY, asked, Ok(state))] if *asked == change() && state.partition_epoch == 4)
    );
    assert_eq!(*forwarded, EnvoyEvent::Forwarded(to(1), Some(response)));
    let block = ControllerAnswer::ProducerIds { first: 0, count: 1_000 };
    assert_eq!(*ids, EnvoyEvent::Controlled(to(2), block));
    assert_eq!(stage.envoy.next_wake_ms(), Some(2_000), "the next heartbeat");
}

#[test]
fn a_heartbeat_does_not_wait_for_what_clients_ask() {
    let mut stage = Stage::serving();
    (0..100).for_each(|n| stage.envoy.ask(at(0), to(n), forwarded(), &mut stage.events));
    stage.go_on();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1.len(), 64, "as many as the link takes");
    let mut beats = 0;
    while stage.now_ms < 30_000 {
        stage.wake();
        for (link, key, correlation_id) in stage.go_on().1 {
            assert_eq!((link, key), (LIFE, 63));
            let serves = BrokerHeartbeatResponse::default().with_is_caught_up(true).with_is_fenced(false);
            stage.answer(LIFE, correlation_id, 1, &serves);
            beats += 1;
        }
    }
    assert_eq!(beats, 15, "one every two seconds");
    let is_refused = |event: &EnvoyEvent| matches!(event, EnvoyEvent::Forwarded(_, None));
    assert_eq!(stage.events.iter().filter(|event| is_refused(event)).count(), 100);
    assert_eq!(stage.go_on().0, [], "the controller answers heartbeats: it is not left for that");
}

#[test]
fn a_link_that_nobody_needs_is_not_dialled_again() {
    let mut stage = Stage::serving();
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.go_on();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1, [(CLIENTS, 58, 0)]);
    let response = Bytes::from_static(b"response");
    stage.answer(CLIENTS, 0, 0, &EnvelopeResponse::default().with_response_data(Some(response)));
    for _ in 0..3 {
        stage.envoy.down(at(0), CLIENTS, LinkLoss::Closed, &mut stage.outputs);
        assert_eq!(stage.go_on(), (vec![], vec![]), "the other side had enough of an idle connection");
        assert_eq!(stage.envoy.next_wake_ms(), Some(2_000), "the next heartbeat");
        stage.envoy.ask(at(0), to(2), forwarded(), &mut stage.events);
        assert_eq!(stage.go_on().0, [(CLIENTS, 11)]);
        stage.envoy.up(CLIENTS);
        assert_eq!(stage.go_on().1, [(CLIENTS, 58, 0)]);
        stage.answer(CLIENTS, 0, 0, &EnvelopeResponse::default().with_error_code(87));
    }
}

#[test]
fn where_heartbeats_meet_silence_nothing_waits_for_an_answer_on_the_other_links() {
    let mut stage = Stage::of(&[11]).served();
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.go_on();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1, [(CLIENTS, 58, 0)]);
    stage.wake();
    assert_eq!(stage.go_on().1, [(LIFE, 63, 3)]);
    stage.wake();
    assert_eq!(stage.now_ms, 2_000 + 4_500, "half a session");
    assert_eq!(stage.go_on().0, [(CLIENTS, 11)], "it is the only voter, and may have lost everything");
    stage.wake();
    assert_eq!(stage.go_on().0, [(LIFE, 11)]);
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1, [(CLIENTS, 58, 0)]);
}

#[test]
fn a_node_that_does_not_lead_is_left_for_the_next_and_everything_is_asked_again() {
    let mut stage = Stage::serving();
    stage.envoy.alter(KEY, change());
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.go_on();
    stage.up(&[REPLICAS, CLIENTS]);
    assert_eq!(stage.go_on().1, [(REPLICAS, 56, 0), (CLIENTS, 58, 0)]);
    stage.answer(REPLICAS, 0, 3, &AlterPartitionResponse::default().with_error_code(NOT_CONTROLLER));
    stage.answer(CLIENTS, 0, 0, &EnvelopeResponse::default().with_error_code(NOT_CONTROLLER));
    let everything = |port| [LIFE, REPLICAS, CLIENTS].map(|link| (link, port));
    assert_eq!(stage.go_on().0, everything(12), "once, though both said it");
    stage.up(&[LIFE, REPLICAS, CLIENTS]);
    stage.now_ms = 20;
    assert_eq!(stage.go_on().1, [(REPLICAS, 56, 0), (CLIENTS, 58, 0)]);
    stage.life_ends(LinkLoss::Closed);
    stage.wake();
    assert_eq!(stage.go_on().0, [(LIFE, 12)], "it may have lost no more than a connection");
    stage.life_ends(LinkLoss::Refused);
    assert_eq!(stage.go_on().0, everything(13));
    stage.up(&[LIFE, REPLICAS, CLIENTS]);
    stage.now_ms = 100;
    assert_eq!(stage.go_on().1, [(REPLICAS, 56, 0), (CLIENTS, 58, 0)]);
    assert!(stage.events.is_empty());
}

#[test]
fn nonsense_closes_the_link_and_only_who_asked_for_it_hears_of_it() {
    let mut stage = Stage::serving();
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.envoy.ask(at(0), to(2), Ask::ProducerIds, &mut stage.events);
    stage.go_on();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1, [(CLIENTS, 58, 0), (CLIENTS, 67, 1)]);
    stage.frame(CLIENTS, &Bytes::from_static(&[0, 0, 0, 0, 0, 9]));
    assert_eq!(std::mem::take(&mut stage.events), [EnvoyEvent::Forwarded(to(1), None)]);
    assert!(matches!(stage.outputs[..], [Output::LinkClose { link: CLIENTS }]));
    stage.outputs.clear();
    stage.wake();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1, [(CLIENTS, 67, 0)]);
}

#[test]
fn what_nobody_answers_in_time_is_given_back() {
    let mut stage = Stage::new();
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.envoy.ask(at(0), to(2), Ask::ProducerIds, &mut stage.events);
    stage.go_on();
    while stage.events.is_empty() {
        stage.wake();
        for (_, port) in stage.go_on().0 {
            assert!((11..=13).contains(&port));
        }
    }
    assert_eq!(stage.now_ms, 30_000);
    let timed_out = ControllerAnswer::Refused(ErrorCode::RequestTimedOut);
    let refused = [EnvoyEvent::Forwarded(to(1), None), EnvoyEvent::Controlled(to(2), timed_out)];
    assert_eq!(stage.events, refused);
    (0..2_000).for_each(|n| stage.envoy.ask(at(40_000), to(n), forwarded(), &mut stage.events));
    assert_eq!(stage.events.len(), 2 + 2_000 - 1_024, "no more than so many wait");
}

#[test]
fn where_the_controller_is_here_nothing_goes_over_a_link() {
    let mut stage = Stage::serving();
    stage.envoy.ask(at(0), to(1), forwarded(), &mut stage.events);
    stage.go_on();
    stage.envoy.up(CLIENTS);
    assert_eq!(stage.go_on().1.len(), 1);
    stage.envoy.alter(KEY, change());
    stage.envoy.learn(Some(1), 5);
    stage.now_ms = 2_000;
    assert_eq!(stage.go_on(), (vec![], vec![]));
    let beat = Beat::Heartbeat { epoch: 7, applied_version: 0, wants_fence: false, wants_shutdown: false };
    let changes = BTreeMap::from([(KEY, change())]);
    let expected =
        [EnvoyEvent::Here(beat), EnvoyEvent::HereAlter(changes), EnvoyEvent::Forwarded(to(1), None)];
    assert_eq!(std::mem::take(&mut stage.events), expected);
    let fenced = HeartbeatAnswer { is_caught_up: true, is_fenced: true, should_shut_down: false };
    stage.envoy.beaten_here(at(2_000), &BeatAnswer::Beaten(Ok(fenced)), &mut stage.events);
    assert_eq!(std::mem::take(&mut stage.events), [EnvoyEvent::Heart(HeartEvent::Fenced)]);
    stage.envoy.learn(Some(13), 6);
    let dialled = stage.go_on().0;
    assert!(matches!(dialled[..], [(_, 13), (_, 13)]), "and to whoever leads then: {dialled:?}");
}

/// The log directories that the heartbeat in these frames tells as failed.
fn told_offline(outputs: &[Output]) -> Option<Vec<Uuid>> {
    use kafka_protocol::messages::BrokerHeartbeatRequest;
    use kafka_protocol::protocol::Decodable;
    let beats = outputs.iter().filter_map(|output| match output {
        Output::LinkSend { bytes, .. } if bytes[4..6] == [0, 63] => {
            let client_id = usize::from(u16::from_be_bytes([bytes[12], bytes[13]]));
            let mut body = bytes.slice(15 + client_id..);
            Some(BrokerHeartbeatRequest::decode(&mut body, 1).unwrap().offline_log_dirs)
        }
        _ => None,
    });
    beats.last()
}

#[test]
fn a_directory_that_fails_is_told_at_once_and_with_every_heartbeat() {
    let (a, b) = (Uuid::from_u128(0xa00), Uuid::from_u128(0xb00));
    let mut stage = Stage::serving();
    *stage.envoy.directories_mut() = Assignments::new(vec![Some(a), Some(b), None]);
    stage.envoy.directory_failed(at(0), 2);
    assert_eq!(stage.go_on().1, [], "nobody knows that one");
    stage.envoy.directory_failed(at(0), 1);
    for now_ms in [0, 2_000] {
        stage.now_ms = now_ms;
        stage.envoy.go_on(at(now_ms), &mut stage.ids, &mut stage.events, &mut stage.outputs);
        assert_eq!(told_offline(&stage.outputs), Some(vec![b]), "at {now_ms}");
        stage.outputs.clear();
        let serves = BrokerHeartbeatResponse::default().with_is_caught_up(true).with_is_fenced(false);
        stage.answer(LIFE, 3 + (now_ms > 0) as i32, 1, &serves);
    }
}

#[test]
fn where_replicas_are_is_told_until_the_controller_knows() {
    use kafka_protocol::messages::AssignReplicasToDirsResponse;
    let mut stage = Stage::new();
    let directory = Uuid::from_u128(0xa00);
    stage.envoy.directories_mut().tell(KEY, directory);
    stage.go_on();
    stage.envoy.up(LIFE);
    assert_eq!(stage.go_on(), (vec![], vec![(LIFE, 62, 0)]), "not before it is registered");
    stage.answer(LIFE, 0, 4, &BrokerRegistrationResponse::default().with_broker_epoch(7));
    assert_eq!(stage.go_on(), (vec![(REPLICAS, 11)], vec![(LIFE, 63, 1)]));
    stage.envoy.up(REPLICAS);
    assert_eq!(stage.go_on().1, [(REPLICAS, 73, 0)]);
    stage.answer(LIFE, 1, 1, &BrokerHeartbeatResponse::default().with_is_fenced(true));
    stage.answer(REPLICAS, 0, 0, &AssignReplicasToDirsResponse::default().with_error_code(NOT_CONTROLLER));
    assert_eq!(stage.go_on().0, [(LIFE, 12), (REPLICAS, 12)]);
    stage.envoy.up(REPLICAS);
    stage.now_ms = 20;
    assert!(stage.go_on().1.iter().any(|(_, key, _)| *key == 73));
    stage.envoy.down(at(20), REPLICAS, LinkLoss::Closed, &mut stage.outputs);
    stage.envoy.learn(Some(1), 5);
    stage.now_ms = 1_000;
    stage.go_on();
    let told = EnvoyEvent::HereAssign(BTreeMap::from([(KEY, directory)]));
    assert!(stage.events.contains(&told), "{:?}", stage.events);
}

#[test]
fn a_node_asks_to_be_a_member_before_it_registers_and_looks_elsewhere_where_nobody_leads() {
    let mut stage = Stage::new();
    stage.envoy.joining().begin_again();
    stage.go_on();
    stage.envoy.up(LIFE);
    assert_eq!(stage.go_on(), (vec![], vec![(LIFE, 1_001, 0), (LIFE, 62, 1)]));
    let voter = VoterEndpoint { node_id: 14, raft_id: Some(140), host: "host".into(), port: 14 };
    let members = Members::of_voters(&[voter], "c").unwrap();
    let told = |stage: &mut Stage, correlation_id: i32, error: i16| {
        let mut frame = BytesMut::from(&correlation_id.to_be_bytes()[..]);
        frame.extend_from_slice(&[0]);
        crate::wire::outbound::write_raft_answer(&mut frame, error, &[members.to_bytes()]);
        stage.frame(LIFE, &frame.freeze());
    };
    told(&mut stage, 0, NOT_CONTROLLER);
    assert_eq!(stage.go_on(), (vec![(LIFE, 12)], vec![]), "the next voter");
    stage.envoy.up(LIFE);
    stage.now_ms = 20;
    assert_eq!(stage.go_on(), (vec![], vec![(LIFE, 1_001, 0), (LIFE, 62, 1)]));
    for next in [13, 14] {
        told(&mut stage, 0, NOT_CONTROLLER);
        assert_eq!(stage.go_on().0, [(LIFE, next)], "at last one that only others know");
        stage.envoy.up(LIFE);
        stage.now_ms += 1_000;
        assert_eq!(stage.go_on(), (vec![], vec![(LIFE, 1_001, 0), (LIFE, 62, 1)]));
    }
    told(&mut stage, 0, 0);
    assert_eq!(stage.events.pop(), Some(EnvoyEvent::Members(members.clone())));
    stage.envoy.learn(Some(1), 5);
    stage.now_ms += 1_000;
    stage.go_on();
    let joins = EnvoyEvent::HereQuorum(Wish::Member);
    assert!(!stage.events.contains(&joins), "it is a member");
    stage.envoy.joining().begin_again();
    stage.go_on();
    assert!(stage.events.contains(&joins));
}

#[test]
fn a_voter_that_moved_tells_the_leader_where_it_is_under_the_term_that_it_knows() {
    use kafka_protocol::messages::{UpdateRaftVoterRequest, UpdateRaftVoterResponse};
    use kafka_protocol::protocol::Decodable;
    let mut stage = Stage::serving();
    stage.envoy.joining().set_known(Some(&known_at("before")));
    for (correlation_id, leader, epoch) in [(3, None, -1), (4, Some(11), 6)] {
        stage.envoy.learn(leader, 6);
        stage.now_ms += 20;
        let now = at(stage.now_ms);
        stage.envoy.go_on(now, &mut stage.ids, &mut stage.events, &mut stage.outputs);
        let Some(Output::LinkSend { link: LIFE, bytes }) = stage.outputs.pop() else {
            panic!("says nothing")
        };
        assert_eq!(bytes[4..6], [0, 82]);
        let client_id = usize::from(u16::from_be_bytes([bytes[12], bytes[13]]));
        let told = UpdateRaftVoterRequest::decode(&mut bytes.slice(15 + client_id..), 0).unwrap();
        assert_eq!((told.current_leader_epoch, told.voter_id), (epoch, 1));
        assert_eq!(crate::controller::quorum::raft_id_of(told.voter_directory_id), 7);
        assert_eq!((told.listeners[0].host.as_str(), told.listeners[0].port), ("h", 1));
        let answer = UpdateRaftVoterResponse::default().with_error_code(if epoch < 0 { 74 } else { 0 });
        stage.answer(LIFE, correlation_id, 0, &answer);
    }
    stage.envoy.joining().set_known(Some(&known_at("h")));
    assert_eq!(stage.go_on().1, []);
    stage.envoy.joining().set_known(Some(&known_at("before")));
    stage.envoy.learn(Some(1), 7);
    stage.now_ms = 1_900;
    stage.go_on();
    assert_eq!(stage.events, [EnvoyEvent::HereQuorum(Wish::Moved)]);
}

#[test]
fn a_stop_does_not_wait_where_nobody_listens_any_more() {
    let mut stage = Stage::serving();
    stage.envoy.begin_stop(at(0), &mut stage.events);
    stage.go_on();
    stage.events.clear();
    for voter in [11, 12] {
        stage.life_ends(LinkLoss::Refused);
        stage.go_on();
        assert!(stage.events.is_empty(), "{voter} is gone, and there are others");
    }
    stage.life_ends(LinkLoss::Refused);
    stage.go_on();
    assert_eq!(stage.events, [EnvoyEvent::Heart(HeartEvent::MayStop)]);
}
