//! ApiVersions: the API table as the client may use it. Any requested version gets an answer.
//!
//! Features are those that this build supports and those that the metadata has finalized, with the version of the
//! Image as their epoch.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Scene, Work};
use crate::controller::features::{self, Feature};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

/// First version that tells features.
const VERSION_FEATURES: i16 = 3;
/// First version that tells features whose range begins at 0.
const VERSION_FROM_ZERO: i16 = 4;

pub(super) fn answer(header: &RequestHeader, body: &Bytes, scene: &Scene) -> Work {
    let mut buffer = BytesMut::new();
    let correlation_id = header.correlation_id;
    let door = scene.node.door(scene.context.listener);
    let encoded = if header.is_served() {
        let request = guard::decode::<ApiVersionsRequest>(body, header.version, guard::Limits::default());
        let valid = request.is_ok_and(|request| names_are_valid(&request, header.version));
        let answer = if valid {
            with_features(response::api_versions(door), header.version, scene)
        } else {
            // As in Kafka, without a table.
            ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code())
        };
        response::encode(&mut buffer, ApiKey::ApiVersions, header.version, correlation_id, &answer)
    } else {
        response::encode_api_versions_unsupported(&mut buffer, correlation_id, door)
    };
    encoded.expect("the table encodes in every version served");
    Work::Encoded(buffer)
}

fn with_features(answer: ApiVersionsResponse, version: i16, scene: &Scene) -> ApiVersionsResponse {
    if version < VERSION_FEATURES {
        return answer;
    }
    let image = &scene.view.image;
    // Clients of version 3 take a feature whose range begins at 0 for malformed (KIP-1022).
    let is_told = |feature: &Feature| feature.level_least > 0 || version >= VERSION_FROM_ZERO;
    let supported = features::supported().into_iter().filter(is_told).map(|feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.level_least)
            .with_max_version(feature.level_most)
    });
    let finalized = features::finalized(image).into_iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name))
            .with_min_version_level(level)
            .with_max_version_level(level)
    });
    answer
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(i64::try_from(image.version()).unwrap_or(i64::MAX))
        .with_finalized_features(finalized.collect())
}

/// KIP-511: from version 3 the client names its software in `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn names_are_valid(request: &ApiVersionsRequest, version: i16) -> bool {
    let valid = |name: &str| {
        let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        end(bytes.first())
            && end(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    version < 3 || (valid(&request.client_software_name) && valid(&request.client_software_version))
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::*;

    fn request(name: &str) -> ApiVersionsRequest {
        ApiVersionsRequest::default()
            .with_client_software_name(name.to_string().into())
            .with_client_software_version("4.3.1".to_string().into())
    }

    #[test]
    fn the_table_is_told_in_every_version_and_the_epoch_of_features_from_version_3_on() {
        for version in 0..=4 {
            let mut stage = Stage::new(&[]);
            let asked = if version >= 3 { request("java") } else { ApiVersionsRequest::default() };
            let told: ApiVersionsResponse = stage.ask(ApiKey::ApiVersions, version, &asked);
            assert_eq!((told.error_code, told.throttle_time_ms), (0, 0));
            let range = |key: ApiKey| {
                let row = told.api_keys.iter().find(|row| row.api_key == key as i16).unwrap();
                (row.min_version, row.max_version)
            };
            assert_eq!((range(ApiKey::Produce), range(ApiKey::DescribeCluster)), ((0, 13), (0, 2)));
            let epoch = if version >= 3 { stage.view.image.version() as i64 } else { -1 };
            assert_eq!(told.finalized_features_epoch, epoch);
            let supported: Vec<_> = told
                .supported_features
                .iter()
                .map(|f| (f.name.as_str(), f.min_version, f.max_version))
                .collect();
            let metadata = ("metadata.version", 7, 30);
            assert_eq!(supported.contains(&metadata), version >= 3);
            assert_eq!(supported.contains(&("kraft.version", 0, 0)), version >= 4);
            assert!(version >= 4 || supported.iter().all(|(_, least, _)| *least > 0));
            let finalized: Vec<_> =
                told.finalized_features.iter().map(|f| (f.name.as_str(), f.max_version_level)).collect();
            assert_eq!(finalized.contains(&("metadata.version", 30)), version >= 3);
        }
    }

    #[test]
    fn a_client_without_a_proper_name_gets_an_error_and_no_table() {
        for version in [3, 4] {
            let told: ApiVersionsResponse =
                Stage::new(&[]).ask(ApiKey::ApiVersions, version, &request("-java"));
            assert_eq!((told.error_code, told.api_keys.len()), (42, 0));
        }
    }

    #[test]
    fn an_unknown_version_is_answered_in_version_0_with_its_body_unread() {
        let mut stage = Stage::new(&[]);
        let (mut header, work) = stage.start_bytes(ApiKey::ApiVersions, 99, b"anything");
        header.version = 0;
        let told: ApiVersionsResponse = stage.finish(&header, work);
        assert_eq!(told.error_code, 35);
        let of_clients = crate::wire::api::TABLE.iter().filter(|api| api.listeners.client).count();
        assert_eq!(told.api_keys.len(), of_clients);
    }

    #[test]
    fn software_names_follow_kafkas_pattern() {
        assert!(names_are_valid(&request("apache-kafka-java"), 3));
        assert!(!names_are_valid(&request("-java"), 3));
        assert!(!names_are_valid(&request(""), 3));
        assert!(names_are_valid(&request(""), 2));
    }
}
