//! Brokers register, are heard or not, stop and go.

use super::super::answer::answer;
use super::super::request::{FeatureUpdate, QuorumState};
use super::cluster::{back, epoch, gone, line, three};
use super::*;

/// Time passes in steps of a tenth of a second; these brokers send heartbeats, those of `wanting` want to stop.
fn pass(node: &mut Node, ms: u64, speaking: &[i32], wanting: &[i32]) -> Vec<ControllerAnswer> {
    let mut told = Vec::new();
    for _ in 0..ms / 100 {
        node.now_ms += 100;
        node.give(Input::Tick);
        node.run(1000);
        told.clear();
        for broker in speaking {
            let mut request = heartbeat(*broker, epoch(node, *broker));
            if let ControllerRequest::Heartbeat { wants_shutdown, applied_version, .. } = &mut request {
                *wants_shutdown = wanting.contains(broker);
                *applied_version = node.image.version();
            }
            told.push(node.call(request));
        }
    }
    told
}

fn told(is_fenced: bool, should_shut_down: bool) -> ControllerAnswer {
    ControllerAnswer::Heartbeat(Ok(HeartbeatAnswer { is_caught_up: true, is_fenced, should_shut_down }))
}

#[test]
fn who_is_silent_for_the_session_timeout_is_fenced() {
    let mut node = three(&[1, 2, 3]);
    pass(&mut node, 8800, &[2, 3], &[]);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]");
    pass(&mut node, 300, &[2, 3], &[]);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    assert!(node.image.broker(1).unwrap().fenced);
    // Its next heartbeat brings it back: it was only silent.
    assert_eq!(pass(&mut node, 100, &[1], &[]), [told(false, false)]);
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    // The leadership goes back by itself, once it is in sync.
    let topic = node.image.topic("t").unwrap();
    let one = &topic.partitions[0];
    let change = IsrChange {
        leader_epoch: one.leader_epoch,
        partition_epoch: one.partition_epoch,
        isr: [1, 2, 3].map(|broker| (broker, -1)).into_iter().collect(),
        recovery: LeaderRecovery::Recovered,
    };
    let changes = vec![(topic.id, 0, change)];
    let epoch = epoch(&node, 2);
    node.call(ControllerRequest::AlterPartition { node_id: 2, epoch, changes });
    pass(&mut node, 300_000, &[1, 2, 3], &[]);
    assert_eq!(line(&node, 0), "leader 1 in 2, isr [1, 2, 3] of [1, 2, 3]");
}

#[test]
fn a_controller_that_was_stopped_does_not_blame_the_brokers() {
    let mut node = three(&[1, 2, 3]);
    node.now_ms += 60_000;
    node.give(Input::Tick);
    node.run(1000);
    assert!((1..4).all(|broker| node.image.is_active(broker)));
}

#[test]
fn a_new_controller_gives_everybody_a_whole_session() {
    let node = three(&[1, 2, 3]);
    let mut node = {
        let mut again = Node::start(node.disk, 6);
        again.peers = true;
        again.run(1000);
        again
    };
    pass(&mut node, 8900, &[], &[]);
    assert_eq!(line(&node, 0), "leader 1 in 0, isr [1, 2, 3] of [1, 2, 3]");
    pass(&mut node, 200, &[], &[]);
    assert!((1..4).all(|broker| !node.image.is_active(broker)));
}

#[test]
fn the_broker_of_a_lone_controller_leads_again_whoever_else_has_registered() {
    for speaks in [false, true] {
        let mut node = Node::start(Disk::default(), 5);
        node.register(0);
        node.call(create(vec![new_topic("t", 1, 1)]));
        node.peers = true;
        node.call(registration(7, 3));
        if speaks {
            let stranger = epoch(&node, 7);
            node.call(heartbeat(7, stranger));
        }
        let mut again = Node::start(node.disk, 6);
        again.peers = true;
        again.run(1000);
        again.call(registration(0, 8));
        assert!(again.image.is_active(0));
        assert!(line(&again, 0).starts_with("leader 0 "), "{}", line(&again, 0));
    }
}

#[test]
fn a_broker_stops_when_it_leads_nothing_and_the_others_know() {
    let mut node = three(&[1, 2]);
    let stops = |applied_version, epoch| ControllerRequest::Heartbeat {
        node_id: 1,
        epoch,
        applied_version,
        wants_fence: false,
        wants_shutdown: true,
        offline_directories: Vec::new(),
    };
    let first = epoch(&node, 1);
    let version = node.image.version();
    assert_eq!(node.call(stops(version, first)), told(false, false));
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2] of [1, 2]");
    assert!(node.image.broker(1).unwrap().in_controlled_shutdown);
    assert_eq!(node.call(stops(version, first)), told(false, false), "brokers 2 and 3 have not applied it");
    assert_eq!(
        pass(&mut node, 100, &[2, 3, 1], &[1]),
        [told(false, false), told(false, false), told(true, true)]
    );
    assert!(node.image.broker(1).unwrap().fenced);
    back(&mut node, 1, true);
    assert!(node.image.is_active(1));
    gone(&mut node, 2);
    assert_eq!(line(&node, 0), "leader -1 in 2, isr [2] of [1, 2]");
}

#[test]
fn registrations_are_refused_with_kafkas_codes() {
    let mut node = three(&[1, 2, 3]);
    let refused = ControllerAnswer::Refused;
    assert_eq!(node.call(registration(1, 99)), refused(ErrorCode::DuplicateBrokerRegistration));
    let mut strange = registration(4, 7);
    if let ControllerRequest::RegisterBroker { cluster_id, .. } = &mut strange {
        *cluster_id = Some("another".into());
    }
    assert_eq!(node.call(strange), refused(ErrorCode::InconsistentClusterId));
    let first = epoch(&node, 1);
    assert_eq!(node.call(registration(1, 7)), ControllerAnswer::Registered { epoch: first }, "asked again");
    let stale = ControllerAnswer::Heartbeat(Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(node.call(heartbeat(1, first - 1)), stale);
    let unknown = ControllerAnswer::Heartbeat(Err(ErrorCode::BrokerIdNotRegistered));
    assert_eq!(node.call(heartbeat(9, first)), unknown);
    assert_eq!(
        node.call(ControllerRequest::UnregisterBroker { node_id: 1 }),
        ControllerAnswer::Unregistered(Ok(()))
    );
    assert_eq!(line(&node, 0), "leader 2 in 1, isr [2, 3] of [1, 2, 3]");
    assert!(node.image.broker(1).is_none());
    let ControllerAnswer::Unregistered(Err(why)) =
        node.call(ControllerRequest::UnregisterBroker { node_id: 1 })
    else {
        panic!("it is gone")
    };
    assert_eq!(why.code, ErrorCode::BrokerIdNotRegistered);
}

#[test]
fn a_broker_is_unfenced_when_it_has_applied_its_registration() {
    let mut node = three(&[1]);
    let ControllerAnswer::Registered { epoch } = node.call(registration(4, 7)) else { panic!("registered") };
    let mut early = heartbeat(4, epoch);
    if let ControllerRequest::Heartbeat { applied_version, .. } = &mut early {
        *applied_version = epoch as u64 - 1;
    }
    let behind = HeartbeatAnswer { is_caught_up: false, is_fenced: true, should_shut_down: false };
    assert_eq!(node.call(early), ControllerAnswer::Heartbeat(Ok(behind)));
    assert!(!node.image.is_active(4));
    assert_eq!(node.call(heartbeat(4, epoch)), told(false, false));
    assert!(node.image.is_active(4));
}

#[test]
fn brokers_survive_a_restart_of_the_controller_with_and_without_a_snapshot() {
    let mut node = three(&[1, 2, 3]);
    gone(&mut node, 1);
    for at in 0..8 {
        let before = line(&node, 0);
        let brokers: Vec<_> = node.image.brokers().cloned().collect();
        node = Node::start(node.disk, 6 + at);
        node.peers = true;
        node.run(1000);
        assert_eq!(line(&node, 0), before);
        assert_eq!(node.image.brokers().cloned().collect::<Vec<_>>(), brokers);
        node.call(create(vec![new_topic(&format!("more-{at}"), 1, 1)]));
    }
}

#[test]
fn a_cluster_of_an_older_metadata_version_has_one_broker_until_it_is_upgraded() {
    for version in [1, 2] {
        let mut state = ImageBuilder::default();
        let begun = [
            Record::MetadataVersion { version },
            Record::ClusterId { cluster_id: "4L6g3nShT-eMCtK--X86sw".into() },
        ];
        begun.iter().for_each(|record| state.apply(record).unwrap());
        let node = node_config();
        let mut liveness = Liveness::new(&node, Some(0), state.image(), 0);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut ask = |state: &mut ImageBuilder, request: ControllerRequest| {
            let quorum = QuorumState {
                leader_id: 0,
                leader_epoch: 1,
                high_watermark: 1,
                log_end_offset: 1,
                voters: Vec::new(),
                observers: Vec::new(),
            };
            let (mut records, index_next) = (Vec::new(), 2);
            let mut rules =
                Rules { node: &node, rng: &mut rng, now_ms: 0, index_next, liveness: &mut liveness };
            let (answer, _) = answer(&mut rules, state, request, quorum, &mut records);
            let bytes = Record::encode_all(&records);
            assert_eq!(Record::decode_all(&bytes).unwrap(), records);
            answer
        };
        let mut own = registration(0, 7);
        if let ControllerRequest::RegisterBroker { directories, .. } = &mut own {
            directories.push(uuid::Uuid::from_u128(3));
        }
        assert_eq!(ask(&mut state, own), ControllerAnswer::Registered { epoch: 2 });
        let second = || registration(1, 7);
        assert_eq!(ask(&mut state, second()), ControllerAnswer::Refused(ErrorCode::UnsupportedVersion));
        let made = ask(&mut state, create(vec![new_topic("a", 1, 1)]));
        assert!(matches!(made, ControllerAnswer::Topics(topics) if topics[0].result.is_ok()));
        let upgrade = |name: &str, level| {
            let updates = vec![FeatureUpdate { name: name.into(), level, upgrade_type: 1 }];
            ControllerRequest::UpdateFeatures { updates, validate_only: false }
        };
        let eligible = ask(&mut state, upgrade(features::ELIGIBLE_LEADER_REPLICAS_VERSION, 1));
        assert!(matches!(eligible, ControllerAnswer::Features(Err(_))));
        let assignments = Vec::new();
        let told = ask(&mut state, ControllerRequest::AssignReplicas { node_id: 0, epoch: 2, assignments });
        assert_eq!(told, ControllerAnswer::Assigned(Err(ErrorCode::UnsupportedVersion)));
        assert_eq!(ask(&mut state, upgrade("metadata.version", 30)), ControllerAnswer::Features(Ok(())));
        assert_eq!(ask(&mut state, second()), ControllerAnswer::Registered { epoch: 2 });
        assert!(state.image().broker(1).unwrap().fenced);
    }
}

/// Decisions on a state with so many partitions that a broker's leaderships are taken away in several entries.
struct Crowded {
    node: NodeConfig,
    state: ImageBuilder,
    liveness: Liveness,
    index_next: u64,
}

impl Crowded {
    /// Broker 1 leads everything, and broker 2 is there.
    fn new() -> Self {
        const PARTITIONS: i32 = 8_000;
        let node = node_config();
        let mut state = ImageBuilder::default();
        let mut put = |record| state.apply(&record).unwrap();
        put(Record::MetadataVersion { version: record::METADATA_VERSION_LATEST });
        put(Record::ClusterId { cluster_id: "4L6g3nShT-eMCtK--X86sw".into() });
        let liveness = Liveness::new(&node, None, state.image(), 0);
        let mut crowded = Self { node, state, liveness, index_next: 10 };
        for broker in 1..=2 {
            crowded.ask(registration(broker, 7));
            let epoch = crowded.state.image().broker(broker).unwrap().epoch;
            crowded.ask(heartbeat(broker, epoch));
            assert!(crowded.state.image().is_active(broker));
        }
        let mut put = |record| crowded.state.apply(&record).unwrap();
        let topic_id = uuid::Uuid::from_u128(9);
        put(Record::Topic { name: "t".into(), topic_id });
        // Many replicas make long records.
        let replicas: record::NodeIds = (1..=300).collect();
        for index in 0..PARTITIONS {
            put(Record::Partition(record::PartitionRecord {
                topic_id,
                index,
                replicas: replicas.clone(),
                isr: replicas.clone(),
                leader: 1,
                ..record::PartitionRecord::default()
            }));
        }
        crowded
    }

    /// The answer, and how many entries it took.
    fn ask(&mut self, request: ControllerRequest) -> (ControllerAnswer, u64) {
        let quorum = QuorumState {
            leader_id: 0,
            leader_epoch: 1,
            high_watermark: 1,
            log_end_offset: 1,
            voters: Vec::new(),
            observers: Vec::new(),
        };
        let (mut records, mut rng) = (Vec::new(), fastrand::Rng::with_seed(1));
        let mut rules = Rules {
            node: &self.node,
            rng: &mut rng,
            now_ms: 0,
            index_next: self.index_next,
            liveness: &mut self.liveness,
        };
        let (answer, _) = answer(&mut rules, &mut self.state, request, quorum, &mut records);
        let entries = if records.is_empty() { 0 } else { topics::entries(&records).len() as u64 };
        self.index_next += entries;
        (answer, entries)
    }

    /// A heartbeat of a broker that has applied so much.
    fn beat(&mut self, broker: i32, applied: u64, stops: bool) -> HeartbeatAnswer {
        let mut request = heartbeat(broker, self.state.image().broker(broker).unwrap().epoch);
        if let ControllerRequest::Heartbeat { applied_version, wants_shutdown, .. } = &mut request {
            (*applied_version, *wants_shutdown) = (applied, stops);
        }
        let (ControllerAnswer::Heartbeat(Ok(answer)), _) = self.ask(request) else { panic!("it is known") };
        answer
    }
}

#[test]
fn a_registration_of_several_entries_is_applied_with_the_last_of_them() {
    let mut crowded = Crowded::new();
    crowded.liveness.forget(1);
    let (answer, entries) = crowded.ask(registration(1, 8));
    let last = crowded.index_next - 1;
    let ControllerAnswer::Registered { epoch } = answer else { panic!("{answer:?}") };
    assert!(entries > 1, "{entries} entries");
    assert_eq!(last + 1 - epoch as u64, entries);
    for applied in epoch as u64..last {
        let answer = crowded.beat(1, applied, false);
        assert!(!answer.is_caught_up && answer.is_fenced, "{applied} of {last}");
    }
    // It asks again: that is no other registration.
    assert_eq!(crowded.ask(registration(1, 8)), (ControllerAnswer::Registered { epoch }, 0));
    assert!(crowded.beat(1, last - 1, false).is_fenced);
    // A controller that did not see it waits for what it found.
    crowded.liveness.forget(1);
    assert!(crowded.beat(1, last - 1, false).is_fenced);
    let answer = crowded.beat(1, last, false);
    assert!(answer.is_caught_up && !answer.is_fenced);
}

#[test]
fn a_broker_stops_when_the_others_have_applied_the_last_entry_of_its_stop() {
    let mut crowded = Crowded::new();
    let first = crowded.index_next;
    assert!(!crowded.beat(1, first - 1, true).should_shut_down);
    let last = crowded.index_next - 1;
    assert!(last > first, "several entries");
    crowded.beat(2, last - 1, false);
    assert!(!crowded.beat(1, first - 1, true).should_shut_down, "broker 2 lacks the last entry");
    crowded.beat(2, last, false);
    assert!(crowded.beat(1, first - 1, true).should_shut_down);
}
