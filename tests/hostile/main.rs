//! Hostile clients against a real broker of two shards: every frame accounted for, memory flat, and a client
//! that behaves is served beside them.
//!
//! `HOSTILE_FRAMES` says how many frames (60,000 unless set), `HOSTILE_SEED` repeats a run's frames;
//! docs/TESTING.md has the large run and its result. The tests of this binary take turns, as they measure.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod administration;
mod answers;
mod attacker;
mod batches;
mod body;
mod closes;
mod cluster;
mod frames;
mod groups;
mod idle;
mod pressure;
#[path = "../broker/process.rs"]
#[allow(dead_code)]
mod process;
mod recorded;
mod storm;
mod tally;
mod witness;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill::client::{Admin, NewTopic};

use crate::batches::Arsenal;
use crate::body::{Target, World};
use crate::process::Home;

/// The tests measure memory and time of the whole machine: one at a time.
static TURN: Mutex<()> = Mutex::new(());

pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number from the environment.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
