//! What brokers have in the end and are not to have: replicas of topics that were deleted, or that were moved away. A
//! directory that was renamed, to be deleted or to be kept for an operator, is nobody's replica any more. One that a
//! start found keeps its name as long as nobody needs that (`docs/STORAGE.md`), where its topic is gone: the process
//! before died when it knew so and had not renamed it yet.

use bytes::Bytes;
use tidemill::controller::Image;
use tidemill::controller::storage::METADATA_DIRECTORY;
use tidemill::effect::Stem;
use tidemill::log::PartitionMetadata;
use tidemill::log::directory::{LogDirEntry, parse_directory_name};

use crate::watch::demand;
use crate::world::World;

impl World {
    /// Nothing happens any more: each log directory has replicas that the metadata knows to be there, and no others.
    pub fn check_leftovers(&mut self) {
        let Some(image) = self.newest_image().cloned() else { return };
        for (at, machine) in self.machines.iter_mut().enumerate() {
            let node_id = self.plan.node_id_of(at);
            let found_at_start = &machine.found_at_start;
            for (number, disk) in machine.disks.iter_mut().enumerate() {
                for name in disk.directories() {
                    let LogDirEntry::Log { topic, partition } = parse_directory_name(&name) else { continue };
                    if name == METADATA_DIRECTORY {
                        continue;
                    }
                    let file = Stem::Named("partition.metadata").into();
                    let found = disk.read(&name, file, 0, 4096).ok();
                    let was_there = found_at_start.contains(&(number, name));
                    demand(is_to_be_there(&image, node_id, (&topic, partition), found, was_there));
                }
            }
        }
    }
}

/// Whether a broker is to have a directory of that name with this in its `partition.metadata`.
fn is_to_be_there(
    image: &Image,
    node_id: i32,
    (name, index): (&str, i32),
    found: Option<Bytes>,
    was_there: bool,
) -> Result<(), String> {
    let found = found.and_then(|bytes| Some(PartitionMetadata::parse(&bytes).ok()?.topic_id));
    let topic = image.topic(name);
    let partition = topic.and_then(|topic| topic.partitions.get(index as usize));
    let is_here = partition.is_some_and(|partition| partition.replicas.contains(&node_id));
    let is_its = found.is_none_or(|id| topic.is_some_and(|topic| topic.id == id));
    let may_be = if is_its { is_here } else { was_there };
    if may_be {
        return Ok(());
    }
    let id = topic.map(|topic| topic.id);
    Err(format!(
        "left over: {node_id} has {name}-{index} of topic {found:?}, and the metadata has {id:?} with {partition:?}"
    ))
}
