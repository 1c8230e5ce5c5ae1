//! What holds of the metadata whenever controllers have decided something, whoever shows it first.
//!
//! | invariant | source |
//! |---|---|
//! | nobody is eligible beside an ISR that is large enough and led | KIP-966 |
//! | of more than one in the ISR each may lead: registered, not fenced, not about to stop | KIP-841 |
//! | who leads may lead | |
//! | a broker's epoch rises with every life of it, and never falls | KIP-903 |
//! | who is in sync counts for the leader: it knows so, or has asked for it (its maximal ISR) | KIP-497 |

use std::collections::BTreeMap;

use tidemill::controller::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use tidemill::controller::{Image, PartitionImage, ResourceType};
use tidemill::partition::IsrChange;
use uuid::Uuid;

use crate::invariants::{Place, ReplicaView};

/// Leader epoch, partition epoch and some of the replicas.
type InEpoch = (i32, i32, Vec<i32>);

/// What was decided in one cluster, and what its leaders go by.
#[derive(Debug, Default)]
pub struct Decisions {
    /// The newest version that was looked at.
    version: u64,
    /// The last life of each broker: its epoch and its incarnation.
    lives: BTreeMap<i32, (i64, Uuid)>,
    /// The ISR of each partition.
    in_sync: BTreeMap<Place, InEpoch>,
    /// Whom each partition's last leader counted on: its maximal ISR.
    maximal: BTreeMap<Place, InEpoch>,
}

impl Decisions {
    /// Somebody shows the metadata. Only what is newer than all before is looked at.
    pub fn saw(&mut self, image: &Image) -> Result<(), String> {
        if image.version() <= self.version {
            return Ok(());
        }
        self.version = image.version();
        for broker in image.brokers() {
            let life = (broker.epoch, broker.incarnation);
            self.lives_on(broker.node_id, life)?;
        }
        for (topic, index, partition) in image.partitions() {
            let place = (topic, index);
            let in_sync = self.in_sync.entry(place).or_default();
            if (in_sync.1, &in_sync.2[..]) != (partition.partition_epoch, &partition.isr[..]) {
                *in_sync = (partition.leader_epoch, partition.partition_epoch, partition.isr.to_vec());
                self.leader_counts_on_isr(place)?;
            }
        }
        if image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION) == 0 {
            return Ok(());
        }
        for (topic, index, partition) in image.partitions() {
            is_decided(image, least_in_sync(image, topic), partition)
                .map_err(|why| format!("{why}: {topic}-{index} {partition:?} at version {}", self.version))?;
        }
        Ok(())
    }

    /// A replica shows whom it counts on, and what it has asked for and got no answer to.
    pub fn counted(&mut self, view: &ReplicaView, change: Option<&IsrChange>) -> Result<(), String> {
        let known = self.maximal.get(&view.place).map_or(-1, |(epoch, ..)| *epoch);
        if !view.leads() || view.leader_epoch < known {
            return Ok(());
        }
        let asked = change.into_iter().flat_map(|change| change.isr.iter().map(|(node, _)| *node));
        let maximal = view.isr.iter().copied().chain(asked).collect();
        self.maximal.insert(view.place, (view.leader_epoch, view.partition_epoch, maximal));
        self.leader_counts_on_isr(view.place)
    }

    fn leader_counts_on_isr(&self, place: Place) -> Result<(), String> {
        let (Some((epoch, decided, in_sync)), Some((leads_in, knows, maximal))) =
            (self.in_sync.get(&place), self.maximal.get(&place))
        else {
            return Ok(());
        };
        // The leader may show what it has heard before anybody else shows the decision.
        let is_of_leader = epoch == leads_in && decided >= knows;
        match in_sync.iter().find(|node| is_of_leader && !maximal.contains(node)) {
            Some(node) => Err(format!(
                "not counted on: {node} is in sync for {place:?} in epoch {epoch}, and its leader counts on {maximal:?}"
            )),
            None => Ok(()),
        }
    }

    fn lives_on(&mut self, node_id: i32, life: (i64, Uuid)) -> Result<(), String> {
        match self.lives.insert(node_id, life) {
            Some(before) if before != life && before.0 >= life.0 => {
                Err(format!("broker {node_id} has epoch {} after {}", life.0, before.0))
            }
            _ => Ok(()),
        }
    }
}

fn least_in_sync(image: &Image, topic: Uuid) -> usize {
    let key = "min.insync.replicas";
    let name = image.topic_by_id(topic).map_or("", |topic| &*topic.name);
    let own = image.config(ResourceType::Topic, name, key);
    let least = own.or_else(|| image.config(ResourceType::Broker, "", key));
    least.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn is_decided(image: &Image, least_in_sync: usize, one: &PartitionImage) -> Result<(), &'static str> {
    let is_led = one.leader != -1;
    if is_led && !one.elr.is_empty() && one.isr.len() >= least_in_sync.min(one.replicas.len()) {
        return Err("eligible beside enough in sync");
    }
    if one.isr.len() > 1 && !one.isr.iter().all(|node| image.is_active(*node)) {
        return Err("in sync without serving");
    }
    if is_led && !image.is_active(one.leader) {
        return Err("led by a broker that does not serve");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidemill::partition::LeaderRecovery;

    use super::*;
    use crate::invariants::VIEW;

    #[test]
    fn who_is_in_sync_counts_for_the_leader() {
        let decided = |in_sync: &[i32]| {
            let in_sync = (VIEW.leader_epoch, VIEW.partition_epoch + 1, in_sync.to_vec());
            Decisions { in_sync: [(VIEW.place, in_sync)].into(), ..Decisions::default() }
        };
        let joins = IsrChange {
            leader_epoch: VIEW.leader_epoch,
            partition_epoch: VIEW.partition_epoch,
            isr: [(1, 5), (2, 6), (3, 7)].into_iter().collect(),
            recovery: LeaderRecovery::Recovered,
        };
        assert_eq!(decided(&[1, 2]).counted(&VIEW, None), Ok(()));
        assert_eq!(
            decided(&[1]).counted(&VIEW, None),
            Ok(()),
            "one was put out, and the leader has not heard"
        );
        assert_eq!(decided(&[1, 2, 3]).counted(&VIEW, Some(&joins)), Ok(()));
        assert!(decided(&[1, 2, 3]).counted(&VIEW, None).is_err());
        let of_old = ReplicaView { leader_epoch: VIEW.leader_epoch - 1, ..VIEW };
        assert_eq!(decided(&[1, 2, 3]).counted(&of_old, None), Ok(()), "others are led by another");
        let follows = ReplicaView { node_id: 2, ..VIEW };
        assert_eq!(decided(&[1, 2, 3]).counted(&follows, None), Ok(()));
    }

    #[test]
    fn the_epochs_of_a_brokers_lives_rise() {
        let mut decisions = Decisions::default();
        let life = |epoch, incarnation| (epoch, Uuid::from_u128(incarnation));
        assert_eq!(decisions.lives_on(1, life(5, 1)), Ok(()));
        assert_eq!(decisions.lives_on(1, life(5, 1)), Ok(()), "the same life");
        assert_eq!(decisions.lives_on(2, life(3, 7)), Ok(()), "another broker");
        assert_eq!(decisions.lives_on(1, life(9, 2)), Ok(()));
        assert!(decisions.lives_on(1, life(9, 3)).is_err(), "a new life with an old epoch");
        assert!(decisions.lives_on(1, life(8, 3)).is_err());
    }
}
