//! What other members of the quorum say to this node's controller, and what requests ask of the quorum: carried to the
//! controller's shard, and answered from there.
//!
//! The connections of controllers are on any shard, like all others: their messages are few and small but for
//! snapshots, and the other requests that come by the same listener need no shard in particular.

use super::mailbox::MailDelivery;
use super::*;
use crate::controller::{Controller, Input};
use crate::request::{Answered, QuorumAsk, QuorumTold, RaftMail};

impl Shard {
    /// Carries what requests of this shard ask of the quorum to the controller's shard.
    pub(in crate::broker) fn ask_quorum(&mut self, asks: Vec<(ReplyTo, QuorumAsk)>) {
        for (to, ask) in asks {
            self.tell_control(Message::Peers(PeersMessage::Quorum(to, ask)));
        }
    }

    /// A request of some shard asks; on the controller's shard.
    pub(super) fn quorum_asked(&mut self, now: Now, to: ReplyTo, ask: QuorumAsk) {
        match ask {
            QuorumAsk::Mail(mail) => self.take_mail(now, to, mail),
            QuorumAsk::Leader => {
                let leader = self.controller().and_then(Controller::leader);
                self.tell_asker(to, QuorumTold::Leader(leader));
            }
        }
    }

    /// Messages are raft's next inputs, in the order in which they were sent. Those for another disk are nobody's here.
    fn take_mail(&mut self, now: Now, to: ReplyTo, mail: RaftMail) {
        let RaftMail { from, to: meant, messages } = mail;
        if self.controller().is_none_or(|controller| controller.raft_id() != meant) {
            // That this node has a new disk means that there was an old one. Anything else may be an address that is
            // wrong, from which nobody is to conclude anything.
            let was_meant = self.controller().is_some_and(|controller| controller.replaces(meant));
            let code = if was_meant { ErrorCode::InvalidVoterKey } else { ErrorCode::InconsistentVoterSet };
            return self.tell_asker(to, QuorumTold::Taken(Err(code)));
        }
        if let Some(envoy) = self.peers.envoy.as_mut().filter(|_| !messages.is_empty()) {
            envoy.joining().heard(now);
        }
        if let Some(post) = self.peers.post.as_mut().filter(|_| !messages.is_empty()) {
            post.expect(from.raft_id);
        }
        self.control_inputs(now, messages.into_iter().map(|bytes| Input::Message { from, bytes }));
        // A leader knows every member: who is none of them was thrown out, and is told.
        let is_stranger = self.controller().is_some_and(|controller| {
            controller.is_active() && controller.members().get(from.raft_id).is_none()
        });
        match &mut self.peers.post {
            Some(_) if is_stranger => {
                self.tell_asker(to, QuorumTold::Taken(Err(ErrorCode::VoterNotFound)));
            }
            // The answer may wait for what there is to say to the sender.
            Some(post) => post.called(now, from.raft_id, to),
            None => self.tell_asker(to, QuorumTold::Taken(Ok(Vec::new()))),
        }
    }

    /// What the links to other members have told: this node may be no member any more, or is fed.
    pub(super) fn post_told(&mut self, now: Now, told: &[PostEvent]) {
        let Some(envoy) = &mut self.peers.envoy else { return };
        if told.iter().any(|event| matches!(event, PostEvent::Message(..))) {
            envoy.joining().heard(now);
        }
        if told.iter().any(|event| matches!(event, PostEvent::NotMember(_))) {
            envoy.joining().begin_again();
        }
    }

    /// The controller has found that its disk replaces a lost one: the node is another member from now on.
    pub(in crate::broker) fn raft_id_is(&mut self, raft_id: u64) {
        let Peers { envoy, post, members, .. } = &mut self.peers;
        *members = Members::default();
        post.iter_mut().for_each(|post| post.set_raft_id(raft_id));
        envoy.iter_mut().for_each(|envoy| envoy.joining().renew(raft_id));
        self.outputs.push(Output::Say(format!(
            "the metadata quorum has a history that this disk lacks: it replaces a lost one, and joins as raft id \
             {raft_id}"
        )));
    }

    /// Answers frames of other members, with their mail where they wait for that.
    pub(super) fn deliver_mail(&mut self) {
        let Some(post) = &mut self.peers.post else { return };
        for MailDelivery { to, messages } in post.take_deliveries() {
            self.tell_asker(to, QuorumTold::Taken(Ok(messages)));
        }
    }

    fn tell_asker(&mut self, to: ReplyTo, told: QuorumTold) {
        self.reply(to, Answered::Quorum(told));
    }
}
