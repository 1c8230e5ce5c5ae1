//! Topics get more partitions: all of a request's records are one entry, and what cannot be is said in
//! Kafka's words.

use super::super::request::MorePartitions;
use super::scenarios::{one_broker, told};
use super::*;

fn more(name: &str, count: i32) -> MorePartitions {
    MorePartitions { name: name.into(), count, assignments: None }
}

fn chosen(name: &str, count: i32, assignments: &[&[i32]]) -> MorePartitions {
    let assignments = assignments.iter().map(|brokers| brokers.to_vec()).collect();
    MorePartitions { assignments: Some(assignments), ..more(name, count) }
}

fn ask(topics: Vec<MorePartitions>) -> ControllerRequest {
    ControllerRequest::CreatePartitions { topics, validate_only: false }
}

#[test]
fn what_cannot_be_added_is_said_in_kafkas_words_and_adds_nothing() {
    let mut node = one_broker();
    node.register(1);
    node.call(create(vec![new_topic("a", 2, 1)]));
    let manual = "The manual partition assignment includes";
    let cases = [
        (more("a", 2), "InvalidPartitions: Topic already has 2 partition(s).".to_string()),
        (
            more("a", 1),
            "InvalidPartitions: The topic a currently has 2 partition(s); 1 would not be an increase.".into(),
        ),
        (
            more("a", -1),
            "InvalidPartitions: The topic a currently has 2 partition(s); -1 would not be an increase."
                .into(),
        ),
        (more("a", i32::MAX), "PolicyViolation: Excessively large number of partitions per request.".into()),
        (
            chosen("a", i32::MAX, &[&[0]]),
            "InvalidReplicaAssignment: Attempted to add 2147483645 additional partition(s), but only 1 \
             assignment(s) were specified."
                .into(),
        ),
        (chosen("a", 4, &[&[0], &[]]), format!("InvalidReplicaAssignment: {manual} an empty replica list.")),
        (
            chosen("a", 3, &[&[7]]),
            format!("InvalidReplicaAssignment: {manual} broker 7, but no such broker is registered."),
        ),
        (
            chosen("a", 3, &[&[1, 1]]),
            format!("InvalidReplicaAssignment: {manual} the broker 1 more than once."),
        ),
        (
            chosen("a", 3, &[&[0, 1]]),
            format!(
                "InvalidReplicaAssignment: {manual} a partition with 2 replica(s), but this is not consistent \
                 with previous partitions, which have 1 replica(s)."
            ),
        ),
        (more("z", 3), "UnknownTopicOrPartition: This server does not host this topic-partition.".into()),
    ];
    for (topic, expected) in cases {
        let name = topic.name.clone();
        assert_eq!(told(node.call(ask(vec![topic]))), format!("{name} -> {expected}"));
    }
    assert_eq!(node.image.topic("a").unwrap().partitions.len(), 2);
}

#[test]
fn brokers_may_be_chosen_and_a_dry_run_makes_nothing() {
    let mut node = one_broker();
    node.register(1);
    node.call(create(vec![new_topic("a", 1, 1)]));
    let wanted = chosen("a", 4, &[&[1], &[0], &[1]]);
    let dry = ControllerRequest::CreatePartitions { topics: vec![wanted.clone()], validate_only: true };
    assert_eq!(told(node.call(dry)), "a -> more");
    assert_eq!(node.image.topic("a").unwrap().partitions.len(), 1);
    assert_eq!(told(node.call(ask(vec![wanted]))), "a -> more");
    let topic = node.image.topic("a").unwrap();
    let leaders: Vec<i32> = topic.partitions.iter().skip(1).map(|partition| partition.leader).collect();
    assert_eq!(leaders, [1, 0, 1]);
}

#[test]
fn topics_of_one_request_stand_for_themselves_and_a_repeated_name_for_none() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("a", 1, 1), new_topic("b", 1, 1)]));
    let request = ask(vec![more("a", 3), more("z", 3), more("b", 2), more("a", 4)]);
    assert_eq!(
        told(node.call(request)),
        "a -> InvalidRequest: Duplicate topic name.\n\
         z -> UnknownTopicOrPartition: This server does not host this topic-partition.\n\
         b -> more"
    );
    let count = |node: &Node, name| node.image.topic(name).unwrap().partitions.len();
    assert_eq!((count(&node, "a"), count(&node, "b")), (1, 2));
}

#[test]
fn requests_behind_each_other_see_what_the_earlier_ones_add() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("a", 1, 1)]));
    for (token, count) in [(1, 3), (2, 3), (3, 5)] {
        node.ask(token, ask(vec![more("a", count)]));
    }
    assert!(node.answers.is_empty());
    node.run(1000);
    let answers: Vec<String> = node.answers.drain(..).map(|(_, answer)| told(answer)).collect();
    assert_eq!(
        answers,
        ["a -> more", "a -> InvalidPartitions: Topic already has 3 partition(s).", "a -> more"]
    );
    assert_eq!(node.image.topic("a").unwrap().partitions.len(), 5);
}

#[test]
fn a_crash_leaves_all_new_partitions_of_a_request_or_none() {
    for torn in 0..400 {
        let mut node = one_broker();
        node.call(create(vec![new_topic("a", 1, 1), new_topic("b", 1, 1)]));
        node.ask(1, ask(vec![more("a", 4), more("b", 3)]));
        node.run(1);
        let mut disk = node.disk;
        disk.crash(torn);
        let mut node = Node::start(disk, 6);
        node.run(1000);
        let counts = ["a", "b"].map(|name| node.image.topic(name).unwrap().partitions.len());
        assert!(counts == [1, 1] || counts == [4, 3], "{counts:?} after {torn} bytes");
    }
}
