//! A node's links to the active controller: one for each kind of thing that is said to it, so that none of them waits
//! behind another.

use std::sync::Arc;

use super::finder::VoterAddress;
use super::followers::LinkIds;
use super::link::{Link, LinkId, LinkRules, Loss};
use crate::broker::Output;

/// Requests that wait for their answers on one link.
const IN_FLIGHT_MAX: usize = 64;

/// All of them, to the same voter. `P` tells what a request was for.
#[derive(Debug)]
pub struct ControllerLinks<P> {
    /// The node id of the voter at their other end.
    pub node_id: i32,
    /// For what the node says of itself: joining, registration and heartbeats.
    pub life: Link<P>,
    /// For what is to be told of replicas.
    pub replicas: Link<P>,
    /// For what clients ask.
    pub clients: Link<P>,
}

impl<P> ControllerLinks<P> {
    /// Links that nobody wants yet. `seed` is for the length of their rests.
    pub fn new(to: &VoterAddress, ids: &mut LinkIds, seed: u64) -> Self {
        let mut link = || {
            let (host, rules) = (Arc::clone(&to.host), LinkRules::new(IN_FLIGHT_MAX));
            Link::new(ids.take(), host, to.port, rules, seed)
        };
        let (life, replicas, clients) = (link(), link(), link());
        Self { node_id: to.node_id, life, replicas, clients }
    }

    /// Each of them.
    pub fn all(&mut self) -> [&mut Link<P>; 3] {
        [&mut self.life, &mut self.replicas, &mut self.clients]
    }

    /// The one with that id.
    pub fn find(&mut self, id: LinkId) -> Option<&mut Link<P>> {
        self.all().into_iter().find(|link| link.id() == id)
    }

    /// Whether one has that id.
    pub fn owns(&self, id: LinkId) -> bool {
        [&self.life, &self.replicas, &self.clients].iter().any(|link| link.id() == id)
    }

    /// Somebody else is to be asked, or the same one elsewhere: what was asked and is not answered comes back.
    pub fn retarget(&mut self, to: &VoterAddress, outputs: &mut Vec<Output>) -> Vec<Loss<P>> {
        self.node_id = to.node_id;
        self.all().into_iter().filter_map(|link| link.retarget(&to.host, to.port, outputs)).collect()
    }

    /// When one of them wants to be woken, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        [&self.life, &self.replicas, &self.clients].iter().filter_map(|link| link.next_wake_ms()).min()
    }
}
