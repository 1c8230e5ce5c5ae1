//! `tidemill consumer-groups`: groups listed, described, deleted; their offsets reset and deleted. Flags, tables and
//! exit codes are those of Kafka's `kafka-consumer-groups`: a group that is not there is told, and is no failure.

mod describe;
mod duration;
mod reset;

use std::path::PathBuf;

use serde_json::json;

pub(super) use describe::member_document;

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json, table};
use crate::client::{Admin, ClientError, GroupListing, TopicPartition};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill consumer-groups --bootstrap-server 127.0.0.1:9092 --list --state
  tidemill consumer-groups --bootstrap-server 127.0.0.1:9092 --describe --group billing
  tidemill consumer-groups --bootstrap-server 127.0.0.1:9092 --describe --all-groups --members --verbose
  tidemill consumer-groups --bootstrap-server 127.0.0.1:9092 --group billing --topic orders:0,1 \\
      --reset-offsets --to-datetime 2026-01-01T00:00:00.000 --execute
  tidemill consumer-groups --bootstrap-server 127.0.0.1:9092 --delete --group billing

Offsets are reset for a group without members only. Without --execute the plan is shown and nothing changes.")]
#[command(group(clap::ArgGroup::new("action").required(true)
    .args(["list", "describe", "delete", "reset_offsets", "delete_offsets", "validate_regex"])))]
#[command(group(clap::ArgGroup::new("view").args(["members", "offsets"])))]
#[command(group(clap::ArgGroup::new("target").args(
    ["to_earliest", "to_latest", "to_current", "to_offset", "shift_by", "to_datetime", "by_duration", "from_file"])))]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// List the groups.
    #[arg(long)]
    list: bool,
    /// Show groups: their offsets unless --members or --state is given.
    #[arg(long)]
    describe: bool,
    /// Delete groups that have no members.
    #[arg(long)]
    delete: bool,
    /// Set offsets of a group that has no members.
    #[arg(long)]
    reset_offsets: bool,
    /// Delete a group's offsets of topics that it does not read.
    #[arg(long, requires = "topic", requires = "group")]
    delete_offsets: bool,
    /// Check a regular expression of topics.
    #[arg(long, value_name = "REGEX")]
    validate_regex: Option<String>,
    /// The group; may be repeated.
    #[arg(long, value_name = "ID")]
    group: Vec<String>,
    /// Every group.
    #[arg(long, conflicts_with = "group")]
    all_groups: bool,
    /// Show the members.
    #[arg(long, requires = "describe")]
    members: bool,
    /// Show the offsets.
    #[arg(long, requires = "describe")]
    offsets: bool,
    /// With --describe: the state of the group; with --list: states, or only groups in one of these.
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "STATE,…")]
    state: Option<String>,
    /// With --list: types, or only groups of one of these.
    #[arg(long = "type", num_args = 0..=1, default_missing_value = "", value_name = "TYPE,…", requires = "list")]
    kind: Option<String>,
    /// Show more.
    #[arg(long, requires = "describe")]
    verbose: bool,
    /// The topic, or topic:0,1 for some of its partitions; may be repeated.
    #[arg(long)]
    topic: Vec<String>,
    /// Every topic that the group has offsets of.
    #[arg(long, requires = "reset_offsets", conflicts_with = "topic")]
    all_topics: bool,
    /// To the first record.
    #[arg(long, requires = "reset_offsets")]
    to_earliest: bool,
    /// To the next record.
    #[arg(long, requires = "reset_offsets")]
    to_latest: bool,
    /// To where the group is; to the next record where it is nowhere.
    #[arg(long, requires = "reset_offsets")]
    to_current: bool,
    /// To this offset, or the nearest that is there.
    #[arg(long, value_name = "OFFSET", requires = "reset_offsets", allow_hyphen_values = true)]
    to_offset: Option<i64>,
    /// By so many records, forwards or backwards.
    #[arg(long, value_name = "COUNT", requires = "reset_offsets", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record at this time or after: YYYY-MM-DDThh:mm:ss.sss, in UTC unless an offset follows.
    #[arg(long, value_name = "TIME", requires = "reset_offsets")]
    to_datetime: Option<String>,
    /// To the first record that is no older: PnDTnHnMnS.
    #[arg(long, value_name = "DURATION", requires = "reset_offsets")]
    by_duration: Option<String>,
    /// To the offsets of a CSV file of topic,partition,offset, or group,topic,partition,offset for several groups.
    #[arg(long, value_name = "FILE", requires = "reset_offsets")]
    from_file: Option<PathBuf>,
    /// Do it.
    #[arg(long, requires = "reset_offsets", conflicts_with = "dry_run")]
    execute: bool,
    /// Show what would be done, which is the default.
    #[arg(long, requires = "reset_offsets")]
    dry_run: bool,
    /// Show the result as CSV, which --from-file takes.
    #[arg(long, requires = "reset_offsets")]
    export: bool,
    /// How long a call may take; the properties file's request.timeout.ms unless given.
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    if let Some(pattern) = &options.validate_regex {
        return match super::topic_filter::TopicFilter::parse(pattern) {
            Ok(_) => print("The regular expression is valid.\n"),
            Err(error) => Err(error),
        };
    }
    let needs_group = options.describe || options.delete || options.reset_offsets;
    if needs_group && options.group.is_empty() && !options.all_groups {
        return Err(ClientError::Usage("Give --group or --all-groups.".to_owned()));
    }
    let mut admin = options.admin.admin()?;
    if let Some(timeout_ms) = options.timeout {
        admin = admin.with_timeout(std::time::Duration::from_millis(timeout_ms));
    }
    let result = if options.list {
        list(options, &mut admin)
    } else if options.describe {
        describe::run(options, &mut admin)
    } else if options.delete {
        delete(options, &mut admin)
    } else if options.reset_offsets {
        reset::run(options, &mut admin)
    } else {
        delete_offsets(options, &mut admin)
    };
    match result {
        // Kafka's tool says it on standard output and ends well; scripts read the table.
        Err(error) if !options.output.is_json() && error.code().is_some() => {
            print(&format!("\nError: Executing consumer group command failed due to {}\n", error.told()))
        }
        result => result,
    }
}

/// The groups that are meant, in order.
fn chosen(options: &Options, admin: &mut Admin) -> Result<Vec<String>, ClientError> {
    if !options.all_groups {
        return Ok(options.group.clone());
    }
    Ok(consumer_groups(admin, &[], &[])?.into_iter().map(|group| group.id).collect())
}

/// The groups of consumers, those that only have offsets among them.
fn consumer_groups(
    admin: &mut Admin,
    states: &[String],
    kinds: &[String],
) -> Result<Vec<GroupListing>, ClientError> {
    let mut groups = admin.list_groups(states, kinds)?;
    let consumers = |group: &GroupListing| {
        matches!(group.protocol_type.as_str(), "consumer" | "")
            && matches!(group.kind.as_str(), "classic" | "consumer")
    };
    groups.retain(consumers);
    Ok(groups)
}

fn list(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let split = |text: &Option<String>| -> Vec<String> {
        let text = text.as_deref().unwrap_or_default();
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    };
    let states =
        split(&options.state).iter().map(|state| state_named(state)).collect::<Result<Vec<_>, _>>()?;
    let kinds: Vec<String> = split(&options.kind).iter().map(|kind| kind.to_lowercase()).collect();
    if let Some(wrong) = kinds.iter().find(|kind| !["classic", "consumer"].contains(&kind.as_str())) {
        return Err(ClientError::Usage(format!(
            "Invalid types list '{wrong}'. Valid types are: Consumer, Classic"
        )));
    }
    let groups = consumer_groups(admin, &states, &kinds)?;
    if options.output.is_json() {
        let all: Vec<serde_json::Value> = groups
            .iter()
            .map(|group| json!({"group": group.id, "type": capitalized(&group.kind), "state": group.state}))
            .collect();
        return print_json(&json!(all));
    }
    if options.state.is_none() && options.kind.is_none() {
        return print(&groups.iter().map(|group| format!("{}\n", group.id)).collect::<String>());
    }
    let mut heading = vec!["GROUP"];
    heading.extend(options.kind.is_some().then_some("TYPE"));
    heading.extend(options.state.is_some().then_some("STATE"));
    let row = |group: &GroupListing| {
        let mut row = vec![group.id.clone()];
        row.extend(options.kind.is_some().then(|| capitalized(&group.kind)));
        row.extend(options.state.is_some().then(|| group.state.clone()));
        row
    };
    let longest = groups.iter().map(|group| group.id.chars().count()).max().unwrap_or(0).max(15);
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    print(&table(&heading, &[longest + 10, 20, 20], &rows))
}

/// A state by its name in any case, with or without underscores.
fn state_named(text: &str) -> Result<String, ClientError> {
    const STATES: [&str; 7] =
        ["Assigning", "CompletingRebalance", "Dead", "Empty", "PreparingRebalance", "Reconciling", "Stable"];
    let plain = text.replace('_', "");
    let found = STATES.iter().find(|state| state.eq_ignore_ascii_case(&plain));
    found.map(|state| (*state).to_owned()).ok_or_else(|| {
        let valid = STATES.join(", ");
        ClientError::Usage(format!("Invalid state list '{text}'. Valid states are: {valid}"))
    })
}

fn capitalized(kind: &str) -> String {
    let mut signs = kind.chars();
    signs.next().map_or_else(String::new, |first| first.to_uppercase().chain(signs).collect())
}

fn delete(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for id in chosen(options, admin)? {
        match admin.delete_group(&id) {
            Ok(()) => done.push(id),
            Err(error) => failed.push((id, error)),
        }
    }
    if options.output.is_json() {
        let failed: Vec<serde_json::Value> =
            failed.iter().map(|(id, error)| json!({"group": id, "error": error.told()})).collect();
        return print_json(&json!({"deleted": done, "failed": failed}));
    }
    if failed.is_empty() {
        return print(&format!(
            "Deletion of requested consumer groups ('{}') was successful.\n",
            done.join("', '")
        ));
    }
    let mut text = "\nError: Deletion of some consumer groups failed:\n".to_owned();
    for (id, error) in failed {
        text.push_str(&format!("* Group '{id}' could not be deleted due to: {}\n", error.told()));
    }
    if !done.is_empty() {
        text.push_str(&format!(
            "\nThese consumer groups were deleted successfully: '{}'\n",
            done.join("', '")
        ));
    }
    print(&text)
}

fn delete_offsets(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let [id] = options.group.as_slice() else {
        return Err(ClientError::Usage("--delete-offsets takes one group".to_owned()));
    };
    let partitions = partitions_of(admin, &options.topic)?;
    let results = admin.delete_offsets(id, &partitions)?;
    if options.output.is_json() {
        let all: Vec<serde_json::Value> = results
            .iter()
            .map(|(key, result)| {
                let error = result.as_ref().err().map(ClientError::told);
                json!({"topic": key.topic, "partition": key.partition, "error": error})
            })
            .collect();
        return print_json(&json!(all));
    }
    let failed = results.values().any(Result::is_err);
    let mut text = if failed {
        format!("\nError: Encountered some partition-level errors when deleting offsets from group {id}.\n")
    } else {
        format!("Request succeeded for deleting offsets from group {id}.\n")
    };
    let row = |(key, result): (&TopicPartition, &Result<(), ClientError>)| {
        let status = match result {
            Ok(()) => "Successful".to_owned(),
            Err(error) => format!("Error: {}", error.told()),
        };
        vec![key.topic.clone(), key.partition.to_string(), status]
    };
    let rows: Vec<Vec<String>> = results.iter().map(row).collect();
    text.push('\n');
    text.push_str(&table(&["TOPIC", "PARTITION", "STATUS"], &[15, 10, 15], &rows));
    print(&text)
}

/// `topic` is all of its partitions, `topic:0,1` those two; sorted.
fn partitions_of(admin: &mut Admin, topics: &[String]) -> Result<Vec<TopicPartition>, ClientError> {
    let mut found = Vec::new();
    for one in topics {
        match one.split_once(':') {
            Some((topic, numbers)) => {
                for number in numbers.split(',') {
                    let number = number.trim().parse().map_err(|_| {
                        ClientError::Usage(format!("Invalid partition '{number}' of topic {topic}"))
                    })?;
                    found.push(TopicPartition::new(topic, number));
                }
            }
            None => {
                let described = admin.describe_topics(std::slice::from_ref(one), i32::from(i16::MAX))?;
                let partitions = described.iter().flat_map(|topic| &topic.partitions);
                found.extend(partitions.map(|partition| TopicPartition::new(one, partition.index)));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
