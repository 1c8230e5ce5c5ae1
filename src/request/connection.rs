//! The requests of one connection: started strictly in frame order, answered strictly in frame
//! order. Produce and Fetch may overlap; every other API is a barrier, started when all earlier
//! requests are answered and holding back all later ones until it is. A produce whose batches are still
//! being checked holds back all later requests too.

use std::collections::VecDeque;

use bytes::Bytes;

use super::outbox::Outbox;
use super::{CloseReason, Work};
use crate::security::Principal;
use crate::wire::StrBytes;
use crate::wire::api::Listener;
use crate::wire::header::{self, RequestHeader};

/// What a handler knows of who asks and through which door.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Index of the listener in the node's configuration; Metadata answers its endpoint.
    pub listener: usize,
    /// Who asks.
    pub principal: Principal,
}

/// One request from its frame to its response.
#[derive(Debug)]
pub struct Exchange {
    /// What the header says.
    pub header: RequestHeader,
    /// How many bytes its frame holds, for the shard's budget.
    pub frame_bytes: usize,
    stage: Stage,
}

impl Exchange {
    fn is_checking(&self) -> bool {
        matches!(&self.stage, Stage::Running(work) if work.is_checking())
    }
}

#[derive(Debug)]
enum Stage {
    /// Held back by a barrier.
    Queued(Bytes),
    /// Started.
    Running(Work),
}

/// The requests of one connection that are not answered yet, and its unsent answers.
#[derive(Debug)]
pub struct Connection {
    /// Who asks and through which door.
    pub context: RequestContext,
    /// What is encoded and not yet sent.
    pub outbox: Outbox,
    /// The shell has been told to send it.
    pub flush_asked: bool,
    /// The shell has been told to close it: no frame behind the reason is taken, started or answered.
    pub closing: bool,
    /// The client's name, kept apart from the frames so that a parked request holds none.
    client_id: Option<StrBytes>,
    exchanges: VecDeque<Exchange>,
    /// Number of the first exchange in the queue; numbers rise by one per frame.
    number_first: u32,
    started: usize,
}

impl Connection {
    /// A connection without requests.
    pub fn new(context: RequestContext) -> Self {
        Self {
            context,
            outbox: Outbox::default(),
            flush_asked: false,
            closing: false,
            client_id: None,
            exchanges: VecDeque::new(),
            number_first: 0,
            started: 0,
        }
    }

    /// Takes a frame in. Its header is checked against the API table; a version that is not
    /// served closes the connection, except for ApiVersions, which answers any; so does an API that
    /// is not for this door.
    pub fn accept(&mut self, frame: Bytes, door: Listener) -> Result<(), CloseReason> {
        let frame_bytes = frame.len();
        let (mut header, body) = header::parse(&frame)?;
        if !header.api.listeners.admit(door) {
            return Err(CloseReason::UnknownApi);
        }
        if header.client_id != self.client_id {
            self.client_id = header.client_id.as_ref().map(|id| StrBytes::from_string(id.to_string()));
        }
        header.client_id = self.client_id.clone();
        self.exchanges.push_back(Exchange { header, frame_bytes, stage: Stage::Queued(body) });
        Ok(())
    }

    /// The next request that may start now: its number, header and body.
    pub fn next_start(&mut self) -> Option<(u32, RequestHeader, Bytes)> {
        let at = self.started;
        let is_barrier = |exchange: &Exchange| exchange.header.api.barrier;
        let next = self.exchanges.get(at)?;
        let holds_back = |before: &Exchange| is_barrier(before) || before.is_checking();
        let held_back = at > 0 && (is_barrier(next) || self.exchanges.get(at - 1).is_some_and(holds_back));
        if held_back {
            return None;
        }
        let next = self.exchanges.get_mut(at)?;
        let Stage::Queued(body) = &mut next.stage else { return None };
        let body = std::mem::take(body);
        self.started += 1;
        let number = self.number_first.wrapping_add(at as u32);
        Some((number, next.header.clone(), body))
    }

    /// Puts a started request in its place.
    pub fn run(&mut self, number: u32, work: Work) {
        if let Some(exchange) = self.exchange_mut(number) {
            exchange.stage = Stage::Running(work);
        }
    }

    /// A started request that is not answered yet.
    pub fn running(&mut self, number: u32) -> Option<(&RequestHeader, &mut Work)> {
        let exchange = self.exchange_mut(number)?;
        match &mut exchange.stage {
            Stage::Running(work) => Some((&exchange.header, work)),
            Stage::Queued(_) => None,
        }
    }

    fn exchange_mut(&mut self, number: u32) -> Option<&mut Exchange> {
        self.exchanges.get_mut(number.wrapping_sub(self.number_first) as usize)
    }

    /// The first request, if it is done: its response is next on the wire.
    pub fn next_done(&mut self) -> Option<(RequestHeader, Work, usize)> {
        let first = self.exchanges.pop_front_if(|first| match &first.stage {
            Stage::Running(work) => work.is_done(),
            Stage::Queued(_) => false,
        })?;
        self.number_first = self.number_first.wrapping_add(1);
        self.started -= 1;
        match first.stage {
            Stage::Running(work) => Some((first.header, work, first.frame_bytes)),
            Stage::Queued(_) => None,
        }
    }

    /// Every started request with its number, for a connection that is gone, and the bytes of
    /// all frames that it held.
    pub fn abandon(self) -> (Vec<(u32, Work)>, usize) {
        let frame_bytes = self.exchanges.iter().map(|e| e.frame_bytes).sum();
        let numbers = (0..).map(|at: u32| self.number_first.wrapping_add(at));
        let works = numbers.zip(self.exchanges).filter_map(|(number, exchange)| match exchange.stage {
            Stage::Running(work) => Some((number, work)),
            Stage::Queued(_) => None,
        });
        (works.collect(), frame_bytes)
    }

    /// How many requests are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }
}
