//! Which partition of `__consumer_offsets` a group belongs to: Java's string hash, as every Kafka has it.

/// The topic in which groups and committed offsets are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// `String.hashCode`: over UTF-16 code units.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The partition whose leader coordinates the group; `partitions` is at least 1.
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_of(group: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "the offsets topic has {partitions} partitions");
    // Kafka's `Utils.abs`: the one value without a positive counterpart becomes 0.
    java_hash(group).checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_javas() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        // U+1D11E is the surrogates D834 DD1E.
        assert_eq!(java_hash("\u{1D11E}"), 0xD834 * 31 + 0xDD1E);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }

    #[test]
    fn every_group_has_a_partition() {
        assert_eq!(partition_of("hello", 50), 22);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 1), 0);
    }
}
