//! One shard's pure half: its partitions, its connections' requests and its copy of the Image.
//!
//! The shell (`src/shard/`, or `tests/sim/` in the simulator) feeds it frames, messages of other
//! shards, completions and the time, and carries out the [`Output`]s it leaves. Nothing here
//! waits: a step runs to its end, and what comes back later is another input.
//!
//! A *turn* is everything between two calls of [`Shard::end_turn`]. Batches gathered in a turn
//! are written together at its end: group commit without timers.
//!
//! Invariant: a partition has exactly one owning shard; others see only the view and byte spans.

mod checking;
mod checkpoint;
mod control;
mod coordinators;
mod message;
mod moving;
pub mod peers;
mod replicas;
mod routing;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

pub use checkpoint::{Checkpoints, StoredOffsets};
pub use control::{ControlHost, ControlStart, FoundReplicas};
pub use message::{ConnectionKey, Delivery, Message, Output, Owner, Progress};
pub use moving::Luggage;
pub use peers::{LinkId, LinkLoss, PeersMessage, PeersStart};
pub use replicas::{DirectoryFacts, FoundReplica, Opened, Replicas};

use self::control::Asker;
use self::coordinators::Coordinators;
use self::timers::Timers;
use crate::controller::{ControllerRequest, ShardId};
use crate::effect::{ByteSpan, FileResult, Now, Ticket};
use crate::log::RecoveryError;
use crate::log::codec::CodecPool;
use crate::partition::{Answer, ReadFound, ReplyTo};
use crate::request::{
    Answered, Call, CloseReason, ClusterView, Connection, Coordination, Desk, DiskSpace, FetchSessions,
    MoveRule, Node, RequestContext, Scene, Work,
};

/// Room that a shard's queues keep when it rests: a burst of tens of thousands is not held in memory for good.
pub const QUEUE_KEPT: usize = 16;

/// One shard of the broker.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    node: Arc<Node>,
    view: Arc<ClusterView>,
    connections: Slab<(u32, Connection)>,
    generation_next: u32,
    timers: Timers,
    /// Requests whose check goes on in later turns, the next one first.
    checking: checking::Lanes,
    replicas: Replicas,
    coordinators: Coordinators,
    control: Option<Box<ControlHost>>,
    peers: peers::Peers,
    /// What is to be carried on inside this step; empty between steps.
    todo: VecDeque<Todo>,
    /// Messages of a sender whose view is ahead of ours, in order.
    held_back: VecDeque<(ShardId, Message)>,
    outputs: Vec<Output>,
    dirty: Vec<ConnectionKey>,
    /// Connections that wait until their clients take answers.
    held_up: Vec<ConnectionKey>,
    /// Connections that came from a shard whose view was newer, until ours is as new.
    early: Vec<ConnectionKey>,
    /// When connections wish to be served by another shard; never where there is no other.
    move_rule: Option<MoveRule>,
    /// A clean stop has begun: nobody comes or goes any more.
    shut: bool,
    admitted_bytes: usize,
    desk: Desk,
    /// The view whose application is not yet told.
    applying: Option<u64>,
    stopping: bool,
}

#[derive(Debug)]
enum Todo {
    Call(Call),
    Control(Asker, Box<ControllerRequest>),
    Coordinate(Coordination),
    Answer(ReplyTo, Answered),
    Pump(ConnectionKey),
    Local(Message),
}

impl Shard {
    /// A shard that knows nobody yet; its partitions come with the first view.
    pub fn new(
        id: ShardId,
        node: Arc<Node>,
        view: Arc<ClusterView>,
        directories: Arc<[DirectoryFacts]>,
        control: Option<Box<ControlHost>>,
    ) -> Self {
        let session_slots = node.config.fetch_session_slots.div_ceil(u32::from(node.shard_count)) as usize;
        let may_move = node.config.shard_connections_move && node.shard_count > 1;
        let move_rule = may_move.then(MoveRule::default);
        let mut replicas = Replicas::new(id, &node.config, directories);
        replicas.share_rates(node.shard_count);
        let coordinators = Coordinators::new(id, &node.config);
        let seed = node.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            id,
            peers: peers::Peers::new(&node.config, seed),
            node,
            view,
            connections: Slab::new(),
            generation_next: 1,
            timers: Timers::default(),
            checking: checking::Lanes::default(),
            replicas,
            coordinators,
            control,
            todo: VecDeque::new(),
            held_back: VecDeque::new(),
            outputs: Vec::new(),
            dirty: Vec::new(),
            held_up: Vec::new(),
            early: Vec::new(),
            move_rule,
            shut: false,
            admitted_bytes: 0,
            desk: Desk::new(FetchSessions::new(id, session_slots), seed),
            applying: None,
            stopping: false,
        }
    }

    /// Begins: the controller's shard starts its log; every shard asks for what it needs.
    pub fn start(&mut self, now: Now) {
        if let Some(control) = &mut self.control {
            control.start(&self.node.config, self.peers.is_clustered(), &mut self.outputs);
        }
        self.tell_offline_directories();
        self.run_control(now);
        self.work(now);
    }

    /// This shard's number on its node.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The cluster as this shard sees it.
    pub fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// The replicas of this shard.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Gives back what is kept from one batch, and from one turn, to the next.
    pub fn rest(&mut self) {
        self.desk.codecs = CodecPool::default();
        self.desk.calls.shrink_to(QUEUE_KEPT);
        self.todo.shrink_to(QUEUE_KEPT);
        self.outputs.shrink_to(QUEUE_KEPT);
        self.replicas.shrink_to(QUEUE_KEPT);
    }

    /// What all requests that are not answered yet cost, in bytes; the shell admits frames by it.
    pub fn admitted_bytes(&self) -> usize {
        self.admitted_bytes
    }

    /// Takes the outputs left since the last call. The vector given comes back in their place,
    /// so that two of them serve for ever.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        into.clear();
        std::mem::swap(&mut self.outputs, into);
    }

    /// A connection is gone, whoever closed it.
    pub fn disconnect(&mut self, now: Now, key: ConnectionKey) {
        if self.connection(key).is_none() {
            return;
        }
        self.forget_connection(key);
        let (_, connection) = self.connections.remove(key.slot as usize);
        let (context, session) = (connection.context, connection.session);
        let (works, cost_bytes) = connection.abandon();
        self.admitted_bytes -= cost_bytes;
        for (number, work) in works {
            let to = self.address(key, number);
            self.in_scene(now, context, |scene| work.cancel(to, scene));
        }
        self.desk.sessions.leave(session);
        self.route(now);
        self.work(now);
    }

    /// A connection's requests and unsent answers.
    pub fn connection(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        find(&mut self.connections, key)
    }

    fn address(&self, key: ConnectionKey, request: u32) -> ReplyTo {
        ReplyTo { shard: self.id.0, connection: key.slot, generation: key.generation, request, part: 0 }
    }

    /// A whole frame has arrived, without its length prefix.
    pub fn frame(&mut self, now: Now, key: ConnectionKey, frame: Bytes) {
        let connection = find(&mut self.connections, key).filter(|connection| !connection.closing);
        let Some(connection) = connection else { return };
        let door = self.node.door(connection.context.listener);
        match connection.accept(frame, door, &mut self.desk.refusals) {
            Ok(cost_bytes) => {
                let overtaken = connection.overtaken();
                self.admitted_bytes += cost_bytes;
                self.todo.push_back(Todo::Pump(key));
                if let Some(number) = overtaken {
                    let to = self.address(key, number);
                    self.with_work(now, to, |work, _, to, scene| work.timeout(to, scene));
                }
                self.work(now);
            }
            Err(reason) => self.close(key, reason),
        }
    }

    /// Has a connection closed for what it sent: nothing behind that can be trusted.
    fn close(&mut self, key: ConnectionKey, reason: CloseReason) {
        if let Some(connection) = self.connection(key) {
            connection.closing = true;
        }
        self.outputs.push(Output::Close(key, reason));
        self.tell_refusals();
    }

    /// A message of another shard has arrived.
    pub fn message(&mut self, now: Now, from: ShardId, message: Message) {
        self.take_message(now, from, message);
        self.work(now);
    }

    fn take_message(&mut self, now: Now, from: ShardId, message: Message) {
        if self.must_hold_back(from, &message) {
            return self.held_back.push_back((from, message));
        }
        match message {
            Message::Call { call, .. } => self.todo.push_back(Todo::Call(call)),
            Message::Delivery(Delivery { to, answer, span }) => {
                self.todo.push_back(Todo::Answer(to, Answered::Partition(answer, span)));
            }
            Message::Control { to, is_peer, request } => {
                self.todo.push_back(Todo::Control(Asker::of(to, is_peer), request));
            }
            Message::Answered(to, answered) => self.todo.push_back(Todo::Answer(to, answered)),
            Message::Coordinate { coordination, .. } => self.todo.push_back(Todo::Coordinate(coordination)),
            Message::Publish(view) => self.adopt(now, view),
            Message::Applied(version) => self.applied(now, from, version),
            Message::Survey => {
                let expiration_ms = i64::try_from(self.view.config.producer_id_expiration_ms);
                self.replicas.expire_producers(now, expiration_ms.unwrap_or(i64::MAX));
                let (progress, opening) = (self.replicas.progress(), self.replicas.opening());
                self.tell_control(Message::Surveyed(progress, opening));
            }
            Message::Surveyed(progress, opening) => self.surveyed(from, (progress, opening), false),
            Message::DirectoryOffline(directory) => {
                self.desk.directory_failed(directory);
                self.coordinators.fail_directory(now, directory);
                self.drain_coordinators();
                self.replicas.fail_directory(now, directory);
                self.drain_replicas();
                self.control_directory_failed(now, directory);
            }
            Message::StoreLogStarts(starts) => self.store_log_starts(from, starts),
            Message::LogStartsStored(starts) => {
                for start in starts {
                    self.replicas.log_start_stored(now, &start);
                }
                self.drain_replicas();
            }
            Message::Moved(moved) => self.replica_moved(&moved),
            Message::PreferDirectory(wish) => self.directory_preferred(wish),
            Message::Peers(message) => self.peers_message(now, message),
            Message::Stop => self.stop(now),
            Message::Stopped(progress) => self.surveyed(from, (progress, 0), true),
        }
    }

    /// A call routed by a view that we have not adopted yet waits, and so does everything behind
    /// it from the same sender: the order per connection and partition holds.
    fn must_hold_back(&self, from: ShardId, message: &Message) -> bool {
        let (Message::Call { version, .. } | Message::Coordinate { version, .. }) = message else {
            return false;
        };
        *version > self.view.version || self.held_back.iter().any(|(sender, _)| *sender == from)
    }

    /// A new view: partitions are opened, changed and retired until they agree with it.
    fn adopt(&mut self, now: Now, view: Arc<ClusterView>) {
        let version = view.version;
        let before = std::mem::replace(&mut self.view, Arc::clone(&view));
        let removed = view.removed.iter().filter_map(|id| before.image.topic_by_id(*id));
        let removed: Vec<Arc<str>> = removed.map(|topic| Arc::clone(&topic.name)).collect();
        self.replicas.outdate(removed.iter());
        if !Arc::ptr_eq(&before.config, &view.config) {
            self.outputs.push(Output::Configured(Arc::clone(&view.config)));
        }
        self.replicas.reconcile(now, &before, &view);
        self.drain_replicas();
        self.reconcile_coordinators(now, &removed);
        self.peers_review();
        self.todo.extend(self.early.drain(..).map(Todo::Pump));
        self.applying = Some(version);
        for (from, message) in std::mem::take(&mut self.held_back) {
            self.take_message(now, from, message);
        }
    }

    /// A message for the controller's shard, which may be this one.
    fn tell_control(&mut self, message: Message) {
        if self.control.is_some() {
            self.todo.push_back(Todo::Local(message));
        } else {
            self.outputs.push(Output::Send(ShardId(0), message));
        }
    }

    /// A file operation has ended.
    pub fn completed(&mut self, now: Now, owner: Owner, ticket: Ticket, result: FileResult) {
        match owner {
            Owner::Replica(slot) => {
                self.replicas.completed(now, slot, ticket, result, &self.view);
                self.drain_replicas();
            }
            Owner::Controller | Owner::Directory(_) => self.control_completed(now, owner, ticket, result),
        }
        self.work(now);
    }

    /// What a read found is open for sending, or could not be opened.
    pub fn opened(&mut self, now: Now, slot: u32, to: ReplyTo, found: ReadFound, span: Option<ByteSpan>) {
        self.replicas.span_opened(now, slot);
        self.drain_replicas();
        let answer = if span.is_some() {
            Answer::Read(found)
        } else {
            Answer::Failed {
                error: crate::wire::ErrorCode::KafkaStorageError,
                log_start_offset: found.log_start_offset,
            }
        };
        self.deliver(Delivery { to, answer, span });
        self.work(now);
    }

    /// How much room the log directories have, by index, for a request that asked.
    pub fn measured(&mut self, now: Now, to: ReplyTo, space: Vec<Option<DiskSpace>>) {
        self.todo.push_back(Todo::Answer(to, Answered::Space(space)));
        self.work(now);
    }

    /// The recovery of a replica has ended.
    pub fn recovered(&mut self, now: Now, slot: u32, result: Result<Opened, RecoveryError>) {
        self.replicas.recovered(now, slot, result, &self.view);
        self.drain_replicas();
        self.work(now);
    }

    /// The turn is over: what was gathered is written. To be called again while it leaves outputs.
    pub fn end_turn(&mut self, now: Now) {
        self.replicas.end_turn(now);
        self.drain_replicas();
        self.peers_go_on(now);
        self.work(now);
        self.take_up(now);
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(connection) = self.connection(key) {
                connection.flush_asked = false;
                self.outputs.push(Output::Flush(key));
            }
        }
        self.dirty = dirty;
    }

    /// Goes on with connections whose clients have taken answers.
    fn take_up(&mut self, now: Now) {
        if self.held_up.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.held_up) {
            if let Some(connection) = self.connection(key) {
                connection.held_up = false;
                self.todo.push_back(Todo::Pump(key));
            }
        }
        self.work(now);
    }

    /// When [`Shard::wake`] wants to be called next.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let timers = [
            self.timers.next_ms(),
            self.checking.next_wake_ms(),
            self.replicas.next_wake_ms(),
            self.coordinators.next_wake_ms(),
            self.control.as_ref().and_then(|control| control.next_wake_ms()),
            self.peers.next_wake_ms(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Now) {
        while let Some(to) = self.timers.rung(now.mono_ms) {
            self.with_work(now, to, |work, _, to, scene| work.timeout(to, scene));
        }
        self.check_on(now);
        self.replicas.wake(now);
        self.drain_replicas();
        self.coordinators.wake(now);
        self.drain_coordinators();
        self.control_wake(now);
        self.peers_wake(now);
        self.work(now);
    }

    /// A clean stop of this shard: its replicas are closed, then [`Output::Closed`].
    fn stop(&mut self, now: Now) {
        (self.stopping, self.shut) = (true, true);
        let keys = self
            .connections
            .iter()
            .map(|(slot, (generation, _))| ConnectionKey { slot: slot as u32, generation: *generation });
        self.outputs.extend(keys.map(|key| Output::Close(key, CloseReason::Stopping)));
        self.peers_close();
        self.coordinators.close(now);
        self.drain_coordinators();
        self.replicas.close(now);
        self.drain_replicas();
    }

    /// Runs everything that this step made possible, to its end.
    fn work(&mut self, now: Now) {
        loop {
            while let Some(todo) = self.todo.pop_front() {
                match todo {
                    Todo::Call(call) => {
                        // A caller whose view is older than ours may ask for a topic that is gone.
                        let known = self.view.image.topic_by_id(call.topic_id).is_some();
                        self.replicas.call(now, call, known);
                        self.drain_replicas();
                    }
                    Todo::Coordinate(asked) => {
                        self.coordinators.request(now, asked);
                        self.drain_coordinators();
                    }
                    Todo::Answer(to, answered) => self.answer(now, to, answered),
                    Todo::Pump(key) => self.pump(now, key),
                    Todo::Control(asker, request) => self.control(now, asker, *request),
                    Todo::Local(message) => self.take_message(now, self.id, message),
                }
            }
            if !self.replicas.is_retiring()
                && let Some(version) = self.applying.take()
            {
                self.tell_control(Message::Applied(version));
            }
            if self.stopping && self.replicas.all_gone() {
                self.stopping = false;
                let progress = self.replicas.closed_progress();
                self.tell_control(Message::Stopped(progress));
                self.outputs.push(Output::Closed);
            }
            if self.todo.is_empty() {
                return;
            }
        }
    }

    /// Starts what may start and encodes what is next on the wire, until neither goes on.
    fn pump(&mut self, now: Now, key: ConnectionKey) {
        let view_version = self.view.version;
        loop {
            let Some(connection) = self.connection(key).filter(|connection| !connection.closing) else {
                return;
            };
            let context = connection.context;
            if let Some((header, work, cost_bytes)) = connection.next_done() {
                let mut outbox = std::mem::take(&mut connection.outbox);
                self.admitted_bytes -= cost_bytes;
                let encoded = self.in_scene(now, context, |scene| work.encode(&header, &mut outbox, scene));
                let session = self.desk.sessions.take_used();
                if let Some(connection) = self.connection(key) {
                    connection.outbox = outbox;
                    connection.session = session.unwrap_or(connection.session);
                    if !std::mem::replace(&mut connection.flush_asked, true) {
                        self.dirty.push(key);
                    }
                }
                if let Err(reason) = encoded {
                    return self.close(key, reason);
                }
                continue;
            }
            if connection.outbox.is_full() {
                // A client that takes no answers gets no more of them made.
                if !std::mem::replace(&mut connection.held_up, true) {
                    self.held_up.push(key);
                }
                return;
            }
            if connection.view_min > view_version {
                if !self.early.contains(&key) {
                    self.early.push(key);
                }
                return;
            }
            let Some((number, header, body)) = connection.next_start() else { return };
            let to = self.address(key, number);
            match self.in_scene(now, context, |scene| Work::start(&header, body, to, scene)) {
                Ok(mut work) => {
                    self.queue_check(to, &mut work);
                    let waits_for_others = work.waits_for_others();
                    let session = self.desk.sessions.take_used();
                    if let Some(connection) = self.connection(key) {
                        connection.session = session.unwrap_or(connection.session);
                        connection.run(number, work);
                        let released = if waits_for_others { connection.release(number) } else { 0 };
                        self.admitted_bytes -= released;
                    }
                }
                Err(reason) => return self.close(key, reason),
            }
        }
    }

    /// Gives an answer to the request that waits for it.
    fn answer(&mut self, now: Now, to: ReplyTo, answered: Answered) {
        if Coordinators::is_addressed(to) {
            if let Answered::Partition(answer, span) = answered {
                self.coordinators.answered(now, to, answer, span);
                self.drain_coordinators();
            }
            return;
        }
        if to.session_id().is_some() {
            return self.session_told(now, to, &answered);
        }
        self.with_work(now, to, |work, header, to, scene| work.answer(header, to, answered, scene));
    }

    /// Steps one running request and pumps its connection when that finished it.
    fn with_work(
        &mut self,
        now: Now,
        to: ReplyTo,
        step: impl FnOnce(&mut Work, &crate::wire::header::RequestHeader, ReplyTo, &mut Scene),
    ) {
        let key = ConnectionKey::of(to);
        let Some(connection) = find(&mut self.connections, key) else { return };
        let context = connection.context;
        let Some((header, work)) = connection.running(to.request) else { return };
        let mut scene =
            Scene { now, shard: self.id, node: &self.node, view: &self.view, context, desk: &mut self.desk };
        step(work, header, to, &mut scene);
        let done = work.is_done();
        self.route(now);
        if done {
            self.todo.push_back(Todo::Pump(key));
        }
    }

    fn pump_later(&mut self, to: ReplyTo) {
        let key = ConnectionKey::of(to);
        self.todo.push_back(Todo::Pump(key));
    }

    fn in_scene<T>(&mut self, now: Now, context: RequestContext, step: impl FnOnce(&mut Scene) -> T) -> T {
        let mut scene =
            Scene { now, shard: self.id, node: &self.node, view: &self.view, context, desk: &mut self.desk };
        let result = step(&mut scene);
        self.route(now);
        result
    }
}

/// A connection that is still there, where the rest of its shard is borrowed.
fn find(connections: &mut Slab<(u32, Connection)>, key: ConnectionKey) -> Option<&mut Connection> {
    let (generation, connection) = connections.get_mut(key.slot as usize)?;
    (*generation == key.generation).then_some(connection)
}
