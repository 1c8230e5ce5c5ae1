//! The small text files beside the logs, byte for byte Kafka's.
//!
//! Parsers take whole files, allocate in proportion to them and never panic; what is malformed is
//! an error that names file and line. Writers give the bytes for `OpQueue::plan_replace`.

use std::fmt;
use std::str::FromStr;

/// A file that is not what its name promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointError {
    /// The file's name.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}", self.file, self.line, self.reason)
    }
}

impl std::error::Error for CheckpointError {}

/// One line of a checkpoint, with what its errors have to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    file: &'static str,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn error(&self, reason: &'static str) -> CheckpointError {
        CheckpointError { file: self.file, line: self.number, reason }
    }

    /// The line's fields; an error unless there are exactly `N`.
    pub(super) fn fields<const N: usize>(&self) -> Result<[&'a str; N], CheckpointError> {
        let mut words = self.text.split_ascii_whitespace();
        let mut fields = [""; N];
        for field in &mut fields {
            *field = words.next().ok_or_else(|| self.error("too few fields"))?;
        }
        match words.next() {
            None => Ok(fields),
            Some(_) => Err(self.error("too many fields")),
        }
    }
}

/// A number in a line.
pub(super) fn parse_field<T: FromStr>(line: &Line<'_>, text: &str) -> Result<T, CheckpointError> {
    text.parse().map_err(|_| line.error("not a number"))
}

/// The entry lines of a checkpoint in Kafka's frame: a version (0), the number of entries, then
/// one line each. A file without these two lines has no entries, as in Kafka.
pub(super) fn entry_lines<'a>(
    file: &'static str,
    bytes: &'a [u8],
) -> Result<impl Iterator<Item = Line<'a>>, CheckpointError> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| CheckpointError { file, line: 1, reason: "not text" })?;
    let mut lines = text.lines().enumerate().map(move |(at, text)| Line { file, number: at + 1, text });
    let mut expected = 0;
    if let Some(version) = lines.next() {
        if version.text.trim() != "0" {
            return Err(version.error("an unknown version"));
        }
        if let Some(count) = lines.next() {
            expected = parse_field(&count, count.text.trim())?;
        }
    }
    let found = lines.clone().count();
    if found != expected {
        let reason = "the number of entries is not the one that the second line says";
        return Err(CheckpointError { file, line: 2, reason });
    }
    Ok(lines)
}
