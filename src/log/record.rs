//! The records inside a batch of format v2: reading them in place and writing them.
//!
//! A record is: length, attributes (unused), timestamp delta, offset delta, key, value, headers; every
//! number but the attributes is a zig-zag varint, and a length of -1 stands for null. Reading borrows
//! and allocates nothing. Format: Kafka's `DefaultRecord`.

/// A header of a record: name and value.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a record.
    #[error("the bytes end inside a record")]
    Short,
    /// A varint longer than its type.
    #[error("a number of a record is longer than its type")]
    Varint,
    /// A negative length that is not null's -1, or a null header name.
    #[error("a field of a record has a negative length")]
    Length,
    /// Fields and record length do not agree.
    #[error("the length of a record is not that of its fields")]
    Size,
    /// Fewer or more header fields than counted.
    #[error("a record has an impossible number of headers")]
    Headers,
}

/// One record, borrowed from its batch's (decompressed) bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta_ms: i64,
    /// Offset after the batch's base offset.
    pub offset_delta: i32,
    /// Key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// How many headers follow.
    pub header_count: i32,
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes` and moves `bytes` behind it. Every length in it is
    /// verified, those of the headers too.
    #[inline]
    pub fn read(bytes: &mut &'a [u8]) -> Result<Record<'a>, RecordError> {
        let length = varint(bytes)?;
        let length = usize::try_from(length).map_err(|_| RecordError::Length)?;
        let (mut body, rest) = bytes.split_at_checked(length).ok_or(RecordError::Short)?;
        *bytes = rest;
        let (_attributes, after) = body.split_first().ok_or(RecordError::Short)?;
        body = after;
        let timestamp_delta_ms = varlong(&mut body)?;
        let offset_delta = varint(&mut body)?;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let header_count = varint(&mut body)?;
        let headers = body;
        if header_count < 0 {
            return Err(RecordError::Headers);
        }
        for _ in 0..header_count {
            read_header(&mut body)?;
        }
        if !body.is_empty() {
            return Err(RecordError::Size);
        }
        Ok(Record { timestamp_delta_ms, offset_delta, key, value, header_count, headers })
    }

    /// The headers in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.headers;
        // Verified by `read`: the iterator ends where the fields do.
        std::iter::from_fn(move || if rest.is_empty() { None } else { read_header(&mut rest).ok() })
    }
}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Result<Header<'a>, RecordError> {
    let name = nullable(bytes)?.ok_or(RecordError::Length)?;
    Ok((name, nullable(bytes)?))
}

/// The records of a batch: its bytes after the header, decompressed. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Reads from the first record on.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The bytes behind what was read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = Record::read(&mut self.rest);
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[inline]
fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    let length = varint(bytes)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| RecordError::Length)?;
    let (field, rest) = bytes.split_at_checked(length).ok_or(RecordError::Short)?;
    *bytes = rest;
    Ok(Some(field))
}

/// A 32-bit zig-zag varint, at most five bytes.
#[inline]
fn varint(bytes: &mut &[u8]) -> Result<i32, RecordError> {
    // Nearly every number of a record fits one or two bytes.
    let (raw, rest) = match *bytes {
        [first, rest @ ..] if *first < 0x80 => (u32::from(*first), rest),
        [first, second, rest @ ..] if *second < 0x80 => {
            (u32::from(*first & 0x7f) | u32::from(*second) << 7, rest)
        }
        _ => {
            let raw = long_varint(bytes, 5)?;
            // Bits above the 32nd are dropped, as Kafka drops them.
            return Ok(unzigzag_32(raw as u32));
        }
    };
    *bytes = rest;
    Ok(unzigzag_32(raw))
}

/// A 64-bit zig-zag varint, at most ten bytes.
#[inline]
fn varlong(bytes: &mut &[u8]) -> Result<i64, RecordError> {
    let raw = match *bytes {
        [first, rest @ ..] if *first < 0x80 => {
            let raw = u64::from(*first);
            *bytes = rest;
            raw
        }
        _ => long_varint(bytes, 10)?,
    };
    // Zig-zag: the sign is the lowest bit.
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn long_varint(bytes: &mut &[u8], bytes_max: u32) -> Result<u64, RecordError> {
    let mut raw = 0_u64;
    for index in 0..bytes_max {
        let (byte, rest) = bytes.split_first().ok_or(RecordError::Short)?;
        *bytes = rest;
        raw |= u64::from(*byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Ok(raw);
        }
    }
    Err(RecordError::Varint)
}

#[inline]
fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

/// Appends one record to `out`.
pub(super) fn write(
    out: &mut Vec<u8>,
    timestamp_delta_ms: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) {
    let header_bytes = headers.iter().map(|(name, value)| field_bytes(Some(name)) + field_bytes(*value));
    let header_count = i64::try_from(headers.len()).expect("a record has fewer than 2^31 headers");
    let length = 1
        + varint_bytes(timestamp_delta_ms)
        + varint_bytes(i64::from(offset_delta))
        + field_bytes(key)
        + field_bytes(value)
        + varint_bytes(header_count)
        + header_bytes.sum::<usize>();
    out.reserve(length + 5);
    put_varint(out, i64::try_from(length).expect("a record is smaller than 2 GiB"));
    out.push(0);
    put_varint(out, timestamp_delta_ms);
    put_varint(out, i64::from(offset_delta));
    put_field(out, key);
    put_field(out, value);
    put_varint(out, header_count);
    for (name, value) in headers {
        put_field(out, Some(name));
        put_field(out, *value);
    }
}

fn field_length(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| i64::from(i32::try_from(bytes.len()).expect("a field is smaller than 2 GiB")))
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    varint_bytes(field_length(field)) + field.map_or(0, <[u8]>::len)
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field_length(field));
    out.extend_from_slice(field.unwrap_or_default());
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_bytes(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_has_kafkas_bytes() {
        let mut out = Vec::new();
        write(&mut out, 300, 1, Some(b"k"), None, &[(b"h", Some(b"x")), (b"", None)]);
        // length 15, attributes, 300, 1, "k", null, 2 headers
        let expected = [24, 0, 0xd8, 0x04, 2, 2, b'k', 1, 4, 2, b'h', 2, b'x'];
        assert_eq!(out[1..13], expected[1..]);
        assert_eq!(out[13..], [0, 1]);
        assert_eq!(usize::from(out[0]), (out.len() - 1) * 2);
        let record = Records::new(&out).next().unwrap().unwrap();
        assert_eq!((record.timestamp_delta_ms, record.offset_delta), (300, 1));
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(headers, [(b"h".as_slice(), Some(b"x".as_slice())), (b"".as_slice(), None)]);
    }

    #[test]
    fn lengths_that_do_not_agree_are_refused() {
        let mut out = Vec::new();
        write(&mut out, 0, 0, Some(b"key"), Some(b"value"), &[(b"name", Some(b"x"))]);
        fn read(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
            Records::new(bytes).next().unwrap()
        }
        assert!(read(&out).is_ok());
        for cut in 1..out.len() {
            assert!(read(&out[..cut]).is_err(), "cut at {cut}");
        }
        let with = |at: usize, byte: u8| {
            let mut changed = out.clone();
            changed[at] = byte;
            read(&changed).map(|record| record.offset_delta)
        };
        assert_eq!(with(4, 3), Err(RecordError::Length), "a key length of -2");
        assert_eq!(with(4, 4).unwrap_err(), RecordError::Length, "a key one byte shorter");
        assert_eq!(with(14, 0), Err(RecordError::Size), "no headers counted, one there");
        assert_eq!(with(14, 4), Err(RecordError::Short), "two headers counted, one there");
        assert_eq!(with(14, 1), Err(RecordError::Headers));
        assert_eq!(with(15, 1), Err(RecordError::Length), "a null header name");
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), Err(RecordError::Varint));
    }

    proptest! {
        #[test]
        fn numbers_survive(value: i64, small: i32) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_bytes(value));
            prop_assert_eq!(varlong(&mut out.as_slice()), Ok(value));
            out.clear();
            put_varint(&mut out, i64::from(small));
            prop_assert_eq!(varint(&mut out.as_slice()), Ok(small));
        }

        #[test]
        fn garbage_is_read_or_refused(bytes: Vec<u8>) {
            for record in Records::new(&bytes).flatten() {
                prop_assert!(record.headers().count() == record.header_count as usize);
            }
        }
    }
}
