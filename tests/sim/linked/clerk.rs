//! A client that adds to lists in a topic's configuration, something new each time: what was acknowledged is committed,
//! and is there in the end whoever is the active controller by then.

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

/// Lists of replicas whose rate is limited; nothing depends on them where no rate is.
const KEYS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// Words that are added, at most: a list is written whole each time.
const WORDS_MAX: usize = 200;
const OF_TOPIC: i8 = 2;
const APPEND: i8 = 2;
/// Brokers that are asked in the end.
const LOOKS: usize = 4;

#[derive(Debug)]
enum Ask {
    /// Adds the word of that number.
    Add(usize),
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
}

impl Clerk {
    /// One that alters it about so often.
    pub fn new(every_ms: u64) -> Self {
        let (link, acked) = (Link::new("clerk".into()), BTreeSet::new());
        Self { link, every_ms, words: 0, acked, looks_left: LOOKS, not_before_us: 0 }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = self.link.in_flight() > 0 || stage.now_us < self.not_before_us;
        if !self.link.is_up(stage) || waits || self.looks_left == 0 {
            return;
        }
        if stage.calm {
            self.look(stage);
        } else if self.words < WORDS_MAX {
            self.add(stage);
        }
    }

    fn word(number: usize) -> String {
        format!("{}:1", 1_000 + number)
    }

    fn add(&mut self, stage: &mut Stage) {
        self.not_before_us = stage.now_us + stage.random.u64(0..=2 * self.every_ms * 1000);
        let number = self.words;
        self.words += 1;
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(KEYS[number % KEYS.len()]))
            .with_config_operation(APPEND)
            .with_value(Some(StrBytes::from_string(Self::word(number))));
        let resource = AlterConfigsResource::default()
            .with_resource_type(OF_TOPIC)
            .with_resource_name(StrBytes::from_string(stage.names[0].clone()))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.link.send(&request, stage.random.i16(0..=1), Some(Ask::Add(number)), stage);
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

    fn answered(&mut self, response: &Response<Ask>, stage: &mut Stage) {
        match response.ask {
            Ask::Look => self.looked(&response.decode::<DescribeConfigsRequest>(), stage),
            Ask::Add(number) => {
                match response.decode::<IncrementalAlterConfigsRequest>().responses[0].error_code {
                    0 => drop(self.acked.insert(Self::word(number))),
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
        self.looks_left == 0
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
