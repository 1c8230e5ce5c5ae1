//! What was given: the file's entries with the overrides over them, judged key by key against the table.
//!
//! Only values that pass their key's check are kept, so that making typed values from them cannot fail.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{Check, Key, Kind, Tier, broker_key, items, named, parse_double, parse_integer, topic_key};
use super::properties;

/// Something that was given has no effect, or not the one that may be expected; the node starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key as given.
    pub key: String,
    /// A sentence without the key.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// One value that a node cannot start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the line of the file.
    pub key: String,
    /// The value as it may be shown.
    pub value: String,
    /// What is allowed, or what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn new(key: &str, value: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: value.into(), message: message.into() }
    }
}

impl Problem {
    /// A value that its key refuses with this message, told as Kafka tells it.
    pub(super) fn of_value(key: &str, kind: Kind, check: Check, value: &str, message: String) -> Self {
        let message = match check {
            Check::ThrottledReplicas => format!("{key} {message}"),
            _ => message,
        };
        Self::new(key, named(kind, check, value), message)
    }
}

impl fmt::Display for Problem {
    /// Kafka's wording.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalid value {} for configuration {}: {}", self.value, self.key, self.message)
    }
}

/// Everything that a node or a topic cannot be configured with, in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The values that were given and are in order; every other key has its default.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) values: BTreeMap<&'static str, String>,
}

impl Given {
    /// Reads the file's text and the overrides and judges every key.
    pub fn read(
        text: Option<&str>,
        overrides: &[(String, String)],
        warnings: &mut Vec<Warning>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut given = Self::default();
        for (key, value) in merge(text, overrides, warnings, problems) {
            if let Some(known) = broker_key(&key) {
                if given.judge(known, &value, warnings, problems) {
                    given.values.insert(known.name, value);
                }
            } else if let Some(base) = prefixed(&key) {
                judge_prefixed(&key, base, &value, warnings, problems);
            } else {
                warnings.push(Warning { message: unknown(&key), key });
            }
        }
        given
    }

    /// Whether the value may be used.
    fn judge(
        &self,
        key: &'static Key,
        value: &str,
        warnings: &mut Vec<Warning>,
        problems: &mut Vec<Problem>,
    ) -> bool {
        if let Err(message) = key.verdict(value) {
            problems.push(Problem::new(key.name, key.shown(value), message));
            return false;
        }
        let message = match key.tier {
            Tier::Honoured => return true,
            Tier::Planned => NOT_BUILT.to_owned(),
            Tier::Ignored(reason) => format!("has no effect, because {reason}"),
            Tier::Refused { unless, why } if !accepted(key, unless, value) => {
                problems.push(Problem::new(key.name, key.shown(value), why));
                return false;
            }
            Tier::Refused { .. } => NOT_BUILT.to_owned(),
        };
        warnings.push(Warning { key: key.name.to_owned(), message });
        true
    }

    /// The value that was given for the key.
    pub fn text(&self, key: &'static str) -> Option<&str> {
        self.values.get(key).map(|value| value.trim())
    }

    /// The value or the default, with an empty text counting as none.
    pub fn text_or_default(&self, key: &'static str) -> Option<&str> {
        self.text(key).or(row(key).default).filter(|text| !text.is_empty())
    }

    /// The items of a list, given or by default.
    pub fn list(&self, key: &'static str) -> Vec<&str> {
        self.text_or_default(key).map(|text| items(text).collect()).unwrap_or_default()
    }

    /// A whole number, given or by default; the key has a default.
    pub fn number<T: TryFrom<i64>>(&self, key: &'static str) -> T {
        let text = self.text(key).or(row(key).default).expect("a key read as a number has a default");
        let number = parse_integer(row(key).kind, text).expect("given values and defaults pass their check");
        T::try_from(number).ok().expect("the table's range is within the field's")
    }

    /// A whole number where a negative one means "none".
    pub fn number_unless_negative<T: TryFrom<i64>>(&self, key: &'static str) -> Option<T> {
        let number: i64 = self.number(key);
        (number >= 0).then(|| self.number(key))
    }

    /// A switch, given or by default; the key has a default.
    pub fn switch(&self, key: &'static str) -> bool {
        self.text(key).or(row(key).default).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }
}

const NOT_BUILT: &str = "has no effect yet, because what it configures is not built";

fn row(key: &'static str) -> &'static Key {
    broker_key(key).expect("only keys of the table are read")
}

fn accepted(key: &Key, unless: &[&str], value: &str) -> bool {
    match key.kind {
        _ if unless.is_empty() => value.trim().is_empty() || key.default == Some(value.trim()),
        Kind::List => items(value).all(|item| unless.contains(&item)),
        Kind::Boolean => unless.iter().any(|one| one.eq_ignore_ascii_case(value.trim())),
        _ => value.trim().is_empty() || unless.contains(&value.trim()),
    }
}

/// The last value of each key in order of the keys; a repeated key of the file is a warning.
fn merge(
    text: Option<&str>,
    overrides: &[(String, String)],
    warnings: &mut Vec<Warning>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let mut merged = BTreeMap::new();
    match properties::parse(text.unwrap_or_default()) {
        Ok(entries) => {
            for entry in entries {
                if merged.insert(entry.key.clone(), entry.value).is_some() {
                    let message = format!("is given more than once; the value of line {} counts", entry.line);
                    warnings.push(Warning { key: entry.key, message });
                }
            }
        }
        Err(error) => problems.push(Problem::new(
            &format!("in line {}", error.line),
            error.escape,
            "\\u takes four hexadecimal digits; write \\\\ for a backslash",
        )),
    }
    merged.extend(overrides.iter().cloned());
    merged
}

/// The key that a `listener.name.NAME.` or `listener.name.NAME.MECHANISM.` prefix narrows.
fn prefixed(key: &str) -> Option<&'static Key> {
    let (_, rest) = key.strip_prefix("listener.name.")?.split_once('.')?;
    let after_mechanism = || rest.split_once('.').and_then(|(_, rest)| broker_key(rest));
    broker_key(rest).or_else(|| after_mechanism().filter(|key| key.name.starts_with("sasl.")))
}

fn judge_prefixed(
    key: &str,
    base: &'static Key,
    value: &str,
    warnings: &mut Vec<Warning>,
    problems: &mut Vec<Problem>,
) {
    match base.tier {
        Tier::Refused { unless, why } if !accepted(base, unless, value) => {
            problems.push(Problem::new(key, base.shown(value), why));
        }
        _ => warnings.push(Warning {
            key: key.to_owned(),
            message: "has no effect yet, because values for a single listener are not built".to_owned(),
        }),
    }
}

fn unknown(key: &str) -> String {
    match topic_key(key).map(|topic| topic.synonyms) {
        Some([broker_key, ..]) => {
            format!("is a topic's key and has no effect here; the node's is {broker_key}")
        }
        _ => "is not a known key and has no effect".to_owned(),
    }
}

/// A floating-point number of a topic's key; the value has passed its check.
pub(super) fn checked_double(value: &str) -> f64 {
    parse_double(value).expect("the value has passed its check")
}

/// A whole number of a topic's key; the value has passed its check.
pub(super) fn checked_number<T: TryFrom<i64>>(value: &str) -> T {
    let number = parse_integer(Kind::Long, value).expect("the value has passed its check");
    T::try_from(number).ok().expect("the table's range is within the field's")
}
