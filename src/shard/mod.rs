//! The shell: the only place of the broker that names glommio, sockets, files, the clock and
//! randomness. It executes what the broker asks and decides nothing.
//!
//! | file | what it is |
//! |---|---|
//! | [`node`] | the start and the end of a node |
//! | `boot`, `log_dirs`, `quorum` | what a start reads and checks before any shard runs |
//! | `runtime` | one shard at work: its turn |
//! | `connection`, `transfer` | bytes off a socket and onto it |
//! | `sockets`, `intake` | which connections are read and which wait; the shard's byte budget |
//! | `listener`, `door` | accepting, who may come in, and spreading connections over shards |
//! | `peers` | connections to other nodes |
//! | `files`, `file_ops` | an owner's files: what runs on the shard, and how |
//! | `helpers` | threads for whatever can wait for a device |
//! | `mesh`, `bell` | lanes between shards, and waking them |
//! | [`children`] | nodes that another process of ours starts |
//! | `counters`, `clock` | what is counted, what time it is |

mod bell;
mod boot;
pub mod children;
mod clock;
mod connection;
mod counters;
mod door;
mod file_ops;
mod files;
mod helpers;
mod intake;
mod listener;
mod log_dirs;
mod memory;
mod mesh;
mod moves;
pub mod node;
mod open_files;
mod peers;
mod quorum;
mod runtime;
mod sockets;
mod transfer;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;

use crate::log::directory::BOOT_ID;

/// One line for the operator.
fn say(line: &str) {
    eprintln!("tidemill: {line}");
}

/// Log directories may have lost what the kernel could not write, and say that they have everything as long as the
/// kernel runs: that word is taken back, as far as the devices let it be. They may also hang: what is returned ends
/// when all is done.
fn distrust(directories: &[PathBuf]) -> mpsc::Receiver<()> {
    let (done, all_done) = mpsc::channel();
    for directory in directories.iter().cloned() {
        let done = done.clone();
        std::thread::spawn(move || {
            let removed = fs::remove_file(directory.join(BOOT_ID));
            drop(removed.and_then(|()| fs::File::open(directory)?.sync_all()));
            drop(done);
        });
    }
    all_done
}

/// The node cannot go on.
fn die(why: &str) -> ! {
    eprintln!("tidemill: fatal: {why}");
    std::process::exit(1)
}
