//! The `tidemill` binary: arguments → config → shards → wait for a signal.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidemill::cli::main()
}
