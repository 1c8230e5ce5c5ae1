//! How a record becomes a line: the properties of Kafka's default formatter, and the deserializers that need no class
//! of the reader's own.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;

use crate::cli::properties::Properties;
use crate::client::{ClientError, ConsumedRecord, RecordTimestamp};

/// What of a record is written, and how.
#[derive(Debug)]
pub(super) struct LineFormat {
    timestamp: bool,
    partition: bool,
    offset: bool,
    epoch: bool,
    headers: bool,
    key: bool,
    value: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
    key_kind: Kind,
    value_kind: Kind,
    headers_kind: Kind,
}

/// What bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Written as they are.
    Bytes,
    Long,
    Integer,
    Short,
    Double,
    Float,
}

impl Kind {
    /// Reads the name of one of Kafka's deserializers, with or without its package.
    fn parse(name: &str) -> Result<Self, ClientError> {
        let plain = name.trim().strip_prefix("org.apache.kafka.common.serialization.").unwrap_or(name.trim());
        Ok(match plain {
            "StringDeserializer"
            | "ByteArrayDeserializer"
            | "BytesDeserializer"
            | "ByteBufferDeserializer" => Self::Bytes,
            "LongDeserializer" => Self::Long,
            "IntegerDeserializer" => Self::Integer,
            "ShortDeserializer" => Self::Short,
            "DoubleDeserializer" => Self::Double,
            "FloatDeserializer" => Self::Float,
            _ => {
                return Err(ClientError::Usage(format!(
                    "{name} cannot be loaded here; there are the deserializers of String, ByteArray, Long, Integer, Short, Double and Float"
                )));
            }
        })
    }

    /// The text of the bytes; `None` where they are not of this kind.
    fn text(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let text = match self {
            Self::Bytes => return Some(bytes.to_vec()),
            Self::Long => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
            Self::Integer => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
            Self::Short => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
            Self::Double => format!("{:?}", f64::from_be_bytes(bytes.try_into().ok()?)),
            Self::Float => format!("{:?}", f32::from_be_bytes(bytes.try_into().ok()?)),
        };
        Some(text.into_bytes())
    }
}

impl LineFormat {
    /// The properties of a file with those of the arguments over them.
    pub fn read(file: Option<&Path>, arguments: &[String]) -> Result<Self, ClientError> {
        let mut given = Properties::read(file, arguments)?;
        let format = Self::from_properties(&mut given)?;
        given.warn_of_the_rest();
        Ok(format)
    }

    fn from_properties(given: &mut Properties) -> Result<Self, ClientError> {
        let mut text = |key: &str, default: &str| {
            given.text(key).map_or_else(|| default.as_bytes().to_vec(), String::into_bytes)
        };
        let key_separator = text("key.separator", "\t");
        let line_separator = text("line.separator", "\n");
        let headers_separator = text("headers.separator", ",");
        let null_literal = text("null.literal", "null");
        let mut kind = |key: &str| given.text(key).map_or(Ok(Kind::Bytes), |name| Kind::parse(&name));
        let (key_kind, value_kind) = (kind("key.deserializer")?, kind("value.deserializer")?);
        let headers_kind = kind("headers.deserializer")?;
        Ok(Self {
            epoch: given.switch("print.epoch", false),
            key_kind,
            value_kind,
            headers_kind,
            timestamp: given.switch("print.timestamp", false),
            partition: given.switch("print.partition", false),
            offset: given.switch("print.offset", false),
            headers: given.switch("print.headers", false),
            key: given.switch("print.key", false),
            value: given.switch("print.value", true),
            key_separator,
            line_separator,
            headers_separator,
            null_literal,
        })
    }

    /// Each part that is written is followed by the key separator, the last by the line separator.
    pub fn write(&self, record: &ConsumedRecord, out: &mut impl Write) -> std::io::Result<()> {
        let mut begun = false;
        let mut part = |out: &mut dyn Write, wanted: bool| -> std::io::Result<bool> {
            if wanted && begun {
                out.write_all(&self.key_separator)?;
            }
            begun |= wanted;
            Ok(wanted)
        };
        if part(out, self.timestamp)? {
            match record.timestamp {
                Some(RecordTimestamp::CreateTime(ms)) => write!(out, "CreateTime:{ms}")?,
                Some(RecordTimestamp::LogAppendTime(ms)) => write!(out, "LogAppendTime:{ms}")?,
                None => out.write_all(b"CreateTime:-1")?,
            }
        }
        if part(out, self.partition)? {
            write!(out, "Partition:{}", record.partition)?;
        }
        if part(out, self.offset)? {
            write!(out, "Offset:{}", record.offset)?;
        }
        if part(out, self.epoch)? {
            match record.leader_epoch {
                Some(epoch) => write!(out, "Epoch:{epoch}")?,
                None => out.write_all(b"Epoch:NOT_PRESENT")?,
            }
        }
        if part(out, self.headers)? {
            self.write_headers(record, out)?;
        }
        if part(out, self.key)? {
            self.write_bytes(self.key_kind, record.key.as_ref(), out)?;
        }
        if part(out, self.value)? {
            self.write_bytes(self.value_kind, record.value.as_ref(), out)?;
        }
        if begun { out.write_all(&self.line_separator) } else { Ok(()) }
    }

    fn write_bytes(&self, kind: Kind, bytes: Option<&Bytes>, out: &mut impl Write) -> std::io::Result<()> {
        match (kind, bytes) {
            (_, None) => out.write_all(&self.null_literal),
            (Kind::Bytes, Some(bytes)) => out.write_all(bytes),
            (kind, Some(bytes)) => match kind.text(bytes) {
                Some(text) => out.write_all(&text),
                None => {
                    let wrong = format!("{} bytes are no {kind:?}", bytes.len());
                    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, wrong))
                }
            },
        }
    }

    fn write_headers(&self, record: &ConsumedRecord, out: &mut impl Write) -> std::io::Result<()> {
        if record.headers.is_empty() {
            return out.write_all(b"NO_HEADERS");
        }
        for (index, (name, value)) in record.headers.iter().enumerate() {
            if index > 0 {
                out.write_all(&self.headers_separator)?;
            }
            out.write_all(name)?;
            out.write_all(b":")?;
            self.write_bytes(self.headers_kind, value.as_ref(), out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[&str], record: &ConsumedRecord) -> String {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let format = LineFormat::from_properties(&mut Properties::read(None, &pairs).unwrap()).unwrap();
        let mut out = Vec::new();
        format.write(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_kafkas_console_consumer() {
        let record = ConsumedRecord {
            topic: "t".into(),
            leader_epoch: Some(3),
            partition: 2,
            offset: 7,
            timestamp: Some(RecordTimestamp::CreateTime(5)),
            key: None,
            value: Some("v".into()),
            headers: vec![("h".into(), Some("x".into())), ("n".into(), None)],
        };
        assert_eq!(written(&[], &record), "v\n");
        let all = ["timestamp", "partition", "offset", "epoch", "headers", "key"]
            .map(|what| format!("print.{what}=true"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(
            written(&all, &record),
            "CreateTime:5\tPartition:2\tOffset:7\tEpoch:3\th:x,n:null\tnull\tv\n"
        );
        let custom =
            ["print.key=true", "key.separator=|", "line.separator=;", "null.literal=∅", "print.value=false"];
        assert_eq!(written(&custom, &record), "∅;");
        let bare = ConsumedRecord { headers: vec![], ..record };
        assert_eq!(written(&["print.headers=TRUE"], &bare), "NO_HEADERS\tv\n");
    }

    #[test]
    fn numbers_are_read_by_kafkas_deserializers() {
        assert_eq!(
            Kind::parse("org.apache.kafka.common.serialization.LongDeserializer").unwrap(),
            Kind::Long
        );
        assert_eq!(Kind::Long.text(&[0, 0, 0, 0, 0, 0, 1, 0]).unwrap(), b"256");
        assert_eq!(Kind::Double.text(&1.5_f64.to_be_bytes()).unwrap(), b"1.5");
        assert_eq!((Kind::Short.text(&[255, 255]), Kind::Short.text(&[1])), (Some(b"-1".to_vec()), None));
        assert!(Kind::parse("com.example.Mine").is_err());
    }
}
