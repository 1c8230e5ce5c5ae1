//! `tidemill metadata`: the cluster's registry as a tree to list and read, at the paths where people once looked it up
//! in ZooKeeper. Nothing is stored in this form: each node is asked of the brokers when it is looked at.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cluster::document;
use super::connect::AdminOptions;
use super::consumer_groups::member_document;
use super::output::{OutputOptions, print, print_json};
use super::topics::{partition_document, shown_id};
use crate::client::{Admin, ClientError, ConfigResourceType, GroupDescription, TopicDescription};

/// Nodes that a tree shows at most: a cluster may have a million of them.
const TREE_NODES_MAX: usize = 10_000;
const PARTITIONS_A_RESPONSE: i32 = 2000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill metadata ls /brokers/topics --bootstrap-server 127.0.0.1:9092
  tidemill metadata get /brokers/topics/orders/partitions/0/state --bootstrap-server 127.0.0.1:9092
  tidemill metadata get /consumers/billing/offsets/orders/0 --bootstrap-server 127.0.0.1:9092
  tidemill metadata tree /consumers --bootstrap-server 127.0.0.1:9092

The tree:
  /cluster/id                                       the cluster's id
  /controller                                       the broker to send changes to
  /brokers/ids/NODE                                 a broker and where it listens
  /brokers/topics/TOPIC                             a topic's id and the replicas of its partitions
  /brokers/topics/TOPIC/partitions/N/state          leader, epoch, replicas, ISR
  /config/topics/TOPIC, /config/brokers/NODE        values that somebody has set
  /consumers/GROUP                                  a group's state, assignor and coordinator
  /consumers/GROUP/ids/MEMBER                       a member and what it reads
  /consumers/GROUP/owners/TOPIC/N                   the member that reads a partition
  /consumers/GROUP/offsets/TOPIC/N                  the offset that the group has committed")]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the nodes below a node.
    Ls(Look),
    /// Show what a node says.
    Get(Look),
    /// Show a node and all below it.
    Tree(Look),
}

#[derive(Debug, clap::Args)]
struct Look {
    /// The node.
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    admin: AdminOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// What there is at a path.
#[derive(Debug, Default)]
struct Node {
    children: Vec<String>,
    value: Option<Value>,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let (Command::Ls(look) | Command::Get(look) | Command::Tree(look)) = &options.command;
    let mut admin = look.admin.admin()?;
    let path: Vec<String> = look.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match &options.command {
        Command::Ls(_) => {
            let children = node(&mut admin, &path)?.children;
            if look.output.is_json() {
                return print_json(&json!(children));
            }
            print(&children.iter().map(|child| format!("{child}\n")).collect::<String>())
        }
        Command::Get(_) => {
            let value = node(&mut admin, &path)?.value;
            let none = || ClientError::Usage(format!("{} only has nodes below it; ls shows them", look.path));
            let value = value.ok_or_else(none)?;
            if look.output.is_json() { print_json(&value) } else { print(&format!("{}\n", shown(&value))) }
        }
        Command::Tree(_) => {
            let mut left = TREE_NODES_MAX;
            if look.output.is_json() {
                return print_json(&tree_document(&mut admin, &path, &mut left)?);
            }
            let mut text = format!("/{}\n", path.join("/"));
            tree(&mut admin, &path, 1, &mut left, &mut text)?;
            print(&text)
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tree(
    admin: &mut Admin,
    path: &[String],
    depth: usize,
    left: &mut usize,
    text: &mut String,
) -> Result<(), ClientError> {
    for child in node(admin, path)?.children {
        let Some(fewer) = left.checked_sub(1) else {
            text.push_str("…\n");
            return Ok(());
        };
        *left = fewer;
        let below: Vec<String> = path.iter().cloned().chain([child.clone()]).collect();
        let value = node(admin, &below)?.value;
        let value = value.map(|value| format!("  {}", shown(&value))).unwrap_or_default();
        text.push_str(&format!("{}{child}{value}\n", "  ".repeat(depth)));
        tree(admin, &below, depth + 1, left, text)?;
    }
    Ok(())
}

fn tree_document(admin: &mut Admin, path: &[String], left: &mut usize) -> Result<Value, ClientError> {
    let node = node(admin, path)?;
    let mut below = serde_json::Map::new();
    for child in node.children {
        let Some(fewer) = left.checked_sub(1) else { break };
        *left = fewer;
        let deeper: Vec<String> = path.iter().cloned().chain([child.clone()]).collect();
        below.insert(child, tree_document(admin, &deeper, left)?);
    }
    Ok(json!({"value": node.value, "children": below}))
}

fn node(admin: &mut Admin, path: &[String]) -> Result<Node, ClientError> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let found = match parts.as_slice() {
        [] => Some(folder(&["brokers", "cluster", "config", "consumers", "controller"])),
        ["cluster"] => Some(folder(&["id"])),
        ["cluster", "id"] => Some(leaf(json!(admin.describe_cluster(false)?.id))),
        ["controller"] => Some(leaf(json!({"brokerid": admin.describe_cluster(false)?.controller}))),
        ["brokers"] => Some(folder(&["ids", "topics"])),
        ["brokers", "ids", rest @ ..] => brokers(admin, rest)?,
        ["brokers", "topics", rest @ ..] => topics(admin, rest)?,
        ["config"] => Some(folder(&["brokers", "topics"])),
        ["config", kind @ ("brokers" | "topics"), rest @ ..] => configs(admin, kind, rest)?,
        ["consumers"] => {
            let groups = admin.list_groups(&[], &[])?;
            Some(Node { children: groups.into_iter().map(|group| group.id).collect(), value: None })
        }
        ["consumers", group, rest @ ..] => consumers(admin, group, rest)?,
        _ => None,
    };
    found.ok_or_else(|| ClientError::Usage(format!("Node does not exist: /{}", path.join("/"))))
}

fn folder(children: &[&str]) -> Node {
    Node { children: children.iter().map(|child| (*child).to_owned()).collect(), value: None }
}

fn leaf(value: Value) -> Node {
    Node { children: Vec::new(), value: Some(value) }
}

fn brokers(admin: &mut Admin, rest: &[&str]) -> Result<Option<Node>, ClientError> {
    let all = admin.describe_cluster(false)?.brokers;
    Ok(match rest {
        [] => Some(Node { children: all.iter().map(|broker| broker.id.to_string()).collect(), value: None }),
        [id] => all.iter().find(|broker| broker.id.to_string() == *id).map(|broker| leaf(document(broker))),
        _ => None,
    })
}

fn topics(admin: &mut Admin, rest: &[&str]) -> Result<Option<Node>, ClientError> {
    let [name, below @ ..] = rest else {
        let all = admin.list_topics()?;
        return Ok(Some(Node { children: all.into_iter().map(|topic| topic.name).collect(), value: None }));
    };
    if !admin.list_topics()?.iter().any(|topic| topic.name == *name) {
        return Ok(None);
    }
    let described = admin.describe_topics(&[(*name).to_owned()], PARTITIONS_A_RESPONSE)?;
    Ok(described.first().and_then(|topic| topic_node(topic, below)))
}

fn topic_node(topic: &TopicDescription, below: &[&str]) -> Option<Node> {
    let partition = |number: &str| topic.partitions.iter().find(|one| one.index.to_string() == number);
    match below {
        [] => {
            let replicas: serde_json::Map<String, Value> =
                topic.partitions.iter().map(|one| (one.index.to_string(), json!(one.replicas))).collect();
            let value = json!({"topic_id": shown_id(topic.id), "partitions": replicas});
            Some(Node { children: vec!["partitions".to_owned()], value: Some(value) })
        }
        ["partitions"] => {
            let children = topic.partitions.iter().map(|one| one.index.to_string()).collect();
            Some(Node { children, value: None })
        }
        ["partitions", number] => partition(number).map(|_| folder(&["state"])),
        ["partitions", number, "state"] => partition(number).map(|one| leaf(partition_document(one))),
        _ => None,
    }
}

fn configs(admin: &mut Admin, kind: &str, rest: &[&str]) -> Result<Option<Node>, ClientError> {
    let (kind, own) = match kind {
        "topics" => (ConfigResourceType::Topic, "DYNAMIC_TOPIC_CONFIG"),
        _ => (ConfigResourceType::Broker, "DYNAMIC_BROKER_CONFIG"),
    };
    let names: Vec<String> = match kind {
        ConfigResourceType::Topic => admin.list_topics()?.into_iter().map(|topic| topic.name).collect(),
        _ => admin.cluster().node_ids()?.iter().map(i32::to_string).collect(),
    };
    match rest {
        [] => Ok(Some(Node { children: names, value: None })),
        [name] if names.iter().any(|known| known == name) => {
            let entries = admin.describe_configs(kind, name)?;
            let own = entries.into_iter().filter(|entry| entry.source.name() == own);
            let own: serde_json::Map<String, Value> =
                own.map(|entry| (entry.name, json!(entry.value))).collect();
            Ok(Some(leaf(json!({"config": own}))))
        }
        _ => Ok(None),
    }
}

fn consumers(admin: &mut Admin, id: &str, rest: &[&str]) -> Result<Option<Node>, ClientError> {
    let Some(group) = admin.describe_group(id)? else { return Ok(None) };
    Ok(match rest {
        [] => {
            let children = ["ids", "offsets", "owners"].map(str::to_owned).to_vec();
            Some(Node { children, value: Some(group_document(&group)) })
        }
        ["ids"] => {
            let children = group.members.iter().map(|member| member.id.clone()).collect();
            Some(Node { children, value: None })
        }
        ["ids", member] => {
            let found = group.members.iter().find(|one| one.id == *member);
            found.map(|member| leaf(member_document(member)))
        }
        ["owners", rest @ ..] => {
            let owned = group.members.iter().flat_map(|member| {
                let value = json!(member.id);
                member.assignment.iter().map(move |one| (one.topic.clone(), one.partition, value.clone()))
            });
            by_partition(owned.collect(), rest)
        }
        ["offsets", rest @ ..] => {
            let committed = admin.committed_offsets(id)?;
            let all = committed.into_iter().map(|(key, one)| (key.topic, key.partition, json!(one.offset)));
            by_partition(all.collect(), rest)
        }
        _ => None,
    })
}

fn group_document(group: &GroupDescription) -> Value {
    json!({
        "state": group.state,
        "type": group.kind,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "members": group.members.len(),
    })
}

/// Nodes `TOPIC` and `TOPIC/N` of values of partitions.
fn by_partition(all: Vec<(String, i32, Value)>, rest: &[&str]) -> Option<Node> {
    match rest {
        [] => {
            let topics: BTreeSet<String> = all.into_iter().map(|(topic, ..)| topic).collect();
            Some(Node { children: topics.into_iter().collect(), value: None })
        }
        [topic] => {
            let numbers: BTreeSet<i32> =
                all.iter().filter(|(name, ..)| name == topic).map(|(_, number, _)| *number).collect();
            let children: Vec<String> = numbers.iter().map(i32::to_string).collect();
            (!children.is_empty()).then_some(Node { children, value: None })
        }
        [topic, number] => {
            let found = all.into_iter().find(|(name, one, _)| name == topic && one.to_string() == *number);
            found.map(|(.., value)| leaf(value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_partitions_are_nodes_below_their_topic() {
        let all = || {
            vec![("t".to_owned(), 10, json!(1)), ("t".to_owned(), 2, json!(3)), ("a".to_owned(), 0, json!(5))]
        };
        assert_eq!(by_partition(all(), &[]).unwrap().children, ["a", "t"]);
        assert_eq!(by_partition(all(), &["t"]).unwrap().children, ["2", "10"]);
        assert_eq!(by_partition(all(), &["t", "2"]).unwrap().value, Some(json!(3)));
        assert!(by_partition(all(), &["b"]).is_none() && by_partition(all(), &["t", "3"]).is_none());
    }

    #[test]
    fn a_name_is_shown_without_quotes_and_a_document_as_json() {
        assert_eq!((shown(&json!("x")), shown(&json!({"a": 1}))), ("x".to_owned(), "{\"a\":1}".to_owned()));
    }
}
