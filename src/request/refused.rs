//! Requests among nodes that were refused, for the operator: who asked, for what, and why. Each kind is said the first
//! ten times and then at each doubling, so that nobody fills the log by asking again.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;

use crate::wire::ErrorCode;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// A fetch as a replica.
    ReplicaFetch,
    /// BrokerRegistration.
    Registration,
    /// BrokerHeartbeat.
    Heartbeat,
    /// AlterPartition as a whole.
    IsrChange,
    /// AssignReplicasToDirs as a whole.
    Directories,
    /// AllocateProducerIds.
    ProducerIds,
    /// Messages of a controller.
    RaftMessages,
    /// JoinQuorum.
    Join,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReplicaFetch => "a fetch as the replica",
            Self::Registration => "the registration",
            Self::Heartbeat => "a heartbeat",
            Self::IsrChange => "changes of in-sync replicas",
            Self::Directories => "log directories of replicas",
            Self::ProducerIds => "producer ids",
            Self::RaftMessages => "raft messages",
            Self::Join => "membership in the quorum",
        })
    }
}

/// What was refused on one shard since its start, by kind and error number, and the lines that are to be said.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<(Refusal, i16), u64>,
    lines: Vec<String>,
}

impl Refusals {
    /// A node at that address was refused. One that asked the wrong controller did nothing wrong.
    pub(super) fn note(&mut self, what: Refusal, node_id: i32, peer: IpAddr, code: ErrorCode) {
        if code == ErrorCode::NotController {
            return;
        }
        let count = self.counts.entry((what, code.code())).or_default();
        *count += 1;
        if *count <= 10 || count.is_power_of_two() {
            self.lines.push(format!(
                "refused {what} of node {node_id} at {peer}: {code:?} ({count} of this kind on this shard)"
            ));
        }
    }

    /// Takes the lines that are to be said.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Whether there are none.
    pub fn is_silent(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_goes_on_is_said_ever_more_rarely_and_each_kind_for_itself() {
        let mut refusals = Refusals::default();
        let peer = Ipv4Addr::LOCALHOST.into();
        for _ in 0..100 {
            refusals.note(Refusal::Registration, 2, peer, ErrorCode::DuplicateBrokerRegistration);
            refusals.note(Refusal::Heartbeat, 2, peer, ErrorCode::NotController);
        }
        refusals.note(Refusal::Registration, 3, peer, ErrorCode::InconsistentClusterId);
        let lines = refusals.take();
        assert_eq!(lines.len(), 10 + 3 + 1);
        assert_eq!(
            lines[13],
            "refused the registration of node 3 at 127.0.0.1: InconsistentClusterId (1 of this kind on this shard)"
        );
        assert!(refusals.is_silent());
    }
}
