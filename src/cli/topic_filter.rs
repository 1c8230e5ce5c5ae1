//! Topics chosen by a pattern, as Kafka's tools choose them: a list of regular expressions, of which one has to match
//! the whole name.
//!
//! The engine is linear in the name's length; Java's look-around and back references are refused with a message.

use regex::Regex;

use crate::client::ClientError;

/// Kafka's own topics.
pub(super) const INTERNAL_TOPICS: [&str; 3] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// A pattern of topic names.
#[derive(Clone, Debug)]
pub(super) struct TopicFilter {
    pattern: Option<Regex>,
}

impl TopicFilter {
    /// Takes every topic.
    pub fn all() -> Self {
        Self { pattern: None }
    }

    /// Reads `a,b.*|c`: commas are alternatives, quotes and blanks do not count.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let pattern = text.trim().replace(',', "|").replace(' ', "");
        let pattern = pattern.trim_start_matches(['"', '\'']).trim_end_matches(['"', '\'']);
        let anchored = Regex::new(&format!("^(?:{pattern})$"));
        let pattern =
            anchored.map_err(|error| ClientError::Usage(format!("{text} is an invalid regex: {error}")))?;
        Ok(Self { pattern: Some(pattern) })
    }

    /// Everything where there is no pattern.
    pub fn parse_optional(text: Option<&str>) -> Result<Self, ClientError> {
        text.map_or_else(|| Ok(Self::all()), Self::parse)
    }

    /// Whether a topic is chosen.
    pub fn takes(&self, topic: &str, exclude_internal: bool) -> bool {
        let internal = INTERNAL_TOPICS.contains(&topic);
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(topic)) && !(exclude_internal && internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_to_match_the_whole_name() {
        let filter = TopicFilter::parse("'a, b.*'").unwrap();
        let takes = |name| filter.takes(name, false);
        assert!(takes("a") && takes("b") && takes("bcd") && !takes("aa") && !takes("xb") && !takes("c"));
        assert!(TopicFilter::parse("(").is_err() && TopicFilter::parse("(?=x)").is_err());
    }

    #[test]
    fn internal_topics_can_be_left_out() {
        let all = TopicFilter::all();
        assert!(all.takes("__consumer_offsets", false) && !all.takes("__consumer_offsets", true));
        assert!(all.takes("__mine", true));
    }
}
