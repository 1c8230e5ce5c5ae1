//! A view over a Fetch request, versions 4–18, that copies and allocates nothing.
//!
//! `FetchRequest.json`: v5 log start offset, v7 sessions, v9 leader epoch, v11 rack, v12 flexible
//! and last fetched epoch, v13 topic ids, v15 ReplicaState, v17 directory id, v18 high watermark.
//! Fields that a version lacks show their default.

use bytes::Bytes;
use uuid::Uuid;

use super::WireError;
use super::api::ApiKey;
use super::primitive::Reader;
use super::topics::{self, Context, Counts, Entry, Topics};

const VERSION_BY_ID: i16 = 13;

/// A Fetch request whose every length has been checked.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    body: Bytes,
    version: i16,
    /// Node id of the follower that asks, −1 for a consumer.
    pub replica_id: i32,
    /// Broker epoch of that follower, −1 if not told (v15).
    pub replica_epoch: i64,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Answer as soon as this many bytes are there.
    pub min_bytes: i32,
    /// At most this many bytes in the response, but for the first batch.
    pub max_bytes: i32,
    /// 0 reads uncommitted records, 1 only committed ones; not checked here.
    pub isolation_level: i8,
    /// Fetch session, 0 for none (v7).
    pub session_id: i32,
    /// Epoch in the session: −1 no session, 0 a new one (v7).
    pub session_epoch: i32,
    topics_at: usize,
    counts: Counts,
    forgotten_at: usize,
    forgotten: Counts,
    rack_at: usize,
    cluster_id_at: Option<usize>,
}

/// One partition in a Fetch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// Partition index.
    pub index: i32,
    /// Leader epoch that the caller knows, −1 if unknown (v9).
    pub current_leader_epoch: i32,
    /// First offset to read.
    pub fetch_offset: i64,
    /// Epoch of the record before it, −1 if there is none (v12).
    pub last_fetched_epoch: i32,
    /// Log start offset of a follower, −1 for a consumer (v5).
    pub log_start_offset: i64,
    /// At most this many bytes of the partition, but for the first batch.
    pub max_bytes: i32,
    /// Log directory of a follower, nil if not told (v17).
    pub replica_directory_id: Uuid,
    /// High watermark that a follower knows, −1 if unknown, `i64::MAX` if not told (v18).
    pub high_watermark: i64,
}

impl Entry for FetchPartition {
    #[inline]
    fn bytes_min(version: i16) -> usize {
        let mut bytes = 16;
        if version >= 5 {
            bytes += 8;
        }
        if version >= 9 {
            bytes += 4;
        }
        if version >= 12 {
            bytes += 5;
        }
        bytes
    }

    #[inline]
    fn skip(reader: &mut Reader<'_>, version: i16) -> Result<(), WireError> {
        read_partition(reader, version).map(|_| ())
    }

    #[inline]
    fn read(reader: &mut Reader<'_>, context: Context<'_>) -> Result<Self, WireError> {
        read_partition(reader, context.version)
    }
}

#[inline]
fn read_partition(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartition, WireError> {
    let mut partition = FetchPartition {
        index: reader.i32()?,
        current_leader_epoch: if version >= 9 { reader.i32()? } else { -1 },
        fetch_offset: reader.i64()?,
        last_fetched_epoch: if version >= 12 { reader.i32()? } else { -1 },
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        max_bytes: reader.i32()?,
        replica_directory_id: Uuid::nil(),
        high_watermark: i64::MAX,
    };
    reader.tags(|tag, content| {
        match tag {
            0 if version >= 17 => partition.replica_directory_id = content.uuid()?,
            1 if version >= 18 => partition.high_watermark = content.i64()?,
            0 | 1 => return Ok(false),
            _ => return Ok(true),
        }
        Ok(content.remaining() == 0)
    })?;
    Ok(partition)
}

impl FetchRequest {
    /// Checks the whole body of a served version.
    pub fn parse(body: Bytes, version: i16) -> Result<Self, WireError> {
        let api = ApiKey::Fetch.api();
        if !api.serves(version) {
            return Err(WireError::VersionUnsupported { key: api.key as i16, version });
        }
        let by_id = version >= VERSION_BY_ID;
        let mut reader = Reader::new(&body, api.is_flexible(version));
        let replica_id = if version <= 14 { reader.i32()? } else { -1 };
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let isolation_level = reader.i8()?;
        let (session_id, session_epoch) = if version >= 7 { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let topics_at = body.len() - reader.remaining();
        let counts = topics::walk::<FetchPartition>(&mut reader, version, by_id)?;
        let forgotten_at = body.len() - reader.remaining();
        let forgotten =
            if version >= 7 { topics::walk::<i32>(&mut reader, version, by_id)? } else { Counts::default() };
        let rack_at = body.len() - reader.remaining();
        if version >= 11 {
            reader.string()?;
        }
        let mut tail = TailTags { replica_id, replica_epoch: -1, cluster_id_at: None };
        read_tail(&mut reader, version, &body, &mut tail)?;
        let TailTags { replica_id, replica_epoch, cluster_id_at } = tail;
        Ok(Self {
            replica_id,
            replica_epoch,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation_level,
            session_id,
            session_epoch,
            topics_at,
            counts,
            forgotten_at,
            forgotten,
            rack_at,
            cluster_id_at,
            body,
            version,
        })
    }

    /// The version that it was parsed in.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// How many topics and partitions it asks for.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many topics and partitions it takes out of its session.
    pub fn forgotten_counts(&self) -> Counts {
        self.forgotten
    }

    /// The topics that it asks for, in request order.
    pub fn topics(&self) -> Topics<'_, FetchPartition> {
        self.list(self.topics_at)
    }

    /// The partitions that it takes out of its session (v7).
    pub fn forgotten(&self) -> Topics<'_, i32> {
        if self.version < 7 {
            return Topics::new(self.reader(self.body.len()), self.context(), 0);
        }
        self.list(self.forgotten_at)
    }

    /// The rack of the consumer, empty if not told (v11).
    pub fn rack_id(&self) -> &str {
        if self.version < 11 {
            return "";
        }
        self.reader(self.rack_at).string().expect("the rack was checked when the request was parsed")
    }

    /// The cluster that the caller believes to talk to (v12).
    pub fn cluster_id(&self) -> Option<&str> {
        let mut reader = self.reader(self.cluster_id_at?);
        reader.string_nullable().expect("the cluster id was checked when the request was parsed")
    }

    fn context(&self) -> Context<'_> {
        Context { body: &self.body, version: self.version, by_id: self.version >= VERSION_BY_ID }
    }

    fn reader(&self, at: usize) -> Reader<'_> {
        let rest = self.body.get(at..).unwrap_or_default();
        Reader::new(rest, ApiKey::Fetch.api().is_flexible(self.version))
    }

    fn list<P: Entry>(&self, at: usize) -> Topics<'_, P> {
        let mut reader = self.reader(at);
        let count = reader.array_length(2).expect("the list was checked when the request was parsed");
        Topics::new(reader, self.context(), count)
    }
}

struct TailTags {
    replica_id: i32,
    replica_epoch: i64,
    cluster_id_at: Option<usize>,
}

fn read_tail(
    reader: &mut Reader<'_>,
    version: i16,
    body: &Bytes,
    tail: &mut TailTags,
) -> Result<(), WireError> {
    reader.tags(|tag, content| {
        match tag {
            0 => {
                tail.cluster_id_at = Some(content.rest().as_ptr().addr() - body.as_ptr().addr());
                content.string_nullable()?;
            }
            1 if version >= 15 => {
                tail.replica_id = content.i32()?;
                tail.replica_epoch = content.i64()?;
                content.skip_tags()?;
            }
            1 => return Ok(false),
            _ => return Ok(true),
        }
        Ok(content.remaining() == 0)
    })
}
