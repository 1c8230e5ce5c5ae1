//! `.tidemill-truncation`: the mark that makes a truncation whole.
//!
//! A truncation changes many files, and a power cut keeps any of these changes. So the mark is durable before the
//! first of them: a start that finds it does all of it again. When everything is durable the mark goes, or says
//! from then on where the checkpoint is not to be believed: how much of the log is synced, where the recovery point
//! there may be higher than that, and where the log starts, where the log start there is that of what was cut off.

use super::batch;
use super::checkpoint::CheckpointError;
use crate::effect::{FileName, Stem};

/// The file's name.
pub(super) const TRUNCATION_MARK: &str = ".tidemill-truncation";

/// The same, as a file.
pub(super) fn mark_file() -> FileName {
    Stem::Named(TRUNCATION_MARK).into()
}

/// What the mark of a truncation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Under way: every batch with a record at or behind `offset` goes. What stays is synced below `synced`, and
    /// starts at `start` where that is said, whatever the checkpoint says.
    Cut { offset: i64, synced: i64, start: Option<i64> },
    /// Under way: everything goes, and the log begins at `offset`.
    Anew { offset: i64 },
    /// Done: whatever the checkpoint says, the log is synced only below `offset`.
    Synced { offset: i64 },
    /// Done: whatever the checkpoint says, the log starts at `start` and is synced only below `synced`.
    Begun { start: i64, synced: i64 },
}

impl Mark {
    /// The file's bytes.
    pub(super) fn encode(self) -> String {
        let text = match self {
            Self::Cut { offset, synced, start: None } => format!("0\ncut {offset} {synced}\n"),
            Self::Cut { offset, synced, start: Some(start) } => {
                format!("0\ncut {offset} {synced} {start}\n")
            }
            Self::Anew { offset } => format!("0\nanew {offset}\n"),
            Self::Synced { offset } => format!("0\nsynced {offset}\n"),
            Self::Begun { start, synced } => format!("0\nbegun {start} {synced}\n"),
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
        let kind = words.next();
        let numbers: Option<Vec<i64>> = words.map(number).collect();
        match (kind, numbers.as_deref()) {
            (Some("cut"), Some(&[offset, synced])) => Ok(Self::Cut { offset, synced, start: None }),
            (Some("cut"), Some(&[offset, synced, start])) => {
                Ok(Self::Cut { offset, synced, start: Some(start) })
            }
            (Some("anew"), Some(&[offset])) => Ok(Self::Anew { offset }),
            (Some("synced"), Some(&[offset])) => Ok(Self::Synced { offset }),
            (Some("begun"), Some(&[start, synced])) => Ok(Self::Begun { start, synced }),
            _ => Err(error(2, "not a mark")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_reads_back_as_it_is_written() {
        let cut = Mark::Cut { offset: 4711, synced: 4000, start: None };
        assert_eq!(cut.encode(), "0\ncut 4711 4000\ncfcd7f7e\n");
        for mark in [
            Mark::Cut { offset: 0, synced: i64::MAX, start: None },
            Mark::Cut { offset: 9, synced: 4, start: Some(3) },
            Mark::Anew { offset: 7 },
            Mark::Synced { offset: 4000 },
            Mark::Begun { start: 3, synced: 9 },
        ] {
            assert_eq!(Mark::parse(mark.encode().as_bytes()), Ok(mark));
        }
    }

    #[test]
    fn a_damaged_mark_cuts_nothing() {
        let whole = Mark::Cut { offset: 4711, synced: 4000, start: None }.encode().into_bytes();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Mark::parse(&damaged).is_err(), "byte {at}");
            assert!(Mark::parse(&whole[..at]).is_err(), "cut at {at}");
        }
        let texts = ["cut 5", "cut 5 4 3 2", "cut 5 x", "anew -1", "synced 1 2", "begun 1", "else 1"];
        for text in texts.map(|what| format!("0\n{what}\n")) {
            let sealed = format!("{text}{:08x}\n", batch::crc(text.as_bytes()));
            assert_eq!(Mark::parse(sealed.as_bytes()).unwrap_err().line, 2, "{text}");
        }
    }
}
