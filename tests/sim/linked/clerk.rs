//! A client that adds to lists in a topic's configuration, something new each time: what was acknowledged is committed,
//! and is there in the end whoever is the active controller by then. The lists are of replicas whose rate is limited;
//! it may also limit the rates of brokers, until nothing fails any more.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::PASSING;
use crate::client::{Action, Client, Link, Response, Stage};
use crate::faults::Fault;

/// Lists of replicas whose rate is limited, where their broker has a rate.
const KEYS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// Words that are added, at most: a list is written whole each time.
const WORDS_MAX: usize = 200;
const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
/// Bytes a second.
const VALUES: [&str; 4] = ["1", "300", "5000", "100000"];
/// How long nothing fails before rates are taken back: what was asked for before that has arrived.
const PATIENCE_US: u64 = 5_000_000;
const NOT_REGISTERED: i16 = 102;
const OF_TOPIC: i8 = 2;
const OF_BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
/// Brokers that are asked in the end.
const LOOKS: usize = 4;

#[derive(Debug)]
enum Ask {
    /// Adds the word of that number.
    Add(usize),
    /// Limits a rate of a broker.
    Limit,
    /// Takes this limit of a broker back.
    Free(i32, usize),
    Look,
}

/// The client.
#[derive(Debug)]
pub struct Clerk {
    link: Link<Ask>,
    every_ms: u64,
    words: usize,
    /// Words that were acknowledged.
    acked: BTreeSet<String>,
    /// Brokers that still have to show them.
    looks_left: usize,
    not_before_us: u64,
    /// Brokers there are, if it limits their rates now and then, else none.
    throttled: usize,
    /// Brokers that may have a limit, and which of the two.
    limited: BTreeSet<(i32, usize)>,
    calm_since_us: Option<u64>,
}

impl Clerk {
    /// One that alters it about so often, and limits the rates of so many brokers.
    pub fn new(every_ms: u64, throttled: usize) -> Self {
        Self {
            link: Link::new("clerk".into()),
            every_ms,
            words: 0,
            acked: BTreeSet::new(),
            looks_left: LOOKS,
            not_before_us: 0,
            throttled,
            limited: BTreeSet::new(),
            calm_since_us: None,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = self.link.in_flight() > 0 || stage.now_us < self.not_before_us;
        if !self.link.is_up(stage) || waits || self.looks_left == 0 {
            return;
        }
        if stage.calm {
            let since_us = *self.calm_since_us.get_or_insert(stage.now_us);
            match self.limited.first().copied() {
                Some(limited) if stage.now_us > since_us + PATIENCE_US => self.free(limited, stage),
                Some(_) => {}
                None => self.look(stage),
            }
        } else if self.throttled > 0 && stage.random.u8(0..3) == 0 {
            self.limit(stage);
        } else if self.words < WORDS_MAX {
            self.add(stage);
        }
    }

    /// Partitions and their replicas' brokers: at first some that there are, if rates are limited.
    fn word(&self, number: usize) -> String {
        let brokers = self.throttled.max(1);
        let first = if self.throttled > 0 { 0 } else { 1_000 };
        format!("{}:{}", first + number / brokers, number % brokers + 1)
    }

    fn limit(&mut self, stage: &mut Stage) {
        self.not_before_us = stage.now_us + stage.random.u64(0..=2 * self.every_ms * 1000);
        // A broker alters its own values only.
        let Some(broker) = self.link.at() else { return };
        let which = stage.random.usize(0..RATES.len());
        let value = *stage.random.choice(&VALUES).expect("some");
        self.limited.insert((broker, which));
        self.alter((OF_BROKER, broker.to_string()), (RATES[which], SET), Some(value), Ask::Limit, stage);
    }

    fn free(&mut self, (broker, which): (i32, usize), stage: &mut Stage) {
        if self.link.at() != Some(broker) {
            return drop(self.link.go_to(Some(broker), stage));
        }
        let ask = Ask::Free(broker, which);
        self.alter((OF_BROKER, broker.to_string()), (RATES[which], DELETE), None, ask, stage);
    }

    fn alter(
        &mut self,
        (kind, name): (i8, String),
        (key, operation): (&'static str, i8),
        value: Option<&str>,
        ask: Ask,
        stage: &mut Stage,
    ) {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_config_operation(operation)
            .with_value(value.map(|value| StrBytes::from_string(value.to_string())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.link.send(&request, stage.random.i16(0..=1), Some(ask), stage);
    }

    fn add(&mut self, stage: &mut Stage) {
        self.not_before_us = stage.now_us + stage.random.u64(0..=2 * self.every_ms * 1000);
        let number = self.words;
        self.words += 1;
        let (topic, key) = (stage.names[0].clone(), KEYS[number % KEYS.len()]);
        let word = self.word(number);
        self.alter((OF_TOPIC, topic), (key, APPEND), Some(&word), Ask::Add(number), stage);
    }

    fn look(&mut self, stage: &mut Stage) {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(OF_TOPIC)
            .with_resource_name(StrBytes::from_string(stage.names[0].clone()))
            .with_configuration_keys(Some(KEYS.map(StrBytes::from_static_str).to_vec()));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        self.link.send(&request, stage.random.i16(1..=4), Some(Ask::Look), stage);
    }

    fn looked(&mut self, answer: &DescribeConfigsResponse, stage: &mut Stage) {
        let result = &answer.results[0];
        let values = result.configs.iter().filter_map(|config| config.value.as_ref());
        let told: BTreeSet<&str> = values.flat_map(|value| value.split(',')).collect();
        // This broker may have to hear of some yet.
        if result.error_code == 0 && self.acked.iter().all(|word| told.contains(word.as_str())) {
            self.looks_left -= 1;
        }
        self.not_before_us = stage.now_us + stage.random.u64(1_000..100_000);
        drop(self.link.close(stage));
    }

    fn altered(&mut self, what: &Ask, stage: &mut Stage) {
        match what {
            Ask::Add(number) => drop(self.acked.insert(self.word(*number))),
            Ask::Free(broker, which) => drop(self.limited.remove(&(*broker, *which))),
            Ask::Limit => stage.actions.push(Action::Hit(Fault::Throttle)),
            Ask::Look => {}
        }
    }

    fn answered(&mut self, response: &Response<Ask>, stage: &mut Stage) {
        match response.ask {
            Ask::Look => self.looked(&response.decode::<DescribeConfigsRequest>(), stage),
            Ask::Add(_) | Ask::Limit | Ask::Free(..) => {
                match response.decode::<IncrementalAlterConfigsRequest>().responses[0].error_code {
                    0 => self.altered(&response.ask, stage),
                    // A broker that was forgotten, and has not registered again, has no values.
                    NOT_REGISTERED if !matches!(response.ask, Ask::Add(_)) => {}
                    error => assert!(PASSING.contains(&error), "IncrementalAlterConfigs: error {error}"),
                }
                if stage.random.u8(0..6) == 0 {
                    drop(self.link.close(stage));
                }
            }
        }
    }
}

impl Client for Clerk {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(&response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..60_000)));
    }

    fn is_done(&self) -> bool {
        self.looks_left == 0 && self.limited.is_empty()
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
