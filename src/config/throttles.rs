//! Limits of replication (KIP-73): how much of the network replicas may take that are not in sync, and which ones.

use std::sync::Arc;

use super::given::Given;
use super::keys::items;

/// What a rate is that limits nothing: Kafka's default.
const UNLIMITED: u64 = i64::MAX as u64;

/// The rates of one node, and how they are observed. Rates are bytes per second of the whole node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationLimits {
    /// `leader.replication.throttled.rate`: what leaders send to throttled replicas.
    pub leader_bytes_per_s: u64,
    /// `follower.replication.throttled.rate`: what throttled followers take.
    pub follower_bytes_per_s: u64,
    /// `replication.quota.window.num`: windows that a rate looks back on.
    pub windows: u32,
    /// `replication.quota.window.size.seconds`, in milliseconds.
    pub window_ms: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`: what replicas that move between log directories copy.
    pub moves_bytes_per_s: u64,
    /// `alter.log.dirs.replication.quota.window.num`: windows that this rate looks back on.
    pub moves_windows: u32,
    /// `alter.log.dirs.replication.quota.window.size.seconds`, in milliseconds.
    pub moves_window_ms: u64,
}

impl Default for ReplicationLimits {
    /// Kafka's defaults: no limit.
    fn default() -> Self {
        Self {
            leader_bytes_per_s: UNLIMITED,
            follower_bytes_per_s: UNLIMITED,
            windows: 11,
            window_ms: 1_000,
            moves_bytes_per_s: UNLIMITED,
            moves_windows: 11,
            moves_window_ms: 1_000,
        }
    }
}

impl ReplicationLimits {
    /// Whether leaders have a limit.
    pub fn limits_leaders(&self) -> bool {
        self.leader_bytes_per_s < UNLIMITED
    }

    /// Whether moves between log directories have a limit.
    pub fn limits_moves(&self) -> bool {
        self.moves_bytes_per_s < UNLIMITED
    }

    /// Whether followers have a limit.
    pub fn limits_followers(&self) -> bool {
        self.follower_bytes_per_s < UNLIMITED
    }
}

pub(super) fn read(given: &Given) -> ReplicationLimits {
    ReplicationLimits {
        leader_bytes_per_s: given.number("leader.replication.throttled.rate"),
        follower_bytes_per_s: given.number("follower.replication.throttled.rate"),
        windows: given.number("replication.quota.window.num"),
        window_ms: given.number::<u64>("replication.quota.window.size.seconds").saturating_mul(1_000),
        moves_bytes_per_s: given.number("replica.alter.log.dirs.io.max.bytes.per.second"),
        moves_windows: given.number("alter.log.dirs.replication.quota.window.num"),
        moves_window_ms: given
            .number::<u64>("alter.log.dirs.replication.quota.window.size.seconds")
            .saturating_mul(1_000),
    }
}

/// `leader.replication.throttled.replicas` and `follower.replication.throttled.replicas` of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None of them.
    #[default]
    None,
    /// `*`: all of them.
    All,
    /// Partition indexes and node ids.
    Some(Arc<[(i32, i32)]>),
}

impl ThrottledReplicas {
    /// A value that has passed its check; what is out of range names nobody.
    pub(super) fn parse(value: &str) -> Self {
        if value.trim() == "*" {
            return Self::All;
        }
        let pair = |item: &str| {
            let (partition, broker) = item.split_once(':')?;
            Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
        };
        let pairs: Arc<[(i32, i32)]> = items(value).filter_map(pair).collect();
        if pairs.is_empty() { Self::None } else { Self::Some(pairs) }
    }

    /// Whether this broker's replica of that partition is among them. On the leader's side the broker is the leader.
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(pairs) => pairs.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_replicas_and_a_star_all_of_them() {
        let some = ThrottledReplicas::parse("0:1, 2:3");
        assert!(some.contains(0, 1) && some.contains(2, 3) && !some.contains(0, 3) && !some.contains(1, 1));
        assert!(ThrottledReplicas::parse(" * ").contains(7, 7));
        assert_eq!(ThrottledReplicas::parse(""), ThrottledReplicas::None);
        assert_eq!(ThrottledReplicas::parse("99999999999:1"), ThrottledReplicas::None);
    }
}
