//! `tidemill console-consumer`: records become lines of standard output. Flags, properties and the lines are those
//! of Kafka's `kafka-console-consumer`, for assigned partitions.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::properties::Properties;
use crate::client::{
    ClientError, Cluster, ConnectionConfig, ConsumedRecord, Consumer, ConsumerConfig, RecordTimestamp, Start,
    parse_bootstrap,
};

const FETCH_WAIT: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic lines --from-beginning
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic pairs --partition 0 --offset 10 \\
      --max-messages 5 --property print.key=true --property print.headers=true

Without --partition every partition is read; records are in order within a partition. There is no consumer group.
Properties of a line (--property): print.timestamp, print.key, print.offset, print.partition, print.headers (false),
print.value (true), key.separator=\\t, line.separator=\\n, headers.separator=',', null.literal=null.
Properties of the consumer (--consumer-property): fetch.min.bytes, fetch.max.bytes, max.partition.fetch.bytes,
auto.offset.reset, client.id.")]
pub(super) struct Options {
    /// The brokers to ask first.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_server: String,
    /// The topic to read.
    #[arg(long)]
    topic: String,
    /// The one partition to read.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// earliest, latest, or an offset.
    #[arg(long, requires = "partition", conflicts_with = "from_beginning")]
    offset: Option<String>,
    /// Start with the earliest records instead of the next to come.
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this many records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// Stop when no record comes for this long.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// What of a record is written, and how.
    #[arg(long = "property", visible_alias = "formatter-property", value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// A properties file of the same.
    #[arg(long, value_name = "FILE")]
    formatter_config: Option<PathBuf>,
    /// How records are fetched.
    #[arg(long, visible_alias = "command-property", value_name = "KEY=VALUE")]
    consumer_property: Vec<String>,
    /// A properties file of the same.
    #[arg(long = "consumer.config", visible_alias = "command-config", value_name = "FILE")]
    consumer_config: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let format = LineFormat::read(options)?;
    let start = start(options)?;
    let (config, connection) = consumer_config(options)?;
    let cluster = Cluster::new(parse_bootstrap(&options.bootstrap_server)?, connection);
    let mut consumer = Consumer::new(cluster, config);
    let partitions = match options.partition {
        Some(partition) => vec![partition],
        None => consumer.partitions(&options.topic)?,
    };
    for partition in partitions {
        consumer.assign(&crate::client::TopicPartition::new(&options.topic, partition), start)?;
    }
    let mut count = 0;
    let read = print_records(options, &format, &mut consumer, &mut count);
    eprintln!("Processed a total of {count} messages");
    read
}

fn print_records(
    options: &Options,
    format: &LineFormat,
    consumer: &mut Consumer,
    count: &mut u64,
) -> Result<(), ClientError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let patience = options.timeout_ms.map(Duration::from_millis);
    let limit = options.max_messages.unwrap_or(u64::MAX);
    let mut last_came = Instant::now();
    while *count < limit {
        let waited = last_came.elapsed();
        if patience.is_some_and(|patience| waited >= patience) {
            return Ok(());
        }
        let wait = patience.map_or(FETCH_WAIT, |patience| FETCH_WAIT.min(patience.saturating_sub(waited)));
        let records = match consumer.poll(wait) {
            Ok(records) => records,
            Err(error) if error.is_retriable() => {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
            Err(error) => return Err(error),
        };
        if records.is_empty() {
            continue;
        }
        last_came = Instant::now();
        let room = usize::try_from(limit - *count).unwrap_or(usize::MAX);
        let mut written = Ok(());
        for record in records.iter().take(room) {
            written = written.and_then(|()| format.write(record, &mut out));
            *count += 1;
        }
        if written.and_then(|()| out.flush()).is_err() {
            eprintln!("Unable to write to standard out, closing consumer.");
            return Ok(());
        }
    }
    Ok(())
}

fn start(options: &Options) -> Result<Start, ClientError> {
    let Some(text) = options.offset.as_deref() else {
        return Ok(if options.from_beginning { Start::Earliest } else { Start::Latest });
    };
    match text.trim().to_lowercase().as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        number => number.parse().ok().filter(|&offset: &i64| offset >= 0).map(Start::At).ok_or_else(|| {
            ClientError::Usage(format!(
                "The provided offset value '{text}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long."
            ))
        }),
    }
}

fn consumer_config(options: &Options) -> Result<(ConsumerConfig, ConnectionConfig), ClientError> {
    let mut given = Properties::read(options.consumer_config.as_deref(), &options.consumer_property)?;
    let mut config = ConsumerConfig::default();
    config.fetch_min_bytes = given.number("fetch.min.bytes")?.unwrap_or(config.fetch_min_bytes);
    config.fetch_max_bytes = given.number("fetch.max.bytes")?.unwrap_or(config.fetch_max_bytes);
    let default = config.max_partition_fetch_bytes;
    config.max_partition_fetch_bytes = given.number("max.partition.fetch.bytes")?.unwrap_or(default);
    let reset = given.text("auto.offset.reset");
    config.reset = match reset.as_deref() {
        None if options.from_beginning => Some(Start::Earliest),
        None | Some("latest") => Some(Start::Latest),
        Some("earliest") => Some(Start::Earliest),
        Some("none") => None,
        Some(text) => {
            let allowed = "allowed are earliest, latest or none";
            let message = format!("Invalid value {text} for configuration auto.offset.reset: {allowed}");
            return Err(ClientError::Usage(message));
        }
    };
    let client_id = given.text("client.id").unwrap_or_else(|| "console-consumer".to_owned());
    given.warn_of_the_rest();
    Ok((config, ConnectionConfig { client_id, ..ConnectionConfig::default() }))
}

/// What of a record is written, and how.
#[derive(Debug)]
struct LineFormat {
    timestamp: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key: bool,
    value: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
}

impl LineFormat {
    fn read(options: &Options) -> Result<Self, ClientError> {
        let mut given = Properties::read(options.formatter_config.as_deref(), &options.property)?;
        let format = Self::from_properties(&mut given);
        given.warn_of_the_rest();
        Ok(format)
    }

    fn from_properties(given: &mut Properties) -> Self {
        let mut text = |key: &str, default: &str| {
            given.text(key).map_or_else(|| default.as_bytes().to_vec(), String::into_bytes)
        };
        let key_separator = text("key.separator", "\t");
        let line_separator = text("line.separator", "\n");
        let headers_separator = text("headers.separator", ",");
        let null_literal = text("null.literal", "null");
        Self {
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
        }
    }

    /// Each part that is written is followed by the key separator, the last by the line separator.
    fn write(&self, record: &ConsumedRecord, out: &mut impl Write) -> std::io::Result<()> {
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
        if part(out, self.headers)? {
            self.write_headers(record, out)?;
        }
        if part(out, self.key)? {
            out.write_all(record.key.as_deref().unwrap_or(&self.null_literal))?;
        }
        if part(out, self.value)? {
            out.write_all(record.value.as_deref().unwrap_or(&self.null_literal))?;
        }
        if begun { out.write_all(&self.line_separator) } else { Ok(()) }
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
            out.write_all(value.as_deref().unwrap_or(&self.null_literal))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[&str], record: &ConsumedRecord) -> String {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let format = LineFormat::from_properties(&mut Properties::read(None, &pairs).unwrap());
        let mut out = Vec::new();
        format.write(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_kafkas_console_consumer() {
        let record = ConsumedRecord {
            partition: 2,
            offset: 7,
            timestamp: Some(RecordTimestamp::CreateTime(5)),
            key: None,
            value: Some("v".into()),
            headers: vec![("h".into(), Some("x".into())), ("n".into(), None)],
        };
        assert_eq!(written(&[], &record), "v\n");
        let all =
            ["timestamp", "partition", "offset", "headers", "key"].map(|what| format!("print.{what}=true"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(written(&all, &record), "CreateTime:5\tPartition:2\tOffset:7\th:x,n:null\tnull\tv\n");
        let custom =
            ["print.key=true", "key.separator=|", "line.separator=;", "null.literal=∅", "print.value=false"];
        assert_eq!(written(&custom, &record), "∅;");
        let bare = ConsumedRecord { headers: vec![], ..record };
        assert_eq!(written(&["print.headers=TRUE"], &bare), "NO_HEADERS\tv\n");
    }
}
