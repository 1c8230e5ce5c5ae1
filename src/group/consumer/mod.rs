//! Consumer groups: the coordinator assigns the partitions, and leads each member to its part on its own (KIP-848).
//!
//! | file | what it is |
//! |---|---|
//! | [`request`] | what is asked and answered |
//! | [`records`], [`state`] | what is in the log, and the group that it makes |
//! | `plan` | one step: decisions on a copy of the group, and the records that come of it |
//! | `heartbeat`, `classic_member` | what members of both protocols ask |
//! | `reconcile` | how a member gets from what it has to what it shall have |
//! | `assignor`, `range`, `uniform`, `uniform_mixed` | who shall have what |
//! | [`topics`] | the topics as groups see them, and patterns of their names |
//! | `timers` | when members are given up |
//! | `serve`, `convert`, `embedded` | the coordinator's part; from one protocol to the other and back |
//!
//! Everything about a group but its timers is in its records. A step works on the group as it will be when all that is
//! on its way is committed; answers are held until then. After a load every member has one session to be heard of.

pub mod assignor;
mod classic_member;
mod convert;
mod embedded;
mod heartbeat;
mod plan;
mod range;
mod reconcile;
pub mod records;
pub mod request;
mod serve;
pub mod state;
mod timers;
pub mod topics;
mod uniform;
mod uniform_mixed;

use std::sync::Arc;

pub(super) use self::heartbeat::check;
use self::timers::Timers;

/// `group.consumer.migration.policy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Groups stay what they are while they have members.
    Disabled,
    /// Classic groups become consumer groups.
    Upgrade,
    /// Consumer groups become classic groups when only members of the classic protocol are left.
    Downgrade,
    /// Both.
    #[default]
    Bidirectional,
}

impl MigrationPolicy {
    /// The policy of a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let known = [
            ("disabled", Self::Disabled),
            ("upgrade", Self::Upgrade),
            ("downgrade", Self::Downgrade),
            ("bidirectional", Self::Bidirectional),
        ];
        known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, policy)| policy)
    }

    fn may_upgrade(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    fn may_downgrade(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// What consumer groups are told at start.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.consumer.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms`
    pub heartbeat_interval_min_ms: i32,
    /// `group.consumer.max.heartbeat.interval.ms`
    pub heartbeat_interval_max_ms: i32,
    /// `group.consumer.max.size`
    pub group_max_size: usize,
    /// `group.consumer.assignors`: their names; the first is used where members prefer none.
    pub assignors: Vec<Arc<str>>,
    /// `group.consumer.migration.policy`
    pub migration_policy: MigrationPolicy,
}

impl Default for ConsumerConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            session_timeout_min_ms: 45_000,
            session_timeout_max_ms: 60_000,
            heartbeat_interval_ms: 5_000,
            heartbeat_interval_min_ms: 5_000,
            heartbeat_interval_max_ms: 15_000,
            group_max_size: i32::MAX as usize,
            assignors: vec![assignor::UNIFORM.into(), assignor::RANGE.into()],
            migration_policy: MigrationPolicy::default(),
        }
    }
}

/// Configs of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupOverrides {
    /// `consumer.session.timeout.ms`
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`
    pub heartbeat_interval_ms: Option<i32>,
}

/// Nearest to the value within the bounds; the upper one if they cross.
fn bounded(value: i32, least: i32, most: i32) -> i32 {
    value.max(least).min(most)
}

impl ConsumerConfig {
    fn has_assignor(&self, name: &str) -> bool {
        self.assignors.iter().any(|known| &**known == name) && assignor::is_known(name)
    }

    fn default_assignor(&self) -> Arc<str> {
        self.assignors.first().cloned().unwrap_or_else(|| assignor::UNIFORM.into())
    }

    fn session_timeout_of(&self, group: &GroupOverrides) -> i32 {
        group.session_timeout_ms.map_or(self.session_timeout_ms, |own| {
            bounded(own, self.session_timeout_min_ms, self.session_timeout_max_ms)
        })
    }

    fn heartbeat_interval_of(&self, group: &GroupOverrides) -> i32 {
        group.heartbeat_interval_ms.map_or(self.heartbeat_interval_ms, |own| {
            bounded(own, self.heartbeat_interval_min_ms, self.heartbeat_interval_max_ms)
        })
    }
}

/// What a coordinator knows of a consumer group with members besides its records.
#[derive(Debug)]
pub(super) struct ConsumerGroup {
    pub(super) id: Arc<str>,
    timers: Timers,
    /// The state of the metadata that the group was last compared with.
    seen_version: Option<i64>,
    pub(super) wakes_at_ms: Option<u64>,
}

impl ConsumerGroup {
    fn new(id: Arc<str>) -> Self {
        Self { id, timers: Timers::default(), seen_version: None, wakes_at_ms: None }
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }
}
