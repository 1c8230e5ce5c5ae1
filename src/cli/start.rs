//! `tidemill start`: configuration → shards → wait for a signal.

use std::path::PathBuf;
use std::process::ExitCode;

/// Starts the broker and waits until it is told to stop. `overrides` are `key=value`, later ones winning.
pub fn run(_file: Option<PathBuf>, _overrides: Vec<String>) -> ExitCode {
    eprintln!("tidemill: this build has no broker");
    ExitCode::FAILURE
}
