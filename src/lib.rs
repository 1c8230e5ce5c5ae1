//! Tidemill: a Kafka-compatible broker for Linux, one io_uring executor per CPU core.
//!
//! Modules in reading order; `docs/ARCHITECTURE.md` follows one produce and one fetch through them.
//!
//! | module | what it is | pure |
//! |---|---|---|
//! | [`effect`] | the contract between the state machines and the world | yes |
//! | [`config`] | every configuration key, once | yes |
//! | [`wire`] | bytes ↔ requests | yes |
//! | [`request`] | one request: what it needs, and how the answers become one response | yes |
//! | [`log`] | one partition's bytes | yes |
//! | [`partition`] | one replica: inputs in, effects out | yes |
//! | [`group`] | consumer groups and committed offsets: one coordinator per partition of `__consumer_offsets` | yes |
//! | [`controller`] | the metadata quorum and the Image it publishes | yes |
//! | [`security`] | who is asking | yes |
//! | [`broker`] | one shard's pure half: its partitions, its connections' requests, its copy of the Image | yes |
//! | [`planted`] | bugs that the simulator must find, behind a feature | yes |
//! | [`shard`] | the shell: sockets, files, the clock, the executor | no |
//! | [`client`] | our own thin producer, consumer and admin | no |
//! | [`cli`] | the command line | no |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod effect;
pub mod group;
pub mod log;
pub mod partition;
pub mod planted;
pub mod request;
pub mod security;
pub mod shard;
pub mod wire;
