//! What a node has to say to the active controller of its cluster: its heart, the ISR changes of its leaders, and what
//! its clients want changed. Pure.
//!
//! Each of the three has a link of its own, as in Kafka: requests of one connection are answered in their order, and a
//! heartbeat that waits behind a topic of many partitions comes too late for the session. The heart's link is always
//! there, and what befalls it says whether the controller is; the other two are dialled when something is to go.
//!
//! Who leads is known from the quorum where this node takes part in it, and found by asking otherwise
//! ([`super::finder`]). Where it is this node itself nothing goes over a link: beats and changes are given back as
//! [`EnvoyEvent`]s for the controller that is here.
//!
//! What clients asked is asked again after a loss, until its time is up: a request that was lost may have been carried
//! out, as with any controller of Kafka's that fails before it answers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::asks::{Ask, Asking, Asks};
use super::assignments::Assignments;
use super::controller_links::ControllerLinks;
use super::fetcher::ReplicaKey;
use super::finder::{Finder, VoterAddress};
use super::followers::LinkIds;
use super::heart::{Beat, Heart, HeartEvent};
use super::isr::{Altered, IsrChanges, Settled};
use super::joining::{Joining, Wish};
use super::link::{Answered, Link, LinkId, LinkLoss, Loss};
use super::messages::{self, Registration};
use crate::broker::Output;
use crate::controller::{ControllerAnswer, HeartbeatAnswer, Members};
use crate::effect::Now;
use crate::partition::{IsrChange, ReplyTo};
use crate::wire::{ErrorCode, WireError};

/// What comes of it.
#[derive(Debug, PartialEq)]
pub enum EnvoyEvent {
    /// What the heart has to tell.
    Heart(HeartEvent),
    /// What became of ISR changes.
    Altered(Vec<Settled>),
    /// The response to a forwarded request, header and body. `None`: it is to be served here, where the controller
    /// leads now or refuses it in the words of its API.
    Forwarded(ReplyTo, Option<Bytes>),
    /// The answer to another request.
    Controlled(ReplyTo, ControllerAnswer),
    /// The active controller is here: it is to be asked this.
    Here(Beat),
    /// The active controller is here: it is to be asked for these changes.
    HereAlter(BTreeMap<ReplicaKey, IsrChange>),
    /// The active controller is here: it is to be told where these replicas are.
    HereAssign(BTreeMap<ReplicaKey, Uuid>),
    /// The active controller is here: what this node wants of the quorum.
    HereQuorum(Wish),
    /// This node is a member of the quorum, and these are.
    Members(Members),
}

/// What a request on a link was for.
#[derive(Debug)]
enum Purpose {
    Quorum(Wish),
    Register,
    Heartbeat,
    Alter,
    Assign,
    Ask(Asking),
}

/// How long an envoy waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvoyRules {
    /// `broker.session.timeout.ms`: how long the controller waits for a heartbeat.
    pub session_ms: u64,
    /// `request.timeout.ms`: how long a client's request is tried.
    pub ask_ms: u64,
}

/// A node's envoy at the active controller.
#[derive(Debug)]
pub struct Envoy {
    who: Registration,
    rules: EnvoyRules,
    seed: u64,
    finder: Finder,
    links: Option<ControllerLinks<Purpose>>,
    /// `None` on a node that is no broker.
    heart: Option<Heart>,
    joining: Joining,
    isr: IsrChanges,
    directories: Assignments,
    asks: Asks,
    /// The active controller is this node's own.
    is_here: bool,
    /// The term of who leads the quorum, -1 while nobody is known to.
    leader_epoch: i32,
    /// Voters where nobody listened when they were dialled last.
    deserted: BTreeSet<i32>,
}

impl Envoy {
    /// One that knows who votes. A node that is no broker has no heart.
    pub fn new(
        who: Registration,
        voters: Vec<VoterAddress>,
        heart: Option<Heart>,
        joining: Joining,
        rules: EnvoyRules,
        seed: u64,
    ) -> Self {
        Self {
            who,
            rules,
            seed,
            finder: Finder::new(voters),
            links: None,
            heart,
            joining,
            isr: IsrChanges::default(),
            directories: Assignments::default(),
            asks: Asks::default(),
            is_here: false,
            leader_epoch: -1,
            deserted: BTreeSet::new(),
        }
    }

    /// The heart, to be told what it cannot see; none on a node that is no broker.
    pub fn heart(&mut self) -> Option<&mut Heart> {
        self.heart.as_mut()
    }

    /// Who this node is.
    pub fn who(&self) -> &Registration {
        &self.who
    }

    /// The broker epoch, -1 while there is none.
    pub fn epoch(&self) -> i64 {
        self.heart.as_ref().map_or(-1, Heart::epoch)
    }

    /// The node's wish to be a member of the quorum.
    pub fn joining(&mut self) -> &mut Joining {
        &mut self.joining
    }

    /// The log directories of this node, and where its replicas are.
    pub fn directories(&self) -> &Assignments {
        &self.directories
    }

    /// These, to be told what is new; of a failure [`Envoy::directory_failed`] is.
    pub fn directories_mut(&mut self) -> &mut Assignments {
        &mut self.directories
    }

    /// A log directory has failed: the controller is to know at once, and it is registered no more.
    pub fn directory_failed(&mut self, now: Now, directory: u16) {
        let Some(failed) = self.directories.directory_failed(directory) else { return };
        self.who.directories.retain(|id| *id != failed);
        self.heart.iter_mut().for_each(|heart| heart.say_soon(now));
    }

    /// Whether a link is this one.
    pub fn owns(&self, link: LinkId) -> bool {
        self.links.as_ref().is_some_and(|links| links.owns(link))
    }

    /// The term of who leads the quorum, -1 while nobody is known to.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Whether the active controller is this node's own.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// The voters have changed.
    pub fn set_voters(&mut self, voters: Vec<VoterAddress>) {
        self.finder.set_voters(voters);
    }

    /// The quorum has told who leads, and in which term; `None` while nobody does.
    pub fn learn(&mut self, leader: Option<i32>, term: u64) {
        self.is_here = leader == Some(self.who.node_id);
        self.leader_epoch = leader.map_or(-1, |_| i32::try_from(term).unwrap_or(i32::MAX));
        self.finder.learn(leader);
    }

    /// A leader wants another ISR.
    pub fn alter(&mut self, key: ReplicaKey, change: IsrChange) {
        self.isr.ask(key, change);
    }

    /// A client wants something of the controller.
    pub fn ask(&mut self, now: Now, to: ReplyTo, ask: Ask, events: &mut Vec<EnvoyEvent>) {
        events.extend(self.asks.push(Asking::new(to, ask, now.mono_ms + self.rules.ask_ms)));
    }

    /// The answer of the controller that is here to a beat.
    pub fn beaten_here(&mut self, now: Now, answer: &BeatAnswer, events: &mut Vec<EnvoyEvent>) {
        let mut told = Vec::new();
        let Some(heart) = &mut self.heart else { return };
        match *answer {
            BeatAnswer::Registered(result) => heart.registered(now, result, &mut told),
            BeatAnswer::Beaten(result) => heart.beaten(now, result, &mut told),
        }
        self.tell(told, events);
    }

    /// The answer of the controller that is here to ISR changes.
    pub fn altered_here(
        &mut self,
        now: Now,
        answer: Result<Vec<Altered>, ErrorCode>,
        events: &mut Vec<EnvoyEvent>,
    ) {
        let altered = self.isr.answered(now, answer);
        events.extend((!altered.is_empty()).then_some(EnvoyEvent::Altered(altered)));
    }

    /// Says what is due, to whom it is due.
    pub fn go_on(
        &mut self,
        now: Now,
        ids: &mut LinkIds,
        events: &mut Vec<EnvoyEvent>,
        outputs: &mut Vec<Output>,
    ) {
        if self.is_here {
            return self.go_on_here(now, events, outputs);
        }
        if self.finder.all_others(self.who.node_id, |voter| self.deserted.contains(&voter)) {
            let mut told = Vec::new();
            self.heart.iter_mut().for_each(|heart| heart.left_alone(&mut told));
            self.tell(told, events);
        }
        self.point(now, ids, outputs);
        self.speak_of_life(now, outputs);
        self.speak_of_replicas(now, outputs);
        self.speak_for_clients(now, outputs);
    }

    fn speak_of_life(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let Some(ControllerLinks { life: link, .. }) = &mut self.links else { return };
        link.want(now, outputs);
        let (who, joining, answer_ms) = (&self.who, &mut self.joining, self.rules.session_ms / 2);
        if link.may_send()
            && let Some(wish) = joining.next(now)
        {
            let frame = |id| match wish {
                Wish::Member => Ok(messages::join(who, joining, id)),
                Wish::Moved => messages::update_voter(who, joining, self.leader_epoch, id),
            };
            send(now, link, Purpose::Quorum(wish), answer_ms, frame, outputs);
        }
        if link.may_send()
            && let Some(beat) = self.heart.as_mut().and_then(|heart| heart.next(now))
        {
            let purpose =
                if let Beat::Register { .. } = beat { Purpose::Register } else { Purpose::Heartbeat };
            let offline = self.directories.offline();
            send(now, link, purpose, answer_ms, |id| messages::beat(who, offline, beat, id), outputs);
        }
    }

    fn speak_of_replicas(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let epoch = self.epoch();
        let Some(ControllerLinks { replicas: link, .. }) = &mut self.links else { return };
        // Whoever is not registered leads nothing.
        let has_news = epoch >= 0 && !(self.isr.is_empty() && self.directories.is_known_of_all());
        link.want_if(has_news, now, outputs);
        if !has_news {
            return;
        }
        let (node_id, answer_ms) = (self.who.node_id, self.rules.ask_ms);
        if link.may_send()
            && let Some(changes) = self.isr.next_request(now)
        {
            let frame = |id| messages::alter_partition(node_id, epoch, changes, id);
            send(now, link, Purpose::Alter, answer_ms, frame, outputs);
        }
        if link.may_send()
            && let Some(replicas) = self.directories.next_request(now)
        {
            let frame = |id| messages::assign_replicas(node_id, epoch, replicas, id);
            send(now, link, Purpose::Assign, answer_ms, frame, outputs);
        }
    }

    fn speak_for_clients(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let (node_id, epoch) = (self.who.node_id, self.epoch());
        let Some(ControllerLinks { clients: link, .. }) = &mut self.links else { return };
        link.want_if(!self.asks.is_empty(), now, outputs);
        while link.may_send() {
            let Some(asking) = self.asks.next(now) else { break };
            // The frame is made before the request is given away: it is made of it.
            let frame = asking.frame(now, node_id, epoch, link.correlation_next());
            let left_ms = asking.left_ms(now);
            send(now, link, Purpose::Ask(asking), left_ms, |_| frame, outputs);
        }
    }

    /// Gives what is due to the controller that is here.
    fn go_on_here(&mut self, now: Now, events: &mut Vec<EnvoyEvent>, outputs: &mut Vec<Output>) {
        if let Some(mut links) = self.links.take() {
            links.all().into_iter().for_each(|link| self.lost(now, link.close(outputs)));
        }
        events.extend(self.joining.next(now).map(EnvoyEvent::HereQuorum));
        events.extend(self.heart.as_mut().and_then(|heart| heart.next(now)).map(EnvoyEvent::Here));
        events.extend(self.isr.next_request(now).map(|changes| EnvoyEvent::HereAlter(changes.clone())));
        if self.epoch() >= 0 {
            let replicas = self.directories.next_request(now);
            events.extend(replicas.map(|replicas| EnvoyEvent::HereAssign(replicas.clone())));
        }
        events.extend(self.asks.refuse_all(ErrorCode::NotController));
    }

    /// Points the links at whoever is to be asked.
    fn point(&mut self, now: Now, ids: &mut LinkIds, outputs: &mut Vec<Output>) {
        let Some(target) = self.finder.target().cloned() else { return };
        match &mut self.links {
            Some(links) => {
                links.retarget(&target, outputs).into_iter().for_each(|loss| self.lost(now, loss));
            }
            None => self.links = Some(ControllerLinks::new(&target, ids, self.seed)),
        }
    }

    /// A dial has succeeded.
    pub fn up(&mut self, id: LinkId) {
        let Some(links) = &mut self.links else { return };
        self.deserted.remove(&links.node_id);
        links.find(id).into_iter().for_each(Link::up);
    }

    /// The connection or the dial has ended. Who cannot be reached is not asked again before the others.
    pub fn down(&mut self, now: Now, id: LinkId, loss: LinkLoss, outputs: &mut Vec<Output>) {
        let Some(links) = &mut self.links else { return };
        let is_life = links.life.id() == id;
        let Some(loss) = links.find(id).map(|link| link.down(now, loss)) else { return };
        if is_life {
            self.life_lost(now, &loss, outputs);
        }
        self.lost(now, loss);
    }

    /// The heart's link has ended: whether there is a controller at its other end.
    fn life_lost(&mut self, now: Now, loss: &Loss<Purpose>, outputs: &mut Vec<Output>) {
        let Some(links) = &mut self.links else { return };
        let node_id = links.node_id;
        if loss.loss == LinkLoss::Refused {
            self.deserted.insert(node_id);
        }
        // Who takes connections and answers nothing, again and again, is no controller.
        if matches!(loss.loss, LinkLoss::Refused | LinkLoss::Timeout) || loss.in_a_row > 1 {
            self.miss(node_id);
        }
        // What is silent here is silent on the other links too.
        if loss.loss == LinkLoss::Timeout
            && let Some(ControllerLinks { replicas, clients, .. }) = &mut self.links
        {
            let others = [replicas, clients].map(|link| link.close(outputs));
            others.into_iter().for_each(|loss| self.lost(now, loss));
        }
    }

    /// Whoever was asked is not to be asked next, unless somebody else is to be asked already.
    fn miss(&mut self, asked: i32) {
        if self.finder.target().is_some_and(|target| target.node_id == asked) {
            self.finder.miss();
        }
    }

    /// Nobody answers these any more.
    fn lost(&mut self, now: Now, loss: Loss<Purpose>) {
        for purpose in loss.unanswered.into_iter().rev() {
            match purpose {
                Purpose::Quorum(_) => self.joining.lost(now),
                Purpose::Register | Purpose::Heartbeat => {
                    self.heart.iter_mut().for_each(|heart| heart.lost(now));
                }
                Purpose::Alter => self.isr.lost(now),
                Purpose::Assign => self.directories.lost(now),
                Purpose::Ask(asking) => self.asks.put_back(asking),
            }
        }
    }

    /// An answer has come.
    pub fn frame(
        &mut self,
        now: Now,
        id: LinkId,
        frame: &Bytes,
        events: &mut Vec<EnvoyEvent>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(links) = &mut self.links else { return };
        let asked = links.node_id;
        let Some(link) = links.find(id).filter(|link| link.is_up()) else { return };
        let (purpose, body) = match link.frame(now, frame, outputs) {
            Answered::Body(purpose, body) => (purpose, body),
            Answered::Lost(loss) => return self.lost(now, loss),
        };
        if self.answered(now, asked, purpose, &body, events).is_err()
            && let Some(link) = self.links.as_mut().and_then(|links| links.find(id))
        {
            let loss = link.distrust(now, outputs);
            self.lost(now, loss);
        }
    }

    /// Takes an answer to one purpose. Where it makes no sense whoever asked is as good as lost.
    fn answered(
        &mut self,
        now: Now,
        asked: i32,
        purpose: Purpose,
        body: &Bytes,
        events: &mut Vec<EnvoyEvent>,
    ) -> Result<(), WireError> {
        let mut told = Vec::new();
        match purpose {
            Purpose::Quorum(wish) => {
                let answer = match wish {
                    Wish::Member => messages::joined(body),
                    Wish::Moved => messages::voter_updated(body).map(|result| (result, None)),
                };
                let (result, members) = answer.inspect_err(|_| self.joining.lost(now))?;
                match (result, members) {
                    (Ok(()), members) => events.extend(members.map(EnvoyEvent::Members)),
                    (Err(ErrorCode::NotController), members) => {
                        members.iter().for_each(|told| self.finder.hear_of(VoterAddress::of(told)));
                        self.miss(asked);
                    }
                    _ => {}
                }
                self.joining.answered(now, result);
            }
            Purpose::Register | Purpose::Heartbeat => {
                let Some(heart) = &mut self.heart else { return Ok(()) };
                if matches!(purpose, Purpose::Register) {
                    let result = messages::registered(body).inspect_err(|_| heart.lost(now))?;
                    heart.registered(now, result, &mut told);
                } else {
                    let result = messages::beaten(body).inspect_err(|_| heart.lost(now))?;
                    heart.beaten(now, result, &mut told);
                }
            }
            Purpose::Alter => {
                let result = messages::altered(body).inspect_err(|_| self.isr.lost(now))?;
                if result == Err(ErrorCode::NotController) {
                    self.miss(asked);
                }
                self.altered_here(now, result, events);
            }
            Purpose::Assign => {
                let result = messages::assigned(body).inspect_err(|_| self.directories.lost(now))?;
                if result == Err(ErrorCode::NotController) {
                    self.miss(asked);
                }
                self.directories.answered(now, result);
            }
            Purpose::Ask(asking) => return self.ask_answered(now, asked, asking, body, events),
        }
        if told.contains(&HeartEvent::NotController) {
            self.miss(asked);
        }
        self.tell(told, events);
        Ok(())
    }

    fn ask_answered(
        &mut self,
        now: Now,
        asked: i32,
        asking: Asking,
        body: &Bytes,
        events: &mut Vec<EnvoyEvent>,
    ) -> Result<(), WireError> {
        match asking.answered(body) {
            Ok(Ok(event)) => events.push(event),
            Ok(Err(ErrorCode::NotController)) => {
                self.miss(asked);
                self.asks.rest(now);
                self.asks.put_back(asking);
            }
            Ok(Err(error)) => events.push(asking.refused(error)),
            Err(error) => {
                events.push(asking.refused(ErrorCode::UnknownServerError));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Passes on what the heart has told. Who leads is this envoy's own business.
    fn tell(&mut self, told: Vec<HeartEvent>, events: &mut Vec<EnvoyEvent>) {
        let told = told.into_iter().filter(|event| *event != HeartEvent::NotController);
        events.extend(told.map(EnvoyEvent::Heart));
    }

    /// When [`Envoy::wake`] or [`Envoy::go_on`] wants to be called, in monotonic milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let links = self.links.as_ref();
        let can_ask = |link: fn(&ControllerLinks<Purpose>) -> &Link<Purpose>| {
            self.is_here || links.is_some_and(|links| link(links).may_send())
        };
        let can_live = can_ask(|links| &links.life);
        // What nobody registered leads is not asked for.
        let can_alter = can_ask(|links| &links.replicas) && self.epoch() >= 0;
        let own = [
            self.heart.as_ref().and_then(|heart| heart.next_wake_ms(can_live)),
            self.joining.next_wake_ms(can_live),
            self.isr.next_wake_ms(can_alter),
            self.directories.next_wake_ms(can_alter),
            self.asks.next_wake_ms(can_ask(|links| &links.clients)),
            links.and_then(ControllerLinks::next_wake_ms),
        ];
        own.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Now, events: &mut Vec<EnvoyEvent>, outputs: &mut Vec<Output>) {
        let mut told = Vec::new();
        self.heart.iter_mut().for_each(|heart| heart.wake(now, &mut told));
        self.tell(told, events);
        if let Some(links) = &mut self.links {
            let life = links.life.wake(now, outputs);
            let others = [&mut links.replicas, &mut links.clients].map(|link| link.wake(now, outputs));
            others.into_iter().flatten().for_each(|loss| self.lost(now, loss));
            if let Some(loss) = life {
                self.life_lost(now, &loss, outputs);
                self.lost(now, loss);
            }
        }
        events.extend(self.asks.expire(now));
    }

    /// The node wants to stop.
    pub fn begin_stop(&mut self, now: Now, events: &mut Vec<EnvoyEvent>) {
        let mut told = Vec::new();
        match &mut self.heart {
            Some(heart) => heart.begin_stop(now, &mut told),
            None => told.push(HeartEvent::MayStop),
        }
        self.tell(told, events);
    }
}

/// An answer of the controller that is here to a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatAnswer {
    /// To [`Beat::Register`]: the broker epoch.
    Registered(Result<i64, ErrorCode>),
    /// To [`Beat::Heartbeat`].
    Beaten(Result<HeartbeatAnswer, ErrorCode>),
}

/// Sends a request that this node has made; only a field that its version lacks could keep it from being encoded.
fn send(
    now: Now,
    link: &mut Link<Purpose>,
    purpose: Purpose,
    timeout_ms: u64,
    frame: impl FnOnce(i32) -> Result<Bytes, WireError>,
    outputs: &mut Vec<Output>,
) {
    let frame = |id| frame(id).expect("every field that is set is in the version that is spoken");
    link.send(now, purpose, timeout_ms, frame, outputs);
}

#[cfg(test)]
#[path = "envoy_tests.rs"]
mod tests;
