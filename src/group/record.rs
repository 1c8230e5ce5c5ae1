//! The records of `__consumer_offsets`, byte for byte as Kafka 4 writes them.
//!
//! A key is a record type (INT16) and what it names; a value is a version (INT16) and a body; no value deletes. Offset
//! commits are types 0 and 1 (written as 1) with values of versions 0–4: 4 is written, or 1 where the commit carries
//! its own expiry. Group metadata is type 2 with values of versions 0–4, of which 3 is written. Version 4 of both is
//! flexible, so tagged fields that this build does not know are skipped (KIP-915). Types 3 to 8 and 16 are those of
//! consumer groups ([`ConsumerRecord`]).
//!
//! Types that are not known are left out by those who read the log, as Kafka does; a value of an unknown version, or
//! bytes that end too early, are an error: going on without them could lose a committed offset in silence.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::consumer::records::ConsumerRecord;
use crate::wire::WireError;
use crate::wire::primitive::{Reader, Writer};

const OFFSET_COMMIT_TYPE: i16 = 1;
const GROUP_METADATA_TYPE: i16 = 2;
/// The last version that has an expiry of its own.
const OFFSET_VALUE_EXPIRING: i16 = 1;
const OFFSET_VALUE_LATEST: i16 = 4;
const GROUP_VALUE_WRITTEN: i16 = 3;
const GROUP_VALUE_LATEST: i16 = 4;
/// The tag of the topic id in an offset commit.
const TOPIC_ID_TAG: u32 = 0;

/// Bytes of the longest string in a record whose version is not flexible.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Which committed offset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    /// The group.
    pub group: Arc<str>,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, −1 if the client did not say.
    pub leader_epoch: i32,
    /// What the client wants to keep with it.
    pub metadata: Box<str>,
    /// Wall-clock milliseconds of the commit.
    pub commit_timestamp_ms: i64,
    /// Wall-clock milliseconds at which it expires whatever the retention is; old clients ask for that.
    pub expire_timestamp_ms: Option<i64>,
    /// The topic's id, nil if the client named the topic.
    pub topic_id: Uuid,
}

/// A member as its group's record holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Member id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// Milliseconds that it may take to join again; −1 in version 0, which does not have it.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds without a heartbeat after which it is out.
    pub session_timeout_ms: i32,
    /// Its metadata under the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

/// A group of the classic protocol as it was when its last generation was assigned or became empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Such as `consumer`; empty if there was no member yet.
    pub protocol_type: Arc<str>,
    /// Generation.
    pub generation: i32,
    /// The chosen protocol; none without members.
    pub protocol: Option<Arc<str>>,
    /// Member id of the leader; none without members.
    pub leader: Option<Arc<str>>,
    /// Wall-clock milliseconds of the last change of state; none in versions 0 and 1.
    pub state_timestamp_ms: Option<i64>,
    /// The members.
    pub members: Vec<MemberMetadata>,
}

/// One record; a value of `None` is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A committed offset.
    Offset(OffsetKey, Option<CommittedOffset>),
    /// A group of the classic protocol.
    Group(Arc<str>, Option<GroupMetadata>),
    /// Of a consumer group.
    Consumer(Arc<str>, ConsumerRecord),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record without a key.
    #[error("a record of the offsets topic has no key")]
    NoKey,
    /// A value that a newer build wrote.
    #[error(
        "a record of type {record_type} has a value of version {version}, which this build does not know"
    )]
    UnknownVersion {
        /// The type.
        record_type: i16,
        /// The version.
        version: i16,
    },
    /// The bytes are not what their version says.
    #[error("a record of the offsets topic is malformed: {0}")]
    Malformed(#[from] WireError),
}

impl Record {
    /// The key's bytes.
    ///
    /// # Panics
    /// If a name is longer than [`STRING_BYTES_MAX`]; requests are checked for that.
    pub fn encode_key(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        let mut writer = Writer::new(&mut buffer, false);
        match self {
            Self::Offset(key, _) => {
                writer.i16(OFFSET_COMMIT_TYPE);
                writer.string(&key.group);
                writer.string(&key.topic);
                writer.i32(key.partition);
            }
            Self::Group(group, _) => {
                writer.i16(GROUP_METADATA_TYPE);
                writer.string(group);
            }
            Self::Consumer(group, record) => record.encode_key(group, &mut writer),
        }
        buffer.freeze()
    }

    /// The value's bytes; `None` for a tombstone.
    ///
    /// # Panics
    /// As [`Self::encode_key`].
    pub fn encode_value(&self) -> Option<Bytes> {
        let mut buffer = BytesMut::new();
        match self {
            Self::Offset(_, value) => value.as_ref()?.encode(&mut buffer),
            Self::Group(_, value) => value.as_ref()?.encode(&mut buffer),
            Self::Consumer(_, record) => record.encode_value(&mut buffer)?,
        }
        Some(buffer.freeze())
    }

    /// At least as many bytes as the record takes in a batch.
    pub fn bytes_estimate(&self) -> usize {
        /// Length, attributes, deltas, lengths of key and value, count of headers; type and version.
        const FRAME: usize = 32;
        let strings = match self {
            Self::Offset(key, value) => {
                let value = value.as_ref().map_or(0, |value| value.metadata.len() + 48);
                key.group.len() + key.topic.len() + 12 + value
            }
            Self::Group(group, value) => {
                group.len() + 4 + value.as_ref().map_or(0, GroupMetadata::bytes_estimate)
            }
            Self::Consumer(group, record) => group.len() + 4 + record.bytes_estimate(),
        };
        FRAME + strings
    }

    /// Reads a record; `None` for a type that this build does not know.
    pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<Self>, RecordError> {
        let mut key = Reader::new(key.ok_or(RecordError::NoKey)?, false);
        let record_type = key.i16()?;
        match record_type {
            0 | OFFSET_COMMIT_TYPE => {
                let group = key.string()?.into();
                let topic = key.string()?.into();
                let key = OffsetKey { group, topic, partition: key.i32()? };
                let value = value.map(|bytes| CommittedOffset::decode(record_type, bytes)).transpose()?;
                Ok(Some(Self::Offset(key, value)))
            }
            GROUP_METADATA_TYPE => {
                let group = key.string()?.into();
                let value = value.map(|bytes| GroupMetadata::decode(record_type, bytes)).transpose()?;
                Ok(Some(Self::Group(group, value)))
            }
            _ if ConsumerRecord::is_type(record_type) => {
                let group = key.string()?.into();
                let record = ConsumerRecord::decode(record_type, &mut key, value)?;
                Ok(record.map(|record| Self::Consumer(group, record)))
            }
            _ => Ok(None),
        }
    }

    /// The group that it is about.
    pub fn group(&self) -> &Arc<str> {
        let (Self::Offset(OffsetKey { group, .. }, _) | Self::Group(group, _) | Self::Consumer(group, _)) =
            self;
        group
    }
}

/// The version in front of a value, and a reader of the rest.
fn versioned(record_type: i16, bytes: &[u8], latest: i16) -> Result<(i16, Reader<'_>), RecordError> {
    let version = Reader::new(bytes, false).i16()?;
    if !(0..=latest).contains(&version) {
        return Err(RecordError::UnknownVersion { record_type, version });
    }
    let body = bytes.get(2..).ok_or(WireError::Truncated)?;
    Ok((version, Reader::new(body, version >= 4)))
}

impl CommittedOffset {
    fn encode(&self, buffer: &mut BytesMut) {
        let version =
            if self.expire_timestamp_ms.is_some() { OFFSET_VALUE_EXPIRING } else { OFFSET_VALUE_LATEST };
        Writer::new(buffer, false).i16(version);
        let mut writer = Writer::new(buffer, version >= 4);
        writer.i64(self.offset);
        if version >= 3 {
            writer.i32(self.leader_epoch);
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp_ms);
        if let Some(expire) = self.expire_timestamp_ms {
            writer.i64(expire);
        }
        if self.topic_id.is_nil() {
            return writer.tags(0);
        }
        if version >= 4 {
            writer.tags(1);
            writer.tag(TOPIC_ID_TAG, 16);
            writer.uuid(self.topic_id);
        }
    }

    fn decode(record_type: i16, bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, mut reader) = versioned(record_type, bytes, OFFSET_VALUE_LATEST)?;
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = reader.string()?.into();
        let commit_timestamp_ms = reader.i64()?;
        let expire = if version == OFFSET_VALUE_EXPIRING { reader.i64()? } else { -1 };
        let mut topic_id = Uuid::nil();
        reader.tags(|tag, field| {
            if tag != TOPIC_ID_TAG {
                return Ok(true);
            }
            topic_id = field.uuid()?;
            Ok(field.remaining() == 0)
        })?;
        let expire_timestamp_ms = (expire != -1).then_some(expire);
        Ok(Self { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms, topic_id })
    }
}

impl GroupMetadata {
    /// At least as many bytes as the value takes.
    pub(super) fn bytes_estimate(&self) -> usize {
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let members = self.members.iter().map(|member| {
            let names = member.member_id.len() + member.client_id.len() + member.client_host.len();
            let bytes = member.subscription.len() + member.assignment.len();
            names + text(&member.instance_id) + bytes + 32
        });
        self.protocol_type.len() + text(&self.protocol) + text(&self.leader) + 32 + members.sum::<usize>()
    }

    fn encode(&self, buffer: &mut BytesMut) {
        let mut writer = Writer::new(buffer, false);
        writer.i16(GROUP_VALUE_WRITTEN);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.string_nullable(self.protocol.as_deref());
        writer.string_nullable(self.leader.as_deref());
        writer.i64(self.state_timestamp_ms.unwrap_or(-1));
        writer.length(self.members.len() as u32);
        for member in &self.members {
            writer.string(&member.member_id);
            writer.string_nullable(member.instance_id.as_deref());
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            writer.i32(member.rebalance_timeout_ms);
            writer.i32(member.session_timeout_ms);
            for bytes in [&member.subscription, &member.assignment] {
                writer.length(bytes.len() as u32);
                writer.raw(bytes);
            }
        }
    }

    fn decode(record_type: i16, bytes: &[u8]) -> Result<Self, RecordError> {
        /// Four strings or byte fields and a timeout, each at least one byte.
        const MEMBER_BYTES_MIN: usize = 9;
        let (version, mut reader) = versioned(record_type, bytes, GROUP_VALUE_LATEST)?;
        let protocol_type = reader.string()?.into();
        let generation = reader.i32()?;
        let protocol = reader.string_nullable()?.map(Arc::from);
        let leader = reader.string_nullable()?.map(Arc::from);
        let timestamp = if version >= 2 { reader.i64()? } else { -1 };
        let count = reader.array_length(MEMBER_BYTES_MIN)?;
        let members = (0..count).map(|_| MemberMetadata::decode(version, &mut reader));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        reader.skip_tags()?;
        let state_timestamp_ms = (timestamp != -1).then_some(timestamp);
        Ok(Self { protocol_type, generation, protocol, leader, state_timestamp_ms, members })
    }
}

impl MemberMetadata {
    fn decode(version: i16, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let member_id = reader.string()?.into();
        let instance_id = if version >= 3 { reader.string_nullable()?.map(Arc::from) } else { None };
        let client_id = reader.string()?.into();
        let client_host = reader.string()?.into();
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
        let session_timeout_ms = reader.i32()?;
        let subscription = Bytes::copy_from_slice(reader.bytes_nullable()?.ok_or(WireError::Null)?);
        let assignment = Bytes::copy_from_slice(reader.bytes_nullable()?.ok_or(WireError::Null)?);
        reader.skip_tags()?;
        Ok(Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset() -> CommittedOffset {
        CommittedOffset {
            offset: 258,
            leader_epoch: 7,
            metadata: "m".into(),
            commit_timestamp_ms: 3,
            expire_timestamp_ms: None,
            topic_id: Uuid::nil(),
        }
    }

    fn key() -> OffsetKey {
        OffsetKey { group: "g".into(), topic: "to".into(), partition: 5 }
    }

    fn group() -> GroupMetadata {
        GroupMetadata {
            protocol_type: "consumer".into(),
            generation: 2,
            protocol: Some("range".into()),
            leader: Some("a".into()),
            state_timestamp_ms: Some(9),
            members: vec![MemberMetadata {
                member_id: "a".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 4,
                session_timeout_ms: 6,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"xy"),
            }],
        }
    }

    fn there_and_back(record: &Record) -> Option<Record> {
        Record::decode(Some(&record.encode_key()), record.encode_value().as_deref()).unwrap()
    }

    #[test]
    fn an_offset_commit_has_kafkas_bytes() {
        let record = Record::Offset(key(), Some(offset()));
        assert_eq!(&record.encode_key()[..], b"\0\x01\0\x01g\0\x02to\0\0\0\x05");
        let value = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x07\x02m\0\0\0\0\0\0\0\x03\0";
        assert_eq!(&record.encode_value().unwrap()[..], value);
        let with_id = CommittedOffset { topic_id: Uuid::from_u128(1), ..offset() };
        let value = Record::Offset(key(), Some(with_id)).encode_value().unwrap();
        assert_eq!(&value[24..], b"\x01\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
        let expiring = CommittedOffset { expire_timestamp_ms: Some(8), ..offset() };
        let value = Record::Offset(key(), Some(expiring)).encode_value().unwrap();
        assert_eq!(&value[..], b"\0\x01\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x08");
    }

    #[test]
    fn group_metadata_has_kafkas_bytes() {
        let record = Record::Group("g".into(), Some(group()));
        assert_eq!(&record.encode_key()[..], b"\0\x02\0\x01g");
        let expected: &[&[u8]] = &[
            b"\0\x03\0\x08consumer\0\0\0\x02\0\x05range\0\x01a\0\0\0\0\0\0\0\x09",
            b"\0\0\0\x01\0\x01a\0\x01i\0\x01c\0\x02/h\0\0\0\x04\0\0\0\x06\0\0\0\x01s\0\0\0\x02xy",
        ];
        assert_eq!(&record.encode_value().unwrap()[..], expected.concat());
    }

    #[test]
    fn records_and_tombstones_come_back() {
        let expiring = CommittedOffset { expire_timestamp_ms: Some(8), leader_epoch: -1, ..offset() };
        let named = CommittedOffset { topic_id: Uuid::from_u128(77), ..offset() };
        let empty = GroupMetadata { protocol: None, leader: None, members: Vec::new(), ..group() };
        for record in [
            Record::Offset(key(), Some(offset())),
            Record::Offset(key(), Some(expiring)),
            Record::Offset(key(), Some(named)),
            Record::Offset(key(), None),
            Record::Group("g".into(), Some(group())),
            Record::Group("g".into(), Some(empty)),
            Record::Group("g".into(), None),
        ] {
            assert_eq!(there_and_back(&record), Some(record));
        }
    }

    #[test]
    fn older_and_flexible_versions_are_read() {
        let key = Record::Offset(key(), None).encode_key();
        let read = |value: &[u8]| match Record::decode(Some(&key), Some(value)) {
            Ok(Some(Record::Offset(_, Some(value)))) => value,
            other => panic!("{other:?}"),
        };
        let body = b"\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\0\x03";
        let without_epoch = CommittedOffset { leader_epoch: -1, ..offset() };
        assert_eq!(read(&[b"\0\0", &body[..]].concat()), without_epoch);
        assert_eq!(read(&[b"\0\x02", &body[..]].concat()), without_epoch);
        assert_eq!(read(b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x07\0\x01m\0\0\0\0\0\0\0\x03"), offset());
        let unknown_tag = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x07\x02m\0\0\0\0\0\0\0\x03\x01\x09\x02zz";
        assert_eq!(read(unknown_tag), offset());

        let group_key = b"\0\x02\0\x01g";
        let oldest =
            b"\0\0\0\x01t\0\0\0\x02\xff\xff\xff\xff\0\0\0\x01\0\x01a\0\x01c\0\x01h\0\0\0\x06\0\0\0\0\0\0\0\0";
        let Ok(Some(Record::Group(_, Some(read)))) = Record::decode(Some(group_key), Some(oldest)) else {
            panic!()
        };
        assert_eq!((read.state_timestamp_ms, read.protocol, read.leader), (None, None, None));
        assert_eq!((read.members[0].rebalance_timeout_ms, read.members[0].session_timeout_ms), (-1, 6));
        let member = b"\x02\x02a\0\x02c\x02h\0\0\0\x04\0\0\0\x06\x01\x01\0\0";
        let flexible = [b"\0\x04\x02t\0\0\0\x02\0\0\0\0\0\0\0\0\0\x09".as_slice(), member].concat();
        let Ok(Some(Record::Group(_, Some(read)))) = Record::decode(Some(group_key), Some(&flexible)) else {
            panic!()
        };
        assert_eq!((read.state_timestamp_ms, read.members.len()), (Some(9), 1));
    }

    #[test]
    fn unknown_types_are_left_out_and_unknown_versions_are_errors() {
        assert_eq!(Record::decode(Some(b"\0\x0a\0\x01g"), Some(b"\0\0\0\0\0\x01")), Ok(None));
        let unknown = RecordError::UnknownVersion { record_type: 2, version: 5 };
        assert_eq!(Record::decode(Some(b"\0\x02\0\x01g"), Some(b"\0\x05")), Err(unknown));
        assert_eq!(Record::decode(None, None), Err(RecordError::NoKey));
    }

    #[test]
    fn no_prefix_and_no_changed_byte_of_a_record_panics() {
        for record in [Record::Offset(key(), Some(offset())), Record::Group("g".into(), Some(group()))] {
            let (key, value) = (record.encode_key(), record.encode_value().unwrap());
            for end in 0..value.len() {
                assert!(Record::decode(Some(&key), Some(&value[..end])).is_err(), "{end}");
            }
            for at in 0..value.len() {
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = value.to_vec();
                    changed[at] = byte;
                    let _ = Record::decode(Some(&key), Some(&changed));
                }
            }
            for end in 0..key.len() {
                assert!(Record::decode(Some(&key[..end]), None).is_err(), "{end}");
            }
        }
    }
}
