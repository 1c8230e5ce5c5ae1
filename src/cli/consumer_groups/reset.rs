//! Offsets of groups without members, set to where the reader wants them: planned, shown, and with `--execute` done.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::duration::{parse_datetime, parse_duration};
use super::{Options, chosen, partitions_of, print, print_json, table};
use crate::cli::calendar::now_ms;
use crate::client::{Admin, ClientError, TopicPartition};

type Offsets = BTreeMap<TopicPartition, i64>;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

pub(super) fn run(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    if options.topic.is_empty() && !options.all_topics && options.from_file.is_none() {
        return Err(ClientError::Usage("Give the topics: --topic, --all-topics or --from-file.".to_owned()));
    }
    if !options.execute && !options.dry_run {
        eprintln!(
            "WARN: No action will be performed as the --execute option is missing. In version 5.0, this command will require either --dry-run or --execute to be specified. You should add the --dry-run option explicitly if you are scripting this command and want to keep the current default behavior without prompting."
        );
    }
    let mut plans: BTreeMap<String, Offsets> = BTreeMap::new();
    for id in chosen(options, admin)? {
        let state = admin.describe_group(&id)?.map_or_else(|| "Dead".to_owned(), |group| group.state);
        if !matches!(state.as_str(), "Empty" | "Dead") {
            print(&format!(
                "\nError: Assignments can only be reset if the group '{id}' is inactive, but the current state is {state}.\n"
            ))?;
            plans.insert(id, Offsets::new());
            continue;
        }
        let plan = plan(options, admin, &id)?;
        if options.execute && !plan.is_empty() {
            admin.set_offsets(&id, &plan)?;
        }
        plans.insert(id, plan);
    }
    show(options, &plans)
}

fn show(options: &Options, plans: &BTreeMap<String, Offsets>) -> Result<(), ClientError> {
    let rows = plans.iter().flat_map(|(id, plan)| plan.iter().map(move |(key, offset)| (id, key, offset)));
    if options.output.is_json() {
        let all: Vec<serde_json::Value> = rows
            .map(|(id, key, offset)| {
                json!({"group": id, "topic": key.topic, "partition": key.partition, "newOffset": offset})
            })
            .collect();
        return print_json(&json!(all));
    }
    if options.export {
        let one = options.group.len() == 1;
        let line = |(id, key, offset): (&String, &TopicPartition, &i64)| {
            let group = if one { String::new() } else { format!("{id},") };
            format!("{group}{},{},{offset}\n", key.topic, key.partition)
        };
        return print(&format!("{}\n", rows.map(line).collect::<String>()));
    }
    let rows: Vec<Vec<String>> = rows
        .map(|(id, key, offset)| {
            vec![id.clone(), key.topic.clone(), key.partition.to_string(), offset.to_string()]
        })
        .collect();
    let text = table(&["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"], &[15, 15, 10, 15], &rows);
    print(&format!("\n{text}"))
}

fn plan(options: &Options, admin: &mut Admin, id: &str) -> Result<Offsets, ClientError> {
    if let Some(path) = &options.from_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ClientError::Usage(format!("{}: {error}", path.display())))?;
        return within_the_log(admin, parse_csv(&text, options.group.len() == 1, id)?);
    }
    let committed: Offsets =
        admin.committed_offsets(id)?.into_iter().map(|(key, committed)| (key, committed.offset)).collect();
    let partitions = if options.all_topics {
        let topics: BTreeSet<String> = committed.keys().map(|key| key.topic.clone()).collect();
        partitions_of(admin, &topics.into_iter().collect::<Vec<_>>())?
    } else {
        partitions_of(admin, &options.topic)?
    };
    if let Some(offset) = options.to_offset {
        return within_the_log(admin, partitions.into_iter().map(|key| (key, offset)).collect());
    }
    if let Some(count) = options.shift_by {
        let shifted = partitions.into_iter().map(|key| match committed.get(&key) {
            Some(offset) => Ok((key, offset.saturating_add(count))),
            None => Err(ClientError::Usage(format!(
                "Cannot shift offset for partition {key} since there is no current committed offset"
            ))),
        });
        return within_the_log(admin, shifted.collect::<Result<_, _>>()?);
    }
    if options.to_current {
        let (mut kept, mut unknown) = (Offsets::new(), Vec::new());
        for key in partitions {
            match committed.get(&key) {
                Some(offset) => drop(kept.insert(key, *offset)),
                None => unknown.push(key),
            }
        }
        kept.extend(offsets_at(admin, &unknown, LATEST)?);
        return Ok(kept);
    }
    let timestamp_ms = target(options)?;
    let mut found = offsets_at(admin, &partitions, timestamp_ms)?;
    // No record is that new: the next one to come.
    let newer: Vec<TopicPartition> =
        found.iter().filter(|(_, offset)| **offset < 0).map(|(key, _)| key.clone()).collect();
    found.extend(offsets_at(admin, &newer, LATEST)?);
    Ok(found)
}

fn target(options: &Options) -> Result<i64, ClientError> {
    let wrong = |text: &str, form: &str| ClientError::Usage(format!("'{text}' is not of the form {form}"));
    if options.to_earliest {
        Ok(EARLIEST)
    } else if options.to_latest {
        Ok(LATEST)
    } else if let Some(text) = &options.to_datetime {
        parse_datetime(text).ok_or_else(|| wrong(text, "YYYY-MM-DDThh:mm:ss.sss"))
    } else if let Some(text) = &options.by_duration {
        let duration_ms = parse_duration(text).ok_or_else(|| wrong(text, "PnDTnHnMnS"))?;
        Ok(now_ms().saturating_sub(duration_ms).max(0))
    } else {
        Err(ClientError::Usage(
            "--reset-offsets needs one of --to-earliest, --to-latest, --to-current, --to-offset, --shift-by, --to-datetime, --by-duration, --from-file".to_owned(),
        ))
    }
}

fn offsets_at(
    admin: &mut Admin,
    partitions: &[TopicPartition],
    timestamp_ms: i64,
) -> Result<Offsets, ClientError> {
    let wanted: Vec<(TopicPartition, i64)> =
        partitions.iter().map(|key| (key.clone(), timestamp_ms)).collect();
    admin.list_offsets(&wanted)?.into_iter().map(|(key, result)| result.map(|offset| (key, offset))).collect()
}

/// Offsets that are not in the log become its nearest end, which is said.
fn within_the_log(admin: &mut Admin, wanted: Offsets) -> Result<Offsets, ClientError> {
    let partitions: Vec<TopicPartition> = wanted.keys().cloned().collect();
    let starts = offsets_at(admin, &partitions, EARLIEST)?;
    let ends = offsets_at(admin, &partitions, LATEST)?;
    let mut sound = Offsets::new();
    for (key, offset) in wanted {
        let start = starts.get(&key).copied().unwrap_or(0);
        let end = ends.get(&key).copied().unwrap_or(i64::MAX);
        let kept = offset.min(end).max(start);
        if kept != offset {
            let side = if offset > end { "higher than latest" } else { "lower than earliest" };
            eprintln!(
                "WARN: New offset ({offset}) is {side} offset for topic partition {key}. Value will be set to {kept}"
            );
        }
        sound.insert(key, kept);
    }
    Ok(sound)
}

/// Lines of `topic,partition,offset`, or of several groups with the group before.
fn parse_csv(text: &str, one_group: bool, id: &str) -> Result<Offsets, ClientError> {
    let mut found = Offsets::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let (group, fields) = match fields.as_slice() {
            [group, rest @ ..] if rest.len() == 3 => (*group, rest),
            rest if rest.len() == 3 && one_group => (id, rest),
            _ => return Err(unreadable(line)),
        };
        let [topic, partition, offset] = fields else { return Err(unreadable(line)) };
        let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else {
            return Err(unreadable(line));
        };
        if group == id {
            found.insert(TopicPartition::new(topic, partition), offset);
        }
    }
    if found.is_empty() {
        eprintln!("No reset plan for group {id} found");
    }
    Ok(found)
}

fn unreadable(line: &str) -> ClientError {
    ClientError::Usage(format!("'{line}' is not topic,partition,offset or group,topic,partition,offset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_for_one_group_or_for_several() {
        let one = parse_csv("t,0,5\n\"u\",1,6\n", true, "g").unwrap();
        assert_eq!(one, Offsets::from([(TopicPartition::new("t", 0), 5), (TopicPartition::new("u", 1), 6)]));
        let several = parse_csv("g,t,0,5\nh,t,0,9\n", false, "h").unwrap();
        assert_eq!(several, Offsets::from([(TopicPartition::new("t", 0), 9)]));
        assert!(parse_csv("t,0,5", false, "g").is_err() && parse_csv("t,x,5", true, "g").is_err());
    }
}
