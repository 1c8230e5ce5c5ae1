//! The bodies of the larger metadata records, brokers and partitions, and the tagged fields of all of them.

use super::codec::{Malformed, Reader, put_list, put_text};
use super::record::{
    BrokerRegistration, DirectoryIds, Endpoint, LeaderRecovery, NodeIds, PartitionChange, PartitionRecord,
};

// A tag is never used again within its record.
pub(super) const BROKER_RACK: u8 = 0;
pub(super) const BROKER_IN_CONTROLLED_SHUTDOWN: u8 = 1;
pub(super) const BROKER_DIRECTORIES: u8 = 2;
pub(super) const PARTITION_DIRECTORIES: u8 = 0;
pub(super) const PARTITION_ADDING: u8 = 1;
pub(super) const PARTITION_REMOVING: u8 = 2;
pub(super) const PARTITION_ELR: u8 = 3;
pub(super) const PARTITION_LAST_KNOWN_ELR: u8 = 4;
pub(super) const PARTITION_RECOVERY: u8 = 5;
pub(super) const CHANGE_LEADER: u8 = 0;
pub(super) const CHANGE_ISR: u8 = 1;
pub(super) const CHANGE_REPLICAS: u8 = 2;
pub(super) const CHANGE_ADDING: u8 = 3;
pub(super) const CHANGE_REMOVING: u8 = 4;
pub(super) const CHANGE_ELR: u8 = 5;
pub(super) const CHANGE_LAST_KNOWN_ELR: u8 = 6;
pub(super) const CHANGE_RECOVERY: u8 = 7;
pub(super) const CHANGE_DIRECTORIES: u8 = 8;
pub(super) const CONFIG_VALUE: u8 = 0;

/// Bytes before a tagged field, and of a list's count.
const TAG_BYTES: usize = 1 + 4 + 2;

/// A tagged field.
type Tagged = (u8, Vec<u8>);

/// Appends the tagged section.
pub(super) fn put_tagged(out: &mut Vec<u8>, fields: impl ExactSizeIterator<Item = Tagged>) {
    out.push(u8::try_from(fields.len()).expect("a record has a handful of tagged fields"));
    for (tag, bytes) in fields {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

fn put_node_ids(out: &mut Vec<u8>, ids: &NodeIds) {
    put_list(out, ids, |out, id| out.extend_from_slice(&id.to_be_bytes()));
}

pub(super) fn node_ids(reader: &mut Reader<'_>) -> Result<NodeIds, Malformed> {
    reader.list(|reader| reader.i32()).map(NodeIds::from_vec)
}

pub(super) fn directory_ids(reader: &mut Reader<'_>) -> Result<DirectoryIds, Malformed> {
    reader.list(|reader| reader.uuid()).map(DirectoryIds::from_vec)
}

pub(super) fn recovery(reader: &mut Reader<'_>) -> Result<LeaderRecovery, Malformed> {
    LeaderRecovery::from_code(reader.i8()?).ok_or(Malformed("names a leader's recovery that no version has"))
}

fn tagged_nodes(tag: u8, ids: &NodeIds) -> Tagged {
    let mut bytes = Vec::with_capacity(2 + 4 * ids.len());
    put_node_ids(&mut bytes, ids);
    (tag, bytes)
}

fn tagged_directories(tag: u8, ids: &[uuid::Uuid]) -> Tagged {
    let mut bytes = Vec::with_capacity(2 + 16 * ids.len());
    put_list(&mut bytes, ids, |out, id| out.extend_from_slice(id.as_bytes()));
    (tag, bytes)
}

fn tagged_recovery(tag: u8, recovery: LeaderRecovery) -> Tagged {
    (tag, vec![recovery as i8 as u8])
}

pub(super) fn encode_broker(broker: &BrokerRegistration, out: &mut Vec<u8>) {
    out.extend_from_slice(&broker.node_id.to_be_bytes());
    out.extend_from_slice(broker.incarnation.as_bytes());
    out.extend_from_slice(&broker.epoch.to_be_bytes());
    out.push(u8::from(broker.fenced));
    put_list(out, &broker.listeners, |out, endpoint| {
        put_text(out, &endpoint.name);
        put_text(out, &endpoint.host);
        out.extend_from_slice(&endpoint.port.to_be_bytes());
        out.extend_from_slice(&endpoint.security_protocol.to_be_bytes());
    });
    let mut tagged = Vec::new();
    tagged.extend(broker.rack.as_ref().map(|rack| {
        let mut bytes = Vec::with_capacity(2 + rack.len());
        put_text(&mut bytes, rack);
        (BROKER_RACK, bytes)
    }));
    tagged.extend(broker.in_controlled_shutdown.then(|| (BROKER_IN_CONTROLLED_SHUTDOWN, vec![1])));
    if !broker.directories.is_empty() {
        tagged.push(tagged_directories(BROKER_DIRECTORIES, &broker.directories));
    }
    put_tagged(out, tagged.into_iter());
}

pub(super) fn decode_broker(reader: &mut Reader<'_>) -> Result<BrokerRegistration, Malformed> {
    Ok(BrokerRegistration {
        node_id: reader.i32()?,
        incarnation: reader.uuid()?,
        epoch: reader.i64()?,
        fenced: reader.flag()?,
        listeners: reader.list(|reader| {
            Ok(Endpoint {
                name: reader.text()?,
                host: reader.text()?,
                port: reader.u16()?,
                security_protocol: reader.i16()?,
            })
        })?,
        rack: None,
        in_controlled_shutdown: false,
        directories: Vec::new(),
    })
}

pub(super) fn encode_partition(partition: &PartitionRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(partition.topic_id.as_bytes());
    out.extend_from_slice(&partition.index.to_be_bytes());
    put_node_ids(out, &partition.replicas);
    put_node_ids(out, &partition.isr);
    out.extend_from_slice(&partition.leader.to_be_bytes());
    out.extend_from_slice(&partition.leader_epoch.to_be_bytes());
    out.extend_from_slice(&partition.partition_epoch.to_be_bytes());
    let mut tagged = Vec::new();
    if !partition.directories.is_empty() {
        tagged.push(tagged_directories(PARTITION_DIRECTORIES, &partition.directories));
    }
    let lists = [
        (PARTITION_ADDING, &partition.adding),
        (PARTITION_REMOVING, &partition.removing),
        (PARTITION_ELR, &partition.elr),
        (PARTITION_LAST_KNOWN_ELR, &partition.last_known_elr),
    ];
    tagged.extend(
        lists.into_iter().filter(|(_, ids)| !ids.is_empty()).map(|(tag, ids)| tagged_nodes(tag, ids)),
    );
    if partition.recovery != LeaderRecovery::Recovered {
        tagged.push(tagged_recovery(PARTITION_RECOVERY, partition.recovery));
    }
    put_tagged(out, tagged.into_iter());
}

pub(super) fn decode_partition(reader: &mut Reader<'_>) -> Result<PartitionRecord, Malformed> {
    Ok(PartitionRecord {
        topic_id: reader.uuid()?,
        index: reader.i32()?,
        replicas: node_ids(reader)?,
        isr: node_ids(reader)?,
        leader: reader.i32()?,
        leader_epoch: reader.i32()?,
        partition_epoch: reader.i32()?,
        ..PartitionRecord::default()
    })
}

/// Whether it has what only metadata version 3 knows.
pub(super) fn has_cluster_fields(partition: &PartitionRecord) -> bool {
    let lists = [&partition.adding, &partition.removing, &partition.elr, &partition.last_known_elr];
    partition.recovery != LeaderRecovery::Recovered || lists.iter().any(|ids| !ids.is_empty())
}

/// More than it encodes to beyond the fixed fields.
pub(super) fn partition_bytes(partition: &PartitionRecord) -> usize {
    let lists = [&partition.replicas, &partition.isr, &partition.adding, &partition.removing, &partition.elr];
    let nodes: usize = lists.iter().map(|ids| ids.len()).sum::<usize>() + partition.last_known_elr.len();
    4 * nodes + 16 * partition.directories.len() + 6 * TAG_BYTES
}

pub(super) fn encode_change(change: &PartitionChange, out: &mut Vec<u8>) {
    out.extend_from_slice(change.topic_id.as_bytes());
    out.extend_from_slice(&change.index.to_be_bytes());
    out.extend_from_slice(&change.leader_epoch.to_be_bytes());
    out.extend_from_slice(&change.partition_epoch.to_be_bytes());
    let mut tagged = Vec::new();
    tagged.extend(change.leader.map(|leader| (CHANGE_LEADER, leader.to_be_bytes().to_vec())));
    let lists = node_lists(change).into_iter();
    tagged.extend(lists.filter_map(|(tag, ids)| Some(tagged_nodes(tag, ids?))));
    tagged.extend(change.recovery.map(|recovery| tagged_recovery(CHANGE_RECOVERY, recovery)));
    tagged.extend(change.directories.as_ref().map(|ids| tagged_directories(CHANGE_DIRECTORIES, ids)));
    put_tagged(out, tagged.into_iter());
}

fn node_lists(change: &PartitionChange) -> [(u8, Option<&NodeIds>); 6] {
    [
        (CHANGE_ISR, change.isr.as_ref()),
        (CHANGE_REPLICAS, change.replicas.as_ref()),
        (CHANGE_ADDING, change.adding.as_ref()),
        (CHANGE_REMOVING, change.removing.as_ref()),
        (CHANGE_ELR, change.elr.as_ref()),
        (CHANGE_LAST_KNOWN_ELR, change.last_known_elr.as_ref()),
    ]
}

/// Whether it changes what only metadata version 3 knows.
pub(super) fn changes_cluster_fields(change: &PartitionChange) -> bool {
    let lists = node_lists(change);
    let is_new = |(tag, ids): &(u8, Option<&NodeIds>)| *tag != CHANGE_ISR && ids.is_some();
    change.recovery.is_some() || change.directories.is_some() || lists.iter().any(is_new)
}

/// More than it encodes to beyond the fixed fields.
pub(super) fn change_bytes(change: &PartitionChange) -> usize {
    let lists = node_lists(change).into_iter();
    let nodes: usize = lists.filter_map(|(_, ids)| Some(4 * ids?.len() + TAG_BYTES)).sum();
    nodes + change.directories.as_ref().map_or(0, |ids| 16 * ids.len() + TAG_BYTES) + 3 * TAG_BYTES
}
