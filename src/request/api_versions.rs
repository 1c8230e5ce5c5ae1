//! ApiVersions: the API table as the client may use it. Any requested version gets an answer.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;

use super::Work;
use crate::wire::api::{ApiKey, Listener};
use crate::wire::header::RequestHeader;
use crate::wire::{ErrorCode, guard, response};

pub(super) fn answer(header: &RequestHeader, body: &Bytes, door: Listener) -> Work {
    let mut buffer = BytesMut::new();
    let correlation_id = header.correlation_id;
    let encoded = if header.is_served() {
        let mut answer = response::api_versions(door);
        let request = guard::decode::<ApiVersionsRequest>(body, header.version, guard::Limits::default());
        if !request.is_ok_and(|request| names_are_valid(&request, header.version)) {
            answer = answer.with_error_code(ErrorCode::InvalidRequest.code());
        }
        response::encode(&mut buffer, ApiKey::ApiVersions, header.version, correlation_id, &answer)
    } else {
        response::encode_api_versions_unsupported(&mut buffer, correlation_id, door)
    };
    encoded.expect("the table encodes in every version served");
    Work::Encoded(buffer)
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
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        let request = |name: &str| {
            ApiVersionsRequest::default()
                .with_client_software_name(name.to_string().into())
                .with_client_software_version("4.3.1".to_string().into())
        };
        assert!(names_are_valid(&request("apache-kafka-java"), 3));
        assert!(!names_are_valid(&request("-java"), 3));
        assert!(!names_are_valid(&request(""), 3));
        assert!(names_are_valid(&request(""), 2));
    }
}
