//! A view over a Produce request, versions 3–13, that copies and allocates nothing.
//!
//! `ProduceRequest.json`: v9 is flexible, v13 names topics by id. The records stay where they were
//! received; a partition's records are a slice that shares the receive buffer.

use bytes::Bytes;

use super::WireError;
use super::api::{Api, ApiKey};
use super::primitive::Reader;
use super::topics::{self, Context, Counts, Entry, Topics};

const VERSION_BY_ID: i16 = 13;

/// A Produce request whose every length has been checked.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    body: Bytes,
    version: i16,
    /// Acknowledgements: 0 none, 1 the leader, −1 the in-sync replicas; not checked here.
    pub acks: i16,
    /// How long to wait for the acknowledgements, in milliseconds.
    pub timeout_ms: i32,
    transactional: bool,
    topics_at: usize,
    counts: Counts,
}

/// One partition's records in a Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// Partition index.
    pub index: i32,
    /// Record batches; null is possible on the wire.
    pub records: Option<Bytes>,
}

impl Entry for ProducePartition {
    #[inline]
    fn bytes_min(_version: i16) -> usize {
        // An index and the shortest (compact) length; older versions take three bytes more.
        5
    }

    #[inline]
    fn skip(reader: &mut Reader<'_>, _version: i16) -> Result<(), WireError> {
        reader.i32()?;
        reader.bytes_nullable()?;
        reader.skip_tags()
    }

    #[inline]
    fn read(reader: &mut Reader<'_>, context: Context<'_>) -> Result<Self, WireError> {
        let index = reader.i32()?;
        let records = reader.bytes_nullable()?.map(|records| context.body.slice_ref(records));
        reader.skip_tags()?;
        Ok(Self { index, records })
    }
}

impl ProduceRequest {
    /// Checks the whole body of a served version.
    pub fn parse(body: Bytes, version: i16) -> Result<Self, WireError> {
        let api: &Api = ApiKey::Produce.api();
        if !api.serves(version) {
            return Err(WireError::VersionUnsupported { key: api.key as i16, version });
        }
        let mut reader = Reader::new(&body, api.is_flexible(version));
        let transactional = reader.string_nullable()?.is_some();
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics_at = body.len() - reader.remaining();
        let counts = topics::walk::<ProducePartition>(&mut reader, version, version >= VERSION_BY_ID)?;
        reader.skip_tags()?;
        Ok(Self { body, version, acks, timeout_ms, transactional, topics_at, counts })
    }

    /// The version that it was parsed in.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// The transactional id, `None` outside transactions.
    pub fn transactional_id(&self) -> Option<&str> {
        if !self.transactional {
            return None;
        }
        let mut reader = Reader::new(&self.body, ApiKey::Produce.api().is_flexible(self.version));
        reader.string_nullable().expect("the id was checked when the request was parsed")
    }

    /// How many topics and partitions it names.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Its topics in request order.
    pub fn topics(&self) -> Topics<'_, ProducePartition> {
        let list = self.body.get(self.topics_at..).unwrap_or_default();
        let mut reader = Reader::new(list, ApiKey::Produce.api().is_flexible(self.version));
        let count = reader.array_length(2).expect("the list was checked when the request was parsed");
        let by_id = self.version >= VERSION_BY_ID;
        Topics::new(reader, Context { body: &self.body, version: self.version, by_id }, count)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{self, TopicName};
    use kafka_protocol::protocol::Encodable;
    use uuid::Uuid;

    use super::super::{StrBytes, TopicRef};
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

    fn request(version: i16) -> messages::ProduceRequest {
        let topic = |name: &'static str, partitions: &[(i32, Option<&'static [u8]>)]| {
            let partitions = partitions.iter().map(|(index, records)| {
                let data = PartitionProduceData::default().with_index(*index);
                let data = data.with_records(records.map(Bytes::from_static));
                if version >= 9 {
                    data.with_unknown_tagged_field(9, Bytes::from_static(b"tag"))
                } else {
                    data
                }
            });
            let topic = TopicProduceData::default().with_partition_data(partitions.collect());
            if version >= 13 {
                topic.with_topic_id(ID)
            } else {
                topic.with_name(TopicName(StrBytes::from_static_str(name)))
            }
        };
        messages::ProduceRequest::default()
            .with_transactional_id(Some(StrBytes::from_static_str("txn").into()))
            .with_acks(-1)
            .with_timeout_ms(1500)
            .with_topic_data(vec![
                topic("orders", &[(0, Some(b"first")), (7, None)]),
                topic("none", &[]),
                topic("ünïcode", &[(2, Some(&[0xab; 300]))]),
            ])
    }

    fn encoded(version: i16) -> Bytes {
        let mut buffer = BytesMut::new();
        request(version).encode(&mut buffer, version).unwrap();
        buffer.freeze()
    }

    #[test]
    fn every_version_reads_what_the_library_wrote() {
        for version in 3..=13 {
            let body = encoded(version);
            let parsed = ProduceRequest::parse(body.clone(), version).unwrap();
            let expected = request(version);
            assert_eq!(parsed.transactional_id(), Some("txn"));
            assert_eq!((parsed.acks, parsed.timeout_ms), (-1, 1500));
            assert_eq!(parsed.counts(), Counts { topics: 3, partitions: 3 });
            assert_eq!(parsed.topics().len(), 3);
            for (topic, expected) in parsed.topics().zip(&expected.topic_data) {
                let name =
                    if version >= 13 { TopicRef::Id(ID) } else { TopicRef::Name(expected.name.as_str()) };
                assert_eq!(topic.topic, name);
                assert_eq!(topic.partitions.len(), expected.partition_data.len());
                for (partition, expected) in topic.partitions.zip(&expected.partition_data) {
                    assert_eq!(partition.index, expected.index);
                    assert_eq!(partition.records, expected.records);
                    if let Some(records) = &partition.records {
                        assert!(body.as_ptr_range().contains(&records.as_ptr()), "a copy was made");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cut_anywhere_is_refused_and_bytes_behind_are_ignored() {
        for version in 3..=13 {
            let body = encoded(version);
            for end in 0..body.len() {
                assert!(
                    ProduceRequest::parse(body.slice(..end), version).is_err(),
                    "v{version} cut at {end}"
                );
            }
            let longer: Bytes = [&body[..], &[0]].concat().into();
            assert!(ProduceRequest::parse(longer, version).is_ok());
        }
        let error = ProduceRequest::parse(encoded(3), 2).unwrap_err();
        assert_eq!(error, WireError::VersionUnsupported { key: 0, version: 2 });
    }

    #[test]
    fn random_bytes_are_refused_or_iterate_to_the_end() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..60_000 {
            let version = random.i16(3..=13);
            let mut body = encoded(version).to_vec();
            for _ in 0..=round % 3 {
                let at = random.usize(..body.len());
                body[at] = [random.u8(..), 0, 0x7f, 0xff][random.usize(..4)];
            }
            let Ok(parsed) = ProduceRequest::parse(body.into(), version) else { continue };
            let partitions: usize = parsed.topics().map(|topic| topic.partitions.count()).sum();
            assert_eq!(partitions, parsed.counts().partitions as usize);
        }
    }
}
