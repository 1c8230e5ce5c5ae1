//! A start of the broker on the simulated disk, through the same pure machines as the real shell's `boot.rs`. It may be
//! cut short by a crash after any operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidemill::broker::{
    Checkpoints, ControlHost, ControlStart, DirectoryFacts, FoundReplica, FoundReplicas, PeersStart, Shard,
    StoredOffsets,
};
use tidemill::config::{NodeConfig, TimestampType};
use tidemill::controller::raft::Stored;
use tidemill::controller::recovery::{Recovery, Step};
use tidemill::controller::storage::METADATA_DIRECTORY;
use tidemill::controller::{Controller, ControllerConfig, ShardId, ShardPlacement};
use tidemill::effect::{FileDone, FileOp, Stem};
use tidemill::log::PartitionMetadata;
use tidemill::log::directory::{
    DirectoryPlan, DirectoryStart, DirectoryState, DirectoryStep, LogDirEntry, kept_epoch,
};
use tidemill::request::{ClusterView, Node};
use uuid::Uuid;

use crate::disk::Disk;
use crate::history::Place;
use crate::machine::Machine;
use crate::membership::{self, CLUSTER_ID, Life};
use crate::plan::Plan;

/// Why a start did not come through.
#[derive(Debug)]
pub enum Failed {
    /// It crashed on the way.
    Crashed,
    /// It refused to start.
    Refused(String),
}

/// A node that is ready to be started.
#[derive(Debug)]
pub struct Booted {
    pub shards: Vec<Shard>,
    /// What makes it one of several.
    pub peers: Option<PeersStart>,
    /// Its raft id, and what its disk says that it knows in the quorum.
    pub known: (u64, Stored),
}

/// The configuration of a machine's broker in a run.
pub fn config(plan: &Plan, machine: usize) -> NodeConfig {
    let mut config = NodeConfig {
        node_id: plan.node_id_of(machine),
        log_flush_offset_checkpoint_interval_ms: plan.checkpoint_ms,
        high_watermark_checkpoint_interval_ms: plan.checkpoint_ms,
        fetch_session_slots: plan.session_slots,
        log_initial_task_delay_ms: plan.shortens.check_ms,
        log_retention_check_interval_ms: plan.shortens.check_ms,
        ..NodeConfig::default()
    };
    if let Some(expiration_ms) = plan.expiration_ms {
        config.producer_id_expiration_ms = expiration_ms;
    }
    config.group.min_session_timeout_ms = 1;
    config.group.initial_rebalance_delay_ms = 200;
    config.group.consumer.session_timeout_ms = 1_500;
    config.group.consumer.heartbeat_interval_ms = 500;
    config.group.offsets_topic_num_partitions = plan.offsets_partitions;
    config.group.offsets_topic_compression_codec = plan.offsets_codec;
    let topics = &mut config.topic_defaults;
    topics.segment_bytes = plan.segment_bytes;
    topics.index_interval_bytes = plan.index_interval_bytes;
    topics.preallocate = plan.preallocate;
    topics.flush_ms = plan.flush_ms;
    (topics.segment_ms, topics.segment_jitter_ms) = plan.segment_ms;
    topics.segment_index_bytes = plan.segment_index_bytes;
    if plan.log_append_time {
        topics.timestamp_type = TimestampType::LogAppendTime;
    }
    if plan.linked {
        membership::make_member(&mut config, plan, machine);
    }
    config
}

/// Runs operations until the crash that was planned.
struct Hands<'a> {
    disks: &'a mut [Disk],
    random: &'a mut fastrand::Rng,
    /// Operations until the crash.
    left: Option<u64>,
}

impl Hands<'_> {
    fn run(
        &mut self,
        directory: usize,
        dir: &str,
        op: &FileOp,
    ) -> Result<tidemill::effect::FileResult, Failed> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Failed::Crashed)?;
        }
        let disk = &mut self.disks[directory];
        let mark = disk.mark();
        Ok(disk.execute(&mut dir.to_string(), op, &Bytes::new(), mark, self.random))
    }
}

/// Starts the broker of a machine. `crash_after` operations it dies.
pub fn boot(
    plan: &Plan,
    number: usize,
    machine: &mut Machine,
    boot_id: &str,
    crash_after: Option<u64>,
    random: &mut fastrand::Rng,
) -> Result<Booted, Failed> {
    let config = config(plan, number);
    let (synced, disks_lost) = (&machine.synced, machine.disks_lost);
    let mut hands = Hands { disks: &mut machine.disks, random, left: crash_after };
    let (mut facts, mut stored, mut found) = (Vec::new(), Vec::new(), FoundReplicas::new());
    let mut states = Vec::new();
    let at = number;
    for number in 0..hands.disks.len() {
        let drawn = Uuid::from_u128(hands.random.u128(..));
        let id = if plan.linked { membership::directory_id(plan, at, number, disks_lost) } else { drawn };
        let state = open_directory(&mut hands, number, &config, (boot_id, id))?;
        remove_retired(&mut hands, number, &state)?;
        facts.push(facts_of(&state));
        find_replicas(&mut hands, number, &state, synced, &mut found)?;
        stored.push(StoredOffsets {
            recovery_points: state.recovery_points.clone(),
            log_starts: state.log_starts.clone(),
            high_watermarks: state.high_watermarks.clone(),
        });
        states.push(state);
    }
    let directories: Vec<_> = states.iter().map(|state| state.directory_id).collect();
    let previous_epoch = kept_epoch(states.iter().map(Some));
    let recovered = recover_controller(&mut hands)?;
    let place = membership::quorum_place(plan, number, directories[0]);
    let known = (place.raft_id, recovered.stored.clone());
    let controller = ControllerConfig {
        raft_id: place.raft_id,
        voters: place.voters.clone(),
        cluster_id: CLUSTER_ID.into(),
        node: Arc::new(config.clone()),
        snapshot_entries: 20,
        snapshot_bytes: 4096,
        seed: hands.random.u64(..),
    };
    let start = ControlStart {
        controller: Controller::new(controller, recovered).map_err(Failed::Refused)?,
        placement: ShardPlacement::new(config.node_id, plan.shards, plan.directories as u16),
        found,
        incarnation: Uuid::from_u128(hands.random.u128(..)),
        listeners: vec![membership::endpoint(plan, number)],
        metadata_directory: 0,
        checkpoints: Checkpoints::new(stored, (boot_id.to_string(), previous_epoch), &config),
    };
    let life = Life { incarnation: start.incarnation, directories, previous_epoch };
    let peers = membership::peers(plan, number, &place, life);
    let seed = hands.random.u64(..);
    let node = Arc::new(Node { cluster_id: CLUSTER_ID.into(), shard_count: plan.shards, seed, config });
    let view = Arc::new(ClusterView::before_any(Arc::new(node.config.clone())));
    let facts: Arc<[DirectoryFacts]> = Arc::from(facts);
    let mut control = Some(Box::new(ControlHost::new(start)));
    let shard = |id| {
        Shard::new(ShardId(id), Arc::clone(&node), Arc::clone(&view), Arc::clone(&facts), control.take())
    };
    let shards = (0..plan.shards).map(shard).map(|shard| with_rule(shard, plan)).collect();
    Ok(Booted { shards, peers, known })
}

/// A shard whose connections go to others by the plan's rule.
fn with_rule(mut shard: Shard, plan: &Plan) -> Shard {
    if let Some(rule) = plan.moves.filter(|_| plan.shards > 1) {
        shard.set_move_rule(rule);
    }
    shard
}

/// The real shell deletes what was retired beside the start, and may not come to its end.
fn remove_retired(hands: &mut Hands, number: usize, state: &DirectoryState) -> Result<(), Failed> {
    for (name, entry) in &state.entries {
        if matches!(entry, LogDirEntry::Deleted) && hands.random.bool() {
            drop(hands.run(number, name, &FileOp::DeleteDir)?);
        }
    }
    Ok(())
}

/// Which topic each replica belongs to, and whether what the checkpoint says of it can be so.
fn find_replicas(
    hands: &mut Hands,
    number: usize,
    state: &DirectoryState,
    synced: &BTreeMap<Place, i64>,
    found: &mut FoundReplicas,
) -> Result<(), Failed> {
    for (name, entry) in &state.entries {
        let LogDirEntry::Log { topic, partition } = entry else { continue };
        let topic_id = topic_id_of(hands, number, name)?;
        let key = (topic.clone(), *partition);
        let recovery_point = state.recovery_points.get(&key).copied().unwrap_or(0);
        let claimed = topic_id.map(|id| synced.get(&(id, *partition)).copied().unwrap_or(0));
        assert!(
            claimed.is_none_or(|claimed| recovery_point <= claimed),
            "checkpoint: {name} of {topic_id:?} is called synced up to {recovery_point}, and never was beyond {claimed:?}",
        );
        found.entry(key).or_default().push((number as u16, topic_id));
    }
    Ok(())
}

fn open_directory(
    hands: &mut Hands,
    number: usize,
    config: &NodeConfig,
    (boot_id, directory_id): (&str, Uuid),
) -> Result<DirectoryState, Failed> {
    let mut start = DirectoryStart::new(DirectoryPlan {
        cluster_id: CLUSTER_ID.into(),
        node_id: config.node_id,
        directory_id,
        boot_id: boot_id.to_string(),
        format: true,
    });
    let mut last = None;
    loop {
        match start.step(last.take()) {
            DirectoryStep::Op(op) => last = Some(hands.run(number, "", &op)?),
            DirectoryStep::Done(state) => return Ok(*state),
            DirectoryStep::Failed(error) => return Err(Failed::Refused(error.to_string())),
        }
    }
}

/// Which topic a replica's directory belongs to.
fn topic_id_of(hands: &mut Hands, number: usize, name: &str) -> Result<Option<Uuid>, Failed> {
    let file = Stem::Named("partition.metadata").into();
    match hands.run(number, name, &FileOp::Read { file, position: 0, length: 4096 })? {
        Ok(FileDone::Bytes(bytes)) => Ok(PartitionMetadata::parse(&bytes).ok().map(|found| found.topic_id)),
        _ => Ok(None),
    }
}

fn facts_of(state: &DirectoryState) -> DirectoryFacts {
    let mut facts = DirectoryFacts {
        clean: state.clean_shutdown,
        same_boot: state.same_boot,
        found: BTreeMap::new(),
        futures: Vec::new(),
    };
    for (name, entry) in &state.entries {
        if *entry == LogDirEntry::Future {
            facts.futures.push(name.clone());
        }
        let LogDirEntry::Log { topic, partition } = entry else { continue };
        let key = (topic.clone(), *partition);
        let replica = FoundReplica {
            recovery_point: state.recovery_points.get(&key).copied().unwrap_or(0),
            log_start_offset: state.log_starts.get(&key).copied().unwrap_or(0),
            high_watermark: state.high_watermarks.get(&key).copied().unwrap_or(0),
        };
        facts.found.insert(key, replica);
    }
    facts
}

fn recover_controller(hands: &mut Hands) -> Result<tidemill::controller::recovery::Recovered, Failed> {
    let mut recovery = Recovery::new();
    let mut last = None;
    loop {
        match recovery.step(last.take()) {
            Step::Op(op) => last = Some(hands.run(0, METADATA_DIRECTORY, &op)?),
            Step::Done(recovered) => return Ok(*recovered),
            Step::Failed(why) => return Err(Failed::Refused(why)),
        }
    }
}
