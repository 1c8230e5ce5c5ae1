//! What goes into a partition and what comes out: the whole contract between one replica and the
//! shard that owns it, field by field. File operations are those of [`crate::effect`].

use bytes::Bytes;
use smallvec::SmallVec;

use crate::controller::IsrChange;
use crate::effect::{FileOp, Ticket};
use crate::log::Span;
use crate::log::check::CheckedBatch;
use crate::log::producer::ActiveProducer;
use crate::wire::ErrorCode;

/// Where an answer goes: one part of one request of one connection, on the shard that owns the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo {
    /// The connection's shard.
    pub shard: u16,
    /// The connection's slot there.
    pub connection: u32,
    /// Tells successive connections in one slot apart.
    pub generation: u32,
    /// The request's number on its connection.
    pub request: u32,
    /// Which part of the request this answers: its index among the request's partitions.
    pub part: u32,
}

/// In place of a connection's slot: what is said is for a fetch session, which lasts from request to request.
const SESSION: u32 = u32::MAX - 1;

impl ReplyTo {
    /// A partition of a fetch session. `arming` tells the watches that lie for it one after the other apart.
    pub fn session(shard: u16, id: i32, arming: u32, slot: u32) -> Self {
        Self { shard, connection: SESSION, generation: id.cast_unsigned(), request: arming, part: slot }
    }

    /// The session that it is for, if it is for one.
    pub fn session_id(&self) -> Option<i32> {
        (self.connection == SESSION).then_some(self.generation.cast_signed())
    }

    /// Whether both are for the same partition of the same session, whatever watch it is.
    pub(super) fn is_same_in_session(&self, other: &Self) -> bool {
        Self { request: other.request, ..*self } == *other && self.connection == SESSION
    }
}

/// When a produced batch is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0` and `acks=1`: the leader's log end has passed the batch.
    Leader,
    /// `acks=-1`: the high watermark has passed the batch.
    All,
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    Uncommitted,
    /// Up to the last stable offset.
    Committed,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A consumer: it sees what is committed, and nothing depends on where it is.
    Consumer,
    /// Another replica of the partition (KIP-903): it sees the log to its end, and by where it reads the
    /// leader knows what it holds.
    Replica {
        /// Its node id.
        id: i32,
        /// Its broker epoch, -1 if not told.
        epoch: i64,
        /// First offset that it has, -1 if not told.
        log_start_offset: i64,
        /// Leader epoch of the record before the one that it wants, -1 if there is none (KIP-595).
        last_fetched_epoch: i32,
    },
}

/// A read at one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Who reads.
    pub reader: Reader,
    /// First offset wanted.
    pub offset: i64,
    /// At most this many bytes, but always one whole batch.
    pub max_bytes: u64,
    /// The leader epoch the reader knows, -1 for none (KIP-320).
    pub current_leader_epoch: i32,
    /// How far a consumer may see.
    pub isolation: Isolation,
    /// Whether the reader can decompress zstd; to one that cannot no such batch is given.
    pub knows_zstd: bool,
    /// Leave a one-shot watch behind if fewer than this many bytes are found; 0 for never.
    pub watch_below_bytes: u64,
    /// A partition of a fetch session: the watch stays beyond the request and says there what comes to pass, and what
    /// moves that is no records. One that lies for it already goes.
    pub session: Option<ReplyTo>,
    /// A consumer that may read from a follower, too, up to the high watermark that is known there (KIP-392).
    pub from_follower: bool,
    /// Replicas that are nearer to the consumer than the leader: it is sent to one of them that is in sync and has
    /// the offset (KIP-392).
    pub nearer: SmallVec<[i32; 4]>,
    /// A replica that has used up its share of a limited rate: where it is counts, but it gets no records now.
    pub withheld: bool,
}

impl Read {
    /// A read of committed records from the leader, by somebody who knows no leader epoch, all codecs, and leaves no
    /// watch behind.
    pub fn new(reader: Reader, offset: i64, max_bytes: u64) -> Self {
        Self {
            reader,
            offset,
            max_bytes,
            current_leader_epoch: -1,
            isolation: Isolation::Uncommitted,
            knows_zstd: true,
            watch_below_bytes: 0,
            session: None,
            from_follower: false,
            nearer: SmallVec::new(),
            withheld: false,
        }
    }
}

/// Which offset a ListOffsets request asks for (its special timestamps).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// -1: the end that the reader may see.
    Latest,
    /// The end of everything that has been given an offset, also of what is still being written. No client asks for
    /// it: a coordinator loads so far, and misses nothing that was appended before.
    Reserved,
    /// -2 and -4: the log start (the local one is the same without tiering).
    Earliest,
    /// -3: the record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after this time.
    Timestamp(i64),
    /// -5 and -6: the end of what is tiered; nothing is.
    Tiered,
}

/// What a request asks of one partition.
#[derive(Clone, Debug)]
pub enum Op {
    /// Append a batch that passed the stateless check.
    Append {
        /// The batch.
        batch: CheckedBatch,
        /// When to acknowledge.
        acks: Acks,
        /// Monotonic time after which an unreached promise is answered REQUEST_TIMED_OUT.
        deadline_ms: u64,
    },
    /// Read a span.
    Read(Read),
    /// Look an offset up.
    Offset {
        /// Which one.
        query: OffsetQuery,
        /// How far the reader may see; `None` for replicas and debuggers, who see the log's end.
        isolation: Option<Isolation>,
        /// The leader epoch the client knows, -1 for none.
        current_leader_epoch: i32,
    },
    /// Tell where a leader epoch ended.
    EpochEnd {
        /// The epoch asked for.
        leader_epoch: i32,
        /// The leader epoch the client knows, -1 for none.
        current_leader_epoch: i32,
    },
    /// Serve no record below an offset any more; it is answered when that holds also after a crash.
    DeleteRecords {
        /// The new log start, -1 for the high watermark.
        offset: i64,
        /// Monotonic time after which it is answered REQUEST_TIMED_OUT.
        deadline_ms: u64,
    },
    /// Tell how many bytes the log has, and where.
    Size,
    /// Move the replica to another log directory; it is answered when that has begun. Towards the one where it is:
    /// give up a move.
    Move {
        /// Which of the node's log directories.
        directory: u16,
    },
    /// Tell who produces.
    Producers,
    /// Forget the watches of this request part; there is no answer.
    Unwatch,
    /// A throttled replica was sent this many bytes of the partition; there is no answer.
    Sent(u64),
}

impl Op {
    /// How many bytes it brings along.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Append { batch, .. } => batch.bytes.len(),
            _ => 0,
        }
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFound {
    /// The bytes, or nothing at or after that offset that the reader may see.
    pub span: Option<Span>,
    /// First offset that is not yet committed.
    pub high_watermark: i64,
    /// First offset that a transaction still holds back.
    pub last_stable_offset: i64,
    /// First offset there is.
    pub log_start_offset: i64,
    /// The replica's log is another than the leader's: the largest epoch that both may have, and where it ends
    /// here. There is no span then. Epoch -1 where the replica told none and only is beyond the log end.
    pub diverging: Option<(i32, i64)>,
    /// Node id of a replica from which the consumer is to read instead (KIP-392). There is no span then.
    pub preferred: Option<i32>,
    /// A watch was left for a fetch session.
    pub watched: bool,
}

/// Where a replica is, and what it is becoming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which of the node's log directories.
    pub directory: u16,
    /// Bytes of the log.
    pub size_bytes: u64,
    /// Its copy on the way to another log directory.
    pub future: Option<PlacedFuture>,
}

/// A replica on its way to another log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedFuture {
    /// Which of the node's log directories.
    pub directory: u16,
    /// Bytes that are copied.
    pub size_bytes: u64,
    /// How many offsets are missing.
    pub offset_lag: i64,
}

/// What one partition answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The batch is as safe as its acks ask.
    Appended {
        /// Offset of its first record; -1 for one that was appended so long ago that nobody knows it any more.
        base_offset: i64,
        /// Broker time under LogAppendTime, else -1.
        log_append_time_ms: i64,
        /// First offset there is.
        log_start_offset: i64,
    },
    /// What a read found.
    Read(ReadFound),
    /// What an offset look-up found; offset -1 for nothing.
    Offset {
        /// The offset.
        offset: i64,
        /// The record's timestamp, -1 for the special offsets.
        timestamp_ms: i64,
        /// Leader epoch of that offset, -1 if not known.
        leader_epoch: i32,
    },
    /// The largest epoch not above the one asked for, and where it ended; both -1 if that is not known.
    EpochEnd {
        /// The epoch.
        leader_epoch: i32,
        /// First offset behind it.
        end_offset: i64,
    },
    /// Records are deleted: the log starts here.
    Deleted {
        /// First offset there is.
        log_start_offset: i64,
    },
    /// Bytes of the log.
    Size(u64),
    /// The same of a replica in its log directory.
    Placed(Placed),
    /// The replica is there, or on its way, also after a crash.
    Moves,
    /// The producers whose batches the log remembers, by id.
    Producers(Vec<ActiveProducer>),
    /// The request could not be served.
    Failed {
        /// Why.
        error: ErrorCode,
        /// First offset there is, -1 where there is no log.
        log_start_offset: i64,
    },
    /// A watch fired: there is more to read.
    Fired,
    /// A session's watch still waits, but what it was told of the partition beside records is not so any more.
    News,
}

/// What a partition asks of its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Carry out a file operation in the partition's directory and complete it.
    File(Ticket, FileOp),
    /// Answer a request part.
    Reply(ReplyTo, Answer),
    /// Make the log start durable, then call [`Partition::log_start_stored`](super::Partition::log_start_stored).
    StoreLogStart(i64),
    /// The log start in the checkpoint is that of a log which was cut off or thrown away since: put this one there,
    /// durably, then call [`log_start_lowered`](super::Partition::log_start_lowered).
    LowerLogStart(i64),
    /// Step this partition with the end of the turn.
    EndTurn,
    /// The directory has its new name: the old one may be used again.
    Retired,
    /// The directory is deleted or closed: nothing more will be asked.
    Gone,
    /// The device failed: the partition's log directory goes offline.
    Offline,
    /// What [`Partition::fetch_position`](super::Partition::fetch_position) says has changed: ask again.
    Following,
    /// The leader wants another ISR: ask the controller, then call
    /// [`Partition::isr_altered`](super::Partition::isr_altered).
    AlterIsr(IsrChange),
}

/// What a follower wants next of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// Node id of the leader.
    pub leader: i32,
    /// Leader epoch that the follower knows.
    pub leader_epoch: i32,
    /// First offset wanted: the follower's log end.
    pub fetch_offset: i64,
    /// Epoch of the record before it, -1 if unknown.
    pub last_fetched_epoch: i32,
    /// First offset that the follower has.
    pub log_start_offset: i64,
}

/// One partition's part of the answer to a follower's Fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPart {
    /// Why the leader gave nothing.
    pub error: Option<ErrorCode>,
    /// The leader's high watermark, -1 on an error.
    pub high_watermark: i64,
    /// The leader's log start, -1 if unknown.
    pub log_start_offset: i64,
    /// The largest epoch that both know, and where it ends at the leader: the follower's log differs from there.
    pub diverging: Option<(i32, i64)>,
    /// Record batches, the last one perhaps cut; a slice of the frame that they came in.
    pub records: Bytes,
}
