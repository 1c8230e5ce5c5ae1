//! Who holds what: which brokers a new partition's replicas go to, and which shard and log directory of this node
//! own a replica.
//!
//! The first is cluster metadata and follows Kafka's StripedReplicaPlacer: leaders go round the unfenced brokers,
//! and replicas spread over racks before anything else. Fenced brokers only follow, and only where their rack has
//! fewer replicas than those with unfenced brokers left. A broker that is about to stop counts as fenced.
//! The second is the node's own business ([`ShardPlacement`]): it never enters the metadata log, and is made anew at
//! every start from the Image and from where partitions are found on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;

use super::image::{Image, ImageDelta};
use super::record::NodeIds;

/// Places replicas of new partitions, from one random stream.
pub(super) struct BrokerPlacer<'a> {
    rng: &'a mut fastrand::Rng,
    /// Unfenced brokers by rack; none in a rack with fenced ones alone.
    racks: Vec<Vec<i32>>,
    /// Fenced brokers, each with the number of its rack.
    fenced: Vec<(i32, usize)>,
    /// Unfenced brokers, each with the number of its rack, with racks alternating; leaders go round it.
    ring: Vec<(i32, usize)>,
    at: usize,
    left_in_round: usize,
}

impl<'a> BrokerPlacer<'a> {
    pub(super) fn new(image: &Image, rng: &'a mut fastrand::Rng) -> Self {
        let mut by_name: BTreeMap<Option<&str>, (Vec<i32>, Vec<i32>)> = BTreeMap::new();
        for broker in image.brokers() {
            let (unfenced, fenced) = by_name.entry(broker.rack.as_deref()).or_default();
            if broker.is_active() { unfenced } else { fenced }.push(broker.node_id);
        }
        let (racks, fenced): (Vec<_>, Vec<_>) = by_name.into_values().unzip();
        let numbered = fenced.into_iter().enumerate();
        let fenced = numbered.flat_map(|(rack, nodes)| nodes.into_iter().map(move |node| (node, rack)));
        let fenced = fenced.collect();
        Self { rng, racks, fenced, ring: Vec::new(), at: 0, left_in_round: 0 }
    }

    /// The replicas of the next partition, its preferred leader first; Kafka's words if there cannot be so many.
    pub(super) fn place(&mut self, replication_factor: usize) -> Result<NodeIds, String> {
        let unfenced: usize = self.racks.iter().map(Vec::len).sum();
        let registered = unfenced + self.fenced.len();
        if unfenced == 0 {
            return Err("All brokers are currently fenced.".into());
        }
        if replication_factor > registered {
            return Err(format!(
                "The target replication factor of {replication_factor} cannot be reached because only {registered} \
                 broker(s) are registered or some brokers have all their log directories cordoned."
            ));
        }
        if self.left_in_round == 0 {
            self.shuffle();
            self.left_in_round = unfenced;
        }
        self.left_in_round -= 1;
        let replicas = self.spread(replication_factor);
        self.at = (self.at + 1) % unfenced;
        Ok(replicas)
    }

    /// The broker whose turn it is, and after it those that follow it in the ring and then the fenced ones, the racks
    /// with the fewest replicas so far first.
    fn spread(&self, count: usize) -> NodeIds {
        let turn = self.ring.iter().cycle().skip(self.at).take(self.ring.len());
        let mut left: Vec<(i32, usize)> = turn.chain(&self.fenced).copied().collect();
        let mut taken = vec![0usize; self.racks.len()];
        let mut replicas = NodeIds::new();
        while replicas.len() < count {
            let of = |rack: usize| taken.get(rack).copied().unwrap_or_default();
            let next = left.iter().enumerate().min_by_key(|(_, (_, rack))| of(*rack)).map(|(at, _)| at);
            let Some(at) = next else { break };
            let (node, rack) = left.remove(at);
            replicas.push(node);
            taken.iter_mut().skip(rack).take(1).for_each(|taken| *taken += 1);
        }
        replicas
    }

    /// A new order within each rack for each round, so that the same brokers do not follow each other for ever.
    fn shuffle(&mut self) {
        let first_time = self.ring.is_empty();
        for rack in &mut self.racks {
            self.rng.shuffle(rack);
        }
        self.rng.shuffle(&mut self.fenced);
        let longest = self.racks.iter().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|turn| {
            let racks = self.racks.iter().enumerate();
            racks.filter_map(move |(rack, nodes)| Some((*nodes.get(turn)?, rack)))
        });
        self.ring = turns.collect();
        if first_time {
            self.at = self.rng.usize(..self.ring.len().max(1));
        }
    }
}

/// One shard of this node, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// From this many shards on, shard 0 owns no partitions: it has the controller and the node's own work.
const SHARD_0_RESTS_FROM: u16 = 8;

/// Where a replica of this node lives: its shard, and its log directory as an index into `log.dirs`.
type Place = (ShardId, u16);

/// Partition → shard and log directory, immutable; cloned and published with the Image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardMap {
    topics: OrdMap<Uuid, Arc<[Option<Place>]>>,
}

impl ShardMap {
    /// The owner of a partition, if this node holds a replica of it.
    pub fn shard_of(&self, topic_id: Uuid, partition: i32) -> Option<Place> {
        *self.topics.get(&topic_id)?.get(usize::try_from(partition).ok()?)?
    }

    /// Whether another map has the same owners for a topic's partitions.
    pub fn is_same_for(&self, topic_id: Uuid, other: &Self) -> bool {
        self.topics.get(&topic_id) == other.topics.get(&topic_id)
    }

    /// Every replica of this node: topic, partition, shard, log directory; by topic id and index.
    pub fn replicas(&self) -> impl Iterator<Item = (Uuid, i32, ShardId, u16)> {
        self.topics.iter().flat_map(|(id, places)| {
            (0..)
                .zip(places.iter())
                .filter_map(|(index, place)| place.map(|(shard, dir)| (*id, index, shard, dir)))
        })
    }
}

/// Decides and remembers which shard and log directory own each replica of this node.
///
/// New partitions of a topic go round the shards, beginning with the least loaded one, and each to the log directory
/// with the fewest partitions. Its shard stays while the process runs; its log directory may be
/// changed ([`Self::moved`]).
#[derive(Clone, Debug)]
pub struct ShardPlacement {
    node_id: i32,
    /// Replicas per shard; shards that rest are not among the eligible ones.
    shard_loads: Vec<u32>,
    eligible_first: usize,
    directory_loads: Vec<u32>,
    /// Log directories that failed; nothing new is put there.
    failed: BTreeSet<u16>,
    map: ShardMap,
}

impl ShardPlacement {
    /// A node with that many shards and log directories, at least one each.
    pub fn new(node_id: i32, shards: u16, directories: u16) -> Self {
        assert!(shards > 0 && directories > 0, "a node has a shard and a log directory");
        Self {
            node_id,
            shard_loads: vec![0; usize::from(shards)],
            eligible_first: usize::from(shards >= SHARD_0_RESTS_FROM),
            directory_loads: vec![0; usize::from(directories)],
            failed: BTreeSet::new(),
            map: ShardMap::default(),
        }
    }

    /// A log directory failed: new replicas go elsewhere, as long as there is another one.
    pub fn fail_directory(&mut self, directory: u16) {
        self.failed.insert(directory);
    }

    /// Follows the Image to its next version. `found` says in which log directory a replica was found at start: it
    /// stays there.
    pub fn assign(
        &mut self,
        image: &Image,
        delta: &ImageDelta,
        found: impl Fn(Uuid, i32) -> Option<u16>,
    ) -> Arc<ShardMap> {
        for id in delta.topics_removed.keys() {
            let places = self.map.topics.remove(id);
            places.iter().flat_map(|places| places.iter()).flatten().for_each(|place| self.give_back(*place));
        }
        for id in &delta.topics_changed {
            self.assign_topic(image, *id, &found);
        }
        Arc::new(self.map.clone())
    }

    /// A replica is in another log directory now; its shard stays. The next map says so.
    pub fn moved(&mut self, topic_id: Uuid, partition: i32, directory: u16) {
        let Some((shard, from)) = self.shard_of(topic_id, partition) else { return };
        let Some(places) = self.map.topics.get(&topic_id) else { return };
        let mut places = places.to_vec();
        let place = places.get_mut(places_index(partition)).expect("it has a place");
        *place = Some((shard, directory));
        self.map.topics.insert(topic_id, places.into());
        self.count(usize::from(shard.0), usize::from(from), -1);
        self.count(usize::from(shard.0), usize::from(directory), 1);
    }

    /// The owner of a partition as last assigned.
    pub fn shard_of(&self, topic_id: Uuid, partition: i32) -> Option<Place> {
        self.map.shard_of(topic_id, partition)
    }

    /// Replicas on each shard, by shard.
    pub fn shard_loads(&self) -> &[u32] {
        &self.shard_loads
    }

    fn assign_topic(&mut self, image: &Image, id: Uuid, found: &impl Fn(Uuid, i32) -> Option<u16>) {
        let Some(topic) = image.topic_by_id(id) else { return };
        let before = self.map.topics.get(&id).cloned();
        let mut turn = None;
        let mut places = Vec::with_capacity(topic.partitions.len());
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            let had = before.as_ref().and_then(|places| places.get(places_index(index)).copied().flatten());
            let here = partition.replicas.contains(&self.node_id);
            places.push(match (had, here) {
                (Some(place), true) => Some(place),
                (None, true) => {
                    let at = *turn.get_or_insert_with(|| self.least_loaded_shard());
                    turn = Some(self.next_shard(at));
                    Some(self.take(at, found(id, index)))
                }
                (Some(place), false) => {
                    self.give_back(place);
                    None
                }
                (None, false) => None,
            });
        }
        if before.as_deref() != Some(&*places) {
            self.map.topics.insert(id, places.into());
        }
    }

    fn least_loaded_shard(&self) -> usize {
        let eligible = self.shard_loads.iter().enumerate().skip(self.eligible_first);
        eligible.min_by_key(|(_, load)| **load).map_or(0, |(shard, _)| shard)
    }

    fn next_shard(&self, at: usize) -> usize {
        if at + 1 < self.shard_loads.len() { at + 1 } else { self.eligible_first }
    }

    fn take(&mut self, shard: usize, found: Option<u16>) -> Place {
        let fewest = || {
            let loads = (0..).zip(&self.directory_loads);
            let fewest = loads.min_by_key(|(number, load)| (self.failed.contains(number), **load));
            fewest.map_or(0, |(directory, _)| usize::from(directory))
        };
        let directory =
            found.map(usize::from).filter(|at| *at < self.directory_loads.len()).unwrap_or_else(fewest);
        self.count(shard, directory, 1);
        (ShardId(shard as u16), directory as u16)
    }

    fn give_back(&mut self, (shard, directory): Place) {
        self.count(usize::from(shard.0), usize::from(directory), -1);
    }

    fn count(&mut self, shard: usize, directory: usize, change: i32) {
        let loads = [self.shard_loads.get_mut(shard), self.directory_loads.get_mut(directory)];
        for load in loads.into_iter().flatten() {
            *load = load.checked_add_signed(change).expect("a replica is given back once");
        }
    }
}

fn places_index(index: i32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
