//! Writes the responses that kafka-protocol encodes, and answers ApiVersions from the table.

use bytes::BytesMut;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::protocol::Encodable;

use super::api::{Api, ApiKey, Listener, TABLE};
use super::{ErrorCode, WireError, beyond, header};

/// Appends a whole response, with length and header, to the buffer; returns its bytes. On an error,
/// which is a field set that the version lacks, the buffer is as it was.
pub fn encode<T: Encodable>(
    buffer: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &T,
) -> Result<u64, WireError> {
    let start = header::begin_response(buffer, key.api(), version, correlation_id);
    if let Err(error) = beyond::encode_response(buffer, key, version, response) {
        buffer.truncate(start);
        return Err(error);
    }
    Ok(header::end_response(buffer, start, 0))
}

/// The answer to ApiVersions on a listener: the table's rows that may be called there. Features
/// are for the caller to add; v3 clients fail on a feature whose lowest version is 0 (KIP-1022).
pub fn api_versions(listener: Listener) -> ApiVersionsResponse {
    let is_told = |api: &&Api| api.listeners.admit(listener) && !api.is_private();
    let rows = TABLE.iter().filter(is_told).map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_first)
            .with_max_version(api.version_last)
    });
    ApiVersionsResponse::default().with_api_keys(rows.collect())
}

/// Answers an ApiVersions request of an unknown version: a v0 body that says UNSUPPORTED_VERSION
/// and still lists the table, so that the client can ask again (KIP-511).
pub fn encode_api_versions_unsupported(
    buffer: &mut BytesMut,
    correlation_id: i32,
    listener: Listener,
) -> Result<u64, WireError> {
    let response = api_versions(listener).with_error_code(ErrorCode::UnsupportedVersion.code());
    encode(buffer, ApiKey::ApiVersions, 0, correlation_id, &response)
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use kafka_protocol::messages::{InitProducerIdResponse, MetadataResponse, ResponseHeader};
    use kafka_protocol::protocol::Decodable;

    use super::*;

    #[test]
    fn api_versions_lists_produce_from_0_and_has_header_v0_in_every_version() {
        for version in 0..=4 {
            let mut buffer = BytesMut::new();
            let response = api_versions(Listener::Client);
            encode(&mut buffer, ApiKey::ApiVersions, version, 5, &response).unwrap();
            assert_eq!(buffer.get_i32() as usize, buffer.len());
            assert_eq!(buffer.get_i32(), 5);
            let decoded = ApiVersionsResponse::decode(&mut buffer, version).unwrap();
            assert!(buffer.is_empty());
            let of_clients = TABLE.iter().filter(|api| api.listeners.client).count();
            assert_eq!(decoded.api_keys.len(), of_clients);
            assert!(decoded.api_keys.iter().all(|api| !(62..=63).contains(&api.api_key)));
            assert_eq!((decoded.api_keys[0].min_version, decoded.api_keys[0].max_version), (0, 13));
        }
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_answered_in_v0_with_error_35() {
        let mut buffer = BytesMut::new();
        encode_api_versions_unsupported(&mut buffer, 9, Listener::Controller).unwrap();
        buffer.advance(8);
        let decoded = ApiVersionsResponse::decode(&mut buffer, 0).unwrap();
        assert_eq!(decoded.error_code, 35);
        let keys: Vec<_> = decoded.api_keys.iter().map(|api| api.api_key).collect();
        let first = [18, 19, 20, 29, 30, 31, 32, 33, 37, 43, 44, 45, 46, 49];
        assert_eq!(keys, [&first[..], &[55, 56, 57, 58, 60, 62, 63, 64, 67, 73, 80, 81, 82]].concat());
    }

    #[test]
    fn a_response_carries_its_length_and_the_header_of_its_version() {
        for (version, header_version) in [(1, 0), (2, 1)] {
            let mut buffer = BytesMut::from(&b"x"[..]);
            let response = InitProducerIdResponse::default().with_producer_epoch(3);
            let whole = encode(&mut buffer, ApiKey::InitProducerId, version, 6, &response).unwrap();
            buffer.advance(1);
            assert_eq!(whole, buffer.len() as u64);
            assert_eq!(buffer.get_i32() as usize, buffer.len());
            assert_eq!(ResponseHeader::decode(&mut buffer, header_version).unwrap().correlation_id, 6);
            let decoded = InitProducerIdResponse::decode(&mut buffer, version).unwrap();
            assert_eq!(decoded, response);
        }
    }

    #[test]
    fn a_field_that_the_version_lacks_leaves_the_buffer_as_it_was() {
        let mut buffer = BytesMut::from(&b"x"[..]);
        let response = MetadataResponse::default().with_cluster_authorized_operations(7);
        let error = encode(&mut buffer, ApiKey::Metadata, 1, 6, &response).unwrap_err();
        assert_eq!(error, WireError::Unencodable { key: 3, version: 1 });
        assert_eq!(buffer, b"x"[..]);
    }
}
