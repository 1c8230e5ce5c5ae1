//! What happened in a run: a hash of every event, always; the words of every event only when a failed run is repeated.

/// The record of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps words, or only the hash.
    pub fn new(with_words: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: with_words.then(Vec::new) }
    }

    /// Notes an event: its virtual time, its kind and what tells it apart.
    pub fn note(&mut self, at_us: u64, kind: u64, details: [u64; 2], words: impl FnOnce() -> String) {
        self.events += 1;
        for word in [at_us, kind, details[0], details[1]] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9}.{:03} ms  {}", at_us / 1000, at_us % 1000, words()));
        }
    }

    /// The hash of everything noted.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much was noted.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn tail(&self, count: usize) -> &[String] {
        let lines = self.lines.as_deref().unwrap_or_default();
        &lines[lines.len().saturating_sub(count)..]
    }
}

/// FNV over bytes, for the details of an event.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
