//! The part of a consumer's metadata that the coordinator looks into: the topics it has subscribed to.
//!
//! Every version of `ConsumerProtocolSubscription` begins with version 0 (topics, user data), so that is what is read.

use std::sync::Arc;

use crate::wire::primitive::Reader;

/// The topics of a subscription; `None` if the bytes are none.
pub(super) fn topics(metadata: &[u8]) -> Option<Vec<Arc<str>>> {
    let mut reader = Reader::new(metadata, false);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = reader.array_length(2).ok()?;
    let topics = (0..count).map(|_| reader.string().ok().map(Arc::from)).collect::<Option<Vec<_>>>()?;
    // User data: without it these are not the bytes of a subscription.
    reader.bytes_nullable().ok()?;
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version_and_nothing_from_other_bytes() {
        let version_1 = b"\0\x01\0\0\0\x02\0\x01a\0\x01b\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(topics(version_1), Some(vec!["a".into(), "b".into()]));
        for end in 0..16 {
            assert_eq!(topics(&version_1[..end]), None, "{end}");
        }
        assert_eq!(topics(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(topics(b""), None);
    }
}
