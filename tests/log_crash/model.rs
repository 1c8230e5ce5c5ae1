//! The log as a list of batches.

use bytes::Bytes;
use tidemill::log::EpochCache;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::producer::ProducerStates;

/// A batch as it lies in the file.
#[derive(Clone, Debug)]
pub struct Item {
    pub info: BatchInfo,
    pub bytes: Bytes,
}

impl Item {
    pub fn end(&self) -> i64 {
        self.info.last_offset() + 1
    }
}

/// What a truncation is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Cut(i64),
    Anew(i64),
}

/// Every batch since the log began, also those below its start.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Where the log began.
    pub begin: i64,
    pub items: Vec<Item>,
}

impl Model {
    pub fn end(&self) -> i64 {
        self.items.last().map_or(self.begin, Item::end)
    }

    /// Where the log ends when it was cut there.
    pub fn end_below(&self, offset: i64) -> i64 {
        self.items.iter().take_while(|item| item.end() <= offset).last().map_or(self.begin, Item::end)
    }

    pub fn cut(&mut self, offset: i64) {
        self.items.retain(|item| item.end() <= offset);
    }

    pub fn begin_anew(&mut self, begin: i64) {
        *self = Self { begin, items: Vec::new() };
    }

    /// The goals one after another; `log_start` is that of the log meanwhile.
    pub fn truncate(&mut self, goals: &[Goal], log_start: i64) {
        for goal in goals {
            match goal {
                Goal::Cut(offset) if *offset >= self.begin => self.cut(*offset),
                Goal::Cut(offset) | Goal::Anew(offset) => self.begin_anew(*offset),
            }
        }
        let began_anew = goals.iter().any(|goal| matches!(goal, Goal::Anew(_)));
        if !began_anew && self.end() < log_start {
            self.begin_anew(log_start);
        }
    }

    pub fn producers(&self) -> ProducerStates {
        let mut states = ProducerStates::default();
        for item in &self.items {
            let _ = states.take_in(&item.info, &item.bytes, 0);
        }
        states
    }

    pub fn epochs(&self, log_start: i64) -> EpochCache {
        let mut epochs = EpochCache::default();
        for item in &self.items {
            epochs.assign(item.info.leader_epoch, item.info.base_offset);
        }
        epochs.truncate_from_start(log_start);
        epochs.truncate_from_end(self.end());
        epochs
    }

    /// The sequence that a producer's next batch has.
    pub fn next_sequence(&self, producer_id: i64) -> i32 {
        let mut newest = self.items.iter().rev().filter(|item| item.info.producer_id == producer_id);
        newest.next().map_or(0, |item| item.info.last_sequence() + 1)
    }
}

/// What a batch is made of.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    pub records: usize,
    pub value_bytes: usize,
    /// Tells this batch from every other one.
    pub serial: u64,
    /// Id and first sequence.
    pub producer: Option<(i64, i32)>,
}

impl Draft {
    pub fn build(&self, base_offset: i64, leader_epoch: i32) -> Bytes {
        let mut builder = BatchBuilder::new().base_offset(base_offset).leader_epoch(leader_epoch);
        if let Some((id, sequence)) = self.producer {
            builder = builder.producer(id, 0, sequence);
        }
        let mut value = self.serial.to_be_bytes().to_vec();
        value.resize(8 + self.value_bytes, 0x55);
        for record in 0..self.records {
            builder = builder.record(1_000_000 + self.serial as i64 + record as i64, None, Some(&value));
        }
        builder.build()
    }
}
