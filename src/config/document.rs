//! `docs/CONFIG.md`, written from the tables so that it cannot differ from them.

use std::fmt::Write;

use super::keys::{Check, Key, Kind, TOPIC_KEYS, Tier, groups};

const INTRODUCTION: &str = "# Configuration

<!-- Written from the tables in src/config/keys/ by `UPDATE_DOCS=1 cargo test --test config_doc`; do not edit. -->

`tidemill start FILE.properties --override key=value …` reads a Kafka `server.properties` and puts the overrides over it;
without a file every key has its default. Names, types, defaults and ranges are those of Apache Kafka 4.3.

What becomes of a value:

| word | meaning |
|---|---|
| honoured | it has its effect |
| planned | what it configures is not built yet: a warning at start |
| ignored | it has no meaning here, for the reason given: a warning at start |
| refused | the node does not start with it, for the reason given; a value that asks for nothing is accepted |

Unknown keys get a warning, as in Kafka. Values that are out of range stop the start, and all of them are reported at once.
Keys of the form `listener.name.NAME.KEY` are known; values for a single listener have no effect yet.
A listener whose protocol is SSL or SASL_* stops the start until those are built.
";

/// The whole document.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (title, keys) in groups() {
        let _ = write!(text, "\n## {title}\n\n{BROKER_HEAD}");
        keys.iter().for_each(|key| broker_row(&mut text, key));
    }
    text.push_str("\n## Keys of a topic\n\nA topic without a value of its own has the first broker key that is set, or the default.\n\n");
    text.push_str("| key | type | default | allowed | unit | broker keys | effect | meaning |\n|---|---|---|---|---|---|---|---|\n");
    for key in TOPIC_KEYS {
        let broker_keys: Vec<String> = key.synonyms.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} |",
            key.name,
            key.kind.name(),
            default(key.default),
            allowed(key.kind, key.check),
            key.unit(),
            broker_keys.join(", "),
            effect(key.tier),
            key.doc,
        );
    }
    text
}

const BROKER_HEAD: &str = "| key | type | default | allowed | unit | topic key | update | effect | meaning |\n|---|---|---|---|---|---|---|---|---|\n";

fn broker_row(text: &mut String, key: &Key) {
    let topic = key.topic_synonym().map(|name| format!("`{name}`")).unwrap_or_default();
    let _ = writeln!(
        text,
        "| `{}` | {} | {} | {} | {} | {topic} | {} | {} | {} |",
        key.name,
        key.kind.name(),
        default(key.default),
        allowed(key.kind, key.check),
        key.unit(),
        key.mode.name(),
        effect(key.tier),
        key.doc,
    );
}

fn default(value: Option<&str>) -> String {
    match value {
        None => "–".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    }
}

fn allowed(kind: Kind, check: Check) -> String {
    match check {
        Check::Any if kind == Kind::Boolean => "true, false".to_owned(),
        Check::Any => String::new(),
        Check::Min(least) => format!("≥ {least}"),
        Check::Range(least, most) => format!("{least} … {most}"),
        Check::RangeOr(least, i64::MAX, or) => format!("≥ {least}, or {or}"),
        Check::RangeOr(least, most, or) => format!("{least} … {most}, or {or}"),
        Check::Share(least, most) => format!("{least} … {most}"),
        Check::OneOf(values) => values.join(", "),
        Check::OneOfAnyCase(values) => values.join(", ").to_lowercase(),
        Check::NonEmpty => "not empty".to_owned(),
        Check::ThrottledReplicas => "`*`, or partition:broker pairs".to_owned(),
    }
}

fn effect(tier: Tier) -> String {
    match tier {
        Tier::Honoured | Tier::Planned => tier.name().to_owned(),
        Tier::Ignored(reason) => format!("{}: {reason}", tier.name()),
        Tier::Refused { why, .. } => format!("{}: {why}", tier.name()),
    }
}
