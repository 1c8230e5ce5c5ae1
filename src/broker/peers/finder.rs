//! Which node to ask for the active controller: the one that is known to lead, else the voters one after another.
//!
//! A node that was away for long may know voters of whom none is left, or none leads. So those that its configuration
//! names are asked, too, and those of whom the asked ones tell.

use std::sync::Arc;

use crate::controller::Members;

/// A voter of the metadata quorum, and where its controller listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterAddress {
    /// Its node id.
    pub node_id: i32,
    /// Where it listens.
    pub host: Arc<str>,
    /// And on which port.
    pub port: u16,
}

impl VoterAddress {
    /// Those who vote and can be dialled.
    pub fn of(members: &Members) -> Vec<Self> {
        let reachable = members.voters().filter(|member| member.endpoint.port > 0);
        let address = reachable.map(|member| Self {
            node_id: member.node_id,
            host: Arc::clone(&member.endpoint.host),
            port: member.endpoint.port,
        });
        address.collect()
    }

    fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

/// Addresses that are kept of those that others tell.
const TOLD_MAX: usize = 32;

/// Finds the active controller.
#[derive(Debug, Default)]
pub struct Finder {
    /// As the quorum itself told; none before it did.
    voters: Vec<VoterAddress>,
    /// As the configuration names them.
    configured: Vec<VoterAddress>,
    /// As nodes told that do not lead. They may know more than this one, or less.
    told: Vec<VoterAddress>,
    /// All of these, each once, in that order.
    all: Vec<VoterAddress>,
    /// Who leads, as the quorum itself or another node told.
    known: Option<i32>,
    /// Whom to ask while nobody is known.
    at: usize,
}

impl Finder {
    /// One that knows whom the configuration names, and not who leads.
    pub fn new(configured: Vec<VoterAddress>) -> Self {
        Self { all: configured.clone(), configured, ..Self::default() }
    }

    /// The voters have changed. Who was asked is asked on, if it is still known.
    pub fn set_voters(&mut self, voters: Vec<VoterAddress>) {
        self.voters = voters;
        self.gather();
    }

    /// A node that does not lead has told who votes. One that knows old ones does not take away what another told.
    pub fn hear_of(&mut self, told: Vec<VoterAddress>) {
        for voter in told {
            if !self.told.iter().any(|known| known.is_at(&voter)) {
                self.told.push(voter);
            }
        }
        self.told.drain(..self.told.len().saturating_sub(TOLD_MAX));
        self.gather();
    }

    fn gather(&mut self) {
        let asked = self.target().cloned();
        self.all.clear();
        for voter in self.voters.iter().chain(&self.configured).chain(&self.told) {
            if !self.all.iter().any(|known| known.is_at(voter)) {
                self.all.push(voter.clone());
            }
        }
        let at = asked.and_then(|asked| {
            let there = self.all.iter().position(|voter| voter.is_at(&asked));
            there.or_else(|| self.all.iter().position(|voter| voter.node_id == asked.node_id))
        });
        self.at = at.unwrap_or(0);
    }

    /// Somebody has told who leads; `None` while nobody does.
    pub fn learn(&mut self, leader: Option<i32>) {
        self.known = leader;
        self.at = self.all.iter().position(|voter| Some(voter.node_id) == leader).unwrap_or(self.at);
    }

    /// Whether there are others than this node, and that holds for each of them.
    pub fn all_others(&self, own: i32, holds: impl Fn(i32) -> bool) -> bool {
        let known = if self.voters.is_empty() { &self.configured } else { &self.voters };
        let mut others = known.iter().filter(|voter| voter.node_id != own).peekable();
        others.peek().is_some() && others.all(|voter| holds(voter.node_id))
    }

    /// Whom to ask.
    pub fn target(&self) -> Option<&VoterAddress> {
        let known = self.all.iter().find(|voter| Some(voter.node_id) == self.known);
        known.or_else(|| self.all.get(self.at))
    }

    /// Who was asked does not lead, or cannot be reached: the next one is asked, until somebody is known to lead.
    pub fn miss(&mut self) {
        self.known = None;
        self.at = (self.at + 1) % self.all.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[i32]) -> Vec<VoterAddress> {
        ids.iter()
            .map(|id| VoterAddress { node_id: *id, host: Arc::from("host"), port: *id as u16 })
            .collect()
    }

    fn target(finder: &Finder) -> Option<i32> {
        finder.target().map(|voter| voter.node_id)
    }

    #[test]
    fn who_tells_of_old_voters_hides_no_new_ones() {
        let mut finder = Finder::new(Vec::new());
        finder.set_voters(voters(&[1, 2]));
        finder.hear_of(voters(&[8, 9]));
        let mut asked = Vec::new();
        for _ in 0..6 {
            asked.extend(target(&finder));
            finder.hear_of(voters(&[1, 2]));
            finder.miss();
        }
        assert_eq!(asked, [1, 2, 8, 9, 1, 2]);
        finder.hear_of(voters(&(100..200).collect::<Vec<_>>()));
        assert_eq!(finder.all.len(), 2 + TOLD_MAX);
        assert_eq!(finder.all.last(), voters(&[199]).last(), "the newest stay");
    }

    #[test]
    fn a_voter_with_two_addresses_hides_nobody_behind_it() {
        let mut finder = Finder::new(voters(&[1, 4]));
        let moved = VoterAddress { port: 44, ..voters(&[4])[0].clone() };
        finder.hear_of(vec![moved, voters(&[5])[0].clone()]);
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.extend(finder.target().map(|voter| voter.port));
            finder.hear_of(voters(&[1]));
            finder.miss();
        }
        assert_eq!(asked, [1, 4, 44, 5]);
    }

    #[test]
    fn voters_are_asked_in_turn_until_one_is_known_to_lead() {
        let mut finder = Finder::default();
        finder.set_voters(voters(&[1, 2, 3]));
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(target(&finder).unwrap());
            finder.miss();
        }
        assert_eq!(asked, [1, 2, 3, 1]);
        finder.learn(Some(3));
        assert_eq!(target(&finder), Some(3));
        finder.learn(None);
        assert_eq!(target(&finder), Some(3), "the last one is as good as any");
        finder.learn(Some(2));
        finder.miss();
        assert_eq!(target(&finder), Some(3), "what was known is wrong");
        finder.learn(Some(9));
        assert_eq!(target(&finder), Some(3), "a stranger is nobody");
        finder.set_voters(voters(&[5, 3]));
        assert_eq!(target(&finder), Some(3));
        finder.set_voters(Vec::new());
        finder.miss();
        assert_eq!(target(&finder), None);
    }

    /// As many as are asked in turn.
    fn asked(finder: &mut Finder, count: usize) -> Vec<i32> {
        let mut next = || {
            finder.miss();
            target(finder).unwrap()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn voters_that_are_none_any_more_are_not_all_that_is_asked() {
        let mut finder = Finder::new(voters(&[1, 9]));
        assert_eq!(asked(&mut finder, 3), [9, 1, 9]);
        finder.set_voters(voters(&[1, 2, 3]));
        assert_eq!(target(&finder), Some(9), "it is asked on");
        finder.hear_of(voters(&[2, 4, 5]));
        finder.learn(Some(1));
        assert_eq!(asked(&mut finder, 6), [2, 3, 9, 4, 5, 1], "each once");
        finder.learn(Some(4));
        assert_eq!(target(&finder), Some(4), "it was told of");
        finder.set_voters(voters(&[3, 4]));
        assert_eq!((target(&finder), asked(&mut finder, 3)), (Some(4), vec![1, 9, 2]));
        finder.hear_of(Vec::new());
        assert_eq!(asked(&mut finder, 3), [5, 3, 4], "what was told stays");
        assert!(finder.all_others(8, |id| id < 5), "who is known by others alone need not be there");
    }
}
