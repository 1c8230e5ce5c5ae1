//! Whether a text is a value of a key: its type first, then its check. Messages are in Kafka's style.

use super::resources::SHARE_RESET_WORDS;
use super::{Check, Key, Kind, ResourceKey, TopicKey};

impl Key {
    /// `Ok` if the value may be given for this key; what is wrong with it otherwise, without key and value.
    pub fn verdict(&self, value: &str) -> Result<(), String> {
        verdict(self.kind, self.check, value)
    }
}

impl ResourceKey {
    /// `Ok` if the value may be given for this key; what is wrong with it otherwise, without key and value.
    pub fn verdict(&self, value: &str) -> Result<(), String> {
        verdict(self.kind, self.check, value)
    }
}

impl TopicKey {
    /// `Ok` if the value may be given for this key; what is wrong with it otherwise, without key and value.
    pub fn verdict(&self, value: &str) -> Result<(), String> {
        verdict(self.kind, self.check, value)
    }
}

/// The part of a refused value that a message names: of a list the item, else the value as Kafka has read it.
pub fn named(kind: Kind, check: Check, value: &str) -> String {
    let refused = |item: &&str| verdict_text(check, item).is_err();
    match (kind, check) {
        (Kind::List, Check::OneOf(_) | Check::OneOfAnyCase(_)) => {
            items(value).find(refused).unwrap_or(value).to_owned()
        }
        (Kind::List, _) => format!("[{}]", items(value).collect::<Vec<_>>().join(", ")),
        (Kind::Double, _) => parse_double(value).map_or(value.to_owned(), |number| format!("{number:?}")),
        _ => value.to_owned(),
    }
}

/// A whole number in Java's notation, which allows a leading plus.
pub fn parse_integer(kind: Kind, value: &str) -> Result<i64, String> {
    let (least, most) = match kind {
        Kind::Short => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Kind::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    match value.trim().parse::<i64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("Not a number of type {}", kind.name().to_uppercase())),
    }
}

/// A finite floating-point number.
pub fn parse_double(value: &str) -> Result<f64, String> {
    match value.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("Not a number of type DOUBLE".to_owned()),
    }
}

/// The items of a list, without surrounding blanks; an empty text has none.
pub fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn verdict(kind: Kind, check: Check, value: &str) -> Result<(), String> {
    match kind {
        Kind::Boolean => match value.trim() {
            text if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => Ok(()),
            _ => Err("Expected value to be either true or false".to_owned()),
        },
        Kind::Short | Kind::Int | Kind::Long => verdict_integer(check, parse_integer(kind, value)?),
        Kind::Double => match (check, parse_double(value)?) {
            (Check::Share(least, _), number) if number < least => {
                Err(format!("Value must be at least {least}"))
            }
            (Check::Share(_, most), number) if number > most => {
                Err(format!("Value must be no more than {most}"))
            }
            _ => Ok(()),
        },
        Kind::List => verdict_list(check, value),
        Kind::Text | Kind::Class | Kind::Password => verdict_text(check, value.trim()),
    }
}

fn verdict_integer(check: Check, number: i64) -> Result<(), String> {
    let (least, most, or) = match check {
        Check::Min(least) => (least, i64::MAX, None),
        Check::Range(least, most) => (least, most, None),
        Check::RangeOr(least, most, or) => (least, most, Some(or)),
        _ => return Ok(()),
    };
    if (least..=most).contains(&number) || or == Some(number) {
        return Ok(());
    }
    match or {
        Some(or) if most < i64::MAX => {
            Err(format!("Value must be between {least} and {most} or equal to {or}"))
        }
        Some(or) => Err(format!("Value must be at least {least}, or {or}")),
        None if number < least => Err(format!("Value must be at least {least}")),
        None => Err(format!("Value must be no more than {most}")),
    }
}

fn verdict_list(check: Check, value: &str) -> Result<(), String> {
    match check {
        Check::OneOf(_) | Check::OneOfAnyCase(_) => {
            items(value).try_for_each(|item| verdict_text(check, item))
        }
        Check::ThrottledReplicas => verdict_throttled(value.trim()),
        _ => Ok(()),
    }
}

fn verdict_throttled(value: &str) -> Result<(), String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_pair =
        |item: &str| item.split_once(':').is_some_and(|(left, right)| is_number(left) && is_number(right));
    if value == "*" || items(value).all(is_pair) {
        return Ok(());
    }
    Err("must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        .to_owned())
}

/// Where a share partition begins. Durations are ISO 8601 as Java reads them, `PnDTnHnMn.nS`.
fn is_share_reset(value: &str) -> bool {
    matches!(value, "earliest" | "latest") || value.strip_prefix("by_duration:").is_some_and(is_duration)
}

/// A duration that is not negative: days, then hours, minutes and seconds, each at most once and in this order.
fn is_duration(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let Some(rest) = upper.strip_prefix('P') else { return false };
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return false,
        None => (rest, ""),
    };
    let is_number = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let mut left = time;
    for unit in ['H', 'M'] {
        if let Some((number, rest)) = left.split_once(unit) {
            if !is_number(number) {
                return false;
            }
            left = rest;
        }
    }
    let is_seconds = |seconds: &str| match seconds.split_once('.') {
        Some((whole, fraction)) => is_number(whole) && fraction.len() <= 9 && is_number(fraction),
        None => is_number(seconds),
    };
    let days_fit = days.is_empty() || days.strip_suffix('D').is_some_and(is_number);
    let seconds_fit = left.is_empty() || left.strip_suffix('S').is_some_and(is_seconds);
    days_fit && seconds_fit && !(days.is_empty() && time.is_empty())
}

fn verdict_text(check: Check, value: &str) -> Result<(), String> {
    match check {
        Check::OneOf(allowed) if !allowed.contains(&value) => {
            Err(format!("String must be one of: {}", allowed.join(", ")))
        }
        Check::OneOfAnyCase(allowed) if !allowed.iter().any(|one| one.eq_ignore_ascii_case(value)) => {
            Err(format!("String must be one of (case insensitive): {}", allowed.join(", ")))
        }
        Check::ShareReset if !is_share_reset(value) => Err(SHARE_RESET_WORDS.to_owned()),
        Check::NonEmpty if value.is_empty() => Err("String must be non-empty".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{broker_key, topic_key};

    #[test]
    fn types_are_checked_as_kafka_does() {
        let verdict = |key: &str, value: &str| broker_key(key).unwrap().verdict(value);
        assert_eq!(verdict("num.partitions", " 3 "), Ok(()));
        assert_eq!(verdict("num.partitions", "0"), Err("Value must be at least 1".to_owned()));
        assert!(verdict("num.partitions", "2147483648").unwrap_err().contains("INT"));
        assert!(verdict("num.partitions", "three").is_err());
        assert_eq!(verdict("delete.topic.enable", "TRUE"), Ok(()));
        assert!(verdict("delete.topic.enable", "yes").is_err());
        assert!(verdict("log.cleaner.min.cleanable.ratio", "1.5").is_err());
        assert!(verdict("log.cleaner.min.cleanable.ratio", "NaN").is_err());
        assert_eq!(verdict("compression.gzip.level", "-1"), Ok(()));
        assert!(verdict("compression.gzip.level", "0").is_err());
        assert!(verdict("compression.gzip.level", "10").is_err());
        assert!(verdict("compression.type", "none").unwrap_err().contains("uncompressed"));
        assert_eq!(verdict("group.consumer.migration.policy", "upgrade"), Ok(()));
    }

    #[test]
    fn every_item_of_a_list_is_checked() {
        let verdict = |value: &str| topic_key("cleanup.policy").unwrap().verdict(value);
        assert_eq!(verdict("compact, delete"), Ok(()));
        assert_eq!(verdict(""), Ok(()));
        assert!(verdict("compact,shred").is_err());
        let throttled = topic_key("leader.replication.throttled.replicas").unwrap();
        assert_eq!(throttled.verdict("*"), Ok(()));
        assert_eq!(throttled.verdict("0:1,1:2"), Ok(()));
        assert!(throttled.verdict("0").is_err());
    }
}
