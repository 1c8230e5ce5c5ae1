//! Requests and what they are answered, as a table of lines.

use super::super::request::{MorePartitions, TopicRef};
use super::*;

pub(super) fn one_broker() -> Node {
    let mut node = Node::start(Disk::default(), 5);
    node.register(0);
    node
}

/// The answer as text: names and outcomes.
pub(super) fn told(answer: ControllerAnswer) -> String {
    let words = |result: Result<String, ApiError>| match result {
        Ok(made) => made,
        Err(error) => format!("{:?}: {}", error.code, error.message),
    };
    match answer {
        ControllerAnswer::Topics(topics) => {
            let lines = topics.into_iter().map(|topic| {
                let made =
                    topic.result.map(|made| format!("{} x {}", made.partitions, made.replication_factor));
                format!("{} -> {}", topic.name, words(made))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        ControllerAnswer::Deleted(topics) => {
            let lines = topics.into_iter().map(|topic| {
                format!(
                    "{} -> {}",
                    topic.name.unwrap_or_default(),
                    words(topic.result.map(|()| "gone".into()))
                )
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        ControllerAnswer::Partitions(topics) => {
            let lines = topics
                .into_iter()
                .map(|(name, result)| format!("{name} -> {}", words(result.map(|()| "more".into()))));
            lines.collect::<Vec<_>>().join("\n")
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn creation_is_answered_with_kafkas_codes_and_words() {
    let mut node = one_broker();
    let long = "x".repeat(250);
    let with = |topic: NewTopic, change: fn(&mut NewTopic)| {
        let mut topic = topic;
        change(&mut topic);
        topic
    };
    let cases = [
        (new_topic("a", 3, 1), "a -> 3 x 1"),
        (new_topic("a", 3, 1), "a -> TopicAlreadyExists: Topic 'a' already exists."),
        (new_topic("b", -1, -1), "b -> 2 x 1"),
        (new_topic("c.d", 1, 1), "c.d -> 1 x 1"),
        (
            new_topic("c_d", 1, 1),
            "c_d -> InvalidTopicException: Topic 'c_d' collides with existing topic: c.d",
        ),
        (new_topic("..", 1, 1), ".. -> InvalidTopicException: Topic name is invalid: '..' is not allowed"),
        (
            new_topic("e f", 1, 1),
            "e f -> InvalidTopicException: Topic name is invalid: 'e f' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (
            new_topic("e", 0, 1),
            "e -> InvalidPartitions: Number of partitions was set to an invalid non-positive value.",
        ),
        (
            new_topic("e", 1, 0),
            "e -> InvalidReplicationFactor: Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            new_topic("e", 1, 3),
            "e -> InvalidReplicationFactor: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered.",
        ),
        (
            new_topic("e", 10_001, 1),
            "e -> PolicyViolation: Excessively large number of partitions per request.",
        ),
        (
            with(new_topic("e", 1, -1), |t| t.assignments = vec![(0, vec![0])]),
            "e -> InvalidRequest: A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            with(new_topic("e", -1, -1), |t| t.assignments = vec![(0, vec![4])]),
            "e -> InvalidReplicaAssignment: The manual partition assignment includes broker 4, but no such broker is registered.",
        ),
        (
            with(new_topic("e", -1, -1), |t| t.assignments = vec![(1, vec![0])]),
            "e -> InvalidReplicaAssignment: partitions should be a consecutive 0-based integer sequence",
        ),
        (
            with(new_topic("e", 1, 1), |t| t.configs = vec![("odd".into(), Some("1".into()))]),
            "e -> InvalidConfig: Unknown topic config name: odd",
        ),
        (with(new_topic("e", -1, -1), |t| t.assignments = vec![(0, vec![0])]), "e -> 1 x 1"),
    ];
    for (topic, expected) in cases {
        assert_eq!(told(node.call(create(vec![topic]))), expected);
    }
    assert!(told(node.call(create(vec![new_topic(&long, 1, 1)]))).ends_with("max allowed length 249"));
    let twice = vec![new_topic("g", 1, 1), new_topic("h", 1, 1), new_topic("g", 1, 1)];
    assert_eq!(told(node.call(create(twice))), "g -> InvalidRequest: Duplicate topic name.\nh -> 1 x 1");
    let dry = ControllerRequest::CreateTopics { topics: vec![new_topic("dry", 1, 1)], validate_only: true };
    assert_eq!(told(node.call(dry)), "dry -> 1 x 1");
    assert!(node.image.topic("dry").is_none());
}

#[test]
fn a_topic_carries_its_configuration_and_loses_it_with_its_deletion() {
    let mut node = one_broker();
    let mut topic = new_topic("a", 2, 1);
    topic.configs = vec![("retention.ms".into(), Some("5".into()))];
    node.call(create(vec![topic]));
    let overrides: Vec<_> = node.image.topic_config_overrides("a").collect();
    assert_eq!(overrides, [("retention.ms", "5")]);
    let id = node.image.topic("a").unwrap().id;
    let more = MorePartitions { name: "a".into(), count: 3, assignments: None };
    let request = |topics| ControllerRequest::CreatePartitions { topics, validate_only: false };
    assert_eq!(told(node.call(request(vec![more.clone()]))), "a -> more");
    let words = "a -> InvalidPartitions: Topic already has 3 partition(s).";
    assert_eq!(told(node.call(request(vec![more]))), words);
    assert_eq!(node.image.topic_by_id(id).unwrap().partitions.len(), 3);
    let delete = |topic| ControllerRequest::DeleteTopics { topics: vec![topic] };
    assert_eq!(told(node.call(delete(TopicRef { id, ..TopicRef::default() }))), "a -> gone");
    assert!(node.image.topic("a").is_none());
    assert_eq!(node.image.topic_config_overrides("a").count(), 0);
    let gone = told(node.call(delete(TopicRef { id, ..TopicRef::default() })));
    assert_eq!(gone, " -> UnknownTopicId: This server does not host this topic ID.");
    let unknown = told(node.call(delete(TopicRef { name: Some("z".into()), ..TopicRef::default() })));
    assert!(unknown.starts_with("z -> UnknownTopicOrPartition"));
}

#[test]
fn a_request_sees_earlier_ones_that_are_not_committed_and_waits_for_them() {
    let mut node = one_broker();
    node.ask(1, create(vec![new_topic("a", 1, 1)]));
    node.ask(2, create(vec![new_topic("a", 1, 1)]));
    node.ask(3, ControllerRequest::AllocateProducerIds);
    node.ask(4, ControllerRequest::AllocateProducerIds);
    assert!(node.answers.is_empty() && node.image.topic("a").is_none());
    node.run(1);
    assert!(node.answers.is_empty(), "written is not durable");
    node.run(1000);
    let told: Vec<_> =
        node.answers.drain(..).map(|(token, answer)| format!("{token} {}", told(answer))).collect();
    assert_eq!(
        told,
        [
            "1 a -> 1 x 1",
            "2 a -> TopicAlreadyExists: Topic 'a' already exists.",
            "3 ProducerIds { first: 0, count: 1000 }",
            "4 ProducerIds { first: 1000, count: 1000 }",
        ]
    );
}

#[test]
fn automatic_creation_answers_a_topic_that_is_there_as_made() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("a", 5, 1)]));
    let topics = ["a", "b", "/"].map(|name| NewTopic::with_defaults(name.to_string())).to_vec();
    let told = told(node.call(ControllerRequest::AutoCreateTopics { topics }));
    assert!(told.starts_with("a -> 5 x 1\nb -> 2 x 1\n/ -> InvalidTopicException"), "{told}");
}

#[test]
fn a_name_changes_hands_over_two_images_even_if_one_write_carries_both() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("a", 1, 1)]));
    let first = node.image.topic("a").unwrap().id;
    node.trace.clear();
    // The first of these is being written while the others gather for the next write.
    node.ask(1, create(vec![new_topic("b", 1, 1)]));
    node.ask(
        2,
        ControllerRequest::DeleteTopics {
            topics: vec![TopicRef { name: Some("a".into()), ..TopicRef::default() }],
        },
    );
    node.ask(3, create(vec![new_topic("a", 1, 1)]));
    node.run(1000);
    let second = node.image.topic("a").unwrap().id;
    assert_ne!(first, second);
    assert!(!node.published.is_empty());
    for delta in &node.published {
        let both = delta.topics_removed.contains_key(&first) && delta.topics_changed.contains(&second);
        assert!(!both, "one Image takes the name from one topic and gives it to another");
    }
}

#[test]
fn a_start_publishes_nothing_that_a_later_committed_entry_has_undone() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("a", 1, 1)]));
    let first = node.image.topic("a").unwrap().id;
    node.ask(1, create(vec![new_topic("b", 1, 1)]));
    node.ask(
        2,
        ControllerRequest::DeleteTopics {
            topics: vec![TopicRef { name: Some("a".into()), ..TopicRef::default() }],
        },
    );
    node.ask(3, create(vec![new_topic("a", 1, 1)]));
    node.run(1000);
    let second = node.image.topic("a").unwrap().id;
    let mut again = Node::start(node.disk, 6);
    again.run(1000);
    let seen: Vec<_> = again.images.iter().filter_map(|image| Some(image.topic("a")?.id)).collect();
    assert!(seen.contains(&second) && !seen.contains(&first), "{seen:?}");
    assert!(again.images.iter().all(|image| image.topic("a").is_some()));
}
