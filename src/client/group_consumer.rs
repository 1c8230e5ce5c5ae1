//! Reads topics as a member of a group: joins, reads what it is given from where the group stands, commits as it goes.
//!
//! A record counts as read once [`GroupConsumer::poll`] is called again, so a reader that dies meets it again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::admin::groups;
use super::{
    ClientError, Cluster, ConsumedRecord, Consumer, ConsumerConfig, Membership, MembershipConfig, Start,
    TopicPartition,
};

/// How long one call may keep the member from its heartbeats.
const POLL_MAX: Duration = Duration::from_millis(500);
const ADMIN_PATIENCE: Duration = Duration::from_secs(30);

/// Which topics a member reads.
pub enum TopicChoice {
    /// These.
    Named(Vec<String>),
    /// Every one that this takes, also of those that come later.
    Matching(Box<dyn Fn(&str) -> bool>),
}

impl fmt::Debug for TopicChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(names) => formatter.debug_tuple("Named").field(names).finish(),
            Self::Matching(_) => formatter.write_str("Matching"),
        }
    }
}

/// How a member reads.
#[derive(Clone, Debug)]
pub struct GroupConsumerConfig {
    /// How it takes part.
    pub membership: MembershipConfig,
    /// How it fetches; `reset` is also where it starts in a partition without a committed offset.
    pub consumer: ConsumerConfig,
    /// `enable.auto.commit` with `auto.commit.interval.ms`; `None` commits nothing.
    pub commit_interval: Option<Duration>,
    /// `metadata.max.age.ms`: how often to look for topics that match.
    pub metadata_max_age: Duration,
}

/// A consumer that is a member of a group.
#[derive(Debug)]
pub struct GroupConsumer {
    consumer: Consumer,
    membership: Membership,
    choice: TopicChoice,
    config: GroupConsumerConfig,
    committed: BTreeMap<TopicPartition, i64>,
    commit_due: Instant,
    look_due: Instant,
    rebalances: Duration,
}

impl GroupConsumer {
    /// A consumer that joins at its first poll.
    pub fn new(cluster: Cluster, choice: TopicChoice, config: GroupConsumerConfig) -> Self {
        let topics = match &choice {
            TopicChoice::Named(names) => names.clone(),
            TopicChoice::Matching(_) => Vec::new(),
        };
        let now = Instant::now();
        Self {
            consumer: Consumer::new(cluster, config.consumer.clone()),
            membership: Membership::new(config.membership.clone(), topics),
            choice,
            committed: BTreeMap::new(),
            commit_due: now + config.commit_interval.unwrap_or_default(),
            look_due: now,
            config,
            rebalances: Duration::ZERO,
        }
    }

    /// How much time went into joining since the last call.
    pub fn take_rebalance_time(&mut self) -> Duration {
        std::mem::take(&mut self.rebalances)
    }

    /// What it reads now, and where it goes on.
    pub fn positions(&self) -> &BTreeMap<TopicPartition, i64> {
        self.consumer.positions()
    }

    /// Goes on from this offset: records that were polled and not used are not committed.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) {
        self.consumer.seek(partition, offset);
    }

    /// Records, if any come within `max_wait`, or soon after where the group is being rebalanced. An error that may
    /// pass is given; calling again goes on.
    pub fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.look_for_topics()?;
        if !self.membership.tick(self.consumer.cluster())? {
            self.rejoin()?;
        }
        if Instant::now() >= self.commit_due {
            self.commit()?;
        }
        if self.consumer.positions().is_empty() {
            std::thread::sleep(max_wait.min(Duration::from_millis(100)));
            return Ok(Vec::new());
        }
        self.consumer.poll(max_wait.min(POLL_MAX))
    }

    /// Commits where it stands, if that is wanted, and leaves the group.
    pub fn close(mut self) -> Result<(), ClientError> {
        let committed = self.commit();
        let left = self.membership.leave(self.consumer.cluster());
        committed.and(left)
    }

    fn look_for_topics(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        if now < self.look_due {
            return Ok(());
        }
        self.look_due = now + self.config.metadata_max_age;
        if let TopicChoice::Matching(takes) = &self.choice {
            let topics = self.consumer.cluster().describe(None, false)?;
            let mut names: Vec<String> =
                topics.iter().filter_map(|topic| Some(topic.name.as_ref()?.0.as_str().to_owned())).collect();
            names.retain(|name| takes(name));
            names.sort_unstable();
            self.membership.subscribe(names);
        }
        Ok(())
    }

    fn rejoin(&mut self) -> Result<(), ClientError> {
        let begun = Instant::now();
        // What was read is committed before others may get it. Where the coordinator has moved on, it is too late.
        if self.membership.is_joined_once() {
            drop(self.commit());
        }
        self.consumer.unassign_all();
        self.committed.clear();
        if let TopicChoice::Named(names) = &self.choice {
            // The broker may make a topic that is not there.
            for name in names {
                self.consumer.cluster().forget(name);
                self.consumer.cluster().partitions(name, true)?;
            }
        }
        let patience = self.config.membership.rebalance_timeout;
        let assigned = self.membership.join(self.consumer.cluster(), patience)?;
        let committed = self.group_offsets()?;
        for partition in assigned {
            let start = match (committed.get(&partition), self.config.consumer.reset) {
                (Some(offset), _) => Start::At(*offset),
                (None, Some(reset)) => reset,
                (None, None) => {
                    return Err(ClientError::Usage(format!(
                        "Undefined offset with no reset policy for partition {partition}"
                    )));
                }
            };
            self.consumer.assign(&partition, start)?;
        }
        self.committed = committed;
        self.rebalances += begun.elapsed();
        Ok(())
    }

    fn group_offsets(&mut self) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let group = self.membership.group().to_owned();
        let offsets = groups::committed_offsets(self.consumer.cluster(), &group, ADMIN_PATIENCE)?;
        Ok(offsets.into_iter().map(|(partition, one)| (partition, one.offset)).collect())
    }

    /// Commits the positions that have moved.
    fn commit(&mut self) -> Result<(), ClientError> {
        let Some(interval) = self.config.commit_interval else { return Ok(()) };
        self.commit_due = Instant::now() + interval;
        let moved: BTreeMap<TopicPartition, i64> = self
            .consumer
            .positions()
            .iter()
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .map(|(partition, offset)| (partition.clone(), *offset))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        match self.membership.commit(self.consumer.cluster(), &moved) {
            Ok(()) => {
                self.committed.extend(moved);
                Ok(())
            }
            // The next poll joins again and goes on from what is committed.
            Err(_) if !self.membership.is_joined() => Ok(()),
            Err(error) if error.is_retriable() => {
                // The positions are still ahead of what is committed: the next commit has them too.
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
