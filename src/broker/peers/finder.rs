//! Which node to ask for the active controller: the one that is known to lead, else the voters one after another.

use std::sync::Arc;

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

/// Finds the active controller.
#[derive(Debug, Default)]
pub struct Finder {
    voters: Vec<VoterAddress>,
    /// Who leads, as the quorum itself or another node told.
    known: Option<i32>,
    /// Whom to ask while nobody is known.
    at: usize,
}

impl Finder {
    /// One that knows who votes and not who leads.
    pub fn new(voters: Vec<VoterAddress>) -> Self {
        Self { voters, known: None, at: 0 }
    }

    /// The voters have changed. Who was asked is asked on, if it still votes.
    pub fn set_voters(&mut self, voters: Vec<VoterAddress>) {
        let asked = self.target().map(|voter| voter.node_id);
        self.voters = voters;
        self.at = self.voters.iter().position(|voter| Some(voter.node_id) == asked).unwrap_or(0);
    }

    /// Somebody has told who leads; `None` while nobody does.
    pub fn learn(&mut self, leader: Option<i32>) {
        self.known = leader;
        if let Some(at) = self.voters.iter().position(|voter| Some(voter.node_id) == leader) {
            self.at = at;
        }
    }

    /// Whether there are others than this node, and that holds for each of them.
    pub fn all_others(&self, own: i32, holds: impl Fn(i32) -> bool) -> bool {
        let mut others = self.voters.iter().filter(|voter| voter.node_id != own).peekable();
        others.peek().is_some() && others.all(|voter| holds(voter.node_id))
    }

    /// Whom to ask.
    pub fn target(&self) -> Option<&VoterAddress> {
        let known = self.voters.iter().find(|voter| Some(voter.node_id) == self.known);
        known.or_else(|| self.voters.get(self.at))
    }

    /// Who was asked does not lead, or cannot be reached: the next one is asked, until somebody is known to lead.
    pub fn miss(&mut self) {
        self.known = None;
        self.at = (self.at + 1) % self.voters.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[i32]) -> Vec<VoterAddress> {
        ids.iter().map(|id| VoterAddress { node_id: *id, host: Arc::from("host"), port: 9093 }).collect()
    }

    fn target(finder: &Finder) -> Option<i32> {
        finder.target().map(|voter| voter.node_id)
    }

    #[test]
    fn voters_are_asked_in_turn_until_one_is_known_to_lead() {
        let mut finder = Finder::new(voters(&[1, 2, 3]));
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
}
