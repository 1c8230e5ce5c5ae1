//! `tidemill producer-perf-test`: writes records as fast as it can, or as told, and says what that took. Flags and
//! lines are those of Kafka's `kafka-producer-perf-test`.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::output::print;
use super::producer_properties::producer_properties;
use super::properties::Properties;
use crate::client::{ClientError, Cluster, Producer, Record, parse_bootstrap};

/// Latencies that are kept for the percentiles at most.
const SAMPLES_MAX: u64 = 500_000;
/// How often answers are looked for while records follow each other without a pause.
const COLLECT_EVERY: u64 = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill producer-perf-test --bootstrap-server 127.0.0.1:9092 --topic perf --num-records 1000000 \\
      --record-size 100 --throughput -1 --command-property linger.ms=5 batch.size=65536
  tidemill producer-perf-test --bootstrap-server 127.0.0.1:9092 --topic perf --num-records 1000 \\
      --payload-file lines.txt --throughput 500

Properties of the producer (--command-property): those of tidemill console-producer.")]
#[command(group(clap::ArgGroup::new("payload").required(true).args(["record_size", "payload_file", "payload_monotonic"])))]
pub(super) struct Options {
    /// The brokers to ask first; otherwise bootstrap.servers of the properties.
    #[arg(long, value_name = "HOST:PORT,…", env = "TIDEMILL_BOOTSTRAP_SERVER")]
    bootstrap_server: Option<String>,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// How many records.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    num_records: u64,
    /// Records a second, roughly; -1 does not hold back.
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    throughput: f64,
    /// Bytes of a record.
    #[arg(long, value_name = "BYTES")]
    record_size: Option<usize>,
    /// A text file of which a random piece is each record's value.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// What is between the pieces.
    #[arg(long, value_name = "TEXT", default_value = "\\n")]
    payload_delimiter: String,
    /// The value is a number that counts up.
    #[arg(long)]
    payload_monotonic: bool,
    /// Records at the start that the last line leaves out.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    warmup_records: u64,
    /// Milliseconds between two lines.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    reporting_interval: u64,
    /// How records are sent.
    #[arg(long = "producer-props", visible_alias = "command-property", num_args = 1.., value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// A properties file of the same.
    #[arg(long = "producer.config", visible_alias = "command-config", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    if options.warmup_records >= options.num_records {
        return Err(ClientError::Usage(
            "The value for --warmup-records must be strictly fewer than the number of records in the test, --num-records.".to_owned(),
        ));
    }
    let mut given = Properties::read(options.config.as_deref(), &options.properties)?;
    let bootstrap = options.bootstrap_server.clone().or(given.text("bootstrap.servers"));
    let Some(bootstrap) = bootstrap else {
        return Err(ClientError::Usage("Give --bootstrap-server.".to_owned()));
    };
    given.set_default("client.id", Some("perf-producer-client".to_owned()));
    let (config, connection, patience) = producer_properties(&mut given)?;
    given.warn_of_the_rest();
    let payload = Payload::read(options)?;
    let cluster = Cluster::new(parse_bootstrap(&bootstrap)?, connection).with_patience(patience);
    let producer = Producer::new(cluster, config)?;
    if options.warmup_records > 0 {
        print(&format!(
            "Warmup first {} records. Steady state results will print after the complete test summary.\n",
            options.warmup_records
        ))?;
    }
    Test::new(options, producer).run(&payload)
}

/// What the values are.
#[derive(Debug)]
enum Payload {
    Random(Vec<u8>),
    Pieces(Vec<Vec<u8>>),
    Monotonic,
}

impl Payload {
    fn read(options: &Options) -> Result<Self, ClientError> {
        if let Some(size) = options.record_size {
            if size == 0 {
                return Err(ClientError::Usage("--record-size should be greater than zero.".to_owned()));
            }
            return Ok(Self::Random((0..size).map(|_| fastrand::u8(b'A'..=b'Z')).collect()));
        }
        let Some(path) = &options.payload_file else { return Ok(Self::Monotonic) };
        let wrong = |reason: String| ClientError::Usage(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let delimiter = options.payload_delimiter.replace("\\n", "\n").replace("\\t", "\t");
        let pieces = text.split(delimiter.as_str()).filter(|piece| !piece.is_empty());
        let pieces: Vec<Vec<u8>> = pieces.map(|piece| piece.as_bytes().to_vec()).collect();
        if pieces.is_empty() {
            return Err(wrong("File does not exist or empty file provided.".to_owned()));
        }
        Ok(Self::Pieces(pieces))
    }

    /// The value of a record by its number.
    fn value(&self, number: u64) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Self::Random(bytes) => bytes.into(),
            Self::Pieces(pieces) => {
                pieces.get(fastrand::usize(..pieces.len())).map(Vec::as_slice).unwrap_or_default().into()
            }
            Self::Monotonic => number.to_string().into_bytes().into(),
        }
    }
}

#[derive(Debug)]
struct Test<'a> {
    options: &'a Options,
    producer: Producer,
    /// Number, bytes and time of the records of each partition that are not acknowledged yet.
    waiting: BTreeMap<i32, VecDeque<(u64, usize, Instant)>>,
    all: Stats,
    steady: Option<Stats>,
    steady_said: bool,
    window: Window,
    failed: u64,
}

impl<'a> Test<'a> {
    fn new(options: &'a Options, producer: Producer) -> Self {
        Self {
            options,
            producer,
            waiting: BTreeMap::new(),
            all: Stats::new(options.num_records),
            steady: None,
            steady_said: false,
            window: Window::new(),
            failed: 0,
        }
    }

    fn run(mut self, payload: &Payload) -> Result<(), ClientError> {
        let begun = Instant::now();
        for number in 0..self.options.num_records {
            if self.options.throughput > 0.0 {
                self.hold_back(begun, number)?;
            }
            let value = payload.value(number);
            let record = Record { value: Some(&value), ..Record::default() };
            let sent = Instant::now();
            let partition = self.producer.send(&self.options.topic, &record)?;
            self.waiting.entry(partition).or_default().push_back((number, value.len(), sent));
            if number % COLLECT_EVERY == 0 {
                self.take_answers()?;
            }
        }
        self.producer.flush();
        self.take_answers()?;
        let mut text = self.all.line("records sent");
        if let Some(steady) = &mut self.steady {
            text.push_str(&steady.line("steady state records sent"));
        }
        print(&text)?;
        match self.failed {
            0 => Ok(()),
            count => Err(ClientError::Unavailable(format!("{count} records are not acknowledged"))),
        }
    }

    /// Waits until it is this record's time, taking answers and sending what has waited long enough.
    fn hold_back(&mut self, begun: Instant, number: u64) -> Result<(), ClientError> {
        let due = begun + Duration::from_secs_f64(number as f64 / self.options.throughput);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.producer.poll();
            self.take_answers()?;
            std::thread::sleep(left.min(Duration::from_millis(1)));
        }
    }

    fn take_answers(&mut self) -> Result<(), ClientError> {
        self.producer.collect();
        for delivery in self.producer.take_deliveries() {
            let waiting = self.waiting.entry(delivery.partition).or_default();
            let count = usize::try_from(delivery.records).unwrap_or_default().min(waiting.len());
            let records: Vec<_> = waiting.drain(..count).collect();
            if let Err(error) = &delivery.result {
                eprintln!("tidemill: {count} records are not acknowledged: {error}");
                self.failed += records.len() as u64;
                continue;
            }
            let now = Instant::now();
            for (number, bytes, sent) in records {
                let latency_ms = now.saturating_duration_since(sent).as_millis() as u64;
                self.all.record(latency_ms, bytes);
                self.window.record(latency_ms, bytes);
                if self.options.warmup_records > 0 && number >= self.options.warmup_records {
                    let left = self.options.num_records - self.options.warmup_records;
                    self.steady.get_or_insert_with(|| Stats::new(left)).record(latency_ms, bytes);
                }
            }
        }
        if self.window.begun.elapsed() >= Duration::from_millis(self.options.reporting_interval) {
            if self.steady.is_some() && !std::mem::replace(&mut self.steady_said, true) {
                print("In steady state.\n")?;
            }
            if self.window.count > 0 {
                print(&self.window.line())?;
            }
            self.window = Window::new();
        }
        Ok(())
    }
}

/// What came since the last line.
#[derive(Debug)]
struct Window {
    begun: Instant,
    count: u64,
    bytes: u64,
    total_ms: u64,
    max_ms: u64,
}

impl Window {
    fn new() -> Self {
        Self { begun: Instant::now(), count: 0, bytes: 0, total_ms: 0, max_ms: 0 }
    }

    fn record(&mut self, latency_ms: u64, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        self.total_ms += latency_ms;
        self.max_ms = self.max_ms.max(latency_ms);
    }

    fn line(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        format!(
            "{} records sent, {:.1} records/sec ({:.2} MB/sec), {:.1} ms avg latency, {:.1} ms max latency.\n",
            self.count,
            self.count as f64 / seconds,
            self.bytes as f64 / seconds / 1_048_576.0,
            self.total_ms as f64 / self.count as f64,
            self.max_ms as f64
        )
    }
}

/// What came in all.
#[derive(Debug)]
struct Stats {
    window: Window,
    sampling: u64,
    latencies_ms: Vec<u64>,
}

impl Stats {
    fn new(records: u64) -> Self {
        Self {
            window: Window::new(),
            sampling: records.div_ceil(SAMPLES_MAX).max(1),
            latencies_ms: Vec::new(),
        }
    }

    fn record(&mut self, latency_ms: u64, bytes: usize) {
        if self.window.count.is_multiple_of(self.sampling) {
            self.latencies_ms.push(latency_ms);
        }
        self.window.record(latency_ms, bytes);
    }

    fn line(&mut self, what: &str) -> String {
        let seconds = self.window.begun.elapsed().as_secs_f64();
        self.latencies_ms.sort_unstable();
        let at = |part: f64| {
            let index = (part * self.latencies_ms.len() as f64) as usize;
            self.latencies_ms.get(index).copied().unwrap_or_default()
        };
        let count = self.window.count;
        format!(
            "{count} {what}, {:.6} records/sec ({:.2} MB/sec), {:.2} ms avg latency, {:.2} ms max latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.\n",
            count as f64 / seconds,
            self.window.bytes as f64 / seconds / 1_048_576.0,
            self.window.total_ms as f64 / count.max(1) as f64,
            self.window.max_ms as f64,
            at(0.5),
            at(0.95),
            at(0.99),
            at(0.999)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_kafkas_percentiles() {
        let mut stats = Stats::new(1000);
        for latency_ms in 0..1000 {
            stats.record(latency_ms, 10);
        }
        let line = stats.line("records sent");
        assert!(line.starts_with("1000 records sent, "), "{line}");
        let end = "499.50 ms avg latency, 999.00 ms max latency, 500 ms 50th, 950 ms 95th, 990 ms 99th, 999 ms 99.9th.\n";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn latencies_of_long_tests_are_sampled() {
        let mut stats = Stats::new(2 * SAMPLES_MAX);
        (0..10).for_each(|_| stats.record(1, 1));
        assert_eq!((stats.window.count, stats.latencies_ms.len()), (10, 5));
    }
}
