//! Connections that begin on this shard, and those that go to the shard that owns most of what they ask for.
//!
//! A connection goes when all its requests are answered and all its answers have left, so there is nothing of it on two
//! shards: the order per connection and partition holds, and answers to its old address are nobody's. What it has not yet
//! sent or not been read of waits in its socket. It takes along who asks, its fetch session, and the version of the view
//! that it may have seen: on the new shard nothing of it starts before that view is there.

use slab::Slab;

use super::Shard;
use super::message::ConnectionKey;
use crate::controller::ShardId;
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::request::{CloseReason, Connection, MoveRule, MovedSession, RequestContext, Traffic};

/// What one shard tells another of a connection that goes there.
#[derive(Debug)]
pub struct Luggage {
    context: RequestContext,
    session: Option<MovedSession>,
    view_version: u64,
}

/// Notes for each connection which shards its requests ask.
pub(super) struct Crossings<'a> {
    rule: MoveRule,
    home: ShardId,
    now: Now,
    connections: &'a mut Slab<(u32, Connection)>,
}

impl<'a> Crossings<'a> {
    pub(super) fn new(
        rule: MoveRule,
        home: ShardId,
        now: Now,
        connections: &'a mut Slab<(u32, Connection)>,
    ) -> Self {
        Self { rule, home, now, connections }
    }

    /// A part of the request at that address goes to that shard, with so many bytes.
    pub(super) fn note(&mut self, from: ReplyTo, owner: ShardId, bytes: usize) {
        if let Some((generation, connection)) = self.connections.get_mut(from.connection as usize)
            && *generation == from.generation
        {
            connection.traffic.note(owner, bytes, self.home, self.now.mono_ms, &self.rule);
        }
    }
}

impl Shard {
    /// A connection was accepted. Where a clean stop has begun it is closed at once.
    pub fn connect(&mut self, context: RequestContext) -> ConnectionKey {
        let generation = self.generation_next;
        self.generation_next = self.generation_next.wrapping_add(1);
        let slot = self.connections.insert((generation, Connection::new(context)));
        let slot = u32::try_from(slot).expect("connections are bounded by descriptors");
        let key = ConnectionKey { slot, generation };
        if self.shut {
            self.close(key, CloseReason::Stopping);
        }
        key
    }

    /// Moves connections by another rule than a node's own.
    pub fn set_move_rule(&mut self, rule: MoveRule) {
        self.move_rule = Some(rule);
    }

    /// Where a connection goes now: it wishes to, and nothing of it is left to do here.
    pub fn departure(&mut self, key: ConnectionKey) -> Option<ShardId> {
        let shut = self.shut;
        let connection = self.connection(key).filter(|connection| !shut && !connection.closing)?;
        connection.traffic.wish().filter(|_| connection.is_drained())
    }

    /// A connection does not go, however much it wishes to.
    pub fn stay(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection(key) {
            connection.traffic.stay();
        }
    }

    /// A connection whose [`Shard::departure`] was given goes.
    pub fn depart(&mut self, key: ConnectionKey) -> Option<Luggage> {
        let connection = self.connection(key)?;
        assert!(connection.is_drained() && connection.cost_bytes() == 0, "what goes leaves nothing behind");
        let (_, connection) = self.connections.remove(key.slot as usize);
        let session = self.desk.sessions.send_off(connection.session);
        let view_version = self.view.version.max(connection.view_min);
        Some(Luggage { context: connection.context, session, view_version })
    }

    /// A connection comes from another shard.
    pub fn arrive(&mut self, now: Now, luggage: Luggage) -> ConnectionKey {
        let Luggage { context, session, view_version } = luggage;
        let key = self.connect(context);
        let traffic = Traffic::moved(now.mono_ms, &self.move_rule.unwrap_or_default());
        if let Some(connection) = self.connection(key) {
            connection.traffic = traffic;
            connection.view_min = view_version;
            connection.session = session.as_ref().map_or(0, MovedSession::id);
        }
        if let Some(session) = session {
            self.desk.sessions.take_in(now.mono_ms, session);
        }
        key
    }
}
