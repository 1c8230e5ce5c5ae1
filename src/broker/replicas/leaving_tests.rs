//! Replicas that leave a node, and those that come back, over views that the test makes.

use std::collections::BTreeMap;

use super::super::FoundReplica;
use super::*;
use crate::config::{NodeConfig, TopicConfig};
use crate::controller::image::ImageBuilder;
use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
use crate::controller::{ImageDelta, ShardPlacement};
use crate::effect::FileDone;
use crate::partition::{Acks, Answer, Op, ReplyTo};
use crate::request::Call;
use crate::wire::ErrorCode;

const T: Uuid = Uuid::from_u128(7);
const NOW: Now = Now { mono_ms: 0, wall_ms: 1_700_000_000_000 };

/// One shard of broker 1, and the views that it goes through.
struct Stage {
    replicas: Replicas,
    builder: ImageBuilder,
    placement: ShardPlacement,
    view: ClusterView,
    epoch: i32,
}

impl Stage {
    /// What the start found: partitions of topic `t` in the only log directory.
    fn new(shard: u16, found: &[i32]) -> Self {
        let config = NodeConfig::default();
        let found = found.iter().map(|index| (("t".to_owned(), *index), FoundReplica::default()));
        let facts = DirectoryFacts {
            clean: true,
            same_boot: true,
            found: found.collect::<BTreeMap<_, _>>(),
            futures: Vec::new(),
        };
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        builder.apply(&Record::Topic { name: "t".into(), topic_id: T }).unwrap();
        let topic_configs = std::iter::once((T, Arc::new(TopicConfig::default()))).collect();
        Self {
            replicas: Replicas::new(ShardId(shard), &config, Arc::from([facts])),
            builder,
            placement: ShardPlacement::new(1, 1, 1),
            view: ClusterView {
                version: 1,
                topic_configs,
                changed: Arc::new([T]),
                ..ClusterView::before_any(Arc::new(config))
            },
            epoch: 0,
        }
    }

    /// The only partition is on these brokers now, led by the first; what the shard wants done for that.
    fn assign(&mut self, replicas: &[i32]) -> Vec<Output> {
        self.epoch += 1;
        let record = PartitionRecord {
            topic_id: T,
            index: 0,
            replicas: replicas.iter().copied().collect(),
            isr: replicas.iter().copied().collect(),
            leader: replicas[0],
            leader_epoch: self.epoch,
            partition_epoch: self.epoch,
            directories: replicas.iter().map(|_| Uuid::nil()).collect(),
            ..PartitionRecord::default()
        };
        // A partition that is there is written anew.
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        builder.apply(&Record::Topic { name: "t".into(), topic_id: T }).unwrap();
        builder.apply(&Record::Partition(record)).unwrap();
        self.builder = builder;
        let before = self.view.clone();
        self.view.image = self.builder.publish(before.image.version() + 1).0;
        self.view.version += 1;
        let delta = ImageDelta { topics_changed: [T].into(), ..ImageDelta::default() };
        self.view.placement = self.placement.assign(&self.view.image, &delta, |_, _| None);
        self.replicas.reconcile(NOW, &before, &self.view);
        std::mem::take(&mut self.replicas.outputs)
    }

    /// The next view is of the same Image, and of a process that is registered or not.
    fn register(&mut self, is_registered: bool) {
        let before = self.view.clone();
        self.view.version += 1;
        self.view.changed = Arc::new([]);
        self.view.leads_nothing = !is_registered;
        self.replicas.reconcile(NOW, &before, &self.view);
    }

    /// Carries out every operation well, also those that follow; their names.
    fn settle(&mut self, mut outputs: Vec<Output>) -> Vec<String> {
        let mut told = Vec::new();
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::File(Owner::Replica(slot), ticket, op) => {
                        told.push(format!("{op:?}"));
                        self.replicas.completed(NOW, slot, ticket, Ok(FileDone::Ok), &self.view);
                    }
                    Output::Say(said) => told.push(said),
                    Output::Own { name, .. } => told.push(format!("own {name}")),
                    Output::Disown(_) => told.push("disown".into()),
                    Output::Recover(..) => told.push("recover".into()),
                    other => panic!("unexpected {other:?}"),
                }
            }
            outputs = std::mem::take(&mut self.replicas.outputs);
        }
        told
    }

    fn answers(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.replicas.take_delivery()).map(|delivery| delivery.answer).collect()
    }
}

fn append() -> Call {
    use crate::log::batch::{BatchBuilder, BatchInfo};
    let bytes = BatchBuilder::new().record(5, None, Some(b"v")).build();
    let info = BatchInfo::parse(&bytes).unwrap();
    let batch = crate::log::check::CheckedBatch { bytes, info };
    let to = ReplyTo { shard: 0, connection: 0, generation: 0, request: 0, part: 0 };
    Call { topic_id: T, partition: 0, to, op: Op::Append { batch, acks: Acks::All, deadline_ms: 10_000 } }
}

#[test]
fn a_replica_that_is_assigned_elsewhere_sends_everyone_to_the_leader_and_leaves_the_disk() {
    let mut stage = Stage::new(0, &[]);
    let opened = stage.assign(&[1, 2]);
    assert_eq!(stage.settle(opened)[0], "own t-0");
    stage.replicas.call(NOW, append(), true);
    let left = stage.assign(&[2, 3]);
    assert!(stage.replicas.is_retiring(), "the view is applied when the directory has another name");
    let failed = Answer::Failed { error: ErrorCode::NotLeaderOrFollower, log_start_offset: -1 };
    assert_eq!(stage.answers(), std::slice::from_ref(&failed));
    stage.replicas.end_turn(NOW);
    let told = stage.settle(left);
    assert!(told.contains(&"RetireDir".to_owned()), "{told:?}");
    assert!(!stage.replicas.is_retiring());
    stage.replicas.call(NOW, append(), true);
    assert_eq!(stage.answers(), [failed]);
    assert!(stage.replicas.fetch_position((T, 0)).is_none() && stage.replicas.progress().is_empty());
}

#[test]
fn a_replica_that_comes_back_is_another_one() {
    let mut stage = Stage::new(0, &[0]);
    let opened = stage.assign(&[1, 2]);
    assert_eq!(stage.settle(opened), ["own t-0", "recover"]);
    let left = stage.assign(&[2]);
    assert!(
        stage.settle(left).is_empty() && stage.replicas.is_retiring(),
        "its log is still being recovered"
    );
    let slot = 0;
    let found = super::super::Opened::Empty { base_offset: 0 };
    stage.replicas.recovered(NOW, slot, Ok(found), &stage.view);
    let outputs = std::mem::take(&mut stage.replicas.outputs);
    let told = stage.settle(outputs);
    assert_eq!(told, ["RetireDir", "SyncParent", "DeleteDir", "disown"]);
    assert!(!stage.replicas.is_retiring() && stage.replicas.all_gone());
    assert!(stage.replicas.has_left(&"t".into(), 0, 0), "what the start found is not its own");
    let back = stage.assign(&[2, 1]);
    assert_eq!(stage.settle(back)[0], "own t-0");
}

#[test]
fn what_nobody_has_opened_is_set_aside_once() {
    let mut stage = Stage::new(0, &[0]);
    let outputs = stage.assign(&[2, 3]);
    assert!(stage.replicas.is_retiring());
    let told = stage.settle(outputs);
    assert!(told[0].contains("the log t-0 is of a partition that has no replica on this broker"), "{told:?}");
    assert_eq!(told[1..], ["own t-0", "StrayDir", "SyncParent", "disown"]);
    assert!(!stage.replicas.is_retiring() && stage.replicas.all_gone());
    assert!(stage.assign(&[3, 2]).is_empty(), "once");
    let mut other = Stage::new(1, &[0]);
    assert!(other.assign(&[2, 3]).is_empty(), "one shard does it");
}

#[test]
fn a_process_leads_nothing_before_it_is_registered() {
    let failed = Answer::Failed { error: ErrorCode::NotLeaderOrFollower, log_start_offset: -1 };
    let leads = |stage: &Stage| stage.replicas.partition(0).unwrap().is_leader();
    let mut stage = Stage::new(0, &[]);
    stage.view.leads_nothing = true;
    let opened = stage.assign(&[1]);
    stage.settle(opened);
    stage.replicas.call(NOW, append(), true);
    assert_eq!(stage.answers(), std::slice::from_ref(&failed), "an earlier process led");
    assert!(!leads(&stage));
    stage.register(true);
    stage.replicas.call(NOW, append(), true);
    assert!(leads(&stage) && stage.answers().is_empty(), "it takes what comes");
    // Another process has registered in its place.
    stage.register(false);
    assert_eq!(stage.answers(), [failed]);
    assert!(!leads(&stage));
}

#[test]
fn a_log_that_is_opened_before_the_registration_does_not_lead_either() {
    let mut stage = Stage::new(0, &[0]);
    stage.view.leads_nothing = true;
    let opened = stage.assign(&[1]);
    stage.settle(opened);
    let found = super::super::Opened::Empty { base_offset: 0 };
    stage.replicas.recovered(NOW, 0, Ok(found), &stage.view);
    assert!(!stage.replicas.partition(0).unwrap().is_leader());
    stage.register(true);
    assert!(stage.replicas.partition(0).unwrap().is_leader());
}
