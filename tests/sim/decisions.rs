//! What holds of the metadata whenever controllers have decided something, whoever shows it first.
//!
//! | invariant | source |
//! |---|---|
//! | nobody is eligible beside an ISR that is large enough and led | KIP-966 |
//! | of more than one in the ISR each may lead: registered, not fenced, not about to stop | KIP-841 |
//! | who leads may lead | |
//! | a broker's epoch rises with every life of it, and never falls | KIP-903 |

use std::collections::BTreeMap;

use tidemill::controller::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use tidemill::controller::{Image, PartitionImage, ResourceType};
use uuid::Uuid;

/// Every life of the brokers of one cluster.
#[derive(Debug, Default)]
pub struct Decisions {
    /// The newest version that was looked at.
    version: u64,
    /// The last life of each broker: its epoch and its incarnation.
    lives: BTreeMap<i32, (i64, Uuid)>,
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
        if image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION) == 0 {
            return Ok(());
        }
        for (topic, index, partition) in image.partitions() {
            is_decided(image, least_in_sync(image, topic), partition)
                .map_err(|why| format!("{why}: {topic}-{index} {partition:?} at version {}", self.version))?;
        }
        Ok(())
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
    use super::*;

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
