//! Where the requests of one connection go: which shard owns most of what it asks for, and whether it should
//! rather be served there.
//!
//! What crossing costs is two messages and a wake-up for each part of a request, and perhaps as much again for every
//! 128 KiB that it brings along (docs/BENCHMARKS.md, crossing shards); the bytes that a part reads stay where they are.
//! So parts are counted, heavier where they bring much. Two windows of time decide: the first elects the one shard
//! that may have more than half of the weight (Boyer and Moore's vote), the next counts that shard's weight exactly.
//! So a connection needs the same few bytes however many shards there are, and nothing moves for one burst.
//!
//! Invariant: a wish never names the shard that the connection is on, nor comes before its rest is over.

use crate::controller::ShardId;

/// A shard may be so busy, in thousandths of its time, before it is asked whether it is busier than the one that a
/// connection would leave.
const BUSY_PERMILLE: u32 = 500;
/// And then it may be so much busier.
const BUSIER_PERMILLE: u32 = 100;

/// A part that brings so many bytes along costs twice as much to hand over as an empty one.
const BYTES_OF_A_PART: usize = 128 * 1024;

/// When a connection wishes to be served elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveRule {
    /// How long parts are counted before they are looked at, in milliseconds.
    pub window_ms: u64,
    /// Fewer parts in a window, by their weight, are not worth a move.
    pub parts_min: u32,
    /// How long a connection that was moved stays, in milliseconds.
    pub rest_ms: u64,
}

impl Default for MoveRule {
    fn default() -> Self {
        // A move takes about as long as ten requests that cross; a hundred parts a second are worth one.
        Self { window_ms: 500, parts_min: 50, rest_ms: 5_000 }
    }
}

/// What is known of one connection's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// When the window that is counted ends, in monotonic milliseconds.
    ends_ms: u64,
    rests_until_ms: u64,
    /// The weight of the window's parts.
    parts: u32,
    /// Who may have had most of the window before, and its parts in this one.
    favourite: Option<ShardId>,
    favourite_parts: u32,
    /// Who is ahead in this window, and by how much.
    ahead: Option<ShardId>,
    lead: u32,
    wish: Option<ShardId>,
}

impl Traffic {
    /// Of a connection that has just been moved.
    pub fn moved(now_ms: u64, rule: &MoveRule) -> Self {
        Self { rests_until_ms: now_ms.saturating_add(rule.rest_ms), ..Self::default() }
    }

    /// Where the connection should rather be served.
    pub fn wish(&self) -> Option<ShardId> {
        self.wish
    }

    /// The wish is not granted for now.
    pub fn stay(&mut self) {
        self.wish = None;
    }

    /// Counts a part of a request, of a connection at `home`, for the shard that owns what it asks for. `bytes` is what
    /// it brings along.
    pub fn note(&mut self, owner: ShardId, bytes: usize, home: ShardId, now_ms: u64, rule: &MoveRule) {
        if now_ms >= self.ends_ms {
            self.look(home, now_ms, rule);
        }
        let weight = u32::try_from(1 + bytes / BYTES_OF_A_PART).unwrap_or(u32::MAX);
        self.parts = self.parts.saturating_add(weight);
        if self.favourite == Some(owner) {
            self.favourite_parts = self.favourite_parts.saturating_add(weight);
        }
        if self.ahead == Some(owner) {
            self.lead = self.lead.saturating_add(weight);
        } else if self.lead >= weight {
            self.lead -= weight;
        } else {
            (self.ahead, self.lead) = (Some(owner), weight - self.lead);
        }
    }

    /// Looks at the window that is over, and begins the next.
    fn look(&mut self, home: ShardId, now_ms: u64, rule: &MoveRule) {
        // A window whose end nobody saw for as long again counted parts of a connection that had little to do.
        let is_busy = self.parts >= rule.parts_min && now_ms < self.ends_ms.saturating_add(rule.window_ms);
        let is_clear = u64::from(self.favourite_parts) * 3 >= u64::from(self.parts) * 2;
        let may_move = is_busy && is_clear && now_ms >= self.rests_until_ms;
        *self = Self {
            ends_ms: now_ms.saturating_add(rule.window_ms),
            rests_until_ms: self.rests_until_ms,
            favourite: self.ahead.filter(|_| self.lead > 0),
            wish: self.favourite.filter(|favourite| may_move && *favourite != home),
            ..Self::default()
        };
    }
}

/// Whether a shard can take a connection over from one that is busy for so much of its time, both in thousandths: a
/// partition that everybody wants must not draw all the work of the node to its core.
pub fn has_room_for(target_permille: u32, home_permille: u32) -> bool {
    target_permille < BUSY_PERMILLE || target_permille <= home_permille + BUSIER_PERMILLE
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: MoveRule = MoveRule { window_ms: 100, parts_min: 10, rest_ms: 1_000 };
    const HOME: ShardId = ShardId(0);

    /// Parts for these shards, one a millisecond from `from_ms` on, again and again until `until_ms`.
    fn drive(traffic: &mut Traffic, owners: &[u16], from_ms: u64, until_ms: u64) -> Option<ShardId> {
        for (at_ms, owner) in (from_ms..until_ms).zip(owners.iter().cycle()) {
            traffic.note(ShardId(*owner), 0, HOME, at_ms, &RULE);
        }
        traffic.wish()
    }

    #[test]
    fn a_connection_whose_partitions_are_elsewhere_wishes_to_go_there_after_two_windows() {
        let mut traffic = Traffic::default();
        assert_eq!(drive(&mut traffic, &[3], 1_000, 1_200), None, "one window may be a burst");
        assert_eq!(drive(&mut traffic, &[3], 1_200, 1_202), Some(ShardId(3)));
        let mut traffic = Traffic::default();
        assert_eq!(drive(&mut traffic, &[3, 3, 1, 3, 0], 0, 1_000), None, "three fifths are not clear");
        assert_eq!(drive(&mut traffic, &[3, 3, 1, 3], 1_000, 2_000), Some(ShardId(3)));
    }

    #[test]
    fn a_connection_at_home_or_on_all_shards_alike_stays() {
        for owners in [&[0][..], &[0, 0, 0, 1], &[0, 1], &[0, 1, 2, 3], &[1, 2, 3], &[1, 1, 2, 2]] {
            let mut traffic = Traffic::default();
            for second in 0..20 {
                let wish = drive(&mut traffic, owners, second * 1_000, second * 1_000 + 1_000);
                assert_eq!(wish, None, "{owners:?}");
            }
        }
    }

    #[test]
    fn who_has_little_to_do_stays() {
        let mut traffic = Traffic::default();
        for at_ms in (0..100_000).step_by(12) {
            traffic.note(ShardId(1), 0, HOME, at_ms, &RULE);
            assert_eq!(traffic.wish(), None, "nine parts a window: {at_ms}");
        }
        // Many parts that took many windows are no more.
        let mut traffic = Traffic::default();
        for at_ms in 0..2_000 {
            traffic.note(ShardId(1), 0, HOME, at_ms / 9 * 200, &RULE);
            assert_eq!(traffic.wish(), None);
        }
    }

    #[test]
    fn who_brings_much_goes_where_it_is_written_though_it_asks_more_often_elsewhere() {
        let mut traffic = Traffic::default();
        for at_ms in 0..1_000 {
            let (owner, bytes) = if at_ms % 10 == 0 { (1, 8 << 20) } else { (2, 100) };
            traffic.note(ShardId(owner), bytes, HOME, at_ms, &RULE);
        }
        assert_eq!(traffic.wish(), Some(ShardId(1)));
        traffic.note(ShardId(2), usize::MAX, HOME, 1_000, &RULE);
        traffic.note(ShardId(2), usize::MAX, HOME, 1_001, &RULE);
    }

    #[test]
    fn a_wish_that_the_next_window_does_not_share_is_gone() {
        let mut traffic = Traffic::default();
        assert_eq!(drive(&mut traffic, &[1], 0, 250), Some(ShardId(1)));
        assert_eq!(drive(&mut traffic, &[0], 250, 301), None);
        assert_eq!(drive(&mut traffic, &[1], 301, 550), Some(ShardId(1)));
        traffic.stay();
        assert_eq!(traffic.wish(), None);
    }

    #[test]
    fn who_was_moved_rests() {
        let mut traffic = Traffic::moved(5_000, &RULE);
        assert_eq!(drive(&mut traffic, &[2], 5_000, 6_000), None);
        assert_eq!(drive(&mut traffic, &[2], 6_000, 6_110), Some(ShardId(2)));
    }

    #[test]
    fn a_busy_shard_takes_nobody_from_one_that_is_less_busy() {
        assert!(has_room_for(499, 0) && has_room_for(1_000, 1_000) && has_room_for(600, 500));
        assert!(!has_room_for(500, 0) && !has_room_for(1_000, 899));
    }
}
