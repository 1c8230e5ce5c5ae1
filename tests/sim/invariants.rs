//! What holds of a cluster at every moment, as functions over what its machines show. Nothing here knows the simulator.
//!
//! | invariant | where |
//! |---|---|
//! | ISR ⊆ replicas, each once, and the leader in it | [`isr_is_right`] |
//! | one leader in a leader epoch, and epochs that never fall on a replica | [`Leaders`] |
//! | a partition epoch is one leader and one ISR | [`PartitionEpochs`] |
//! | the high watermark rises within a leader epoch | [`Watermarks`] |
//! | below the watermark every replica has the same batches, and they stay | [`Committed::reached`] |
//! | a later leader has everything that was committed, and so has everyone in sync or eligible | [`Committed::is_on`] |
//! | one active controller in a term | [`Terms`] |
//! | the same Image at the same version | `images.rs` |

use std::collections::BTreeMap;
use std::fmt::Debug;

use uuid::Uuid;

/// A partition of one topic that existed.
pub type Place = (Uuid, i32);

/// A replica as its machine shows it at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView<'a> {
    pub place: Place,
    /// Which machine it is on.
    pub machine: usize,
    /// Which process of that machine.
    pub incarnation: u64,
    /// The broker's id.
    pub node_id: i32,
    /// Who leads, as far as it knows; -1 for nobody.
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub replicas: &'a [i32],
    pub isr: &'a [i32],
    /// The eligible leader replicas, if the metadata it knows is of this partition epoch.
    pub eligible: &'a [i32],
    pub log_start: i64,
    pub high_watermark: i64,
    pub log_end: i64,
}

impl ReplicaView<'_> {
    /// Whether it believes that it leads.
    pub fn leads(&self) -> bool {
        self.leader == self.node_id
    }
}

/// One batch of a log, by what no two different batches share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMark {
    pub base: i64,
    /// Its last offset, inclusive.
    pub last: i64,
    /// The leader epoch in which it was appended.
    pub epoch: i32,
    pub crc: u32,
}

/// ISR ⊆ replicas, nobody twice, and a leader that is in sync.
pub fn isr_is_right(view: &ReplicaView) -> Result<(), String> {
    let ReplicaView { place, leader, replicas, isr, .. } = view;
    let twice = |list: &[i32]| (1..list.len()).any(|at| list[..at].contains(&list[at]));
    if let Some(stranger) = isr.iter().find(|id| !replicas.contains(id)) {
        return Err(format!("isr: {stranger} is in sync for {place:?} and no replica of {replicas:?}"));
    }
    if twice(isr) || twice(replicas) {
        return Err(format!("isr: somebody is twice in {isr:?} or {replicas:?} of {place:?}"));
    }
    if *leader >= 0 && !isr.contains(leader) {
        return Err(format!("isr: {leader} leads {place:?} and is not in sync: {isr:?}"));
    }
    Ok(())
}

/// Only the process that the metadata knows as its broker leads anything.
pub fn is_registered(view: &ReplicaView, is_known: bool) -> Result<(), String> {
    if view.leads() && !is_known {
        let ReplicaView { place, node_id, leader_epoch, .. } = view;
        return Err(format!(
            "unregistered leader: {node_id} leads {place:?} in epoch {leader_epoch}, and its process is not registered"
        ));
    }
    Ok(())
}

/// Who led in which epoch.
#[derive(Debug, Default)]
pub struct Leaders {
    by_epoch: BTreeMap<(Place, i32), i32>,
    /// The epochs that a replica showed last: leader epoch, partition epoch.
    shown: BTreeMap<(usize, u64, Place), (i32, i32)>,
}

impl Leaders {
    /// A replica shows its leader and its epochs.
    pub fn saw(&mut self, view: &ReplicaView) -> Result<(), String> {
        let place = view.place;
        let epochs = (view.leader_epoch, view.partition_epoch);
        let before = self.shown.insert((view.machine, view.incarnation, place), epochs).unwrap_or((-1, -1));
        if epochs.0 < before.0 || epochs.1 < before.1 {
            return Err(format!(
                "epoch regression: {place:?} on {} was in {before:?} and is in {epochs:?}",
                view.node_id
            ));
        }
        if view.leader < 0 {
            return Ok(());
        }
        let known = *self.by_epoch.entry((place, view.leader_epoch)).or_insert(view.leader);
        if known != view.leader {
            return Err(format!(
                "two leaders: {known} and {} lead {place:?} in epoch {}",
                view.leader, view.leader_epoch
            ));
        }
        Ok(())
    }
}

/// What each partition epoch says: whoever knows it knows the same.
#[derive(Debug, Default)]
pub struct PartitionEpochs {
    by_epoch: BTreeMap<(Place, i32), Said>,
}

/// Leader, leader epoch and ISR.
type Said = (i32, i32, Vec<i32>);

impl PartitionEpochs {
    /// A replica shows what it knows.
    pub fn saw(&mut self, view: &ReplicaView) -> Result<(), String> {
        let mut isr = view.isr.to_vec();
        isr.sort_unstable();
        let said = (view.leader, view.leader_epoch, isr);
        let known = self.by_epoch.entry((view.place, view.partition_epoch)).or_insert_with(|| said.clone());
        if known.0 < 0 {
            known.0 = said.0;
        }
        // Who may not lead (any more) says that nobody does.
        let is_same_leader = said.0 < 0 || said.0 == known.0;
        if !is_same_leader || (known.1, &known.2) != (said.1, &said.2) {
            return Err(format!(
                "two states: partition epoch {} of {:?} is {known:?}, and {said:?} on {}",
                view.partition_epoch, view.place, view.node_id
            ));
        }
        Ok(())
    }
}

/// How high each replica's watermark was.
#[derive(Debug, Default)]
pub struct Watermarks {
    /// By machine, process and place: leader epoch and watermark.
    shown: BTreeMap<(usize, u64, Place), (i32, i64)>,
}

impl Watermarks {
    /// A replica shows its watermark. A follower that begins anew where its leader's log starts begins a few offsets
    /// before that if a batch does: it holds nothing.
    pub fn saw(&mut self, view: &ReplicaView) -> Result<(), String> {
        let holds_nothing = view.log_start == view.log_end && !view.leads();
        let now = (view.leader_epoch, view.high_watermark);
        let before = self.shown.insert((view.machine, view.incarnation, view.place), now);
        match before {
            Some((epoch, watermark)) if epoch == now.0 && now.1 < watermark && !holds_nothing => {
                Err(format!(
                    "watermark regression: {:?} on {} was at {watermark} in epoch {epoch} and is at {}",
                    view.place, view.node_id, now.1
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What was below the high watermark of any replica.
#[derive(Debug, Default)]
pub struct Committed {
    logs: BTreeMap<Place, CommittedLog>,
}

#[derive(Debug, Default)]
struct CommittedLog {
    batches: BTreeMap<i64, BatchMark>,
    end: i64,
    /// The highest epoch in which somebody was seen to lead.
    leader_epoch: i32,
    /// The highest partition epoch that anybody showed.
    partition_epoch: i32,
}

impl Committed {
    /// A replica's watermark has reached `view.high_watermark`; `marks` are the batches below it that were not shown
    /// before. They are what any other replica showed there.
    pub fn reached(&mut self, view: &ReplicaView, marks: &[BatchMark]) -> Result<(), String> {
        let log = self.logs.entry(view.place).or_default();
        for mark in marks.iter().filter(|mark| mark.last < view.high_watermark) {
            let overlaps = |other: &&BatchMark| other.last >= mark.base;
            match log.batches.range(..=mark.last).next_back().map(|(_, other)| other).filter(overlaps) {
                Some(other) if other != mark => {
                    return Err(format!(
                        "diverged: {:?} on {} has {mark:?} below its watermark where {other:?} was committed",
                        view.place, view.node_id
                    ));
                }
                Some(_) => {}
                None => drop(log.batches.insert(mark.base, *mark)),
            }
        }
        log.end = log.end.max(view.high_watermark);
        Ok(())
    }

    /// A replica that leads in the newest epoch has everything that was committed before, and so has one that is in
    /// sync or eligible by the newest word on it: it may lead next.
    pub fn is_on(&mut self, view: &ReplicaView) -> Result<(), String> {
        let log = self.logs.entry(view.place).or_default();
        let leads = view.leads() && view.leader_epoch >= log.leader_epoch;
        if leads {
            log.leader_epoch = view.leader_epoch;
        }
        log.partition_epoch = log.partition_epoch.max(view.partition_epoch);
        let is_newest = view.partition_epoch == log.partition_epoch;
        let is_of = |nodes: &[i32]| is_newest && nodes.contains(&view.node_id);
        let (in_sync, eligible) = (is_of(view.isr), is_of(view.eligible));
        if (leads || in_sync || eligible) && view.log_end < log.end {
            return Err(format!(
                "committed records are lost: {} {} {:?} in epoch {} up to {}, and {} was committed",
                view.node_id,
                if leads {
                    "leads"
                } else if in_sync {
                    "is in sync for"
                } else {
                    "is eligible for"
                },
                view.place,
                view.leader_epoch,
                view.log_end,
                log.end
            ));
        }
        Ok(())
    }

    /// Nobody counts any more on what lies at or above this offset of a place.
    pub fn forget_above(&mut self, floor: impl Fn(&Place) -> i64) {
        for (place, log) in &mut self.logs {
            let floor = floor(place);
            log.end = log.end.min(floor);
            log.batches.retain(|_, batch| batch.last < floor);
        }
    }
}

/// Below `end` two logs hold the same batches, as far as both reach back. For logs at rest.
pub fn prefixes_are_equal(one: &[BatchMark], other: &[BatchMark], end: i64) -> Result<(), String> {
    let start = |marks: &[BatchMark]| marks.first().map_or(i64::MAX, |mark| mark.base);
    let from = start(one).max(start(other));
    let part = |marks: &[BatchMark]| -> Vec<BatchMark> {
        marks.iter().filter(|mark| mark.last >= from && mark.base < end).copied().collect()
    };
    let (one, other) = (part(one), part(other));
    match one.iter().zip(&other).find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("diverged: {a:?} against {b:?}")),
        None if one.len() != other.len() => {
            Err(format!("diverged: {} batches against {} below {end}", one.len(), other.len()))
        }
        None => Ok(()),
    }
}

/// Who was the active controller in which term.
#[derive(Debug, Default)]
pub struct Terms {
    active: BTreeMap<u64, i32>,
}

impl Terms {
    /// A controller shows its term; `active` is its node's id where it decides.
    pub fn saw(&mut self, term: u64, active: Option<i32>) -> Result<(), String> {
        let Some(node_id) = active else { return Ok(()) };
        let known = *self.active.entry(term).or_insert(node_id);
        if known != node_id {
            return Err(format!("two controllers: {known} and {node_id} are active in term {term}"));
        }
        Ok(())
    }
}

/// For tests: replica 1 of 1, 2 and 3, which leads in epoch 4, with ten offsets, eight of them committed.
#[cfg(test)]
pub const VIEW: ReplicaView<'static> = ReplicaView {
    place: (Uuid::from_u128(7), 2),
    machine: 0,
    incarnation: 1,
    node_id: 1,
    leader: 1,
    leader_epoch: 4,
    partition_epoch: 9,
    replicas: &[1, 2, 3],
    isr: &[1, 2],
    eligible: &[],
    log_start: 0,
    high_watermark: 8,
    log_end: 10,
};

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: ReplicaView<'static> = ReplicaView { machine: 1, node_id: 2, ..VIEW };

    fn mark(base: i64, last: i64, epoch: i32) -> BatchMark {
        BatchMark { base, last, epoch, crc: (base * 31 + last) as u32 }
    }

    #[track_caller]
    fn violates<T: Debug>(result: Result<T, String>, word: &str) {
        let text = result.expect_err("a violation");
        assert!(text.starts_with(word), "{text}");
    }

    #[test]
    fn the_isr_is_of_the_replicas_and_holds_the_leader() {
        assert_eq!(isr_is_right(&VIEW), Ok(()));
        assert_eq!(isr_is_right(&ReplicaView { leader: -1, isr: &[], ..VIEW }), Ok(()));
        violates(isr_is_right(&ReplicaView { isr: &[1, 4], ..VIEW }), "isr: 4");
        violates(isr_is_right(&ReplicaView { isr: &[1, 1], ..VIEW }), "isr: somebody");
        violates(isr_is_right(&ReplicaView { replicas: &[1, 2, 2], ..VIEW }), "isr: somebody");
        violates(isr_is_right(&ReplicaView { leader: 3, ..VIEW }), "isr: 3 leads");
    }

    #[test]
    fn who_leads_is_registered() {
        assert_eq!(is_registered(&VIEW, true), Ok(()));
        assert_eq!(is_registered(&FOLLOWER, false), Ok(()));
        violates(is_registered(&VIEW, false), "unregistered leader: 1");
    }

    #[test]
    fn an_epoch_has_one_leader() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.saw(&VIEW), Ok(()));
        assert_eq!(leaders.saw(&FOLLOWER), Ok(()));
        let next = ReplicaView { leader: 2, leader_epoch: 5, ..FOLLOWER };
        assert_eq!(leaders.saw(&next), Ok(()));
        // Who has not heard of it yet stays with what was so.
        assert_eq!(leaders.saw(&VIEW), Ok(()));
        violates(leaders.saw(&ReplicaView { leader: 3, leader_epoch: 5, ..VIEW }), "two leaders: 2 and 3");
    }

    #[test]
    fn a_time_without_a_leader_contradicts_nobody() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.saw(&ReplicaView { leader: -1, ..VIEW }), Ok(()));
        assert_eq!(leaders.saw(&FOLLOWER), Ok(()));
    }

    #[test]
    fn epochs_never_fall_while_a_process_runs() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.saw(&VIEW), Ok(()));
        violates(leaders.saw(&ReplicaView { partition_epoch: 8, ..VIEW }), "epoch regression");
        let restarted = ReplicaView { incarnation: 2, partition_epoch: 8, ..VIEW };
        assert_eq!(leaders.saw(&restarted), Ok(()), "a process begins with what it finds");
    }

    #[test]
    fn a_partition_epoch_says_one_thing() {
        let mut epochs = PartitionEpochs::default();
        assert_eq!(epochs.saw(&VIEW), Ok(()));
        assert_eq!(epochs.saw(&ReplicaView { isr: &[2, 1], ..FOLLOWER }), Ok(()));
        violates(epochs.saw(&ReplicaView { isr: &[1], ..VIEW }), "two states");
        violates(epochs.saw(&ReplicaView { leader: 2, ..FOLLOWER }), "two states");
        assert_eq!(epochs.saw(&ReplicaView { leader: -1, ..FOLLOWER }), Ok(()));
        assert_eq!(epochs.saw(&ReplicaView { isr: &[1], partition_epoch: 10, ..VIEW }), Ok(()));
    }

    #[test]
    fn a_watermark_falls_only_with_a_new_epoch_or_process() {
        let lower = ReplicaView { high_watermark: 7, ..VIEW };
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.saw(&VIEW), Ok(()));
        assert_eq!(watermarks.saw(&ReplicaView { incarnation: 2, ..lower }), Ok(()));
        assert_eq!(watermarks.saw(&ReplicaView { machine: 1, ..lower }), Ok(()));
        violates(watermarks.saw(&lower), "watermark regression");
        assert_eq!(watermarks.saw(&VIEW), Ok(()));
        let empty = ReplicaView { log_start: 7, log_end: 7, ..lower };
        violates(watermarks.saw(&empty), "watermark regression");
        assert_eq!(watermarks.saw(&FOLLOWER), Ok(()));
        assert_eq!(
            watermarks.saw(&ReplicaView { machine: 1, node_id: 2, ..empty }),
            Ok(()),
            "it begins anew"
        );
        assert_eq!(watermarks.saw(&VIEW), Ok(()));
        assert_eq!(watermarks.saw(&ReplicaView { leader_epoch: 5, ..lower }), Ok(()));
    }

    #[test]
    fn below_the_watermark_everyone_has_the_same_batches() {
        let mut committed = Committed::default();
        assert_eq!(committed.reached(&VIEW, &[mark(0, 3, 1), mark(4, 7, 4), mark(8, 9, 4)]), Ok(()));
        assert_eq!(committed.reached(&FOLLOWER, &[mark(0, 3, 1), mark(4, 7, 4)]), Ok(()));
        // What is not committed may differ: nobody was shown it.
        let behind = ReplicaView { high_watermark: 8, ..FOLLOWER };
        assert_eq!(committed.reached(&behind, &[mark(8, 9, 3)]), Ok(()));
        for other in [mark(4, 7, 3), mark(4, 6, 4), mark(5, 7, 4), BatchMark { crc: 1, ..mark(4, 7, 4) }] {
            violates(committed.reached(&FOLLOWER, &[other]), "diverged");
        }
    }

    #[test]
    fn a_later_leader_has_what_was_committed() {
        let mut committed = Committed::default();
        assert_eq!(committed.reached(&VIEW, &[mark(0, 7, 4)]), Ok(()));
        let leader = ReplicaView { leader: 2, leader_epoch: 5, partition_epoch: 10, log_end: 8, ..FOLLOWER };
        assert_eq!(committed.is_on(&leader), Ok(()));
        violates(
            committed.is_on(&ReplicaView { log_end: 7, ..leader }),
            "committed records are lost: 2 leads",
        );
        // A leader of old that does not know better yet has lost nothing that anybody counts on.
        let stale = ReplicaView { log_end: 7, ..VIEW };
        assert_eq!(committed.is_on(&stale), Ok(()));
    }

    #[test]
    fn who_is_in_sync_has_what_was_committed() {
        let mut committed = Committed::default();
        assert_eq!(committed.reached(&VIEW, &[mark(0, 7, 4)]), Ok(()));
        let short = ReplicaView { log_end: 7, ..FOLLOWER };
        violates(committed.is_on(&short), "committed records are lost: 2 is in sync");
        assert_eq!(committed.is_on(&ReplicaView { isr: &[1], partition_epoch: 10, ..VIEW }), Ok(()));
        assert_eq!(committed.is_on(&short), Ok(()), "it was put out of the ISR and has not heard of it");
    }

    #[test]
    fn who_is_eligible_has_what_was_committed() {
        let mut committed = Committed::default();
        assert_eq!(committed.reached(&VIEW, &[mark(0, 7, 4)]), Ok(()));
        let whole = ReplicaView { isr: &[1], eligible: &[2], partition_epoch: 10, log_end: 8, ..FOLLOWER };
        assert_eq!(committed.is_on(&whole), Ok(()));
        let short = ReplicaView { log_end: 7, ..whole };
        violates(committed.is_on(&short), "committed records are lost: 2 is eligible");
        assert_eq!(committed.is_on(&ReplicaView { eligible: &[], partition_epoch: 11, ..short }), Ok(()));
        assert_eq!(committed.is_on(&short), Ok(()), "it is not eligible any more and has not heard of it");
    }

    #[test]
    fn what_a_power_cut_took_is_asked_of_nobody() {
        let mut committed = Committed::default();
        assert_eq!(committed.reached(&VIEW, &[mark(0, 3, 4), mark(4, 7, 4)]), Ok(()));
        committed.forget_above(|_| 6);
        let back = ReplicaView { log_end: 6, high_watermark: 6, ..VIEW };
        assert_eq!(committed.is_on(&back), Ok(()));
        assert_eq!(committed.reached(&VIEW, &[mark(4, 7, 5)]), Ok(()), "other records take their place");
        violates(committed.reached(&VIEW, &[mark(0, 3, 5)]), "diverged");
    }

    #[test]
    fn logs_at_rest_are_equal_as_far_as_both_reach_back() {
        let (whole, later) = ([mark(0, 3, 1), mark(4, 7, 2), mark(8, 9, 2)], [mark(4, 7, 2), mark(8, 9, 3)]);
        assert_eq!(prefixes_are_equal(&whole, &later, 8), Ok(()));
        violates(prefixes_are_equal(&whole, &later, 9), "diverged");
        violates(prefixes_are_equal(&whole, &later[..1], 10), "diverged: 2 batches against 1");
        assert_eq!(prefixes_are_equal(&whole, &[], 10), Ok(()));
    }

    #[test]
    fn a_term_has_one_active_controller() {
        let mut terms = Terms::default();
        assert_eq!(terms.saw(3, Some(1)), Ok(()));
        assert_eq!(terms.saw(3, None), Ok(()));
        assert_eq!(terms.saw(4, Some(2)), Ok(()));
        assert_eq!(terms.saw(3, Some(1)), Ok(()));
        violates(terms.saw(4, Some(1)), "two controllers: 2 and 1");
    }
}
