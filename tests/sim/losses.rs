//! Machines of a cluster that lose what they had, one at a time: what was not synced, or all that was on their disks.
//! What is acknowledged is on two of them, so nothing is gone as long as nobody else loses anything before every
//! replica is in sync again.

use tidemill::controller::Image;
use tidemill::controller::quorum::raft_id_of;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::membership;
use crate::node::Node;
use crate::world::World;

impl World {
    /// Whether a process may die now. Who starts again after that is not counted on before it has caught up, as if it
    /// had lost something too, so nobody dies beside one that has.
    pub fn may_crash(&mut self, machine: usize) -> bool {
        if self.in_doubt.is_some() && self.is_whole() {
            self.in_doubt = None;
        }
        self.in_doubt.is_none_or(|other| other == machine) || self.is_calm()
    }

    /// Whether a machine may lose what is not synced now.
    pub fn may_lose(&self, machine: usize) -> bool {
        !self.plan.cluster.loses_one_at_a_time
            || self.in_doubt == Some(machine)
            || !self.is_calm() && self.in_doubt.is_none() && self.is_whole()
    }

    /// A machine has lost something.
    pub fn lost_something(&mut self, machine: usize) {
        if self.plan.cluster.loses_one_at_a_time {
            self.in_doubt = Some(machine);
            self.hits.count(Fault::UnsyncedPowerCut);
        }
    }

    /// Whether every process runs and is known, every replica is in sync, and every voter is there with its disk.
    fn is_whole(&self) -> bool {
        let nodes: Vec<&Node> = self.machines.iter().filter_map(|machine| machine.node.as_ref()).collect();
        let Some(image) = self.newest_image() else { return false };
        let is_known = |node: &&Node| {
            let broker = image.broker(self.plan.node_id_of(node.machine));
            !node.stopping && node.is_registered(broker) && broker.is_some_and(|broker| broker.is_active())
        };
        let in_sync = image.partitions().all(|(_, _, partition)| {
            let is_still = !partition.is_reassigning() && partition.leader >= 0;
            is_still && partition.isr.len() == partition.replicas.len()
        });
        nodes.len() == self.machines.len()
            && nodes.iter().all(is_known)
            && in_sync
            && self.voters_are_there(image)
    }

    /// The newest metadata that anybody shows.
    pub fn newest_image(&self) -> Option<&Image> {
        let nodes = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let images = nodes.map(|node| &*node.hosts[0].core.view().image);
        images.max_by_key(|image| image.version())
    }

    /// Whether nobody votes but on the disks that the machines have. Voters of the configuration always do.
    fn voters_are_there(&self, image: &Image) -> bool {
        let Some(members) = image.quorum().filter(|_| self.plan.cluster.has_moving_voters) else {
            return true;
        };
        let disks: Vec<u64> = self.disk_ids.iter().map(|disk| raft_id_of(*disk)).collect();
        members.voters().count() >= 3 && members.voters().all(|voter| disks.contains(&voter.raft_id))
    }

    /// The machine gets new disks, if it may: a voter of the configuration keeps its promises only with its own.
    pub fn lose_disk(&mut self, machine: usize) {
        let plan = &self.plan;
        if plan.linked && !plan.cluster.has_moving_voters && machine < plan.cluster.voters {
            return;
        }
        let at = &mut self.machines[machine];
        at.disks = at.disks.iter().map(|_| Disk::default()).collect();
        at.disks_lost += 1;
        at.synced.clear();
        let (cluster, lost) = (at.cluster, at.disks_lost);
        self.disk_ids[machine] = membership::directory_id(&self.plan, machine, 0, lost);
        self.hits.count(Fault::LostDisk);
        if !self.plan.linked {
            let kept = self.forget_disk(machine);
            self.histories[cluster].crashed(&kept, true);
        }
        self.note(machine, 33, [0, 0], || "its disks are lost".into());
    }
}
