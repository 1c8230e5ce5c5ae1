//! A client that alters configurations now and then, of topics and of the broker, and sees that what was acknowledged
//! is told by every shard, also after a crash. Nobody else alters the keys that it alters.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client::{Action, Client, Link, Response, Stage};
use crate::plan::Plan;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Kafka's numbers of where a value comes from: the topic's own, this broker's, all brokers'.
const OWN_SOURCES: [i8; 3] = [1, 2, 3];
const UNKNOWN_TOPIC: i16 = 3;
const RETRIABLE: [i16; 4] = [7, 41, 15, 56];

/// Keys and values that change how a log is written, and no record's fate.
const TOPIC_KEYS: [(&str, &[&str]); 8] = [
    ("internal.segment.bytes", &["4096", "16384", "65536"]),
    ("segment.ms", &["50", "1000", "604800000"]),
    ("segment.index.bytes", &["240", "4096"]),
    ("index.interval.bytes", &["0", "512", "4096"]),
    ("flush.ms", &["10", "500", "9223372036854775807"]),
    ("preallocate", &["true", "false"]),
    ("max.message.bytes", &["1048588", "2000000"]),
    ("message.timestamp.before.max.ms", &["9223372036854775807", "9223372036854775806"]),
];
const BROKER_KEYS: [(&str, &[&str]); 4] = [
    ("log.index.interval.bytes", &["0", "512", "4096"]),
    ("log.flush.interval.ms", &["15", "700"]),
    ("log.roll.ms", &["80", "604800000"]),
    ("num.io.threads", &["4", "9"]),
];

/// The least `retention.ms` that it gives.
pub const RETENTION_MS_MIN: i64 = 200;
/// What makes logs shorter by age.
pub const AGE_KEY: Row = ("retention.ms", &["200", "1500", "-1"]);
/// The least `retention.bytes` that it gives.
pub const RETENTION_BYTES_MIN: u64 = 1_000;
/// What makes logs shorter by size.
pub const SIZE_KEY: Row = ("retention.bytes", &["1000", "3000", "20000", "-1"]);

/// A resource's type and name.
type Resource = (i8, String);

/// A key and values for it.
pub type Row = (&'static str, &'static [&'static str]);

/// What a key must be told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// This, or no value of its own.
    Value(Option<String>),
    /// A request about it was not answered, and may be carried out at any time.
    Doubtful,
}

#[derive(Debug)]
enum Ask {
    Alter(Resource, &'static str, Option<String>),
    Describe(Resource),
}

/// The client.
#[derive(Debug)]
pub struct Tuner {
    link: Link<Ask>,
    resources: Vec<Resource>,
    expected: BTreeMap<(Resource, &'static str), Expected>,
    not_before_us: u64,
    calm: bool,
    /// Resources that are still to be looked at in the end.
    last_looks: Option<Vec<Resource>>,
    topic_keys: Vec<Row>,
    /// What gives records up, and is taken back in the end.
    shortening: Vec<(Resource, &'static str)>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

impl Tuner {
    /// One that alters these topics and the broker.
    pub fn new(topics: &[String], plan: &Plan) -> Self {
        let (age, size) =
            (plan.shortens.by_age.then_some(AGE_KEY), plan.shortens.by_size.then_some(SIZE_KEY));
        let shorten = age.into_iter().chain(size);
        let pairs =
            shorten.clone().flat_map(|(key, _)| topics.iter().map(move |name| ((TOPIC, name.clone()), key)));
        let shortening = pairs.collect();
        // Often enough beside the many others.
        let topic_keys = TOPIC_KEYS.into_iter().chain(shorten.clone()).chain(shorten.clone()).chain(shorten);
        let topics = topics.iter().map(|name| (TOPIC, name.clone()));
        let brokers = ["", "1"].map(|name| (BROKER, name.to_string()));
        Self {
            link: Link::new("tuner".into()),
            resources: topics.chain(brokers).collect(),
            expected: BTreeMap::new(),
            not_before_us: 0,
            calm: false,
            last_looks: None,
            topic_keys: topic_keys.collect(),
            shortening,
        }
    }

    fn keys_of(&self, resource: &Resource) -> &[Row] {
        if resource.0 == TOPIC { &self.topic_keys } else { &BROKER_KEYS }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        if stage.calm {
            if let Some((resource, key)) = self.shortening.last().cloned() {
                return self.send_alter(resource, key, None, stage);
            }
            let left = self.last_looks.get_or_insert_with(|| self.resources.clone());
            if let Some(resource) = left.last().cloned() {
                self.describe(resource, stage);
            }
            return;
        }
        let resource = stage.random.choice(&self.resources).expect("some").clone();
        if stage.random.bool() { self.describe(resource, stage) } else { self.alter(resource, stage) }
    }

    fn alter(&mut self, resource: Resource, stage: &mut Stage) {
        let (key, values) = *stage.random.choice(self.keys_of(&resource)).expect("some");
        let value =
            stage.random.choice(values).filter(|_| stage.random.u8(0..4) > 0).map(ToString::to_string);
        self.send_alter(resource, key, value, stage);
    }

    fn send_alter(
        &mut self,
        resource: Resource,
        key: &'static str,
        value: Option<String>,
        stage: &mut Stage,
    ) {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(i8::from(value.is_none()))
            .with_value(value.as_deref().map(text));
        let altered = AlterConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(&resource.1))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![altered]);
        let version = stage.random.i16(0..=1);
        self.link.send(&request, version, Some(Ask::Alter(resource, key, value)), stage);
    }

    fn describe(&mut self, resource: Resource, stage: &mut Stage) {
        let keys = self.keys_of(&resource).iter().map(|(key, _)| text(key)).collect();
        let described = DescribeConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(&resource.1))
            .with_configuration_keys(Some(keys));
        let request = DescribeConfigsRequest::default().with_resources(vec![described]);
        let version = stage.random.i16(1..=4);
        self.link.send(&request, version, Some(Ask::Describe(resource)), stage);
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Alter(resource, key, value) => {
                let answer = response.decode::<IncrementalAlterConfigsRequest>();
                let place = (resource.clone(), *key);
                let is_doubtful = self.expected.get(&place) == Some(&Expected::Doubtful);
                let error = answer.responses.first().expect("the resource asked for").error_code;
                if error == 0 && self.calm {
                    self.shortening.retain(|(other, name)| (other, *name) != (resource, *key));
                }
                match error {
                    0 if !is_doubtful => drop(self.expected.insert(place, Expected::Value(value.clone()))),
                    0 | UNKNOWN_TOPIC => {}
                    error => assert!(RETRIABLE.contains(&error), "alter {key} to {value:?}: error {error}"),
                }
            }
            Ask::Describe(resource) => {
                let answer = response.decode::<DescribeConfigsRequest>();
                let result = answer.results.first().expect("the resource asked for");
                assert!(
                    matches!(result.error_code, 0 | UNKNOWN_TOPIC),
                    "describe: error {}",
                    result.error_code
                );
                for config in &result.configs {
                    let is_own = OWN_SOURCES.contains(&config.config_source);
                    let told = config.value.as_ref().map(ToString::to_string).filter(|_| is_own);
                    self.told(resource, &config.name, told, config.config_source);
                }
                if let Some(left) = &mut self.last_looks {
                    left.pop();
                }
            }
        }
        // Another connection is perhaps another shard's.
        if stage.random.u8(0..3) == 0 && !stage.calm {
            drop(self.link.close(stage));
        }
        let rest_us = if stage.calm { 1_000 } else { stage.random.u64(1_000..400_000) };
        self.not_before_us = stage.now_us + rest_us;
    }

    fn told(&self, resource: &Resource, key: &str, told: Option<String>, source: i8) {
        let row = self.keys_of(resource).iter().find(|(name, _)| *name == key);
        let (key, _) = row.expect("a key that was asked for");
        let of = |name: &str| self.expected.get(&((resource.0, name.to_string()), *key));
        // A topic's value may also come from the broker, and this broker's from all brokers': not its own, then.
        let own_source = match (resource.0, resource.1.as_str()) {
            (TOPIC, _) => 1,
            (_, "") => 3,
            _ => 2,
        };
        let told = told.filter(|_| source == own_source);
        if let Some(Expected::Value(value)) = of(&resource.1) {
            assert_eq!(&told, value, "{key} of {resource:?}");
        }
    }
}

impl Client for Tuner {
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
        for ask in self.link.closed(stage) {
            if let Ask::Alter(resource, key, _) = ask {
                self.expected.insert((resource, key), Expected::Doubtful);
            }
        }
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.calm = stage.calm;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.calm && self.shortening.is_empty() && self.last_looks.as_ref().is_some_and(Vec::is_empty)
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
