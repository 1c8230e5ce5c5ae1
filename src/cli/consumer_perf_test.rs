//! `tidemill consumer-perf-test`: reads records as fast as it can and says what that took. Flags and lines are those
//! of Kafka's `kafka-consumer-perf-test`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::calendar::{format_time, now_ms};
use super::output::print;
use super::properties::{Properties, consumer_config, membership_config};
use super::topic_filter::TopicFilter;
use crate::client::{
    ClientError, Cluster, ConnectionConfig, GroupConsumer, GroupConsumerConfig, Start, TopicChoice,
    parse_bootstrap,
};

const POLL_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill consumer-perf-test --bootstrap-server 127.0.0.1:9092 --topic perf --num-records 1000000
  tidemill consumer-perf-test --bootstrap-server 127.0.0.1:9092 --include 'perf.*' --num-records 1000000 \\
      --show-detailed-stats --reporting-interval 1000

Properties of the consumer (--command-property): those of tidemill console-consumer.")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["topic", "include"])))]
pub(super) struct Options {
    /// The brokers to ask first.
    #[arg(long, value_name = "HOST:PORT,…", env = "TIDEMILL_BOOTSTRAP_SERVER")]
    bootstrap_server: String,
    /// The topic to read.
    #[arg(long)]
    topic: Option<String>,
    /// A regular expression of topics to read.
    #[arg(long, value_name = "REGEX")]
    include: Option<String>,
    /// How many records.
    #[arg(long, visible_alias = "messages", value_name = "COUNT")]
    num_records: u64,
    /// The group to read as a member of; one of its own unless given.
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Start with the next record to come where the group has no offset.
    #[arg(long)]
    from_latest: bool,
    /// Bytes fetched from one partition at a time.
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576)]
    fetch_size: i32,
    /// Taken and without effect: the system sizes socket buffers.
    #[arg(long, value_name = "BYTES")]
    socket_buffer_size: Option<u64>,
    /// Stop when no record comes for this long.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout: u64,
    /// Milliseconds between two lines of --show-detailed-stats.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    reporting_interval: u64,
    /// A line for each interval instead of one at the end.
    #[arg(long)]
    show_detailed_stats: bool,
    /// No first line with the names of the columns.
    #[arg(long)]
    hide_header: bool,
    /// How times are written; in UTC.
    #[arg(long, value_name = "PATTERN", default_value = "yyyy-MM-dd HH:mm:ss:SSS")]
    date_format: String,
    /// How records are fetched.
    #[arg(long = "command-property", value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// A properties file of the same.
    #[arg(long = "consumer.config", visible_alias = "command-config", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let mut consumer = open(options)?;
    if !options.hide_header {
        let first = if options.show_detailed_stats { "time, threadId" } else { "start.time, end.time" };
        print(&format!(
            "{first}, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
        ))?;
    }
    let (begun, begun_ms) = (Instant::now(), now_ms());
    let mut total = Total::default();
    let mut last = Interval { end: begun, total, rebalance: Duration::ZERO };
    let mut rebalance = Duration::ZERO;
    let mut last_came = begun;
    let timeout = Duration::from_millis(options.timeout);
    while total.records < options.num_records && last_came.elapsed() <= timeout {
        let records = match consumer.poll(POLL_WAIT) {
            Ok(records) => records,
            Err(error) if error.is_retriable() => continue,
            Err(error) => return Err(error),
        };
        if !records.is_empty() {
            last_came = Instant::now();
        }
        for record in &records {
            let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len) as u64;
            total.records += 1;
            total.bytes += length(&record.key) + length(&record.value);
        }
        rebalance += consumer.take_rebalance_time();
        let elapsed = last.end.elapsed();
        if !records.is_empty() && elapsed >= Duration::from_millis(options.reporting_interval) {
            if options.show_detailed_stats {
                print(&last.line(options, total, elapsed, rebalance))?;
            }
            last = Interval { end: Instant::now(), total, rebalance };
        }
    }
    if total.records < options.num_records {
        print(&format!(
            "WARNING: Exiting before consuming the expected number of records: timeout ({} ms) exceeded. You can use the --timeout option to increase the timeout.\n",
            options.timeout
        ))?;
    }
    let (elapsed, end_ms) = (begun.elapsed(), now_ms());
    consumer.close()?;
    if options.show_detailed_stats {
        return Ok(());
    }
    let times = format!(
        "{}, {}",
        format_time(begun_ms, &options.date_format),
        format_time(end_ms, &options.date_format)
    );
    print(&format!("{times}, {}\n", figures(total, total, elapsed, rebalance)))
}

fn open(options: &Options) -> Result<GroupConsumer, ClientError> {
    let mut given = Properties::read(options.config.as_deref(), &options.properties)?;
    let mut consumer = consumer_config(&mut given)?;
    consumer.max_partition_fetch_bytes = options.fetch_size;
    consumer.reset = Some(if options.from_latest { Start::Latest } else { Start::Earliest });
    let group = options.group.clone().or(given.text("group.id"));
    let group = group.unwrap_or_else(|| format!("perf-consumer-{}", fastrand::u32(0..100_000)));
    let membership = membership_config(&mut given, &group)?;
    let client_id = given.text("client.id").unwrap_or_else(|| "perf-consumer-client".to_owned());
    given.warn_of_the_rest();
    let connection = ConnectionConfig { client_id, ..ConnectionConfig::default() };
    let cluster = Cluster::new(parse_bootstrap(&options.bootstrap_server)?, connection);
    let filter = options.include.as_deref().map(TopicFilter::parse).transpose()?;
    let choice = match (filter, &options.topic) {
        (Some(filter), _) => TopicChoice::Matching(Box::new(move |name| filter.takes(name, true))),
        (None, topic) => TopicChoice::Named(topic.iter().cloned().collect()),
    };
    let config = GroupConsumerConfig {
        membership,
        consumer,
        commit_interval: Some(Duration::from_secs(5)),
        metadata_max_age: Duration::from_secs(300),
    };
    Ok(GroupConsumer::new(cluster, choice, config))
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    records: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Interval {
    end: Instant,
    total: Total,
    rebalance: Duration,
}

impl Interval {
    fn line(&self, options: &Options, total: Total, elapsed: Duration, rebalance: Duration) -> String {
        let part =
            Total { records: total.records - self.total.records, bytes: total.bytes - self.total.bytes };
        let rebalance = rebalance.saturating_sub(self.rebalance);
        let time = format_time(now_ms(), &options.date_format);
        format!("{time}, 0, {}\n", figures(total, part, elapsed, rebalance))
    }
}

/// MB in all, MB a second, records in all, records a second, time of rebalances, of fetching, and both again by that.
fn figures(total: Total, part: Total, elapsed: Duration, rebalance: Duration) -> String {
    let megabytes = |total: Total| total.bytes as f64 / 1_048_576.0;
    let fetching = elapsed.saturating_sub(rebalance);
    let rate = |amount: f64, time: Duration| if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() };
    format!(
        "{:.4}, {:.4}, {}, {:.4}, {}, {}, {:.4}, {:.4}",
        megabytes(total),
        rate(megabytes(part), elapsed),
        total.records,
        rate(part.records as f64, elapsed),
        rebalance.as_millis(),
        fetching.as_millis(),
        rate(megabytes(part), fetching),
        rate(part.records as f64, fetching)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_kafkas_order() {
        let total = Total { records: 2000, bytes: 2 << 20 };
        let second = Duration::from_secs(1);
        assert_eq!(
            figures(total, total, second, second / 2),
            "2.0000, 2.0000, 2000, 2000.0000, 500, 500, 4.0000, 4000.0000"
        );
        assert_eq!(
            figures(Total::default(), Total::default(), Duration::ZERO, second),
            "0.0000, 0.0000, 0, 0.0000, 1000, 0, 0.0000, 0.0000"
        );
    }
}
