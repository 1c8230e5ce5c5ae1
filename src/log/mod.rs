//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.

mod segment;

pub use segment::Segment;
