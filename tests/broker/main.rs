//! A real broker process on a free port, driven over its sockets: one file per story.
//!
//! How: [`process::Broker`] starts the binary in a directory of its own and waits for its ready line; it is
//! killed when the test ends. [`wire`] speaks to it: requests through `tidemill::client`, bytes through a raw
//! socket. Tests wait for a condition until a deadline and never for a time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod alter_log_dirs;
mod altered;
mod batch_rules;
mod budget;
mod cluster;
mod configuration;
mod connections;
mod consumers;
mod controllers;
mod crash;
mod deletion;
mod demo;
mod describe;
mod epochs;
mod every_key;
mod formatting;
mod full_connection;
mod full_device;
mod groups;
mod growing;
mod hostile_frames;
mod limits;
mod list_offsets;
mod log_dirs;
mod long_poll;
mod lost_directory;
mod lying_broker;
mod more_partitions;
mod moving;
mod nodes;
mod pipelining;
mod pressure;
// Other tests of a broker process share it and use what these do not.
#[allow(dead_code)]
mod process;
mod random_order;
mod refused_batches;
mod sessions;
mod slow_reader;
mod standing_still;
mod start_and_stop;
mod tools;
mod topics;
mod wire;
