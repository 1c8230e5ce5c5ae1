//! The consumer protocol that members of the classic protocol carry in their metadata and assignments: subscriptions of
//! versions 0–3 and assignments of versions 0–3. Later versions add fields at the end, so they are read as version 3.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::records::Partitions;
use super::topics::Topics;
use crate::wire::WireError;
use crate::wire::primitive::{Reader, Writer};

const VERSION_LATEST: i16 = 3;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The version that it was written in.
    pub version: i16,
    /// Names of topics.
    pub topics: BTreeSet<Arc<str>>,
    /// What the member has, from version 1 on; topics that are not there are left out.
    pub owned: Partitions,
    /// `client.rack`, from version 3 on.
    pub rack_id: Option<Arc<str>>,
}

fn read_partitions(reader: &mut Reader<'_>, topics: &Topics) -> Result<Partitions, WireError> {
    let mut partitions = Partitions::new();
    for _ in 0..reader.array_length(6)? {
        let topic = topics.topic(reader.string()?);
        let length = reader.array_length(4)?;
        let of = (0..length).map(|_| reader.i32()).collect::<Result<BTreeSet<_>, _>>()?;
        let is_there = |partition: &i32| topic.is_some_and(|topic| (0..topic.partitions).contains(partition));
        let of: BTreeSet<_> = of.into_iter().filter(is_there).collect();
        if let Some(topic) = topic.filter(|_| !of.is_empty()) {
            partitions.entry(topic.id).or_default().extend(of);
        }
    }
    Ok(partitions)
}

fn version(reader: &mut Reader<'_>) -> Result<i16, WireError> {
    let version = reader.i16()?;
    if version < 0 { Err(WireError::LengthNegative) } else { Ok(version.min(VERSION_LATEST)) }
}

impl Subscription {
    pub(super) fn decode(bytes: &[u8], topics: &Topics) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes, false);
        let version = version(&mut reader)?;
        let length = reader.array_length(2)?;
        let names = (0..length).map(|_| reader.string().map(Arc::from)).collect::<Result<_, _>>()?;
        reader.bytes_nullable()?;
        let owned = if version >= 1 { read_partitions(&mut reader, topics)? } else { Partitions::new() };
        if version >= 2 {
            reader.i32()?;
        }
        let rack_id = if version >= 3 { reader.string_nullable()?.map(Arc::from) } else { None };
        let rack_id = rack_id.filter(|rack: &Arc<str>| !rack.is_empty());
        Ok(Self { version, topics: names, owned, rack_id })
    }
}

/// What an assignment says; no bytes say nothing.
pub(super) fn decode_assignment(bytes: &[u8], topics: &Topics) -> Result<Partitions, WireError> {
    if bytes.is_empty() {
        return Ok(Partitions::new());
    }
    let mut reader = Reader::new(bytes, false);
    version(&mut reader)?;
    read_partitions(&mut reader, topics)
}

/// An assignment in a version that the member reads. Topics that are gone are left out.
pub(super) fn encode_assignment(partitions: &Partitions, topics: &Topics, version: i16) -> Bytes {
    let named = partitions.iter().filter_map(|(id, of)| Some((topics.name(*id)?, of)));
    let named: Vec<_> = named.collect();
    let mut buffer = BytesMut::new();
    let mut writer = Writer::new(&mut buffer, false);
    writer.i16(version);
    writer.length(u32::try_from(named.len()).expect("topics are far fewer"));
    for (name, of) in named {
        writer.string(name);
        writer.length(u32::try_from(of.len()).expect("partitions are far fewer"));
        of.iter().for_each(|partition| writer.i32(*partition));
    }
    // User data: none.
    writer.length_null();
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::topics::Topic;
    use super::*;

    fn topics() -> Topics {
        let topic = |name: &str, id| (name.into(), Topic { id: Uuid::from_u128(id), partitions: 3 });
        Topics::new(1, [topic("a", 1), topic("b", 2)])
    }

    #[test]
    fn assignments_come_back_without_what_is_not_there() {
        let partitions =
            Partitions::from([(Uuid::from_u128(1), [0, 2, 7].into()), (Uuid::from_u128(9), [1].into())]);
        let bytes = encode_assignment(&partitions, &topics(), 1);
        assert_eq!(&bytes[..4], b"\0\x01\0\0");
        let read = decode_assignment(&bytes, &topics()).unwrap();
        assert_eq!(read, Partitions::from([(Uuid::from_u128(1), [0, 2].into())]));
        assert_eq!(decode_assignment(b"", &topics()), Ok(Partitions::new()));
        for end in 1..bytes.len() - 4 {
            assert!(decode_assignment(&bytes[..end], &topics()).is_err(), "{end}");
        }
    }

    #[test]
    fn a_subscription_of_each_version_is_read() {
        let mut bytes = b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff".to_vec();
        let read = Subscription::decode(&bytes, &topics()).unwrap();
        assert_eq!((read.topics, read.owned.len(), read.rack_id), (["a".into()].into(), 0, None));
        bytes.extend(b"\0\0\0\x01\0\x01b\0\0\0\x01\0\0\0\x02");
        bytes.extend(b"\0\0\0\x05\0\x01r");
        for version in 1..5 {
            bytes[1] = version;
            let read = Subscription::decode(&bytes, &topics()).unwrap();
            assert_eq!(read.owned, Partitions::from([(Uuid::from_u128(2), [2].into())]));
            assert_eq!(read.rack_id.is_some(), version >= 3);
        }
        assert!(Subscription::decode(b"\xff\xff", &topics()).is_err());
    }
}
