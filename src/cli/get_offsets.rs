//! `tidemill get-offsets`: offsets of partitions by time, one `topic:partition:offset` a line, as Kafka's
//! `kafka-get-offsets` prints them.

use regex::Regex;
use serde_json::json;

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json};
use super::topic_filter::{INTERNAL_TOPICS, TopicFilter};
use crate::client::{ClientError, TopicPartition};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill get-offsets --bootstrap-server 127.0.0.1:9092 --topic orders
  tidemill get-offsets --bootstrap-server 127.0.0.1:9092 --topic-partitions 'orders:0-3,audit.*' --time earliest
  tidemill get-offsets --bootstrap-server 127.0.0.1:9092 --time 1767225600000 --output json")]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// The topic, or a regular expression of topics; every topic unless given.
    #[arg(long)]
    topic: Option<String>,
    /// Numbers of partitions, with commas between them.
    #[arg(long, value_name = "N,…", conflicts_with = "topic_partitions")]
    partitions: Option<String>,
    /// Patterns: topic, topic:3, topic:0-3 (without 3), topic:3-, topic:-3; the topic is a regular expression.
    #[arg(long, value_name = "TOPIC:N,…", conflicts_with = "topic")]
    topic_partitions: Option<String>,
    /// latest, earliest, max-timestamp, earliest-local, latest-tiered, earliest-pending-upload, or milliseconds.
    #[arg(long, value_name = "WHEN", default_value = "latest", allow_hyphen_values = true)]
    time: String,
    /// Leave Kafka's own topics out.
    #[arg(long)]
    exclude_internal_topics: bool,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let result = get_offsets(options);
    result.map_err(|error| ClientError::Usage(format!("Error occurred: {}", error.told())))
}

fn get_offsets(options: &Options) -> Result<(), ClientError> {
    let timestamp_ms = parse_time(&options.time)?;
    let patterns = patterns(options)?;
    let mut admin = options.admin.admin()?;
    let mut wanted = Vec::new();
    for topic in admin.cluster().describe(None, false)? {
        let Some(name) = topic.name.as_ref().map(|name| name.0.as_str()) else { continue };
        if options.exclude_internal_topics && INTERNAL_TOPICS.contains(&name) {
            continue;
        }
        let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
        let numbers = numbers.filter(|number| patterns.iter().any(|pattern| pattern.takes(name, *number)));
        wanted.extend(numbers.map(|number| (TopicPartition::new(name, number), timestamp_ms)));
    }
    if wanted.is_empty() {
        let none = "Could not match any topic-partitions with the specified filters";
        return Err(ClientError::Usage(none.to_owned()));
    }
    wanted.sort_unstable();
    let results = admin.list_offsets(&wanted)?;
    let mut text = String::new();
    let mut documents = Vec::new();
    for (key, result) in results {
        let TopicPartition { topic, partition } = &key;
        match result {
            // No record is that new.
            Ok(offset) if offset < 0 => {}
            Ok(offset) => {
                text.push_str(&format!("{topic}:{partition}:{offset}\n"));
                documents.push(json!({"topic": topic, "partition": partition, "offset": offset}));
            }
            Err(error) => {
                eprintln!("Skip getting offsets for topic-partition {key} due to error: {}", error.told())
            }
        }
    }
    if options.output.is_json() { print_json(&json!(documents)) } else { print(&text) }
}

fn parse_time(text: &str) -> Result<i64, ClientError> {
    let names =
        ["latest", "earliest", "max-timestamp", "earliest-local", "latest-tiered", "earliest-pending-upload"];
    if let Some(index) = names.iter().position(|name| *name == text) {
        return Ok(-1 - i64::try_from(index).unwrap_or_default());
    }
    text.trim().parse().map_err(|_| {
        ClientError::Usage(format!(
            "Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / -4 or earliest-local / -5 or latest-tiered / -6 or earliest-pending-upload, or a specified long format timestamp"
        ))
    })
}

/// Which partitions are wanted: one of the patterns has to take them.
#[derive(Debug)]
struct Pattern {
    topic: TopicFilter,
    first: i32,
    /// The first that is not wanted any more.
    end: i32,
    only: Option<Vec<i32>>,
}

impl Pattern {
    fn takes(&self, topic: &str, partition: i32) -> bool {
        let listed = self.only.as_ref().is_none_or(|only| only.contains(&partition));
        listed && (self.first..self.end).contains(&partition) && self.topic.takes(topic, false)
    }

    fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Usage(format!("Invalid topic-partition rule: {text}"));
        let (topic, numbers) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str, default: i32| -> Result<i32, ClientError> {
            if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| wrong()) }
        };
        let (first, end) = match numbers.split_once('-') {
            Some((first, end)) => (number(first, 0)?, number(end, i32::MAX)?),
            None if numbers.is_empty() => (0, i32::MAX),
            None => {
                let one = number(numbers, 0)?;
                (one, one.saturating_add(1))
            }
        };
        // A topic that is left out is any.
        let topic = if topic.is_empty() { TopicFilter::all() } else { TopicFilter::parse(topic)? };
        Ok(Self { topic, first, end, only: None })
    }
}

fn patterns(options: &Options) -> Result<Vec<Pattern>, ClientError> {
    if let Some(text) = &options.topic_partitions {
        let rule = Regex::new("^[^:,]*(:[0-9]*(-[0-9]*)?)?$").expect("the pattern is sound");
        let wrong = |text: &str| ClientError::Usage(format!("Invalid topic-partition rule: {text}"));
        return text
            .split(',')
            .map(str::trim)
            .map(|one| if rule.is_match(one) { Pattern::parse(one) } else { Err(wrong(one)) })
            .collect();
    }
    let topic = TopicFilter::parse_optional(options.topic.as_deref())?;
    let only = match options.partitions.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.split(',')
                .map(|one| {
                    one.trim().parse().map_err(|_| {
                        ClientError::Usage(format!("--partitions expects a comma separated list of numeric partition ids, but received: {text}"))
                    })
                })
                .collect::<Result<Vec<i32>, _>>()?,
        ),
    };
    Ok(vec![Pattern { topic, first: 0, end: i32::MAX, only }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_names_or_milliseconds() {
        assert_eq!(parse_time("latest").unwrap(), -1);
        assert_eq!(parse_time("latest-tiered").unwrap(), -5);
        assert_eq!(parse_time("-6").unwrap(), -6);
        assert_eq!(parse_time("1700000000000").unwrap(), 1_700_000_000_000);
        assert!(
            parse_time("yesterday")
                .unwrap_err()
                .to_string()
                .starts_with("Malformed time argument yesterday.")
        );
    }

    #[test]
    fn patterns_take_a_partition_or_a_range_without_its_end() {
        let takes = |pattern: &str| {
            let pattern = Pattern::parse(pattern).unwrap();
            (0..5).filter(|number| pattern.takes("t1", *number)).collect::<Vec<i32>>()
        };
        assert_eq!(takes("t1"), [0, 1, 2, 3, 4]);
        assert_eq!(takes("t.*:2"), [2]);
        assert_eq!(takes(":1-3"), [1, 2]);
        assert_eq!((takes("t1:3-"), takes("t1:-2"), takes("t2")), (vec![3, 4], vec![0, 1], vec![]));
        assert!(Pattern::parse("t:x").is_err());
    }
}
