//! Length-prefixed frames in a connection's receive buffer.
//!
//! A frame is known in three steps, so that a shell can refuse or delay it before its bytes take
//! memory: after 4 bytes its length ([`length_at_front`]), after 8 its API and what it may cost
//! ([`front`]), and when it is all there the frame itself, without a copy ([`take`]).

use bytes::{Buf, Bytes, BytesMut};

use super::api::{Api, ApiKey};
use super::guard::{MEMORY_LIMIT_BYTES, READ_COST_BYTES};
use super::outbound::RAFT_MESSAGES_MAX;
use super::{WireError, api};

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Bytes that tell what a frame is: its length, its API and its version.
pub const FRONT_BYTES: usize = 8;

/// What each raft message of a frame takes beside its bytes, and all of them at most.
const PLACE_BYTES: usize = size_of::<Bytes>();
const PLACES_BYTES_MAX: usize = PLACE_BYTES * RAFT_MESSAGES_MAX as usize;

/// The shortest request: key, version, correlation id and a null client id.
const FRAME_BYTES_MIN: u32 = 10;

/// Bytes that the frame at the front takes with its prefix; `None` until the prefix is there.
/// `limit_bytes` is `socket.request.max.bytes`; it does not count the prefix.
pub fn length_at_front(buffer: &[u8], limit_bytes: u32) -> Result<Option<usize>, WireError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let signed = i32::from_be_bytes(*prefix);
    let Ok(length) = u32::try_from(signed) else {
        return Err(WireError::FrameNegative { length: signed });
    };
    if length < FRAME_BYTES_MIN {
        return Err(WireError::FrameShort { length });
    }
    if length > limit_bytes {
        return Err(WireError::FrameTooLarge { length, limit: limit_bytes });
    }
    Ok(Some(PREFIX_BYTES + length as usize))
}

/// The API and version that the frame at the front asks for; `None` until its first 8 bytes are
/// there. Refuses an API that is not served and a frame over that API's own limit; the version is
/// checked with the header.
pub fn api_at_front(buffer: &[u8]) -> Result<Option<(&'static Api, i16)>, WireError> {
    let Some(&[l0, l1, l2, l3, k0, k1, v0, v1]) = buffer.first_chunk::<8>() else { return Ok(None) };
    let key = i16::from_be_bytes([k0, k1]);
    let api = api::find(key).ok_or(WireError::ApiUnknown { key })?;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > api.frame_limit_bytes {
        return Err(WireError::FrameTooLarge { length, limit: api.frame_limit_bytes });
    }
    Ok(Some((api, i16::from_be_bytes([v0, v1]))))
}

/// What is known of the frame at the front before its body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// What it asks for.
    pub api: ApiKey,
    /// Bytes that it takes with its prefix.
    pub length_bytes: usize,
    /// Bytes that its request is admitted for: [`cost_bytes`].
    pub cost_bytes: usize,
}

/// The frame at the front; `None` until its first 8 bytes are there.
pub fn front(buffer: &[u8], limit_bytes: u32) -> Result<Option<Front>, WireError> {
    let Some(length_bytes) = length_at_front(buffer, limit_bytes)? else { return Ok(None) };
    let Some((api, _)) = api_at_front(buffer)? else { return Ok(None) };
    let cost_bytes = cost_bytes(api, length_bytes - PREFIX_BYTES);
    Ok(Some(Front { api: api.key, length_bytes, cost_bytes }))
}

/// Bytes of memory that a request takes at most while it is served. Produce and Fetch are read
/// where they were received; what the library decodes takes what the guard charges for each byte
/// at most, and the guard's limit at most. Raft messages are read in place too, but each has a place in a list.
pub fn cost_bytes(api: &Api, frame_bytes: usize) -> usize {
    match api.key {
        ApiKey::Produce | ApiKey::Fetch => frame_bytes,
        ApiKey::RaftMessages => frame_bytes + frame_bytes.saturating_mul(PLACE_BYTES).min(PLACES_BYTES_MAX),
        _ => frame_bytes + frame_bytes.saturating_mul(READ_COST_BYTES).min(MEMORY_LIMIT_BYTES),
    }
}

/// Takes the frame at the front off the buffer, without its prefix; `None` until it is all there.
/// The frame shares the buffer's memory.
pub fn split(buffer: &mut BytesMut, limit_bytes: u32) -> Result<Option<Bytes>, WireError> {
    Ok(front(buffer, limit_bytes)?.and_then(|front| take(buffer, front)))
}

/// Takes no more than the front of the frame off, without its prefix: the key and the version of what it asks for.
pub fn take_front(buffer: &mut BytesMut) -> Bytes {
    let mut front = buffer.split_to(buffer.len().min(FRONT_BYTES));
    front.advance(front.len().min(PREFIX_BYTES));
    front.freeze()
}

/// Takes the frame off whose front is known; `None` until it is all there.
pub fn take(buffer: &mut BytesMut, front: Front) -> Option<Bytes> {
    if buffer.len() < front.length_bytes {
        return None;
    }
    let mut frame = buffer.split_to(front.length_bytes);
    frame.advance(PREFIX_BYTES);
    Some(frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 100 * 1024 * 1024;

    fn frame(key: i16, version: i16, body_bytes: usize) -> Vec<u8> {
        let mut bytes = (body_bytes as i32 + 10).to_be_bytes().to_vec();
        bytes.extend(key.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend([0, 0, 0, 7, 0xff, 0xff]);
        bytes.resize(bytes.len() + body_bytes, 0xab);
        bytes
    }

    #[test]
    fn a_frame_is_known_step_by_step_and_taken_without_a_copy() {
        let bytes = frame(3, 12, 5);
        let mut buffer = BytesMut::with_capacity(64);
        for (count, byte) in bytes.iter().enumerate() {
            assert_eq!(length_at_front(&buffer, LIMIT).unwrap().is_some(), count >= 4);
            assert_eq!(api_at_front(&buffer).unwrap().is_some(), count >= 8);
            assert_eq!(split(&mut buffer, LIMIT).unwrap(), None);
            buffer.extend_from_slice(&[*byte]);
        }
        assert_eq!(length_at_front(&buffer, LIMIT), Ok(Some(19)));
        assert_eq!(front(&buffer, LIMIT).unwrap().map(|front| front.api), Some(ApiKey::Metadata));
        buffer.extend_from_slice(&bytes[..6]);
        let address = buffer.as_ptr();
        let taken = split(&mut buffer, LIMIT).unwrap().unwrap();
        assert_eq!(taken.as_ptr(), address.wrapping_add(4));
        assert_eq!(taken, bytes[4..]);
        assert_eq!(buffer, bytes[..6]);
    }

    #[test]
    fn a_decoded_request_costs_what_the_guard_would_charge_at_most() {
        let cost = |bytes: &[u8]| front(bytes, LIMIT).unwrap().unwrap().cost_bytes;
        assert_eq!(cost(&frame(1, 12, 90)), 100);
        assert_eq!(cost(&frame(3, 9, 90)), 100 + 100 * READ_COST_BYTES);
        assert_eq!(cost(&frame(3, 9, 1_000_000)), 1_000_010 + MEMORY_LIMIT_BYTES);
        assert_eq!(cost(&frame(1000, 0, 90)), 100 + 100 * PLACE_BYTES);
        assert_eq!(cost(&frame(1000, 0, 20_000_000)), 20_000_010 + PLACES_BYTES_MAX);
    }

    #[test]
    fn lengths_outside_the_limits_are_refused_after_four_bytes() {
        let refused = |length: i32| length_at_front(&length.to_be_bytes(), LIMIT).unwrap_err();
        assert_eq!(refused(-1), WireError::FrameNegative { length: -1 });
        assert_eq!(refused(9), WireError::FrameShort { length: 9 });
        let length = i32::MAX as u32;
        assert_eq!(refused(i32::MAX), WireError::FrameTooLarge { length, limit: LIMIT });
    }

    #[test]
    fn an_api_has_its_own_limit_known_after_eight_bytes() {
        let limit = api::find(18).unwrap().frame_limit_bytes;
        let mut bytes = frame(18, 3, 0);
        bytes[..4].copy_from_slice(&(limit + 1).to_be_bytes());
        let expected = WireError::FrameTooLarge { length: limit + 1, limit };
        assert_eq!(api_at_front(&bytes[..8]).unwrap_err(), expected);
        assert_eq!(api_at_front(&frame(4, 0, 0)).unwrap_err(), WireError::ApiUnknown { key: 4 });
    }
}
