//! Bytes ↔ requests: framing, limits, the API table, the hot Produce and Fetch codecs.
