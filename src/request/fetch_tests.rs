//! Fetch requests with their sessions, on a stage where the test answers for the partitions.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::partition_state::topic_name;
use super::stage::{Stage, TO};
use super::{Answered, Work};
use crate::partition::{Answer, Op, Read, ReadFound, Reader, ReplyTo};
use crate::wire::ErrorCode;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;

const VERSIONS: [i16; 4] = [7, 12, 13, 18];

/// Topic 7, which is called `t`, in the way of the version.
fn named(version: i16, partitions: &[i32]) -> FetchTopic {
    let partitions = partitions
        .iter()
        .map(|index| FetchPartition::default().with_partition(*index).with_partition_max_bytes(1));
    let topic = FetchTopic::default().with_partitions(partitions.collect());
    if version >= 13 { topic.with_topic_id(Uuid::from_u128(7)) } else { topic.with_topic(topic_name("t")) }
}

fn request(id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_session_id(id)
        .with_session_epoch(epoch)
        .with_topics(topics)
}

fn nothing(high_watermark: i64) -> ReadFound {
    ReadFound {
        span: None,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        diverging: None,
        preferred: None,
        watched: false,
    }
}

/// Answers every read with nothing at a high watermark.
fn nothing_new(stage: &mut Stage, header: &RequestHeader, work: &mut Work, high_watermark: i64) {
    let calls: Vec<_> = stage.desk.calls.drain(..).collect();
    for call in calls.iter().filter(|call| matches!(call.op, Op::Read(_))) {
        let found = nothing(high_watermark);
        let to = ReplyTo { part: call.to.part, ..TO };
        work.answer(header, to, Answered::Partition(Answer::Read(found), None), &mut stage.scene());
    }
}

fn ask(stage: &mut Stage, version: i16, request: &FetchRequest) -> FetchResponse {
    let (header, mut work) = stage.start(ApiKey::Fetch, version, request);
    nothing_new(stage, &header, &mut work, 0);
    stage.finish(&header, work)
}

fn told(response: &FetchResponse) -> Vec<(i32, i16)> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| (partition.partition_index, partition.error_code)).collect()
}

#[test]
fn a_final_epoch_ends_the_session_and_so_does_a_new_one() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1, 1]);
        let full = vec![named(version, &[0, 1])];
        let made = ask(&mut stage, version, &request(0, 0, full.clone()));
        assert!(made.session_id > 0, "v{version}");
        let again = ask(&mut stage, version, &request(made.session_id, 0, full.clone()));
        assert!(again.session_id > 0 && again.session_id != made.session_id);
        assert_eq!(told(&again), [(0, 0), (1, 0)]);
        let old = ask(&mut stage, version, &request(made.session_id, 1, vec![]));
        assert_eq!((old.error_code, old.session_id), (70, 0));
        let last = ask(&mut stage, version, &request(again.session_id, -1, full.clone()));
        assert_eq!((last.error_code, last.session_id, told(&last).len()), (0, 0, 2));
        let gone = ask(&mut stage, version, &request(again.session_id, 1, vec![]));
        assert_eq!((gone.error_code, gone.session_id), (70, 0));
    }
}

#[test]
fn a_session_without_partitions_left_is_answered_without_one() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let id = ask(&mut stage, version, &request(0, 0, vec![named(version, &[0])])).session_id;
        let forgotten = ForgottenTopic::default().with_partitions(vec![0]);
        let forgotten = if version >= 13 {
            forgotten.with_topic_id(Uuid::from_u128(7))
        } else {
            forgotten.with_topic(topic_name("t"))
        };
        let empty = request(id, 1, vec![]).with_forgotten_topics_data(vec![forgotten]);
        let answer = ask(&mut stage, version, &empty);
        assert_eq!((answer.error_code, answer.session_id, told(&answer).len()), (0, 0, 0));
        assert_eq!(ask(&mut stage, version, &request(id, 2, vec![])).error_code, 70);
    }
}

#[test]
fn of_two_requests_under_way_in_a_session_the_last_is_answered() {
    let mut stage = Stage::new(&[]);
    stage.topic("t", 7, &[1]);
    let id = ask(&mut stage, 12, &request(0, 0, vec![named(12, &[0])])).session_id;
    let (first_header, mut first) = stage.start(ApiKey::Fetch, 12, &request(id, 1, vec![]));
    nothing_new(&mut stage, &first_header, &mut first, 5);
    let (header, mut second) = stage.start(ApiKey::Fetch, 12, &request(id, 2, vec![]));
    nothing_new(&mut stage, &header, &mut second, 5);
    let overtaken: FetchResponse = stage.finish(&first_header, first);
    assert_eq!((overtaken.error_code, overtaken.session_id, told(&overtaken).len()), (71, id, 0));
    let answered: FetchResponse = stage.finish(&header, second);
    assert_eq!((answered.error_code, told(&answered)), (0, vec![(0, 0)]));
}

#[test]
fn a_session_knows_a_topic_that_was_made_again_from_one_that_is_gone() {
    let mut stage = Stage::new(&[]);
    let old = stage.topic("t", 7, &[1, 1]);
    let session = ask(&mut stage, 13, &request(0, 0, vec![named(13, &[0, 1])])).session_id;
    let unknown = request(0, -1, vec![named(13, &[0])]);
    stage.remove(old);
    // UNKNOWN_TOPIC_OR_PARTITION in a session, UNKNOWN_TOPIC_ID outside.
    assert_eq!(told(&ask(&mut stage, 13, &request(session, 1, vec![]))), [(0, 3), (1, 3)]);
    assert_eq!(told(&ask(&mut stage, 13, &unknown)), [(0, 100)]);
    stage.topic("t", 8, &[1]);
    // INCONSISTENT_TOPIC_ID where the new topic has the partition.
    assert_eq!(told(&ask(&mut stage, 13, &request(session, 2, vec![]))), [(0, 103), (1, 3)]);
    assert_eq!(told(&ask(&mut stage, 13, &unknown)), [(0, 100)]);
}

#[test]
fn a_session_by_name_goes_on_with_the_topic_that_was_made_again() {
    let mut stage = Stage::new(&[]);
    let old = stage.topic("t", 7, &[1]);
    let session = ask(&mut stage, 12, &request(0, 0, vec![named(12, &[0])])).session_id;
    stage.remove(old);
    assert_eq!(told(&ask(&mut stage, 12, &request(session, 1, vec![]))), [(0, 3)]);
    stage.topic("t", 8, &[1]);
    assert_eq!(told(&ask(&mut stage, 12, &request(session, 2, vec![]))), [(0, 0)], "an error is taken back");
    assert_eq!(told(&ask(&mut stage, 12, &request(session, 3, vec![]))), []);
}

#[test]
fn rack_and_isolation_are_accepted() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let mut consumer = request(0, -1, vec![named(version, &[0])]).with_isolation_level(1);
        if version >= 11 {
            consumer.rack_id = "r1".to_string().into();
        }
        assert_eq!(told(&ask(&mut stage, version, &consumer)), [(0, 0)]);
    }
}

/// The request of replica 2, whose broker epoch is 9 where the version can say so.
fn of_replica(version: i16, request: FetchRequest) -> FetchRequest {
    let id = BrokerId(2);
    if version >= 15 {
        request.with_replica_state(ReplicaState::default().with_replica_id(id).with_replica_epoch(9))
    } else {
        request.with_replica_id(id)
    }
}

#[test]
fn a_replica_fetches_where_brokers_do_and_nowhere_else() {
    let listeners = [
        ("listeners", "PLAINTEXT://:9092,INNER://:9093"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT"),
        ("inter.broker.listener.name", "INNER"),
    ];
    for version in VERSIONS {
        let mut stage = Stage::new(&listeners);
        stage.topic("t", 7, &[1]);
        let fetch = of_replica(version, request(0, -1, vec![named(version, &[0])]));
        let refused = ask(&mut stage, version, &fetch);
        assert_eq!((refused.error_code, told(&refused).len()), (31, 0), "v{version}");
        stage.context.listener = 1;
        assert_eq!(told(&ask(&mut stage, version, &fetch)), [(0, 0)], "v{version}");
    }
}

#[test]
fn what_a_replica_says_of_itself_reaches_the_partition_also_in_a_session() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let mut topic = named(version, &[0]);
        let partition = &mut topic.partitions[0];
        (partition.fetch_offset, partition.log_start_offset) = (30, 20);
        partition.last_fetched_epoch = if version >= 12 { 4 } else { -1 };
        let first = of_replica(version, request(0, 0, vec![topic]));
        let id = ask(&mut stage, version, &first).session_id;
        let (header, mut work) =
            stage.start(ApiKey::Fetch, version, &of_replica(version, request(id, 1, vec![])));
        let Op::Read(read) = &stage.desk.calls[0].op else { panic!("it reads") };
        let reader = Reader::Replica {
            id: 2,
            epoch: if version >= 15 { 9 } else { -1 },
            log_start_offset: 20,
            last_fetched_epoch: if version >= 12 { 4 } else { -1 },
        };
        assert_eq!((read.reader, read.offset), (reader, 30), "v{version}");
        nothing_new(&mut stage, &header, &mut work, 0);
        let _: FetchResponse = stage.finish(&header, work);
    }
}

#[test]
fn a_replica_with_another_epoch_is_said_and_a_consumer_is_not() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1, 1]);
        for of in [of_replica, |_, request| request] {
            for error in [ErrorCode::FencedLeaderEpoch, ErrorCode::OffsetOutOfRange] {
                let asked = of(version, request(0, -1, vec![named(version, &[1])]));
                let (header, mut work) = stage.start(ApiKey::Fetch, version, &asked);
                let failed = Answer::Failed { error, log_start_offset: -1 };
                work.answer(&header, TO, Answered::Partition(failed, None), &mut stage.scene());
            }
        }
        let expected = "refused a partition in a fetch of node 2 at 127.0.0.1: FencedLeaderEpoch for \"t\"-1 (1 of this \
                        kind on this shard, usual while leaders or brokers change)";
        assert_eq!(stage.desk.refusals.take(), [expected], "v{version}");
    }
}

#[test]
fn a_divergence_does_not_wait_and_is_told_again_until_it_is_over() {
    let mut stage = Stage::new(&[]);
    stage.topic("t", 7, &[1]);
    let first = of_replica(13, request(0, 0, vec![named(13, &[0])]));
    let id = ask(&mut stage, 13, &first).session_id;
    for epoch in 1..=3 {
        let waits = request(id, epoch, vec![]).with_min_bytes(1).with_max_wait_ms(500);
        let (header, mut work) = stage.start(ApiKey::Fetch, 13, &of_replica(13, waits));
        stage.desk.calls.clear();
        let found = ReadFound { diverging: Some((3, 17)), ..nothing(0) };
        work.answer(&header, TO, Answered::Partition(Answer::Read(found), None), &mut stage.scene());
        let response: FetchResponse = stage.finish(&header, work);
        let diverging = &response.responses[0].partitions[0].diverging_epoch;
        assert_eq!((diverging.epoch, diverging.end_offset), (3, 17));
    }
}

#[test]
fn a_partition_that_is_named_twice_counts_once_with_what_was_said_last() {
    for version in VERSIONS {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1, 1, 1]);
        let mut topic = named(version, &[2, 0, 2, 1, 0]);
        for (at, partition) in (0..).zip(&mut topic.partitions) {
            partition.fetch_offset = at;
        }
        let (header, mut work) =
            stage.start(ApiKey::Fetch, version, &request(0, -1, vec![topic.clone(), topic]));
        let calls = stage.desk.calls.iter().map(|call| match &call.op {
            Op::Read(read) => (call.partition, read.offset),
            other => panic!("{other:?}"),
        });
        assert_eq!(calls.collect::<Vec<_>>(), [(2, 2), (0, 4), (1, 3)]);
        nothing_new(&mut stage, &header, &mut work, 0);
        let response = stage.finish(&header, work);
        assert_eq!(told(&response), [(2, 0), (0, 0), (1, 0)]);
    }
}

/// What version 12 is told when it fetches `t-0` from this rack: error, preferred replica; and what was asked.
fn from_rack(stage: &mut Stage, version: i16, rack: &str, preferred: Option<i32>) -> ((i16, i32), Read) {
    let full =
        request(0, -1, vec![named(version, &[0])]).with_rack_id(StrBytes::from_string(rack.to_owned()));
    let (header, mut work) =
        stage.start(ApiKey::Fetch, version, &full.with_max_wait_ms(500).with_min_bytes(1));
    let call = stage.desk.calls.pop().unwrap();
    let Op::Read(read) = call.op else { panic!("a read: {:?}", call.op) };
    let found = ReadFound { preferred, ..nothing(9) };
    let answer = Answered::Partition(Answer::Read(found), None);
    work.answer(&header, call.to, answer, &mut stage.scene());
    if preferred.is_none() {
        assert!(!work.is_done(), "it waits for records");
        work.timeout(call.to, &mut stage.scene());
        nothing_new(stage, &header, &mut work, 9);
    }
    let response: FetchResponse = stage.finish(&header, work);
    let partition = &response.responses[0].partitions[0];
    ((partition.error_code, partition.preferred_read_replica.0), read)
}

#[test]
fn a_consumer_is_sent_to_a_replica_in_its_rack_and_may_read_from_followers() {
    const SELECTOR: (&str, &str) =
        ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector");
    let mut stage = Stage::new(&[SELECTOR, ("broker.rack", "a")]);
    stage.broker(2, Some("b"), false);
    stage.broker(3, Some("b"), false);
    stage.broker(4, Some("c"), true);
    stage.broker(5, Some("b"), false);
    stage.replicated("t", 7, &[1, 2, 3, 4]);
    let asked = |stage: &mut Stage, version: i16, rack: &str| {
        let (told, read) = from_rack(stage, version, rack, None);
        assert_eq!(told, (0, -1));
        (read.from_follower, read.nearer.to_vec())
    };
    for version in [11, 12, 13, 18] {
        assert_eq!(asked(&mut stage, version, "b"), (true, vec![2, 3]), "v{version}");
        assert_eq!(asked(&mut stage, version, "a"), (true, vec![]), "the leader is there");
        assert_eq!(asked(&mut stage, version, "c"), (true, vec![]), "nobody there is alive");
        assert_eq!(asked(&mut stage, version, ""), (true, vec![]));
        // It is told at once.
        assert_eq!(from_rack(&mut stage, version, "b", Some(3)).0, (0, 3));
    }
    assert_eq!(asked(&mut stage, 10, "b"), (false, vec![]));
    let mut stage = Stage::new(&[("broker.rack", "a")]);
    stage.broker(2, Some("b"), false);
    stage.replicated("t", 7, &[1, 2]);
    assert_eq!(asked(&mut stage, 12, "b"), (true, vec![]), "without a selector leaders serve");
}

/// What a request of a session reads: partition, and the address of the watch that it may leave.
fn reads(stage: &mut Stage) -> Vec<(i32, ReplyTo)> {
    let reads = stage.desk.calls.iter().filter_map(|call| match &call.op {
        Op::Read(read) => Some((call.partition, read.session.expect("the watch is the session's"))),
        _ => None,
    });
    reads.collect()
}

/// Answers every read with nothing at a high watermark, and a watch.
fn watched(stage: &mut Stage, header: &RequestHeader, work: &mut Work, high_watermark: i64) {
    for call in stage.desk.calls.drain(..).collect::<Vec<_>>() {
        let found = ReadFound { watched: true, ..nothing(high_watermark) };
        work.answer(header, call.to, Answered::Partition(Answer::Read(found), None), &mut stage.scene());
    }
}

#[test]
fn a_round_of_a_session_reads_what_has_changed_and_nothing_else() {
    let mut stage = Stage::new(&[]);
    stage.topic("t", 7, &[1; 100]);
    let all: Vec<i32> = (0..100).collect();
    let id = ask(&mut stage, 13, &request(0, 0, vec![named(13, &all)])).session_id;
    let mut epoch = 0;
    let mut round = |stage: &mut Stage| {
        epoch += 1;
        let (header, work) = stage.start(
            ApiKey::Fetch,
            13,
            &request(id, epoch, vec![]).with_min_bytes(1).with_max_wait_ms(500),
        );
        (reads(stage), header, work)
    };
    let end = |stage: &mut Stage, header: &RequestHeader, mut work: Work| {
        assert!(!work.is_done(), "it waits");
        work.timeout(TO, &mut stage.scene());
        assert!(work.is_done() && stage.desk.calls.is_empty(), "nothing is taken back");
        told(&stage.finish(header, work))
    };
    let (first, header, mut work) = round(&mut stage);
    assert_eq!(first.iter().map(|(index, _)| *index).collect::<Vec<_>>(), all);
    watched(&mut stage, &header, &mut work, 0);
    assert_eq!(end(&mut stage, &header, work), []);
    // At rest nothing is looked at.
    for _ in 0..3 {
        let (asked, header, work) = round(&mut stage);
        assert_eq!(asked, []);
        assert_eq!(end(&mut stage, &header, work), []);
    }
    // Records wake the round that waits, and one partition is read.
    let (_, header, mut work) = round(&mut stage);
    let (waiting, fired) = stage.desk.sessions.told_by_watch(first[41].1, false).expect("a round waits");
    work.watch_fired(fired, waiting, &mut stage.scene());
    let again = reads(&mut stage);
    assert_eq!(again.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [41]);
    assert!(stage.desk.sessions.told_by_watch(first[41].1, false).is_none(), "it has been replaced since");
    watched(&mut stage, &header, &mut work, 5);
    assert_eq!(end(&mut stage, &header, work), [(41, 0)], "the watermark moved");
    // News wakes nobody, and is read by the next round.
    let (asked, header, work) = round(&mut stage);
    assert_eq!(asked, []);
    assert!(stage.desk.sessions.told_by_watch(again[0].1, true).is_none());
    assert_eq!(end(&mut stage, &header, work), []);
    let (asked, header, mut work) = round(&mut stage);
    assert_eq!(asked.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [41]);
    watched(&mut stage, &header, &mut work, 6);
    assert_eq!(end(&mut stage, &header, work), [(41, 0)]);
    // A read that finds nothing and leaves no watch is repeated.
    stage.desk.sessions.told_by_watch(first[3].1, false);
    for _ in 0..2 {
        let (asked, header, mut work) = round(&mut stage);
        assert_eq!(asked.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3]);
        nothing_new(&mut stage, &header, &mut work, 0);
        assert_eq!(end(&mut stage, &header, work), []);
    }
    // Who is gone leaves no watch behind.
    stage.desk.sessions.leave(id);
    let now = stage.scene().now;
    stage.desk.settle_sessions(now);
    assert_eq!(stage.desk.calls.iter().filter(|call| matches!(call.op, Op::Unwatch)).count(), 100);
    stage.desk.calls.clear();
    assert_eq!(round(&mut stage).0.len(), 100);
}

#[test]
fn a_watch_that_fires_while_its_partition_is_read_has_it_read_again() {
    let mut stage = Stage::new(&[]);
    stage.topic("t", 7, &[1, 1]);
    let id = ask(&mut stage, 13, &request(0, 0, vec![named(13, &[0, 1])])).session_id;
    let waits = request(id, 1, vec![]).with_min_bytes(1).with_max_wait_ms(500);
    let (header, mut work) = stage.start(ApiKey::Fetch, 13, &waits);
    let asked = reads(&mut stage);
    let calls: Vec<_> = stage.desk.calls.drain(..).collect();
    let (waiting, fired) = stage.desk.sessions.told_by_watch(asked[1].1, false).unwrap();
    work.watch_fired(fired, waiting, &mut stage.scene());
    assert_eq!(reads(&mut stage), [], "it is still being read");
    for call in calls {
        let found = ReadFound { watched: true, ..nothing(0) };
        work.answer(&header, call.to, Answered::Partition(Answer::Read(found), None), &mut stage.scene());
    }
    assert_eq!(reads(&mut stage).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    watched(&mut stage, &header, &mut work, 0);
    work.timeout(TO, &mut stage.scene());
    assert_eq!(told(&stage.finish(&header, work)), []);
}
