//! One partition's bytes: batches, segments, indexes, epochs, producer state, recovery. Pure.
