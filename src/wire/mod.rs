//! Bytes ↔ requests: framing, limits, the API table, the hot Produce and Fetch codecs.
//!
//! A frame goes through four steps, each its own file: [`frame`] finds it in the receive buffer,
//! [`header`] says what it asks and who asks, [`api`] says what is known about that API, and then
//! either [`produce`] and [`fetch`] give a view over the bytes, or [`guard`] decodes it into
//! kafka-protocol's types. Answers go out through [`produce_response`], [`fetch_response`] or
//! [`response`]. What this broker asks of other nodes is written and read by [`outbound`] and [`fetch_round`].
//! Versions that kafka-protocol does not have are rewritten from and to its last ones by [`beyond`].
//!
//! Nothing here panics, overflows or allocates by a length that was not checked against the bytes
//! that are there.

pub mod api;
mod api_document;
pub mod beyond;
pub mod error;
pub mod fetch;
pub mod fetch_response;
pub mod fetch_round;
pub mod frame;
pub mod guard;
#[cfg(test)]
mod guard_samples;
pub mod header;
pub mod outbound;
pub mod primitive;
pub mod produce;
pub mod produce_response;
pub mod response;
pub mod topics;

#[cfg(test)]
mod fetch_tests;

pub use error::WireError;
/// Kafka's error numbers; `None` where an answer carries an error field means 0, no error.
pub use kafka_protocol::ResponseError as ErrorCode;
/// A string that shares the bytes of the frame it came in.
pub use kafka_protocol::protocol::StrBytes;
pub use topics::TopicRef;

/// The number that an error field carries on the wire.
pub fn error_number(error: Option<ErrorCode>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// Where the leader of a partition is, told along with an error (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// Node id of the leader, −1 if there is none.
    pub leader_id: i32,
    /// Its leader epoch, −1 if unknown.
    pub leader_epoch: i32,
}

/// The address of a node named in a [`CurrentLeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    /// Node id.
    pub node_id: i32,
    /// Host name or address, as advertised on the listener of the request.
    pub host: &'a str,
    /// TCP port.
    pub port: i32,
    /// The rack, if the node has one.
    pub rack: Option<&'a str>,
}
