//! Bounded reading and writing of the controller's own big-endian formats: metadata records, raft entries, snapshots.
//! A reader never allocates by a length that it has not compared with the bytes at hand.

use std::sync::Arc;

use uuid::Uuid;

/// The bytes end before the field does, or the field's value is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes fields from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed("ends before its field"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("ends before its field"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.array().map(Uuid::from_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("holds a flag that is neither 0 nor 1")),
        }
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, Malformed> {
        let length = usize::from(self.u16()?);
        self.text_of(length)
    }

    /// Text under a 32-bit length: configuration values may exceed 64 KiB.
    pub(super) fn long_text(&mut self) -> Result<Arc<str>, Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed("holds a length beyond memory"))?;
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Result<Arc<str>, Malformed> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Malformed("holds text that is not UTF-8"))
    }

    /// A list under a 16-bit count; `element` takes at least one byte each, so the count is bounded by the bytes.
    pub(super) fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.u16()?);
        if count > self.rest.len() {
            return Err(Malformed("counts more elements than it has bytes"));
        }
        (0..count).map(|_| element(self)).collect()
    }
}

/// Appends text under a 16-bit length. Callers have checked the length: a longer text is a programmer's error.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names in metadata records are at most 65,535 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends text under a 32-bit length.
pub(super) fn put_long_text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("values in metadata records are far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a list under a 16-bit count.
pub(super) fn put_list<T>(out: &mut Vec<u8>, list: &[T], mut element: impl FnMut(&mut Vec<u8>, &T)) {
    let count = u16::try_from(list.len()).expect("lists in metadata records have at most 65,535 elements");
    out.extend_from_slice(&count.to_be_bytes());
    for each in list {
        element(out, each);
    }
}
