//! AlterReplicaLogDirs (KIP-113): each replica is told to move by its owner, and answered when the move has begun so
//! that a crash does not end it. A replica that this node does not have is put where it was wished for when the node
//! gets it; until then that is REPLICA_NOT_AVAILABLE, as in Kafka: who asks asks again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::partition_state::topic_name;
use super::{Call, CloseReason, PreferredDirectory, Scene, Work};
use crate::partition::{Answer, Op, ReplyTo};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// A replica and what became of its part.
#[derive(Debug)]
struct Part {
    topic: Arc<str>,
    partition: i32,
    error: Option<ErrorCode>,
}

/// An AlterReplicaLogDirs request between its start and its response.
#[derive(Debug)]
pub struct AlterLogDirs {
    parts: Vec<Part>,
    outstanding: usize,
}

pub(super) fn start(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    let request: AlterReplicaLogDirsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let mut alter = AlterLogDirs { parts: Vec::new(), outstanding: 0 };
    // One replica to several directories: the last one counts, as in Kafka's map.
    let mut wanted: BTreeMap<(&str, i32), Option<u16>> = BTreeMap::new();
    for asked in &request.dirs {
        let directory = scene.node.config.log_dirs.iter().position(|path| path.to_str() == Some(&asked.path));
        let directory = directory.and_then(|directory| u16::try_from(directory).ok());
        for topic in &asked.topics {
            wanted.extend(topic.partitions.iter().map(|index| ((topic.name.as_str(), *index), directory)));
        }
    }
    for ((topic, partition), directory) in wanted {
        let to = ReplyTo { part: u32::try_from(alter.parts.len()).unwrap_or(u32::MAX), ..to };
        let error = ask(scene, to, topic, partition, directory).err();
        alter.outstanding += usize::from(error.is_none());
        alter.parts.push(Part { topic: topic.into(), partition, error });
    }
    Ok(Work::AlterLogDirs(Box::new(alter)))
}

/// Has the owner of a replica move it; what can be said at once is an error.
fn ask(
    scene: &mut Scene,
    to: ReplyTo,
    topic: &str,
    partition: i32,
    directory: Option<u16>,
) -> Result<(), ErrorCode> {
    let directory = directory.ok_or(ErrorCode::LogDirNotFound)?;
    if scene.desk.is_failed(directory) {
        return Err(ErrorCode::KafkaStorageError);
    }
    let known = scene.view.image.topic(topic);
    let place = known.and_then(|topic| scene.view.placement.shard_of(topic.id, partition));
    match (known, place) {
        (Some(known), Some((_, at))) => {
            if scene.desk.is_failed(at) {
                return Err(ErrorCode::KafkaStorageError);
            }
            let (topic_id, op) = (known.id, Op::Move { directory });
            scene.desk.calls.push(Call { topic_id, partition, to, op });
            Ok(())
        }
        _ => {
            let wish = PreferredDirectory { topic: topic.into(), partition, directory };
            scene.desk.preferred_directories.push(wish);
            let index = usize::try_from(partition).ok();
            let is_known = known.zip(index).is_some_and(|(known, index)| index < known.partitions.len());
            Err(if is_known { ErrorCode::ReplicaNotAvailable } else { ErrorCode::UnknownTopicOrPartition })
        }
    }
}

impl AlterLogDirs {
    pub(super) fn answer(&mut self, part: u32, answer: &Answer) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let (Some(part), Answer::Failed { error, .. }) = (self.parts.get_mut(part as usize), answer) {
            part.error = Some(match error {
                // What a shard says of a replica that is not here any more, or not yet.
                ErrorCode::NotLeaderOrFollower => ErrorCode::ReplicaNotAvailable,
                error => *error,
            });
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.outstanding == 0
    }

    pub(super) fn encode(self, header: &RequestHeader, buffer: &mut BytesMut) {
        let mut topics: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
        for part in self.parts {
            let result = AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(part.partition)
                .with_error_code(part.error.map_or(0, |error| error.code()));
            match topics.last_mut().filter(|topic| *topic.topic_name.as_str() == *part.topic) {
                Some(topic) => topic.partitions.push(result),
                None => topics.push(
                    AlterReplicaLogDirTopicResult::default()
                        .with_topic_name(topic_name(&part.topic))
                        .with_partitions(vec![result]),
                ),
            }
        }
        let answer = AlterReplicaLogDirsResponse::default().with_results(topics);
        response::encode(buffer, header.api.key, header.version, header.correlation_id, &answer)
            .expect("every field set exists in every version served");
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_replica_log_dirs_request::{
        AlterReplicaLogDir, AlterReplicaLogDirTopic,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::super::Answered;
    use super::super::stage::Stage;
    use super::*;
    use crate::wire::api::ApiKey;

    fn dir(path: &str, name: &str, partitions: &[i32]) -> AlterReplicaLogDir {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(topic_name(name))
            .with_partitions(partitions.to_vec());
        AlterReplicaLogDir::default()
            .with_path(StrBytes::from_string(path.to_owned()))
            .with_topics(vec![topic])
    }

    #[test]
    fn owners_are_asked_and_what_is_not_here_is_remembered() {
        let mut stage = Stage::new(&[("log.dirs", "/data/a,/data/b")]);
        // The third replica is another node's.
        let topic = stage.topic("t", 7, &[1, 1, 2]);
        stage.place(topic);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![
            dir("/elsewhere", "t", &[1]),
            dir("/data/a", "t", &[0]),
            dir("/data/b", "t", &[0, 2, 9]),
            dir("/data/b", "u", &[0]),
        ]);
        for version in 1..=2 {
            let (header, mut work) = stage.start(ApiKey::AlterReplicaLogDirs, version, &request);
            let calls: Vec<Call> = stage.desk.calls.drain(..).collect();
            let [call] = &calls[..] else { panic!("{calls:?}") };
            assert!(matches!(call.op, Op::Move { directory: 1 }) && call.partition == 0);
            assert!(!work.is_done());
            work.answer(&header, call.to, Answered::Partition(Answer::Moves, None), &mut stage.scene());
            let response: AlterReplicaLogDirsResponse = stage.finish(&header, work);
            let of = |topic: &AlterReplicaLogDirTopicResult| {
                let name = topic.topic_name.to_string();
                let codes = topic.partitions.iter().map(|part| (part.partition_index, part.error_code));
                (name, codes.collect::<Vec<_>>())
            };
            let codes: Vec<_> = response.results.iter().map(of).collect();
            let expected =
                [("t".to_owned(), vec![(0, 0), (1, 57), (2, 9), (9, 3)]), ("u".to_owned(), vec![(0, 3)])];
            assert_eq!(codes, expected);
            let wishes = stage.desk.preferred_directories.drain(..);
            let wishes: Vec<_> =
                wishes.map(|wish| (wish.topic.to_string(), wish.partition, wish.directory)).collect();
            let wish = |topic: &str, partition| (topic.to_owned(), partition, 1);
            assert_eq!(wishes, [wish("t", 2), wish("t", 9), wish("u", 0)]);
        }
    }
}
