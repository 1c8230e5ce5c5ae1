//! Looks at every replica and at the metadata after each turn, and holds them against the invariants of a cluster.

use std::collections::BTreeMap;

use tidemill::broker::Owner;
use tidemill::controller::{Image, LeaderRecovery, ResourceType};
use tidemill::effect::{FileName, Stem};
use tidemill::log::Log;
use tidemill::log::batch::BatchInfo;
use tidemill::partition::Partition;
use uuid::Uuid;

use crate::decisions::Decisions;
use crate::disk::Disk;
use crate::faults::Fault;
use crate::history::Place;
use crate::images::Images;
use crate::invariants::{
    self, BatchMark, Committed, Leaders, PartitionEpochs, ReplicaView, Terms, Watermarks,
};
use crate::node::{Node, Owned};
use crate::promises::Promises;
use crate::tuner::RETENTION_BYTES_MIN;
use crate::world::{World, at_machine};

/// What was seen of one cluster.
#[derive(Debug, Default)]
pub struct Watch {
    leaders: Leaders,
    epochs: PartitionEpochs,
    /// What controllers have promised each other.
    pub promises: Promises,
    watermarks: Watermarks,
    committed: Committed,
    terms: Terms,
    images: Images,
    decisions: Decisions,
    /// How far the log of a replica has been compared: by machine, process and place.
    compared: BTreeMap<(usize, u64, Place), i64>,
    /// The last version of the metadata that each shard showed, by machine and shard, and its process.
    versions: BTreeMap<(usize, usize), (u64, u64)>,
    /// How far each replica is written, or durable where the power failed, by machine.
    kept: BTreeMap<(usize, Place), Kept>,
}

/// What is looked at of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    topic_id: Uuid,
    first_segment: i64,
    durable_end: i64,
    written_end: i64,
    is_stopping: bool,
    /// The rest is for the invariants of a cluster.
    replica: ShownReplica,
}

/// Epochs, watermark and end of a replica, and how many are in the ISR that it has asked for.
type ShownReplica = ((i32, i32), i64, i64, Option<usize>);

/// A replica's high watermark, and its batches.
type Held = (i64, Vec<BatchMark>);

/// What is left of a replica.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    durable_end: i64,
    end: i64,
}

impl World {
    /// Checks what a shard shows after its turn.
    pub fn watch_shard(&mut self, node: &Node, shard: usize) {
        let host = &node.hosts[shard];
        for (owner, owned) in &host.owners {
            let Owner::Replica(slot) = owner else { continue };
            let Some(partition) = host.core.replicas().partition(*slot) else { continue };
            let (assignment, log) = (partition.assignment(), partition.log());
            partition.check_invariants();
            log.check_invariants();
            let epochs = (assignment.leader_epoch, assignment.partition_epoch);
            let asks_for = partition.isr_change().map(|change| change.isr.len());
            let shown = Shown {
                topic_id: log.topic_id(),
                first_segment: log.first_segment_base_offset(),
                durable_end: log.durable_end(),
                written_end: log.written_end(),
                is_stopping: node.stopping,
                replica: (epochs, partition.high_watermark(), log.log_end(), asks_for),
            };
            let before = owned.shown.replace(Some(shown));
            if before != Some(shown) {
                self.watch_start(node, owned, log);
                let of_replica = |shown: Shown| (shown.topic_id, shown.replica);
                let is_known = before.map(of_replica) == Some(of_replica(shown));
                self.watch_replica(node, shard, partition, owned, is_known);
            }
        }
        self.watch_metadata(node, shard);
    }

    /// Where a replica's log starts, and how far it claims to be synced.
    fn watch_start(&mut self, node: &Node, owned: &Owned, log: &Log) {
        let machine = &mut self.machines[node.machine];
        let first = log.first_segment_base_offset();
        let place = (log.topic_id(), owned.partition);
        let (before, opened_at) =
            machine.firsts.get(&place).copied().unwrap_or((first, log.log_start_offset()));
        machine.firsts.insert(place, (first, opened_at));
        let shortens = &self.plan.shortens;
        // What an earlier process gave up is gone also where a power cut took what came behind it.
        // A follower that has to begin anew begins where its leader's log does.
        if before < first && first > opened_at && shortens.only_by_size() && !self.plan.linked {
            let left = log.size_bytes();
            assert!(left >= RETENTION_BYTES_MIN, "{} keeps no more than {left} bytes", owned.name);
        }
        let synced = machine.synced.entry(place).or_default();
        // A clean stop makes everything durable and closes the log in one step.
        *synced = if node.stopping { log.written_end() } else { log.durable_end() }.max(*synced);
    }

    /// Looks at one replica; at its disk only, where all else is known already.
    fn watch_replica(
        &mut self,
        node: &Node,
        shard: usize,
        partition: &Partition,
        owned: &Owned,
        is_known: bool,
    ) {
        let (assignment, log) = (partition.assignment(), partition.log());
        let image = &node.hosts[shard].core.view().image;
        let machine = &mut self.machines[node.machine];
        let watch = &mut self.watches[machine.cluster];
        let place = (log.topic_id(), owned.partition);
        let decided = image.partition(place.0, place.1);
        let decided = decided.filter(|decided| decided.partition_epoch == assignment.partition_epoch);
        let view = ReplicaView {
            place,
            machine: node.machine,
            // A replica that was moved away and comes back begins anew.
            incarnation: node.incarnation << 32 | owned.number,
            node_id: self.plan.node_id_of(node.machine),
            leader: assignment.leader,
            leader_epoch: assignment.leader_epoch,
            partition_epoch: assignment.partition_epoch,
            replicas: &assignment.replicas,
            isr: &assignment.isr,
            eligible: decided.map_or(&[], |decided| &decided.elr),
            log_start: log.log_start_offset(),
            high_watermark: partition.high_watermark(),
            log_end: log.log_end(),
        };
        let kept = Kept { durable_end: log.durable_end(), end: log.written_end() };
        watch.kept.insert((node.machine, view.place), kept);
        if is_known {
            return;
        }
        let ends = [view.high_watermark as u64, view.log_end as u64];
        self.trace.note(self.now_us, at_machine(node.machine, 8), ends, || {
            format!("machine {}: {view:?}", node.machine)
        });
        if let Some(own) = node.registers_as {
            let known = image.broker(view.node_id);
            demand(invariants::is_registered(&view, known.is_some_and(|known| known.incarnation == own)));
        }
        demand(invariants::isr_is_right(&view));
        demand(watch.leaders.saw(&view));
        demand(watch.epochs.saw(&view));
        demand(watch.decisions.counted(&view, partition.isr_change()));
        let is_unclean = elects_uncleanly(image, place.0);
        // Who follows a leader of less goes back to that.
        if !is_unclean || view.leads() {
            demand(watch.watermarks.saw(&view));
        }
        let recovers = decided.is_some_and(|decided| decided.recovery == LeaderRecovery::Recovering);
        match is_unclean {
            true if recovers && view.leads() => self.hits.count(Fault::UncleanElection),
            true => {}
            false => self.watch_committed(node, image, (log, owned), &view),
        }
    }

    /// Holds a replica, and what is on its disk, against what was committed.
    fn watch_committed(
        &mut self,
        node: &Node,
        image: &Image,
        (log, owned): (&Log, &Owned),
        view: &ReplicaView,
    ) {
        let machine = &mut self.machines[node.machine];
        let watch = &mut self.watches[machine.cluster];
        // One that lost what it had stands in the ISR of old until its new life is registered.
        let is_known = node.is_registered(image.broker(view.node_id));
        let is_as_told = is_known || self.in_doubt != Some(node.machine);
        let of_old = ReplicaView { isr: &[], eligible: &[], ..*view };
        demand(watch.committed.is_on(if is_as_told { view } else { &of_old }));
        let compared = watch.compared.entry((node.machine, view.incarnation, view.place)).or_insert(0);
        // What a log that begins anew still has is served to nobody.
        if *compared < view.high_watermark && !log.is_truncating() {
            let disk = &mut machine.disks[owned.directory];
            let from = (*compared).max(log.first_segment_base_offset());
            let marks = marks(disk, &owned.name, log, from, view.high_watermark);
            demand(watch.committed.reached(view, &marks));
            *compared = view.high_watermark;
        }
    }

    fn watch_metadata(&mut self, node: &Node, shard: usize) {
        let node_id = self.plan.node_id_of(node.machine);
        let core = &node.hosts[shard].core;
        let watch = &mut self.watches[self.machines[node.machine].cluster];
        let image = &core.view().image;
        let version = (node.incarnation, image.version());
        if watch.versions.insert((node.machine, shard), version) != Some(version) {
            demand(watch.images.saw(image));
            demand(watch.decisions.saw(image));
        }
        if let Some(controller) = core.controller() {
            demand(watch.terms.saw(controller.term(), controller.is_active().then_some(node_id)));
        }
    }

    /// The power failed on a machine: what no replica of its cluster has any more may be gone. How far each place is
    /// kept.
    pub fn forget_unsynced(&mut self, machine: usize) -> Vec<(Place, i64)> {
        self.left_of(machine, |kept| kept.end = kept.durable_end)
    }

    /// A machine lost its disks. How far each place is kept.
    pub fn forget_disk(&mut self, machine: usize) -> Vec<(Place, i64)> {
        self.left_of(machine, |kept| *kept = Kept::default())
    }

    /// Something happened to every replica of a machine; what is left of each place.
    fn left_of(&mut self, machine: usize, happened: impl Fn(&mut Kept)) -> Vec<(Place, i64)> {
        let watch = &mut self.watches[self.machines[machine].cluster];
        let mut floors: BTreeMap<Place, i64> = BTreeMap::new();
        for ((at, place), kept) in &mut watch.kept {
            if *at == machine {
                happened(kept);
            }
            let floor = floors.entry(*place).or_default();
            *floor = (*floor).max(kept.end);
        }
        watch.committed.forget_above(|place| floors.get(place).copied().unwrap_or(0));
        floors.into_iter().collect()
    }

    /// Nothing happens any more: every replica of a partition holds the same below its watermark.
    pub fn compare_replicas(&mut self) {
        let mut logs: BTreeMap<(usize, Place), Vec<Held>> = BTreeMap::new();
        for machine in &mut self.machines {
            let Some(node) = &machine.node else { continue };
            for host in &node.hosts {
                for (owner, owned) in &host.owners {
                    let Owner::Replica(slot) = owner else { continue };
                    let Some(partition) = host.core.replicas().partition(*slot) else { continue };
                    let (log, end) = (partition.log(), partition.high_watermark());
                    let marks = marks(&mut machine.disks[owned.directory], &owned.name, log, 0, end);
                    let place = (log.topic_id(), owned.partition);
                    logs.entry((machine.cluster, place)).or_default().push((end, marks));
                }
            }
        }
        for replicas in logs.values() {
            for pair in replicas.windows(2) {
                let [(one_end, one), (other_end, other)] = pair else { continue };
                demand(invariants::prefixes_are_equal(one, other, *one_end.min(other_end)));
            }
        }
    }
}

/// Whether a topic gives up what was committed rather than to have no leader.
fn elects_uncleanly(image: &Image, topic_id: Uuid) -> bool {
    let own = |name: &str| image.config(ResourceType::Topic, name, "unclean.leader.election.enable");
    image.topic_by_id(topic_id).is_some_and(|topic| own(&topic.name) == Some("true"))
}

/// Ends the run where something does not hold.
pub fn demand(holds: Result<(), String>) {
    if let Err(violated) = holds {
        panic!("{violated}");
    }
}

/// The batches of a log on its disk that hold offsets from `from` up to `to`, in order; those of segments that are gone
/// are not among them.
fn marks(disk: &mut Disk, dir: &str, log: &Log, from: i64, to: i64) -> Vec<BatchMark> {
    let mut marks = Vec::new();
    let first = log.segments().filter(|segment| segment.base_offset <= from).count().saturating_sub(1);
    for segment in log.segments().skip(first).take_while(|segment| segment.base_offset < to) {
        let file = FileName::from(Stem::Log(segment.base_offset));
        let Ok(mut bytes) = disk.read(dir, file, 0, segment.length_bytes) else { continue };
        while let Ok(info) = BatchInfo::parse(&bytes) {
            let last = info.last_offset();
            if last >= from && info.base_offset < to {
                let (base, epoch, crc) = (info.base_offset, info.leader_epoch, info.crc);
                marks.push(BatchMark { base, last, epoch, crc });
            }
            let length = (info.length_bytes as usize).min(bytes.len());
            drop(bytes.split_to(length));
        }
    }
    marks
}
