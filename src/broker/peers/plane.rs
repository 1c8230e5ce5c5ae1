//! The controller's shard of a node that is not alone: the envoy's news, what other shards want of it, and joining and
//! leaving the cluster.

use std::collections::BTreeMap;

use super::super::control::Asker;
use super::joining::Wish;
use super::*;
use crate::request::Answered;

impl Shard {
    /// Makes the node part of a cluster of several; only on the controller's shard, and before anything else comes.
    pub fn join_cluster(&mut self, now: Now, start: PeersStart) {
        let cluster = &self.node.config.cluster;
        let seed = self.node.seed;
        let node_id = start.registration.node_id;
        let heart = start.is_broker.then(|| {
            let rules = HeartRules {
                interval_ms: cluster.heartbeat_interval_ms,
                registration_ms: cluster.registration_timeout_ms,
                session_ms: cluster.session_timeout_ms,
            };
            Heart::new(now, rules, start.previous_epoch)
        });
        let rules = EnvoyRules { session_ms: cluster.session_timeout_ms, ask_ms: cluster.request_timeout_ms };
        let cluster_id = Arc::clone(&start.registration.cluster_id);
        let asks = start.endpoint.port == 0;
        let joining = Joining::new(start.raft_id, start.endpoint);
        let mut envoy = Envoy::new(start.registration, start.voters, heart, joining, rules, seed);
        *envoy.directories_mut() = Assignments::new(start.directory_ids);
        self.peers.envoy = Some(Box::new(envoy));
        self.peers.post = Some(Box::new(RaftPost::new(cluster_id, node_id, start.raft_id, asks, seed)));
        self.peers_elsewhere();
        self.work(now);
    }

    /// The quorum has told who leads it and in which term; `None` while nobody does. Inside a step: what follows from
    /// it is carried on at the step's end.
    pub(in crate::broker) fn controller_is(&mut self, leader: Option<i32>, term: u64) {
        if let Some(envoy) = &mut self.peers.envoy {
            envoy.learn(leader, term);
            self.peers_elsewhere();
        }
    }

    /// Who is a member of the quorum, and where: for the envoy, and for raft messages. Who votes speaks to every
    /// member, and who learns to those who vote.
    pub(in crate::broker) fn members_are(&mut self, raft_id: u64, members: Members) {
        let Peers { ids, envoy, post, members: known, .. } = &mut self.peers;
        let is_voter = members.is_voter(raft_id);
        let reachable = members.iter().filter(|member| member.endpoint.port > 0);
        let voters = VoterAddress::of(&members);
        if let Some(envoy) = envoy {
            envoy.joining().set_known(members.get(raft_id));
            if !voters.is_empty() {
                envoy.set_voters(voters);
            }
        }
        let peers = reachable.filter(|member| is_voter || member.is_voter).map(|member| RaftAddress {
            raft_id: member.raft_id,
            node_id: member.node_id,
            address: (Arc::clone(&member.endpoint.host), member.endpoint.port),
        });
        let peers: Vec<_> = peers.collect();
        let askers = members.learners().filter(|member| member.endpoint.port == 0);
        let askers: Vec<u64> = askers.map(|member| member.raft_id).collect();
        if let Some(post) = post {
            post.set_peers(&peers, ids, &mut self.outputs);
            post.set_askers(&askers);
        }
        *known = members;
    }

    /// A raft message for another controller, by its raft id.
    pub(in crate::broker) fn send_raft(&mut self, to: u64, message: Bytes) {
        let Peers { post, post_events, .. } = &mut self.peers;
        if let Some(post) = post {
            post.send(to, message, post_events);
        }
    }

    /// Every shard has applied this Image version, and serves what it says.
    pub(in crate::broker) fn peers_applied(&mut self, now: Now, image_version: u64) {
        let Some(envoy) = &mut self.peers.envoy else { return };
        match envoy.heart() {
            Some(heart) => {
                heart.applied(now, image_version);
                heart.ready(now);
            }
            // A node that is only a controller has nothing else to wait for.
            None => self.control_is_ready(),
        }
    }

    /// Tells every shard whether clients' changes go to another node, when that has changed.
    fn peers_elsewhere(&mut self) {
        let is_elsewhere = self.peers.envoy.as_ref().is_some_and(|envoy| !envoy.is_here());
        if std::mem::replace(&mut self.peers.told_elsewhere, is_elsewhere) != is_elsewhere {
            self.tell_everyone(|| Message::Peers(PeersMessage::Elsewhere(is_elsewhere)));
        }
    }

    /// Whether a clean stop of the node has to wait: the controller is asked to let the broker go first. It begins by
    /// itself when that has happened.
    pub(in crate::broker) fn peers_hold_stop(&mut self, now: Now) -> bool {
        let Peers { envoy, events, is_leaving, .. } = &mut self.peers;
        if !self.node.config.cluster.controlled_shutdown && envoy.take().is_some() {
            *is_leaving = true;
            // Nobody is asked to let the broker go, but a controller that leads gives its place away.
            self.control_inputs(now, [controller::Input::Resign]);
            return false;
        }
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
                None => self.reply(to, Answered::Forwarded(None)),
            },
            PeersMessage::InDirectory(key, directory) => {
                // A node that is alone is known to nobody.
                if let Some(directories) = self.peers.directories_mut()
                    && let Some(id) = directories.ids().get(usize::from(directory)).copied().flatten()
                {
                    directories.tell(key, id);
                }
            }
            PeersMessage::BrokerEpoch(epoch) => followers.set_broker_epoch(epoch),
            PeersMessage::Gone(process) => self.broker_gone(now, process),
            PeersMessage::Left(Process { node_id, incarnation }) => {
                self.control_inputs(now, [controller::Input::BrokerLeft { node_id, incarnation }]);
            }
            PeersMessage::Elsewhere(is_elsewhere) => {
                self.peers.is_elsewhere = is_elsewhere;
                self.desk.forwards_changes = is_elsewhere;
            }
            PeersMessage::Quorum(to, ask) => self.quorum_asked(now, to, ask),
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
            EnvoyEvent::Forwarded(to, response) => self.reply(to, Answered::Forwarded(response)),
            EnvoyEvent::Controlled(to, answer) => self.reply(to, Answered::Controller(Box::new(answer))),
            EnvoyEvent::Members(members) => self.quorum_has(members),
            EnvoyEvent::Here(beat) => self.beat_here(now, beat),
            EnvoyEvent::HereAlter(changes) => {
                let Some(envoy) = &self.peers.envoy else { return };
                let (node_id, epoch) = (envoy.who().node_id, envoy.epoch());
                let changes = changes.into_iter().map(|((id, index), change)| (id, index, change)).collect();
                let request = ControllerRequest::AlterPartition { node_id, epoch, changes };
                self.control(now, Asker::Changes, request);
            }
            EnvoyEvent::HereAssign(replicas) => {
                let Some(envoy) = &self.peers.envoy else { return };
                let (node_id, epoch) = (envoy.who().node_id, envoy.epoch());
                let assignments = replicas.into_iter().map(|((id, index), directory)| (id, index, directory));
                let assignments = assignments.collect();
                let request = ControllerRequest::AssignReplicas { node_id, epoch, assignments };
                self.control(now, Asker::Directories, request);
            }
            EnvoyEvent::HereQuorum(wish) => {
                let Some(envoy) = &mut self.peers.envoy else { return };
                let (node_id, leader_epoch) = (envoy.who().node_id, envoy.leader_epoch());
                let (raft_id, endpoint) = (envoy.joining().raft_id(), envoy.joining().endpoint().clone());
                let request = match wish {
                    Wish::Member => ControllerRequest::JoinQuorum { node_id, raft_id, endpoint },
                    Wish::Moved => {
                        ControllerRequest::UpdateVoter { node_id, raft_id, leader_epoch, endpoint }
                    }
                };
                self.control(now, Asker::Joining, request);
            }
        }
    }

    /// What this broker says to the controller that is here.
    fn beat_here(&mut self, now: Now, beat: Beat) {
        let Some(envoy) = &self.peers.envoy else { return };
        let who = envoy.who();
        let (asker, request) = match beat {
            Beat::Register { previous_epoch } => {
                let request = ControllerRequest::RegisterBroker {
                    node_id: who.node_id,
                    incarnation: who.incarnation,
                    listeners: who.listeners.clone(),
                    rack: who.rack.clone(),
                    directories: who.directories.clone(),
                    previous_epoch,
                    cluster_id: Some(Arc::clone(&who.cluster_id)),
                };
                (Asker::Registration, request)
            }
            Beat::Heartbeat { epoch, applied_version, wants_fence, wants_shutdown } => {
                let node_id = who.node_id;
                let request = ControllerRequest::Heartbeat {
                    node_id,
                    epoch,
                    applied_version,
                    wants_fence,
                    wants_shutdown,
                    offline_directories: envoy.directories().offline().to_vec(),
                };
                (Asker::Heartbeat, request)
            }
        };
        self.control(now, asker, request);
    }

    /// The controller that is here has answered what this node asked for itself.
    pub(in crate::broker) fn answered_here(&mut self, now: Now, asker: Asker, answer: ControllerAnswer) {
        let Peers { envoy, events, .. } = &mut self.peers;
        let Some(envoy) = envoy else { return };
        let error = |answer| match answer {
            ControllerAnswer::Refused(code) => code,
            _ => ErrorCode::UnknownServerError,
        };
        match (asker, answer) {
            (Asker::Registration, ControllerAnswer::Registered { epoch }) => {
                envoy.beaten_here(now, &BeatAnswer::Registered(Ok(epoch)), events);
            }
            (Asker::Registration, other) => {
                envoy.beaten_here(now, &BeatAnswer::Registered(Err(error(other))), events);
            }
            (Asker::Heartbeat, ControllerAnswer::Heartbeat(answer)) => {
                envoy.beaten_here(now, &BeatAnswer::Beaten(answer), events);
            }
            (Asker::Heartbeat, other) => {
                envoy.beaten_here(now, &BeatAnswer::Beaten(Err(error(other))), events);
            }
            (Asker::Changes, ControllerAnswer::Isr(Ok(changed))) => {
                let altered = changed.into_iter().map(|(id, index, state)| ((id, index), state)).collect();
                envoy.altered_here(now, Ok(altered), events);
            }
            (Asker::Changes, ControllerAnswer::Isr(Err(code))) => envoy.altered_here(now, Err(code), events),
            (Asker::Changes, other) => envoy.altered_here(now, Err(error(other)), events),
            (Asker::Directories, ControllerAnswer::Assigned(result)) => {
                envoy.directories_mut().answered(now, result);
            }
            (Asker::Directories, other) => envoy.directories_mut().answered(now, Err(error(other))),
            (Asker::Joining, ControllerAnswer::QuorumChanged(result)) => {
                envoy.joining().answered(now, result.map_err(|error| error.code));
            }
            (Asker::Joining, other) => envoy.joining().answered(now, Err(error(other))),
            (Asker::Request(_) | Asker::Peer(_), _) => {}
        }
        self.peers_tell(now);
    }

    fn heart_told(&mut self, now: Now, event: HeartEvent) {
        let said = match event {
            HeartEvent::Registered(epoch) => {
                self.tell_everyone(|| Message::Peers(PeersMessage::BrokerEpoch(epoch)));
                self.control_is_registered(epoch);
                // Whoever was unregistered is fed no longer, until it asks again.
                self.peers.envoy.iter_mut().for_each(|envoy| envoy.joining().begin_again());
                format!("registered with broker epoch {epoch}")
            }
            HeartEvent::CaughtUp => "caught up with the metadata of the cluster".to_owned(),
            HeartEvent::Unfenced => {
                // Before, no metadata names this broker.
                self.control_is_ready();
                "unfenced: this broker serves".to_owned()
            }
            HeartEvent::Fenced => {
                "fenced: this broker serves nobody until the controller hears of it".to_owned()
            }
            HeartEvent::MayStop => {
                self.peers.envoy = None;
                self.control_inputs(now, [controller::Input::Resign]);
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
    fn broker_gone(&mut self, now: Now, process: Process) {
        let Process { node_id, incarnation } = process;
        self.outputs
            .push(Output::Say(format!("broker {node_id} is gone: its connection ended and nobody listens")));
        self.control_inputs(now, [controller::Input::BrokerGone { node_id, incarnation }]);
    }
}
