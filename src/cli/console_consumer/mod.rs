//! `tidemill console-consumer`: records become lines of standard output. Flags, properties and the lines are those
//! of Kafka's `kafka-console-consumer`: as a member of a group, or for one partition that is named.

mod format;

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::properties::Properties;
use super::topic_filter::TopicFilter;
use crate::client::{
    ClientError, Cluster, ConnectionConfig, ConsumedRecord, Consumer, ConsumerConfig, GroupConsumer,
    GroupConsumerConfig, MembershipConfig, Start, TopicChoice, TopicPartition, parse_bootstrap,
};
use format::LineFormat;

const FETCH_WAIT: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic lines --from-beginning
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic orders --group billing --max-messages 10
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --include 'orders|audit.*' --timeout-ms 5000
  tidemill console-consumer --bootstrap-server 127.0.0.1:9092 --topic pairs --partition 0 --offset 10 \\
      --max-messages 5 --formatter-property print.key=true --formatter-property print.headers=true

With --partition that partition is read without a group. With --group the topics are read as a member of that group,
which commits as it goes. Without either every partition is read and nothing is committed.
Properties of a line (--formatter-property): print.timestamp, print.key, print.offset, print.epoch, print.partition,
print.headers (false), print.value (true), key.separator=\\t, line.separator=\\n, headers.separator=',',
null.literal=null, key.deserializer, value.deserializer, headers.deserializer.
Properties of the consumer (--command-property): fetch.min.bytes, fetch.max.bytes, max.partition.fetch.bytes,
auto.offset.reset, client.id, group.id, group.instance.id, session.timeout.ms, heartbeat.interval.ms,
max.poll.interval.ms, enable.auto.commit, auto.commit.interval.ms, metadata.max.age.ms, isolation.level.")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["topic", "include"])))]
pub(super) struct Options {
    /// The brokers to ask first.
    #[arg(long, value_name = "HOST:PORT,…", env = "TIDEMILL_BOOTSTRAP_SERVER")]
    bootstrap_server: String,
    /// The topic to read.
    #[arg(long)]
    topic: Option<String>,
    /// A regular expression of topics to read.
    #[arg(long, value_name = "REGEX", visible_alias = "whitelist")]
    include: Option<String>,
    /// The group to read as a member of.
    #[arg(long, value_name = "ID", conflicts_with = "partition")]
    group: Option<String>,
    /// The one partition to read.
    #[arg(long, value_name = "N", requires = "topic")]
    partition: Option<i32>,
    /// earliest, latest, or an offset.
    #[arg(long, requires = "partition", conflicts_with = "from_beginning")]
    offset: Option<String>,
    /// Start with the earliest records instead of the next to come, where the group has no offset.
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this many records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// Stop when no record comes for this long.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// A record that cannot be written is left out.
    #[arg(long)]
    skip_message_on_error: bool,
    /// read_committed or read_uncommitted.
    #[arg(long, value_name = "LEVEL", default_value = "read_uncommitted")]
    isolation_level: String,
    /// The deserializer of keys, by Kafka's name.
    #[arg(long, value_name = "NAME")]
    key_deserializer: Option<String>,
    /// The deserializer of values, by Kafka's name.
    #[arg(long, value_name = "NAME")]
    value_deserializer: Option<String>,
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
    let format = line_format(options)?;
    let start = start(options)?;
    let config = reader_config(options)?;
    let cluster = Cluster::new(parse_bootstrap(&options.bootstrap_server)?, config.connection.clone());
    let mut reader = Reader::open(options, cluster, config, start)?;
    let mut count = 0;
    let read = print_records(options, &format, &mut reader, &mut count);
    eprintln!("Processed a total of {count} messages");
    let closed = match reader {
        Reader::Member(member) => member.close(),
        Reader::Alone(_) => Ok(()),
    };
    read.and(closed)
}

fn line_format(options: &Options) -> Result<LineFormat, ClientError> {
    let mut property = options.property.clone();
    let flags = [("key", &options.key_deserializer), ("value", &options.value_deserializer)];
    for (what, name) in flags {
        property.extend(name.iter().map(|name| format!("{what}.deserializer={name}")));
    }
    LineFormat::read(options.formatter_config.as_deref(), &property)
}

/// Reads as a member of a group, or what was named.
#[derive(Debug)]
enum Reader {
    Member(Box<GroupConsumer>),
    Alone(Box<Consumer>),
}

impl Reader {
    fn open(
        options: &Options,
        cluster: Cluster,
        config: ReaderConfig,
        start: Start,
    ) -> Result<Self, ClientError> {
        let filter = options.include.as_deref().map(TopicFilter::parse).transpose()?;
        if let Some(membership) = config.membership {
            let choice = match (filter, &options.topic) {
                (Some(filter), _) => TopicChoice::Matching(Box::new(move |name| filter.takes(name, true))),
                (None, topic) => TopicChoice::Named(topic.iter().cloned().collect()),
            };
            let config = GroupConsumerConfig {
                membership,
                consumer: config.consumer,
                commit_interval: config.commit_interval,
                metadata_max_age: config.metadata_max_age,
            };
            return Ok(Self::Member(Box::new(GroupConsumer::new(cluster, choice, config))));
        }
        let mut consumer = Consumer::new(cluster, config.consumer);
        let topics = match (filter, &options.topic) {
            (Some(filter), _) => matching(&mut consumer, &filter)?,
            (None, topic) => topic.iter().cloned().collect(),
        };
        for topic in topics {
            let partitions = match options.partition {
                Some(partition) => vec![partition],
                None => consumer.partitions(&topic)?,
            };
            for partition in partitions {
                consumer.assign(&TopicPartition::new(&topic, partition), start)?;
            }
        }
        Ok(Self::Alone(Box::new(consumer)))
    }

    fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        match self {
            Self::Member(member) => member.poll(wait),
            Self::Alone(consumer) => consumer.poll(wait),
        }
    }

    /// What was polled and not written is not committed.
    fn give_back(&mut self, records: &[ConsumedRecord]) {
        let Self::Member(member) = self else { return };
        // In reverse, so that the first of each partition counts.
        for record in records.iter().rev() {
            member.seek(&TopicPartition::new(&record.topic, record.partition), record.offset);
        }
    }
}

fn matching(consumer: &mut Consumer, filter: &TopicFilter) -> Result<Vec<String>, ClientError> {
    let topics = consumer.cluster().describe(None, false)?;
    let names = topics.into_iter().filter_map(|topic| Some(topic.name?.0.as_str().to_owned()));
    let names: Vec<String> = names.filter(|name| filter.takes(name, true)).collect();
    if names.is_empty() {
        return Err(ClientError::Usage("No topic matches.".to_owned()));
    }
    Ok(names)
}

fn print_records(
    options: &Options,
    format: &LineFormat,
    reader: &mut Reader,
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
        let records = match reader.poll(wait) {
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
        let room = usize::try_from(limit - *count).unwrap_or(usize::MAX).min(records.len());
        let (wanted, unwanted) = records.split_at_checked(room).unwrap_or((&records, &[]));
        reader.give_back(unwanted);
        if !print_all(options, format, wanted, &mut out, count)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Gives false when nobody reads any more.
fn print_all(
    options: &Options,
    format: &LineFormat,
    records: &[ConsumedRecord],
    out: &mut impl Write,
    count: &mut u64,
) -> Result<bool, ClientError> {
    let mut written = Ok(());
    for record in records {
        *count += 1;
        written = format.write(record, out);
        match &written {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let wrong = format!("{}-{} at {}: {error}", record.topic, record.partition, record.offset);
                if !options.skip_message_on_error {
                    return Err(ClientError::Usage(format!("Error processing message: {wrong}")));
                }
                eprintln!("Error processing message, skipping this message: {wrong}");
                written = Ok(());
            }
            Err(_) => break,
            Ok(()) => {}
        }
    }
    if written.and_then(|()| out.flush()).is_err() {
        eprintln!("Unable to write to standard out, closing consumer.");
        return Ok(false);
    }
    Ok(true)
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

#[derive(Debug)]
struct ReaderConfig {
    consumer: ConsumerConfig,
    connection: ConnectionConfig,
    membership: Option<MembershipConfig>,
    commit_interval: Option<Duration>,
    metadata_max_age: Duration,
}

fn reader_config(options: &Options) -> Result<ReaderConfig, ClientError> {
    let mut given = Properties::read(options.consumer_config.as_deref(), &options.consumer_property)?;
    let mut consumer = super::properties::consumer_config(&mut given)?;
    if options.isolation_level == "read_committed" {
        consumer.read_committed = true;
    }
    if options.from_beginning && consumer.reset == Some(Start::Latest) {
        consumer.reset = Some(Start::Earliest);
    }
    let milliseconds = |number: Option<u64>, default| Duration::from_millis(number.unwrap_or(default));
    let group = options.group.clone().or(given.text("group.id")).filter(|_| options.partition.is_none());
    let membership = match group {
        Some(group) => Some(super::properties::membership_config(&mut given, &group)?),
        None => None,
    };
    let commits = given.switch("enable.auto.commit", true);
    let interval = milliseconds(given.number("auto.commit.interval.ms")?, 5000);
    let metadata_max_age = milliseconds(given.number("metadata.max.age.ms")?, 300_000);
    let client_id = given.text("client.id").unwrap_or_else(|| "console-consumer".to_owned());
    given.warn_of_the_rest();
    Ok(ReaderConfig {
        consumer,
        connection: ConnectionConfig { client_id, ..ConnectionConfig::default() },
        membership,
        commit_interval: commits.then_some(interval),
        metadata_max_age,
    })
}
