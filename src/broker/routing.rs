//! Where things go: parts of requests to the shard that serves them, answers back to their connection's shard, and
//! what replicas leave behind to whoever it is for.

use super::control::Asker;
use super::message::{ConnectionKey, Delivery, Message, Output};
use super::moving::Crossings;
use super::{Shard, Todo, find};
use crate::controller::ShardId;
use crate::effect::Now;
use crate::group::OFFSETS_TOPIC;
use crate::partition::{Answer, ReplyTo};
use crate::request::Answered;

impl Shard {
    /// Sends what requests left in their scene to where it belongs.
    pub(super) fn route(&mut self, now: Now) {
        self.desk.settle_sessions(now);
        self.timers.extend(self.desk.timers.drain(..));
        if self.timers.have_doubled() {
            let connections = &mut self.connections;
            self.timers.keep(|to| {
                find(connections, ConnectionKey::of(to))
                    .is_some_and(|connection| connection.waits(to.request))
            });
        }
        self.outputs.extend(self.desk.space_asked.drain(..).map(Output::Measure));
        let mut crossings =
            self.move_rule.map(|rule| Crossings::new(rule, self.id, now, &mut self.connections));
        for call in self.desk.calls.drain(..) {
            let place = self.view.placement.shard_of(call.topic_id, call.partition);
            if let (Some(crossings), Some((owner, _))) = (&mut crossings, place) {
                crossings.note(call.to, owner, call.op.bytes());
            }
            match place {
                Some((owner, _)) if owner != self.id => {
                    let version = self.view.version;
                    self.outputs.push(Output::Send(owner, Message::Call { version, call }));
                }
                // Also where the partition is not on this node: the table of replicas refuses it.
                _ => self.todo.push_back(Todo::Call(call)),
            }
        }
        for coordination in self.desk.coordinations.drain(..) {
            let topic = self.view.image.topic(OFFSETS_TOPIC);
            let place =
                topic.and_then(|topic| self.view.placement.shard_of(topic.id, coordination.partition));
            if let (Some(crossings), Some((owner, _))) = (&mut crossings, place) {
                crossings.note(coordination.to, owner, 0);
            }
            match place {
                Some((owner, _)) if owner != self.id => {
                    let version = self.view.version;
                    self.outputs.push(Output::Send(owner, Message::Coordinate { version, coordination }));
                }
                // Also where nobody of this node leads the partition: that is answered here.
                _ => self.todo.push_back(Todo::Coordinate(coordination)),
            }
        }
        for to in self.desk.replicas_heard.drain(..) {
            if let Some(connection) = find(&mut self.connections, ConnectionKey::of(to)) {
                connection.of_node = true;
            }
        }
        for (to, node_id, broker_epoch) in std::mem::take(&mut self.desk.heard) {
            self.heard_heartbeat(ConnectionKey::of(to), node_id, broker_epoch);
        }
        if !self.desk.forwards.is_empty() {
            let forwards = std::mem::take(&mut self.desk.forwards);
            self.forward(forwards);
        }
        for wish in std::mem::take(&mut self.desk.preferred_directories) {
            self.tell_control(Message::PreferDirectory(wish));
        }
        let asks = std::mem::take(&mut self.desk.quorum);
        self.ask_quorum(asks);
        self.tell_refusals();
        self.route_controls();
    }

    /// Tells the operator of what was refused.
    pub(super) fn tell_refusals(&mut self) {
        self.outputs.extend(self.desk.refusals.take().into_iter().map(Output::Say));
    }

    /// Requests for the controller go to its shard, or to the node where it is active.
    fn route_controls(&mut self) {
        for (to, request) in std::mem::take(&mut self.desk.controls) {
            let Some(request) = self.ask_elsewhere(to, request) else { continue };
            let request = Box::new(request);
            let asker = self.connection(ConnectionKey::of(to));
            let is_peer = asker.is_some_and(|connection| connection.of_node);
            if self.control.is_some() {
                self.todo.push_back(Todo::Control(Asker::of(to, is_peer), request));
            } else {
                self.outputs.push(Output::Send(ShardId(0), Message::Control { to, is_peer, request }));
            }
        }
    }

    /// A watch of a fetch session says something.
    pub(super) fn session_told(&mut self, now: Now, to: ReplyTo, answered: &Answered) {
        let is_news = matches!(answered, Answered::Partition(Answer::News, _));
        if let Some((waiting, fired)) = self.desk.sessions.told_by_watch(to, is_news) {
            self.with_work(now, waiting, |work, _, to, scene| work.watch_fired(fired, to, scene));
        }
    }

    /// Brings what anybody but a partition has answered to the request's shard.
    pub(super) fn reply(&mut self, to: ReplyTo, answered: Answered) {
        let (todo, output) = reply(self.id, to, answered);
        self.todo.extend(todo);
        self.outputs.extend(output);
    }

    /// Brings an answer to its connection's shard.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        if delivery.to.shard == self.id.0 {
            let answered = Answered::Partition(delivery.answer, delivery.span);
            self.todo.push_back(Todo::Answer(delivery.to, answered));
        } else {
            self.outputs.push(Output::Send(ShardId(delivery.to.shard), Message::Delivery(delivery)));
        }
    }

    /// A log directory failed: every shard takes its replicas there offline. With the last
    /// directory the node has nothing left to serve.
    pub(super) fn directory_failed(&mut self, directory: u16) {
        self.outputs.push(Output::DirectoryOffline(directory));
        for shard in (0..self.node.shard_count).filter(|shard| *shard != self.id.0) {
            self.outputs.push(Output::Send(ShardId(shard), Message::DirectoryOffline(directory)));
        }
        self.todo.push_back(Todo::Local(Message::DirectoryOffline(directory)));
    }

    /// Hands on the answers that partitions gave.
    pub(super) fn drain_replicas(&mut self) {
        while let Some(directory) = self.replicas.take_failed_directory() {
            self.directory_failed(directory);
        }
        self.outputs.append(&mut self.replicas.outputs);
        let starts = self.replicas.take_log_starts();
        if !starts.is_empty() {
            self.tell_control(Message::StoreLogStarts(starts));
        }
        for moved in self.replicas.take_moved() {
            self.tell_control(Message::Moved(moved));
        }
        while let Some((topic_id, partition)) = self.replicas.take_leading() {
            self.coordinators.began_to_lead(topic_id, partition);
            self.drain_coordinators();
        }
        while let Some(delivery) = self.replicas.take_delivery() {
            self.deliver(delivery);
        }
    }
}

/// What brings an answer to the request's shard: to be done on this one, or to be sent.
pub(super) fn reply(here: ShardId, to: ReplyTo, answered: Answered) -> (Option<Todo>, Option<Output>) {
    if to.shard == here.0 {
        (Some(Todo::Answer(to, answered)), None)
    } else {
        (None, Some(Output::Send(ShardId(to.shard), Message::Answered(to, answered))))
    }
}
