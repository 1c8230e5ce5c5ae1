//! Metadata records: the only way cluster metadata changes, on disk and between controllers.
//!
//! One record is, big-endian:
//!
//! ```text
//! type id u16 | version u8 | body length u32 | body | CRC-32C u32 over all before it
//! body = the version's fields, then tagged fields: count u8, each: tag u8 | length u32 | bytes
//! ```
//!
//! A node that meets a type or version it does not know stops: going on would build another Image than its peers.
//! A tagged field that it does not know is skipped; a new tag is given to what may safely be ignored, or to what a
//! metadata version gates that the node would not know either.
//! Which types and versions may be written is gated by [`Record::MetadataVersion`], the first record of every log.

use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use super::codec::{Malformed, Reader, put_long_text, put_text};
use super::fields::{
    self, decode_broker, decode_partition, directory_ids, encode_broker, encode_change, encode_partition,
    node_ids, put_tagged,
};
use super::quorum::members::Members;

/// The newest metadata version that this build writes and understands.
///
/// | version | since then |
/// |--:|---|
/// | 1 | the first |
/// | 2 | configurations of groups and of client-metrics subscriptions |
/// | 3 | several brokers: fencing, shutdown and removal of brokers; replicas that move; eligible leader replicas |
pub const METADATA_VERSION_LATEST: u16 = 3;

/// The first metadata version in which partitions have more than one broker to go to.
pub const METADATA_VERSION_CLUSTER: u16 = 3;

/// Type id of [`Record::Quorum`]; an entry that begins with it changes the members.
pub(super) const QUORUM_TYPE: u16 = types::QUORUM;

/// Bytes of the largest body a record may have: a configuration value of 1 MiB and its names.
const BODY_BYTES_MAX: usize = (1 << 20) + (1 << 18);

/// Bytes before the body and after it.
const FRAME_BYTES: usize = 2 + 1 + 4 + 4;

/// Node ids of one partition's replicas; three fit without an allocation.
pub type NodeIds = SmallVec<[i32; 3]>;

/// Directory ids of one partition's replicas, in the order of the replicas.
pub type DirectoryIds = SmallVec<[Uuid; 1]>;

/// What a configuration belongs to, with Kafka's numbers (`ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ResourceType {
    /// A topic, by name.
    Topic = 2,
    /// A broker, by decimal node id; the empty name is the cluster-wide default.
    Broker = 4,
    /// A client-metrics subscription, by name; from metadata version 2 on.
    ClientMetrics = 16,
    /// A group, by id; from metadata version 2 on.
    Group = 32,
}

impl ResourceType {
    /// The first metadata version whose records may name it.
    pub fn metadata_version_first(self) -> u16 {
        match self {
            Self::Topic | Self::Broker => 1,
            Self::ClientMetrics | Self::Group => 2,
        }
    }

    fn from_code(code: i8) -> Result<Self, Malformed> {
        match code {
            2 => Ok(Self::Topic),
            4 => Ok(Self::Broker),
            16 => Ok(Self::ClientMetrics),
            32 => Ok(Self::Group),
            _ => Err(Malformed("names a resource type that no version has")),
        }
    }
}

/// An address at which a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Listener name, such as `PLAINTEXT`.
    pub name: Arc<str>,
    /// Advertised host.
    pub host: Arc<str>,
    /// Advertised port.
    pub port: u16,
    /// Security protocol, with Kafka's numbers (0 is PLAINTEXT).
    pub security_protocol: i16,
}

/// A broker's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Node id, at least 0.
    pub node_id: i32,
    /// New with every start of the broker's process.
    pub incarnation: Uuid,
    /// Rises with every registration; it is the raft index of the entry that carried it.
    pub epoch: i64,
    /// Where it is reached.
    pub listeners: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<Arc<str>>,
    /// A fenced broker leads nothing.
    pub fenced: bool,
    /// It is about to stop: it leads nothing and is in no ISR, but still serves what it has. From metadata version 3
    /// on, as is the next field.
    pub in_controlled_shutdown: bool,
    /// Ids of its log directories; empty where it did not tell them.
    pub directories: Vec<Uuid>,
}

impl BrokerRegistration {
    /// Whether it may lead and be in an ISR: not fenced, not about to stop.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
}

/// Whether a leader's log is known to hold everything that was committed (KIP-704).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i8)]
pub enum LeaderRecovery {
    /// It is.
    #[default]
    Recovered = 0,
    /// The leader was elected uncleanly and has not said yet that it is done with it.
    Recovering = 1,
}

impl LeaderRecovery {
    /// From Kafka's number of it; `None` for one that Kafka does not have.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Recovered),
            1 => Some(Self::Recovering),
            _ => None,
        }
    }
}

/// A partition as it is created, or as a snapshot holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRecord {
    /// The topic, which an earlier record made.
    pub topic_id: Uuid,
    /// Index in the topic; the partitions of a topic come in order, without gaps.
    pub index: i32,
    /// Node ids, the preferred leader first.
    pub replicas: NodeIds,
    /// In-sync subset of the replicas.
    pub isr: NodeIds,
    /// Node id, -1 when there is no leader.
    pub leader: i32,
    /// Rises with every change of leader.
    pub leader_epoch: i32,
    /// Rises with every change of this partition.
    pub partition_epoch: i32,
    /// Log directory of each replica; the nil id is "not assigned yet".
    pub directories: DirectoryIds,
    /// Replicas that a reassignment adds. From metadata version 3 on, as are the next fields.
    pub adding: NodeIds,
    /// Replicas that go when those that are added are in sync.
    pub removing: NodeIds,
    /// Replicas outside the ISR that have everything committed (KIP-966).
    pub elr: NodeIds,
    /// Who led last when nobody could any more.
    pub last_known_elr: NodeIds,
    /// Whether the leader was elected uncleanly.
    pub recovery: LeaderRecovery,
}

/// A change of a partition; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionChange {
    /// The topic.
    pub topic_id: Uuid,
    /// Index in the topic.
    pub index: i32,
    /// New leader.
    pub leader: Option<i32>,
    /// New in-sync set.
    pub isr: Option<NodeIds>,
    /// Leader epoch after the change.
    pub leader_epoch: i32,
    /// Partition epoch after the change.
    pub partition_epoch: i32,
    /// New replicas. From metadata version 3 on, as are the next fields.
    pub replicas: Option<NodeIds>,
    /// New set of replicas that are being added.
    pub adding: Option<NodeIds>,
    /// New set of replicas that are to go.
    pub removing: Option<NodeIds>,
    /// New eligible leader replicas.
    pub elr: Option<NodeIds>,
    /// New last known leader.
    pub last_known_elr: Option<NodeIds>,
    /// New state of the leader's recovery.
    pub recovery: Option<LeaderRecovery>,
    /// New log directories, in the order of the replicas.
    pub directories: Option<DirectoryIds>,
}

/// One change of the cluster metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Gates what later records may be. Never goes down.
    MetadataVersion {
        /// 1 is the first.
        version: u16,
    },
    /// Names the cluster, once.
    ClusterId {
        /// 22 characters of URL-safe base64, as Kafka's.
        cluster_id: Arc<str>,
    },
    /// Finalizes a feature level; 0 takes the feature away.
    Feature {
        /// Feature name.
        name: Arc<str>,
        /// Finalized level.
        level: i16,
    },
    /// A broker is there, or changed.
    RegisterBroker(BrokerRegistration),
    /// A topic without partitions yet.
    Topic {
        /// Topic name.
        name: Arc<str>,
        /// Its id, never used again.
        topic_id: Uuid,
    },
    /// The topic, its partitions and its configuration are gone.
    RemoveTopic {
        /// Topic id.
        topic_id: Uuid,
    },
    /// A partition of a topic.
    Partition(PartitionRecord),
    /// A change of a partition.
    PartitionChange(PartitionChange),
    /// A configuration value of a topic or broker; `None` takes it away.
    Config {
        /// Kind of resource.
        resource_type: ResourceType,
        /// Which one.
        resource: Arc<str>,
        /// Key.
        key: Arc<str>,
        /// Value as text.
        value: Option<Arc<str>>,
    },
    /// Producer ids below `producer_id_next` are given out in blocks.
    ProducerIdBlock {
        /// First id of the next block.
        producer_id_next: i64,
    },
    /// A broker is gone for good; from metadata version 3 on.
    UnregisterBroker {
        /// Node id.
        node_id: i32,
        /// Epoch of the registration that ends.
        epoch: i64,
    },
    /// All members of the metadata quorum, in place of those before; from [`QUORUM_METADATA_VERSION`] on.
    ///
    /// [`QUORUM_METADATA_VERSION`]: super::quorum::QUORUM_METADATA_VERSION
    Quorum(Members),
}

/// Why bytes are no record of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside the record, or a field is not what its version says.
    #[error("metadata record {0}")]
    Malformed(&'static str),
    /// The checksum does not match.
    #[error("metadata record of type {type_id} fails its CRC")]
    Crc {
        /// Type id as read.
        type_id: u16,
    },
    /// Written by a newer build: this node must stop.
    #[error(
        "metadata record of type {type_id} version {version} is unknown to this build; run the build that wrote it"
    )]
    Unknown {
        /// Type id as read.
        type_id: u16,
        /// Version as read.
        version: u8,
    },
}

impl From<Malformed> for RecordError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// The table of types: id, and the newest version that this build knows (versions count from 0).
mod types {
    pub const METADATA_VERSION: u16 = 1;
    pub const CLUSTER_ID: u16 = 2;
    pub const FEATURE: u16 = 3;
    pub const REGISTER_BROKER: u16 = 4;
    pub const TOPIC: u16 = 5;
    pub const REMOVE_TOPIC: u16 = 6;
    pub const PARTITION: u16 = 7;
    pub const PARTITION_CHANGE: u16 = 8;
    pub const CONFIG: u16 = 9;
    pub const PRODUCER_ID_BLOCK: u16 = 10;
    pub const UNREGISTER_BROKER: u16 = 11;
    pub const QUORUM: u16 = 20;

    pub fn version_latest(type_id: u16) -> Option<u8> {
        match type_id {
            METADATA_VERSION..=UNREGISTER_BROKER | QUORUM => Some(0),
            _ => None,
        }
    }
}

impl Record {
    fn type_id(&self) -> u16 {
        match self {
            Self::MetadataVersion { .. } => types::METADATA_VERSION,
            Self::ClusterId { .. } => types::CLUSTER_ID,
            Self::Feature { .. } => types::FEATURE,
            Self::RegisterBroker(_) => types::REGISTER_BROKER,
            Self::Topic { .. } => types::TOPIC,
            Self::RemoveTopic { .. } => types::REMOVE_TOPIC,
            Self::Partition(_) => types::PARTITION,
            Self::PartitionChange(_) => types::PARTITION_CHANGE,
            Self::Config { .. } => types::CONFIG,
            Self::ProducerIdBlock { .. } => types::PRODUCER_ID_BLOCK,
            Self::UnregisterBroker { .. } => types::UNREGISTER_BROKER,
            Self::Quorum(_) => types::QUORUM,
        }
    }

    /// The first metadata version whose log may hold it.
    pub fn metadata_version_first(&self) -> u16 {
        let clusters = match self {
            Self::Config { resource_type, .. } => return resource_type.metadata_version_first(),
            Self::UnregisterBroker { .. } => true,
            Self::RegisterBroker(broker) => broker.in_controlled_shutdown || !broker.directories.is_empty(),
            Self::Partition(partition) => fields::has_cluster_fields(partition),
            Self::PartitionChange(change) => fields::changes_cluster_fields(change),
            _ => false,
        };
        if clusters { METADATA_VERSION_CLUSTER } else { 1 }
    }

    /// Appends the record in its newest version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let type_id = self.type_id();
        let version = types::version_latest(type_id).expect("every record type is in the table");
        out.extend_from_slice(&type_id.to_be_bytes());
        out.push(version);
        out.extend_from_slice(&[0; 4]);
        let body_at = out.len();
        self.encode_body(out);
        let body_length = out.len() - body_at;
        assert!(body_length <= BODY_BYTES_MAX, "a metadata record exceeds its limit");
        if let Some(length) = out.get_mut(body_at - 4..body_at) {
            length.copy_from_slice(&(body_length as u32).to_be_bytes());
        }
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_be_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::MetadataVersion { version } => out.extend_from_slice(&version.to_be_bytes()),
            Self::ClusterId { cluster_id } => put_text(out, cluster_id),
            Self::Feature { name, level } => {
                put_text(out, name);
                out.extend_from_slice(&level.to_be_bytes());
            }
            Self::RegisterBroker(broker) => return encode_broker(broker, out),
            Self::Topic { name, topic_id } => {
                put_text(out, name);
                out.extend_from_slice(topic_id.as_bytes());
            }
            Self::RemoveTopic { topic_id } => out.extend_from_slice(topic_id.as_bytes()),
            Self::Partition(partition) => return encode_partition(partition, out),
            Self::PartitionChange(change) => return encode_change(change, out),
            Self::Config { resource_type, resource, key, value } => {
                out.push(*resource_type as i8 as u8);
                put_text(out, resource);
                put_text(out, key);
                let tagged = value.as_ref().map(|value| {
                    let mut bytes = Vec::with_capacity(4 + value.len());
                    put_long_text(&mut bytes, value);
                    (fields::CONFIG_VALUE, bytes)
                });
                return put_tagged(out, tagged.into_iter());
            }
            Self::ProducerIdBlock { producer_id_next } => {
                out.extend_from_slice(&producer_id_next.to_be_bytes());
            }
            Self::UnregisterBroker { node_id, epoch } => {
                out.extend_from_slice(&node_id.to_be_bytes());
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            Self::Quorum(members) => members.encode(out),
        }
        put_tagged(out, std::iter::empty());
    }

    /// About how many bytes it encodes to; never fewer.
    pub(super) fn bytes_estimate(&self) -> usize {
        let fields = match self {
            Self::MetadataVersion { .. }
            | Self::ProducerIdBlock { .. }
            | Self::RemoveTopic { .. }
            | Self::UnregisterBroker { .. } => 0,
            Self::ClusterId { cluster_id: text }
            | Self::Feature { name: text, .. }
            | Self::Topic { name: text, .. } => text.len(),
            Self::RegisterBroker(broker) => {
                let listeners = broker.listeners.iter().map(|at| at.name.len() + at.host.len() + 8);
                let rack = broker.rack.as_ref().map_or(0, |rack| rack.len());
                listeners.sum::<usize>() + rack + 16 * broker.directories.len()
            }
            Self::Partition(partition) => fields::partition_bytes(partition),
            Self::PartitionChange(change) => fields::change_bytes(change),
            Self::Config { resource, key, value, .. } => {
                resource.len() + key.len() + value.as_ref().map_or(0, |value| value.len())
            }
            Self::Quorum(members) => members.bytes_estimate(),
        };
        fields + 80
    }

    /// Decodes the record at the front of `bytes`; gives it with the number of bytes it took.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), RecordError> {
        let mut reader = Reader::new(bytes);
        let type_id = reader.u16()?;
        let version = reader.u8()?;
        let body_length = reader.u32()? as usize;
        if body_length > BODY_BYTES_MAX {
            return Err(RecordError::Malformed("is longer than any may be"));
        }
        let body = reader.take(body_length)?;
        let crc = reader.u32()?;
        let length = body_length + FRAME_BYTES;
        if crc32c::crc32c(bytes.get(..length - 4).unwrap_or_default()) != crc {
            return Err(RecordError::Crc { type_id });
        }
        if types::version_latest(type_id).is_none_or(|latest| version > latest) {
            return Err(RecordError::Unknown { type_id, version });
        }
        Ok((Self::decode_body(type_id, body)?, length))
    }

    /// Decodes records that follow each other up to the end of `bytes`.
    pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, RecordError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (record, length) = Self::decode(bytes)?;
            records.push(record);
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(records)
    }

    /// Encodes records one after another.
    pub fn encode_all(records: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            record.encode(&mut out);
        }
        out
    }

    fn decode_body(type_id: u16, body: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(body);
        let mut record = match type_id {
            types::METADATA_VERSION => Self::MetadataVersion { version: reader.u16()? },
            types::CLUSTER_ID => Self::ClusterId { cluster_id: reader.text()? },
            types::FEATURE => Self::Feature { name: reader.text()?, level: reader.i16()? },
            types::REGISTER_BROKER => Self::RegisterBroker(decode_broker(&mut reader)?),
            types::TOPIC => Self::Topic { name: reader.text()?, topic_id: reader.uuid()? },
            types::REMOVE_TOPIC => Self::RemoveTopic { topic_id: reader.uuid()? },
            types::PARTITION => Self::Partition(decode_partition(&mut reader)?),
            types::PARTITION_CHANGE => Self::PartitionChange(PartitionChange {
                topic_id: reader.uuid()?,
                index: reader.i32()?,
                leader_epoch: reader.i32()?,
                partition_epoch: reader.i32()?,
                ..PartitionChange::default()
            }),
            types::CONFIG => Self::Config {
                resource_type: ResourceType::from_code(reader.i8()?)?,
                resource: reader.text()?,
                key: reader.text()?,
                value: None,
            },
            types::PRODUCER_ID_BLOCK => Self::ProducerIdBlock { producer_id_next: reader.i64()? },
            types::UNREGISTER_BROKER => {
                Self::UnregisterBroker { node_id: reader.i32()?, epoch: reader.i64()? }
            }
            types::QUORUM => Self::Quorum(Members::decode(&mut reader)?),
            // `decode` has looked the type up in the table before.
            _ => return Err(RecordError::Unknown { type_id, version: 0 }),
        };
        for _ in 0..reader.u8()? {
            let tag = reader.u8()?;
            let length = reader.u32()? as usize;
            record.set_tagged(tag, &mut Reader::new(reader.take(length)?))?;
        }
        if reader.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::Malformed("goes on after its last field"))
        }
    }

    fn set_tagged(&mut self, tag: u8, field: &mut Reader<'_>) -> Result<(), RecordError> {
        match self {
            Self::RegisterBroker(broker) => match tag {
                fields::BROKER_RACK => broker.rack = Some(field.text()?),
                fields::BROKER_IN_CONTROLLED_SHUTDOWN => broker.in_controlled_shutdown = field.flag()?,
                fields::BROKER_DIRECTORIES => broker.directories = directory_ids(field)?.into_vec(),
                _ => return Ok(()),
            },
            Self::Partition(partition) => match tag {
                fields::PARTITION_DIRECTORIES => partition.directories = directory_ids(field)?,
                fields::PARTITION_ADDING => partition.adding = node_ids(field)?,
                fields::PARTITION_REMOVING => partition.removing = node_ids(field)?,
                fields::PARTITION_ELR => partition.elr = node_ids(field)?,
                fields::PARTITION_LAST_KNOWN_ELR => partition.last_known_elr = node_ids(field)?,
                fields::PARTITION_RECOVERY => partition.recovery = fields::recovery(field)?,
                _ => return Ok(()),
            },
            Self::PartitionChange(change) => match tag {
                fields::CHANGE_LEADER => change.leader = Some(field.i32()?),
                fields::CHANGE_ISR => change.isr = Some(node_ids(field)?),
                fields::CHANGE_REPLICAS => change.replicas = Some(node_ids(field)?),
                fields::CHANGE_ADDING => change.adding = Some(node_ids(field)?),
                fields::CHANGE_REMOVING => change.removing = Some(node_ids(field)?),
                fields::CHANGE_ELR => change.elr = Some(node_ids(field)?),
                fields::CHANGE_LAST_KNOWN_ELR => change.last_known_elr = Some(node_ids(field)?),
                fields::CHANGE_RECOVERY => change.recovery = Some(fields::recovery(field)?),
                fields::CHANGE_DIRECTORIES => change.directories = Some(directory_ids(field)?),
                _ => return Ok(()),
            },
            Self::Config { value, .. } if tag == fields::CONFIG_VALUE => *value = Some(field.long_text()?),
            _ => return Ok(()),
        }
        if field.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Malformed("has a tagged field with bytes left over"))
        }
    }
}
