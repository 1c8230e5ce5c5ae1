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

/// How many bytes the record at the start of `bytes` takes with its length; `None` when the bytes end inside
/// the length.
#[inline]
pub(super) fn total_bytes(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let mut rest = bytes;
    let length = match varint(&mut rest) {
        Ok(length) => usize::try_from(length).map_err(|_| RecordError::Length)?,
        Err(RecordError::Short) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(bytes.len() - rest.len() + length))
}

/// What the check of a batch wants to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub timestamp_delta_ms: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// The usual record, which has no headers and numbers of at most two bytes, and how many bytes it takes. `None`
/// for any other, right or wrong: [`Record::read`] says which. It keeps its place in a register instead of a slice
/// in memory, which is worth most of the time that a small record takes.
#[inline]
pub(super) fn usual(bytes: &[u8]) -> Option<(Outline, usize)> {
    let mut at = 0;
    let length = usize::try_from(brief_number(bytes, &mut at)?).ok()?;
    let end = at + length;
    let record = bytes.get(..end)?;
    at += 1; // attributes
    let timestamp_delta_ms = i64::from(brief_number(record, &mut at)?);
    let offset_delta = brief_number(record, &mut at)?;
    let key_length = brief_number(record, &mut at)?;
    at += usize::try_from(key_length.max(0)).ok()?;
    let value_length = brief_number(record, &mut at)?;
    at += usize::try_from(value_length.max(0)).ok()?;
    let header_count = brief_number(record, &mut at)?;
    let is_usual = header_count == 0 && at == end && key_length >= -1 && value_length >= -1;
    is_usual.then_some((Outline { timestamp_delta_ms, offset_delta, has_key: key_length >= 0 }, end))
}

/// A zig-zag number of one or two bytes.
#[inline(always)]
fn brief_number(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag_32(u32::from(first)));
    }
    let second = *bytes.get(*at + 1).filter(|second| **second < 0x80)?;
    *at += 2;
    Some(unzigzag_32(u32::from(first & 0x7f) | u32::from(second) << 7))
}

/// Reads one record whose bytes come piece by piece, with the checks of [`Record::read`] and without keeping
/// its fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialRecord {
    /// Bytes of the record that were not taken yet.
    left: usize,
    /// Bytes of a field's content that were not taken yet.
    skip: usize,
    next: Field,
    outline: Outline,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Length,
    Attributes,
    Timestamp,
    Offset,
    Key,
    Value,
    HeaderCount,
    /// With the number of headers to come.
    HeaderName(i32),
    HeaderValue(i32),
}

impl PartialRecord {
    pub(super) fn new() -> Self {
        let outline = Outline { timestamp_delta_ms: 0, offset_delta: 0, has_key: false };
        Self { left: 0, skip: 0, next: Field::Length, outline }
    }

    /// Takes in what there is, at most `fields_max` fields. `None` when there is more to take, now or when
    /// more bytes have come; fewer than ten bytes are left behind then, or the fields are used up.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        fields_max: usize,
    ) -> Result<Option<Outline>, RecordError> {
        for _ in 0..fields_max {
            let skipped = self.skip.min(bytes.len());
            *bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            if matches!(self.next, Field::HeaderName(0)) {
                return if self.left == 0 { Ok(Some(self.outline)) } else { Err(RecordError::Size) };
            }
            let whole = self.left <= bytes.len() && !matches!(self.next, Field::Length);
            let reach =
                if matches!(self.next, Field::Length) { bytes.len() } else { self.left.min(bytes.len()) };
            let mut field = bytes.get(..reach).unwrap_or_default();
            match self.field(&mut field) {
                Ok(()) => {}
                Err(RecordError::Short) if !whole => return Ok(None),
                Err(error) => return Err(error),
            }
            *bytes = bytes.get(reach - field.len()..).unwrap_or_default();
        }
        Ok(None)
    }

    /// Reads one field's number, changing nothing when it is cut short.
    fn field(&mut self, bytes: &mut &[u8]) -> Result<(), RecordError> {
        let before = bytes.len();
        let mut content = 0;
        let next = match self.next {
            Field::Length => {
                let length = varint(bytes)?;
                self.left = usize::try_from(length).map_err(|_| RecordError::Length)?;
                self.next = Field::Attributes;
                return Ok(());
            }
            Field::Attributes => {
                let (_, rest) = bytes.split_first().ok_or(RecordError::Short)?;
                *bytes = rest;
                Field::Timestamp
            }
            Field::Timestamp => {
                self.outline.timestamp_delta_ms = varlong(bytes)?;
                Field::Offset
            }
            Field::Offset => {
                self.outline.offset_delta = varint(bytes)?;
                Field::Key
            }
            Field::Key => {
                let length = content_length(bytes)?;
                self.outline.has_key = length.is_some();
                content = length.unwrap_or(0);
                Field::Value
            }
            Field::Value => {
                content = content_length(bytes)?.unwrap_or(0);
                Field::HeaderCount
            }
            Field::HeaderCount => {
                let count = varint(bytes)?;
                if count < 0 {
                    return Err(RecordError::Headers);
                }
                Field::HeaderName(count)
            }
            Field::HeaderName(count) => {
                content = content_length(bytes)?.ok_or(RecordError::Length)?;
                Field::HeaderValue(count)
            }
            Field::HeaderValue(count) => {
                content = content_length(bytes)?.unwrap_or(0);
                Field::HeaderName(count - 1)
            }
        };
        // Only bytes within the record were read.
        self.left -= before - bytes.len();
        self.left = self.left.checked_sub(content).ok_or(RecordError::Size)?;
        self.skip = content;
        self.next = next;
        Ok(())
    }
}

/// The length before a nullable field.
fn content_length(bytes: &mut &[u8]) -> Result<Option<usize>, RecordError> {
    match varint(bytes)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| RecordError::Length),
    }
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

    /// Reads the record at the front byte by byte, as pieces of a stream.
    fn read_in_pieces(bytes: &[u8]) -> Result<Option<Outline>, RecordError> {
        let mut partial = PartialRecord::new();
        let (mut at, mut end) = (0, 0);
        loop {
            let mut rest = &bytes[at..end];
            let read = partial.read(&mut rest, 3)?;
            at = end - rest.len();
            if read.is_some() {
                assert_eq!(end, at, "nothing behind the record was taken");
                return Ok(read);
            }
            if end == bytes.len() && rest.len() < 11 && partial.read(&mut &bytes[at..], 3)?.is_none() {
                return Ok(None);
            }
            end = (end + 1).min(bytes.len());
        }
    }

    #[test]
    fn a_record_in_pieces_says_the_same() {
        let mut out = Vec::new();
        let value = [7; 300];
        write(&mut out, -70_000, 3, Some(b"k"), Some(&value), &[(b"h", Some(&value)), (b"", None)]);
        let outline = Outline { timestamp_delta_ms: -70_000, offset_delta: 3, has_key: true };
        assert_eq!(read_in_pieces(&out), Ok(Some(outline)));
        for cut in 0..out.len() {
            assert_eq!(read_in_pieces(&out[..cut]), Ok(None), "cut at {cut}");
        }
        out.clear();
        write(&mut out, 0, 0, None, None, &[]);
        let outline = Outline { timestamp_delta_ms: 0, offset_delta: 0, has_key: false };
        assert_eq!(read_in_pieces(&out), Ok(Some(outline)));
    }

    proptest! {
        #[test]
        fn the_usual_record_is_read_alike(
            (delta_ms, offset) in (-9000_i64..9000, 0_i32..9000),
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            headers in 0_usize..2,
            changes in proptest::collection::vec((0_usize..20, any::<u8>()), 0..3),
            cut in 0_usize..300,
        ) {
            let mut out = Vec::new();
            let named: [Header<'_>; 1] = [(b"name", Some(b"x"))];
            write(&mut out, delta_ms, offset, key.as_deref(), value.as_deref(), &named[..headers]);
            for (at, byte) in changes {
                if let Some(slot) = out.get_mut(at) {
                    *slot = byte;
                }
            }
            out.truncate(cut.max(1));
            let mut rest = out.as_slice();
            let read = Record::read(&mut rest);
            match (usual(&out), read) {
                (Some((outline, bytes)), Ok(record)) => {
                    prop_assert_eq!(bytes, out.len() - rest.len());
                    prop_assert_eq!(outline.timestamp_delta_ms, record.timestamp_delta_ms);
                    prop_assert_eq!(outline.offset_delta, record.offset_delta);
                    prop_assert_eq!(outline.has_key, record.key.is_some());
                }
                (Some(_), Err(error)) => prop_assert!(false, "a wrong record passes for a usual one: {}", error),
                (None, Ok(record)) => {
                    let brief = -8192..8192;
                    let is_usual = record.header_count == 0
                        && brief.contains(&record.timestamp_delta_ms)
                        && brief.contains(&i64::from(record.offset_delta));
                    // A changed number may take more bytes than it needs.
                    prop_assert!(!is_usual || out.iter().take(20).any(|byte| *byte >= 0x80));
                }
                (None, Err(_)) => {}
            }
        }

        #[test]
        fn pieces_and_wholes_are_refused_alike(changes in proptest::collection::vec((0_usize..40, any::<u8>()), 0..3)) {
            let mut out = Vec::new();
            write(&mut out, 5, 1, Some(b"key"), Some(b"value"), &[(b"name", Some(b"x")), (b"n", None)]);
            for (at, byte) in changes {
                if let Some(slot) = out.get_mut(at) {
                    *slot = byte;
                }
            }
            if let Ok(Some(total)) = total_bytes(&out) && total <= out.len() {
                let whole = Record::read(&mut &out[..total]).map(|record| Outline {
                    timestamp_delta_ms: record.timestamp_delta_ms,
                    offset_delta: record.offset_delta,
                    has_key: record.key.is_some(),
                });
                let pieces = read_in_pieces(&out[..total]);
                prop_assert_eq!(whole.ok(), pieces.ok().flatten());
            }
        }

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
