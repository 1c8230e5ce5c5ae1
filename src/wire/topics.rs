//! Topic → partition lists as Produce and Fetch carry them, walked in place.
//!
//! Parsing walks a list once with [`walk`], which checks every length; after that the iterators
//! cannot fail and allocate nothing. A topic is a name, or an id from the version that says so.

use bytes::Bytes;
use uuid::Uuid;

use super::WireError;
use super::primitive::{Reader, Writer};

/// What names a topic in a request and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// Its name.
    Name(&'a str),
    /// Its id.
    Id(Uuid),
}

impl TopicRef<'_> {
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Name(name) => writer.string(name),
            Self::Id(id) => writer.uuid(*id),
        }
    }
}

/// What reading an entry needs to know besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request's body.
    pub body: &'a Bytes,
    /// Its version.
    pub version: i16,
    /// Whether topics are named by id.
    pub by_id: bool,
}

/// A partition's entry in a list.
pub trait Entry: Sized {
    /// The fewest bytes that an entry takes in a version.
    fn bytes_min(version: i16) -> usize;
    /// Checks and skips an entry.
    fn skip(reader: &mut Reader<'_>, version: i16) -> Result<(), WireError>;
    /// Reads an entry.
    fn read(reader: &mut Reader<'_>, context: Context<'_>) -> Result<Self, WireError>;
}

/// The bare partition index, as in Fetch's forgotten topics.
impl Entry for i32 {
    fn bytes_min(_version: i16) -> usize {
        4
    }

    fn skip(reader: &mut Reader<'_>, _version: i16) -> Result<(), WireError> {
        reader.i32().map(|_| ())
    }

    fn read(reader: &mut Reader<'_>, _context: Context<'_>) -> Result<Self, WireError> {
        reader.i32()
    }
}

/// How many topics and partitions a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Topics.
    pub topics: u32,
    /// Partitions of all topics.
    pub partitions: u32,
}

fn read_topic<'a>(reader: &mut Reader<'a>, by_id: bool) -> Result<TopicRef<'a>, WireError> {
    if by_id { reader.uuid().map(TopicRef::Id) } else { reader.string().map(TopicRef::Name) }
}

/// Checks a list from its topic count on and leaves the reader after it.
#[inline]
pub fn walk<P: Entry>(reader: &mut Reader<'_>, version: i16, by_id: bool) -> Result<Counts, WireError> {
    // The fewest bytes of a topic: an empty name (1 compact, 2 old) and an empty array.
    let topics = reader.array_length(2)?;
    let mut partitions = 0;
    for _ in 0..topics {
        read_topic(reader, by_id)?;
        let count = reader.array_length(P::bytes_min(version))?;
        for _ in 0..count {
            P::skip(reader, version)?;
        }
        reader.skip_tags()?;
        // Both lengths were checked against a body that is below 2 GiB, so this cannot overflow.
        partitions += count;
    }
    Ok(Counts { topics, partitions })
}

/// The topics of a list that [`walk`] has checked.
#[derive(Clone, Debug)]
pub struct Topics<'a, P> {
    reader: Reader<'a>,
    context: Context<'a>,
    left: u32,
    /// Partitions of the topic given last, skipped when another one is asked for.
    open: Option<u32>,
    entry: std::marker::PhantomData<P>,
}

impl<'a, P: Entry> Topics<'a, P> {
    /// Starts after the topic count, which was `count`.
    pub(super) fn new(reader: Reader<'a>, context: Context<'a>, count: u32) -> Self {
        Self { reader, context, left: count, open: None, entry: std::marker::PhantomData }
    }

    fn advance(&mut self) -> Result<Topic<'a, P>, WireError> {
        if let Some(count) = self.open.take() {
            for _ in 0..count {
                P::skip(&mut self.reader, self.context.version)?;
            }
            self.reader.skip_tags()?;
        }
        let topic = read_topic(&mut self.reader, self.context.by_id)?;
        let left = self.reader.array_length(P::bytes_min(self.context.version))?;
        self.open = Some(left);
        let partitions =
            Partitions { reader: self.reader.clone(), context: self.context, left, entry: self.entry };
        Ok(Topic { topic, partitions })
    }
}

impl<'a, P: Entry> Iterator for Topics<'a, P> {
    type Item = Topic<'a, P>;

    #[inline]
    fn next(&mut self) -> Option<Topic<'a, P>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.advance().expect("the list was checked when it was parsed"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<P: Entry> ExactSizeIterator for Topics<'_, P> {}

/// One topic of a list.
#[derive(Clone, Debug)]
pub struct Topic<'a, P> {
    /// Its name or id.
    pub topic: TopicRef<'a>,
    /// Its partitions.
    pub partitions: Partitions<'a, P>,
}

/// The partitions of one topic; `len()` is their count.
#[derive(Clone, Debug)]
pub struct Partitions<'a, P> {
    reader: Reader<'a>,
    context: Context<'a>,
    left: u32,
    entry: std::marker::PhantomData<P>,
}

impl<P: Entry> Iterator for Partitions<'_, P> {
    type Item = P;

    #[inline]
    fn next(&mut self) -> Option<P> {
        self.left = self.left.checked_sub(1)?;
        Some(P::read(&mut self.reader, self.context).expect("the list was checked when it was parsed"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<P: Entry> ExactSizeIterator for Partitions<'_, P> {}
