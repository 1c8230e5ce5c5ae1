//! Everything that reads bytes from elsewhere, given bytes that were made to hurt it: no panic, no overflow, and
//! nothing allocated by a length that the bytes do not bear out.
//!
//! How: each reader gets valid bytes, changed in one to four places, from one seed. `FUZZ_ROUNDS` says how often
//! (3,000 unless set; 300,000 in the large run), `FUZZ_SEED` repeats a run. A reader that takes the bytes must
//! take them again from what it writes, where it writes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[path = "../hostile/administration.rs"]
#[allow(dead_code)]
mod administration;
#[path = "../hostile/batches.rs"]
#[allow(dead_code)]
mod batches;
#[path = "../hostile/body.rs"]
#[allow(dead_code)]
mod body;
#[path = "../hostile/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod files;
#[path = "../hostile/frames.rs"]
#[allow(dead_code)]
mod frames;
#[path = "../hostile/groups.rs"]
#[allow(dead_code)]
mod groups;
mod wires;

use fastrand::Rng;

/// Calls `look` with changed copies of the samples, many times.
pub fn changed(name: &str, samples: &[Vec<u8>], mut look: impl FnMut(&[u8])) {
    let (rounds, seed) = (setting("FUZZ_ROUNDS", 3_000), setting("FUZZ_SEED", 4));
    let mut rng = Rng::with_seed(seed);
    for _ in 0..rounds {
        let mut bytes = samples[rng.usize(..samples.len())].clone();
        for _ in 0..rng.usize(1..5) {
            change(&mut rng, &mut bytes);
        }
        let shown = bytes.clone();
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&bytes)));
        assert!(looked.is_ok(), "{name}, FUZZ_SEED={seed}: {shown:02x?}");
    }
}

pub fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const NUMBERS: [&[u8]; 8] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        b"99999999999999999999",
    ];
    let at = rng.usize(..=bytes.len());
    match rng.u8(..7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        3 if at < bytes.len() => bytes[at] = rng.u8(..),
        4 if at < bytes.len() => drop(bytes.remove(at)),
        5 => {
            // A piece again, somewhere else.
            let piece = bytes[at..bytes.len().min(at + 16)].to_vec();
            let to = rng.usize(..=bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let number = NUMBERS[rng.usize(..NUMBERS.len())];
            let end = bytes.len().min(at + number.len());
            bytes.splice(at..end, number.iter().copied());
        }
    }
}
