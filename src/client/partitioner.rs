//! The partition of a key, as Kafka's Java client chooses it: murmur2 with its seed, made positive, modulo the
//! number of partitions. Records of one key stay together whichever client wrote them.

/// Kafka's murmur2 of the bytes.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Keys are far below 4 GiB; the length enters the hash modulo 2^32, as Java's int does.
    let mut hash = SEED ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = word.first_chunk::<4>().map(|word| u32::from_le_bytes(*word)).unwrap_or_default();
        k = k.wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key among `count` partitions.
///
/// # Panics
/// If `count` is not positive.
pub fn partition_of_key(key: &[u8], count: i32) -> i32 {
    assert!(count > 0, "a topic has partitions");
    (murmur2(key) & 0x7fff_ffff).cast_signed() % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_java_client() {
        // Printed by org.apache.kafka.common.utils.Utils.murmur2 of kafka-clients 4.3.1.
        let known = [
            ("", 275_646_681),
            ("a", -1_563_381_124),
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn every_key_has_one_of_the_partitions() {
        for number in 0_u32..1000 {
            let partition = partition_of_key(&number.to_le_bytes(), 7);
            assert!((0..7).contains(&partition));
        }
    }
}
