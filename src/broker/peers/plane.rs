//! The controller's shard of a node that is not alone: the envoy's news, what other shards want of it, and joining and
//! leaving the cluster.

use std::collections::BTreeMap;

use super::*;

impl Shard {
    /// Makes the node part of a cluster of several; only on the controller's shard, and before anything else comes.
    pub fn join_cluster(&mut self, now: Now, start: PeersStart) {
        let seed = self.node.seed;
        let node_id = start.registration.node_id;
        let heart = Heart::new(now, start.heart, start.previous_epoch);
        let cluster_id = Arc::clone(&start.registration.cluster_id);
        let envoy = Envoy::new(start.registration, start.voters, heart, start.session_ms, seed);
        self.peers.envoy = Some(Box::new(envoy));
        self.peers.post =
            start.raft_id.map(|raft_id| Box::new(RaftPost::new(cluster_id, node_id, raft_id, seed)));
        self.peers_elsewhere();
        self.work(now);
    }

    /// The quorum has told who leads it; `None` while nobody does. Inside a step: what follows from it is carried on at
    /// the step's end.
    pub fn controller_is(&mut self, leader: Option<i32>) {
        if let Some(envoy) = &mut self.peers.envoy {
            envoy.learn(leader);
            self.peers_elsewhere();
        }
    }

    /// The voters and their addresses have changed: for the envoy, and for raft messages.
    pub fn voters_are(&mut self, voters: Vec<VoterAddress>, peers: &[RaftAddress]) {
        let Peers { ids, envoy, post, .. } = &mut self.peers;
        if let Some(envoy) = envoy {
            envoy.set_voters(voters);
        }
        if let Some(post) = post {
            post.set_peers(peers, ids, &mut self.outputs);
        }
    }

    /// A raft message for another controller, by its raft id.
    pub fn send_raft(&mut self, to: u64, message: Bytes) {
        let Peers { post, post_events, .. } = &mut self.peers;
        if let Some(post) = post {
            post.send(to, message, post_events);
        }
    }

    /// What raft is to know of the other controllers; taken each time something of other nodes came.
    pub fn take_post_events(&mut self) -> Vec<PostEvent> {
        std::mem::take(&mut self.peers.post_events)
    }

    /// Every shard has applied this Image version, and serves what it says.
    pub(in crate::broker) fn peers_applied(&mut self, now: Now, image_version: u64) {
        if let Some(envoy) = &mut self.peers.envoy {
            envoy.heart().applied(now, image_version);
            envoy.heart().ready(now);
        }
    }

    /// Tells every shard whether clients' changes go to another node, when that has changed.
    fn peers_elsewhere(&mut self) {
        let is_elsewhere = self.peers.envoy.as_ref().is_some_and(|envoy| !envoy.is_here());
        if is_elsewhere != self.peers.is_elsewhere {
            self.tell_everyone(|| Message::Peers(PeersMessage::Elsewhere(is_elsewhere)));
        }
    }

    /// Whether a clean stop of the node has to wait: the controller is asked to let the broker go first. It begins by
    /// itself when that has happened.
    pub(in crate::broker) fn peers_hold_stop(&mut self, now: Now) -> bool {
        let Peers { envoy, events, is_leaving, .. } = &mut self.peers;
        let Some(envoy) = envoy else { return false };
        if !std::mem::replace(is_leaving, true) {
            envoy.begin_stop(now, events);
            self.peers_go_on(now);
        }
        self.peers.envoy.is_some()
    }

    /// Something of other nodes, from another shard of this one or from this one itself.
    pub(in crate::broker) fn peers_message(&mut self, now: Now, message: PeersMessage) {
        let Peers { followers, envoy, events, .. } = &mut self.peers;
        match message {
            PeersMessage::Alter(changes) => {
                // A node that is alone has no ISR to change.
                if let Some(envoy) = envoy {
                    changes.into_iter().for_each(|(key, change)| envoy.alter(key, change));
                }
            }
            PeersMessage::Altered(altered) => self.take_altered(now, altered),
            PeersMessage::Ask(to, ask) => match envoy {
                Some(envoy) => envoy.ask(now, to, ask, events),
                None => self.answer_forwarded(to, None),
            },
            PeersMessage::Forwarded(to, response) => {
                self.todo.push_back(Todo::Answer(to, Answered::Forwarded(response)));
            }
            PeersMessage::BrokerEpoch(epoch) => followers.set_broker_epoch(epoch),
            PeersMessage::Gone(process) => self.broker_gone(now, process),
            PeersMessage::Elsewhere(is_elsewhere) => {
                self.peers.is_elsewhere = is_elsewhere;
                self.desk.forwards_changes = is_elsewhere;
            }
        }
        self.peers_go_on(now);
    }

    /// Carries out what the envoy has to tell.
    pub(super) fn peers_tell(&mut self, now: Now) {
        while !self.peers.events.is_empty() {
            for event in std::mem::take(&mut self.peers.events) {
                self.peers_event(now, event);
            }
        }
    }

    fn peers_event(&mut self, now: Now, event: EnvoyEvent) {
        match event {
            EnvoyEvent::Heart(event) => self.heart_told(now, event),
            EnvoyEvent::Altered(altered) => self.spread_altered(now, altered),
            EnvoyEvent::Forwarded(to, response) => self.answer_forwarded(to, response),
            EnvoyEvent::Controlled(to, answer) => self.answer_controlled(to, answer),
            EnvoyEvent::Here(beat) => {
                let refused = Err(ErrorCode::NotController);
                let answer = match beat {
                    Beat::Register { .. } => BeatAnswer::Registered(refused),
                    Beat::Heartbeat { .. } => BeatAnswer::Beaten(Err(ErrorCode::NotController)),
                };
                let Peers { envoy, events, .. } = &mut self.peers;
                envoy.iter_mut().for_each(|envoy| envoy.beaten_here(now, &answer, events));
            }
            EnvoyEvent::HereAlter(_) => {
                let Peers { envoy, events, .. } = &mut self.peers;
                let refused = || Err(ErrorCode::NotController);
                envoy.iter_mut().for_each(|envoy| envoy.altered_here(now, refused(), events));
            }
        }
    }

    fn heart_told(&mut self, now: Now, event: HeartEvent) {
        let said = match event {
            HeartEvent::Registered(epoch) => {
                self.tell_everyone(|| Message::Peers(PeersMessage::BrokerEpoch(epoch)));
                format!("registered with broker epoch {epoch}")
            }
            HeartEvent::CaughtUp => "caught up with the metadata of the cluster".to_owned(),
            HeartEvent::Unfenced => "unfenced: this broker serves".to_owned(),
            HeartEvent::Fenced => {
                "fenced: this broker serves nobody until the controller hears of it".to_owned()
            }
            HeartEvent::MayStop => {
                self.peers.envoy = None;
                return self.begin_stop(now);
            }
            HeartEvent::GiveUp(why) => return self.outputs.push(Output::Fatal(why)),
            HeartEvent::NotController => return,
        };
        self.outputs.push(Output::Say(said));
    }

    /// Brings what became of ISR changes to the shards whose leaders asked for them.
    fn spread_altered(&mut self, now: Now, altered: Vec<Settled>) {
        let mut by_shard: BTreeMap<ShardId, Vec<Settled>> = BTreeMap::new();
        for settled in altered {
            let ((topic_id, index), ..) = settled;
            let Some((shard, _)) = self.view.placement.shard_of(topic_id, index) else { continue };
            by_shard.entry(shard).or_default().push(settled);
        }
        for (shard, altered) in by_shard {
            if shard == self.id {
                self.take_altered(now, altered);
            } else {
                self.outputs.push(Output::Send(shard, Message::Peers(PeersMessage::Altered(altered))));
            }
        }
    }

    fn take_altered(&mut self, now: Now, altered: Vec<Settled>) {
        for (key, change, result) in altered {
            self.replicas.isr_altered(now, key, &change, result);
        }
        self.drain_replicas();
    }

    fn answer_forwarded(&mut self, to: ReplyTo, response: Option<Bytes>) {
        if to.shard == self.id.0 {
            self.todo.push_back(Todo::Answer(to, Answered::Forwarded(response)));
        } else {
            let message = Message::Peers(PeersMessage::Forwarded(to, response));
            self.outputs.push(Output::Send(ShardId(to.shard), message));
        }
    }

    fn answer_controlled(&mut self, to: ReplyTo, answer: ControllerAnswer) {
        let answer = Box::new(answer);
        if to.shard == self.id.0 {
            self.todo.push_back(Todo::Answer(to, Answered::Controller(answer)));
        } else {
            self.outputs.push(Output::Send(ShardId(to.shard), Message::Controlled { to, answer }));
        }
    }

    /// Sends on what clients want of the controller, where another node's decides. Gives back what only the controller
    /// that is here can say something to.
    pub(in crate::broker) fn ask_elsewhere(
        &mut self,
        to: ReplyTo,
        request: ControllerRequest,
    ) -> Option<ControllerRequest> {
        if !self.peers.is_elsewhere {
            return Some(request);
        }
        let ask = match request {
            ControllerRequest::AllocateProducerIds => Ask::ProducerIds,
            ControllerRequest::AutoCreateTopics { topics } => Ask::Topics(topics),
            other => return Some(other),
        };
        self.tell_control(Message::Peers(PeersMessage::Ask(to, ask)));
        None
    }

    /// Sends on the requests of clients that are the controller's as a whole.
    pub(in crate::broker) fn forward(&mut self, forwards: Vec<(ReplyTo, Forwarded)>) {
        for (to, forwarded) in forwards {
            self.tell_control(Message::Peers(PeersMessage::Ask(to, Ask::Forward(forwarded))));
        }
    }

    /// A broker's process is gone: its session need not run out.
    fn broker_gone(&mut self, _now: Now, process: Process) {
        let Process { node_id, .. } = process;
        self.outputs
            .push(Output::Say(format!("broker {node_id} is gone: its connection ended and nobody listens")));
    }
}
