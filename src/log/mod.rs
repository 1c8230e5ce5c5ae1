//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.

pub mod batch;
pub mod check;
pub mod checkpoint;
pub mod codec;
pub mod directory;
mod epoch;
pub mod producer;
pub mod record;
mod recovery;
mod segment;

pub use checkpoint::{CheckpointError, PartitionMetadata, encode_uuid, parse_uuid};
pub use epoch::{EpochCache, EpochEntry, EpochUndo, LEADER_EPOCH_CHECKPOINT};
pub use recovery::{Quarantine, Recovered, Recovery, RecoveryError, RecoveryPlan, RecoveryStep};
pub use segment::Segment;
