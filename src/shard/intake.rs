//! What the connections of a shard may hold in memory: the shard's byte budget.
//!
//! The budget has two parts. *Openings* holds the bytes of frames that are on their way: what has
//! arrived, never what a length promises, so that promises hold nobody up. *Frames* holds every
//! request from its admission, when its frame is whole, to its response, and what of its responses
//! is not sent yet. Where openings get scarce a frame is admitted for its whole cost before the rest
//! of its body is received. What does not fit waits in one queue, first come, first served, so that
//! a large frame is not starved by small ones. When openings are full, no socket is read that might
//! add to them.
//!
//! What waits for other nodes holds its bytes: an acks=all produce until followers have fetched it, a request for the
//! controller until that has a quorum. So what other nodes send has room beyond the frames' part, as much as openings,
//! and waits in no queue.
//!
//! Invariants: admitted and reserved bytes of clients never pass the frames' part, except that a request
//! which may cost more than all of it is admitted when nothing else is; openings never pass theirs.
//! Nothing of a client in openings is needed to finish what is in frames, so the two cannot wait for each
//! other. One connection takes at most a share of the frames' part, or one frame.

use std::collections::VecDeque;

use crate::broker::ConnectionKey;

/// What one `recv` into the shard's buffer may bring.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

/// A connection that cannot be served is read no further once it holds so much.
const DRAINED_BYTES_MAX: usize = 64 * RECEIVE_BYTES;
/// One connection may hold this part of the budget for frames.
const CONNECTION_SHARE: usize = 16;

/// The parts of a shard's budget, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// For admitted frames and unsent answers.
    pub frames: usize,
    /// For bytes that came before their frame was admitted.
    pub openings: usize,
    /// Of `frames`, for one connection.
    pub connection: usize,
}

impl Budget {
    /// Divides a shard's bytes. There is always room for one frame of the largest size and for
    /// one `recv`.
    pub fn divide(total_bytes: usize, frame_bytes_max: usize) -> Self {
        let openings = (total_bytes / 4).max(8 * RECEIVE_BYTES);
        let frames = total_bytes.saturating_sub(openings).max(frame_bytes_max);
        Self { frames, openings, connection: (frames / CONNECTION_SHARE).max(frame_bytes_max) }
    }
}

/// What one connection takes of the budget.
#[derive(Debug, Default)]
pub(super) struct Share {
    reserved_bytes: usize,
    opening_bytes: usize,
    unsent_bytes: usize,
    waiting: bool,
}

impl Share {
    /// Bytes of answers that its client has not taken.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }
}

/// What all connections of a shard take, and who waits for room.
#[derive(Debug)]
pub(super) struct Intake {
    budget: Budget,
    reserved_bytes: usize,
    opening_bytes: usize,
    unsent_bytes: usize,
    /// Frames that wait for room, with their cost.
    waiting: VecDeque<(ConnectionKey, usize)>,
    /// The most that was ever taken, for the operator.
    pub peak_bytes: usize,
}

impl Intake {
    pub fn new(budget: Budget) -> Self {
        let waiting = VecDeque::new();
        Self { budget, reserved_bytes: 0, opening_bytes: 0, unsent_bytes: 0, waiting, peak_bytes: 0 }
    }

    /// The part of the budget that one connection may take.
    pub fn connection_bytes(&self) -> usize {
        self.budget.connection
    }

    /// Whether a socket may be read whose next frame is not admitted yet.
    pub fn may_open(&self) -> bool {
        self.opening_bytes + RECEIVE_BYTES <= self.budget.openings
    }

    /// Whether a connection's own buffer may grow by so many bytes though its frame is not
    /// admitted. The last quarter of openings is for sockets that are read for the first time.
    pub fn may_grow(&self, share: &Share, step_bytes: usize) -> bool {
        share.reserved_bytes > 0 || self.opening_bytes + step_bytes <= self.budget.openings / 4 * 3
    }

    /// Whether a connection that cannot be served may have its receive queue emptied into memory:
    /// while that leaves most of openings to those who can be.
    pub fn may_drain(&self, share: &Share) -> bool {
        share.opening_bytes < DRAINED_BYTES_MAX && self.opening_bytes <= self.budget.openings / 4
    }

    /// Whether more than half of either part is taken: then nobody may hold memory and stand still.
    pub fn is_pressed(&self, admitted_bytes: usize) -> bool {
        let taken = admitted_bytes + self.reserved_bytes + self.unsent_bytes;
        taken > self.budget.frames / 2 || self.opening_bytes > self.budget.openings / 2
    }

    fn fits(&self, cost_bytes: usize, admitted_bytes: usize) -> bool {
        let held = admitted_bytes + self.reserved_bytes;
        held == 0 || held + self.unsent_bytes + cost_bytes <= self.budget.frames
    }

    fn reserve(&mut self, share: &mut Share, cost_bytes: usize, admitted_bytes: usize) {
        share.reserved_bytes += cost_bytes;
        self.reserved_bytes += cost_bytes;
        self.peak_bytes = self.peak_bytes.max(admitted_bytes + self.reserved_bytes + self.unsent_bytes);
    }

    /// Admits the next frame of another node past those of clients, if there is room beyond theirs.
    pub fn admit_node(&mut self, share: &mut Share, cost_bytes: usize, admitted_bytes: usize) -> bool {
        if share.reserved_bytes > 0 {
            return true;
        }
        let held = admitted_bytes + self.reserved_bytes;
        let fits = held + cost_bytes <= self.budget.frames + self.budget.openings;
        if fits {
            self.reserve(share, cost_bytes, admitted_bytes);
        }
        fits
    }

    /// Admits the next frame of a connection, or lets it wait for its turn.
    pub fn admit(
        &mut self,
        key: ConnectionKey,
        share: &mut Share,
        cost_bytes: usize,
        admitted_bytes: usize,
    ) -> bool {
        if share.reserved_bytes > 0 {
            return true;
        }
        if share.waiting {
            return false;
        }
        if self.waiting.is_empty() && self.fits(cost_bytes, admitted_bytes) {
            self.reserve(share, cost_bytes, admitted_bytes);
            return true;
        }
        share.waiting = true;
        self.waiting.push_back((key, cost_bytes));
        false
    }

    /// Who waits longest, if there is room for its frame now.
    pub fn next_granted(&mut self, admitted_bytes: usize) -> Option<(ConnectionKey, usize)> {
        let (_, cost_bytes) = *self.waiting.front()?;
        if self.fits(cost_bytes, admitted_bytes) { self.waiting.pop_front() } else { None }
    }

    /// Admits the frame that was granted.
    pub fn grant(&mut self, share: &mut Share, cost_bytes: usize, admitted_bytes: usize) {
        share.waiting = false;
        self.reserve(share, cost_bytes, admitted_bytes);
    }

    /// The admitted frame is whole: it is counted with its request from now on.
    pub fn hand_over(&mut self, share: &mut Share) {
        self.reserved_bytes -= std::mem::take(&mut share.reserved_bytes);
    }

    /// A connection's own buffer now holds so many bytes; those of an admitted frame are counted
    /// already.
    pub fn note_buffer(&mut self, share: &mut Share, buffer_bytes: usize) {
        let opening_bytes = if share.reserved_bytes > 0 { 0 } else { buffer_bytes };
        self.opening_bytes -= std::mem::replace(&mut share.opening_bytes, opening_bytes);
        self.opening_bytes += opening_bytes;
    }

    /// So many bytes of a connection's answers are in memory and not sent.
    pub fn note_unsent(&mut self, share: &mut Share, unsent_bytes: usize) {
        self.unsent_bytes -= std::mem::replace(&mut share.unsent_bytes, unsent_bytes);
        self.unsent_bytes += unsent_bytes;
    }

    /// The connection is gone.
    pub fn leave(&mut self, key: ConnectionKey, share: &mut Share) {
        self.hand_over(share);
        self.note_buffer(share, 0);
        self.note_unsent(share, 0);
        if std::mem::take(&mut share.waiting) {
            self.waiting.retain(|(waiting, _)| *waiting != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    #[test]
    fn the_budget_has_room_for_the_largest_frame() {
        let budget = Budget::divide(1 << 20, 8 << 20);
        assert_eq!((budget.frames, budget.connection, budget.openings), (8 << 20, 8 << 20, 512 << 10));
        let budget = Budget::divide(1 << 30, 1 << 20);
        assert_eq!(budget.frames + budget.openings, 1 << 30);
        assert_eq!(budget.connection, budget.frames / 16);
    }

    #[test]
    fn a_large_frame_is_not_overtaken_for_ever() {
        let mut intake = Intake::new(Budget { frames: 100, openings: 1 << 20, connection: 100 });
        let mut shares: Vec<Share> = (0..3).map(|_| Share::default()).collect();
        assert!(intake.admit(key(0), &mut shares[0], 10, 0));
        intake.hand_over(&mut shares[0]);
        assert!(!intake.admit(key(1), &mut shares[1], 95, 10));
        assert!(!intake.admit(key(2), &mut shares[2], 1, 10), "it would fit, but another one waits");
        assert_eq!(intake.next_granted(10), None);
        assert_eq!(intake.next_granted(5), Some((key(1), 95)));
        intake.grant(&mut shares[1], 95, 5);
        assert_eq!(intake.next_granted(5), None, "the budget is full");
        intake.leave(key(1), &mut shares[1]);
        assert_eq!(intake.next_granted(5), Some((key(2), 1)));
    }

    #[test]
    fn nodes_have_room_beyond_what_waits_for_them() {
        let mut intake = Intake::new(Budget { frames: 100, openings: 50, connection: 100 });
        let (mut client, mut node) = (Share::default(), Share::default());
        assert!(!intake.admit(key(0), &mut client, 10, 95));
        assert!(intake.admit_node(&mut node, 55, 95) && intake.admit_node(&mut node, 55, 95));
        intake.hand_over(&mut node);
        assert!(!intake.admit_node(&mut node, 1, 150), "not without an end");
        assert!(intake.admit_node(&mut node, 1, 149));
    }

    #[test]
    fn what_costs_more_than_everything_is_admitted_alone() {
        let mut intake = Intake::new(Budget { frames: 100, openings: 1 << 20, connection: 100 });
        let mut share = Share::default();
        assert!(!intake.admit(key(0), &mut share, 500, 1));
        intake.note_unsent(&mut Share::default(), 50);
        assert_eq!(intake.next_granted(0), Some((key(0), 500)), "unsent answers do not hold it up");
    }

    #[test]
    fn any_schedule_keeps_the_budget_and_serves_everyone() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let budget = Budget { frames: 1000, openings: 8 * RECEIVE_BYTES, connection: 1000 };
            let mut intake = Intake::new(budget);
            let (mut shares, mut left) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                shares.push(Share::default());
                left.push(10);
            }
            // Requests being served, and their sum.
            let (mut served, mut admitted): (Vec<usize>, usize) = (Vec::new(), 0);
            let mut costs: Vec<usize> = vec![0; 20];
            for _ in 0..100_000 {
                let at = random.usize(0..20);
                match random.u8(0..3) {
                    0 if left[at] > 0 && costs[at] == 0 => {
                        let cost = if random.bool() { random.usize(1..10) } else { random.usize(1..1000) };
                        if intake.admit(key(at as u32), &mut shares[at], cost, admitted) {
                            costs[at] = cost;
                        }
                    }
                    1 if costs[at] > 0 => {
                        intake.hand_over(&mut shares[at]);
                        admitted += costs[at];
                        served.push(std::mem::take(&mut costs[at]));
                        left[at] -= 1;
                    }
                    _ => {
                        if !served.is_empty() {
                            admitted -= served.swap_remove(random.usize(0..served.len()));
                        }
                    }
                }
                while let Some((granted, cost)) = intake.next_granted(admitted) {
                    costs[granted.slot as usize] = cost;
                    intake.grant(&mut shares[granted.slot as usize], cost, admitted);
                }
                assert!(admitted + intake.reserved_bytes <= budget.frames, "seed {seed}");
            }
            assert_eq!(left, vec![0; 20], "everyone is served: seed {seed}");
            assert!(intake.peak_bytes <= budget.frames);
        }
    }
}
