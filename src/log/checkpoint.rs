//! The small text files beside the logs, byte for byte Kafka's.
//!
//! Parsers take whole files, allocate in proportion to them and never panic; what is malformed is
//! an error that names file and line. Writers give the bytes for `OpQueue::plan_replace`.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

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

/// `partition.metadata`: which topic a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The topic's id.
    pub topic_id: Uuid,
}

impl PartitionMetadata {
    const FILE: &str = "partition.metadata";

    /// The file's bytes; there is no end of line after the last one.
    pub fn encode(&self) -> String {
        format!("version: 0\ntopic_id: {}", encode_uuid(self.topic_id))
    }

    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let error = |line, reason| CheckpointError { file: Self::FILE, line, reason };
        let text = std::str::from_utf8(bytes).map_err(|_| error(1, "not text"))?;
        let mut lines = text.lines();
        let value = |line: Option<&str>, key: &str| {
            let (found, value) = line?.split_once(':')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        };
        let version = value(lines.next(), "version").ok_or(error(1, "not a version"))?;
        if version != "0" {
            return Err(error(1, "an unknown version"));
        }
        let id = value(lines.next(), "topic_id").ok_or(error(2, "not a topic id"))?;
        let topic_id = parse_uuid(&id).filter(|id| !id.is_nil()).ok_or(error(2, "not a topic id"))?;
        Ok(Self { topic_id })
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A UUID as Kafka writes it: 22 characters of URL-safe base64 without padding.
pub fn encode_uuid(id: Uuid) -> String {
    let bits = id.as_u128();
    // 21 characters hold 126 bits; the last one has the remaining two on top.
    let digits = (0..22).map(|at| match 122_u32.checked_sub(at * 6) {
        Some(shift) => bits >> shift,
        None => bits << 4,
    });
    let letter = |digit: u128| BASE64_URL.get((digit & 63) as usize).copied().unwrap_or_default();
    digits.map(|digit| char::from(letter(digit))).collect()
}

/// Reads what [`encode_uuid`] writes; padding is tolerated.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let text = text.trim_end_matches('=');
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, byte) in text.bytes().enumerate() {
        let digit = BASE64_URL.iter().position(|letter| *letter == byte)? as u128;
        bits = if at < 21 { bits << 6 | digit } else { bits << 2 | digit >> 4 };
    }
    Some(Uuid::from_u128(bits))
}
