//! The protocol's primitive types: a bounds-checked reader over bytes and a writer on `BytesMut`.
//!
//! Both know whether the version is *flexible* (KIP-482), which decides how lengths are written
//! and whether structs end with tagged fields. A length is believed only when the bytes are there.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::{NodeEndpoint, WireError};

/// A struct with more tagged fields than this is refused (Kafka 4.4's own limit).
pub const TAGGED_FIELDS_MAX: u32 = 10_000;

/// Reads fields off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

macro_rules! read_int {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&mut self) -> Result<$type, WireError> {
            let Some((head, rest)) = self.rest.split_first_chunk() else {
                return Err(WireError::Truncated);
            };
            self.rest = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader of a flexible or an older version.
    pub fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self { rest: bytes, flexible }
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    read_int! {
        /// INT8.
        i8: i8,
        /// INT16.
        i16: i16,
        /// INT32.
        i32: i32,
        /// INT64.
        i64: i64,
    }

    /// The next `length` bytes.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// UNSIGNED_VARINT: at most five bytes, and no bit beyond the 32nd.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let Some((&first, rest)) = self.rest.split_first() else { return Err(WireError::Truncated) };
        self.rest = rest;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        self.uvarint_rest(u32::from(first & 0x7f))
    }

    fn uvarint_rest(&mut self, mut value: u32) -> Result<u32, WireError> {
        for shift in [7, 14, 21, 28] {
            let Some((&byte, rest)) = self.rest.split_first() else { return Err(WireError::Truncated) };
            self.rest = rest;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::VarintOverflow)
    }

    /// UUID.
    #[inline]
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else { return Err(WireError::Truncated) };
        self.rest = rest;
        Ok(Uuid::from_bytes(*head))
    }

    /// A length that is −1 (0 as a compact one) for null.
    #[inline]
    fn length(&mut self, short: bool) -> Result<Option<usize>, WireError> {
        if self.flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(WireError::LengthNegative),
        }
    }

    /// NULLABLE_STRING or its compact form.
    #[inline]
    pub fn string_nullable(&mut self) -> Result<Option<&'a str>, WireError> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| WireError::NotUtf8)
    }

    /// STRING or COMPACT_STRING.
    #[inline]
    pub fn string(&mut self) -> Result<&'a str, WireError> {
        self.string_nullable()?.ok_or(WireError::Null)
    }

    /// NULLABLE_BYTES, RECORDS or their compact forms.
    #[inline]
    pub fn bytes_nullable(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        self.length(false)?.map(|length| self.take(length)).transpose()
    }

    /// The length of an array whose elements take at least `element_bytes_min` bytes each.
    #[inline]
    pub fn array_length(&mut self, element_bytes_min: usize) -> Result<u32, WireError> {
        let length = self.length(false)?.ok_or(WireError::Null)?;
        if length > self.rest.len() / element_bytes_min.max(1) {
            return Err(WireError::Truncated);
        }
        u32::try_from(length).map_err(|_| WireError::Truncated)
    }

    /// Skips the tagged fields at the end of a struct; there are none before flexible versions.
    #[inline]
    pub fn skip_tags(&mut self) -> Result<(), WireError> {
        self.tags(|_, _| Ok(true))
    }

    /// Gives each tagged field's number and bytes to `field`, which returns whether it consumed
    /// all of them or does not know the tag.
    #[inline]
    pub fn tags(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.uvarint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(WireError::TagsTooMany { count });
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let mut content = Reader::new(self.take(length)?, true);
            if !field(tag, &mut content)? {
                return Err(WireError::TagMalformed { tag });
            }
        }
        Ok(())
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut BytesMut,
    flexible: bool,
}

impl<'b> Writer<'b> {
    /// A writer of a flexible or an older version, at the end of `buffer`.
    pub fn new(buffer: &'b mut BytesMut, flexible: bool) -> Self {
        Self { buffer, flexible }
    }

    /// Where the next field goes in the buffer.
    pub fn position(&self) -> usize {
        self.buffer.len()
    }

    /// INT16.
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// INT32.
    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// INT64.
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_slice(value.as_bytes());
    }

    /// Bytes without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// UNSIGNED_VARINT.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// STRING or its compact form. Names and messages are far below 32 KiB by construction.
    pub fn string(&mut self, value: &str) {
        if self.flexible {
            self.uvarint(value.len() as u32 + 1);
        } else {
            let length = i16::try_from(value.len()).expect("a string of an older version fits 32 KiB");
            self.buffer.put_i16(length);
        }
        self.raw(value.as_bytes());
    }

    /// NULLABLE_STRING or its compact form.
    pub fn string_nullable(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.uvarint(0),
            None => self.i16(-1),
        }
    }

    /// The length of an array or of bytes that follow; at most `i32::MAX`.
    pub fn length(&mut self, length: u32) {
        let signed = i32::try_from(length).expect("a length in a response fits INT32");
        if self.flexible {
            self.uvarint(length + 1);
        } else {
            self.i32(signed);
        }
    }

    /// The length of a null array.
    pub fn length_null(&mut self) {
        if self.flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    /// How many tagged fields follow; nothing before flexible versions.
    pub fn tags(&mut self, count: u32) {
        if self.flexible {
            self.uvarint(count);
        }
    }

    /// The head of one tagged field.
    pub fn tag(&mut self, tag: u32, length: u32) {
        self.uvarint(tag);
        self.uvarint(length);
    }

    /// The tagged fields of a struct whose only one is NodeEndpoints under tag 0, as Produce v10
    /// and Fetch v16 end.
    pub fn node_endpoints(&mut self, nodes: &[NodeEndpoint<'_>]) {
        if nodes.is_empty() {
            return self.tags(0);
        }
        self.tags(1);
        let length: usize = nodes.iter().map(node_endpoint_bytes).sum();
        let count = nodes.len() as u32;
        self.tag(0, length as u32 + uvarint_bytes(count + 1));
        self.length(count);
        for node in nodes {
            self.i32(node.node_id);
            self.string(node.host);
            self.i32(node.port);
            self.string_nullable(node.rack);
            self.tags(0);
        }
    }

    /// Overwrites four bytes at `position`, which were written before.
    pub fn patch_i32(&mut self, position: usize, value: i32) {
        let slot = self.buffer.get_mut(position..position + 4).expect("the patched field was written");
        slot.copy_from_slice(&value.to_be_bytes());
    }
}

/// Bytes that an UNSIGNED_VARINT takes.
pub fn uvarint_bytes(value: u32) -> u32 {
    (38 - (value | 1).leading_zeros()) / 7
}

fn node_endpoint_bytes(node: &NodeEndpoint<'_>) -> usize {
    let host = uvarint_bytes(node.host.len() as u32 + 1) as usize + node.host.len();
    let rack = node.rack.map_or(1, |rack| uvarint_bytes(rack.len() as u32 + 1) as usize + rack.len());
    4 + host + 4 + rack + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_take_the_bytes_they_say() {
        for shift in 0..32 {
            for value in [1u32 << shift, (1u32 << shift).wrapping_sub(1), u32::MAX >> shift] {
                let mut buffer = BytesMut::new();
                Writer::new(&mut buffer, true).uvarint(value);
                assert_eq!(buffer.len() as u32, uvarint_bytes(value), "{value}");
                assert_eq!(Reader::new(&buffer, true).uvarint(), Ok(value));
            }
        }
    }

    #[test]
    fn a_varint_over_32_bits_is_refused() {
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0x80, 0x80, 0x80, 0x80, 0x80]] {
            assert_eq!(Reader::new(&bytes, true).uvarint(), Err(WireError::VarintOverflow));
        }
        assert_eq!(Reader::new(&[0x80, 0x80], true).uvarint(), Err(WireError::Truncated));
    }

    #[test]
    fn an_array_longer_than_its_bytes_is_refused() {
        let bytes = [0, 0, 0, 3, 1, 2, 3, 4, 5];
        assert_eq!(Reader::new(&bytes, false).array_length(2), Err(WireError::Truncated));
        assert_eq!(Reader::new(&bytes, false).array_length(1), Ok(3));
        assert_eq!(Reader::new(&[0xff; 4], false).array_length(1), Err(WireError::Null));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xfe], false).array_length(1),
            Err(WireError::LengthNegative)
        );
    }

    #[test]
    fn tagged_fields_are_skipped_within_their_bounds() {
        let mut reader = Reader::new(&[2, 0, 1, 9, 7, 0, 42], true);
        reader.skip_tags().unwrap();
        assert_eq!(reader.i8(), Ok(42));
        assert_eq!(Reader::new(&[1, 0, 5, 9], true).skip_tags(), Err(WireError::Truncated));
        let many = Reader::new(&[0xff, 0xff, 0x03], true).skip_tags();
        assert_eq!(many, Err(WireError::TagsTooMany { count: 65_535 }));
    }
}
