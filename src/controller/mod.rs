//! The metadata quorum: records, the Image they make, and the raft node that orders them. Pure.
