//! DescribeLogDirs (KIP-113, KIP-827): what is in which log directory, also what is on its way there, and how much room
//! there is. Sizes are what the owners of the partitions count as they append and copy: no file is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_protocol::protocol::StrBytes;

use super::partition_state::topic_name;
use super::{Call, CloseReason, DiskSpace, Scene, Work};
use crate::partition::{Answer, Op, PlacedFuture, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// The first version that tells total and usable bytes.
const SPACE_FIRST: i16 = 4;

/// A replica of this node that was asked for.
#[derive(Debug)]
struct Place {
    topic: Arc<str>,
    partition: i32,
    directory: u16,
    /// Nothing until it is answered, and where it is not served.
    size_bytes: Option<u64>,
    /// Its copy in another log directory.
    future: Option<PlacedFuture>,
}

/// A DescribeLogDirs request between its start and its response.
#[derive(Debug)]
pub struct LogDirs {
    places: Vec<Place>,
    outstanding: usize,
    /// By log directory.
    space: Option<Vec<Option<DiskSpace>>>,
}

impl LogDirs {
    pub(super) fn start(
        header: &RequestHeader,
        body: &Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Work, CloseReason> {
        let request: DescribeLogDirsRequest = guard::decode(body, header.version, guard::Limits::default())?;
        let wanted: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
            topics
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)))
                .collect()
        });
        let mut places = Vec::new();
        match wanted {
            Some(wanted) => {
                for (name, index) in wanted {
                    ask(scene, to, &mut places, name, index..index.saturating_add(1));
                }
            }
            None => {
                let names: Vec<Arc<str>> =
                    scene.view.image.topics().map(|topic| Arc::clone(&topic.name)).collect();
                for name in names {
                    ask(scene, to, &mut places, &name, 0..i32::MAX);
                }
            }
        }
        let space = if header.version >= SPACE_FIRST {
            scene.desk.space_asked.push(to);
            None
        } else {
            Some(Vec::new())
        };
        let outstanding = places.len();
        Ok(Work::LogDirs(Box::new(Self { places, outstanding, space })))
    }

    pub(super) fn answer(&mut self, part: u32, answer: &Answer) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let (Some(place), Answer::Placed(placed)) = (self.places.get_mut(part as usize), answer) {
            // The view may be older.
            place.directory = placed.directory;
            place.size_bytes = Some(placed.size_bytes);
            place.future = placed.future;
        }
    }

    pub(super) fn measured(&mut self, space: Vec<Option<DiskSpace>>) {
        self.space = Some(space);
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0 && self.space.is_some()
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut, scene: &Scene) {
        let mut by_directory: BTreeMap<u16, Vec<DescribeLogDirsTopic>> = BTreeMap::new();
        for place in &self.places {
            let Some(size_bytes) = place.size_bytes else { continue };
            add(&mut by_directory, place, place.directory, size_bytes, None);
            if let Some(future) = place.future {
                add(&mut by_directory, place, future.directory, future.size_bytes, Some(future.offset_lag));
            }
        }
        let space = self.space.unwrap_or_default();
        let results = (0..).zip(&scene.node.config.log_dirs).map(|(directory, path)| {
            let failed = scene.desk.is_failed(directory);
            let mut result = DescribeLogDirsResult::default()
                .with_log_dir(StrBytes::from_string(path.to_string_lossy().into_owned()))
                .with_topics(by_directory.remove(&directory).filter(|_| !failed).unwrap_or_default())
                .with_error_code(if failed { ErrorCode::KafkaStorageError.code() } else { 0 });
            if let Some(Some(space)) = space.get(usize::from(directory)).filter(|_| !failed) {
                result.total_bytes = i64::try_from(space.total_bytes).unwrap_or(i64::MAX);
                result.usable_bytes = i64::try_from(space.usable_bytes).unwrap_or(i64::MAX);
            }
            result
        });
        let answer = DescribeLogDirsResponse::default().with_results(results.collect());
        response::encode(buffer, ApiKey::DescribeLogDirs, header.version, header.correlation_id, &answer)
            .expect("what a version does not have is at its default");
    }
}

/// Adds a replica to its log directory; a future one has a lag.
fn add(
    by_directory: &mut BTreeMap<u16, Vec<DescribeLogDirsTopic>>,
    place: &Place,
    directory: u16,
    size_bytes: u64,
    future_lag: Option<i64>,
) {
    let partition = DescribeLogDirsPartition::default()
        .with_partition_index(place.partition)
        .with_partition_size(i64::try_from(size_bytes).unwrap_or(i64::MAX))
        .with_offset_lag(future_lag.unwrap_or_default())
        .with_is_future_key(future_lag.is_some());
    let topics = by_directory.entry(directory).or_default();
    match topics.last_mut().filter(|topic| *topic.name.as_str() == *place.topic) {
        Some(topic) => topic.partitions.push(partition),
        None => topics.push(
            DescribeLogDirsTopic::default()
                .with_name(topic_name(&place.topic))
                .with_partitions(vec![partition]),
        ),
    }
}

/// Asks the owners of a topic's partitions, as far as this node has them.
fn ask(scene: &mut Scene, to: ReplyTo, places: &mut Vec<Place>, name: &str, indexes: std::ops::Range<i32>) {
    let Some(topic) = scene.view.image.topic(name) else { return };
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    for index in indexes.start.max(0)..indexes.end.min(count) {
        let Some((_, directory)) = scene.view.placement.shard_of(topic.id, index) else { continue };
        let to = ReplyTo { part: places.len() as u32, ..to };
        scene.desk.calls.push(Call { topic_id: topic.id, partition: index, to, op: Op::Size });
        let topic = Arc::clone(&topic.name);
        places.push(Place { topic, partition: index, directory, size_bytes: None, future: None });
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
    use uuid::Uuid;

    use super::super::Answered;
    use super::super::stage::Stage;
    use super::*;
    use crate::partition::Placed;

    const PATH: &str = "/data/a";

    fn stage() -> Stage {
        let mut stage = Stage::new(&[("log.dirs", PATH)]);
        let topic = stage.topic("t", 7, &[1, 1, 2]);
        stage.place(topic);
        stage
    }

    fn asked(partitions: &[i32]) -> DescribeLogDirsRequest {
        let topic = DescribableLogDirTopic::default()
            .with_topic(topic_name("t"))
            .with_partitions(partitions.to_vec());
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    }

    fn told(response: &DescribeLogDirsResponse) -> Vec<(i32, i64)> {
        let topics = response.results.iter().flat_map(|directory| &directory.topics);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.map(|partition| (partition.partition_index, partition.partition_size)).collect()
    }

    /// Starts the request and answers every part with ten times its partition, and 5 more.
    fn described(
        stage: &mut Stage,
        version: i16,
        request: &DescribeLogDirsRequest,
    ) -> DescribeLogDirsResponse {
        let (header, mut work) = stage.start(ApiKey::DescribeLogDirs, version, request);
        let calls: Vec<Call> = stage.desk.calls.drain(..).collect();
        for call in calls.iter().rev() {
            assert!(matches!(call.op, Op::Size) && call.topic_id == Uuid::from_u128(7));
            let size_bytes = 10 * call.partition as u64 + 5;
            let size = Answer::Placed(Placed { directory: 0, size_bytes, future: None });
            work.answer(&header, call.to, Answered::Partition(size, None), &mut stage.scene());
        }
        if version >= SPACE_FIRST {
            assert!(!work.is_done(), "the space is asked for too");
            let space = DiskSpace { total_bytes: 1_000, usable_bytes: 400 };
            let Work::LogDirs(dirs) = &mut work else { panic!("another request") };
            dirs.measured(vec![Some(space)]);
            assert_eq!(stage.desk.space_asked.drain(..).count(), 1);
        }
        stage.finish(&header, work)
    }

    #[test]
    fn every_version_tells_sizes_and_the_newest_space() {
        for version in 1..=4 {
            let mut stage = stage();
            let everything =
                described(&mut stage, version, &DescribeLogDirsRequest::default().with_topics(None));
            assert_eq!(told(&everything), [(0, 5), (1, 15)], "not what another node has");
            let one = described(&mut stage, version, &asked(&[1, 1, 9, -1, 2]));
            assert_eq!(told(&one), [(1, 15)]);
            let nothing =
                described(&mut stage, version, &DescribeLogDirsRequest::default().with_topics(Some(vec![])));
            let [directory] = &nothing.results[..] else { panic!("one log directory") };
            assert_eq!((directory.error_code, directory.log_dir.as_str()), (0, PATH));
            assert!(directory.topics.is_empty());
            let space = (directory.total_bytes, directory.usable_bytes);
            assert_eq!(space, if version >= SPACE_FIRST { (1_000, 400) } else { (-1, -1) });
        }
    }

    #[test]
    fn a_replica_on_its_way_is_told_in_both_directories() {
        let mut stage = Stage::new(&[("log.dirs", "/data/a,/data/b")]);
        let topic = stage.topic("t", 7, &[1]);
        stage.place(topic);
        let (header, mut work) = stage.start(ApiKey::DescribeLogDirs, 1, &asked(&[0]));
        let call = stage.desk.calls.pop().unwrap();
        let future = Some(PlacedFuture { directory: 0, size_bytes: 40, offset_lag: 9 });
        let placed = Answer::Placed(Placed { directory: 1, size_bytes: 100, future });
        work.answer(&header, call.to, Answered::Partition(placed, None), &mut stage.scene());
        let response: DescribeLogDirsResponse = stage.finish(&header, work);
        let found: Vec<_> = response
            .results
            .iter()
            .map(|directory| {
                let partition = &directory.topics[0].partitions[0];
                (partition.is_future_key, partition.partition_size, partition.offset_lag)
            })
            .collect();
        assert_eq!(found, [(true, 40, 9), (false, 100, 0)], "where the owner says that it is");
    }
}
