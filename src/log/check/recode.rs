//! A batch on its way into the codec of its topic.

use bytes::Bytes;

use super::super::batch::{self, HEADER_BYTES};
use super::super::codec::{Codec, CodecPool, Encoder};
use super::{BatchRejection, Budget};
use crate::wire::ErrorCode;

/// See the module. More than the topic takes is not kept.
#[derive(Debug)]
pub(super) struct Recode {
    codec: Codec,
    ns_per_64_bytes: usize,
    /// `None` once the batch has become too large.
    encoder: Option<Encoder>,
    /// Room for the header, and the compressed records.
    out: Vec<u8>,
    bytes_max: u64,
}

impl Recode {
    pub(super) fn new(codec: Codec, level: Option<i32>, bytes_max: u64, pool: &mut CodecPool) -> Self {
        let mut out = vec![0; HEADER_BYTES];
        let encoder = Some(Encoder::new(codec, level, pool, &mut out));
        Self { codec, ns_per_64_bytes: ns_per_64_bytes(codec, level.unwrap_or(0)), encoder, out, bytes_max }
    }

    pub(super) fn write(&mut self, plain: &[u8], budget: &mut Budget) {
        let Some(encoder) = &mut self.encoder else { return };
        encoder.write(plain, &mut self.out);
        budget.spend_on(plain.len(), self.ns_per_64_bytes);
        if self.out.len() as u64 > self.bytes_max {
            // The records are still read: what is wrong with them comes first, as in Kafka.
            self.encoder = None;
            self.out = Vec::new();
        }
    }

    pub(super) fn finish(
        mut self,
        sent: &[u8],
        max_timestamp_ms: i64,
        pool: &mut CodecPool,
    ) -> Result<Bytes, BatchRejection> {
        let Some(encoder) = self.encoder else {
            let message = format!(
                "In the topic's codec the record batch has more than the {} bytes allowed.",
                self.bytes_max
            );
            return Err(BatchRejection::new(ErrorCode::MessageTooLarge, message));
        };
        encoder.finish(&[], &mut self.out, pool);
        Ok(batch::with_body(sent, self.codec, self.out, max_timestamp_ms))
    }
}

/// What compressing costs, estimated.
fn ns_per_64_bytes(codec: Codec, level: i32) -> usize {
    match (codec, level) {
        (Codec::None, _) => 10,
        (Codec::Snappy | Codec::Lz4, _) => 200,
        (Codec::Gzip, ..=6) => 2_500,
        (Codec::Gzip, _) => 6_000,
        (Codec::Zstd, ..=3) => 350,
        (Codec::Zstd, ..=9) => 1_500,
        (Codec::Zstd, ..=15) => 5_000,
        (Codec::Zstd, _) => 25_000,
    }
}
