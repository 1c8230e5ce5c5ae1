//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.

pub mod batch;
pub mod check;
pub mod codec;
pub mod producer;
pub mod record;
mod checkpoint;
mod epoch;
mod recovery;
mod segment;

pub use checkpoint::CheckpointError;
pub use epoch::{EpochCache, EpochEntry, EpochUndo, LEADER_EPOCH_CHECKPOINT};
pub use recovery::{Quarantine, Recovered, Recovery, RecoveryError, RecoveryPlan, RecoveryStep};
pub use segment::Segment;
