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
            return self.tell_asker(to, QuorumTold::Taken(Err(ErrorCode::InvalidVoterKey)));
        }
        self.control_inputs(now, messages.into_iter().map(|bytes| Input::Message { from, bytes }));
        match &mut self.peers.post {
            // The answer may wait for what there is to say to the sender.
            Some(post) => post.called(now, from.raft_id, to),
            None => self.tell_asker(to, QuorumTold::Taken(Ok(Vec::new()))),
        }
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
