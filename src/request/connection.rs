//! The requests of one connection: started strictly in frame order, answered strictly in frame
//! order. Produce and Fetch may overlap; every other API is a barrier, started when all earlier
//! requests are answered and holding back all later ones until it is. A produce whose batches are still
//! being checked holds back all later requests too.

use core::net::IpAddr;
use std::collections::VecDeque;

use bytes::Bytes;

use super::outbox::Outbox;
use super::refused::{Asker, Part, Refusal, Refusals, Why};
use super::traffic::Traffic;
use super::{CloseReason, Work};
use crate::security::Principal;
use crate::wire::api::{ApiKey, Listener};
use crate::wire::frame;
use crate::wire::header::{self, RequestHeader};
use crate::wire::{ErrorCode, StrBytes, WireError};

/// A request that has to wait keeps a slice of the buffer that it was received into only if it is
/// at least so long; a shorter one would hold a block of 256 KiB for a few bytes.
pub(super) const BODY_SHARED_BYTES: usize = 64 * 1024;

/// What a handler knows of who asks and through which door.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext {
    /// Index of the listener in the node's configuration; Metadata answers its endpoint.
    pub listener: usize,
    /// Where the client is.
    pub peer: IpAddr,
    /// Who asks.
    pub principal: Principal,
}

/// One request from its frame to its response.
#[derive(Debug)]
pub struct Exchange {
    /// What the header says.
    pub header: RequestHeader,
    /// How many bytes it takes of the shard's budget.
    pub cost_bytes: usize,
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
    /// Nothing more starts until its client takes answers.
    pub held_up: bool,
    /// The shell has been told to close it: no frame behind the reason is taken, started or answered.
    pub closing: bool,
    /// Where its requests go.
    pub traffic: Traffic,
    /// The fetch session that it used last; 0 for none.
    pub session: i32,
    /// It is another node's: what clients wait for may depend on what it sends.
    pub of_node: bool,
    /// It has seen the cluster as this version of the view says: nothing starts before.
    pub view_min: u64,
    /// The client's name, kept apart from the frames so that a parked request holds none.
    client_id: Option<StrBytes>,
    exchanges: VecDeque<Exchange>,
    /// Number of the first exchange in the queue; numbers rise by one per frame.
    number_first: u32,
    started: usize,
    /// What all its requests take of the shard's budget.
    cost_bytes: usize,
}

impl Connection {
    /// A connection without requests.
    pub fn new(context: RequestContext) -> Self {
        Self {
            context,
            outbox: Outbox::default(),
            flush_asked: false,
            held_up: false,
            closing: false,
            traffic: Traffic::default(),
            session: 0,
            of_node: false,
            view_min: 0,
            client_id: None,
            exchanges: VecDeque::new(),
            number_first: 0,
            started: 0,
            cost_bytes: 0,
        }
    }

    /// Whether no frame was taken in yet.
    pub fn is_new(&self) -> bool {
        self.number_first == 0 && self.exchanges.is_empty()
    }

    /// Takes a frame in. Its header is checked against the API table; a version that is not
    /// served closes the connection, except for ApiVersions, which answers any; so does an API that
    /// is not for this door.
    /// Gives what it takes of the shard's budget.
    pub fn accept(
        &mut self,
        frame: Bytes,
        door: Listener,
        refusals: &mut Refusals,
    ) -> Result<usize, CloseReason> {
        let (mut header, mut body) = self.parse(&frame, door, refusals)?;
        if header.client_id != self.client_id {
            self.client_id = header.client_id.as_ref().map(|id| StrBytes::from_string(id.to_string()));
        }
        header.client_id = self.client_id.clone();
        let cost_bytes = frame::cost_bytes(header.api, frame.len());
        if self.must_wait(self.exchanges.len(), header.api.barrier) && body.len() < BODY_SHARED_BYTES {
            body = Bytes::copy_from_slice(&body);
        }
        self.exchanges.push_back(Exchange { header, cost_bytes, stage: Stage::Queued(body) });
        self.cost_bytes += cost_bytes;
        Ok(cost_bytes)
    }

    /// The header and the body of a frame. That an API is not for this door is noted: it may be one that brokers alone
    /// ask of each other.
    fn parse(
        &self,
        frame: &Bytes,
        door: Listener,
        refusals: &mut Refusals,
    ) -> Result<(RequestHeader, Bytes), CloseReason> {
        let (key, client_id) = match header::parse(frame) {
            Ok((header, _)) if !header.api.listeners.admit(door) => (header.api.key as i16, header.client_id),
            Err(WireError::ApiUnknown { key }) => (key, None),
            parsed => return Ok(parsed?),
        };
        let why = Why { part: Some(Part::Api(key)), ..Why::from(ErrorCode::InvalidRequest) };
        refusals.note(Refusal::Api, Asker::Client(client_id.as_deref()), self.context.peer, why);
        Err(CloseReason::UnknownApi)
    }

    /// The Fetch of another node that the newest frame stands behind: if it waits for records, it shall no longer.
    pub fn overtaken(&self) -> Option<u32> {
        let at = self.exchanges.len().checked_sub(2)?;
        let before = self.exchanges.get(at).filter(|before| before.header.api.key == ApiKey::Fetch)?;
        let is_held = self.of_node && matches!(before.stage, Stage::Running(_));
        is_held.then(|| self.number_first.wrapping_add(at as u32))
    }

    /// Whether the request at a place in the queue waits for those before it.
    fn must_wait(&self, at: usize, is_barrier: bool) -> bool {
        let holds_back = |before: &Exchange| before.header.api.barrier || before.is_checking();
        at > 0 && (is_barrier || at > self.started || self.exchanges.get(at - 1).is_some_and(holds_back))
    }

    /// The next request that may start now: its number, header and body.
    pub fn next_start(&mut self) -> Option<(u32, RequestHeader, Bytes)> {
        let at = self.started;
        let is_barrier = self.exchanges.get(at)?.header.api.barrier;
        if self.must_wait(at, is_barrier) {
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

    /// A started request holds nothing of its frame any more: gives what it took of the shard's budget.
    pub fn release(&mut self, number: u32) -> usize {
        let Some(exchange) = self.exchange_mut(number) else { return 0 };
        let released = std::mem::take(&mut exchange.cost_bytes);
        self.cost_bytes -= released;
        released
    }

    /// A started request that is not answered yet.
    pub fn running(&mut self, number: u32) -> Option<(&RequestHeader, &mut Work)> {
        let exchange = self.exchange_mut(number)?;
        match &mut exchange.stage {
            Stage::Running(work) => Some((&exchange.header, work)),
            Stage::Queued(_) => None,
        }
    }

    /// Whether a request's answer has not gone out yet.
    pub fn waits(&self, number: u32) -> bool {
        (number.wrapping_sub(self.number_first) as usize) < self.exchanges.len()
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
        self.cost_bytes -= first.cost_bytes;
        match first.stage {
            Stage::Running(work) => Some((first.header, work, first.cost_bytes)),
            Stage::Queued(_) => None,
        }
    }

    /// Every started request with its number, for a connection that is gone, and what all its
    /// requests took of the budget.
    pub fn abandon(self) -> (Vec<(u32, Work)>, usize) {
        let numbers = (0..).map(|at: u32| self.number_first.wrapping_add(at));
        let works = numbers.zip(self.exchanges).filter_map(|(number, exchange)| match exchange.stage {
            Stage::Running(work) => Some((number, work)),
            Stage::Queued(_) => None,
        });
        (works.collect(), self.cost_bytes)
    }

    /// Whether everything that came is answered, and every answer has left.
    pub fn is_at_rest(&self) -> bool {
        self.exchanges.is_empty() && self.outbox.is_empty()
    }

    /// Whether it is to be read no further so that it comes to rest and can go where it wishes. A fetch may wait
    /// long; then its answer is the moment.
    pub fn comes_to_rest(&self) -> bool {
        let is_fetch = |exchange: &Exchange| matches!(&exchange.stage, Stage::Running(Work::Fetch(_)));
        self.traffic.wish().is_some() && !self.exchanges.iter().any(is_fetch)
    }

    /// How many requests are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// What they take of the shard's budget, in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Gives back memory that a busy time has taken.
    pub fn slim(&mut self) {
        if self.exchanges.is_empty() {
            self.exchanges = VecDeque::new();
        }
        self.outbox.slim();
    }
}
