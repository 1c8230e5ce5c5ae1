//! Request and response headers.
//!
//! Request header v1 is key, version, correlation id and a nullable client id; v2, of flexible
//! versions, adds tagged fields, while the client id keeps its old form. Response header v1 adds
//! tagged fields to the correlation id, except that ApiVersions always answers with v0: its
//! client does not know yet what the broker speaks.

use bytes::{Bytes, BytesMut};

use super::api::{self, Api, ApiKey};
use super::primitive::{Reader, Writer};
use super::{StrBytes, WireError};

/// What a request's header says.
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// The API asked for.
    pub api: &'static Api,
    /// The version of request and response. Served, except that ApiVersions may show any:
    /// [`RequestHeader::is_served`].
    pub version: i16,
    /// Returned with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

impl RequestHeader {
    /// Whether the version is one that is served; false only for ApiVersions, which then is
    /// answered with [`super::response::encode_api_versions_unsupported`] without reading its body.
    pub fn is_served(&self) -> bool {
        self.api.serves(self.version)
    }
}

/// Splits a frame into its header and its body, which shares the frame's memory.
pub fn parse(frame: &Bytes) -> Result<(RequestHeader, Bytes), WireError> {
    let mut reader = Reader::new(frame, false);
    let key = reader.i16()?;
    let version = reader.i16()?;
    let api = api::find(key).ok_or(WireError::ApiUnknown { key })?;
    if !api.serves(version) && api.key != ApiKey::ApiVersions {
        return Err(WireError::VersionUnsupported { key, version });
    }
    let correlation_id = reader.i32()?;
    let client_id = match reader.i16()? {
        -1 => None,
        length => {
            let length = usize::try_from(length).map_err(|_| WireError::LengthNegative)?;
            let bytes = frame.slice_ref(reader.take(length)?);
            Some(StrBytes::from_utf8(bytes).map_err(|_| WireError::NotUtf8)?)
        }
    };
    let mut reader = Reader::new(reader.rest(), api.is_flexible(version));
    reader.skip_tags()?;
    let body = frame.slice_ref(reader.rest());
    Ok((RequestHeader { api, version, correlation_id, client_id }, body))
}

/// Appends a length of 0, to be patched by [`end_response`], and the response header; returns
/// where the response starts.
pub fn begin_response(buffer: &mut BytesMut, api: &Api, version: i16, correlation_id: i32) -> usize {
    let start = buffer.len();
    let mut writer = Writer::new(buffer, api.is_flexible(version) && api.key != ApiKey::ApiVersions);
    writer.i32(0);
    writer.i32(correlation_id);
    writer.tags(0);
    start
}

/// Patches the length of the response that starts at `start` and ends at the end of the buffer;
/// `elsewhere_bytes` of it are sent from other places. Returns the whole length with its prefix.
pub fn end_response(buffer: &mut BytesMut, start: usize, elsewhere_bytes: u64) -> u64 {
    let whole_bytes = (buffer.len() - start) as u64 + elsewhere_bytes;
    let length = i32::try_from(whole_bytes - 4).expect("a response fits INT32: fetches are bounded");
    Writer::new(buffer, false).patch_i32(start, length);
    whole_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: i16, version: i16, client_id: &[u8], tail: &[u8]) -> Bytes {
        let mut bytes = [key.to_be_bytes(), version.to_be_bytes()].concat();
        bytes.extend([0, 0, 0, 9]);
        bytes.extend((client_id.len() as i16).to_be_bytes());
        bytes.extend([client_id, tail].concat());
        bytes.into()
    }

    #[test]
    fn the_tagged_fields_of_a_flexible_header_are_skipped() {
        let (parsed, body) = parse(&header(3, 9, b"me", &[1, 5, 2, 0, 0, b'B'])).unwrap();
        assert_eq!(parsed.client_id.as_deref(), Some("me"));
        assert_eq!((parsed.version, parsed.correlation_id), (9, 9));
        assert_eq!(body, b"B"[..]);
        let (_, body) = parse(&header(3, 8, b"me", &[1, 5])).unwrap();
        assert_eq!(body, [1, 5][..]);
    }

    #[test]
    fn a_client_id_may_be_null_but_not_cut_or_broken() {
        let mut bytes = header(3, 8, b"", b"").to_vec();
        bytes[8..10].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&bytes.clone().into()).unwrap().0.client_id, None);
        bytes[9] = 0xfe;
        assert_eq!(parse(&bytes.clone().into()).unwrap_err(), WireError::LengthNegative);
        bytes[8..10].copy_from_slice(&[0, 3]);
        assert_eq!(parse(&bytes.into()).unwrap_err(), WireError::Truncated);
        assert_eq!(parse(&header(3, 8, &[0xff], b"")).unwrap_err(), WireError::NotUtf8);
    }

    #[test]
    fn only_api_versions_may_show_a_version_that_is_not_served() {
        let (parsed, _) = parse(&header(18, 99, b"x", &[0])).unwrap();
        assert!(!parsed.is_served());
        let produce = parse(&header(0, 2, b"x", b"")).unwrap_err();
        assert_eq!(produce, WireError::VersionUnsupported { key: 0, version: 2 });
        assert_eq!(parse(&header(4, 0, b"x", b"")).unwrap_err(), WireError::ApiUnknown { key: 4 });
    }
}
