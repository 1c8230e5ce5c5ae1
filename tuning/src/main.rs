//! `tidemill-tune`: finds how a host should run Tidemill, by measuring it there.
//!
//! | file | what it is |
//! |---|---|
//! | `topology` | which CPUs are threads of one core |
//! | `candidates` | numbers of shards and the CPUs to place them on |
//! | `shards` | measures each candidate with the bench harness |
//! | `choice` | the best of what was measured |
//! | `plan` | the choice as a properties file, a table, JSON |

mod candidates;
mod choice;
mod plan;
mod shards;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The broker's allocator, as the broker may be this program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The goal was reached by no candidate.
const MISSED: u8 = 2;

/// Finds how a host should run Tidemill, by measuring it there.
#[derive(Debug, Parser)]
#[command(name = "tidemill-tune", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Finds the number of shards and their CPUs for a workload and a bound on its 99th percentile.
    Shards(Box<shards::Options>),
    /// Tidemill itself, out of this very program: the broker that is measured unless --broker names another.
    #[command(hide = true)]
    Start { files: Vec<PathBuf> },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Task::Start { files } => tidemill::cli::start::run(&files, &[]),
        Task::Shards(options) => match shards::run(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(MISSED),
            Err(error) => {
                // The chain of causes in one line; a backtrace helps nobody here.
                eprintln!("tidemill-tune: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
