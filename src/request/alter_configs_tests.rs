//! AlterConfigs, IncrementalAlterConfigs, ListConfigResources and what the controller is asked, version by version.
//! Codes and words are those that Apache Kafka 4.3.1 gave to the same requests.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::stage::{Stage, TO};
use super::{Answered, StrBytes};
use crate::controller::request::{ConfigChanges, ConfigOp};
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest, ResourceType};
use crate::wire::ErrorCode;
use crate::wire::api::ApiKey;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

type Op<'a> = (&'a str, i8, Option<&'a str>);

fn resource(resource_type: i8, name: &str, ops: &[Op<'_>]) -> incremental::AlterConfigsResource {
    let configs = ops.iter().map(|(key, operation, value)| {
        incremental::AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    incremental::AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

fn asking(resources: Vec<incremental::AlterConfigsResource>) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest::default().with_resources(resources)
}

/// Code and words of each resource of a request that asks nobody else.
fn refused(resources: Vec<incremental::AlterConfigsResource>) -> Vec<(i16, Option<String>)> {
    let mut stage = Stage::new(&[]);
    let response: IncrementalAlterConfigsResponse =
        stage.ask(ApiKey::IncrementalAlterConfigs, 1, &asking(resources));
    assert!(stage.desk.controls.is_empty());
    let words = |words: Option<StrBytes>| words.map(|words| words.to_string());
    response.responses.into_iter().map(|one| (one.error_code, words(one.error_message))).collect()
}

#[test]
fn what_the_request_gets_wrong_is_told_in_kafkas_words() {
    for (resource_type, name, ops, code, words) in [
        (2, "t", &[("a", 0, Some("1")), ("a", 1, None)][..], 42, "Error due to duplicate config keys"),
        (2, "t", &[("a", 0, None), ("b", 2, None)][..], 42, "Null value not supported for : a, b"),
        (2, "t", &[("a", 7, Some("1"))][..], 42, "Unknown operations type 7"),
        (4, "1", &[("a", 9, Some("1"))][..], 42, "Unknown operations type 9"),
        (4, "2", &[("a", 0, Some("1"))][..], 42, "Unexpected broker id, expected 1, but received 2"),
        (4, "x", &[("a", 0, Some("1"))][..], 42, "Node id must be an integer, but it is: x"),
        (0, "t", &[][..], 42, "Unknown resource type 0"),
        (77, "t", &[][..], 42, "Unknown resource type 77"),
        (8, "", &[][..], 42, "Node id must be an integer, but it is: "),
        (8, "2", &[][..], 42, "Unexpected node id. Expected 1, but received 2"),
        (8, "1", &[("nope", 0, Some("INFO"))][..], 40, "Logger nope does not exist!"),
        (
            8,
            "1",
            &[("root", 2, Some("INFO"))][..],
            42,
            "APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
    ] {
        assert_eq!(refused(vec![resource(resource_type, name, ops)]), [(code, Some(words.to_string()))]);
    }
    assert_eq!(refused(vec![resource(8, "1", &[])]), [(0, None)]);
    let words = Some("Each resource must appear at most once.".to_string());
    let twice = vec![resource(2, "t", &[]), resource(2, "t", &[])];
    assert_eq!(refused(twice), [(42, words.clone()), (42, words)]);
}

#[test]
fn every_version_asks_the_controller_and_tells_each_resource_its_own_outcome() {
    for version in 0..=1 {
        let mut stage = Stage::new(&[]);
        let ops = [("a", 0, Some("1")), ("b", 1, None), ("c", 2, Some("x,y")), ("d", 3, Some("z"))];
        let resources = vec![
            resource(2, "t", &ops),
            resource(9, "what", &[]),
            resource(4, "", &[("e", 0, Some("2"))]),
            resource(32, "g", &[]),
            resource(16, "m", &[]),
        ];
        let request = asking(resources).with_validate_only(true);
        let (header, mut work) = stage.start(ApiKey::IncrementalAlterConfigs, version, &request);
        let (_, asked) = stage.desk.controls.pop().unwrap();
        let ControllerRequest::AlterConfigs { resources, validate_only: true } = asked else {
            panic!("{asked:?}")
        };
        let kinds: Vec<_> = resources.iter().map(|one| (one.resource_type, one.name.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (ResourceType::Topic, "t"),
                (ResourceType::Broker, ""),
                (ResourceType::Group, "g"),
                (ResourceType::ClientMetrics, "m")
            ]
        );
        let changes = [
            ("a".to_string(), ConfigOp::Set("1".into())),
            ("b".to_string(), ConfigOp::Delete),
            ("c".to_string(), ConfigOp::Append("x,y".into())),
            ("d".to_string(), ConfigOp::Subtract("z".into())),
        ];
        assert_eq!((&resources[0].changes[..], resources[0].replace), (&changes[..], false));
        let error = ApiError { code: ErrorCode::InvalidConfig, message: "no".into() };
        let of = |one: &ConfigChanges| (one.resource_type, one.name.clone());
        let mut results: Vec<_> = resources.iter().map(of).map(|(kind, name)| (kind, name, Ok(()))).collect();
        results[1].2 = Err(error);
        let answer = Answered::Controller(Box::new(ControllerAnswer::Configs(results)));
        work.answer(&header, TO, answer, &mut stage.scene());
        let response: IncrementalAlterConfigsResponse = stage.finish(&header, work);
        let told: Vec<_> = response
            .responses
            .iter()
            .map(|one| {
                (one.resource_type, one.resource_name.as_str(), one.error_code, one.error_message.as_deref())
            })
            .collect();
        let unknown = Some("Unknown resource type 9");
        assert_eq!(
            told,
            [
                (2, "t", 0, None),
                (9, "what", 42, unknown),
                (4, "", 40, Some("no")),
                (32, "g", 0, None),
                (16, "m", 0, None)
            ]
        );
    }
}

#[test]
fn the_older_request_replaces_what_a_resource_has() {
    for version in 0..=2 {
        let mut stage = Stage::new(&[]);
        let config = AlterableConfig::default().with_name(text("flush.ms")).with_value(Some(text("9")));
        let of = |resource_type: i8, name: &str| {
            AlterConfigsResource::default()
                .with_resource_type(resource_type)
                .with_resource_name(text(name))
                .with_configs(vec![config.clone()])
        };
        let request = AlterConfigsRequest::default().with_resources(vec![of(2, "t"), of(8, "1")]);
        let (header, mut work) = stage.start(ApiKey::AlterConfigs, version, &request);
        let (_, asked) = stage.desk.controls.pop().unwrap();
        let ControllerRequest::AlterConfigs { resources, validate_only: false } = asked else {
            panic!("{asked:?}")
        };
        assert!(resources[0].replace && resources.len() == 1);
        let answer = ControllerAnswer::Refused(ErrorCode::NotController);
        work.answer(&header, TO, Answered::Controller(Box::new(answer)), &mut stage.scene());
        let response: AlterConfigsResponse = stage.finish(&header, work);
        let told: Vec<_> =
            response.responses.iter().map(|one| (one.error_code, one.error_message.as_deref())).collect();
        assert_eq!(told, [(41, None), (42, Some("Unknown resource type 8"))]);
    }
}

#[test]
fn resources_are_listed_by_type() {
    let mut stage = Stage::new(&[]);
    stage.topic("t", 7, &[1]);
    stage.override_config(ResourceType::Group, "g", "consumer.session.timeout.ms", "50000");
    stage.override_config(ResourceType::ClientMetrics, "m", "interval.ms", "1000");
    let mut list = |version: i16, types: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
        let response: ListConfigResourcesResponse = stage.ask(ApiKey::ListConfigResources, version, &request);
        let resources = response.config_resources.iter();
        let told: Vec<_> = resources.map(|one| (one.resource_name.to_string(), one.resource_type)).collect();
        (response.error_code, told)
    };
    let named =
        |names: &[(&str, i8)]| names.iter().map(|(name, of)| (name.to_string(), *of)).collect::<Vec<_>>();
    assert_eq!(list(0, &[]), (0, named(&[("m", 16)])));
    assert_eq!(list(1, &[]), (0, named(&[("g", 32), ("m", 16), ("1", 8), ("1", 4), ("t", 2)])));
    assert_eq!(list(1, &[2, 32, 2]), (0, named(&[("g", 32), ("t", 2)])));
    assert_eq!(list(1, &[2, 99]), (35, Vec::new()));
}

#[test]
fn a_controller_takes_what_a_broker_was_asked_to_change_of_itself() {
    let mut stage = Stage::new(&[
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ]);
    stage.context.listener = 1;
    let wanted = asking(vec![resource(4, "2", &[("log.retention.ms", 0, Some("1"))])]);
    stage.start(ApiKey::IncrementalAlterConfigs, 1, &wanted);
    let (_, asked) =
        stage.desk.controls.pop().expect("whether there is such a broker is the controller's to know");
    let ControllerRequest::AlterConfigs { resources, .. } = asked else { panic!("{asked:?}") };
    assert_eq!((resources[0].resource_type, resources[0].name.as_str()), (ResourceType::Broker, "2"));
}
