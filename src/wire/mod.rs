//! Bytes ↔ requests: framing, limits, the API table, the hot Produce and Fetch codecs.

/// Kafka's error numbers; `None` where an answer carries an error field means 0, no error.
pub use kafka_protocol::ResponseError as ErrorCode;
