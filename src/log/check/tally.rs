//! What the records of a batch amount to: how many were read, their largest timestamp, and which are wrong.

use super::super::batch::BatchInfo;
use super::super::record::{self, Outline, PartialRecord, Record, RecordError};
use super::source::Pause;
use super::{BatchRejection, BatchRules, Budget, RECORD_ERRORS_MAX};
use crate::config::TimestampType;
use crate::wire::ErrorCode;

/// A record that is larger is read in parts, so that a slice of work stays short.
const WHOLE_RECORD_BYTES_MAX: usize = 32 * 1024;
const RECORD_NS: usize = 14;
const FIELD_NS: usize = 6;
/// Fields of a large record that are read between two looks at the budget.
const FIELDS: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    record_count: i32,
    base_timestamp_ms: i64,
    /// The timestamp of every record, where the batch says that the broker set it.
    log_append_time_ms: Option<i64>,
    /// Under CreateTime, how far a timestamp may be off.
    timestamps_ms: Option<(i64, i64)>,
    keyed: bool,
    read: i32,
    max_timestamp_ms: i64,
    /// A large record, or one that is not all there yet.
    partial: Option<PartialRecord>,
    wrong: WrongRecords,
}

impl Tally {
    pub(super) fn new(info: &BatchInfo, rules: &BatchRules, wall_ms: i64) -> Self {
        let earliest_ms = wall_ms.saturating_sub(rules.timestamp_before_max_ms);
        let latest_ms = wall_ms.saturating_add(rules.timestamp_after_max_ms);
        let create_time = rules.timestamp_type == TimestampType::CreateTime;
        Self {
            record_count: info.record_count,
            base_timestamp_ms: info.base_timestamp_ms,
            log_append_time_ms: info.is_log_append_time().then_some(info.max_timestamp_ms),
            timestamps_ms: create_time.then_some((earliest_ms, latest_ms)),
            keyed: rules.compacted,
            read: 0,
            max_timestamp_ms: -1,
            partial: None,
            wrong: WrongRecords::default(),
        }
    }

    /// Reads records off `bytes`. Done when all of them were read and nothing is left. `ended` says that no more
    /// bytes will come.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        ended: bool,
        budget: &mut Budget,
    ) -> Result<Pause, BatchRejection> {
        while self.read < self.record_count {
            if budget.is_spent() {
                return Ok(Pause::Spent);
            }
            let before = bytes.len();
            match self.read_one(bytes, budget) {
                Ok(Some(outline)) => self.add(outline)?,
                Ok(None) if bytes.len() < before => {}
                Ok(None) if ended => return Err(self.malformed(RecordError::Short)),
                Ok(None) => return Ok(Pause::Starved),
                Err(error) => return Err(self.malformed(error)),
            }
        }
        if !bytes.is_empty() {
            let (left, count) = (bytes.len(), self.record_count);
            let message = format!("{left} or more bytes follow the {count} records of the batch.");
            return Err(BatchRejection::invalid(message));
        }
        Ok(if ended { Pause::Done } else { Pause::Starved })
    }

    #[inline]
    fn read_one(&mut self, bytes: &mut &[u8], budget: &mut Budget) -> Result<Option<Outline>, RecordError> {
        if self.partial.is_none() {
            budget.spend(RECORD_NS);
            if let Some((outline, total)) = record::usual(bytes) {
                *bytes = bytes.get(total..).unwrap_or_default();
                return Ok(Some(outline));
            }
            let Some(total) = record::total_bytes(bytes)? else { return Ok(None) };
            if total <= bytes.len().min(WHOLE_RECORD_BYTES_MAX) {
                let record = Record::read(bytes)?;
                budget.spend(FIELD_NS * 2 * record.header_count as usize);
                let Record { timestamp_delta_ms, offset_delta, key, .. } = record;
                return Ok(Some(Outline { timestamp_delta_ms, offset_delta, has_key: key.is_some() }));
            }
        }
        let partial = self.partial.get_or_insert_with(PartialRecord::new);
        let read = partial.read(bytes, FIELDS)?;
        budget.spend(FIELD_NS * if read.is_none() && !bytes.is_empty() { FIELDS } else { 8 });
        if read.is_some() {
            self.partial = None;
        }
        Ok(read)
    }

    #[inline]
    fn add(&mut self, outline: Outline) -> Result<(), BatchRejection> {
        let index = self.read;
        if outline.offset_delta != index {
            let message = format!("Record {index} of the batch has offset delta {}.", outline.offset_delta);
            return Err(BatchRejection::invalid(message));
        }
        self.read += 1;
        let own_ms = self.base_timestamp_ms.wrapping_add(outline.timestamp_delta_ms);
        let timestamp_ms = self.log_append_time_ms.unwrap_or(own_ms);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        if self.keyed && !outline.has_key {
            self.wrong.add(index, Wrong::Key);
        } else if let Some((earliest_ms, latest_ms)) = self.timestamps_ms
            && timestamp_ms != -1
        {
            if timestamp_ms < earliest_ms || timestamp_ms > latest_ms {
                self.wrong.add(index, Wrong::Timestamp { timestamp_ms, earliest_ms, latest_ms });
            }
        } else if self.log_append_time_ms.is_some() {
            self.wrong.add(index, Wrong::TimestampType);
        }
        Ok(())
    }

    #[cold]
    fn malformed(&self, error: RecordError) -> BatchRejection {
        BatchRejection::invalid(format!("Record {} of the batch: {error}.", self.read))
    }

    /// The largest timestamp of a record, -1 when there is none.
    pub(super) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// The rejection, if a record is wrong.
    pub(super) fn refuse(&mut self) -> Result<(), BatchRejection> {
        std::mem::take(&mut self.wrong).into_rejection().map_or(Ok(()), Err)
    }
}

/// What can be wrong with a well-formed record.
enum Wrong {
    Key,
    Timestamp { timestamp_ms: i64, earliest_ms: i64, latest_ms: i64 },
    TimestampType,
}

#[derive(Debug, Default)]
struct WrongRecords {
    count: u32,
    any_timestamp: bool,
    named: Vec<(i32, Option<String>)>,
}

impl WrongRecords {
    #[cold]
    fn add(&mut self, index: i32, wrong: Wrong) {
        self.count += 1;
        self.any_timestamp |= !matches!(wrong, Wrong::Key);
        if self.named.len() == RECORD_ERRORS_MAX {
            return;
        }
        let message = match wrong {
            Wrong::Key => "A compacted topic does not accept a record without a key.".to_owned(),
            Wrong::Timestamp { timestamp_ms, earliest_ms, latest_ms } => {
                format!("Timestamp {timestamp_ms} is not within [{earliest_ms}, {latest_ms}].")
            }
            Wrong::TimestampType => "A producer may not set the timestamp type LogAppendTime.".to_owned(),
        };
        self.named.push((index, Some(message)));
    }

    fn into_rejection(self) -> Option<BatchRejection> {
        let (error, why) = match self.count {
            0 => return None,
            _ if self.any_timestamp => (ErrorCode::InvalidTimestamp, "an invalid timestamp"),
            _ => (ErrorCode::InvalidRecord, "a missing key"),
        };
        let message = format!("{} records of the batch are refused, one for {why}.", self.count);
        Some(BatchRejection { error, message: Some(message.into()), record_errors: self.named })
    }
}
