//! xxHash with 32 bits: the checksum of LZ4 frames (of their header, blocks and content), seed 0.
//!
//! Spec: the xxHash specification, `XXH32`. The state is fed piece by piece.

const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
const LANE_BYTES: usize = 16;

/// The hash of what was written so far.
#[derive(Clone, Debug)]
pub(super) struct Xxh32 {
    lanes: [u32; 4],
    /// Bytes that do not fill a round yet.
    waiting: [u8; LANE_BYTES],
    waiting_bytes: usize,
    total_bytes: u64,
}

impl Default for Xxh32 {
    fn default() -> Self {
        let [first, second, ..] = PRIMES;
        let lanes = [first.wrapping_add(second), second, 0, 0_u32.wrapping_sub(first)];
        Self { lanes, waiting: [0; LANE_BYTES], waiting_bytes: 0, total_bytes: 0 }
    }
}

impl Xxh32 {
    /// The hash of these bytes alone.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        let mut hash = Self::default();
        hash.write(bytes);
        hash.sum()
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        if self.waiting_bytes > 0 {
            let room = LANE_BYTES - self.waiting_bytes;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            for (slot, byte) in self.waiting.iter_mut().skip(self.waiting_bytes).zip(now) {
                *slot = *byte;
            }
            self.waiting_bytes += now.len();
            bytes = later;
            if self.waiting_bytes < LANE_BYTES {
                return;
            }
            let whole = self.waiting;
            self.round(&whole);
            self.waiting_bytes = 0;
        }
        let (rounds, rest) = bytes.as_chunks::<LANE_BYTES>();
        for chunk in rounds {
            self.round(chunk);
        }
        for (slot, byte) in self.waiting.iter_mut().zip(rest) {
            *slot = *byte;
        }
        self.waiting_bytes = rest.len();
    }

    fn round(&mut self, chunk: &[u8; LANE_BYTES]) {
        let [first, second, ..] = PRIMES;
        let (words, _) = chunk.as_chunks::<4>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            let mixed = lane.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(second));
            *lane = mixed.rotate_left(13).wrapping_mul(first);
        }
    }

    pub(super) fn sum(&self) -> u32 {
        let [first, second, third, fourth, fifth] = PRIMES;
        let mut hash = if self.total_bytes >= LANE_BYTES as u64 {
            let turned = self.lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
            turned.fold(0, u32::wrapping_add)
        } else {
            fifth
        };
        // The length counts modulo 2^32.
        hash = hash.wrapping_add(self.total_bytes as u32);
        let waiting = self.waiting.get(..self.waiting_bytes).unwrap_or_default();
        let (words, bytes) = waiting.as_chunks::<4>();
        for word in words {
            hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(third));
            hash = hash.rotate_left(17).wrapping_mul(fourth);
        }
        for byte in bytes {
            hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(fifth));
            hash = hash.rotate_left(11).wrapping_mul(first);
        }
        hash = (hash ^ (hash >> 15)).wrapping_mul(second);
        hash = (hash ^ (hash >> 13)).wrapping_mul(third);
        hash ^ (hash >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes_have_known_hashes() {
        assert_eq!(Xxh32::of(b""), 0x02cc_5d05);
        assert_eq!(Xxh32::of(b"abc"), 0x32d1_53ff);
        assert_eq!(Xxh32::of(b"Nobody inspects the spammish repetition"), 0xe229_3b2f);
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        for at in 0..bytes.len() {
            let mut hash = Xxh32::default();
            hash.write(&bytes[..at]);
            hash.write(&bytes[at..]);
            assert_eq!(hash.sum(), Xxh32::of(&bytes), "cut at {at}");
        }
    }
}
