//! Records and Images: bytes there and back, and one state whichever way it is reached.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::record::{LeaderRecovery, NodeIds, PartitionChange, PartitionRecord, RecordError};
use super::super::storage::{Snapshot, decode_frame};
use super::*;

fn topic_id() -> impl Strategy<Value = Uuid> {
    (0u128..4).prop_map(Uuid::from_u128)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-c][._]?[a-b]?".prop_map(|text| Arc::<str>::from(text.as_str()))
}

fn nodes() -> impl Strategy<Value = NodeIds> {
    proptest::collection::vec(0i32..4, 1..4).prop_map(NodeIds::from_vec)
}

fn partition() -> impl Strategy<Value = Record> {
    (topic_id(), 0i32..3, nodes(), any::<bool>()).prop_map(|(topic_id, index, replicas, known)| {
        let directories = replicas.iter().filter(|_| known).map(|_| Uuid::from_u128(1)).collect();
        let leader = replicas[0];
        let isr = replicas.clone();
        let (leader_epoch, partition_epoch) = (0, 0);
        let moved = if known { replicas.clone() } else { NodeIds::new() };
        let recovery = if known { LeaderRecovery::Recovering } else { LeaderRecovery::Recovered };
        let record = PartitionRecord {
            topic_id,
            index,
            replicas,
            isr,
            leader,
            leader_epoch,
            partition_epoch,
            directories,
            adding: moved.clone(),
            removing: moved,
            elr: NodeIds::new(),
            last_known_elr: NodeIds::from_elem(3, usize::from(known)),
            recovery,
        };
        Record::Partition(record)
    })
}

fn broker() -> impl Strategy<Value = Record> {
    let broker = (0i32..4, text(), proptest::option::of(text()), any::<bool>());
    broker.prop_map(|(node_id, host, rack, fenced)| {
        let endpoint = Endpoint { name: host.clone(), host, port: 9092, security_protocol: 0 };
        let (incarnation, listeners) = (Uuid::from_u128(5), vec![endpoint]);
        Record::RegisterBroker(BrokerRegistration {
            node_id,
            incarnation,
            epoch: 3,
            listeners,
            in_controlled_shutdown: rack.is_some(),
            directories: rack.iter().map(|_| Uuid::from_u128(6)).collect(),
            rack,
            fenced,
        })
    })
}

/// Records over few names and ids, so that they meet; many do not apply.
fn record() -> impl Strategy<Value = Record> {
    let some = || proptest::option::of(nodes());
    let change = (topic_id(), 0i32..3, proptest::option::of(0i32..4), some(), 0i32..9);
    let change = (change, [some(), some(), some(), some(), some()], any::<[Option<bool>; 2]>());
    let change = change.prop_map(|((topic_id, index, leader, isr, epoch), lists, [recovers, moves])| {
        let (leader_epoch, partition_epoch) = (epoch, epoch);
        let [replicas, adding, removing, elr, last_known_elr] = lists;
        let code = |recovers: bool| LeaderRecovery::from_code(i8::from(recovers));
        Record::PartitionChange(PartitionChange {
            topic_id,
            index,
            leader,
            isr,
            leader_epoch,
            partition_epoch,
            replicas,
            adding,
            removing,
            elr,
            last_known_elr,
            recovery: recovers.and_then(code),
            directories: moves.map(|one| std::iter::repeat_n(Uuid::from_u128(2), usize::from(one)).collect()),
        })
    });
    let kind = prop_oneof![Just(ResourceType::Topic), Just(ResourceType::Broker)];
    let config = (kind, text(), text(), proptest::option::of(text()));
    let config = config.prop_map(|(resource_type, resource, key, value)| Record::Config {
        resource_type,
        resource,
        key,
        value,
    });
    prop_oneof![
        2 => (text(), topic_id()).prop_map(|(name, topic_id)| Record::Topic { name, topic_id }),
        1 => topic_id().prop_map(|topic_id| Record::RemoveTopic { topic_id }),
        6 => partition(),
        3 => change,
        2 => config,
        1 => broker(),
        1 => (0i32..4).prop_map(|node_id| Record::UnregisterBroker { node_id, epoch: 3 }),
        1 => (text(), -1i16..2).prop_map(|(name, level)| Record::Feature { name, level }),
        1 => (0i64..9).prop_map(|id| Record::ProducerIdBlock { producer_id_next: id * 1000 }),
    ]
}

fn begun() -> ImageBuilder {
    let mut builder = ImageBuilder::default();
    builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
    builder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn records_come_back_from_their_bytes(records in proptest::collection::vec(record(), 0..20)) {
        let bytes = Record::encode_all(&records);
        prop_assert!(bytes.len() <= records.iter().map(Record::bytes_estimate).sum());
        prop_assert_eq!(Record::decode_all(&bytes).unwrap(), records);
    }

    #[test]
    fn a_snapshot_and_the_rest_give_the_state_of_all(
        records in proptest::collection::vec(record(), 0..60), cut in 0usize..60,
    ) {
        let mut direct = begun();
        let applied: Vec<_> = records.iter().filter(|record| direct.apply(record).is_ok()).collect();
        let (before, after) = applied.split_at(cut.min(applied.len()));
        let mut first = begun();
        before.iter().for_each(|record| first.apply(record).unwrap());
        let (image, _) = first.publish(9);
        let bytes = Record::encode_all(&image.to_records());
        let mut second = ImageBuilder::default();
        Record::decode_all(&bytes).unwrap().iter().for_each(|record| second.apply(record).unwrap());
        after.iter().for_each(|record| second.apply(record).unwrap());
        prop_assert_eq!(second.image(), direct.image());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode_all(&bytes);
        let _ = Snapshot::decode(&bytes);
        let _ = decode_frame(&bytes);
    }

    #[test]
    fn a_changed_byte_is_noticed(records in proptest::collection::vec(record(), 1..4), at: usize, flip in 1u8..) {
        let mut bytes = Record::encode_all(&records);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        prop_assert!(Record::decode_all(&bytes).is_err());
    }

    #[test]
    fn fields_that_lie_under_a_good_checksum_do_not_panic(
        type_id in 1u16..24, body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = [&type_id.to_be_bytes()[..], &[0], &(body.len() as u32).to_be_bytes(), &body].concat();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn an_unknown_type_or_version_is_named() {
    for (type_id, version) in [(99u16, 0u8), (5, 1)] {
        let mut bytes = [&type_id.to_be_bytes()[..], &[version], &[0; 4]].concat();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(Record::decode(&bytes), Err(RecordError::Unknown { type_id, version }));
    }
}
