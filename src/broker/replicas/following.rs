//! What the replicas of a shard want of other brokers, and what they are told: nothing yet, since none of them
//! follows.

use std::collections::{BTreeMap, BTreeSet};

use super::Replicas;
use crate::broker::peers::fetcher::ReplicaKey;
use crate::effect::Now;
use crate::partition::{FetchPosition, FetchedPart, IsrChange, IsrState};
use crate::wire::ErrorCode;

impl Replicas {
    /// The replicas whose [`Self::fetch_position`] has changed since the last call.
    pub fn take_following(&mut self) -> BTreeSet<ReplicaKey> {
        BTreeSet::new()
    }

    /// The changes of ISRs that leaders of this shard have asked for since the last call.
    pub fn take_isr_changes(&mut self) -> BTreeMap<ReplicaKey, IsrChange> {
        BTreeMap::new()
    }

    /// What a replica wants next of its leader; nothing where it is not here, or not now.
    pub fn fetch_position(&self, _: ReplicaKey) -> Option<FetchPosition> {
        None
    }

    /// A part of the answer to a fetch that was asked with this position.
    pub fn fetched(&mut self, _: Now, _: ReplicaKey, _: &FetchPosition, _: FetchedPart) {}

    /// The controller's word on a change of an ISR.
    pub fn isr_altered(&mut self, _: Now, _: ReplicaKey, _: &IsrChange, _: Result<IsrState, ErrorCode>) {}
}
