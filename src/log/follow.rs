//! Appending as a follower: batches are taken exactly as their leader has them.
//!
//! Offsets, leader epochs, timestamps and checksums are kept, so there is no stamp to give and nothing to refuse
//! for what it says; what is checked is that these bytes are the batches that their leader sent. Offsets may
//! leave gaps where compaction took records. Rules: Kafka's `UnifiedLog.appendAsFollower`.

use bytes::Bytes;

use super::append::Gathered;
use super::batch::{self, BatchError, BatchInfo, HEADER_BYTES};
use super::codec::Codec;
use super::head::Extent;
use super::producer::Undo;
use super::{Log, State};
use crate::effect::Now;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// Why the batches of a leader are not appended. None of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerError {
    /// The log takes no appends now: it is being truncated, closed or deleted, has no files yet, or is offline.
    #[error("the log takes no appends now")]
    NotOpen,
    /// Bytes that are no batch.
    #[error("a fetched batch is malformed: {0}")]
    Malformed(BatchError),
    /// The last batch ends behind the bytes.
    #[error("the fetched batch at offset {base_offset} is not whole")]
    Unfinished {
        /// Its base offset.
        base_offset: i64,
    },
    /// A checksum that does not hold.
    #[error("the fetched batch at offset {base_offset} has a wrong checksum")]
    Corrupt {
        /// Its base offset.
        base_offset: i64,
    },
    /// A batch that begins before the end of the log or of the batch before it. An *empty* log may meet it, when the
    /// leader's log starts inside a batch: [`Log::begin_restart_at`] the base offset lets the batch in.
    #[error(
        "the fetched batch of the offsets {base_offset} to {last_offset} begins before the offset {expected}"
    )]
    Overlap {
        /// Its base offset.
        base_offset: i64,
        /// Its last offset.
        last_offset: i64,
        /// The lowest base offset that it could have.
        expected: i64,
    },
    /// A leader epoch below one that the log or a batch before it has.
    #[error("the fetched batch at offset {base_offset} has leader epoch {epoch} behind epoch {latest}")]
    EpochFell {
        /// Its base offset.
        base_offset: i64,
        /// Its leader epoch.
        epoch: i32,
        /// The epoch before it.
        latest: i32,
    },
}

impl FollowerError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotOpen => ErrorCode::KafkaStorageError,
            Self::Overlap { .. } => ErrorCode::OffsetOutOfRange,
            Self::EpochFell { .. } => ErrorCode::FencedLeaderEpoch,
            Self::Malformed(_) | Self::Unfinished { .. } | Self::Corrupt { .. } => ErrorCode::CorruptMessage,
        }
    }
}

impl Log {
    /// Appends batches exactly as the leader has them: offsets, leader epochs, timestamps, CRC are kept. `bytes` is
    /// a run of whole batches of one Fetch answer; their base offsets rise, the first one is not below
    /// [`Log::reserved_end`], and leader epochs never fall. They are gathered for the end of the turn as by
    /// [`Log::append`]. The new reserved end.
    ///
    /// # Errors
    /// Then nothing is appended.
    pub fn append_as_follower(&mut self, now: Now, bytes: Bytes) -> Result<i64, FollowerError> {
        if self.state != State::Open || self.create_again_ms.is_some() {
            return Err(FollowerError::NotOpen);
        }
        self.check_run(&bytes)?;
        let mut rest = bytes;
        while let Ok(info) = BatchInfo::parse(&rest) {
            let batch = rest.split_to(rest.len().min(info.length_bytes as usize));
            self.gather_as_it_is(now, &info, batch);
        }
        Ok(self.reserved.offset_end)
    }

    /// Whether these bytes are batches that can follow what the log has.
    fn check_run(&self, bytes: &[u8]) -> Result<(), FollowerError> {
        let mut expected = self.reserved.offset_end;
        let mut latest = self.epochs.latest().map_or(-1, |entry| entry.epoch);
        let mut rest = bytes;
        while !rest.is_empty() {
            let info = BatchInfo::parse(rest).map_err(FollowerError::Malformed)?;
            let (base_offset, epoch) = (info.base_offset, info.leader_epoch);
            let whole = rest.split_at_checked(info.length_bytes as usize);
            let (batch, behind) = whole.ok_or(FollowerError::Unfinished { base_offset })?;
            if !batch::crc_holds(batch, &info) {
                return Err(FollowerError::Corrupt { base_offset });
            }
            info.codec().map_err(FollowerError::Malformed)?;
            if base_offset < expected {
                let last_offset = info.last_offset();
                return Err(FollowerError::Overlap { base_offset, last_offset, expected });
            }
            if epoch < latest {
                return Err(FollowerError::EpochFell { base_offset, epoch, latest });
            }
            (expected, latest, rest) = (info.last_offset() + 1, epoch, behind);
        }
        Ok(())
    }

    /// Gathers a checked batch for the next append.
    fn gather_as_it_is(&mut self, now: Now, info: &BatchInfo, batch: Bytes) {
        let base_offset = info.base_offset;
        let extent = Extent {
            offset_last: info.last_offset(),
            length_bytes: batch.len() as u64,
            max_timestamp_ms: info.max_timestamp_ms,
        };
        self.roll_before(now, base_offset, &extent);
        let epoch = (info.leader_epoch >= 0 && !is_planted(Bug::FollowersEpochsForgotten))
            .then(|| self.epochs.assign_undoably(info.leader_epoch, base_offset))
            .flatten();
        self.epochs_dirty |= epoch.is_some();
        let producer = if is_planted(Bug::FollowersProducersForgotten) {
            Undo::nothing()
        } else {
            self.producers.take_in(info, &batch, now.wall_ms)
        };
        self.reserved.push(&extent, self.config.index_interval_bytes);
        if info.codec() == Ok(Codec::Zstd) {
            self.zstd_end = self.reserved.offset_end;
        }
        let header = *batch.first_chunk::<HEADER_BYTES>().expect("a checked batch has its header");
        let body = batch.slice(HEADER_BYTES..);
        self.gather.gathered.push_back(Gathered { header, body, base_offset, extent, producer, epoch });
    }
}
