//! The records of consumer groups in `__consumer_offsets` (KIP-848): types 3 to 8 and 16, with values of version 0,
//! which is flexible. Type 4 is only ever deleted: Kafka wrote it before 4.1.
//!
//! Tagged fields that this build does not know are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::group::record::RecordError;
use crate::group::request::Protocol;
use crate::wire::WireError;
use crate::wire::primitive::{Reader, Writer, uvarint_bytes};

const EPOCH_TYPE: i16 = 3;
const PARTITION_METADATA_TYPE: i16 = 4;
const MEMBER_TYPE: i16 = 5;
const TARGET_EPOCH_TYPE: i16 = 6;
const TARGET_TYPE: i16 = 7;
const CURRENT_TYPE: i16 = 8;
const REGEX_TYPE: i16 = 16;
/// The tag of the metadata hash in a group's epoch, and of the classic part of a member.
const TAG: u32 = 0;

/// Partitions by topic id; no topic is without a partition.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// A group's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupEpoch {
    /// Rises with every change of members, subscriptions and subscribed topics.
    pub epoch: i32,
    /// Over the subscribed topics as they were when the epoch rose last; 0 for none.
    pub metadata_hash: i64,
}

/// What a member that follows the classic protocol said in its JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicPart {
    /// Milliseconds without a heartbeat after which it is out.
    pub session_timeout_ms: i32,
    /// In the order of its preference.
    pub protocols: Vec<Protocol>,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// `client.rack`
    pub rack_id: Option<Arc<str>>,
    /// The client's own name.
    pub client_id: Arc<str>,
    /// The client's address.
    pub client_host: Arc<str>,
    /// Sorted.
    pub topics: BTreeSet<Arc<str>>,
    /// The pattern that it subscribes to besides; empty is none.
    pub regex: Option<Arc<str>>,
    /// Milliseconds that it may take to give partitions up.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it prefers.
    pub assignor: Option<Arc<str>>,
    /// Of a member that follows the classic protocol.
    pub classic: Option<ClassicPart>,
}

/// Where a member is on its way to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// Has everything it can have at its epoch.
    #[default]
    Stable,
    /// Has to give partitions up first.
    UnrevokedPartitions,
    /// Waits for partitions that others have to give up.
    UnreleasedPartitions,
    /// Written by a newer build: it has to join again.
    Unknown,
}

impl MemberState {
    fn number(self) -> u8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    fn of(number: i8) -> Self {
        match number {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// 0 before it was told one, −2 while a static member is away.
    pub epoch: i32,
    /// The one before: the answer that told the newer one may be lost.
    pub previous_epoch: i32,
    /// Where it is.
    pub state: MemberState,
    /// What it may read.
    pub assigned: Partitions,
    /// What it has to give up, and nobody else may have before it did.
    pub revoking: Partitions,
}

/// The topics that a pattern matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// Their names.
    pub topics: BTreeSet<Arc<str>>,
    /// Which state of the metadata they were matched against.
    pub version: i64,
    /// Wall-clock milliseconds of that.
    pub timestamp_ms: i64,
}

/// One record of one consumer group; `None` is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerRecord {
    /// The group is there, at this epoch.
    Epoch(Option<GroupEpoch>),
    /// The topics' metadata, as Kafka before 4.1 kept it; only deleted.
    PartitionMetadata,
    /// A member by its id.
    Member(Arc<str>, Option<Arc<MemberMetadata>>),
    /// The group epoch that the target assignment is for.
    TargetEpoch(Option<i32>),
    /// What a member shall have.
    Target(Arc<str>, Option<Arc<Partitions>>),
    /// What a member has.
    Current(Arc<str>, Option<Arc<Current>>),
    /// What a pattern matched.
    Regex(Arc<str>, Option<Arc<ResolvedRegex>>),
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a record is far below 4 GiB")
}

fn write_partitions(writer: &mut Writer<'_>, partitions: &Partitions) {
    writer.length(count(partitions.len()));
    for (topic, of) in partitions {
        writer.uuid(*topic);
        writer.length(count(of.len()));
        of.iter().for_each(|partition| writer.i32(*partition));
        writer.tags(0);
    }
}

fn read_partitions(reader: &mut Reader<'_>) -> Result<Partitions, WireError> {
    let topics = reader.array_length(18)?;
    let mut partitions = Partitions::new();
    for _ in 0..topics {
        let topic = reader.uuid()?;
        let length = reader.array_length(4)?;
        let of = (0..length).map(|_| reader.i32()).collect::<Result<BTreeSet<_>, _>>()?;
        reader.skip_tags()?;
        if !of.is_empty() {
            partitions.entry(topic).or_default().extend(of);
        }
    }
    Ok(partitions)
}

fn write_names(writer: &mut Writer<'_>, names: &BTreeSet<Arc<str>>) {
    writer.length(count(names.len()));
    names.iter().for_each(|name| writer.string(name));
}

fn read_names(reader: &mut Reader<'_>) -> Result<BTreeSet<Arc<str>>, WireError> {
    let length = reader.array_length(1)?;
    (0..length).map(|_| reader.string().map(Arc::from)).collect()
}

impl MemberMetadata {
    fn encode(&self, buffer: &mut BytesMut) {
        let mut writer = Writer::new(buffer, true);
        writer.string_nullable(self.instance_id.as_deref());
        writer.string_nullable(self.rack_id.as_deref());
        writer.string(&self.client_id);
        writer.string(&self.client_host);
        write_names(&mut writer, &self.topics);
        writer.string_nullable(self.regex.as_deref());
        writer.i32(self.rebalance_timeout_ms);
        writer.string_nullable(self.assignor.as_deref());
        let Some(classic) = &self.classic else { return writer.tags(0) };
        let mut part = BytesMut::new();
        let mut of_part = Writer::new(&mut part, true);
        // A nullable struct that is there.
        of_part.raw(&[1]);
        of_part.i32(classic.session_timeout_ms);
        of_part.length(count(classic.protocols.len()));
        for protocol in &classic.protocols {
            of_part.string(&protocol.name);
            of_part.length(count(protocol.metadata.len()));
            of_part.raw(&protocol.metadata);
            of_part.tags(0);
        }
        of_part.tags(0);
        writer.tags(1);
        writer.tag(TAG, count(part.len()));
        writer.raw(&part);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let instance_id = reader.string_nullable()?.map(Arc::from);
        let rack_id = reader.string_nullable()?.map(Arc::from);
        let client_id = reader.string()?.into();
        let client_host = reader.string()?.into();
        let topics = read_names(reader)?;
        let regex = reader.string_nullable()?.map(Arc::from);
        let rebalance_timeout_ms = reader.i32()?;
        let assignor = reader.string_nullable()?.map(Arc::from);
        let mut classic = None;
        reader.tags(|tag, field| {
            if tag != TAG {
                return Ok(true);
            }
            if field.i8()? < 0 {
                return Ok(field.remaining() == 0);
            }
            let session_timeout_ms = field.i32()?;
            let length = field.array_length(3)?;
            let mut protocols = Vec::new();
            for _ in 0..length {
                let name = field.string()?.into();
                let metadata = Bytes::copy_from_slice(field.bytes_nullable()?.ok_or(WireError::Null)?);
                field.skip_tags()?;
                protocols.push(Protocol { name, metadata });
            }
            field.skip_tags()?;
            classic = Some(ClassicPart { session_timeout_ms, protocols });
            Ok(field.remaining() == 0)
        })?;
        Ok(Self {
            instance_id,
            rack_id,
            client_id,
            client_host,
            topics,
            regex,
            rebalance_timeout_ms,
            assignor,
            classic,
        })
    }
}

impl Current {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let epoch = reader.i32()?;
        let previous_epoch = reader.i32()?;
        let state = MemberState::of(reader.i8()?);
        let assigned = read_partitions(reader)?;
        let revoking = read_partitions(reader)?;
        reader.skip_tags()?;
        Ok(Self { epoch, previous_epoch, state, assigned, revoking })
    }
}

impl ResolvedRegex {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let topics = read_names(reader)?;
        let (version, timestamp_ms) = (reader.i64()?, reader.i64()?);
        reader.skip_tags()?;
        Ok(Self { topics, version, timestamp_ms })
    }
}

fn decode_epoch(reader: &mut Reader<'_>) -> Result<GroupEpoch, WireError> {
    let mut group = GroupEpoch { epoch: reader.i32()?, metadata_hash: 0 };
    reader.tags(|tag, field| {
        if tag != TAG {
            return Ok(true);
        }
        group.metadata_hash = field.i64()?;
        Ok(field.remaining() == 0)
    })?;
    Ok(group)
}

impl ConsumerRecord {
    fn record_type(&self) -> i16 {
        match self {
            Self::Epoch(_) => EPOCH_TYPE,
            Self::PartitionMetadata => PARTITION_METADATA_TYPE,
            Self::Member(..) => MEMBER_TYPE,
            Self::TargetEpoch(_) => TARGET_EPOCH_TYPE,
            Self::Target(..) => TARGET_TYPE,
            Self::Current(..) => CURRENT_TYPE,
            Self::Regex(..) => REGEX_TYPE,
        }
    }

    /// The member or pattern that the key names besides the group.
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Epoch(_) | Self::PartitionMetadata | Self::TargetEpoch(_) => None,
            Self::Member(name, _) | Self::Target(name, _) | Self::Current(name, _) | Self::Regex(name, _) => {
                Some(name)
            }
        }
    }

    /// Whether it deletes.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Epoch(value) => value.is_none(),
            Self::PartitionMetadata => true,
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
        }
    }

    pub(in crate::group) fn encode_key(&self, group: &str, writer: &mut Writer<'_>) {
        writer.i16(self.record_type());
        writer.string(group);
        if let Some(name) = self.name() {
            writer.string(name);
        }
    }

    pub(in crate::group) fn encode_value(&self, buffer: &mut BytesMut) -> Option<()> {
        if self.is_tombstone() {
            return None;
        }
        let mut writer = Writer::new(buffer, true);
        writer.i16(0);
        match self {
            Self::PartitionMetadata => {}
            Self::Epoch(value) => {
                let value = value.as_ref()?;
                writer.i32(value.epoch);
                writer.tags(u32::from(value.metadata_hash != 0));
                if value.metadata_hash != 0 {
                    writer.tag(TAG, 8);
                    writer.i64(value.metadata_hash);
                }
            }
            Self::Member(_, value) => value.as_ref()?.encode(buffer),
            Self::TargetEpoch(value) => {
                writer.i32((*value)?);
                writer.tags(0);
            }
            Self::Target(_, value) => {
                write_partitions(&mut writer, value.as_ref()?);
                writer.tags(0);
            }
            Self::Current(_, value) => {
                let value = value.as_ref()?;
                writer.i32(value.epoch);
                writer.i32(value.previous_epoch);
                writer.raw(&[value.state.number()]);
                write_partitions(&mut writer, &value.assigned);
                write_partitions(&mut writer, &value.revoking);
                writer.tags(0);
            }
            Self::Regex(_, value) => {
                let value = value.as_ref()?;
                write_names(&mut writer, &value.topics);
                writer.i64(value.version);
                writer.i64(value.timestamp_ms);
                writer.tags(0);
            }
        }
        Some(())
    }

    /// At least as many bytes as key and value take.
    pub(in crate::group) fn bytes_estimate(&self) -> usize {
        let names = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| name.len() + 5).sum::<usize>();
        let partitions =
            |of: &Partitions| of.values().map(|partitions| partitions.len() * 4 + 24).sum::<usize>() + 8;
        let optional = |text: &Option<Arc<str>>| text.as_ref().map_or(1, |text| text.len() + 5);
        let value = match self {
            Self::Member(_, Some(of)) => {
                let protocols = of.classic.iter().flat_map(|classic| &classic.protocols);
                let protocols = protocols.map(|protocol| protocol.name.len() + protocol.metadata.len() + 12);
                [&of.instance_id, &of.rack_id, &of.regex, &of.assignor].map(optional).iter().sum::<usize>()
                    + of.client_id.len()
                    + of.client_host.len()
                    + names(&of.topics)
                    + protocols.sum::<usize>()
                    + 40
            }
            Self::Target(_, Some(of)) => partitions(of),
            Self::Current(_, Some(of)) => partitions(&of.assigned) + partitions(&of.revoking) + 12,
            Self::Regex(_, Some(of)) => names(&of.topics) + 24,
            _ => 20,
        };
        debug_assert_eq!(uvarint_bytes(0), 1, "lengths are counted generously");
        self.name().map_or(0, |name| name.len() + 2) + value
    }

    /// Reads a record whose key begins with `record_type` and the group; `None` for a type that is none of these.
    pub(in crate::group) fn decode(
        record_type: i16,
        key: &mut Reader<'_>,
        value: Option<&[u8]>,
    ) -> Result<Option<Self>, RecordError> {
        let mut body = match value {
            None => None,
            Some(_) if record_type == PARTITION_METADATA_TYPE => return Ok(None),
            Some(bytes) => {
                let version = Reader::new(bytes, false).i16()?;
                if version != 0 {
                    return Err(RecordError::UnknownVersion { record_type, version });
                }
                Some(Reader::new(bytes.get(2..).ok_or(WireError::Truncated)?, true))
            }
        };
        let body = body.as_mut();
        let mut name = || key.string().map(Arc::<str>::from);
        Ok(Some(match record_type {
            EPOCH_TYPE => Self::Epoch(body.map(decode_epoch).transpose()?),
            PARTITION_METADATA_TYPE => Self::PartitionMetadata,
            MEMBER_TYPE => Self::Member(name()?, body.map(MemberMetadata::decode).transpose()?.map(Arc::new)),
            TARGET_EPOCH_TYPE => {
                let epoch = body.map(|body| body.i32().and_then(|epoch| body.skip_tags().map(|()| epoch)));
                Self::TargetEpoch(epoch.transpose()?)
            }
            TARGET_TYPE => {
                let target = body.map(|body| {
                    read_partitions(body).and_then(|partitions| body.skip_tags().map(|()| partitions))
                });
                Self::Target(name()?, target.transpose()?.map(Arc::new))
            }
            CURRENT_TYPE => Self::Current(name()?, body.map(Current::decode).transpose()?.map(Arc::new)),
            REGEX_TYPE => Self::Regex(name()?, body.map(ResolvedRegex::decode).transpose()?.map(Arc::new)),
            _ => return Ok(None),
        }))
    }

    /// Whether [`Self::decode`] knows the type.
    pub(in crate::group) fn is_type(record_type: i16) -> bool {
        matches!(record_type, EPOCH_TYPE..=CURRENT_TYPE | REGEX_TYPE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Record;

    fn all() -> Vec<ConsumerRecord> {
        let partitions = Partitions::from([(Uuid::from_u128(1), [0, 2].into())]);
        let member = MemberMetadata {
            instance_id: Some("i".into()),
            rack_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            topics: ["t".into()].into(),
            regex: None,
            rebalance_timeout_ms: 7,
            assignor: Some("range".into()),
            classic: None,
        };
        let protocol = Protocol { name: "p".into(), metadata: Bytes::from_static(b"xy") };
        let classic = ClassicPart { session_timeout_ms: 9, protocols: vec![protocol] };
        let state = MemberState::UnrevokedPartitions;
        let current = Current {
            epoch: 3,
            previous_epoch: 2,
            state,
            assigned: partitions.clone(),
            revoking: Partitions::new(),
        };
        vec![
            ConsumerRecord::Epoch(Some(GroupEpoch { epoch: 5, metadata_hash: 0 })),
            ConsumerRecord::Epoch(Some(GroupEpoch { epoch: 5, metadata_hash: -2 })),
            ConsumerRecord::Member("m".into(), Some(Arc::new(member.clone()))),
            ConsumerRecord::Member(
                "m".into(),
                Some(Arc::new(MemberMetadata { classic: Some(classic), ..member })),
            ),
            ConsumerRecord::TargetEpoch(Some(4)),
            ConsumerRecord::Target("m".into(), Some(Arc::new(partitions))),
            ConsumerRecord::Current("m".into(), Some(Arc::new(current))),
            ConsumerRecord::Regex(
                "r".into(),
                Some(Arc::new(ResolvedRegex { topics: ["t".into()].into(), version: 1, timestamp_ms: 2 })),
            ),
            ConsumerRecord::Epoch(None),
            ConsumerRecord::PartitionMetadata,
            ConsumerRecord::Member("m".into(), None),
            ConsumerRecord::TargetEpoch(None),
            ConsumerRecord::Target("m".into(), None),
            ConsumerRecord::Current("m".into(), None),
            ConsumerRecord::Regex("r".into(), None),
        ]
    }

    #[test]
    fn records_and_tombstones_come_back_and_fit_their_estimates() {
        for record in all() {
            let record = Record::Consumer("g".into(), record);
            let (key, value) = (record.encode_key(), record.encode_value());
            assert!(key.len() + value.as_ref().map_or(0, Bytes::len) <= record.bytes_estimate());
            assert_eq!(Record::decode(Some(&key), value.as_deref()), Ok(Some(record)));
        }
    }

    #[test]
    fn values_have_kafkas_bytes() {
        let value = |at: usize| Record::Consumer("g".into(), all()[at].clone()).encode_value().unwrap();
        assert_eq!(&value(0)[..], b"\0\0\0\0\0\x05\0");
        assert_eq!(&value(1)[..], b"\0\0\0\0\0\x05\x01\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe");
        let member = b"\0\0\x02i\0\x02c\x03/h\x02\x02t\0\0\0\0\x07\x06range";
        assert_eq!(&value(2)[..], [&member[..], b"\0"].concat());
        let classic = b"\x01\0\x0d\x01\0\0\0\x09\x02\x02p\x03xy\0\0";
        assert_eq!(&value(3)[..], [&member[..], classic].concat());
        assert_eq!(&value(4)[..], b"\0\0\0\0\0\x04\0");
        let topic = b"\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03\0\0\0\0\0\0\0\x02\0";
        assert_eq!(&value(5)[..], [b"\0\0", &topic[..], b"\0"].concat());
        assert_eq!(&value(6)[..], [b"\0\0\0\0\0\x03\0\0\0\x02\x01", &topic[..], b"\x01\0"].concat());
        let regex = b"\0\0\x02\x02t\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0";
        assert_eq!(&value(7)[..], regex);
        let key = |record| Record::Consumer("g".into(), record).encode_key();
        assert_eq!(&key(ConsumerRecord::Epoch(None))[..], b"\0\x03\0\x01g");
        assert_eq!(&key(ConsumerRecord::Regex("r".into(), None))[..], b"\0\x10\0\x01g\0\x01r");
    }

    #[test]
    fn no_prefix_and_no_changed_byte_panics() {
        for record in all().into_iter().filter(|record| !record.is_tombstone()) {
            let record = Record::Consumer("g".into(), record);
            let (key, value) = (record.encode_key(), record.encode_value().unwrap());
            for end in 0..value.len() {
                assert!(Record::decode(Some(&key), Some(&value[..end])).is_err(), "{end}");
            }
            for (at, byte) in (0..value.len()).flat_map(|at| [0, 1, 0x7f, 0x80, 0xff].map(|byte| (at, byte)))
            {
                let mut changed = value.to_vec();
                changed[at] = byte;
                let _ = Record::decode(Some(&key), Some(&changed));
            }
        }
    }
}
