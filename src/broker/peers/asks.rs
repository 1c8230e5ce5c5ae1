//! What clients of this node want of the active controller: each waits until it can go, is asked again after a loss,
//! and is given back when its time is up.

use std::collections::VecDeque;

use bytes::Bytes;

use super::envoy::EnvoyEvent;
use super::messages;
use crate::controller::ControllerAnswer;
use crate::controller::request::NewTopic;
use crate::effect::Now;
use crate::partition::ReplyTo;
use crate::request::Forwarded;
use crate::wire::{ErrorCode, WireError};

/// Requests of clients that wait to go; more are refused.
const ASKS_MAX: usize = 1_024;
/// How long clients' requests rest after they met a node that does not lead, in milliseconds.
const REST_MS: u64 = 20;

/// What a client's request needs of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The whole request is the controller's.
    Forward(Forwarded),
    /// A block of producer ids.
    ProducerIds,
    /// Topics that somebody wants to use.
    Topics(Vec<NewTopic>),
}

/// One of them, and who waits for its answer.
#[derive(Debug)]
pub struct Asking {
    to: ReplyTo,
    ask: Ask,
    until_ms: u64,
}

impl Asking {
    /// One that is tried until then.
    pub fn new(to: ReplyTo, ask: Ask, until_ms: u64) -> Self {
        Self { to, ask, until_ms }
    }

    /// How long it may still take, in milliseconds.
    pub fn left_ms(&self, now: Now) -> u64 {
        self.until_ms.saturating_sub(now.mono_ms).max(1)
    }

    /// As a frame of the node with that broker epoch.
    pub fn frame(&self, now: Now, node_id: i32, epoch: i64, correlation_id: i32) -> Result<Bytes, WireError> {
        match &self.ask {
            Ask::Forward(forwarded) => messages::envelope(forwarded, correlation_id),
            Ask::ProducerIds => messages::allocate(node_id, epoch, correlation_id),
            Ask::Topics(topics) => {
                let timeout_ms = i32::try_from(self.left_ms(now)).unwrap_or(i32::MAX);
                messages::create_topics(topics, timeout_ms, correlation_id)
            }
        }
    }

    /// What an answer means to whoever waits; NOT_CONTROLLER where somebody else is to be asked.
    pub fn answered(&self, body: &Bytes) -> Result<Result<EnvoyEvent, ErrorCode>, WireError> {
        let to = self.to;
        match &self.ask {
            Ask::Forward(_) => messages::unwrapped(body)
                .map(|result| result.map(|response| EnvoyEvent::Forwarded(to, Some(response)))),
            Ask::ProducerIds => messages::allocated(body).map(|answer| controlled(to, answer)),
            Ask::Topics(_) => messages::created_topics(body).map(|answer| controlled(to, answer)),
        }
    }

    /// The answer where nobody could be asked.
    pub fn refused(self, error: ErrorCode) -> EnvoyEvent {
        match self.ask {
            Ask::Forward(_) => EnvoyEvent::Forwarded(self.to, None),
            Ask::ProducerIds | Ask::Topics(_) => {
                EnvoyEvent::Controlled(self.to, ControllerAnswer::Refused(error))
            }
        }
    }
}

/// An answer that came, or NOT_CONTROLLER where somebody else is to be asked.
fn controlled(to: ReplyTo, answer: ControllerAnswer) -> Result<EnvoyEvent, ErrorCode> {
    match answer {
        ControllerAnswer::Refused(ErrorCode::NotController) => Err(ErrorCode::NotController),
        answer => Ok(EnvoyEvent::Controlled(to, answer)),
    }
}

/// Those that wait, oldest first.
#[derive(Debug, Default)]
pub struct Asks {
    waiting: VecDeque<Asking>,
    rest_until_ms: u64,
}

impl Asks {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more. Gives its refusal where too many wait.
    pub fn push(&mut self, asking: Asking) -> Option<EnvoyEvent> {
        if self.waiting.len() >= ASKS_MAX {
            return Some(asking.refused(ErrorCode::NotController));
        }
        self.waiting.push_back(asking);
        None
    }

    /// The next one, unless they rest.
    pub fn next(&mut self, now: Now) -> Option<Asking> {
        if now.mono_ms < self.rest_until_ms {
            return None;
        }
        self.waiting.pop_front()
    }

    /// One that went and was not answered: it goes again before all others.
    pub fn put_back(&mut self, asking: Asking) {
        self.waiting.push_front(asking);
    }

    /// Whoever was asked does not lead: all of them rest for a moment.
    pub fn rest(&mut self, now: Now) {
        self.rest_until_ms = now.mono_ms + REST_MS;
    }

    /// Gives up all that wait.
    pub fn refuse_all(&mut self, error: ErrorCode) -> impl Iterator<Item = EnvoyEvent> + '_ {
        self.waiting.drain(..).map(move |asking| asking.refused(error))
    }

    /// Gives up those whose time is up.
    pub fn expire(&mut self, now: Now) -> impl Iterator<Item = EnvoyEvent> + use<> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (expired, left): (VecDeque<_>, _) = waiting.partition(|asking| asking.until_ms <= now.mono_ms);
        self.waiting = left;
        expired.into_iter().map(|asking| asking.refused(ErrorCode::RequestTimedOut))
    }

    /// When one can go, or its time is up, in monotonic milliseconds.
    pub fn next_wake_ms(&self, can_ask: bool) -> Option<u64> {
        let until = self.waiting.iter().map(|asking| asking.until_ms).min()?;
        Some(if can_ask { until.min(self.rest_until_ms) } else { until })
    }
}
