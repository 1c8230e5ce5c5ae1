//! The small text files beside the logs, byte for byte Kafka's.
//!
//! Parsers take whole files, allocate in proportion to them and never panic; what is malformed is
//! an error that names file and line. Writers give the bytes for `OpQueue::plan_replace`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
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

/// Which partition a line of an offset checkpoint is about.
pub type TopicPartition = (String, i32);

/// `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint` or
/// `replication-offset-checkpoint`: one offset per partition of a log directory.
pub type Offsets = BTreeMap<TopicPartition, i64>;

/// The bytes of an offset checkpoint.
pub fn encode_offsets(offsets: &Offsets) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        writeln!(text, "{topic} {partition} {offset}").expect("a String takes every write");
    }
    text
}

/// Reads an offset checkpoint; an empty file has no offsets.
pub fn parse_offsets(file: &'static str, bytes: &[u8]) -> Result<Offsets, CheckpointError> {
    let mut offsets = Offsets::new();
    for line in entry_lines(file, bytes)? {
        let [topic, partition, offset] = line.fields()?;
        let partition = parse_field(&line, partition)?;
        offsets.insert((topic.to_owned(), partition), parse_field(&line, offset)?);
    }
    Ok(offsets)
}

/// `meta.properties`: whose directory this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// 1 is what Kafka writes since KRaft; 0, from before, has a broker id.
    pub version: i32,
    /// The cluster's id, usually 22 characters of base64.
    pub cluster_id: Option<String>,
    /// The node's id.
    pub node_id: Option<i32>,
    /// The directory's own id.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    const FILE: &str = "meta.properties";

    /// The file's bytes, always in version 1.
    ///
    /// # Panics
    /// If the cluster id or the node id is missing.
    pub fn encode(&self) -> String {
        let node_id = self.node_id.expect("version 1 has a node id");
        let mut text = format!("#\nnode.id={node_id}\n");
        if let Some(id) = self.directory_id {
            writeln!(text, "directory.id={}", encode_uuid(id)).expect("a String takes every write");
        }
        let cluster_id = self.cluster_id.as_deref().expect("version 1 has a cluster id");
        text.push_str("version=1\ncluster.id=");
        for letter in cluster_id.chars() {
            // As java.util.Properties writes a value.
            if matches!(letter, '=' | ':' | '#' | '!' | '\\') {
                text.push('\\');
            }
            text.push(letter);
        }
        text.push('\n');
        text
    }

    /// Reads the file; keys that are not known are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut properties = Self { version: 0, cluster_id: None, node_id: None, directory_id: None };
        let error = |line, reason| CheckpointError { file: Self::FILE, line, reason };
        let text = std::str::from_utf8(bytes).map_err(|_| error(1, "not text"))?;
        for (at, line) in text.lines().enumerate() {
            let (number, line) = (at + 1, line.trim());
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = line.split_once(['=', ':']).ok_or(error(number, "not a key and a value"))?;
            let value: String = unescape(value.trim());
            match key.trim() {
                "version" => {
                    let version = value.parse().ok().filter(|version| matches!(version, 0 | 1));
                    properties.version = version.ok_or(error(number, "an unknown version"))?;
                }
                "cluster.id" => properties.cluster_id = Some(value),
                "node.id" | "broker.id" => {
                    let id = value.parse().ok().filter(|id| *id >= 0);
                    properties.node_id = Some(id.ok_or(error(number, "not a node id"))?);
                }
                "directory.id" => {
                    properties.directory_id =
                        Some(parse_uuid(&value).ok_or(error(number, "not a directory id"))?);
                }
                _ => {}
            }
        }
        let line = text.lines().count().max(1);
        // Version 0 could do without them; no directory that a node of KRaft has started with does.
        match (&properties.cluster_id, properties.node_id) {
            (None, _) => Err(error(line, "no cluster.id")),
            (_, None) => Err(error(line, "no node.id")),
            _ => Ok(properties),
        }
    }
}

fn unescape(value: &str) -> String {
    let mut letters = value.chars();
    let mut text = String::with_capacity(value.len());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.extend(letters.next()),
            other => text.push(other),
        }
    }
    text
}

/// `.kafka_cleanshutdown`: the log directory was closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// The broker's epoch when it stopped, -1 when it had none; it proves the clean stop to the
    /// controller (KIP-966).
    pub broker_epoch: i64,
}

impl CleanShutdown {
    /// The file's bytes.
    pub fn encode(self) -> String {
        format!("{{\"version\":0,\"brokerEpoch\":{}}}", self.broker_epoch)
    }

    /// Reads the file. That it is there is what says "clean": where the epoch cannot be read it is
    /// -1, as in Kafka.
    pub fn parse(bytes: &[u8]) -> Self {
        Self { broker_epoch: read_epoch(bytes).unwrap_or(-1) }
    }
}

/// The number behind the key `"brokerEpoch"`: there is one level of keys with numbers.
fn read_epoch(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let fields = text.strip_prefix('{')?.strip_suffix('}')?.split(',');
    let mut pairs = fields.filter_map(|field| field.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == "\"brokerEpoch\"")?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_offset_checkpoint_is_kafkas() {
        let offsets = Offsets::from([(("b".to_owned(), 0), 7), (("a-1".to_owned(), 12), 0)]);
        let text = "0\n2\na-1 12 0\nb 0 7\n";
        assert_eq!(encode_offsets(&offsets), text);
        assert_eq!(parse_offsets("x", text.as_bytes()).unwrap(), offsets);
        assert_eq!(parse_offsets("x", b"").unwrap(), Offsets::new());
    }

    #[test]
    fn a_malformed_offset_checkpoint_names_its_line() {
        let line = |text: &str| parse_offsets("x", text.as_bytes()).unwrap_err().line;
        assert_eq!(line("1\n0\n"), 1);
        assert_eq!(line("0\nmany\n"), 2);
        assert_eq!(line("0\n2\na 0 1\n"), 2);
        assert_eq!(line("0\n2\na 0 1\nb 0\n"), 4);
        assert_eq!(line("0\n1\na 0 1 2\n"), 3);
        assert_eq!(line("0\n1\na 0 99999999999999999999\n"), 3);
    }

    #[test]
    fn ids_are_kafkas_base64() {
        let metadata = Uuid::from_u128(1);
        assert_eq!(encode_uuid(metadata), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(encode_uuid(Uuid::from_u128(u128::MAX)), "_____________________w");
        assert_eq!(parse_uuid("AAAAAAAAAAAAAAAAAAAAAQ"), Some(metadata));
        assert_eq!(parse_uuid("AAAAAAAAAAAAAAAAAAAAAQ=="), Some(metadata));
        assert_eq!(parse_uuid("AAAAAAAAAAAAAAAAAAAAA+"), None);
    }

    #[test]
    fn partition_metadata_is_kafkas() {
        let metadata = PartitionMetadata { topic_id: Uuid::from_u128(1) };
        assert_eq!(metadata.encode(), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(PartitionMetadata::parse(metadata.encode().as_bytes()), Ok(metadata));
        let nil = b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(PartitionMetadata::parse(nil).unwrap_err().line, 2);
        assert_eq!(PartitionMetadata::parse(b"").unwrap_err().line, 1);
    }

    #[test]
    fn meta_properties_as_kafka_writes_them_are_read() {
        let text = "#\n#Sat Nov 21 02:00:00 UTC 2026\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nversion=1\ncluster.id=5L6g3nShT-eMCtK--X86sw\n";
        let properties = MetaProperties::parse(text.as_bytes()).unwrap();
        assert_eq!((properties.version, properties.node_id), (1, Some(1)));
        assert_eq!(properties.cluster_id.as_deref(), Some("5L6g3nShT-eMCtK--X86sw"));
        assert_eq!(properties.directory_id, Some(Uuid::from_u128(1)));
        assert_eq!(MetaProperties::parse(properties.encode().as_bytes()), Ok(properties));
    }

    #[test]
    fn meta_properties_of_version_0_have_a_broker_id() {
        let properties = MetaProperties::parse(b"version=0\nbroker.id=3\ncluster.id=a\\=b\n").unwrap();
        assert_eq!((properties.version, properties.node_id), (0, Some(3)));
        assert_eq!(properties.cluster_id.as_deref(), Some("a=b"));
        assert_eq!(MetaProperties::parse(b"version=1\nnode.id=3\n").unwrap_err().reason, "no cluster.id");
        assert_eq!(MetaProperties::parse(b"version=2\n").unwrap_err().line, 1);
        let halves: [&[u8]; 3] =
            [b"", b"broker.id=3\n", b"#\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n"];
        for half in halves {
            assert_eq!(MetaProperties::parse(half).unwrap_err().reason, "no cluster.id");
        }
    }

    #[test]
    fn the_clean_shutdown_marker_is_kafkas() {
        let marker = CleanShutdown { broker_epoch: 42 };
        assert_eq!(marker.encode(), r#"{"version":0,"brokerEpoch":42}"#);
        assert_eq!(CleanShutdown::parse(marker.encode().as_bytes()), marker);
        assert_eq!(CleanShutdown::parse(b""), CleanShutdown { broker_epoch: -1 });
        assert_eq!(CleanShutdown::parse(br#"{ "brokerEpoch" : -5 }"#), CleanShutdown { broker_epoch: -5 });
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[0-9a-z :=\\\\\n{},\"-]{0,80}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let _ = parse_offsets("x", bytes);
                let _ = PartitionMetadata::parse(bytes);
                let _ = MetaProperties::parse(bytes);
                let _ = CleanShutdown::parse(bytes);
                let _ = crate::log::EpochCache::parse(bytes);
            }
        }

        #[test]
        fn every_id_reads_back(bits in any::<u128>()) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(parse_uuid(&encode_uuid(id)), Some(id));
        }
    }
}
