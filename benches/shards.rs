//! One request through the pure broker: a partition on the connection's own shard against one on another shard. Two
//! shards stand side by side on one thread; their messages go by queues, their files lie in memory, and nothing keeps
//! appended bytes. So the difference is what routing, a message there and one back cost; ringing the other core and
//! waking it is not in it (`tidemill::shard` keeps its lanes to itself): that is measured from outside.
//! `cargo bench --bench shards`

mod node;

use bytes::{Buf, Bytes};
use criterion::{Criterion, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::{Decodable, StrBytes};

use node::{TOPIC, TestNode, frame};
use tidemill::log::batch::BatchBuilder;
use tidemill::wire::api::ApiKey;

/// A batch just below 16 KiB, as the fetch workloads of the bench harness store them.
const STORED_RECORDS: usize = 16;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn produce(partitions: &[i32], records: usize, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(node::WALL_MS, None, Some(&vec![b'v'; value_bytes]), &[]);
    }
    let records = builder.build();
    let data =
        |index: &i32| PartitionProduceData::default().with_index(*index).with_records(Some(records.clone()));
    let topic = TopicProduceData::default().with_name(name());
    let topic = topic.with_partition_data(partitions.iter().map(data).collect());
    let request = ProduceRequest::default().with_acks(1).with_timeout_ms(1500).with_topic_data(vec![topic]);
    frame(ApiKey::Produce, 7, &request)
}

fn fetch(partition: i32) -> Bytes {
    let partition = FetchPartition::default().with_partition(partition).with_partition_max_bytes(16 << 10);
    let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20);
    // Older versions cannot know zstd, so the log would read the batch headers, which nobody keeps.
    frame(ApiKey::Fetch, 11, &request.with_session_epoch(-1).with_topics(vec![topic]))
}

/// A bench of refusals would be a fast one.
fn assert_taken(mut answer: Bytes, partitions: usize) {
    answer.advance(8);
    let response = ProduceResponse::decode(&mut answer, 7).expect("a Produce response");
    let parts = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    assert_eq!(parts.clone().count(), partitions);
    assert!(parts.clone().all(|part| part.error_code == 0), "every batch is taken: {response:?}");
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shards");
    let mut node = TestNode::start();
    let (home, away) = (node.partitions_of(0), node.partitions_of(1));
    assert_eq!((home.len(), away.len()), (16, 16), "partitions are spread evenly");
    let half: Vec<i32> = home.iter().chain(&away).copied().take(16).collect();
    let spread: Vec<i32> = home.iter().take(8).chain(away.iter().take(8)).copied().collect();
    let first = |partitions: &[i32]| partitions.first().copied().into_iter().collect::<Vec<i32>>();
    let cases = [
        ("at home, 1 partition", first(&home)),
        ("on the other shard, 1 partition", first(&away)),
        ("at home, 16 partitions", half),
        ("on both shards, 16 partitions", spread),
        ("on the other shard, 16 partitions", away.clone()),
    ];
    for (title, partitions) in cases {
        let request = produce(&partitions, 1, 100);
        node.round_trip(request.clone());
        assert_taken(node.answer(), partitions.len());
        group.bench_function(format!("produce {title}"), |bencher| {
            bencher.iter(|| node.round_trip(request.clone()));
        });
    }
    for (title, partitions) in [("at home", &home), ("on the other shard", &away)] {
        // The last partition of its shard has only this batch.
        let partition = partitions.last().copied().unwrap_or(0);
        let mut stored = TestNode::start();
        stored.round_trip(produce(&[partition], STORED_RECORDS, 1000));
        assert_taken(stored.answer(), 1);
        let request = fetch(partition);
        let answer_bytes = stored.round_trip(request.clone());
        assert!(answer_bytes > 16_000, "the batch comes with the answer: {:?}", stored.answer());
        group.bench_function(format!("fetch {title}"), |bencher| {
            bencher.iter(|| stored.round_trip(request.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
