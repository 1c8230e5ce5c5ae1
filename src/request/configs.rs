//! DescribeConfigs: the configuration of topics and of this node, key by key, with where each value comes
//! from. A request for several resources is answered resource by resource; only a resource type that has no
//! meaning at all refuses the request as a whole, as in Kafka. A resource that is named again is refused where
//! Kafka would repeat the answer: a small request cannot make a large response.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{CloseReason, Scene, Work};
use crate::config::keys::Kind;
use crate::config::{
    ConfigSource, DescribedConfig, DynamicConfigs, describe_broker, describe_group, describe_metrics,
    describe_topic,
};
use crate::controller::{ResourceType, check_topic_name};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// Kafka's numbers of resource types (`ConfigResource.Type`).
pub(super) mod resource_types {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

type Refusal = (ErrorCode, Option<String>);

pub(super) fn describe(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Result<Work, CloseReason> {
    let request: DescribeConfigsRequest = guard::decode(body, header.version, guard::Limits::default())?;
    let senseless = request.resources.iter().find(|resource| !has_meaning(resource.resource_type));
    let results = match senseless {
        Some(one) => {
            let words = format!("Unexpected resource type UNKNOWN for resource {}", one.resource_name);
            let refusal = (ErrorCode::InvalidRequest, Some(words));
            request.resources.iter().map(|resource| refused(resource, refusal.clone())).collect()
        }
        None => {
            let mut told = BTreeSet::new();
            let resources = request.resources.iter();
            resources
                .map(|resource| match told.insert((resource.resource_type, &resource.resource_name)) {
                    true => describe_one(&request, resource, scene),
                    false => {
                        let words = "The resource is named more than once.".to_string();
                        refused(resource, (ErrorCode::InvalidRequest, Some(words)))
                    }
                })
                .collect()
        }
    };
    let answer = DescribeConfigsResponse::default().with_results(results);
    let mut buffer = BytesMut::new();
    response::encode(&mut buffer, ApiKey::DescribeConfigs, header.version, header.correlation_id, &answer)
        .expect("fields that a version lacks are left out");
    Ok(Work::Encoded(buffer))
}

fn has_meaning(resource_type: i8) -> bool {
    use resource_types::*;
    matches!(resource_type, TOPIC | BROKER | BROKER_LOGGER | CLIENT_METRICS | GROUP)
}

fn describe_one(
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    scene: &Scene,
) -> DescribeConfigsResult {
    let described = match configs_of(resource, scene) {
        Ok(described) => described,
        Err(refusal) => return refused(resource, refusal),
    };
    // No keys, like null, are all keys; a key that is not known is left out.
    let keys = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
    let keys: Option<BTreeSet<&str>> = keys.map(|keys| keys.iter().map(|key| key.as_str()).collect());
    let is_asked = |name: &str| keys.as_ref().is_none_or(|keys| keys.contains(name));
    let asked = described.into_iter().filter(|config| is_asked(&config.name));
    DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_configs(asked.map(|config| result_of(config, request)).collect())
}

fn refused(resource: &DescribeConfigsResource, (error, words): Refusal) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_error_code(error.code())
        .with_error_message(words.map(StrBytes::from_string))
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

fn configs_of(resource: &DescribeConfigsResource, scene: &Scene) -> Result<Vec<DescribedConfig>, Refusal> {
    let name = resource.resource_name.as_str();
    let node = &scene.node.config;
    let invalid = |words: String| Err((ErrorCode::InvalidRequest, Some(words)));
    match resource.resource_type {
        resource_types::TOPIC => {
            check_topic_name(name).map_err(|error| (error.code, Some(error.message)))?;
            if scene.view.image.topic(name).is_none() {
                // Kafka says so in no words, but not without any: a client shows its own for null.
                return Err((ErrorCode::UnknownTopicOrPartition, Some(String::new())));
            }
            let overrides = scene.view.image.topic_config_overrides(name);
            Ok(describe_topic(node, &dynamic_configs(scene), overrides))
        }
        resource_types::BROKER if name.is_empty() => Ok(describe_broker(node, &dynamic_configs(scene), true)),
        resource_types::BROKER => {
            if broker_id(name)? != node.node_id {
                let expected = node.node_id;
                return invalid(format!(
                    "Unexpected broker id, expected {expected} or empty string, but received {name}"
                ));
            }
            Ok(describe_broker(node, &dynamic_configs(scene), false))
        }
        resource_types::BROKER_LOGGER if name.is_empty() => invalid("Broker id must not be empty".into()),
        // There are no loggers whose level could be changed while the node runs.
        resource_types::BROKER_LOGGER => match broker_id(name)? {
            id if id == node.node_id => Ok(Vec::new()),
            _ => {
                let expected = node.node_id;
                invalid(format!("Unexpected broker id, expected {expected} but received {name}"))
            }
        },
        resource_types::CLIENT_METRICS if name.is_empty() => {
            invalid("Client metrics subscription name must not be empty".into())
        }
        resource_types::CLIENT_METRICS => {
            let own = scene.view.image.config_overrides(ResourceType::ClientMetrics, name).collect();
            Ok(describe_metrics(&own))
        }
        _ if name.is_empty() => invalid("Group name must not be empty".into()),
        _ => {
            let own = scene.view.image.config_overrides(ResourceType::Group, name).collect();
            Ok(describe_group(node, &dynamic_configs(scene), &own))
        }
    }
}

fn broker_id(name: &str) -> Result<i32, Refusal> {
    let words = || Some(format!("Broker id must be an integer, but it is: {name}"));
    name.parse().map_err(|_| (ErrorCode::InvalidRequest, words()))
}

fn dynamic_configs<'a>(scene: &Scene<'a>) -> DynamicConfigs<'a> {
    scene.view.image.dynamic_configs(scene.node.config.node_id)
}

fn shared(text: Cow<'static, str>) -> StrBytes {
    match text {
        Cow::Borrowed(text) => StrBytes::from_static_str(text),
        Cow::Owned(text) => StrBytes::from_string(text),
    }
}

/// Kafka's number of a value's type (`DescribeConfigsResponse.ConfigType`).
fn type_number(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::Text => 2,
        Kind::Int => 3,
        Kind::Short => 4,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}

fn result_of(config: DescribedConfig, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let text = StrBytes::from_static_str;
    let result = DescribeConfigsResourceResult::default()
        .with_name(shared(config.name))
        .with_value(config.value.map(StrBytes::from_string))
        .with_read_only(config.is_read_only)
        .with_config_source(config.source as i8)
        .with_is_sensitive(config.is_sensitive)
        .with_config_type(config.kind.map_or(0, type_number))
        .with_documentation(request.include_documentation.then(|| text(config.doc)));
    if !request.include_synonyms {
        return result;
    }
    let synonyms = config.synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(shared(synonym.name))
            .with_value(synonym.value.map(StrBytes::from_string))
            .with_source(synonym.source as i8)
    });
    result.with_synonyms(synonyms.collect())
}

/// What CreateTopics tells of a topic without values of its own.
pub(super) fn of_new_topic(scene: &Scene) -> Vec<CreatableTopicConfigs> {
    let described = describe_topic(&scene.node.config, &dynamic_configs(scene), std::iter::empty());
    let told = described.into_iter().map(|config| {
        CreatableTopicConfigs::default()
            .with_name(shared(config.name))
            .with_value(config.value.map(StrBytes::from_string))
            .with_read_only(config.is_read_only)
            .with_config_source(config.origin as i8)
            .with_is_sensitive(config.is_sensitive)
    });
    told.collect()
}

/// The same with values of its own, which the controller has checked.
pub(super) fn with_own(
    inherited: &[CreatableTopicConfigs],
    own: &[(String, Option<String>)],
) -> Vec<CreatableTopicConfigs> {
    let mut told = inherited.to_vec();
    if told.is_empty() {
        return told;
    }
    for (key, value) in own {
        let text = |text: &str| StrBytes::from_string(text.to_string());
        let config = CreatableTopicConfigs::default()
            .with_name(text(key))
            .with_value(value.as_deref().map(text))
            .with_config_source(ConfigSource::Topic as i8);
        match told.binary_search_by(|one| one.name.as_str().cmp(key)) {
            Ok(at) => told.splice(at..=at, [config]).for_each(drop),
            Err(at) => told.insert(at, config),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::CreateTopicsResponse;
    use kafka_protocol::protocol::Decodable;

    use super::super::stage::Stage;
    use super::*;

    fn resource(resource_type: i8, name: &str) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(name.to_string().into())
            .with_configuration_keys(None)
    }

    fn ask(stage: &mut Stage, version: i16, request: DescribeConfigsRequest) -> Vec<DescribeConfigsResult> {
        let response: DescribeConfigsResponse = stage.ask(ApiKey::DescribeConfigs, version, &request);
        response.results
    }

    fn one(stage: &mut Stage, resource: DescribeConfigsResource) -> DescribeConfigsResult {
        ask(stage, 4, DescribeConfigsRequest::default().with_resources(vec![resource])).remove(0)
    }

    #[test]
    fn every_version_tells_value_source_and_what_else_was_asked_for() {
        let mut stage = Stage::new(&[("log.segment.bytes", "2097152")]);
        stage.topic("t", 7, &[1]);
        stage.override_config(ResourceType::Topic, "t", "retention.ms", "9000");
        for version in 1..=4 {
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![resource(2, "t"), resource(4, "1")])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            let results = ask(&mut stage, version, request);
            let find = |result: &DescribeConfigsResult, name: &str| {
                result.configs.iter().find(|config| config.name.as_str() == name).unwrap().clone()
            };
            let retention = find(&results[0], "retention.ms");
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("9000"), 1));
            assert!(!retention.read_only && !retention.is_sensitive);
            let segment = find(&results[0], "segment.bytes");
            let synonyms: Vec<_> = segment
                .synonyms
                .iter()
                .map(|s| (s.name.as_str(), s.value.as_deref().unwrap(), s.source))
                .collect();
            assert_eq!(
                synonyms,
                [("log.segment.bytes", "2097152", 4), ("log.segment.bytes", "1073741824", 5)]
            );
            let broker = find(&results[1], "log.segment.bytes");
            assert_eq!((broker.value.as_deref(), broker.config_source), (Some("2097152"), 4));
            assert!(find(&results[1], "node.id").read_only);
            let secret = find(&results[1], "ssl.key.password");
            assert!(secret.is_sensitive && secret.value.is_none());
            if version >= 3 {
                assert_eq!((segment.config_type, find(&results[1], "listeners").config_type), (3, 7));
                assert!(segment.documentation.is_some_and(|doc| !doc.is_empty()));
            }
        }
    }

    #[test]
    fn only_the_keys_asked_for_are_told_and_unknown_ones_are_left_out() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        let keys = ["flush.ms", "no.such.key"].map(StrBytes::from_static_str).to_vec();
        let asked = one(&mut stage, resource(2, "t").with_configuration_keys(Some(keys)));
        let names: Vec<&str> = asked.configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["flush.ms"]);
        assert!(asked.configs[0].synonyms.is_empty() && asked.configs[0].documentation.is_none());
        let none = one(&mut stage, resource(2, "t").with_configuration_keys(Some(vec![])));
        assert!(none.configs.len() > 30);
    }

    #[test]
    fn names_that_are_not_there_get_kafkas_errors_and_words() {
        let mut stage = Stage::new(&[]);
        for (resource_type, name, error, words) in [
            (2, "missing", 3, ""),
            (2, "a b", 17, "Topic name is invalid"),
            (4, "2", 42, "Unexpected broker id, expected 1 or empty string, but received 2"),
            (4, "one", 42, "Broker id must be an integer, but it is: one"),
            (8, "", 42, "Broker id must not be empty"),
            (8, "2", 42, "Unexpected broker id, expected 1 but received 2"),
            (16, "", 42, "Client metrics subscription name must not be empty"),
            (32, "", 42, "Group name must not be empty"),
        ] {
            let refused = one(&mut stage, resource(resource_type, name));
            assert_eq!((refused.error_code, refused.resource_name.as_str()), (error, name));
            assert!(refused.error_message.expect("words, if empty ones").starts_with(words));
            assert!(refused.configs.is_empty());
        }
        let loggers = one(&mut stage, resource(8, "1"));
        assert_eq!((loggers.error_code, loggers.configs.len()), (0, 0));
    }

    /// Answers of Apache Kafka 4.3.1 on default settings, recorded.
    #[test]
    fn a_new_topic_is_told_as_kafka_told_it() {
        for client in ["java", "python"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
            let file = folder.join(format!("create-topics-v7-{client}-response.bin"));
            let mut recorded = Bytes::from(std::fs::read(file).unwrap()).slice(9..);
            let recorded = CreateTopicsResponse::decode(&mut recorded, 7).unwrap();
            for topic in recorded.topics {
                let recorded = topic.configs.unwrap();
                let own = recorded.iter().filter(|config| config.config_source == ConfigSource::Topic as i8);
                let own: Vec<_> =
                    own.map(|c| (c.name.to_string(), c.value.as_ref().map(ToString::to_string))).collect();
                let told = with_own(&of_new_topic(&Stage::new(&[]).scene()), &own);
                assert_eq!(told.len(), recorded.len());
                // Kafka's controller gives `min.insync.replicas` to all brokers when it has eligible leader
                // replicas (KIP-966), so there it comes from a value given at run time.
                let same = |one: &CreatableTopicConfigs| one.name.as_str() != "min.insync.replicas";
                for (told, recorded) in told.iter().zip(&recorded).filter(|(told, _)| same(told)) {
                    assert_eq!(told, recorded, "{client}");
                }
            }
        }
    }

    #[test]
    fn a_resource_named_again_is_refused() {
        let mut stage = Stage::new(&[]);
        stage.topic("1", 7, &[1]);
        let resources = vec![resource(4, "1"), resource(2, "1"), resource(4, "1"), resource(2, "1")];
        let results = ask(&mut stage, 4, DescribeConfigsRequest::default().with_resources(resources));
        let told: Vec<_> = results.iter().map(|r| (r.error_code, r.configs.len() > 30)).collect();
        assert_eq!(told, [(0, true), (0, true), (42, false), (42, false)]);
    }

    #[test]
    fn a_resource_type_without_meaning_refuses_the_whole_request() {
        let mut stage = Stage::new(&[]);
        stage.topic("t", 7, &[1]);
        for senseless in [0, 1, 3, 7, 64, -1] {
            let resources = vec![resource(2, "t"), resource(senseless, "x")];
            let results = ask(&mut stage, 4, DescribeConfigsRequest::default().with_resources(resources));
            let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [42, 42]);
        }
    }

    #[test]
    fn the_default_of_all_brokers_holds_what_was_given_at_run_time() {
        let mut stage = Stage::new(&[("message.max.bytes", "2000")]);
        assert_eq!(one(&mut stage, resource(4, "")).configs, []);
        stage.override_config(ResourceType::Broker, "", "message.max.bytes", "3000");
        let told = one(&mut stage, resource(4, "")).configs;
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].value.as_deref(), told[0].config_source), (Some("3000"), 3));
        stage.override_config(ResourceType::Broker, "1", "message.max.bytes", "4000");
        let own = one(&mut stage, resource(4, "1")).configs;
        let own = own.iter().find(|config| config.name.as_str() == "message.max.bytes").unwrap();
        assert_eq!((own.value.as_deref(), own.config_source), (Some("4000"), 2));
    }
}
