//! How a voter with an empty disk finds out whether its quorum is new, or its disk is one that replaces a lost one.
//!
//! Voters that configurations name (`controller.quorum.voters`) have raft ids of cluster and node, so a new disk has
//! the id of the one before it. If it voted and confirmed entries under that id, it would go back on what was
//! promised: vote twice in a term, and help to elect a leader that lacks what is committed. So a voter of this kind
//! whose disk has nothing of raft on it says nothing to raft. It asks the others:
//!
//! - All of them are new as well, or a majority is and the others are silent for [`PATIENCE_MS`]: this is a new quorum.
//! - One of them knows of anything committed: the disk replaces a lost one. The node takes a raft id that nobody ever
//!   had, notes it on its disk, and joins as a learner. What was promised under the old id stays promised by a voter
//!   that is never heard again; the leader removes that one and then adds the new one, two ordinary changes of members.
//! - Of two voters, one stays what it was: nothing was ever committed that the other one lacks, and neither leads
//!   without it.
//!
//! This is safe as long as less than a majority of the voters is empty, for whatever reason: a voter that never took
//! part counts with those that lost their disks. An asker and its answers are of one life of a process: each has a
//! number that is drawn at its start.

use std::collections::BTreeMap;

use super::Quorum;
use super::codec::{Body, Message, Told, Word};
use super::members::{Members, founder_raft_id};
use crate::controller::raft::{HardState, Raft, Stored};
use crate::controller::{Controller, ControllerConfig, Output};
use crate::effect::Now;

/// How often the others are asked, in milliseconds.
pub(super) const ASK_MS: u64 = 100;
/// How long a new quorum waits for voters that say nothing, in milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// How long a node waits before it tells its operator for what, and again from then on, in milliseconds.
const SAY_FIRST_MS: u64 = 10_000;
const SAY_AGAIN_MS: u64 = 60_000;

/// What has become clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node is the voter that it was configured as.
    Founder,
    /// Its disk replaces a lost one.
    Replaced,
}

/// A voter that does not know yet whether its quorum is new.
#[derive(Debug)]
pub(in crate::controller) struct Founding {
    /// Raft ids of the other voters.
    others: Vec<u64>,
    /// Names this life of this node.
    pub(super) number: u64,
    /// Others that are new as well, and the numbers of their lives.
    pub(super) new: BTreeMap<u64, u64>,
    /// Since when a majority is known to be new.
    majority_since_ms: Option<u64>,
    asked_ms: Option<u64>,
    /// When the operator is to hear of it next.
    say_at_ms: Option<u64>,
}

impl Founding {
    /// One that knows nothing; `None` for a node that has nothing to find out.
    pub(in crate::controller) fn of(config: &ControllerConfig, stored: &Stored) -> Option<Self> {
        let is_empty = stored.snapshot_index == 0
            && stored.entries.is_empty()
            && stored.hard_state == HardState::default();
        let own = config.voters.iter().find(|voter| voter.node_id == config.node.node_id)?;
        if !is_empty || own.raft_id.is_some() {
            return None;
        }
        let voters = Members::of_voters(&config.voters, &config.cluster_id).ok()?;
        let others = voters.voters().map(|voter| voter.raft_id).filter(|other| *other != config.raft_id);
        Self::among(others.collect(), config.seed)
    }

    fn among(others: Vec<u64>, number: u64) -> Option<Self> {
        (!others.is_empty()).then_some(Self {
            others,
            number,
            new: BTreeMap::new(),
            majority_since_ms: None,
            asked_ms: None,
            say_at_ms: None,
        })
    }

    /// Whether the others are to be asked now, and what has become clear by time.
    pub(super) fn tick(&mut self, now_ms: u64) -> (Vec<u64>, Option<Verdict>) {
        let has_majority = (self.new.len() + 1) * 2 > self.others.len() + 1;
        if has_majority && now_ms >= *self.majority_since_ms.get_or_insert(now_ms) + PATIENCE_MS {
            return (Vec::new(), Some(Verdict::Founder));
        }
        if self.asked_ms.is_some_and(|at_ms| now_ms < at_ms + ASK_MS) {
            return (Vec::new(), None);
        }
        self.asked_ms = Some(now_ms);
        (self.others.clone(), None)
    }

    /// Whether the operator is to hear now that this node waits: for which of the others.
    fn waits_for(&mut self, now_ms: u64) -> Option<Vec<u64>> {
        let say_at_ms = self.say_at_ms.get_or_insert(now_ms + SAY_FIRST_MS);
        if now_ms < *say_at_ms {
            return None;
        }
        *say_at_ms = now_ms + SAY_AGAIN_MS;
        Some(self.others.iter().copied().filter(|other| !self.new.contains_key(other)).collect())
    }

    /// One of the others has answered.
    pub(super) fn told(&mut self, from: u64, told: &Told) -> Option<Verdict> {
        if told.number != self.number || !self.others.contains(&from) {
            return None;
        }
        match told.word {
            Word::New => {
                self.new.insert(from, told.own);
                (self.new.len() == self.others.len()).then_some(Verdict::Founder)
            }
            Word::Founder => {
                self.new.extend(told.founders.iter().copied());
                Some(Verdict::Founder)
            }
            Word::Old => Some(self.old()),
        }
    }

    /// The quorum has a history.
    pub(super) fn old(&self) -> Verdict {
        if self.others.len() == 1 { Verdict::Founder } else { Verdict::Replaced }
    }
}

impl Controller {
    /// Whether this node says nothing to raft: it does not know yet as whom.
    pub(in crate::controller) fn is_mute(&self) -> bool {
        self.quorum.founding.is_some() || self.quorum.renewing.is_some()
    }

    /// Whether this node's disk replaces one that had this raft id, and that is certain: it knows of a history.
    pub fn replaces(&self, raft_id: u64) -> bool {
        raft_id == founder_raft_id(&self.config.cluster_id, self.config.node.node_id)
            && self.raft.status().commit > 0
    }

    /// Time has passed while this node is mute.
    pub(super) fn tick_founding(&mut self, now: Now, out: &mut Vec<Output>) {
        out.push(Output::WakeAt(now.mono_ms + ASK_MS));
        let Some(founding) = &mut self.quorum.founding else { return };
        let number = founding.number;
        let (asked, verdict) = founding.tick(now.mono_ms);
        let awaited = founding.waits_for(now.mono_ms).filter(|_| verdict.is_none());
        if let Some(awaited) = awaited {
            let names = awaited.into_iter().filter_map(|raft_id| self.peer_of(raft_id));
            let names: Vec<String> = names.map(|peer| peer.node_id.to_string()).collect();
            out.push(Output::Notice(format!(
                "this voter's disk is empty, and it does not know whether the metadata quorum is new or the disk \
                 replaces a lost one: it waits for the voters {}",
                names.join(", ")
            )));
        }
        for to in asked {
            self.send_own(to, Body::Ask { number }, out);
        }
        self.found(verdict);
    }

    /// Takes what is said of whether the quorum is new. Other messages come back, but for a node that is mute.
    pub(super) fn take_founding(&mut self, message: Message, out: &mut Vec<Output>) -> Option<Message> {
        match &message.body {
            Body::Ask { number } => {
                if let Some(told) = self.word_for(message.from, *number) {
                    self.send_own(message.from, Body::Told(told), out);
                }
                None
            }
            Body::Told(told) => {
                let founding = self.quorum.founding.as_mut();
                let verdict = founding.and_then(|founding| founding.told(message.from, told));
                self.found(verdict);
                None
            }
            _ => Some(message).filter(|_| !self.is_mute()),
        }
    }

    /// What this node answers a voter that asks. One that knows of nothing committed waits with its answer: nobody is
    /// to take a quorum for old that may not have had a leader yet. Of two voters the one that asks stays what it was,
    /// and nothing can be committed without it: there is nothing to wait for.
    fn word_for(&self, from: u64, number: u64) -> Option<Told> {
        let Quorum { founding, founders, renewing, .. } = &self.quorum;
        let told = |word, own, founders| Told { number, word, own, founders };
        if let Some(founding) = founding {
            return Some(told(Word::New, founding.number, Vec::new()));
        }
        if founders.get(&from) == Some(&number) {
            let founders = founders.iter().map(|(raft_id, number)| (*raft_id, *number)).collect();
            return Some(told(Word::Founder, self.config.seed, founders));
        }
        let is_old = renewing.is_none()
            && (self.raft.status().commit > 0 || self.raft.members().voters().count() == 2);
        is_old.then(|| told(Word::Old, self.config.seed, Vec::new()))
    }

    /// Another node says that it, or this one, is no member any more by the id of its configuration.
    pub(in crate::controller) fn disowned(&mut self) {
        let verdict = self.quorum.founding.as_ref().map(Founding::old);
        self.found(verdict);
    }

    fn found(&mut self, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else { return };
        let Some(founding) = self.quorum.founding.take() else { return };
        self.ticked_at_ms = None;
        match verdict {
            Verdict::Founder => self.quorum.founders = founding.new,
            Verdict::Replaced => {
                // Not 0, which is nobody.
                let raft_id = self.rng.u64(..) | 1;
                self.quorum.renewing = Some(raft_id);
                self.storage.renew(raft_id);
            }
        }
    }

    /// The raft id of the new disk is on it: the node is that member from now on.
    pub(in crate::controller) fn renewed(
        &mut self,
        raft_id: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        let hard_state = HardState::default();
        let empty = Stored { snapshot_index: 0, snapshot_term: 0, hard_state, entries: Vec::new() };
        (self.config.raft_id, self.config.voters) = (raft_id, Vec::new());
        self.raft = Raft::new(raft_id, &Members::default(), empty, self.config.seed)?;
        self.quorum = Quorum { wall_ms: self.quorum.wall_ms, ..Quorum::default() };
        self.ticked_at_ms = None;
        out.push(Output::RaftId(raft_id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(word: Word, number: u64, own: u64) -> Told {
        Told { number, word, own, founders: Vec::new() }
    }

    fn of_three() -> Founding {
        Founding::among(vec![20, 30], 7).unwrap()
    }

    #[test]
    fn a_quorum_is_new_when_all_are_or_a_majority_for_long_enough() {
        let mut founding = of_three();
        assert_eq!(founding.tick(1_000), (vec![20, 30], None));
        assert_eq!(founding.tick(1_050), (Vec::new(), None));
        assert_eq!(founding.told(20, &told(Word::New, 6, 2)), None, "an answer to an earlier life");
        assert_eq!(founding.tick(9_000), (vec![20, 30], None), "nobody else is known to be new");
        assert_eq!(founding.told(20, &told(Word::New, 7, 2)), None);
        assert_eq!(founding.tick(9_100), (vec![20, 30], None));
        assert_eq!(founding.tick(14_099), (vec![20, 30], None), "the third has as long from then on");
        assert_eq!(founding.tick(14_100), (Vec::new(), Some(Verdict::Founder)));
        let mut founding = of_three();
        founding.tick(1_000);
        founding.told(20, &told(Word::New, 7, 2));
        assert_eq!(founding.tick(5_999), (vec![20, 30], None), "the third may come yet");
        assert_eq!(founding.told(30, &told(Word::New, 7, 3)), Some(Verdict::Founder));
        assert_eq!(founding.new, BTreeMap::from([(20, 2), (30, 3)]));
    }

    #[test]
    fn the_operator_hears_after_a_while_and_then_every_minute_for_whom_a_voter_waits() {
        let mut founding = of_three();
        let said = |founding: &mut Founding, now_ms| founding.waits_for(now_ms);
        assert_eq!(said(&mut founding, 1_000), None);
        assert_eq!(said(&mut founding, 10_999), None, "a new quorum is found sooner");
        assert_eq!(said(&mut founding, 11_000), Some(vec![20, 30]));
        founding.told(20, &told(Word::New, 7, 2));
        assert_eq!(said(&mut founding, 70_999), None);
        assert_eq!(said(&mut founding, 71_000), Some(vec![30]));
    }

    #[test]
    fn who_was_counted_by_a_founder_is_one_and_knows_the_others() {
        let mut founding = of_three();
        let founders = vec![(10, 7), (30, 3)];
        let word = Told { founders, ..told(Word::Founder, 7, 2) };
        assert_eq!(founding.told(20, &word), Some(Verdict::Founder));
        assert_eq!(founding.new.get(&30), Some(&3));
    }

    #[test]
    fn a_history_makes_the_disk_another_member_but_of_two_voters() {
        assert_eq!(of_three().told(30, &told(Word::Old, 7, 0)), Some(Verdict::Replaced));
        assert_eq!(of_three().told(40, &told(Word::Old, 7, 0)), None, "a stranger");
        let mut of_two = Founding::among(vec![20], 7).unwrap();
        assert_eq!(of_two.told(20, &told(Word::Old, 7, 0)), Some(Verdict::Founder));
        assert!(Founding::among(Vec::new(), 7).is_none(), "the only voter asks nobody");
    }
}
