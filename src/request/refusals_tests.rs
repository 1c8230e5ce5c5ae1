//! The administrative requests whose answer on one node is settled: access rules, credentials, quotas, features and
//! the quorum, in every version. Codes and words are those that
//! Apache Kafka 4.3.1 gave to the same requests.

use kafka_protocol::messages::alter_client_quotas_request as quotas;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::*;

use super::stage::{Stage, TO};
use super::{Answered, CloseReason, StrBytes, Work};
use crate::controller::request::{FeatureUpdate, QuorumState};
use crate::controller::{ApiError, ControllerAnswer, ControllerRequest};
use crate::wire::ErrorCode;
use crate::wire::api::ApiKey;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

#[test]
fn access_rules_are_disabled_and_senseless_ones_close_the_connection() {
    let mut stage = Stage::new(&[]);
    for version in 1..=3 {
        let filter = DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(3)
            .with_operation(1)
            .with_permission_type(1);
        let told: DescribeAclsResponse = stage.ask(ApiKey::DescribeAcls, version, &filter);
        let words = "No Authorizer is configured on the broker";
        assert_eq!((told.error_code, told.error_message.as_deref()), (54, Some(words)));
        let acl = AclCreation::default()
            .with_resource_type(2)
            .with_resource_pattern_type(3)
            .with_operation(3)
            .with_permission_type(3);
        let request = CreateAclsRequest::default().with_creations(vec![acl.clone(), acl]);
        let told: CreateAclsResponse = stage.ask(ApiKey::CreateAcls, version, &request);
        let words = Some("No Authorizer is configured.");
        let told: Vec<_> = told.results.iter().map(|r| (r.error_code, r.error_message.as_deref())).collect();
        assert_eq!(told, [(54, words), (54, words)]);
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(2)
            .with_pattern_type_filter(3)
            .with_operation(1)
            .with_permission_type(1);
        let request = DeleteAclsRequest::default().with_filters(vec![filter]);
        let told: DeleteAclsResponse = stage.ask(ApiKey::DeleteAcls, version, &request);
        assert_eq!(
            (told.filter_results[0].error_code, told.filter_results[0].error_message.as_deref()),
            (54, words)
        );
    }
    let mut body = bytes::BytesMut::new();
    let senseless = DescribeAclsRequest::default().with_pattern_type_filter(3).with_operation(1);
    kafka_protocol::protocol::Encodable::encode(&senseless, &mut body, 2).unwrap();
    let header = crate::wire::header::RequestHeader {
        version: 2,
        ..stage
            .start(
                ApiKey::DescribeAcls,
                2,
                &DescribeAclsRequest::default()
                    .with_resource_type_filter(1)
                    .with_pattern_type_filter(3)
                    .with_operation(1)
                    .with_permission_type(1),
            )
            .0
    };
    let refused = Work::start(&header, body.freeze(), TO, &mut stage.scene());
    assert_eq!(refused.err(), Some(CloseReason::Malformed));
}

#[test]
fn nobody_has_credentials() {
    let mut stage = Stage::new(&[]);
    let mut ask = |users: Option<&[&str]>| {
        let users =
            users.map(|users| users.iter().map(|user| UserName::default().with_name(text(user))).collect());
        let request = DescribeUserScramCredentialsRequest::default().with_users(users);
        let response: DescribeUserScramCredentialsResponse =
            stage.ask(ApiKey::DescribeUserScramCredentials, 0, &request);
        let told =
            response.results.into_iter().map(|one| (one.error_code, one.error_message.unwrap().to_string()));
        told.collect::<Vec<_>>()
    };
    assert_eq!(ask(None), []);
    assert_eq!(
        ask(Some(&["a"])),
        [(91, "Attempt to describe a user credential that does not exist: a".to_string())]
    );
    let twice = "Cannot describe SCRAM credentials for the same user twice in a single request: a";
    assert_eq!(ask(Some(&["a", "a"])), [(92, twice.to_string())]);
}

#[test]
fn quota_filters_are_checked_and_match_nothing() {
    let mut stage = Stage::new(&[]);
    let mut ask = |version: i16, components: &[(&str, i8, Option<&str>)]| {
        let components = components.iter().map(|(kind, how, what)| {
            ComponentData::default()
                .with_entity_type(text(kind))
                .with_match_type(*how)
                .with_match(what.map(text))
        });
        let request = DescribeClientQuotasRequest::default().with_components(components.collect());
        let response: DescribeClientQuotasResponse =
            stage.ask(ApiKey::DescribeClientQuotas, version, &request);
        (response.error_code, response.error_message.unwrap().to_string(), response.entries.map(|e| e.len()))
    };
    for version in 0..=1 {
        assert_eq!(
            ask(version, &[("user", 0, Some("a")), ("client-id", 2, None)]),
            (0, String::new(), Some(0))
        );
    }
    for (components, code, words) in [
        (&[("foo", 0, Some("a"))][..], 35, "Unsupported entity type foo"),
        (&[("", 0, Some("a"))][..], 42, "Invalid empty entity type."),
        (&[("user", 7, Some("a"))][..], 42, "Unknown match type 7"),
        (&[("user", 0, None)][..], 42, "Request specified MATCH_TYPE_EXACT, but set match string to null."),
        (
            &[("user", 1, Some("a"))][..],
            42,
            "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.",
        ),
        (
            &[("user", 0, Some("a")), ("user", 0, Some("b"))][..],
            42,
            "Entity type user cannot appear more than once in the filter.",
        ),
        (
            &[("ip", 0, Some("a")), ("user", 0, Some("b"))][..],
            42,
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.",
        ),
    ] {
        assert_eq!(ask(1, components), (code, words.to_string(), None));
    }
}

#[test]
fn quotas_are_refused_rather_than_kept_without_effect() {
    let mut stage = Stage::new(&[]);
    let mut ask = |version: i16, entity: &[&str], key: &str, value: f64, remove: bool| {
        let part = |kind: &&str| {
            quotas::EntityData::default().with_entity_type(text(kind)).with_entity_name(Some(text("a")))
        };
        let op = quotas::OpData::default().with_key(text(key)).with_value(value).with_remove(remove);
        let entry =
            quotas::EntryData::default().with_entity(entity.iter().map(part).collect()).with_ops(vec![op]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let mut response: AlterClientQuotasResponse = stage.ask(ApiKey::AlterClientQuotas, version, &request);
        let entry = response.entries.remove(0);
        (entry.error_code, entry.error_message.map(|words| words.to_string()).unwrap_or_default())
    };
    for version in 0..=1 {
        let (code, words) = ask(version, &["user"], "consumer_byte_rate", 100.0, false);
        assert_eq!(code, 35);
        assert!(words.contains("not enforced"));
        assert_eq!(ask(version, &["user"], "consumer_byte_rate", 0.0, true), (0, String::new()));
    }
    for (entity, key, value, words) in [
        (&["foo"][..], "consumer_byte_rate", 1.0, "Unhandled client quota entity type: foo"),
        (&[][..], "consumer_byte_rate", 1.0, "Invalid empty client quota entity"),
        (&["user"][..], "nope", 1.0, "Invalid configuration key nope"),
        (&["user"][..], "consumer_byte_rate", -1.0, "Quota consumer_byte_rate must be greater than 0"),
        (&["user"][..], "consumer_byte_rate", 0.5, "consumer_byte_rate cannot be a fractional value."),
    ] {
        assert_eq!(ask(1, entity, key, value, false), (42, words.to_string()));
    }
}

#[test]
fn features_are_updated_by_the_controller() {
    for version in 0..=2 {
        let mut stage = Stage::new(&[]);
        let update =
            FeatureUpdateKey::default().with_feature(text("group.version")).with_max_version_level(1);
        let update =
            if version == 0 { update.with_allow_downgrade(true) } else { update.with_upgrade_type(3) };
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        for refuse in [false, true] {
            let (header, mut work) = stage.start(ApiKey::UpdateFeatures, version, &request);
            let (_, asked) = stage.desk.controls.pop().unwrap();
            let upgrade_type = if version == 0 { 2 } else { 3 };
            let expected = FeatureUpdate { name: "group.version".into(), level: 1, upgrade_type };
            assert_eq!(
                asked,
                ControllerRequest::UpdateFeatures { updates: vec![expected], validate_only: false }
            );
            let error = ApiError { code: ErrorCode::InvalidUpdateVersion, message: "no".into() };
            let answer = ControllerAnswer::Features(if refuse { Err(error) } else { Ok(()) });
            work.answer(&header, TO, Answered::Controller(Box::new(answer)), &mut stage.scene());
            let response: UpdateFeaturesResponse = stage.finish(&header, work);
            let told: Vec<_> = response.results.iter().map(|r| r.error_message.as_deref()).collect();
            match refuse {
                true => {
                    assert_eq!((response.error_code, response.error_message.as_deref()), (95, Some("no")))
                }
                false => assert_eq!((response.error_code, response.error_message.as_deref()), (0, None)),
            }
            assert_eq!(told, if version < 2 && !refuse { vec![Some("NONE")] } else { vec![] });
        }
    }
}

#[test]
fn the_quorum_is_described_from_the_controllers_state() {
    for version in 0..=2 {
        let mut stage = Stage::new(&[]);
        let asking = |name: &str, index: i32| {
            let partition = PartitionData::default().with_partition_index(index);
            let topic = TopicData::default().with_topic_name(topic(name)).with_partitions(vec![partition]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        let (header, mut work) =
            stage.start(ApiKey::DescribeQuorum, version, &asking("__cluster_metadata", 0));
        assert_eq!(stage.desk.controls.pop().unwrap().1, ControllerRequest::DescribeQuorum);
        let state =
            QuorumState { leader_epoch: 3, high_watermark: 7, log_end_offset: 9, ..QuorumState::default() };
        let answer = Answered::Controller(Box::new(ControllerAnswer::Quorum(state)));
        work.answer(&header, TO, answer, &mut stage.scene());
        let response: DescribeQuorumResponse = stage.finish(&header, work);
        let told = &response.topics[0].partitions[0];
        assert_eq!((told.leader_id.0, told.leader_epoch, told.high_watermark), (1, 3, 7));
        let voter = &told.current_voters[0];
        assert_eq!((voter.replica_id.0, voter.log_end_offset), (1, 9));
        assert_eq!(voter.last_fetch_timestamp, if version >= 1 { 1_700_000_000_000 } else { -1 });
        assert_eq!(response.nodes.len(), usize::from(version >= 2));
        for (name, index) in [("t", 0), ("__cluster_metadata", 1)] {
            let unknown: DescribeQuorumResponse =
                stage.ask(ApiKey::DescribeQuorum, version, &asking(name, index));
            assert_eq!(unknown.topics[0].partitions[0].error_code, 3);
        }
    }
}
