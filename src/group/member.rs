//! One member of a group of the classic protocol.

use std::sync::Arc;

use bytes::Bytes;

use super::record::MemberMetadata;
use super::request::{DescribedMember, Join, JoinedMember, Protocol};

/// A member. Its place in the dance (what it waits for, when it is given up) is lost with the coordinator; the rest is
/// in its group's record.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// In the order of its preference; one loaded from a record knows only the chosen one.
    pub(super) protocols: Vec<Protocol>,
    /// What the last committed record assigns to it.
    pub(super) assignment: Bytes,
    /// The JoinGroup that waits for the rebalance to complete.
    pub(super) awaiting_join: Option<u64>,
    /// The SyncGroup that waits for the leader's.
    pub(super) awaiting_sync: Option<u64>,
    /// It has not been told its generation yet, so it cannot send heartbeats.
    pub(super) is_new: bool,
    /// Monotonic milliseconds at which it is given up; none while it waits for an answer itself.
    pub(super) expires_at_ms: Option<u64>,
}

impl Member {
    /// The member that a JoinGroup asks to be.
    pub(super) fn new(id: Arc<str>, request: &Join) -> Self {
        Self {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: distinct(&request.protocols),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
            expires_at_ms: None,
        }
    }

    /// A member as its group's record has it.
    pub(super) fn stored(stored: &MemberMetadata, protocol: &Arc<str>) -> Self {
        let rebalance = stored.rebalance_timeout_ms;
        let metadata = stored.subscription.clone();
        Self {
            id: stored.member_id.clone(),
            instance_id: stored.instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: if rebalance == -1 { stored.session_timeout_ms } else { rebalance },
            session_timeout_ms: stored.session_timeout_ms,
            protocols: vec![Protocol { name: protocol.clone(), metadata }],
            assignment: stored.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            expires_at_ms: None,
        }
    }

    /// As its group's record is to have it.
    pub(super) fn to_stored(&self, protocol: &str, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    pub(super) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// Its metadata for a protocol; empty if it does not know it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|known| &*known.name == protocol);
        known.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    /// Whether it would say the same again.
    pub(super) fn matches(&self, protocols: &[Protocol]) -> bool {
        self.protocols == distinct(protocols)
    }

    /// The first of its protocols that satisfies.
    pub(super) fn vote(&self, is_candidate: impl Fn(&str) -> bool) -> Option<&Arc<str>> {
        self.protocols.iter().map(|protocol| &protocol.name).find(|name| is_candidate(name))
    }

    /// Whether it need not send heartbeats: it waits for an answer. A new one is given up all the same.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// Its next heartbeat is awaited from now on.
    pub(super) fn expect_heartbeat(&mut self, mono_ms: u64) {
        self.expires_at_ms = Some(mono_ms + u64::from(self.session_timeout_ms.max(0).unsigned_abs()));
    }

    pub(super) fn joined(&self, protocol: &str) -> JoinedMember {
        let metadata = self.metadata(protocol);
        JoinedMember { member_id: self.id.clone(), instance_id: self.instance_id.clone(), metadata }
    }

    /// `protocol` is that of a stable group.
    pub(super) fn described(&self, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            assignment: self.assignment.clone(),
        }
    }
}

/// The first of each name, so that a member counts once for a protocol.
pub(super) fn distinct(protocols: &[Protocol]) -> Vec<Protocol> {
    let is_first =
        |at: usize, name: &str| protocols.iter().position(|other| &*other.name == name) == Some(at);
    let kept = protocols.iter().enumerate().filter(|(at, protocol)| is_first(*at, &protocol.name));
    kept.map(|(_, protocol)| protocol.clone()).collect()
}
