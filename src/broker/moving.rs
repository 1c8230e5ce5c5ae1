//! Connections: those that begin on this shard, what they hold, and those that go to the shard that owns most of what
//! they ask for.
//!
//! A connection goes when all its requests are answered and all its answers have left, so there is nothing of it on
//! two shards: the order per connection and partition holds, and answers to its old address are nobody's. What it has
//! not yet sent or not been read of waits in its socket. It takes along who asks, its fetch session, and the version
//! of the view that it may have seen: on the new shard nothing of it starts before that view is there.

use slab::Slab;

use super::message::ConnectionKey;
use super::{Shard, find};
use crate::controller::ShardId;
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::request::{CloseReason, Connection, MoveRule, MovedSession, Outbox, RequestContext, Traffic};
use crate::wire::api::Listener;

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
        if let Some(connection) = find(self.connections, ConnectionKey::of(from)) {
            connection.traffic.note(owner, bytes, self.home, self.now.mono_ms, &self.rule);
        }
    }
}

impl Shard {
    /// A connection was accepted. Where a clean stop has begun it is closed at once.
    pub fn connect(&mut self, context: RequestContext) -> ConnectionKey {
        let generation = self.generation_next;
        self.generation_next = self.generation_next.wrapping_add(1);
        let mut connection = Connection::new(context);
        connection.of_node = self.node.door(context.listener) == Listener::Controller;
        let slot = self.connections.insert((generation, connection));
        let slot = u32::try_from(slot).expect("connections are bounded by descriptors");
        let key = ConnectionKey { slot, generation };
        if self.shut {
            self.close(key, CloseReason::Stopping);
        }
        key
    }

    /// The largest frame that may come on a connection, without its prefix, in bytes.
    pub fn frame_limit_bytes(&mut self, key: ConnectionKey) -> u32 {
        let listener = self.connection(key).map(|connection| connection.context.listener);
        let of_clients = self.node.config.socket_request_max_bytes;
        listener.map_or(of_clients, |listener| self.node.frame_limit_bytes(listener))
    }

    /// The unsent answers of a connection.
    pub fn outbox(&mut self, key: ConnectionKey) -> Option<&mut Outbox> {
        self.connection(key).map(|connection| &mut connection.outbox)
    }

    /// How many requests of a connection are not answered yet.
    pub fn in_flight(&mut self, key: ConnectionKey) -> usize {
        self.connection(key).map_or(0, |connection| connection.in_flight())
    }

    /// Moves connections by another rule than a node's own.
    pub fn set_move_rule(&mut self, rule: MoveRule) {
        self.move_rule = Some(rule);
    }

    /// Where a connection goes now: it wishes to, and nothing of it is left to do here.
    pub fn departure(&mut self, key: ConnectionKey) -> Option<ShardId> {
        let shut = self.shut;
        let connection = self.connection(key).filter(|connection| !shut && !connection.closing)?;
        connection.traffic.wish().filter(|_| connection.is_at_rest())
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
        assert!(connection.is_at_rest() && connection.cost_bytes() == 0, "what goes leaves nothing behind");
        self.forget_connection(key);
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::message::{Message, Output};
    use super::*;
    use crate::config::NodeConfig;
    use crate::request::{ClusterView, Node};
    use crate::security::Principal;

    const NOW: Now = Now { mono_ms: 10, wall_ms: 0 };
    const THERE: ShardId = ShardId(1);

    fn view(version: u64) -> Arc<ClusterView> {
        let config = Arc::new(NodeConfig::load(None, &[]).unwrap().0);
        Arc::new(ClusterView { version, ..ClusterView::before_any(config) })
    }

    fn shard(id: u16) -> Shard {
        let (config, _) = NodeConfig::load(None, &[]).unwrap();
        let node = Arc::new(Node { config, cluster_id: String::new(), shard_count: 2, seed: 1 });
        Shard::new(ShardId(id), node, view(0), Arc::from([]), None)
    }

    fn connect(shard: &mut Shard) -> ConnectionKey {
        let peer = Ipv4Addr::LOCALHOST.into();
        shard.connect(RequestContext { listener: 0, peer, principal: Principal::Anonymous })
    }

    /// Makes a connection wish to go.
    fn wish(shard: &mut Shard, key: ConnectionKey) {
        let rule = MoveRule { window_ms: 10, parts_min: 1, rest_ms: 1_000 };
        shard.set_move_rule(rule);
        let connection = shard.connection(key).unwrap();
        for at_ms in 0..25 {
            connection.traffic.note(THERE, 0, ShardId(0), at_ms, &rule);
        }
    }

    fn ask_versions(shard: &mut Shard, key: ConnectionKey) {
        shard.frame(NOW, key, Bytes::from_static(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
        shard.end_turn(NOW);
    }

    /// Whether a connection's answers were to be sent, and whether it was to be closed.
    fn told(shard: &mut Shard, key: ConnectionKey) -> (bool, bool) {
        let mut outputs = Vec::new();
        shard.take_outputs(&mut outputs);
        let flushed = outputs.iter().any(|output| matches!(output, Output::Flush(told) if *told == key));
        let closed = outputs.iter().any(|output| matches!(output, Output::Close(told, _) if *told == key));
        (flushed, closed)
    }

    #[test]
    fn a_connection_goes_when_its_last_answer_has_left() {
        let mut here = shard(0);
        let key = connect(&mut here);
        assert_eq!(here.departure(key), None, "it wishes nothing");
        wish(&mut here, key);
        assert_eq!(here.departure(key), Some(THERE));
        assert!(here.connection(key).unwrap().comes_to_rest());
        ask_versions(&mut here, key);
        assert_eq!(here.departure(key), None, "its answer is still here");
        let outbox = here.outbox(key).unwrap();
        while outbox.pop().is_some() {}
        assert_eq!(here.departure(key), Some(THERE));
        here.stay(key);
        assert_eq!(here.departure(key), None);
        assert!(!here.connection(key).unwrap().comes_to_rest());
    }

    #[test]
    fn nothing_starts_on_the_new_shard_before_it_has_seen_what_the_old_one_had() {
        let (mut here, mut there) = (shard(0), shard(1));
        here.message(NOW, ShardId(0), Message::Publish(view(7)));
        let key = connect(&mut here);
        wish(&mut here, key);
        let luggage = here.depart(key).unwrap();
        assert!(here.connection(key).is_none());
        let key = there.arrive(NOW, luggage);
        ask_versions(&mut there, key);
        assert_eq!((told(&mut there, key), there.in_flight(key)), ((false, false), 1));
        there.message(NOW, ShardId(0), Message::Publish(view(6)));
        there.end_turn(NOW);
        assert_eq!(told(&mut there, key), (false, false));
        there.message(NOW, ShardId(0), Message::Publish(view(7)));
        there.end_turn(NOW);
        assert_eq!((told(&mut there, key), there.in_flight(key)), ((true, false), 0));
    }

    #[test]
    fn nobody_goes_or_stays_where_a_stop_has_begun() {
        let (mut here, mut there) = (shard(0), shard(1));
        let (first, second) = (connect(&mut here), connect(&mut here));
        wish(&mut here, first);
        wish(&mut here, second);
        let luggage = here.depart(first).unwrap();
        for shard in [&mut here, &mut there] {
            shard.message(NOW, ShardId(0), Message::Stop);
        }
        assert_eq!(here.departure(second), None);
        let key = there.arrive(NOW, luggage);
        assert!(told(&mut there, key).1, "it is closed like all others");
    }
}
