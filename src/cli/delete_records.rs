//! `tidemill delete-records`: records before given offsets are deleted. The file and the lines are those of Kafka's
//! `kafka-delete-records`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json};
use crate::client::{ClientError, TopicPartition};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  echo '{\"partitions\": [{\"topic\": \"orders\", \"partition\": 0, \"offset\": 1000}], \"version\": 1}' > offsets.json
  tidemill delete-records --bootstrap-server 127.0.0.1:9092 --offset-json-file offsets.json

An offset of -1 deletes everything up to the high watermark.")]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// The offset for each partition: {\"partitions\": [{\"topic\": …, \"partition\": …, \"offset\": …}], \"version\": 1}.
    #[arg(long, value_name = "FILE")]
    offset_json_file: PathBuf,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let path = options.offset_json_file.display();
    let text = std::fs::read_to_string(&options.offset_json_file)
        .map_err(|error| ClientError::Usage(format!("{path}: {error}")))?;
    let wanted = parse(&text).map_err(|reason| ClientError::Usage(format!("{path}: {reason}")))?;
    let mut admin = options.admin.admin()?;
    if !options.output.is_json() {
        print("Executing records delete operation\n")?;
    }
    let results = admin.delete_records(&wanted)?;
    if options.output.is_json() {
        let documents: Vec<Value> = results
            .iter()
            .map(|(key, result)| {
                let low_watermark = result.as_ref().ok();
                let error = result.as_ref().err().map(ClientError::told);
                json!({"topic": key.topic, "partition": key.partition, "lowWatermark": low_watermark, "error": error})
            })
            .collect();
        return print_json(&json!(documents));
    }
    let mut text = "Records delete operation completed:\n".to_owned();
    for (key, result) in results {
        text.push_str(&match result {
            Ok(low_watermark) => format!("partition: {key}\tlow_watermark: {low_watermark}\n"),
            Err(error) => format!("partition: {key}\terror: {}\n", error.told()),
        });
    }
    print(&text)
}

fn parse(text: &str) -> Result<Vec<(TopicPartition, i64)>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(version) = document.get("version").filter(|version| version.as_i64() != Some(1)) {
        return Err(format!("Not supported version field value {version}"));
    }
    let partitions = document.get("partitions").and_then(Value::as_array);
    let partitions = partitions.ok_or("Missing partitions field")?;
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    for one in partitions {
        let missing = |field: &str| format!("a partition has no usable field \"{field}\": {one}");
        let topic = one.get("topic").and_then(Value::as_str).ok_or_else(|| missing("topic"))?;
        let partition =
            one.get("partition").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
        let partition = TopicPartition::new(topic, partition.ok_or_else(|| missing("partition"))?);
        let offset = one.get("offset").and_then(Value::as_i64).ok_or_else(|| missing("offset"))?;
        if !seen.insert(partition.clone()) {
            return Err(format!("Offset json file contains duplicate topic partitions: {partition}"));
        }
        wanted.push((partition, offset));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_kafkas() {
        let text = r#"{"partitions": [{"topic": "a", "partition": 1, "offset": -1}], "version": 1}"#;
        assert_eq!(parse(text).unwrap(), [(TopicPartition::new("a", 1), -1)]);
        let twice = r#"{"partitions":[{"topic":"a","partition":1,"offset":1},{"topic":"a","partition":1,"offset":2}]}"#;
        assert_eq!(parse(twice).unwrap_err(), "Offset json file contains duplicate topic partitions: a-1");
        for wrong in ["", "[]", "{}", r#"{"version":2,"partitions":[]}"#, r#"{"partitions":[{"topic":"a"}]}"#]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
