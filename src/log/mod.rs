//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.

pub mod batch;
pub mod check;
pub mod codec;
pub mod producer;
pub mod record;
mod segment;

pub use segment::Segment;
