//! `tidemill log-dirs`: what lies in the brokers' log directories. Flags and the JSON are those of Kafka's
//! `kafka-log-dirs`.

use serde_json::{Map, Value, json};

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json, table};
use crate::client::{Admin, ClientError, LogDirDescription};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill log-dirs --bootstrap-server 127.0.0.1:9092 --describe
  tidemill log-dirs --bootstrap-server 127.0.0.1:9092 --describe --topic-list orders,audit --broker-list 0,1
  tidemill log-dirs --bootstrap-server 127.0.0.1:9092 --describe --table

The text is two lines and one line of JSON, which Kafka's tool prints; --output json prints the JSON alone.")]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// Describe the log directories.
    #[arg(long, required = true)]
    describe: bool,
    /// Topics, with commas between them; all unless given.
    #[arg(long, value_name = "TOPIC,…", default_value = "")]
    topic_list: String,
    /// Brokers, with commas between them; all unless given.
    #[arg(long, value_name = "NODE,…", default_value = "")]
    broker_list: String,
    /// A table for people instead of JSON.
    #[arg(long, conflicts_with = "output")]
    table: bool,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let mut admin = options.admin.admin()?;
    let brokers = chosen_brokers(&mut admin, &options.broker_list)?;
    let topics: Vec<&str> = options.topic_list.split(',').filter(|topic| !topic.is_empty()).collect();
    let plain = !options.output.is_json() && !options.table;
    if plain {
        print("Querying brokers for log directories information\n")?;
    }
    let mut described = Vec::new();
    for broker in &brokers {
        let mut directories = admin.describe_log_dirs(*broker, None)?;
        if !topics.is_empty() {
            for directory in &mut directories {
                directory.replicas.retain(|(key, ..)| topics.contains(&key.topic.as_str()));
            }
        }
        described.push((*broker, directories));
    }
    if options.table {
        return print(&as_table(&described));
    }
    if plain {
        let brokers: Vec<String> = brokers.iter().map(i32::to_string).collect();
        print(&format!("Received log directory information from brokers {}\n", brokers.join(",")))?;
        return print(&format!("{}\n", document(&described)));
    }
    print_json(&document(&described))
}

fn chosen_brokers(admin: &mut Admin, list: &str) -> Result<Vec<i32>, ClientError> {
    let there = admin.cluster().node_ids()?;
    if list.is_empty() {
        return Ok(there);
    }
    let mut wanted = Vec::new();
    for one in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let node =
            one.parse().map_err(|_| ClientError::Usage(format!("'{one}' is not a broker's number")))?;
        wanted.push(node);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let joined = |nodes: &[i32]| nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let missing: Vec<i32> = wanted.iter().copied().filter(|node| !there.contains(node)).collect();
    if !missing.is_empty() {
        return Err(ClientError::Usage(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            joined(&missing),
            joined(&there)
        )));
    }
    Ok(wanted)
}

fn document(described: &[(i32, Vec<LogDirDescription>)]) -> Value {
    let directory = |one: &LogDirDescription| {
        let error = (one.error_code != 0).then(|| format!("error {}", one.error_code));
        let partitions: Vec<Value> = one
            .replicas
            .iter()
            .map(|(key, size_bytes, lag, is_future)| {
                json!({"partition": key.to_string(), "size": size_bytes, "offsetLag": lag, "isFuture": is_future})
            })
            .collect();
        let mut fields = Map::new();
        fields.insert("partitions".to_owned(), json!(partitions));
        fields.insert("error".to_owned(), json!(error));
        fields.insert("logDir".to_owned(), json!(one.path));
        Value::Object(fields)
    };
    let brokers: Vec<Value> = described
        .iter()
        .map(|(broker, directories)| {
            json!({"broker": broker, "logDirs": directories.iter().map(directory).collect::<Vec<_>>()})
        })
        .collect();
    json!({"brokers": brokers, "version": 1})
}

fn as_table(described: &[(i32, Vec<LogDirDescription>)]) -> String {
    let mut rows = Vec::new();
    for (broker, directories) in described {
        for directory in directories {
            for (key, size_bytes, lag, is_future) in &directory.replicas {
                rows.push(vec![
                    broker.to_string(),
                    directory.path.clone(),
                    key.to_string(),
                    size_bytes.to_string(),
                    lag.to_string(),
                    is_future.to_string(),
                ]);
            }
        }
    }
    table(&["BROKER", "LOG-DIR", "PARTITION", "SIZE", "LAG", "FUTURE"], &[], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::TopicPartition;

    #[test]
    fn the_json_is_that_of_kafka_log_dirs() {
        let directory = LogDirDescription {
            path: "/d".to_owned(),
            error_code: 0,
            total_bytes: 9,
            usable_bytes: 8,
            replicas: vec![(TopicPartition::new("t", 2), 72, 0, false)],
        };
        let described = [(1, vec![directory])];
        let wanted: Value = serde_json::from_str(
            r#"{"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"t-2","size":72,"offsetLag":0,"isFuture":false}],"error":null,"logDir":"/d"}]}],"version":1}"#,
        )
        .unwrap();
        assert_eq!(document(&described), wanted);
        assert!(as_table(&described).ends_with("1      /d      t-2       72   0   false\n"));
    }
}
