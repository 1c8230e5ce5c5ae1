//! `tidemill console-producer`: lines of standard input become records. Flags, properties and the way a line is
//! taken apart are those of Kafka's `kafka-console-producer`.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::producer_properties::producer_properties;
use super::properties::Properties;
use crate::client::{
    ClientError, Cluster, ConnectionConfig, Producer, ProducerConfig, Record, parse_bootstrap,
};
use crate::log::record::Header;

/// Lines read ahead of what is sent.
const LINES_AHEAD: usize = 1024;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill console-producer --bootstrap-server 127.0.0.1:9092 --topic lines < /etc/services
  printf 'a:1\\nb:2\\n' | tidemill console-producer --bootstrap-server 127.0.0.1:9092 --topic pairs \\
      --property parse.key=true --property key.separator=:

Properties of a line (--property): parse.key=false, key.separator=\\t, parse.headers=false, headers.delimiter=\\t,
headers.separator=',', headers.key.separator=':', null.marker, ignore.error=false.
Properties of the producer (--producer-property): acks, enable.idempotence, batch.size, linger.ms, compression.type,
request.timeout.ms, retries, retry.backoff.ms, max.block.ms, client.id.")]
pub(super) struct Options {
    /// The brokers to ask first.
    #[arg(long, value_name = "HOST:PORT,…", env = "TIDEMILL_BOOTSTRAP_SERVER")]
    bootstrap_server: String,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// How lines are taken apart.
    #[arg(long = "property", visible_alias = "reader-property", value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// A properties file of the same.
    #[arg(long, value_name = "FILE")]
    reader_config: Option<PathBuf>,
    /// How records are sent.
    #[arg(long, visible_alias = "command-property", value_name = "KEY=VALUE")]
    producer_property: Vec<String>,
    /// A properties file of the same.
    #[arg(long = "producer.config", visible_alias = "command-config", value_name = "FILE")]
    producer_config: Option<PathBuf>,
    /// none, gzip, snappy, lz4 or zstd; gzip without a value.
    #[arg(long, num_args = 0..=1, default_missing_value = "gzip", value_name = "CODEC")]
    compression_codec: Option<String>,
    /// 0, 1, -1 or all.
    #[arg(long, value_name = "ACKS", allow_hyphen_values = true)]
    request_required_acks: Option<String>,
    /// Bytes of a batch.
    #[arg(long, value_name = "BYTES")]
    batch_size: Option<u64>,
    /// As --batch-size, and goes over it.
    #[arg(long, value_name = "BYTES")]
    max_partition_memory_bytes: Option<u64>,
    /// How often a batch is sent again.
    #[arg(long, value_name = "COUNT")]
    message_send_max_retries: Option<u64>,
    /// How long to wait before that.
    #[arg(long, value_name = "MS")]
    retry_backoff_ms: Option<u64>,
    /// How long the broker may wait for replicas.
    #[arg(long, value_name = "MS")]
    request_timeout_ms: Option<u64>,
    /// How long to look for the topic and its leaders.
    #[arg(long, value_name = "MS")]
    max_block_ms: Option<u64>,
    /// Taken and without effect: memory is bounded by what is in flight.
    #[arg(long, value_name = "BYTES")]
    max_memory_bytes: Option<u64>,
    /// Taken and without effect: leaders are looked for when they have moved.
    #[arg(long, value_name = "MS")]
    metadata_expiry_ms: Option<u64>,
    /// Taken and without effect: the system sizes socket buffers.
    #[arg(long, value_name = "BYTES")]
    socket_buffer_size: Option<u64>,
    /// Milliseconds that a batch waits for more.
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// Send one record at a time and wait for its acknowledgement.
    #[arg(long)]
    sync: bool,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let format = LineFormat::read(options)?;
    let (config, connection, patience) = producer_config(options)?;
    let bootstrap = parse_bootstrap(&options.bootstrap_server)?;
    let cluster = Cluster::new(bootstrap, connection).with_patience(patience);
    let mut producer = Producer::new(cluster, config)?;
    let (sender, lines) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || read_lines(&sender));
    let mut failed = 0;
    let read = send_lines(options, &format, &lines, &mut producer, &mut failed);
    producer.flush();
    failed += report(&mut producer);
    read?;
    match failed {
        0 => Ok(()),
        count => Err(ClientError::Unavailable(format!("{count} records are not acknowledged"))),
    }
}

fn send_lines(
    options: &Options,
    format: &LineFormat,
    lines: &Receiver<std::io::Result<Vec<u8>>>,
    producer: &mut Producer,
    failed: &mut usize,
) -> Result<(), ClientError> {
    let mut number = 0_u64;
    loop {
        // A batch's time passes also while nobody types.
        let wait = producer
            .next_due()
            .map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()));
        let line = match lines.recv_timeout(wait) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                producer.poll();
                *failed += report(producer);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let line = line.map_err(|error| ClientError::Usage(format!("standard input: {error}")))?;
        number += 1;
        let parsed = format.parse(&line, number)?;
        let record =
            Record { key: parsed.key, value: parsed.value, headers: &parsed.headers, ..Record::default() };
        producer.send(&options.topic, &record)?;
        if options.sync {
            producer.flush();
        }
        *failed += report(producer);
    }
}

/// Reads lines as bytes: a value need not be UTF-8.
fn read_lines(sender: &SyncSender<std::io::Result<Vec<u8>>>) {
    let mut input = std::io::stdin().lock();
    let prompts = input.is_terminal();
    loop {
        if prompts {
            eprint!(">");
        }
        let mut line = Vec::new();
        let read = input.read_until(b'\n', &mut line);
        let sent = match read {
            Ok(0) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                    if line.last() == Some(&b'\r') {
                        line.pop();
                    }
                }
                sender.send(Ok(line))
            }
            Err(error) => {
                drop(sender.send(Err(error)));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Says which batches failed; gives the number of their records.
fn report(producer: &mut Producer) -> usize {
    let mut failed = 0;
    for delivery in producer.take_deliveries() {
        if let Err(error) = delivery.result {
            let records = usize::try_from(delivery.records).unwrap_or_default();
            eprintln!(
                "tidemill: {records} records for {}-{} are not acknowledged: {error}",
                delivery.topic, delivery.partition
            );
            failed += records;
        }
    }
    failed
}

fn producer_config(options: &Options) -> Result<(ProducerConfig, ConnectionConfig, Duration), ClientError> {
    let mut given = Properties::read(options.producer_config.as_deref(), &options.producer_property)?;
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    // Kafka's console producer waits longer than its client does, and gives up sooner.
    let flags = [
        ("linger.ms", number(options.timeout.or(Some(1000)))),
        ("acks", options.request_required_acks.clone()),
        ("batch.size", number(options.max_partition_memory_bytes.or(options.batch_size))),
        ("compression.type", options.compression_codec.clone()),
        ("retries", number(options.message_send_max_retries)),
        ("retry.backoff.ms", number(options.retry_backoff_ms)),
        ("request.timeout.ms", number(options.request_timeout_ms)),
        ("max.block.ms", number(options.max_block_ms)),
        ("client.id", Some("console-producer".to_owned())),
    ];
    for (key, value) in flags {
        given.set_default(key, value);
    }
    let config = producer_properties(&mut given)?;
    given.warn_of_the_rest();
    Ok(config)
}

/// How a line is taken apart.
#[derive(Debug)]
struct LineFormat {
    key_separator: Option<Vec<u8>>,
    headers_delimiter: Option<Vec<u8>>,
    headers_separator: Vec<u8>,
    headers_key_separator: Vec<u8>,
    null_marker: Option<Vec<u8>>,
    ignore_error: bool,
}

/// A line taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<Header<'a>>,
}

impl LineFormat {
    fn read(options: &Options) -> Result<Self, ClientError> {
        let mut given = Properties::read(options.reader_config.as_deref(), &options.property)?;
        let format = Self::from_properties(&mut given)?;
        given.warn_of_the_rest();
        Ok(format)
    }

    fn from_properties(given: &mut Properties) -> Result<Self, ClientError> {
        let mut text = |key: &str, default: &str| {
            given.text(key).map_or_else(|| default.as_bytes().to_vec(), String::into_bytes)
        };
        let key_separator = text("key.separator", "\t");
        let headers_delimiter = text("headers.delimiter", "\t");
        let headers_separator = text("headers.separator", ",");
        let headers_key_separator = text("headers.key.separator", ":");
        let null_marker = given.text("null.marker").map(String::into_bytes);
        let named = [
            ("headers.delimiter", &headers_delimiter),
            ("headers.separator", &headers_separator),
            ("headers.key.separator", &headers_key_separator),
        ];
        let same =
            |left: &str, right: &str| ClientError::Usage(format!("{left} and {right} may not be equal"));
        for (index, (name, value)) in named.iter().enumerate() {
            if let Some((other, _)) = named.iter().take(index).find(|(_, other)| other == value) {
                return Err(same(other, name));
            }
        }
        for (name, value) in named.iter().chain([&("key.separator", &key_separator)]) {
            if value.is_empty() {
                return Err(ClientError::Usage(format!("{name} may not be empty")));
            }
            if null_marker.as_ref() == Some(value) {
                return Err(same("null.marker", name));
            }
        }
        Ok(Self {
            key_separator: given.switch("parse.key", false).then_some(key_separator),
            headers_delimiter: given.switch("parse.headers", false).then_some(headers_delimiter),
            headers_separator,
            headers_key_separator,
            null_marker,
            ignore_error: given.switch("ignore.error", false),
        })
    }

    fn parse<'a>(&self, line: &'a [u8], number: u64) -> Result<Line<'a>, ClientError> {
        let missing = |what: &str| {
            let line = String::from_utf8_lossy(line);
            ClientError::Usage(format!("No {what} found on line number {number}: '{line}'"))
        };
        let (headers, rest) =
            self.cut(self.headers_delimiter.as_deref(), line, || missing("headers delimiter"))?;
        let (key, value) = self.cut(self.key_separator.as_deref(), rest, || missing("key separator"))?;
        let headers = match headers.and_then(|headers| self.unless_null(headers)) {
            Some(headers) => self.parse_headers(headers, number)?,
            None => Vec::new(),
        };
        Ok(Line { key: key.and_then(|key| self.unless_null(key)), value: self.unless_null(value), headers })
    }

    /// What is before the separator, if there is to be one, and the rest.
    fn cut<'a>(
        &self,
        separator: Option<&[u8]>,
        line: &'a [u8],
        missing: impl Fn() -> ClientError,
    ) -> Result<(Option<&'a [u8]>, &'a [u8]), ClientError> {
        let Some(separator) = separator else { return Ok((None, line)) };
        match split_once(line, separator) {
            Some((before, after)) => Ok((Some(before), after)),
            None if self.ignore_error => Ok((None, line)),
            None => Err(missing()),
        }
    }

    fn parse_headers<'a>(&self, mut rest: &'a [u8], number: u64) -> Result<Vec<Header<'a>>, ClientError> {
        let mut headers = Vec::new();
        loop {
            let (pair, after) = split_once(rest, &self.headers_separator).unwrap_or((rest, &[]));
            // Java's split drops empty pairs at the end.
            if !pair.is_empty() || !after.is_empty() {
                headers.push(self.parse_header(pair, number)?);
            }
            if after.is_empty() {
                return Ok(headers);
            }
            rest = after;
        }
    }

    fn parse_header<'a>(&self, pair: &'a [u8], number: u64) -> Result<Header<'a>, ClientError> {
        let shown = || String::from_utf8_lossy(pair).into_owned();
        match split_once(pair, &self.headers_key_separator) {
            Some((name, _)) if self.unless_null(name).is_none() => Err(ClientError::Usage(format!(
                "Header keys should not be equal to the null marker '{}' as they can't be null",
                String::from_utf8_lossy(name)
            ))),
            Some((name, value)) => Ok((name, self.unless_null(value))),
            None if self.ignore_error => Ok((pair, None)),
            None => Err(ClientError::Usage(format!(
                "No header key separator found in pair '{}' on line number {number}",
                shown()
            ))),
        }
    }

    fn unless_null<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        (self.null_marker.as_deref() != Some(bytes)).then_some(bytes)
    }
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    let (before, from) = bytes.split_at_checked(at)?;
    Some((before, from.get(separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(pairs: &[&str]) -> Result<LineFormat, ClientError> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        LineFormat::from_properties(&mut Properties::read(None, &pairs).unwrap())
    }

    #[test]
    fn a_line_is_a_value_unless_told_otherwise() {
        let line = format(&[]).unwrap();
        assert_eq!(line.parse(b"a\tb", 1).unwrap().value, Some(&b"a\tb"[..]));
        let keyed = format(&["parse.key=true", "key.separator=::"]).unwrap();
        let parsed = keyed.parse(b"k::v::w", 1).unwrap();
        assert_eq!((parsed.key, parsed.value), (Some(&b"k"[..]), Some(&b"v::w"[..])));
        assert_eq!(keyed.parse(b"::", 1).unwrap().key, Some(&b""[..]));
    }

    #[test]
    fn headers_come_first_then_the_key() {
        let full = format(&["parse.headers=true", "parse.key=true", "null.marker=NULL"]).unwrap();
        let parsed = full.parse(b"h:1,n:NULL\tk\tNULL", 1).unwrap();
        assert_eq!(parsed.headers, [(&b"h"[..], Some(&b"1"[..])), (&b"n"[..], None)]);
        assert_eq!((parsed.key, parsed.value), (Some(&b"k"[..]), None));
        assert_eq!(full.parse(b"NULL\tk\tv", 1).unwrap().headers, []);
        assert!(full.parse(b"NULL:x\tk\tv", 1).is_err());
    }

    #[test]
    fn a_line_without_its_separator_is_an_error_unless_errors_are_ignored() {
        let strict = format(&["parse.key=true"]).unwrap();
        let said = strict.parse(b"nokey", 7).unwrap_err().to_string();
        assert_eq!(said, "No key separator found on line number 7: 'nokey'");
        let lax = format(&["parse.key=true", "parse.headers=true", "ignore.error=true"]).unwrap();
        assert_eq!(lax.parse(b"v", 1).unwrap(), Line { key: None, value: Some(b"v"), headers: vec![] });
        assert_eq!(lax.parse(b"h\tk\tv", 1).unwrap().headers, [(&b"h"[..], None)]);
    }

    #[test]
    fn separators_must_differ_and_not_be_empty() {
        assert!(format(&["headers.delimiter=,"]).is_err());
        assert!(format(&["null.marker=:"]).is_err());
        assert!(format(&["key.separator="]).is_err());
    }
}
