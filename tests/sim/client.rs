//! What every simulated client shares: real frames over a simulated connection, responses in the order of the requests,
//! and a deadline for each of them.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use uuid::Uuid;

use crate::faults::Fault;
use crate::history::History;

/// A request that is not answered after this much virtual time on an open connection is stuck.
const DEADLINE_US: u64 = 25_000_000;

/// What a client wants done.
#[derive(Debug)]
pub enum Action {
    /// Open a connection.
    Open,
    /// Open a connection to the broker of this id.
    OpenAt(i32),
    /// Send bytes on it.
    Send(Bytes),
    /// Close it.
    Close,
    /// Call [`Client::wake`] at this time.
    WakeAt(u64),
    /// What it did was a fault, and it came through.
    Hit(Fault),
    /// It is a good time for a power cut.
    CutPower { after_us: u64 },
    /// Leaders are going to be elected: it is a good time to take the next one from one of them.
    Overthrow,
}

/// What a client sees while it is stepped.
pub struct Stage<'a> {
    /// Virtual time.
    pub now_us: u64,
    /// The clients' wall clock.
    pub wall_ms: i64,
    /// The clients' stream of randomness.
    pub random: &'a mut fastrand::Rng,
    /// What all clients did and saw.
    pub history: &'a mut History,
    /// What it wants done.
    pub actions: &'a mut Vec<Action>,
    /// Names of the topics, by index.
    pub names: &'a [String],
    /// Which topics sync before they acknowledge.
    pub flushed: &'a [bool],
    /// How many of the topics, the first ones, are never deleted.
    pub lasting: usize,
    /// The power has failed at least once: what was not synced may be gone.
    pub power_was_cut: bool,
    /// Faults are over: what is left to do is to be finished.
    pub calm: bool,
    /// Brokers of the cluster. With several of them a client that meets the wrong one looks for the right one.
    pub brokers: usize,
    /// Machines of one cluster: a client says which broker it goes to.
    pub linked: bool,
    /// Of machines of one cluster: the id of the disk on which each keeps the metadata.
    pub disks: &'a [Uuid],
}

/// A broker does not lead what it was asked about.
pub const NOT_LEADER: i16 = 6;
/// Who coordinates a group is loading, not there, or somebody else.
const NO_COORDINATOR: [i16; 3] = [14, 15, 16];

impl Stage<'_> {
    /// Whether a topic is deleted now and then, and made again.
    pub fn is_made_again(&self, topic: usize) -> bool {
        topic >= self.lasting
    }

    /// Whether an error means that a group is to be asked for again, here or elsewhere.
    pub fn is_passing_of_group(&self, error: i16) -> bool {
        NO_COORDINATOR.contains(&error) || self.linked && crate::linked::PASSING.contains(&error)
    }

    /// Whether an error sends a client to another broker.
    pub fn leads_elsewhere(&self, error: i16) -> bool {
        error == NOT_LEADER && self.brokers > 1
    }
}

/// One simulated client.
pub trait Client {
    /// Its connection is open.
    fn opened(&mut self, stage: &mut Stage);
    /// Bytes arrived.
    fn received(&mut self, bytes: Bytes, stage: &mut Stage);
    /// Its connection is gone, or could not be opened.
    fn closed(&mut self, stage: &mut Stage);
    /// It is time.
    fn wake(&mut self, stage: &mut Stage);
    /// Nothing is left to do.
    fn is_done(&self) -> bool;
    /// Its connections may be closed for what it sends.
    fn is_hostile(&self) -> bool {
        false
    }
    /// For the words of a failure.
    fn state(&self) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { retry_at_us: u64 },
    Opening,
    Up,
}

#[derive(Debug)]
struct Outstanding<T> {
    correlation_id: i32,
    version: i16,
    deadline_us: u64,
    ask: T,
}

/// A client's connection. `T` says what a request was for.
#[derive(Debug)]
pub struct Link<T> {
    name: String,
    state: State,
    /// How many connections it has opened.
    pub number: u64,
    correlation_id: i32,
    outstanding: VecDeque<Outstanding<T>>,
    buffer: BytesMut,
    /// The broker that the next connection goes to; any of them where that is nobody.
    target: Option<i32>,
    /// The broker of this connection, where the client chose it.
    at: Option<i32>,
}

/// A response whose turn it was.
#[derive(Debug)]
pub struct Response<T> {
    /// What the request was for.
    pub ask: T,
    version: i16,
    frame: Bytes,
}

impl<T> Response<T> {
    /// The version that was asked in.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// The decoded body.
    pub fn decode<R: Request>(&self) -> R::Response {
        let mut frame = self.frame.clone();
        let header_version = <R::Response as HeaderVersion>::header_version(self.version);
        ResponseHeader::decode(&mut frame, header_version).expect("a response header");
        let response = R::Response::decode(&mut frame, self.version).expect("a response body");
        assert!(frame.is_empty(), "{} bytes behind a response of API {}", frame.len(), R::KEY);
        response
    }
}

impl<T: std::fmt::Debug> Link<T> {
    /// A connection that is to be opened.
    pub fn new(name: String) -> Self {
        Self {
            name,
            state: State::Down { retry_at_us: 0 },
            number: 0,
            correlation_id: 0,
            outstanding: VecDeque::new(),
            buffer: BytesMut::new(),
            target: None,
            at: None,
        }
    }

    /// The broker that it is connected to, where the client chose it.
    pub fn at(&self) -> Option<i32> {
        self.at
    }

    /// Goes to another broker, or to any; what was asked for and not answered comes back.
    pub fn go_to(&mut self, node_id: Option<i32>, stage: &mut Stage) -> Vec<T> {
        let lost = self.close(stage);
        self.target = node_id;
        lost
    }

    /// Whether it is open; opens it again when it is time. Ends the run if a response is overdue.
    pub fn is_up(&mut self, stage: &mut Stage) -> bool {
        if let Some(first) = self.outstanding.front() {
            assert!(
                first.deadline_us > stage.now_us,
                "stuck: {} waits for {:?} on connection {}",
                self.name,
                first.ask,
                self.number
            );
        }
        match self.state {
            State::Up => true,
            State::Down { retry_at_us } if retry_at_us <= stage.now_us => {
                self.state = State::Opening;
                stage.actions.push(if stage.linked {
                    let any = stage.random.i32(1..=stage.brokers as i32);
                    let node_id = self.target.take().unwrap_or(any);
                    self.at = Some(node_id);
                    Action::OpenAt(node_id)
                } else {
                    Action::Open
                });
                false
            }
            State::Down { .. } | State::Opening => false,
        }
    }

    /// It is open.
    pub fn opened(&mut self) {
        self.state = State::Up;
        self.number += 1;
    }

    /// It is gone; what was asked for and not answered comes back, oldest first.
    pub fn closed(&mut self, stage: &mut Stage) -> Vec<T> {
        self.state = State::Down { retry_at_us: stage.now_us + stage.random.u64(1_000..200_000) };
        self.buffer.clear();
        self.outstanding.drain(..).map(|outstanding| outstanding.ask).collect()
    }

    /// Closes it from this side.
    pub fn close(&mut self, stage: &mut Stage) -> Vec<T> {
        stage.actions.push(Action::Close);
        self.closed(stage)
    }

    /// How many requests are not answered.
    pub fn in_flight(&self) -> usize {
        self.outstanding.len()
    }

    /// What is not answered, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        self.outstanding.iter().map(|outstanding| &outstanding.ask)
    }

    /// Sends a request; without an `ask` there will be no response.
    pub fn send<R: Request>(&mut self, request: &R, version: i16, ask: Option<T>, stage: &mut Stage) {
        let correlation_id = self.correlation_id;
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(StrBytes::from_string(self.name.clone())));
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&[0; 4]);
        header.encode(&mut frame, R::header_version(version)).expect("a header of ours");
        request.encode(&mut frame, version).expect("a request of ours");
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        if let Some(ask) = ask {
            let deadline_us = stage.now_us + DEADLINE_US;
            self.outstanding.push_back(Outstanding { correlation_id, version, deadline_us, ask });
        }
        stage.actions.push(Action::Send(frame.freeze()));
    }

    /// Takes bytes in and gives the responses that are whole.
    pub fn received(&mut self, bytes: &Bytes) -> Vec<Response<T>> {
        self.buffer.extend_from_slice(bytes);
        let mut responses = Vec::new();
        while let Some(prefix) = self.buffer.first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if self.buffer.len() < 4 + length {
                break;
            }
            let mut frame = self.buffer.split_to(4 + length).freeze();
            frame.advance(4);
            let correlation_id = frame.clone().get_i32();
            let Some(first) = self.outstanding.pop_front() else {
                panic!("{} got response {correlation_id} to no request", self.name)
            };
            assert!(
                first.correlation_id == correlation_id,
                "{} got response {correlation_id} where {} was next",
                self.name,
                first.correlation_id
            );
            responses.push(Response { ask: first.ask, version: first.version, frame });
        }
        responses
    }
}

/// Asks for topics by name.
pub fn metadata_request(names: &[String], version: i16) -> MetadataRequest {
    let topic = |name: &String| {
        let name = TopicName(StrBytes::from_string(name.clone()));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    let request = MetadataRequest::default().with_topics(Some(names.iter().map(topic).collect()));
    if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request }
}

/// Id and number of partitions of a topic in a response; none where it is not there.
pub fn topic_in(response: &MetadataResponse, name: &str) -> Option<(Uuid, usize)> {
    let topic =
        response.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| n.as_str() == name))?;
    if topic.error_code != 0 {
        assert!(matches!(topic.error_code, 3 | 5), "topic {name} has error {}", topic.error_code);
        return None;
    }
    for partition in &topic.partitions {
        // LEADER_NOT_AVAILABLE is for what lies on a log directory that failed.
        let expected = if partition.offline_replicas.is_empty() { 0 } else { 5 };
        assert_eq!(partition.error_code, expected, "partition {} of {name}", partition.partition_index);
    }
    Some((topic.topic_id, topic.partitions.len()))
}

/// A topic's name as the library wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}
