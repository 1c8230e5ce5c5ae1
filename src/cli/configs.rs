//! `tidemill configs`: configurations of topics, brokers and groups shown and changed. Flags and lines are those of
//! Kafka's `kafka-configs`.

use std::path::PathBuf;

use serde_json::json;

use super::connect::AdminOptions;
use super::output::{OutputOptions, print, print_json};
use super::properties::Properties;
use crate::client::{Admin, ClientError, ConfigChange, ConfigEntry, ConfigResourceType};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill configs --bootstrap-server 127.0.0.1:9092 --describe --topic orders --all
  tidemill configs --bootstrap-server 127.0.0.1:9092 --alter --topic orders \\
      --add-config 'cleanup.policy=[compact,delete],retention.ms=3600000' --delete-config segment.bytes
  tidemill configs --bootstrap-server 127.0.0.1:9092 --describe --entity-type brokers --entity-name 0
  tidemill configs --bootstrap-server 127.0.0.1:9092 --alter --broker-defaults --add-config log.retention.ms=86400000")]
#[command(group(clap::ArgGroup::new("action").required(true).args(["describe", "alter"])))]
#[command(group(clap::ArgGroup::new("entity").required(true).args(
    ["entity_type", "topic", "broker", "broker_defaults", "group", "client_metrics", "broker_logger"]
)))]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
    /// Show configurations.
    #[arg(long)]
    describe: bool,
    /// Change a configuration.
    #[arg(long)]
    alter: bool,
    /// topics, brokers, broker-loggers, client-metrics or groups.
    #[arg(long, value_name = "TYPE")]
    entity_type: Option<String>,
    /// Name of the topic or group, or number of the broker.
    #[arg(long, value_name = "NAME", requires = "entity_type")]
    entity_name: Option<String>,
    /// The defaults of all brokers.
    #[arg(long, requires = "entity_type", conflicts_with = "entity_name")]
    entity_default: bool,
    /// The topic's name.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// The broker's number.
    #[arg(long, value_name = "NODE")]
    broker: Option<String>,
    /// The defaults of all brokers.
    #[arg(long)]
    broker_defaults: bool,
    /// Number of the broker whose loggers are meant.
    #[arg(long, value_name = "NODE")]
    broker_logger: Option<String>,
    /// The group's id.
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Name of a subscription of client metrics.
    #[arg(long, value_name = "NAME")]
    client_metrics: Option<String>,
    /// With every key, not only those that somebody has set.
    #[arg(long, requires = "describe")]
    all: bool,
    /// Keys to set: k1=v1,k2=[v1,v2].
    #[arg(long, value_name = "KEY=VALUE,…", requires = "alter")]
    add_config: Option<String>,
    /// A properties file with keys to set.
    #[arg(long, value_name = "FILE", requires = "alter", conflicts_with = "add_config")]
    add_config_file: Option<PathBuf>,
    /// Keys to put back to their defaults.
    #[arg(long, value_name = "KEY,…", requires = "alter")]
    delete_config: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

/// What is shown or changed: one resource, or every one of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entity {
    kind: ConfigResourceType,
    /// Empty for the defaults of brokers.
    name: Option<String>,
}

pub(super) fn run(options: &Options) -> Result<(), ClientError> {
    let entity = entity(options)?;
    let mut admin = options.admin.admin()?;
    let result = if options.alter {
        alter(options, &mut admin, &entity)
    } else {
        describe(options, &mut admin, &entity)
    };
    result.map_err(|error| {
        ClientError::Usage(format!("Error while executing config command: {}", error.told()))
    })
}

fn entity(options: &Options) -> Result<Entity, ClientError> {
    let named = |kind, name: &Option<String>| name.clone().map(|name| Entity { kind, name: Some(name) });
    let shortcut = named(ConfigResourceType::Topic, &options.topic)
        .or_else(|| named(ConfigResourceType::Broker, &options.broker))
        .or_else(|| named(ConfigResourceType::BrokerLogger, &options.broker_logger))
        .or_else(|| named(ConfigResourceType::Group, &options.group))
        .or_else(|| named(ConfigResourceType::ClientMetrics, &options.client_metrics));
    if let Some(entity) = shortcut {
        return Ok(entity);
    }
    if options.broker_defaults {
        return Ok(Entity { kind: ConfigResourceType::Broker, name: Some(String::new()) });
    }
    let kind = match options.entity_type.as_deref().unwrap_or_default() {
        "topics" => ConfigResourceType::Topic,
        "brokers" => ConfigResourceType::Broker,
        "broker-loggers" => ConfigResourceType::BrokerLogger,
        "client-metrics" => ConfigResourceType::ClientMetrics,
        "groups" => ConfigResourceType::Group,
        other @ ("users" | "clients" | "ips") => {
            return Err(ClientError::Usage(format!("Quotas and credentials ({other}) are not there yet.")));
        }
        other => {
            return Err(ClientError::Usage(format!(
                "Invalid entity type {other}, the entity type must be one of topics, brokers, broker-loggers, client-metrics, groups"
            )));
        }
    };
    let name = if options.entity_default { Some(String::new()) } else { options.entity_name.clone() };
    if name.as_deref() == Some("") && kind != ConfigResourceType::Broker {
        return Err(ClientError::Usage(
            "--entity-default must not be specified with this entity type".to_owned(),
        ));
    }
    Ok(Entity { kind, name })
}

fn alter(options: &Options, admin: &mut Admin, entity: &Entity) -> Result<(), ClientError> {
    let Some(name) = entity.name.as_deref() else {
        return Err(ClientError::Usage("An entity name must be specified with --alter".to_owned()));
    };
    let mut changes = match &options.add_config {
        Some(text) => parse_added(text)?,
        None => Vec::new(),
    };
    if let Some(path) = &options.add_config_file {
        let given = Properties::read(Some(path), &[])?;
        changes.extend(given.pairs().map(|(key, value)| ConfigChange::Set(key.to_owned(), value.to_owned())));
    }
    let deleted = options.delete_config.as_deref().unwrap_or_default().split(',').map(str::trim);
    changes.extend(deleted.filter(|key| !key.is_empty()).map(|key| ConfigChange::Delete(key.to_owned())));
    if changes.is_empty() {
        let none = "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter";
        return Err(ClientError::Usage(none.to_owned()));
    }
    admin.alter_configs(entity.kind, name, &changes)?;
    if name.is_empty() {
        return print("Completed updating default config for brokers in the cluster.\n");
    }
    print(&format!("Completed updating config for {} {name}.\n", singular(entity.kind)))
}

fn describe(options: &Options, admin: &mut Admin, entity: &Entity) -> Result<(), ClientError> {
    let names = match &entity.name {
        Some(name) => vec![name.clone()],
        None => every_name(admin, entity.kind)?,
    };
    if entity.name.is_some() && entity.kind == ConfigResourceType::Topic {
        let name = names.first().map_or("", String::as_str);
        if !admin.list_topics()?.iter().any(|topic| topic.name == name) {
            return print(&format!("The topic '{name}' doesn't exist and doesn't have dynamic config.\n"));
        }
    }
    let mut documents = Vec::new();
    for name in names {
        let mut entries = admin.describe_configs(entity.kind, &name)?;
        entries.retain(|entry| options.all || is_own(entity.kind, &name, entry));
        entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        if options.output.is_json() {
            documents.push(document(entity.kind, &name, &entries));
            continue;
        }
        let mut text = heading(entity.kind, &name, options.all);
        text.extend(entries.iter().map(line));
        print(&text)?;
    }
    if options.output.is_json() { print_json(&json!(documents)) } else { Ok(()) }
}

fn every_name(admin: &mut Admin, kind: ConfigResourceType) -> Result<Vec<String>, ClientError> {
    match kind {
        ConfigResourceType::Topic => Ok(admin.list_topics()?.into_iter().map(|topic| topic.name).collect()),
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            let nodes = admin.cluster().node_ids()?;
            let defaults = (kind == ConfigResourceType::Broker).then(String::new);
            Ok(nodes.iter().map(i32::to_string).chain(defaults).collect())
        }
        _ => admin.list_config_resources(kind),
    }
}

/// Whether somebody has set the value at this very place.
fn is_own(kind: ConfigResourceType, name: &str, entry: &ConfigEntry) -> bool {
    let own = match kind {
        ConfigResourceType::Topic => "DYNAMIC_TOPIC_CONFIG",
        ConfigResourceType::Broker if name.is_empty() => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigResourceType::Broker => "DYNAMIC_BROKER_CONFIG",
        ConfigResourceType::BrokerLogger => return true,
        ConfigResourceType::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
        ConfigResourceType::Group => "DYNAMIC_GROUP_CONFIG",
    };
    entry.source.name() == own
}

fn singular(kind: ConfigResourceType) -> &'static str {
    match kind {
        ConfigResourceType::Topic => "topic",
        ConfigResourceType::Broker => "broker",
        ConfigResourceType::BrokerLogger => "broker-logger",
        ConfigResourceType::ClientMetrics => "client-metric",
        ConfigResourceType::Group => "group",
    }
}

fn heading(kind: ConfigResourceType, name: &str, all: bool) -> String {
    match name {
        "" => "Default configs for brokers in the cluster are:\n".to_owned(),
        name => {
            format!("{} configs for {} {name} are:\n", if all { "All" } else { "Dynamic" }, singular(kind))
        }
    }
}

fn line(entry: &ConfigEntry) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|(key, one, source)| format!("{}:{key}={}", source.name(), value(one)))
        .collect();
    format!(
        "  {}={} sensitive={} synonyms={{{}}}\n",
        entry.name,
        value(&entry.value),
        entry.is_sensitive,
        synonyms.join(", ")
    )
}

fn document(kind: ConfigResourceType, name: &str, entries: &[ConfigEntry]) -> serde_json::Value {
    let entries: Vec<serde_json::Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "name": entry.name,
                "value": entry.value,
                "source": entry.source.name(),
                "isSensitive": entry.is_sensitive,
                "synonyms": entry.synonyms.iter()
                    .map(|(key, value, source)| json!({"name": key, "value": value, "source": source.name()}))
                    .collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"entityType": singular(kind), "entityName": name, "configs": entries})
}

/// `k1=v1,k2=[a,b]`: a comma within brackets belongs to the value.
fn parse_added(text: &str) -> Result<Vec<ConfigChange>, ClientError> {
    let mut pairs = Vec::new();
    let (mut depth, mut begin) = (0_usize, 0);
    for (at, sign) in text.char_indices() {
        match sign {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                pairs.push(text.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    pairs.push(text.get(begin..).unwrap_or_default());
    let mut changes = Vec::new();
    for pair in pairs.into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(ClientError::Usage(format!(
                "Invalid entity config: all configs to be added must be in the format \"key=val\" or \"key=[val1,val2]\", not '{pair}'"
            )));
        };
        let value = value.trim();
        let value = value.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(value);
        changes.push(ConfigChange::Set(key.trim().to_owned(), value.to_owned()));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ConfigSource;

    #[test]
    fn commas_within_brackets_belong_to_the_value() {
        let set = |key: &str, value: &str| ConfigChange::Set(key.to_owned(), value.to_owned());
        assert_eq!(
            parse_added("cleanup.policy=[compact,delete], retention.ms=1,x=").unwrap(),
            [set("cleanup.policy", "compact,delete"), set("retention.ms", "1"), set("x", "")]
        );
        assert!(parse_added("retention.ms").is_err());
    }

    #[test]
    fn lines_are_those_of_kafka_configs() {
        let entry = ConfigEntry {
            name: "retention.ms".to_owned(),
            value: Some("5".to_owned()),
            source: ConfigSource(1),
            is_sensitive: false,
            synonyms: vec![
                ("retention.ms".to_owned(), Some("5".to_owned()), ConfigSource(1)),
                ("log.retention.hours".to_owned(), Some("168".to_owned()), ConfigSource(5)),
            ],
        };
        assert_eq!(
            line(&entry),
            "  retention.ms=5 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=5, DEFAULT_CONFIG:log.retention.hours=168}\n"
        );
        assert_eq!(heading(ConfigResourceType::Topic, "t", false), "Dynamic configs for topic t are:\n");
        assert!(is_own(ConfigResourceType::Topic, "t", &entry));
        assert!(!is_own(ConfigResourceType::Broker, "", &entry));
    }
}
