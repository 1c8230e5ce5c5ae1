//! `key=value` arguments of the console tools, and the properties files that they go over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::client::{ClientError, ConsumerConfig, MembershipConfig, Start};
use crate::config::properties;

/// The properties given to a tool, by key, each to be asked for once; what is left was not understood.
#[derive(Debug, Default)]
pub(super) struct Properties {
    values: BTreeMap<String, String>,
}

impl Properties {
    /// The file's properties with the arguments over them, later ones winning.
    pub fn read(file: Option<&Path>, arguments: &[String]) -> Result<Self, ClientError> {
        let mut values = BTreeMap::new();
        if let Some(path) = file {
            let wrong = |reason: String| ClientError::Usage(format!("{}: {reason}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            let entries = properties::parse(&text)
                .map_err(|error| wrong(format!("line {}: bad escape {}", error.line, error.escape)))?;
            values.extend(entries.into_iter().map(|entry| (entry.key, entry.value)));
        }
        for argument in arguments {
            let Some((key, value)) = argument.split_once('=') else {
                return Err(ClientError::Usage(format!("'{argument}' is not of the form key=value")));
            };
            values.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self { values })
    }

    /// Every key that was not asked for yet, with its value.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Gives a key a value unless it has one.
    pub fn set_default(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.values.entry(key.to_owned()).or_insert(value);
        }
    }

    /// The value of a key.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// Whether a key is `true`, in any case, as Kafka's tools read it.
    pub fn switch(&mut self, key: &str, default: bool) -> bool {
        self.text(key).map_or(default, |text| text.trim().eq_ignore_ascii_case("true"))
    }

    /// A number; the error says which key is wrong.
    pub fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, ClientError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let parsed = text.trim().parse().ok();
        let wrong = || {
            ClientError::Usage(format!("Invalid value {text} for configuration {key}: not a number in range"))
        };
        parsed.map(Some).ok_or_else(wrong)
    }

    /// Says on standard error which keys were not understood.
    pub fn warn_of_the_rest(&self) {
        for key in self.values.keys() {
            eprintln!("tidemill: the property {key} is not known here and has no effect");
        }
    }
}

/// How a consumer fetches, by its properties.
pub(super) fn consumer_config(given: &mut Properties) -> Result<ConsumerConfig, ClientError> {
    let mut config = ConsumerConfig::default();
    config.fetch_min_bytes = given.number("fetch.min.bytes")?.unwrap_or(config.fetch_min_bytes);
    config.fetch_max_bytes = given.number("fetch.max.bytes")?.unwrap_or(config.fetch_max_bytes);
    let default = config.max_partition_fetch_bytes;
    config.max_partition_fetch_bytes = given.number("max.partition.fetch.bytes")?.unwrap_or(default);
    config.read_committed = given.text("isolation.level").as_deref() == Some("read_committed");
    config.reset = match given.text("auto.offset.reset").as_deref() {
        None | Some("latest") => Some(Start::Latest),
        Some("earliest") => Some(Start::Earliest),
        Some("none") => None,
        Some(text) => {
            let allowed = "allowed are earliest, latest or none";
            let message = format!("Invalid value {text} for configuration auto.offset.reset: {allowed}");
            return Err(ClientError::Usage(message));
        }
    };
    Ok(config)
}

/// How a member of a group takes part, by its properties.
pub(super) fn membership_config(
    given: &mut Properties,
    group: &str,
) -> Result<MembershipConfig, ClientError> {
    let mut config = MembershipConfig::new(group);
    config.instance_id = given.text("group.instance.id");
    let milliseconds = |number: Option<u64>, default| number.map_or(default, Duration::from_millis);
    config.session_timeout = milliseconds(given.number("session.timeout.ms")?, config.session_timeout);
    config.rebalance_timeout = milliseconds(given.number("max.poll.interval.ms")?, config.rebalance_timeout);
    config.heartbeat_interval =
        milliseconds(given.number("heartbeat.interval.ms")?, config.heartbeat_interval);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"acks=1\nlinger.ms=3\n").unwrap();
        let arguments = ["acks=all".to_owned(), "key.separator==".to_owned()];
        let mut properties = Properties::read(Some(file.path()), &arguments).unwrap();
        assert_eq!(properties.text("acks").as_deref(), Some("all"));
        assert_eq!(properties.number::<u64>("linger.ms").unwrap(), Some(3));
        assert_eq!(properties.text("key.separator").as_deref(), Some("="));
        assert!(Properties::read(None, &["acks".to_owned()]).is_err());
        assert!(Properties::read(None, &["n=x".to_owned()]).unwrap().number::<u64>("n").is_err());
    }
}
