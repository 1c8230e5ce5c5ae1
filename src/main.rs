//! The `tidemill` binary: arguments → config → shards → wait for a signal.

fn main() {}
