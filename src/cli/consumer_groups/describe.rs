//! Groups shown: their offsets and lag, their members, or their state, in Kafka's tables.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Options, chosen, print, print_json, table};
use crate::client::{
    Admin, ClientError, CommittedOffset, GroupDescription, GroupMemberDescription, TopicPartition,
};

const LATEST: i64 = -1;
const GROUP_ID_NOT_FOUND: i16 = 69;

pub(super) fn run(options: &Options, admin: &mut Admin) -> Result<(), ClientError> {
    let mut documents = Vec::new();
    for id in chosen(options, admin)? {
        let Some(group) = admin.describe_group(&id)? else {
            return Err(ClientError::from_code(&format!("Group {id} not found"), GROUP_ID_NOT_FOUND));
        };
        if options.output.is_json() {
            let rows = offsets(admin, &group)?;
            documents.push(document(&group, &rows));
            continue;
        }
        let text = if options.members {
            members(&group, options.verbose)
        } else if options.state.is_some() {
            Some(state(&group, options.verbose))
        } else {
            let rows = offsets(admin, &group)?;
            (!rows.is_empty()).then(|| offsets_table(&group, &rows, options.verbose))
        };
        // On standard error, between the tables, as scripts that read those expect it.
        match group.state.as_str() {
            "Empty" => eprintln!("\nConsumer group '{id}' has no active members."),
            "Stable" => {}
            "Dead" => {
                print(&format!("\nError: Consumer group '{id}' does not exist.\n"))?;
                continue;
            }
            _ => eprintln!("\nWarning: Consumer group '{id}' is rebalancing."),
        }
        print(&text.map(|text| format!("\n{text}")).unwrap_or_default())?;
    }
    if options.output.is_json() { print_json(&json!(documents)) } else { Ok(()) }
}

/// One partition of a group, or a member without any.
#[derive(Debug)]
struct Row {
    partition: Option<TopicPartition>,
    leader_epoch: Option<i32>,
    committed: Option<i64>,
    log_end: Option<i64>,
    member: Option<GroupMemberDescription>,
}

impl Row {
    fn lag(&self) -> Option<i64> {
        Some(self.log_end? - self.committed?)
    }
}

/// What the members read, member by member, then what nobody reads.
fn offsets(admin: &mut Admin, group: &GroupDescription) -> Result<Vec<Row>, ClientError> {
    let committed = admin.committed_offsets(&group.id)?;
    let mut rows = rows(group, &committed);
    let wanted: Vec<(TopicPartition, i64)> =
        rows.iter().filter_map(|row| Some((row.partition.clone()?, LATEST))).collect();
    let ends = admin.list_offsets(&wanted)?;
    for row in &mut rows {
        let end = row.partition.as_ref().and_then(|key| ends.get(key));
        row.log_end = end.and_then(|end| end.as_ref().ok().copied());
    }
    Ok(rows)
}

fn rows(group: &GroupDescription, committed: &BTreeMap<TopicPartition, CommittedOffset>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut unread: BTreeMap<&TopicPartition, &CommittedOffset> = committed.iter().collect();
    let mut readers: Vec<&GroupMemberDescription> = group.members.iter().collect();
    readers.sort_by_key(|member| std::cmp::Reverse(member.assignment.len()));
    for member in readers {
        let row = |partition: Option<&TopicPartition>| Row {
            leader_epoch: partition.and_then(|key| committed.get(key)?.leader_epoch),
            committed: partition.and_then(|key| committed.get(key)).map(|one| one.offset),
            partition: partition.cloned(),
            log_end: None,
            member: Some(member.clone()),
        };
        for partition in &member.assignment {
            unread.remove(partition);
            rows.push(row(Some(partition)));
        }
        if member.assignment.is_empty() {
            rows.push(row(None));
        }
    }
    rows.extend(unread.into_iter().map(|(key, one)| Row {
        partition: Some(key.clone()),
        leader_epoch: one.leader_epoch,
        committed: Some(one.offset),
        log_end: None,
        member: None,
    }));
    rows
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn offsets_table(group: &GroupDescription, rows: &[Row], verbose: bool) -> String {
    let cells = |row: &Row| {
        let partition = row.partition.as_ref();
        let member = row.member.as_ref();
        let mut cells = vec![
            group.id.clone(),
            or_dash(partition.map(|key| &key.topic)),
            or_dash(partition.map(|key| key.partition)),
        ];
        cells.extend(verbose.then(|| or_dash(row.leader_epoch)));
        cells.extend([
            or_dash(row.committed),
            or_dash(row.log_end),
            or_dash(row.lag()),
            or_dash(member.map(|member| &member.id)),
            or_dash(member.map(|member| &member.host)),
            or_dash(member.map(|member| &member.client_id)),
        ]);
        cells
    };
    let mut heading = vec!["GROUP", "TOPIC", "PARTITION"];
    heading.extend(verbose.then_some("LEADER-EPOCH"));
    heading.extend(["CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID"]);
    let mut least = vec![15; heading.len() - 1];
    if let Some(width) = least.get_mut(2) {
        *width = 10;
    }
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table(&heading, &least, &rows)
}

/// `t:0,1;u:2`
fn shown_assignment(assignment: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in assignment {
        topics.entry(&one.topic).or_default().push(one.partition.to_string());
    }
    let topics: Vec<String> =
        topics.into_iter().map(|(name, numbers)| format!("{name}:{}", numbers.join(","))).collect();
    topics.join(";")
}

fn members(group: &GroupDescription, verbose: bool) -> Option<String> {
    let is_static = group.members.iter().any(|member| member.instance_id.is_some());
    let mut heading = vec!["GROUP", "CONSUMER-ID"];
    let mut least = vec![15, 15];
    if is_static {
        heading.push("GROUP-INSTANCE-ID");
        least.push(17);
    }
    heading.extend(["HOST", "CLIENT-ID", "#PARTITIONS"]);
    least.extend([15, 15, 15]);
    if verbose {
        heading.extend(["CURRENT-EPOCH", "CURRENT-ASSIGNMENT", "TARGET-EPOCH", "TARGET-ASSIGNMENT"]);
        least.extend([15, 20, 15]);
    }
    let row = |member: &GroupMemberDescription| {
        let mut row = vec![group.id.clone(), member.id.clone()];
        if is_static {
            row.push(member.instance_id.clone().unwrap_or_default());
        }
        row.extend([member.host.clone(), member.client_id.clone(), member.assignment.len().to_string()]);
        if verbose {
            let target = member.epoch.is_some().then(|| shown_assignment(&member.target));
            row.push(or_dash(member.epoch));
            row.push(or_dash(Some(shown_assignment(&member.assignment)).filter(|text| !text.is_empty())));
            row.push(or_dash(group.epochs.map(|(_, assignment)| assignment)));
            row.push(or_dash(target.filter(|text| !text.is_empty())));
        }
        row
    };
    let rows: Vec<Vec<String>> = group.members.iter().map(row).collect();
    Some(table(&heading, &least, &rows))
}

fn state(group: &GroupDescription, verbose: bool) -> String {
    let mut heading = vec!["GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE"];
    let mut least = vec![15, 25, 20, 20];
    let coordinator = format!("{}  ({})", group.coordinator_address, group.coordinator);
    let assignor = or_dash(Some(&group.assignor).filter(|name| !name.is_empty()));
    let mut row = vec![group.id.clone(), coordinator, assignor, group.state.clone()];
    if verbose {
        heading.extend(["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"]);
        least.extend([15, 25]);
        row.extend([
            or_dash(group.epochs.map(|(epoch, _)| epoch)),
            or_dash(group.epochs.map(|(_, epoch)| epoch)),
        ]);
    }
    heading.push("#MEMBERS");
    row.push(group.members.len().to_string());
    table(&heading, &least, &[row])
}

fn document(group: &GroupDescription, rows: &[Row]) -> Value {
    let offsets: Vec<Value> = rows
        .iter()
        .filter_map(|row| Some((row.partition.as_ref()?, row)))
        .map(|(key, row)| {
            json!({
                "topic": key.topic,
                "partition": key.partition,
                "currentOffset": row.committed,
                "logEndOffset": row.log_end,
                "lag": row.lag(),
                "consumerId": row.member.as_ref().map(|member| &member.id),
            })
        })
        .collect();
    let members: Vec<Value> = group.members.iter().map(member_document).collect();
    json!({
        "group": group.id,
        "type": group.kind,
        "state": group.state,
        "coordinator": {"id": group.coordinator, "address": group.coordinator_address},
        "assignor": group.assignor,
        "epoch": group.epochs.map(|(epoch, _)| epoch),
        "assignmentEpoch": group.epochs.map(|(_, epoch)| epoch),
        "members": members,
        "offsets": offsets,
    })
}

/// A member as JSON.
pub(in crate::cli) fn member_document(member: &GroupMemberDescription) -> Value {
    let assignment: Vec<String> = member.assignment.iter().map(TopicPartition::to_string).collect();
    json!({
        "consumerId": member.id,
        "instanceId": member.instance_id,
        "clientId": member.client_id,
        "host": member.host,
        "epoch": member.epoch,
        "assignment": assignment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> (GroupDescription, BTreeMap<TopicPartition, CommittedOffset>) {
        let member = GroupMemberDescription {
            id: "me-1".to_owned(),
            instance_id: None,
            client_id: "me".to_owned(),
            host: "/127.0.0.1".to_owned(),
            epoch: None,
            assignment: vec![TopicPartition::new("t1", 0), TopicPartition::new("t1", 1)],
            target: vec![],
        };
        let group = GroupDescription {
            id: "g".to_owned(),
            kind: "classic",
            state: "Stable".to_owned(),
            coordinator: 1,
            coordinator_address: "127.0.0.1:9092".to_owned(),
            assignor: "range".to_owned(),
            epochs: None,
            members: vec![member],
        };
        let committed = |offset| CommittedOffset { offset, leader_epoch: Some(0), metadata: String::new() };
        let offsets =
            [(TopicPartition::new("t1", 1), committed(4)), (TopicPartition::new("t2", 0), committed(7))];
        (group, BTreeMap::from(offsets))
    }

    #[test]
    fn offsets_are_in_kafkas_columns() {
        let (group, committed) = group();
        let mut rows = rows(&group, &committed);
        for row in &mut rows {
            row.log_end = Some(9);
        }
        assert_eq!(
            offsets_table(&group, &rows, false),
            "GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID     HOST            CLIENT-ID\n\
             g               t1              0          -               9               -               me-1            /127.0.0.1      me\n\
             g               t1              1          4               9               5               me-1            /127.0.0.1      me\n\
             g               t2              0          7               9               2               -               -               -\n"
        );
    }

    #[test]
    fn members_and_state_are_in_kafkas_columns() {
        let (group, _) = group();
        assert_eq!(
            members(&group, true).unwrap(),
            "GROUP           CONSUMER-ID     HOST            CLIENT-ID       #PARTITIONS     CURRENT-EPOCH   CURRENT-ASSIGNMENT   TARGET-EPOCH    TARGET-ASSIGNMENT\n\
             g               me-1            /127.0.0.1      me              2               -               t1:0,1               -               -\n"
        );
        assert_eq!(
            state(&group, false),
            "GROUP           COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE                #MEMBERS\n\
             g               127.0.0.1:9092  (1)       range                Stable               1\n"
        );
    }
}
