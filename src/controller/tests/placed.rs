//! Replicas on brokers, and this node's replicas on shards and log directories.

use std::collections::BTreeSet;

use super::super::placement::BrokerPlacer;
use super::*;

fn brokers(racks: &[(i32, &str, bool)]) -> ImageBuilder {
    let mut builder = ImageBuilder::default();
    builder.apply(&Record::MetadataVersion { version: 1 }).unwrap();
    for (node_id, rack, fenced) in racks {
        let broker = BrokerRegistration {
            node_id: *node_id,
            incarnation: uuid::Uuid::nil(),
            epoch: 0,
            listeners: Vec::new(),
            rack: Some(Arc::from(*rack)),
            fenced: *fenced,
            in_controlled_shutdown: false,
            directories: Vec::new(),
        };
        builder.apply(&Record::RegisterBroker(broker)).unwrap();
    }
    builder
}

#[test]
fn leaders_go_round_the_unfenced_brokers_and_replicas_span_racks() {
    let state =
        brokers(&[(0, "a", false), (1, "a", false), (2, "b", false), (3, "b", false), (4, "c", true)]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut placer = BrokerPlacer::new(state.image(), &mut rng);
    let placed: Vec<_> = (0..8).map(|_| placer.place(2).unwrap()).collect();
    for leader in 0..4 {
        assert_eq!(placed.iter().filter(|replicas| replicas[0] == leader).count(), 2);
    }
    assert!(placed.iter().all(|replicas| (replicas[0] < 2) != (replicas[1] < 2)), "{placed:?}");
    let of_three = placer.place(3).unwrap();
    assert!(of_three[2] == 4, "racks count before fences, and a fenced broker only follows: {of_three:?}");
    assert_eq!(placer.place(5).unwrap()[2], 4);
    assert!(placer.place(6).is_err());
    let fenced = brokers(&[(0, "a", true)]);
    let told = BrokerPlacer::new(fenced.image(), &mut rng).place(1);
    assert_eq!(told, Err("All brokers are currently fenced.".to_string()));
}

#[test]
fn a_fenced_broker_of_a_rack_with_others_is_taken_last() {
    let state = brokers(&[(0, "a", false), (1, "a", true), (2, "a", false), (3, "a", true)]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut placer = BrokerPlacer::new(state.image(), &mut rng);
    for _ in 0..8 {
        let placed = placer.place(3).unwrap();
        assert!(placed[..2].iter().all(|node| node % 2 == 0) && placed[2] % 2 == 1, "{placed:?}");
    }
}

/// Topics of that many partitions on one node, published one by one to a placement.
fn assigned(shards: u16, directories: u16, topics: &[i32]) -> (Node, ShardPlacement) {
    let mut node = Node::start(Disk::default(), 5);
    node.register(0);
    for (at, partitions) in topics.iter().enumerate() {
        node.call(create(vec![new_topic(&format!("t{at}"), *partitions, 1)]));
    }
    let mut placement = ShardPlacement::new(0, shards, directories);
    for topic in node.image.topics() {
        let delta = ImageDelta { topics_changed: BTreeSet::from([topic.id]), ..ImageDelta::default() };
        placement.assign(&node.image, &delta, |_, _| None);
    }
    (node, placement)
}

#[test]
fn partitions_go_round_the_shards_from_the_least_loaded_one() {
    let (node, placement) = assigned(4, 1, &[3, 3]);
    let second = node.image.topic("t1").unwrap().id;
    let shards: Vec<_> = (0..3).map(|index| placement.shard_of(second, index).unwrap().0.0).collect();
    assert_eq!(shards, [3, 0, 1]);
    assert_eq!(placement.shard_loads(), [2, 2, 1, 1]);
}

#[test]
fn shard_0_rests_on_a_node_with_eight_shards() {
    let (_, placement) = assigned(8, 1, &[14]);
    assert_eq!(placement.shard_loads(), [0, 2, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn a_replica_stays_where_it_was_found_and_a_removed_one_gives_its_load_back() {
    let (mut node, mut placement) = assigned(2, 2, &[4]);
    let id = node.image.topic("t0").unwrap().id;
    let mut restarted = ShardPlacement::new(0, 2, 2);
    let map =
        restarted.assign(&node.image, &ImageDelta::whole(&node.image), |_, index| (index < 3).then_some(1));
    let directories: Vec<_> = map.replicas().map(|(_, _, _, directory)| directory).collect();
    assert_eq!(directories, [1, 1, 1, 0]);
    let removed = node.image.topic("t0").unwrap().clone();
    let topics = vec![super::super::request::TopicRef { name: Some("t0".into()), ..Default::default() }];
    node.call(ControllerRequest::DeleteTopics { topics });
    let delta = ImageDelta { topics_removed: BTreeMap::from([(id, removed)]), ..ImageDelta::default() };
    let map = placement.assign(&node.image, &delta, |_, _| None);
    assert_eq!(map.shard_of(id, 0), None);
    assert_eq!(placement.shard_loads(), [0, 0]);
}

#[test]
fn new_replicas_avoid_a_failed_log_directory_while_there_is_another() {
    let (node, _) = assigned(1, 2, &[1, 2]);
    let mut fresh = ShardPlacement::new(0, 1, 2);
    fresh.fail_directory(0);
    let map = fresh.clone().assign(&node.image, &ImageDelta::whole(&node.image), |_, _| None);
    assert!(map.replicas().all(|(_, _, _, directory)| directory == 1));
    fresh.fail_directory(1);
    let map = fresh.assign(&node.image, &ImageDelta::whole(&node.image), |_, _| None);
    assert_eq!(map.replicas().count(), 3, "with no other left they are placed all the same");
}
