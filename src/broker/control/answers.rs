//! Answers of the controller: whom they wait for, and to whom they go.

use super::{Asker, ControlHost};
use crate::broker::{Output, Shard};
use crate::controller::ControllerAnswer;
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::request::Answered;

impl Asker {
    /// Who waits behind a request on a listener, of controllers or not.
    pub(in crate::broker) fn of(to: ReplyTo, is_peer: bool) -> Self {
        if is_peer { Self::Peer(to) } else { Self::Request(to) }
    }

    /// Whether who asked goes on with what this node's shards serve: then the answer leaves when every shard has
    /// applied what it tells. For everybody else it is enough that it is committed: a shard that is slow, or a device
    /// that is full, must not hold up what keeps other brokers alive, nor this one while it serves.
    fn reads_here(self, serves: bool) -> bool {
        match self {
            Self::Request(_) | Self::Registration => true,
            // The one that unfences it opens its door.
            Self::Heartbeat => !serves,
            Self::Peer(_) | Self::Changes | Self::Directories | Self::Joining => false,
        }
    }
}

impl ControlHost {
    /// The controller has answered, as of an Image version.
    pub(super) fn take_answer(&mut self, token: u64, version: u64, answer: ControllerAnswer, serves: bool) {
        let Some(asker) = self.waiting.remove(&token) else { return };
        if asker.reads_here(serves) {
            self.answers.push_back((asker, version, answer));
        } else {
            self.answers_at_once.push_back((asker, answer));
        }
    }

    /// The next answer that may leave.
    fn next_answer(&mut self) -> Option<(Asker, ControllerAnswer)> {
        let applied = self.applied_image;
        self.answers_at_once.pop_front().or_else(|| {
            let (asker, _, answer) = self.answers.pop_front_if(|(_, version, _)| *version <= applied)?;
            Some((asker, answer))
        })
    }
}

impl Shard {
    /// Hands out the answers that may leave.
    pub(super) fn release_answers(&mut self, now: Now) {
        while let Some((asker, answer)) = self.control.as_mut().and_then(|control| control.next_answer()) {
            match asker {
                Asker::Request(to) | Asker::Peer(to) => {
                    self.reply(to, Answered::Controller(Box::new(answer)));
                }
                Asker::Registration if !self.peers.is_clustered() => {
                    if let ControllerAnswer::Refused(code) = &answer {
                        self.outputs.push(Output::Fatal(format!("this broker cannot register: {code:?}")));
                        return;
                    }
                    self.control_is_ready();
                }
                own => self.answered_here(now, own, answer),
            }
        }
    }
}
