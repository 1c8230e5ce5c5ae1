//! The metadata quorum: records, the Image they make, and the raft node that orders them. Pure.

mod codec;
pub mod image;
pub mod record;
