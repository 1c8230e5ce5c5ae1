//! `.tidemill-truncation`: the mark that makes a truncation whole.
//!
//! A truncation changes many files, and a power cut keeps any of these changes. So the mark is durable before the
//! first of them: a start that finds it does all of it again. When everything is durable the mark goes, or says
//! from then on how much of the log is synced, where the recovery point in the checkpoint may be higher than that.

use super::batch;
use super::checkpoint::CheckpointError;

/// The file's name.
pub(super) const TRUNCATION_MARK: &str = ".tidemill-truncation";

/// What the mark of a truncation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Under way: every batch with a record at or behind `offset` goes. What stays is synced below `synced`.
    Cut { offset: i64, synced: i64 },
    /// Under way: everything goes, and the log begins at `offset`.
    Anew { offset: i64 },
    /// Done: whatever the checkpoint says, the log is synced only below `offset`.
    Synced { offset: i64 },
}

impl Mark {
    /// The file's bytes.
    pub(super) fn encode(self) -> String {
        let text = match self {
            Self::Cut { offset, synced } => format!("0\ncut {offset} {synced}\n"),
            Self::Anew { offset } => format!("0\nanew {offset}\n"),
            Self::Synced { offset } => format!("0\nsynced {offset}\n"),
        };
        let crc = batch::crc(text.as_bytes());
        format!("{text}{crc:08x}\n")
    }

    /// Reads the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let error = |line, reason| CheckpointError { file: TRUNCATION_MARK, line, reason };
        let text = std::str::from_utf8(bytes).map_err(|_| error(1, "not text"))?;
        let mut lines = text.split_inclusive('\n');
        let (version, what, crc) = (lines.next(), lines.next(), lines.next());
        if version != Some("0\n") {
            return Err(error(1, "an unknown version"));
        }
        let what = what.ok_or(error(2, "nothing is said"))?;
        if crc != Some(format!("{:08x}\n", batch::crc(format!("0\n{what}").as_bytes())).as_str()) {
            return Err(error(3, "a wrong checksum"));
        }
        let number = |text: &str| text.parse().ok().filter(|offset: &i64| *offset >= 0);
        let mut words = what.split_ascii_whitespace();
        let (kind, first, second) = (words.next(), words.next().and_then(number), words.next().map(number));
        match (kind, first, second) {
            (Some("cut"), Some(offset), Some(Some(synced))) => Ok(Self::Cut { offset, synced }),
            (Some("anew"), Some(offset), None) => Ok(Self::Anew { offset }),
            (Some("synced"), Some(offset), None) => Ok(Self::Synced { offset }),
            _ => Err(error(2, "not a mark")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_reads_back_as_it_is_written() {
        assert_eq!(Mark::Cut { offset: 4711, synced: 4000 }.encode(), "0\ncut 4711 4000\ncfcd7f7e\n");
        for mark in [
            Mark::Cut { offset: 0, synced: i64::MAX },
            Mark::Anew { offset: 7 },
            Mark::Synced { offset: 4000 },
        ] {
            assert_eq!(Mark::parse(mark.encode().as_bytes()), Ok(mark));
        }
    }

    #[test]
    fn a_damaged_mark_cuts_nothing() {
        let whole = Mark::Cut { offset: 4711, synced: 4000 }.encode().into_bytes();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Mark::parse(&damaged).is_err(), "byte {at}");
            assert!(Mark::parse(&whole[..at]).is_err(), "cut at {at}");
        }
        for text in ["0\ncut 5\n", "0\nanew -1\n", "0\nsynced 1 2\n", "0\nelse 1\n"] {
            let sealed = format!("{text}{:08x}\n", batch::crc(text.as_bytes()));
            assert_eq!(Mark::parse(sealed.as_bytes()).unwrap_err().line, 2, "{text}");
        }
    }
}
