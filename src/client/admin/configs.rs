//! Configurations of topics, brokers and groups: described, and changed key by key.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
};

use super::{Admin, text};
use crate::client::{ClientError, Connection};

/// What a configuration belongs to, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigResourceType {
    /// A topic, by its name.
    Topic = 2,
    /// A broker, by its number; the empty name is the default of all.
    Broker = 4,
    /// The loggers of a broker.
    BrokerLogger = 8,
    /// A subscription of client metrics.
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

/// One key of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// The value; none where it is not told.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the value is a secret.
    pub is_sensitive: bool,
    /// Every place that has a value, the one that counts first: key, value, source.
    pub synonyms: Vec<(String, Option<String>, ConfigSource)>,
}

/// Where a value comes from, by Kafka's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSource(pub i8);

impl ConfigSource {
    /// Kafka's name of the source.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "DYNAMIC_TOPIC_CONFIG",
            2 => "DYNAMIC_BROKER_CONFIG",
            3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            4 => "STATIC_BROKER_CONFIG",
            5 => "DEFAULT_CONFIG",
            6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
            7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
            8 => "DYNAMIC_GROUP_CONFIG",
            _ => "UNKNOWN",
        }
    }

    /// Whether nobody has set the value.
    pub fn is_default(self) -> bool {
        self.0 == 5
    }
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// The key gets this value.
    Set(String, String),
    /// The key goes back to its default.
    Delete(String),
}

impl Admin {
    /// The configuration of one resource, as the broker orders it.
    pub fn describe_configs(
        &mut self,
        kind: ConfigResourceType,
        name: &str,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind as i8)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request =
            DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
        let response = self.config_node(kind, name)?.call(&request, i16::MAX)?;
        let found = response.results.into_iter().find(|result| result.resource_name.as_str() == name);
        let Some(found) = found else { return Err(super::unanswered(name)) };
        ClientError::check(name, found.error_code, found.error_message.as_deref())?;
        Ok(entries(found))
    }

    /// Changes some keys of one resource: all of them, or none.
    pub fn alter_configs(
        &mut self,
        kind: ConfigResourceType,
        name: &str,
        changes: &[ConfigChange],
    ) -> Result<(), ClientError> {
        let changes = changes.iter().map(|change| match change {
            ConfigChange::Set(key, value) => AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(0)
                .with_value(Some(text(value))),
            ConfigChange::Delete(key) => {
                AlterableConfig::default().with_name(text(key)).with_config_operation(1).with_value(None)
            }
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind as i8)
            .with_resource_name(text(name))
            .with_configs(changes.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let response = self.config_node(kind, name)?.call(&request, i16::MAX)?;
        let found = response.responses.iter().find(|result| result.resource_name.as_str() == name);
        let Some(found) = found else { return Err(super::unanswered(name)) };
        ClientError::check(name, found.error_code, found.error_message.as_deref())
    }

    /// The names of the resources of one kind that have a configuration of their own, sorted.
    pub fn list_config_resources(&mut self, kind: ConfigResourceType) -> Result<Vec<String>, ClientError> {
        let request = ListConfigResourcesRequest::default().with_resource_types(vec![kind as i8]);
        let response = self.cluster.any()?.call(&request, i16::MAX)?;
        ClientError::check("the list of configurations", response.error_code, None)?;
        let named = response.config_resources.iter().filter(|one| one.resource_type == kind as i8);
        let mut names: Vec<String> = named.map(|one| one.resource_name.as_str().to_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// A broker answers for itself; everything else any broker knows.
    fn config_node(&mut self, kind: ConfigResourceType, name: &str) -> Result<&mut Connection, ClientError> {
        let own = matches!(kind, ConfigResourceType::Broker | ConfigResourceType::BrokerLogger);
        if !own || name.is_empty() {
            return self.cluster.any();
        }
        let node = name.parse().map_err(|_| {
            ClientError::Usage(format!("The broker's number must be an integer, not '{name}'"))
        })?;
        self.cluster.known_node(node)
    }
}

fn entries(result: DescribeConfigsResult) -> Vec<ConfigEntry> {
    let owned = |text: kafka_protocol::protocol::StrBytes| text.as_str().to_owned();
    let entry =
        |config: kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult| {
            ConfigEntry {
                name: owned(config.name),
                value: config.value.map(owned),
                source: ConfigSource(config.config_source),
                is_sensitive: config.is_sensitive,
                synonyms: config
                    .synonyms
                    .into_iter()
                    .map(|one| (owned(one.name), one.value.map(owned), ConfigSource(one.source)))
                    .collect(),
            }
        };
    result.configs.into_iter().map(entry).collect()
}
