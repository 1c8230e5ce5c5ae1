//! An operator who deletes topics and makes them again under the same names, in the middle of everything. In the end
//! each is there once and whole: the last one that was made, and none that was deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest, MetadataResponse,
};
use uuid::Uuid;

use super::PASSING;
use super::admin::{TOO_FEW_BROKERS, Wanted, creatable, missing_of};
use super::pilot::partition_in;
use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_name};
use crate::faults::Fault;

const EXISTS: i16 = 36;
/// The first version in which a topic that is made is told with its id.
const CREATE_TELLS_IDS: i16 = 7;
/// The first version in which a topic is deleted by its id.
const DELETE_KNOWS_IDS: i16 = 6;

/// A topic in its care.
#[derive(Debug)]
struct Topic {
    /// Its place among the topics' names.
    at: usize,
    wanted: Wanted,
    /// What the last look or answer said; none where nobody knows.
    state: Option<State>,
    /// The one that was made last, where nobody was asked to delete it.
    made: Option<Uuid>,
    /// A request by name was not answered: it may still be carried out.
    overtaken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Present(Uuid),
}

#[derive(Debug)]
enum Ask {
    Look,
    Create(usize),
    /// The topic, and its id where it is deleted by that.
    Delete(usize, Option<Uuid>),
}

/// The operator.
#[derive(Debug)]
pub struct Churner {
    link: Link<Ask>,
    topics: Vec<Topic>,
    deleted: BTreeSet<Uuid>,
    rest_ms: u64,
    not_before_us: u64,
    look_due: bool,
    /// What is still wrong, as the last look in calm times had it.
    missing: Option<String>,
    is_whole: bool,
}

impl Churner {
    /// One that cares for these topics, and rests for about so long between two requests.
    pub fn new(topics: Vec<(usize, Wanted)>, rest_ms: u64) -> Self {
        let topic = |(at, wanted)| Topic { at, wanted, state: None, made: None, overtaken: false };
        Self {
            link: Link::new("churner".into()),
            topics: topics.into_iter().map(topic).collect(),
            deleted: BTreeSet::new(),
            rest_ms,
            not_before_us: 0,
            look_due: true,
            missing: None,
            is_whole: false,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = self.link.in_flight() > 0 || stage.now_us < self.not_before_us;
        if !self.link.is_up(stage) || waits {
            return;
        }
        if self.look_due {
            let names: Vec<String> = self.topics.iter().map(|topic| stage.names[topic.at].clone()).collect();
            let version = stage.random.i16(10..=12);
            return self.link.send(&metadata_request(&names, version), version, Some(Ask::Look), stage);
        }
        // In calm times it goes on looking: what was asked for long ago may be carried out yet.
        let absent = self.topics.iter().position(|topic| topic.state == Some(State::Absent));
        match absent.filter(|_| stage.calm || stage.random.bool()) {
            Some(at) => self.create(at, stage),
            None if stage.calm => self.look_due = true,
            None => {
                let at = stage.random.usize(0..self.topics.len());
                match self.topics[at].state {
                    Some(State::Absent) => self.create(at, stage),
                    Some(State::Present(id)) => self.delete(at, id, stage),
                    None => self.look_due = true,
                }
            }
        }
    }

    fn create(&mut self, at: usize, stage: &mut Stage) {
        let topic = &mut self.topics[at];
        topic.state = None;
        let delay = if stage.random.bool() { "0" } else { "700" };
        let more = [("file.delete.delay.ms", delay)];
        let creatable = creatable(&topic.wanted, &stage.names[topic.at], &more);
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(5_000);
        self.link.send(&request, stage.random.i16(2..=CREATE_TELLS_IDS), Some(Ask::Create(at)), stage);
    }

    fn delete(&mut self, at: usize, id: Uuid, stage: &mut Stage) {
        let topic = &mut self.topics[at];
        (topic.state, topic.made) = (None, None);
        let version = stage.random.i16(1..=DELETE_KNOWS_IDS);
        let by_id = (version >= DELETE_KNOWS_IDS).then_some(id);
        let name = topic_name(&stage.names[topic.at]);
        let request = DeleteTopicsRequest::default().with_timeout_ms(5_000);
        let request = match by_id {
            Some(id) => request.with_topics(vec![DeleteTopicState::default().with_topic_id(id)]),
            None => request.with_topic_names(vec![name]),
        };
        self.link.send(&request, version, Some(Ask::Delete(at, by_id)), stage);
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match response.ask {
            Ask::Look => self.looked(&response.decode::<MetadataRequest>(), stage),
            Ask::Create(at) => {
                let answer = response.decode::<CreateTopicsRequest>();
                let told = answer.topics.first().expect("the topic asked for");
                match told.error_code {
                    0 => {
                        let id = Some(told.topic_id).filter(|id| !id.is_nil());
                        assert!(!id.is_some_and(|id| self.deleted.contains(&id)), "a topic's id comes twice");
                        (self.topics[at].made, self.topics[at].state) = (id, id.map(State::Present));
                    }
                    error => {
                        let known = [EXISTS, TOO_FEW_BROKERS].contains(&error) || PASSING.contains(&error);
                        assert!(known, "create: error {error}");
                    }
                }
                self.rest(stage);
            }
            Ask::Delete(at, by_id) => {
                self.told_deletion(at, by_id, &response.decode::<DeleteTopicsRequest>(), stage)
            }
        }
    }

    fn told_deletion(
        &mut self,
        at: usize,
        by_id: Option<Uuid>,
        answer: &DeleteTopicsResponse,
        stage: &mut Stage,
    ) {
        let told = answer.responses.first().expect("the topic asked for");
        match told.error_code {
            0 => {
                self.topics[at].state = Some(State::Absent);
                self.deleted.extend(by_id);
                stage.actions.push(Action::Hit(Fault::TopicDeleted));
            }
            error => assert!(PASSING.contains(&error), "delete: error {error}"),
        }
        self.rest(stage);
    }

    /// It waits a little, and mostly looks then what is there.
    fn rest(&mut self, stage: &mut Stage) {
        let rest_us = if stage.calm { 60_000 } else { 2_000 * self.rest_ms };
        self.not_before_us = stage.now_us + stage.random.u64(1_000..=rest_us);
        self.look_due |= stage.random.u8(0..3) > 0;
        self.leave_sometimes(stage);
    }

    /// Another broker may know more, or be the one that is wrong.
    fn leave_sometimes(&mut self, stage: &mut Stage) {
        if stage.random.u8(0..3) == 0 {
            let lost = self.link.close(stage);
            self.lost(lost);
        }
    }

    fn looked(&mut self, metadata: &MetadataResponse, stage: &mut Stage) {
        self.look_due = false;
        let mut missing = None;
        for topic in &mut self.topics {
            let name = &stage.names[topic.at];
            let found = partition_in(metadata, name, 0).map(|(id, _)| id);
            topic.state = Some(found.map_or(State::Absent, State::Present));
            stage.history.flushed.extend(found.map(|id| (id, topic.wanted.flushed)));
            missing = missing.or_else(|| missing_of(metadata, name, &topic.wanted));
            let is_gone = found.is_some_and(|id| self.deleted.contains(&id));
            if is_gone || !topic.overtaken && topic.made.is_some_and(|id| found != Some(id)) {
                missing = Some(format!("{name} is {found:?}, and the last one made is {:?}", topic.made));
            }
        }
        self.is_whole = stage.calm && missing.is_none();
        self.missing = missing;
        let most_us = if self.is_whole { 600_000 } else { 60_000 };
        self.not_before_us = stage.now_us + stage.random.u64(1_000..most_us);
        self.leave_sometimes(stage);
    }

    /// These are not answered any more.
    fn lost(&mut self, asks: Vec<Ask>) {
        self.look_due = true;
        for ask in asks {
            if let Ask::Create(at) | Ask::Delete(at, None) = ask {
                self.topics[at].overtaken = true;
            }
        }
    }
}

impl Client for Churner {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        let lost = self.link.closed(stage);
        self.lost(lost);
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.is_whole
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
