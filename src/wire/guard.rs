//! Decodes control requests with kafka-protocol, which on its own can be made to abort the process:
//! it reserves memory for any array length it reads.
//!
//! Every request is decoded twice. The first pass reads from [`Checked`], in which a length that the
//! bytes cannot hold leads to an error before it leads to memory:
//!
//! - an INT32 reads as at most the bytes left plus one, so an array with a false length runs out of
//!   bytes while it is read (a plain integer reads wrong, which nothing depends on);
//! - an UNSIGNED_VARINT is followed byte by byte and refused beyond the bytes left (a compact length
//!   is one more than what it counts, and a tag number may be anything small) or beyond 32 bits.
//!
//! A first pass without an error has seen every length come true. The second pass then decodes from
//! the plain bytes. The first pass also bounds what the decoded request takes in memory, so that the
//! caller can admit it for its cost.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

use super::WireError;

/// The memory that one decoded request may take, unless the caller says otherwise.
pub const MEMORY_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// A varint may exceed the bytes left by this much: tag numbers are small and count nothing.
const VARINT_SLACK: u64 = 128;

/// What one read is charged. A decoded field takes at most 32 bytes; the most expensive bytes on
/// the wire are a struct's single tagged field, whose three reads (tag, length, bytes) and the count
/// before it bring a B-tree node of about 450 bytes.
const READ_COST_BYTES: usize = 128;

/// How much a decoded request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_LIMIT_BYTES }
    }
}

/// Decodes a whole request body.
pub fn decode<T: Decodable>(body: &Bytes, version: i16, limits: Limits) -> Result<T, WireError> {
    decode_measured(body, version, limits).map(|(request, _)| request)
}

/// Decodes a whole request body, and gives an upper bound of the bytes of memory it takes.
pub fn decode_measured<T: Decodable>(
    body: &Bytes,
    version: i16,
    limits: Limits,
) -> Result<(T, usize), WireError> {
    let memory_bytes = measure::<T>(body, version, limits)?;
    let mut bytes = body.clone();
    let request = T::decode(&mut bytes, version).map_err(|_| WireError::Malformed)?;
    match bytes.len() {
        0 => Ok((request, memory_bytes)),
        count => Err(WireError::Trailing { count }),
    }
}

/// The first pass alone: checks every length of a request body, and gives an upper bound of the
/// bytes of memory that decoding it takes.
pub fn measure<T: Decodable>(body: &Bytes, version: i16, limits: Limits) -> Result<usize, WireError> {
    let mut checked = Checked {
        bytes: body.clone(),
        varint: 0,
        varint_shift: 0,
        memory_bytes: 0,
        limit_bytes: limits.memory_bytes,
    };
    let decoded = T::decode(&mut checked, version);
    if checked.memory_bytes > limits.memory_bytes {
        return Err(WireError::TooCostly { limit_bytes: limits.memory_bytes });
    }
    decoded.map_err(|_| WireError::Malformed)?;
    match checked.bytes.len() {
        0 => Ok(checked.memory_bytes),
        count => Err(WireError::Trailing { count }),
    }
}

/// The buffer of the first pass.
struct Checked {
    bytes: Bytes,
    /// The varint read so far. A boolean with its high bit set starts one too, which makes the value
    /// of a varint after it larger than it is: the check gets stricter, never looser.
    varint: u64,
    varint_shift: u32,
    memory_bytes: usize,
    limit_bytes: usize,
}

impl Checked {
    fn charge(&mut self) -> Result<(), TryGetError> {
        self.memory_bytes += READ_COST_BYTES;
        if self.memory_bytes > self.limit_bytes { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> TryGetError {
        TryGetError { requested: usize::MAX, available: self.bytes.len() }
    }
}

impl Buf for Checked {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.varint |= u64::from(byte & 0x7f) << self.varint_shift;
        if byte >= 0x80 {
            self.varint_shift += 7;
            return if self.varint_shift > 28 { Err(self.refusal()) } else { Ok(byte) };
        }
        let value = std::mem::take(&mut self.varint);
        self.varint_shift = 0;
        if value > self.bytes.len() as u64 + VARINT_SLACK {
            return Err(self.refusal());
        }
        self.charge()?;
        Ok(byte)
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        self.charge()?;
        self.bytes.try_get_i16()
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.charge()?;
        let value = self.bytes.try_get_i32()?;
        let possible = i32::try_from(self.bytes.len() + 1).unwrap_or(i32::MAX);
        Ok(value.min(possible))
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        self.charge()?;
        self.bytes.try_get_i64()
    }
}

impl ByteBuf for Checked {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.memory_bytes += READ_COST_BYTES;
        self.bytes.split_to(size)
    }
}
